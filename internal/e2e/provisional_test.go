package e2e_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// withExchange has a second request, which the first one's refresh token is
// redeemed with, make the token that lasts.
func withExchange(w *world, c *fakeprovider.Config) {
	c.ReuseGrace = time.Minute
	w.site.Provider = "exchange {\n param purpose lasting\n }\n refresh {\n rotation grace\n }"
}

// lasts reports whether a connection has the second token, and no third.
func (w *world) lasts(id string) error {
	c := w.connection(id)
	if c.Status != "ACTIVE" {
		return errors.New("it is " + c.Status + " " + c.StatusReason)
	}
	return w.generation(id, 2)
}

// The token of a code is replaced by one that lasts within seconds, though
// nobody calls.
func TestProvisionalToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withExchange)
	id := w.connect("u1")
	w.eventually("the token that lasts is there", func() error { return w.lasts(id) })
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Errorf("a call: HTTP %d: %s", a.Status, a.Body)
	}
	w.wantNoReuse()
}

// The program dies at every place of that second request. The next run makes it.
func TestProvisionalTokenInACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withFailpoints, withExchange)
	for _, place := range []string{"refresh.before_send", "refresh.before_persist", "refresh.after_persist", "refresh.before_serve"} {
		c := w.begin("u1")
		back := w.follow(newBrowser(t), c.ConnectURL)
		w.fail(place + "=crash")
		var wg sync.WaitGroup
		wg.Go(func() {
			text, _ := json.Marshal(map[string]string{"completion_code": back.Get("completion_code"), "user_id": "u1"})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.proxyURL("/v1/connections/"+c.ID+"/complete"), strings.NewReader(string(text)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+w.apiKey)
			req.Header.Set("Content-Type", "application/json")
			_, _ = w.tryDo(req) // the child may die of it
		})
		w.died(patience)
		wg.Wait()
		w.fail()
		w.start()
		w.eventually("the token that lasts is there after a crash at "+place, func() error { return w.lasts(c.ID) })
		if a := w.call(c.ID, "/me"); a.Status != http.StatusOK {
			t.Errorf("%s: a call: HTTP %d: %s", place, a.Status, a.Body)
		}
	}
}
