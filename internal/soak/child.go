package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// patience is how long something may take that should take no time: long,
// since the machine may be busy.
const patience = 30 * time.Second

// site is the program under test: where it listens, and what it is told.
type site struct {
	Dir           string // of this run; the data directory is Dir/data
	Connect       int    // port of lanyard_connect
	Proxy         int    // port of lanyard_api and lanyard_proxy
	Fake          string // base URL of the fake provider
	Public        int    // port of public_url: the first sidecar's of lanyard_connect
	Tokens        string // base URL of the fake provider's token endpoint
	Database      bool   // the store is a database, which others share
	bin           string
	database      string // its URL
	keyset        string // that seals it; empty for one of the program's own
	apiKey        string
	clientKey     string
	providerProof string // the client secret at the fake provider
}

const (
	clientID = "lanyard-soak"
	// appURL is where browsers return to. Nobody listens there: the redirect
	// itself says everything.
	appURL = "http://localhost:9/callback"
)

var caddyfile = template.Must(template.New("").Parse(`{
	admin off
	grace_period 20s
	servers {
		trusted_proxies static 127.0.0.1/32
	}
	log {
		output file {{.Dir}}/caddy.log {
			roll_disabled
		}
		level INFO
		format json
	}
	lanyard {
		public_url http://localhost:{{.Public}}
		{{if .Database}}store postgres {env.DATABASE_URL}
		keyset {env.LANYARD_KEYSET}
		{{else}}store badger {{.Dir}}/data
		{{end}}		api_key {env.LANYARD_API_KEY}
		client app {env.LANYARD_CLIENT_KEY}
		redirect_url ` + appURL + `
		provider fake {
			issuer {{.Fake}}
			authorize_url {{.Fake}}/authorize
			token_url {{.Tokens}}/token
			revoke_url {{.Fake}}/revoke
			api_url {{.Fake}}/api
			allow_private
		}
		integration fake {
			client_id ` + clientID + `
			client_secret {env.FAKE_CLIENT_SECRET}
			scopes read
		}
	}
}

:{{.Connect}} {
	bind 127.0.0.1
	lanyard_connect
}

:{{.Proxy}} {
	bind 127.0.0.1
	lanyard_api /v1/*
	lanyard_proxy
}
`))

// newSite chooses what a program that is to run in dir needs.
func newSite(ctx context.Context, bin, dir, fake string) (*site, error) {
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("the program under test is not built, run ./xcaddy.sh: %w", err)
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, fmt.Errorf("finding the program under test: %w", err)
	}
	s := &site{
		Dir: dir, Fake: fake, bin: bin,
		apiKey: "api" + rand.Text() + rand.Text(), clientKey: "client" + rand.Text() + rand.Text(), providerProof: rand.Text(),
	}
	return s, s.choosePorts(ctx)
}

// choosePorts chooses ports below those that systems give out by themselves, and
// others than those of other packages' tests, so that nobody gets one while the
// program is down.
func (s *site) choosePorts(ctx context.Context) (err error) {
	next := 28000 + mathrand.IntN(3000) //nolint:gosec // other runs may be looking too
	for _, port := range []*int{&s.Connect, &s.Proxy} {
		if *port, err = freePort(ctx, &next); err != nil {
			return err
		}
	}
	s.Public = s.Connect
	return nil
}

// write writes the program's configuration.
func (s *site) write() error {
	var b bytes.Buffer
	if err := caddyfile.Execute(&b, s); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "Caddyfile"), b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

func freePort(ctx context.Context, next *int) (int, error) {
	for range 100 {
		*next++
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", *next))
		if err == nil {
			_ = l.Close()
			return *next, nil
		}
	}
	return 0, errors.New("no port is free")
}

// child is one run of the program, from its start to its death.
type child struct {
	car    *sidecar // where it runs
	up     bool     // it was ready; guarded by the world's mu
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	err    error         // how it ended; after exited

	mu       sync.Mutex
	killedAt time.Time // zero while nobody means to end it; guarded by mu
}

// start starts the program, which outlives ctx.
func (s *site) start(ctx context.Context) (*child, error) {
	out, err := os.OpenFile(filepath.Join(s.Dir, "output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting the program: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.bin, "run", "--config", filepath.Join(s.Dir, "Caddyfile"), "--adapter", "caddyfile") //nolint:gosec // whom to start is what -bin says
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, out, out
	cmd.SysProcAttr = dieWithParent()
	xdg := filepath.Join(s.Dir, "xdg")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+xdg, "XDG_CONFIG_HOME="+xdg, "HOME="+s.Dir,
		"LANYARD_API_KEY="+s.apiKey, "LANYARD_CLIENT_KEY="+s.clientKey, "FAKE_CLIENT_SECRET="+s.providerProof,
		"DATABASE_URL="+s.database, "LANYARD_KEYSET="+s.keyset)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the program: %w", err)
	}
	c := &child{cmd: cmd, exited: make(chan struct{})}
	go func() { // ends with the program
		c.err = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// kill ends the program with SIGKILL and returns once it is dead. Whoever
// comes second finds it done.
func (c *child) kill() {
	c.meant()
	_ = c.cmd.Process.Kill()
	<-c.exited
}

// byKill reports whether a program that has ended did so by SIGKILL.
func (c *child) byKill() bool {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// stop ends the program with SIGTERM and returns how it ended.
func (c *child) stop() error {
	c.meant()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
		return c.err
	case <-time.After(patience):
		c.kill()
		return errors.New("did not end within its time after SIGTERM")
	}
}

// meant notes that the program is ended from here.
func (c *child) meant() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killedAt.IsZero() {
		c.killedAt = time.Now()
	}
}

// killed returns when the program was ended from here, if it was.
func (c *child) killed() (at time.Time, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killedAt, !c.killedAt.IsZero()
}

// ready waits until the program says that it can serve.
func (c *child) ready(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return fmt.Errorf("asking whether the program is ready: %w", err)
		}
		res, err := client.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(res.Status)
		}
		select {
		case <-c.exited:
			return fmt.Errorf("the program ended at its start: %w", c.err)
		case <-ctx.Done():
			return fmt.Errorf("the program is not ready after %v: %w", patience, err)
		case <-time.After(10 * time.Millisecond): // between two looks at a condition
		}
	}
}

// keygen has the program make a keyset.
func (s *site) keygen(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, s.bin, "lanyard", "keygen").Output() //nolint:gosec // whom to ask is what -bin says
	if err != nil {
		return "", fmt.Errorf("making a keyset: %w", err)
	}
	return string(out), nil
}
