package guard

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBuckets bounds the keys that are remembered, at some 200 bytes each and
// the key. The one that was heard of least lately makes room.
const maxBuckets = 10_000

// Buckets limit how often something may be done, for each key by itself: a
// burst at once, then one each interval. Safe for concurrent use.
type Buckets struct {
	every time.Duration
	burst int

	mu     sync.Mutex
	byKey  map[string]*list.Element // guarded by mu :: key → its place in lately
	lately *list.List               // guarded by mu; of *bucket, the latest at the front
}

type bucket struct {
	key   string
	limit *rate.Limiter
}

// NewBuckets returns Buckets that are all full: with burst, and one more each
// interval up to that.
func NewBuckets(every time.Duration, burst int) *Buckets {
	return &Buckets{every: every, burst: burst, byKey: map[string]*list.Element{}, lately: list.New()}
}

// Take takes one from the bucket of key and returns zero, or how long it is
// until there is one, and then takes none: trying on makes nobody wait longer.
func (b *Buckets) Take(key string) (wait time.Duration) {
	limit, now := b.of(key), time.Now()
	if limit.AllowN(now, 1) {
		return 0
	}
	missing := 1 - limit.TokensAt(now)
	return max(time.Duration(missing*float64(b.every)), time.Millisecond)
}

func (b *Buckets) of(key string) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.byKey[key]; ok {
		b.lately.MoveToFront(e)
		return e.Value.(*bucket).limit
	}
	if b.lately.Len() >= maxBuckets {
		last := b.lately.Remove(b.lately.Back()).(*bucket)
		delete(b.byKey, last.key)
	}
	limit := rate.NewLimiter(rate.Every(b.every), b.burst)
	b.byKey[key] = b.lately.PushFront(&bucket{key, limit})
	return limit
}

// Network returns what of an address tells one sender from another: whoever has
// one IPv6 address has the 64 bits after it as well. What is no address is
// returned as it is.
func Network(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Is4() {
		return addr
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return addr
	}
	return prefix.String()
}
