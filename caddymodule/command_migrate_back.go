package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// toBadger moves the store in the database, which all Lanyards on it have frozen
// by themselves then.
func (m *migration) toBadger(ctx context.Context) (err error) {
	from, err := pgstore.Open(ctx, m.dsn, pgstore.Config{Codec: m.keys})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	token := rand.Text()
	if err := from.BeginFreeze(ctx, token); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.thawDatabase(ctx, from, token))
		}
	}()
	ctx, gone := m.keepFrozen(ctx, func(ctx context.Context) error { return from.KeepFrozen(ctx, token) })
	defer gone()
	if err := m.waitForOthers(ctx, from); err != nil {
		return err
	}
	if err := from.Freeze(ctx, token); err != nil {
		return err
	}
	m.print.say("No Lanyard on the database writes from now on.")
	records := from.Records(ctx)
	n, err := m.load(records, func(check checker) error { //nolint:contextcheck // records end with ctx
		return badgerstore.Load(m.dir, m.keys, m.showing("written", records), check)
	})
	if err != nil {
		return emptyFirst(err, "there is a store in the directory: give another one with --data")
	}
	to := "Badger in " + m.dir
	if err := from.Moved(ctx, token, to); err != nil {
		return errors.Join(err, badgerstore.DropLoad(m.dir, m.keys))
	}
	gone()
	if err := badgerstore.EndLoad(m.dir, m.keys); err != nil {
		return err
	}
	return m.report(n, to, "Stop all Lanyards on the database, which go on serving valid tokens until then. Put this in the place of the option\n"+
		"`store` of one of them, and start it:\n\n\tstore badger "+shownDir(m.dir)+"\n")
}

func (m *migration) thawDatabase(ctx context.Context, from *pgstore.Store, token string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWait)
	defer cancel()
	if err := from.Thaw(ctx, token); err != nil {
		return fmt.Errorf("the database takes writes again in a minute only: %w", err)
	}
	m.print.say("Nothing was moved, and the database takes writes again.")
	return nil
}

// waitForOthers waits until all Lanyards have learned that the store is moved, and
// no request is under way whose answer has to be written.
func (m *migration) waitForOthers(ctx context.Context, from *pgstore.Store) error {
	show := newProgress()
	defer show.end()
	began := time.Now()
	for {
		n, err := underWay(ctx, from)
		if err != nil {
			return err
		}
		if n == 0 && time.Since(began) >= noticeWait {
			return nil
		}
		if time.Since(began) > endingWait {
			return fmt.Errorf("%d refreshes or code exchanges do not end", n)
		}
		show.show("waiting for %d refreshes and code exchanges under way", n)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// underWay returns how many requests to providers may be under way.
func underWay(ctx context.Context, from *pgstore.Store) (n int, err error) {
	taken, err := from.TakenFlows(ctx)
	if err != nil {
		return 0, err
	}
	n = len(taken)
	// What was begun is due at the end of its request.
	ids, err := from.DueConnections(ctx, time.Now().Add(endingWait))
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		c, err := from.Connection(ctx, id)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound):
		case err != nil:
			return 0, err
		case c.Intent != nil && c.Intent.Answer == nil && c.Intent.Deadline.After(time.Now()):
			n++
		}
	}
	return n, nil
}
