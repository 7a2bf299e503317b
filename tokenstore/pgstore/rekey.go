package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// errCodecChanged begins again: even where the primary key is the same as at the
// begin, another may have sealed something in between.
var errCodecChanged = errors.New("the keyset has changed meanwhile")

const (
	rekeyLease = "rekey"
	// rekeyWait is how often it is looked whether another process, which is sealing
	// everything, is through or has ended.
	rekeyWait = 2 * time.Second
)

// rekeying is the state of a rekey.
type rekeying struct {
	mu       sync.Mutex
	progress tokenstore.RekeyProgress // guarded by mu; its State is `done` or empty
	damaged  map[string]bool          // guarded by mu; what was found to be
}

// SetCodec exchanges the codec while the store is open. From then on everything
// is sealed with its primary key. It returns an error that wraps
// tokenstore.ErrKeyMissing, and changes nothing, if the codec lacks a key that
// something in the store may be sealed with.
func (s *Store) SetCodec(codec tokenstore.Codec) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeFor)
	defer cancel()
	s.sealer.mu.Lock()
	defer s.sealer.mu.Unlock()
	// The identity names a key before anything is sealed with it.
	err := s.changeIdentityLocked(ctx, func(id *identity) (bool, error) {
		indexKey, err := id.openIndexKey(codec)
		if err != nil {
			return false, err
		}
		return id.addPrimary(codec, indexKey)
	})
	if err != nil {
		return fmt.Errorf("pgstore: changing the keyset: %w", err)
	}
	now := *s.sealer.now.Load()
	now.codec, now.codecs, now.since = codec, now.codecs+1, time.Now()
	s.sealer.now.Store(&now)
	return nil
}

// BeginRekey notes, for all processes and later runs, that everything is to be
// sealed with the primary key. It does nothing where everything is.
func (s *Store) BeginRekey() error {
	ctx, cancel := context.WithTimeout(context.Background(), writeFor)
	defer cancel()
	codec := s.sealer.now.Load().codec
	err := s.changeIdentity(ctx, func(id *identity) (bool, error) {
		if id.Rekeying || !id.needsOthers(codec) {
			return false, nil
		}
		id.Rekeying = true
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("pgstore: beginning to rekey: %w", err)
	}
	return nil
}

// RekeyProgress returns how far it is. Numbers are told by the process that does
// it alone.
func (s *Store) RekeyProgress() tokenstore.RekeyProgress {
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	p := s.rekeying.progress
	switch now := s.sealer.now.Load(); {
	case now.id.Rekeying:
		p.State = "running"
	case now.id.needsOthers(now.codec):
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
// in this run or another. One process does it at a time; in the others Rekey waits
// until that is through, or has ended and left something to do.
//
// Every process has to have the primary key as its own by then: what one seals
// with another key is found to be needed again when that is through.
func (s *Store) Rekey(ctx context.Context, finish func() error) error {
	for s.sealer.now.Load().id.Rekeying {
		hold, err := tokenstore.TakeHold(ctx, s, rekeyLease, 0)
		switch {
		case err == nil:
			err = s.rekeyHeld(ctx, hold, finish)
			hold.Release()
		case errors.Is(err, tokenstore.ErrLeased):
			if err = sleep(ctx, rekeyWait); err == nil {
				err = s.changeIdentity(ctx, func(*identity) (bool, error) { return false, nil })
			}
		}
		if err != nil {
			s.rekeying.mu.Lock()
			defer s.rekeying.mu.Unlock()
			if ctx.Err() == nil {
				s.rekeying.progress.Error = err.Error()
			}
			return fmt.Errorf("pgstore: rekeying: %w", err)
		}
	}
	return nil
}

func (s *Store) rekeyHeld(ctx context.Context, hold *tokenstore.Hold, finish func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-hold.Lost():
			cancel(tokenstore.ErrLeaseLost)
		case <-stop:
		}
	})
	defer watch.Wait()
	defer close(stop)

	// What another process has done since is known before anything is begun.
	err := s.changeIdentity(ctx, func(*identity) (bool, error) { return false, nil })
	if err != nil || !s.sealer.now.Load().id.Rekeying {
		return err
	}
	err = errCodecChanged
	for errors.Is(err, errCodecChanged) {
		err = s.rekeyAll(ctx)
	}
	if err == nil {
		err = finish()
	}
	if err == nil {
		err = s.changeIdentity(ctx, func(id *identity) (bool, error) {
			id.Rekeying = false
			return true, nil
		})
	}
	if err != nil {
		return err
	}
	s.rekeying.mu.Lock()
	defer s.rekeying.mu.Unlock()
	s.rekeying.progress.State, s.rekeying.progress.Error = "done", ""
	return nil
}

// rekeyAll seals everything with the primary key and, once a look at all of it
// found nothing else, lets the identity forget the other keys. The last look
// begins when no write can be under way any more that the codec before has sealed.
func (s *Store) rekeyAll(ctx context.Context) error {
	began := s.sealer.now.Load()
	primary := began.codec.Keys()[0]
	s.rekeying.mu.Lock()
	s.rekeying.damaged = map[string]bool{}
	s.rekeying.mu.Unlock()
	left, err := s.rekeyPass(ctx, primary, false)
	for settled := false; err == nil && (left > 0 || !settled); {
		if s.sealer.now.Load().codecs != began.codecs {
			return errCodecChanged
		}
		if left > 0 {
			_, err = s.rekeyPass(ctx, primary, true)
		}
		if err == nil && !settled {
			settled = true
			err = sleep(ctx, s.settle-time.Since(began.since))
		}
		if err == nil {
			left, err = s.rekeyPass(ctx, primary, false)
		}
	}
	if err != nil {
		return err
	}
	return s.changeIdentity(ctx, func(id *identity) (bool, error) {
		if s.sealer.now.Load().codecs != began.codecs {
			return false, errCodecChanged
		}
		id.dropOthers(began.codec)
		return true, nil
	})
}

// rekeyPass looks at every record, seals those again that another key than
// primary sealed if reseal says so, and returns how many there were; damaged ones
// that were found before don't count.
func (s *Store) rekeyPass(ctx context.Context, primary uint32, reseal bool) (left int, err error) {
	total := 0
	for _, t := range sealedTables {
		for after := t.first; after != nil; {
			foreign, looked, last, err := s.foreign(ctx, t, after, primary)
			if err != nil {
				return left, err
			}
			total, left, after = total+looked, left+len(foreign), last
			if reseal && len(foreign) > 0 {
				if err := s.reseal(ctx, t, foreign); err != nil {
					return left, err
				}
			}
		}
	}
	if !reseal {
		s.rekeying.mu.Lock()
		damaged := len(s.rekeying.damaged)
		was := s.rekeying.progress.Error
		s.rekeying.progress = tokenstore.RekeyProgress{Total: total, Done: total - left - damaged, Damaged: damaged, Error: was}
		s.rekeying.mu.Unlock()
	}
	return left, nil
}
