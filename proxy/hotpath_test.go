package proxy_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// BenchmarkHotPath is what a call costs before it is sent, over 10,000
// connections in a real Refresher: by a key without limits and by one that has
// them all.
//
//   - accept: read who calls for which connection, compare the key, find the
//     connection and its valid token, check the host and the path.
//   - request: that, and make the request that goes upstream, with its header
//     and the credential in it.
func BenchmarkHotPath(b *testing.B) {
	refresher, ids := manyConnections(b, 10_000)
	requests := make([]*http.Request, len(ids))
	for i, id := range ids {
		requests[i] = sentRequest(b, clientKey+"."+id)
	}
	limits := proxy.Client{
		Integrations: []string{"acme"}, Users: []string{"u0", "u1"},
		Methods: []string{"GET"}, Paths: []string{"/user", "/repos/acme/*"},
	}
	for name, client := range map[string]proxy.Client{"any": {}, "limits": limits} {
		client.Key = guard.Key{Name: "app", Value: secret.New(clientKey)}
		h := hotHandler(b, refresher, client)
		for part, run := range map[string]func(*http.Request) error{"accept": h.Accept, "request": h.Prepare} {
			b.Run(part+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						if err := run(requests[i%len(requests)]); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

func hotHandler(b *testing.B, grants proxy.Grants, client proxy.Client) *proxy.Handler {
	b.Helper()
	api, err := url.Parse("https://api.test")
	if err != nil {
		b.Fatal(err)
	}
	up := &proxy.Upstream{Integration: "acme", API: api, Header: "Authorization", Prefix: "Bearer "}
	h, err := proxy.New(proxy.Config{
		Grants: grants, Audit: &fakeAudit{}, Clients: []proxy.Client{client},
		Upstream:  func(*tokenstore.Grant) (*proxy.Upstream, string) { return up, "" },
		Transport: http.DefaultTransport,
	})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

// manyConnections returns a Refresher that has used n connections already.
func manyConnections(b *testing.B, n int) (*refresh.Refresher, []string) {
	b.Helper()
	store := memstore.New()
	r := refresh.New(refresh.Config{
		Store: store, Logger: zap.NewNop(),
		Provider: func(string, map[string]string) (refresh.Provider, bool) { return nil, false },
	})
	b.Cleanup(func() { _ = r.Close(context.Background()) })
	ids := make([]string, n)
	for i := range ids {
		ids[i] = tokenstore.NewID()
		_, err := store.CreateConnection(b.Context(), tokenstore.Connection{
			ID: ids[i], Integration: "acme", UserID: "u" + string(rune('0'+i%2)), Status: tokenstore.StatusActive,
			Token: tokenstore.Token{
				AccessToken: secret.New("tok-" + strings.Repeat("t", 100)), RefreshToken: secret.New("rt"),
				IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Generation: 1,
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Find(b.Context(), ids[i]); err != nil {
			b.Fatal(err)
		}
	}
	return r, ids
}

// sentRequest is a request as a server reads it.
func sentRequest(b *testing.B, credential string) *http.Request {
	b.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET /repos/acme/x?page=2 HTTP/1.1\r\nHost: 127.0.0.1:9080\r\n" +
		"Authorization: Bearer " + credential + "\r\nAccept: application/json\r\nUser-Agent: bench/1\r\n" +
		"X-Request-Id: abcdef0123456789\r\nAccept-Language: en\r\n\r\n")))
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:40000"
	return r.WithContext(context.WithValue(b.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9080}))
}
