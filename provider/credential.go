package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// visible is what a key or a token made by hand is of: no header could carry
// other characters, and a URL would in more than one way.
var visible = regexp.MustCompile(`^[\x21-\x7e]+$`)

const (
	maxWord = 1 << 10 // of a user name, a password, an issuer, in bytes
	maxKey  = 8 << 10 // of an API key or a token made by hand, in bytes
)

// Credential makes a live token of what somebody gave, by the names of Fields.
// It tries the token once where the entry knows a request to try it with; for
// OAUTH2_CLIENT_CREDENTIALS and JWT_BEARER it is the answer to the first request
// for one. Its Generation is 0. The account is zero where nothing tells it.
//
// Errors: tokenstore.ErrCredentialInvalid, whose text names the field and may be
// shown; ErrCredentialRefused; a *tokenstore.RefusalError for what is not the
// credential's fault; else one that wraps tokenstore.ErrNotSent or
// ErrOutcomeUnknown, and later it may work.
func (p *Provider) Credential(ctx context.Context, given map[string]secret.String) (tokenstore.Token, tokenstore.Account, error) {
	if p.unbound {
		return tokenstore.Token{}, tokenstore.Account{}, fmt.Errorf("%w: the provider has some, and none were given", ErrParams)
	}
	values, err := p.readGiven(given)
	if err != nil {
		return tokenstore.Token{}, tokenstore.Account{}, err
	}
	t := tokenstore.Token{IssuedAt: time.Now().Add(failpoint.Clock()).UTC()}
	switch p.scheme {
	case tokenstore.AuthAPIKey:
		t.AccessToken, err = p.readKey(values[fieldAPIKey])
	case tokenstore.AuthBearerToken:
		t.AccessToken, err = readBearer(values[fieldToken])
	case tokenstore.AuthBasic:
		t.AccessToken, err = readBasic(values[fieldUsername], values[fieldPassword])
	case tokenstore.AuthClientCredentials:
		t.RefreshToken = tokenstore.ClientCredentials
		return p.first(ctx, t, tokenstore.Account{ID: p.clientID})
	case tokenstore.AuthJWTBearer:
		k, err := p.readAssertionKey(values)
		if err != nil {
			return tokenstore.Token{}, tokenstore.Account{}, err
		}
		if t.RefreshToken, err = k.text(); err != nil {
			return tokenstore.Token{}, tokenstore.Account{}, err
		}
		account := p.subjectOf(k)
		if account == "" {
			account = p.issuerOf(k)
		}
		return p.first(ctx, t, tokenstore.Account{ID: account})
	default:
		return tokenstore.Token{}, tokenstore.Account{}, invalid("auth scheme %s takes none: the user connects in the browser", p.scheme)
	}
	if err != nil {
		return tokenstore.Token{}, tokenstore.Account{}, err
	}
	account, err := p.Account(ctx, &t)
	if err != nil && (!errors.Is(err, errors.ErrUnsupported) || errors.Is(err, tokenstore.ErrAccountNeeded)) {
		return tokenstore.Token{}, tokenstore.Account{}, err
	}
	return t, account, nil
}

// first asks for the first access token of a credential that renews itself.
func (p *Provider) first(ctx context.Context, t tokenstore.Token, account tokenstore.Account) (tokenstore.Token, tokenstore.Account, error) {
	a, err := p.Refresh(ctx, t)
	if err == nil {
		t, err = p.Parse(a, t, p.scopes)
	}
	if refusal, ok := errors.AsType[*tokenstore.RefusalError](err); ok && refusal.Kind == tokenstore.RefusedGrant {
		return tokenstore.Token{}, tokenstore.Account{}, fmt.Errorf("%w: %w", tokenstore.ErrCredentialRefused, err)
	}
	if err != nil {
		return tokenstore.Token{}, tokenstore.Account{}, err
	}
	t.Generation = 0
	if _, open := p.With(&t); open != nil { // the account tells where the API is
		if account, err = p.Account(ctx, &t); err != nil {
			return tokenstore.Token{}, tokenstore.Account{}, err
		}
	}
	return t, account, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", tokenstore.ErrCredentialInvalid, fmt.Errorf(format, args...))
}

// readGiven returns what was given, by field, and refuses what is missing and
// what there is no field for.
func (p *Provider) readGiven(given map[string]secret.String) (map[string]string, error) {
	values := map[string]string{}
	var names []string
	for _, f := range p.Fields() {
		names = append(names, f.Name)
		value := given[f.Name].Reveal()
		if f.Name != fieldUsername && f.Name != fieldPassword {
			value = strings.TrimSpace(value) // it was copied from somewhere
		}
		if value == "" && !f.Optional {
			return nil, invalid("%s is missing", f.Name)
		}
		values[f.Name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			return nil, invalid("there is one that auth scheme %s does not have: it has %s", p.scheme, orNone(names))
		}
	}
	return values, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (p *Provider) readKey(key string) (secret.String, error) {
	switch {
	case len(key) > maxKey || !visible.MatchString(key):
		return secret.String{}, invalid("api_key has a space or another character that no key has, or is too long")
	case p.keyForm != nil && !p.keyForm.MatchString(key):
		return secret.String{}, invalid("api_key is not of the form %s", p.entry.Key.Pattern)
	}
	return secret.New(key), nil
}

func readBearer(token string) (secret.String, error) {
	// RFC 6750 section 2.1 allows fewer characters; providers use others.
	if len(token) > maxKey || !visible.MatchString(token) {
		return secret.String{}, invalid("token has a space or another character that no token has, or is too long")
	}
	return secret.New(token), nil
}

// readBasic returns what stands in the header (RFC 7617 section 2).
func readBasic(username, password string) (secret.String, error) {
	for _, f := range []struct{ name, value string }{{fieldUsername, username}, {fieldPassword, password}} {
		if err := plainWord(f.name, f.value); err != nil {
			return secret.String{}, err
		}
	}
	// "a user-id containing a colon character is invalid, as the first colon in a
	// user-pass string separates user-id and password from one another"
	if strings.Contains(username, ":") {
		return secret.String{}, invalid("username has a colon, which it can't (RFC 7617)")
	}
	return secret.New(base64.StdEncoding.EncodeToString([]byte(username + ":" + password))), nil
}

// plainWord refuses what is no text, has control characters, or is too long.
func plainWord(name, value string) error {
	if len(value) > maxWord || !utf8.ValidString(value) || strings.IndexFunc(value, unicode.IsControl) >= 0 {
		return invalid("%s has a character that it can't have, or is too long", name)
	}
	return nil
}

// readAssertionKey returns the key of JWT_BEARER with all that its assertions
// say of it.
func (p *Provider) readAssertionKey(values map[string]string) (*serviceKey, error) {
	if len(values[fieldKey]) > maxToken {
		return nil, invalid("key is too long")
	}
	k, err := readServiceKey(values[fieldKey])
	if err != nil {
		return nil, invalid("key %w", err)
	}
	for _, f := range []struct {
		name string
		into *string
	}{{fieldKeyID, &k.KeyID}, {fieldIssuer, &k.Issuer}, {fieldSubject, &k.Subject}} {
		if values[f.name] != "" {
			*f.into = values[f.name]
		}
		if err := plainWord(f.name, *f.into); err != nil {
			return nil, err
		}
	}
	j := p.entry.JWT
	switch {
	case j.Issuer == jwtGiven && k.Issuer == "":
		return nil, invalid("issuer is missing: it was neither given nor in a service account's file")
	case j.KeyID == jwtGiven && k.KeyID == "":
		return nil, invalid("key_id is missing: it was neither given nor in a service account's file")
	}
	// What the entry has no place for is not kept.
	if j.Issuer != jwtGiven {
		k.Issuer = ""
	}
	if j.Subject != jwtGiven && j.Subject != jwtOptional {
		k.Subject = ""
	}
	return k, nil
}
