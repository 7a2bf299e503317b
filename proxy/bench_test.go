package proxy_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// oneGrant is Grants of one connection whose token is valid.
type oneGrant struct{ g *tokenstore.Grant }

func (o oneGrant) Find(context.Context, string) (*tokenstore.Grant, error) { return o.g, nil }

func (o oneGrant) FindUser(context.Context, string, string) (*tokenstore.Grant, error) {
	return o.g, nil
}

func (o oneGrant) Token(context.Context, *tokenstore.Grant) (*tokenstore.Grant, error) {
	return o.g, nil
}

func (o oneGrant) Renew(context.Context, string, uint64) (*tokenstore.Grant, error) { return o.g, nil }

func (oneGrant) Watch(string) (ended <-chan struct{}, stop func()) { return nil, func() {} }

// BenchmarkCall is what a call costs by itself: with a key that has all limits,
// and a network that takes no time.
func BenchmarkCall(b *testing.B) {
	api, err := url.Parse("https://api.test")
	if err != nil {
		b.Fatal(err)
	}
	g := activeGrant()
	g.Uses = new(tokenstore.Uses)
	up := &proxy.Upstream{Integration: "acme", API: api, Header: "Authorization", Prefix: "Bearer "}
	h, err := proxy.New(proxy.Config{
		Grants: oneGrant{&g}, Audit: &fakeAudit{},
		Upstream: func(*tokenstore.Grant) (*proxy.Upstream, string) { return up, "" },
		Clients: []proxy.Client{{
			Key:   guard.Key{Name: "app", Value: secret.New(clientKey)},
			Users: []string{"u1"}, Methods: []string{"GET"}, Paths: []string{"/user", "/repos/acme/*"},
		}},
		Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain"}},
				ContentLength: 2, Body: io.NopCloser(strings.NewReader("ok")),
			}, nil
		}),
	})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "http://localhost/repos/acme/x?page=2", nil)
	r.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkRefusedConnection compares what it costs to name another's
// connection with what it costs to name one that is not there.
func BenchmarkRefusedConnection(b *testing.B) {
	cfg := proxy.Config{
		Grants:    newGrants(),
		Upstream:  func(*tokenstore.Grant) (*proxy.Upstream, string) { return nil, tokenstore.ReasonIntegrationMissing },
		Clients:   []proxy.Client{{Key: guard.Key{Name: "app", Value: secret.New(clientKey)}, Users: []string{"u2"}}},
		Transport: http.DefaultTransport,
	}
	h, err := proxy.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	for name, id := range map[string]string{"another's": connID, "unknown": otherID} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "http://localhost/x", nil)
			r.Header.Set("Authorization", "Bearer "+clientKey+"."+id)
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}

// BenchmarkScrubbedEvents is a stream of small events: the garbage is to be of
// the length of the stream.
func BenchmarkScrubbedEvents(b *testing.B) {
	events := make([][]byte, 2000)
	for i := range events {
		events[i] = []byte("data: hi\n\n")
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = proxy.Mask("gho_0123456789abcdefghij", events...)
	}
}
