package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// Attacks carry the numbers of the cases in the project's list of them, A001 to
// A169. Where a case there has other names, or expects another code, than the
// design has, a comment says so.

// arena is a world for attacks on the connect flow: beside the honest provider
// there is one that the attacker runs, with an integration of its own.
type arena struct {
	*world
	rogue *fakeprovider.Server
	users int
}

const elsewhere = "https://app.example.com/cb" // registered beside the app's own address

func newArena(t *testing.T, opts ...option) *arena {
	t.Helper()
	if !manyAddresses() {
		t.Skip("all browsers would have one address, for which there are limits")
	}
	a := new(arena)
	a.world = newWorld(t, append([]option{func(w *world, c *fakeprovider.Config) {
		callback := func(name string) string { return w.site.Public + "/callback/" + name }
		c.RedirectURIs = append(c.RedirectURIs, callback("reviewed"))
		a.rogue = fakeprovider.New(fakeprovider.Config{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret, RedirectURIs: []string{callback("rogue")}, RequirePKCE: true,
		})
		srv := httptest.NewServer(a.rogue)
		t.Cleanup(srv.Close)
		a.rogue.SetIssuer(srv.URL)
		w.site.Extra += fmt.Sprintf(`
		redirect_url %[1]s
		provider rogue {
			issuer %[2]s
			api_url %[2]s/api
			allow_private
		}
		integration rogue {
			client_id {env.FAKE_CLIENT_ID}
			client_secret {env.FAKE_CLIENT_SECRET}
		}
		integration reviewed {
			provider fake
			client_id {env.FAKE_CLIENT_ID}
			client_secret {env.FAKE_CLIENT_SECRET}
			review on
		}
		`, elsewhere, srv.URL)
	}}, opts...)...)
	t.Cleanup(func() { a.secrets = append(a.secrets, a.rogue.Secrets()...) }) // before the sweep
	return a
}

// away is a user whose browser is about to come back from the provider.
type away struct {
	id, user  string
	link      string
	browser   *http.Client
	authorize string // the address at the provider
	callback  string // the address to which it sends the browser
	state     string
	code      string
}

// sendAway has a user of their own consent.
func (a *arena) sendAway() away {
	a.t.Helper()
	f := a.sendOff()
	f.callback = a.consent(f.browser, f.authorize)
	q := query(a.t, f.callback)
	f.code = q.Get("code")
	if f.code == "" || q.Get("state") != f.state {
		a.t.Fatalf("the provider sends the browser back with %v", q)
	}
	return f
}

// sendOff is sendAway before the consent.
func (a *arena) sendOff() away {
	a.t.Helper()
	a.users++
	user := fmt.Sprintf("user-%d", a.users)
	begun := a.begin(user)
	f := away{id: begun.ID, user: user, link: begun.ConnectURL, browser: newBrowser(a.t)}
	f.authorize = a.open(f.browser, f.link)
	f.state = query(a.t, f.authorize).Get("state")
	return f
}

func query(t *testing.T, address string) url.Values {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// wantEndsWell checks that nothing has kept a flow from its good end, once.
func (a *arena) wantEndsWell(f away) {
	a.t.Helper()
	before := a.posts()
	a.complete(f.id, a.wantReturn(f.browser, f.callback, ""), f.user)
	a.wantStatus(f.id, "ACTIVE", "")
	a.wantPostsSince(before, 1)
}

// wantOver checks that a flow has ended with a reason and is of no use to its
// own browser either.
func (a *arena) wantOver(f away, reason string) {
	a.t.Helper()
	a.wantStatus(f.id, "FAILED", reason)
	denied := reason == "browser_mismatch" || reason == "issuer_mismatch"
	if e := a.wantEvent(f.id, "flow.ended", reason); e.Allowed == denied || e.Actor.Kind != "browser" || !strings.HasPrefix(e.Actor.From, "127.") {
		a.t.Errorf("the audit log tells of it as %+v", e)
	}
	before := a.posts()
	a.wantPage(f.browser, f.callback, http.StatusBadRequest, "state_used")
	a.wantNoPosts(before)
	a.wantStatus(f.id, "FAILED", reason)
}

func TestAttacksOnTheState(t *testing.T) {
	a := newArena(t)
	forged := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

	a.in(t, "A001 Forged state", func(t *testing.T) {
		connections, before := a.count(), a.posts()
		a.wantPage(newBrowser(t), a.callback("fake", "code", "X", "state", forged), http.StatusBadRequest, "state_invalid")
		if n := a.count(); n != connections {
			t.Errorf("%d connections, %d before", n, connections)
		}
		a.wantNoPosts(before)
	})

	// The design has one code, state_invalid, for a callback that is none.
	a.in(t, "A002 State missing, empty, or sent twice", func(t *testing.T) {
		f := a.sendAway()
		before := a.posts()
		for name, pairs := range map[string][]string{
			"none": {"code", f.code}, "empty": {"code", f.code, "state", ""},
			"twice": {"code", f.code, "state", f.state, "state", f.state}, "another second": {"code", f.code, "state", f.state, "state", forged},
			"two codes": {"code", f.code, "code", "other", "state", f.state}, "two issuers": {"code", f.code, "state", f.state, "iss", "a", "iss", "b"},
			"code and error": {"code", f.code, "state", f.state, "error", "access_denied"}, "neither": {"state", f.state},
			"escaped name": {"code", f.code, "state", f.state, "%73tate", forged},
		} {
			t.Log(name)
			a.wantPage(f.browser, a.callback("fake", pairs...), http.StatusBadRequest, "state_invalid")
		}
		a.wantNoPosts(before)
		a.wantEndsWell(f)
	})

	a.in(t, "A003 State replay after success", func(t *testing.T) {
		f := a.sendAway()
		a.wantEndsWell(f)
		before := a.posts()
		a.wantPage(f.browser, f.callback, http.StatusBadRequest, "state_used")
		a.wantPage(newBrowser(t), f.callback, http.StatusBadRequest, "state_used")
		a.wantPage(f.browser, a.callback("fake", "error", "access_denied", "state", f.state), http.StatusBadRequest, "state_used")
		a.wantNoPosts(before)
		a.wantStatus(f.id, "ACTIVE", "")
		a.wantWorks(f.id)
	})

	a.in(t, "A022 Attacker-chosen OAuth state is ignored", func(t *testing.T) {
		// Opaque to us: what stands after the signature belongs to the signature,
		// and a signed link that says what no link can say is refused.
		link := a.appLink()
		for _, bad := range []string{
			link + "&state=FIXED", link + "&provider=other", link + "&redirect_uri=" + escape(a.evil.url),
			a.appLink("provider", "other"), a.appLink("redirect_uri", a.evil.url), a.appLink("code_challenge", "x"),
		} {
			a.wantPage(newBrowser(t), bad, http.StatusBadRequest, "link_invalid")
		}
		q := query(t, a.open(newBrowser(t), a.appLink("state", "FIXED")))
		if s := q.Get("state"); len(s) != 43 || strings.Contains(s, "FIXED") {
			t.Errorf("the provider was sent the state %q, want one of our own", s)
		}
	})

	a.in(t, "A025 Provider answers by cross-site form_post", func(t *testing.T) {
		// What is posted decides nothing: the browser takes it along, sealed, and
		// only the one with the flow's cookie gets anywhere with it.
		carry := func(f away) string {
			res := a.post(f.browser, a.callback("fake"), query(t, f.callback))
			to := res.Header.Get("Location")
			if sealed, ok := strings.CutPrefix(to, "/callback/fake?form_post="); res.StatusCode != http.StatusSeeOther || !ok || strings.Contains(sealed, f.code) {
				t.Errorf("HTTP %d, leading to %q", res.StatusCode, to)
			}
			return a.site.Public + to
		}
		before := a.posts()
		f := a.sendAway()
		a.wantPage(newBrowser(t), carry(f), http.StatusBadRequest, "browser_mismatch")
		a.wantOver(f, "browser_mismatch")
		f = a.sendAway()
		to := carry(f)
		changed := []byte(to)
		if i := len(to) - 9; changed[i] == 'A' {
			changed[i] = 'B'
		} else {
			changed[i] = 'A'
		}
		a.wantPage(f.browser, string(changed), http.StatusBadRequest, "state_invalid")
		a.wantNoPosts(before)
		f.callback = to
		a.wantEndsWell(f)
	})

	a.in(t, "A033 Token in the front channel", func(_ *testing.T) {
		// The fragment of an address never reaches a server.
		f := a.sendAway()
		before, token := a.posts(), "front-channel-token-canary"
		a.secrets = append(a.secrets, token)
		for _, pairs := range [][]string{
			{"access_token", token, "token_type", "bearer", "state", f.state},
			{"access_token", token, "code", f.code, "state", f.state},
		} {
			a.wantPage(f.browser, a.callback("fake", pairs...), http.StatusBadRequest, "state_invalid")
		}
		a.wantNoPosts(before)
		a.wantEndsWell(f)
	})

	a.in(t, "A055 Error callback without a valid state", func(t *testing.T) {
		f := a.sendAway()
		stranger := newBrowser(t)
		for _, pairs := range [][]string{
			{"error", "access_denied"}, {"error", "access_denied", "state", ""}, {"error", "access_denied", "state", forged},
		} {
			a.wantPage(stranger, a.callback("fake", pairs...), http.StatusBadRequest, "state_invalid")
		}
		// The state alone is no more: a stranger who has seen it ends nothing by it.
		a.wantPage(stranger, a.callback("fake", "error", "access_denied", "state", f.state), http.StatusBadRequest, "browser_mismatch")
		a.wantStatus(f.id, "INITIATED", "")
		a.wantEndsWell(f)
	})
}

// post sends a form as a page at the provider does.
func (a *arena) post(browser *http.Client, to string, form url.Values) *http.Response {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", a.site.Fake)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	return a.send(browser, req)
}
