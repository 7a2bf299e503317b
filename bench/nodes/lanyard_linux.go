package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

const (
	apiKey    = "0123456789012345678901234567890123456789api"
	clientKey = "0123456789012345678901234567890123456789app"
)

// What the connections are for: calls, being deleted, and being renewed.
const (
	called    = 10_000
	deletions = 20
	refreshed = 2_000
)

// tokenFill makes an access and a refresh token of 1,000 bytes together.
var tokenFill = strings.Repeat("t", 465)

// A connection is one that was imported.
type connection struct {
	id     string
	number int
	token  string
}

// path is where the API answers to its token alone.
func (c connection) path() string { return fmt.Sprintf("/%05d", c.number) }

func newSamples(n int) []connection {
	samples := make([]connection, n)
	for i := range samples {
		samples[i] = connection{id: "conn_" + rand.Text(), number: i, token: fmt.Sprintf("%05d-%s", i, tokenFill)}
	}
	return samples
}

func (b *bench) called() []connection    { return b.samples[:called] }
func (b *bench) refreshed() []connection { return b.samples[len(b.samples)-refreshed:] }

// A lanyard is one that runs.
type lanyard struct {
	child      *child.Child
	proxy, api string // addresses
}

func (b *bench) keysetFile() string { return filepath.Join(b.dir, "keyset.json") }

// fill makes the keyset, and puts the connections into the database by a
// Lanyard that is stopped afterwards.
func (b *bench) fill(ctx context.Context) error {
	keyset, err := exec.CommandContext(ctx, b.lanyard, "lanyard", "keygen").Output()
	if err != nil {
		return fmt.Errorf("caddy lanyard keygen: %w", err)
	}
	if err := os.WriteFile(b.keysetFile(), keyset, 0o600); err != nil {
		return err
	}
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for i, c := range b.samples {
		line := map[string]any{"id": c.id, "integration": "acme", "user_id": fmt.Sprintf("u%d", i), "access_token": c.token}
		if i >= len(b.samples)-refreshed {
			line["refresh_token"] = "rt-" + c.token
			line["expires_at"] = time.Now().Add(time.Hour).Format(time.RFC3339)
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	file := filepath.Join(b.dir, "connections.jsonl")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		return err
	}
	running, err := b.start(ctx, 1)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.lanyard, "lanyard", "import", file, "--no-verify", "--url", "http://"+running[0].api)
	cmd.Env = append(os.Environ(), "LANYARD_API_KEY="+apiKey, "XDG_DATA_HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("caddy lanyard import: %w: %s", err, out[max(0, len(out)-2000):])
	}
	return errors.Join(err, stopAll(running))
}

// start starts n Lanyards on the database and returns once all serve.
func (b *bench) start(ctx context.Context, n int) (running []*lanyard, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer func() {
		if err != nil {
			err = errors.Join(err, stopAll(running))
		}
	}()
	for i := range n {
		l := &lanyard{}
		if l.proxy, err = child.FreeAddr(); err != nil {
			return running, err
		}
		if l.api, err = child.FreeAddr(); err != nil {
			return running, err
		}
		name := fmt.Sprintf("lanyard-%d", i+1)
		file := filepath.Join(b.dir, name+".caddyfile")
		if err := os.WriteFile(file, []byte(b.config(l)), 0o600); err != nil {
			return running, err
		}
		cmd := exec.CommandContext(context.WithoutCancel(ctx), b.lanyard, "run", "--adapter", "caddyfile", "--config", file)
		cmd.Env = append(os.Environ(), "DATABASE_URL="+b.database.url, "XDG_DATA_HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir)
		if l.child, err = child.Start(b.dir, name, cmd); err != nil {
			return running, err
		}
		running = append(running, l)
	}
	for _, l := range running {
		if err := l.ready(ctx); err != nil {
			return running, err
		}
	}
	return running, nil
}

// ready waits until it serves.
func (l *lanyard) ready(ctx context.Context) error {
	if err := l.child.WaitFor(ctx, l.api); err != nil {
		return err
	}
	for {
		status, err := send(ctx, http.MethodGet, "http://"+l.api+"/v1/health/ready", "", nil)
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %d, %w", l.child.Name, status, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func stopAll(running []*lanyard) error {
	errs := make([]error, len(running))
	var wg sync.WaitGroup
	for i, l := range running {
		wg.Go(func() { errs[i] = l.child.Stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// config is a Lanyard's. There is no pause between two of its refreshes: what is
// measured is the machine.
func (b *bench) config(l *lanyard) string {
	return fmt.Sprintf(`{
	admin off
	skip_install_trust
	lanyard {
		public_url http://localhost:1
		redirect_url http://localhost:2/callback
		store postgres {env.DATABASE_URL}
		keyset {file.%[1]s}
		api_key %[2]s
		client app %[3]s
		provider acme {
			authorize_url %[4]s/authorize
			token_url %[4]s/token
			api_url %[4]s
			allow_private
			refresh {
				interval 0s
			}
		}
		integration acme {
			client_id x
			client_secret yyyyyyyy
		}
	}
}
http://%[5]s {
	bind 127.0.0.1
	lanyard_proxy
}
http://%[6]s {
	bind 127.0.0.1
	lanyard_api
}
`, b.keysetFile(), apiKey, clientKey, b.provider.url, l.proxy, l.api)
}
