// Command soak kills Lanyard over and over while it works, and checks after
// each restart that nothing was lost:
//
//	go run ./internal/soak -rounds 500
//
// The built ./caddy runs as a child. The provider is in this process, and its
// ledger is the judge: it rotates refresh tokens at each refresh, gives tokens
// a life of seconds, and ends a grant whose refresh token comes twice. In each
// round hundreds of connections are called, refreshed, connected and deleted,
// until SIGKILL comes at a random moment or at a chosen stage of a refresh. The
// child is started again, and then
//
//   - what a client was told is done reads back the same;
//   - every connection whose grant is good at the provider serves its first
//     call, and holds the provider's current refresh token;
//   - no refresh token was presented twice in one life of the program, and none
//     and no code again after an answer that the program had got;
//   - what can't be known, a refresh that was truly under way at the kill, is
//     named: EXPIRED with refresh_interrupted. An answer is got once a write was
//     acknowledged that was begun a quarter of a second after it was sent.
//
// With -sidecars, several of them share a PostgreSQL, a primary with a synchronous
// standby that this command starts too:
//
//	go run ./internal/soak -sidecars 3 -rounds 200 -failovers 20
//
// One at a time is killed and started again while the others go on, and with
// -failovers the primary is killed and the standby takes over. After each ten kills
// everything is brought up again, and judged in the same way: what a dead one had
// begun another has ended, or named.
//
// The kills are those of a process, not of a machine: what was written and not
// synced survives them. The same seed rolls the same dice; what they meet
// depends on the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// config is what the flags say.
type config struct {
	rounds      int
	connections int
	seed        uint64
	bin         string
	dir         string
	grace       time.Duration
	sidecars    int // more than one: they share a PostgreSQL
	failovers   int // of that
	tenders     int // workers that connect and delete
}

func main() {
	var cfg config
	flag.IntVar(&cfg.rounds, "rounds", 100, "how many rounds, each with a kill")
	flag.IntVar(&cfg.connections, "connections", 200, "how many connections there are")
	flag.Uint64Var(&cfg.seed, "seed", 0, "seed of the dice; 0: a random one, which is printed")
	flag.StringVar(&cfg.bin, "bin", "./caddy", "the program under test")
	flag.StringVar(&cfg.dir, "dir", "", "where the program keeps its data and logs, an empty directory that is kept; empty: a temporary one, kept if anything is broken")
	flag.DurationVar(&cfg.grace, "grace", 0, "how long the provider takes a spent refresh token again; 0: never")
	flag.IntVar(&cfg.sidecars, "sidecars", 1, "how many run beside one another: more than one share a PostgreSQL, a primary with its standby, that this command starts")
	flag.IntVar(&cfg.failovers, "failovers", 0, "how many times that standby takes over")
	flag.IntVar(&cfg.tenders, "tenders", 2, "how many users at a time connect, and delete what they have")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	_, err := soak(ctx, cfg, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// errBroken is returned when something that has to hold does not.
var errBroken = errors.New("something that must hold does not")

// soak runs all rounds, or those until one finds something broken, and writes
// the report to out. It returns errBroken for a finding.
func soak(ctx context.Context, cfg config, out io.Writer) (*report, error) {
	if cfg.connections < 1 || cfg.rounds < 1 || cfg.sidecars < 1 {
		return nil, errors.New("at least one round, one connection and one sidecar")
	}
	if cfg.failovers > 0 && cfg.sidecars == 1 {
		return nil, errors.New("failovers are of the database that several sidecars share")
	}
	if cfg.seed == 0 {
		cfg.seed = rand.Uint64() //nolint:gosec // any will do
	}
	temporary := cfg.dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "lanyard-soak-")
		if err != nil {
			return nil, fmt.Errorf("making a directory: %w", err)
		}
		cfg.dir = dir
	}
	dir, err := filepath.Abs(cfg.dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("making the directory: %w", err)
	}
	cfg.dir = dir
	say(out, "soak: seed %d, %d rounds, %d connections, grace %v, in %s", cfg.seed, cfg.rounds, cfg.connections, cfg.grace, cfg.dir)
	w, err := newWorld(ctx, cfg, out)
	if err != nil {
		return nil, err
	}
	defer w.close()
	err = w.run(ctx)
	w.print()
	switch {
	case w.failed():
		say(out, "\nBROKEN, with seed %d:\n%s\nThe data directory and the logs are kept: see the connection in %s/caddy.log, and output.log.",
			cfg.seed, strings.Join(w.faults, "\n"), cfg.dir)
		return &w.report, errors.Join(errBroken, err)
	case err != nil:
		return &w.report, fmt.Errorf("%w (logs are in %s)", err, cfg.dir)
	case temporary:
		_ = os.RemoveAll(cfg.dir)
	}
	return &w.report, nil
}

// run makes the population and then the rounds.
func (w *world) run(ctx context.Context) error {
	if err := w.populate(ctx); err != nil {
		return err
	}
	for w.round < w.cfg.rounds && ctx.Err() == nil {
		round := w.doRound
		if w.shared() {
			round = w.doCampaign
		}
		if err := round(ctx); err != nil || w.failed() {
			return err
		}
		if w.round%10 == 0 {
			say(w.out, "soak: round %d of %d after %v, %d refreshes in doubt",
				w.round, w.cfg.rounds, time.Since(w.report.began).Round(time.Second), total(w.report.inDoubt))
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("given up: %w", err)
	}
	// One that was opened and not used would hold up the end.
	w.client.CloseIdleConnections()
	for _, car := range w.cars {
		if err := w.runningAt(car).stop(); err != nil {
			w.broken(kindOther, "at its end the program says: %v", err)
		}
	}
	return w.checkSecrets()
}

// populate starts the program for the first time and connects everyone.
func (w *world) populate(ctx context.Context) error {
	if err := w.startReady(ctx); err != nil {
		return err
	}
	for range w.cfg.connections {
		w.newConn()
	}
	return parallel(w.everyone(), func(c *conn) error { return w.connect(ctx, c, 0) })
}

// doRound loads the program, kills it, starts it again and judges it.
func (w *world) doRound(ctx context.Context) error {
	s := w.nextShot()
	w.mu.Lock()
	w.round++
	w.shot = s
	c := w.cars[0].child
	w.mu.Unlock()
	load := w.load(ctx, c.exited)
	select {
	case <-time.After(s.after):
	case <-c.exited:
	case <-ctx.Done():
	}
	c.kill()
	load.Wait()
	if !c.byKill() && ctx.Err() == nil {
		w.broken(kindOther, "the program ended by itself: %v", c.err)
	}
	if w.armed() {
		s.name = "random" // nothing came that it could have hit
	}
	w.report.kills[s.name]++
	if err := w.bury(c); err != nil || ctx.Err() != nil {
		return err
	}
	if s.again {
		if err := w.killStart(ctx); err != nil {
			return err
		}
	}
	if err := w.startReady(ctx); err != nil {
		if ctx.Err() == nil {
			w.broken(kindOther, "%v", err)
		}
		return ctx.Err()
	}
	if err := w.judge(ctx); err != nil {
		if ctx.Err() == nil {
			w.broken(kindOther, "after the start: %v", err)
		}
		return ctx.Err()
	}
	return nil
}

// killStart starts the program and kills it at a random moment of its start.
func (w *world) killStart(ctx context.Context) error {
	c, err := w.start(ctx, w.cars[0])
	if err != nil {
		return err
	}
	select {
	case <-time.After(w.schedule.upTo(500 * time.Millisecond)):
	case <-c.exited:
	}
	c.kill()
	if !c.byKill() && ctx.Err() == nil {
		w.broken(kindOther, "the program ended at its start: %v", c.err)
	}
	w.report.kills["at a start"]++
	return w.bury(c)
}

// report counts what happened.
type report struct {
	began           time.Time
	kills           map[string]int // :: how → times
	failovers       int
	underWay        map[fakeprovider.Stage]int // :: how far refreshes had come at a kill → how many
	inDoubt         map[fakeprovider.Stage]int // :: the same, of those whose outcome could not be known
	longestAnswered time.Duration              // before a kill, of an answer in doubt
	torn            int                        // token requests that reached the provider without their body
	lost, reused    int                        // what must not be
	// longestUnwritten is how long a kill came after the begin of the last write
	// that was acknowledged.
	longestUnwritten time.Duration
	slowestWrite     time.Duration
	slowestStart     time.Duration
	slowestSettled   time.Duration
}

func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}

func total[K comparable](counts map[K]int) int {
	n := 0
	for _, k := range counts {
		n += k
	}
	return n
}

func (w *world) print() {
	r, l := &w.report, w.fake.Ledger()
	committed := map[string]int{}
	for _, p := range l.Posts {
		if p.Committed {
			committed[p.GrantType]++
		}
	}
	line := func(format string, args ...any) { say(w.out, format, args...) }
	line("\n%6d kills in %v", total(r.kills), time.Since(r.began).Round(time.Second))
	for _, how := range slices.Sorted(maps.Keys(r.kills)) {
		line("       %6d %s", r.kills[how], how)
	}
	if w.shared() {
		line("%6d failovers of the database", r.failovers)
	}
	line("%6d calls", l.CallCount(-1))
	line("%6d refreshes", committed["refresh_token"])
	line("%6d connects, %d deletions", committed["authorization_code"], len(w.gone))
	line("%6d refreshes in doubt after a kill, each named EXPIRED %s", total(r.inDoubt), reason)
	for _, stage := range slices.Sorted(maps.Keys(r.underWay)) {
		line("       %6d of %d that were %s", r.inDoubt[stage], r.underWay[stage], stages[stage])
	}
	if r.inDoubt[fakeprovider.Answered] > 0 {
		line("              (at most %v before)", r.longestAnswered.Round(time.Microsecond))
	}
	line("%6d token requests torn by the kill, of which nothing was redeemed", r.torn)
	line("%6d refresh tokens presented again, in doubt", len(l.Reused())-r.reused)
	line("%6d refresh tokens presented again, without doubt", r.reused)
	line("%6d connections silently lost", r.lost)
	line("killed at most %v after the begin of a write that was acknowledged", r.longestUnwritten.Round(time.Millisecond))
	line("a write took %v at most", r.slowestWrite.Round(time.Millisecond))
	line("ready %v after a start at the latest, and %v later all were as they should be", r.slowestStart.Round(time.Millisecond), r.slowestSettled.Round(time.Millisecond))
}

// stages says in words how far a token request had come.
var stages = map[fakeprovider.Stage]string{
	sent:                   "sent, and reached the provider after the kill",
	fakeprovider.Received:  "with the provider, not yet redeemed",
	fakeprovider.Committed: "redeemed, not yet answered",
	fakeprovider.Answered:  fmt.Sprintf("answered, and no write acknowledged that was begun %v later", answerWindow),
}
