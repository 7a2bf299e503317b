package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// attacked is a world with an API that is made of a socket and nothing else,
// as the integration raw, beside the provider's own.
type attacked struct {
	*world
	up     *rawAPI // of the integration raw
	id     string  // user u1's connection of the integration raw
	fakeID string  // and of the integration fake
}

// newAttacked starts one. more are further lines of the lanyard block, sites
// further sites.
func newAttacked(t *testing.T, more, sites string) *attacked {
	t.Helper()
	a := &attacked{up: newRawAPI(t, nil)}
	a.world = newWorld(t, func(w *world, c *fakeprovider.Config) {
		c.RedirectURIs = append(c.RedirectURIs, fmt.Sprintf("http://localhost:%d/callback/raw", w.site.Connect))
	})
	a.site.Sites = sites
	a.site.Extra = fmt.Sprintf(`
		provider raw {
			authorize_url %[1]s/authorize
			token_url %[1]s/token
			revoke_url %[1]s/revoke
			api_url http://%[2]s/api
			allow_private
		}
		integration raw {
			client_id {env.FAKE_CLIENT_ID}
			client_secret {env.FAKE_CLIENT_SECRET}
			scopes read
		}
		%[3]s`, a.site.Fake, a.up.addr, more)
	if err := a.reload(); err != nil {
		t.Fatal(err)
	}
	a.id, a.fakeID = a.connectTo("raw", "u1"), a.connect("u1")
	return a
}

// connectTo is connect for another integration than fake.
func (w *world) connectTo(integration, user string) string {
	w.t.Helper()
	var c connection
	w.api(http.MethodPost, "/v1/connections", map[string]any{"integration": integration, "user_id": user, "redirect_url": w.app.url + "/callback", "state": "app-state"}, &c)
	back := w.follow(newBrowser(w.t), c.ConnectURL)
	w.complete(c.ID, back.Get("completion_code"), user)
	return c.ID
}

// rawAPI is a server that keeps the bytes it gets and answers with those it is
// told to.
type rawAPI struct {
	addr string

	mu      sync.Mutex // guards what follows
	got     []rawRequest
	reply   string
	conns   map[net.Conn]bool
	dialled int
}

// rawRequest is a request as it arrived.
type rawRequest struct {
	raw    string
	head   *http.Request // nil if it could not be read as one
	body   string
	broken bool // it ended before its end
}

const rawOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// newRawAPI starts one, on 127.0.0.1, or behind TLS on all addresses.
func newRawAPI(t *testing.T, config *tls.Config) *rawAPI {
	t.Helper()
	at := "127.0.0.1:0"
	if config != nil {
		at = ":0" // whatever a name leads to
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	u := &rawAPI{addr: "127.0.0.1:" + portOf(l.Addr().String()), reply: rawOK, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				conn = tls.Server(conn, config)
			}
			u.mu.Lock()
			u.conns[conn] = true
			u.dialled++
			u.mu.Unlock()
			wg.Go(func() { u.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		u.mu.Lock()
		for conn := range u.conns {
			_ = conn.Close()
		}
		u.mu.Unlock()
		wg.Wait()
	})
	return u
}

// serve answers the requests of a connection, one after the other.
func (u *rawAPI) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		u.mu.Lock()
		delete(u.conns, conn)
		u.mu.Unlock()
	}()
	var all bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &all))
	for start := 0; ; {
		req, err := http.ReadRequest(in)
		if err != nil && all.Len() == start { // nobody asked, or nobody was believed
			return
		}
		seen := rawRequest{head: req}
		if err == nil {
			var body []byte
			body, err = io.ReadAll(req.Body)
			seen.body, seen.broken = string(body), err != nil
		}
		end := all.Len() - in.Buffered()
		seen.raw, start = string(all.Bytes()[start:end]), end
		u.mu.Lock()
		u.got = append(u.got, seen)
		reply := u.reply
		u.mu.Unlock()
		if err != nil {
			return
		}
		reply = strings.ReplaceAll(reply, "TOKEN", strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))
		if _, err := io.WriteString(conn, reply); err != nil || strings.Contains(reply, "Connection: close\r\n") {
			return
		}
	}
}

// answer says what it answers from now on. TOKEN in it is the token that the
// request brought. A reply of unknown length closes.
func (u *rawAPI) answer(reply string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reply = reply
}

// dials returns how many connections it took.
func (u *rawAPI) dials() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dialled
}

// take returns the requests so far and forgets them.
func (u *rawAPI) take() []rawRequest {
	u.mu.Lock()
	defer u.mu.Unlock()
	got := u.got
	u.got = nil
	return got
}

// wire sends bytes as they are, {KEY}, {ID} and {EVIL} replaced, and returns the answers
// that came back until the connection was closed.
func (a *attacked) wire(t *testing.T, request string) []answer {
	t.Helper()
	return a.wireTo(t, a.site.Proxy, "", request)
}

// wireTo is wire to another port, from a loopback address if one is given.
func (a *attacked) wireTo(t *testing.T, port int, from, request string) []answer {
	t.Helper()
	var d net.Dialer
	if from != "" && manyAddresses() {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	request = strings.NewReplacer("{KEY}", a.clientKey, "{ID}", a.id, "{EVIL}", a.evil.host).Replace(request)
	// What is refused early may be closed before all of it was sent.
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, request)
		written <- err
	}()
	b, err := io.ReadAll(conn)
	_ = conn.Close()
	werr := <-written
	if err != nil && werr == nil && len(b) == 0 {
		t.Fatalf("no answer: %v", err)
	}
	a.note(b)
	return answersIn(t, b)
}

// answersIn reads the final answers in b.
func answersIn(t *testing.T, b []byte) []answer {
	t.Helper()
	var out []answer
	for in := bufio.NewReader(bytes.NewReader(b)); ; {
		if _, err := in.Peek(1); err != nil {
			return out
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Errorf("bytes that are no answer: %v in %q", err, b)
			return out
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode >= 200 {
			out = append(out, answer{res.StatusCode, res.Header, string(body)})
		}
	}
}

// crlf ends the lines of a request as HTTP does.
func crlf(request string) string { return strings.ReplaceAll(request, "\n", "\r\n") }

// wantTokenOnce checks that a request carries the token of a connection, once,
// and nothing else that could be a credential.
func (a *attacked) wantTokenOnce(t *testing.T, r rawRequest) {
	t.Helper()
	if r.head == nil {
		t.Fatalf("no request: %q", r.raw)
	}
	values := r.head.Header["Authorization"]
	if len(values) != 1 || !strings.HasPrefix(values[0], "Bearer fp_") || !slices.Contains(a.fake.Secrets(), strings.TrimPrefix(values[0], "Bearer ")) {
		t.Errorf("Authorization = %q, want one token of the provider", values)
	}
	for _, key := range append([]string{a.clientKey, a.apiKey, a.id}, a.secrets...) {
		if strings.Contains(r.raw, key) {
			t.Errorf("the upstream got a key or a connection's ID: %q", r.raw)
		}
	}
}

// wantRefused checks that a request was answered once, by Lanyard, with one of
// these statuses, and that nothing went out. An empty code is not looked at.
func (a *attacked) wantRefused(t *testing.T, got []answer, code string, statuses ...int) {
	t.Helper()
	if len(got) != 1 || !slices.Contains(statuses, got[0].Status) {
		t.Errorf("%d answers %v, want one of %v", len(got), statusesOf(got), statuses)
	}
	if code != "" && (len(got) == 0 || got[0].Header.Get("Lanyard-Error") != code) {
		t.Errorf("Lanyard-Error is not %s: %v", code, got)
	}
	a.wantNothingSent(t)
}

func (a *attacked) wantNothingSent(t *testing.T) {
	t.Helper()
	for _, r := range a.up.take() {
		t.Errorf("this went out: %q", r.raw)
	}
}

// wantOne returns the one request that the upstream got, token checked.
func (a *attacked) wantOne(t *testing.T) rawRequest {
	t.Helper()
	got := a.up.take()
	if len(got) != 1 {
		t.Fatalf("the upstream got %d requests, want 1: %v", len(got), got)
	}
	a.wantTokenOnce(t, got[0])
	return got[0]
}

func statusesOf(list []answer) []int {
	var out []int
	for _, a := range list {
		out = append(out, a.Status)
	}
	return out
}

// otherKey returns a key that is not configured.
func otherKey() string { return "nosuchkey" + rand.Text() + rand.Text() }

// must calls the management API, which must do it.
func (a *attacked) must(t *testing.T, method, path string) {
	t.Helper()
	if got := a.api(method, path, nil, nil); got.Status != http.StatusOK {
		t.Fatalf("%s %s: HTTP %d: %s", method, path, got.Status, got.Body)
	}
}

// event is a line of the audit log, as far as these tests look at it.
type event struct {
	Type         string `json:"type"`
	ConnectionID string `json:"connection_id"`
	Reason       string `json:"reason"`
	Allowed      bool   `json:"allowed"`
}

// wantEvent checks that the audit log has a line. What is empty in want is not
// looked at, but for Allowed.
func (a *attacked) wantEvent(t *testing.T, want event) {
	t.Helper()
	for path := "/v1/events?limit=200"; ; {
		var list struct {
			Events []event
			Next   string `json:"next_cursor"`
		}
		a.api(http.MethodGet, path, nil, &list)
		if slices.ContainsFunc(list.Events, func(e event) bool {
			return e.Type == want.Type && e.Reason == want.Reason && e.Allowed == want.Allowed && (want.ConnectionID == "" || e.ConnectionID == want.ConnectionID)
		}) {
			return
		}
		if len(list.Events) == 0 {
			t.Errorf("the audit log has no %+v", want)
			return
		}
		path = "/v1/events?limit=200&cursor=" + list.Next
	}
}
