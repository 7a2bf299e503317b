//go:build failpoints

// Package failpoint is described where it does nothing: failpoint.go.
package failpoint

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	mu    sync.Mutex
	spent = map[string]bool{} // guarded by mu :: line with once → has happened
)

// action returns what the file says of a place, empty if nothing.
func action(place string) string {
	name := os.Getenv("LANYARD_FAILPOINTS")
	if name == "" {
		return ""
	}
	text, err := os.ReadFile(name) //nolint:gosec // the test names it
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if do, ok := strings.CutPrefix(strings.TrimSpace(line), place+"="); ok {
			return do
		}
	}
	return ""
}

// Hit is called at a place that may fail. It returns the error of a place that
// shall.
func Hit(place string) error {
	do := action(place)
	if once, ok := strings.CutPrefix(do, "once:"); ok {
		mu.Lock()
		was := spent[place+"="+do]
		spent[place+"="+do] = true
		mu.Unlock()
		if was {
			return nil
		}
		do = once
	}
	what, arg, _ := strings.Cut(do, ":")
	switch what {
	case "":
		return nil
	case "crash":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // until it arrives
	case "error":
		return fmt.Errorf("failpoint %s: %w", place, syscall.EIO)
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			panic("failpoint " + place + ": " + err.Error())
		}
		time.Sleep(d)
		return nil
	default:
		panic("failpoint " + place + ": no action " + do)
	}
}

// Clock returns how far the wall clock is to be off.
func Clock() time.Duration {
	d, _ := time.ParseDuration(action("clock"))
	return d
}

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial returns what dials: next, unless the file says another place. No rule
// about addresses holds there.
func Dial(next DialFunc) DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if to := action("dial"); to != "" {
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		}
		return next(ctx, network, addr)
	}
}
