package tokenstore

import (
	"slices"
	"sync/atomic"
)

// Uses remembers which client keys have used one token generation. It lives in
// memory only: what was used before a restart, or before the connection fell
// out of the cache, counts as unused. The zero value is of an unused one. Safe
// for concurrent use.
type Uses struct {
	keys atomic.Pointer[[]string] // names of client keys; never changed, replaced as a whole
}

// First reports whether key, a client key's name, was not seen before: true
// once for each. It does not allocate for one that was seen.
func (u *Uses) First(key string) bool {
	for {
		seen := u.keys.Load()
		switch {
		case seen == nil:
			if u.keys.CompareAndSwap(nil, &[]string{key}) {
				return true
			}
		case slices.Contains(*seen, key):
			return false
		default:
			next := append(slices.Clone(*seen), key)
			if u.keys.CompareAndSwap(seen, &next) {
				return true
			}
		}
	}
}

// Forget takes First back, where what came of it could not be written down.
func (u *Uses) Forget(key string) {
	for {
		seen := u.keys.Load()
		if seen == nil {
			return
		}
		next := slices.DeleteFunc(slices.Clone(*seen), func(k string) bool { return k == key })
		if u.keys.CompareAndSwap(seen, &next) {
			return
		}
	}
}
