package connect_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestConnectWithCompletion(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	w := br.get(b.link(func(p *connect.Params) {
		p.ConnectionName, p.Labels, p.Scopes = "my name", map[string]string{"k": "v"}, []string{"read"}
	}))
	loc := mustURL(w.Header().Get("Location"))
	if w.Code != http.StatusSeeOther || loc.Host != "idp.example" || loc.Query().Get("scope") != "read" {
		t.Fatalf("opening the link = %d %s", w.Code, loc)
	}
	if got := b.connections(); len(got) != 0 {
		t.Fatalf("opening the link stored %+v", got)
	}
	state := loc.Query().Get("state")
	f := b.flow(state)
	if len(state) != 43 || strings.Contains(f.ID, state) || len(br.jar) != 1 {
		t.Errorf("state %q, flow %q, cookies %v", state, f.ID, br.jar)
	}

	q := wantApp(t, br.callback(state, "code", codeText, "session_state", "x"), "")
	c := b.connection(q.Get("connection_id"))
	if c.Status != tokenstore.StatusInitiated || !c.Token.AccessToken.IsZero() || c.Staged == nil {
		t.Errorf("connection is %+v, want a staged credential", c)
	}
	if c.UserID != "u1" || c.Integration != "github" || c.Provider != "github-cat" || c.Name != "my name" || c.Labels["k"] != "v" ||
		c.AuthScheme != tokenstore.AuthOAuth2 || c.RedirectURL != appURL || c.LastFlow != f.ID {
		t.Errorf("connection is %+v", c)
	}
	if len(br.jar) != 0 {
		t.Errorf("cookie of an ended flow stays: %v", br.jar)
	}
	ex := b.p.exchanges
	if len(ex) != 1 || ex[0].Code != codeText || len(ex[0].Verifier) != 43 {
		t.Errorf("exchanges = %v", ex)
	}
	if f := b.flow(state); f.Stage != tokenstore.FlowFinished || f.Outcome != "connected" || f.Answer != nil || !f.CodeVerifier.IsZero() {
		t.Errorf("flow is %+v", f)
	}
	if err := c.Complete(secret.New(q.Get("completion_code")), "u1", time.Now()); err != nil || c.Status != tokenstore.StatusActive {
		t.Errorf("Complete() = %v, connection %s", err, c.Status)
	}
	if c.Token.AccessToken.Reveal() != "token-canary-1" || !slices.Equal(c.RequestedScopes, []string{"read"}) {
		t.Errorf("token %q, requested %v", c.Token.AccessToken.Reveal(), c.RequestedScopes)
	}
}

func TestConnectWithoutCompletion(t *testing.T) {
	b := newBench(t, noCompletion)
	br := b.browser()
	q := wantApp(t, br.callback(br.open(b.link())), "")
	c := b.connection(q.Get("connection_id"))
	if c.Status != tokenstore.StatusActive || c.Staged != nil || c.Token.Generation != 1 || q.Has("completion_code") {
		t.Errorf("connection is %+v, app gets %v", c, q)
	}
}

func TestConnectWithoutApp(t *testing.T) {
	b := newBench(t, noRedirects)
	br := b.browser()
	w := br.get(b.link())
	for _, s := range []string{"Acme Planner", "GitHub", "u1", "idp.example"} {
		if !strings.Contains(w.Body.String(), s) {
			t.Errorf("review page does not name %s:\n%s", s, w.Body)
		}
	}
	b.p.scopes = []string{"read"}
	w = br.callback(br.open(b.link()))
	all := b.connections()
	if w.Code != 200 || len(all) != 1 || all[0].Status != tokenstore.StatusActive {
		t.Fatalf("got %d, connections %+v", w.Code, all)
	}
	for _, s := range []string{"GitHub is connected", "Not allowed", "write", "u1"} {
		if !strings.Contains(w.Body.String(), s) {
			t.Errorf("success page does not say %q:\n%s", s, w.Body)
		}
	}
}

func TestReview(t *testing.T) {
	b := newBench(t)
	b.integration(func(in *connect.Integration) { in.Review = true })(b)
	b.p.texts = map[string]string{"read": "See your profile"}
	b.remake()
	br := b.browser()
	w := br.get(b.link())
	body := w.Body.String()
	if w.Code != 200 || !strings.Contains(body, "See your profile") || !strings.Contains(body, `<code class="chip">write</code>`) ||
		!strings.Contains(body, "no description") || strings.Contains(body, "<form") {
		t.Errorf("review page is %d\n%s", w.Code, body)
	}
	if !strings.Contains(body, `href="`+appURL+`?error=user_denied&amp;error_description=The%20user%20declined`) {
		t.Errorf("no way to cancel:\n%s", body)
	}
	wantApp(t, br.callback(br.open(b.link())), "")
}

func TestChoose(t *testing.T) {
	b := newBench(t)
	b.cfg.Integrations["other"] = connect.Integration{Name: "other", Title: "Other <b>", Provider: b.p}
	b.remake()
	br := b.browser()
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	w := br.get(b.signer.Sign(connect.Params{UserID: "u2", RedirectURL: appURL, State: "app-state"}, expires))
	body := w.Body.String()
	if w.Code != 200 || !strings.Contains(body, "Other &lt;b&gt;") || len(br.jar) != 0 {
		t.Fatalf("choose page is %d\n%s", w.Code, body)
	}
	_, rest, _ := strings.Cut(body, `href="`+public+`/connect?`)
	raw, _, _ := strings.Cut(rest, `"`)
	p, err := b.signer.Verify(html.UnescapeString(raw), time.Now())
	if err != nil || p.Integration != "github" || p.UserID != "u2" || p.State != "app-state" || !p.Expires.Equal(expires) {
		t.Fatalf("first choice = %+v, %v", p, err)
	}
	wantApp(t, br.callback(br.open(public+"/connect?"+html.UnescapeString(raw))), "")

	// With one integration there is nothing to choose.
	delete(b.cfg.Integrations, "other")
	b.remake()
	wantApp(t, br.callback(br.open(b.link(func(p *connect.Params) { p.Integration = "" }))), "")
}

func TestReconnect(t *testing.T) {
	b := newBench(t)
	old := live("old token")
	old.Scopes = []string{"granted"}
	c := b.create(tokenstore.Connection{Status: tokenstore.StatusActive, Token: old, RequestedScopes: []string{"granted", "first"}})
	br := b.browser()

	// The old credential stays live until the new one is completed.
	state := br.open(b.link(onConnection(c), func(p *connect.Params) { p.Scopes = []string{"more"} }))
	if got := b.p.asked[0]; !slices.Equal(got, []string{"granted", "more"}) {
		t.Errorf("asked for %v, want the union of granted and asked", got)
	}
	q := wantApp(t, br.callback(state), "")
	now := b.connection(c.ID)
	if q.Get("connection_id") != c.ID || now.Status != tokenstore.StatusActive || now.Token.AccessToken.Reveal() != "old token" || now.Staged == nil {
		t.Errorf("connection is %+v", now)
	}
	if err := now.Complete(secret.New(q.Get("completion_code")), "u1", time.Now()); err != nil || now.Token.Generation != 2 ||
		!slices.Equal(now.RequestedScopes, []string{"granted", "first", "more"}) {
		t.Errorf("Complete() = %v, connection %+v", err, now)
	}

	// A second flow replaces what waits.
	wantApp(t, br.callback(br.open(b.link(onConnection(c)))), "")
	if got := b.p.asked[1]; !slices.Equal(got, []string{"granted", "first"}) {
		t.Errorf("asked for %v, want what was asked before", got)
	}
	if now = b.connection(c.ID); now.Staged.Token.AccessToken.Reveal() != "token-canary-2" || !slices.Equal(b.p.revoked, []string{"token-canary-1"}) {
		t.Errorf("staged %q, revoked %v", now.Staged.Token.AccessToken.Reveal(), b.p.revoked)
	}

	// What fails takes nothing away.
	wantApp(t, br.callback(br.open(b.link(onConnection(c))), "error", "access_denied"), "user_denied")
	if got := b.connection(c.ID); got.Status != tokenstore.StatusActive || got.Revision != now.Revision {
		t.Errorf("connection is %+v", got)
	}

	for name, change := range map[string]func(*connect.Params){
		"A018 another user":        func(p *connect.Params) { p.UserID = "u2" },
		"A018 another integration": func(p *connect.Params) { p.Integration = "gitlab" },
		"A018 unknown":             func(p *connect.Params) { p.ConnectionID = tokenstore.NewID() },
		"A018 no ID":               func(p *connect.Params) { p.ConnectionID = "../x" },
	} {
		t.Run(name, func(t *testing.T) {
			wantPage(t, br.get(b.link(onConnection(c), change)), 404, "connection_not_found")
		})
	}
}

func TestBegunConnection(t *testing.T) {
	b := newBench(t)
	c := b.begun()
	br := b.browser()
	open := func() string {
		_, raw, _ := strings.Cut(func() string { l, _ := b.signer.Link(c, appURL, "", nil, false); return l }(), "?")
		return br.open(public + "/connect?" + raw)
	}
	br.callback(open(), "error", "access_denied")
	if got := b.connection(c.ID); got.Status != tokenstore.StatusFailed || got.StatusReason != "user_denied" {
		t.Errorf("connection is %s %s, want FAILED user_denied", got.Status, got.StatusReason)
	}
	br.callback(open())
	got := b.connection(c.ID)
	if got.Staged == nil || !slices.Equal(b.p.asked[1], []string{"begin-scope"}) {
		t.Errorf("connection is %+v, asked %v", got, b.p.asked)
	}
	// A credential that waits is not failed by another tab.
	c = b.begun()
	br.callback(open())
	br.callback(open(), "error", "access_denied")
	if got := b.connection(c.ID); got.Staged == nil || got.Status != tokenstore.StatusInitiated {
		t.Errorf("connection is %+v", got)
	}
}

func TestTwoTabs(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	first, second := br.open(b.link()), br.open(b.link())
	if len(br.jar) != 2 {
		t.Fatalf("cookies = %v", br.jar)
	}
	wantApp(t, br.callback(second), "")
	wantApp(t, br.callback(first), "")
	if got := b.connections(); len(got) != 2 {
		t.Errorf("%d connections, want 2", len(got))
	}
}

func TestManyTabs(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	for n := range 60 {
		br.open(b.link(func(p *connect.Params) { p.UserID = fmt.Sprint("u", n%6) }))
	}
	if len(br.jar) > 20 {
		t.Errorf("browser holds %d cookies, want at most 20", len(br.jar))
	}
	wantApp(t, br.callback(br.open(b.link())), "")
}

func TestReplay(t *testing.T) {
	for name, redirect := range map[string]bool{"A003 A026 app": true, "A003 A026 no app": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if !redirect {
				b.cfg.RedirectURLs = nil
				b.remake()
			}
			br, other := b.browser(), b.browser()
			state := br.open(b.link())
			br.callback(state)
			before := b.connections()
			for _, again := range []*browser{br, other, br} {
				wantPage(t, again.callback(state), 400, "state_used")
				wantPage(t, again.callback(state, "error", "access_denied"), 400, "state_used")
			}
			after := b.connections()
			if b.p.exchanged() != 1 || len(after) != 1 || after[0].Revision != before[0].Revision {
				t.Errorf("%d exchanges, connections %+v", b.p.exchanged(), after)
			}
		})
	}
	t.Run("A003 says what happened", func(t *testing.T) {
		b := newBench(t, noRedirects)
		br := b.browser()
		for errc, want := range map[string]string{
			"":              "Your GitHub account was connected.",
			"access_denied": "You did not connect GitHub, and nothing was shared.",
			"server_error":  "Your GitHub account was not connected. What was shown: “GitHub did not complete the connection”.",
		} {
			state := br.open(b.link())
			more := []string{"error", errc}
			if errc == "" {
				more = nil
			}
			br.callback(state, more...)
			if body := br.callback(state, more...).Body.String(); !strings.Contains(body, want) {
				t.Errorf("after %q the page does not say %q:\n%s", errc, want, body)
			}
		}
	})
}

// TestExchangeOnceUnderParallelCallbacks: A003, A034.
func TestExchangeOnceUnderParallelCallbacks(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	name, value := br.cookie()
	codes := make(chan int, 50)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			r := httptest.NewRequest(http.MethodGet, callbackURL("state", state, "code", codeText), nil)
			r.AddCookie(&http.Cookie{Name: name, Value: value})
			w := httptest.NewRecorder()
			b.h.ServeHTTP(w, r)
			codes <- w.Code
		})
	}
	wg.Wait()
	close(codes)
	count := map[int]int{}
	for c := range codes {
		count[c]++
	}
	if b.p.exchanged() != 1 || count[303] != 1 || count[400] != 49 || len(b.connections()) != 1 {
		t.Errorf("%d exchanges, answers %v, %d connections", b.p.exchanged(), count, len(b.connections()))
	}
}

// TestExpiredFlow: A005.
func TestExpiredFlow(t *testing.T) {
	for _, late := range []time.Duration{-time.Second, 0, time.Hour, 23 * time.Hour, 25 * time.Hour} {
		t.Run(fmt.Sprintf("A005 late by %v", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				c := b.begun()
				br := b.browser()
				state := br.open(b.link(onConnection(c)))
				time.Sleep(tokenstore.FlowLife + late)
				w := br.callback(state)
				switch {
				case late < 0:
					wantApp(t, w, "")
					return
				case late > 24*time.Hour:
					wantPage(t, w, 400, "state_invalid")
					return
				}
				wantApp(t, w, "timeout")
				wantPage(t, br.callback(state), 400, "state_used")
				if got := b.connection(c.ID); got.Status != tokenstore.StatusFailed || got.StatusReason != "timeout" || b.p.exchanged() != 0 {
					t.Errorf("connection is %s %s, %d exchanges", got.Status, got.StatusReason, b.p.exchanged())
				}
			})
		})
	}
}

func TestBrowserThatGoesAwayCancelsNothing(t *testing.T) {
	b := newBench(t)
	ctx, leave := context.WithCancel(t.Context())
	b.p.exchange = func(ctx context.Context) (tokenstore.Answer, error) {
		leave()
		if deadline, ok := ctx.Deadline(); ctx.Err() != nil || !ok || time.Until(deadline) > 20*time.Second {
			return tokenstore.Answer{}, errors.New("exchange is not detached, or has no limit of its own")
		}
		return tokenstore.Answer{Status: 200, Body: secret.New("t")}, nil
	}
	br := b.browser()
	state := br.open(b.link())
	br.do(httptest.NewRequestWithContext(ctx, http.MethodGet, callbackURL("state", state, "code", codeText), nil))
	if got := b.connections(); len(got) != 1 || got[0].Staged == nil {
		t.Errorf("connections = %+v", got)
	}
}
