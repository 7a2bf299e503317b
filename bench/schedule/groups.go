package main

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// group is the connections of one integration that are in constant use: each is
// called more than once in a token's life.
type group struct {
	name  string        // of the provider, in the catalogue
	share float64       // of all that are in use
	life  time.Duration // of its access tokens

	n     int     // connections
	cycle float64 // seconds from one renewal to the next, on the average
	pace  float64 // refreshes a second that one sidecar asks of the provider at most

	// All below are ages of a token in seconds: a schedule does not depend on
	// when it was issued.
	ahead           []uint16 // :: connection → when it is renewed though nobody asks
	soft, hard, end int
}

// mix is a guess at what an app with many integrations has: the lives are those
// that the providers give, or near them.
var mix = []group{
	{name: "google", share: 0.35, life: time.Hour},
	{name: "microsoft", share: 0.25, life: 75 * time.Minute},
	{name: "hubspot", share: 0.10, life: 30 * time.Minute},
	{name: "salesforce", share: 0.10, life: 2 * time.Hour},
	{name: "github", share: 0.10, life: 8 * time.Hour},
	{name: "slack", share: 0.10, life: 12 * time.Hour},
}

// answerTime is how long a token endpoint takes to answer.
const answerTime = 200 * time.Millisecond

// groups returns the mix with as many connections as need the rate, at most all.
func (p plan) groups() ([]group, error) {
	perConnection := 0.0 // refreshes a second, of one in use
	groups := make([]group, 0, len(mix))
	for _, g := range mix {
		var err error
		if g.pace, err = paceOf(g.name); err != nil {
			return nil, err
		}
		g.cycle = g.meanCycle()
		perConnection += g.share / g.cycle
		groups = append(groups, g)
	}
	all := min(p.rate/perConnection, float64(p.n))
	var wg sync.WaitGroup
	for i := range groups {
		g := &groups[i]
		g.n = int(all * g.share)
		wg.Go(func() { g.plan(uint64(i) << 32) })
	}
	wg.Wait()
	return groups, nil
}

// epoch is the simulation's zero.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// grant returns one of the group, whose token was issued in second 0.
func (g *group) grant() *tokenstore.Grant {
	return &tokenstore.Grant{Renewable: true, Token: tokenstore.Token{IssuedAt: epoch, ExpiresAt: epoch.Add(g.life)}}
}

// meanCycle is the mean of a sample's.
func (g *group) meanCycle() float64 {
	const sample = 10_000
	one, total := g.grant(), 0
	for i := range uint64(sample) {
		one.ConnectionID = nameOf(i)
		total += second(refresh.AheadAt(one))
	}
	return float64(total) / sample
}

// plan asks Lanyard's functions about the group's connections, the first of
// which has this number.
func (g *group) plan(first uint64) {
	one := g.grant()
	g.soft, g.hard, g.end = second(one.Token.SoftAt()), second(one.Token.HardAt()), second(one.Token.ExpiresAt)
	g.ahead = make([]uint16, g.n)
	for i := range g.ahead {
		one.ConnectionID = nameOf(first + uint64(i))
		g.ahead[i] = uint16(second(refresh.AheadAt(one))) // the mix has lives below 18 hours
	}
}

// paceOf returns the pace that a catalogue's entry sets one sidecar.
func paceOf(name string) (float64, error) {
	entry, ok := provider.Lookup(name)
	if !ok {
		return 0, fmt.Errorf("the catalogue has no %s", name)
	}
	p, err := provider.New(provider.Config{
		Entry: entry, Scheme: tokenstore.AuthOAuth2, ClientID: "client", ClientSecret: secret.New("a secret that is long enough"),
		RedirectURI: "https://connect.example.com/callback", Scopes: []string{"openid"},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	concurrency, interval := p.Pace()
	pace := float64(concurrency) / answerTime.Seconds()
	if interval > 0 {
		pace = min(pace, 1/interval.Seconds())
	}
	return pace, nil
}

// used returns how many are in constant use.
func used(groups []group) (n int) {
	for _, g := range groups {
		n += g.n
	}
	return n
}

// onceADay returns how many of the others are called once a day.
func (p plan) onceADay(groups []group) int { return int(p.daily * float64(p.n-used(groups))) }

// second returns in which second of the simulation t has come.
func second(t time.Time) int {
	return int((t.Sub(epoch) + time.Second - 1) / time.Second)
}

// nameOf returns the ID of connection i, which is as random as others.
func nameOf(i uint64) string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], mixed(i))
	binary.LittleEndian.PutUint64(b[8:], mixed(i^0x5851f42d4c957f2d))
	text := [31]byte{'c', 'o', 'n', 'n', '_'}
	base32.StdEncoding.WithPadding(base32.NoPadding).Encode(text[5:], b[:])
	return string(text[:])
}

// mixed is the finalizer of SplitMix64: neighbours become unlike.
func mixed(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
