package badgerstore_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

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

// hold keeps the committer busy inside a change until release is called.
func hold(t *testing.T, s *badgerstore.Store, id string) (release func()) {
	t.Helper()
	holding, let := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = s.UpdateConnection(context.Background(), id, func(*tokenstore.Connection) error {
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
	release := hold(t, s, c.ID)
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
	if got, err := s.Connection(t.Context(), c.ID); err != nil || len(got.Name) != 50 || got.Revision != 52 {
		t.Errorf("Connection = name of %d, revision %d, %v; want 50, 52", len(got.Name), got.Revision, err)
	}
	if got, err := s.Connection(t.Context(), other.ID); err != nil || got.Name != "" || got.Revision != 1 {
		t.Errorf("Connection = %q, revision %d, %v; want it unchanged", got.Name, got.Revision, err)
	}
}

// TestGivenUp: a context that ends while a write waits for its turn ends it.
func TestGivenUp(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	release := hold(t, s, c.ID)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := s.UpdateConnection(ctx, c.ID, func(*tokenstore.Connection) error {
			t.Error("the change ran after its call had returned")
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
	release()
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
