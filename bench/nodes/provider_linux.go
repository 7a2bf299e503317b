package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

// answerSize is the size of the API's answers.
const answerSize = 999

// A provider is nginx, as a token endpoint that gives new tokens to everybody,
// and as an API that answers only to the token of the connection that is asked
// for.
type provider struct {
	child *child.Child
	url   string
}

func startProvider(ctx context.Context, dir string, samples []connection) (*provider, error) {
	addr, err := child.FreeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "provider.conf")
	if err := os.WriteFile(file, []byte(providerConfig(dir, addr, samples)), 0o600); err != nil {
		return nil, err
	}
	global := fmt.Sprintf("daemon off; pid %s/provider.pid; error_log stderr error;", dir)
	if os.Getuid() == 0 {
		global += " user root;" // the folder is ours alone
	}
	p := &provider{url: "http://" + addr}
	p.child, err = child.Start(dir, "provider", exec.CommandContext(context.WithoutCancel(ctx), "nginx", "-p", dir, "-e", "stderr", "-c", file, "-g", global))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := p.child.WaitFor(ctx, addr); err != nil {
		_ = p.child.Stop()
		return nil, err
	}
	return p, nil
}

func providerConfig(dir, addr string, samples []connection) string {
	var keys, temporary strings.Builder
	for _, c := range samples {
		fmt.Fprintf(&keys, "\t\t\"%s Bearer %s\" 1;\n", c.path(), c.token)
	}
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s;\n\t", kind, filepath.Join(dir, kind))
	}
	return fmt.Sprintf(`worker_processes 1;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
	access_log off;
	%[1]s
	keepalive_requests 1000000000;
	keepalive_timeout 1h;
	map_hash_max_size 65536;
	map_hash_bucket_size 1024;
	map "$uri $http_authorization" $mine {
		default 0;
%[2]s	}
	server {
		listen %[3]s backlog=4096;
		location / {
			default_type text/plain;
			if ($mine = 0) { return 401; }
			return 200 "%[4]s";
		}
		location = /token {
			default_type application/json;
			return 200 '{"access_token":"at-${request_id}%[5]s","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-${request_id}%[5]s"}';
		}
	}
}
`, temporary.String(), keys.String(), addr, strings.Repeat("x", answerSize), tokenFill)
}
