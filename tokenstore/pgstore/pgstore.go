// Package pgstore is the tokenstore.Store for more than one machine: PostgreSQL,
// or a database that speaks as it does. It uses plain SQL alone, each statement
// of which is whole by itself or in a short transaction, so that a pooler may
// give every transaction another connection, and distributed databases take it.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// ErrVersion is returned by Open when the tables are of a newer version of
// Lanyard, which this one must not use.
var ErrVersion = errors.New("the database's tables are of a newer Lanyard")

// ErrIncomplete is returned by Open when the tables have connections and no
// identity: something of them was lost.
var ErrIncomplete = errors.New("the store is incomplete")

// Config is what Open needs.
type Config struct {
	// Codec seals the records. Required.
	Codec tokenstore.Codec
	// Logger gets what is found out about damaged records and about the database.
	// Default: none.
	Logger *zap.Logger
}

// Store implements tokenstore.Shared on PostgreSQL.
type Store struct {
	pool   *pgxpool.Pool
	log    *zap.Logger
	keys   keyMaker
	sealer sealer
	damage damage
	turns  turns
	recent *recent
	unsure unsure
	// maxEvents is tokenstore.MaxEvents, but in tests.
	maxEvents uint64

	rekeying rekeying
	// settle is how long a write may be under way that a codec has sealed:
	// writeFor, but in tests.
	settle time.Duration

	stop context.CancelFunc // ends tend
	wg   sync.WaitGroup
}

var _ tokenstore.Shared = (*Store)(nil)

// Open opens the store in the database that dsn names, a URL or the key=value
// pairs of libpq, and makes its tables if they are not there; several may do that
// at the same time. Several hosts may be named: the one that takes writes is used.
// The tables are those of the first schema in the search path, with names that
// begin with lanyard_. At most 8 connections are used, or pool_max_conns of dsn.
//
// Open changes nothing if the keyset is not the store's (an error that wraps
// tokenstore.ErrKeyMissing), if the tables are of a newer Lanyard that does not
// let this one use them (ErrVersion), or if there are records and no identity
// (ErrIncomplete). A database that can't be asked is tokenstore.ErrUnavailable: it
// is tried for some seconds. No error has anything of dsn but host, user and the
// database's name.
//
// A store that was moved to another place does not open (tokenstore.ErrMoved), nor
// does one that is being moved to here (ErrLoading).
func Open(ctx context.Context, dsn secret.String, cfg Config) (*Store, error) {
	s, err := open(ctx, dsn, cfg, false)
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, dsn secret.String, cfg Config, loading bool) (*Store, error) {
	if cfg.Codec == nil {
		return nil, errors.New("no codec to seal records with")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	remembered := new(recent)
	pool, err := newPool(ctx, dsn, remembered.suspect)
	if err != nil {
		return nil, err
	}
	s := &Store{pool: pool, recent: remembered, log: cfg.Logger, turns: newTurns(), maxEvents: tokenstore.MaxEvents, settle: writeFor}
	err = s.open(ctx, cfg.Codec)
	if err == nil && !loading {
		err = s.checkMove(ctx)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	tending, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.wg.Go(func() { s.tend(tending) })
	return s, nil
}

// openFor bounds all that Open does: making the tables may wait for others.
const openFor = 30 * time.Second

// open looks before it changes anything.
func (s *Store) open(ctx context.Context, codec tokenstore.Codec) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openFor, errNoAnswer)
	defer cancel()
	version, err := s.schemaVersion(ctx)
	if err == nil {
		err = version.usable()
	}
	if err == nil && version.newest > 0 {
		_, err = s.findIdentity(ctx, codec)
		if errors.Is(err, tokenstore.ErrNotFound) {
			err = nil
		}
	}
	if err == nil && version.newest < newestVersion {
		err = s.migrate(ctx)
	}
	if err == nil {
		err = s.prepareIdentity(ctx, codec)
	}
	return err
}

// Close implements tokenstore.Store.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	s.pool.Close()
	return nil
}
