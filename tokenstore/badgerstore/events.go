package badgerstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The audit log is a ring: each event is under its Seq, and one written beyond
// s.maxEvents removes the oldest. Nobody without the keyset can change it and not
// be found out: each event is sealed for its Seq, of which none is used twice, so
// that one that was replaced doesn't open and is listed as EventLost; and the
// head has the first and the last Seq, so that opening the store finds an event
// that was taken out, put in, or cut off at either end, and refuses.
//
// Two things aren't found. One is that the whole directory was put back as it
// was before, but for a reader of events who has been further (ListEvents). The
// other is an index key that was taken out: the event is then missing in its
// connection's list, though not in the list of all.

// eventRange says which events there are: by their Seq, both 0 if there is none.
type eventRange struct{ oldest, newest uint64 }

func (r *eventRange) add(seq uint64) {
	if r.newest == 0 {
		r.oldest = seq
	}
	r.newest = max(r.newest, seq)
}

// count is add for the events of a store in the order of their keys.
func (r *eventRange) count(key []byte) error {
	seq, ok := eventSeq(key)
	switch {
	case !ok:
		return errors.New("the key of an event is damaged")
	case r.newest != 0 && seq != r.newest+1:
		return fmt.Errorf("events %d to %d are gone", r.newest+1, seq-1)
	}
	r.add(seq)
	return nil
}

// maxAppend is how many events are one write: far below what Badger takes, and
// what there may be.
const maxAppend = 128

// AppendEvents implements tokenstore.Store. A disk that is getting full refuses
// events as it does new connections: strangers cause them, and what room there
// is left is the tokens'.
func (s *Store) AppendEvents(ctx context.Context, events ...tokenstore.Event) error {
	if len(events) == 0 {
		return ctx.Err()
	}
	for some := range slices.Chunk(events, maxAppend) {
		err := s.writeNew(ctx, func(w *write) error {
			for _, e := range some {
				if err := s.addEvent(w, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("badgerstore: appending events: %w", err)
		}
	}
	return nil
}

// tell writes the news of a record's change with it. One that can't be sealed is
// left out: the change, which may be all that is left of a token, is worth more.
func (s *Store) tell(w *write, news []tokenstore.Event) {
	for _, e := range news {
		if err := s.addEvent(w, e); err != nil {
			s.log.Error("event was lost", zap.String("event", string(e.Type)), zap.String("connection_id", e.ConnectionID), zap.Error(err))
		}
	}
}

// addEvent writes e as the newest event, and removes the oldest of a full ring.
func (s *Store) addEvent(w *write, e tokenstore.Event) error {
	e.Seq = w.events.newest + 1
	if e.At.IsZero() {
		e.At = time.Now().UTC().Round(0)
	}
	if err := s.putEvent(w, &e); err != nil {
		return err
	}
	w.events.add(e.Seq)
	for range 2 { // not one, so that a ring that was larger gets smaller
		if w.events.newest-w.events.oldest >= s.maxEvents {
			s.removeEvent(w, w.events.oldest)
			w.events.oldest++
		}
	}
	return nil
}

// removeEvent removes an event, but for the index key of one that doesn't open:
// lists pass over what is older than the oldest.
func (s *Store) removeEvent(w *write, seq uint64) {
	if e, err := s.event(w.txn, seq); err == nil && e.ConnectionID != "" {
		w.remove(s.keys.historyKey(e.ConnectionID, seq))
	}
	w.remove(eventKey(seq))
}

// putEvent writes e under its Seq.
func (s *Store) putEvent(w *write, e *tokenstore.Event) error {
	codec, of := s.sealing()
	sealed, err := codec.SealEvent(e, of.eventData(e.Seq))
	if err != nil {
		return err
	}
	w.set(eventKey(e.Seq), newValue(eventRevision, sealed))
	if e.ConnectionID != "" {
		w.set(s.keys.historyKey(e.ConnectionID, e.Seq), present)
	}
	return nil
}

// eventRevision is every event's: none is ever changed.
const eventRevision = 1

func (id identity) eventData(seq uint64) []byte {
	return id.associatedData(tokenstore.KindEvent, strconv.FormatUint(seq, 10), eventRevision)
}

// event reads an event and checks that it is the one asked for.
func (s *Store) event(txn *badger.Txn, seq uint64) (e tokenstore.Event, err error) {
	codec, of := s.sealing()
	err = readValue(txn, eventKey(seq), func(revision uint64, sealed []byte) error {
		e, err = openEvent(codec, of, seq, revision, sealed)
		return err
	})
	return e, err
}

// openEventValue opens an event as it is stored.
func openEventValue(codec tokenstore.Codec, id identity, seq uint64, value []byte) (tokenstore.Event, error) {
	revision, sealed, err := splitValue(value)
	if err != nil {
		return tokenstore.Event{}, err
	}
	return openEvent(codec, id, seq, revision, sealed)
}

func openEvent(codec tokenstore.Codec, id identity, seq, revision uint64, sealed []byte) (tokenstore.Event, error) {
	e, err := codec.OpenEvent(sealed, id.eventData(seq))
	if err == nil && (e.Seq != seq || revision != eventRevision) {
		err = fmt.Errorf("%w: it is another event", tokenstore.ErrCorrupt)
	}
	return e, err
}

// ListEvents implements tokenstore.Store. Each connection has a range of keys of
// its own. A cursor beyond the newest event is no cursor of this log: it was put
// back to what it was before.
func (s *Store) ListEvents(
	ctx context.Context, f tokenstore.EventFilter, cursor string, limit int,
) (page []tokenstore.Event, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", errors.New("badgerstore: limit of a list is less than 1")
	}
	after, err := tokenstore.ParseEventCursor(cursor)
	if err != nil {
		return nil, "", fmt.Errorf("badgerstore: listing events: %w", err)
	}
	err = s.view(func(txn *badger.Txn) error {
		seqs, err := s.eventsAfter(txn, f, after, limit)
		for _, seq := range seqs {
			e, err := s.listedEvent(txn, f, seq)
			if err != nil {
				return err
			}
			page = append(page, e)
		}
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("badgerstore: listing events: %w", err)
	}
	switch {
	case f.NewestFirst && len(page) < limit:
		cursor = ""
	case len(page) > 0:
		cursor = tokenstore.EventCursor(page[len(page)-1].Seq)
	}
	return page, cursor, nil
}

// eventsAfter returns the Seqs of a page.
func (s *Store) eventsAfter(txn *badger.Txn, f tokenstore.EventFilter, after uint64, limit int) (seqs []uint64, err error) {
	h, err := s.readHead(txn)
	if err != nil {
		return nil, err
	}
	if after > h.events.newest {
		return nil, fmt.Errorf("%w: it is beyond the newest event", tokenstore.ErrBadCursor)
	}
	if f.NewestFirst {
		if after == 0 { // the log's end
			after = h.events.newest + 1
		}
		return s.eventsBefore(txn, f, h.events.oldest, after, limit), nil
	}
	from := max(after+1, h.events.oldest)
	if f.ConnectionID == "" {
		for ; from <= h.events.newest && len(seqs) < limit; from++ {
			seqs = append(seqs, from)
		}
		return seqs, nil
	}
	prefix := s.keys.historyPrefix(f.ConnectionID)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(s.keys.historyKey(f.ConnectionID, from)); it.Valid() && len(seqs) < limit; it.Next() {
		if rest := it.Item().Key()[len(prefix):]; len(rest) == seqLen {
			seqs = append(seqs, binary.BigEndian.Uint64(rest))
		}
	}
	return seqs, nil
}

// eventsBefore returns the Seqs of a page that lists backwards.
func (s *Store) eventsBefore(txn *badger.Txn, f tokenstore.EventFilter, oldest, before uint64, limit int) (seqs []uint64) {
	if f.ConnectionID == "" {
		for seq := before - 1; seq >= oldest && seq > 0 && len(seqs) < limit; seq-- {
			seqs = append(seqs, seq)
		}
		return seqs
	}
	prefix := s.keys.historyPrefix(f.ConnectionID)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: true})
	defer it.Close()
	for it.Seek(s.keys.historyKey(f.ConnectionID, before-1)); it.Valid() && len(seqs) < limit; it.Next() {
		rest := it.Item().Key()[len(prefix):]
		if len(rest) != seqLen {
			continue
		}
		seq := binary.BigEndian.Uint64(rest)
		if seq < oldest {
			break // an index key that was left behind
		}
		seqs = append(seqs, seq)
	}
	return seqs
}

func (s *Store) readHead(txn *badger.Txn) (h head, err error) {
	item, err := txn.Get([]byte(keyHead))
	if err == nil {
		err = item.Value(func(value []byte) error {
			var ok bool
			if h, ok = parseHead(s.keys.headKey(), value); !ok {
				return tokenstore.ErrCorrupt
			}
			return nil
		})
	}
	if err != nil {
		return h, fmt.Errorf("%w: the head: %w", tokenstore.ErrUnavailable, err)
	}
	return h, nil
}

// listedEvent returns what a list shows: an event that is not there, doesn't open
// or is another connection's is EventLost.
func (s *Store) listedEvent(txn *badger.Txn, f tokenstore.EventFilter, seq uint64) (tokenstore.Event, error) {
	e, err := s.event(txn, seq)
	switch {
	case err == nil && (f.ConnectionID == "" || f.ConnectionID == e.ConnectionID):
		return e, nil
	case errors.Is(err, tokenstore.ErrUnavailable):
		return e, err
	}
	if s.damage.set("event "+strconv.FormatUint(seq, 10), true) {
		s.log.Error("event is damaged", zap.String("error_code", "store_corrupt"), zap.Uint64("seq", seq), zap.Error(err))
	}
	return tokenstore.Event{Seq: seq, Type: tokenstore.EventLost, ConnectionID: f.ConnectionID}, nil
}
