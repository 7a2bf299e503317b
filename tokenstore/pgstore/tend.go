package pgstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	// followEvery is how often the identity is looked at, which others may change,
	// and events get their numbers that nobody lists.
	followEvery = 5 * time.Second
	// forgetEvery is about how often what is past its time is removed: it is gone
	// for readers before.
	forgetEvery = time.Minute
	forgetBatch = 1000
)

// What is removed is past its time by an hour: the clocks of those who read it
// are not the database's.
var forgets = []string{
	`delete from lanyard_flows where id in (select id from lanyard_flows where keep_until < now() - interval '1 hour' limit $1)
		and keep_until < now() - interval '1 hour'`,
	`delete from lanyard_notes where id in (select id from lanyard_notes where keep_until < now() - interval '1 hour' limit $1)
		and keep_until < now() - interval '1 hour'`,
	`delete from lanyard_leases where name in (select name from lanyard_leases where until < now() - interval '1 hour' limit $1)
		and until < now() - interval '1 hour'`,
}

// tend does what has to be done from time to time, until ctx ends.
func (s *Store) tend(ctx context.Context) {
	follow := time.NewTicker(followEvery)
	defer follow.Stop()
	forget := time.NewTimer(rand.N(forgetEvery)) //nolint:gosec // no secret
	defer forget.Stop()
	for failing := false; ; {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-follow.C:
			s.sealer.mu.Lock()
			err = s.followIdentity(ctx)
			s.sealer.mu.Unlock()
			if err == nil {
				err = s.tellUnsure(ctx)
			}
			if err == nil {
				_, err = s.numbered(ctx)
			}
		case <-forget.C:
			s.recent.suspect() // for a database that went back without a word
			err = errors.Join(s.forget(ctx), s.compareClocks(ctx))
			forget.Reset(forgetEvery/2 + rand.N(forgetEvery)) //nolint:gosec // as above
		}
		if err != nil && ctx.Err() == nil && !failing { // once for each outage
			s.log.Warn("tending the database failed, trying again", zap.Error(err))
		}
		failing = err != nil
	}
}

// maxClock is by how much this machine's clock and the database's may differ.
const maxClock = 30 * time.Second

// compareClocks says so if the clocks differ: tokens and flows end by that of the
// machine, so that Lanyards take each other's for old.
func (s *Store) compareClocks(ctx context.Context) error {
	before := time.Now()
	times, err := query(ctx, s, pgx.RowTo[time.Time], `select clock_timestamp()`)
	if err != nil {
		return err
	}
	if d := times[0].Sub(before); d > maxClock+time.Since(before) || d < -maxClock {
		s.log.Error("this machine's clock and the database's differ, set both by NTP", zap.Duration("ahead", -d))
	}
	return nil
}

// forget removes what is past its time.
func (s *Store) forget(ctx context.Context) error {
	for _, sql := range forgets {
		for rows := int64(forgetBatch); rows == forgetBatch; {
			var err error
			if rows, err = s.exec(ctx, sql, forgetBatch); err != nil {
				return err
			}
		}
	}
	return nil
}
