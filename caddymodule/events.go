package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// emitEvery is how late at most Caddy's events app is told of an event.
	emitEvery = 500 * time.Millisecond
	// emitPage is how many events are read at once.
	emitPage = 100
)

// emitter gives the events of the audit log to the events app of one
// configuration.
type emitter struct {
	ctx  caddy.Context
	app  *caddyevents.App
	from string // the cursor where the log stood when the configuration came into force

	once  sync.Once
	ready chan struct{} // closed once all apps have started
}

// newEmitter returns the emitter of a configuration, nil if it has nobody who
// wants events.
func newEmitter(ctx caddy.Context) (*emitter, error) {
	mod, err := ctx.AppIfConfigured("events")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	app, ok := mod.(*caddyevents.App)
	if !ok || len(app.Subscriptions) == 0 {
		return nil, nil
	}
	m := &emitter{ctx: ctx, app: app, ready: make(chan struct{})}
	// The events app takes events once it has started itself. Caddy's own first
	// event comes when all apps have.
	return m, app.On("started", m)
}

// Handle implements caddyevents.Handler.
func (m *emitter) Handle(context.Context, caddy.Event) error {
	m.once.Do(func() { close(m.ready) })
	return nil
}

// usable reports whether events can be given to the app now.
func (m *emitter) usable() bool {
	select {
	case <-m.ready:
		return m.ctx.Err() == nil
	default:
		return false
	}
}

// emit gives e to the handlers, and returns when they have returned.
func (m *emitter) emit(e tokenstore.Event) error {
	text, err := api.EventJSON(e)
	if err != nil {
		return err
	}
	data := map[string]any{}
	if err := json.Unmarshal(text, &data); err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	m.app.Emit(m.ctx, string(e.Type), data)
	return nil
}

// keepEmitting follows the audit log for the handlers of the configuration in
// force, if it has any, until ctx ends. A handler that is slow holds up nothing
// but this.
func (e *engine) keepEmitting(ctx context.Context) {
	tick := time.NewTicker(emitEvery)
	defer tick.Stop()
	cursor := "" // empty while nobody wants events
	for {
		if in := e.current.Load(); in == nil || in.emitter == nil {
			cursor = ""
		} else {
			if cursor == "" {
				cursor = in.emitter.from
			}
			cursor = e.emitAfter(ctx, cursor)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// emitAfter emits what is after cursor, and returns the cursor after that.
func (e *engine) emitAfter(ctx context.Context, cursor string) string {
	for ctx.Err() == nil {
		page, _, err := e.store.ListEvents(ctx, tokenstore.EventFilter{}, cursor, emitPage)
		if err != nil {
			if ctx.Err() == nil {
				e.logger.Error("reading events for the events app", zap.Error(err))
			}
			return cursor
		}
		for _, event := range page {
			// Each one is for the configuration that is in force by then.
			m := e.current.Load().emitter
			if ctx.Err() != nil || m == nil || !m.usable() {
				return cursor
			}
			if err := m.emit(event); err != nil {
				e.logger.Error("event not emitted", zap.Error(err))
			}
			cursor = tokenstore.EventCursor(event.Seq)
		}
		if len(page) < emitPage {
			break
		}
	}
	return cursor
}
