package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const importPath = "/v1/connections/import"

func TestImport(t *testing.T) {
	ends := time.Now().Add(20 * time.Minute).UTC().Truncate(time.Second)
	f := &fakeSource{account: tokenstore.Account{ID: "7"}}
	b := newBench(t, withSource(f))
	a := b.do("POST", importPath, `{"integration":"github","id":"conn_old1","user_id":"u1","name":"n","labels":{"a":"b"},"metadata":{"m":1},
		"scopes":["repo"],"access_token":"access-canary","refresh_token":"refresh-canary","expires_at":"`+ends.Format(time.RFC3339)+`"}`)
	b.wants(a, 201, "")
	c := b.stored("conn_old1")
	if c.Status != tokenstore.StatusActive || c.Token.AccessToken.Reveal() != "access-canary" || c.Token.RefreshToken.Reveal() != "refresh-canary" ||
		!c.Token.ExpiresAt.Equal(ends) || c.Token.ExpiryUnknown || c.UserID != "u1" || c.Account.ID != "7" ||
		c.Metadata != `{"m":1}` || len(c.MissingScopes()) != 0 || c.AuthScheme != "OAUTH2" {
		t.Errorf("stored %+v", c)
	}
	if a.json["verified"] != true || strings.Contains(a.text, "canary") || b.refresher.by.Name != "api" {
		t.Errorf("answer %s", a.text)
	}
	b.happened("conn_old1", "connection.active imported")
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_old1","access_token":"a"}`), 409, "connection_exists")
	if got := b.stored("conn_old1"); got.Revision != c.Revision {
		t.Errorf("an import over it changed it: %+v", got)
	}
	for _, tt := range []struct {
		name, body string
		refresh    error
		whose      error
		verified   any
		status     string
	}{
		{"refused", `"refresh_token":"r"`, tokenstore.ErrReconnect, nil, false, "ACTIVE"}, // EXPIRED is the Refresher's doing
		{"later", `"refresh_token":"r"`, &tokenstore.UnavailableError{Cause: errors.New("x")}, nil, nil, "ACTIVE"},
		{"taken, no account", `"refresh_token":"r"`, nil, errors.ErrUnsupported, true, "ACTIVE"},
		{"no refresh token", `"access_token":"a"`, tokenstore.ErrNotRenewed, nil, true, "ACTIVE"},
		{"no refresh token, refused", `"access_token":"a"`, nil, tokenstore.ErrCredentialRefused, false, "EXPIRED"},
		{"nobody to ask", `"access_token":"a"`, nil, errors.ErrUnsupported, nil, "ACTIVE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.refresher.err, f.whose = tt.refresh, tt.whose
			a := b.do("POST", importPath, `{"integration":"github",`+tt.body+`}`)
			b.wants(a, 201, "")
			if a.json["verified"] != tt.verified || a.json["status"] != tt.status {
				t.Errorf("verified %v, status %v; want %v, %s", a.json["verified"], a.json["status"], tt.verified, tt.status)
			}
		})
	}
	b.refresher.by = tokenstore.Actor{}
	a = b.do("POST", importPath+"?verify=false", `{"integration":"github","refresh_token":"r"}`)
	b.wants(a, 201, "")
	if c := b.stored(a.json["id"].(string)); a.json["verified"] != nil || b.refresher.by.Name != "" || c.Token.HardAt().After(time.Now()) {
		t.Errorf("unverified: %s", a.text)
	}
	a = b.do("POST", importPath, `{"integration":"mail","credentials":{"api_key":"k"}}`)
	b.wants(a, 201, "")
	if c := b.stored(a.json["id"].(string)); a.json["verified"] != true || c.Token.AccessToken.Reveal() != "k!" {
		t.Errorf("API_KEY: %s", a.text)
	}
}

func TestBadImportStoresNothing(t *testing.T) {
	b := newBench(t, withSource(&fakeSource{}))
	for body, names := range map[string]string{
		`{"integration":"github"}`:                                                         "`access_token`",
		`{"integration":"github","access_token":""}`:                                       "`access_token`",
		`{"integration":"github","access_token":"two canaries"}`:                           "`access_token`",
		`{"integration":"github","access_token":"a","refresh_token":"canary\n"}`:           "`refresh_token`",
		`{"integration":"github","access_token":7}`:                                        "`access_token`",
		`{"integration":"github","access_token":"a","expires_at":1795307938}`:              "`expires_at`",
		`{"integration":"github","access_token":"a","expires_at":"tomorrow"}`:              "`expires_at`",
		`{"integration":"github","refresh_token":"a","expires_at":"2026-11-22T10:00:00Z"}`: "`expires_at`",
		`{"integration":"github","access_token":"a","id":"conn_"}`:                         "`id`",
		`{"integration":"github","access_token":"a","id":"x/y"}`:                           "`id`",
		`{"integration":"github","access_token":"a","state":"s"}`:                          `"state"`,
		`{"integration":"github","access_token":"a","credentials":{}}`:                     "`credentials`",
		`{"integration":"mail","access_token":"canary"}`:                                   "`credentials`",
		`{"integration":"mail","auth_scheme":"BASIC","credentials":{"api_key":"k"}}`:       "`auth_scheme`",
	} {
		a := b.do("POST", importPath, body)
		b.wants(a, 400, "invalid_request")
		if detail := a.json["detail"].(string); !strings.Contains(detail, names) || strings.Contains(detail, "canar") {
			t.Errorf("%s: detail %q; want it to name %s", body, detail, names)
		}
	}
	b.wants(b.do("POST", importPath+"?verify=no", `{"integration":"github","access_token":"a"}`), 400, "invalid_request")
	b.wants(b.do("POST", importPath, `a`, func(r *http.Request) { r.Header.Set("Content-Type", "text/csv") }), 415, "unsupported_media_type")
	b.wants(b.do("POST", importPath, "{}\n", once("k"), func(r *http.Request) { r.Header.Set("Content-Type", "application/jsonl") }), 400, "invalid_request")
	if n := b.count(); n != 0 {
		t.Errorf("%d connections were stored", n)
	}
}

// lineOf is a line of the answer to an import of many.
type lineOf struct {
	Line     int    `json:"line"`
	ID       string `json:"id"`
	Status   string `json:"status"`
	Verified *bool  `json:"verified"`
	Error    struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"error"`
}

func importRequest(t *testing.T, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+importPath, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+apiKey)
	r.Header.Set("Content-Type", "application/jsonl")
	return r
}

func TestImportLines(t *testing.T) {
	b := newBench(t)
	srv := httptest.NewServer(b.h)
	defer srv.Close()
	var body strings.Builder
	body.WriteString(`{"integration":"github","id":"conn_a","access_token":"canary-a","refresh_token":"canary-r"}` + "\n\n")
	body.WriteString(`{"integration":"github","id":"conn_a","access_token":"a"` + "\n") // line 3: cut short
	body.WriteString(`{"integration":"nowhere","access_token":"canary"}` + "\r\n")
	body.WriteString(`{"integration":"github","name":"` + strings.Repeat("x", 1<<20) + `"}` + "\n")
	for i := range 100 {
		fmt.Fprintf(&body, `{"integration":"github","user_id":"u%d","id":"conn_b%d","access_token":"a"}`+"\n", i, i)
	}
	body.WriteString(`{"integration":"github","id":"conn_c","access_token":"a"}`) // without an end
	res, err := srv.Client().Do(importRequest(t, srv.URL, strings.NewReader(body.String())))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/jsonl" {
		t.Fatalf("import = %d %s, %v", res.StatusCode, res.Header.Get("Content-Type"), err)
	}
	if strings.Contains(string(text), "canary") {
		t.Errorf("an answer repeats a secret: %s", text)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var l lineOf
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, fmt.Sprintf("%d %s%s", l.Line, l.ID, l.Error.Code))
	}
	want := []string{"1 conn_a", "3 invalid_request", "4 invalid_request", "5 body_too_large"}
	for i := range 100 {
		want = append(want, fmt.Sprintf("%d conn_b%d", i+6, i))
	}
	want = append(want, "106 conn_c")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
	if n := b.count(); n != 102 {
		t.Errorf("%d connections, want 102", n)
	}
}

// slowRefresher takes until it is let go, and counts how many wait.
type slowRefresher struct {
	fakeRefresher
	let           chan struct{}
	waiting, most atomic.Int32
}

func (s *slowRefresher) Refresh(ctx context.Context, _ string, _ tokenstore.Actor) error {
	now := s.waiting.Add(1)
	defer s.waiting.Add(-1)
	for {
		if most := s.most.Load(); now <= most || s.most.CompareAndSwap(most, now) {
			break
		}
	}
	select {
	case <-s.let:
	case <-ctx.Done():
	}
	return nil
}

// Results come while lines are still being sent, in their order; and few lines
// are under way at once.
func TestImportLinesAsTheyGo(t *testing.T) {
	slow := &slowRefresher{let: make(chan struct{})}
	b := newBench(t, func(c *api.Config) { c.Refresher = slow })
	srv := httptest.NewServer(b.h)
	defer srv.Close()
	read, write := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range 40 {
			if _, err := fmt.Fprintf(write, `{"integration":"github","id":"conn_%d","refresh_token":"r"}`+"\n", i); err != nil {
				return
			}
		}
	}()
	res, err := srv.Client().Do(importRequest(t, srv.URL, read))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for i := range 40 {
		slow.let <- struct{}{}
		if i == 39 {
			_ = write.Close()
		}
	}
	n := 0
	for lines.Scan() {
		n++
		if want := fmt.Sprintf(`{"line":%d,"id":"conn_%d"`, n, n-1); !strings.HasPrefix(lines.Text(), want) {
			t.Errorf("line %q; want %s…", lines.Text(), want)
		}
	}
	<-sent
	if n != 40 || lines.Err() != nil {
		t.Errorf("%d lines, %v", n, lines.Err())
	}
	if most := slow.most.Load(); most < 2 || most > 9 {
		t.Errorf("%d lines were under way at once; want several, and 8 at most", most)
	}
}

// A client that goes stops the import; what it began is brought to its end.
func TestImportLinesCutOff(t *testing.T) {
	slow := &slowRefresher{let: make(chan struct{})}
	b := newBench(t, func(c *api.Config) { c.Refresher = slow })
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		b.h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() {
		_, err := write.Write([]byte(`{"integration":"github","id":"conn_1","refresh_token":"r"}` + "\n"))
		sent <- err
	}()
	res, err := srv.Client().Do(importRequest(t, srv.URL, read).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for slow.waiting.Load() == 0 { // until it is at the provider
		time.Sleep(time.Millisecond)
	}
	cancel()
	_ = write.Close()
	slow.let <- struct{}{}
	<-ended
	if c := b.stored("conn_1"); c.Status != tokenstore.StatusActive {
		t.Errorf("stored %+v", c)
	}
}
