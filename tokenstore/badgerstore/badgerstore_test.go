package badgerstore_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKeys(tb testing.TB) *seal.Keyset {
	tb.Helper()
	text, err := seal.Generate()
	if err != nil {
		tb.Fatal(err)
	}
	ks, err := seal.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return ks
}

func open(t *testing.T, dir string, keys tokenstore.Codec) *badgerstore.Store {
	t.Helper()
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s
}

func shut(t *testing.T, s *badgerstore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
}

func create(t *testing.T, s tokenstore.Store, c tokenstore.Connection) tokenstore.Connection {
	t.Helper()
	c, err := s.CreateConnection(t.Context(), c)
	if err != nil {
		t.Fatalf("CreateConnection = %v", err)
	}
	return c
}

// snapshot reads every file below dir :: path → contents.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestStore(t *testing.T) {
	keys := newKeys(t)
	storetest.Run(t, func(t *testing.T) tokenstore.Store { //nolint:thelper // opens, checks nothing
		s, err := badgerstore.Open(t.TempDir(), badgerstore.Config{Codec: keys})
		if err != nil {
			t.Fatalf("Open = %v", err)
		}
		return s
	})
}

func TestReopen(t *testing.T) {
	dir, keys := filepath.Join(t.TempDir(), "deep", "data"), newKeys(t)
	if badgerstore.Exists(dir) {
		t.Error("Exists before the first Open")
	}
	s := open(t, dir, keys)
	if !badgerstore.Exists(dir) {
		t.Error("no Exists after the first Open")
	}
	c := create(t, s, storetest.FullConnection())
	gone := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	f := storetest.FullFlow()
	f.Stage = tokenstore.FlowTaken
	if err := s.CreateFlow(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	shut(t, s)

	s = open(t, dir, keys)
	got, err := s.Connection(t.Context(), c.ID)
	if diff := cmp.Diff(c, got); err != nil || diff != "" {
		t.Errorf("Connection = %v (-want +got):\n%s", err, diff)
	}
	flows, err := s.TakenFlows(t.Context())
	if diff := cmp.Diff([]tokenstore.Flow{f}, flows); err != nil || diff != "" {
		t.Errorf("TakenFlows = %v (-want +got):\n%s", err, diff)
	}
	page, next, err := s.ListConnections(t.Context(), tokenstore.Filter{UserID: c.UserID}, "", 10)
	if err != nil || len(page) != 1 || next != "" {
		t.Errorf("ListConnections = %d, %q, %v; want one", len(page), next, err)
	}
	due, err := s.DueConnections(t.Context(), time.Now())
	if err != nil || len(due) != 1 {
		t.Errorf("DueConnections = %v, %v; want one", due, err)
	}
	if _, err := s.CreateConnection(t.Context(), gone); !errors.Is(err, tokenstore.ErrExists) {
		t.Errorf("CreateConnection of a deleted one = %v, want ErrExists", err)
	}
}

func TestFilesAreClosedToOthers(t *testing.T) {
	dir, keys := filepath.Join(t.TempDir(), "data"), newKeys(t)
	check := func(when string) {
		t.Helper()
		for _, d := range []string{dir, filepath.Join(dir, "badger")} {
			if fi, err := os.Stat(d); err != nil || fi.Mode().Perm() != 0o700 {
				t.Errorf("%s: directory %s is %v, %v; want 0700", when, d, fi.Mode(), err)
			}
		}
		files := 0
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			if fi, err := d.Info(); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: file %s is %v, %v; want 0600", when, path, fi.Mode(), err)
			}
			return nil
		})
		if err != nil || files < 4 {
			t.Errorf("%s: looked at %d files, %v", when, files, err)
		}
	}
	s := open(t, dir, keys)
	check("open")
	create(t, s, storetest.FullConnection())
	shut(t, s)
	check("closed")
	s = open(t, dir, keys)
	check("reopened")
	shut(t, s)
}

func TestNothingInClear(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	c := storetest.FullConnection()
	c.UserID, c.Integration, c.Status = "user-canary-17", "integration-canary", "STATUS-canary"
	create(t, s, c)
	if err := s.CreateFlow(t.Context(), tokenstore.Flow{ID: "f", AppState: storetest.Canary, ExpiresAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		found := false
		for path, text := range snapshot(t, dir) {
			found = found || strings.Contains(text, c.ID) // or the look is no good
			if strings.Contains(text, storetest.Canary) || strings.Contains(text, "Y2FuYXJ5") {
				t.Errorf("%s: %s holds a secret or a user ID in clear text", when, path)
			}
		}
		if !found {
			t.Errorf("%s: the record's key is nowhere in the directory", when)
		}
	}
	check("open")
	shut(t, s)
	check("closed")
}

func TestSecondOpen(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	start := time.Now()
	_, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys, LockWait: 200 * time.Millisecond})
	if !errors.Is(err, tokenstore.ErrUnavailable) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second Open = %v, want an error that names the directory and says who has it", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("second Open took %v", took)
	}
	// One that waits gets it when the first lets go.
	opened := make(chan error)
	go func() {
		second, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	shut(t, s)
	if err := <-opened; err != nil {
		t.Errorf("Open while the other closes = %v", err)
	}
}

func TestManyWriters(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	s, err := badgerstore.Open(t.TempDir(), badgerstore.Config{Codec: newKeys(t), Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	// Records of 100 kB, so that what waits together fills several transactions
	// and several memtables.
	name := strings.Repeat("x", 100_000)
	var wg sync.WaitGroup
	ids := make([]string, 200)
	for i := range ids {
		wg.Go(func() {
			ids[i] = tokenstore.NewID()
			if _, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: ids[i], Name: name}); err != nil {
				t.Errorf("CreateConnection = %v", err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if c, err := s.Connection(t.Context(), id); err != nil || c.Name != name {
			t.Errorf("Connection = %d bytes of name, %v", len(c.Name), err)
		}
	}
	shut(t, s)
	for _, entry := range logs.All() {
		t.Errorf("logged %s: %s %v", entry.Level, entry.Message, entry.ContextMap())
	}
}

// TestAbsurdAnswer stores the longest answer there is: it goes to the value log.
func TestAbsurdAnswer(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	c := create(t, s, absurd())
	shut(t, s)
	s = open(t, dir, keys)
	got, err := s.Connection(t.Context(), c.ID)
	if err != nil || !got.Intent.Answer.Body.Equal(c.Intent.Answer.Body) {
		t.Errorf("Connection = %v, want the answer as it was", err)
	}
}

func TestWritesAfterClose(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	shut(t, s)
	shut(t, s)
	if _, err := s.DeleteConnection(t.Context(), c.ID); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("DeleteConnection after Close = %v, want ErrUnavailable", err)
	}
	if _, err := s.Connection(t.Context(), c.ID); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("Connection after Close = %v, want ErrUnavailable", err)
	}
}

func TestCloseAnswersEverybody(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	var written sync.Map // :: ID → true, of what was acknowledged
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				c, err := s.CreateConnection(context.Background(), tokenstore.Connection{ID: tokenstore.NewID()})
				if err != nil {
					if !errors.Is(err, tokenstore.ErrUnavailable) {
						t.Errorf("CreateConnection = %v, want ErrUnavailable", err)
					}
					return
				}
				written.Store(c.ID, true)
			}
		})
	}
	for n := 0; n < 10; { // some are under way
		n = 0
		written.Range(func(any, any) bool { n++; return true })
	}
	shut(t, s)
	wg.Wait()
	s = open(t, dir, keys)
	written.Range(func(id, _ any) bool {
		if _, err := s.Connection(t.Context(), id.(string)); err != nil {
			t.Errorf("an acknowledged connection is lost: %v", err)
		}
		return true
	})
}
