package caddymodule

import (
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// followingCore logs as the configuration in force says. What outlives a
// reload can't keep the logger it was made with: Caddy closes that one's
// outputs together with its configuration.
type followingCore struct {
	current *atomic.Pointer[zap.Logger]
	fields  []zapcore.Field
}

func (c followingCore) core() zapcore.Core {
	core := c.current.Load().Core()
	if len(c.fields) > 0 {
		core = core.With(c.fields)
	}
	return core
}

// Enabled implements zapcore.LevelEnabler.
func (c followingCore) Enabled(level zapcore.Level) bool { return c.core().Enabled(level) }

// Check implements zapcore.Core by letting the core in force write.
func (c followingCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.core().Check(entry, checked)
}

// Write implements zapcore.Core.
func (c followingCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return c.core().Write(entry, fields)
}

// Sync implements zapcore.Core.
func (c followingCore) Sync() error { return c.core().Sync() }

// With implements zapcore.Core.
func (c followingCore) With(fields []zapcore.Field) zapcore.Core {
	return followingCore{current: c.current, fields: slices.Concat(c.fields, fields)}
}
