package main

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// integrations is how many there are, named app0, app1, ….
const integrations = 6

// sample is n connections of n/5 users, who have three or seven each. All of it
// follows from the seed, so that nothing has to be remembered of ten million.
type sample struct {
	n     int
	seed  uint64
	at    time.Time // when they were made
	bytes int       // of the two tokens of one
}

// random is what connection i is made of. Its ID comes first.
func (s sample) random(i int) *rand.ChaCha8 {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], s.seed)
	binary.LittleEndian.PutUint64(seed[8:], uint64(i))
	return rand.NewChaCha8(seed)
}

// id returns the ID of connection i.
func (s sample) id(i int) string { return newID(s.random(i)) }

const (
	idPrefix = "conn_"
	idLen    = len(idPrefix) + 26
)

func newID(r *rand.ChaCha8) string {
	return idPrefix + base32.StdEncoding.EncodeToString(bytesOf(r, 20))[:idLen-len(idPrefix)]
}

func bytesOf(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

// token is text of n bytes as tokens are.
func token(r *rand.ChaCha8, n int) secret.String {
	return secret.New(base64.RawURLEncoding.EncodeToString(bytesOf(r, n))[:n])
}

// users is how many users there are.
func (s sample) users() int { return max(s.n/5, 1) }

// userOf returns whose connection i is: each user has one in each fifth, but for
// two fifths that are those of even numbers alone.
func (s sample) userOf(i int) int {
	round, user := i/s.users(), i%s.users()
	if round == 3 || round == 4 {
		user -= user % 2
	}
	return user
}

func userID(user int) string { return fmt.Sprintf("user-%08d@example.com", user) }

func integrationOf(name int) string { return "app" + strconv.Itoa(name%integrations) }

// team is the label that 500 connections have in common.
func team(user int) string { return strconv.Itoa(user / 100) }

// Of each hundred some are not active.
const (
	expiredOf100   = 3
	initiatedOf100 = 1
)

// active reports whether connection i can be called with.
func (s sample) active(i int) bool { return i%100 >= expiredOf100+initiatedOf100 }

// connection returns connection i as an import makes it.
func (s sample) connection(i int) tokenstore.Connection {
	r := s.random(i)
	c := tokenstore.Connection{ID: newID(r)}
	user := s.userOf(i)
	c.Integration = integrationOf(user + i/s.users())
	c.Provider, c.UserID, c.AuthScheme = c.Integration, userID(user), tokenstore.AuthOAuth2
	c.Labels = map[string]string{"plan": []string{"free", "free", "free", "free", "pro"}[user%5]}
	if user%2 == 0 {
		c.Labels["team"] = team(user)
	}
	c.Account = tokenstore.Account{ID: strconv.Itoa(1e9 + i), Email: userID(user)}
	c.RedirectURL = "https://app.example.com/integrations/callback"
	by := tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "import", From: "127.0.0.1"}
	if i%100 >= expiredOf100 && !s.active(i) {
		c.Status, c.InitiatedUntil = tokenstore.StatusInitiated, s.at.Add(24*time.Hour)
		c.Happened(tokenstore.Event{Type: tokenstore.EventBegun, Actor: by})
		return c
	}
	scopes := []string{"openid", "email", "https://api.example.com/auth/calendar.readonly"}
	c.Activate(s.token(r, scopes, i), scopes, s.at)
	c.Happened(tokenstore.Event{Type: tokenstore.EventActive, Actor: by, Reason: "imported"})
	if i%100 < expiredOf100 {
		c.Expire(tokenstore.ReasonInvalidGrant)
		c.Happened(tokenstore.Event{Type: tokenstore.EventExpired, Reason: tokenstore.ReasonInvalidGrant})
	}
	return c
}

// token returns the credential of connection i. It ends within four weeks, and
// the refresh token of every third would die within half a year.
func (s sample) token(r *rand.ChaCha8, scopes []string, i int) tokenstore.Token {
	t := tokenstore.Token{
		AccessToken: token(r, s.bytes*7/10), RefreshToken: token(r, s.bytes*3/10), TokenType: "Bearer",
		IssuedAt: s.at, Scopes: scopes,
		ExpiresAt: s.at.Add(48*time.Hour + time.Duration(r.Uint64()%(26*24*3600))*time.Second),
	}
	if i%3 == 0 {
		t.RefreshExpiresAt = s.at.Add(30*24*time.Hour + time.Duration(r.Uint64()%(150*24*3600))*time.Second)
	}
	return t
}
