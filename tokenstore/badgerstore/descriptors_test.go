//go:build linux

package badgerstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// withDescriptors runs do while the process may open only a few files more.
func withDescriptors(t *testing.T, more int, do func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = uint64(f.Fd()) + uint64(more)
	_ = f.Close()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }()
	do()
}

// readsOnly counts what is opened, and lets nothing be built: Badger leaves
// goroutines behind where it can't open its files.
type readsOnly struct {
	tokenstore.Codec
	opened int
}

var errBuilding = errors.New("a store is built")

func (r *readsOnly) OpenConnection(sealed, ad []byte) (tokenstore.Connection, error) {
	r.opened++
	return r.Codec.OpenConnection(sealed, ad)
}

func (*readsOnly) SealBytes([]byte, []byte) ([]byte, error) { return nil, errBuilding }

// TestTooFewDescriptors: a file that can't be opened for want of descriptors is
// not damaged, and nothing of it is lost.
func TestTooFewDescriptors(t *testing.T) {
	keys := newKeys(t)
	dir, _, _ := manyTables(t, keys)
	s := open(t, dir, keys)
	text := backup(t, s)
	shut(t, s)
	refused := 0
	for more := range 12 {
		var err error
		withDescriptors(t, more, func() { err = badgerstore.Check(dir, keys) })
		if errors.Is(err, badgerstore.ErrIncomplete) {
			t.Fatalf("with %d descriptors: Open = %v", more, err)
		}
	}
	if err := os.Remove(badgerstore.Mark(dir)); err != nil {
		t.Fatal(err)
	}
	for more := range 12 {
		for what, do := range map[string]func(tokenstore.Codec) error{
			"AcceptLoss": func(c tokenstore.Codec) error {
				_, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: c})
				return err
			},
			"Restore": func(c tokenstore.Codec) error {
				_, err := badgerstore.Restore(dir, bytes.NewReader(text), badgerstore.RestoreConfig{Codec: c, Replace: true})
				return err
			},
		} {
			codec := &readsOnly{Codec: keys}
			var err error
			withDescriptors(t, more, func() { err = do(codec) })
			switch {
			case !errors.Is(err, errBuilding):
				refused++
			case codec.opened != 50:
				t.Errorf("with %d descriptors %s goes on, and has read %d of 50 connections", more, what, codec.opened)
			}
		}
	}
	if refused == 0 {
		t.Error("there were always enough")
	}
}

// TestRestoreThatCantRemove: the new store is in force, and so it has succeeded.
func TestRestoreThatCantRemove(t *testing.T) {
	keys := newKeys(t)
	dir := filled(t, keys)
	s := open(t, dir, keys)
	text := backup(t, s)
	shut(t, s)
	busy := filepath.Join(dir, "badger", "99")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", busy, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("may not mount: %v", err)
	}
	defer func() { _ = syscall.Unmount(busy, syscall.MNT_DETACH) }()
	done, err := badgerstore.Restore(dir, bytes.NewReader(text), badgerstore.RestoreConfig{Codec: keys, Replace: true})
	if err != nil || done.Connections != 1 || !errors.Is(done.Unfinished, syscall.EBUSY) {
		t.Errorf("Restore = %+v, %v; want what could not be removed", done, err)
	}
	if err := syscall.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, open(t, dir, keys))); n != 1 {
		t.Errorf("%d connections are there, want 1", n)
	}
}
