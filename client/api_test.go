package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

// scripted answers each request by the next of its answers.
func scripted(t *testing.T, answers ...http.HandlerFunc) (c *client.Client, seen func() []*http.Request) {
	t.Helper()
	var mu sync.Mutex
	var got []*http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r)
		n := len(got)
		mu.Unlock()
		if n > len(answers) {
			t.Errorf("%s %s: one request too many", r.Method, r.URL)
			n = len(answers)
		}
		answers[n-1](w, r)
	}))
	t.Cleanup(srv.Close)
	return newClient(t, client.Config{APIURL: srv.URL, APIKey: testKey}), func() []*http.Request {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func breaksOff(_ http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

func TestRetries(t *testing.T) {
	ctx := t.Context()
	c, seen := scripted(t, breaksOff, problem(409, "idempotency_conflict", ""), says(`{"id": "conn_A", "connect_url": "u"}`))
	if link, err := c.Begin(ctx, client.ConnectParams{UserID: "u1"}); err != nil || link.ID != "conn_A" {
		t.Fatalf("Begin: %v, %v", link, err)
	}
	keys := map[string]bool{}
	for _, r := range seen() {
		keys[r.Header.Get("Idempotency-Key")] = true
		if r.Header.Get("Authorization") != "Bearer "+testKey {
			t.Errorf("sent %v", r.Header)
		}
	}
	if len(keys) != 1 || keys[""] || len(seen()) != 3 {
		t.Errorf("%d requests with the keys %v, want three with one", len(seen()), keys)
	}

	c, seen = scripted(t, breaksOff, breaksOff, breaksOff)
	if _, err := c.Get(ctx, "conn_A"); err == nil || len(seen()) != 3 {
		t.Errorf("%d tries, %v", len(seen()), err)
	}
	c, seen = scripted(t, breaksOff)
	if _, err := c.Delete(ctx, "conn_A"); err == nil || len(seen()) != 1 {
		t.Errorf("Delete, which has no key: %d tries, %v", len(seen()), err)
	}
	c, seen = scripted(t, problem(503, "store_unavailable", ""))
	var refused *client.APIError
	if _, err := c.Get(ctx, "conn_A"); !errors.As(err, &refused) || refused.RetryAfter != 7*time.Second || len(seen()) != 1 {
		t.Errorf("an answer that says no: %v after %d tries", err, len(seen()))
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, answer := range []http.HandlerFunc{
		says("<html>"), says(""), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"id": "`+strings.Repeat("x", 17<<20)+`"}`)
		},
	} {
		c, seen := scripted(t, answer)
		if got, err := c.Get(t.Context(), "conn_A"); err == nil || got != nil || len(seen()) != 1 {
			t.Errorf("Get = %v, %v", got, err)
		}
	}
}

func TestConnectionsPages(t *testing.T) {
	c, seen := scripted(t,
		says(`{"connections": [{"id": "conn_A", "account": null, "status_reason": null, "created_at": null}, {"id": "conn_B", "error": "store_corrupt"}], "next_cursor": "c2"}`),
		says(`{"connections": [{"id": "conn_C"}], "next_cursor": null}`))
	var ids []string
	f := client.Filter{UserID: "u&1", Status: client.Active, Labels: map[string]string{"team": "red"}}
	for conn, err := range c.Connections(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, conn.ID+conn.Error)
	}
	if fmt.Sprint(ids) != "[conn_A conn_Bstore_corrupt conn_C]" {
		t.Errorf("got %v", ids)
	}
	if q := seen()[1].URL.Query(); q.Get("cursor") != "c2" || q.Get("user_id") != "u&1" || q.Get("label") != "team=red" || q.Get("status") != "ACTIVE" {
		t.Errorf("the second page was asked for by %v", q)
	}
	c, _ = scripted(t, problem(401, "key_required", ""))
	n := 0
	for conn, err := range c.Connections(t.Context(), client.Filter{}) {
		if n++; conn != nil || err == nil {
			t.Errorf("%v, %v", conn, err)
		}
	}
	if n != 1 {
		t.Errorf("an error came %d times", n)
	}
}

func TestWhatIsSent(t *testing.T) {
	name, yes := "New", true
	tests := []struct {
		name, want string
		do         func(ctx context.Context, c *client.Client) error
	}{
		{"begin", `POST /v1/connections {"integration":"i","labels":{"a":"b"},"metadata":{"x":1},"name":"n","params":{"p":"q"},"redirect_url":"r","response_mode":"form_post","scopes":["s"],"state":"t","user_id":"u"}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.Begin(ctx, client.ConnectParams{
				UserID: "u", Integration: "i", Scopes: []string{"s"}, RedirectURL: "r", State: "t", ConnectionName: "n",
				Labels: map[string]string{"a": "b"}, Params: map[string]string{"p": "q"}, ResponseMode: client.ResponseFormPost, Metadata: json.RawMessage(`{"x": 1}`),
			})
			return err
		}},
		{"connect", `POST /v1/connections/conn_A/connect {"scopes":["s"]}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.Begin(ctx, client.ConnectParams{UserID: "u", Integration: "i", ConnectionID: "conn_A", Scopes: []string{"s"}})
			return err
		}},
		{"device", `POST /v1/connections {"device":true,"user_id":"u"}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.BeginDevice(ctx, client.ConnectParams{UserID: "u"})
			return err
		}},
		{"credentials", `POST /v1/connections {"credentials":{"api_key":"k"},"integration":"i"}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.BeginWithCredentials(ctx, client.ConnectParams{Integration: "i"}, map[string]string{"api_key": "k"})
			return err
		}},
		{"no credentials", `POST /v1/connections {}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.BeginWithCredentials(ctx, client.ConnectParams{}, nil)
			return err
		}},
		{"change", `PATCH /v1/connections/conn_A {"disabled":true,"labels":{},"name":"New"}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.Update(ctx, "conn_A", client.Change{Name: &name, Labels: map[string]string{}, Disabled: &yes})
			return err
		}},
		{"refresh", `POST /v1/connections/conn_A/refresh `, func(ctx context.Context, c *client.Client) error {
			_, err := c.Refresh(ctx, "conn_A")
			return err
		}},
		{"import", `POST /v1/connections/import?verify=false {"id":"conn_A","access_token":"t"}`, func(ctx context.Context, c *client.Client) error {
			_, err := c.Import(ctx, client.ImportParams{ID: "conn_A", AccessToken: "t", Unverified: true})
			return err
		}},
	}
	for _, tt := range tests {
		got := ""
		c, _ := scripted(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			got = r.Method + " " + r.URL.RequestURI() + " " + string(b)
			_, _ = io.WriteString(w, "{}")
		})
		if err := tt.do(t.Context(), c); err != nil || got != tt.want {
			t.Errorf("%s: %v\n got %s\nwant %s", tt.name, err, got, tt.want)
		}
	}
}

func TestRevocation(t *testing.T) {
	for text, want := range map[string][3]any{`true`: {true, false, ""}, `"pending"`: {false, true, ""}, `false, "provider_revoked_reason": "shared_grant"`: {false, false, "shared_grant"}} {
		c, _ := scripted(t, says(`{"id": "conn_A", "status": "REVOKED", "provider_revoked": `+text+`}`))
		got, err := c.Revoke(t.Context(), "conn_A")
		if err != nil || got.ID != "conn_A" || got.Status != client.Revoked || [3]any{got.ProviderRevoked, got.Pending, got.Reason} != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestEventsToTheEnd(t *testing.T) {
	c, seen := scripted(t,
		says(`{"events": [{"seq": 1, "id": "a", "type": "connection.begun"}], "next_cursor": "a"}`),
		says(`{"events": [], "next_cursor": "a"}`))
	var seqs []uint64
	for e, err := range c.Events(t.Context(), client.EventFilter{ConnectionID: "conn_A"}) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, e.Seq)
	}
	if !slices.Equal(seqs, []uint64{1}) || seen()[1].URL.Query().Get("cursor") != "a" {
		t.Errorf("got %v", seqs)
	}
}

func TestEventsNewestFirst(t *testing.T) {
	c, seen := scripted(t,
		says(`{"events": [{"seq": 2, "id": "b"}], "next_cursor": "b"}`),
		says(`{"events": [{"seq": 1, "id": "a"}], "next_cursor": null}`))
	var seqs []uint64
	for e, err := range c.Events(t.Context(), client.EventFilter{NewestFirst: true}) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, e.Seq)
	}
	second := seen()[1].URL.Query()
	if !slices.Equal(seqs, []uint64{2, 1}) || second.Get("cursor") != "b" || second.Get("order") != "newest" {
		t.Errorf("got %v, the second page by %v", seqs, second)
	}
}

// TestFollowGoesOn after a stream that breaks off, and ends with an answer that
// says no.
func TestFollowGoesOn(t *testing.T) {
	event := func(seq int) string {
		return fmt.Sprintf("event: connection.active\nid: c%d\ndata: {\"seq\": %d, \"id\": \"c%d\"}\n\n", seq, seq, seq)
	}
	c, seen := scripted(t,
		says("retry: 1000\n\n"+event(1)+": still here\n\n"+event(2)+"data: {\"se"), says(event(3)), problem(401, "key_required", ""))
	var seqs []uint64
	var last error
	for e, err := range c.Follow(t.Context(), client.EventFilter{Cursor: "c0"}) {
		if last = err; err == nil {
			seqs = append(seqs, e.Seq)
		}
	}
	var refused *client.APIError
	if !slices.Equal(seqs, []uint64{1, 2, 3}) || !errors.As(last, &refused) {
		t.Errorf("got %v, %v", seqs, last)
	}
	var cursors []string
	for _, r := range seen() {
		cursors = append(cursors, r.URL.Query().Get("cursor"))
		if r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("asked for %q", r.Header.Get("Accept"))
		}
	}
	if !slices.Equal(cursors, []string{"c0", "c2", "c3"}) {
		t.Errorf("the streams began after %v", cursors)
	}
}

func TestFollowEnds(t *testing.T) {
	c, _ := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: {\"seq\": 1, \"id\": \"c1\"}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.Follow(ctx, client.EventFilter{}) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("it ended with %v", last)
	}
}

func TestImportAll(t *testing.T) {
	lines := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		in := json.NewDecoder(iotest.OneByteReader(r.Body))
		for n := 1; ; n++ {
			var p client.ImportParams
			if in.Decode(&p) != nil {
				return
			}
			if p.UserID == "cut" {
				panic(http.ErrAbortHandler)
			}
			_, _ = fmt.Fprintf(w, "{\"line\": %d, \"id\": \"conn_%s\"}\n", n, p.UserID)
			_ = http.NewResponseController(w).Flush()
		}
	}
	many := func(users ...string) func(yield func(client.ImportParams) bool) {
		return func(yield func(client.ImportParams) bool) {
			for _, u := range users {
				if !yield(client.ImportParams{UserID: u, AccessToken: "t"}) {
					return
				}
			}
		}
	}
	run := func(limit int, users ...string) (ids []string, err error) {
		c, _ := scripted(t, lines)
		for line, e := range c.ImportAll(t.Context(), many(users...), true) {
			if e != nil {
				return ids, e
			}
			if ids = append(ids, line.ID); len(ids) == limit {
				break
			}
		}
		return ids, nil
	}
	if ids, err := run(9, "a", "b", "c"); err != nil || fmt.Sprint(ids) != "[conn_a conn_b conn_c]" {
		t.Errorf("got %v, %v", ids, err)
	}
	if ids, err := run(9, "a", "cut", "c"); err == nil || len(ids) > 1 {
		t.Errorf("an import that broke off: %v, %v", ids, err)
	}
	if ids, err := run(1, "a", "b", "c"); err != nil || len(ids) != 1 {
		t.Errorf("one that is left: %v, %v", ids, err)
	}
}
