package caddymodule

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// censusShare bounds what counting takes: it is not begun again before so many
	// times what it took has passed.
	censusShare = 50
	// endingSoon is when a token that nothing can renew is told of.
	endingSoon = 24 * time.Hour
	// storeGone is how long a store may be silent.
	storeGone = 15 * time.Second
)

// censusEvery is how often the connections are counted at most. Tests lower it.
var censusEvery = 15 * time.Second

// census is what is looked at from time to time, not at each scrape.
type census struct {
	counts   []tokenstore.Count
	counted  time.Time
	endings  map[string]refresh.Ending
	known    []string // integrations
	space    tokenstore.Space
	hasSpace bool
	size     int64 // of a store that does not know its disk
}

// lookAtStore notes that the store answers, if it does: with nothing, since
// nothing has been due for that long.
func (e *engine) lookAtStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, storeGone)
	defer cancel()
	if _, err := e.store.DueConnections(ctx, time.Unix(0, 0)); err == nil {
		e.storeSeen.Store(time.Now().UnixNano())
	}
}

// keepCensus takes one census after the other, until ctx ends.
func (e *engine) keepCensus(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		e.takeCensus(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(max(censusEvery, censusShare*time.Since(began))):
		}
	}
}

// takeCensus looks at the store and at what is in memory. Where the store can't
// count, what it counted last stands, and its time.
func (e *engine) takeCensus(ctx context.Context) {
	next := &census{endings: e.refresher.Endings(endingSoon)}
	if last := e.census.Load(); last != nil {
		next.counts, next.counted = last.counts, last.counted
	}
	next.known = slices.Sorted(maps.Keys(e.current.Load().settings.integrations))
	if s, ok := e.store.(tokenstore.Counter); ok {
		if counts, err := s.CountConnections(ctx, next.known); err == nil {
			next.counts, next.counted = counts, time.Now()
		}
	}
	if s, ok := e.store.(tokenstore.Spacer); ok {
		next.space, next.hasSpace = s.Space()
	}
	if s, ok := e.store.(tokenstore.Sizer); ok {
		next.size, _ = s.Size(ctx) // a database that can't tell has none
	}
	e.census.Store(next)
}

func (c *census) collect(to chan<- prometheus.Metric) {
	type place struct {
		integration string
		status      tokenstore.Status
	}
	n := map[place]int{}
	for _, integration := range c.known {
		for _, status := range tokenstore.Statuses {
			n[place{integration, status}] = 0
		}
	}
	for _, count := range c.counts {
		n[place{c.name(count.Integration), count.Status}] += count.N
	}
	if !c.counted.IsZero() {
		for at, n := range n {
			metricConnections.send(to, float64(n), at.integration, string(at.status))
		}
		metricCountedAt.send(to, float64(c.counted.Unix()))
	}
	soon := map[string]int{}
	next := map[string]time.Time{}
	for integration, ending := range c.endings {
		name := c.name(integration)
		soon[name] += ending.Soon
		if at := next[name]; at.IsZero() || ending.Next.Before(at) {
			next[name] = ending.Next
		}
	}
	for name, n := range soon {
		metricEndingSoon.send(to, float64(n), name)
		metricNextEnd.send(to, float64(next[name].Unix()), name)
	}
	if c.size > 0 {
		metricStoreSize.send(to, float64(c.size))
	}
	if c.hasSpace {
		metricStoreSize.send(to, float64(c.space.Size))
		metricStoreFree.send(to, float64(c.space.Free))
		metricStoreNeeds.send(to, float64(c.space.Reserved))
	}
}

// name returns what an integration is called that may be configured no more.
func (c *census) name(integration string) string {
	if _, known := slices.BinarySearch(c.known, integration); known {
		return integration
	}
	return metrics.Other
}
