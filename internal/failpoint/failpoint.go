//go:build !failpoints

// Package failpoint lets tests crash, break and delay the program at named
// places. It exists only in programs built with the tag failpoints; in all
// others its functions are empty, are inlined, and cost nothing.
//
// A program with failpoints reads the file that LANYARD_FAILPOINTS names, at
// each place that it comes to, so that a test can change its mind while the
// program runs. The file has a line for each place, `place=action`:
//
//	crash       the process kills itself, as kill -9 does
//	error       the place fails, with EIO
//	sleep:500ms the place takes that long
//
// `place=once:action` does so the first time only. `clock=1h` or `clock=-1h`
// puts the wall clock forward or back; the monotonic clock stays.
// `dial=127.0.0.1:4433` has every connection to a provider go there instead,
// wherever its host is.
package failpoint

import (
	"context"
	"net"
	"time"
)

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Hit is called at a place that may fail. It returns the error of a place that
// shall.
func Hit(string) error { return nil }

// Clock returns how far the wall clock is to be off.
func Clock() time.Duration { return 0 }

// Dial returns what dials: next, unless the file says another place.
func Dial(next DialFunc) DialFunc { return next }
