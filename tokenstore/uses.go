package tokenstore

import "sync/atomic"

// Uses remembers which client keys have used one token generation. It lives in
// memory only: what was used before a restart, or before the connection fell
// out of the cache, counts as unused. The zero value is of an unused one. Safe
// for concurrent use.
type Uses struct{ last atomic.Pointer[use] }

// use is one key's use and those before it; it is never changed.
type use struct {
	key    string // the name of a client key
	before *use
}

func (u *use) has(key string) bool {
	for ; u != nil; u = u.before {
		if u.key == key {
			return true
		}
	}
	return false
}

func (u *use) without(key string) *use {
	switch {
	case u == nil:
		return nil
	case u.key == key:
		return u.before
	}
	return &use{u.key, u.before.without(key)}
}

// First reports whether key, a client key's name, was not seen before: true
// once for each. It does not allocate for one that was seen.
func (u *Uses) First(key string) bool {
	for {
		last := u.last.Load()
		if last.has(key) {
			return false
		}
		if u.last.CompareAndSwap(last, &use{key, last}) {
			return true
		}
	}
}

// Forget takes First back, where what came of it could not be written down.
func (u *Uses) Forget(key string) {
	for {
		last := u.last.Load()
		if !last.has(key) || u.last.CompareAndSwap(last, last.without(key)) {
			return
		}
	}
}
