package connect

import (
	"context"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What browsers may do, by how much at once and how often from then on. The
// numbers let an office behind one address connect at the same time, and a user
// with many tabs, and make nothing worth trying over and over.
const (
	requestBurst = 60
	requestEvery = time.Second / 5
	// Links that were not signed and states that were never given out.
	guessBurst = 20
	guessEvery = time.Second
	// Flows of one user at one integration, which are stored for a day: one
	// signed link, opened over and over, must not fill the store.
	flowBurst = 20
	flowEvery = 6 * time.Second
	// Credentials that one user enters for one integration, whatever the flow: a
	// signed link is no way to try keys at a provider.
	tryBurst = 10
	tryEvery = 6 * time.Second
)

// Audit takes what strangers can cause at will, and bounds what is written of
// it. *audit.Log implements it.
type Audit interface {
	Refused(ctx context.Context, e tokenstore.Event)
}

// limits are what is left to whom of what browsers may do.
type limits struct {
	requests *guard.Buckets // by network
	guesses  *guard.Buckets // by network
	flows    *guard.Buckets // by integration and user
	tries    *guard.Buckets // by integration and user
}

func newLimits() limits {
	return limits{
		requests: guard.NewBuckets(requestEvery, requestBurst),
		guesses:  guard.NewBuckets(guessEvery, guessBurst),
		flows:    guard.NewBuckets(flowEvery, flowBurst),
		tries:    guard.NewBuckets(tryEvery, tryBurst),
	}
}

// from returns the address that r came from, as it stands in events.
func (h *Handler) from(r *http.Request) string {
	if h.cfg.ClientIP != nil {
		if ip, err := netip.ParseAddr(h.cfg.ClientIP(r)); err == nil {
			return ip.Unmap().WithZone("").String()
		}
	}
	return guard.From(r)
}

func (h *Handler) browser(r *http.Request) tokenstore.Actor {
	return tokenstore.Actor{Kind: tokenstore.ActorBrowser, From: h.from(r)}
}

// guess answers a request that shows nothing that Lanyard gave out: no signed
// link, no known state.
func (h *Handler) guess(w http.ResponseWriter, r *http.Request, x failure) {
	if wait := h.limits.guesses.Take(guard.Network(h.from(r))); wait > 0 {
		h.tooMany(w, r, &tokenstore.Flow{}, wait)
		return
	}
	h.refused(r, &tokenstore.Flow{}, x.code)
	h.refuse(w, r, x)
}

// tooMany answers a request that has to wait. Nothing has come of it: loading
// it again later does what it would have done.
func (h *Handler) tooMany(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	h.refused(r, f, codeRateLimited)
	h.page(w, r, f, failure{code: codeRateLimited})
}

// refused tells the audit log of a request that was refused and changed
// nothing. What f says may be no more than what the link said.
func (h *Handler) refused(r *http.Request, f *tokenstore.Flow, code string) {
	if h.cfg.Audit == nil {
		return
	}
	e := ended(f, code, h.browser(r))
	if _, ok := h.cfg.Integrations[e.Integration]; !ok {
		e.Integration = ""
	}
	if !tokenstore.IsID(e.ConnectionID) {
		e.ConnectionID = ""
	}
	e.Denied = true
	h.cfg.Audit.Refused(r.Context(), e)
}

// ended is the event of a flow that ended without a credential.
func ended(f *tokenstore.Flow, code string, by tokenstore.Actor) tokenstore.Event {
	return tokenstore.Event{
		Type: tokenstore.EventFlowEnded, ConnectionID: f.ConnectionID, Integration: f.Integration, UserID: f.UserID,
		Actor: by, Reason: code, Denied: code == codeBrowserMismatch || code == codeIssuerMismatch || code == codeAccountMismatch,
	}
}
