package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// world is one run: a provider, a population of connections, and between them one
// program after the other, or several beside one another.
type world struct {
	cfg    config
	out    io.Writer
	report report

	site       *site // the first sidecar's
	cars       []*sidecar
	fleet      *fleet // nil with one sidecar
	fake       *fakeprovider.Server
	provider   *http.Server
	client     *http.Client // to the program
	consenting *http.Client // to the provider
	signIn     sync.Mutex   // held while somebody is signed in at the provider
	schedule   dice         // of the kills
	chance     dice         // of all else

	mu     sync.Mutex // guards all below
	round  int
	shot   shot
	tokens map[string]request // :: grant → its last token request in this life of the program
	born   map[string]bool    // :: grant → its code was redeemed
	conns  []*conn
	users  int
	gone   []string // IDs of connections that were deleted, as a client was told
	faults []string // what was found broken

	// Below is the judge's alone, who works while nobody else does.

	// doubt holds the grants for which a token request was truly under way at
	// a kill since the last judgement: their refresh tokens may be presented
	// once more.
	doubt map[string]request
	posts int // how many of the ledger's token requests were judged
	// ends are where programs that were killed made their last token requests, as
	// far as they were not judged.
	ends []end
	// presented are the refresh tokens that were sent in one life of a program, up
	// to posts.
	presented map[token]bool
}

// token is a refresh token by its grant and its number there, and by whom it was
// presented.
type token struct {
	host   string // of the sidecar
	grant  string
	number int
}

// end is a place in the ledger where a program was killed.
type end struct {
	host  string // of the sidecar
	posts int    // before it
}

// request is how far the last token request of a grant had come.
type request struct {
	from     *sidecar
	stage    fakeprovider.Stage
	at       time.Time
	exchange bool          // of a code; else a refresh
	before   time.Duration // how long before the kill; in doubt
}

// sent is the stage of a request that left the program before the kill and
// reached the provider after it.
const sent fakeprovider.Stage = "sent"

// answerWindow is how long the program may take to receive an answer and to
// begin with writing it, on a machine that is busy. The store writes in the
// order of arrival: once a write is acknowledged that was begun this much after
// an answer was sent, the answer has to be in the store, too.
const answerWindow = 250 * time.Millisecond

// newWorld starts the provider, and the database if there is one. The program is
// not started yet.
func newWorld(ctx context.Context, cfg config, out io.Writer) (*world, error) {
	w := &world{
		cfg: cfg, out: out, schedule: newDice(cfg.seed, 1), chance: newDice(cfg.seed, 2),
		tokens: map[string]request{}, born: map[string]bool{}, doubt: map[string]request{}, presented: map[token]bool{},
		client:     &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
		consenting: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	w.report.began = time.Now()
	w.report.kills = map[string]int{}
	w.report.underWay = map[fakeprovider.Stage]int{}
	w.report.inDoubt = map[fakeprovider.Stage]int{}
	if err := w.build(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// build makes the sidecars and all that is around them.
func (w *world) build(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("starting the provider: %w", err)
	}
	issuer := "http://" + l.Addr().String()
	if w.site, err = newSite(ctx, w.cfg.bin, w.cfg.dir, issuer); err != nil {
		_ = l.Close()
		return err
	}
	w.fake = fakeprovider.New(fakeprovider.Config{
		Issuer: issuer, ClientID: clientID, ClientSecret: w.site.providerProof, Scopes: []string{"read"},
		RedirectURIs: []string{fmt.Sprintf("http://localhost:%d/callback/fake", w.site.Connect)},
		AccessLife:   5 * time.Second, Rotate: true, ReuseGrace: w.cfg.grace, RequirePKCE: true,
	})
	w.fake.OnTokenRequestTo(w.onTokenRequest)
	w.provider = &http.Server{Handler: w.fake, ReadHeaderTimeout: patience}
	go func() { _ = w.provider.Serve(l) }() // ends with close
	if w.cfg.sidecars > 1 {
		return w.buildFleet(ctx)
	}
	car, err := w.newSidecar(ctx)
	if err != nil {
		return err
	}
	car.site, w.cars = w.site, []*sidecar{car}
	car.Tokens = "http://" + car.host
	return car.write()
}

// close ends the provider, the database, and programs that still run.
func (w *world) close() {
	for _, car := range w.cars {
		if c := w.runningAt(car); c != nil {
			c.kill()
		}
		_ = car.provider.Close()
	}
	w.client.CloseIdleConnections()
	if w.provider != nil {
		_ = w.provider.Close()
	}
	if w.fleet != nil {
		w.fleet.pair.Close()
	}
}

// running returns the only program, where there is one.
func (w *world) running() *child { return w.runningAt(w.cars[0]) }

// shot is how the next kill is aimed.
type shot struct {
	name string
	// stage is at which stage of a token request the program is killed. Empty:
	// at a random moment.
	stage    fakeprovider.Stage
	exchange bool // of a code's request; else of a refresh
	lose     bool // the provider never sees the request
	skip     int  // how many such requests pass before
	// after is the random moment, and for how long a request to aim at is
	// waited for.
	after time.Duration
	again bool // the start that follows is killed too
}

// nextShot rolls the dice for the next kill: half of them hit a random moment.
func (w *world) nextShot() shot {
	after := 100*time.Millisecond + w.schedule.upTo(1500*time.Millisecond)
	random := shot{name: "random", after: after}
	again := shot{name: "random, and again at the start", after: after, again: true}
	aimed := func(s shot) shot {
		s.name = string(s.stage)
		if s.exchange {
			s.name += " (code)"
		}
		if s.lose {
			s.name += ", request lost"
		}
		s.skip, s.after = w.schedule.n(w.cfg.connections/8+1), 3*time.Second
		if s.exchange {
			s.skip = w.schedule.n(5)
		}
		return s
	}
	shots := []shot{
		random, random, random, random, again,
		aimed(shot{stage: fakeprovider.Received}),
		aimed(shot{stage: fakeprovider.Received, lose: true}),
		aimed(shot{stage: fakeprovider.Committed}),
		aimed(shot{stage: fakeprovider.Answered}),
		aimed(shot{stage: fakeprovider.Committed, exchange: true}),
	}
	return shots[w.schedule.n(len(shots))]
}

// dawdle is how long at most the provider takes before it looks at a request,
// and again before it answers: without it few requests would be under way at
// any moment.
const dawdle = 25 * time.Millisecond

// onTokenRequest is the provider's hook.
func (w *world) onTokenRequest(host string, stage fakeprovider.Stage, grant string) {
	if c := w.note(w.carAt(host), stage, grant); c != nil {
		c.kill()
		return
	}
	if stage != fakeprovider.Answered {
		time.Sleep(w.chance.upTo(dawdle)) // the provider's own slowness: nothing waits for it to be over
	}
}

// note writes down how far a sidecar's token request has come, and returns the
// program to be killed if it is the one that was aimed at.
func (w *world) note(car *sidecar, stage fakeprovider.Stage, grant string) *child {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if grant == "" {
		return nil // a request that the kill tore apart; the ledger shows whether it was
	}
	exchange := !w.born[grant]
	last, known := w.tokens[grant]
	if known && stage != fakeprovider.Received {
		exchange = last.exchange
	}
	if stage == fakeprovider.Committed {
		w.born[grant] = true
	}
	if _, dead := car.child.killed(); dead {
		if stage == fakeprovider.Received {
			w.tokens[grant] = request{from: car, stage: sent, at: now, exchange: exchange}
		}
		return nil // what was under way at the kill stays as it was then
	}
	if stage == fakeprovider.Received && known && last.stage != fakeprovider.Answered {
		w.breakLocked(kindOther, "%s: two token requests at once", grant)
	}
	w.tokens[grant] = request{from: car, stage: stage, at: now, exchange: exchange}
	if stage != w.shot.stage || exchange != w.shot.exchange {
		return nil
	}
	if w.shot.skip--; w.shot.skip >= 0 {
		return nil
	}
	w.shot.stage = ""
	if w.shot.lose {
		w.fake.Faults.Token(fakeprovider.Dropped())
	}
	return car.child
}

// armed reports whether the shot still waits for a request to aim at.
func (w *world) armed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shot.stage != ""
}

// bury waits until all that a dead program had sent has reached the provider,
// and notes what was under way when it died.
func (w *world) bury(c *child) error {
	w.client.CloseIdleConnections()
	deadline := time.Now().Add(patience)
	for c.car.open.Load() > 0 {
		if time.Now().After(deadline) {
			return errors.New("connections of a dead program stay open at the provider")
		}
		time.Sleep(2 * time.Millisecond) // between two looks at a condition
	}
	w.fake.Faults.Clear()
	l := w.fake.Ledger()
	w.ends = append(w.ends, end{c.car.host, len(l.Posts)})
	w.mu.Lock()
	defer w.mu.Unlock()
	at, _ := c.killed()
	if written := c.car.written; !written.IsZero() {
		w.report.longestUnwritten = max(w.report.longestUnwritten, at.Sub(written))
	}
	for grant, r := range w.tokens {
		if r.from != c.car {
			continue
		}
		delete(w.tokens, grant)
		r.before = at.Sub(r.at)
		if r.stage != fakeprovider.Answered || c.car.written.Before(r.at.Add(answerWindow)) || w.unsaved(r.at, at) {
			w.fleet.suspect(l, grant)
			if _, already := w.doubt[grant]; already {
				continue // what came after is what became of it
			}
			w.doubt[grant] = r
			if !r.exchange {
				w.report.underWay[r.stage]++
			}
		}
	}
	w.shot = shot{} // one that found nothing to hit
	return nil
}

// What can be broken.
const (
	kindLost  = "silently lost"
	kindReuse = "refresh token reused"
	kindOther = "wrong"
)

// broken notes that something which has to hold does not.
func (w *world) broken(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breakLocked(kind, format, args...)
}

func (w *world) breakLocked(kind, format string, args ...any) {
	switch kind {
	case kindLost:
		w.report.lost++
	case kindReuse:
		w.report.reused++
	}
	w.faults = append(w.faults, fmt.Sprintf("round %d, %s: ", w.round, kind)+fmt.Sprintf(format, args...))
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.faults) > 0
}

// everyone returns the connections that are not known to be deleted.
func (w *world) everyone() []*conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.conns)
}

// dice are random numbers from one seed, safe for concurrent use.
type dice struct {
	mu  *sync.Mutex
	rnd *rand.Rand
}

func newDice(seed, stream uint64) dice {
	return dice{new(sync.Mutex), rand.New(rand.NewPCG(seed, stream))} //nolint:gosec // the same from the same seed is what is wanted
}

// n returns a number from 0 to n-1.
func (d dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rnd.IntN(n)
}

// upTo returns a time below t.
func (d dice) upTo(t time.Duration) time.Duration { return time.Duration(d.n(int(t))) }

// one reports whether this is the one time in n.
func (d dice) one(n int) bool { return d.n(n) == 0 }
