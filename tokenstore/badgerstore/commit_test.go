package badgerstore_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

func absurd() tokenstore.Connection {
	body := strings.Repeat("\xff\"\x00<", 1<<18) // 1 MiB
	return tokenstore.Connection{
		ID:     tokenstore.NewID(),
		Intent: &tokenstore.Intent{Answer: &tokenstore.Answer{Body: secret.New(body)}},
	}
}

// hold keeps the committer busy inside a change until release is called: of a
// note, since a connection's is first tried outside.
func hold(t *testing.T, s *badgerstore.Store) (release func()) {
	t.Helper()
	holding, let := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = s.UpdateNote(context.Background(), "held", func(*tokenstore.Note) error {
			close(holding)
			<-let
			return nil
		})
	})
	<-holding
	return func() { close(let); wg.Wait() }
}

// TestBatch has writes wait together and checks each alone.
func TestBatch(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	other := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	release := hold(t, s)
	refused := errors.New("refused")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
				c.Name += "x"
				return nil
			})
			if err != nil {
				t.Errorf("UpdateConnection = %v", err)
			}
		})
		wg.Go(func() {
			_, err := s.UpdateConnection(t.Context(), other.ID, func(c *tokenstore.Connection) error {
				c.Name = "refused"
				return refused
			})
			if !errors.Is(err, refused) {
				t.Errorf("UpdateConnection = %v, want it refused", err)
			}
		})
		wg.Go(func() { // its own text can't be sealed
			_, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: tokenstore.NewID(), Name: "\xff"})
			if err == nil {
				t.Error("CreateConnection of what can't be sealed succeeded")
			}
		})
	}
	release()
	wg.Wait()
	if got, err := s.Connection(t.Context(), c.ID); err != nil || len(got.Name) != 50 || got.Revision != 51 {
		t.Errorf("Connection = name of %d, revision %d, %v; want 50, 51", len(got.Name), got.Revision, err)
	}
	if got, err := s.Connection(t.Context(), other.ID); err != nil || got.Name != "" || got.Revision != 1 {
		t.Errorf("Connection = %q, revision %d, %v; want it unchanged", got.Name, got.Revision, err)
	}
}

// TestGivenUp: a context that ends while a write waits for its turn ends it.
func TestGivenUp(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	release := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	var returned atomic.Bool
	go func() {
		_, err := s.UpdateConnection(ctx, c.ID, func(c *tokenstore.Connection) error {
			if returned.Load() {
				t.Error("the change ran after its call had returned")
			}
			c.Name = "given up"
			return nil
		})
		waiting <- err
	}()
	for s.Waiting() == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("UpdateConnection = %v, want context.Canceled", err)
	}
	returned.Store(true)
	release()
	if err := s.DeleteNote(t.Context(), "held"); err != nil { // its turn is after that one's
		t.Errorf("DeleteNote = %v", err)
	}
	if got, err := s.Connection(t.Context(), c.ID); err != nil || got.Name != "" {
		t.Errorf("Connection = %q, %v; want it unchanged", got.Name, err)
	}
}

// TestWorkedOutTooEarly: a change is worked out before its turn. What was worked
// out on a record that has changed since is worked out again, and so is what was
// sealed by a key that is not the primary one any more.
func TestWorkedOutTooEarly(t *testing.T) {
	for name, tt := range map[string]struct {
		between func(t *testing.T, s *badgerstore.Store, id string, keys rotation)
		runs    int
		want    string
	}{
		"nothing in between": {func(*testing.T, *badgerstore.Store, string, rotation) {}, 1, "a"},
		"another change": {func(t *testing.T, s *badgerstore.Store, id string, _ rotation) {
			t.Helper()
			_, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error { c.Name = "b"; return nil })
			if err != nil {
				t.Errorf("UpdateConnection = %v", err)
			}
		}, 2, "ba"},
		"another primary key": {func(t *testing.T, s *badgerstore.Store, _ string, keys rotation) {
			t.Helper()
			if err := s.SetCodec(keys.both); err != nil {
				t.Errorf("SetCodec = %v", err)
			}
		}, 2, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, runs := newRotation(t), 0
			s := open(t, t.TempDir(), keys.before)
			c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
			_, err := s.UpdateConnection(t.Context(), c.ID, func(cur *tokenstore.Connection) error {
				if cur.Name += "a"; runs == 0 {
					tt.between(t, s, c.ID, keys)
				}
				runs++
				return nil
			})
			if err != nil || runs != tt.runs {
				t.Errorf("UpdateConnection = %v after %d runs, want %d", err, runs, tt.runs)
			}
			if got, err := s.Connection(t.Context(), c.ID); err != nil || got.Name != tt.want {
				t.Errorf("Connection = %q, %v; want %q", got.Name, err, tt.want)
			}
			if s.RekeyProgress().State != "needed" {
				return
			}
			err = s.Tamper(func(txn *badger.Txn) error {
				item, err := txn.Get([]byte("c/" + c.ID))
				if err != nil {
					return err
				}
				return item.Value(func(value []byte) error {
					if key, ok := keys.both.KeyOf(value[9:]); !ok || key != keys.both.Keys()[0] {
						t.Errorf("the record is sealed by key %d, want the primary one of %v", key, keys.both.Keys())
					}
					return nil
				})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPanic: a change that panics is its caller's fault, and nobody else's.
func TestPanic(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	func() {
		defer func() {
			if got := recover(); got != "oops" {
				t.Errorf("recovered %v, want the change's own panic", got)
			}
		}()
		_, err := s.UpdateConnection(t.Context(), c.ID, func(*tokenstore.Connection) error { panic("oops") })
		t.Errorf("UpdateConnection = %v, want a panic", err)
	}()
	if _, err := s.UpdateConnection(t.Context(), c.ID, func(*tokenstore.Connection) error { return nil }); err != nil {
		t.Errorf("UpdateConnection after another's panic = %v", err)
	}
}
