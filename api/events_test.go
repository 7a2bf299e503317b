package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// told returns the audit log: type, reason, and whether it was allowed, of what
// this API key did, and of strangers.
func (b *bench) told() []string {
	b.t.Helper()
	events, _, err := b.store.ListEvents(b.t.Context(), tokenstore.EventFilter{}, "", 10_000)
	if err != nil {
		b.t.Fatal(err)
	}
	lines := []string{}
	for _, e := range events {
		line := string(e.Type)
		if e.Reason != "" {
			line += " (" + e.Reason + ")"
		}
		if e.Denied {
			line += " denied"
		}
		want := tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "api", From: "192.0.2.1"}
		if e.Type == tokenstore.EventKeyRefused {
			want.Kind, want.Name = "", ""
		}
		if e.Actor.From == "192.0.2.2" { // the neighbour
			want.From = e.Actor.From
		}
		if e.Actor != want {
			b.t.Errorf("%s is by %+v, want %+v", line, e.Actor, want)
		}
		if strings.HasPrefix(string(e.Type), "connection.") && (e.ConnectionID == "" || e.Integration != "github" || e.UserID != "u1") {
			b.t.Errorf("%s is told of connection %q, integration %q, user %q", line, e.ConnectionID, e.Integration, e.UserID)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestEventsOfChanges(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(b *bench)
		want []string
	}{
		{"begin", func(b *bench) {
			b.wants(b.do("POST", "/v1/connections", `{"integration":"github","user_id":"u1"}`), 201, "")
			b.wants(b.do("POST", "/v1/connections", `{"integration":"none"}`), 400, "invalid_request")
		}, []string{"connection.begun"}},
		{"reading", func(b *bench) {
			c := b.put(active("a"))
			b.wants(b.do("GET", "/v1/connections", ""), 200, "")
			b.wants(b.do("GET", "/v1/connections/"+c.ID, ""), 200, "")
			b.wants(b.do("GET", "/v1/events", ""), 200, "")
			b.wants(b.do("GET", "/v1/rekey", ""), 200, "")
		}, []string{}},
		{"a link", func(b *bench) {
			b.wants(b.do("POST", "/v1/connections/"+b.put(active("a")).ID+"/connect", ""), 200, "")
		}, []string{"connection.linked"}},
		{"completion", func(b *bench) {
			c := b.put(staged("a"))
			b.wants(b.complete(c.ID, "wrong", "u1"), 409, "completion_invalid")
			b.wants(b.complete(c.ID, "code-a", "u1"), 200, "")
			b.wants(b.complete(c.ID, "code-a", "u1"), 200, "")
			b.wants(b.complete(c.ID, "code-a", "u2"), 409, "user_mismatch")
		}, []string{
			"completion.refused (completion_invalid) denied", "connection.active",
			"completion.refused (user_mismatch) denied",
		}},
		{"another user", func(b *bench) {
			b.wants(b.complete(b.put(staged("a")).ID, "code-a", "u2"), 409, "user_mismatch")
		}, []string{
			"completion.refused (user_mismatch) denied", "connection.dropped (user_mismatch)",
			"connection.failed (user_mismatch)",
		}},
		{"a reconnect for another user", func(b *bench) {
			c := b.put(func(c *tokenstore.Connection) { active("a")(c); staged("b")(c) })
			b.wants(b.complete(c.ID, "code-b", "u2"), 409, "user_mismatch")
		}, []string{"completion.refused (user_mismatch) denied", "connection.dropped (user_mismatch)"}},
		{"five wrong codes", func(b *bench) {
			c := b.put(staged("a"))
			for range 6 {
				b.wants(b.complete(c.ID, "wrong", "u1"), 409, "completion_invalid")
			}
		}, []string{
			"completion.refused (completion_invalid) denied", "completion.refused (completion_invalid) denied",
			"completion.refused (completion_invalid) denied", "completion.refused (completion_invalid) denied",
			"completion.refused (completion_invalid) denied", "connection.dropped (completion_invalid)",
			"connection.failed (completion_invalid)", "completion.refused (completion_invalid) denied",
		}},
		{"revoke and delete", func(b *bench) {
			c := b.put(active("a"))
			b.wants(b.do("POST", "/v1/connections/"+c.ID+"/revoke", ""), 200, "")
			b.wants(b.do("POST", "/v1/connections/"+c.ID+"/revoke", ""), 200, "")
			b.wants(b.do("DELETE", "/v1/connections/"+c.ID, ""), 200, "")
			b.wants(b.do("DELETE", "/v1/connections/"+c.ID, ""), 404, "connection_not_found")
		}, []string{"connection.revoked", "connection.deleted"}},
		{"the store", func(b *bench) {
			b.wants(b.do("POST", "/v1/rekey", ""), 202, "")
			b.raw("GET", "/v1/backup")
			b.raw("HEAD", "/v1/backup")
		}, []string{"store.rekey", "store.backup"}},
		{"keys", func(b *bench) {
			b.wants(b.do("GET", "/v1/connections", "", func(r *http.Request) { r.Header.Del("Authorization") }), 401, "key_required")
			b.wants(b.do("GET", "/v1/connections", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }), 401, "key_required")
		}, []string{"key.refused (api) denied", "key.refused (api) denied"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			tt.do(b)
			if diff := cmp.Diff(tt.want, b.told()); diff != "" {
				t.Errorf("events (-want +got)\n%s", diff)
			}
		})
	}
}

// raw is do for answers that are not JSON.
func (b *bench) raw(method, target string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+target, nil)
	r.Header.Set("Authorization", "Bearer "+apiKey)
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	return w
}

func TestRefreshIsTheCallers(t *testing.T) {
	b := newBench(t)
	b.wants(b.do("POST", "/v1/connections/"+b.put(active("a")).ID+"/refresh", ""), 200, "")
	want := tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "api", From: "192.0.2.1"}
	if b.refresher.by != want {
		t.Errorf("the refresh is by %+v, want %+v", b.refresher.by, want)
	}
}

// Nothing that an operator must be able to account for happens without its
// event, but for a backup, which is sealed.
func TestWithoutAuditNothingLeaves(t *testing.T) {
	k := &fakeKeeper{parts: []string{"sealed"}}
	b := newBench(t, withKeeper(k))
	c := b.put(active("a"))
	b.store.FailWrites(fmt.Errorf("disk: %w", tokenstore.ErrUnavailable))
	for _, op := range []string{"POST /v1/connections/" + c.ID + "/connect", "POST /v1/rekey"} {
		method, path, _ := strings.Cut(op, " ")
		a := b.do(method, path, "")
		b.wants(a, 503, "store_unavailable")
		if strings.Contains(a.text, "https://connect") {
			t.Errorf("%s: a link left without its event", op)
		}
	}
	if k.begun != 0 {
		t.Error("a rekey was begun")
	}
	for _, err := range []error{tokenstore.ErrUnavailable, tokenstore.ErrFull} {
		b.store.FailWrites(fmt.Errorf("disk: %w", err))
		if w := b.raw("GET", "/v1/backup"); w.Code != 200 || w.Body.String() != "sealed" {
			t.Errorf("backup of a store that can't write (%v) = %d %q, want it", err, w.Code, w.Body)
		}
	}
}

func TestWrongKeysAreSlowedDown(t *testing.T) {
	b := newBench(t)
	wrong := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("w", 32)) }
	for range 20 {
		b.wants(b.do("GET", "/v1/connections", "", wrong), 401, "key_required")
	}
	a := b.do("GET", "/v1/connections", "", wrong)
	b.wants(a, 429, "rate_limited")
	if a.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	b.wants(b.do("GET", "/v1/connections", ""), 200, "")
	b.wants(b.do("GET", "/v1/connections", "", wrong, func(r *http.Request) { r.RemoteAddr = "192.0.2.2:1" }), 401, "key_required")
	if n := len(b.told()); n != 22 {
		t.Errorf("%d events, want one for each of 22 wrong keys", n)
	}
}

func (b *bench) happen(n int, connectionID string) {
	b.t.Helper()
	for i := range n {
		err := b.store.AppendEvents(b.t.Context(), tokenstore.Event{
			Type: tokenstore.EventUsed, ConnectionID: connectionID, Integration: "github", UserID: fmt.Sprint("<u", i, ">"),
			Actor: tokenstore.Actor{Kind: tokenstore.ActorClient, Name: "client app"},
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestEventsArePaged(t *testing.T) {
	b := newBench(t)
	a := b.do("GET", "/v1/events", "")
	b.wants(a, 200, "")
	first, _ := a.json["next_cursor"].(string)
	if list, ok := a.json["events"].([]any); !ok || len(list) != 0 || first == "" {
		t.Fatalf("an empty log = %s, want no event and a cursor", a.text)
	}
	b.happen(60, "conn_A")
	b.happen(3, "conn_B")
	page := func(query string, want int) string {
		t.Helper()
		a := b.do("GET", "/v1/events"+query, "")
		b.wants(a, 200, "")
		if n := len(a.json["events"].([]any)); n != want {
			t.Errorf("GET /v1/events%s: %d events, want %d", query, n, want)
		}
		return a.json["next_cursor"].(string)
	}
	next := page("?cursor="+first, 50)
	end := page("?cursor="+next, 13)
	if again := page("?cursor="+end, 0); again != end {
		t.Errorf("the cursor at the end goes on with %q, want %q", again, end)
	}
	b.happen(1, "conn_A")
	page("?cursor="+end, 1)
	page("?connection_id=conn_B", 3)
	page("?connection_id=conn_C", 0)
	page("?connection_id=conn_A&limit=2", 2)
	for _, bad := range []string{"?limit=0", "?limit=201", "?limit=x", "?cursor=x", "?cursor=", "?connection_id=A", "?connection_id=", "?type=x"} {
		b.wants(b.do("GET", "/v1/events"+bad, ""), 400, "invalid_request")
	}
	b.wants(b.do("POST", "/v1/events", ""), 405, "method_not_allowed")
	b.wants(b.do("DELETE", "/v1/events", ""), 405, "method_not_allowed")
	b.wants(b.do("GET", "/v1/events", "", func(r *http.Request) { r.Header.Del("Authorization") }), 401, "key_required")
}

func TestEventsNewestFirst(t *testing.T) {
	b := newBench(t)
	b.happen(5, "conn_A")
	b.happen(1, "conn_B")
	page := func(query, want string) string {
		t.Helper()
		a := b.do("GET", "/v1/events?order=newest"+query, "")
		b.wants(a, 200, "")
		var got []string
		for _, e := range a.json["events"].([]any) {
			got = append(got, fmt.Sprint(e.(map[string]any)["seq"]))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: events %q, want %q", query, s, want)
		}
		next, _ := a.json["next_cursor"].(string)
		return next
	}
	next := page("&limit=4", "6 5 4 3")
	b.happen(1, "conn_A") // does not move what is listed
	if end := page("&limit=4&cursor="+next, "2 1"); end != "" {
		t.Errorf("at the log's beginning the cursor is %q, want null", end)
	}
	page("&connection_id=conn_B", "6")
	page("&connection_id=conn_C", "")
	for _, media := range []string{"application/jsonl", "text/event-stream"} {
		b.wants(b.do("GET", "/v1/events?order=newest", "", header("Accept", media)), 400, "invalid_request")
	}
	for _, bad := range []string{"order=", "order=older", "order=newest&order=oldest", "order=newest&cursor=x"} {
		b.wants(b.do("GET", "/v1/events?"+bad, ""), 400, "invalid_request")
	}
	b.wants(b.do("GET", "/v1/events?order=oldest", ""), 200, "")
}

func TestEventsAsJSONLines(t *testing.T) {
	b := newBench(t)
	b.happen(500, "conn_A")
	b.happen(1, "conn_B")
	w := b.raw("GET", "/v1/events", header("Accept", "text/plain;q=0.1, application/jsonl"))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/jsonl" || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("GET /v1/events = %d, headers %v", w.Code, w.Header())
	}
	var id string
	n := 0
	for sc := bufio.NewScanner(w.Body); sc.Scan(); n++ {
		var e struct {
			Seq    int
			ID     string
			Type   string
			UserID string `json:"user_id"`
			Actor  map[string]string
		}
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil || e.Seq != n+1 || e.Actor["name"] != "client app" {
			t.Fatalf("line %d = %q, %v", n, sc.Text(), err)
		}
		if n == 250 {
			id = e.ID
		}
	}
	if n != 501 {
		t.Errorf("%d lines, want 501", n)
	}
	rest := b.raw("GET", "/v1/events?cursor="+id, header("Accept", "application/x-ndjson"))
	if got := strings.Count(rest.Body.String(), "\n"); got != 250 || rest.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("from the 251st on: %d lines as %q, want 250", got, rest.Header().Get("Content-Type"))
	}
	if w := b.raw("GET", "/v1/events?connection_id=conn_B", header("Accept", "application/jsonl")); strings.Count(w.Body.String(), "\n") != 1 {
		t.Errorf("of one connection: %q", w.Body)
	}
	if w := b.raw("HEAD", "/v1/events", header("Accept", "application/jsonl")); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD = %d %q", w.Code, w.Body)
	}
	for _, bad := range []string{"?cursor=x", "?limit=5"} {
		b.wants(b.do("GET", "/v1/events"+bad, "", header("Accept", "application/jsonl")), 400, "invalid_request")
	}
}

func TestEventView(t *testing.T) {
	b := newBench(t)
	b.happen(1, "conn_A")
	err := b.store.AppendEvents(t.Context(), tokenstore.Event{
		Type: tokenstore.EventKeyRefused, Denied: true, Reason: "api", Count: 7, Actor: tokenstore.Actor{From: "192.0.2.9"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := b.do("GET", "/v1/events", "").json["events"].([]any)
	for _, e := range got {
		delete(e.(map[string]any), "at")
	}
	want := []any{
		map[string]any{
			"seq": 1.0, "id": tokenstore.EventCursor(1), "type": "connection.used", "connection_id": "conn_A", "integration": "github",
			"user_id": "<u0>", "actor": map[string]any{"kind": "client", "name": "client app"}, "allowed": true, "count": 1.0,
		},
		map[string]any{
			"seq": 2.0, "id": tokenstore.EventCursor(2), "type": "key.refused",
			"actor": map[string]any{"from": "192.0.2.9"}, "allowed": false, "reason": "api", "count": 7.0,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

// A list that is cut off by the store must not look like one that is whole.
func TestJSONLinesCutOff(t *testing.T) {
	store := &stopping{Store: memstore.New()}
	b := newBench(t, func(c *api.Config) { c.Store, c.Audit = store, fakeAudit{store} })
	b.store = store.Store
	b.happen(300, "conn_A")
	srv := httptest.NewServer(b.h)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Accept", "application/jsonl")
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sc := bufio.NewScanner(res.Body)
	n := 0
	for sc.Scan() {
		n++
	}
	if sc.Err() == nil {
		t.Errorf("%d lines and an end that looks whole", n)
	}
}

// stopping answers the first list of events only.
type stopping struct {
	*memstore.Store
	asked int
}

func (s *stopping) ListEvents(
	ctx context.Context, f tokenstore.EventFilter, cursor string, limit int,
) ([]tokenstore.Event, string, error) {
	if s.asked++; s.asked > 1 {
		return nil, "", fmt.Errorf("disk: %w", tokenstore.ErrUnavailable)
	}
	return s.Store.ListEvents(ctx, f, cursor, limit)
}
