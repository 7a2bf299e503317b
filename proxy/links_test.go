package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v84/github"

	"github.com/lanyard-proxy/lanyard/proxy"
)

func TestLinksAreTurnedBack(t *testing.T) {
	// API and HOST stand for the API's and a declared host's address, PROXY
	// for the proxy's, with the prefix by which the request came.
	tests := []struct{ name, header, sent, want string }{
		{"absolute", "Location", "API/v2/x", "PROXY/x"},
		{"query and fragment", "Location", "API/v2/x%2F?a;b#c", "PROXY/x%2F?a;b#c"},
		{"the API itself", "Location", "API/v2", "PROXY"},
		{"its query", "Location", "API/v2?a", "PROXY?a"},
		{"no segment boundary", "Location", "API/v22/x", "API/v22/x"},
		{"outside the API", "Location", "API/login", "API/login"},
		{"other scheme", "Location", "HTTPS_API/v2/x", "HTTPS_API/v2/x"},
		{"other host", "Location", "http://evil.test/v2/x", "http://evil.test/v2/x"},
		{"host as a prefix", "Location", "API.evil.test/v2/x", "API.evil.test/v2/x"},
		{"user in it", "Location", "http://a@AUTHORITY/v2/x", "http://a@AUTHORITY/v2/x"},
		{"declared host", "Location", "http://uploads.test/a//b?c", "PROXY/_host/uploads.test/a//b?c"},
		{"declared host, its port", "Location", "http://UPLOADS.test:80/a", "PROXY/_host/uploads.test/a"},
		{"declared host, root", "Location", "http://uploads.test", "PROXY/_host/uploads.test"},
		{"scheme case", "Location", "HTTP://AUTHORITY/v2/x", "PROXY/x"},
		{"absolute path", "Location", "/v2/x?a", "PROXY/x?a"},
		{"absolute path outside", "Location", "/login", "/login"},
		{"relative", "Location", "y?a", "PROXY/dir/y?a"},
		{"relative, up", "Location", "../y", "PROXY/y"},
		{"relative, out", "Location", "../../y", "../../y"},
		{"query only", "Location", "?page=2", "PROXY/dir/x?page=2"},
		{"no scheme", "Location", "//AUTHORITY/v2/x", "PROXY/x"},
		{"fragment", "Location", "#a", "#a"},
		{"empty", "Location", "", ""},
		{"other kind", "Location", "mailto:a@b.test", "mailto:a@b.test"},
		{"no URL", "Location", "http://[::1", "http://[::1"},
		{"content location", "Content-Location", "API/v2/x", "PROXY/x"},

		{"one link", "Link", `<API/v2/x?page=2>; rel="next"`, `<PROXY/x?page=2>; rel="next"`},
		{
			"several", "Link", `<API/v2/x?a=1,2>; rel="next", <API/v2/y>;rel=last,<http://evil.test/>; rel="x"`,
			`<PROXY/x?a=1,2>; rel="next", <PROXY/y>;rel=last,<http://evil.test/>; rel="x"`,
		},
		{
			"quoted traps", "Link", `<API/v2/x>; title="a, <API/v2/no>; \"b\", >" ; anchor="API/v2/no", </v2/y>`,
			`<PROXY/x>; title="a, <API/v2/no>; \"b\", >" ; anchor="API/v2/no", <PROXY/y>`,
		},
		{"spaces and empty items", "Link", ",\t, <API/v2/x> ;  rel = next ,,", ",\t, <PROXY/x> ;  rel = next ,,"},
		{"unfinished", "Link", "<API/v2/x", "<API/v2/x"},
		{"unfinished string", "Link", `<API/v2/x>; title="a, <API/v2/y>`, `<PROXY/x>; title="a, <API/v2/y>`},
		{"no link", "Link", "API/v2/x; rel=next", "API/v2/x; rel=next"},
		{"not a link's header", "X-Next", "API/v2/x", "API/v2/x"},
	}
	var header, value string
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(header, value)
		w.WriteHeader(http.StatusCreated)
	}))
	defer upstream.Close()
	authority := strings.TrimPrefix(upstream.URL, "http://")
	for _, way := range []string{"", "/github", "/c/" + connID, "/github/c/" + connID} {
		r := newRigFor(t, upstream.URL+"/v2", func(c *proxy.Config, up *proxy.Upstream) {
			c.Path, c.Prefix, up.Hosts = true, strings.TrimSuffix(way, "/c/"+connID), []string{"uploads.test"}
		})
		for _, tt := range tests {
			fill := strings.NewReplacer("HTTPS_API", strings.Replace(upstream.URL, "http", "https", 1), "API", upstream.URL, "AUTHORITY", authority, "PROXY", r.proxy.URL+way).Replace
			header, value = tt.header, fill(tt.sent)
			res, _ := r.do(t, r.request(t, http.MethodGet, way+"/dir/x", nil))
			if got, want := res.Header.Get(tt.header), fill(tt.want); got != want {
				t.Errorf("%s by %q: %s = %q, want %q", tt.name, way, tt.header, got, want)
			}
		}
	}
}

// The shortest reference becomes as long as the request's own address: a header
// full of them must not grow without end.
func TestLinksGrowWithinBounds(t *testing.T) {
	const links = 100_000
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", strings.Repeat("<a>,", links))
	})
	res, _ := r.do(t, r.request(t, http.MethodGet, "/"+strings.Repeat("d", 1000)+"/x", nil))
	link := res.Header.Get("Link")
	if !strings.HasPrefix(link, "<"+r.proxy.URL+"/ddd") || !strings.HasSuffix(link, ",<a>,") || strings.Count(link, "a>,") != links {
		t.Errorf("Link = %.50s … %s with %d links", link, link[max(0, len(link)-20):], strings.Count(link, "a>,"))
	}
	if len(link) > 2<<20 {
		t.Errorf("%d bytes became %d", 4*links, len(link))
	}
}

func TestLinksAreKept(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Host+"/x")
	}, func(c *proxy.Config, _ *proxy.Upstream) { c.KeepLinks = true })
	res, _ := r.do(t, r.request(t, http.MethodGet, "/", nil))
	if got, want := res.Header.Get("Location"), r.upstream.String()+"/x"; got != want {
		t.Errorf("Location = %q, want %q", got, want)
	}
}

func TestLinksByHost(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/next")
	}))
	defer upstream.Close()
	host := strings.TrimPrefix(upstream.URL, "http://")
	r := newRigFor(t, "http://api.test", func(_ *proxy.Config, up *proxy.Upstream) { up.Hosts = []string{host} })
	for _, way := range []string{"/_host/" + host, ""} {
		req := r.request(t, http.MethodGet, way+"/x", nil)
		req.Header.Set("Lanyard-Host", host)
		res, _ := r.do(t, req)
		if got, want := res.Header.Get("Location"), r.proxy.URL+"/_host/"+host+"/next"; got != want {
			t.Errorf("by %q: Location = %q, want %q", way, got, want)
		}
	}
}

// go-github needs nothing but a base URL and a token, and follows the links.
func TestGoGitHubPages(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		wantToken(t, r, 1)
		if r.URL.Path != "/user/repos" {
			t.Errorf("upstream got %s", r.URL)
		}
		page := r.URL.Query().Get("page")
		if page == "" {
			page = "1"
		}
		self := "http://" + r.Host + "/user/repos?page="
		switch page {
		case "1":
			w.Header().Set("Link", fmt.Sprintf(`<%s2>; rel="next", <%s3>; rel="last"`, self, self))
		case "2":
			w.Header().Set("Link", fmt.Sprintf(`<%s1>; rel="prev", <%s3>; rel="next"`, self, self))
		}
		_, _ = fmt.Fprintf(w, `[{"name":"repo-%s"}]`, page)
	}, func(c *proxy.Config, _ *proxy.Upstream) { c.Prefix = "/github" })
	client := github.NewClient(r.client).WithAuthToken(clientKey + "." + connID)
	var err error
	if client.BaseURL, err = url.Parse(r.proxy.URL + "/github/"); err != nil {
		t.Fatal(err)
	}
	var names []string
	next := "user/repos"
	for next != "" {
		req, err := client.NewRequest(http.MethodGet, next, nil)
		if err != nil {
			t.Fatal(err)
		}
		var repos []*github.Repository
		res, err := client.Do(t.Context(), req, &repos)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, repos[0].GetName())
		next = ""
		for link := range strings.SplitSeq(res.Header.Get("Link"), ", ") {
			if target, ok := strings.CutSuffix(link, `>; rel="next"`); ok {
				next = strings.TrimPrefix(target, "<")
				if !strings.HasPrefix(next, r.proxy.URL+"/github/") {
					t.Errorf("next page is %s", next)
				}
			}
		}
	}
	if diff := cmp.Diff([]string{"repo-1", "repo-2", "repo-3"}, names); diff != "" {
		t.Errorf("pages (-want +got)\n%s", diff)
	}
}
