package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Freezer stops the store's writes, so that it can be moved to another place.
// Where the store is a database, all its methods that return an error return
// errors.ErrUnsupported.
type Freezer interface {
	// Freeze stops all writes once what is under way has ended, for a minute; with
	// the ID of a Freezing, for another one. It returns
	// tokenstore.ErrNotFrozen if that has ended.
	Freeze(ctx context.Context, id string) (Freezing, error)
	// Moved notes that the store is elsewhere, as `to` says: this one takes no
	// writes any more and does not open again. tokenstore.ErrNotFrozen is as above.
	Moved(ctx context.Context, id, to string) (Freezing, error)
	// Thaw lets writes begin again. It returns tokenstore.ErrMoved if the store was
	// moved.
	Thaw(ctx context.Context) (Freezing, error)
	// Freezing returns how it is.
	Freezing() Freezing
	// Export writes everything in the frozen store.
	Export(ctx context.Context, w io.Writer) error
}

// Freezing says whether the store takes writes.
type Freezing struct {
	// State is `open`, `frozen` or `moved`.
	State string `json:"state"`
	// ID is whom it is frozen for: whoever froze it gives it to stay frozen.
	ID      string     `json:"id,omitempty"`
	Until   *time.Time `json:"until,omitempty"` // it thaws then, unless it is frozen again
	MovedTo string     `json:"moved_to,omitempty"`
}

// maxPlace bounds the text that says where a store was moved to.
const maxPlace = 256

func (h *Handler) freezing(_ *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	return h.cfg.Freezer.Freezing(), nil
}

// freeze freezes, keeps frozen, or marks as moved.
func (h *Handler) freeze(r *http.Request, in *input) (any, *guard.Problem) {
	id, _ := in.text("id", maxCode)
	to, _ := in.text("moved_to", maxPlace)
	if to != "" && id == "" {
		in.refuse(invalidRequest("`moved_to` needs the `id` that freezing the store has given."))
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	if to != "" {
		return h.froze(h.cfg.Freezer.Moved(r.Context(), id, to))
	}
	if id == "" {
		err := h.cfg.Audit.Record(r.Context(), tokenstore.Event{Type: tokenstore.EventFrozen, Actor: in.by})
		if err != nil && !errors.Is(err, tokenstore.ErrReadOnly) { // it is frozen already, which was written down
			return nil, h.storeProblem(err)
		}
	}
	now, err := h.cfg.Freezer.Freeze(r.Context(), id)
	if err == nil && id == "" {
		h.log.Warn("store frozen: it takes no writes", zap.String("actor", in.by.Name))
	}
	return h.froze(now, err)
}

func (h *Handler) thaw(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	return h.froze(h.cfg.Freezer.Thaw(r.Context()))
}

func (h *Handler) froze(now Freezing, err error) (any, *guard.Problem) {
	switch {
	case err == nil:
		return now, nil
	case errors.Is(err, errors.ErrUnsupported):
		return nil, &guard.Problem{
			Status: http.StatusConflict, Code: "freeze_unsupported",
			Detail: "The store is a database, which `caddy lanyard migrate` freezes by itself for all who share it.",
		}
	case errors.Is(err, tokenstore.ErrNotFrozen):
		return nil, notFrozen()
	case errors.Is(err, tokenstore.ErrMoved):
		return nil, &guard.Problem{
			Status: http.StatusConflict, Code: "store_moved",
			Detail: "The store was moved to another place. Stop this Lanyard, and run the one that has the store now.",
		}
	}
	return nil, h.storeProblem(err)
}

func notFrozen() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusConflict, Code: "not_frozen",
		Detail: "The store is not frozen, or not by you any more: what was read of it may be old by now. Begin again.",
	}
}

// frozenRecords is everything in the frozen store, sealed.
func (h *Handler) frozenRecords(r *http.Request, in *input) (any, *guard.Problem) {
	id, _ := in.param("id", maxCode)
	if p := in.done(); p != nil {
		return nil, p
	}
	if now := h.cfg.Freezer.Freezing(); id == "" || now.State != "frozen" || now.ID != id {
		return nil, notFrozen()
	}
	return h.sendSealed(r, "lanyard.export", h.cfg.Freezer.Export), nil
}

// noFreezer is of a store that can't be frozen.
type noFreezer struct{}

func (noFreezer) Freeze(context.Context, string) (Freezing, error) {
	return Freezing{}, errors.ErrUnsupported
}

func (noFreezer) Moved(context.Context, string, string) (Freezing, error) {
	return Freezing{}, errors.ErrUnsupported
}

func (noFreezer) Thaw(context.Context) (Freezing, error)  { return Freezing{}, errors.ErrUnsupported }
func (noFreezer) Freezing() Freezing                      { return Freezing{State: "open"} }
func (noFreezer) Export(context.Context, io.Writer) error { return errors.ErrUnsupported }
