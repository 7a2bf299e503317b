// Package e2e tests the built program as its users meet it: ./caddy runs as a
// child on free ports with a data directory of its own, providers and apps are
// real servers in the test, and every run ends with a search for its secrets
// in all that came out (sweep_test.go).
package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// patience is how long a test waits for a condition: long, since the machine
// may be busy, and never waited out when all is well.
const patience = 30 * time.Second

// site is what a test's Caddyfile is made from.
type site struct {
	Dir      string // of this run; the data directory is Dir/data
	Connect  int    // port of lanyard_connect
	Public   string // public_url
	Proxy    int    // port of lanyard_api and lanyard_proxy
	App      string // base URL of the app
	Fake     string // base URL of the fake provider
	Extra    string // further lines of the lanyard block
	NoApp    bool   // no redirect_url is configured
	Provider string // further lines of the provider fake
	Client   string // further lines of the integration fake
	Sites    string // further sites
	ProxyOpt string // block of lanyard_proxy
	Global   string // further global options
	EachSite string // further lines of both of Lanyard's sites
	Store    string // the store, and lines after it; empty: badger in Dir/data
}

var caddyfile = template.Must(template.New("").Parse(`{
	admin unix/{{.Dir}}/admin.sock
	debug
	grace_period 20s
	{{.Global}}
	log {
		output file {{.Dir}}/caddy.log
		level DEBUG
		format json
	}
	lanyard {
		public_url {{.Public}}
		store {{or .Store (print "badger " .Dir "/data")}}
		api_key {env.LANYARD_API_KEY}
		client app {env.LANYARD_CLIENT_KEY}
		{{if not .NoApp}}redirect_url {{.App}}/callback{{end}}
		provider fake {
			issuer {{.Fake}}
			api_url {{.Fake}}/api
			allow_private
			{{.Provider}}
		}
		integration fake {
			client_id {env.FAKE_CLIENT_ID}
			client_secret {env.FAKE_CLIENT_SECRET}
			scopes read
			{{.Client}}
		}
		{{.Extra}}
	}
}

:{{.Connect}} {
	bind 127.0.0.1
	log {
		format filter {
			wrap json
			fields {
				request>uri query {
					replace code REDACTED
					replace auth_code REDACTED
					replace spapi_oauth_code REDACTED
					replace state REDACTED
					replace completion_code REDACTED
					replace signature REDACTED
					replace access_token REDACTED
				}
				request>headers>Lanyard-Key delete
				resp_headers>Location delete
			}
		}
	}
	{{.EachSite}}
	lanyard_connect
}

:{{.Proxy}} {
	bind 127.0.0.1
	log {
		format filter {
			wrap json
			fields {
				request>headers>Lanyard-Key delete
			}
		}
	}
	{{.EachSite}}
	lanyard_api /v1/*
	lanyard_proxy {{.ProxyOpt}}
}

{{.Sites}}
`))

// world is one run: a provider, an app, and Lanyard between them.
type world struct {
	t         *testing.T
	site      site
	fake      *fakeprovider.Server
	app       *app
	evil      *evil
	apiKey    string
	clientKey string
	secret    string              // the client secret at the fake provider
	secrets   []string            // further ones that may stand nowhere
	bin       string              // the program under test
	environ   []string            // further variables of its environment
	user      *syscall.Credential // whom it runs as; nil: as the test

	cmd    *exec.Cmd
	exited chan error

	mu   sync.Mutex
	seen bytes.Buffer // every answer that came out, for the sweep
	out  outlets
}

// option changes a world before it starts.
type option func(*world, *fakeprovider.Config)

func withLife(access time.Duration) option {
	return func(_ *world, c *fakeprovider.Config) { c.AccessLife = access }
}

// newWorld starts all three and stops them at the end of the test, which ends
// with the sweep.
func newWorld(t *testing.T, opts ...option) *world {
	t.Helper()
	w := &world{
		t: t, apiKey: "apikey" + rand.Text(), clientKey: "clientkey" + rand.Text(), secret: "clientsecret" + rand.Text(),
		site: site{Dir: t.TempDir(), Connect: freePort(t), Proxy: freePort(t)},
		bin:  binary(t),
	}
	w.site.Public = fmt.Sprintf("http://localhost:%d", w.site.Connect)
	w.app, w.evil = newApp(t, &w.out), newEvil(t)
	cfg := fakeprovider.Config{
		ClientID: "lanyard-test", ClientSecret: w.secret, Scopes: []string{"read", "write"},
		RedirectURIs: []string{fmt.Sprintf("http://localhost:%d/callback/fake", w.site.Connect)},
		AccessLife:   time.Hour, RefreshLife: 24 * time.Hour, Rotate: true, RequirePKCE: true,
	}
	for _, o := range opts {
		o(w, &cfg)
	}
	w.fake = fakeprovider.New(cfg)
	srv := httptest.NewServer(w.out.watch(&w.out.toProvider, w.fake))
	t.Cleanup(srv.Close)
	w.fake.SetIssuer(srv.URL)
	w.site.Fake, w.site.App = srv.URL, w.app.url
	w.writeCaddyfile()
	w.start()
	t.Cleanup(func() {
		w.stop()
		w.sweep()
		w.evil.wantNothing(w.t)
	})
	return w
}

// nextPort is where freePort goes on to look. The ports are below those that
// systems give out by themselves, and others than those of other packages' tests,
// so that nobody gets one by chance before the program listens on it, or while it
// is down. Other runs may go on beside this one, so it begins anywhere.
var (
	portMu   sync.Mutex
	nextPort = 20000 + mathrand.IntN(6000) // guarded by portMu
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

func (w *world) writeCaddyfile() {
	w.t.Helper()
	var b bytes.Buffer
	if err := caddyfile.Execute(&b, w.site); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path("Caddyfile"), b.Bytes(), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.site.Dir, name) }

func (w *world) env() []string {
	return slices.Concat(os.Environ(), w.environ, []string{
		"XDG_DATA_HOME=" + w.path("xdg"), "XDG_CONFIG_HOME=" + w.path("xdg"), "HOME=" + w.site.Dir,
		"LANYARD_API_KEY=" + w.apiKey, "LANYARD_CLIENT_KEY=" + w.clientKey, "LANYARD_FAILPOINTS=" + w.path("failpoints"),
		"FAKE_CLIENT_ID=lanyard-test", "FAKE_CLIENT_SECRET=" + w.secret,
	})
}

// start starts ./caddy and waits until it is ready.
func (w *world) start() {
	w.t.Helper()
	w.launch()
	w.ready()
}

// launch starts ./caddy.
func (w *world) launch() {
	w.t.Helper()
	out, err := os.OpenFile(w.path("output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	w.cmd = exec.Command(w.bin, "run", "--config", w.path("Caddyfile"), "--adapter", "caddyfile")
	w.cmd.Env, w.cmd.Dir = w.env(), w.site.Dir
	w.cmd.Stdout, w.cmd.Stderr, w.cmd.SysProcAttr = out, out, dieWithParent()
	if w.user != nil {
		w.cmd.SysProcAttr.Credential = w.user
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(w.cmd, w.exited)
}

// ready waits until ./caddy can serve.
func (w *world) ready() {
	w.t.Helper()
	w.eventually("Lanyard is ready", func() error {
		select {
		case err := <-w.exited:
			w.exited <- err
			log, _ := os.ReadFile(w.path("output.log"))
			w.t.Fatalf("caddy ended at its start: %v\n%s", err, tail(log))
		default:
		}
		res, err := http.Get(w.proxyURL("/v1/health/ready"))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }

// stop ends the child as an orchestrator would, and fails the test if it does
// not end well.
func (w *world) stop() {
	w.t.Helper()
	if w.cmd == nil {
		return
	}
	w.peek()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-w.exited:
		if err != nil {
			log, _ := os.ReadFile(w.path("output.log"))
			w.t.Errorf("caddy ended with %v\n%s", err, tail(log))
		}
	case <-time.After(patience):
		_ = w.cmd.Process.Kill()
		w.t.Error("caddy did not end within its time after SIGTERM")
	}
	w.cmd = nil
}

// kill ends the child with SIGKILL.
func (w *world) kill() {
	_ = w.cmd.Process.Kill()
	<-w.exited
	w.cmd = nil
}

// reload loads the Caddyfile again, as `caddy reload` does, and returns when the
// servers of before take nothing any more. They end somewhat later than the
// command, and what is sent until then on a connection that they keep may be lost.
func (w *world) reload() error {
	w.t.Helper()
	kept := w.keepConnections()
	w.writeCaddyfile()
	cmd := exec.Command(w.bin, "reload", "--config", w.path("Caddyfile"), "--adapter", "caddyfile", "--address", "unix/"+w.path("admin.sock"), "--force")
	cmd.Env, cmd.Dir = w.env(), w.site.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("caddy reload: %w\n%s", err, out)
	}
	for _, conn := range kept {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Errorf("a server of before the reload keeps its connections")
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return nil
}

func (w *world) proxyURL(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", w.site.Proxy, path)
}

// eventually waits until check returns nil.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: still not so after %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks at a condition
	}
}

// note keeps an answer for the sweep.
func (w *world) note(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.Len() < 16<<20 {
		w.seen.Write(b)
	}
}

// ctx returns a context with the test's patience.
func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}
