// Command schedule simulates when Lanyard renews the tokens of a hundred million
// connections, second by second, with the functions that Lanyard itself plans
// with, and prints tables in Markdown:
//
//	go run ./bench/schedule -n 100000000 -rate 10000
//
// As many connections are in constant use as make the rate; the others are
// called once a day, or never. It takes ten bytes of memory for each one in use,
// about a minute, and no network.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// plan is what is simulated.
type plan struct {
	n        int     // connections
	rate     float64 // refreshes a second that those in constant use need
	daily    float64 // share of the others that is called once a day
	headroom float64 // what providers take, in units of what is needed on the average
}

func main() {
	var p plan
	flag.IntVar(&p.n, "n", 100_000_000, "`connections`")
	flag.Float64Var(&p.rate, "rate", 10_000, "`refreshes` a second for connections in constant use")
	flag.Float64Var(&p.daily, "daily", 0.5, "`share` of the other connections that is called once a day")
	flag.Float64Var(&p.headroom, "headroom", 1.5, "`times` the average that each provider takes at most")
	flag.Parse()
	if err := p.run(os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "schedule:", err)
		os.Exit(1)
	}
}

func (p plan) check() error {
	switch {
	case p.n < 1000 || p.n > 4_000_000_000:
		return errors.New("-n is not from 1,000 to 4,000,000,000")
	case p.rate <= 0 || p.daily < 0 || p.daily > 1 || p.headroom < 1:
		return errors.New("-rate is above 0, -daily from 0 to 1, -headroom at least 1")
	}
	return nil
}

// run simulates and prints; progress is told as it comes.
func (p plan) run(out, progress io.Writer) error {
	if err := p.check(); err != nil {
		return err
	}
	groups, err := p.groups()
	if err != nil {
		return err
	}
	r := report{plan: p, groups: groups}
	for _, s := range scenarios(p.headroom) {
		_, _ = fmt.Fprintln(progress, s.name)
		r.outcomes = append(r.outcomes, simulate(groups, s))
	}
	_, _ = fmt.Fprintln(progress, "refresh tokens that are kept alive")
	r.kept = keepAlive(p.n - used(groups) - p.onceADay(groups))
	return r.print(out)
}
