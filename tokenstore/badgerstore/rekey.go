package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// rekeyBatch is how many records one write seals again: with them it takes a
	// millisecond, which is what other writes then wait.
	rekeyBatch = 64
	// rekeyBatchBytes is the most that one write holds, far below what Badger
	// takes at once.
	rekeyBatchBytes = 256 << 10
	// rekeyLook is how many records are looked at while Close waits.
	rekeyLook = 1024
)

// errCodecChanged begins again: even where the primary key is the same as at the
// begin, another may have sealed something in between.
var errCodecChanged = errors.New("the keyset has changed meanwhile")

// RekeyProgress is tokenstore's.
type RekeyProgress = tokenstore.RekeyProgress

// rekeying is the state of a rekey.
type rekeying struct {
	mu       sync.Mutex
	progress RekeyProgress   // guarded by mu; its State is `done` or empty
	damaged  map[string]bool // guarded by mu; keys that were reported
}

// SetCodec exchanges the codec while the store is open. From then on everything
// is sealed with its primary key. It returns an error that wraps
// tokenstore.ErrKeyMissing, and changes nothing, if the codec lacks a key that
// something in the store may be sealed with.
func (s *Store) SetCodec(codec tokenstore.Codec) error {
	err := s.changeSealing(func(now *sealing) error {
		indexKey, err := now.id.openIndexKey(codec)
		if err != nil {
			return err
		}
		// The identity names a key before anything is sealed with it.
		changed, err := now.id.addPrimary(codec, indexKey)
		if changed && err == nil {
			err = writeIdentity(s.dir, now.id)
		}
		now.codec = codec
		now.codecs++
		return err
	})
	if err != nil {
		return fmt.Errorf("badgerstore: changing the keyset: %w", err)
	}
	return nil
}

// BeginRekey notes, for later runs too, that everything is to be sealed with the
// primary key. It does nothing where everything is.
func (s *Store) BeginRekey() error {
	err := s.changeSealing(func(now *sealing) error {
		if now.id.Rekeying || len(now.id.OlderKeys) == 0 {
			return nil
		}
		now.id.Rekeying = true
		return writeIdentity(s.dir, now.id)
	})
	if err != nil {
		return fmt.Errorf("badgerstore: beginning to rekey: %w", err)
	}
	return nil
}

// RekeyProgress returns how far it is.
func (s *Store) RekeyProgress() RekeyProgress {
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	p := s.rekeying.progress
	switch _, id := s.sealing(); {
	case id.Rekeying:
		p.State = "running"
	case len(id.OlderKeys) > 0:
		p.State = "needed"
	case p.State == "":
		p.State = "idle"
	}
	return p
}

// Rekey does what BeginRekey has noted, and nothing if it has not: each record
// that another key sealed is sealed with the primary one, in small writes among
// the others. Then the store needs no other key any more, finish is called, and
// the note is taken back. An error, ctx's too, leaves the rest for the next call,
// in this run or a later one. One call at a time.
func (s *Store) Rekey(ctx context.Context, finish func() error) error {
	if _, id := s.sealing(); !id.Rekeying {
		return nil
	}
	err := s.rekeyAll(ctx)
	for errors.Is(err, errCodecChanged) {
		err = s.rekeyAll(ctx)
	}
	if err == nil {
		err = finish()
	}
	if err == nil {
		err = s.changeSealing(func(now *sealing) error {
			now.id.Rekeying = false
			return writeIdentity(s.dir, now.id)
		})
	}
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			s.rekeying.progress.Error = err.Error()
		}
		return fmt.Errorf("badgerstore: rekeying: %w", err)
	}
	s.rekeying.progress.State, s.rekeying.progress.Error = "done", ""
	return nil
}

// rekeyAll seals everything with the primary key and, once a look at all of it
// found nothing else, lets the identity forget the other keys.
func (s *Store) rekeyAll(ctx context.Context) error {
	began := s.sealer.now.Load()
	primary := began.codec.Keys()[0]
	s.rekeying.mu.Lock()
	s.rekeying.damaged = map[string]bool{}
	s.rekeying.mu.Unlock()
	left, err := s.rekeyPass(ctx, primary, nil)
	for err == nil && left > 0 {
		if s.sealer.now.Load().codecs != began.codecs {
			return errCodecChanged
		}
		if _, err = s.rekeyPass(ctx, primary, s.reseal); err == nil {
			left, err = s.rekeyPass(ctx, primary, nil)
		}
	}
	if err != nil {
		return err
	}
	return s.changeSealing(func(now *sealing) error {
		if now.codecs != began.codecs {
			return errCodecChanged
		}
		now.id.OlderKeys = nil
		return writeIdentity(s.dir, now.id)
	})
}

// rekeyPass looks at every record, gives those that another key than primary
// sealed to use, if that is not nil, and returns how many there were; damaged
// ones that were found before don't count.
func (s *Store) rekeyPass(ctx context.Context, primary uint32, use func(ctx context.Context, keys [][]byte) error) (left int, err error) {
	// What was sealed before the codec was exchanged is committed after this.
	if err := s.write(ctx, func(*write) error { return nil }); err != nil {
		return 0, err
	}
	total := 0
	for _, prefix := range []string{keyConnection, keyFlow, keyEvent, keyNote} {
		for from := []byte(prefix); from != nil; {
			if err := ctx.Err(); err != nil {
				return left, err
			}
			foreign, looked, next, err := s.foreign([]byte(prefix), from, primary)
			if err != nil {
				return left, err
			}
			total, left, from = total+looked, left+len(foreign), next
			if use != nil && len(foreign) > 0 {
				if err := use(ctx, foreign); err != nil {
					return left, err
				}
			}
		}
	}
	if use == nil {
		s.rekeying.mu.Lock()
		damaged := len(s.rekeying.damaged)
		was := s.rekeying.progress.Error
		s.rekeying.progress = RekeyProgress{Total: total, Done: total - left - damaged, Damaged: damaged, Error: was}
		s.rekeying.mu.Unlock()
	}
	return left, nil
}

// foreign looks at some of the records from a key on, and returns the keys of
// those that another key than primary sealed, which fit into one write.
func (s *Store) foreign(prefix, from []byte, primary uint32) (keys [][]byte, looked int, next []byte, err error) {
	codec, _ := s.sealing()
	err = s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		size := 0
		for it.Seek(from); it.Valid(); it.Next() {
			more := int(it.Item().EstimatedSize())
			if looked >= rekeyLook || len(keys) >= rekeyBatch || (len(keys) > 0 && size+more > rekeyBatchBytes) {
				next = it.Item().KeyCopy(nil)
				return nil
			}
			looked++
			if s.sealedBy(codec, it.Item(), primary) || s.isDamaged(it.Item().Key()) {
				continue
			}
			keys = append(keys, it.Item().KeyCopy(nil))
			size += more
		}
		return nil
	})
	return keys, looked, next, err
}

func (s *Store) sealedBy(codec tokenstore.Codec, item *badger.Item, primary uint32) (is bool) {
	err := item.Value(func(value []byte) error {
		_, sealed, err := splitValue(value)
		if err == nil {
			id, ok := codec.KeyOf(sealed)
			is = ok && id == primary
		}
		return err
	})
	return is && err == nil
}

// reseal seals the records under keys with the primary key, in one write. They
// keep their revisions: nothing in them changes.
func (s *Store) reseal(ctx context.Context, keys [][]byte) error {
	var done int
	damaged := map[string]error{}
	err := s.write(ctx, func(w *write) error {
		done = 0
		clear(damaged)
		for _, key := range keys {
			switch err := s.resealOne(w, key); {
			case err == nil:
				done++
			case errors.Is(err, tokenstore.ErrCorrupt):
				damaged[string(key)] = err
			case !errors.Is(err, tokenstore.ErrNotFound): // deleted meanwhile
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	s.rekeying.progress.Done += done
	s.rekeying.progress.Error = ""
	for key, err := range damaged {
		s.rekeying.progress.Damaged++
		s.rekeying.damaged[key] = true
		if id, ok := strings.CutPrefix(key, keyConnection); ok {
			s.noteDamage(id, err)
		}
	}
	return nil
}

func (s *Store) resealOne(w *write, key []byte) error {
	codec, id := s.sealing()
	expires := uint64(0)
	if item, err := w.txn.Get(key); err == nil {
		expires = item.ExpiresAt()
	}
	return readValue(w.txn, key, func(revision uint64, sealed []byte) error {
		again, err := codec.Reseal(sealed, id.dataOf(key, revision))
		if err == nil {
			w.setEntry(&badger.Entry{Key: key, Value: newValue(revision, again), ExpiresAt: expires})
		}
		return err
	})
}

// dataOf returns the associated data of the record under key.
func (id identity) dataOf(key []byte, revision uint64) []byte {
	if seq, ok := eventSeq(key); ok {
		return id.eventData(seq)
	}
	kind, prefix := tokenstore.KindConnection, keyConnection
	switch {
	case bytes.HasPrefix(key, []byte(keyFlow)):
		kind, prefix = tokenstore.KindFlow, keyFlow
	case bytes.HasPrefix(key, []byte(keyNote)):
		kind, prefix = tokenstore.KindNote, keyNote
	}
	return id.associatedData(kind, string(key[len(prefix):]), revision)
}

func (s *Store) isDamaged(key []byte) bool {
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	return s.rekeying.damaged[string(key)]
}
