package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// How long, and by how many at a time.
const (
	callTime    = 4 * time.Second
	refreshTime = 5 * time.Second
	warmTime    = time.Second // of each, before it is measured
	idleTime    = 10 * time.Second
	lateCount   = 12 * time.Second // a session of PostgreSQL's may tell what it did 10 s later
	callers     = 63               // a third of them at each of three
	refreshers  = 64
)

// figures are what one round gave. Times are in seconds.
type figures struct {
	calls, callCPU        float64         // a second; all Lanyards' for 100,000
	refreshes, refreshCPU float64         // a second; all Lanyards' for 1,000
	databaseCPU, wal      float64         // PostgreSQL's for 1,000 refreshes; bytes of one
	commits               float64         // a second of an idle Lanyard
	memory                float64         // bytes of a Lanyard, the mean of all
	seen                  []time.Duration // from a deletion's answer until each of the others refuses calls
}

// measure measures n Lanyards, with more in the first round: what comes out the
// same each time, and takes long.
func (b *bench) measure(ctx context.Context, n int, first bool) (f figures, err error) {
	running, err := b.start(ctx, n)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, stopAll(running)) }()
	if err := b.useAll(ctx, running); err != nil {
		return f, err
	}
	parts := []func(context.Context, []*lanyard, *figures) error{b.calls, b.refreshes}
	if first {
		parts = append(parts, b.deletions, b.idle)
	}
	for _, measure := range parts {
		if err := measure(ctx, running, &f); err != nil {
			return f, err
		}
	}
	return f, nil
}

// useAll has each Lanyard called for each connection.
func (b *bench) useAll(ctx context.Context, running []*lanyard) error {
	const workers = 16
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < called*len(running) && errs[w] == nil; i += workers {
				errs[w] = running[i/called].mustServe(ctx, b.called()[i%called])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// calls measures proxied calls, and the memory behind them.
func (b *bench) calls(ctx context.Context, running []*lanyard, f *figures) error {
	if _, _, err := b.wrk(ctx, running, warmTime); err != nil {
		return err
	}
	before, err := usedCPU(running)
	if err != nil {
		return err
	}
	calls, took, err := b.wrk(ctx, running, callTime)
	if err != nil {
		return err
	}
	after, err := usedCPU(running)
	if err != nil {
		return err
	}
	f.calls, f.callCPU = calls/took.Seconds(), (after-before).Seconds()/calls*100_000
	for _, l := range running {
		m, err := l.child.Memory()
		if err != nil {
			return err
		}
		f.memory += float64(m.RSS) / float64(len(running))
	}
	return nil
}

// refreshes measures how many tokens are renewed where many are to be.
func (b *bench) refreshes(ctx context.Context, running []*lanyard, f *figures) error {
	if _, _, err := b.refresh(ctx, running, warmTime); err != nil {
		return err
	}
	before, err := b.cost(ctx, running)
	if err != nil {
		return err
	}
	refreshes, took, err := b.refresh(ctx, running, refreshTime)
	if err != nil {
		return err
	}
	after, err := b.cost(ctx, running)
	if err != nil {
		return err
	}
	f.refreshes = refreshes / took.Seconds()
	f.refreshCPU = (after.lanyards - before.lanyards).Seconds() / refreshes * 1000
	f.databaseCPU = (after.database - before.database).Seconds() / refreshes * 1000
	f.wal = (after.wal - before.wal) / refreshes
	return nil
}

// A cost is what all have used since they were started.
type cost struct {
	lanyards, database time.Duration // of the processors
	wal                float64       // bytes
}

func (b *bench) cost(ctx context.Context, running []*lanyard) (c cost, err error) {
	if c.wal, err = b.database.written(ctx); err != nil {
		return c, err
	}
	if c.database, err = b.database.child.CPU(); err != nil {
		return c, err
	}
	c.lanyards, err = usedCPU(running)
	return c, err
}

func usedCPU(running []*lanyard) (sum time.Duration, err error) {
	for _, l := range running {
		used, err := l.child.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// refresh has tokens renewed for a while, each connection's by one worker. Each
// answer has to tell of another credential than the last.
func (b *bench) refresh(ctx context.Context, running []*lanyard, length time.Duration) (done float64, took time.Duration, err error) {
	var count atomic.Int64
	errs := make([]error, refreshers)
	began := time.Now()
	var wg sync.WaitGroup
	for w := range refreshers {
		wg.Go(func() {
			l, last := running[w%len(running)], map[string]int{}
			for i := w; time.Since(began) < length && errs[w] == nil; i += refreshers {
				id := b.refreshed()[i%(refreshed/refreshers*refreshers)].id
				var answer struct{ Generation int }
				errs[w] = l.manage(ctx, http.MethodPost, "/v1/connections/"+id+"/refresh", &answer)
				if errs[w] == nil && answer.Generation <= last[id] {
					errs[w] = fmt.Errorf("a refresh left the generation at %d", answer.Generation)
				}
				last[id] = answer.Generation
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()), time.Since(began), errors.Join(errs...)
}

// deletions measures when the others know what one has deleted.
func (b *bench) deletions(ctx context.Context, running []*lanyard, f *figures) error {
	if len(running) == 1 {
		return nil
	}
	others := running[1:]
	for i := range deletions {
		c := b.samples[called+i]
		for _, l := range others {
			if err := l.mustServe(ctx, c); err != nil {
				return err
			}
		}
		time.Sleep(rand.N(time.Second)) // at any point between two of their looks
		if err := running[0].manage(ctx, http.MethodDelete, "/v1/connections/"+c.id, nil); err != nil {
			return err
		}
		deleted := time.Now()
		seen, errs := make([]time.Duration, len(others)), make([]error, len(others))
		var wg sync.WaitGroup
		for n, l := range others {
			wg.Go(func() {
				status := http.StatusOK
				for errs[n] == nil && status == http.StatusOK && time.Since(deleted) < time.Minute {
					time.Sleep(time.Millisecond)
					status, errs[n] = l.call(ctx, c)
				}
				seen[n] = time.Since(deleted)
				if errs[n] == nil && status != http.StatusNotFound {
					errs[n] = fmt.Errorf("a call for a deleted connection was answered with %d", status)
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		f.seen = append(f.seen, seen...)
	}
	return nil
}

// idle measures what Lanyards ask that have nothing to do.
func (b *bench) idle(ctx context.Context, running []*lanyard, f *figures) error {
	time.Sleep(lateCount)
	before, err := b.database.commits(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(idleTime)
	after, err := b.database.commits(ctx)
	f.commits = (after - before) / time.Since(began).Seconds() / float64(len(running))
	return err
}

var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 128, DisableCompression: true}}

// send sends a request and returns the status of its answer, whose JSON goes
// into answer, unless that is nil.
func send(ctx context.Context, method, url, key string, answer any) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	if answer != nil && resp.StatusCode == http.StatusOK {
		return resp.StatusCode, json.Unmarshal(body, answer)
	}
	return resp.StatusCode, nil
}

// call sends a call for a connection.
func (l *lanyard) call(ctx context.Context, c connection) (status int, err error) {
	return send(ctx, http.MethodGet, "http://"+l.proxy+c.path(), clientKey+"."+c.id, nil)
}

func (l *lanyard) mustServe(ctx context.Context, c connection) error {
	status, err := l.call(ctx, c)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answered %d to a call for the connection %d", l.child.Name, status, c.number)
	}
	return err
}

// manage sends a request to the API, which has to do what is asked.
func (l *lanyard) manage(ctx context.Context, method, path string, answer any) error {
	status, err := send(ctx, method, "http://"+l.api+path, apiKey, answer)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answered %d to %s %s", l.child.Name, status, method, path)
	}
	return err
}
