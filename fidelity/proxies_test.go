package fidelity_test

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	connectionID = "conn_IEQH746YNG7BY3A4ROGUBBBAYN"
	// token is what the upstreams must get.
	token = "upstreamtoken-0123456789"
)

// world is one proxy under test, and the upstreams of the HTTP/1.1 rows.
type world struct {
	proxy string
	// key is what apps send: `Authorization: Bearer KEY`. The proxies put
	// token in its place.
	key string
	// lane leads to a plain HTTP/1.1 upstream that works on bytes.
	lane
	// markedVersion reports whether the marks are about this version.
	markedVersion bool

	t   *testing.T
	bin string
	dir string

	sites sites  // the upstreams of the rows on streams
	bench *bench // those of the rows on odd upstreams

	// tls returns the upstreams with TLS, which are started on first use.
	tls func() (*secure, error)

	mu     sync.Mutex
	fronts map[spec]*front // guarded by mu
}

// spec is an upstream, and how the proxy is to speak to it.
type spec struct {
	// URL of the upstream: scheme, host and port.
	URL string
	// H2 is HTTP/2 to it: h2c where the URL is plain. nginx has it for gRPC only.
	H2 bool
	// GRPC has nginx use grpc_pass.
	GRPC bool
	// CA is the PEM file of the upstream's certificate.
	CA string
	// Life is that of the token at its import. 0: for ever. For Lanyard only.
	Life time.Duration
	// TokenURL is where Lanyard refreshes the token. Empty: nowhere.
	TokenURL string
	// HeadTimeout is how long the proxy waits for the head of an answer. 0: for
	// minutes.
	HeadTimeout time.Duration
	// Users is how many further connections Lanyard has: userID and userToken.
	Users int
}

// front is a proxy that runs before an upstream.
type front struct {
	// URL and Addr are where it speaks HTTP/1.1.
	URL, Addr string
	// H2C is where it speaks HTTP/2 with prior knowledge, without TLS.
	H2C string

	cmd *exec.Cmd
}

// newWorld prepares a proxy, or skips the test where it can't be had. It is
// stopped at the end of the test.
func newWorld(t *testing.T, proxy string) *world {
	t.Helper()
	w := &world{
		proxy: proxy, t: t, key: "clientkey" + rand.Text() + rand.Text(), dir: t.TempDir(),
		markedVersion: true, fronts: map[spec]*front{},
	}
	switch proxy {
	case "lanyard":
		w.bin = lanyardBinary(t)
		w.key += "." + connectionID
	case "caddy":
		w.bin = stockCaddy(t, w.dir)
	case "nginx":
		w.bin, w.markedVersion = nginxBinary(t)
	}
	w.tls = sync.OnceValues(func() (*secure, error) { return startSecure(t, w) })
	w.lane = lane{w: w, up: newUpstream(t, nil)}
	w.bench = newBench(w)
	if _, err := w.via(w.up.spec); err != nil {
		t.Fatal(err)
	}
	return w
}

// lanyardBinary returns $LANYARD_BIN, or ./caddy at the top of the repository,
// which must not be older than what it is built from.
func lanyardBinary(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("LANYARD_BIN"); bin != "" {
		return bin
	}
	bin, err := filepath.Abs("../caddy")
	if err != nil {
		t.Fatal(err)
	}
	built, err := os.Stat(bin)
	if err != nil {
		t.Fatalf("the program under test is not built: run ./xcaddy.sh, or ./test.sh for everything (%v)", err)
	}
	const files = `{{if and .Module .Module.Main}}{{range .GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$.Dir}}/{{.}}
{{end}}{{.Module.GoMod}}{{end}}`
	out, err := exec.Command("go", "list", "-deps", "-tags", "nobadger,nomysql,nopgx", "-f", files, "../cmd/lanyard").Output()
	if err != nil {
		t.Fatalf("what the program under test is built from: %v", err)
	}
	for file := range strings.FieldsSeq(string(out)) {
		if info, err := os.Stat(file); err != nil || built.ModTime().Before(info.ModTime()) {
			t.Fatalf("the program under test is older than %s: run ./xcaddy.sh, or ./test.sh for everything", file)
		}
	}
	return bin
}

// stockCaddy builds the Caddy that Lanyard is a module of, without Lanyard.
func stockCaddy(t *testing.T, dir string) string {
	t.Helper()
	if bin := os.Getenv("CADDY_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(dir, "caddy")
	// As ./caddy is built, so that most of it is compiled already.
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "nobadger,nomysql,nopgx", "-ldflags", "-s -w", "-o", bin, "github.com/caddyserver/caddy/v2/cmd/caddy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("stock Caddy can't be built: %v\n%s", err, out)
	}
	return bin
}

// nginxBinary returns nginx, and whether it is of the version with the marks.
func nginxBinary(t *testing.T) (bin string, marked bool) {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		bin = "/usr/sbin/nginx"
		if _, err := os.Stat(bin); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("nginx is not installed")
			}
			t.Skip("nginx is not installed")
		}
	}
	out, err := exec.Command(bin, "-v").CombinedOutput()
	if err != nil {
		t.Skipf("nginx: %v", err)
	}
	marked = strings.Contains(string(out), "nginx/"+nginxVersion+".")
	if !marked {
		t.Logf("the marks are of nginx %s; this is %s", nginxVersion, out)
	}
	return bin, marked
}

// authorize puts what apps send on a request.
func (w *world) authorize(h http.Header) { h.Set("Authorization", "Bearer "+w.key) }

// via returns the proxy before an upstream, and starts it where it is not
// running yet.
func (w *world) via(s spec) (*front, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.fronts[s]; f != nil {
		return f, nil
	}
	f, err := w.start(s)
	if err != nil {
		return nil, broken("starting %s: %w", w.proxy, err)
	}
	w.fronts[s] = f
	return f, nil
}

// start starts the proxy before an upstream.
func (w *world) start(s spec) (*front, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(w.dir, "front") //nolint:usetesting // within the test's own
	if err != nil {
		return nil, err
	}
	cfg := settings{spec: s, Dir: dir, Host: u.Host, Port: freePort(w.t), Port2: freePort(w.t), Key: w.key, Token: token}
	if w.proxy == "lanyard" {
		cfg.Key, _, _ = strings.Cut(w.key, ".")
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(configFor(w.proxy, cfg)), 0o600); err != nil {
		return nil, err
	}
	args := []string{"run", "--config", file, "--adapter", "caddyfile"}
	if w.proxy == "nginx" {
		args = []string{"-p", dir, "-c", file, "-e", filepath.Join(dir, "error.log")}
	}
	f := &front{Addr: fmt.Sprintf("127.0.0.1:%d", cfg.Port), cmd: exec.Command(w.bin, args...)}
	f.URL, f.H2C = "http://"+f.Addr, "http://"+f.Addr
	if w.proxy == "nginx" {
		f.H2C = fmt.Sprintf("http://127.0.0.1:%d", cfg.Port2)
	}
	if err := w.launch(f, dir); err != nil {
		return nil, err
	}
	if w.proxy == "lanyard" {
		return f, w.connect(f, dir, cfg)
	}
	return f, nil
}

// launch starts the program of f, and waits until it listens.
func (w *world) launch(f *front, dir string) error {
	log, err := os.Create(filepath.Join(dir, "output.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	f.cmd.Stdout, f.cmd.Stderr, f.cmd.SysProcAttr = log, log, dieWithParent()
	f.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	f.cmd.Dir = dir
	if err := f.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = f.cmd.Wait()
		close(exited)
	}()
	w.t.Cleanup(func() {
		_ = f.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			_ = f.cmd.Process.Kill()
			<-exited
		}
	})
	addrs := []string{f.Addr, strings.TrimPrefix(f.H2C, "http://")}
	for deadline := time.Now().Add(30 * time.Second); len(addrs) > 0; {
		conn, err := net.Dial("tcp", addrs[0])
		if err == nil {
			_ = conn.Close()
			addrs = addrs[1:]
			continue
		}
		select {
		case <-exited:
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it ended: %s", said[max(0, len(said)-3000):])
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.New("it does not listen")
		}
	}
	return nil
}

// connect imports the connection.
func (w *world) connect(f *front, dir string, cfg settings) error {
	record := fmt.Sprintf(`{"id": %q, "integration": "fidelity", "user_id": "u", "access_token": %q`, connectionID, token)
	if cfg.Life != 0 {
		record += fmt.Sprintf(`, "expires_at": %q`, time.Now().Add(cfg.Life).UTC().Format(time.RFC3339))
	}
	if cfg.TokenURL != "" {
		record += `, "refresh_token": "refreshtoken-0123456789"`
	}
	record += "}\n"
	for i := range cfg.Users {
		record += fmt.Sprintf(`{"id": %q, "integration": "fidelity", "user_id": "u%d", "access_token": %q}`, userID(i), i, userToken(i)) + "\n"
	}
	file := filepath.Join(dir, "import.jsonl")
	if err := os.WriteFile(file, []byte(record), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(w.bin, "lanyard", "import", file, "--no-verify", "--url", fmt.Sprintf("http://127.0.0.1:%d", cfg.Port2))
	cmd.Env = append(f.cmd.Env, "LANYARD_API_KEY="+apiKey)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import: %w: %s", err, out)
	}
	return nil
}

// userID names the connection of one of a front's Users, to whom the upstream
// knows its token by userToken.
func userID(i int) string {
	return fmt.Sprintf("conn_IEQH746YNG7BY3A4ROGUBB%c%c%c%c", letter(i>>12), letter(i>>8), letter(i>>4), letter(i))
}

func letter(i int) byte { return "ABCDEFGHIJKLMNOP"[i&15] }

func userToken(i int) string { return fmt.Sprintf("usertoken-%04d-0123456789", i) }

const apiKey = "apikey-apikey-apikey-apikey-apikey-apikey"

// nextPort is where freePort goes on to look. The ports are below those that
// systems give out by themselves, and others than those of other packages' tests,
// so that nobody gets one by chance before the program listens on it. Other runs
// may go on beside this one, so it begins anywhere.
var (
	portMu   sync.Mutex
	nextPort = 15000 + mathrand.IntN(4000) // guarded by portMu
)

func freePort(t *testing.T) int {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for range 100 {
		nextPort++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err == nil {
			_ = l.Close()
			return nextPort
		}
	}
	t.Fatal("no port is free")
	return 0
}

// resetMemory has memory begin anew, and returns what the proxy has now. Where
// that can't be done, it returns what memory does.
func (f *front) resetMemory() int {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", f.cmd.Process.Pid), []byte("5"), 0) // man 5 proc_pid_clear_refs
	return f.memory()
}

// memory returns the most memory that the proxy ever had, in bytes, or 0 where
// that can't be known.
func (f *front) memory() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kb int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}

// caFile writes the certificate of a TLS test server to a file.
func (w *world) caFile(srv *httptest.Server) (string, error) {
	f, err := os.CreateTemp(w.dir, "ca*.pem") //nolint:usetesting // within the test's own
	if err != nil {
		return "", err
	}
	err = pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return f.Name(), errors.Join(err, f.Close())
}
