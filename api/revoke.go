package api

import (
	"net/http"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/revoke"
)

// revokedView is the answer to revoke and DELETE.
type revokedView struct {
	connectionView
	outcomeView
}

// outcomeView says what has come of a credential at its provider.
type outcomeView struct {
	ProviderRevoked       any    `json:"provider_revoked"` // true, false or "pending"
	ProviderRevokedReason string `json:"provider_revoked_reason,omitempty"`
}

func viewOutcome(out revoke.Outcome) outcomeView {
	if out.Pending {
		return outcomeView{ProviderRevoked: "pending"}
	}
	return outcomeView{ProviderRevoked: out.Done, ProviderRevokedReason: out.Reason}
}

// revoke erases the credential and keeps the record.
func (h *Handler) revoke(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	c, out, err := h.cfg.Revoker.Revoke(r.Context(), in.id, in.by)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	return revokedView{h.single(c), viewOutcome(out)}, nil
}

// remove deletes a connection.
func (h *Handler) remove(r *http.Request, in *input) (any, *guard.Problem) {
	asked := true
	switch value, given := in.param("revoke", maxName); {
	case !given, value == "true":
	case value == "false":
		asked = false
	default:
		in.refuse(invalidRequest("Query parameter `revoke` is neither true nor false."))
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	c, out, err := h.cfg.Revoker.Delete(r.Context(), in.id, in.by, asked)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	if c.Damaged {
		return struct {
			damagedView
			outcomeView
		}{viewDamaged(c), viewOutcome(out)}, nil
	}
	return revokedView{h.view(c), viewOutcome(out)}, nil
}
