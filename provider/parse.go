package provider

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// guessedLife is taken where nobody tells the life of an access token.
	guessedLife = time.Hour
	// maxToken is the longest token taken, in bytes: servers take headers of
	// 8 to 16 KiB.
	maxToken = 16 << 10
	// maxScopes bounds the scopes kept of an answer, in bytes: more than any link
	// can ask for. They stand in each list of connections, and are compared.
	maxScopes = 16 << 10
)

// Parse reads what a token endpoint answered (RFC 6749 section 5), tolerantly:
// JSON or a form under any content type, the life as number or text, scopes as
// text or list, an error under status 200.
//
// The token is the successor of prev: it has the next Generation and keeps
// prev's refresh token where the answer has none. Its scopes are the answer's,
// else those of the callback, else askedScopes, else prev's. A life that is not
// told is the catalogue's, else an hour and ExpiryUnknown; one over a year is cut
// to a year. Where the access token is what renews it, it is its RefreshToken,
// too. What the entry's second request is to be made of is Provisional.
//
// The error is a *tokenstore.RefusalError for a no, and else wraps
// tokenstore.ErrOutcomeUnknown: a 5xx, or an answer that can't be read. It
// never holds any of the body but a refusal's code.
func (p *Provider) Parse(a tokenstore.Answer, prev tokenstore.Token, askedScopes []string) (tokenstore.Token, error) {
	if a.Status < http.StatusOK || a.Status >= http.StatusInternalServerError {
		return tokenstore.Token{}, unreadable(&a, "which tells nothing about the token")
	}
	fields := decodeBody(a.Body.Reveal())
	if p.ambiguous(fields) {
		fields = nil
	}
	p = p.reading(fields, &prev)
	code := p.codeOf(fields)
	if a.Status >= http.StatusMultipleChoices {
		return tokenstore.Token{}, p.refusal(&a, &prev, code)
	}
	if fields == nil {
		return tokenstore.Token{}, unreadable(&a, "neither a JSON object nor a form with unique names")
	}
	if p.failed(fields) {
		if code == "" || p.field(fields, "access_token") != nil {
			return tokenstore.Token{}, unreadable(&a, "an error without a code, or with a token")
		}
		return tokenstore.Token{}, p.refusal(&a, &prev, code)
	}
	t, why := p.token(fields, &a, prev.Clone(), askedScopes)
	if why != "" {
		return tokenstore.Token{}, unreadable(&a, why)
	}
	return t, nil
}

// reading returns p as it reads an answer: the paths of the entry are those of
// the code's answer. Another that has no token there may have all at the top, as
// Slack has a person's token below authed_user at first, and not after a refresh.
// It is all or nothing: what is beside a token may be another's.
func (p *Provider) reading(fields map[string]any, prev *tokenstore.Token) *Provider {
	paths := p.entry.Answer.Paths
	if ofCode(prev) || fields["access_token"] == nil || p.field(fields, "access_token") != nil {
		return p
	}
	flat := *p
	flat.entry.Answer.Paths = map[string]string{}
	if path, ok := paths["error"]; ok {
		flat.entry.Answer.Paths["error"] = path
	}
	return &flat
}

// ofCode reports whether an answer after prev is a code's: only that has nothing
// before it. What was imported may have a refresh token alone.
func ofCode(prev *tokenstore.Token) bool {
	return prev.AccessToken.IsZero() && prev.RefreshToken.IsZero()
}

// field returns a field of the answer from where the catalogue says it stands.
// JSON's null is nothing.
func (p *Provider) field(fields map[string]any, name string) any {
	if path, ok := p.entry.Answer.Paths[name]; ok {
		return lookup(fields, path)
	}
	return fields[name]
}

// token reads the fields of a success, or says why they are none.
func (p *Provider) token(fields map[string]any, a *tokenstore.Answer, prev tokenstore.Token, asked []string) (t tokenstore.Token, why string) {
	access, ok := readToken(p.field(fields, "access_token"))
	if !ok || access.IsZero() {
		return t, "no usable access token"
	}
	refresh, ok := readToken(p.field(fields, "refresh_token"))
	if !ok {
		return t, "no usable refresh token"
	}
	tokenType, ok := p.readTokenType(p.field(fields, "token_type"))
	if !ok {
		return t, "a token type that is not Bearer"
	}
	t = tokenstore.Token{
		AccessToken: access, RefreshToken: refresh, TokenType: tokenType,
		IssuedAt: a.SentAt.UTC(), Generation: prev.Generation + 1,
	}
	own := p.scheme == tokenstore.AuthOAuth2
	if !own {
		refresh = secret.String{} // what renews it stays; RFC 6749 section 4.4.3 has none
	}
	if refresh.IsZero() {
		t.RefreshToken = prev.RefreshToken
		t.RefreshExpiresAt = prev.RefreshExpiresAt
	}
	t.ExpiresAt, t.ExpiryUnknown = p.expiry(fields, t.IssuedAt)
	// One that stays the same and is told again is no younger for that: ServiceNow's.
	again := p.entry.Refresh.Rotation == RotationNone && !refresh.IsZero() && refresh.Equal(prev.RefreshToken)
	if again {
		t.RefreshExpiresAt = prev.RefreshExpiresAt
	}
	if end, ok := p.refreshExpiry(fields, t.IssuedAt, !refresh.IsZero() && !again); ok {
		t.RefreshExpiresAt = end
	}
	if own && p.entry.Refresh.With == withAccess {
		t.RefreshToken, t.RefreshExpiresAt = access, t.ExpiresAt
		if t.ExpiryUnknown {
			t.RefreshExpiresAt = time.Time{}
		}
	}
	t.Scopes = p.grantedScopes(fields, a, &prev, asked)
	if !t.RefreshToken.IsZero() {
		t.Scopes = p.withLasting(t.Scopes, slices.Concat(asked, prev.Scopes))
	}
	t.Metadata = p.metadata(fields, a, prev.Metadata)
	t.Margin = p.margin
	t.Provisional = own && p.entry.Exchange != nil && ofCode(&prev)
	return t, ""
}

// withLasting returns scopes with the one that the refresh token was asked for
// with: there is one, so it was granted, though Microsoft does not say so.
func (p *Provider) withLasting(scopes, asked []string) []string {
	for _, s := range p.entry.Refresh.Scopes {
		switch {
		case slices.Contains(scopes, s):
			return scopes
		case slices.Contains(asked, s):
			return append(slices.Clone(scopes), s)
		}
	}
	return scopes
}

// grantedScopes returns the scopes of a success.
func (p *Provider) grantedScopes(fields map[string]any, a *tokenstore.Answer, prev *tokenstore.Token, asked []string) []string {
	for _, scopes := range [][]string{
		p.readScopes(p.field(fields, "scope")), p.readScopes(a.Callback[callbackScope]), slices.Clone(asked),
	} {
		if len(scopes) > 0 {
			return scopes
		}
	}
	return prev.Scopes
}

// readToken reads a token; nothing at all is a zero one. RFC 6749 appendix
// A.12 has it of visible characters, and no header could carry others.
func readToken(v any) (secret.String, bool) {
	if v == nil {
		return secret.String{}, true
	}
	s, ok := v.(string)
	if !ok || len(s) > maxToken || strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return secret.String{}, false
	}
	if s == "" {
		return secret.String{}, true
	}
	return secret.New(s), true
}

// typeName is a token type that may be kept and shown (RFC 6749 appendix A.13
// has more of them).
var typeName = regexp.MustCompile(`^[A-Za-z0-9._:/ -]{0,64}$`)

// readTokenType reads the token type. RFC 6749 section 7.1: "The client MUST
// NOT use an access token if it does not understand the token type". None at
// all is taken for Bearer, as many mean it; other words only where the
// catalogue has them.
func (p *Provider) readTokenType(v any) (string, bool) {
	if v == nil {
		return "", true
	}
	s, ok := v.(string)
	if !ok || !typeName.MatchString(s) {
		return "", false
	}
	switch word := strings.ToLower(s); word {
	case "", "bearer", "bearertoken":
		return s, true
	default:
		return s, slices.Contains(p.entry.Answer.TokenTypes, word)
	}
}

// expiry returns the end of the access token's life and whether it is a guess.
func (p *Provider) expiry(fields map[string]any, issued time.Time) (end time.Time, guessed bool) {
	life, ok := readSeconds(p.field(fields, "expires_in"), maxLife)
	if !ok {
		life, ok = readEnd(p.field(fields, "expires_at"), issued)
	}
	switch {
	case ok:
	case p.life == forever:
		return time.Time{}, false
	case p.life > 0:
		life = min(p.life, maxLife)
	default:
		return issued.Add(guessedLife), true
	}
	return issued.Add(life), false
}

// maxEpoch is the latest time that is told in seconds since 1970: what is beyond
// is in milliseconds, or no time.
const maxEpoch = 1 << 33 * time.Second

// readEnd reads a time, in seconds since 1970 or as RFC 3339 has it, as a life
// of maxLife at most. It is not ok if v is no time, or one that is over.
func readEnd(v any, issued time.Time) (life time.Duration, ok bool) {
	text, _ := plainText(v)
	end, err := time.Parse(time.RFC3339, text)
	if err != nil {
		since, ok := readSeconds(v, maxEpoch)
		if !ok || since == maxEpoch {
			return 0, false
		}
		end = time.Unix(0, 0).Add(since)
	}
	life = min(end.Sub(issued), maxLife)
	return life, life > 0
}

// refreshExpiry returns the end of the refresh token's life, if the answer
// tells it, or the catalogue does and the token is new.
func (p *Provider) refreshExpiry(fields map[string]any, issued time.Time, fresh bool) (time.Time, bool) {
	// RFC 6749 has no name for it; these are the common ones.
	for _, v := range []any{p.field(fields, "refresh_expires_in"), fields["refresh_token_expires_in"]} {
		if life, ok := readSeconds(v, maxRefresh); ok {
			return issued.Add(life), true
		}
	}
	if !fresh || p.refreshLife <= 0 {
		return time.Time{}, false
	}
	return issued.Add(p.refreshLife), true
}

// decimal is a number as text; strconv alone would take hexadecimal, Inf and
// underscores.
var decimal = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$`)

// readSeconds reads a number of seconds, at most limit. It is not ok if v is
// no number or not positive.
func readSeconds(v any, limit time.Duration) (time.Duration, bool) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	}
	if !decimal.MatchString(text) {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(n, 0) { // out of range is huge, or nothing
		return 0, false
	}
	d := time.Duration(min(max(n, 0), limit.Seconds()) * float64(time.Second))
	return d, d > 0
}

// readScopes reads the granted scopes: text separated by spaces or commas, or
// a list. Nothing readable is none.
func (p *Provider) readScopes(v any) []string {
	var all []string
	switch v := v.(type) {
	case string:
		v = strings.ReplaceAll(v, p.scopeSeparator(), " ")
		all = strings.FieldsFunc(v, func(r rune) bool { return r <= ' ' || r == ',' || r == 0x7f })
	case []any:
		for _, s := range v {
			if s, ok := s.(string); ok {
				all = append(all, s)
			}
		}
	}
	var scopes []string
	seen, bytes := map[string]bool{}, 0
	for _, s := range all {
		if seen[s] || !scopeToken.MatchString(s) {
			continue
		}
		if bytes += len(s) + 1; bytes > maxScopes {
			break
		}
		seen[s] = true
		scopes = append(scopes, s)
	}
	return scopes
}

// metadata returns what the answer and its callback tell of the connection's
// parameters, on top of what was told before. A value that is not of its form is
// no better than none.
func (p *Provider) metadata(fields map[string]any, a *tokenstore.Answer, prev map[string]string) map[string]string {
	kept := maps.Clone(prev)
	for name, pm := range p.params.declared {
		var text string
		switch pm.from {
		case fromAnswer:
			text, _ = plainText(lookup(fields, pm.path))
		case fromCallback:
			text = a.Callback[name]
		}
		if text == "" {
			continue
		}
		value, err := pm.read(text, false)
		if err != nil {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	return kept
}
