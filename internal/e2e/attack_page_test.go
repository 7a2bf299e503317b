package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

const script = `<script>alert("canary")</script>"'><svg onload=alert(1)><img src=x onerror=alert(1)>`

func TestAttacksOnThePages(t *testing.T) {
	a := newArena(t)

	a.in(t, "A053 XSS in error_description and error_uri", func(t *testing.T) {
		f := a.sendOff()
		res := a.browse(f.browser, a.callback("fake", "error", "access_denied", "error_description", script,
			"error_uri", "javascript:alert(1)", "state", f.state, "iss", a.site.Fake))
		to := res.Header.Get("Location")
		q := query(t, to)
		if res.StatusCode != http.StatusSeeOther || q.Get("error") != "user_denied" || len(q) != 3 || bodyOf(t, res) != "" {
			t.Errorf("HTTP %d to %q", res.StatusCode, to)
		}
		if want := "The user declined to connect the account."; q.Get("error_description") != want {
			t.Errorf("error_description %q, want our own words: %q", q.Get("error_description"), want)
		}
		a.wantStatus(f.id, "FAILED", "user_denied")
		// On pages of our own, too; see TestAttacksWithoutAnApp.
		page := a.wantPage(newBrowser(t), a.callback("fake", "error", script, "error_description", script, "state", script), http.StatusBadRequest, "state_invalid")
		wantNoneOf(t, page, "canary", "alert", "svg onload")
	})

	a.in(t, "A054 Unknown or hostile error codes", func(t *testing.T) {
		for _, code := range []string{
			"<img src=x>", strings.Repeat("x", 10<<10), "a\r\nX-Injected: 1", "access_denied\x00", "state_used", "server_error", "\u202egnitset",
			"\x1b[31mred", `{"level":"error"}` + "\n" + `{"forged":true}`, "{env.LANYARD_API_KEY}", "{http.request.cookie.x}",
		} {
			f := a.sendOff()
			res := a.browse(f.browser, a.callback("fake", "error", code, "state", f.state, "iss", a.site.Fake))
			q := query(t, res.Header.Get("Location"))
			if res.StatusCode != http.StatusSeeOther || q.Get("error") != "source_error" || res.Header.Get("X-Injected") != "" ||
				q.Get("error_description") != "The provider failed or rejected the request." {
				t.Errorf("error=%.40q: HTTP %d to %v", code, res.StatusCode, q)
			}
			a.wantStatus(f.id, "FAILED", "source_error")
		}
	})

	a.in(t, "A057 Stored XSS through names", func(t *testing.T) {
		for i, hostile := range []string{script, "{{7*7}}${7*7}<%= 7*7 %>", "{env.LANYARD_API_KEY}{$LANYARD_API_KEY}{http.request.host}", `javascript:alert(1)`, "\u202e\u2066x", "</title></h1><b>"} {
			user := fmt.Sprintf("%s%d", hostile, i)
			var c connection
			res := a.api(http.MethodPost, "/v1/connections", map[string]any{
				"integration": "reviewed", "user_id": user, "name": hostile, "labels": map[string]string{"x": hostile},
				"redirect_url": a.app.url + "/callback", "state": "app-state",
			}, &c)
			if res.Status != http.StatusCreated {
				t.Fatalf("begin: HTTP %d: %s", res.Status, res.Body)
			}
			browser := newBrowser(t)
			page := bodyOf(t, a.browse(browser, c.ConnectURL))
			wantEscaped(t, page, user)
			m := forward.FindStringSubmatch(page)
			if m == nil {
				t.Fatalf("no way to the provider on %s", page)
			}
			callback := a.consent(browser, html.UnescapeString(m[1]))
			a.complete(c.ID, a.wantReturn(browser, callback, ""), user)
			read := a.api(http.MethodGet, "/v1/connections/"+c.ID, nil, nil)
			var got struct {
				UserID string `json:"user_id"`
				Name   string
				Labels map[string]string
			}
			if err := json.Unmarshal([]byte(read.Body), &got); err != nil || got.UserID != user || got.Name != hostile || got.Labels["x"] != hostile {
				t.Errorf("the API has %+v, %v; want what was given", got, err)
			}
			if ct := read.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") || read.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("the API answers with %v", read.Header)
			}
		}
	})

	a.in(t, "A058 and A063 Security headers and redirects on every $C response", func(t *testing.T) { a.wantHeaders(t) })

	a.in(t, "A061 popup mode postMessage", func(t *testing.T) {
		// There is none: no page has a script, and none is let run.
		browser := newBrowser(t)
		for _, address := range []string{a.appLink("integration", "reviewed"), a.appLink("integration", ""), a.callback("fake")} {
			page := bodyOf(t, a.browse(browser, address))
			wantNoneOf(t, page, "<script", "postMessage", "opener", " onload", " onclick", "javascript:")
		}
		a.wantPage(browser, a.appLink("response_mode", "web_message"), http.StatusBadRequest, "link_invalid")
		a.wantPage(browser, a.appLink("display", "popup"), http.StatusBadRequest, "link_invalid")
	})

	a.in(t, "A054 and A161 One JSON object per line of the log", func(t *testing.T) {
		f, err := os.Open(a.path("caddy.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var entry map[string]any
			if err := json.Unmarshal(lines.Bytes(), &entry); err != nil || entry["forged"] != nil || entry["level"] == nil {
				t.Errorf("%v: %.300q", err, lines.Text())
			}
		}
		if lines.Err() != nil {
			t.Error(lines.Err())
		}
	})
}

// wantHeaders looks at an answer of every kind that the connect flow has.
func (a *arena) wantHeaders(t *testing.T) {
	t.Helper()
	done, failed := a.sendAway(), a.sendOff()
	send := func(method, address string, set ...string) *http.Response {
		req := a.request(method, address)
		for i := 0; i < len(set); i += 2 {
			req.Header.Set(set[i], set[i+1])
		}
		return a.send(newBrowser(t), req)
	}
	page := bodyOf(t, a.browse(newBrowser(t), a.callback("fake")))
	style := regexp.MustCompile(`href="(/connect/[^"]+\.css)"`).FindStringSubmatch(page)
	if style == nil {
		t.Fatalf("no style sheet on %s", page)
	}
	other := a.request(http.MethodGet, a.appLink())
	other.Host = "evil.example"
	answers := []struct {
		name   string
		status int
		res    *http.Response
	}{
		{"link", 303, a.browse(newBrowser(t), a.appLink())},
		{"review", 200, a.browse(newBrowser(t), a.appLink("integration", "reviewed"))},
		{"choice", 200, a.browse(newBrowser(t), a.appLink("integration", ""))},
		{"callback, good", 303, a.browse(done.browser, done.callback)},
		{"callback, bad", 303, a.browse(failed.browser, a.callback("fake", "error", "x", "state", failed.state, "iss", a.site.Fake))},
		{"callback, again", 400, a.browse(done.browser, done.callback)},
		{"callback, none", 400, a.browse(newBrowser(t), a.callback("fake"))},
		{"link, expired", 410, a.browse(newBrowser(t), a.appLink("expires", "1"))},
		{"link, changed", 400, a.browse(newBrowser(t), a.appLink()+"x")},
		{"no connection", 404, a.browse(newBrowser(t), a.appLink("connection_id", "conn_none"))},
		{"no scope", 303, a.browse(newBrowser(t), a.appLink("scopes", `"`))},
		{"no page", 404, a.browse(newBrowser(t), a.site.Public+"/connect/nothing")},
		{"no method", 405, send(http.MethodPost, a.appLink())},
		{"HEAD", 204, send(http.MethodHead, a.appLink())},
		{"prefetch", 204, send(http.MethodGet, a.appLink(), "Sec-Purpose", "prefetch")},
		{"another host", 421, a.send(newBrowser(t), other)},
		{"style", 200, a.browse(newBrowser(t), a.site.Public+style[1])},
		{"icon", 200, a.browse(newBrowser(t), a.site.Public+"/connect/favicon.svg")},
	}
	for _, tt := range answers {
		h := tt.res.Header
		if tt.res.StatusCode != tt.status {
			t.Errorf("%s: HTTP %d, want %d", tt.name, tt.res.StatusCode, tt.status)
		}
		for name, want := range map[string]string{
			"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if got := h.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s: %q, want %q", tt.name, name, got, want)
			}
		}
		csp := strings.Join(h.Values("Content-Security-Policy"), ",")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: the policy is %q, without %s", tt.name, csp, part)
			}
		}
		wantNoneOf(t, csp, "unsafe", "script-src", "*", "http")
		asset := tt.name == "style" || tt.name == "icon"
		if cache := h.Get("Cache-Control"); cache != "no-store" && !asset {
			t.Errorf("%s: Cache-Control: %q", tt.name, cache)
		}
		if h.Get("Via") != "" || strings.ContainsAny(h.Get("Server"), "0123456789") || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", tt.name, h)
		}
	}
}

func wantNoneOf(t *testing.T, in string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(in, text) {
			t.Errorf("it holds %q: %s", text, in)
		}
	}
}

// wantEscaped checks that a page shows a text as it is, and has no markup of it.
func wantEscaped(t *testing.T, page, text string) {
	t.Helper()
	if !strings.Contains(html.UnescapeString(page), text) {
		t.Errorf("the page does not show %q: %s", text, page)
	}
	if strings.ContainsAny(text, "<>") && strings.Contains(page, text) {
		t.Errorf("the page has %q as it is", text)
	}
	wantNoneOf(t, page, "<script", "<svg onload", "<img", "onerror=alert(1)>", ">49<", "<b>")
}

// behindTLS puts a server with a certificate between browsers and Lanyard, as
// in production. w.site.Public is its address then.
func behindTLS(w *world, c *fakeprovider.Config) {
	w.site.Public = "https://example.com"
	c.RedirectURIs = []string{w.site.Public + "/callback/fake"}
}

// tlsBrowser returns a browser for which example.com is this Lanyard.
func (w *world) tlsBrowser(t *testing.T) *http.Client {
	t.Helper()
	front := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host, r.RequestURI = "http", fmt.Sprintf("127.0.0.1:%d", w.site.Connect), ""
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		maps.Copy(rw.Header(), res.Header)
		rw.WriteHeader(res.StatusCode)
		_, _ = rw.Write([]byte(bodyOf(t, res)))
	}))
	t.Cleanup(front.Close)
	// The test server's own transport takes example.com for it.
	b := newBrowser(t)
	b.Transport = front.Client().Transport
	return b
}

func TestAttacksWithoutAnApp(t *testing.T) {
	w := newWorld(t, withoutRedirectURL, behindTLS)
	link := func(user string) string { return w.link(url.Values{"integration": {"fake"}, "user_id": {user}}) }
	away := func(browser *http.Client, user string) (authorize string) {
		t.Helper()
		m := forward.FindStringSubmatch(bodyOf(w.t, w.browse(browser, link(user))))
		if m == nil {
			w.t.Fatal("no way to the provider")
		}
		return html.UnescapeString(m[1])
	}

	w.in(t, "A053 XSS in error_description and error_uri", func(t *testing.T) {
		for code, title := range map[string]string{"access_denied": "You did not connect", script: "did not complete", "server_error": "did not complete"} {
			b := w.tlsBrowser(t)
			state := query(t, away(b, "u-"+title)).Get("state")
			res := w.browse(b, w.callback("fake", "error", code, "error_description", script, "error_uri", "javascript:alert(1)", "state", state, "iss", w.site.Fake))
			page := bodyOf(t, res)
			if !strings.Contains(page, title) {
				t.Errorf("error=%q: HTTP %d: %s", code, res.StatusCode, page)
			}
			wantNoneOf(t, page, "canary", "alert", "javascript:", "onload")
		}
	})

	w.in(t, "A057 Stored XSS through names", func(t *testing.T) {
		user := script + "{{7*7}}{env.LANYARD_API_KEY}"
		b := w.tlsBrowser(t)
		review := bodyOf(t, w.browse(b, link(user)))
		wantEscaped(t, review, user)
		callback := w.consent(newBrowser(t), html.UnescapeString(forward.FindStringSubmatch(review)[1]))
		success := bodyOf(t, w.browse(b, callback))
		if !strings.Contains(success, "is connected") {
			t.Errorf("the flow ends with %s", success)
		}
		wantEscaped(t, success, user)
	})

	w.in(t, "A062 Cookie attributes", func(t *testing.T) {
		b := w.tlsBrowser(t)
		res := w.browse(b, link("cookie"))
		cookies := res.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("the cookies are %v", res.Header.Values("Set-Cookie"))
		}
		c := cookies[0]
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" ||
			c.MaxAge <= 0 || c.MaxAge > 600 || len(c.Value) < 43 {
			t.Errorf("the cookie is %s", c.Name+c.Raw[len(c.Name)+1+len(c.Value):])
		}
		at := html.UnescapeString(forward.FindStringSubmatch(bodyOf(t, res))[1])
		ended := w.browse(b, w.consent(newBrowser(t), at)).Cookies()
		if len(ended) != 1 || ended[0].Name != c.Name || ended[0].MaxAge >= 0 || ended[0].Value != "" || !ended[0].Secure {
			t.Errorf("at its end the flow sets %v, want its cookie taken away", ended)
		}
		public, err := url.Parse(w.site.Public)
		if err != nil {
			t.Fatal(err)
		}
		if left := b.Jar.Cookies(public); len(left) > 0 {
			t.Errorf("%d cookies are left", len(left))
		}
	})
}
