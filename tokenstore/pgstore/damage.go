package pgstore

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// damage remembers which records can't be opened, so that each is logged once
// however often it is asked for.
type damage struct {
	mu  sync.Mutex
	ids map[string]bool // guarded by mu
}

func (d *damage) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ids[id]
}

// set reports whether that is news.
func (d *damage) set(id string, damaged bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids[id] == damaged {
		return false
	}
	if !damaged {
		delete(d.ids, id)
		return true
	}
	if d.ids == nil {
		d.ids = map[string]bool{}
	}
	d.ids[id] = true
	return true
}

// noteDamage notes what came of opening a connection.
func (s *Store) noteDamage(id string, err error) {
	if damaged := errors.Is(err, tokenstore.ErrCorrupt); s.damage.set(id, damaged) && damaged {
		s.log.Error("record is damaged", zap.String("error_code", "store_corrupt"), zap.String("connection_id", id), zap.Error(err))
	}
}
