// Package metrics counts what happens, in plain atomics: whoever counts takes no
// lock and allocates nothing, and knows of no system that shows the counts.
package metrics

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Other stands for every outcome that is not in the set of a Counts, and for
// every integration that was never configured.
const Other = "other"

// Counts counts by outcome, of a set that is fixed when it is made. Safe for
// concurrent use.
type Counts struct {
	at map[string]int
	n  []atomic.Uint64
}

// NewCounts returns a Counts of these outcomes and Other, all zero.
func NewCounts(outcomes ...string) *Counts {
	c := &Counts{at: map[string]int{}}
	for _, outcome := range append([]string{Other}, outcomes...) {
		if _, ok := c.at[outcome]; !ok {
			c.at[outcome] = len(c.at)
		}
	}
	c.n = make([]atomic.Uint64, len(c.at))
	return c
}

// Add counts one more of an outcome.
func (c *Counts) Add(outcome string) {
	c.n[c.at[outcome]].Add(1) // Other is the first
}

// All returns how many there were of each outcome, those of which there were none
// too, in the order of their names.
func (c *Counts) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for _, outcome := range slices.Sorted(maps.Keys(c.at)) {
			if !yield(outcome, c.n[c.at[outcome]].Load()) {
				return
			}
		}
	}
}

// Histogram counts durations by the bounds that they are within. Safe for
// concurrent use.
type Histogram struct {
	bounds []time.Duration
	n      []atomic.Uint64 // by bound, and those beyond the last
	sum    atomic.Int64    // nanoseconds
}

// NewHistogram returns a Histogram with these bounds, which rise.
func NewHistogram(bounds ...time.Duration) *Histogram {
	return &Histogram{bounds: bounds, n: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one more duration. Less than nothing, as of a clock that was put
// back, is nothing.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.sum.Add(int64(d))
	h.n[i].Add(1)
}

// Read returns how many durations there were, their sum, and how many were within
// each bound.
func (h *Histogram) Read() (count uint64, sum time.Duration, within map[time.Duration]uint64) {
	within = make(map[time.Duration]uint64, len(h.bounds))
	sum = time.Duration(h.sum.Load())
	for i, bound := range h.bounds {
		count += h.n[i].Load()
		within[bound] = count
	}
	return count + h.n[len(h.bounds)].Load(), sum, within
}

// Integration is what is counted for each integration.
type Integration struct {
	Calls       *Counts      // proxied calls, of CallOutcomes
	Added       *Histogram   // what a call that went upstream waited for Lanyard before that
	Refreshes   *Counts      // requests for a new token, of RefreshResults
	RefreshTime *Histogram   // how long the token endpoint took for its answer
	Waiters     atomic.Int64 // those who waited for a refresh that another had begun
	Flows       *Counts      // connect flows that ended, of FlowOutcomes
}

func newIntegration() *Integration {
	return &Integration{
		Calls:     NewCounts(CallOutcomes...),
		Added:     NewHistogram(addedBounds...),
		Refreshes: NewCounts(RefreshResults...), RefreshTime: NewHistogram(refreshBounds...),
		Flows: NewCounts(FlowOutcomes...),
	}
}

// Set is what is counted: for each integration, and for all together. Safe for
// concurrent use.
type Set struct {
	Webhooks *Counts // requests to webhook endpoints, of WebhookResults

	mu    sync.Mutex                              // guards changes of names
	names atomic.Pointer[map[string]*Integration] // never changed, but replaced
}

// NewSet returns a Set that knows no integration but Other.
func NewSet() *Set {
	s := &Set{Webhooks: NewCounts(WebhookResults...)}
	s.names.Store(&map[string]*Integration{Other: newIntegration()})
	return s
}

// Know has these integrations, and no others, counted by themselves from now on.
// Those that are known already go on with what they have.
func (s *Set) Know(integrations ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := *s.names.Load()
	names := map[string]*Integration{Other: before[Other]}
	for _, name := range integrations {
		if names[name] = before[name]; names[name] == nil {
			names[name] = newIntegration()
		}
	}
	s.names.Store(&names)
}

// Of returns the counts of an integration, or those of Other for a name that is
// not known.
func (s *Set) Of(integration string) *Integration {
	names := *s.names.Load()
	if i, ok := names[integration]; ok {
		return i
	}
	return names[Other]
}
