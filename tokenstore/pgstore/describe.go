package pgstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Description is what can be learned of a database that nothing is changed in.
type Description struct {
	Place   string        // its address and name, without user and password
	Server  string        // which database it is, and which version of it
	Latency time.Duration // of a round trip
	Clock   time.Duration // by how much it is ahead of this machine's
	// ReadOnly says that nothing can be written: it is a standby, or was made so.
	ReadOnly bool
	// Encrypted says that nobody on the way can read along: there is TLS, or no way.
	Encrypted bool
	// Pooled says that something such as PgBouncer stands between.
	Pooled bool
	// Durable says that a change which was confirmed survives a crash of the server.
	Durable bool
	// Synchronous says how a confirmed change comes to be on another server, too,
	// as far as the database knows. It is empty if it does not.
	Synchronous string
	Schema      int  // the version of the tables, 0 if there are none
	Newest      int  // the newest that this Lanyard knows
	Usable      bool // by this Lanyard
}

// latencySamples are how many round trips are timed. The shortest counts.
const latencySamples = 5

// Describe looks at a database, whether Lanyard's tables are in it or not, with
// one connection and until ctx ends. Its errors don't repeat the DSN.
func Describe(ctx context.Context, dsn secret.String) (d Description, err error) {
	pool, err := parse(dsn)
	if err != nil {
		return d, fmt.Errorf("pgstore: %w", err)
	}
	cfg := pool.ConnConfig
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return d, fmt.Errorf("pgstore: connecting: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	network := conn.PgConn().Conn()
	_, encrypted := network.(*tls.Conn)
	addr := network.RemoteAddr()
	d.Place, d.Encrypted = addr.String()+"/"+cfg.Database, encrypted || nearby(addr)
	for range latencySamples {
		var now time.Time
		before := time.Now()
		if err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
			return d, fmt.Errorf("pgstore: asking for the time: %w", err)
		}
		if took := time.Since(before); d.Latency == 0 || took < d.Latency {
			d.Latency, d.Clock = took, now.Sub(before.Add(took/2))
		}
	}
	if err := d.readSettings(ctx, conn); err != nil {
		return d, fmt.Errorf("pgstore: reading the server's settings: %w", err)
	}
	version, err := readVersion(ctx, conn, selectVersion)
	if err != nil {
		return d, fmt.Errorf("pgstore: looking for the tables: %w", err)
	}
	d.Schema, d.Newest, d.Usable = version.newest, newestVersion, version.usable() == nil
	return d, nil
}

// Check returns why a DSN can't be used, or nil. It reads the files that the DSN
// names, and asks nobody.
func Check(dsn secret.String) error {
	_, err := parse(dsn)
	return err
}

// nearby reports whether an address is on this machine.
func nearby(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

func (d *Description) readSettings(ctx context.Context, conn *pgx.Conn) error {
	var version, readOnly, commit, standbys, fsync string
	var pid uint32
	err := conn.QueryRow(ctx, `select version(), pg_backend_pid(),
		coalesce(current_setting('transaction_read_only', true), ''), coalesce(current_setting('synchronous_commit', true), ''),
		coalesce(current_setting('synchronous_standby_names', true), ''), coalesce(current_setting('fsync', true), '')`).
		Scan(&version, &pid, &readOnly, &commit, &standbys, &fsync)
	if err != nil {
		return err
	}
	words := strings.Fields(version)
	d.Server = strings.Join(words[:min(2, len(words))], " ")
	d.ReadOnly = readOnly == "on"
	if strings.Contains(version, "CockroachDB") || strings.Contains(version, "-YB-") {
		// They answer for settings that mean nothing to them.
		d.Durable, d.Synchronous = true, "by its consensus"
		return nil
	}
	d.Pooled = pid != conn.PgConn().PID()
	d.Durable = cmp.Or(commit, "on") != "off" && cmp.Or(fsync, "on") == "on"
	if standbys != "" && d.Durable && commit != "local" {
		d.Synchronous = "synchronous_standby_names is " + standbys
	}
	return nil
}
