package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// fakeAudit keeps events.
type fakeAudit struct {
	mu     sync.Mutex
	events []tokenstore.Event
	out    bool // nothing can be written
}

func (f *fakeAudit) Used(_ context.Context, e tokenstore.Event, lost func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out {
		lost()
		return
	}
	f.events = append(f.events, e)
}

func (f *fakeAudit) Refused(ctx context.Context, e tokenstore.Event) {
	e.Denied = true
	f.Used(ctx, e, func() {})
}

// lines returns the events as text, and forgets them.
func (f *fakeAudit) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, e := range f.events {
		out = append(out, fmt.Sprintf("%s %s/%s from %s: %s %s %s denied %v",
			e.Type, e.Actor.Kind, e.Actor.Name, e.Actor.From, e.ConnectionID, e.Integration, e.Reason, e.Denied))
	}
	f.events = nil
	return out
}

// limited makes the rig's only client one with these limits.
func limited(l proxy.Client) change {
	return func(c *proxy.Config, up *proxy.Upstream) {
		l.Key = c.Clients[0].Key
		c.Clients = []proxy.Client{l}
		c.Path = true
		up.Hosts = []string{"uploads.acme.test"}
	}
}

// counted returns an upstream that says which paths it got.
func counted(t *testing.T) (handler http.HandlerFunc, got func() []string) {
	t.Helper()
	var mu sync.Mutex
	var paths []string
	return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			paths = append(paths, r.Method+" "+r.RequestURI)
			w.Header().Set("Lanyard-Error", "of the upstream's own")
		}, func() []string {
			mu.Lock()
			defer mu.Unlock()
			out := paths
			paths = nil
			return out
		}
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name   string
		client proxy.Client
		reason string // empty: it passes
	}{
		{"nothing listed", proxy.Client{}, ""},
		{"this integration", proxy.Client{Integrations: []string{"other", "acme"}}, ""},
		{"A070 another integration", proxy.Client{Integrations: []string{"other"}}, "integration_not_allowed"},
		{"integrations in other case", proxy.Client{Integrations: []string{"Acme"}}, "integration_not_allowed"},
		{"this user", proxy.Client{Users: []string{"u1"}}, ""},
		{"A067 A069 another user", proxy.Client{Users: []string{"u", "u10", "U1"}}, "user_not_allowed"},
		{"both", proxy.Client{Integrations: []string{"acme"}, Users: []string{"u2"}}, "user_not_allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			upstream, got := counted(t)
			log := &fakeAudit{}
			r := newRig(t, upstream, limited(tt.client), func(c *proxy.Config, _ *proxy.Upstream) { c.Audit = log })
			res, body := r.do(t, r.request(t, "GET", "/x", nil))
			if tt.reason == "" {
				if want := []string{"GET /x"}; !slices.Equal(got(), want) || res.StatusCode != http.StatusOK {
					t.Errorf("answer = %d %s", res.StatusCode, body)
				}
				return
			}
			wantProblem(t, res, body, 404, "connection_not_found")
			if paths := got(); len(paths) > 0 {
				t.Errorf("upstream got %q", paths)
			}
			want := []string{"call.refused client/app from 127.0.0.1: " + connID + " acme " + tt.reason + " denied true"}
			if diff := cmp.Diff(want, log.lines()); diff != "" {
				t.Errorf("events (-want +got)\n%s", diff)
			}

			unknown := r.request(t, "GET", "/x", nil)
			unknown.Header.Set("Authorization", "Bearer "+clientKey+"."+otherID)
			res2, body2 := r.do(t, unknown)
			res.Header.Del("Date")
			res2.Header.Del("Date")
			if diff := cmp.Diff(body+fmt.Sprint(res.StatusCode, res.Header), body2+fmt.Sprint(res2.StatusCode, res2.Header)); diff != "" {
				t.Errorf("another's connection and an unknown one are told apart (-another's +unknown)\n%s", diff)
			}
			want = []string{"call.refused client/app from 127.0.0.1: " + otherID + "  connection_unknown denied true"}
			if diff := cmp.Diff(want, log.lines()); diff != "" {
				t.Errorf("events (-want +got)\n%s", diff)
			}
		})
	}
}

// A connection that the key may not use costs the store one miss, as one that
// is not there does.
func TestA071OneMissEach(t *testing.T) {
	upstream, _ := counted(t)
	for name, change := range map[string]change{
		"another user":        limited(proxy.Client{Users: []string{"u2"}}),
		"another integration": limited(proxy.Client{Integrations: []string{"other"}}),
		"a bound proxy":       func(c *proxy.Config, _ *proxy.Upstream) { c.Integration = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, upstream, change)
			misses := func(id string) int {
				r.grants.asked = nil
				req := r.request(t, "GET", "/x", nil)
				req.Header.Set("Authorization", "Bearer "+clientKey+"."+id)
				r.do(t, req)
				n := 0
				for _, asked := range r.grants.asked {
					if _, ok := r.grants.grants[asked]; !ok {
						n++
					}
					if asked != id && !tokenstore.IsID(asked) {
						t.Errorf("the store is asked for %q", asked)
					}
				}
				return n
			}
			if a, b := misses(connID), misses(otherID); a != 1 || b != 1 {
				t.Errorf("another's connection costs %d misses, an unknown one %d; want 1 each", a, b)
			}
		})
	}
}

func TestMethodsAndPaths(t *testing.T) {
	read := proxy.Client{Methods: []string{"GET", "HEAD"}}
	repos := proxy.Client{Paths: []string{"/user", "/repos/acme/*", "uploads.acme.test/up/*"}}
	all := proxy.Client{Paths: []string{"/*"}}
	tests := []struct {
		name   string
		client proxy.Client
		line   string // the request's first line, less the protocol
		header string
		want   string // what the upstream gets; else 403, or the code
	}{
		{"a method", read, "GET /x", "", "GET /x"},
		{"another method", read, "POST /x", "", ""},
		{"lower case", read, "get /x", "", ""},
		{"A095 override", read, "GET /x", "X-HTTP-Method-Override: DELETE\r\n", ""},
		{"A095 override with one allowed", read, "GET /x", "X-Http-Method: GET\r\n", ""},
		{"A095 path override", repos, "GET /user", "X-Original-URL: /admin\r\n", ""},
		{"A095 path override", repos, "GET /user", "X-Rewrite-URL: /admin\r\n", ""},
		{"whole", repos, "GET /user", "", "GET /user"},
		{"with a query", repos, "GET /user?x=/admin", "", "GET /user?x=/admin"},
		{"slash behind", repos, "GET /user/", "", ""},
		{"below", repos, "GET /repos/acme/a/b", "", "GET /repos/acme/a/b"},
		{"the parent's own", repos, "GET /repos/acme/", "", "GET /repos/acme/"},
		{"the parent", repos, "GET /repos/acme", "", ""},
		{"not at a segment", repos, "GET /repos/acmeevil/x", "", ""},
		{"by connection path", repos, "GET /c/" + connID + "/user", "Lanyard-Key: " + clientKey + "\r\n", "GET /user"},
		{"the prefix is not the path", repos, "GET /c/" + connID + "/admin", "Lanyard-Key: " + clientKey + "\r\n", ""},
		{"A089 dots", repos, "GET /repos/acme/../../admin", "", "path_invalid"},
		{"A089 escaped dots", repos, "GET /repos/acme/%2e%2e/%2e%2e/admin", "", "path_invalid"},
		{"A089 escaped twice", repos, "GET /repos/acme/%252e%252e/admin", "", "path_invalid"},
		{"A089 half escaped", repos, "GET /repos/acme/.%2e/x", "", "path_invalid"},
		{"A089 parameter", repos, "GET /repos/acme/..;/x", "", "path_invalid"},
		{"A089 backslash", repos, `GET /repos/acme\..\x`, "", "path_invalid"},
		{"A089 case", repos, "GET /Repos/acme/x", "", ""},
		{"A089 escaped letter", repos, "GET /%75ser", "", ""},
		{"A089 escaped slash", repos, "GET /repos%2facme/x", "", ""},
		{"A089 slash twice", repos, "GET //user", "", ""},
		{"A089 escaped slash below", repos, "GET /repos/acme/a%2fb", "", "GET /repos/acme/a%2fb"},
		{"A090 query", repos, "GET /admin?x=/repos/acme/", "", ""},
		{"A090 escaped fragment", repos, "GET /admin%23/user", "", ""},
		{"A090 escaped question mark", repos, "GET /repos/acme%3f/x", "", ""},
		{"absolute form", repos, "GET http://localhost/user", "", "GET /user"},
		{"absolute form, another path", repos, "GET http://localhost/admin", "", ""},
		{"a further host", repos, "GET /up/x", "Lanyard-Host: uploads.acme.test\r\n", "other host"},
		{"a further host, another path", repos, "GET /user", "Lanyard-Host: uploads.acme.test\r\n", ""},
		{"a further host by path", repos, "GET /_host/uploads.acme.test/repos/acme/x", "", ""},
		{"all is the API only", all, "GET /up/x", "Lanyard-Host: uploads.acme.test\r\n", ""},
		{"all", all, "GET /", "", "GET /"},
		{"trace stays out", all, "TRACE /", "", "method_not_allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			upstream, got := counted(t)
			log := &fakeAudit{}
			r := newRig(t, upstream, limited(tt.client), func(c *proxy.Config, _ *proxy.Upstream) {
				c.Audit = log
				c.Transport = toOneHost{c.Transport, c}
			})
			auth := slotLine
			if strings.Contains(tt.header, "Lanyard-Key") {
				auth = ""
			}
			res := r.raw(t, tt.line+" HTTP/1.1\r\nHost: localhost\r\n"+auth+tt.header+"\r\n")
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			switch tt.want {
			case "":
				wantProblem(t, res, string(body), 403, "not_allowed")
				if lines := log.lines(); len(lines) != 1 || !strings.Contains(lines[0], "call.refused client/app") || !strings.Contains(lines[0], "_not_allowed denied true") {
					t.Errorf("events = %q", lines)
				}
			case "path_invalid", "method_not_allowed", "other host":
				if code := res.Header.Get("Lanyard-Error"); tt.want != "other host" && code != tt.want {
					t.Errorf("code = %q, want %q", code, tt.want)
				}
			}
			paths := got()
			if tt.want == "other host" {
				if len(paths) != 1 || paths[0] != "GET /up/x" {
					t.Errorf("upstream got %q", paths)
				}
				return
			}
			if sent := strings.HasPrefix(tt.want, "GET "); sent != (len(paths) == 1) || (sent && paths[0] != tt.want) {
				t.Errorf("upstream got %q, want %q", paths, tt.want)
			}
		})
	}
}

// What decides in a header is not let through behind the body.
func TestA095OverrideInTrailer(t *testing.T) {
	for _, name := range []string{"X-HTTP-Method-Override", "X-Original-URL"} {
		got := make(chan http.Header, 1)
		r := newRig(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			got <- r.Trailer
		}, limited(proxy.Client{Methods: []string{"POST"}}))
		res := r.raw(t, "POST /x HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"Transfer-Encoding: chunked\r\nTrailer: X-Sum, "+name+
			"\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n"+name+": DELETE\r\n\r\n")
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s: answer = %d", name, res.StatusCode)
		}
		if diff := cmp.Diff(http.Header{"X-Sum": {"1"}}, <-got); diff != "" {
			t.Errorf("%s: trailers upstream (-want +got)\n%s", name, diff)
		}
	}
}

// toOneHost sends what is for any host to one.
type toOneHost struct {
	http.RoundTripper
	cfg *proxy.Config
}

func (o toOneHost) RoundTrip(r *http.Request) (*http.Response, error) {
	up, _ := o.cfg.Upstream(&tokenstore.Grant{Integration: "acme"})
	u := *r.URL
	u.Host = up.API.Host
	r.URL = &u
	return o.RoundTripper.RoundTrip(r)
}

// The API is not at its host's root: what the pattern is of begins behind.
func TestPathsAreBelowTheAPI(t *testing.T) {
	upstream, got := counted(t)
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	r := newRigFor(t, server.URL+"/v2", limited(proxy.Client{Paths: []string{"/user", "/v2/secret"}}))
	for path, want := range map[string]int{"/user": 200, "/v2/user": 403, "/v2/secret": 200, "/secret": 403, "": 403, "/": 403} {
		res, _ := r.do(t, r.request(t, "GET", path, nil))
		if paths := got(); res.StatusCode != want || (want == 200 && !slices.Equal(paths, []string{"GET /v2" + path})) || (want != 200 && len(paths) > 0) {
			t.Errorf("%s: %d and upstream got %q, want %d", path, res.StatusCode, paths, want)
		}
	}
}

// As a reverse proxy's transport there is no path of ours: what is sent counts.
func TestTransportHasLimits(t *testing.T) {
	upstream, got := counted(t)
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	cfg, _ := newConfig(t, server.URL+"/v2", limited(proxy.Client{Paths: []string{"/user", "/repos/*"}, Methods: []string{"GET"}}))
	rt, err := proxy.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]int{
		"GET /v2/user": 200, "GET /user": 403, "GET /v2/admin": 403, "POST /v2/user": 403, "GET /v2/repos/x": 200, "GET /v2/repos/../admin": 403, "GET /v2/repos/%2e%2e/admin": 403, "GET /v2user": 403,
	} {
		method, path, _ := strings.Cut(line, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
		res, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if paths := got(); res.StatusCode != want || (len(paths) > 0) != (want == 200) {
			t.Errorf("%s: %d and upstream got %q, want %d", line, res.StatusCode, paths, want)
		}
	}
}

func TestBadLimits(t *testing.T) {
	tests := []struct {
		client proxy.Client
		want   string
	}{
		{proxy.Client{Users: []string{}}, "users: needs at least one value"},
		{proxy.Client{Integrations: []string{}}, "integrations: needs"},
		{proxy.Client{Users: []string{""}}, "users: one of them is empty"},
		{proxy.Client{Methods: []string{"get"}}, `methods: "get" is not a method such as GET, in capitals`},
		{proxy.Client{Methods: []string{"TRACE"}}, `"TRACE" is not a method`},
		{proxy.Client{Methods: []string{"GET,POST"}}, "is not a method"},
		{proxy.Client{Methods: []string{""}}, "is not a method"},
		{proxy.Client{Paths: []string{"user"}}, `paths: "user" does not begin with a slash, or with a host and a slash`},
		{proxy.Client{Paths: []string{"*"}}, "does not begin"},
		{proxy.Client{Paths: []string{""}}, "does not begin"},
		{proxy.Client{Paths: []string{"*.acme.test/x"}}, "does not begin"},
		{proxy.Client{Paths: []string{"https://acme.test/x"}}, "does not begin"},
		{proxy.Client{Paths: []string{"/a*"}}, `"/a*" is neither a path nor one that ends in /*`},
		{proxy.Client{Paths: []string{"/*/b"}}, "is neither"},
		{proxy.Client{Paths: []string{"/a?b"}}, "is neither"},
		{proxy.Client{Paths: []string{"/a/../b"}}, "no path that a request may have"},
		{proxy.Client{Paths: []string{"/a/%2e%2e/b"}}, "no path that a request may have"},
		{proxy.Client{Paths: []string{"/a b"}}, "no path that a request may have"},
	}
	for _, tt := range tests {
		cfg, _ := newConfig(t, "http://127.0.0.1:1", limited(tt.client))
		_, err := proxy.New(cfg)
		if err == nil || !strings.Contains(err.Error(), "client app: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%+v) = %v, want %q", tt.client, err, tt.want)
		}
	}
}
