package badgerstore

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	boptions "github.com/dgraph-io/badger/v4/options"
	"go.uber.org/zap"
)

// valueThreshold is how long a value may be in the tree. Two of them have to fit
// into a transaction, which is at most 15 % of memTableSize; as for longer ones,
// what leads to them does.
const valueThreshold = 192 << 10

// options are Badger's for a sidecar: its defaults are for a big server, and
// lose acknowledged writes with the machine and hold most of a gigabyte in
// memory at a million records.
func options(dir string, log *logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(log).
		// A rotated refresh token that is lost is lost for good.
		WithSyncWrites(true).
		WithMemTableSize(memTableSize).
		WithNumMemtables(2).
		WithNumLevelZeroTables(levelZeroTables).
		WithNumLevelZeroTablesStall(levelZeroMost).
		WithBaseLevelSize(baseLevelSize).
		WithLevelSizeMultiplier(levelRatio).
		WithNumCompactors(mergesAtOnce).
		// Sealed bytes don't compress, and without compression the page cache
		// serves for the block cache.
		WithCompression(boptions.None).
		WithBlockCacheSize(0).
		// Badger reads a damaged value log as an empty value, so values belong
		// into the tree, all but the absurd.
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(16 << 20).
		// The committer is the only writer: there is nothing to conflict with.
		WithDetectConflicts(false).
		WithMetricsEnabled(false)
}

// logger passes on what Badger warns of, and drops its progress reports.
type logger struct {
	log   *zap.Logger
	muted atomic.Bool // Badger was given up, and tells once a second what it lacks
}

func newLogger(log *zap.Logger) *logger { return &logger{log: log} }

func (l *logger) Errorf(format string, args ...any) {
	if !l.muted.Load() {
		l.log.Error("badger reported an error", message(format, args))
	}
}

func (l *logger) Warningf(format string, args ...any) {
	if !l.muted.Load() {
		l.log.Warn("badger warned", message(format, args))
	}
}

func (*logger) Infof(string, ...any)  {}
func (*logger) Debugf(string, ...any) {}

func message(format string, args []any) zap.Field {
	return zap.String("message", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
