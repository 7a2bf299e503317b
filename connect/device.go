package connect

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A device without a browser connects by a code that its user enters on another
// one (RFC 8628). The flow is stored like any other, with the device code in the
// place of the code verifier and its hash as ID. A note beside it says that the
// provider is to be asked, so that a restart or a reload goes on with it.

const (
	// deviceNotes is the prefix of these notes: device/FLOW/SECONDS, where
	// SECONDS is the interval.
	deviceNotes = "device/"
	// maxDevices bounds the devices that are waited for at the same time.
	maxDevices = 1000
	// maxDeviceLife bounds the life of a device code, whatever the provider says.
	maxDeviceLife = time.Hour
	// minInterval is the least time between two polls. "If no value is provided,
	// clients MUST use 5 as the default" (RFC 8628 section 3.2).
	minInterval     = time.Second
	defaultInterval = 5 * time.Second
	// maxInterval bounds what providers can ask for by slow_down and their errors.
	maxInterval = time.Minute
	// slowDown is by how much an interval grows (RFC 8628 section 3.5).
	slowDown = 5 * time.Second
)

// errDevices is returned by BeginDevice when it takes no more.
var errDevices = fmt.Errorf("too many devices are waited for, or a reload is under way: %w", tokenstore.ErrUnavailable)

// BeginDevice begins to connect c by a code that its user enters at the provider, on
// whatever device (RFC 8628), and returns what the user has to be told. It then
// waits for the provider behind the caller: c becomes ACTIVE, with nothing left
// to complete, or FAILED (user_denied, timeout, source_error, …).
//
// The error wraps errors.ErrUnsupported where the integration has no such thing,
// tokenstore.ErrNotFound where it is not configured, ErrUnavailable where too many
// are waited for or the Handler is closing, else what Provider.Device or the
// store returned.
func (h *Handler) BeginDevice(ctx context.Context, c tokenstore.Connection, scopes []string) (tokenstore.Device, error) {
	in, ok := h.integration(c.Integration)
	if !ok {
		return tokenstore.Device{}, fmt.Errorf("beginning a device flow: integration: %w", tokenstore.ErrNotFound)
	}
	if err := in.bind(c.Params); err != nil {
		return tokenstore.Device{}, fmt.Errorf("beginning a device flow: %w", err)
	}
	if in.Provider.Scheme() != tokenstore.AuthOAuth2 {
		return tokenstore.Device{}, fmt.Errorf("device flow of scheme %s: %w", in.Provider.Scheme(), errors.ErrUnsupported)
	}
	// Close waits until the flow is stored, so that the Handler that follows
	// finds it.
	asked := random()
	if began, _ := h.enter(asked); !began || h.waitedFor() >= maxDevices {
		if began {
			h.leave(asked)
		}
		return tokenstore.Device{}, errDevices
	}
	defer h.leave(asked)
	asking, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	if len(scopes) == 0 {
		scopes = c.RequestedScopes
	}
	scopes = tokenstore.UnionScopes(c.Token.Scopes, scopes)
	d, err := in.Provider.Device(asking, scopes)
	if err != nil {
		return tokenstore.Device{}, fmt.Errorf("asking for a device code: %w", err)
	}
	now := wallNow()
	f := tokenstore.Flow{
		ID: d.Code.Hash(), CodeVerifier: d.Code, Integration: in.Name, UserID: c.UserID,
		ConnectionID: c.ID, Reconnect: true, Params: c.Params, Scopes: scopes,
		Stage: tokenstore.FlowOpen, CreatedAt: now,
		ExpiresAt: now.Add(min(time.Duration(d.Life)*time.Second, maxDeviceLife)),
	}
	interval := defaultInterval
	if d.Interval > 0 {
		interval = min(max(time.Duration(d.Interval)*time.Second, minInterval), maxInterval)
	}
	d.Interval, d.Life = int(interval.Seconds()), int(f.ExpiresAt.Sub(now).Seconds())
	if err := h.storeDevice(ctx, &f, interval); err != nil {
		return tokenstore.Device{}, err
	}
	if err := h.await(ctx, f, interval); err != nil { // Resume takes it up
		h.log.Warn("device not waited for yet", zap.String("connection_id", f.ConnectionID), zap.Error(err))
	}
	return d, nil
}

func (h *Handler) waitedFor() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.devices
}

// storeDevice stores a device's flow, and lets its connection live as long.
func (h *Handler) storeDevice(ctx context.Context, f *tokenstore.Flow, interval time.Duration) error {
	if err := h.cfg.Store.CreateFlow(ctx, *f); err != nil {
		return fmt.Errorf("storing a device flow: %w", err)
	}
	_, err := h.cfg.Store.UpdateNote(ctx, deviceNote(f.ID, interval), func(n *tokenstore.Note) error {
		n.KeepUntil = f.KeepUntil()
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting a device flow: %w", err)
	}
	_, err = h.cfg.Store.UpdateConnection(ctx, f.ConnectionID, func(c *tokenstore.Connection) error {
		if c.Status != tokenstore.StatusInitiated {
			return tokenstore.ErrUnchanged
		}
		c.InitiatedUntil = f.ExpiresAt.Add(time.Minute) // the flow's own end comes first
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing the end of a device flow: %w", err)
	}
	return nil
}

func deviceNote(flowID string, interval time.Duration) string {
	return deviceNotes + flowID + "/" + strconv.Itoa(int(interval.Seconds()))
}

// Resume waits again for the devices that no Handler of this store waits for, and
// goes on with the answered flows that one has left. It is called whenever Recover
// is, by itself, and on the Handler that stays after another one was closed.
func (h *Handler) Resume(ctx context.Context) error {
	if err := h.resumeTaken(ctx); err != nil {
		return err
	}
	notes, err := h.cfg.Store.ListNotes(ctx, deviceNotes)
	if err != nil {
		return fmt.Errorf("listing devices that are waited for: %w", err)
	}
	for _, n := range notes {
		id, seconds, _ := strings.Cut(strings.TrimPrefix(n.ID, deviceNotes), "/")
		f, err := h.cfg.Store.Flow(ctx, id)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound), err == nil && f.Stage != tokenstore.FlowOpen:
			err = h.cfg.Store.DeleteNote(ctx, n.ID)
		case err == nil:
			interval, _ := strconv.Atoi(seconds)
			err = h.await(ctx, f, max(time.Duration(interval)*time.Second, minInterval))
		}
		if err != nil {
			return fmt.Errorf("resuming a device flow: %w", err)
		}
	}
	return nil
}

// await waits for a device behind its caller, until Close. It does nothing for
// one that is waited for already, here or by another process, or where the
// integration is not configured.
func (h *Handler) await(ctx context.Context, f tokenstore.Flow, interval time.Duration) error {
	in, ok := h.integration(f.Integration)
	if !ok || in.bind(f.Params) != nil {
		return nil //nolint:nilerr // one of its next starts may have it
	}
	hold, err := h.claim(ctx, f.ID)
	switch {
	case anothers(err):
		return nil
	case err != nil:
		return err
	case hold != nil: // whoever had it may have got an answer since it was read
		now, err := h.cfg.Store.Flow(ctx, f.ID)
		if err != nil || now.Stage != tokenstore.FlowOpen {
			h.leave(f.ID)
			return err
		}
		f = now
	}
	h.mu.Lock()
	h.devices++
	h.mu.Unlock()
	go func() { // ends with the flow, or with Close, which waits for it
		defer h.leave(f.ID)
		defer func() {
			h.mu.Lock()
			h.devices--
			h.mu.Unlock()
		}()
		ctx := context.WithoutCancel(ctx)
		if !h.poll(ctx, in, f, interval) {
			return
		}
		if err := h.cfg.Store.DeleteNote(ctx, deviceNote(f.ID, interval)); err != nil {
			h.log.Error("note of a device flow not removed", zap.String("connection_id", f.ConnectionID), zap.Error(err))
		}
	}()
	return nil
}

// poll asks the provider until it says yes or no, or the code has expired, and
// ends the flow. It reports false if the Handler was closed before that, or the
// flow is another process's by now.
func (h *Handler) poll(ctx context.Context, in Integration, f tokenstore.Flow, interval time.Duration) bool {
	end := func(x failure) bool {
		h.report(&f, *h.settle(ctx, &f, x, lanyard))
		return true
	}
	if f.Answer != nil { // it came, and then the program ended
		if wait, x := h.judgePoll(ctx, in, &f, interval); wait == 0 {
			return x == nil || end(*x)
		}
	}
	hold := h.holdOf(f.ID)
	for {
		timer := time.NewTimer(interval)
		select {
		case <-h.stop:
			timer.Stop()
			return false
		case <-hold.Lost():
			timer.Stop()
			return false
		case <-timer.C:
		}
		if !hold.Held() {
			return false
		}
		if !wallNow().Before(f.ExpiresAt) {
			return end(failure{code: codeTimeout})
		}
		c, err := h.cfg.Store.Connection(ctx, f.ConnectionID)
		revoked := err == nil && c.Status == tokenstore.StatusRevoked && c.UpdatedAt.After(f.CreatedAt)
		if revoked || errors.Is(err, tokenstore.ErrNotFound) {
			h.settle(ctx, &f, failure{code: codeTimeout}, lanyard) // nobody is left who would wait
			return true
		}
		asking, cancel := context.WithTimeout(ctx, exchangeLimit)
		a, err := in.Provider.PollDevice(asking, f.CodeVerifier)
		cancel()
		if err != nil { // "exponential backoff" (RFC 8628 section 3.5)
			h.log.Warn("device code not polled", zap.String("connection_id", f.ConnectionID), zap.Error(err))
			interval = min(2*interval, maxInterval)
			continue
		}
		f.Answer = &a
		wait, x := h.judgePoll(ctx, in, &f, interval)
		if wait == 0 {
			return x == nil || end(*x)
		}
		interval = wait
	}
}

// judgePoll goes on with what the provider answered, f.Answer. It returns a wait,
// after which to poll again, or zero where polling is over: with how the flow
// fails, which its caller has to end so, or nil where it has ended here.
func (h *Handler) judgePoll(ctx context.Context, in Integration, f *tokenstore.Flow, interval time.Duration) (wait time.Duration, x *failure) {
	a := *f.Answer
	if a.Status < 300 { // a token may be in it
		_, err := h.cfg.Store.UpdateFlow(ctx, f.ID, func(stored *tokenstore.Flow) error {
			if stored.Stage != tokenstore.FlowOpen {
				return tokenstore.ErrFlowUsed
			}
			stored.Answer = &a
			return nil
		})
		if err != nil {
			if t, err := in.Provider.Parse(a, tokenstore.Token{}, f.Scopes); err == nil {
				h.discard(ctx, f, brought{token: t})
			}
			return 0, &failure{codeProvisioning, fmt.Errorf("storing a device's answer: %w", err)}
		}
	}
	_, err := in.Provider.Parse(a, tokenstore.Token{}, f.Scopes)
	no, refused := errors.AsType[*tokenstore.RefusalError](err)
	unreadable, broken := errors.AsType[*tokenstore.UnreadableError](err)
	switch {
	case refused && no.Code == "authorization_pending":
		return interval, nil
	case refused && no.Code == "slow_down":
		return min(interval+slowDown, maxInterval), nil
	case refused && (no.Code == "access_denied" || in.Provider.Denied(no.Code)):
		return 0, &failure{codeUserDenied, err}
	case refused && no.Code == "expired_token":
		return 0, &failure{codeTimeout, err}
	case refused && no.Kind == tokenstore.RefusedForNow:
		return min(max(2*interval, no.RetryAfter), maxInterval), nil
	case broken && a.Status >= 500:
		return min(max(2*interval, unreadable.RetryAfter), maxInterval), nil
	}
	taken, err := h.cfg.Store.UpdateFlow(ctx, f.ID, func(f *tokenstore.Flow) error {
		f.Answer = &a
		return f.Take()
	})
	if err != nil {
		return 0, &failure{codeProvisioning, fmt.Errorf("taking a device flow: %w", err)}
	}
	// What is wrong with the answer is said, and the flow ended, in there.
	if !h.tryAnswer(ctx, &taken, in) {
		h.insist(ctx, taken.ID, in)
	}
	return 0, nil
}
