package refresh_test

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// BenchmarkHotPath is what a proxied call costs before it is sent: finding the
// connection and its valid token, over 10,000 connections.
func BenchmarkHotPath(b *testing.B) {
	store := memstore.New()
	ids := make([]string, 10_000)
	for i := range ids {
		ids[i] = tokenstore.NewID()
		_, err := store.CreateConnection(b.Context(), tokenstore.Connection{
			ID: ids[i], Integration: "acme", UserID: "u", Status: tokenstore.StatusActive,
			Token: tokenstore.Token{AccessToken: secret.New("at"), RefreshToken: secret.New("rt"), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Generation: 1},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	r := refresh.New(refresh.Config{Store: store, Logger: zap.NewNop(), Provider: func(string, map[string]string) (refresh.Provider, bool) { return nil, false }})
	b.Cleanup(func() { _ = r.Close(b.Context()) })
	for _, id := range ids { // the first time each comes from the store
		if _, err := r.Find(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			g, err := r.Find(b.Context(), ids[i%len(ids)])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.Token(b.Context(), g); err != nil {
				b.Fatal(err)
			}
		}
	})
}
