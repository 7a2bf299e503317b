package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// sealer holds the codec and the identity that records are sealed for. Both can
// be exchanged while the store is open.
type sealer struct {
	now    atomic.Pointer[sealing]
	mu     sync.Mutex // held by whoever exchanges them
	looked time.Time  // when the identity was last read for a key that is not known; guarded by mu
}

type sealing struct {
	codec  tokenstore.Codec
	id     identity
	codecs int       // how often the codec was exchanged
	since  time.Time // when it was, or the store was opened
}

func (with *sealing) data(kind tokenstore.Kind, id string, revision uint64) []byte {
	return with.id.associatedData(kind, id, revision)
}

// cantOpen returns what to say of sealed bytes that did not open. Those that
// another process has sealed with a key of the store's that this one's keyset
// lacks are no damage.
func (s *Store) cantOpen(ctx context.Context, sealed []byte, err error) error {
	with := s.sealer.now.Load()
	key, ok := with.codec.KeyOf(sealed)
	if !errors.Is(err, tokenstore.ErrCorrupt) || !ok {
		return err
	}
	if slices.Contains(with.codec.Keys(), key) {
		return err
	}
	if !with.id.names(with.codec, key) {
		s.lookForKeys(ctx)
	}
	if s.sealer.now.Load().id.names(with.codec, key) {
		return fmt.Errorf("%w: it is sealed with key %d, and this keyset lacks it: %w", tokenstore.ErrUnavailable, key, tokenstore.ErrKeyMissing)
	}
	return err
}

// lookForKeys reads the identity again, once in a second at most.
func (s *Store) lookForKeys(ctx context.Context) {
	s.sealer.mu.Lock()
	defer s.sealer.mu.Unlock()
	if time.Since(s.sealer.looked) < time.Second {
		return
	}
	s.sealer.looked = time.Now()
	_ = s.followIdentity(ctx)
}

// followIdentity takes over what others have changed of the identity, and has
// the own primary key noted in it if it is not, or not any more. s.sealer.mu is
// held.
func (s *Store) followIdentity(ctx context.Context) error {
	codec := s.sealer.now.Load().codec
	return s.changeIdentityLocked(ctx, func(id *identity) (bool, error) {
		for _, sealed := range id.IndexKeys {
			key, ok := codec.KeyOf(sealed)
			if _, err := codec.OpenBytes(sealed, id.associatedData(tokenstore.KindIdentity, "", 0)); ok && err != nil &&
				s.damage.set(fmt.Sprint("key ", key), true) {
				s.log.Error("another process seals with a key that this keyset lacks",
					zap.String("error_code", "key_missing"), zap.Uint32("key", key))
			}
		}
		return id.addPrimary(codec, s.keys.indexKey)
	})
}
