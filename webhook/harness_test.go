package webhook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

const (
	hookURL    = "https://app.example.com/hooks/path-canary"
	hookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
)

// app is the receiver, and all that is around a Sender.
type app struct {
	t     *testing.T
	store *memstore.Store
	logs  *observer.ObservedLogs
	s     *webhook.Sender

	mu     sync.Mutex
	answer func(got delivery) (status int, retryAfter string) // nil: 204
	got    []delivery
}

// delivery is a request that came.
type delivery struct {
	ID    string
	At    time.Duration // since the beginning
	Type  string
	Conn  string
	Valid bool // its signature is right
}

func newApp(t *testing.T) *app {
	t.Helper()
	a := &app{t: t, store: memstore.New()}
	a.restart()
	return a
}

// restart ends the sender and makes another one on the same store.
func (a *app) restart() {
	if a.s != nil {
		a.s.Close()
	}
	core, logs := observer.New(zap.DebugLevel)
	a.logs = logs
	a.s = webhook.New(webhook.Config{
		Store: a.store, Transport: a, Logger: zap.New(core),
		Encode: func(e tokenstore.Event) ([]byte, error) {
			return fmt.Appendf(nil, `{"seq":%d,"connection_id":%q}`, e.Seq, e.ConnectionID), nil
		},
	})
}

var begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of every synctest bubble

// RoundTrip implements http.RoundTripper.
func (a *app) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var m struct {
		Type      string
		Timestamp time.Time
		Data      struct {
			ConnectionID string `json:"connection_id"`
		}
	}
	if err := json.Unmarshal(body, &m); err != nil || m.Timestamp.IsZero() {
		a.t.Errorf("body %q: %v", body, err)
	}
	d := delivery{
		ID: r.Header.Get("Webhook-Id"), At: time.Since(begin), Type: m.Type, Conn: m.Data.ConnectionID,
		Valid: webhook.Verify(key(a.t, hookSecret), r.Header, body, time.Now()) == nil,
	}
	a.mu.Lock()
	a.got = append(a.got, d)
	status, after := http.StatusNoContent, ""
	if a.answer != nil {
		status, after = a.answer(d)
	}
	a.mu.Unlock()
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	h := http.Header{}
	if after != "" {
		h.Set("Retry-After", after)
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody, Request: r}, nil
}

func (a *app) answers(f func(delivery) (int, string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

// take returns what came since it was last called, as "type connection".
func (a *app) take() []string {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	lines := []string{}
	for _, d := range a.got {
		if !d.Valid {
			a.t.Errorf("signature of %+v is not right", d)
		}
		lines = append(lines, d.Type+" "+d.Conn)
	}
	a.got = nil
	return lines
}

func (a *app) happens(t tokenstore.EventType, conn string) {
	a.t.Helper()
	if err := a.store.AppendEvents(a.t.Context(), tokenstore.Event{Type: t, ConnectionID: conn, Integration: "github", UserID: "u1"}); err != nil {
		a.t.Fatal(err)
	}
}

func (a *app) logged(message string) int {
	return a.logs.FilterMessage(message).Len()
}

func (a *app) wants(want ...string) {
	a.t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), a.take()); diff != "" {
		a.t.Errorf("webhooks (-want +got):\n%s", diff)
	}
}

func endpoint(t *testing.T, types ...tokenstore.EventType) []webhook.Endpoint {
	t.Helper()
	return []webhook.Endpoint{{URL: hookURL, Secrets: []secret.String{key(t, hookSecret)}, Events: types}}
}

// bubble runs f in a synctest bubble, and ends the sender in it.
func bubble(t *testing.T, f func(t *testing.T, a *app)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t)
		defer func() { a.s.Close() }()
		f(t, a)
	})
}
