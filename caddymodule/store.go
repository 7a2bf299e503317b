package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

const (
	// databaseWait is how long a start waits for a database that doesn't answer.
	// What supervises the process begins anew then.
	databaseWait  = 30 * time.Second
	databasePause = time.Second
)

// store is what an engine needs of what keeps its connections. One that is a
// database is tokenstore.Shared, too.
type store interface {
	tokenstore.Store
	SetCodec(codec tokenstore.Codec) error
	BeginRekey() error
	RekeyProgress() tokenstore.RekeyProgress
	Rekey(ctx context.Context, finish func() error) error
}

// openDirectory opens the store in the settings' directory.
func (e *engine) openDirectory(s *settings) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	warnOfOthers(s.dir, e.logger)
	var err error
	if e.keyset, err = ensureKeyset(s.dir, s.keyset, e.logger); err != nil {
		return err
	}
	if e.store, err = badgerstore.Open(s.dir, badgerstore.Config{Codec: e.keyset, Logger: e.logger}); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	// The store holds the directory's lock now.
	if err := removeTemporary(s.dir); err != nil {
		return errors.Join(fmt.Errorf("clearing the data directory: %w", err), e.store.Close())
	}
	return nil
}

// shared reports whether other Lanyards may work on the same store.
func (e *engine) shared() bool {
	_, ok := e.store.(tokenstore.Shared)
	return ok
}

// openDatabase opens the store in the settings' database. One that doesn't answer
// is waited for: machines start in any order.
func (e *engine) openDatabase(s *settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), databaseWait)
	defer cancel()
	e.keyset = s.keyset
	for {
		opened, err := pgstore.Open(ctx, s.database, pgstore.Config{Codec: s.keyset, Logger: e.logger})
		if err == nil {
			e.store = opened
			return nil
		}
		if !errors.Is(err, tokenstore.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("opening the store: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("opening the store: the database did not answer within %s: %w", databaseWait, err)
		case <-time.After(databasePause):
			e.logger.Warn("database does not answer, trying again", zap.Error(err))
		}
	}
}

// writable returns why the store can't be written, or nil.
func (e *engine) writable(ctx context.Context) error {
	if shared, ok := e.store.(*pgstore.Store); ok {
		if err := shared.CheckKeys(); err != nil {
			return err
		}
		// A database that can only be read finds what is not there just as well.
		owner := rand.Text()
		name := "ready/" + owner
		if err := shared.TakeLease(ctx, name, owner, time.Second); err != nil {
			return err
		}
		return shared.DropLease(ctx, name, owner)
	}
	// Changing what is not there goes all the way but for the write itself.
	_, err := e.store.UpdateConnection(ctx, "conn_none", func(*tokenstore.Connection) error { return nil })
	if errors.Is(err, tokenstore.ErrNotFound) {
		return nil
	}
	return err
}
