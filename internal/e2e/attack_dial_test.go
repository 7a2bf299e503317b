package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// TestAttackUpstreamHosts leads Lanyard to hosts that are not who they should
// be, and to names that resolve to where no provider is.
func TestAttackUpstreamHosts(t *testing.T) {
	ca := newAuthority(t)
	t.Setenv("SSL_CERT_FILE", ca.file)
	dns := newNames(t)
	good := ca.serve(t, "*.test", time.Hour, tls.VersionTLS12)
	hosts := map[string]*rawAPI{
		"good": good, "expired": ca.serve(t, "*.test", -time.Hour, tls.VersionTLS12), "wrongname": ca.serve(t, "other.example", time.Hour, tls.VersionTLS12),
		"selfsigned": newAuthority(t).serve(t, "*.test", time.Hour, tls.VersionTLS12), "oldtls": ca.serve(t, "*.test", time.Hour, tls.VersionTLS10),
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	hostname = strings.ToLower(hostname)
	plain := freePort(t) // of a proxy that asks the system for addresses
	a := &attacked{up: good}
	a.world = newWorld(t, func(w *world, c *fakeprovider.Config) {
		w.site.ProxyOpt = "{\n transport {\n resolvers " + dns.addr + "\n dial_timeout 500ms\n }\n}"
		w.site.Sites = fmt.Sprintf(":%d {\n bind 127.0.0.1\n lanyard_proxy\n}\n", plain)
		c.RedirectURIs = nil // any
	})
	configure := func(name, authorize, token, api, more string) {
		a.site.Extra += fmt.Sprintf("provider %[1]s {\n authorize_url %[2]s\n token_url %[3]s\n api_url %[4]s\n %[5]s\n}\n"+
			"integration %[1]s {\n client_id {env.FAKE_CLIENT_ID}\n client_secret {env.FAKE_CLIENT_SECRET}\n scopes read\n}\n", name, authorize, token, api, more)
	}
	authorize, token, api := a.site.Fake+"/authorize", a.site.Fake+"/token", "https://open.test:"+portOf(good.addr)
	configure("open", authorize, token, api, "allow_private")
	configure("self", authorize, token, "https://"+hostname+":"+portOf(good.addr), "allow_private")
	first := len(a.site.Extra)
	for name, host := range hosts {
		dns.set(name+".test", "127.0.0.1")
		configure(name, authorize, token, "https://"+name+".test:"+portOf(host.addr), "allow_private")
		configure("token"+name, authorize, "https://"+host.addr+"/token", a.site.Fake+"/api", "allow_private")
	}
	configure("inner", authorize, token, "https://inner.test:"+portOf(good.addr), "allow_private")
	configure("loop", authorize, token, fmt.Sprintf("http://127.0.0.1:%d", a.site.Proxy), "allow_private")
	if err := a.reload(); err != nil {
		t.Fatal(err)
	}
	a.id = a.connectTo("good", "u1")
	open, inner, loop := a.connectTo("open", "u1"), a.connectTo("inner", "u1"), a.connectTo("loop", "u1")
	self := a.connectTo("self", "u1")
	a.in(t, "A109 an upstream that is Lanyard itself", func(t *testing.T) { a.callLoop(t, loop) })
	a.in(t, "A118 upstreams", func(t *testing.T) { a.badTLS(t, hosts) })
	a.in(t, "A118 token endpoints", func(t *testing.T) { a.badTokenTLS(t, hosts) })

	// While a user connects, the provider has to be the one of the test, which
	// needs allow_private. Now it becomes a public one.
	rest := a.site.Extra[first:]
	a.site.Extra = ""
	configure("open", "https://id.test/authorize", "https://id.test/token", api, "")
	configure("self", "https://id.test/authorize", "https://id.test/token", "https://"+hostname+":"+portOf(good.addr), "")
	a.site.Extra += rest
	if err := a.reload(); err != nil {
		t.Fatal(err)
	}
	// So that no connection is used again.
	a.up.answer(strings.Replace(rawOK, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
	// First, since connections that are dropped at once come in late.
	a.in(t, "A129 not even dialled", func(t *testing.T) { a.blockedUnseen(t, hostname, plain, self) })
	a.in(t, "A129 blocked addresses", func(t *testing.T) { a.blockedAddresses(t, dns, open, inner) })
	a.in(t, "A130 names that change", func(t *testing.T) { a.rebinding(t, dns, open, inner) })
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// badTLS calls APIs whose certificates are not theirs.
func (a *attacked) badTLS(t *testing.T, hosts map[string]*rawAPI) {
	for name, host := range hosts {
		got := a.call(a.connectTo(name, "u1"), "/x")
		if name == "good" {
			if got.Status != http.StatusOK {
				t.Errorf("good: HTTP %d: %s", got.Status, got.Body)
			}
			a.wantOne(t)
			continue
		}
		if got.Status != http.StatusBadGateway || got.Header.Get("Lanyard-Error") != "upstream_unreachable" {
			t.Errorf("%s: HTTP %d: %s", name, got.Status, got.Body)
		}
		if sent := host.take(); len(sent) > 0 {
			t.Errorf("%s got %q", name, sent[0].raw)
		}
	}
}

// badTokenTLS brings codes to token endpoints whose certificates are not theirs.
func (a *attacked) badTokenTLS(t *testing.T, hosts map[string]*rawAPI) {
	for name, host := range hosts {
		var c connection
		a.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "token" + name, "redirect_url": a.app.url + "/callback", "state": "app-state"}, &c)
		if back := a.follow(newBrowser(t), c.ConnectURL); back.Get("error") != "source_error" {
			t.Errorf("%s: the app got %v", name, back)
		}
		sent := host.take()
		if name == "good" && (len(sent) != 1 || !strings.Contains(sent[0].body, "code_verifier")) {
			t.Errorf("good: got %v", sent)
		}
		if name != "good" && len(sent) > 0 {
			t.Errorf("%s got %q", name, sent[0].raw)
		}
	}
}

// callLoop calls an API that is the proxy: the token it brings is no key there.
func (a *attacked) callLoop(t *testing.T, id string) {
	calls := len(a.fake.Ledger().Refreshes())
	if got := a.call(id, "/me"); got.Status != http.StatusUnauthorized || got.Header.Get("Lanyard-Error") != "" {
		t.Errorf("HTTP %d %v: %s", got.Status, got.Header, got.Body)
	}
	if n := len(a.fake.Ledger().Refreshes()) - calls; n > 1 {
		t.Errorf("%d refreshes", n)
	}
}

// blockedAddresses leads names to addresses, most of which are this machine's,
// where somebody listens. What else there is, is a test of package provider.
func (a *attacked) blockedAddresses(t *testing.T, dns *names, open, inner string) {
	addrs := map[string]string{
		"127.0.0.1": open, "127.9.9.9": open, "::1": open, "::ffff:127.0.0.1": open, "0.0.0.0": open, "::": open,
		"169.254.169.254": inner, "fd00:ec2::254": inner, "fe80::1": inner, "::ffff:169.254.169.254": inner,
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own {
		if prefix, err := netip.ParsePrefix(o.String()); err == nil && prefix.Addr().IsPrivate() {
			addrs[prefix.Addr().String()] = open
		}
	}
	for addr, id := range addrs {
		dns.set("open.test", addr)
		dns.set("inner.test", addr)
		got := a.call(id, "/x")
		if got.Status != http.StatusBadGateway || got.Header.Get("Lanyard-Error") != "upstream_unreachable" {
			t.Errorf("%s: HTTP %d: %s", addr, got.Status, got.Body)
		}
		if strings.Contains(got.Body, addr) {
			t.Errorf("the answer tells the address: %s", got.Body)
		}
		a.wantNothingSent(t)
	}
}

// blockedUnseen does the same without a resolver of its own. The address is
// looked at before the first packet then.
func (a *attacked) blockedUnseen(t *testing.T, host string, port int, id string) {
	if addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", host); err != nil || !addrs[0].IsPrivate() && !addrs[0].IsLoopback() {
		t.Skipf("this machine's name leads to %v, %v", addrs, err)
	}
	before := a.up.dials()
	got := a.wireTo(t, port, "", withKey("/x", a.clientKey, id))
	a.wantRefused(t, got, "upstream_unreachable", http.StatusBadGateway)
	if n := a.up.dials() - before; n != 0 {
		t.Errorf("it was dialled %d times", n)
	}
}

// rebinding has a name lead elsewhere at the second look.
func (a *attacked) rebinding(t *testing.T, dns *names, open, inner string) {
	for _, step := range []struct {
		id     string
		addrs  []string
		status int
	}{
		{inner, []string{"127.0.0.1"}, http.StatusOK},
		{inner, []string{"169.254.169.254"}, http.StatusBadGateway},
		{inner, []string{"169.254.169.254", "fd00:ec2::254"}, http.StatusBadGateway},
		{open, []string{"127.0.0.1"}, http.StatusBadGateway},
		{open, []string{"169.254.169.254", "127.0.0.1", "::1"}, http.StatusBadGateway},
		{inner, []string{"127.0.0.1"}, http.StatusOK},
	} {
		dns.set("open.test", step.addrs...)
		dns.set("inner.test", step.addrs...)
		if got := a.call(step.id, "/x"); got.Status != step.status {
			t.Errorf("%v: HTTP %d: %s", step.addrs, got.Status, got.Body)
		}
		if step.status == http.StatusOK {
			a.wantOne(t)
		}
		a.wantNothingSent(t)
	}
}

// authority signs certificates.
type authority struct {
	file string // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), key: key}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return ca
}

// serve starts a raw API behind TLS, for a name and for 127.0.0.1 both, with a
// certificate that ends after life.
func (ca *authority) serve(t *testing.T, name string, life time.Duration, version uint16) *rawAPI {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name == "*.test" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &ca.key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return newRawAPI(t, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: ca.key}},
		MinVersion:   version, MaxVersion: version, // old on purpose
	})
}

// names is a name server.
type names struct {
	addr string

	mu    sync.Mutex // guards addrs
	addrs map[string][]netip.Addr
}

func newNames(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &names{addr: conn.LocalAddr().String(), addrs: map[string][]netip.Addr{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := n.reply(buf[:size]); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		wg.Wait()
	})
	return n
}

func (n *names) set(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name] = nil
	for _, addr := range addrs {
		n.addrs[name] = append(n.addrs[name], netip.MustParseAddr(addr))
	}
}

func (n *names) reply(query []byte) []byte {
	var msg dnsmessage.Message
	if msg.Unpack(query) != nil || len(msg.Questions) != 1 {
		return nil
	}
	q := msg.Questions[0]
	out := dnsmessage.Message{Header: dnsmessage.Header{ID: msg.ID, Response: true, Authoritative: true}, Questions: msg.Questions}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, addr := range n.addrs[strings.TrimSuffix(q.Name.String(), ".")] {
		head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
		switch {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: addr.As4()}})
		case !addr.Is4() && q.Type == dnsmessage.TypeAAAA:
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	b, err := out.Pack()
	if err != nil {
		return nil
	}
	return b
}
