package provider_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	openIDPath = "/.well-known/openid-configuration"
	oauthPath  = "/.well-known/oauth-authorization-server"
)

// issuer is a server with metadata at one path and endpoints that say yes.
type issuer struct {
	*ledger
	path string // of the document
	mu   sync.Mutex
	doc  map[string]any
	raw  string        // if set, the document instead
	wait chan struct{} // if set, the document comes once it is closed
	came chan struct{} // with wait: a request for the document came
	down bool
}

func (i *issuer) set(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func newIssuer(t *testing.T, path, issuerPath string) *issuer {
	t.Helper()
	i := &issuer{path: path}
	i.ledger = newLedger(t, func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		doc, raw, wait, came, down := i.doc, i.raw, i.wait, i.came, i.down
		i.mu.Unlock()
		switch {
		case r.Method == http.MethodPost:
			answering(200, "application/json", `{"active":true,"access_token":"a"}`)(w, r)
		case r.URL.Path != i.path:
			http.NotFound(w, r)
		case down:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			if wait != nil {
				came <- struct{}{}
				<-wait
			}
			if raw != "" {
				_, _ = io.WriteString(w, raw)
				return
			}
			_ = json.NewEncoder(w).Encode(doc)
		}
	})
	i.doc = map[string]any{
		"issuer":                 i.URL + issuerPath,
		"authorization_endpoint": i.URL + "/found/authorize",
		"token_endpoint":         i.URL + "/found/token",
		"revocation_endpoint":    i.URL + "/found/revoke",
		"introspection_endpoint": i.URL + "/found/introspect",
	}
	return i
}

// members returns the document without its opening brace.
func (i *issuer) members() string {
	b, _ := json.Marshal(i.doc)
	return string(b[1:])
}

func (i *issuer) entry(issuerPath string) provider.Entry {
	return provider.Entry{Issuer: i.URL + issuerPath, APIURL: i.URL + "/api", AllowPrivate: true}
}

func (i *issuer) paths() []string {
	var paths []string
	for _, r := range i.all() {
		paths = append(paths, r.Method+" "+r.Path)
	}
	return paths
}

func TestDiscovery(t *testing.T) {
	tests := []struct {
		issuerPath, docPath string
		before              []string // the requests until the document was found
	}{
		{"", openIDPath, []string{"GET " + openIDPath}},
		{"/", openIDPath, []string{"GET " + openIDPath}},
		{"/tenant/1", "/tenant/1" + openIDPath, []string{"GET /tenant/1" + openIDPath}},
		{"", oauthPath, []string{"GET " + openIDPath, "GET " + oauthPath}},
		{"/tenant/1", oauthPath + "/tenant/1", []string{"GET /tenant/1" + openIDPath, "GET " + oauthPath + "/tenant/1"}},
	}
	for _, tt := range tests {
		t.Run(tt.issuerPath+" at "+tt.docPath, func(t *testing.T) {
			i := newIssuer(t, tt.docPath, tt.issuerPath)
			p := newProvider(t, i.entry(tt.issuerPath))
			link, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New(theVerifier), nil)
			if err != nil || !strings.HasPrefix(link, i.URL+"/found/authorize?") {
				t.Fatalf("AuthorizeURL() = %s, %v", link, err)
			}
			if _, err := exchange(t.Context(), p); err != nil {
				t.Error(err)
			}
			if err := p.Revoke(t.Context(), oldToken()); err != nil {
				t.Error(err)
			}
			if active, err := p.Introspect(t.Context(), oldToken()); err != nil || !active {
				t.Errorf("Introspect() = %v, %v", active, err)
			}
			want := append(tt.before, "POST /found/token", "POST /found/revoke", "POST /found/introspect")
			if diff := cmp.Diff(want, i.paths()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// Endpoints given by hand win, and nothing is fetched where none is missing.
func TestDiscoveryByHand(t *testing.T) {
	i := newIssuer(t, openIDPath, "")
	e := i.entry("")
	e.TokenURL = i.URL + "/mine/token"
	delete(i.doc, "token_endpoint")
	if _, err := exchange(t.Context(), newProvider(t, e)); err != nil {
		t.Fatal(err)
	}
	e.AuthorizeURL = i.URL + "/mine/authorize"
	p := newProvider(t, e)
	if _, err := exchange(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	iss, required, err := p.Issuer(t.Context())
	if iss != i.URL || required || err != nil {
		t.Errorf("Issuer() = %q, %v, %v", iss, required, err)
	}
	want := []string{"GET " + openIDPath, "POST /mine/token", "POST /mine/token"}
	if diff := cmp.Diff(want, i.paths()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if iss, required, err := newProvider(t, acme()).Issuer(t.Context()); iss != "" || required || err != nil {
		t.Errorf("Issuer() of none = %q, %v, %v", iss, required, err)
	}
}

func TestDiscoveryIssuerParameter(t *testing.T) {
	for _, promised := range []bool{true, false} {
		i := newIssuer(t, openIDPath, "")
		i.doc["authorization_response_iss_parameter_supported"] = promised
		iss, required, err := newProvider(t, i.entry("")).Issuer(t.Context())
		if iss != i.URL || required != promised || err != nil {
			t.Errorf("Issuer() = %q, %v, %v; want %v", iss, required, err, promised)
		}
	}
}

func TestDiscoveryClientAuth(t *testing.T) {
	basic, post, none := "client_secret_basic", "client_secret_post", "none"
	tests := []struct {
		methods any
		byHand  string
		want    string // how the request came
	}{
		{nil, "", "basic"},
		{[]string{post, basic}, "", "basic"},
		{[]string{none, post}, "", "post"},
		{[]string{"private_key_jwt", none}, "", "none"},
		{[]string{"private_key_jwt"}, "", ""},
		{[]string{}, "", ""},
		{[]string{"private_key_jwt"}, provider.AuthPost, "post"},
		{[]string{basic}, provider.AuthPost, "post"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.methods, tt.byHand), func(t *testing.T) {
			i := newIssuer(t, openIDPath, "")
			if tt.methods != nil {
				i.doc["token_endpoint_auth_methods_supported"] = tt.methods
			}
			e := i.entry("")
			e.ClientAuth = tt.byHand
			_, err := exchange(t.Context(), newProvider(t, e))
			noSecrets(t, err)
			got := ""
			for _, r := range i.all() {
				form, _ := url.ParseQuery(r.Body)
				switch {
				case r.Method != http.MethodPost:
				case r.User != "":
					got = "basic"
				case form.Has("client_secret"):
					got = "post"
				case form.Has("client_id"):
					got = "none"
				}
			}
			if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, tokenstore.ErrNotSent) {
				t.Errorf("came as %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// A document that can't be trusted is none.
func TestDiscoveryRefused(t *testing.T) {
	tests := map[string]func(i *issuer){
		"another issuer":         func(i *issuer) { i.doc["issuer"] = i.URL + "/other" },
		"a slash more":           func(i *issuer) { i.doc["issuer"] = i.URL + "/" },
		"no issuer":              func(i *issuer) { delete(i.doc, "issuer") },
		"no token endpoint":      func(i *issuer) { delete(i.doc, "token_endpoint") },
		"endpoint without TLS":   func(i *issuer) { i.doc["token_endpoint"] = "http://id.example/token" },
		"endpoint of metadata":   func(i *issuer) { i.doc["revocation_endpoint"] = "https://169.254.169.254/" },
		"endpoint is a file":     func(i *issuer) { i.doc["authorization_endpoint"] = "file:///etc/passwd" },
		"endpoint with a user":   func(i *issuer) { i.doc["authorization_endpoint"] = "https://a:b@id.example/" },
		"endpoint is a number":   func(i *issuer) { i.doc["token_endpoint"] = 7 },
		"endpoint at home":       func(i *issuer) { i.doc["token_endpoint"] = "https://0.0.0.0/token" },
		"endpoint is gopher's":   func(i *issuer) { i.doc["introspection_endpoint"] = "gopher://id.example/" },
		"endpoint has two lines": func(i *issuer) { i.doc["token_endpoint"] = "https://id.example/\r\nX: 1" },
		"endpoint says it all":   func(i *issuer) { i.doc["authorization_endpoint"] = "https://id.example/?state=x" },
		"endpoint has a place":   func(i *issuer) { i.doc["token_endpoint"] = "https://{shop}.id.example/" },
		"issuer twice":           func(i *issuer) { i.raw = `{"issuer":"https://evil.test",` + i.members() },
		"token endpoint twice":   func(i *issuer) { i.raw = `{"token_endpoint":"https://evil.test",` + i.members() },
		"issuer in another case": func(i *issuer) { i.doc["Issuer"] = i.doc["issuer"]; delete(i.doc, "issuer") },
		"more after it":          func(i *issuer) { i.raw = `{` + i.members() + `{}` },
		"longer than 64 KiB":     func(i *issuer) { i.doc["padding"] = strings.Repeat("x", 64<<10) },
		"nothing there":          func(i *issuer) { i.path = "/nowhere" },
		"the server is not well": func(i *issuer) { i.down = true },
	}
	for name, change := range tests {
		t.Run("A131 "+name, func(t *testing.T) {
			i := newIssuer(t, openIDPath, "")
			i.set(change)
			p := newProvider(t, i.entry(""))
			for range 3 { // a failure is remembered for a moment
				_, err := exchange(t.Context(), p)
				if !errors.Is(err, tokenstore.ErrNotSent) {
					t.Errorf("Exchange() = %v; want ErrNotSent", err)
				}
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("the error has several lines: %v", err)
				}
				noSecrets(t, err)
			}
			if n := len(i.all()); n != 2 {
				t.Errorf("%d requests; want 2 documents, once each", n)
			}
			if _, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New(theVerifier), nil); err == nil {
				t.Error("AuthorizeURL() went through")
			}
		})
	}
}

// What an operator may not write as an issuer.
func TestIssuerRefused(t *testing.T) {
	for _, issuer := range []string{
		"http://id.example", "file:///etc/passwd", "gopher://id.example", "ftp://id.example", "unix//run/x", "h2c://id.example",
		"https://169.254.169.254", "https://[fd00:ec2::254]", "https://127.0.0.1", "https://localhost", "https://10.0.0.1", "http://10.0.0.1",
		"https://a:b@id.example", "https://id.example/#x", "https://id.example?x", "https://id.example:0", "//id.example", "id.example",
	} {
		for _, word := range []string{"A131 issuer", "A133 token_url"} {
			t.Run(word+" "+issuer, func(t *testing.T) {
				e := acme()
				if word == "A131 issuer" {
					e.Issuer = issuer
				} else {
					e.TokenURL = issuer
				}
				if err := e.Validate(); (err == nil) != (word == "A133 token_url" && issuer == "https://id.example?x") {
					t.Errorf("Validate() = %v", err)
				}
			})
		}
	}
	e := provider.Entry{Issuer: "http://10.0.0.1", APIURL: "https://api.example", AllowPrivate: true}
	if err := e.Validate(); err == nil {
		t.Error("A131: http to a private address that is not loopback is taken with allow_private")
	}
}

// A document that comes by drops is left after 5 s, and so is the second place
// where there may be one.
func TestDiscoveryLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	t.Parallel()
	i := newIssuer(t, openIDPath, "")
	l := newLedger(t, dripping(false))
	p := newProvider(t, provider.Entry{Issuer: l.URL, APIURL: i.URL, AllowPrivate: true})
	begun := time.Now()
	_, _, err := p.Issuer(t.Context())
	if took := time.Since(begun); err == nil || took > 15*time.Second {
		t.Errorf("A131: Issuer() = %v after %v; want an error after 10 s", err, took)
	}
}

func TestDiscoveryFollowsNoRedirect(t *testing.T) {
	other := newIssuer(t, openIDPath, "")
	l := newLedger(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
	})
	doc := maps.Clone(other.doc)
	doc["issuer"] = l.URL
	other.set(func(i *issuer) { i.doc = doc })
	p := newProvider(t, provider.Entry{Issuer: l.URL, APIURL: l.URL, AllowPrivate: true})
	if _, _, err := p.Issuer(t.Context()); err == nil || len(other.all()) != 0 {
		t.Errorf("A131: Issuer() = %v after %d requests elsewhere", err, len(other.all()))
	}
}

// Everybody waits for one fetch; who leaves early stops it for nobody.
func TestDiscoveryShared(t *testing.T) {
	i := newIssuer(t, openIDPath, "")
	wait, came := make(chan struct{}), make(chan struct{}, 10)
	i.set(func(i *issuer) { i.wait, i.came = wait, came })
	p := newProvider(t, i.entry(""))

	impatient, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, _, err := p.Issuer(impatient)
		left <- err
	}()
	<-came
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient caller got %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := p.Issuer(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(wait)
	wg.Wait()
	if n := len(i.all()); n != 1 {
		t.Errorf("%d requests; want 1", n)
	}
}

// Close ends a fetch and waits for it.
func TestDiscoveryClose(t *testing.T) {
	i := newIssuer(t, openIDPath, "")
	wait, came := make(chan struct{}), make(chan struct{}, 10)
	i.set(func(i *issuer) { i.wait, i.came = wait, came })
	defer close(wait)
	p := newProvider(t, i.entry(""))
	got := make(chan error, 1)
	go func() {
		_, _, err := p.Issuer(t.Context())
		got <- err
	}()
	<-came
	p.Close()
	if err := <-got; err == nil {
		t.Error("Issuer() went through")
	}
}
