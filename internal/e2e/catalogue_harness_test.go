package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"os"
	"os/exec"
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
