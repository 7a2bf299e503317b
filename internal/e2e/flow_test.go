package e2e_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// connect takes a user through the whole flow without a browser, consenting at
// the fake provider, and returns the ACTIVE connection's ID.
func (w *world) connect(user string) string {
	w.t.Helper()
	c := w.begin(user)
	back := w.follow(newBrowser(w.t), c.ConnectURL)
	if back.Get("error") != "" || back.Get("state") != "app-state" {
		w.t.Fatalf("the app got %v", back)
	}
	id := back.Get("connection_id")
	w.complete(id, back.Get("completion_code"), user)
	return id
}

// newBrowser returns a client with cookies that follows no redirect by itself.
// It has an address of its own, as browsers do.
func newBrowser(t *testing.T) *http.Client {
	t.Helper()
	return &http.Client{
		Jar: newJar(t), Timeout: patience, Transport: newAddress(t),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// follow opens a connect link in a browser, consents, and returns the query
// with which the app is called back.
func (w *world) follow(browser *http.Client, link string) url.Values {
	w.t.Helper()
	return w.finish(browser, w.consent(browser, w.open(browser, link)))
}

// open opens a connect link and returns the authorization URL it leads to.
func (w *world) open(browser *http.Client, link string) string {
	w.t.Helper()
	res := w.browse(browser, link)
	if res.StatusCode != http.StatusSeeOther {
		w.t.Fatalf("connect link: HTTP %d", res.StatusCode)
	}
	return res.Header.Get("Location")
}

func (w *world) consent(browser *http.Client, authorizeURL string) (callbackURL string) {
	w.t.Helper()
	cb, err := fakeprovider.Approve(w.t.Context(), browser, authorizeURL)
	if err != nil {
		w.t.Fatal(err)
	}
	return cb
}

// finish loads the callback and returns what the app is told.
func (w *world) finish(browser *http.Client, callbackURL string) url.Values {
	w.t.Helper()
	res := w.browse(browser, callbackURL)
	loc, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(loc.String(), w.app.url+"/callback?") {
		w.t.Fatalf("callback: HTTP %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	return loc.Query()
}

// browse loads one page and keeps it for the sweep.
func (w *world) browse(browser *http.Client, rawURL string) *http.Response {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, rawURL, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := browser.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.note(b)
	w.out.meetAnswer(res.Header, b)
	res.Body = io.NopCloser(bytes.NewReader(b))
	return res
}

// app is the app that uses Lanyard: a server that takes callbacks.
type app struct {
	url       string
	callbacks chan url.Values
}

func newApp(t *testing.T, out *outlets) *app {
	t.Helper()
	a := &app{callbacks: make(chan url.Values, 16)}
	mux := http.NewServeMux()
	mux.HandleFunc("/callback", func(rw http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Method == http.MethodPost && len(q) == 0 && r.ParseForm() == nil { // response_mode=form_post
			q = r.PostForm
		}
		select {
		case a.callbacks <- q:
		default:
			t.Error("more callbacks than a test looks at")
		}
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(rw, `<!doctype html><title>The app</title><link rel="icon" href="data:,"><h1 id="back">Back in the app</h1>`)
	})
	srv := httptest.NewServer(out.watch(&out.toApp, mux))
	t.Cleanup(srv.Close)
	a.url = strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	return a
}

// called waits for the next callback.
func (w *world) called() url.Values {
	w.t.Helper()
	select {
	case q := <-w.app.callbacks:
		return q
	case <-time.After(patience):
		w.t.Fatal("the app was not called back")
		return nil
	}
}
