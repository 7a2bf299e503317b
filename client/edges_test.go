package client_test

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

// An SDK that fills the header's map itself keeps its own spelling of a name.
func TestOwnAuthorizationInLowerCase(t *testing.T) {
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer srv.Close()
	c, err := client.New(client.Config{ProxyURL: srv.URL, ClientKey: "the-client-key"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["authorization"] = []string{"Bearer of-the-sdk"}
	req.Header["connection-id"] = []string{"conn_other"}
	req.Header["Proxy-Authorization"] = []string{"Basic of-the-sdk"}
	res, err := c.HTTPClient("conn_1", "https://api.example.com").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if v := got.Get("Authorization"); v != "" {
		t.Errorf("the SDK's own Authorization traveled: %q", v)
	}
	if v := got.Values("Connection-Id"); len(v) != 1 {
		t.Errorf("Connection-Id = %q", v)
	}
	if v := got.Values("Proxy-Authorization"); len(v) != 0 {
		t.Errorf("Proxy-Authorization = %q", v)
	}
}

func TestConfigAsJSON(t *testing.T) {
	b, err := json.Marshal(client.Config{APIKey: "canary-1", ClientKey: "canary-2"})
	if err != nil || strings.Contains(string(b), "canary") {
		t.Errorf("%s, %v", b, err)
	}
}

// A line that is no JSON ends the import; it must not hang.
func TestImportOfABrokenLine(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer srv.Close()
	c, err := client.New(client.Config{APIURL: srv.URL, APIKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	var all iter.Seq[client.ImportParams] = func(yield func(client.ImportParams) bool) {
		yield(client.ImportParams{UserID: "u", Metadata: json.RawMessage("{broken")})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var last error
	for _, err := range c.ImportAll(ctx, all, true) {
		last = err
	}
	if ctx.Err() != nil || last == nil {
		t.Errorf("it hung until its context ended, or said nothing: %v", last)
	}
}

// A stream that is cut off before its first event goes on where it began.
func TestFollowCutOffBeforeItsFirstEvent(t *testing.T) {
	asked := make(chan string, 9)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked <- r.URL.Query().Get("cursor") + r.Header.Get("Last-Event-Id"); len(asked) == 2 {
			cancel()
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "retry: 1000\nid: evt_7\n\n") // and the end, as at a restart
	}))
	defer srv.Close()
	c, err := client.New(client.Config{APIURL: srv.URL, APIKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	for range c.Follow(ctx, client.EventFilter{}) {
	}
	<-asked
	if again := <-asked; again != "evt_7" {
		t.Errorf("the second stream asked from %q: what happened between is lost", again)
	}
}
