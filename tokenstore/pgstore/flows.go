package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	selectFlow = `select revision, sealed from lanyard_flows where id = $1`
	insertFlow = `insert into lanyard_flows (id, revision, sealed, taken, keep_until) values (?, ?, ?, ?, ?) on conflict (id) do nothing`
	updateFlow = `update lanyard_flows set revision = ?, sealed = ?, taken = ?, keep_until = ? where id = ? and revision = ?`
)

// CreateFlow implements tokenstore.Store.
func (s *Store) CreateFlow(ctx context.Context, f tokenstore.Flow) error {
	if err := checkID(f.ID); err != nil {
		return fmt.Errorf("pgstore: creating a flow: %w", err)
	}
	_, _, err := replace(ctx, s, record[tokenstore.Flow]{
		key: "f/" + f.ID, make: true,
		read: func(ctx context.Context) (stored, error) { return s.row(ctx, selectFlow, f.ID) },
		work: func(ctx context.Context, was stored) (a attempt[tokenstore.Flow], err error) {
			if was.revision != 0 {
				_, err := s.openFlow(ctx, f.ID, was)
				if err == nil {
					err = tokenstore.ErrExists
				}
				if !errors.Is(err, tokenstore.ErrNotFound) {
					return a, err
				}
			}
			return s.flowAttempt(f.Clone(), was.revision)
		},
	})
	if err != nil {
		return fmt.Errorf("pgstore: creating a flow: %w", err)
	}
	return nil
}

// Flow implements tokenstore.Store.
func (s *Store) Flow(ctx context.Context, id string) (f tokenstore.Flow, err error) {
	was, err := s.row(ctx, selectFlow, id)
	if err == nil {
		f, err = s.openFlow(ctx, id, was)
	}
	if err != nil {
		return tokenstore.Flow{}, fmt.Errorf("pgstore: reading a flow: %w", err)
	}
	return f, nil
}

// UpdateFlow implements tokenstore.Store.
func (s *Store) UpdateFlow(
	ctx context.Context, id string, change func(*tokenstore.Flow) error,
) (tokenstore.Flow, error) {
	var refusal error // by change: returned as it is
	f, _, err := replace(ctx, s, record[tokenstore.Flow]{
		key:  "f/" + id,
		read: func(ctx context.Context) (stored, error) { return s.row(ctx, selectFlow, id) },
		work: func(ctx context.Context, was stored) (a attempt[tokenstore.Flow], err error) {
			refusal = nil
			old, err := s.openFlow(ctx, id, was)
			if err != nil {
				return a, err
			}
			f := old.Clone()
			if refusal = change(&f); refusal != nil {
				return attempt[tokenstore.Flow]{result: old}, refusal
			}
			if f.ID != id {
				return a, errNewID
			}
			return s.flowAttempt(f.Clone(), was.revision) // change may have kept what it was given
		},
	})
	switch {
	case err == nil, refusal != nil && errors.Is(err, tokenstore.ErrUnchanged):
		return f, nil
	case refusal != nil && errors.Is(err, refusal):
		return tokenstore.Flow{}, err
	}
	return tokenstore.Flow{}, fmt.Errorf("pgstore: changing a flow: %w", err)
}

// flowAttempt returns the write of f and its news under the revision after was:
// records of flows have none inside.
func (s *Store) flowAttempt(f tokenstore.Flow, was uint64) (a attempt[tokenstore.Flow], err error) {
	with := s.sealer.now.Load()
	news := f.News
	f.News = nil
	revision := was + 1
	sealed, err := with.codec.SealFlow(&f, with.data(tokenstore.KindFlow, f.ID, revision))
	if err != nil {
		return a, err
	}
	var q *statement
	taken := f.Stage == tokenstore.FlowTaken
	if was == 0 {
		q = write(insertFlow, []byte(f.ID), revision, sealed, taken, f.KeepUntil())
	} else {
		q = write(updateFlow, revision, sealed, taken, f.KeepUntil(), []byte(f.ID), was)
	}
	q.tell(s.sealNews(with, news))
	return attempt[tokenstore.Flow]{result: f, after: stored{revision, sealed}, write: q}, nil
}

// TakenFlows implements tokenstore.Store. One flow that can't be opened doesn't
// keep the others from being finished.
func (s *Store) TakenFlows(ctx context.Context) (taken []tokenstore.Flow, err error) {
	rows, err := query(ctx, s, scanRecord, `select id, revision, sealed from lanyard_flows where taken`)
	var damaged []error
	for _, row := range rows {
		f, err := s.openFlow(ctx, row.id, row.stored)
		switch {
		case err == nil && f.Stage == tokenstore.FlowTaken:
			taken = append(taken, f)
		case err != nil && !errors.Is(err, tokenstore.ErrNotFound): // else its time has come
			damaged = append(damaged, err)
		}
	}
	if err = errors.Join(append(damaged, err)...); err != nil {
		return taken, fmt.Errorf("pgstore: finding taken flows: %w", err)
	}
	return taken, nil
}

// recordRow is a row with its ID.
type recordRow struct {
	id     string
	stored stored
}

func scanRecord(row pgx.CollectableRow) (r recordRow, err error) {
	var id []byte
	err = row.Scan(&id, &r.stored.revision, &r.stored.sealed)
	r.id = string(id)
	return r, err
}

// openFlow opens a flow and checks that it is the one asked for. One that is to
// be forgotten is ErrNotFound.
func (s *Store) openFlow(ctx context.Context, id string, was stored) (tokenstore.Flow, error) {
	if err := was.orNotFound(); err != nil {
		return tokenstore.Flow{}, err
	}
	with := s.sealer.now.Load()
	f, err := with.codec.OpenFlow(was.sealed, with.data(tokenstore.KindFlow, id, was.revision))
	switch {
	case err != nil:
		return tokenstore.Flow{}, s.cantOpen(ctx, was.sealed, err)
	case f.ID != id:
		return tokenstore.Flow{}, fmt.Errorf("%w: it is another flow", tokenstore.ErrCorrupt)
	case !time.Now().Before(f.KeepUntil()):
		return tokenstore.Flow{}, tokenstore.ErrNotFound
	}
	return f, nil
}
