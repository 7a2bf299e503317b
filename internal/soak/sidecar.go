package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// sidecar is one place where the program runs, one life after the other.
type sidecar struct {
	*site
	host     string       // under which it asks the provider for tokens
	provider *http.Server // there
	open     atomic.Int64 // connections to that

	// Below is guarded by the world's mu.

	child *child
	// written is the latest begin of a write that was acknowledged, in this life
	// of the program.
	written time.Time
}

// newSidecar starts the provider's address for one sidecar. The program is not
// started yet.
func (w *world) newSidecar(ctx context.Context) (*sidecar, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the provider: %w", err)
	}
	car := &sidecar{host: l.Addr().String()}
	car.provider = &http.Server{
		Handler: w.fake, ReadHeaderTimeout: patience,
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				car.open.Add(1)
			case http.StateClosed, http.StateHijacked:
				car.open.Add(-1)
			default:
			}
		},
	}
	go func() { _ = car.provider.Serve(l) }() // ends with the world
	return car, nil
}

// shared reports whether several sidecars have one store.
func (w *world) shared() bool { return len(w.cars) > 1 }

// pick returns the sidecar that is asked next: one that is ready, if there is one.
func (w *world) pick() *sidecar {
	if !w.shared() {
		return w.cars[0]
	}
	first := w.chance.n(len(w.cars))
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.cars {
		car := w.cars[(first+i)%len(w.cars)]
		if car.child == nil || !car.child.up {
			continue
		}
		if _, dead := car.child.killed(); !dead {
			return car
		}
	}
	return w.cars[first]
}

// runningAt returns the program that runs at a sidecar, or ran there last.
func (w *world) runningAt(car *sidecar) *child {
	w.mu.Lock()
	defer w.mu.Unlock()
	return car.child
}

// carAt returns the sidecar that asks the provider for tokens at host.
func (w *world) carAt(host string) *sidecar {
	for _, car := range w.cars {
		if car.host == host {
			return car
		}
	}
	return w.cars[0]
}

// start starts the program at a sidecar and does not wait for it.
func (w *world) start(ctx context.Context, car *sidecar) (*child, error) {
	c, err := car.start(ctx)
	if err != nil {
		return nil, err
	}
	c.car = car
	w.mu.Lock()
	defer w.mu.Unlock()
	car.child, car.written = c, time.Time{}
	return c, nil
}

// startReady starts the program wherever it does not run, and waits until it can
// serve there.
func (w *world) startReady(ctx context.Context) error {
	began := time.Now()
	var started []*child
	for _, car := range w.cars {
		if c := w.runningAt(car); c != nil {
			if _, dead := c.killed(); !dead {
				continue
			}
		}
		c, err := w.start(ctx, car)
		if err != nil {
			return err
		}
		started = append(started, c)
	}
	for _, c := range started {
		if err := c.ready(ctx, w.client, c.car.proxyURL("/v1/health/ready")); err != nil {
			return err
		}
		w.mu.Lock()
		c.up = true
		w.mu.Unlock()
	}
	w.report.slowestStart = max(w.report.slowestStart, time.Since(began))
	return nil
}

func (s *site) proxyURL(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", s.Proxy, path)
}

// cutOffError is a request that got no whole answer.
type cutOffError struct {
	whom *child // who was asked
	err  error
}

func (e *cutOffError) Error() string { return e.err.Error() }

// asked says of whom an answer did not come. One that was waited for in vain ends
// the program with the stacks of its goroutines in output.log.
func asked(whom *child, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && whom != nil {
		_ = whom.cmd.Process.Signal(syscall.SIGABRT)
	}
	return &cutOffError{whom, err}
}

// excused reports whether an error that a program has answered is one that the
// database's failover is the reason of.
func (w *world) excused(a answer) bool {
	return w.fleet != nil && a.status == http.StatusServiceUnavailable && w.fleet.troubled()
}

// cutOff judges the error that ended a worker's step: only the death of the
// program is a good reason, and a database that is away.
func (w *world) cutOff(ctx context.Context, err error) {
	if wrong, ok := errors.AsType[*unexpectedError](err); ok {
		if !w.excused(wrong.got) {
			w.broken(kindOther, "%v", err)
		}
		return
	}
	cut, ok := errors.AsType[*cutOffError](err)
	if !ok || cut.whom == nil {
		w.broken(kindOther, "%v", err)
		return
	}
	select {
	case <-cut.whom.exited: // whether it was meant to is asked elsewhere
	case <-ctx.Done():
	case <-time.After(2 * time.Second): // a kill that has begun is over by then
		w.broken(kindOther, "a running program gave no answer: %v", err)
	}
}
