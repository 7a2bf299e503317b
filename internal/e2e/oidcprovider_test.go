package e2e_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// oidcProvider is the certified npm package oidc-provider, running as a child
// with one client, and an API behind it (oidcprovider/server.mjs).
type oidcProvider struct {
	url    string
	secret string // of the client lanyard-test

	mu     sync.Mutex // guards what follows
	ledger []oidcPost
}

// oidcPost is a request to its token endpoint, as its ledger has it.
type oidcPost struct {
	GrantType string   `json:"grant_type"`
	Presented string   `json:"presented"` // the code or refresh token
	Status    int      `json:"status"`
	Error     string   `json:"error"`
	Issued    []string `json:"issued"`
}

const oidcDir = "oidcprovider"

// installNPM installs an npm package, if that was not done yet.
func installNPM(t *testing.T, dir string) {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("no %s: %v", tool, err)
			}
			t.Skipf("no %s: %v", tool, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a slow registry
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// startOIDC starts the provider with a client that returns to redirectURI.
func startOIDC(t *testing.T, redirectURI string, accessSeconds int) *oidcProvider {
	t.Helper()
	p := &oidcProvider{secret: "oidcsecret" + rand.Text()}
	cmd := exec.Command("node", "server.mjs")
	cmd.Dir = oidcDir
	cmd.Env = append(os.Environ(), "CLIENT_ID=lanyard-test", "CLIENT_SECRET="+p.secret,
		"REDIRECT_URI="+redirectURI, fmt.Sprintf("ACCESS_SECONDS=%d", accessSeconds))
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var read sync.WaitGroup
	t.Cleanup(func() {
		in.Close() // it ends with its input
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		read.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("oidc-provider ended with %v", err)
		}
	})
	var first struct{ URL string }
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &first) != nil || first.URL == "" {
		t.Fatalf("oidc-provider did not start: %q", lines.Text())
	}
	p.url = first.URL
	read.Go(func() {
		for lines.Scan() {
			var post oidcPost
			if err := json.Unmarshal(lines.Bytes(), &post); err != nil {
				t.Errorf("oidc-provider's ledger: %v", err)
				continue
			}
			p.mu.Lock()
			p.ledger = append(p.ledger, post)
			p.mu.Unlock()
		}
	})
	return p
}

// posts returns the ledger so far.
func (p *oidcProvider) posts() []oidcPost {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ledger)
}

// withOIDC adds the provider as Lanyard's users would, with what else its block
// has, and the scopes to ask for.
func withOIDC(p **oidcProvider, words, scopes string) option {
	return func(w *world, _ *fakeprovider.Config) {
		*p = startOIDC(w.t, fmt.Sprintf("http://localhost:%d/callback/oidc", w.site.Connect), 5)
		secretFile := filepath.Join(w.t.TempDir(), "client-secret")
		if err := os.WriteFile(secretFile, []byte((*p).secret+"\n"), 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.secrets = append(w.secrets, (*p).secret)
		w.site.Extra += fmt.Sprintf(`
		provider oidc {
			issuer %[1]s
			allow_private
			%[3]s
		}
		integration oidc {
			client_id lanyard-test
			client_secret {file.%[2]s}
			scopes %[4]s
		}`, (*p).url, secretFile, strings.ReplaceAll(words, "ISSUER", (*p).url), scopes)
	}
}

// TestOIDCProviderForHalfAMinute calls an API whose tokens live for 5 seconds,
// behind a provider that rotates refresh tokens and ends a grant whose token
// is used twice: the app notices nothing.
func TestOIDCProviderForHalfAMinute(t *testing.T) {
	installNPM(t, oidcDir)
	var p *oidcProvider
	w := newWorld(t, withOIDC(&p, "api_url ISSUER/api", "read"))
	b := w.browser()
	b.open(w.link(url.Values{"integration": {"oidc"}, "user_id": {"u1"}, "redirect_url": {w.app.url + "/callback"}, "state": {"app-state"}}))
	back := w.wantBack(b.press("Sign in and allow"))
	id := back.Get("connection_id")
	w.complete(id, back.Get("completion_code"), "u1")

	const calls = 50
	began := time.Now()
	pace := time.NewTicker(30 * time.Second / calls)
	defer pace.Stop()
	for i := range calls {
		<-pace.C
		if a := w.call(id, "/things"); a.Status != http.StatusOK {
			t.Fatalf("call %d: HTTP %d: %s", i+1, a.Status, a.Body)
		}
	}

	took := time.Since(began)
	// A refresh may have begun behind the last call. The exchange of the code
	// was the first token request and made generation 1.
	w.eventually("the last refresh is stored", func() error {
		if c, posts := w.wantStatus(id, "ACTIVE", ""), p.posts(); c.Generation != uint64(len(posts)) {
			return fmt.Errorf("generation %d after %d token requests", c.Generation, len(posts))
		}
		return nil
	})
	posts, seen := p.posts(), map[string]bool{}
	for _, post := range posts {
		w.secrets = append(append(w.secrets, post.Presented), post.Issued...)
		if post.Status != http.StatusOK {
			t.Errorf("%s: HTTP %d: %s", post.GrantType, post.Status, post.Error)
		}
		if seen[post.Presented] {
			t.Errorf("a %s was presented twice", post.GrantType)
		}
		seen[post.Presented] = true
	}
	// 30 seconds and tokens of 5: at least five had to be replaced, and with a
	// margin of one second hardly more than one in four seconds.
	most := int(took/(4*time.Second)) + 2
	if refreshes := len(posts) - 1; refreshes < 5 || refreshes > most {
		t.Errorf("%d refreshes in %v; want 5 to %d", refreshes, took, most)
	}
}

// TestOIDCProviderByIssuerAlone gives nothing but the issuer: endpoints, userinfo
// and the API's origin come of it. The account is known, also when another token
// was made, and disconnecting ends the grant there.
func TestOIDCProviderByIssuerAlone(t *testing.T) {
	installNPM(t, oidcDir)
	var p *oidcProvider
	w := newWorld(t, withOIDC(&p, "", "openid profile email read"))
	b := w.browser()
	b.open(w.link(url.Values{"integration": {"oidc"}, "user_id": {"u1"}, "redirect_url": {w.app.url + "/callback"}, "state": {"app-state"}}))
	back := w.wantBack(b.press("Sign in and allow"))
	id := back.Get("connection_id")
	w.complete(id, back.Get("completion_code"), "u1")

	account := func(when string) {
		t.Helper()
		var c struct {
			Account struct{ ID, Name, Email string }
		}
		w.api(http.MethodGet, "/v1/connections/"+id, nil, &c)
		if got := fmt.Sprint(c.Account); got != "{ada Ada Lovelace ada@example.org}" {
			t.Errorf("%s: the account is %s", when, got)
		}
	}
	account("connected")
	call := func() {
		t.Helper()
		if a := w.call(id, "/api/things"); a.Status != http.StatusOK {
			t.Fatalf("HTTP %d: %s", a.Status, a.Body)
		}
	}
	call()
	if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
		t.Fatalf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
	call()
	account("refreshed")
	if a := w.api(http.MethodPost, "/v1/connections/"+id+"/revoke", nil, nil); a.Status != http.StatusOK {
		t.Fatalf("revoke: HTTP %d: %s", a.Status, a.Body)
	}
	w.wantStatus(id, "REVOKED", "revoked")
	for _, post := range p.posts() {
		w.secrets = append(append(w.secrets, post.Presented), post.Issued...)
		if post.Status != http.StatusOK {
			t.Errorf("%s: HTTP %d: %s", post.GrantType, post.Status, post.Error)
		}
	}
}
