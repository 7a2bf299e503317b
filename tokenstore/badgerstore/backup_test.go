package badgerstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func backup(t *testing.T, s *badgerstore.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(t.Context(), &b); err != nil {
		t.Fatalf("Backup = %v", err)
	}
	return b.Bytes()
}

func restore(t *testing.T, dir string, text []byte, cfg badgerstore.RestoreConfig) badgerstore.Restored {
	t.Helper()
	done, err := badgerstore.Restore(dir, bytes.NewReader(text), cfg)
	if err != nil {
		t.Fatalf("Restore = %v", err)
	}
	return done
}

// live returns an ACTIVE connection with a token of its own.
func live(name string) tokenstore.Connection {
	c := tokenstore.Connection{ID: tokenstore.NewID(), Integration: "github", UserID: name, Status: tokenstore.StatusActive}
	c.Token = tokenstore.Token{
		AccessToken: secret.New("access-" + name), RefreshToken: secret.New("refresh-" + name), Generation: 1,
		ExpiresAt: time.Now().Add(time.Hour).UTC().Round(0),
	}
	return c
}

// all returns every connection of a store by ID, by way of the list.
func all(t *testing.T, s tokenstore.Store) map[string]tokenstore.Connection {
	t.Helper()
	found, cursor := map[string]tokenstore.Connection{}, ""
	for {
		page, next, err := s.ListConnections(t.Context(), tokenstore.Filter{}, cursor, 500)
		if err != nil {
			t.Fatalf("ListConnections = %v", err)
		}
		for _, c := range page {
			found[c.ID] = c
		}
		if cursor = next; cursor == "" {
			return found
		}
	}
}

// TestBackupAndRestore: what comes back is what was, but for what was under way.
func TestBackupAndRestore(t *testing.T) {
	keys := newKeys(t)
	s := open(t, t.TempDir(), keys)
	put := func(c tokenstore.Connection) tokenstore.Connection { return create(t, s, c) }
	full := put(storetest.FullConnection())
	plain := live("plain")
	plain.Token.RefreshToken = secret.String{}
	plain = put(plain)
	under := live("under way")
	under.Intent = &tokenstore.Intent{RefreshTokenHash: "h", Generation: 1, Deadline: time.Now().UTC().Round(0)}
	under = put(under)
	answered := live("answered")
	answered.Intent = &tokenstore.Intent{RefreshTokenHash: "h", Generation: 1, Answer: &tokenstore.Answer{Status: 200, Body: secret.New("{}")}}
	answered = put(answered)
	begun := put(tokenstore.Connection{ID: tokenstore.NewID(), Status: tokenstore.StatusInitiated, InitiatedUntil: time.Now().Add(time.Hour)})
	staged := tokenstore.Connection{ID: tokenstore.NewID(), Status: tokenstore.StatusInitiated}
	staged.Stage(tokenstore.Staged{Token: live("staged").Token, FlowID: "flow", Until: time.Now().Add(time.Hour)})
	staged = put(staged)
	gone := put(live("gone"))
	if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateFlow(t.Context(), storetest.FullFlow()); err != nil {
		t.Fatal(err)
	}
	text := backup(t, s)
	for _, canary := range []string{storetest.Canary, "access-", "refresh-", "github", "under way"} {
		if bytes.Contains(text, []byte(canary)) {
			t.Errorf("%q stands in the backup", canary)
		}
	}

	dir := filepath.Join(t.TempDir(), "new", "data")
	done := restore(t, dir, text, badgerstore.RestoreConfig{Codec: keys})
	if done.Connections != 6 || done.Kept != "" || done.Unread != nil || len(done.Damaged) > 0 || time.Since(done.CreatedAt) > time.Minute {
		t.Errorf("Restore = %+v", done)
	}
	again := open(t, dir, keys)
	unproven := 0
	for _, want := range []tokenstore.Connection{full, plain, under, answered, begun, staged} {
		want = want.Clone()
		if want.Intent != nil && want.Intent.Answer == nil {
			want.Intent = nil
		}
		if want.Staged = nil; want.Status == tokenstore.StatusInitiated {
			want.Fail(tokenstore.ReasonTimeout)
		}
		if want.Token.Unproven = !want.Token.RefreshToken.IsZero(); want.Token.Unproven {
			unproven++
		}
		got, err := again.Connection(t.Context(), want.ID)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("connection of user %q: %v (-want +got):\n%s", want.UserID, err, diff)
		}
	}
	if done.Unproven != unproven || unproven != 3 {
		t.Errorf("%d unproven, want %d", done.Unproven, unproven)
	}
	if found := all(t, again); len(found) != 6 {
		t.Errorf("%d connections are listed, want 6", len(found))
	}
	if _, err := again.Connection(t.Context(), gone.ID); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("the deleted one: %v", err)
	}
	if _, err := again.CreateConnection(t.Context(), gone); !errors.Is(err, tokenstore.ErrExists) {
		t.Errorf("making the deleted one again: %v, want ErrExists", err)
	}
	if _, err := again.Flow(t.Context(), storetest.FullFlow().ID); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("the flow: %v", err)
	}
}

// slow takes a backup while the store goes on: after each record, a few updates.
type slow struct {
	bytes.Buffer
	updates *atomic.Int64
	over    *atomic.Bool
}

func (w *slow) Write(b []byte) (int, error) {
	if len(b) > 10<<10 {
		for n := w.updates.Load(); w.updates.Load() < n+3 && !w.over.Load(); {
			time.Sleep(time.Millisecond) // between two looks at a condition
		}
	}
	return w.Buffer.Write(b)
}

// TestBackupDuringLoad (F065): each backup is the store at one moment, and
// restores.
func TestBackupDuringLoad(t *testing.T) {
	keys := newKeys(t)
	s := open(t, t.TempDir(), keys)
	const pairs, backups = 20, 6
	var ids [pairs][2]string
	for i := range ids {
		for j := range ids[i] {
			c := live(fmt.Sprint(i, j))
			c.Name = strings.Repeat("a", 20<<10) // so that a backup is read in pieces
			ids[i][j] = create(t, s, c).ID
		}
	}
	var wg sync.WaitGroup
	var over atomic.Bool
	var updates atomic.Int64
	for _, pair := range ids {
		wg.Go(func() { // the second follows the first
			for !over.Load() {
				for _, id := range pair {
					_, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
						c.Token.Generation++
						return nil
					})
					if err != nil {
						t.Errorf("UpdateConnection = %v", err)
						over.Store(true)
						return
					}
					updates.Add(1)
				}
				c := create(t, s, live("passing"))
				if _, err := s.DeleteConnection(t.Context(), c.ID); err != nil {
					t.Errorf("DeleteConnection = %v", err)
				}
			}
		})
	}
	var texts [][]byte
	for range backups {
		b := &slow{updates: &updates, over: &over}
		if err := s.Backup(t.Context(), b); err != nil {
			t.Errorf("Backup = %v", err)
		}
		texts = append(texts, b.Bytes())
	}
	over.Store(true)
	wg.Wait()
	for i, text := range texts {
		dir := t.TempDir()
		done := restore(t, dir, text, badgerstore.RestoreConfig{Codec: keys})
		again := open(t, dir, keys)
		found := all(t, again)
		if len(done.Damaged) > 0 || len(found) != done.Connections || len(found) < 2*pairs || len(found) > 3*pairs {
			t.Errorf("backup %d: %+v, %d are listed; want from %d to %d", i, done, len(found), 2*pairs, 3*pairs)
		}
		for _, pair := range ids {
			first, second := found[pair[0]].Token.Generation, found[pair[1]].Token.Generation
			if first < second || first > second+1 {
				t.Errorf("backup %d: generations %d and %d are not of one moment", i, first, second)
			}
		}
		shut(t, again)
	}
}

// TestDamagedBackup: every single bit and every length decides.
func TestDamagedBackup(t *testing.T) {
	keys := newKeys(t)
	s := open(t, t.TempDir(), keys)
	for range 2 {
		create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	}
	gone := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	text := backup(t, s)
	other := backup(t, s)
	dir := filled(t, keys)
	before := snapshot(t, dir)
	refused := func(what string, text []byte) {
		t.Helper()
		_, err := badgerstore.Restore(dir, bytes.NewReader(text), badgerstore.RestoreConfig{Codec: keys, Replace: true})
		if !errors.Is(err, badgerstore.ErrBadBackup) && !errors.Is(err, tokenstore.ErrKeyMissing) {
			t.Errorf("%s: Restore = %v, want ErrBadBackup", what, err)
		}
	}
	for i := range len(text) * 8 {
		text[i/8] ^= 1 << (i % 8)
		refused(fmt.Sprintf("bit %d of byte %d", i%8, i/8), text)
		text[i/8] ^= 1 << (i % 8)
	}
	for n := range text {
		refused(fmt.Sprintf("cut at %d", n), text[:n])
	}
	refused("something behind the end", append(bytes.Clone(text), 0))
	refused("twice", append(bytes.Clone(text), text...))
	// The head of one and the rest of another of the same store.
	i, j := bytes.IndexByte(text, '}'), bytes.IndexByte(other, '}')
	refused("put together from two", append(bytes.Clone(text[:i]), other[j:]...))
	first := bytes.Index(text, []byte("conn_"))
	refused("with a record left out", append(bytes.Clone(text[:first-5]), text[first+len(gone.ID):]...))
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Error("a restore that was refused changed the directory")
	}
	t.Logf("%d bytes", len(text))
	restore(t, dir, text, badgerstore.RestoreConfig{Codec: keys, Replace: true})
}

// stuck is a client that takes a backup and stops in the middle.
type stuck struct{ first, release chan struct{} }

func (w *stuck) Write(b []byte) (int, error) {
	select {
	case <-w.first:
	default:
		close(w.first)
	}
	<-w.release
	return len(b), nil
}

func TestCloseDuringABackup(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	create(t, s, live("one"))
	w := &stuck{make(chan struct{}), make(chan struct{})}
	done := make(chan error)
	go func() { done <- s.Backup(context.Background(), w) }()
	<-w.first
	shut(t, s) // doesn't wait for the client
	close(w.release)
	if err := <-done; !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("Backup = %v, want ErrUnavailable", err)
	}
}

func TestBackupEnds(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	create(t, s, live("one"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("Backup with an ended context = %v", err)
	}
	full := errors.New("full")
	if err := s.Backup(t.Context(), failing{full}); !errors.Is(err, full) {
		t.Errorf("Backup to a writer that fails = %v", err)
	}
	shut(t, s)
	if err := s.Backup(t.Context(), io.Discard); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("Backup after Close = %v, want ErrUnavailable", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
