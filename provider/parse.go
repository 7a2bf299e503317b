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
	// maxMetadata is the longest value kept beside a token, in bytes.
	maxMetadata = 1 << 10
)

// Parse reads what a token endpoint answered (RFC 6749 section 5), tolerantly:
// JSON or a form under any content type, the life as number or text, scopes as
// text or list, an error under status 200.
//
// The token is the successor of prev: it has the next Generation and keeps
// prev's refresh token where the answer has none. Its scopes are the answer's,
// else askedScopes, else prev's. A life that is not told is the catalogue's,
// else an hour and ExpiryUnknown; one over a year is cut to a year.
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
	code, _ := fields["error"].(string)
	if a.Status >= http.StatusMultipleChoices {
		return tokenstore.Token{}, p.refusal(&a, &prev, code)
	}
	if fields == nil {
		return tokenstore.Token{}, unreadable(&a, "neither a JSON object nor a form with unique names")
	}
	if isError(fields["error"]) {
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

// isError reports whether v, the `error` of an answer, says that there is one.
func isError(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case json.Number:
		return v != "0"
	}
	return true
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
	if p.scheme != tokenstore.AuthOAuth2 {
		refresh = secret.String{} // what renews it stays; RFC 6749 section 4.4.3 has none
	}
	if refresh.IsZero() {
		t.RefreshToken = prev.RefreshToken
		t.RefreshExpiresAt = prev.RefreshExpiresAt
	}
	t.ExpiresAt, t.ExpiryUnknown = p.expiry(fields, t.IssuedAt)
	if end, ok := p.refreshExpiry(fields, t.IssuedAt, !refresh.IsZero()); ok {
		t.RefreshExpiresAt = end
	}
	t.Scopes = p.readScopes(p.field(fields, "scope"))
	if len(t.Scopes) == 0 {
		t.Scopes = slices.Clone(asked)
	}
	if len(t.Scopes) == 0 {
		t.Scopes = prev.Scopes
	}
	t.Metadata = p.metadata(fields, prev.Metadata)
	return t, ""
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
var typeName = regexp.MustCompile(`^[A-Za-z0-9._:/-]{0,64}$`)

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

// metadata returns what the catalogue keeps of the answer, on top of what was
// kept before.
func (p *Provider) metadata(fields map[string]any, prev map[string]string) map[string]string {
	if len(p.entry.Answer.Metadata) == 0 {
		return prev
	}
	kept := maps.Clone(prev)
	for _, path := range p.entry.Answer.Metadata {
		var text string
		switch v := lookup(fields, path).(type) {
		case string:
			text = v
		case json.Number:
			text = v.String()
		case bool:
			text = strconv.FormatBool(v)
		}
		if text == "" || len(text) > maxMetadata {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[path] = text
	}
	return kept
}
