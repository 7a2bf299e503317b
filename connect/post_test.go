package connect_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// post sends a form, with the browser's cookies or as a browser does from
// another site: without those that are SameSite=Lax.
func (br *browser) post(target string, form url.Values, crossSite bool) *httptest.ResponseRecorder {
	br.b.t.Helper()
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !crossSite {
		return br.do(r)
	}
	r.Header.Set("Origin", "https://idp.example")
	return br.b.browser().do(r)
}

func formPost(p *connect.Params) { p.FormPost = true }

// follow posts an authorization response from another site, and follows the
// redirect.
func (br *browser) follow(form url.Values) *httptest.ResponseRecorder {
	br.b.t.Helper()
	w := br.post(public+"/callback/github", form, true)
	loc := w.Header().Get("Location")
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(loc, "/callback/github?form_post=") {
		br.b.t.Fatalf("posted callback = %d %q\n%s", w.Code, loc, w.Body)
	}
	for _, values := range form {
		if strings.Contains(loc, values[0]) {
			br.b.t.Errorf("%q stands in the URL %s", values[0], loc)
		}
	}
	if len(w.Result().Cookies()) != 0 {
		br.b.t.Error("the post got a cookie")
	}
	return br.get(public + loc)
}

// TestPostedCallback: A025. A provider's cross-site form decides nothing; what
// follows by the browser's own GET is a callback like any other.
func TestPostedCallback(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	form := url.Values{"state": {state}, "code": {codeText}, "user": {`{"name":"x"}`}}
	w := br.post(public+"/callback/github", form, true)
	if b.p.exchanged() != 0 || b.flow(state).Stage != tokenstore.FlowOpen {
		t.Fatalf("the post alone: %d exchanges, flow %+v", b.p.exchanged(), b.flow(state))
	}
	carried := public + w.Header().Get("Location")
	// In another browser it ends the flow, like every code in other hands.
	other := br.open(b.link())
	wantPage(t, b.browser().follow(url.Values{"state": {other}, "code": {"other-canary"}}), 400, "browser_mismatch")
	if b.flow(other).Outcome != "browser_mismatch" {
		t.Errorf("flow %+v", b.flow(other))
	}
	wantApp(t, br.get(carried), "")
	if b.p.exchanged() != 1 || b.p.exchanges[0].Code != codeText {
		t.Errorf("exchanges %v", b.p.exchanges)
	}
	wantPage(t, br.get(carried), 400, "state_used") // and again it changes nothing
	if b.p.exchanged() != 1 {
		t.Errorf("%d exchanges", b.p.exchanged())
	}
	wantApp(t, br.follow(url.Values{"state": {br.open(b.link())}, "error": {"access_denied"}, "error_description": {"the user said no"}}), "user_denied")
}

func TestPostedCallbackRefused(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	for name, form := range map[string]url.Values{
		"no state":        {"code": {"x"}},
		"two states":      {"state": {state, state}, "code": {"x"}},
		"code and error":  {"state": {state}, "code": {"x"}, "error": {"e"}},
		"a token":         {"state": {state}, "code": {"x"}, "access_token": {"t"}},
		"too long":        {"state": {state}, "code": {strings.Repeat("x", 9<<10)}},
		"too long a body": {"state": {state}, "code": {"x"}, "more": {strings.Repeat("x", 65<<10)}},
	} {
		t.Run(name, func(t *testing.T) {
			wantPage(t, br.post(public+"/callback/github", form, true), 400, "state_invalid")
		})
	}
	good := url.Values{"state": {state}, "code": {"x"}}
	wantPage(t, br.post(public+"/callback/other", good, true), 400, "state_invalid")
	r := httptest.NewRequest(http.MethodPost, public+"/callback/github", strings.NewReader(good.Encode()))
	r.Header.Set("Content-Type", "application/json")
	wantPage(t, br.do(r), 400, "state_invalid")

	sealed := br.post(public+"/callback/github", good, true).Header().Get("Location")
	for name, target := range map[string]string{
		"changed":                sealed[:len(sealed)-2] + "AA",
		"cut":                    sealed[:len(sealed)-8],
		"of another integration": strings.Replace(sealed, "/github", "/gitlab", 1),
		"more behind it":         sealed + "&code=y",
		"nothing in it":          "/callback/github?form_post=",
		"not sealed here":        "/callback/github?form_post=" + b64([]byte("state="+state+"&code=x")),
	} {
		t.Run(name, func(t *testing.T) {
			wantPage(t, br.get(public+target), 400, "state_invalid")
		})
	}
	if f := b.flow(state); f.Stage != tokenstore.FlowOpen || b.p.exchanged() != 0 {
		t.Errorf("flow %+v, %d exchanges", f, b.p.exchanged())
	}
}

func TestPostedCallbackLivesAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		br := b.browser()
		for wait, want := range map[time.Duration]int{58 * time.Second: 303, 61 * time.Second: 400} {
			state := br.open(b.link())
			loc := br.post(public+"/callback/github", url.Values{"state": {state}, "code": {"x"}}, true).Header().Get("Location")
			time.Sleep(wait)
			if w := br.get(public + loc); w.Code != want {
				t.Errorf("after %v: %d, want %d", wait, w.Code, want)
			}
		}
	})
}

// wantForm checks that an answer is a page that posts to the app, and returns
// what.
func wantForm(tb testing.TB, w *httptest.ResponseRecorder) url.Values {
	tb.Helper()
	body := w.Body.String()
	if w.Code != http.StatusOK || w.Header().Get("Location") != "" || !strings.Contains(body, `action="`+appURL+`"`) {
		tb.Fatalf("got %d %s\n%s\nwant a form to the app", w.Code, w.Header().Get("Location"), body)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "form-action https://app.example.com") || strings.Contains(csp, "unsafe") {
		tb.Errorf("policy %q", csp)
	}
	for key, values := range w.Header() {
		if strings.Contains(strings.Join(values, " "), "completion_code") {
			tb.Errorf("header %s = %q", key, values)
		}
	}
	return hidden(tb, body)
}

// hidden returns the hidden fields of a page.
func hidden(tb testing.TB, body string) url.Values {
	tb.Helper()
	q := url.Values{}
	for _, n := range inputs(tb, body) {
		if n["type"] == "hidden" {
			q.Add(n["name"], n["value"])
		}
	}
	return q
}

func TestFormPostMode(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	q := wantForm(t, br.callback(br.open(b.link(formPost))))
	id, code := q.Get("connection_id"), q.Get("completion_code")
	c := b.connection(id)
	if q.Get("state") != "app-state" || c.Staged == nil || secretHash(code) != c.Staged.CodeHash || q.Has("error") {
		t.Errorf("the app gets %v", q)
	}
	q = wantForm(t, br.callback(br.open(b.link(formPost)), "error", "access_denied"))
	if q.Get("error") != "user_denied" || q.Get("state") != "app-state" || q.Get("error_description") == "" || q.Has("connection_id") {
		t.Errorf("the app gets %v", q)
	}
	// What is wrong with the link is told in the same way.
	b = newBench(t, b.integration(func(in *connect.Integration) { in.DeclaredScopes = []string{"read"} }))
	q = wantForm(t, b.browser().get(b.link(formPost, func(p *connect.Params) { p.Scopes = []string{"other"} })))
	if q.Get("error") != "invalid_scope" {
		t.Errorf("the app gets %v", q)
	}
}

func TestResponseMode(t *testing.T) {
	s := signer(public, apiKey)
	query := "expires=" + strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10) + "&response_mode="
	for mode, want := range map[string]bool{"": false, "query": false, "form_post": true} {
		p, err := s.Verify(signRaw(public, apiKey, query+mode), time.Now())
		if err != nil || p.FormPost != want {
			t.Errorf("response_mode=%s = %+v, %v", mode, p, err)
		}
	}
}

// inputs returns the attributes of a page's inputs, and of its text areas.
func inputs(tb testing.TB, body string) []map[string]string {
	tb.Helper()
	root, err := html.Parse(strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	var all []map[string]string
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "input" && n.Data != "textarea" {
			continue
		}
		attrs := map[string]string{}
		for _, a := range n.Attr {
			attrs[a.Key] = a.Val
		}
		all = append(all, attrs)
	}
	return all
}

// FuzzPosted: whatever is posted, to whichever of the paths that take a form,
// nothing changes by it but what the flow's own browser may change, and nobody is
// sent elsewhere than to the callback.
func FuzzPosted(f *testing.F) {
	for _, path := range []string{"/callback/github", "/callback/other", "/connect/key", "/connect/params"} {
		for _, body := range []string{"", "state=STATE&code=c", "state=STATE&state=x&code=c", "state=STATE&field_api_key=k", "state=LINK&field_shop=x", "%zz", "code=%0d%0aSet-Cookie:x&state=STATE"} {
			f.Add(path, body, "application/x-www-form-urlencoded")
			f.Add(path, body, "text/plain")
		}
	}
	f.Fuzz(func(t *testing.T, path, body, kind string) {
		if strings.ContainsAny(path, " \x00\r\n\x7f\t#?%") || !strings.HasPrefix(path, "/") || strings.ContainsAny(kind, "\x00\r\n") {
			t.Skip("no request holds this")
		}
		b := newBench(t)
		br := b.browser()
		link := b.link()
		state := br.open(link)
		before := b.flow(state)
		_, query, _ := strings.Cut(link, "?")
		body = strings.NewReplacer("STATE", state, "LINK", url.QueryEscape(query)).Replace(body)
		r := httptest.NewRequest(http.MethodPost, public+"/callback/github", strings.NewReader(body))
		r.RequestURI = path
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder() // from another site: without the cookie
		b.h.ServeHTTP(w, r)
		loc := w.Header().Get("Location")
		if w.Code >= 500 || loc != "" && !strings.HasPrefix(loc, "/callback/github?form_post=") {
			t.Fatalf("%q to %q = %d %q", body, path, w.Code, loc)
		}
		if b.p.exchanged() != 0 || len(b.connections()) != 0 || b.flow(state).Stage != before.Stage {
			t.Fatalf("%q to %q changed something", body, path)
		}
	})
}
