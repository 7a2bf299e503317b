package refresh

import (
	"time"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// clockSlack is how far two clocks may be apart without one being wrong.
const clockSlack = time.Minute

// wallNow returns the time in UTC. Two of them in one process are compared by
// the monotonic clock in them; against what was stored, the wall clock counts.
func wallNow() time.Time { return time.Now().Add(failpoint.Clock()).UTC() }

// ageNow returns the time by which g's token is judged: the wall clock's, or,
// if that has been put back since g was taken, what it would be else. So an
// expired token does not come back to life. A clock that is put forward makes
// tokens look older than they are, and costs each a refresh.
func ageNow(g *tokenstore.Grant) time.Time {
	now := time.Now()
	wall := now.Add(failpoint.Clock()).Round(0)
	if aged := g.SeenWall.Add(now.Sub(g.SeenAt)); aged.After(wall) {
		return aged
	}
	return wall
}

// hasAged reports whether g's token has reached its end by the clock that never
// jumps, or had when g was taken. What can't be renewed is given up by that: a
// wall clock that was put forward, and will be put right, must not end it.
func hasAged(g *tokenstore.Grant, end time.Time) bool {
	return !g.SeenWall.Add(time.Since(g.SeenAt)).Before(end)
}

// softAt returns when g's token should be renewed, zero if never. One that was
// issued in the future tells that the clock was put back while nobody looked:
// its end can't be trusted, and it is due.
func softAt(g *tokenstore.Grant, now time.Time) time.Time {
	soft := g.Token.SoftAt()
	if !soft.IsZero() && g.Renewable && g.Token.IssuedAt.After(now.Add(clockSlack)) {
		return now
	}
	return soft
}
