//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// How often each thing is done.
const (
	firstLookups  = 10_000  // of a store that was just opened
	inUse         = 100_000 // connections that are looked up while the store is warm, of which
	lookups       = 300_000 // so many are made, and the last third is measured
	usersInUse    = 1_000   // whose lists are asked for: once before it is measured
	inMemory      = 30_000  // connections, of 50,000 for which there is room
	hotLookups    = 1_000   // connections that are looked up again and again
	lists         = 3_000
	dueLooks      = 100
	writingTime   = 4 * time.Second
	manyWriters   = 128
	writingRounds = 3
)

// times are how long each of many took.
type times []time.Duration

// of returns the time that a share of them did not take longer than.
func (t times) of(share float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	slices.Sort(t)
	return t[int(share*float64(len(t)-1))]
}

func (t times) mean() time.Duration {
	sum := time.Duration(0)
	for _, d := range t {
		sum += d
	}
	return sum / time.Duration(max(len(t), 1))
}

// repeat calls do n times and returns how long each took.
func repeat(n int, do func() error) (times, error) {
	t := make(times, 0, n)
	for range n {
		began := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		t = append(t, time.Since(began))
	}
	return t, nil
}

// repeatWarm is repeat after as many calls that are not measured.
func repeatWarm(n int, do func() error) (times, error) {
	if _, err := repeat(n, do); err != nil {
		return nil, err
	}
	return repeat(n, do)
}

// someOf returns so many of the numbers below n, or all.
func someOf(n, count int) []int { return rand.Perm(n)[:min(n, count)] }

// inProcess is what was measured of a store in this process.
type inProcess struct {
	disk                 int64 // bytes
	opening              time.Duration
	first, warm          times // lookups in the store
	cached               time.Duration
	entry                int64 // bytes of a connection in memory
	byUser, byLabel      times
	newest               times
	idleLook, dueLook    time.Duration // one look of the keeper: nothing due; one in a hundred
	due                  int           // how many that is
	dueWalk              time.Duration // to read each of them
	one, many, yardstick float64       // durable writes a second
}

// measureStore measures the store in dir.
func measureStore(ctx context.Context, dir string, s sample) (m inProcess, err error) {
	if m.disk, err = diskOf(dir); err != nil {
		return m, err
	}
	began := time.Now()
	store, err := openStore(dir)
	if err != nil {
		return m, err
	}
	m.opening = time.Since(began)
	defer func() { err = errors.Join(err, store.Close()) }()
	for _, measure := range []func(context.Context, *badgerstore.Store, sample) error{
		m.lookups, m.lists, m.schedule,
		func(ctx context.Context, store *badgerstore.Store, s sample) error {
			return m.writes(ctx, store, s, dir)
		},
	} {
		if err := measure(ctx, store, s); err != nil {
			return m, err
		}
	}
	return m, nil
}

// atRest waits until a process has nothing to do any more, by the processor time it
// has used: a store is checked behind its start.
func atRest(ctx context.Context, used func() (time.Duration, error)) error {
	const look, little = 500 * time.Millisecond, 20 * time.Millisecond
	for before := -time.Hour; ; {
		now, err := used()
		if err != nil || now-before < little {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
}

// ownCPU returns the processor time that this process has used.
func ownCPU() (time.Duration, error) {
	var used syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), err
}

// diskOf returns the bytes that the files below dir take.
func diskOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512 // the unit of st_blocks
		}
		return err
	})
	return sum, err
}

func (m *inProcess) lookups(ctx context.Context, store *badgerstore.Store, s sample) error {
	look := func(n int, choose func() int) (times, error) {
		return repeat(n, func() error {
			_, err := store.Connection(ctx, s.id(choose()))
			return err
		})
	}
	some := someOf(s.n, inUse)
	first, err := look(firstLookups, func() int { return rand.IntN(s.n) })
	if err == nil {
		err = atRest(ctx, ownCPU)
	}
	if err == nil {
		m.warm, err = look(lookups, func() int { return some[rand.IntN(len(some))] })
	}
	if err != nil {
		return err
	}
	m.first, m.warm = first, m.warm[lookups*2/3:]
	making, _ := repeat(lookups/10, func() error { _ = s.id(rand.IntN(s.n)); return nil })
	for _, all := range []times{m.first, m.warm} {
		for i := range all { // but for the making of its ID
			all[i] -= making.mean()
		}
	}

	r := refresh.New(refresh.Config{Store: store})
	defer func() { _ = r.Close(ctx) }()
	ids := make([]string, min(hotLookups, s.n))
	for i := range ids {
		ids[i] = s.id(rand.IntN(s.n))
		if _, err := r.Find(ctx, ids[i]); err != nil {
			return err
		}
	}
	began := time.Now()
	for i := range lookups {
		if _, err := r.Find(ctx, ids[i%len(ids)]); err != nil {
			return err
		}
	}
	m.cached = time.Since(began) / lookups
	return m.memory(ctx, store, s)
}

// memory measures what a connection in memory takes.
func (m *inProcess) memory(ctx context.Context, store *badgerstore.Store, s sample) error {
	before := heap()
	r := refresh.New(refresh.Config{Store: store})
	defer func() { _ = r.Close(ctx) }()
	n := min(inMemory, s.n)
	for i := range n {
		if _, err := r.Find(ctx, s.id(i)); err != nil {
			return err
		}
	}
	m.entry = (heap() - before) / int64(n)
	runtime.KeepAlive(r)
	return nil
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func (m *inProcess) lists(ctx context.Context, store *badgerstore.Store, s sample) (err error) {
	users := someOf(s.users(), usersInUse)
	list := func(filter func(user int) tokenstore.Filter, limit, least int) (times, error) {
		return repeatWarm(lists, func() error {
			f := filter(users[rand.IntN(len(users))])
			page, _, err := store.ListConnections(ctx, f, "", limit)
			if err == nil && len(page) < least {
				err = fmt.Errorf("the list of %+v has %d, and should have %d", f, len(page), least)
			}
			return err
		})
	}
	m.byUser, err = list(func(user int) tokenstore.Filter { return tokenstore.Filter{UserID: userID(user)} }, 50, 3)
	if err != nil {
		return err
	}
	m.byLabel, err = list(func(user int) tokenstore.Filter {
		return tokenstore.Filter{Labels: map[string]string{"team": team(user)}}
	}, 50, 50)
	if err != nil {
		return err
	}
	m.newest, err = repeatWarm(lists, func() error {
		user := users[rand.IntN(len(users))]
		f := tokenstore.Filter{UserID: userID(user), Integration: integrationOf(user)}
		_, err := store.NewestConnection(ctx, f)
		return err
	})
	return err
}

// schedule measures the keeper's looks: now, when nothing is due, and when one
// connection in a hundred is.
func (m *inProcess) schedule(ctx context.Context, store *badgerstore.Store, s sample) error {
	idle, err := repeat(dueLooks, func() error {
		ids, err := store.DueConnections(ctx, s.at)
		if err == nil && len(ids) > 0 {
			err = fmt.Errorf("%d connections are due before their time", len(ids))
		}
		return err
	})
	if err != nil {
		return err
	}
	m.idleLook = idle.mean()
	began := time.Now()
	ids, err := store.DueConnections(ctx, s.dueBy(0.01))
	if err != nil {
		return err
	}
	m.dueLook, m.due = time.Since(began), len(ids)
	began = time.Now()
	for _, id := range ids {
		if _, err := store.Connection(ctx, id); err != nil {
			return err
		}
	}
	m.dueWalk = time.Since(began)
	return nil
}

// dueBy returns when about this share of all connections is due.
func (s sample) dueBy(share float64) time.Time {
	var due []time.Time
	looked := min(s.n, 30_000)
	for i := range looked {
		c := s.connection(i)
		if at := c.Due(); !at.IsZero() {
			due = append(due, at)
		}
	}
	slices.SortFunc(due, time.Time.Compare)
	return due[min(int(share*float64(looked)), len(due)-1)]
}

// writes measures durable writes of one and of many, and beside them as many
// writers to a Badger that syncs a transaction for each.
func (m *inProcess) writes(ctx context.Context, store *badgerstore.Store, s sample, dir string) error {
	update := func() error {
		i := rand.IntN(s.n)
		_, err := store.UpdateConnection(ctx, s.id(i), func(c *tokenstore.Connection) error {
			c.LastRefreshedAt = time.Now()
			return nil
		})
		return err
	}
	plain, err := newPlain(filepath.Join(dir, "yardstick"), s)
	if err != nil {
		return err
	}
	for range writingRounds {
		for _, w := range []struct {
			writers int
			write   func() error
			rate    *float64
		}{{1, update, &m.one}, {manyWriters, plain.write, &m.yardstick}, {manyWriters, update, &m.many}} {
			rate, err := rateOf(w.writers, w.write)
			if err != nil {
				return errors.Join(err, plain.remove())
			}
			*w.rate += rate / writingRounds
		}
	}
	return plain.remove()
}

// rateOf returns how many writes a second so many writers get done.
func rateOf(writers int, write func() error) (float64, error) {
	var mu sync.Mutex
	var failed error
	var count int
	var wg sync.WaitGroup
	began := time.Now()
	for range writers {
		wg.Go(func() {
			n, err := 0, error(nil)
			for ; err == nil && time.Since(began) < writingTime; n++ {
				err = write()
			}
			mu.Lock()
			defer mu.Unlock()
			count, failed = count+n, errors.Join(failed, err)
		})
	}
	wg.Wait()
	return float64(count) / time.Since(began).Seconds(), failed
}
