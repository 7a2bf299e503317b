package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// The engines of the option store.
const (
	engineBadger   = "badger"
	enginePostgres = "postgres"
)

func unknownEngine(engine string) error {
	return fmt.Errorf("%q is not a store; there are `badger` and `postgres`", engine)
}

// isPostgres reports whether the store is a database. The nil StoreConfig is
// the default.
func (c *StoreConfig) isPostgres() bool { return c != nil && c.Engine == enginePostgres }

// pool names what an engine is shared by: a directory or a database.
func (s *settings) pool() string {
	if s.dir != "" {
		return s.dir
	}
	return enginePostgres + " " + s.database.Hash() // which never leaves the memory
}

func (s *settings) resolveStore(a *App, r *resolver) error {
	if err := s.resolvePlace(a.Store, r); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	text := a.Keyset
	if json.Valid([]byte(text)) { // braces of its own, which are no placeholder
		r.literals = append(r.literals, "keyset")
	} else {
		text = r.secret("keyset", text)
	}
	if r.err != nil {
		return r.err
	}
	if text != "" {
		var err error
		if s.keyset, err = parseKeyset(text); err != nil {
			return fmt.Errorf("keyset: %w", err)
		}
	}
	if a.Store.isPostgres() {
		return s.checkGiven()
	}
	return nil
}

// resolvePlace resolves where the store is. What is wrong with a placeholder is
// left to r.
func (s *settings) resolvePlace(c *StoreConfig, r *resolver) (err error) {
	if c == nil {
		c = new(StoreConfig)
	}
	switch c.Engine {
	case "", engineBadger:
		if c.URL != "" {
			return errors.New("`url` is for `postgres`; badger has `dir`")
		}
		dir := filepath.Join(caddy.AppDataDir(), "lanyard")
		if c.Dir != "" {
			dir = r.text("store", c.Dir)
		}
		s.dir, err = filepath.Abs(dir)
	case enginePostgres:
		if c.Dir != "" {
			return errors.New("`dir` is for `badger`; postgres has `url`, and keeps nothing on this machine")
		}
		if c.URL == "" {
			return errors.New("postgres needs the URL of its database, such as {env.DATABASE_URL}")
		}
		s.database = r.databaseURL(c.URL)
	default:
		err = unknownEngine(c.Engine)
	}
	return err
}

// databaseURL resolves the URL of a database, which is a secret if there is a
// password in it.
func (r *resolver) databaseURL(value string) secret.String {
	literals := len(r.literals)
	text := r.secret("store", value)
	if r.err != nil {
		return secret.String{}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// The error of Parse has what is wrong in it, which may be the password.
		r.fail("store", errors.New("the database's URL can't be read: it is postgres://user:password@host:5432/database, with what is not a letter or digit in the password as %XX"))
		return secret.String{}
	}
	if _, has := u.User.Password(); !has && !strings.Contains(u.RawQuery, "password") {
		r.literals = r.literals[:literals]
	}
	dsn := secret.New(text)
	r.fail("store", pgstore.Check(dsn))
	return dsn
}

// checkGiven judges whether everything is there that no Lanyard may make for
// itself where several share a database: they need the same keys.
func (s *settings) checkGiven() error {
	const why = "it is required with PostgreSQL, where every Lanyard needs the same: "
	switch {
	case s.keyset == nil:
		return errors.New("keyset: " + why + "make one with `caddy lanyard keygen`, and write `keyset {file./run/secrets/lanyard-keys.json}`")
	case len(s.apiKeys) == 0:
		return errors.New("api_key: " + why + "make one with `openssl rand -hex 32`, and write `api_key {env.LANYARD_API_KEY}`")
	case len(s.clients) == 0:
		return errors.New("client: " + why + "make a key with `openssl rand -hex 32`, and write `client app {env.LANYARD_CLIENT_KEY}`")
	}
	return nil
}
