package refresh

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The bounds of what callers are told to wait.
const (
	minRetryAfter = time.Second
	maxRetryAfter = 15 * time.Minute
)

func clampRetry(d time.Duration) time.Duration { return min(max(d, minRetryAfter), maxRetryAfter) }

func unavailable(after time.Duration, cause error) *tokenstore.UnavailableError {
	return &tokenstore.UnavailableError{RetryAfter: clampRetry(after), Cause: cause}
}

// maxBackOff is the longest back-off, before jitter.
const maxBackOff = 45 * time.Second

// maxStorePause is the longest wait before the store is tried again, which
// costs nobody anything: soon after it can write again, all is written.
const maxStorePause = 4 * time.Second

func storeFailed(err error) bool {
	return errors.Is(err, tokenstore.ErrUnavailable) || errors.Is(err, tokenstore.ErrFull)
}

// backOff returns how long to wait after the nth failure in a row: one second,
// doubled each time up to maxBackOff, give or take a fifth.
func backOff(failures int) time.Duration {
	d := time.Second << min(max(failures-1, 0), 6)
	d = min(d, maxBackOff)
	jitter := 0.8 + 0.4*rand.Float64() //nolint:gosec // spreads load; nobody gains by guessing it
	return time.Duration(float64(d) * jitter)
}
