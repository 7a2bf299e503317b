package revoke

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// tryTimeout bounds one try at the provider.
	tryTimeout = 5 * time.Second
	// maxSiblings is how many connections are looked at for one that rests on
	// the same grant. Where there are more, one of them may.
	maxSiblings = 10_000
	pageSize    = 100
)

// heldBy returns what matters here of a connection: its credentials, less what
// is not the provider's to end, and whose they are.
func heldBy(c *tokenstore.Connection) tokenstore.Connection {
	held := tokenstore.Connection{
		ID: c.ID, Integration: c.Integration, UserID: c.UserID, Params: maps.Clone(c.Params),
		AuthScheme: c.AuthScheme, Account: c.Account, Token: issued(c.AuthScheme, c.Token),
	}
	if st := c.Staged; st != nil {
		scheme := cmp.Or(st.AuthScheme, c.AuthScheme)
		held.Staged = &tokenstore.Staged{Token: issued(scheme, st.Token), Account: st.Account, AuthScheme: scheme}
	}
	return held
}

// issued returns what the provider has issued of t. A private key, and what
// stands for our own client, must never be sent to it.
func issued(scheme string, t tokenstore.Token) tokenstore.Token {
	if scheme == tokenstore.AuthJWTBearer || scheme == tokenstore.AuthClientCredentials || t.RefreshToken.Equal(tokenstore.ClientCredentials) {
		t.RefreshToken = tokenstore.Token{}.RefreshToken
	}
	return t.Clone()
}

func holds(t tokenstore.Token) bool { return !t.AccessToken.IsZero() || !t.RefreshToken.IsZero() }

// credential is one of a connection's, and the account it is of.
type credential struct {
	token   tokenstore.Token
	account tokenstore.Account
	scheme  string // empty: the integration's
}

// byHand reports whether it was made by hand at its provider p, which then has
// no way to be told of its end.
func (c credential) byHand(p Provider) bool {
	switch cmp.Or(c.scheme, p.Scheme()) {
	case tokenstore.AuthAPIKey, tokenstore.AuthBasic, tokenstore.AuthBearerToken:
		return true
	}
	return false
}

// credentials returns what c holds: the live credential, and the one that waits
// for completion.
func credentials(c *tokenstore.Connection) []credential {
	var all []credential
	if holds(c.Token) {
		all = append(all, credential{c.Token, c.Account, c.AuthScheme})
	}
	if c.Staged != nil && holds(c.Staged.Token) {
		all = append(all, credential{c.Staged.Token, c.Staged.Account, cmp.Or(c.Staged.AuthScheme, c.AuthScheme)})
	}
	return all
}

// sameCredentials reports whether a and b hold the same.
func sameCredentials(a, b *tokenstore.Connection) bool {
	as, bs := credentials(a), credentials(b)
	if len(as) != len(bs) {
		return false
	}
	for i := range as {
		if !as[i].token.AccessToken.Equal(bs[i].token.AccessToken) || !as[i].token.RefreshToken.Equal(bs[i].token.RefreshToken) {
			return false
		}
	}
	return true
}

// provider returns who can end what held holds, or why nobody is to be asked.
func (r *Revoker) provider(held *tokenstore.Connection) (Provider, string) {
	all := credentials(held)
	if len(all) == 0 {
		return nil, ReasonNothing
	}
	p, err := r.cfg.Provider(held.Integration, held.Params)
	switch {
	case errors.Is(err, ErrIntegrationMissing):
		return nil, ReasonMissing
	case err != nil:
		return nil, ReasonParams
	}
	if !slices.ContainsFunc(all, func(c credential) bool { return !c.byHand(p) }) {
		return nil, ReasonNoEndpoint
	}
	return p, ""
}

// try asks the provider once for each credential, unless that would end a
// sibling's grant: then it returns why it did not ask. The siblings are looked
// for at each try, since the user may have connected again in between.
func (r *Revoker) try(ctx context.Context, held *tokenstore.Connection) (spared string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	p, reason := r.provider(held)
	switch reason {
	case "":
	case ReasonMissing, ReasonParams: // it may come back
		return "", errors.New(reason)
	default:
		return reason, nil
	}
	for _, c := range credentials(held) {
		if c.byHand(p) {
			continue
		}
		if !p.RevokesSingle() {
			shared, err := r.shared(ctx, held, c.account)
			if err != nil {
				return "", err
			}
			if shared {
				spared = ReasonShared
				continue
			}
		}
		err := p.Revoke(ctx, c.token)
		if errors.Is(err, errors.ErrUnsupported) {
			return ReasonNoEndpoint, nil
		}
		if err != nil && !isDead(err) {
			return "", err
		}
	}
	return spared, nil
}

// isDead reports whether a provider refused to revoke what is dead already.
func isDead(err error) bool {
	refusal, ok := errors.AsType[*tokenstore.RefusalError](err)
	return ok && refusal.Kind == tokenstore.RefusedGrant
}

// shared reports whether a connection that is there holds a credential that may
// rest on the same grant as one of this account: of the same user, or of anybody
// for what no connection had. Of another user's it is one only if both accounts
// are known: else nothing at all could be revoked where they are not.
func (r *Revoker) shared(ctx context.Context, held *tokenstore.Connection, account tokenstore.Account) (bool, error) {
	f := tokenstore.Filter{Integration: held.Integration}
	if held.ID == "" {
		return r.anyOf(ctx, f, true, func(_ *tokenstore.Connection, a tokenstore.Account) bool { return a.SameAs(account) })
	}
	own := f
	own.UserID = held.UserID
	found, err := r.anyOf(ctx, own, true, func(_ *tokenstore.Connection, a tokenstore.Account) bool { return a.SameAs(account) })
	if found || err != nil || account.ID == "" {
		return found, err
	}
	return r.anyOf(ctx, f, false, func(c *tokenstore.Connection, a tokenstore.Account) bool {
		return c.UserID != held.UserID && a.ID == account.ID
	})
}

// anyOf reports whether a credential of a connection of f is one. doubt is what
// it reports where one is damaged, or there are too many to look at.
func (r *Revoker) anyOf(
	ctx context.Context, f tokenstore.Filter, doubt bool, is func(*tokenstore.Connection, tokenstore.Account) bool,
) (bool, error) {
	for cursor, looked := "", 0; looked < maxSiblings; looked += pageSize {
		page, next, err := r.cfg.Store.ListConnections(ctx, f, cursor, pageSize)
		if err != nil {
			return false, err
		}
		for i := range page {
			if page[i].Damaged && doubt {
				return true, nil
			}
			for _, c := range credentials(&page[i]) {
				if is(&page[i], c.account) {
					return true, nil
				}
			}
		}
		if next == "" {
			return false, nil
		}
		cursor = next
	}
	return doubt, nil
}
