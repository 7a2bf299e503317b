package webhook_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// TestRedirectsAreNotFollowed: what is for one URL goes to no other, and what
// was redirected was not taken.
func TestRedirectsAreNotFollowed(t *testing.T) {
	came := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came <- r.URL.Path
		if r.URL.Path == "/hooks" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	store := memstore.New()
	newSender := func() *webhook.Sender {
		s := webhook.New(webhook.Config{Store: store, Logger: zap.NewNop(), Encode: func(tokenstore.Event) ([]byte, error) {
			return []byte(`{}`), nil
		}})
		s.Use([]webhook.Endpoint{{URL: srv.URL + "/hooks", Secrets: []secret.String{key(t, hookSecret)}}})
		return s
	}
	wants := func() {
		t.Helper()
		select {
		case path := <-came:
			if path != "/hooks" {
				t.Errorf("the webhook went to %s", path)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no webhook came")
		}
	}
	s := newSender()
	if err := store.AppendEvents(t.Context(), tokenstore.Event{Type: tokenstore.EventActive, ConnectionID: "c1"}); err != nil {
		t.Fatal(err)
	}
	wants()
	s.Close() // waits for what is under way
	s = newSender()
	wants() // it was not taken: it comes again
	s.Close()
	select {
	case path := <-came:
		t.Errorf("one more came, to %s", path)
	default:
	}
}
