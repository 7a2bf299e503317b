package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func TestAttacksThroughTheProvider(t *testing.T) {
	a := newArena(t, withoutSecret)

	// The design's code is state_invalid: a callback that is none of this
	// integration's.
	a.in(t, "A023 Callback of integration A with flow of integration B (COAT/CORF)", func(t *testing.T) {
		// The victim begins at the attacker's provider, which sends the browser on
		// to the honest one; the victim consents there, and the code comes back to
		// the honest callback with the attacker's state.
		browser := newBrowser(t)
		atRogue := a.open(browser, a.appLink("integration", "rogue"))
		q := query(t, atRogue)
		if to := q.Get("redirect_uri"); to != a.callback("rogue") {
			t.Fatalf("the redirect URI is %q, want the integration's own", to)
		}
		honest := a.sendOff()
		atHonest := strings.Replace(honest.authorize, honest.state, q.Get("state"), 1)
		code := query(t, a.consent(newBrowser(t), atHonest)).Get("code")
		before := a.posts()
		for _, pairs := range [][]string{
			{"code", code, "state", q.Get("state")},
			{"code", code, "state", q.Get("state"), "iss", a.site.Fake},
			{"error", "access_denied", "state", q.Get("state")},
		} {
			a.wantPage(browser, a.callback("fake", pairs...), http.StatusBadRequest, "state_invalid")
		}
		// Back to its own callback, the sender is found out by its name.
		a.wantPage(browser, a.callback("rogue", "code", code, "state", q.Get("state"), "iss", a.site.Fake), http.StatusBadRequest, "issuer_mismatch")
		if n := len(a.rogue.Ledger().Posts); n > 0 {
			t.Errorf("the attacker's token endpoint got %d requests", n)
		}
		a.wantNoPosts(before)
	})

	a.in(t, "A023 An error of another integration ends nothing", func(_ *testing.T) {
		f := a.sendAway()
		a.wantPage(f.browser, a.callback("rogue", "error", "access_denied", "state", f.state), http.StatusBadRequest, "state_invalid")
		a.wantPage(f.browser, a.callback("rogue", "code", f.code, "state", f.state), http.StatusBadRequest, "state_invalid")
		a.wantEndsWell(f)
	})

	a.in(t, "A027 PKCE always on, S256 only", func(t *testing.T) {
		challenges := map[string]bool{}
		const n = 200
		for i := range n {
			browser := newBrowser(t)
			at := a.open(browser, a.appLink("user_id", fmt.Sprintf("pkce-%d", i), "integration", []string{"fake", "rogue", "secretless"}[i%3]))
			q := query(t, at)
			if q.Get("code_challenge_method") != "S256" || len(q["code_challenge"]) != 1 || len(q.Get("code_challenge")) != 43 || q.Has("code_verifier") {
				t.Fatalf("the provider was asked with %v", q)
			}
			challenges[q.Get("code_challenge")] = true
		}
		if len(challenges) != n {
			t.Errorf("%d challenges in %d requests", len(challenges), n)
		}
		// The fake provider compares verifier and challenge, and the length.
		a.wantEndsWell(a.sendAway())
		posts := a.fake.Ledger().Posts
		if last := posts[len(posts)-1]; !slices.Contains(last.Params, "code_verifier") || last.Outcome != fakeprovider.OutcomeIssued {
			t.Errorf("the code went out with %v: %s", last.Params, last.Outcome)
		}
	})

	a.in(t, "A029 Authorization code injection", func(t *testing.T) {
		victim, attacker := a.sendAway(), a.sendAway()
		before := a.posts()
		a.wantReturn(attacker.browser, a.callback("fake", "code", victim.code, "state", attacker.state, "iss", a.site.Fake), "source_error")
		posts := a.fake.Ledger().Posts[before:]
		if len(posts) != 1 || posts[0].Outcome != "invalid_grant" || posts[0].Committed {
			t.Errorf("the token endpoint got %+v, want the victim's code once, refused", posts)
		}
		a.wantOver(attacker, "source_error")
		a.wantNotCallable(attacker.id)
	})

	a.in(t, "A030 Wrong iss (mix-up)", func(_ *testing.T) {
		before := a.posts()
		for _, iss := range []string{a.evil.url, a.site.Fake + "/", strings.ToUpper(a.site.Fake), a.site.Fake + "#", "x"} {
			f := a.sendOff()
			a.fake.Faults.Authorize(fakeprovider.Issuer(iss))
			f.callback = a.consent(f.browser, f.authorize)
			a.wantPage(f.browser, f.callback, http.StatusBadRequest, "issuer_mismatch")
			a.wantOver(f, "issuer_mismatch")
		}
		a.wantNoPosts(before)
		// An error that names another sender ends nothing: it is not our provider's.
		f := a.sendAway()
		a.wantPage(f.browser, a.callback("fake", "error", "access_denied", "state", f.state, "iss", a.evil.url), http.StatusBadRequest, "issuer_mismatch")
		a.wantEndsWell(f)
	})

	a.in(t, "A031 iss missing though metadata promises it", func(_ *testing.T) {
		before := a.posts()
		f := a.sendOff()
		a.fake.Faults.Authorize(fakeprovider.Issuer(""))
		f.callback = a.consent(f.browser, f.authorize)
		a.wantPage(f.browser, f.callback, http.StatusBadRequest, "issuer_mismatch")
		a.wantOver(f, "issuer_mismatch")
		f = a.sendOff()
		f.callback = a.callback("fake", "code", "any", "state", f.state, "iss", "")
		a.wantPage(f.browser, f.callback, http.StatusBadRequest, "issuer_mismatch")
		a.wantNoPosts(before)
	})
}

func TestAttacksThroughTheTokenEndpoint(t *testing.T) {
	t.Parallel() // it waits for a time-out
	a := newArena(t)

	a.in(t, "A034 Code is never exchanged twice", func(t *testing.T) {
		// The longest first, so that the others go on meanwhile: it takes the
		// time-out of the exchange.
		stalled := a.sendAway()
		a.fake.Faults.Token(fakeprovider.Blackholed())
		before := a.posts()
		var waiting sync.WaitGroup
		waiting.Go(func() {
			res, err := stalled.browser.Get(stalled.callback)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if to := res.Header.Get("Location"); !strings.Contains(to, "error=source_error") {
				t.Errorf("a stall: HTTP %d to %q", res.StatusCode, to)
			}
		})
		a.eventually("the code was sent", func() error { return atLeast(a.posts(), before+1) })
		// Whoever comes second to a flow under way changes nothing.
		a.wantPage(stalled.browser, stalled.callback, http.StatusBadRequest, "state_used")

		for name, fault := range map[string]fakeprovider.Fault{
			"closed before it was processed": fakeprovider.Dropped(), "closed after": fakeprovider.LostAnswer(),
			"500": fakeprovider.Status(http.StatusInternalServerError), "429": fakeprovider.RetryAfter(http.StatusTooManyRequests, "0"),
			"401 for the client": fakeprovider.InvalidClient(), "cut": fakeprovider.Truncated(), "reset": fakeprovider.Reset(),
			"HTML": fakeprovider.HTML(http.StatusOK), "503 and committed": fakeprovider.Status(http.StatusServiceUnavailable).AfterCommit(),
		} {
			t.Log(name)
			f, before := a.sendAway(), a.posts()
			a.fake.Faults.Token(fault)
			a.wantReturn(f.browser, f.callback, "source_error")
			a.wantPostsSince(before, 1)
			a.wantOver(f, "source_error")
			// The user may start again.
			var again connection
			a.api(http.MethodPost, "/v1/connections/"+f.id+"/connect", map[string]any{}, &again)
			a.complete(f.id, a.follow(newBrowser(t), again.ConnectURL).Get("completion_code"), f.user)
			a.wantPostsSince(before, 2)
		}
		began := time.Now()
		waiting.Wait()
		t.Logf("waited %v more for the stall", time.Since(began).Round(time.Millisecond))
		a.wantOver(stalled, "source_error")
	})

	a.in(t, "A035 Token endpoint answers 307/308 to another host", func(t *testing.T) {
		for _, to := range []string{a.evil.url + "/token", "//" + a.evil.host + "/token", a.site.Fake + "/token"} {
			f, before := a.sendAway(), a.posts()
			a.fake.Faults.Token(fakeprovider.Redirect(to))
			a.wantReturn(f.browser, f.callback, "source_error")
			a.wantOver(f, "source_error")
			a.wantPostsSince(before, 1)
		}
		for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusPermanentRedirect} {
			f, before := a.sendAway(), a.posts()
			a.fake.Faults.Token(fakeprovider.RedirectWith(status, a.evil.url))
			a.wantReturn(f.browser, f.callback, "source_error")
			a.wantPostsSince(before, 1)
		}
		a.evil.wantNothing(t)
	})
}

// A005: what comes back too late is not redeemed, and the app is told.
func TestAttacksAfterTheTime(t *testing.T) {
	t.Parallel()
	a := newArena(t, withFailpoints)
	a.in(t, "A005 Expired flow", func(t *testing.T) {
		f := a.sendAway()
		before := a.posts()
		a.fail("clock=10m1s")
		if back := a.finish(f.browser, f.callback); back.Get("error") != "timeout" || back.Get("state") != "app-state" {
			t.Errorf("the app got %v", back)
		}
		a.wantOver(f, "timeout")
		a.fail()
		a.wantOver(f, "timeout")
		a.wantNoPosts(before)
	})

	a.in(t, "A014 Connect link expiry", func(t *testing.T) {
		begun := a.begin("too-late")
		a.fail("clock=15m1s")
		a.wantPage(newBrowser(t), begun.ConnectURL, http.StatusGone, "link_expired")
		a.fail()
		a.wantStatus(begun.ID, "INITIATED", "") // its end is package connect's to test
	})
}

// withoutSecret adds an integration whose client has no secret.
func withoutSecret(w *world, _ *fakeprovider.Config) {
	srv := httptest.NewServer(fakeprovider.New(fakeprovider.Config{ClientAuth: "none"}))
	w.t.Cleanup(srv.Close)
	w.site.Extra += fmt.Sprintf(`
	provider open {
		authorize_url %[1]s/authorize
		token_url %[1]s/token
		api_url %[1]s/api
		client_auth none
		allow_private
	}
	integration secretless {
		provider open
		client_id anyone
	}
	`, srv.URL)
}
