package dialect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// token answers a request for a token.
func (c *check) token() (status int, body string) {
	b := c.b
	if len(c.wrong) > 0 {
		return b.Client.Status, b.Client.Body
	}
	r := b.requests()[c.kind]
	g := c.grant
	switch c.kind {
	case "mint":
		if g == nil {
			g = b.minted()
		}
		if g.dead {
			return b.Dead.Status, b.Dead.Body
		}
		g.refreshes++
		b.renew(g, false)
	case "code":
		if why := c.redeem(g); why != "" {
			c.say("", "%s", why)
			return b.Dead.Status, b.Dead.Body
		}
		g.temporary = b.Exchange.URL != ""
		b.renew(g, b.Refresh.uses("$refresh"))
	case "exchange":
		if !g.temporary || g.access != c.presented {
			c.say("exchange.url", "the token was exchanged before")
			return b.Dead.Status, b.Dead.Body
		}
		g.temporary = false
		b.renew(g, b.Refresh.uses("$refresh"))
	case "refresh":
		if f, ok := c.refused(g); ok {
			return f.Status, f.Body
		}
		g.refreshes++
		b.renew(g, b.Rotates && b.Refresh.uses("$refresh"))
	}
	g.last = c.now
	return r.reply(b, g)
}

// redeem looks at a code, and returns why it is not taken.
func (c *check) redeem(g *grant) string {
	switch {
	case g == nil:
		return "there is no code"
	case g.codeUsed:
		g.revoked, g.dead = true, true
		return "the code was redeemed before"
	}
	g.codeUsed = true
	if v, ok := c.found["$verifier"]; ok && challengeOf(v) != g.challenge {
		return "the code_verifier is not that of the challenge"
	}
	return ""
}

// refused looks at what renews a token, and returns the answer if it is refused.
func (c *check) refused(g *grant) (Fault, bool) {
	b := c.b
	current := g != nil && (c.presented == g.refresh || c.presented == g.access && !c.b.given[c.presented].over)
	switch {
	case g == nil || g.revoked || g.dead:
		return b.Dead, true
	case !current && b.Rotates && !b.Reusable:
		g.dead = true
		c.say("refresh.rotation", "a refresh token was used twice, which ends the grant")
		return b.Dead, true
	case !current && !b.Reusable:
		c.say("refresh.with or refresh.margin", "what renews the token was not the newest, or over")
		return b.Dead, true
	case b.Most > 0 && g.refreshes >= b.Most:
		c.say("refresh.pause", "more than %d refreshes", b.Most)
		return b.Over, true
	case b.Early.Status != 0 && c.now.Before(g.last.Add(time.Duration(b.life(g)-30)*time.Second)):
		c.say("refresh.margin and refresh.pause", "a refresh came before the last half minute")
		return b.Early, true
	case b.Busy.Status != 0 && !g.busy:
		g.busy = true
		return b.Busy, true
	}
	return Fault{}, false
}

// minted returns the grant of who has no user: the client, or an assertion's.
func (b *books) minted() *grant {
	if g := b.newest(b.client); g != nil {
		return g
	}
	g := &grant{account: Account{ID: b.client, Name: b.client}}
	b.grants = append(b.grants, g)
	return g
}

// reply is the answer to a right request.
func (r *Request) reply(b *books, g *grant) (status int, body string) {
	status = http.StatusOK
	if r.Status != 0 {
		status = r.Status
	}
	body = b.answer(r.Answer, g)
	if strings.HasPrefix(body, "{") && !json.Valid([]byte(body)) {
		panic(b.Name + ": the dialect's answer is no JSON: " + body)
	}
	return status, body
}

// holder returns whose token a request to the API has, nil if it is over.
func (c *check) holder() *grant {
	g := c.grant
	if g == nil || len(c.wrong) > 0 {
		return nil
	}
	if what := c.b.given[c.presented]; what.over || g.revoked || what.kind == "credential" && g.dead {
		return nil
	}
	return g
}

// call answers a request to the API.
func (c *check) call() (status int, body string) {
	if c.grant != nil {
		c.b.calls[c.grant.account.ID]++
	}
	g := c.holder()
	if g == nil {
		if c.grant != nil {
			c.b.staleCalls[c.grant.account.ID]++
		}
		return http.StatusUnauthorized, `{"error":"unauthorized"}`
	}
	g.used = c.presented
	b, _ := json.Marshal(map[string]string{"account": g.account.ID})
	return http.StatusOK, string(b)
}

// account answers who it is.
func (c *check) account() (status int, body string) {
	g := c.holder()
	if g == nil {
		return http.StatusUnauthorized, `{"error":"unauthorized"}`
	}
	return c.b.Account.reply(c.b, g)
}

// revoke ends a grant.
func (c *check) revoke() (status int, body string) {
	if len(c.wrong) > 0 {
		return c.b.Client.Status, c.b.Client.Body
	}
	if r := &c.b.Revoke; c.grant == nil && !r.uses("$token") && !r.uses("$access") && !strings.Contains(r.URL, "$token") && len(c.b.grants) > 0 {
		c.grant = c.b.grants[len(c.b.grants)-1] // it names no token
	}
	if c.grant == nil {
		c.say(words["revoke"].params, "there is no token of ours")
		return c.b.Client.Status, c.b.Client.Body
	}
	c.grant.revoked = true
	return c.b.Revoke.reply(c.b, c.grant)
}

// shopHMAC is what Shopify signs its authorization responses with: all
// parameters but the signature, sorted, as name=value joined by &.
func shopHMAC(q url.Values, secret string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(q)) {
		parts = append(parts, name+"="+q.Get(name))
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(strings.Join(parts, "&")))
	return hex.EncodeToString(mac.Sum(nil))
}
