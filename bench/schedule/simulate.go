package main

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/refresh"
)

// scenario is what happens to the connections in use.
type scenario struct {
	name     string
	span     int     // seconds
	atOnce   bool    // everything was issued in second 0; else long ago, whenever
	outFrom  int     // no renewal from this second
	outTill  int     // to this one
	breaker  bool    // and it shows only at the next look that it is over
	headroom float64 // times the average that a provider takes; 0: whatever comes
}

const (
	outage  = 600 // seconds
	before  = 900 // seconds of calm before an outage
	sweep   = 2   // seconds between two calls of RenewAhead (caddymodule)
	nowhere = math.MaxUint32
)

func scenarios(headroom float64) []scenario {
	const hour = 3600
	var all []scenario
	for _, room := range []float64{0, headroom} {
		all = append(all,
			scenario{name: "steady", span: hour, headroom: room},
			scenario{name: "all issued in one second", span: 5 * hour / 2, atOnce: true, headroom: room},
			scenario{name: "all token endpoints out for 10 min", span: 3 * hour / 2, outFrom: before, outTill: before + outage, breaker: true, headroom: room},
			scenario{name: "database out for 10 min", span: 3 * hour / 2, outFrom: before, outTill: before + outage, headroom: room},
		)
	}
	return all
}

// outcome is what became of a scenario.
type outcome struct {
	scenario
	done     []int // renewals :: second → how many
	late     int   // renewals that began past the hard margin: calls waited for them
	ended    int   // of them, those whose token had ended
	latest   int   // seconds from the hard margin to the renewal, at most
	caughtUp int   // the last second in which one began past its soft margin
	waiting  int   // at the end
}

// simulate runs a scenario for all groups, some at the same time.
func simulate(groups []group, s scenario) outcome {
	sum := outcome{scenario: s, done: make([]int, s.span)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, g := range groups {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			o := g.simulate(s)
			mu.Lock()
			defer mu.Unlock()
			sum.add(o)
		})
	}
	wg.Wait()
	return sum
}

func (o *outcome) add(g outcome) {
	for t, n := range g.done {
		o.done[t] += n
	}
	o.late, o.ended, o.waiting = o.late+g.late, o.ended+g.ended, o.waiting+g.waiting
	o.latest, o.caughtUp = max(o.latest, g.latest), max(o.caughtUp, g.caughtUp)
}

// lane is a group on its way through a scenario: a list of connections for each
// second in which they fall due, and one of those that wait for the provider.
type lane struct {
	group
	scenario
	outcome outcome
	issued  []int32  // :: connection → the second of its token
	next    []uint32 // :: connection → the one behind it in its list
	due     []list   // :: second
	queue   list
}

// list is a list of connections, in order.
type list struct{ head, tail uint32 }

func (g group) simulate(s scenario) outcome {
	l := &lane{
		group: g, scenario: s, outcome: outcome{scenario: s, done: make([]int, s.span)},
		issued: make([]int32, g.n), next: make([]uint32, g.n), due: make([]list, s.span), queue: list{nowhere, nowhere},
	}
	for t := range l.due {
		l.due[t] = list{nowhere, nowhere}
	}
	random := rand.New(rand.NewPCG(uint64(g.life), 1)) // a simulation's
	for i := range uint32(g.n) {                       // at most 4,000,000,000
		issued := 0
		if !s.atOnce { // somewhere in its own cycle, as after a long time
			issued = -int(random.Float64() * float64(l.ahead[i]))
		}
		l.issue(i, issued)
	}
	credit := 0.0
	for t := range s.span {
		l.append(&l.queue, l.due[t])
		credit = l.turns(t, credit)
	}
	l.outcome.waiting = l.overdue()
	return l.outcome
}

// issue gives a connection a token.
func (l *lane) issue(i uint32, at int) {
	l.issued[i] = int32(at) // some hours
	if t := max(at+int(l.ahead[i]), 0); t < l.span {
		l.next[i] = nowhere
		l.append(&l.due[t], list{i, i})
	}
}

func (l *lane) append(to *list, more list) {
	switch {
	case more.head == nowhere:
	case to.head == nowhere:
		*to = more
	default:
		l.next[to.tail] = more.head
		to.tail = more.tail
	}
}

// turns lets those begin whose turn it is in second t, and returns what is left
// of the pace.
func (l *lane) turns(t int, credit float64) float64 {
	opens := l.outTill
	if l.breaker {
		opens += int(refresh.LongestDown / time.Second)
	}
	if t >= l.outFrom && t < opens && l.outTill > 0 {
		return 0
	}
	limit, ahead := math.MaxInt, math.MaxInt
	if l.headroom > 0 {
		pace := l.headroom * float64(l.n) / l.cycle
		credit += pace
		limit = int(credit)
		// One sidecar's sweep leaves so many waiting, and there are as many sidecars
		// as the pace needs.
		ahead = int(math.Ceil(pace/l.pace)) * refresh.AheadWaiting / sweep
	}
	began := 0
	for l.queue.head != nowhere && began < limit {
		i := l.queue.head
		age := t - int(l.issued[i])
		if age < l.soft && began >= ahead {
			break
		}
		l.look(t, age)
		l.queue.head = l.next[i]
		l.issue(i, t)
		began++
	}
	l.outcome.done[t] = began
	if l.queue.head == nowhere {
		l.queue.tail = nowhere
		return 0 // a pace is not saved up
	}
	return credit - float64(began)
}

// look notes how late a renewal begins in second t, of a token of this age.
func (l *lane) look(t, age int) {
	o := &l.outcome
	if age > l.soft+sweep {
		o.caughtUp = t
	}
	if age > l.hard {
		o.late++
		o.latest = max(o.latest, age-l.hard)
	}
	if age > l.end {
		o.ended++
	}
}

// overdue returns how many wait at the end that are past their soft margins.
func (l *lane) overdue() (n int) {
	for i := l.queue.head; i != nowhere; i = l.next[i] {
		if l.span-int(l.issued[i]) > l.soft+sweep {
			n++
		}
	}
	return n
}
