package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

const (
	connections = 10_000
	smallSize   = 999
	bigSize     = 1 << 20
	uploadSize  = 10 << 20
	// ssePause is between the first event and the second: a proxy that keeps
	// the first back shows.
	ssePause = 2 * time.Millisecond
)

// What the upstream answers where this program is it. The pause comes after
// the first event.
const (
	uploadAnswer = "ok"
	sseEvents    = "data: first\n\ndata: last\n\n"
	sseFirst     = len("data: first\n\n")
)

// fixedToken is what stock Caddy puts on every request: one token for all is
// the cheapest that it can do. As long as the others'.
var fixedToken = "fixed-" + strings.Repeat("t", 100)

// token returns the token of the connection with the number i.
func token(i int) string {
	return fmt.Sprintf("%05d-%s", i, strings.Repeat("t", 100))
}

// path returns where a job asks for what is only for the connection i.
func path(prefix string, i int) string { return fmt.Sprintf("%s%05d", prefix, i) }

// upstreams answer only to the token of the connection that is asked for: nginx
// what it can, since it takes the least away from the programs that are
// measured, and this program the rest.
type upstreams struct {
	dir        string
	nginx, own map[upstreamKind]string // :: kind → URL
	pool       *x509.CertPool
	child      *child.Child
	servers    []*http.Server
}

func newUpstreams(dir string) *upstreams {
	return &upstreams{dir: dir, nginx: map[upstreamKind]string{}, own: map[upstreamKind]string{}, pool: x509.NewCertPool()}
}

// ca returns the file with the CA's certificate.
func (u *upstreams) ca() string { return filepath.Join(u.dir, "ca.pem") }

func (u *upstreams) start(ctx context.Context) error {
	cert, err := u.makeCertificates()
	if err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	var listens []string
	for kind, more := range map[upstreamKind]string{plain: "", tlsHTTP1: " ssl", tlsHTTP2: " ssl http2"} {
		addr, err := child.FreeAddr()
		if err != nil {
			return err
		}
		listens = append(listens, "listen "+addr+more+" backlog=4096;")
		u.nginx[kind] = kind.scheme() + "://" + addr
		if u.own[kind], err = u.serve(ctx, kind, cert); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(u.dir, "big.bin"), bytes.Repeat([]byte("0123456789abcdef"), bigSize/16), 0o600); err != nil {
		return err
	}
	u.child, err = startNginx(ctx, u.dir, "upstream", upstreamConfig(u.dir, listens), strings.TrimPrefix(u.nginx[plain], "http://"))
	return err
}

func (u *upstreams) stop() {
	for _, s := range u.servers {
		_ = s.Close()
	}
	if u.child != nil {
		_ = u.child.Stop()
	}
}

// upstreamConfig is nginx as the upstream. The map's key is the path and the
// credential, so that a connection gets what is its own and nothing else.
func upstreamConfig(dir string, listens []string) string {
	var keys strings.Builder
	for i := range connections {
		for _, prefix := range []string{pathSmall, pathBig} {
			fmt.Fprintf(&keys, "\t\t\"%s Bearer %s\" 1;\n", path(prefix, i), token(i))
		}
	}
	return fmt.Sprintf(`worker_processes 1;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
	access_log off;
	%[8]s
	keepalive_requests 1000000000;
	keepalive_timeout 1h;
	sendfile on;
	tcp_nopush on;
	open_file_cache max=10;
	map_hash_max_size 65536;
	map_hash_bucket_size 256;
	http2_max_concurrent_streams 1024;
	ssl_certificate %[1]s/cert.pem;
	ssl_certificate_key %[1]s/key.pem;
	ssl_protocols TLSv1.2 TLSv1.3;
	map $http_authorization $fixed {
		default 0;
		"Bearer %[2]s" 1;
	}
	map "$uri $http_authorization" $mine {
		default $fixed;
%[3]s	}
	server {
		%[4]s
		default_type text/plain;
		location %[5]s {
			if ($mine = 0) { return 401; }
			return 200 "%[6]s";
		}
		location %[7]s {
			if ($mine = 0) { return 401; }
			root %[1]s;
			rewrite ^ /big.bin break;
		}
	}
}
`, dir, fixedToken, keys.String(), strings.Join(listens, "\n\t\t"), pathSmall, strings.Repeat("x", smallSize), pathBig, temporary(dir))
}

// temporary keeps nginx out of the folders that Debian made for it.
func temporary(dir string) string {
	var lines []string
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		lines = append(lines, kind+"_temp_path "+filepath.Join(dir, kind)+";")
	}
	return strings.Join(lines, "\n\t")
}

// startNginx starts nginx and waits until it listens at addr. It is Stop that
// ends it, here and elsewhere, and not the context: nginx's workers would stay.
func startNginx(ctx context.Context, dir, name, config, addr string) (*child.Child, error) {
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	global := fmt.Sprintf("daemon off; pid %[1]s/%[2]s.pid; error_log stderr error;", dir, name)
	if os.Getuid() == 0 {
		global += " user root;" // the folder is ours alone
	}
	c, err := child.Start(dir, name, exec.CommandContext(context.WithoutCancel(ctx), "nginx", "-p", dir, "-e", "stderr", "-c", file, "-g", global))
	if err != nil {
		return nil, err
	}
	return c, listening(ctx, c, addr)
}

// listening waits for a program and stops it if it does not come.
func listening(ctx context.Context, c *child.Child, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := c.WaitFor(ctx, addr)
	if err != nil {
		_ = c.Stop()
	}
	return err
}

// serve is this program as an upstream, for uploads and events.
func (u *upstreams) serve(ctx context.Context, kind upstreamKind, cert tls.Certificate) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathUpload+"{number}", takeUpload)
	mux.HandleFunc("GET "+pathSSE+"{number}", sendEvents)
	s := &http.Server{Handler: onlyOwn(mux), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	u.servers = append(u.servers, s)
	if kind == plain {
		go func() { _ = s.Serve(l) }()
		return "http://" + l.Addr().String(), nil
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(kind == tlsHTTP1)
	s.Protocols.SetHTTP2(kind == tlsHTTP2)
	go func() { _ = s.ServeTLS(l, "", "") }()
	return "https://" + l.Addr().String(), nil
}

// onlyOwn lets through what has the token of the connection that the path ends
// with.
func onlyOwn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
		got := r.Header.Get("Authorization")
		if err != nil || (got != "Bearer "+token(i) && got != "Bearer "+fixedToken) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func takeUpload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil || n != uploadSize {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = w.Write([]byte(uploadAnswer))
}

func sendEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = w.Write([]byte(sseEvents[:sseFirst]))
	_ = http.NewResponseController(w).Flush()
	select {
	case <-time.After(ssePause):
		_, _ = w.Write([]byte(sseEvents[sseFirst:]))
	case <-r.Context().Done():
	}
}

// makeCertificates writes a CA and a certificate of the upstream's.
func (u *upstreams) makeCertificates() (tls.Certificate, error) {
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: upstreamName},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{upstreamName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for name, text := range map[string][]byte{u.ca(): caPEM, filepath.Join(u.dir, "cert.pem"): certPEM, filepath.Join(u.dir, "key.pem"): keyPEM} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return tls.Certificate{}, err
		}
	}
	u.pool.AppendCertsFromPEM(caPEM)
	return tls.X509KeyPair(certPEM, keyPEM)
}
