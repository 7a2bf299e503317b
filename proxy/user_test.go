package proxy_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func bound(cfg *proxy.Config, _ *proxy.Upstream) { cfg.Integration = "acme" }

func path(cfg *proxy.Config, _ *proxy.Upstream) { cfg.Path = true }

func onlyUser(userID string) change {
	return func(cfg *proxy.Config, _ *proxy.Upstream) { cfg.Clients[0].Users = []string{userID} }
}

func TestNamingByUser(t *testing.T) {
	older := func(f *fakeGrants) {
		f.grants["conn_0"] = tokenstore.Grant{ConnectionID: "conn_0", Integration: "acme", UserID: "u1", Status: tokenstore.StatusActive}
	}
	expired := func(f *fakeGrants) {
		f.set(func(g *tokenstore.Grant) { g.Status, g.StatusReason = tokenstore.StatusExpired, "invalid_grant" })
	}
	tests := []struct {
		name    string
		changes []change
		prepare func(*fakeGrants)
		path    string
		headers []string
		status  int
		code    string
	}{
		{"user", []change{bound}, older, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1"}, 200, ""},
		{"key as bearer", []change{bound}, nil, "/x", []string{"Authorization", "Bearer " + clientKey, "User-Id", "u1"}, 200, ""},
		{"of no integration", nil, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1"}, 400, "connection_required"},
		{"empty", []change{bound}, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", ""}, 400, "connection_required"},
		{"no key", []change{bound}, nil, "/x", []string{"User-Id", "u1"}, 401, "key_required"},
		{"unknown", []change{bound}, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u2"}, 404, "connection_not_found"},
		{"two users", []change{bound}, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1", "User-Id", "u2"}, 400, "connection_ambiguous"},
		{"with its ID", []change{bound}, older, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1", "Connection-Id", connID}, 200, ""},
		{"with an older ID", []change{bound}, older, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1", "Connection-Id", "conn_0"}, 400, "connection_ambiguous"},
		{"with another's ID", []change{bound}, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u2", "Connection-Id", connID}, 400, "connection_ambiguous"},
		{"with another's slot", []change{bound}, nil, "/x", []string{"Authorization", "Bearer " + clientKey + "." + connID, "User-Id", "u2"}, 400, "connection_ambiguous"},
		{"with another's path", []change{bound, path}, nil, "/c/" + connID + "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u2"}, 400, "connection_ambiguous"},
		{"where it names nothing", nil, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u2", "Connection-Id", connID}, 200, ""},
		{"expired", []change{bound}, expired, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1"}, 424, "reconnect_required"},
		{"allowed", []change{bound, onlyUser("u1")}, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1"}, 200, ""},
		{"not allowed", []change{bound, onlyUser("u2")}, nil, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1"}, 404, "connection_not_found"},
		{"store out", []change{bound}, func(f *fakeGrants) { f.findErr = tokenstore.ErrUnavailable }, "/x", []string{"Lanyard-Key", clientKey, "User-Id", "u1"}, 503, "store_unavailable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
				wantToken(t, r, 1)
				if got := r.Header.Get("User-Id") + r.Header.Get("Lanyard-Key") + r.Header.Get("Connection-Id"); got != "" || r.URL.Path != "/x" {
					t.Errorf("upstream got %s and %q", r.URL.Path, got)
				}
				w.Header().Set("Link", "</x?page=2>; rel=next")
			}, tt.changes...)
			if tt.prepare != nil {
				tt.prepare(r.grants)
			}
			req := r.request(t, http.MethodGet, tt.path, nil)
			req.Header = http.Header{}
			for i := 0; i < len(tt.headers); i += 2 {
				req.Header.Add(tt.headers[i], tt.headers[i+1])
			}
			res, body := r.do(t, req)
			if tt.code == "" {
				if res.StatusCode != tt.status || res.Header.Get("Link") != "<"+r.proxy.URL+strings.TrimSuffix(tt.path, "/x")+"/x?page=2>; rel=next" {
					t.Errorf("answer = %d %v %s", res.StatusCode, res.Header, body)
				}
				return
			}
			p := wantProblem(t, res, body, tt.status, tt.code)
			if (p.ConnectURL != "") != (tt.status == 424) {
				t.Errorf("connect_url = %q", p.ConnectURL)
			}
		})
	}
}

// A user whom the key may not use is looked for as one who is not there, under
// a name that nobody has.
func TestAnotherUserIsNotLookedFor(t *testing.T) {
	r := newRig(t, echo, bound, onlyUser("u2"))
	req := r.request(t, http.MethodGet, "/x", nil)
	req.Header = http.Header{"Lanyard-Key": {clientKey}, "User-Id": {"u1"}}
	r.do(t, req)
	if asked := r.grants.askedUsers; len(asked) != 1 || asked[0] == "u1" {
		t.Errorf("looked for %q", asked)
	}
}

func TestMissingScopes(t *testing.T) {
	const link = "https://connect.test/connect?connection_id=" + connID + "&scopes="
	declared := func(_ *proxy.Config, up *proxy.Upstream) { up.Scopes = []string{"read", "write", "admin"} }
	tests := []struct {
		name      string
		status    int
		challenge []string
		changes   []change
		missing   string
		link      string
		hint      string
	}{
		{"named", 403, []string{`Bearer error="insufficient_scope", scope="admin write read"`}, nil, "admin write", link + "read+write+admin", "insufficient_scope"},
		{"401", 401, []string{`Bearer scope="admin",error=insufficient_scope`}, nil, "admin", link + "read+write+admin", "insufficient_scope"},
		{"second challenge", 403, []string{`Basic realm="x"`, `Bearer error="insufficient_scope", scope="admin"`}, nil, "admin", link + "read+write+admin", "insufficient_scope"},
		{"none named", 403, []string{`Bearer error="insufficient_scope"`}, nil, "write", link + "read+write", "insufficient_scope"},
		{"all granted", 403, []string{`Bearer error="insufficient_scope", scope="read"`}, nil, "write", link + "read+write", "insufficient_scope"},
		{"no scopes", 403, []string{`Bearer error="insufficient_scope", scope="a\\b  \"c"`}, nil, "write", link + "read+write", "insufficient_scope"},
		{"declared", 403, []string{`Bearer error="insufficient_scope", scope="admin evil"`}, []change{declared}, "admin evil", link + "read+write+admin", "insufficient_scope"},
		{"not declared", 403, []string{`Bearer error="insufficient_scope", scope="evil"`}, []change{declared}, "evil", "", "insufficient_scope"},
		{"another error", 403, []string{`Bearer error="access_denied", scope="admin"`}, nil, "", "", ""},
		{"no challenge", 403, nil, nil, "", "", ""},
		{"another status", 400, []string{`Bearer error="insufficient_scope", scope="admin"`}, nil, "", "", ""},
	}
	for _, tt := range tests {
		for _, transport := range []string{"handler", "transport"} {
			t.Run(tt.name+", "+transport, func(t *testing.T) {
				r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Lanyard-Connect-Url", "https://evil.test")
					w.Header()["Www-Authenticate"] = tt.challenge
					w.WriteHeader(tt.status)
					_, _ = w.Write([]byte("no"))
				}, tt.changes...)
				if transport == "transport" {
					r = transportRig(t, r, tt.changes...)
				}
				r.grants.set(func(g *tokenstore.Grant) {
					g.Requested, g.Token.Scopes = []string{"read", "write"}, []string{"read", "extra"}
				})
				res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil))
				if res.StatusCode != tt.status || body != "no" || strings.Join(res.Header["Www-Authenticate"], "\n") != strings.Join(tt.challenge, "\n") {
					t.Errorf("the provider's answer was changed: %d %v %q", res.StatusCode, res.Header, body)
				}
				for name, want := range map[string]string{
					"Lanyard-Hint": tt.hint, "Lanyard-Missing-Scopes": tt.missing, "Lanyard-Connect-Url": tt.link, "Lanyard-Error": "",
				} {
					if got := res.Header.Get(name); got != want {
						t.Errorf("%s = %q, want %q", name, got, want)
					}
				}
				if len(r.grants.refused) > 0 {
					t.Error("the token was renewed")
				}
			})
		}
	}
}

// transportRig is r with a Transport in place of the Handler.
func transportRig(t *testing.T, r *rig, changes ...change) *rig {
	t.Helper()
	cfg, next := newConfig(t, r.upstream.String(), changes...)
	rt, err := proxy.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	next.serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		out := req.Clone(req.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", r.upstream.Scheme, r.upstream.Host
		res, err := rt.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		var b [10]byte
		n, _ := res.Body.Read(b[:])
		_, _ = w.Write(b[:n])
	}))
	return next
}

// A scope that would not fit into a header, or fills it, is not told.
func TestEndlessScopes(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		scopes := strings.Repeat("x", 300)
		for i := range 1000 {
			scopes += " s" + strings.Repeat("y", i%100)
		}
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+scopes+`"`)
		w.WriteHeader(http.StatusForbidden)
	})
	r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New("canary-x") })
	res, _ := r.do(t, r.request(t, http.MethodGet, "/x", nil))
	told := strings.Fields(res.Header.Get("Lanyard-Missing-Scopes"))
	if len(told) != 50 || strings.HasPrefix(told[0], "x") {
		t.Errorf("%d scopes are told", len(told))
	}
}

// TestOpenIsNotOpenByUser: without a key the random ID is all that opens an `open`
// proxy. User IDs are "default", numbers, addresses of people.
func TestOpenIsNotOpenByUser(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		bound, func(cfg *proxy.Config, _ *proxy.Upstream) { cfg.Open = true })
	for _, tt := range []struct {
		header [4]string
		status int
	}{
		{[4]string{"Connection-Id", connID}, 200},
		{[4]string{"User-Id", "u1"}, 401},
		{[4]string{"User-Id", "nobody"}, 401},
		{[4]string{"User-Id", "u1", "Connection-Id", connID}, 200},
		{[4]string{"User-Id", "u1", "Lanyard-Key", clientKey}, 200},
	} {
		req := r.request(t, http.MethodGet, "/x", nil)
		req.Header = http.Header{}
		for i := 0; i < 4 && tt.header[i] != ""; i += 2 {
			req.Header.Add(tt.header[i], tt.header[i+1])
		}
		if res, body := r.do(t, req); res.StatusCode != tt.status {
			t.Errorf("%v: %d %s; want %d", tt.header, res.StatusCode, body, tt.status)
		}
	}
}
