package refresh

import (
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What a plan for many connections has to know of the schedule, beside the
// margins of a token (tokenstore.Token) and a provider's own pace.
const (
	// AheadWaiting is how many renewals each call of RenewAhead leaves waiting
	// for one integration at most.
	AheadWaiting = aheadWaiting
	// LongestDown is the longest time between two looks at whether a token
	// endpoint that failed is back.
	LongestDown = maxDown
)

// AheadAt returns when the token of g, which is in use, is renewed though nobody
// asks for it, if the clock is right; zero: never. A request has it renewed from
// its SoftAt on, which is never earlier.
func AheadAt(g *tokenstore.Grant) time.Time { return aheadAt(g, g.Token.IssuedAt) }
