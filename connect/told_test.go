package connect_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// realm has the provider tell realm_id by the authorization response, and refuse
// one that has no number there.
func realm(rawQuery string) (map[string]string, error) {
	q, err := url.ParseQuery(rawQuery)
	if err != nil || len(q["realmId"]) != 1 || strings.Trim(q.Get("realmId"), "0123456789") != "" {
		return nil, errors.New("realmId is not of its form")
	}
	return map[string]string{"realm_id": q.Get("realmId")}, nil
}

// What the provider tells beside the code, and when it is asked whose account it
// is, waits with the credential and becomes live with it; a reconnect brings it
// anew, and one that fails changes nothing.
func TestTold(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	b.p.callback, b.p.tells = realm, map[string]string{"dc": "us1"}
	b.p.as(ada)
	q := wantApp(t, br.callback(br.open(b.link()), "code", codeText, "realmId", "1"), "")
	id := q.Get("connection_id")
	want := map[string]string{"realm_id": "1", "dc": "us1"}
	if c := b.connection(id); c.Staged == nil || c.Token.Metadata != nil || !cmp.Equal(c.Staged.Token.Metadata, want) {
		t.Errorf("connection %+v", c)
	}
	c := b.complete(id, q.Get("completion_code"))
	if diff := cmp.Diff(want, c.Token.Metadata); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	wantApp(t, br.callback(br.open(b.link(onConnection(c))), "code", codeText, "realmId", "x"), "source_error")
	if got := b.connection(id); got.Revision != c.Revision {
		t.Errorf("connection changed: %+v", got)
	}
	b.p.tells = nil
	q = wantApp(t, br.callback(br.open(b.link(onConnection(c))), "code", codeText, "realmId", "2"), "")
	c = b.complete(id, q.Get("completion_code"))
	if diff := cmp.Diff(map[string]string{"realm_id": "2"}, c.Token.Metadata); diff != "" {
		t.Errorf("told by the reconnect (-want +got):\n%s", diff)
	}
}

// A response that is not the provider's ends the flow, and its code is redeemed
// neither then nor later.
func TestCallbackRefused(t *testing.T) {
	for name, more := range map[string][]string{
		"missing":        {"code", codeText},
		"twice":          {"code", codeText, "realmId", "1", "realmId", "2"},
		"not its form":   {"code", codeText, "realmId", "evil-canary.test/"},
		"by a post, too": {"code", codeText, "realmId", "evil-canary.test/"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.p.callback = realm
			br := b.browser()
			state := br.open(b.link())
			form := url.Values{"state": {state}}
			for i := 0; i < len(more); i += 2 {
				form.Add(more[i], more[i+1])
			}
			var w *httptest.ResponseRecorder
			if strings.HasPrefix(name, "by a post") {
				w = br.follow(form)
			} else {
				w = br.get(public + "/callback/github?" + form.Encode())
			}
			wantApp(t, w, "source_error")
			if b.flow(state).Outcome != "source_error" || b.p.exchanged() != 0 || len(b.connections()) != 0 {
				t.Errorf("flow %+v, %d exchanges, connections %v", b.flow(state), b.p.exchanged(), b.connections())
			}
			wantPage(t, br.callback(state, "code", codeText, "realmId", "1"), 400, "state_used")
			for _, entry := range b.logs.All() {
				if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "canary") {
					t.Errorf("the log has %s", text)
				}
			}
		})
	}
}

// A pair that can't be read, which no one asked for, keeps nobody from connecting.
func TestCallbackUnreadablePair(t *testing.T) {
	b := newBench(t)
	b.p.callback = realm
	br := b.browser()
	wantApp(t, br.get(callbackURL("state", br.open(b.link()), "code", codeText, "realmId", "1")+"&x=%zz&y=1;2"), "")
}

// An error is told as it is, whatever else the provider leaves out then.
func TestCallbackErrorTellsNothing(t *testing.T) {
	b := newBench(t)
	b.p.callback = realm
	br := b.browser()
	wantApp(t, br.callback(br.open(b.link()), "error", "access_denied"), "user_denied")
}

// Some providers have the code elsewhere. It is one there, and `code` is then
// nothing.
func TestCodeParam(t *testing.T) {
	for name, post := range map[string]bool{"in the query": false, "posted": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.p.codeParam = "auth_code"
			br := b.browser()
			send := func(form url.Values) *httptest.ResponseRecorder {
				if post && form["auth_code"] != nil && len(form["auth_code"]) == 1 {
					return br.follow(form)
				}
				return br.get(public + "/callback/github?" + form.Encode())
			}
			state := br.open(b.link())
			wantPage(t, send(url.Values{"state": {state}, "code": {"x"}}), 400, "state_invalid")
			wantPage(t, send(url.Values{"state": {state}, "auth_code": {"x", "y"}}), 400, "state_invalid")
			wantApp(t, send(url.Values{"state": {state}, "auth_code": {codeText}, "code": {"elsewhere"}}), "")
			if b.p.exchanged() != 1 || b.p.exchanges[0].Code != codeText {
				t.Errorf("exchanges %v", b.p.exchanges)
			}
		})
	}
}

// What was posted reaches the provider's reading whole: a signature is over all
// of it.
func TestPostedCallbackIsWhole(t *testing.T) {
	b := newBench(t)
	var seen url.Values
	b.p.callback = func(rawQuery string) (map[string]string, error) {
		seen, _ = url.ParseQuery(rawQuery)
		return nil, nil
	}
	br := b.browser()
	form := url.Values{"state": {br.open(b.link())}, "code": {codeText}, "shop": {"acme"}, "hmac": {"0123456789abcdef"}, "timestamp": {"1700000000"}}
	wantApp(t, br.follow(form), "")
	if diff := cmp.Diff(form, seen); diff != "" {
		t.Errorf("the response (-posted +read):\n%s", diff)
	}
}

// Apps that are installed at the provider come back without a state: a GitHub
// App's setup, Sentry's installation. They get a page, and nothing changes, not
// even in the middle of a flow.
func TestCallbackWithoutState(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	before := b.flow(state)
	for _, query := range []string{
		"code=x&installation_id=1&setup_action=install",
		"installation_id=1&setup_action=request",
		"code=x&installationId=7c1a&orgSlug=acme",
		"code=x&state=",
		"", "%", "&&=",
	} {
		w := br.get(public + "/callback/github?" + query)
		wantPage(t, w, 400, "state_invalid")
		if !strings.Contains(w.Body.String(), "start again from there") {
			t.Errorf("%q: the page does not say what to do:\n%s", query, w.Body)
		}
	}
	if diff := cmp.Diff(before, b.flow(state), cmp.AllowUnexported(secret.String{})); diff != "" || b.p.exchanged() != 0 {
		t.Errorf("%d exchanges, flow (-before +after):\n%s", b.p.exchanged(), diff)
	}
	wantApp(t, br.callback(state), "")
}

// needed is the error of a provider whose API is somewhere that only the account
// request tells.
func needed(cause error) error { return fmt.Errorf("%w: %w", tokenstore.ErrAccountNeeded, cause) }

// Where nothing can be called before the account is known, it is asked for a few
// times; without it the flow fails, and the credential is ended.
func TestAccountNeeded(t *testing.T) {
	later := &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Status: 429}
	for name, tt := range map[string]struct {
		fails []error // of the first requests
		tries int
		ends  string // the flow's outcome
	}{
		"at once":            {nil, 1, "connected"},
		"passing trouble":    {[]error{needed(tokenstore.ErrOutcomeUnknown), needed(later), needed(tokenstore.ErrNotSent)}, 4, "connected"},
		"lasting trouble":    {slices.Repeat([]error{needed(tokenstore.ErrOutcomeUnknown)}, 9), 4, "source_error"},
		"refused":            {slices.Repeat([]error{needed(tokenstore.ErrCredentialRefused)}, 9), 1, "source_error"},
		"cannot be asked":    {slices.Repeat([]error{needed(errors.ErrUnsupported)}, 9), 1, "source_error"},
		"nothing depends":    {slices.Repeat([]error{tokenstore.ErrOutcomeUnknown}, 9), 1, "connected"},
		"nothing depends, 2": {slices.Repeat([]error{errors.ErrUnsupported}, 9), 1, "connected"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, noCompletion)
				asked, began := 0, time.Now()
				b.p.account = func() (tokenstore.Account, error) {
					if asked++; asked <= len(tt.fails) {
						return tokenstore.Account{}, tt.fails[asked-1]
					}
					return ada, nil
				}
				b.p.tells = map[string]string{"cloud_id": "c1"}
				br := b.browser()
				state := br.open(b.link())
				br.callback(state)
				if b.flow(state).Outcome != tt.ends || asked != tt.tries || time.Since(began) > 10*time.Second {
					t.Errorf("asked %d times in %v, flow %+v", asked, time.Since(began), b.flow(state))
				}
				all := b.connections()
				switch {
				case tt.ends != "connected" && (len(all) != 0 || len(b.p.revoked) != 1):
					t.Errorf("connections %+v, revoked %v", all, b.p.revoked)
				case tt.ends == "connected" && (len(all) != 1 || len(b.p.revoked) != 0):
					t.Errorf("connections %+v, revoked %v", all, b.p.revoked)
				case tt.ends == "connected" && tt.tries > len(tt.fails) && all[0].Token.Metadata["cloud_id"] != "c1":
					t.Errorf("told %v", all[0].Token.Metadata)
				}
			})
		})
	}
}

// A reconnect that can't find out leaves the live credential alone.
func TestAccountNeededByReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, noCompletion)
		c := b.create(tokenstore.Connection{Status: tokenstore.StatusActive, Token: live("old")})
		b.p.account = func() (tokenstore.Account, error) { return tokenstore.Account{}, needed(tokenstore.ErrNotSent) }
		br := b.browser()
		wantApp(t, br.callback(br.open(b.link(onConnection(c)))), "source_error")
		if got := b.connection(c.ID); got.Revision != c.Revision || len(b.p.revoked) != 1 {
			t.Errorf("connection %+v, revoked %v", got, b.p.revoked)
		}
	})
}

// A crash behind the code's answer loses nothing that the callback told.
func TestRecoverTold(t *testing.T) {
	b := newBench(t, noCompletion)
	state := b.browser().open(b.link())
	_, err := b.store.UpdateFlow(t.Context(), secretHash(state), func(f *tokenstore.Flow) error {
		f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("recovered"), Callback: map[string]string{"realm_id": "1"}}
		return f.Take()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.h.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := b.connection(b.flow(state).ConnectionID); c.Token.Metadata["realm_id"] != "1" {
		t.Errorf("connection %+v", c)
	}
}

// A device's account tells what a browser's does.
func TestDeviceTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(t)
		b.p.as(ada)
		b.p.tells = map[string]string{"cloud_id": "c1"}
		b.p.answers()
		c := b.begun()
		if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := b.connection(c.ID); got.Status != tokenstore.StatusActive || got.Token.Metadata["cloud_id"] != "c1" {
			t.Errorf("connection %+v", got)
		}
	})
}

// A provisional token is due in the write that makes it live, and no sooner.
func TestProvisionalIsDue(t *testing.T) {
	b := newBench(t)
	b.p.provisional = true
	br := b.browser()
	due := func() []string {
		ids, err := b.store.DueConnections(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	q := wantApp(t, br.callback(br.open(b.link())), "")
	if ids := due(); len(ids) != 0 {
		t.Errorf("due before it is complete: %v", ids)
	}
	c := b.complete(q.Get("connection_id"), q.Get("completion_code"))
	if diff := cmp.Diff([]string{c.ID}, due()); diff != "" || !c.Token.Provisional {
		t.Errorf("connection %+v, due (-want +got):\n%s", c, diff)
	}
}
