package pgstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// rekeyBatch is how many records one write seals again, and rekeyBatchBytes how
	// long they are together, about.
	rekeyBatch      = 64
	rekeyBatchBytes = 256 << 10
	// rekeyLook is how many records are looked at in one query, of which it reads
	// what tells the key.
	rekeyLook = 1000
)

// sealedTable is one of the tables with sealed records. Their keys are IDs, as
// []byte, or numbers, as int64.
type sealedTable struct {
	name, key, revision string
	first               any // before the first key
	kind                tokenstore.Kind
	data                func(with *sealing, key any, revision uint64) []byte
}

var sealedTables = []sealedTable{
	{"lanyard_connections", "id", "revision", []byte{}, tokenstore.KindConnection, dataOf(tokenstore.KindConnection)},
	{"lanyard_flows", "id", "revision", []byte{}, tokenstore.KindFlow, dataOf(tokenstore.KindFlow)},
	{"lanyard_notes", "id", "revision", []byte{}, tokenstore.KindNote, dataOf(tokenstore.KindNote)},
	{"lanyard_events_new", "id", "1", []byte{}, tokenstore.KindEvent, func(with *sealing, key any, _ uint64) []byte {
		return with.newEventData(key.([]byte))
	}},
	{"lanyard_events", "seq", "1", int64(0), tokenstore.KindEvent, func(with *sealing, key any, _ uint64) []byte {
		return with.eventData(uint64(key.(int64)))
	}},
}

func dataOf(kind tokenstore.Kind) func(with *sealing, key any, revision uint64) []byte {
	return func(with *sealing, key any, revision uint64) []byte {
		return with.data(kind, string(key.([]byte)), revision)
	}
}

// damageID is how a record is called among those that are damaged.
func (t sealedTable) damageID(key any) string {
	if id, ok := key.([]byte); ok {
		return t.name + " " + hex.EncodeToString(id)
	}
	return fmt.Sprint(t.name, " ", key)
}

// foreign looks at some of the records after a key, and returns the keys of those
// that another key than primary sealed, which fit into one write, and the key to
// go on after, nil at the end.
func (s *Store) foreign(ctx context.Context, t sealedTable, after any, primary uint32) (keys []any, looked int, last any, err error) {
	type head struct {
		key    any
		sealed []byte // how it begins
		length int
	}
	heads, err := query(ctx, s, func(row pgx.CollectableRow) (h head, err error) {
		err = row.Scan(&h.key, &h.sealed, &h.length)
		return h, err
	}, `select `+t.key+`, substr(sealed, 1, 32), length(sealed) from `+t.name+
		` where `+t.key+` > $1 and sealed is not null order by `+t.key+` limit $2`, after, rekeyLook)
	if err != nil {
		return nil, 0, nil, err
	}
	codec := s.sealer.now.Load().codec
	size := 0
	for _, h := range heads {
		if len(keys) >= rekeyBatch || (len(keys) > 0 && size+h.length > rekeyBatchBytes) {
			return keys, looked, last, nil
		}
		looked, last = looked+1, h.key
		if id, ok := codec.KeyOf(h.sealed); (ok && id == primary) || s.knownDamaged(t.damageID(h.key)) {
			continue
		}
		keys, size = append(keys, h.key), size+h.length
	}
	if len(heads) < rekeyLook {
		last = nil
	}
	return keys, looked, last, nil
}

func (s *Store) knownDamaged(id string) bool {
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	return s.rekeying.damaged[id]
}

// array returns keys as an argument of a query.
func array(keys []any) any {
	var ids [][]byte
	var numbers []int64
	for _, key := range keys {
		switch key := key.(type) {
		case []byte:
			ids = append(ids, key)
		case int64:
			numbers = append(numbers, key)
		}
	}
	if numbers != nil {
		return numbers
	}
	return ids
}

// reseal seals records with the primary key, in one write. They keep their
// revisions: nothing in them changes. One that was written meanwhile stays as it is.
func (s *Store) reseal(ctx context.Context, t sealedTable, keys []any) error {
	type record struct {
		key    any
		stored stored
	}
	records, err := query(ctx, s, func(row pgx.CollectableRow) (r record, err error) {
		err = row.Scan(&r.key, &r.stored.revision, &r.stored.sealed)
		return r, err
	}, `select `+t.key+`, `+t.revision+`, sealed from `+t.name+` where `+t.key+` = any($1) and sealed is not null`, array(keys))
	if err != nil {
		return err
	}
	var sealedKeys []any
	var old, fresh [][]byte
	damaged := map[string]error{}
	with := s.sealer.now.Load()
	for _, r := range records {
		again, err := with.codec.Reseal(r.stored.sealed, t.data(with, r.key, r.stored.revision))
		switch err = s.cantOpen(ctx, r.stored.sealed, err); {
		case err == nil:
			sealedKeys, old, fresh = append(sealedKeys, r.key), append(old, r.stored.sealed), append(fresh, again)
		case errors.Is(err, tokenstore.ErrCorrupt):
			damaged[t.damageID(r.key)] = err
			if id, ok := r.key.([]byte); ok && t.kind == tokenstore.KindConnection {
				s.noteDamage(string(id), err)
			}
		default:
			return err
		}
	}
	var done int64
	if len(sealedKeys) > 0 {
		kind := "bytea"
		if t.key == "seq" {
			kind = "bigint"
		}
		done, err = s.exec(ctx, `update `+t.name+` t set sealed = x.fresh
			from unnest($1::`+kind+`[], $2::bytea[], $3::bytea[]) as x (key, old, fresh)
			where t.`+t.key+` = x.key and t.sealed = x.old`, array(sealedKeys), old, fresh)
		if err != nil {
			return err
		}
	}
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	s.rekeying.progress.Done += int(done)
	s.rekeying.progress.Damaged += len(damaged)
	s.rekeying.progress.Error = ""
	for id := range damaged {
		s.rekeying.damaged[id] = true
	}
	return nil
}
