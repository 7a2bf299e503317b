package connect_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// linked is what the link of an app says that names all it can.
func linked() connect.Params {
	return connect.Params{
		Integration: "github", UserID: "user-1", Scopes: []string{"read", "write"}, RedirectURL: appURL,
		State: "9f1c2d3e4b5a69788796a5b4c3d2e1f0", ConnectionName: "Acme's GitHub", Labels: map[string]string{"plan": "pro"},
	}
}

// BenchmarkVerifyLink is the cost of checking a connect link and of reading what
// it says, where the app's key is the only one, and where it is the last of three.
func BenchmarkVerifyLink(b *testing.B) {
	for _, keys := range [][]string{{apiKey}, {"one", "another", apiKey}} {
		b.Run(fmt.Sprintf("keys=%d", len(keys)), func(b *testing.B) {
			now := time.Now()
			_, query, _ := strings.Cut(signer(public, apiKey).Sign(linked(), now.Add(time.Hour)), "?")
			s := signer(public, keys...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Verify(query, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefusedLink is what a link costs that somebody made up: nothing is
// read of it.
func BenchmarkRefusedLink(b *testing.B) {
	now := time.Now()
	_, query, _ := strings.Cut(signer(public, "another key").Sign(linked(), now.Add(time.Hour)), "?")
	s := signer(public, apiKey)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(query, now); err == nil {
			b.Fatal("it is taken for a link")
		}
	}
}

// forgetful is a store that keeps no flow: its cost is its own benchmark's.
type forgetful struct{ tokenstore.Store }

func (forgetful) CreateFlow(context.Context, tokenstore.Flow) error { return nil }

// BenchmarkStart is the cost of a whole GET of a connect link, up to the redirect
// to the provider, but for the store's and the provider's parts.
func BenchmarkStart(b *testing.B) {
	bench := newBench(b, func(bench *bench) {
		bench.cfg.Logger = zap.NewNop()
		bench.store = forgetful{bench.mem}
	})
	expires := time.Now().Add(time.Hour)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		p := linked()
		p.UserID = "user-" + strconv.Itoa(n) // a user begins few flows at once
		n++
		r := httptest.NewRequest(http.MethodGet, bench.signer.Sign(p, expires), nil)
		w := httptest.NewRecorder()
		b.StartTimer()
		bench.h.ServeHTTP(w, r)
		if w.Code != http.StatusSeeOther {
			b.Fatalf("GET = %d %s", w.Code, w.Body)
		}
	}
}
