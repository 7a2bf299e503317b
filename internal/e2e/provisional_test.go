package e2e_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// withExchange has a second request, with the token that the code brought, make
// the one that lasts.
func withExchange(w *world, c *fakeprovider.Config) {
	c.SelfRenewal = true
	const presented = " param grant_type fb_exchange_token\n rename access_token fb_exchange_token\n"
	w.site.Provider = "exchange {\n param purpose lasting\n" + presented + "}\n" +
		"refresh {\n with access_token\n rotation grace\n" + presented + "}"
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
	posts := w.fake.Ledger().Posts
	if len(posts) != 2 || posts[1].GrantType != "fb_exchange_token" || !slices.Contains(posts[1].Params, "purpose") || posts[1].Grant != posts[0].Grant {
		t.Errorf("requests for a token: %+v; want the code's, and one that exchanges what it brought", posts)
	}
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
