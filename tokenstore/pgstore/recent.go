package pgstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// recentFor is how long a write is remembered: a standby that is further
	// behind than that is no standby.
	recentFor = time.Minute
	// maxRecent bounds how many are: about 20 MB.
	maxRecent = 10_000
)

// recent are the connections that this process has written lately, as it wrote
// them. A database whose standby takes over without the last commits forgets them,
// refresh tokens among them that nobody else has and that can't be asked for
// twice. So before anything is read from a server that may be another one, what
// it has forgotten is put back.
type recent struct {
	suspected atomic.Uint64 // counts the reasons to look
	assured   atomic.Uint64 // how many of them were looked into

	mu     sync.Mutex        // guards all below; held while somebody looks
	writes map[string]stored // :: connection ID → the row as it was written last
	order  []recentWrite     // oldest first
}

type recentWrite struct {
	id       string
	revision uint64
	at       time.Time
}

// wrote remembers what a row was replaced with.
func (r *recent) wrote(id string, after stored) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writes == nil {
		r.writes = map[string]stored{}
	}
	if r.writes[id].revision < after.revision {
		r.writes[id] = after
		r.order = append(r.order, recentWrite{id, after.revision, now})
	}
	old := 0
	for old < len(r.order) && (len(r.order)-old > maxRecent || now.Sub(r.order[old].at) > recentFor) {
		if w := r.order[old]; r.writes[w.id].revision == w.revision {
			delete(r.writes, w.id)
		}
		old++
	}
	r.order = slices.Delete(r.order, 0, old)
}

// suspect notes that the next to answer may be another server.
func (r *recent) suspect() {
	if r != nil {
		r.suspected.Add(1)
	}
}

// assure has the server know what this process has written lately, if there is a
// reason to doubt it. The others wait until it does.
func (s *Store) assure(ctx context.Context, conn *pgx.Conn) error {
	r := s.recent
	if r == nil || r.assured.Load() == r.suspected.Load() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	suspected := r.suspected.Load()
	if r.assured.Load() == suspected {
		return nil
	}
	var ids [][]byte
	for id := range r.writes {
		ids = append(ids, []byte(id))
	}
	if len(ids) > 0 {
		rows, err := conn.Query(ctx, `select id, revision from lanyard_connections where id = any($1::bytea[])`, ids)
		if err != nil {
			return err
		}
		has := map[string]uint64{}
		var id []byte
		var revision uint64
		if _, err := pgx.ForEachRow(rows, []any{&id, &revision}, func() error {
			has[string(id)] = revision
			return nil
		}); err != nil {
			return err
		}
		for id, mine := range r.writes {
			if has[id] < mine.revision {
				if err := s.putBack(ctx, conn, id, mine); err != nil {
					return err
				}
			}
		}
	}
	r.assured.Store(suspected)
	return nil
}

// putBack writes a row that the database has forgotten as it was. What somebody
// has written or deleted since then stays.
func (s *Store) putBack(ctx context.Context, conn *pgx.Conn, id string, mine stored) error {
	var was stored
	err := conn.QueryRow(ctx, selectConnection, []byte(id)).Scan(&was.revision, &was.sealed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if was.revision >= mine.revision || was.revision > 0 && was.sealed == nil || was.revision == 0 && mine.sealed == nil {
		return nil
	}
	found := false
	q, err := s.puttingBack(id, was, mine)
	if err == nil {
		found, err = commitOn(ctx, conn, q)
	}
	switch {
	case found:
		s.log.Warn("the database had forgotten a write, put back", connectionField(id),
			zap.Uint64("revision", mine.revision), zap.Uint64("forgotten_to", was.revision))
	case err != nil && outcomeOf(err) == refused:
		// It is damaged, or takes no writes any more: waiting would not help.
		s.log.Error("the database has forgotten a write", connectionField(id), errorField(err))
		return nil
	}
	return err
}

func (s *Store) puttingBack(id string, was, mine stored) (*statement, error) {
	with := s.sealer.now.Load()
	opened := func(row stored) (tokenstore.Connection, error) {
		return with.codec.OpenConnection(row.sealed, with.data(tokenstore.KindConnection, id, row.revision))
	}
	var old, c tokenstore.Connection
	var err error
	if was.sealed != nil {
		old, err = opened(was)
	}
	if err == nil && mine.sealed != nil {
		c, err = opened(mine)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case mine.sealed == nil:
		return s.deletion(&old, was, mine.revision), nil
	case was.sealed == nil:
		return s.insertion(&c, mine.sealed), nil
	}
	a, err := s.workOut(&old, &c)
	return a.write, err
}
