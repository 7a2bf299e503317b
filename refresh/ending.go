package refresh

import (
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Ending tells of tokens that nothing can renew: their users will have to connect
// again.
type Ending struct {
	Next time.Time // when the next of them ends
	Soon int       // how many end soon
}

// Endings returns, by integration, what will end of the connections in memory,
// which are those used last. Soon is what ends within this time from now.
func (r *Refresher) Endings(soon time.Duration) map[string]Ending {
	now, all := wallNow(), map[string]Ending{}
	for i := range r.cache.shards {
		for _, e := range r.cache.shards[i].entries.all() {
			g := e.grant.Load()
			end := g.Token.ExpiresAt
			if g.Renewable || g.Status != tokenstore.StatusActive || g.Disabled || g.Token.ExpiryUnknown || !now.Before(end) {
				continue
			}
			at := all[g.Integration]
			if at.Next.IsZero() || end.Before(at.Next) {
				at.Next = end
			}
			if end.Sub(now) <= soon {
				at.Soon++
			}
			all[g.Integration] = at
		}
	}
	return all
}
