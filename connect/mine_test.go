package connect_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// mineBench has two connections of u1, one of which must be connected again,
// and one of u2; disconnected gets the IDs of those that pages disconnect.
func mineBench(t *testing.T) (b *bench, active, expired, other tokenstore.Connection, disconnected *[]string) {
	t.Helper()
	disconnected = new([]string)
	b = newBench(t, func(b *bench) {
		b.cfg.Disconnect = func(ctx context.Context, id string, by tokenstore.Actor) error {
			if by.Kind != tokenstore.ActorBrowser {
				t.Errorf("disconnected by %+v", by)
			}
			*disconnected = append(*disconnected, id)
			_, err := b.store.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error {
				c.Status, c.Token = tokenstore.StatusRevoked, tokenstore.Token{}
				return nil
			})
			return err
		}
	})
	active = b.create(tokenstore.Connection{
		Status: tokenstore.StatusActive, Token: live("t"), AuthScheme: tokenstore.AuthOAuth2,
		Account: tokenstore.Account{ID: "1", Name: "Ada", Email: "ada@example.org"}, ConnectedAt: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC),
	})
	expired = b.create(tokenstore.Connection{Status: tokenstore.StatusExpired, Name: "Work"})
	other = b.create(tokenstore.Connection{Status: tokenstore.StatusActive, UserID: "u2", Token: live("t"), Account: tokenstore.Account{ID: "9", Name: "Eve B"}})
	return b, active, expired, other, disconnected
}

func (b *bench) mine(redirectURL string) string {
	return b.signer.MineLink("u1", redirectURL, time.Now().Add(time.Hour))
}

func target(link, id string) string {
	path, query, _ := strings.Cut(link, "?")
	return path + "/" + id + "?" + query
}

func TestMine(t *testing.T) {
	b, active, expired, other, _ := mineBench(t)
	w := b.browser().get(b.mine(appURL))
	body := w.Body.String()
	for _, want := range []string{
		"Connected</span>", "Reconnect needed</span>", "Ada (ada@example.org) · connected on 2 November 2026", "Work",
		active.ID + "?", expired.ID + "/connect?", `href="` + appURL + `"`, "2 accounts",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q:\n%s", want, body)
		}
	}
	if w.Code != 200 || strings.Contains(body, other.ID) || strings.Contains(body, "Eve B") || strings.Contains(body, active.ID+"/connect?") {
		t.Errorf("%d\n%s", w.Code, body)
	}
	if body := b.browser().get(b.mine("https://evil.example/")).Body.String(); strings.Contains(body, `href="https://evil`) {
		t.Errorf("the page leads to an address that is not registered:\n%s", body)
	}
	if w := b.browser().get(b.signer.MineLink("nobody", "", time.Now().Add(time.Hour))); !strings.Contains(w.Body.String(), "No account is connected yet.") {
		t.Errorf("%s", w.Body)
	}
}

// TestMineReconnects: the page leads to a connect link that is fresh.
func TestMineReconnects(t *testing.T) {
	b, _, expired, other, _ := mineBench(t)
	w := b.browser().get(target(b.mine(""), expired.ID+"/connect"))
	p, err := b.signer.Verify(mustURL(w.Header().Get("Location")).RawQuery, time.Now())
	if w.Code != http.StatusSeeOther || err != nil || p.ConnectionID != expired.ID || p.UserID != "u1" || p.RedirectURL != appURL {
		t.Errorf("%d, %+v, %v", w.Code, p, err)
	}
	wantPage(t, b.browser().get(target(b.mine(""), other.ID+"/connect")), 404, "connection_not_found")
}

// TestMineLinks: a link that was not signed for this page shows nothing.
func TestMineLinks(t *testing.T) {
	b, active, _, _, _ := mineBench(t)
	link := b.mine("")
	_, query, _ := strings.Cut(link, "?")
	for name, bad := range map[string]string{
		"another user":    strings.Replace(link, "user_id=u1", "user_id=u2", 1),
		"a connect link":  strings.Replace(b.link(), "/connect?", "/connect/connections?", 1),
		"not signed":      public + "/connect/connections?user_id=u1&expires=99999999999",
		"something after": link + "&x=1",
		"of a connection": public + "/connect/connections/" + active.ID,
	} {
		t.Run(name, func(t *testing.T) { wantPage(t, b.browser().get(bad), 400, "link_invalid") })
	}
	wantPage(t, b.browser().get(public+"/connect?"+query), 400, "link_invalid")
	wantPage(t, b.browser().get(b.signer.MineLink("u1", "", time.Now().Add(-time.Minute))), 410, "link_expired")
	wantPage(t, b.browser().do(httptest.NewRequest(http.MethodPost, link, nil)), 405, "method_not_allowed")
	if w := b.browser().do(httptest.NewRequest(http.MethodHead, link, nil)); w.Code != 204 || w.Body.Len() > 0 {
		t.Errorf("HEAD = %d %s", w.Code, w.Body)
	}
}

var formTokenOf = regexp.MustCompile(`name="token" value="([^"]+)"`)

func posted(target, token string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(url.Values{"token": {token}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func TestDisconnect(t *testing.T) {
	b, active, expired, other, disconnected := mineBench(t)
	br, at := b.browser(), target(b.mine(""), active.ID)
	w := br.get(at)
	m := formTokenOf.FindStringSubmatch(w.Body.String())
	if w.Code != 200 || m == nil || !strings.Contains(w.Body.String(), "unless another connection still needs it") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "form-action "+public+"/connect/connections/"+active.ID+";") {
		t.Errorf("Content-Security-Policy = %q", csp)
	}
	crossSite := posted(at, m[1])
	crossSite.Header.Set("Sec-Fetch-Site", "cross-site")
	for name, w := range map[string]*httptest.ResponseRecorder{
		"no token":           br.do(posted(at, "")),
		"another browser":    b.browser().do(posted(at, m[1])),
		"another connection": br.do(posted(target(b.mine(""), expired.ID), m[1])),
		"from another site":  br.do(crossSite),
	} {
		t.Run(name, func(t *testing.T) { wantPage(t, w, 403, "form_invalid") })
	}
	wantPage(t, br.do(posted(target(b.mine(""), other.ID), m[1])), 404, "connection_not_found")
	if len(*disconnected) != 0 {
		t.Fatalf("disconnected %v", *disconnected)
	}
	w = br.do(posted(at, m[1]))
	if w.Code != http.StatusSeeOther || len(*disconnected) != 1 || (*disconnected)[0] != active.ID {
		t.Fatalf("%d %s, disconnected %v", w.Code, w.Body, *disconnected)
	}
	if body := br.get(public + w.Header().Get("Location")).Body.String(); !strings.Contains(body, "GitHub is disconnected") {
		t.Errorf("%s", body)
	}
	if br.do(posted(at, m[1])); len(*disconnected) != 1 {
		t.Errorf("sent again, the form disconnected again: %v", *disconnected)
	}
}

func TestDisconnectFails(t *testing.T) {
	b, active, _, _, _ := mineBench(t)
	b.cfg.Disconnect = func(context.Context, string, tokenstore.Actor) error { return errors.New("disk full") }
	b.remake()
	br, at := b.browser(), target(b.mine(""), active.ID)
	m := formTokenOf.FindStringSubmatch(br.get(at).Body.String())
	wantPage(t, br.do(posted(at, m[1])), 503, "disconnect_failed")
	b.cfg.Disconnect = nil
	b.remake()
	if body := b.browser().get(b.mine("")).Body.String(); strings.Contains(body, "Disconnect") {
		t.Errorf("a page offers what can't be done:\n%s", body)
	}
}

// TestChooseShowsOwn: the page to choose from shows what the user has, with a
// link for what has to be connected again.
func TestChooseShowsOwn(t *testing.T) {
	b, _, expired, other, _ := mineBench(t)
	b.cfg.Integrations["other"] = connect.Integration{Title: "Other", Provider: b.p}
	b.remake()
	body := b.browser().get(b.link(func(p *connect.Params) { p.Integration = "" })).Body.String()
	for _, want := range []string{"Your connections", "a…@example.org", "Reconnect needed", "connection_id=" + expired.ID} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "Eve B") || strings.Contains(body, "ada@") || strings.Contains(body, other.ID) {
		t.Errorf("the page shows another user's connection:\n%s", body)
	}
}

// TestMineLinkSaysNoMore: a link with more than a user and a way back is for
// something else, however well it is signed.
func TestMineLinkSaysNoMore(t *testing.T) {
	b, _, _, _, _ := mineBench(t)
	query := "user_id=u1&integration=github&expires=" + strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	key := secret.New(string(secret.New(apiKey).MAC("lanyard link v1")))
	link := public + "/connect/connections"
	link += "?" + query + "&signature=" + b64(key.MAC("lanyard-link-v1\n"+link+"\n"+query))
	wantPage(t, b.browser().get(link), 400, "link_invalid")
}
