package badgerstore

import (
	"sync"
	"sync/atomic"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// sealer holds the codec and the identity that records are sealed for. Both can
// be exchanged while the store is open.
type sealer struct {
	now atomic.Pointer[sealing]
	mu  sync.Mutex // held by whoever exchanges them
}

type sealing struct {
	codec  tokenstore.Codec
	id     identity
	codecs int // how often the codec was exchanged
}

// sealing returns the codec and the identity to seal and open records with.
func (s *Store) sealing() (tokenstore.Codec, identity) {
	now := s.sealer.now.Load()
	return now.codec, now.id
}

func (s *Store) setSealing(codec tokenstore.Codec, id identity) {
	s.sealer.now.Store(&sealing{codec: codec, id: id})
}

// changeSealing exchanges the codec, the identity, or both, one change at a
// time. If change changes the identity it has to put it into the identity file
// itself; what it has changed is taken into use when it returns nil.
func (s *Store) changeSealing(change func(now *sealing) error) error {
	s.sealer.mu.Lock()
	defer s.sealer.mu.Unlock()
	now := *s.sealer.now.Load()
	if err := change(&now); err != nil {
		return err
	}
	s.sealer.now.Store(&now)
	return nil
}
