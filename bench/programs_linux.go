package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

const (
	apiKey    = "0123456789012345678901234567890123456789api"
	clientKey = "0123456789012345678901234567890123456789app"
	// startWait is for what programs do right after their start.
	startWait = time.Second
)

// A program is one that runs now, or the direct way to the upstream.
type program struct {
	name  string
	url   string // where the client goes
	auths []string
	child *child.Child // nil: the direct way
}

// programs starts what is measured.
type programs struct {
	dir            string
	lanyard, caddy string // the binaries
	ca             string
	// keyed and own are the Authorization of each connection: as a client of
	// Lanyard's sends it, and as the upstream wants it.
	keyed, own []string
	apiAddr    string // of Lanyard's API
}

func newPrograms(dir, lanyard, caddy, ca string) (*programs, error) {
	p := &programs{dir: dir, lanyard: lanyard, caddy: caddy, ca: ca}
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for i := range connections {
		id := "conn_" + rand.Text()
		p.keyed = append(p.keyed, "Bearer "+clientKey+"."+id)
		p.own = append(p.own, "Bearer "+token(i))
		err := enc.Encode(map[string]string{"id": id, "integration": "acme", "user_id": fmt.Sprintf("u%d", i), "access_token": token(i)})
		if err != nil {
			return nil, err
		}
	}
	return p, os.WriteFile(p.importFile(), lines.Bytes(), 0o600)
}

func (p *programs) importFile() string { return filepath.Join(p.dir, "connections.jsonl") }

// fill puts the connections into Lanyard's store.
func (p *programs) fill(ctx context.Context, upstream string) error {
	running, err := p.start(ctx, programLanyard, upstream, false)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.lanyard, "lanyard", "import", p.importFile(), "--no-verify", "--url", "http://"+p.apiAddr)
	cmd.Env = append(os.Environ(), "LANYARD_API_KEY="+apiKey, "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		_ = running.child.Stop()
		return fmt.Errorf("caddy lanyard import: %w: %s", err, out)
	}
	return running.child.Stop()
}

// A place is where a proxy stands.
type place struct {
	addr     string
	upstream string // a URL
	h2c      bool   // clients speak HTTP/2
}

// start starts the program of that name in front of an upstream.
func (p *programs) start(ctx context.Context, name, upstream string, h2c bool) (*program, error) {
	if name == programDirect {
		return &program{name: name, url: upstream, auths: p.own}, nil
	}
	addr, err := child.FreeAddr()
	if err != nil {
		return nil, err
	}
	at := place{addr, upstream, h2c}
	running := &program{name: name, url: "http://" + addr, auths: p.keyed}
	switch name {
	case programLanyard:
		if p.apiAddr, err = child.FreeAddr(); err != nil {
			return nil, err
		}
		running.child, err = p.startCaddy(ctx, "lanyard", p.lanyard, p.lanyardConfig(at), addr)
	case programStock:
		running.child, err = p.startCaddy(ctx, "stock", p.caddy, p.stockConfig(at, ""), addr)
	case programTuned:
		running.child, err = p.startCaddy(ctx, "tuned", p.caddy, p.stockConfig(at, "keepalive_idle_conns_per_host 1024"), addr)
	case programNginx:
		running.child, err = startNginx(ctx, p.dir, "nginx", p.nginxConfig(at), addr)
	case programHAProxy:
		running.child, err = p.startHAProxy(ctx, at)
	}
	if err != nil {
		return nil, err
	}
	return running, nil
}

func (p *programs) startCaddy(ctx context.Context, name, bin, config, addr string) (*child.Child, error) {
	file := filepath.Join(p.dir, name+".caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), bin, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	c, err := child.Start(p.dir, name, cmd)
	if err != nil {
		return nil, err
	}
	return c, listening(ctx, c, addr)
}

// protocols is the global option with which Caddy takes HTTP/2 without TLS.
func (at place) protocols() string {
	if !at.h2c {
		return ""
	}
	return "servers {\n\t\tprotocols h1 h2c\n\t}"
}

// trust is the option of Caddy's HTTP transport for the upstream's CA.
func (p *programs) trust(at place) string {
	if strings.HasPrefix(at.upstream, "http:") {
		return ""
	}
	return "tls_trust_pool file " + p.ca
}

func (p *programs) lanyardConfig(at place) string {
	return fmt.Sprintf(`{
	admin off
	skip_install_trust
	%[8]s
	lanyard {
		public_url http://localhost:1
		redirect_url http://localhost:2/callback
		store badger %[1]s/store
		api_key %[2]s
		client app %[3]s
		provider acme {
			authorize_url http://127.0.0.1:1/authorize
			token_url http://127.0.0.1:1/token
			api_url %[4]s
			allow_private
		}
		integration acme {
			client_id x
			client_secret yyyyyyyy
		}
	}
}
http://%[5]s {
	bind 127.0.0.1
	lanyard_proxy {
		transport {
			%[6]s
		}
	}
}
http://%[7]s {
	bind 127.0.0.1
	lanyard_api
}
`, p.dir, apiKey, clientKey, at.upstream, at.addr, p.trust(at), p.apiAddr, at.protocols())
}

func (p *programs) stockConfig(at place, option string) string {
	return fmt.Sprintf(`{
	admin off
	skip_install_trust
	%s
}
http://%s {
	bind 127.0.0.1
	reverse_proxy %s {
		header_up Authorization "Bearer %s"
		transport http {
			%s
			%s
		}
	}
}
`, at.protocols(), at.addr, at.upstream, fixedToken, p.trust(at), option)
}

func (p *programs) nginxConfig(at place) string {
	var tokens strings.Builder
	for i, auth := range p.keyed {
		fmt.Fprintf(&tokens, "\t\t%q %q;\n", auth, p.own[i])
	}
	scheme, host, _ := strings.Cut(at.upstream, "://")
	h2 := "" // before nginx 1.25 a port without TLS speaks either, never both
	if at.h2c {
		h2 = " http2"
	}
	return fmt.Sprintf(`worker_processes auto;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_max_body_size 0;
	%[1]s
	map_hash_max_size 65536;
	map_hash_bucket_size 256;
	map $http_authorization $token {
		default "";
%[2]s	}
	upstream api {
		server %[3]s;
		keepalive 1024;
		keepalive_requests 1000000000;
	}
	server {
		listen %[4]s%[5]s backlog=4096;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_set_header Authorization $token;
		proxy_request_buffering off;
		proxy_ssl_protocols TLSv1.2 TLSv1.3;
		proxy_ssl_verify on;
		proxy_ssl_trusted_certificate %[7]s;
		proxy_ssl_name %[8]s;
		location / {
			proxy_pass %[6]s://api;
		}
		location %[9]s {
			proxy_pass %[6]s://api;
			proxy_buffering off;
		}
	}
}
`, temporary(p.dir), tokens.String(), host, at.addr, h2, scheme, p.ca, upstreamName, pathSSE)
}
