package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// rekeyAgain is how long after a failure re-sealing is tried again.
const rekeyAgain = 5 * time.Second

// Backup implements api.Keeper.
func (e *engine) Backup(ctx context.Context, w io.Writer) error {
	s, ok := e.store.(backupStore)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.Backup(ctx, w)
}

// HasBackup implements api.Keeper.
func (e *engine) HasBackup() bool {
	_, ok := e.store.(backupStore)
	return ok
}

// backupStore is a store that has no tools of its own for that.
type backupStore interface {
	Backup(ctx context.Context, w io.Writer) error
}

// Rekeying implements api.Keeper.
func (e *engine) Rekeying() api.Rekeying { return api.Rekeying(e.store.RekeyProgress()) }

// Rekey implements api.Keeper. Where the keyset is Lanyard's own file, it gets a
// new primary key first, unless the last one is not through yet.
func (e *engine) Rekey(context.Context) error {
	e.keyMu.Lock()
	defer e.keyMu.Unlock()
	if state := e.store.RekeyProgress().State; e.ownsKeyset() && (state == "idle" || state == "done") {
		if err := e.changeKeyset(seal.AddPrimary); err != nil {
			return fmt.Errorf("making a new key: %w", err)
		}
	}
	if err := e.store.BeginRekey(); err != nil {
		return err
	}
	select {
	case e.rekeys <- struct{}{}:
	default: // one is waiting already
	}
	return nil
}

// takeKeyset takes the settings' keyset into force, if it has every key that
// the store needs.
func (e *engine) takeKeyset(s *settings) error {
	e.keyMu.Lock()
	defer e.keyMu.Unlock()
	ks, err := ensureKeyset(s.dir, s.keyset, e.logger)
	if err != nil || ks.text.Equal(e.keyset.text) {
		return err
	}
	if err := e.store.SetCodec(ks); err != nil {
		return fmt.Errorf("keyset: the one that is open stays in force: %w", err)
	}
	e.noteKeyset(ks)
	return nil
}

// noteKeyset makes ks the keyset in force. e.keyMu is held.
func (e *engine) noteKeyset(ks *keyset) {
	e.keyset = ks
	e.logger.Info("keyset changed", zap.Uint32("primary_key", ks.Keys()[0]), zap.Int("keys", len(ks.Keys())))
}

// ownsKeyset reports whether the keyset in force is the file that Lanyard made.
func (e *engine) ownsKeyset() bool {
	in := e.current.Load()
	return in != nil && in.settings.keyset == nil
}

// changeKeyset changes Lanyard's own keyset: first the file, then what is in
// force, so that nothing is ever sealed with a key that is nowhere else. e.keyMu
// is held.
func (e *engine) changeKeyset(change func([]byte) ([]byte, error)) error {
	name := filepath.Join(e.dir, keysetFile)
	old, err := os.ReadFile(name) //nolint:gosec // a fixed name in the configured directory
	if err != nil {
		return err
	}
	text, err := change(old)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ks, err := parseKeyset(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := replaceFile(name, text); err != nil {
		return err
	}
	if err := e.store.SetCodec(ks); err != nil {
		// After any other error the store's identity on the disk may already name
		// the new key, which then must be in the file at the next start.
		if errors.Is(err, tokenstore.ErrKeyMissing) {
			err = errors.Join(err, replaceFile(name, old))
		}
		return err
	}
	e.noteKeyset(ks)
	return nil
}

// keepRekeying seals what was asked for, now, by the last run, and by others on the
// same database who have ended, until ctx ends.
func (e *engine) keepRekeying(ctx context.Context) {
	for {
		err := e.store.Rekey(ctx, e.dropOldKeys)
		var again <-chan time.Time
		if e.shared() {
			again = time.After(adoptEvery)
		}
		if err != nil && ctx.Err() == nil {
			e.logger.Error("rekey interrupted, trying again", zap.Error(err))
			again = time.After(rekeyAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-e.rekeys:
		case <-again:
		}
	}
}

// dropOldKeys leaves the primary key alone in Lanyard's own keyset: nothing is
// sealed with the others any more. A configured keyset is the operator's.
func (e *engine) dropOldKeys() error {
	e.keyMu.Lock()
	defer e.keyMu.Unlock()
	if !e.ownsKeyset() || len(e.keyset.Keys()) == 1 {
		return nil
	}
	return e.changeKeyset(seal.DropOld)
}
