package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/lanyard-proxy/lanyard/bench/internal/build"
	"github.com/lanyard-proxy/lanyard/bench/internal/machine"
)

// A tool is a program that is started.
type tool struct {
	name, debian string // of the program, and of its package
	needed       func(j *job) bool
}

var tools = []tool{
	{"nginx", "nginx-light", func(*job) bool { return true }},
	{"wrk", "wrk", func(j *job) bool { return !j.h2c && !j.own() }},
	{"h2load", "nghttp2-client", func(j *job) bool { return j.h2c }},
	{"haproxy", "haproxy", func(j *job) bool { return slices.Contains(j.programs, programHAProxy) }},
}

// needTools installs what is missing where it runs as root on Debian.
func needTools(ctx context.Context, chosen []*job) error {
	missing := func() (packages []string) {
		for _, t := range tools {
			if _, err := exec.LookPath(t.name); err != nil && slices.ContainsFunc(chosen, t.needed) {
				packages = append(packages, t.debian)
			}
		}
		return packages
	}
	packages := missing()
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err == nil && os.Getuid() == 0 {
		progress("installing %s", strings.Join(packages, " "))
		_ = exec.CommandContext(ctx, "apt-get", "update", "-q").Run()
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-qy", "--no-install-recommends"}, packages...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stderr = os.Stderr
		_ = cmd.Run()
		packages = missing()
	}
	if len(packages) > 0 {
		return fmt.Errorf("to be installed first (Debian's names): %s", strings.Join(packages, " "))
	}
	return nil
}

// binaries returns Lanyard, which is given or built, and stock Caddy.
func binaries(ctx context.Context, dir, given string) (lanyard, caddy string, err error) {
	if caddy, err = build.Stock(ctx, dir); err != nil {
		return "", "", err
	}
	if given != "" {
		lanyard, err = filepath.Abs(given)
	} else {
		lanyard, err = build.Lanyard(ctx)
	}
	return lanyard, caddy, err
}

// output returns what a command printed, without the line's end.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(out) + stderr.String()), nil
}

// prove has each program get what is only for the right token, for each
// connection that the job uses, and makes sure that a wrong one gets nothing.
func (l *load) prove(ctx context.Context, j *job, running []*program) error {
	for _, p := range running {
		if err := l.proveRefused(ctx, j, p); err != nil {
			return err
		}
		if err := l.proveAll(ctx, j, p); err != nil {
			return fmt.Errorf("%s does not attach the right token: %w", p.name, err)
		}
	}
	return nil
}

// proveAll asks with several requests at a time.
func (l *load) proveAll(ctx context.Context, j *job, p *program) error {
	prefix, count := j.prefix, l.connections
	switch prefix {
	case pathBig: // the same token, and less to send
		prefix = pathSmall
	case pathUpload:
		count = uploadConnections
	case pathSSE:
		count = sseConnections
	}
	errs := make([]error, fewParallel)
	var wg sync.WaitGroup
	for n := range fewParallel {
		wg.Go(func() {
			for i := n; i < count && errs[n] == nil; i += fewParallel {
				_, errs[n] = l.do(ctx, p, prefix, i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// proveRefused asks a program that knows each connection for what is another
// one's.
func (l *load) proveRefused(ctx context.Context, j *job, p *program) error {
	if p.name == programStock || p.name == programTuned {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path(j.prefix, 1), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", p.auths[2])
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("%s: the upstream took the token of another connection: %s", p.name, resp.Status)
	}
	return nil
}

// addMemory notes what a program has in memory, in MB. The direct way is none.
func (f figures) addMemory(p *program, rss, anonymous metric) error {
	if p.child == nil {
		return nil
	}
	m, err := p.child.Memory()
	f[rss], f[anonymous] = float64(m.RSS)/1e6, float64(m.Anon)/1e6
	return err
}

// describe returns the line that says where and with what this was measured.
func describe(ctx context.Context, o options) (string, error) {
	caddy, err := output(ctx, "go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2")
	if err != nil {
		return "", err
	}
	nginx, err := output(ctx, "nginx", "-v")
	if err != nil {
		return "", err
	}
	_, nginx, _ = strings.Cut(nginx, "nginx/")
	line := fmt.Sprintf("%s · Caddy %s · nginx %s", machine.Describe(ctx), caddy, nginx)
	if o.lanyard != "" {
		line += " · Lanyard given by -lanyard"
	}
	return line, nil
}
