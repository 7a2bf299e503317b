package main

import (
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// keptLives are lives of refresh tokens that die of disuse.
var keptLives = []time.Duration{14 * day, 30 * day, 90 * day, 180 * day}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// kept is what it takes to keep connections that nobody calls alive.
type kept struct {
	life    time.Duration // of their refresh tokens
	n       int
	sampled int
	mean    float64 // renewals a second over a year
	day     float64 // a second in the busiest day of it
	atOnce  float64 // a second in the busiest day, if all was issued at once
}

// maxSample bounds how many connections of each life are looked at one by one:
// more change the third digit.
const maxSample = 200_000

// keepAlive renews n connections in equal parts for a year: where their tokens
// were issued over the first life of them, and where they were issued at once.
func keepAlive(n int) []kept {
	all := make([]kept, 0, len(keptLives))
	for _, life := range keptLives {
		k := kept{life: life, n: n / len(keptLives)}
		k.sampled = min(k.n, maxSample)
		scale := float64(k.n) / float64(max(k.sampled, 1))
		spread, total := k.days(false)
		k.mean = scale * float64(total) / year.Seconds()
		k.day = scale * float64(spread) / day.Seconds()
		atOnce, _ := k.days(true)
		k.atOnce = scale * float64(atOnce) / day.Seconds()
		all = append(all, k)
	}
	return all
}

// days returns how many are renewed in the busiest day of a year, and in all of
// it.
func (k kept) days(atOnce bool) (busiest, total int) {
	days := make([]int, year/day)
	c := tokenstore.Connection{Status: tokenstore.StatusActive}
	c.Token.RefreshToken = secret.New("any")
	for i := range uint64(k.sampled) { // not negative
		c.ID = nameOf(i)
		issued := epoch
		if !atOnce {
			issued = issued.Add(-time.Duration(float64(mixed(i)>>11) / (1 << 53) * float64(k.firstCycle(&c))))
		}
		for {
			c.Token.IssuedAt, c.Token.RefreshExpiresAt = issued, issued.Add(k.life)
			issued = c.KeepAliveAt()
			d := int(issued.Sub(epoch) / day)
			if d >= len(days) {
				break
			}
			days[d]++
			total++
			busiest = max(busiest, days[d])
		}
	}
	return busiest, total
}

func (k kept) firstCycle(c *tokenstore.Connection) time.Duration {
	c.Token.IssuedAt, c.Token.RefreshExpiresAt = epoch, epoch.Add(k.life)
	return c.KeepAliveAt().Sub(epoch)
}
