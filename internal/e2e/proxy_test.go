package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-github/v84/github"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func atLeast(got, want int) error {
	if got < want {
		return fmt.Errorf("%d, want at least %d", got, want)
	}
	return nil
}

func (w *world) wantCall(id string, status int) error {
	if a := w.call(id, "/me"); a.Status != status {
		return fmt.Errorf("HTTP %d, want %d: %s", a.Status, status, a.Body)
	}
	return nil
}

func (w *world) generation(id string, want uint64) error {
	if c := w.connection(id); c.Generation != want {
		return fmt.Errorf("generation %d, want %d", c.Generation, want)
	}
	return nil
}

func (w *world) status(id, want string) error {
	if c := w.connection(id); c.Status != want {
		return fmt.Errorf("status %s (%s), want %s", c.Status, c.StatusReason, want)
	}
	return nil
}

func (w *world) wantNoReuse() {
	w.t.Helper()
	if r := w.fake.Ledger().Reused(); len(r) > 0 {
		w.t.Errorf("presented again after rotation: %v", r)
	}
}

func TestCallRefreshRevokeReconnect(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	if a := w.call(id, "/me"); a.Status != http.StatusOK || !strings.Contains(a.Body, "Ada") {
		t.Fatalf("HTTP %d: %s", a.Status, a.Body)
	}
	w.fake.ExpireAccessTokens()
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Fatalf("after the token was refused: HTTP %d: %s", a.Status, a.Body)
	}
	if err := w.generation(id, 2); err != nil {
		t.Error(err)
	}
	w.fake.RevokeAll()
	a := w.call(id, "/me")
	if a.Status != http.StatusUnauthorized {
		t.Errorf("within a minute of a forced refresh: HTTP %d, want the provider's own 401", a.Status)
	}
	if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusFailedDependency {
		t.Errorf("refresh of a revoked grant: HTTP %d: %s", a.Status, a.Body)
	}
	if a := w.call(id, "/me"); a.Status != http.StatusFailedDependency || a.Header.Get("Lanyard-Error") != "reconnect_required" {
		t.Errorf("after that: HTTP %d: %s", a.Status, a.Body)
	}
	c := w.connection(id)
	back := w.follow(newBrowser(t), c.ConnectURL)
	if back.Get("connection_id") != id {
		t.Errorf("reconnected as %s, want the same connection", back.Get("connection_id"))
	}
	w.complete(id, back.Get("completion_code"), "u1")
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Errorf("after reconnecting: HTTP %d: %s", a.Status, a.Body)
	}
	w.wantNoReuse()
}

func TestDeletedStaysDeleted(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	a := w.api(http.MethodDelete, "/v1/connections/"+id, nil, nil)
	if a.Status != http.StatusOK || !strings.Contains(a.Body, `"provider_revoked":true`) {
		t.Fatalf("delete: HTTP %d: %s", a.Status, a.Body)
	}
	if n := len(w.fake.Ledger().Revocations); n == 0 {
		t.Error("the provider was not told")
	}
	for range 2 {
		if a := w.call(id, "/me"); a.Status != http.StatusNotFound || a.Header.Get("Lanyard-Error") != "connection_not_found" {
			t.Errorf("call: HTTP %d: %s", a.Status, a.Body)
		}
		w.kill()
		w.start()
	}
}

// firstLife gives the first token of a connection a short life, and all later
// ones an hour.
func firstLife(w *world, seconds int) {
	w.fake.Faults.Token(fakeprovider.ExpiresIn(seconds).OnCode())
}

func TestThousandCallsOneRefresh(t *testing.T) {
	w := newWorld(t)
	firstLife(w, 1)
	id := w.connect("u1")
	w.fake.ExpireAccessTokens()
	w.eventually("the token has expired", w.expired(id))
	w.fake.Faults.Token(fakeprovider.Delay(300 * time.Millisecond))
	var ok atomic.Int32
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 250}}
	defer client.CloseIdleConnections()
	for range 1000 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL("/me"), nil)
			w.name(req, id)
			res, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if _, err := io.Copy(io.Discard, res.Body); err == nil && res.StatusCode == http.StatusOK {
				ok.Add(1)
			}
		})
	}
	wg.Wait()
	if ok.Load() != 1000 {
		t.Errorf("%d of 1000 calls answered 200", ok.Load())
	}
	if n := len(w.fake.Ledger().Refreshes()); n != 1 {
		t.Errorf("%d token requests, want exactly 1", n)
	}
}

// expired returns a check that the connection's access token is past its end.
func (w *world) expired(id string) func() error {
	return func() error {
		var c struct {
			End time.Time `json:"access_token_expires_at"`
		}
		w.api(http.MethodGet, "/v1/connections/"+id, nil, &c)
		if c.End.IsZero() || time.Now().Before(c.End) {
			return fmt.Errorf("it lives until %v", c.End)
		}
		return nil
	}
}

func TestHundredRefusalsOneRefresh(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.fake.ExpireAccessTokens()
	w.fake.Faults.Token(fakeprovider.Delay(300 * time.Millisecond))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, w.proxyURL("/echo"), strings.NewReader("the body"))
			w.name(req, id)
			if a, err := w.tryDo(req); err != nil || a.Status != http.StatusOK || a.Body != "the body" {
				t.Errorf("HTTP %d %q, %v", a.Status, a.Body, err)
			}
		})
	}
	wg.Wait()
	if n := len(w.fake.Ledger().Refreshes()); n != 1 {
		t.Errorf("%d token requests, want exactly 1", n)
	}
}

func TestCallerWhoHangsUpCancelsNothing(t *testing.T) {
	w := newWorld(t)
	firstLife(w, 1)
	id := w.connect("u1")
	w.eventually("the token has expired", w.expired(id))
	release := make(chan struct{})
	w.fake.Faults.Token(fakeprovider.Hold(release))
	posts := len(w.fake.Ledger().Posts)
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	cmd := exec.CommandContext(ctx, "curl", "-sS", "-H", "Lanyard-Key: "+w.clientKey, "-H", "Connection-Id: "+id, w.proxyURL("/me"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantAsked(posts + 1)
	hangUp()
	if err := cmd.Wait(); err == nil {
		t.Fatal("the call was answered without a token")
	}
	close(release)
	w.eventually("the refresh went on", func() error { return w.generation(id, 2) })
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Errorf("HTTP %d: %s", a.Status, a.Body)
	}
	if n := len(w.fake.Ledger().Refreshes()); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

func TestFailingEndpointFailsNoCallWithAValidToken(t *testing.T) {
	w := newWorld(t)
	firstLife(w, 12) // soft margin 2.4 s, hard 1.2 s before its end
	id := w.connect("u1")
	w.fake.Faults.Token(fakeprovider.Status(http.StatusInternalServerError).Always())
	for w.expired(id)() != nil {
		// A token may end between the two looks.
		if a := w.call(id, "/me"); a.Status != http.StatusOK && w.expired(id)() != nil {
			t.Fatalf("a call with a valid token: HTTP %d: %s", a.Status, a.Body)
		}
	}
	a := w.call(id, "/me")
	if a.Status != http.StatusServiceUnavailable || a.Header.Get("Lanyard-Error") != "refresh_unavailable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("without a valid token: HTTP %d %v: %s", a.Status, a.Header, a.Body)
	}
	w.fake.Faults.Clear()
	w.eventually("it works once the endpoint is back", func() error { return w.wantCall(id, http.StatusOK) })
	if err := w.status(id, "ACTIVE"); err != nil {
		t.Error(err)
	}
}

func TestGoGitHubPages(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	// Nothing but a base URL and a token.
	client := github.NewClient(nil).WithAuthToken(w.clientKey + "." + id)
	base, err := url.Parse(w.proxyURL("/"))
	if err != nil {
		t.Fatal(err)
	}
	client.BaseURL = base
	repos := map[string]bool{}
	opts, pages := &github.RepositoryListByAuthenticatedUserOptions{}, 0
	for {
		page, res, err := client.Repositories.ListByAuthenticatedUser(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, r := range page {
			repos[r.GetName()] = true
		}
		for link := range strings.SplitSeq(res.Header.Get("Link"), ",") {
			target, _, _ := strings.Cut(link, ";")
			if !strings.HasPrefix(strings.TrimSpace(target), "<"+w.proxyURL("/")) {
				t.Errorf("a link that leads past Lanyard: %s", link)
			}
		}
		if res.NextPage == 0 {
			break
		}
		opts.Page = res.NextPage
	}
	if got := w.fake.Ledger().CallCount(http.StatusOK); pages != 3 || got != 3 || len(repos) != 30 {
		t.Errorf("%d pages with %d repositories by %d calls, want 3, 30 and 3", pages, len(repos), got)
	}
}

func TestCurlWithOneHeader(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-H", "Authorization: Bearer "+w.clientKey+"."+id, w.proxyURL("/items?page=2")).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("[")) {
		t.Errorf("curl: %v: %s", err, out)
	}
}

func TestWhatComesFromAWebPageIsRefused(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	for name, set := range map[string]func(*http.Request){
		"Origin":         func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"Sec-Fetch-Site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"foreign Host":   func(r *http.Request) { r.Host = "evil.example" },
	} {
		for _, path := range []string{"/me", "/v1/connections"} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL(path), nil)
			if path == "/me" {
				w.name(req, id)
			} else {
				req.Header.Set("Authorization", "Bearer "+w.apiKey)
			}
			set(req)
			if a := w.do(req); a.Status != http.StatusForbidden && a.Status != http.StatusMisdirectedRequest {
				t.Errorf("%s on %s: HTTP %d: %s", name, path, a.Status, a.Body)
			}
		}
	}
}

// A150, in short: attack_secret_test.go looks at all places.
func TestConfigurationShowsNoSecret(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	w.look("/config/", cfg, []string{w.apiKey, w.clientKey, w.secret})
	if !bytes.Contains(cfg, []byte("{env.LANYARD_API_KEY}")) {
		t.Error("/config/ does not show the placeholder that was written")
	}
	if a := w.api(http.MethodGet, "/v1/integrations", nil, nil); a.Status != http.StatusOK {
		t.Error(errors.New(a.Body))
	}
}
