package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// Tests of attacks carry the numbers of docs/attacks.md. Where an answer of a
// token endpoint might be taken for the connection's end it is "unknown" here: an answer that can't be read is no verdict
// on a connection.

// What becomes of a refresh.
const (
	unknown = "unknown" // it could not be read: 503, and nothing has changed
	refused = "refused" // a no that is not final: the same
	dead    = "dead"    // a final no: EXPIRED once the access token has ended
	taken   = "taken"   // a success
)

// attackTokens stand in answers that must not be taken.
const attackTokens = `"access_token":"EVILACCESSTOKEN0001","refresh_token":"EVILREFRESHTOKEN001"`

type tokenAnswer struct {
	name  string
	fault fakeprovider.Fault
	want  string
}

func rawJSON(status int, body string) fakeprovider.Fault {
	return fakeprovider.Answer(status, "application/json", body)
}

// bomb is 200 MB of spaces, compressed.
func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	_, err := zip.Write(bytes.Repeat([]byte(" "), 1<<20))
	if err := errors.Join(err, zip.Close()); err != nil {
		t.Fatal(err)
	}
	return strings.Repeat(b.String(), 200) // RFC 1952 section 2.2: members one after the other are one file
}

// endless writes an answer until nobody reads it any more, and counts.
func endless(written *atomic.Int64) fakeprovider.Fault {
	return fakeprovider.Raw("endless", func(conn io.Writer) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"+attackTokens+`,"padding":"`)
		block := bytes.Repeat([]byte("x"), 64<<10)
		for written.Load() < 64<<20 {
			n, err := conn.Write(block)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
}

func hostileAnswers(t *testing.T, evil string, written *atomic.Int64) []tokenAnswer {
	header := http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}
	all := []tokenAnswer{
		{"A134 5 MB of JSON", rawJSON(200, `{`+attackTokens+`,"token_type":"Bearer","padding":"`+strings.Repeat("x", 5<<20)+`"}`), unknown},
		{"A134 endless", endless(written), unknown},
		{"A137 an error under 200", rawJSON(200, `{"error":"invalid_grant"}`), dead},
		// What a provider's own codes mean is the catalogue's to say (slack,
		// github). This one has no entry: it is no success.
		{"A137 Slack's error", rawJSON(200, `{"ok":false,"error":"invalid_refresh_token"}`), refused},
		{"A137 an error with tokens", rawJSON(200, `{"error":"server_error",`+attackTokens+`}`), unknown},
		{"A137 GitHub's error", fakeprovider.Answer(200, "application/x-www-form-urlencoded", "error=bad_refresh_token&error_description=x"), refused},
		{"A138 an access token twice", rawJSON(200, `{`+attackTokens+`,"access_token":"EVILACCESSTOKEN0002"}`), unknown},
		{"A138 a refresh token twice", rawJSON(200, `{`+attackTokens+`,"refresh_token":"EVILREFRESHTOKEN002"}`), unknown},
		{"A138 another case", rawJSON(200, `{`+attackTokens+`,"Access_Token":"EVILACCESSTOKEN0003"}`), unknown},
		{"A138 a long s", rawJSON(200, `{"access_token":"EVILACCESSTOKEN0001","refre\u017fh_token":"EVILREFRESHTOKEN003"}`), unknown},
		{"A141 expires_in -5", fakeprovider.ExpiresIn(-5), taken},
		{"A141 expires_in 0", fakeprovider.ExpiresIn(0), taken},
		{"A142 expires_in text", fakeprovider.ExpiresIn("3600"), taken},
		{"A142 expires_in 3600.5", fakeprovider.ExpiresIn(json.RawMessage("3600.5")), taken},
		{"A142 expires_in 1e14", fakeprovider.ExpiresIn(json.RawMessage("1e14")), taken},
		{"A142 expires_in null", fakeprovider.ExpiresIn(json.RawMessage("null")), taken},
		{"A142 no expires_in", fakeprovider.ExpiresIn(nil), taken},
		{"A139 no token type", fakeprovider.Field("token_type", nil), taken},
		{"A143 empty", rawJSON(200, `{}`), unknown},
		{"A143 null", rawJSON(200, `{"access_token":null,"refresh_token":"EVILREFRESHTOKEN004"}`), unknown},
		{"A143 a number", rawJSON(200, `{"access_token":123}`), unknown},
		{"A145 trailing garbage", rawJSON(200, `{`+attackTokens+`}{}`), unknown},
		{"A145 deep", rawJSON(200, `{`+attackTokens+`,"a":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)+`}`), unknown},
		{"A145 invalid UTF-8", rawJSON(200, "{\"access_token\":\"EVIL\xff\xfeACCESSTOKEN\"}"), unknown},
		{"A145 HTML", fakeprovider.HTML(200), unknown},
		{"A145 another content type", fakeprovider.ContentType("text/html"), taken},
		{"A145 a form", fakeprovider.FormEncoded(), taken},
		{"A146 a bomb", fakeprovider.AnswerWith(200, header, bomb(t)), unknown},
		{"A149 a description with secrets", rawJSON(400, `{"error":"invalid_grant","error_description":"DESCRIPTION\u001b[31m\nof EVILREFRESHTOKEN005"}`), dead},
		{"A149 a code with escapes", rawJSON(400, `{"error":"DESCRIPTION\u001b[31m\n{\"level\":\"info\"}"}`), refused},
	}
	for name, kind := range map[string]string{"mac": "mac", "DPoP": "DPoP", "N_A": "N_A", "with a header": `Bearer\r\nX: 1`} {
		all = append(all, tokenAnswer{"A139 token type " + name, rawJSON(200, `{`+attackTokens+`,"token_type":"`+kind+`"}`), unknown})
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		to := fakeprovider.AnswerWith(status, http.Header{"Location": {evil + "/token"}}, "")
		all = append(all, tokenAnswer{fmt.Sprintf("A147 redirect %d", status), to, refused})
	}
	return all
}

// memoryPeak returns the most memory that the program has had, in bytes.
func (w *world) memoryPeak() int64 {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		w.t.Skip("needs /proc")
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		w.t.Fatal("no VmHWM")
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// TestHostileTokenAnswers has a token endpoint give hostile answers, to a
// refresh and to a code exchange. In one world, since an answer for one
// connection must not touch another.
func TestHostileTokenAnswers(t *testing.T) {
	w := newWorld(t)
	healthy := w.join("healthy")
	var written atomic.Int64
	answers := hostileAnswers(t, w.evil.url, &written)
	members := map[string]*member{}
	var names []string
	for _, c := range answers {
		names = append(names, "refresh "+c.name)
	}
	for i, m := range w.joinNamed(names) {
		members[answers[i].name] = m
	}
	peak := w.memoryPeak()
	for _, c := range answers {
		m := members[c.name]
		w.in(t, c.name+": refresh", func(*testing.T) { w.refreshAnswered(m, c) })
		w.mustRefresh(healthy) // or the endpoint would count as down
		w.in(t, c.name+": code exchange", func(*testing.T) { w.exchangeAnswered(c) })
	}
	w.in(t, "A134 A146 little is read and kept", func(t *testing.T) {
		if n := written.Load(); n > 16<<20 { // two answers of 1 MiB, and what sockets buffer
			t.Errorf("%d bytes of endless answers were read", n)
		}
		if grown := w.memoryPeak() - peak; grown > 48<<20 {
			t.Errorf("the program took %d MiB more", grown>>20)
		}
	})
	w.in(t, "A146 compression is not asked for", func(t *testing.T) {
		w.out.mu.Lock()
		defer w.out.mu.Unlock()
		posts := strings.Split(w.out.toProvider.String(), "POST /token\n")[1:]
		if len(posts) < len(answers) {
			t.Fatalf("%d token requests", len(posts))
		}
		for _, p := range posts {
			if head, _, _ := strings.Cut(p, "\r\n\r\n"); strings.Contains(head, "Accept-Encoding") {
				t.Fatalf("a token request has %q", head)
			}
		}
	})
	w.stop()
	w.start()
	w.in(t, "after a restart the old records serve, and have their refresh tokens", func(t *testing.T) {
		for _, ended := range []bool{false, true} {
			if ended {
				w.fake.ExpireAccessTokens()
			}
			for _, c := range answers {
				if m := members[c.name]; c.want == dead && ended {
					if a, err := w.tryCall(m); err != nil || a.Status != http.StatusFailedDependency {
						t.Errorf("%s: %v, HTTP %d: %s", m.account, err, a.Status, a.Body)
					}
				} else if err := w.served(m); err != nil {
					t.Error(err)
				}
			}
		}
		w.wantNoReuse()
	})
	w.look("the logs", w.logged(), []string{"EVILACCESSTOKEN0001", "EVILREFRESHTOKEN001", "EVILREFRESHTOKEN005"})
	if log := w.logged(); bytes.Contains(log, []byte("DESCRIPTION")) || bytes.ContainsAny(log, "\x1b") || bytes.Contains(log, []byte(`\u001b`)) {
		t.Error("A149: the log holds a provider's own words")
	}
}

// logged returns all that the program has logged and printed.
func (w *world) logged() []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return append(b, w.output()...)
}

// joinNamed connects an account of each name.
func (w *world) joinNamed(names []string) []*member {
	w.t.Helper()
	all := make([]*member, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = w.join(name)
		})
	}
	wg.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
	return all
}

// refreshAnswered has a refresh answered so, and checks what becomes of it.
func (w *world) refreshAnswered(m *member, c tokenAnswer) {
	w.t.Helper()
	before := w.posts()
	w.fake.Faults.Token(c.fault.OnRefresh())
	a := w.api(http.MethodPost, "/v1/connections/"+m.id+"/refresh", nil, nil)
	got := w.connection(m.id)
	want := connection{ID: m.id, Status: "ACTIVE", Generation: 1}
	status := http.StatusServiceUnavailable
	switch c.want {
	case dead:
		status, want.StatusReason = http.StatusFailedDependency, "invalid_grant"
	case taken:
		status, want.Generation = http.StatusOK, 2
	}
	if a.Status != status || got.Status != want.Status || got.StatusReason != want.StatusReason || got.Generation != want.Generation {
		w.t.Errorf("refresh: HTTP %d: %s; then %+v; want %d, %+v", a.Status, a.Body, got, status, want)
	}
	for range 3 { // none asks again
		if err := w.served(m); err != nil {
			w.t.Errorf("with the token that is valid: %v", err)
		}
	}
	w.wantPostsSince(before, 1)
	if c.want == taken {
		w.lifeIsSane(m)
	}
}

// lifeIsSane checks that a token has an end within a year.
func (w *world) lifeIsSane(m *member) {
	w.t.Helper()
	var c struct {
		Ends *time.Time `json:"access_token_expires_at"`
	}
	w.api(http.MethodGet, "/v1/connections/"+m.id, nil, &c)
	if c.Ends != nil && (time.Until(*c.Ends) > 366*24*time.Hour || time.Until(*c.Ends) < 30*time.Minute) {
		w.t.Errorf("the token's life ends at %v", *c.Ends)
	}
}

// exchangeAnswered has a code exchange answered so.
func (w *world) exchangeAnswered(c tokenAnswer) {
	w.t.Helper()
	before, user := w.posts(), "exchange "+c.name
	begun := w.begin(user)
	browser := newBrowser(w.t)
	callback := w.consent(browser, w.open(browser, begun.ConnectURL))
	w.fake.Faults.Token(c.fault.OnCode())
	if c.want == taken {
		code := w.wantReturn(browser, callback, "")
		w.complete(begun.ID, code, user)
		if err := w.wantCall(begun.ID, http.StatusOK); err != nil {
			w.t.Error(err)
		}
	} else {
		w.wantReturn(browser, callback, "source_error")
		w.wantStatus(begun.ID, "FAILED", "source_error")
		// The browser comes by again: the code is not sent twice.
		w.browse(browser, callback)
	}
	w.wantPostsSince(before, 1)
}

// A135: an answer that comes a byte a second ends after 20 seconds, refreshes
// and exchanges alike. Meanwhile the token that is valid serves, and others are
// refreshed.
func TestDrippingTokenAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	drip := func(text string) fakeprovider.Fault {
		return fakeprovider.Raw("drip", func(conn io.Writer) {
			for _, c := range []byte(text) {
				if _, err := conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(time.Second) // what the fault is about
			}
		})
	}
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	header := drip(head + strings.Repeat("X-A: b\r\n", 100))
	body := fakeprovider.Raw("drip", func(conn io.Writer) {
		_, _ = io.WriteString(conn, head+"\r\n{"+attackTokens)
		for {
			if _, err := io.WriteString(conn, " "); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	})
	slow, slower, other := w.join("slow headers"), w.join("slow body"), w.join("other")
	w.fake.Faults.Token(header.OnRefresh(), body.OnCode())
	first := w.refreshWithin(slow, 2*patience)
	w.wantAsked(4)
	w.fake.Faults.Token(body.OnRefresh())
	second := w.refreshWithin(slower, 2*patience)
	w.wantAsked(5)
	third := make(chan struct{})
	begun := w.begin("exchange")
	browser := newBrowser(t)
	callback := w.consent(browser, w.open(browser, begun.ConnectURL))
	go func() {
		defer close(third)
		w.wantReturn(browser, callback, "source_error")
	}()
	w.wantAsked(6)
	w.mustRefresh(other)
	posts := w.fake.Ledger().Posts[3:]
	for i, done := range []<-chan struct{}{first, second, third} {
		for open := true; open; {
			select {
			case <-done:
				open = false
			case <-time.After(200 * time.Millisecond): // the calls are to be spread over the wait
				for _, m := range []*member{slow, slower, other} {
					if err := w.served(m); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if took := time.Since(posts[i].At); took < 18*time.Second || took > 24*time.Second {
			t.Errorf("request %d ended after %v, want 20s", i+1, took)
		}
	}
	w.wantStatus(begun.ID, "FAILED", "source_error")
	for _, m := range []*member{slow, slower} {
		if err := w.generation(m.id, 1); err != nil {
			t.Error(err)
		}
	}
	w.wantNoReuse()
}
