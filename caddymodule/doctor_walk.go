package caddymodule

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// transportName is what the doctor calls a reverse_proxy with the transport
// `lanyard`.
const transportName = "transport lanyard"

// server is one of the HTTP servers of a configuration.
type server struct {
	Listen   []string                   `json:"listen"`
	Routes   []route                    `json:"routes"`
	Named    map[string]route           `json:"named_routes"`
	Logs     *caddyhttp.ServerLogConfig `json:"logs"`
	Policies []tlsPolicy                `json:"tls_connection_policies"`

	listen     []caddy.NetworkAddress
	handlers   []handler
	clientAuth bool // it asks for clients' certificates
}

type tlsPolicy struct {
	ClientAuth json.RawMessage `json:"client_authentication"`
}

// route is one of a server's routes.
type route struct {
	Match  []map[string]json.RawMessage `json:"match"`
	Handle []json.RawMessage            `json:"handle"`
}

// handler is a handler of Lanyard's, with what matters of its options.
type handler struct {
	name   string
	routes []route   // those that it is in, the outermost first
	guards [][]route // the same of the handlers before it that authenticate

	Open  bool     `json:"open"`
	Names []string `json:"names"`
	User  string   `json:"user"`
}

// readServers reads the HTTP servers, and finds the handlers of Lanyard in them.
func (d *doctor) readServers() {
	var app struct {
		Servers map[string]*server `json:"servers"`
	}
	if raw, ok := d.cfg.AppsRaw["http"]; ok {
		if err := json.Unmarshal(raw, &app); err != nil {
			d.problem("config", "config_invalid", d.file, "http: "+err.Error(), "see `caddy validate`")
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		s := app.Servers[name]
		for _, l := range s.Listen {
			if a, err := caddy.ParseNetworkAddress(l); err == nil {
				s.listen = append(s.listen, a)
			}
		}
		s.clientAuth = slices.ContainsFunc(s.Policies, func(p tlsPolicy) bool { return len(p.ClientAuth) > 0 })
		s.walk(s.Routes, nil, nil, 0)
		if len(s.handlers) > 0 {
			d.servers = append(d.servers, *s)
		} else {
			d.others = append(d.others, *s)
		}
	}
}

// maxNesting ends a walk through named routes that call each other.
const maxNesting = 32

// walk collects the handlers of routes that stand in the routes above.
func (s *server) walk(routes, above []route, guards [][]route, depth int) {
	if depth > maxNesting {
		return
	}
	for _, r := range routes {
		within := append(slices.Clone(above), r)
		for _, raw := range r.Handle {
			var h struct {
				handler
				Handler   string  `json:"handler"`
				Routes    []route `json:"routes"`
				Name      string  `json:"name"`
				Responses []any   `json:"handle_response"`
				Transport struct {
					Protocol string `json:"protocol"`
					Open     bool   `json:"open"`
				} `json:"transport"`
			}
			if json.Unmarshal(raw, &h) != nil {
				continue // another module's options may mean something else
			}
			h.name, h.routes, h.guards = h.Handler, within, guards
			switch h.Handler {
			case "lanyard_connect", "lanyard_api", "lanyard_proxy", "lanyard_dashboard":
				s.handlers = append(s.handlers, h.handler)
			case "subroute":
				s.walk(h.Routes, within, guards, depth+1)
			case "invoke":
				s.walk([]route{s.Named[h.Name]}, within, guards, depth+1)
			case "authentication":
				guards = append(slices.Clone(guards), within)
			case "reverse_proxy":
				if h.Transport.Protocol == "lanyard" {
					h.name, h.Open = transportName, h.Transport.Open
					s.handlers = append(s.handlers, h.handler)
				}
				if len(h.Responses) > 0 { // forward_auth is one that looks at the answer and goes on
					guards = append(slices.Clone(guards), within)
				}
			}
		}
	}
}

// authenticated reports whether a handler before it authenticates who reaches
// it, as far as paths say so: one that stands before another path does not.
func (h *handler) authenticated() bool {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: h.path()}}
	return slices.ContainsFunc(h.guards, func(guard []route) bool { return reaches(guard, r) })
}

// path returns a path that reaches the handler: the beginning of the first that
// its innermost route with paths is for.
func (h *handler) path() string {
	for _, route := range slices.Backward(h.routes) {
		for _, set := range route.Match {
			var paths []string
			if raw, ok := set["path"]; ok && json.Unmarshal(raw, &paths) == nil && len(paths) > 0 {
				before, _, _ := strings.Cut(paths[0], "*")
				return before
			}
		}
	}
	return "/"
}

// matches reports whether a request reaches the handler, as far as hosts and
// paths say so. A request without a host passes every host.
func (h *handler) matches(r *http.Request) bool { return reaches(h.routes, r) }

func reaches(routes []route, r *http.Request) bool {
	r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	for _, route := range routes {
		if len(route.Match) > 0 && !slices.ContainsFunc(route.Match, func(set map[string]json.RawMessage) bool { return matchesAll(set, r) }) {
			return false
		}
	}
	return true
}

func matchesAll(set map[string]json.RawMessage, r *http.Request) bool {
	var hosts caddyhttp.MatchHost
	if raw, ok := set["host"]; ok && r.Host != "" && json.Unmarshal(raw, &hosts) == nil {
		if ok, err := hosts.MatchWithError(r); err != nil || !ok {
			return false
		}
	}
	var paths caddyhttp.MatchPath
	if raw, ok := set["path"]; ok && json.Unmarshal(raw, &paths) == nil && paths.Provision(caddy.Context{}) == nil {
		if ok, err := paths.MatchWithError(r); err != nil || !ok {
			return false
		}
	}
	return true
}

// hosts returns the host names that the handler's routes are for.
func (h *handler) hosts() []string {
	var all []string
	for _, route := range h.routes {
		for _, set := range route.Match {
			var hosts []string
			if raw, ok := set["host"]; ok && json.Unmarshal(raw, &hosts) == nil {
				all = append(all, hosts...)
			}
		}
	}
	return all
}
