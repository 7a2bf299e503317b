package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Keeper does what concerns the store as a whole.
type Keeper interface {
	// HasBackup reports whether there is a Backup. There is none of a database,
	// which has tools for it.
	HasBackup() bool
	// Backup writes a backup of everything, as it stands at one moment, while
	// the store goes on. The error is w's, or the store's own.
	Backup(ctx context.Context, w io.Writer) error
	// Rekey begins, or goes on, to seal everything with the primary key that is
	// sealed with another one. It returns once that has begun.
	Rekey(ctx context.Context) error
	// Rekeying returns how far that is.
	Rekeying() Rekeying
}

// stream is an answer that is written as it comes to be.
type stream func(w http.ResponseWriter)

// streamPatience is how long a client may take no byte of a stream: the store
// keeps what a stream still needs.
const streamPatience = time.Minute

func (h *Handler) backup(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	if !h.cfg.Keeper.HasBackup() {
		return nil, &guard.Problem{
			Status: http.StatusConflict, Code: "backup_unsupported",
			Detail: "The store is a database. Back that up with its own tools, and keep a copy of the keyset elsewhere.",
		}
	}
	h.tellBackup(r, in)
	return h.sendSealed(r, "lanyard.backup", h.cfg.Keeper.Backup), nil
}

// sendSealed sends what write writes.
func (h *Handler) sendSealed(r *http.Request, name string, write func(context.Context, io.Writer) error) stream {
	return func(w http.ResponseWriter) {
		header := w.Header()
		header.Set("Content-Type", "application/octet-stream")
		header.Set("Content-Disposition", `attachment; filename="`+name+`"`)
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusOK)
			return
		}
		out := &streamWriter{to: w, control: http.NewResponseController(w)}
		err := write(r.Context(), out)
		_ = out.control.SetWriteDeadline(time.Time{}) // the connection may serve on
		switch {
		case err == nil:
			h.log.Info("backup taken", zap.String("file", name), zap.Int64("bytes", out.sent))
		case out.sent == 0:
			header.Del("Content-Disposition")
			h.storeProblem(err).Write(w)
		default:
			h.log.Error("backup cut off", zap.Int64("bytes", out.sent), zap.Error(err))
			panic(http.ErrAbortHandler) // so that it doesn't look like the end
		}
	}
}

// tellBackup writes that a backup is being read. What comes is sealed, and a
// store that can't write any more is when it is wanted most: then it is logged.
func (h *Handler) tellBackup(r *http.Request, in *input) {
	if r.Method == http.MethodHead {
		return
	}
	if err := h.cfg.Audit.Record(r.Context(), tokenstore.Event{Type: tokenstore.EventBackup, Actor: in.by}); err != nil {
		h.log.Warn("event not written", zap.String("event", string(tokenstore.EventBackup)),
			zap.String("actor", in.by.Name), zap.String("from", in.by.From), zap.Error(err))
	}
}

// streamWriter gives each write its time.
type streamWriter struct {
	to      http.ResponseWriter
	control *http.ResponseController
	sent    int64
}

func (s *streamWriter) Write(b []byte) (int, error) {
	_ = s.control.SetWriteDeadline(time.Now().Add(streamPatience)) // where there is a connection
	n, err := s.to.Write(b)                                        //nolint:gosec // G705: never HTML
	s.sent += int64(n)
	return n, err
}
