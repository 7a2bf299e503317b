package fakeprovider

import (
	"slices"
	"sync"
)

// endpoint says which requests a queue of faults is for.
type endpoint string

const (
	endpointAuthorize  endpoint = "authorize"
	endpointToken      endpoint = "token"
	endpointRevoke     endpoint = "revoke"
	endpointIntrospect endpoint = "introspect"
	endpointAPI        endpoint = "api"
)

// Faults are the faults that wait for requests, a queue per endpoint. The
// first one that fits a request hits it.
type Faults struct {
	mu    sync.Mutex // guards queue
	queue map[endpoint][]Fault
}

// Authorize queues faults for consents: they hit when the user allows.
func (q *Faults) Authorize(f ...Fault) { q.add(endpointAuthorize, f) }

// Token queues faults for requests to the token endpoint.
func (q *Faults) Token(f ...Fault) { q.add(endpointToken, f) }

// Revoke queues faults for requests to the revocation endpoint.
func (q *Faults) Revoke(f ...Fault) { q.add(endpointRevoke, f) }

// Introspect queues faults for requests to the introspection endpoint.
func (q *Faults) Introspect(f ...Fault) { q.add(endpointIntrospect, f) }

// API queues faults for API calls.
func (q *Faults) API(f ...Fault) { q.add(endpointAPI, f) }

// APILeft returns how many API calls the faults that wait will hit yet, those
// that hit always left out.
func (q *Faults) APILeft() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, f := range q.queue[endpointAPI] {
		if !f.always {
			n += max(1, f.times)
		}
	}
	return n
}

// Clear takes all faults back.
func (q *Faults) Clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.queue)
}

func (q *Faults) add(at endpoint, f []Fault) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.queue == nil {
		q.queue = map[endpoint][]Fault{}
	}
	q.queue[at] = append(q.queue[at], f...)
}

// take returns the fault that hits a request, or the zero Fault.
func (q *Faults) take(at endpoint, grantType string) Fault {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.queue[at]
	i := slices.IndexFunc(list, func(f Fault) bool { return f.grantType == "" || f.grantType == grantType })
	if i < 0 {
		return Fault{}
	}
	f := list[i]
	if f.always {
		return f
	}
	if f.times > 1 {
		list[i].times--
		return f
	}
	q.queue[at] = slices.Delete(slices.Clone(list), i, i+1)
	return f
}
