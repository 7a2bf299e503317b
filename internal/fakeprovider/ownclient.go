package fakeprovider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Grants without a user.
const (
	grantTypeClient = "client_credentials"
	grantTypeJWT    = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// clockSlack is how far a client's clock may be off.
const clockSlack = 5 * time.Second

// RegisterKey takes assertions whose iss is issuer if this key signs them: RSA,
// ECDSA or Ed25519.
func (s *Server) RegisterKey(issuer string, key crypto.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signers[issuer] = key
}

// ownGrant returns the grant that stands for somebody without a consent. s.mu is
// held.
func (s *Server) ownGrant(who, client string, scopes []string) *grant {
	g := s.own[who]
	if g == nil {
		g = &grant{id: fmt.Sprintf("grant-%d", len(s.grants)+1), client: client, user: User{ID: who, Name: who}}
		s.own[who] = g
		s.grants = append(s.grants, g)
	} else {
		g.refreshes++
	}
	g.scopes = scopes
	return g
}

// scopesAsked returns the scopes of a request without a user, cut if not nil.
func (s *Server) scopesAsked(scope string, cut []string) ([]string, *oauthError) {
	asked := strings.Fields(scope)
	if slices.ContainsFunc(asked, func(sc string) bool { return !s.scopeKnown(sc) }) {
		return nil, badRequest("invalid_scope", "a scope is not known")
	}
	if cut != nil {
		return cut, nil
	}
	return asked, nil
}

// clientGrant answers grant_type=client_credentials (RFC 6749 section 4.4).
func (s *Server) clientGrant(client, auth string, form url.Values, cut []string) (map[string]any, *oauthError) {
	if auth == "none" { // section 4.4: confidential clients only
		return nil, badRequest("unauthorized_client", "a public client")
	}
	scopes, refusal := s.scopesAsked(form.Get("scope"), cut)
	if refusal != nil {
		return nil, refusal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.ownGrant(client, client, scopes)
	if g.revoked {
		return nil, badRequest("unauthorized_client", "the client may not do this any more")
	}
	return s.newAccess(g, scopes), nil
}

// assertion is what an assertion claims (RFC 7523 section 3).
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	ID       string `json:"jti"`
	Scope    string `json:"scope"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

// redeemAssertion answers the grant of RFC 7523 section 2.1, at the provider
// whose base URL is base.
func (s *Server) redeemAssertion(base string, form url.Values, cut []string) (map[string]any, *oauthError) {
	a, why := s.readAssertion(base+"/token", form.Get("assertion"))
	if why != "" {
		return nil, badRequest("invalid_grant", why)
	}
	scopes, refusal := s.scopesAsked(strings.TrimSpace(a.Scope+" "+form.Get("scope")), cut)
	if refusal != nil {
		return nil, refusal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.assertionIDs[a.ID] {
		return nil, badRequest("invalid_grant", "assertion used twice")
	}
	s.assertionIDs[a.ID] = true
	g := s.ownGrant(a.Subject, a.Issuer, scopes)
	if g.revoked {
		return nil, badRequest("invalid_grant", "the account may not do this any more")
	}
	return s.newAccess(g, scopes), nil
}

// readAssertion checks an assertion, or says what is wrong with it.
func (s *Server) readAssertion(audience, text string) (a assertion, why string) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return a, "no JWT"
	}
	var header struct {
		Alg  string `json:"alg"`
		Type string `json:"typ"`
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !decodePart(parts[0], &header) || !decodePart(parts[1], &a) {
		return a, "a JWT that can't be read"
	}
	s.mu.Lock()
	key := s.signers[a.Issuer]
	s.mu.Unlock()
	now := time.Now()
	issued, expires := time.Unix(a.IssuedAt, 0), time.Unix(a.Expires, 0)
	switch {
	case key == nil:
		return a, "unknown issuer"
	case !verified(key, header.Alg, parts[0]+"."+parts[1], signature):
		return a, "the signature does not fit"
	case a.Audience != audience:
		return a, "for another audience"
	case a.Subject == "" || a.ID == "":
		return a, "sub or jti is missing"
	case issued.After(now.Add(clockSlack)):
		return a, "from the future"
	case expires.Sub(issued) > time.Hour:
		return a, "lives too long"
	case !now.Before(expires.Add(clockSlack)):
		return a, "has expired"
	}
	return a, ""
}

func decodePart(part string, into any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, into) == nil
}

// verified reports whether key has signed text (RFC 7518 section 3, RFC 8037).
func verified(key crypto.PublicKey, alg, text string, signature []byte) bool {
	sum256, sum384, sum512 := sha256.Sum256([]byte(text)), sha512.Sum384([]byte(text)), sha512.Sum512([]byte(text))
	switch key := key.(type) {
	case *rsa.PublicKey:
		return alg == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum256[:], signature) == nil
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(key, []byte(text), signature)
	case *ecdsa.PublicKey:
		sum, ok := map[string][]byte{"ES256": sum256[:], "ES384": sum384[:], "ES512": sum512[:]}[alg]
		n := (key.Params().BitSize + 7) / 8
		if !ok || len(signature) != 2*n || alg != map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Params().BitSize] {
			return false
		}
		return ecdsa.Verify(key, sum, new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
	}
	return false
}
