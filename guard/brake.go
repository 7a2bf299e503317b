package guard

import (
	"net/http"
	"time"
)

const (
	// wrongBurst is how many wrong keys one address may send at once: more than
	// an app that restarts with an old key, far less than a search.
	wrongBurst = 20
	// wrongEvery is how often it may send one from then on.
	wrongEvery = time.Second
)

// Brake turns away those that send wrong keys over and over, by the address they
// come from. A right key is none of its business, so that nobody can lock out a
// neighbour: it spares work and the log, and it is their length that keeps keys
// from being found.
type Brake struct{ wrong *Buckets }

// NewBrake returns a Brake that has seen nobody yet.
func NewBrake() *Brake { return &Brake{NewBuckets(wrongEvery, wrongBurst)} }

// Wrong notes a wrong key from addr, as From returns it, and returns the 429 to
// answer with if there were too many: over 20 at once and one each second. Else
// it returns nil. An IPv6 network of 64 bits is one address.
func (b *Brake) Wrong(addr string) *Problem {
	wait := b.wrong.Take(Network(addr))
	if wait == 0 {
		return nil
	}
	return &Problem{
		Status: http.StatusTooManyRequests, Code: "rate_limited",
		Detail:     "Too many wrong keys came from this address. A right key is taken at any time.",
		RetryAfter: wait,
	}
}
