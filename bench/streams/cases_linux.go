package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// one is a case: what is done to each program.
type one struct {
	name  string
	title string
	// count is how many streams are asked for.
	count func(options) int
	// files is how many files one stream takes in the process that has the
	// most of them.
	files int
	run   func(ctx context.Context, p *proxy, n int, o options, c *column) error
}

var cases = []one{
	{
		"idle-sse", "idle SSE streams, HTTP/2 from the app (200 a connection), HTTP/1.1 upstream",
		func(o options) int { return o.idle }, 1,
		func(ctx context.Context, p *proxy, n int, o options, c *column) error {
			return idle(ctx, p, n, o, c, dialEvents(p, n, true))
		},
	},
	{
		"idle-sse-h1", "idle SSE streams, HTTP/1.1 on both sides",
		func(o options) int { return o.idle }, 2,
		func(ctx context.Context, p *proxy, n int, o options, c *column) error {
			return idle(ctx, p, n, o, c, dialEvents(p, n, false))
		},
	},
	{
		"idle-ws", "idle WebSockets",
		func(o options) int { return o.idle }, 2,
		func(ctx context.Context, p *proxy, n int, o options, c *column) error {
			return idle(ctx, p, n, o, c, dialWebSocket(p))
		},
	},
	{
		"busy-sse", "busy SSE streams, HTTP/1.1, 10 events of 200 bytes a second each",
		func(o options) int { return o.busy }, 2,
		func(ctx context.Context, p *proxy, n int, o options, c *column) error {
			return busy(ctx, p, n, o, c, dialEvents(p, n, false))
		},
	},
	{
		"busy-ws", "busy WebSockets, 10 messages of 200 bytes a second each, echoed",
		func(o options) int { return o.busy }, 2,
		func(ctx context.Context, p *proxy, n int, o options, c *column) error {
			return busy(ctx, p, n, o, c, dialWebSocket(p))
		},
	},
	{"slow", "parallel slow calls", func(o options) int { return o.slow }, 2, slow},
}

func caseNames() []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

const (
	warmCalls = 20              // at a time
	fastRate  = 200             // calls a second beside what is measured
	settle    = 3 * time.Second // before memory is read
	patience  = 20 * time.Second
)

// idle holds streams that seldom say something.
func idle(ctx context.Context, p *proxy, n int, o options, c *column, dial dialFunc) error {
	if err := warm(ctx, p); err != nil {
		return err
	}
	before, err := p.usage(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	all := openStreams(ctx, n, how{every: o.every, size: messageSize}, dial)
	defer all.close()
	c.figure("opened in", seconds(time.Since(start)))
	c.lossless("open", all)
	sleep(ctx, settle)
	with, err := p.usage(ctx)
	if err != nil {
		return err
	}
	each(c, "a stream", before, with, n)
	resident := (with.RSS - before.RSS) / int64(n)
	c.gate("at most 80 KB of it resident", resident <= maxResident, fmt.Sprintf("%.1f KB", float64(resident)/1000))

	used, err := p.program.CPU()
	if err != nil {
		return err
	}
	start = time.Now()
	sleep(ctx, o.hold)
	after, err := p.program.CPU()
	if err != nil {
		return err
	}
	c.figure("CPU while held", fmt.Sprintf("%.1f %% of a core", 100*float64(after-used)/float64(time.Since(start))))

	if err := reloadAmid(ctx, p, c); err != nil {
		return err
	}
	c.figure("go on after the reload", fmt.Sprint(all.heard(o.every+patience/2)))
	sleep(ctx, grace)
	c.figure("go on after grace_period", fmt.Sprint(all.heard(o.every+patience/2)))
	c.lossless("through the reload", all)
	reloaded, err := p.usage(ctx)
	if err != nil {
		return err
	}
	each(c, "a stream, after the reload", before, reloaded, n)
	c.gate("the reload leaves memory as it was", reloaded.live-before.live <= (with.live-before.live)*11/10+slackMemory,
		mib(reloaded.live-before.live))
	all.close()
	return gone(ctx, p, before, n, c)
}

// busy has streams that talk all the time.
func busy(ctx context.Context, p *proxy, n int, o options, c *column, dial dialFunc) error {
	if err := warm(ctx, p); err != nil {
		return err
	}
	before, err := p.usage(ctx)
	if err != nil {
		return err
	}
	used, err := p.program.CPU()
	if err != nil {
		return err
	}
	h := how{every: 100 * time.Millisecond, size: messageSize}
	h.count = int(o.during / h.every)
	all := openStreams(ctx, n, h, dial)
	defer all.close()
	sleep(ctx, o.during/3)
	if err := reloadAmid(ctx, p, c); err != nil {
		return err
	}
	with, err := p.usage(ctx)
	if err != nil {
		return err
	}
	each(c, "a stream", before, with, n)
	all.work.Wait()
	after, err := p.program.CPU()
	if err != nil {
		return err
	}
	var ages []time.Duration
	for _, s := range all.all {
		ages = append(ages, s.ages...)
	}
	c.figure("messages", fmt.Sprint(len(ages)))
	c.figure("CPU a message", fmt.Sprintf("%.1f µs", float64((after-used).Microseconds())/float64(max(1, len(ages)))))
	c.figure("latency of a message, p50 / p99 / max", quantiles(ages))
	c.gate("every message came, in order", len(ages) == n*h.count, fmt.Sprintf("%d of %d", len(ages), n*h.count))
	c.lossless("through the reload", all)
	return gone(ctx, p, before, n, c)
}

// slow has calls that wait for their answers, and others beside them.
func slow(ctx context.Context, p *proxy, n int, o options, c *column) error {
	if err := warm(ctx, p); err != nil {
		return err
	}
	before, err := p.usage(ctx)
	if err != nil {
		return err
	}
	fast := startFast(ctx, p)
	sleep(ctx, o.wait/2)
	alone := fast.stop()
	c.figure("fast calls alone, p50 / p99 / max", quantiles(alone.took))

	start := time.Now()
	calls := startSlow(ctx, p, 0, n, o.wait)
	if err := until(patience, func() error { return p.underWay(ctx, n, n) }); err != nil {
		c.gate("all are under way at once", false, err.Error())
	}
	with, err := p.usage(ctx)
	if err != nil {
		return err
	}
	each(c, "a call", before, with, n)
	fast = startFast(ctx, p)
	sleep(ctx, o.wait/3)
	beside := fast.stop()
	c.figure("fast calls beside them, p50 / p99 / max", quantiles(beside.took))
	if err := reloadAmid(ctx, p, c); err != nil {
		return err
	}
	right, first := calls.wait()
	c.figure("all answered after", seconds(time.Since(start)))
	c.gate("every slow call was answered right", right == n, detail(fmt.Sprintf("%d of %d", right, n), first))
	failed := alone.failed + beside.failed
	c.gate("no fast call failed", failed == 0, detail(fmt.Sprint(failed), errors.Join(alone.first, beside.first)))
	return gone(ctx, p, before, n, c)
}

// warm makes a call over each connection, so that what comes once is there.
func warm(ctx context.Context, p *proxy) error {
	for n := 0; n < connections; n += warmCalls {
		if right, err := startSlow(ctx, p, n, n+warmCalls, time.Millisecond).wait(); right != warmCalls {
			return fmt.Errorf("a first call: %w", err)
		}
	}
	sleep(ctx, time.Second/2)
	return nil
}

// reloadAmid reloads while new calls come.
func reloadAmid(ctx context.Context, p *proxy, c *column) error {
	fast := startFast(ctx, p)
	sleep(ctx, time.Second/2)
	start := time.Now()
	if err := p.reload(ctx); err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	took := time.Since(start)
	sleep(ctx, time.Second)
	f := fast.stop()
	c.figure("the reload took", seconds(took))
	c.gate("no new call failed in the reload", f.failed == 0 && len(f.took) > 0,
		detail(fmt.Sprintf("%d of %d, %d sent once more", f.failed, len(f.took)+f.failed, f.again), f.first))
	return nil
}

const (
	slackGoroutines = 300 // of the connections that fast calls leave for the next, two each
	slackMemory     = 8 << 20
	// leftOfGoroutines is what Go keeps of a stream's goroutines that have
	// ended, in bytes: it uses their descriptors again and never frees them.
	// Four, each of about 450 bytes.
	leftOfGoroutines = 2000
	// maxResident is what an idle stream may take, in bytes.
	maxResident = 80_000
)

// gone looks whether anything is left of streams that have ended.
func gone(ctx context.Context, p *proxy, before usage, n int, c *column) error {
	most := before.live + slackMemory + int64(n)*leftOfGoroutines
	p.client.CloseIdleConnections()
	err := until(patience, func() error { return p.underWay(ctx, 0, 0) })
	c.gate("no stream stays at the upstream", err == nil, detail("0", err))
	var u usage
	err = until(patience, func() (err error) {
		if u, err = p.usage(ctx); err == nil && (u.goroutines > before.goroutines+slackGoroutines || u.live > most) {
			err = fmt.Errorf("%d goroutines (%d before), %s (%s before)", u.goroutines, before.goroutines, mib(u.live), mib(before.live))
		}
		return err
	})
	c.gate("afterwards all is as before", err == nil, detail(fmt.Sprintf("%d goroutines (%d before), %s live (%s before)",
		u.goroutines, before.goroutines, mib(u.live), mib(before.live)), err))
	c.figure("resident before / after", mib(before.RSS)+" / "+mib(u.RSS))
	return nil
}

// underWay tells if not at least so many and at most so many requests are under
// way at the upstream.
func (p *proxy) underWay(ctx context.Context, least, most int) error {
	n, err := p.open(ctx)
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("%d under way at the upstream", n)
	}
	return err
}

// each tells what one of n takes.
func each(c *column, what string, before, with usage, n int) {
	per := func(b int64) string { return fmt.Sprintf("%.1f KB", float64(b)/float64(n)/1000) }
	c.figure("memory of "+what+": resident / in use", per(with.RSS-before.RSS)+" / "+per(with.live-before.live))
	c.figure("goroutines of "+what, fmt.Sprintf("%.1f", float64(with.goroutines-before.goroutines)/float64(n)))
}

// until waits for a condition.
func until(within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond) // between two looks
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
