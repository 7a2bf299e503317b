package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/dialect"
	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// speaker is one integration of the catalogue test: an entry as it is, and the
// provider that it is about.
type speaker struct {
	name    string // of the integration and of its dialect
	entry   provider.Entry
	own     bool // the entry is given in the configuration
	scheme  string
	dialect *dialect.Dialect
	scopes  []string
	key     string // the client's or the account's private key, where there is one
}

// catalogue is a world whose program reaches dialects at the providers' own
// hosts.
type catalogue struct {
	*world
	server *dialect.Server
	dial   string // the line of the failpoints file
}

// newCatalogue starts a program with these integrations.
func newCatalogue(t *testing.T, speakers []*speaker) *catalogue {
	t.Helper()
	c := &catalogue{server: dialect.New()}
	srv := httptest.NewUnstartedServer(c.server)
	ca := newCertifier(t)
	srv.TLS, srv.EnableHTTP2 = &tls.Config{GetCertificate: ca.certificate, MinVersion: tls.VersionTLS12}, true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c.dial = "dial=" + srv.Listener.Addr().String()
	key := newRSAKey(t)
	c.world = newWorld(t, withFailpoints, func(w *world, _ *fakeprovider.Config) {
		w.environ = append(w.environ, "SSL_CERT_FILE="+ca.file(t, w), "SSL_CERT_DIR="+w.site.Dir+"/none")
		for _, s := range speakers {
			s.key = key
			w.environ = append(w.environ, s.env()+"="+s.secret())
		}
		w.secrets = append(w.secrets, strings.Split(key, "\n")[1])
	})
	t.Cleanup(func() { // before the sweep
		c.secrets = append(c.secrets, c.server.Secrets()...)
	})
	for _, s := range speakers {
		secret := s.secret()
		if s.entry.ClientAuth == provider.AuthPrivateKeyJWT {
			secret = ""
		}
		redirect := c.site.Public + "/callback/" + s.name
		if s.entry.ClientAuth == provider.AuthNone {
			secret = ""
		}
		if ruName[s.name] {
			redirect = "Acme-Lanyard-registered-name"
		}
		c.server.Add(s.dialect, s.client(), secret, redirect)
	}
	c.fail(c.dial)
	c.configure(t, speakers)
	return c
}

// ruName has the providers that know redirect URIs by a name of their own.
var ruName = map[string]bool{"ebay": true}

func (s *speaker) client() string { return "client-" + s.name }

func (s *speaker) env() string {
	return "SECRET_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// secret returns the client's secret: always the same of one run.
func (s *speaker) secret() string {
	if s.entry.ClientAuth == provider.AuthPrivateKeyJWT {
		return s.key
	}
	return "client-secret-of-" + s.name + "-that-nobody-else-has"
}

// hasClient reports whether the integration is a registered client.
func (s *speaker) hasClient() bool {
	switch s.scheme {
	case tokenstore.AuthOAuth2, tokenstore.AuthClientCredentials:
		return true
	case tokenstore.AuthJWTBearer:
		return s.entry.JWT.Issuer != "given"
	}
	all := s.entry.Key.Prefix
	for _, v := range s.entry.Inject.Headers {
		all += v
	}
	for _, v := range s.entry.Inject.Params {
		all += v
	}
	return strings.Contains(all, "{client_id}")
}

// configure loads the program's configuration again with all integrations in
// it, and the entries that are not in the catalogue.
func (c *catalogue) configure(t *testing.T, speakers []*speaker) {
	t.Helper()
	cmd := exec.Command(c.bin, "adapt", "--config", c.path("Caddyfile"), "--adapter", "caddyfile")
	cmd.Env, cmd.Dir = c.env(), c.site.Dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(out, &config); err != nil {
		t.Fatal(err)
	}
	app := config["apps"].(map[string]any)["lanyard"].(map[string]any)
	integrations, providers := app["integrations"].(map[string]any), app["providers"].(map[string]any)
	for _, s := range speakers {
		in := map[string]any{"provider": s.provider(), "auth_scheme": s.scheme}
		if s.hasClient() {
			in["client_id"] = s.client()
			if s.entry.ClientAuth != provider.AuthNone && s.scheme != tokenstore.AuthJWTBearer {
				in["client_secret"] = "{env." + s.env() + "}"
			}
		}
		if s.scheme == tokenstore.AuthOAuth2 || s.scheme == tokenstore.AuthClientCredentials || s.scheme == tokenstore.AuthJWTBearer {
			in["scopes"] = s.scopes
		}
		fixed := map[string]string{}
		for name, p := range s.entry.Params {
			if (p.Host || p.Fixed) && p.From == "" {
				fixed[name] = s.dialect.Params[name]
			}
		}
		if len(fixed) > 0 {
			in["params"] = fixed
		}
		if ruName[s.name] {
			in["redirect_uri"] = "Acme-Lanyard-registered-name"
		}
		integrations[s.name] = in
		if s.own {
			providers[s.provider()] = s.entry
		}
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(c.bin, "reload", "--config", c.path("config.json"), "--address", "unix/"+c.path("admin.sock"))
	cmd.Env, cmd.Dir = c.env(), c.site.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("loading the configuration: %v\n%s", err, out)
	}
}

// provider returns the entry's name.
func (s *speaker) provider() string { name, _, _ := strings.Cut(s.name, "_"); return name }

// certifier is a certificate authority that vouches for every host.
type certifier struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	mu   sync.Mutex
	made map[string]*tls.Certificate // guarded by mu
}

func newCertifier(t *testing.T) *certifier {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &certifier{key: key, made: map[string]*tls.Certificate{}}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "A test's authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if a.cert.Raw, err = x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *certifier) file(t *testing.T, w *world) string {
	t.Helper()
	name := w.path("authority.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (a *certifier) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cert := a.made[hello.ServerName]; cert != nil {
		return cert, nil
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(a.made) + 2)), DNSNames: []string{hello.ServerName},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
	a.made[hello.ServerName] = cert
	return cert, nil
}

func newRSAKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// shown is what the API says of a connection.
type shown struct {
	connection
	Scopes struct{ Granted, Missing []string }
	// Account is null where it is not known.
	Account struct{ ID, Name, Email string }
	Told    map[string]string `json:"provider_metadata"`
}

// ask calls /v1, in a subtest that may run beside others.
func (c *catalogue) ask(t *testing.T, method, path string, in, out any) (answer, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.proxyURL(path), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+c.apiKey)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := c.tryDo(req)
	if err == nil && a.Status >= 300 {
		err = fmt.Errorf("%s %s: HTTP %d: %s", method, path, a.Status, a.Body)
	}
	if err == nil && out != nil {
		err = json.Unmarshal([]byte(a.Body), out)
	}
	return a, err
}

func (c *catalogue) look(t *testing.T, id string) (shown, error) {
	var s shown
	_, err := c.ask(t, http.MethodGet, "/v1/connections/"+id, nil, &s)
	return s, err
}

// visit makes a proxied request.
func (c *catalogue) visit(t *testing.T, s *speaker, id string) (answer, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.proxyURL("/lanyard-call/"+s.name), nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Lanyard-Key", c.clientKey)
	req.Header.Set("Connection-Id", id)
	req.Header.Set("User-Agent", "") // net/http would name itself
	return c.tryDo(req)
}

// byHand reports whether the credential is one that somebody made by hand.
func (s *speaker) byHand() bool {
	return s.scheme == tokenstore.AuthAPIKey || s.scheme == tokenstore.AuthBasic
}

// params returns what whoever connects has to give.
func (s *speaker) params() map[string]string {
	given := map[string]string{}
	for name, p := range s.entry.Params {
		from, _, told := strings.Cut(p.From, ".")
		switch {
		case !told && !p.Host && !p.Fixed:
			given[name] = s.dialect.Params[name]
		case told && from != "account" && s.byHand() && strings.Contains(s.entry.APIURL, "{"+name+"}"):
			given[name] = s.dialect.Told[name] // nothing else tells it of a key
		}
	}
	return given
}

// join connects an account, and returns the connection.
func (c *catalogue) join(t *testing.T, s *speaker, account dialect.Account) (string, error) {
	in := map[string]any{"integration": s.name, "user_id": account.ID, "redirect_url": c.app.url + "/callback", "state": "app-state"}
	if given := s.params(); len(given) > 0 {
		in["params"] = given
	}
	if s.scheme != tokenstore.AuthOAuth2 {
		delete(in, "redirect_url")
		delete(in, "state")
		if given := c.credentials(s, account); given != nil {
			in["credentials"] = given
		}
	}
	var begun connection
	if _, err := c.ask(t, http.MethodPost, "/v1/connections", in, &begun); err != nil {
		return "", fmt.Errorf("beginning: %w", err)
	}
	if s.scheme != tokenstore.AuthOAuth2 {
		return begun.ID, nil
	}
	browser := newBrowser(t)
	page, err := c.leads(t, browser, begun.ConnectURL)
	if err != nil {
		return "", fmt.Errorf("opening the link: %w", err)
	}
	response, err := c.server.Consent(s.name, page, account)
	if err != nil {
		return "", fmt.Errorf("asking for consent: %w", err)
	}
	back, err := c.leads(t, browser, c.site.Public+"/callback/"+s.name+"?"+response)
	if err != nil {
		return "", fmt.Errorf("coming back: %w", err)
	}
	u, err := url.Parse(back)
	if err != nil {
		return "", err
	}
	q := u.Query()
	if q.Get("error") != "" {
		err := fmt.Errorf("the app is told %s: %s", q.Get("error"), q.Get("error_description"))
		if c.server.Record(s.name, account.ID).Access != "" {
			err = fmt.Errorf("%w; the provider gave a token with the answer %s: see answer.paths, answer.success, answer.token_types, params or account", err, s.dialect.Code.Answer)
		}
		return "", err
	}
	done := map[string]string{"completion_code": q.Get("completion_code"), "user_id": account.ID}
	if _, err := c.ask(t, http.MethodPost, "/v1/connections/"+begun.ID+"/complete", done, nil); err != nil {
		return "", fmt.Errorf("completing: %w", err)
	}
	return begun.ID, nil
}

// leads loads a page and returns where it leads to.
func (c *catalogue) leads(t *testing.T, browser *http.Client, to string) (string, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
	if err != nil {
		return "", err
	}
	res, err := browser.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		return "", err
	}
	c.note(body.Bytes())
	c.out.meetAnswer(res.Header, body.Bytes())
	if res.StatusCode != http.StatusSeeOther {
		return "", fmt.Errorf("HTTP %d: %s", res.StatusCode, textOf(body.String()))
	}
	return res.Header.Get("Location"), nil
}

// textOf returns what a page says, cut short.
func textOf(page string) string {
	_, main, ok := strings.Cut(page, "<main")
	if !ok {
		main = page
	}
	return main[:min(len(main), 600)]
}

// credentials makes what stands in the place of a consent, known to the
// provider.
func (c *catalogue) credentials(s *speaker, account dialect.Account) map[string]string {
	switch s.scheme {
	case tokenstore.AuthAPIKey:
		key := dialect.Sample(s.entry.Key.Pattern, true)
		if s.entry.Key.Pattern == "" {
			key = "key-" + rand.Text()
		}
		c.server.Give(s.name, key, account)
		return map[string]string{"api_key": key}
	case tokenstore.AuthBasic:
		user, password := "ada-"+account.ID, rand.Text()
		given := map[string]string{"username": user, "password": password}
		if s.entry.Basic.Password == "none" {
			user, password = "key-"+rand.Text(), ""
			given = map[string]string{"username": user}
		}
		c.server.Give(s.name, user+":"+password, account)
		c.out.meet(credential, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
		return given
	case tokenstore.AuthJWTBearer:
		given := map[string]string{"key": s.key}
		if s.entry.JWT.Issuer == "given" {
			b, _ := json.Marshal(map[string]string{"client_email": robot, "private_key": s.key, "private_key_id": "k1"})
			given["key"] = string(b)
		}
		if s.entry.JWT.KeyID == "given" {
			given["key_id"] = "k1"
		}
		if s.entry.JWT.Subject == "given" {
			given["subject"] = account.ID
		}
		return given
	}
	return nil
}

// soonNil waits until check returns nil.
func soonNil(check func() error) error {
	var err error
	for began := time.Now(); time.Since(began) < patience; time.Sleep(25 * time.Millisecond) {
		if err = check(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("still so after %v: %w", patience, err)
}

// withWhy adds to an error what the provider found wrong.
func (c *catalogue) withWhy(s *speaker, step string, err error) error {
	if why := c.server.Complaints(s.name); len(why) > 0 {
		said := fmt.Errorf("%s says: %s", s.name, strings.Join(slices.Compact(why), "; "))
		if err == nil {
			err = said
		} else {
			err = fmt.Errorf("%w; %w", err, said)
		}
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", step, err)
}

var errNotRenewed = errors.New("the token was not renewed")
