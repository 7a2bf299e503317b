package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/webhook"
)

const webhookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// eventLine is an event as the API and webhooks show it.
type eventLine struct {
	Seq          uint64 `json:"seq"`
	ID           string `json:"id"`
	Type         string `json:"type"`
	ConnectionID string `json:"connection_id"`
}

// receiver takes webhooks, up to a limit: what comes then is under way until its
// sender is killed.
type receiver struct {
	t *testing.T
	*httptest.Server

	mu    sync.Mutex
	got   []eventLine
	ids   map[uint64]string // :: seq → webhook-id
	limit int               // of ids; 0: none
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	key, err := webhook.ParseSecret(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, ids: map[uint64]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the sender was killed
		}
		if err := webhook.Verify(key, req.Header, body, time.Now()); err != nil {
			t.Errorf("%v: %s", err, body)
		}
		var m struct {
			Type string
			Data eventLine
		}
		if err := json.Unmarshal(body, &m); err != nil || m.Type != m.Data.Type {
			t.Errorf("%v: %s", err, body)
		}
		if check, err := description(); err == nil {
			if err := check.Value("Webhook", body); err != nil {
				t.Error(err)
			}
		}
		r.mu.Lock()
		if r.limit > 0 && len(r.ids) >= r.limit {
			r.mu.Unlock()
			<-req.Context().Done()
			return
		}
		r.got = append(r.got, m.Data)
		id := req.Header.Get("Webhook-Id")
		if had := r.ids[m.Data.Seq]; had != "" && had != id {
			t.Errorf("event %d came as %s, then as %s", m.Data.Seq, had, id)
		}
		r.ids[m.Data.Seq] = id
		r.mu.Unlock()
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}

// takes lets so many more events come, and returns how many that makes.
func (r *receiver) takes(more int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = len(r.ids) + more
	return r.limit
}

// missing returns why not all events have come, and fails the test if one came
// for the first time behind a later one of its connection.
func (r *receiver) missing(want []eventLine) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	latest := map[string]uint64{}
	for i, e := range r.got {
		first := !slices.ContainsFunc(r.got[:i], func(o eventLine) bool { return o.Seq == e.Seq })
		if first && e.Seq < latest[e.ConnectionID] {
			r.t.Errorf("event %d of %s came behind event %d", e.Seq, e.ConnectionID, latest[e.ConnectionID])
		}
		latest[e.ConnectionID] = max(latest[e.ConnectionID], e.Seq)
	}
	for _, e := range want {
		if r.ids[e.Seq] == "" {
			return fmt.Errorf("of %d events, event %d has not come, and %d have", len(want), e.Seq, len(r.ids))
		}
	}
	return nil
}

// TestWebhooksArriveAcrossKills: kill -9 in the middle of deliveries, twice.
func TestWebhooksArriveAcrossKills(t *testing.T) {
	r := newReceiver(t)
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		w.site.Extra = fmt.Sprintf("webhook %s/hooks {\n secret %s\n events connection.begun connection.changed\n}", r.URL, webhookSecret)
	})
	var ids []string
	for i := range 12 {
		ids = append(ids, w.begin(fmt.Sprintf("u%d", i)).ID)
	}
	change := func(round string) {
		for i, id := range ids {
			if a := w.api(http.MethodPatch, "/v1/connections/"+id, map[string]any{"name": fmt.Sprintf("%s %d", round, i)}, nil); a.Status != http.StatusOK {
				t.Fatalf("change: HTTP %d: %s", a.Status, a.Body)
			}
		}
	}
	few := r.takes(20)
	for run, more := range []int{20, 1000} {
		for n := range 4 {
			change(fmt.Sprintf("run %d %d", run, n))
		}
		w.eventually("some have come", func() error {
			if r.count() < few {
				return fmt.Errorf("%d have come, and %d are taken", r.count(), few)
			}
			return nil
		})
		w.kill()
		few = r.takes(more)
		w.start()
	}
	change("last")
	var want []eventLine
	for cursor := ""; ; {
		var page struct {
			Events     []eventLine
			NextCursor string `json:"next_cursor"`
		}
		w.api(http.MethodGet, "/v1/events?limit=200"+cursor, nil, &page)
		for _, e := range page.Events {
			if e.Type == "connection.begun" || e.Type == "connection.changed" {
				want = append(want, e)
			}
		}
		if len(page.Events) < 200 {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if len(want) != 12+9*12 {
		t.Fatalf("%d events happened", len(want))
	}
	w.eventually("every event has come", func() error { return r.missing(want) })
}

// TestEventStreamEndsWithItsConfiguration: a stream tells what happens, and
// neither a reload nor the end waits for it.
func TestEventStreamEndsWithItsConfiguration(t *testing.T) {
	w := newWorld(t)
	stream := func(last string) (*bufio.Scanner, func()) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL("/v1/events"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.apiKey)
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusOK {
			t.Fatalf("stream: HTTP %d", res.StatusCode)
		}
		return bufio.NewScanner(res.Body), func() { _ = res.Body.Close() }
	}
	next := func(lines *bufio.Scanner) (e eventLine) {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatal(err)
				}
				return e
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return e
	}
	lines, end := stream("")
	defer end()
	lines.Scan() // it has begun
	id := w.begin("u1").ID
	e := next(lines)
	if e.Type != "connection.begun" || e.ConnectionID != id {
		t.Errorf("the stream tells %+v", e)
	}
	begun := time.Now()
	if err := w.reload(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to its end
		if strings.HasPrefix(lines.Text(), "data: ") {
			t.Errorf("after the reload: %q", lines.Text())
		}
	}
	if took := time.Since(begun); took > 15*time.Second { // grace_period is 20 s
		t.Errorf("the stream ended %v after the reload", took)
	}
	http.DefaultClient.CloseIdleConnections() // the server, too, closes those of before
	w.begin("u2")
	lines, end = stream(e.ID)
	defer end()
	if e := next(lines); e.Type != "connection.begun" || e.ConnectionID == id {
		t.Errorf("going on, the stream tells %+v", e)
	}
	begun = time.Now()
	w.stop()
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("with an open stream, Lanyard stopped in %v", took)
	}
}
