package pgstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A write that waits for a standby which is not there ends in doubt, and is there
// to be seen long after it was marked. Who has it done again is told that it is
// done: by then the others can see it.
func TestWriteInDoubtIsToldInTheEnd(t *testing.T) {
	db := pgtest.New(t)
	dsn, keys := db.Database(t), faultKeys(t)
	s, other := faultStore(t, dsn, keys), faultStore(t, dsn, keys)
	for name, write := range map[string]func(id string) error{
		"disabled": func(id string) error {
			_, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
				if c.Disabled {
					return tokenstore.ErrUnchanged
				}
				c.Disabled = true
				return nil
			})
			return err
		},
		"deleted": func(id string) error {
			_, err := s.DeleteConnection(t.Context(), id)
			if errors.Is(err, tokenstore.ErrNotFound) {
				return nil
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := s.CreateConnection(t.Context(), aConnection())
			must(t, err)
			time.Sleep(4 * time.Second) // what was marked before is told no more
			must(t, db.Set("synchronous_standby_names", "nobody"))
			if err := write(c.ID); !errors.Is(err, tokenstore.ErrUnavailable) {
				t.Fatalf("write = %v", err)
			}
			_, mark, err := other.Changes(t.Context(), "")
			must(t, err)
			must(t, db.Set("synchronous_standby_names", ""))
			must(t, write(c.ID))
			changes, _, err := other.Changes(t.Context(), mark)
			must(t, err)
			for _, ch := range changes {
				if ch.ID == c.ID && ch.Relisted {
					return
				}
			}
			t.Errorf("changes %v, without it", changes)
		})
	}
}
