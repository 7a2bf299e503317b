package connect_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const goodKey = "key_live_good_canary"

// withKeys makes `github` an integration with keys, of which goodKey is good.
func withKeys(b *bench) {
	b.p.scheme = tokenstore.AuthAPIKey
	b.p.fields = []tokenstore.Field{{Name: "api_key", Title: "API key", Pattern: "key_[a-z_]+", Secret: true}}
	b.p.credential = func(given map[string]string) (tokenstore.Token, tokenstore.Account, error) {
		if given["api_key"] != goodKey {
			return tokenstore.Token{}, tokenstore.Account{}, tokenstore.ErrCredentialRefused
		}
		return tokenstore.Token{AccessToken: secret.New(given["api_key"])}, ada, nil
	}
}

// form is a page with a form of ours that a browser has before it.
type form struct {
	br     *browser
	action string
	values url.Values
}

// form reads the page's form.
func (br *browser) form(w *httptest.ResponseRecorder, status int) form {
	br.b.t.Helper()
	f := form{br: br, values: url.Values{}}
	body := w.Body.String()
	for part := range strings.SplitSeq(body, "<form") {
		if _, rest, ok := strings.Cut(part, `action="/connect/`); ok {
			f.action, _, _ = strings.Cut(rest, `"`)
		}
	}
	for _, in := range inputs(br.b.t, body) {
		f.values.Add(in["name"], in["value"])
	}
	if w.Code != status || f.action == "" || f.values.Get("state") == "" {
		br.b.t.Fatalf("got %d %s\n%s\nwant %d and a form", w.Code, w.Header().Get("Location"), body, status)
	}
	return f
}

func (f form) send(pairs ...string) *httptest.ResponseRecorder {
	for pair := range slices.Chunk(pairs, 2) {
		f.values.Set("field_"+pair[0], pair[1])
	}
	return f.br.post(public+"/connect/"+f.action, f.values, false)
}

// wantOnward checks the page that leads from a form to the app.
func wantOnward(t *testing.T, w *httptest.ResponseRecorder, errc string) url.Values {
	t.Helper()
	_, _, targets := read(t, w.Body.String())
	i := slices.IndexFunc(targets, func(target string) bool { return strings.HasPrefix(target, appURL+"?") })
	if w.Code != http.StatusOK || w.Header().Get("Location") != "" || i < 0 {
		t.Fatalf("got %d %v\n%s\nwant a page that leads on", w.Code, w.Header(), w.Body)
	}
	onward := httptest.NewRecorder()
	onward.Header().Set("Location", targets[i])
	onward.WriteHeader(http.StatusSeeOther)
	return wantApp(t, onward, errc)
}

func TestKey(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	f := br.form(br.get(b.link()), 200)
	if len(b.p.asked) != 0 || f.action != "key" {
		t.Errorf("form to %s, %d authorization requests", f.action, len(b.p.asked))
	}
	// What has not the form is not tried.
	for _, value := range []string{"", "  ", "other"} {
		f = br.form(f.send("api_key", value), 422)
	}
	if b.p.tried() != 0 {
		t.Errorf("%d keys were tried", b.p.tried())
	}
	// What is refused is not said again.
	w := f.send("api_key", "key_wrong_canary")
	f = br.form(w, 422)
	if body := w.Body.String(); strings.Contains(body, "key_wrong") || !strings.Contains(body, "nary") {
		t.Errorf("the page says the key, or not its end:\n%s", body)
	}
	q := wantOnward(t, f.send("api_key", " "+goodKey+"\r\n"), "")
	c := b.connection(q.Get("connection_id"))
	if c.Status != tokenstore.StatusInitiated || c.Staged == nil || c.Staged.Account != ada || c.AuthScheme != tokenstore.AuthAPIKey {
		t.Errorf("connection %+v", c)
	}
	if c = b.complete(c.ID, q.Get("completion_code")); c.Token.AccessToken.Reveal() != goodKey || c.Account != ada {
		t.Errorf("connection %+v", c)
	}
	if again := wantOnward(t, f.send("api_key", goodKey), ""); again.Get("completion_code") != q.Get("completion_code") {
		t.Errorf("sent once more, the app gets %v", again)
	}
	if b.p.tried() != 2 {
		t.Errorf("%d keys were tried", b.p.tried())
	}
	if out := b.bodies.String() + fmt.Sprint(b.logs.All()); strings.Contains(out, goodKey) || strings.Contains(out, "key_wrong_c") {
		t.Error("a key stands in what went out, or in the log")
	}

	// Reconnecting keeps to the account.
	b.p.credential = func(map[string]string) (tokenstore.Token, tokenstore.Account, error) {
		return live("other"), grace, nil
	}
	w = br.form(br.get(b.link(onConnection(c))), 200).send("api_key", goodKey)
	wantMismatch(t, w)
	if got := b.connection(c.ID); got.Revision != c.Revision {
		t.Errorf("connection %+v", got)
	}
}

func TestKeyEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want string // empty: the form again
	}{
		"refused":        {fmt.Errorf("x: %w", tokenstore.ErrCredentialRefused), ""},
		"not of a form":  {fmt.Errorf("x: %w", tokenstore.ErrCredentialInvalid), ""},
		"grant":          {&tokenstore.RefusalError{Kind: tokenstore.RefusedGrant}, ""},
		"not answered":   {fmt.Errorf("x: %w", tokenstore.ErrOutcomeUnknown), ""},
		"later":          {&tokenstore.RefusalError{Kind: tokenstore.RefusedForNow}, ""},
		"client refused": {&tokenstore.RefusalError{Kind: tokenstore.RefusedClient}, "source_error"},
		"scope":          {&tokenstore.RefusalError{Kind: tokenstore.RefusedScope}, "invalid_scope"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, withKeys)
			b.p.credential = func(map[string]string) (tokenstore.Token, tokenstore.Account, error) {
				return tokenstore.Token{}, tokenstore.Account{}, tt.err
			}
			br := b.browser()
			f := br.form(br.get(b.link()), 200)
			if tt.want != "" {
				wantOnward(t, f.send("api_key", goodKey), tt.want)
				return
			}
			// With the fifth the flow ends, and is tried no more.
			for range 4 {
				f = br.form(f.send("api_key", goodKey), 422)
			}
			wantOnward(t, f.send("api_key", goodKey), "source_error")
			wantPage(t, f.send("api_key", goodKey), 400, "state_used")
			if b.p.tried() != 5 {
				t.Errorf("%d tries", b.p.tried())
			}
		})
	}
}

// TestKeyTryInterrupted: a try that a crash cut short counts.
func TestKeyTryInterrupted(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	f := br.form(br.get(b.link()), 200)
	_, err := b.store.UpdateFlow(t.Context(), secretHash(f.values.Get("state")), func(f *tokenstore.Flow) error {
		f.Tries = 5
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOnward(t, f.send("api_key", goodKey), "source_error")
	if b.p.tried() != 0 {
		t.Errorf("%d tries", b.p.tried())
	}
}

// TestKeyTriesAreLimited: a signed link, opened again and again, is no way to
// try keys.
func TestKeyTriesAreLimited(t *testing.T) {
	b := newBench(t, withKeys)
	for range 3 {
		br := b.browser()
		f := br.form(br.get(b.link()), 200)
		for range 4 {
			f.send("api_key", "key_wrong")
		}
	}
	if n := b.p.tried(); n != 10 {
		t.Errorf("%d tries, want 10", n)
	}
}

// TestKeyForged: only the page in the flow's own browser can send it.
func TestKeyForged(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	f := br.form(br.get(b.link()), 200)
	f.values.Set("field_api_key", goodKey)
	wantPage(t, br.post(public+"/connect/key", f.values, true), 400, "browser_mismatch")
	wantPage(t, br.post(public+"/connect/key", url.Values{"state": {"guessed"}, "field_api_key": {goodKey}}, false), 400, "state_invalid")
	wantPage(t, br.get(public+"/connect/key?"+f.values.Encode()), 404, "not_found")
	if b.p.tried() != 0 {
		t.Errorf("%d tries", b.p.tried())
	}
	wantOnward(t, f.send(), "")

	// A flow with an authorization endpoint takes no key.
	b = newBench(t)
	br = b.browser()
	state := br.open(b.link())
	wantPage(t, br.post(public+"/connect/key", url.Values{"state": {state}, "field_api_key": {"x"}}, false), 400, "state_invalid")
	if b.flow(state).Stage != tokenstore.FlowOpen {
		t.Errorf("flow %+v", b.flow(state))
	}
}

func TestKeyWithoutApp(t *testing.T) {
	b := newBench(t, noRedirects, withKeys)
	br := b.browser()
	w := br.form(br.get(b.link()), 200).send("api_key", goodKey)
	if c := b.connections(); w.Code != 200 || len(c) != 1 || c[0].Status != tokenstore.StatusActive || c[0].Account != ada {
		t.Errorf("%d, connections %+v", w.Code, c)
	}
	b = newBench(t, withKeys)
	br = b.browser()
	q := wantForm(t, br.form(br.get(b.link(formPost)), 200).send("api_key", goodKey))
	if q.Get("completion_code") == "" {
		t.Errorf("the app gets %v", q)
	}
}

// TestKeyTwice: what is sent twice at once is tried once, and the browser gets
// the one answer with the second, since it has given up the first.
func TestKeyTwice(t *testing.T) { synctest.Test(t, testKeyTwice) }

func testKeyTwice(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	f := br.form(br.get(b.link()), 200)
	good := b.p.credential
	second := b.browser()
	maps.Copy(second.jar, br.jar)
	again := make(chan *httptest.ResponseRecorder)
	b.p.credential = func(given map[string]string) (tokenstore.Token, tokenstore.Account, error) {
		go func() { again <- form{second, f.action, f.values}.send("api_key", goodKey) }()
		synctest.Wait() // until it waits
		return good(given)
	}
	first := wantOnward(t, f.send("api_key", goodKey), "")
	if q := wantOnward(t, <-again, ""); q.Get("completion_code") != first.Get("completion_code") {
		t.Errorf("the app gets %v, then %v", first, q)
	}
	// Nor does it matter that the first has ended and was read, for the same browser.
	wantPage(t, form{b.browser(), f.action, f.values}.send("api_key", goodKey), 400, "state_used")
	if q := wantOnward(t, form{br, f.action, f.values}.send("api_key", goodKey), ""); q.Get("completion_code") != first.Get("completion_code") {
		t.Errorf("the app gets %v, then %v", first, q)
	}
	if b.p.tried() != 1 || len(b.connections()) != 1 {
		t.Errorf("%d tries, connections %+v", b.p.tried(), b.connections())
	}
}

func TestKeyTimeout(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	f := br.form(br.get(b.link()), 200)
	_, err := b.store.UpdateFlow(t.Context(), secretHash(f.values.Get("state")), func(f *tokenstore.Flow) error {
		f.ExpiresAt = time.Now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOnward(t, f.send("api_key", goodKey), "timeout")
	if b.p.tried() != 0 {
		t.Errorf("%d tries", b.p.tried())
	}
}

// TestPassword: values that are no secret stay in the form.
func TestPassword(t *testing.T) {
	b := newBench(t, withKeys)
	b.p.scheme = tokenstore.AuthBasic
	b.p.fields = []tokenstore.Field{{Name: "username"}, {Name: "password", Secret: true}, {Name: "more", Optional: true}}
	b.p.credential = func(map[string]string) (tokenstore.Token, tokenstore.Account, error) {
		return tokenstore.Token{}, tokenstore.Account{}, tokenstore.ErrCredentialRefused
	}
	br := b.browser()
	w := br.form(br.get(b.link()), 200).send("username", `ada"<b>`, "password", " long-password-canary ")
	f := br.form(w, 422)
	if f.values.Get("field_username") != `ada"<b>` || strings.Contains(w.Body.String(), "canary") || strings.Contains(w.Body.String(), "<b>") {
		t.Errorf("page:\n%s", w.Body)
	}
	want := []map[string]string{{"username": `ada"<b>`, "password": " long-password-canary "}}
	if diff := cmp.Diff(want, b.p.given); diff != "" {
		t.Errorf("given (-want +got):\n%s", diff)
	}
}

// TestClientCredentials: there is nothing to enter, and a button to press.
func TestClientCredentials(t *testing.T) {
	b := newBench(t)
	b.p.scheme = tokenstore.AuthClientCredentials
	b.p.credential = func(map[string]string) (tokenstore.Token, tokenstore.Account, error) {
		return tokenstore.Token{AccessToken: secret.New("t"), RefreshToken: tokenstore.ClientCredentials}, tokenstore.Account{}, nil
	}
	br := b.browser()
	q := wantOnward(t, br.form(br.get(b.link()), 200).send(), "")
	c := b.connection(q.Get("connection_id"))
	if c.AuthScheme != tokenstore.AuthClientCredentials || !c.Staged.Token.RefreshToken.Equal(tokenstore.ClientCredentials) {
		t.Errorf("connection %+v", c)
	}
}

// TestClosingWaitsForKeys: what is being tried is brought to its end.
func TestClosingWaitsForKeys(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	f := br.form(br.get(b.link()), 200)
	good, trying, goOn := b.p.credential, make(chan struct{}), make(chan struct{})
	b.p.credential = func(given map[string]string) (tokenstore.Token, tokenstore.Account, error) {
		close(trying)
		<-goOn
		return good(given)
	}
	var all sync.WaitGroup
	var w *httptest.ResponseRecorder
	all.Go(func() { w = f.send("api_key", goodKey) })
	<-trying
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.h.Close(ended); err == nil {
		t.Error("Close() did not wait")
	}
	close(goOn)
	if err := b.h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	all.Wait()
	wantOnward(t, w, "")
	b.remake()
	f = br.form(br.get(b.link()), 200)
	if err := b.h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wantPage(t, f.send("api_key", goodKey), 503, "unavailable")
}

// TestScopesOfAKey: a link asks an integration with keys for scopes, of which no
// key has any to grant.
func TestScopesOfAKey(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	w := br.get(b.link(func(p *connect.Params) { p.Scopes = []string{"repo"} }))
	if w.Code != 200 {
		return // refused: as the API does
	}
	q := wantOnward(t, br.form(w, 200).send("api_key", goodKey), "")
	if c := b.complete(q.Get("connection_id"), q.Get("completion_code")); len(c.MissingScopes()) > 0 {
		t.Errorf("scopes asked for %v, and missing for ever %v", c.RequestedScopes, c.MissingScopes())
	}
}
