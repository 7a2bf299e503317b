package fakeprovider

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// codeLife is how long an authorization code may be redeemed; RFC 6749
// section 4.1.2 recommends at most ten minutes.
const codeLife = time.Minute

// grant is one consent of one user to one client: the family of tokens that
// stands and falls together.
type grant struct {
	id        string
	client    string
	user      User
	scopes    []string
	number    int // of the newest refresh token; the first is 1
	newest    string
	refreshes int
	reuses    int
	revoked   bool
}

type code struct {
	grant       *grant
	redirectURI string
	challenge   string // empty: without PKCE
	expires     time.Time
	redeemed    bool
}

type accessToken struct {
	grant   *grant
	scopes  []string
	expires time.Time
	dead    bool
}

type refreshToken struct {
	grant    *grant
	number   int
	expires  time.Time // zero: without end
	redeemed time.Time // when it was rotated away; zero: not yet
}

// oauthError is a refusal by RFC 6749 section 5.2.
type oauthError struct {
	status      int
	code        string
	description string
}

func badRequest(code, description string) *oauthError {
	return &oauthError{http.StatusBadRequest, code, description}
}

// newSecret issues a word that was never issued before. s.mu is held.
func (s *Server) newSecret(kind string) string {
	v := "fp_" + kind + "_" + rand.Text()
	s.issued = append(s.issued, v)
	return v
}

// Secrets returns every authorization code, access token and refresh token
// that was ever issued.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// newCode makes the grant and the code for it.
func (s *Server) newCode(req authRequest, scopes []string, user User) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &grant{
		id: fmt.Sprintf("grant-%d", len(s.grants)+1), client: req.clientID, user: user, scopes: scopes,
	}
	s.grants = append(s.grants, g)
	text := s.newSecret("code")
	s.codes[text] = &code{
		grant: g, redirectURI: req.redirectURI, challenge: req.challenge, expires: time.Now().Add(codeLife),
	}
	return text
}

// grantOf returns the ID of the grant that a token request is about, and the
// number of the refresh token it presents.
func (s *Server) grantOf(form url.Values) (id string, number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.codes[form.Get("code")]; ok {
		return c.grant.id, 0
	}
	if t, ok := s.refresh[form.Get("refresh_token")]; ok {
		return t.grant.id, t.number
	}
	if t, ok := s.access[form.Get(grantTypeSelf)]; ok {
		return t.grant.id, 0
	}
	return "", 0
}

// redeemCode answers grant_type=authorization_code (RFC 6749 section 4.1.3).
// cut, if not nil, is granted instead of what the user consented to.
func (s *Server) redeemCode(client string, form url.Values, cut []string) (map[string]any, *oauthError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.codes[form.Get("code")]
	switch {
	case !ok:
		return nil, badRequest("invalid_grant", "unknown code")
	case c.redeemed:
		// RFC 6749 section 4.1.2: "If an authorization code is used more than
		// once, the authorization server MUST deny the request and SHOULD
		// revoke (when possible) all tokens previously issued".
		c.grant.revoked = true
		return nil, badRequest("invalid_grant", "code used twice")
	}
	c.redeemed = true
	switch {
	case time.Now().After(c.expires):
		return nil, badRequest("invalid_grant", "code is too old")
	case c.grant.client != client:
		return nil, badRequest("invalid_grant", "code of another client")
	case c.redirectURI != form.Get("redirect_uri"):
		return nil, badRequest("invalid_grant", "redirect_uri differs")
	case !verifierFits(c.challenge, form.Get("code_verifier")):
		return nil, badRequest("invalid_grant", "code_verifier does not fit")
	}
	if cut != nil {
		c.grant.scopes = cut
	}
	fields := s.newAccess(c.grant, c.grant.scopes)
	if !s.cfg.SelfRenewal {
		fields["refresh_token"] = s.newRefresh(c.grant)
	}
	return fields, nil
}

// renewAccess answers a request that presents an access token for the next one.
func (s *Server) renewAccess(client string, form url.Values) (map[string]any, *oauthError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.access[form.Get(grantTypeSelf)]
	switch {
	case !s.cfg.SelfRenewal:
		return nil, badRequest("unsupported_grant_type", "")
	case !ok:
		return nil, badRequest("invalid_grant", "unknown access token")
	case t.grant.client != client:
		return nil, badRequest("invalid_grant", "access token of another client")
	case t.dead || t.grant.revoked || !time.Now().Before(t.expires):
		return nil, badRequest("invalid_grant", "access token has ended")
	}
	t.grant.refreshes++
	return s.newAccess(t.grant, t.scopes), nil
}

// verifierFits checks PKCE S256 (RFC 7636 section 4.6). A verifier without a
// challenge is refused (RFC 9700 section 2.1.1: PKCE downgrade).
func verifierFits(challenge, verifier string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && len(verifier) <= 128 && base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

// redeemRefresh answers grant_type=refresh_token (RFC 6749 section 6).
// reused reports that the token had been rotated away before.
func (s *Server) redeemRefresh(client string, form url.Values, cut []string) (fields map[string]any, reused bool, refusal *oauthError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.refresh[form.Get("refresh_token")]
	now := time.Now()
	reused = ok && !t.redeemed.IsZero()
	if reused {
		t.grant.reuses++
	}
	switch {
	case !ok:
		return nil, false, badRequest("invalid_grant", "unknown refresh token")
	case t.grant.client != client:
		return nil, reused, badRequest("invalid_grant", "refresh token of another client")
	case t.grant.revoked:
		return nil, reused, badRequest("invalid_grant", "grant is revoked")
	case !t.expires.IsZero() && now.After(t.expires):
		return nil, reused, badRequest("invalid_grant", "refresh token has expired")
	case reused && (s.cfg.ReuseGrace == 0 || now.Sub(t.redeemed) > s.cfg.ReuseGrace):
		t.grant.revoked = true
		return nil, true, badRequest("invalid_grant", "refresh token used twice; the grant is revoked")
	}
	scopes := t.grant.scopes
	if asked := strings.Fields(form.Get("scope")); len(asked) > 0 {
		if slices.ContainsFunc(asked, func(sc string) bool { return !slices.Contains(scopes, sc) }) {
			return nil, reused, badRequest("invalid_scope", "more than was granted")
		}
		scopes = asked
	}
	if cut != nil {
		t.grant.scopes, scopes = cut, cut
	}
	t.grant.refreshes++
	fields = s.newAccess(t.grant, scopes)
	switch {
	case reused: // within the grace: the newest token again
		fields["refresh_token"] = t.grant.newest
	case s.cfg.Rotate:
		t.redeemed = now
		fields["refresh_token"] = s.newRefresh(t.grant)
	}
	return fields, reused, nil
}

// newAccess issues an access token and returns the answer that carries it.
// s.mu is held.
func (s *Server) newAccess(g *grant, scopes []string) map[string]any {
	text := s.newSecret("at")
	s.access[text] = &accessToken{grant: g, scopes: scopes, expires: time.Now().Add(s.accessLife)}
	return map[string]any{
		"access_token": text, "token_type": "Bearer",
		"expires_in": int(s.accessLife / time.Second), "scope": strings.Join(scopes, " "),
	}
}

// newRefresh issues the grant's next refresh token. s.mu is held.
func (s *Server) newRefresh(g *grant) string {
	g.number++
	g.newest = s.newSecret("rt")
	t := &refreshToken{grant: g, number: g.number}
	if s.cfg.RefreshLife > 0 {
		t.expires = time.Now().Add(s.cfg.RefreshLife)
	}
	s.refresh[g.newest] = t
	return g.newest
}

// liveAccess returns what an access token stands for, if it is good now. The
// result is a copy.
func (s *Server) liveAccess(text string) (accessToken, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.access[text]
	if !ok || t.dead || t.grant.revoked || !time.Now().Before(t.expires) {
		return accessToken{}, false
	}
	return *t, true
}

// ExpireAccessTokens makes every access token issued so far useless at the
// API, whatever life it was given. Refresh tokens stay good.
func (s *Server) ExpireAccessTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.access {
		t.dead = true
	}
}

// RevokeGrant ends one grant with all its tokens, as a user does who removes
// the app at the provider. It reports whether there is such a grant.
func (s *Server) RevokeGrant(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		if g.id == id {
			g.revoked = true
			return true
		}
	}
	return false
}

// RevokeAll ends every grant given so far.
func (s *Server) RevokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		g.revoked = true
	}
}
