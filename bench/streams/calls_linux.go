package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func somewhere(within time.Duration) time.Duration { return rand.N(within) }

// makeCall makes one call and looks at its answer.
func (p *proxy) makeCall(ctx context.Context, rt http.RoundTripper, n int, takes time.Duration) error {
	res, err := rt.RoundTrip(p.request(ctx, "/call", fmt.Sprintf("ms=%d&seq=%d", takes.Milliseconds(), n), n))
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || !bytes.Equal(body, answerTo(n))) {
		err = fmt.Errorf("HTTP %d: %.100q", res.StatusCode, body)
	}
	return err
}

// slowCalls are calls that take their time.
type slowCalls struct {
	rt    *http.Transport
	work  sync.WaitGroup
	right atomic.Int64
	mu    sync.Mutex
	first error // guarded by mu
}

// startSlow begins the calls of these numbers, 5,000 a second. Each has a
// connection of its own.
func startSlow(ctx context.Context, p *proxy, from, to int, takes time.Duration) *slowCalls {
	s := &slowCalls{rt: &http.Transport{MaxIdleConnsPerHost: 1}}
	for i := from; i < to; i++ {
		s.work.Go(func() {
			err := p.makeCall(ctx, s.rt, i, takes)
			if err == nil {
				s.right.Add(1)
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.first == nil {
				s.first = err
			}
		})
		if i%50 == 49 {
			sleep(ctx, 10*time.Millisecond)
		}
	}
	return s
}

// wait waits for all and returns how many were answered right, and why the
// first was not.
func (s *slowCalls) wait() (int, error) {
	s.work.Wait()
	s.rt.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.right.Load()), s.first
}

// fastCalls come at a fixed rate, whatever becomes of those before.
type fastCalls struct {
	cancel context.CancelFunc
	rt     *http.Transport
	work   sync.WaitGroup

	mu sync.Mutex // guards what follows
	fastResult
}

// fastResult is what became of them.
type fastResult struct {
	took   []time.Duration // from when it was due
	failed int
	again  int // sent once more, see call
	first  error
}

func startFast(ctx context.Context, p *proxy) *fastCalls {
	ticking, cancel := context.WithCancel(ctx)
	f := &fastCalls{cancel: cancel, rt: &http.Transport{MaxIdleConnsPerHost: 100}}
	f.work.Go(func() {
		next := time.Now()
		for n := 0; ticking.Err() == nil; n++ {
			sleep(ticking, time.Until(next))
			due := next
			next = next.Add(time.Second / fastRate)
			f.work.Go(func() { f.call(ctx, p, n, due) })
		}
	})
	return f
}

// call makes one call. Go's HTTP server, and so Caddy's, closes a connection
// whose first request it reads just as it shuts down, unserved. Nothing was
// done of it, so the call is made once more, as HTTP clients do on connections
// that they keep.
func (f *fastCalls) call(ctx context.Context, p *proxy, n int, due time.Time) {
	err := p.makeCall(ctx, f.rt, n, 0)
	again := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	if again {
		err = p.makeCall(ctx, f.rt, n, 0)
	}
	took := time.Since(due)
	f.mu.Lock()
	defer f.mu.Unlock()
	if again {
		f.again++
	}
	if err == nil {
		f.took = append(f.took, took)
		return
	}
	f.failed++
	if f.first == nil {
		f.first = err
	}
}

// stop waits for those under way.
func (f *fastCalls) stop() fastResult {
	f.cancel()
	f.work.Wait()
	f.rt.CloseIdleConnections()
	return f.fastResult
}
