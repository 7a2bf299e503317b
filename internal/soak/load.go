package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// state is what a client was last told of a connection.
type state string

const (
	begun   state = "begun"   // there is an ID and no credential
	active  state = "active"  // completed
	expired state = "expired" // named as EXPIRED, to be connected again
	deleted state = "deleted"
)

// conn is one connection as its client knows it: what it was told, and what it
// has asked for and got no answer.
type conn struct {
	user string

	mu      sync.Mutex // guards all below
	id      string     // empty until begin was answered
	state   state
	version int       // counts what may have changed the state
	busy    bool      // somebody connects or deletes it
	account string    // the name at the provider under which the live grant was given
	base    uint64    // the generation with which that grant went live
	told    uint64    // the highest generation that an answer named
	from    time.Time // when every sidecar knows of that grant

	// Of whoever holds busy, and of the judge.

	visits     int    // how often consent was given
	next       string // the account of the flow under way
	code       string // the completion code that the browser brought back
	rests      int    // nobody goes on with it in this round
	exchanging bool   // a callback is unanswered
	completing bool   // a completion is unanswered
	deleting   bool   // a deletion is unanswered
	failed     bool   // an exchange was cut off, and the connection says so
	first      answer // to the first call after the last start
	atKill     uint64 // told, at the last kill
}

// claim reports whether c is now the caller's to change, until release.
func (c *conn) claim(fits func(state) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy || !fits(c.state) {
		return false
	}
	c.busy = true
	c.version++
	return true
}

func (c *conn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
}

// usable returns what is needed to use an active connection that nobody
// changes.
func (c *conn) usable() (id, account string, version int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id, c.account, c.version, c.state == active && !c.busy && !time.Now().Before(c.from)
}

func (c *conn) unchanged(version int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version == version
}

// hear notes the generation that an answer names, and reports whether it is
// not below one that was named before.
func (c *conn) hear(generation, atLeast uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = max(c.told, generation)
	return generation >= atLeast
}

func (c *conn) toldYet() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told
}

// load works the program until done is closed. The caller waits.
func (w *world) load(ctx context.Context, done <-chan struct{}) *sync.WaitGroup {
	// Lives of seconds: of the shorter ones every renewal makes a call wait, of
	// the longer ones some are made behind the calls.
	w.fake.SetAccessLife(time.Duration(3+w.chance.n(6)) * time.Second)
	var wg sync.WaitGroup
	work := func(step func(context.Context) error, pause time.Duration) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := step(ctx); err != nil {
					w.cutOff(ctx, err)
				}
				select {
				case <-done:
					return
				case <-time.After(w.chance.upTo(pause)):
				}
			}
		})
	}
	for range min(max(w.cfg.connections/20, 2), 10) * len(w.cars) {
		work(w.use, 40*time.Millisecond)
	}
	for range w.cfg.tenders {
		work(w.tend, 150*time.Millisecond)
	}
	work(w.write, 30*time.Millisecond)
	return &wg
}

// write has something written that has no other purpose: what is acknowledged
// shows how far the store has come.
func (w *world) write(ctx context.Context) error {
	var v view
	in := map[string]any{"integration": "fake", "user_id": "nobody", "redirect_url": appURL}
	began, car := time.Now(), w.pick()
	if _, err := w.apiOf(ctx, car, http.StatusCreated, http.MethodPost, "/v1/connections", in, &v); err != nil {
		return err
	}
	w.wrote(car, began)
	began = time.Now()
	if _, err := w.apiOf(ctx, car, http.StatusOK, http.MethodDelete, "/v1/connections/"+v.ID, nil, nil); err != nil {
		return err
	}
	w.wrote(car, began)
	return nil
}

// wrote notes when a write began that a sidecar has acknowledged.
func (w *world) wrote(car *sidecar, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.slowestWrite = max(w.report.slowestWrite, time.Since(began))
	if began.After(car.written) {
		car.written = began
	}
}

// use calls a random connection, or has it refreshed.
func (w *world) use(ctx context.Context) error {
	all := w.everyone()
	c := all[w.chance.n(len(all))]
	id, account, version, ok := c.usable()
	if !ok || w.fleet.suspected(account) {
		return nil
	}
	if w.chance.one(12) {
		return w.refresh(ctx, c)
	}
	a, err := w.call(ctx, id)
	if err != nil {
		return err
	}
	if who := caller(a); who != account && c.unchanged(version) && !w.excused(a) && !w.fleet.suspected(account) {
		w.broken(kindLost, "%s (%s), a call under load: want one served as %q, got %v", id, c.user, account, a)
	}
	return nil
}

// refresh renews a connection's token through the API.
func (w *world) refresh(ctx context.Context, c *conn) error {
	id, account, version, _ := c.usable()
	before := c.toldYet()
	var v view
	a, err := w.api(ctx, 0, http.MethodPost, "/v1/connections/"+id+"/refresh", nil, &v)
	switch {
	case err != nil:
		return err
	case a.status != http.StatusOK && (w.excused(a) || w.fleet.suspected(account)):
	case a.status != http.StatusOK && c.unchanged(version):
		w.broken(kindLost, "%s (%s), POST refresh under load: %v", id, c.user, a)
	case a.status == http.StatusOK && !c.hear(v.Generation, before) && c.unchanged(version):
		w.broken(kindLost, "%s (%s): generation %d after generation %d", id, c.user, v.Generation, before)
	}
	return nil
}

// tend goes on with a flow that was left half done, or connects an expired
// connection again, or else puts a new connection in the place of an old one.
func (w *world) tend(ctx context.Context) error {
	w.mu.Lock()
	round := w.round
	w.mu.Unlock()
	for _, c := range w.everyone() {
		if !c.claim(func(s state) bool { return s != active && s != deleted && c.rests != round }) {
			continue
		}
		// What is left half done nobody goes on with before it is judged.
		err := w.connect(ctx, c, round)
		if err == nil {
			c.release()
		}
		return err
	}
	all := w.everyone()
	if len(all) >= w.cfg.connections {
		if err := w.remove(ctx, all[w.chance.n(len(all))]); err != nil {
			return err
		}
	}
	c := w.newConn()
	if !c.claim(func(state) bool { return true }) {
		return nil
	}
	err := w.connect(ctx, c, round)
	if err == nil {
		c.release()
	}
	return err
}

// newConn adds a connection that nobody has begun yet.
func (w *world) newConn() *conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users++
	c := &conn{user: fmt.Sprintf("user-%d", w.users), state: begun}
	w.conns = append(w.conns, c)
	return c
}

// remove deletes a connection that is active.
func (w *world) remove(ctx context.Context, c *conn) error {
	if !c.claim(func(s state) bool { return s == active }) {
		return nil
	}
	c.deleting = true
	if _, err := w.api(ctx, http.StatusOK, http.MethodDelete, "/v1/connections/"+c.id, nil, nil); err != nil {
		return err
	}
	w.forget(c)
	c.release()
	return nil
}

// forget notes that a connection was deleted.
func (w *world) forget(c *conn) {
	c.mu.Lock()
	c.state, c.deleting = deleted, false
	c.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = slices.DeleteFunc(w.conns, func(o *conn) bool { return o == c })
	w.gone = append(w.gone, c.id)
}

// connect takes the user of c through the connect flow, or through what is
// left of it. Some users leave off half-way, until another round.
func (w *world) connect(ctx context.Context, c *conn, round int) error {
	if c.code != "" {
		return w.complete(ctx, c)
	}
	leavesOff := func() bool {
		if round > 0 && w.chance.one(8) {
			c.rests = round
			return true
		}
		return false
	}
	link, err := w.link(ctx, c)
	if err != nil || leavesOff() {
		return err
	}
	browser, err := w.newBrowser()
	if err != nil {
		return err
	}
	to, err := w.browse(ctx, browser, link)
	if err != nil {
		return err
	}
	c.visits++
	c.next = fmt.Sprintf("%s, grant %d", c.user, c.visits)
	callback, err := w.consent(ctx, c.user, c.next, to.String())
	if err != nil || leavesOff() {
		return err
	}
	if w.fleet != nil && c.exchanging {
		c.failed = true // another sidecar may end that one as failed at any time from now
	}
	c.exchanging = true
	back, err := w.browse(ctx, browser, callback)
	if err != nil {
		return err
	}
	c.exchanging = false
	q := back.Query()
	if q.Get("connection_id") != c.id || q.Get("completion_code") == "" {
		return &unexpectedError{doing: fmt.Sprintf("%s (%s): the app was called back with error %q", c.id, c.user, q.Get("error"))}
	}
	c.code = q.Get("completion_code")
	if leavesOff() {
		return nil
	}
	return w.complete(ctx, c)
}

// link begins a connection, or asks for a link to one that is there.
func (w *world) link(ctx context.Context, c *conn) (string, error) {
	var v view
	if c.id != "" {
		_, err := w.api(ctx, http.StatusOK, http.MethodPost, "/v1/connections/"+c.id+"/connect", map[string]any{}, &v)
		return v.ConnectURL, err
	}
	in := map[string]any{"integration": "fake", "user_id": c.user, "redirect_url": appURL}
	_, err := w.api(ctx, http.StatusCreated, http.MethodPost, "/v1/connections", in, &v)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.id = v.ID
	c.mu.Unlock()
	return v.ConnectURL, nil
}

// complete makes the credential that the flow brought the live one.
func (w *world) complete(ctx context.Context, c *conn) error {
	c.completing = true
	var v view
	in := map[string]string{"completion_code": c.code, "user_id": c.user}
	if _, err := w.api(ctx, http.StatusOK, http.MethodPost, "/v1/connections/"+c.id+"/complete", in, &v); err != nil {
		return err
	}
	c.completing, c.failed, c.code = false, false, ""
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.account, c.from = active, c.next, time.Now().Add(w.fleet.spread())
	c.base, c.told = c.told+1, max(c.told+1, v.Generation)
	return nil
}
