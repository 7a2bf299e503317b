package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// byQuery makes the credential a query parameter.
func byQuery(_ *proxy.Config, up *proxy.Upstream) {
	up.Header, up.Prefix, up.Query = "", "", "api_key"
}

func TestA106CredentialInTheQuery(t *testing.T) {
	const key = "canary-token-1"
	for _, tt := range []struct{ path, want string }{
		{"/x", "/x?api_key=" + key},
		{"/x?", "/x?api_key=" + key},
		{"/x?page=2", "/x?page=2&api_key=" + key},
		{"/x?api_key=mine&page=2", "/x?page=2&api_key=" + key},
		{"/x?page=2&api_key=", "/x?page=2&api_key=" + key},
		{"/x?api_key", "/x?api_key=" + key},
		{"/x?api%5fkey=mine&a=%7e&a=b+c&&;z", "/x?a=%7e&a=b+c&&;z&api_key=" + key},
		{"/x?API_KEY=other", "/x?API_KEY=other&api_key=" + key},
		{"/x?q=api_key=1", "/x?q=api_key=1&api_key=" + key},
		{"/%7e//x|y?a", "/%7e//x|y?a&api_key=" + key},
	} {
		t.Run(tt.path, func(t *testing.T) {
			address, heads := rawUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			r := newRigFor(t, address, byQuery)
			res := r.raw(t, "GET "+tt.path+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+clientKey+"."+connID+"\r\n\r\n")
			if res.StatusCode != http.StatusOK {
				t.Fatalf("answer = %d", res.StatusCode)
			}
			head := <-heads
			if line, _, _ := strings.Cut(head, "\r\n"); line != "GET "+tt.want+" HTTP/1.1" {
				t.Errorf("upstream got %q, want %s", line, tt.want)
			}
			if strings.Contains(head, "Authorization") || strings.Contains(head, "Referer") || strings.Contains(head, connID) {
				t.Errorf("upstream got %q", head)
			}
		})
	}
}

// A key is encoded as a query needs it.
func TestA106CredentialInTheQueryIsEncoded(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Query().Get("api_key")+" "+r.URL.Query().Get("x"))
	}, byQuery)
	r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New("a&b=c+d e#%") })
	if _, body := r.do(t, r.request(t, http.MethodGet, "/?x=1", nil)); body != "a&b=c+d e#% 1" {
		t.Errorf("upstream got %q", body)
	}
}

// An API that says where to go on repeats the query that it got.
func TestA106CredentialInTheQueryDoesNotComeBack(t *testing.T) {
	const key = "canary-token-1"
	for _, links := range []bool{true, false} {
		for _, transport := range []bool{true, false} {
			t.Run(fmt.Sprint("links ", links, ", transport ", transport), func(t *testing.T) {
				upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					own := "http://" + r.Host + "/x?page=2&api_key=" + r.URL.Query().Get("api_key")
					h := w.Header()
					h.Set("Link", "</style.css?api_key="+key+">; rel=preload")
					w.WriteHeader(http.StatusEarlyHints)
					h["Link"] = []string{"<" + own + ">; rel=\"next\", <?api%5Fkey=***&page=9#end>; rel=last", "<https://other.test/?k=" + key + ">; rel=x"}
					h.Set("Location", own)
					h.Set("Content-Location", "/x?api_key="+key)
					h.Set("X-Request-Uri", r.URL.RequestURI())
					h.Set("Refresh", "0; url="+own)
					h.Set("Trailer", "X-Late")
					w.WriteHeader(http.StatusFound)
					_, _ = io.WriteString(w, "ok")
					h.Set("X-Late", r.URL.RequestURI())
				}))
				defer upstream.Close()
				cfg, r := newConfig(t, upstream.URL, byQuery, func(cfg *proxy.Config, _ *proxy.Upstream) { cfg.KeepLinks = !links })
				var seen strings.Builder
				if transport {
					rt, err := proxy.NewTransport(cfg)
					if err != nil {
						t.Fatal(err)
					}
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, upstream.URL+"/x?page=1", nil)
					req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
					req = req.WithContext(traceHints(req.Context(), &seen))
					res, err := rt.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					_, _ = io.ReadAll(res.Body)
					fmt.Fprintln(&seen, res.Header, res.Request.URL, res.Request.Header)
					wantLinks(t, res.Header, upstream.URL)
				} else {
					handler, err := proxy.New(cfg)
					if err != nil {
						t.Fatal(err)
					}
					r.serve(t, handler)
					req := r.request(t, http.MethodGet, "/x?page=1", nil)
					req = req.WithContext(traceHints(req.Context(), &seen))
					res, _ := r.do(t, req)
					fmt.Fprintln(&seen, res.Header, res.Trailer)
					base := r.proxy.URL
					if !links {
						base = upstream.URL
					}
					wantLinks(t, res.Header, base)
				}
				if !strings.Contains(seen.String(), "style.css") {
					t.Error("no hint came")
				}
				if strings.Contains(seen.String(), key) {
					t.Errorf("the credential came back: %s", seen.String())
				}
			})
		}
	}
}

// wantLinks checks that nothing but the credential is missing.
func wantLinks(t *testing.T, h http.Header, base string) {
	t.Helper()
	link := strings.Join(h["Link"], "\n")
	if h.Get("Location") != base+"/x?page=2" || !strings.HasPrefix(link, "<"+base+"/x?page=2>; rel=\"next\", <") || !strings.Contains(link, "?page=9#end>; rel=last") || strings.Contains(link, "***") {
		t.Errorf("Location %q, Link %q", h.Get("Location"), link)
	}
}

// An error of the transport may have the URL in it.
func TestA106CredentialInTheQueryStaysOutOfErrors(t *testing.T) {
	failing := roundTripper(func(req *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("Get %q: %w", req.URL, io.ErrUnexpectedEOF)
	})
	cfg, r := newConfig(t, "https://api.test", byQuery, func(cfg *proxy.Config, _ *proxy.Upstream) { cfg.Transport = failing })
	rt, err := proxy.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.test/x", nil)
	req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
	if _, err = rt.RoundTrip(req); err == nil || strings.Contains(err.Error(), "canary") || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error = %v", err)
	}
	handler, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, handler)
	res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil))
	wantProblem(t, res, body, http.StatusBadGateway, "upstream_unreachable")
}

// A query parameter is no place for a key: URLs are logged. Nor is any header
// the provider's own there.
func TestNoSlotInTheQuery(t *testing.T) {
	r := newRig(t, echo, byQuery)
	req := r.request(t, http.MethodGet, "/x?api_key="+clientKey+"."+connID, nil)
	req.Header.Del("Authorization")
	res, body := r.do(t, req)
	wantProblem(t, res, body, http.StatusUnauthorized, "key_required")
	req.Header.Set("X-Api-Key", clientKey+"."+connID)
	res, body = r.do(t, req)
	wantProblem(t, res, body, http.StatusBadRequest, "connection_required")
}

func TestBasic(t *testing.T) {
	const pair = "dXNlcjpjYW5hcnktcGFzc3dvcmQ=" // user:canary-password
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, pass, _ := r.BasicAuth()
		w.Header().Set("X-Echo", pass+" "+r.Header.Get("Authorization"))
	}, func(cfg *proxy.Config, up *proxy.Upstream) { up.Prefix, cfg.Scrub = "Basic ", true })
	r.grants.set(func(g *tokenstore.Grant) { g.Token.AccessToken = secret.New(pair) })
	res, _ := r.do(t, r.request(t, http.MethodGet, "/x", nil))
	if got, want := res.Header.Get("X-Echo"), strings.Repeat("*", 15)+" Basic "+strings.Repeat("*", len(pair)); !strings.HasPrefix(got, want[:20]) || strings.Contains(got, "canary") || strings.Contains(got, pair[:20]) {
		t.Errorf("echo = %q, want %q", got, want)
	}
}

// traceHints writes down the answers that come before the final one.
func traceHints(ctx context.Context, seen *strings.Builder) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			fmt.Fprintln(seen, code, h)
			return nil
		},
	})
}
