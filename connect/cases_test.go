package connect_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestAttacks(t *testing.T) {
	t.Run("A003 replay after completion", func(t *testing.T) {
		b := newBench(t)
		br := b.browser()
		state := br.open(b.link())
		q := wantApp(t, br.callback(state), "")
		id := q.Get("connection_id")
		done, err := b.store.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
			return c.Complete(secret.New(q.Get("completion_code")), "u1", time.Now())
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []*browser{br, b.browser()} {
			wantPage(t, who.callback(state), 400, "state_used")
			wantPage(t, who.callback(state, "error", "access_denied"), 400, "state_used")
		}
		if got := b.connection(id); got.Status != tokenstore.StatusActive || got.Revision != done.Revision || b.p.exchanged() != 1 {
			t.Errorf("connection %+v, %d exchanges", got, b.p.exchanged())
		}
	})
	t.Run("A013 looking ahead begins nothing", func(t *testing.T) {
		b := newBench(t)
		for _, set := range [][2]string{{"Sec-Purpose", "prefetch"}, {"Sec-Purpose", "prefetch;prerender"}, {"User-Agent", "Slackbot-LinkExpanding 1.0"}} {
			r := httptest.NewRequest(http.MethodGet, b.link(), nil)
			if set[0] == "User-Agent" { // a preview that asks as a browser does is one: its flow is its own
				r.Method = http.MethodHead
			}
			r.Header.Set(set[0], set[1])
			w := b.browser().do(r)
			if w.Code != 204 || w.Body.Len() > 0 || w.Header().Get("Set-Cookie") != "" || len(b.p.asked) > 0 {
				t.Errorf("%v = %d %v", set, w.Code, w.Header())
			}
		}
		// A preview that opens the link uses nothing up: the user's flow is another.
		link := b.link()
		b.browser().open(link)
		br := b.browser()
		wantApp(t, br.callback(br.open(link)), "")
	})
	t.Run("A022 the state at the provider is ours", func(t *testing.T) {
		b := newBench(t)
		br := b.browser()
		seen := map[string]bool{}
		for range 10 {
			state := br.open(b.link(func(p *connect.Params) { p.State = "FIXED" }))
			if state == "FIXED" || len(state) != 43 || seen[state] {
				t.Errorf("state at the provider is %q", state)
			}
			seen[state] = true
		}
		for _, more := range []string{"&state=FIXED", "&provider=other", "&redirect_uri=https://evil.example", "&redirect_url=" + appURL} {
			wantPage(t, br.get(b.link()+more), 400, "link_invalid")
			cut, sig, _ := strings.Cut(b.link(), "&signature=")
			wantPage(t, br.get(cut+more+"&signature="+sig), 400, "link_invalid")
		}
	})
	t.Run("A023 a code goes to its own integration only", func(t *testing.T) {
		// The attacker's server redirects the browser to the honest one, with
		// the state of its own flow.
		b := newBench(t)
		attacker := &fakeProvider{}
		b.cfg.Integrations["attacker"] = connect.Integration{Provider: attacker}
		b.remake()
		br := b.browser()
		br.get(b.link(func(p *connect.Params) { p.Integration = "attacker" }))
		wantPage(t, br.callback(attacker.states[0], "code", "honest-code"), 400, "state_invalid")
		if attacker.exchanged() != 0 || b.p.exchanged() != 0 {
			t.Errorf("%d exchanges at the attacker's, %d at the honest one", attacker.exchanged(), b.p.exchanged())
		}
		// And the honest flow's state at the attacker's callback.
		state := br.open(b.link())
		w := br.get(public + "/callback/attacker?code=x&state=" + state)
		wantPage(t, w, 400, "state_invalid")
		if attacker.exchanged() != 0 || b.flow(state).Stage != tokenstore.FlowOpen {
			t.Error("the honest flow's state was taken at the attacker's callback")
		}
	})
	t.Run("A025 a form changes nothing", func(t *testing.T) {
		b := newBench(t)
		br := b.browser()
		state := br.open(b.link())
		w := br.post(public+"/callback/github", url.Values{"state": {state}, "code": {"x"}}, true)
		if w.Code != http.StatusSeeOther || b.p.exchanged() != 0 || b.flow(state).Stage != tokenstore.FlowOpen {
			t.Errorf("%d, %d exchanges, flow %+v", w.Code, b.p.exchanged(), b.flow(state))
		}
		wantApp(t, br.callback(state), "")
	})
	t.Run("A027 A029 each flow has its own verifier", func(t *testing.T) {
		b := newBench(t)
		seen := map[string]bool{}
		for n := range 200 {
			v := b.flow(b.browser().open(b.link(user(n)))).CodeVerifier.Reveal()
			if len(v) < 43 || len(v) > 128 || seen[v] {
				t.Fatalf("code verifier %q", v)
			}
			seen[v] = true
		}
		// A stolen code in the attacker's own flow goes out with the attacker's
		// verifier, which the provider refuses.
		victim, attacker := b.browser(), b.browser()
		theirs := b.flow(victim.open(b.link())).CodeVerifier.Reveal()
		state := attacker.open(b.link(user(1)))
		b.p.parseErr = &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant, Code: "invalid_grant", Status: 400}
		wantApp(t, attacker.callback(state, "code", "stolen-code"), "source_error")
		if ex := b.p.exchanges; len(ex) != 1 || ex[0].Verifier == theirs || !seen[ex[0].Verifier] && len(ex[0].Verifier) != 43 {
			t.Errorf("exchanges = %+v", ex)
		}
		if len(b.connections()) != 0 {
			t.Errorf("connections = %+v", b.connections())
		}
		assertNotLogged(t, b, "stolen-code")
	})
	t.Run("A063 303 and nothing else", func(t *testing.T) {
		b := newBench(t)
		br := b.browser()
		for _, w := range []*httptest.ResponseRecorder{
			br.get(b.link()), br.get(b.link(func(p *connect.Params) { p.Scopes = []string{`"`} })),
			br.callback(br.open(b.link())), br.callback(br.open(b.link()), "error", "access_denied"),
		} {
			if w.Code != http.StatusSeeOther || w.Body.Len() != 0 || w.Header().Get("Location") == "" {
				t.Errorf("got %d %q with %d bytes", w.Code, w.Header().Get("Location"), w.Body.Len())
			}
		}
	})
}

// TestCodeOnce: A034. However the exchange ends, and whatever is loaded, by
// whom and after which restart, the code went out once.
func TestCodeOnce(t *testing.T) {
	for name, change := range map[string]func(*bench){
		"not sent":           noAnswer(tokenstore.ErrNotSent),
		"unknown":            noAnswer(tokenstore.ErrOutcomeUnknown),
		"out of time":        noAnswer(context.DeadlineExceeded),
		"refused":            refuses(tokenstore.RefusedGrant),
		"refused for now":    refuses(tokenstore.RefusedForNow),
		"unreadable":         func(b *bench) { b.p.parseErr = tokenstore.ErrOutcomeUnknown },
		"answer not stored":  failStore("answer"),
		"end not stored":     func(b *bench) { noAnswer(tokenstore.ErrOutcomeUnknown)(b); failStore("finish")(b) },
		"connection refused": failStore("CreateConnection"),
	} {
		t.Run("A034 "+name, func(t *testing.T) {
			b := newBench(t)
			br := b.browser()
			state := br.open(b.link())
			jar := fmt.Sprint(br.jar)
			change(b)
			br.callback(state)
			for range 2 {
				wantPage(t, br.callback(state), 400, "state_used")
				wantPage(t, b.browser().callback(state), 400, "state_used")
				_ = b.h.Recover(t.Context())
				b.store = b.mem // the disk is well again
				b.remake()
			}
			if err := b.h.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			wantPage(t, br.callback(state), 400, "state_used")
			if b.p.exchanged() != 1 || len(b.connections()) != 0 || b.flow(state).Outcome == "connected" {
				t.Errorf("%d exchanges, cookies %s, flow %+v", b.p.exchanged(), jar, b.flow(state))
			}
			wantStart := b.browser() // and the user may start again
			b.p.exchange, b.p.parseErr = nil, nil
			wantApp(t, wantStart.callback(wantStart.open(b.link())), "")
		})
	}
}

// TestWeakRegistrations: A050. What can't be registered is refused with words
// that say why.
func TestWeakRegistrations(t *testing.T) {
	for raw, want := range map[string]string{
		"https://*.example.com/cb": "wildcard", "https://app.example.com/*": "wildcard", "https://*": "wildcard",
		"http://app.example.com/cb": "https", "http://10.0.0.1/cb": "https", "http://[::2]/cb": "https", "myapp://cb": "https", "javascript://app.example.com/cb": "https",
		"https://app.example.com/cb#": "fragment", "https://app.example.com/cb#x": "fragment",
		"https://user@app.example.com/cb": "user", "https://u:p@app.example.com/cb": "user",
		"https://app.example.com/cb?code=1": "`code`", "https://app.example.com/cb?state": "`state`", "https://app.example.com/cb?a=1&error=": "`error`",
		"https://app.example.com/cb?%63onnection_id=1": "`connection_id`", "https://app.example.com/cb?completion_code=1": "`completion_code`",
		"https://app.example.com/cb?error_description=1": "`error_description`",
		"/cb": "absolute", "cb": "absolute", "//app.example.com/cb": "https",
		"https://app.example.com:99999/cb": "port", "https://app.example.com/a/../cb": "..", "https://app.example.com;x/cb": "host", "https://äpp.example.com/cb": "ASCII",
	} {
		t.Run("A050 "+raw, func(t *testing.T) {
			cfg := newBench(t).cfg
			cfg.RedirectURLs = []string{appURL, raw}
			err := connectNew(cfg)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "redirect_url") {
				t.Errorf("New() = %v, want an error about %q", err, want)
			}
		})
	}
}
