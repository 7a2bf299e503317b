package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/document"
)

// options are the flags.
type options struct {
	rounds  int
	jobs    string
	quick   bool
	peers   string
	lanyard string
	output  string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "`how many` times each program is measured")
	flag.StringVar(&o.jobs, "jobs", "", "only these jobs, with commas: requests, h2c, latency, latency1000, download, upload, sse")
	flag.BoolVar(&o.quick, "quick", false, "one short round, to see whether it works; its figures mean nothing and no bound is enforced")
	flag.StringVar(&o.peers, "peers", "", "further programs, with commas: "+strings.Join(peers, ", "))
	flag.StringVar(&o.lanyard, "lanyard", "", "measure this Caddy with Lanyard, a `file`, instead of what ./xcaddy.sh builds")
	begin, end := document.Marks("bench")
	flag.StringVar(&o.output, "o", "", "write the report to this `file` too: in a Markdown file that exists, between "+begin+" and "+end)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	missed, err := run(ctx, o)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // what broke for it is nobody's fault
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || missed {
		os.Exit(1)
	}
}

// run does it all and reports whether a bound was missed.
func run(ctx context.Context, o options) (missed bool, err error) {
	debug.SetGCPercent(400) // this program shares the processors with the ones it measures
	begin := time.Now()
	chosen, err := choose(o.jobs)
	if err != nil {
		return false, err
	}
	if chosen, err = withPeers(chosen, o.peers); err != nil {
		return false, err
	}
	if o.quick {
		o.rounds = 1
	}
	if o.rounds < 1 {
		return false, fmt.Errorf("-rounds %d: at least one", o.rounds)
	}
	dir, err := os.MkdirTemp("", "lanyard-bench-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{dir: dir, options: o, upstreams: newUpstreams(dir)}
	defer b.upstreams.stop()
	if err := b.prepare(ctx, chosen); err != nil {
		return false, err
	}
	var r report
	for _, j := range chosen {
		for _, kind := range j.upstreams {
			t, err := b.measure(ctx, j, kind)
			if err != nil {
				return false, fmt.Errorf("%s, upstream %s: %w", j.name, kind, err)
			}
			r.tables = append(r.tables, t)
		}
	}
	r.head, err = describe(ctx, o)
	if err != nil {
		return false, err
	}
	r.took, r.rounds, r.quick = time.Since(begin), o.rounds, o.quick
	text, missed := r.markdown()
	if _, err := os.Stdout.WriteString(text); err != nil {
		return false, err
	}
	return missed && !o.quick, document.Put(o.output, "bench", text)
}

func choose(names string) ([]*job, error) {
	if names == "" {
		return jobs, nil
	}
	var chosen []*job
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(jobs, func(j *job) bool { return j.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("-jobs: there is no job %q", name)
		}
		chosen = append(chosen, jobs[i])
	}
	return chosen, nil
}

// bench is one run of this program.
type bench struct {
	options
	dir       string
	programs  *programs
	upstreams *upstreams
}

// prepare builds and starts what all jobs need.
func (b *bench) prepare(ctx context.Context, chosen []*job) error {
	if err := needTools(ctx, chosen); err != nil {
		return err
	}
	progress("building Lanyard and stock Caddy")
	lanyard, caddy, err := binaries(ctx, b.dir, b.lanyard)
	if err != nil {
		return err
	}
	if err := b.upstreams.start(ctx); err != nil {
		return fmt.Errorf("the upstream: %w", err)
	}
	if b.programs, err = newPrograms(b.dir, lanyard, caddy, b.upstreams.ca()); err != nil {
		return err
	}
	progress("importing %d connections", connections)
	return b.programs.fill(ctx, b.upstreams.nginx[plain])
}

// measure does a job with one kind of upstream. In each round every program has
// its turn.
func (b *bench) measure(ctx context.Context, j *job, kind upstreamKind) (*table, error) {
	t := &table{Job: j, Upstream: kind}
	upstream := b.upstreams.nginx[kind]
	if j.own() {
		upstream = b.upstreams.own[kind]
	}
	var running []*program
	defer func() { stop(running) }()
	l := newLoad(b.dir, b.quick, b.upstreams, j)
	defer l.client.CloseIdleConnections()
	for _, name := range j.programs {
		if !takesPart(name, j, kind) {
			continue
		}
		p, err := b.programs.start(ctx, name, upstream, j.h2c)
		if err != nil {
			return nil, err
		}
		running = append(running, p)
		t.Rows = append(t.Rows, row{Program: name})
	}
	time.Sleep(startWait)
	idle := make([]figures, len(running))
	for n, p := range running {
		idle[n] = figures{}
		if err := idle[n].addMemory(p, metricRSSIdle, metricAnonIdle); err != nil {
			return nil, err
		}
	}
	if err := l.prove(ctx, j, running); err != nil {
		return nil, err
	}
	for round := range b.rounds {
		progress("%s, upstream %s: round %d of %d", j.name, kind, round+1, b.rounds)
		for _, n := range turns(len(running), round) {
			f, err := j.run(ctx, l, running[n])
			if err == nil {
				err = f.addMemory(running[n], metricRSS, metricAnon) // before it gives back what it has no use for now
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", running[n].name, err)
			}
			t.Rows[n].Rounds = append(t.Rows[n].Rounds, f)
		}
	}
	t.addOverDirect()
	for n := range t.Rows {
		maps.Copy(t.Rows[n].Rounds[0], idle[n])
	}
	return t, nil
}

// turns returns the order of n programs in a round. Each round begins with
// another one, and every second goes backwards: else each program would always
// come behind the same one, and have what that one leaves to the system.
func turns(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		step := i
		if round%2 == 1 {
			step = n - i
		}
		order[i] = (round + step) % n
	}
	return order
}

func stop(running []*program) {
	var wg sync.WaitGroup
	for _, p := range running {
		if p.child != nil {
			wg.Go(func() { _ = p.child.Stop() })
		}
	}
	wg.Wait()
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
