package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/bench/internal/child"
)

const programHAProxy = "haproxy"

// peers are the programs that are measured only if asked for.
var peers = []string{programHAProxy}

// withPeers returns the jobs with further programs, whose names have commas in
// between.
func withPeers(jobs []*job, names string) ([]*job, error) {
	if names == "" {
		return jobs, nil
	}
	var more []*job
	for _, j := range jobs {
		own := *j
		own.programs = slices.Clone(j.programs)
		for name := range strings.SplitSeq(names, ",") {
			if !slices.Contains(peers, name) {
				return nil, fmt.Errorf("-peers: %q is none of %s", name, strings.Join(peers, ", "))
			}
			own.programs = append(own.programs, name)
		}
		more = append(more, &own)
	}
	return more, nil
}

func (p *programs) startHAProxy(ctx context.Context, at place) (*child.Child, error) {
	var tokens strings.Builder
	for i, auth := range p.keyed {
		_, key, _ := strings.Cut(auth, " ")
		fmt.Fprintf(&tokens, "%s %s\n", key, p.own[i])
	}
	tokenFile, file := filepath.Join(p.dir, "haproxy.map"), filepath.Join(p.dir, "haproxy.cfg")
	scheme, host, _ := strings.Cut(at.upstream, "://")
	tls := ""
	if scheme == "https" {
		tls = fmt.Sprintf(" ssl verify required ca-file %s sni str(%s) alpn h2,http/1.1", p.ca, upstreamName)
	}
	config := fmt.Sprintf(`global
	maxconn 4096
defaults
	mode http
	option http-no-delay
	http-reuse always
	timeout connect 5s
	timeout client 1m
	timeout server 1m
frontend in
	bind %s
	http-request set-header Authorization "%%[http_auth_bearer,map_str(%s)]"
	default_backend api
backend api
	server api %s%s
`, at.addr, tokenFile, host, tls)
	for name, text := range map[string]string{tokenFile: tokens.String(), file: config} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	c, err := child.Start(p.dir, "haproxy", exec.CommandContext(context.WithoutCancel(ctx), "haproxy", "-db", "-f", file))
	if err != nil {
		return nil, err
	}
	return c, listening(ctx, c, at.addr)
}
