package refresh

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// followEvery is how often it is looked at what other processes have written.
	followEvery = 500 * time.Millisecond
	// followWithin is the time between two looks after which one may have missed
	// something (tokenstore.Shared.Changes).
	followWithin = time.Second
	// compareEvery is how often all that is in memory is compared with the store,
	// whatever was told of it.
	compareEvery = time.Minute
	// followTime bounds a look.
	followTime = 5 * time.Second
	// compareAtOnce is how many connections are compared with one question.
	compareAtOnce = 5000
	// maxRelisted is how many connections of users are read after a look, one by
	// one. After more all users are forgotten instead, as after an import.
	maxRelisted = 200
)

// follower keeps what is in memory no older than what other processes write.
type follower struct {
	r        *Refresher
	mark     tokenstore.ChangeMark
	looked   time.Time // when the last look began
	compared time.Time // when all was compared
	missed   bool      // something may not have been told
	failing  bool      // the store has not answered the last time
	// told are those that the last look was told of as relisted: most are told
	// again and again. :: connection ID → revision
	told map[string]uint64
}

// follow looks until the Refresher ends. While the store does not answer, what is
// in memory goes on being used.
func (r *Refresher) follow() {
	f := &follower{r: r, missed: true}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		f.tick()
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *follower) tick() {
	ctx, cancel := context.WithTimeout(f.r.ctx, followTime)
	defer cancel()
	now := time.Now()
	// One of the clocks may have stood still with the process.
	if max(now.Sub(f.looked), now.Round(0).Sub(f.looked.Round(0))) > followWithin {
		f.missed = true
	}
	f.looked = now
	err := f.look(ctx)
	if err == nil && (f.missed || now.Sub(f.compared) >= compareEvery) {
		err = f.compare()
	}
	if f.r.ctx.Err() != nil {
		return
	}
	if err != nil {
		f.missed = true
		if !f.failing {
			f.r.cfg.Logger.Error("changes by other processes are not seen", zap.Error(err))
		}
	} else if f.failing {
		f.r.cfg.Logger.Info("changes by other processes are seen again")
	}
	f.failing = err != nil
}

// look takes notice of what was written since the last look.
func (f *follower) look(ctx context.Context) error {
	changes, mark, err := f.r.shared.Changes(ctx, f.mark)
	if err != nil {
		return err
	}
	var relisted []string
	told := map[string]uint64{}
	for _, ch := range changes {
		if ch.Deleted {
			f.gone(ch.ID)
			continue
		}
		f.r.cache.dropOlder(ch.ID, ch.Revision)
		if !ch.Relisted {
			continue
		}
		told[ch.ID] = ch.Revision
		if f.told[ch.ID] != ch.Revision {
			relisted = append(relisted, ch.ID)
		}
	}
	many := len(relisted) > maxRelisted
	if many {
		f.r.users.clear()
	}
	for _, id := range relisted {
		if !many || f.r.watches.has(id) {
			if err := f.reread(ctx, id); err != nil {
				return err // and told again, since the mark is the old one
			}
		}
	}
	f.mark, f.told = mark, told
	return nil
}

// gone takes notice that a connection was deleted. A user whose connection it was
// is looked for anew when it isn't found.
func (f *follower) gone(id string) {
	f.r.cache.drop(id)
	f.r.watches.end(id)
}

// reread takes notice of a connection that is new, or whose status may have
// changed.
func (f *follower) reread(ctx context.Context, id string) error {
	c, err := f.r.shared.Connection(ctx, id)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		f.gone(id)
	case errors.Is(err, tokenstore.ErrCorrupt):
		f.r.users.clear() // it may be anybody's
	case err != nil:
		return err
	default:
		f.r.users.put(&c)
		if usable(c.Status, c.Disabled) != nil {
			f.r.watches.end(id)
		}
	}
	return nil
}

// compare looks at the revision of all that is in memory. If something was missed,
// also at whom it is that a call for a user means. However long that takes, what
// is told meanwhile is heard: many who compare at once may take long.
func (f *follower) compare() error {
	known := f.r.cache.revisions()
	for _, id := range f.r.watches.ids() {
		if _, ok := known[id]; !ok || f.missed {
			known[id] = 0 // what is in memory may be newer than what the watch knows
		}
	}
	if f.missed {
		f.r.users.clear()
	}
	for ids := range slices.Chunk(slices.Collect(maps.Keys(known)), compareAtOnce) {
		if err := f.compareSome(ids, known); err != nil {
			return err
		}
	}
	f.looked = time.Now() // else a comparison that takes long would be the reason for the next
	f.missed, f.compared = false, f.looked
	return nil
}

func (f *follower) compareSome(ids []string, known map[string]uint64) error {
	ctx, cancel := context.WithTimeout(f.r.ctx, followTime)
	defer cancel()
	revisions, err := f.r.shared.Revisions(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		revision, there := revisions[id]
		switch {
		case !there:
			f.gone(id)
		case revision > known[id]:
			f.r.cache.dropOlder(id, revision)
			if !f.r.watches.has(id) {
				continue
			}
			if err := f.reread(ctx, id); err != nil {
				return err
			}
		}
	}
	return f.look(ctx)
}
