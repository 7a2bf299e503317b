package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// slowDatabase is how long a round trip may take: a refresh waits for a few.
const slowDatabase = 20 * time.Millisecond

// checkDatabase looks at what a store in PostgreSQL needs of the configuration.
func (d *doctor) checkDatabase() {
	d.checkKeyset("")
	place, c := d.at("store"), d.app.Store
	if len(d.app.APIKeys) == 0 {
		d.problem("keys", "key_missing", d.at(), "there is no api_key, which PostgreSQL requires: every Lanyard needs the same", "make one with `openssl rand -hex 32`, and write `api_key {env.LANYARD_API_KEY}`")
	}
	if len(d.app.Clients) == 0 {
		d.problem("keys", "key_missing", d.at(), "there is no client, which PostgreSQL requires: every Lanyard needs the same", "make a key with `openssl rand -hex 32`, and write `client app {env.LANYARD_CLIENT_KEY}`")
	}
	if !d.known("store", c.URL, place) {
		return
	}
	var s settings
	r := &resolver{repl: caddy.NewReplacer()}
	err := s.resolvePlace(c, r)
	if err == nil {
		err = r.err
	}
	if err != nil {
		d.problem("store", "database_url", place, err.Error(), "write `store postgres {env.DATABASE_URL}`, and postgres://user:password@host:5432/database into the variable")
		return
	}
	if len(r.literals) > 0 {
		d.warning("store", "secret_literal", place, "the database's password stands in the configuration itself, where Caddy's admin API and autosave show it",
			"use a placeholder, {env.NAME} or {file./path}, and give the role a new password")
	}
	d.settings.database = s.database
	if d.offline {
		d.ok("store", "store", "postgres, which was not asked")
	}
}

// askDatabase looks at the database.
func (p *probe) askDatabase(ctx context.Context) {
	place := p.at("store")
	s, err := pgstore.Describe(ctx, p.settings.database)
	if err != nil {
		text := err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			text = fmt.Sprintf("the database does not answer within %s", probeTime)
		}
		p.problem("store", "database_unreachable", place, text, "see that the database runs, that this machine reaches it, and that user, password and database are right")
		return
	}
	where := fmt.Sprintf("postgres %s (%s, %.1f ms away)", s.Place, s.Server, max(s.Latency.Seconds()*1000, 0.1))
	switch {
	case s.ReadOnly:
		p.problem("store", "database_read_only", place, where+" can only be read: it is a standby, or closed to changes", "name all servers in the URL, and the one that takes writes is used: postgres://user:password@host1,host2/database")
	case !s.Usable:
		p.problem("store", "store_unreadable", place, fmt.Sprintf("%s has tables of version %d, and this Lanyard knows %d", where, s.Schema, s.Newest), "start the Lanyard that made them, or a newer one")
	case s.Schema == 0:
		p.ok("store", "store", where+", in which the first start makes its tables")
	case s.Schema < s.Newest:
		p.warning("store", "store_old_format", place, fmt.Sprintf("%s has tables of version %d; starting this Lanyard makes it %d", where, s.Schema, s.Newest), "back the database up before you start this one")
	default:
		p.ok("store", "store", where)
	}
	p.tellDatabase(&s, place)
}

// tellDatabase tells what is worth knowing of a database that answers.
func (p *probe) tellDatabase(s *pgstore.Description, place string) {
	if s.Latency > slowDatabase {
		p.warning("store", "database_slow", place, fmt.Sprintf("a round trip to the database takes %s", s.Latency.Round(time.Millisecond)), "run Lanyard near its database: a refresh waits for a few of them")
	}
	if !s.Encrypted {
		p.warning("store", "database_plain", place, "the connection to the database is not encrypted", "add sslmode=verify-full to the URL")
	}
	if !s.Durable {
		p.problem("store", "database_not_durable", place, "the database forgets changes that it has confirmed when it crashes: synchronous_commit or fsync is off", "turn them on, for Lanyard's role at least: alter role … set synchronous_commit = on")
	}
	if s.Clock.Abs() > maxSkew {
		p.problem("clock", "clock_skew", "", fmt.Sprintf("this machine's clock and the database's differ by %s", s.Clock.Abs().Round(time.Second)), "set both by NTP")
	}
	if s.Pooled {
		p.add("store", "database_pooled", levelInfo, place, "there is a pooler such as PgBouncer before the database, which may pool transactions, and not statements", "")
	}
	if s.Synchronous == "" {
		p.add("store", "database_replication", levelInfo, place, "a change counts once this one server has it: a failover to another one may lose the last changes, and with them refresh tokens",
			"see that a failover loses nothing: by synchronous_standby_names, or a disk that the servers share")
	} else {
		p.ok("store", "database_replication", "a change counts once it is on another server, too: "+s.Synchronous)
	}
}
