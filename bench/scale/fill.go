package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// fillers is how many write at a time: as many as the store writes in one
// transaction.
const fillers = 1024

// keysetFile is where the program looks for the keyset.
const keysetFile = "lanyard-keys.json"

// openStore opens the store in dir, which has to have a keyset.
func openStore(dir string) (*badgerstore.Store, error) {
	text, err := os.ReadFile(filepath.Join(dir, keysetFile))
	if err != nil {
		return nil, err
	}
	keys, err := seal.Parse(text)
	if err != nil {
		return nil, err
	}
	return badgerstore.Open(dir, badgerstore.Config{Codec: keys})
}

// newStore makes a store with a keyset in dir.
func newStore(dir string) (*badgerstore.Store, error) {
	text, err := seal.Generate()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, keysetFile), text, 0o600); err != nil {
		return nil, err
	}
	return openStore(dir)
}

// fill makes a store of s in dir, each connection by a durable write of its own.
// It tells progress how far it has come.
func fill(ctx context.Context, dir string, s sample, progress io.Writer) (err error) {
	store, err := newStore(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range fillers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= s.n {
					return
				}
				if _, err := store.CreateConnection(ctx, s.connection(i)); err != nil {
					stop(err)
				}
				if i > 0 && i%max(s.n/10, 100_000) == 0 {
					_, _ = fmt.Fprintf(progress, "%d of %d, %.0f a second\n", i, s.n, float64(i)/time.Since(began).Seconds())
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
