package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// defaultConns leaves room for ten processes in PostgreSQL's default of 100.
	defaultConns = 8
	// connectTimeout is how long one host is waited for, unless the DSN says it.
	connectTimeout = 2 * time.Second
	pingTimeout    = time.Second
)

// errDSN says nothing of what it could not read: there is a password in it.
var errDSN = errors.New("the database's URL can't be read: it has to look like " +
	"postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full, with all that is special in them percent-encoded")

// newPool returns a pool of connections, none of which is made yet. connected is
// called after each that is, unless it is nil.
func newPool(ctx context.Context, dsn secret.String, connected func()) (*pgxpool.Pool, error) {
	cfg, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	if !sized(dsn) {
		cfg.MaxConns = defaultConns
	}
	if cfg.PingTimeout == 0 {
		cfg.PingTimeout = pingTimeout
	}
	cfg.AfterConnect = func(context.Context, *pgx.Conn) error {
		if connected != nil {
			connected()
		}
		return nil
	}
	conn := cfg.ConnConfig
	// No prepared statements, which a pooler's next transaction would not find.
	conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	if conn.ValidateConnect == nil {
		// A standby refuses writes: better no connection than one to it.
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "lanyard"
	}
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	return pool, nil
}

// sized reports whether dsn, which can be parsed, says how many connections there
// may be.
func sized(dsn secret.String) bool {
	cfg, err := pgx.ParseConfig(dsn.Reveal())
	return err == nil && cfg.RuntimeParams["pool_max_conns"] != ""
}

func parse(dsn secret.String) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(dsn.Reveal())
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("reading a file that the database's URL names: %w", file)
	}
	if err != nil {
		return nil, errDSN // err repeats what may be a password
	}
	return cfg, nil
}
