package main

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"text/template"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

const (
	apiKey    = "0123456789012345678901234567890123456789api"
	clientKey = "0123456789012345678901234567890123456789app"
	// connections are how many are imported; streams take turns with them.
	connections = 1000
	// grace is the configured grace_period: short, so that a case sees what
	// goes on after it.
	grace = 3 * time.Second
)

// kind is a program that is measured.
type kind struct {
	name   string
	bin    string
	config *template.Template
	// lanyard is set for what has connections to be imported.
	lanyard bool
}

const globals = `	admin {{.Admin}}
	grace_period {{.Grace}}
	skip_install_trust
	servers {
		protocols h1 h2 h2c
	}
`

var (
	lanyardConfig = template.Must(template.New("").Parse("{\n" + globals + `	lanyard {
		public_url http://localhost:9081
		redirect_url http://localhost:9083/callback
		store badger {{.Dir}}/store
		api_key ` + apiKey + `
		client app ` + clientKey + `
		provider acme {
			authorize_url http://{{.Upstream}}/authorize
			token_url http://{{.Upstream}}/token
			api_url http://{{.Upstream}}
			allow_private
		}
		integration acme {
			client_id x
			client_secret yyyyyyyy
		}
	}
}
http://{{.Listen}} {
	bind {{.Host}}
	lanyard_api /v1/*
	lanyard_proxy
}
`))
	stockConfig = template.Must(template.New("").Parse("{\n" + globals + `}
http://{{.Listen}} {
	bind {{.Host}}
	reverse_proxy {{.Upstream}} {
		header_up Authorization "Bearer {{.Token}}"
	}
}
`))
)

// proxy is a program under test, with an upstream of its own.
type proxy struct {
	kind
	listen, admin string
	config        []byte
	dir           string
	program       *child.Child
	upstream      *child.Child
	upstreamAddr  string
	client        *http.Client // for what is not measured: a connection for each call
}

// startProxy starts both. Each pair has an address of loopback of its own, so
// that the connections which one leaves behind do not take the ports of the
// next.
func startProxy(ctx context.Context, k kind, dir, host string) (_ *proxy, err error) {
	admin, err := child.FreeAddr() // of 127.0.0.1, which the admin API takes as its own name
	if err != nil {
		return nil, err
	}
	p := &proxy{
		kind: k, listen: host + ":9180", admin: admin, upstreamAddr: host + ":9170", dir: dir,
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if p.upstream, err = child.Start(dir, "upstream", exec.Command(self, "-upstream", p.upstreamAddr)); err != nil {
		return nil, err
	}
	var config bytes.Buffer
	if err := k.config.Execute(&config, map[string]any{
		"Admin": p.admin, "Grace": grace, "Dir": dir, "Upstream": p.upstreamAddr,
		"Listen": p.listen, "Host": host, "Token": token(0),
	}); err != nil {
		return nil, err
	}
	p.config = config.Bytes()
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, p.config, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(k.bin, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if p.program, err = child.Start(dir, "proxy", cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := errors.Join(p.upstream.WaitFor(ctx, p.upstreamAddr), p.program.WaitFor(ctx, p.listen)); err != nil {
		return nil, err
	}
	if k.lanyard {
		return p, p.importConnections(ctx)
	}
	return p, nil
}

func (p *proxy) stop() error {
	var errs []error
	for _, c := range []*child.Child{p.program, p.upstream} {
		if c != nil {
			errs = append(errs, c.Stop())
		}
	}
	return errors.Join(errs...)
}

// connectionID returns the ID of a connection, in the form that Lanyard's have.
func connectionID(n int) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return "conn_" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])
}

func (p *proxy) importConnections(ctx context.Context) error {
	var lines bytes.Buffer
	for n := range connections {
		line, err := json.Marshal(map[string]string{
			"id": connectionID(n), "integration": "acme", "user_id": "u" + strconv.Itoa(n), "access_token": token(n),
		})
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	file := filepath.Join(p.dir, "connections.jsonl")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.bin, "lanyard", "import", file, "--no-verify", "--url", "http://"+p.listen)
	cmd.Env = append(os.Environ(), "LANYARD_API_KEY="+apiKey, "HOME="+p.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing connections: %w: %s", err, out)
	}
	return nil
}

// request returns a request to the upstream by way of the proxy. The
// connection depends on the number of the stream.
func (p *proxy) request(ctx context.Context, path, query string, n int) *http.Request {
	c := 0
	if p.lanyard {
		c = n % connections
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		fmt.Sprintf("http://%s%s?c=%d&%s", p.listen, path, c, query), nil)
	if err != nil {
		panic(err) // the address is ours
	}
	req.Header.Set("Authorization", "Bearer "+clientKey+"."+connectionID(c))
	return req
}

// reload loads the same configuration anew, as `caddy reload --force` does.
func (p *proxy) reload(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.admin+"/load", bytes.NewReader(p.config))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	_, err = p.get(req)
	return err
}

func (p *proxy) get(req *http.Request) (string, error) {
	res, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: HTTP %d: %.200s", req.URL.Path, res.StatusCode, body)
	}
	return string(body), err
}

func (p *proxy) text(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+url, nil)
	if err != nil {
		return "", err
	}
	return p.get(req)
}

// open returns how many requests are under way at the upstream.
func (p *proxy) open(ctx context.Context) (int, error) {
	text, err := p.text(ctx, p.upstreamAddr+"/open")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// usage is what the proxy holds.
type usage struct {
	child.Memory
	goroutines int
	live       int64 // bytes that are in use after a collection: heap and stacks
}

var (
	goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)
	heapAlloc      = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)`)
	stackInuse     = regexp.MustCompile(`(?m)^# Stack = (\d+)`)
)

// usage reads what the system says first, and collects after it.
func (p *proxy) usage(ctx context.Context) (u usage, err error) {
	if u.Memory, err = p.program.Memory(); err != nil {
		return u, err
	}
	goroutines, err := p.text(ctx, p.admin+"/debug/pprof/goroutine?debug=1")
	if err != nil {
		return u, err
	}
	heap, err := p.text(ctx, p.admin+"/debug/pprof/heap?debug=1&gc=1")
	if err != nil {
		return u, err
	}
	u.goroutines = int(find(goroutineTotal, goroutines))
	u.live = find(heapAlloc, heap) + find(stackInuse, heap)
	return u, nil
}

func find(re *regexp.Regexp, text string) int64 {
	m := re.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	return n
}
