package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// evil is a host to which attacks try to lead somebody. Each world has one, and
// ends with a look at it: nothing may have come.
type evil struct {
	url  string // http://127.0.0.1:port
	host string // the same without the scheme

	mu   sync.Mutex // guards came
	came []string
}

func newEvil(t *testing.T) *evil {
	t.Helper()
	e := new(evil)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		e.note(r.Method + " request")
	}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			e.note("connection") // whatever it goes on to say, TLS too
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	e.url, e.host = srv.URL, strings.TrimPrefix(srv.URL, "http://")
	return e
}

func (e *evil) note(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.came = append(e.came, what)
}

// wantNothing fails the test if anything reached the host.
func (e *evil) wantNothing(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.came) > 0 {
		t.Errorf("the attacker's host was reached: %v", e.came)
	}
}

// manyAddresses reports whether this system has all of 127.0.0.0/8, as Linux does.
var manyAddresses = sync.OnceValue(func() bool {
	l, err := net.Listen("tcp", "127.1.1.1:0")
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
})

var lastAddress atomic.Uint32

// newAddress returns a transport whose connections come from a loopback address
// that no other has, where there is more than one.
func newAddress(t *testing.T) *http.Transport {
	t.Helper()
	var d net.Dialer
	if manyAddresses() {
		n := lastAddress.Add(1)
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, byte(1+n>>8), byte(n), 1)}
	}
	tr := &http.Transport{DialContext: d.DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// in runs a case on a world that several share. A case that needs a defence to
// be looked at alone is found by the number that its name begins with.
func (w *world) in(t *testing.T, name string, run func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		outer := w.t
		w.t = t
		defer func() { w.t = outer }()
		run(t)
	})
}

// wantPage loads a page that must be one of Lanyard's, with this status and
// code, and that leads nowhere. It returns the page.
func (w *world) wantPage(browser *http.Client, address string, status int, code string) string {
	w.t.Helper()
	res := w.browse(browser, address)
	return w.isPage(res, status, code)
}

// isPage checks an answer to be a page that changes nothing for its reader.
func (w *world) isPage(res *http.Response, status int, code string) string {
	w.t.Helper()
	body := bodyOf(w.t, res)
	if res.StatusCode != status || !strings.Contains(body, `<dd class="mono">`+code+`</dd>`) {
		w.t.Errorf("HTTP %d, want %d with the page code %s: %s", res.StatusCode, status, code, body)
	}
	if to := res.Header.Values("Location"); len(to) > 0 {
		w.t.Errorf("the page leads to %q", to)
	}
	if i := slices.IndexFunc(res.Cookies(), func(c *http.Cookie) bool { return c.MaxAge >= 0 }); i >= 0 {
		w.t.Errorf("the page sets the cookie %s", res.Cookies()[i].Name)
	}
	if res.Header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("the page may be kept: %q", res.Header.Get("Cache-Control"))
	}
	return body
}

// count returns how many connections there are.
func (w *world) count() int {
	w.t.Helper()
	var list struct{ Connections []connection }
	w.api(http.MethodGet, "/v1/connections?limit=200", nil, &list)
	return len(list.Connections)
}

// posts returns how many requests the token endpoint got so far.
func (w *world) posts() int { return len(w.fake.Ledger().Posts) }

// wantNoPosts checks that the token endpoint got no request since before.
func (w *world) wantNoPosts(before int) {
	w.t.Helper()
	w.wantPostsSince(before, 0)
}

func (w *world) wantPostsSince(before, n int) {
	w.t.Helper()
	if posts := w.fake.Ledger().Posts[before:]; len(posts) != n {
		w.t.Errorf("the token endpoint got %d requests; want %d: %+v", len(posts), n, posts)
	}
}

// wantReturn checks a 303 to the app with error=code, or with a completion code
// if code is empty.
func (w *world) wantReturn(browser *http.Client, callback, code string) string {
	w.t.Helper()
	back := w.finish(browser, callback)
	if back.Get("error") != code || (back.Get("completion_code") == "") != (code != "") {
		w.t.Errorf("the app got %v, want error=%q", back, code)
	}
	return back.Get("completion_code")
}

// callback returns the address of an integration's callback with these
// parameters, name, value, name, value …, encoded as they come.
func (w *world) callback(integration string, pairs ...string) string {
	var b strings.Builder
	sep := "?"
	for pair := range slices.Chunk(pairs, 2) {
		fmt.Fprintf(&b, "%s%s=%s", sep, pair[0], escape(pair[1]))
		sep = "&"
	}
	return w.site.Public + "/callback/" + integration + b.String()
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func bodyOf(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (w *world) request(method, address string) *http.Request {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, address, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return req
}

// send makes a browser's request of any kind, and keeps the answer for the sweep.
func (w *world) send(browser *http.Client, req *http.Request) *http.Response {
	w.t.Helper()
	res, err := browser.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b := bodyOf(w.t, res)
	w.note([]byte(b))
	w.out.meetAnswer(res.Header, []byte(b))
	res.Body = io.NopCloser(strings.NewReader(b))
	return res
}

// auditLine is a line of the audit log of one connection.
type auditLine struct {
	Type, Reason string
	Allowed      bool
	Actor        struct{ Kind, Name, From string }
	Count        int
}

// events returns what the audit log tells of a connection, or for no ID the
// first page of all that it tells.
func (w *world) events(id string) []auditLine {
	w.t.Helper()
	var log struct{ Events []auditLine }
	query := "?limit=200"
	if id != "" {
		query += "&connection_id=" + id
	}
	if a := w.api(http.MethodGet, "/v1/events"+query, nil, &log); a.Status != http.StatusOK {
		w.t.Fatalf("events: HTTP %d: %s", a.Status, a.Body)
	}
	return log.Events
}

// wantEvent checks that the audit log tells of something.
func (w *world) wantEvent(id, kind, reason string) auditLine {
	w.t.Helper()
	all := w.events(id)
	i := slices.IndexFunc(all, func(e auditLine) bool { return e.Type == kind && e.Reason == reason })
	if i < 0 {
		w.t.Errorf("no event %s (%s) in %+v", kind, reason, all)
		return auditLine{}
	}
	return all[i]
}
