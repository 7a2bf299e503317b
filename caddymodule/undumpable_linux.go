package caddymodule

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// hideMemory keeps what this process has in memory from core dumps, and, unless
// they are root's, from debuggers and readers of /proc: there are tokens and
// keys in it.
func hideMemory() error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("PR_SET_DUMPABLE: %w", err))
	}
	// The soft limit alone: children get it, too, and may want another.
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	if err == nil {
		limit.Cur = 0
		err = unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("RLIMIT_CORE: %w", err))
	}
	return errors.Join(errs...)
}
