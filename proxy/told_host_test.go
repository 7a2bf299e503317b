package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// movingGrants refreshes like a provider that tells another host with the
// second token: ahead of the request, or after its 401.
type movingGrants struct {
	*fakeGrants
	expired bool
}

func moved(g tokenstore.Grant) *tokenstore.Grant {
	g.Token = tokenstore.Token{AccessToken: secret.New(token(2)), Generation: 2, Metadata: map[string]string{"instance": "b"}}
	return &g
}

func (m *movingGrants) Token(_ context.Context, g *tokenstore.Grant) (*tokenstore.Grant, error) {
	if m.expired {
		return moved(*g), nil
	}
	return g, nil
}

func (m *movingGrants) Renew(_ context.Context, id string, _ uint64) (*tokenstore.Grant, error) {
	return moved(m.grants[id]), nil
}

// A refresh may tell another host of the API. The request that waited for that
// refresh, or is sent again after it, goes there, with what belongs to it.
func TestRefreshTellsAnotherHost(t *testing.T) {
	for _, tt := range []struct {
		name    string
		expired bool
		want    string // what each host got
	}{
		{"a request that waits", true, "b 2 team-b"},
		{"a request that is sent again", false, "a 1 team-a, b 2 team-b"},
	} {
		for _, transport := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " transport ", transport), func(t *testing.T) {
				var got []string
				ups := map[string]*proxy.Upstream{}
				for _, name := range []string{"a", "b"} {
					server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						tok := r.Header.Get("Authorization")
						got = append(got, name+" "+tok[len(tok)-1:]+" "+r.Header.Get("Team"))
						if strings.HasSuffix(tok, "1") {
							w.WriteHeader(http.StatusUnauthorized)
						}
					}))
					defer server.Close()
					u, _ := url.Parse(server.URL + "/base-" + name)
					ups[name] = &proxy.Upstream{
						Integration: "acme", API: u, Header: "Authorization", Prefix: "Bearer ",
						Headers: []proxy.InjectedHeader{{Name: "Team", Value: secret.New("team-" + name), Always: true}},
					}
				}
				cfg, r := newConfig(t, ups["a"].API.String(), func(cfg *proxy.Config, _ *proxy.Upstream) {
					cfg.Upstream = func(g *tokenstore.Grant) (*proxy.Upstream, string) {
						if g.Token.Metadata["instance"] == "b" {
							return ups["b"], ""
						}
						return ups["a"], ""
					}
				})
				cfg.Grants = &movingGrants{r.grants, tt.expired}
				if transport {
					// The reverse proxy has chosen the host: the old one is
					// no place for the new token.
					rt, err := proxy.NewTransport(cfg)
					if err != nil {
						t.Fatal(err)
					}
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, ups["a"].API.String()+"/x", nil)
					req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
					res, err := rt.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					if all := strings.Join(got, ", "); strings.Contains(all, "a 2") {
						t.Errorf("the hosts got %s", all)
					}
					return
				}
				handler, err := proxy.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				r.serve(t, handler)
				res, _ := r.do(t, r.request(t, http.MethodGet, "/c/"+connID+"/x", nil))
				if all := strings.Join(got, ", "); all != tt.want {
					t.Errorf("answer %d, the hosts got %s; want %s", res.StatusCode, all, tt.want)
				}
			})
		}
	}
}
