//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// withLimits runs the program with few file descriptors and little memory.
func withLimits(w *world, _ *fakeprovider.Config) {
	script := fmt.Sprintf("#!/bin/sh\nulimit -n 256\nexport GOMEMLIMIT=64MiB\nexec %q \"$@\"\n", w.bin)
	w.bin = w.path("limited")
	if err := os.WriteFile(w.bin, []byte(script), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

// F073: many more clients than file descriptors, and little memory. Whoever
// can't be served is told or turned away, and nothing is lost.
func TestMoreClientsThanDescriptors(t *testing.T) {
	const clients = 1000
	w := newWorld(t, withLimits)
	all := w.joinAll(10)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var served, refused, turnedAway atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		m := all[i%len(all)]
		wg.Go(func() {
			own := &http.Transport{} // a connection of its own, held to the end
			defer own.CloseIdleConnections()
			client := &http.Client{Transport: own, Timeout: 5 * time.Second}
			for range 3 {
				method, path := http.MethodGet, "/me"
				if i%50 == 0 {
					method, path = http.MethodPost, "/v1/connections/"+m.id+"/refresh"
				}
				req, err := http.NewRequestWithContext(ctx, method, w.proxyURL(path), nil)
				if err != nil {
					t.Error(err)
					return
				}
				if method == http.MethodPost {
					req.Header.Set("Authorization", "Bearer "+w.apiKey)
				} else {
					w.name(req, m.id)
				}
				res, err := client.Do(req)
				if err != nil {
					turnedAway.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				switch res.StatusCode {
				case http.StatusOK:
					served.Add(1)
				case http.StatusBadGateway, http.StatusServiceUnavailable:
					refused.Add(1)
				default:
					t.Errorf("%s %s: HTTP %d", method, path, res.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d served, %d refused, %d turned away", served.Load(), refused.Load(), turnedAway.Load())
	if served.Load() == 0 || refused.Load()+turnedAway.Load() == 0 {
		t.Error("want some requests to be served, and not all")
	}
	w.eventually("it has recovered", func() error { return w.wantReady(http.StatusOK) })
	for _, m := range all {
		m.told = w.connection(m.id).Generation
	}
	w.nothingLost(all)
	w.kill()
	w.start()
	w.nothingLost(all)
}
