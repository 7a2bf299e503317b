package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

const (
	// named is how long after a start what can't be recovered may go unnamed.
	named = 10 * time.Second
	// atOnce is how many connections the judge looks at together.
	atOnce = 8
	// reason is what a connection has to say whose refresh was cut off and then
	// refused.
	reason = "refresh_interrupted"
)

// books are the ledger, with the grants by the names under which they were
// given.
type books struct {
	fakeprovider.Ledger
	grants map[string]fakeprovider.GrantRecord // :: account → grant
}

func (w *world) books() books {
	b := books{w.fake.Ledger(), map[string]fakeprovider.GrantRecord{}}
	for _, g := range b.Grants {
		b.grants[g.User.Name] = g
	}
	return b
}

// judge checks a program that has just become ready after a kill, and to which
// nobody has done anything yet.
func (w *world) judge(ctx context.Context) error {
	if err := w.checkDeleted(ctx); err != nil {
		return err
	}
	all := w.everyone()
	err := parallel(all, func(c *conn) error {
		c.release() // what was left half done under load
		c.first, c.atKill = answer{}, c.told
		if c.state != active {
			return nil
		}
		var err error
		c.first, err = w.call(ctx, c.id)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.settle(ctx, all); err != nil {
		return err
	}
	w.checkPosts()
	clear(w.doubt)
	return nil
}

// checkDeleted finds out what became of deletions that were not answered, and
// checks that what was deleted stays so: of long ago a few, at the end all.
func (w *world) checkDeleted(ctx context.Context) error {
	err := parallel(w.everyone(), func(c *conn) error {
		if !c.deleting {
			return nil
		}
		_, found, err := w.get(ctx, c.id)
		if err == nil && !found {
			w.forget(c)
		}
		c.deleting = false
		return err
	})
	if err != nil {
		return err
	}
	const few = 40
	w.mu.Lock()
	ids := append([]string(nil), w.gone[max(0, len(w.gone)-few):]...)
	if w.round == w.cfg.rounds {
		ids = append([]string(nil), w.gone...)
	} else if len(w.gone) > few {
		for range few {
			ids = append(ids, w.gone[w.chance.n(len(w.gone)-few)])
		}
	}
	w.mu.Unlock()
	return parallel(ids, func(id string) error {
		v, found, err := w.get(ctx, id)
		if err == nil && found {
			w.broken(kindOther, "%s was deleted, and is back: %v", id, v)
		}
		return err
	})
}

// settle waits until every connection is what it has to be, and names those
// that don't become so in time.
func (w *world) settle(ctx context.Context, open []*conn) error {
	began := time.Now()
	for {
		var (
			mu   sync.Mutex
			left []*conn
			why  = map[*conn]error{}
		)
		b := w.books()
		err := parallel(open, func(c *conn) error {
			err := w.settled(ctx, c, b)
			if unsettled, ok := errors.AsType[*unsettledError](err); ok {
				mu.Lock()
				defer mu.Unlock()
				left, why[c] = append(left, c), unsettled
				return nil
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case len(left) == 0:
			w.report.slowestSettled = max(w.report.slowestSettled, time.Since(began))
			return nil
		case time.Since(began) > w.named():
			for _, c := range left {
				w.broken(kindLost, "%s (%s), %v after the start: %v\n%s", c.id, c.user, w.named(), why[c], w.history(b, c))
			}
			return nil
		}
		open = left
		time.Sleep(50 * time.Millisecond) // between two looks at a condition
	}
}

// unsettledError says what a connection is not yet.
type unsettledError struct{ problem string }

func (e *unsettledError) Error() string { return e.problem }

func unsettled(format string, args ...any) error {
	return &unsettledError{fmt.Sprintf(format, args...)}
}

// settled checks one connection. It returns an *unsettledError for what may
// still come right.
func (w *world) settled(ctx context.Context, c *conn, b books) error {
	if c.id == "" {
		return nil
	}
	v, found, err := w.get(ctx, c.id)
	if err != nil {
		return err
	}
	if !found {
		w.broken(kindLost, "%s (%s) is not found; its client was told that it is %s", c.id, c.user, c.state)
		return nil
	}
	if v.Generation < c.told && w.shared() {
		return unsettled("%v; its client was told of generation %d", v, c.told)
	}
	if v.Generation < c.told {
		w.broken(kindLost, "%s (%s) went back: %v; its client was told of generation %d\n%s", c.id, c.user, v, c.told, w.history(b, c))
		return nil
	}
	if c.state != active {
		return w.settledInactive(c, v)
	}
	if v.Status == "EXPIRED" && v.StatusReason != reason {
		w.broken(kindLost, "%s (%s): %v, its first call after the start got %v\n%s", c.id, c.user, v, c.first, w.history(b, c))
		return nil
	}
	g := b.grants[c.account]
	if _, inDoubt := w.doubt[g.ID]; inDoubt && g.Revoked && g.Reuses > 0 {
		return w.settledInDoubt(ctx, c, v, g)
	}
	current := c.base + uint64(g.RefreshNumber) - 1 //nolint:gosec // counts refreshes
	switch {
	case v.Status != "ACTIVE" || v.StatusReason != "":
		return unsettled("%v; want ACTIVE", v)
	case v.Generation != current:
		return unsettled("%v; the provider's current refresh token is generation %d", v, current)
	}
	if who := caller(c.first); who != c.account {
		w.broken(kindLost, "%s (%s), its first call after the start: want one served as %q, got %v\n%s", c.id, c.user, c.account, c.first, w.history(b, c))
	}
	c.told = v.Generation
	return nil
}

// settledInactive checks a connection that no call can use: in the middle of a
// flow, or not connected again yet.
func (w *world) settledInactive(c *conn, v view) error {
	switch {
	case v.Status == "ACTIVE" && c.completing:
	case v.Status == "INITIATED" && c.state == begun:
		if w.fleet != nil {
			return nil // an exchange that was cut off ends when its lease does
		}
	case v.Status == "FAILED" && c.state == begun && (c.failed || c.exchanging):
		// Its exchange was cut off: it says so, and can be connected again.
		c.failed = true
		if v.StatusReason != "source_error" {
			return unsettled("%v; want FAILED source_error", v)
		}
	case v.Status == "EXPIRED" && c.state == expired && v.StatusReason == reason:
	default:
		return unsettled("%v; its client was told that it is %s", v, c.state)
	}
	c.exchanging = false
	return nil
}

// settledInDoubt checks a connection whose refresh was under way at the kill
// and can't be known to have come to its end: it has to say so, everywhere.
func (w *world) settledInDoubt(ctx context.Context, c *conn, v view, g fakeprovider.GrantRecord) error {
	a, err := w.call(ctx, c.id)
	if err != nil {
		return err
	}
	interrupted := a.status == http.StatusFailedDependency && a.header.Get("Lanyard-Error") == "reconnect_required" && strings.Contains(a.body, reason)
	if !interrupted && caller(a) != c.account {
		w.broken(kindLost, "%s (%s), whose refresh was interrupted: want a call to say so, got %v", c.id, c.user, a)
		return nil
	}
	if !interrupted || v.Status != "EXPIRED" || v.StatusReason != reason || v.ConnectURL == "" {
		return unsettled("a call gets %v, the connection is %v; want 424 and EXPIRED %s with a connect_url", a, v, reason)
	}
	if who := caller(c.first); c.first.status != http.StatusFailedDependency && who != c.account {
		w.broken(kindLost, "%s (%s), whose refresh was interrupted: the first call got %v", c.id, c.user, c.first)
	}
	r := w.doubt[g.ID]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.inDoubt[r.stage]++
	if r.stage == fakeprovider.Answered {
		w.report.longestAnswered = max(w.report.longestAnswered, r.before)
	}
	c.state, c.told = expired, v.Generation
	return nil
}

// checkPosts reads in the ledger what the program has asked the provider since
// the last judgement: a spent refresh token may be there only in doubt, and
// nothing may be there twice that was answered.
func (w *world) checkPosts() {
	b := w.books()
	codes := map[string]int{} // :: grant → how often its code was presented
	for i, p := range b.Posts {
		if p.GrantType == "authorization_code" {
			codes[p.Grant]++
		}
		if i < w.posts {
			continue
		}
		if p.Grant == "" && len(p.Params) > 0 {
			w.broken(kindOther, "a code or refresh token was presented that the provider never gave: %+v", p)
		} else if p.Grant == "" {
			w.report.torn++
		}
		if p.GrantType == "authorization_code" && codes[p.Grant] > 1 {
			w.broken(kindOther, "the code of %s was presented twice", p.Grant)
		}
		for len(w.ends) > 0 && w.ends[0].posts <= i {
			maps.DeleteFunc(w.presented, func(t token, _ bool) bool { return t.host == w.ends[0].host })
			w.ends = w.ends[1:]
		}
		// The provider loses no answer while the program lives: whatever it
		// said, there was no reason to ask again.
		again := token{p.Host, p.Grant, p.RefreshNumber}
		if p.RefreshNumber > 0 && w.presented[again] {
			w.broken(kindReuse, "refresh token %d of %s, twice in one life of the program\n%s", p.RefreshNumber, p.Grant, lines(b.Posts, p.Grant))
		}
		w.presented[again] = true
		if _, inDoubt := w.doubt[p.Grant]; p.Reused && !inDoubt {
			w.broken(kindReuse, "refresh token %d of %s, with no refresh under way at a kill\n%s", p.RefreshNumber, p.Grant, lines(b.Posts, p.Grant))
		}
	}
	for _, c := range w.everyone() {
		g, ok := b.grants[c.account]
		if !ok {
			continue
		}
		for _, p := range b.Posts[w.posts:] {
			if next := c.base + uint64(p.RefreshNumber); p.Grant == g.ID && p.Reused && c.atKill >= next { //nolint:gosec // counts refreshes
				w.broken(kindReuse, "%s (%s): refresh token %d, whose successor's generation %d a client had been told\n%s", c.id, c.user, p.RefreshNumber, next, w.history(b, c))
			}
		}
	}
	w.posts = len(b.Posts)
}

// history tells what the provider knows of a connection.
func (w *world) history(b books, c *conn) string {
	g := b.grants[c.account]
	_, inDoubt := w.doubt[g.ID]
	return fmt.Sprintf("    at the provider: %s of %q, refresh token %d, %d reuses, revoked %v, in doubt %v; generations from %d, told %d\n%s",
		g.ID, c.account, g.RefreshNumber, g.Reuses, g.Revoked, inDoubt, c.base, c.told, lines(b.Posts, g.ID))
}

// lines shows the last token requests of a grant.
func lines(posts []fakeprovider.TokenPost, grant string) string {
	var out []string
	for _, p := range posts {
		if p.Grant == grant {
			out = append(out, fmt.Sprintf("    %s %s %d: %s, committed %v, reused %v",
				p.At.Format("15:04:05.000000"), p.GrantType, p.RefreshNumber, p.Outcome, p.Committed, p.Reused))
		}
	}
	return strings.Join(out[max(0, len(out)-6):], "\n")
}

// checkSecrets looks for codes and tokens in all that the program has written.
func (w *world) checkSecrets() error {
	err := filepath.WalkDir(w.cfg.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path) //nolint:gosec // a file of this run
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		const overlap = 16
		buf := make([]byte, 1<<20)
		for kept := 0; ; {
			n, err := io.ReadFull(f, buf[kept:])
			for _, word := range []string{"fp_code_", "fp_at_", "fp_rt_"} {
				if bytes.Contains(buf[:kept+n], []byte(word)) {
					w.broken(kindOther, "%s holds a secret (%s…)", path, word)
					return nil
				}
			}
			if err != nil { // its end
				return nil
			}
			kept = copy(buf, buf[len(buf)-overlap:])
		}
	})
	if err != nil {
		return fmt.Errorf("looking for secrets: %w", err)
	}
	return nil
}

// parallel calls f for each item, a few at a time, and returns the first error.
func parallel[T any](items []T, f func(T) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		slots = make(chan struct{}, atOnce)
	)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			if err := f(item); err != nil {
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
			}
			<-slots
		})
	}
	wg.Wait()
	return first
}
