package caddymodule

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/resident"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

const (
	// leanAfter is when what only the start has needed is given back.
	leanAfter = 2 * time.Second
	// leanEvery is how often what was looked at once is: the tables of the store
	// above all, which compactions read from end to end.
	leanEvery = 20 * time.Second
)

// keepLean gives back the pages of the program and of the store's tables that
// are not in use, until ctx ends.
func (e *engine) keepLean(ctx context.Context) {
	program, err := os.Executable()
	if err != nil {
		program = "" // then the tables alone
	}
	drop := func(tables map[string]bool) error {
		return resident.Drop(func(path string) bool { return path == program || tables[path] })
	}
	for wait := leanAfter; ; wait = leanEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if s, ok := e.store.(*badgerstore.Store); ok {
			err = s.HoldTables(drop)
		} else {
			err = drop(nil)
		}
		if err != nil {
			e.logger.Debug("memory not given back", zap.Error(err))
		}
	}
}
