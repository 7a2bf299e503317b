package provider

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/secret"
)

const (
	jwtGrant            = "urn:ietf:params:oauth:grant-type:jwt-bearer"            // RFC 7523 section 2.1
	clientAssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 section 2.2
	// issuedBefore is how much earlier than now an assertion says it was made: a
	// server whose clock is behind refuses what comes from its future.
	issuedBefore = 10 * time.Second
	// The sizes of RSA keys: shorter ones are broken, longer ones only slow.
	minRSA, maxRSA = 2048, 8192
)

// serviceKey is what assertions are made of, in the names of a Google service
// account's file, and what is kept of it. Its token_uri is none of them: a file
// that somebody gives does not decide where assertions go.
type serviceKey struct {
	PrivateKey string `json:"private_key"` // PEM
	KeyID      string `json:"private_key_id,omitempty"`
	Issuer     string `json:"client_email,omitempty"` // iss; empty: the client ID
	Subject    string `json:"subject,omitempty"`      // sub, where it is given
}

// keyStart is how a kept serviceKey begins, and no refresh token does.
const keyStart = `{"private_key":`

// isKeyText reports whether s is a private key, not a token that may be sent.
func isKeyText(s secret.String) bool {
	text := s.Reveal()
	return strings.HasPrefix(text, "{") || strings.HasPrefix(text, "-----BEGIN ")
}

// text returns the key as it is kept.
func (k *serviceKey) text() (secret.String, error) {
	b, err := json.Marshal(k) //nolint:gosec // G117: this is how it is kept, sealed
	if err != nil || !strings.HasPrefix(string(b), keyStart) {
		return secret.String{}, errors.New("the key can't be kept")
	}
	return secret.New(string(b)), nil
}

// readServiceKey reads a private key as it is given: PEM, or the file of a
// service account. Its errors hold nothing of it.
func readServiceKey(text string) (*serviceKey, error) {
	k := &serviceKey{PrivateKey: text}
	if strings.HasPrefix(text, "{") {
		fields, err := decodeObject([]byte(text))
		if err != nil {
			return nil, errors.New("is no service account's file: it is not one JSON object")
		}
		read := func(name string) string { s, _ := fields[name].(string); return s }
		k.PrivateKey, k.KeyID = read("private_key"), read("private_key_id")
		k.Issuer, k.Subject = read("client_email"), read("subject")
	}
	if _, err := readPrivateKey(k.PrivateKey); err != nil {
		return nil, err
	}
	return k, nil
}

// readPrivateKey reads one private key in PEM: PKCS #8, PKCS #1 or SEC 1.
func readPrivateKey(text string) (crypto.Signer, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("is no private key in PEM and no service account's file")
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("is more than one private key in PEM")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, errors.New("is encrypted: give it without a passphrase, it is sealed here")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, errors.New("is no private key, but something else in PEM")
	}
	if err != nil {
		return nil, errors.New("is a private key that can't be read")
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if n := key.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("is an RSA key of %d bits: it must have %d to %d", n, minRSA, maxRSA)
		}
		return key, nil
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P224() {
			return nil, errors.New("is on the curve P-224: it must be P-256, P-384 or P-521")
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, errors.New("is a private key of another kind than RSA, ECDSA and Ed25519")
}

// claims are those of an assertion (RFC 7523 section 3).
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub,omitempty"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
	Scope    string `json:"scope,omitempty"`
}

// assert returns the request for an access token with a fresh assertion that
// kept, a serviceKey's text, signs.
func (p *Provider) assert(ctx context.Context, kept secret.String) (tokenRequest, error) {
	k, err := readServiceKey(kept.Reveal())
	if err != nil {
		return tokenRequest{}, fmt.Errorf("the key that is kept %w", err)
	}
	j := p.entry.JWT
	c := claims{Issuer: p.issuerOf(k), Subject: p.subjectOf(k), Audience: j.Audience}
	form := url.Values{"grant_type": {jwtGrant}}
	scope := strings.Join(p.scopes, p.scopeSeparator())
	switch cmp.Or(j.Scope, jwtParam) {
	case jwtClaim:
		c.Scope = scope
	case jwtParam:
		if scope != "" {
			form.Set("scope", scope)
		}
	}
	assertion, err := p.signed(ctx, k, c, p.assertion)
	if err != nil {
		return tokenRequest{}, err
	}
	if j.Carry == jwtBearer {
		return tokenRequest{bearer: assertion}, nil
	}
	form.Set("assertion", assertion)
	return tokenRequest{form: form}, nil
}

// assertClient returns the assertion by which the client proves itself (RFC
// 7523 section 2.2).
func (p *Provider) assertClient(ctx context.Context) (string, error) {
	k, err := readServiceKey(p.clientSecret.Reveal())
	if err != nil {
		return "", fmt.Errorf("the client_secret %w", err)
	}
	e := p.entry.ClientAssertion
	c := claims{Issuer: p.clientID, Subject: p.clientID, Audience: e.Audience}
	if e.Issuer == assertionRedirectHost {
		redirect, err := url.Parse(p.redirectURI)
		if err != nil {
			return "", errors.New("the redirect URI is no URL, and its host is the assertion's issuer")
		}
		c.Issuer = redirect.Hostname()
	}
	return p.signed(ctx, k, c, defaultAssertion)
}

// signed returns an assertion of c that is good from now on for life. The
// audience is the token endpoint unless c has one.
func (p *Provider) signed(ctx context.Context, k *serviceKey, c claims, life time.Duration) (string, error) {
	key, err := readPrivateKey(k.PrivateKey)
	if err != nil {
		return "", fmt.Errorf("the key that is kept %w", err)
	}
	if c.Audience == "" {
		ep, err := p.endpoints(ctx)
		if err != nil {
			return "", err
		}
		c.Audience = ep.token
	}
	issued := time.Now().Add(failpoint.Clock()).Add(-issuedBefore)
	c.IssuedAt, c.Expires, c.ID = issued.Unix(), issued.Add(life).Unix(), rand.Text()
	return sign(key, k.KeyID, c)
}

// isClientKey reports whether the client_secret is a private key.
func isClientKey(clientSecret secret.String) bool { return checkClientKey(clientSecret) == nil }

// checkClientKey returns why the client_secret is not what client_auth
// private_key_jwt signs with, or nil. The error goes on behind its name.
func checkClientKey(clientSecret secret.String) error {
	_, err := readServiceKey(clientSecret.Reveal())
	return err
}

// checkKeyStays refuses a client_secret that is a private key where a request
// would carry it: it signs, and never leaves.
func (p *Provider) checkKeyStays() error {
	if p.clientSecret.IsZero() || !isClientKey(p.clientSecret) {
		return nil
	}
	sent := []string{AuthBasic, AuthBasicRaw, AuthBasicSecret, AuthPost}
	e, word := &p.template, ""
	for _, text := range slices.Concat(slices.Collect(maps.Values(e.Inject.Headers)), slices.Collect(maps.Values(e.Revoke.Headers))) {
		if slices.Contains(textNames(text), secretName) {
			word = "a header with {client_secret}"
		}
	}
	switch {
	case p.asks() && slices.Contains(sent, p.clientAuth):
		word = "client_auth " + p.clientAuth
	case slices.Contains(sent, e.Revoke.ClientAuth):
		word = "revoke.client_auth " + e.Revoke.ClientAuth
	}
	if word == "" {
		return nil
	}
	return &OptionError{"client_secret", fmt.Errorf("client_secret is a private key, which %s would send: it goes with client_auth %s", word, AuthPrivateKeyJWT)}
}

// issuerOf returns what `iss` says.
func (p *Provider) issuerOf(k *serviceKey) string {
	if p.entry.JWT.Issuer == jwtGiven {
		return k.Issuer
	}
	return p.clientID
}

// subjectOf returns what `sub` says, empty for nothing.
func (p *Provider) subjectOf(k *serviceKey) string {
	if cmp.Or(p.entry.JWT.Subject, jwtIssuer) == jwtIssuer {
		return p.issuerOf(k)
	}
	return k.Subject
}

// sign returns a JWT in the compact form (RFC 7515 section 7.1).
func sign(key crypto.Signer, keyID string, c claims) (string, error) {
	var alg string
	var hash crypto.Hash // none
	switch key := key.(type) {
	case *rsa.PrivateKey:
		alg, hash = "RS256", crypto.SHA256
	case *ecdsa.PrivateKey:
		switch key.Curve {
		case elliptic.P384():
			alg, hash = "ES384", crypto.SHA384
		case elliptic.P521():
			alg, hash = "ES512", crypto.SHA512
		default:
			alg, hash = "ES256", crypto.SHA256
		}
	default:
		alg = "EdDSA"
	}
	header, err := json.Marshal(struct {
		Alg  string `json:"alg"`
		Type string `json:"typ"`
		Key  string `json:"kid,omitempty"`
	}{alg, "JWT", keyID})
	if err != nil {
		return "", errors.New("the assertion's header can't be encoded")
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", errors.New("the assertion can't be encoded")
	}
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64(header) + "." + b64(body)
	signature, err := signText(key, hash, text)
	if err != nil {
		return "", errors.New("the assertion can't be signed")
	}
	return text + "." + b64(signature), nil
}

// signText signs as RFC 7518 section 3 and RFC 8037 section 3.1 say.
func signText(key crypto.Signer, hash crypto.Hash, text string) ([]byte, error) {
	digest := []byte(text)
	switch hash { //nolint:exhaustive // the hashes of sign
	case crypto.SHA256:
		sum := sha256.Sum256(digest)
		digest = sum[:]
	case crypto.SHA384:
		sum := sha512.Sum384(digest)
		digest = sum[:]
	case crypto.SHA512:
		sum := sha512.Sum512(digest)
		digest = sum[:]
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return key.Sign(rand.Reader, digest, hash)
	}
	r, s, err := ecdsa.Sign(rand.Reader, ec, digest)
	if err != nil {
		return nil, err
	}
	// RFC 7518 section 3.4: R and S, each as long as the curve's order.
	n := (ec.Params().BitSize + 7) / 8
	both := make([]byte, 2*n)
	r.FillBytes(both[:n])
	s.FillBytes(both[n:])
	return both, nil
}
