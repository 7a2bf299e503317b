package provider

import (
	"fmt"
	"time"
)

const (
	lifeNever  = "never"                   // `answer.life never`: access tokens don't end
	forever    = time.Duration(-1)         // lifeNever, parsed
	maxLife    = 365 * 24 * time.Hour      // of an access token; what is told beyond is capped
	maxRefresh = 20 * 365 * 24 * time.Hour // of a refresh token

	defaultConcurrency = 16
	maxConcurrency     = 1000
	defaultInterval    = 25 * time.Millisecond
	maxInterval        = time.Minute
	maxMargin          = 30 * 24 * time.Hour
	maxPause           = 48 * time.Hour
)

// parseLife reads a life: empty is zero, lifeNever is forever.
func parseLife(s string) (time.Duration, error) {
	switch s {
	case "":
		return 0, nil
	case lifeNever:
		return forever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%q is neither a duration such as 2h nor %s", s, lifeNever)
	}
	return d, nil
}

// shortTime reads refresh.margin and refresh.pause; empty is zero.
func shortTime(s string, longest time.Duration) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > longest {
		return 0, fmt.Errorf("%q is not a duration from 1s to %.0fh", s, longest.Hours())
	}
	return d, nil
}

// interval reads refresh.interval.
func (e *RefreshEntry) interval() (time.Duration, error) {
	if e.Interval == "" {
		return defaultInterval, nil
	}
	d, err := time.ParseDuration(e.Interval)
	if err != nil || d < 0 || d > maxInterval {
		return 0, fmt.Errorf("%q is not a duration from 0s to 1m", e.Interval)
	}
	return d, nil
}
