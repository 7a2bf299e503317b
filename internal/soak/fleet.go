package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

// The times of several sidecars on one database.
const (
	// spread is how long a sidecar may take to learn of what another has written.
	spread = 1500 * time.Millisecond
	// recovery is how long after a failover programs may still say that the
	// database is away.
	recovery = 5 * time.Second
	// namedShared is as named: what a dead sidecar had begun others take up only
	// after its leases have ended.
	namedShared = 75 * time.Second
	// campaign is after how many kills the load stops, and all is judged.
	campaign = 10
)

// fleet is what several sidecars have in common. The nil fleet is that of one.
type fleet struct {
	pair     *pgtest.Pair
	database string

	mu       sync.Mutex      // guards all below
	away     time.Time       // when the database was last seen to go; zero: never
	back     time.Time       // when it was there again; zero while it is away
	suspects map[string]bool // accounts whose refresh was under way at a kill
}

// buildFleet starts the database and configures the sidecars.
func (w *world) buildFleet(ctx context.Context) error {
	pair, err := pgtest.StartPair(pgtest.Synchronous)
	if err != nil {
		return fmt.Errorf("starting the database: %w", err)
	}
	w.fleet = &fleet{pair: pair, suspects: map[string]bool{}}
	if w.fleet.database, err = pair.Primary.CreateDatabase(); err != nil {
		return fmt.Errorf("starting the database: %w", err)
	}
	keyset, err := w.site.keygen(ctx)
	if err != nil {
		return err
	}
	for i := range w.cfg.sidecars {
		car, err := w.newSidecar(ctx)
		if err != nil {
			return err
		}
		s := *w.site
		if i > 0 {
			if err := s.choosePorts(ctx); err != nil {
				return err
			}
		}
		s.Public, s.Tokens, s.Dir = w.site.Public, "http://"+car.host, filepath.Join(w.cfg.dir, strconv.Itoa(i+1))
		s.Database, s.database, s.keyset = true, pair.DSN(w.fleet.database), keyset
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return fmt.Errorf("making a directory: %w", err)
		}
		car.site = &s
		if err := s.write(); err != nil {
			return err
		}
		w.cars = append(w.cars, car)
	}
	return nil
}

// named is how long after a start what can't be recovered may go unnamed.
func (w *world) named() time.Duration {
	if w.shared() {
		return namedShared
	}
	return named
}

func (f *fleet) spread() time.Duration {
	if f == nil {
		return 0
	}
	return spread
}

// suspect notes that a refresh of a grant was under way at a kill: until that is
// judged its calls wait, or are told so.
func (f *fleet) suspect(l fakeprovider.Ledger, grant string) {
	if f == nil {
		return
	}
	if g, ok := l.Grant(grant); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.suspects[g.User.Name] = true
	}
}

func (f *fleet) suspected(account string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.suspects[account]
}

// troubled reports whether the database is away, or was just now.
func (f *fleet) troubled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.away.IsZero() && (f.back.IsZero() || time.Since(f.back) < recovery)
}

// unsaved reports whether what was answered at a time may not have been stored
// yet at a kill, since the database was away in between.
func (w *world) unsaved(answered, killed time.Time) bool {
	f := w.fleet
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.away.IsZero() && answered.After(f.away.Add(-answerWindow)) &&
		(f.back.IsZero() || answered.Before(f.back.Add(answerWindow)) && killed.Before(f.back.Add(recovery)))
}

// failover kills the database and has its standby take over.
func (w *world) failover() error {
	f := w.fleet
	f.mu.Lock()
	f.away, f.back = time.Now(), time.Time{}
	f.mu.Unlock()
	if err := f.pair.Failover(); err != nil {
		return fmt.Errorf("failing over: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.back = time.Now()
	w.report.failovers++
	return nil
}

// doCampaign kills sidecars and databases under load, and judges it all once
// everything is up again.
func (w *world) doCampaign(ctx context.Context) error {
	done := make(chan struct{})
	load := w.load(ctx, done)
	err := w.strikes(ctx)
	close(done)
	load.Wait()
	if err != nil || ctx.Err() != nil {
		return err
	}
	// What was told to nobody else yet is told by then.
	select {
	case <-time.After(spread):
	case <-ctx.Done():
		return nil
	}
	if err := w.judge(ctx); err != nil {
		if ctx.Err() == nil {
			w.broken(kindOther, "after the kills: %v", err)
		}
		return ctx.Err()
	}
	// Whatever was answered was found to be stored.
	w.mu.Lock()
	maps.DeleteFunc(w.tokens, func(_ string, r request) bool { return r.stage == fakeprovider.Answered })
	w.mu.Unlock()
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	clear(w.fleet.suspects)
	return nil
}

// strikes are the kills of one campaign.
func (w *world) strikes(ctx context.Context) error {
	for range campaign {
		if w.round >= w.cfg.rounds || ctx.Err() != nil {
			return nil //nolint:nilerr // an end that was asked for
		}
		w.mu.Lock()
		w.round++
		w.mu.Unlock()
		// The failovers are spread over all rounds. Every other one hits while a
		// sidecar is dead.
		due := w.round*w.cfg.failovers/w.cfg.rounds > w.report.failovers
		early := due && w.report.failovers%2 == 0
		if early {
			if err := w.failover(); err != nil {
				return err
			}
		}
		c, err := w.shoot(ctx)
		if err != nil {
			return err
		}
		if due && !early {
			if err := w.failover(); err != nil {
				return err
			}
		}
		if err := w.bury(c); err != nil || ctx.Err() != nil {
			return err
		}
		if err := w.startReady(ctx); err != nil {
			if ctx.Err() == nil {
				w.broken(kindOther, "%v", err)
			}
			return ctx.Err()
		}
		if due {
			if err := w.fleet.pair.Rebuild(); err != nil {
				return fmt.Errorf("rebuilding the standby: %w", err)
			}
		}
		if w.failed() {
			return nil
		}
	}
	return nil
}

// shoot kills one sidecar: who sends the request that is aimed at, or any.
func (w *world) shoot(ctx context.Context) (*child, error) {
	s := w.nextShot()
	for s.lose || s.again || s.exchange && w.cfg.tenders == 0 {
		s = w.nextShot()
	}
	w.mu.Lock()
	w.shot = s
	w.mu.Unlock()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(s.after)
	for {
		for _, car := range w.cars {
			c := w.runningAt(car)
			_, dead := c.killed()
			if !dead && time.Now().Before(deadline) {
				continue
			}
			if !dead {
				c = w.runningAt(w.cars[w.schedule.n(len(w.cars))])
				c.kill()
				s.name = "random"
			}
			<-c.exited
			if !c.byKill() {
				w.broken(kindOther, "the program ended by itself: %v", c.err)
			}
			w.report.kills[s.name]++
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("given up: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
