package provider

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What an entry says, in words for people: for the command line and for the
// documentation, which is generated from the catalogue. A sentence each, without
// a full stop; empty where there is nothing to say.

// ExplainTokens says how long tokens live and what becomes of refresh tokens.
func (e *Entry) ExplainTokens() string {
	if !slices.Contains(e.Schemes(), tokenstore.AuthOAuth2) {
		return ""
	}
	var says []string
	switch e.Answer.Life {
	case "":
		says = append(says, "access tokens live as long as the provider says")
	case lifeNever:
		says = append(says, "access tokens do not end by themselves, unless the provider says so")
	default:
		says = append(says, "access tokens live "+spell(e.Answer.Life))
	}
	if e.Exchange != nil {
		says = append(says, "the one that the code brings is made one that lasts at once")
	}
	if e.withoutRefresh() {
		return strings.Join(append(says, "there are no refresh tokens"), "; ")
	}
	token := "a refresh token"
	if e.Answer.Life == lifeNever {
		token = "a refresh token, should one come,"
	}
	switch {
	case e.Refresh.With == withAccess:
		says = append(says, "there are no refresh tokens: an access token is renewed with itself before its end")
	case e.Refresh.Rotation == RotationNone:
		says = append(says, token+" stays the same")
	case e.Refresh.Rotation == RotationGrace:
		says = append(says, token+" brings a new one at each refresh, and is taken for a while after")
	default:
		says = append(says, token+" works once, and each refresh brings a new one")
	}
	if e.Refresh.Life != "" {
		says = append(says, "refresh tokens live "+spell(e.Refresh.Life))
	}
	if len(e.Refresh.Scopes) > 0 {
		says = append(says, "there is one only with the scope "+strings.Join(e.Refresh.Scopes, " or "))
	}
	return strings.Join(says, "; ")
}

// withoutRefresh reports whether the notes say that there are no refresh tokens.
// The language has no word for it: an answer has one or has none.
func (e *Entry) withoutRefresh() bool {
	return e.Refresh.With == "" && slices.ContainsFunc(e.Notes, func(note string) bool {
		return strings.Contains(strings.ToLower(note), "no refresh tokens")
	})
}

// SummarizeRefresh says in a few words what becomes of refresh tokens.
func (e *Entry) SummarizeRefresh() string {
	word := "single use"
	switch {
	case !slices.Contains(e.Schemes(), tokenstore.AuthOAuth2):
		return ""
	case e.withoutRefresh():
		return "none"
	case e.Refresh.With == withAccess:
		return "none: renewed with itself"
	case e.Refresh.Rotation == RotationNone:
		word = "stay"
	case e.Refresh.Rotation == RotationGrace:
		word = "rotate, with grace"
	}
	if e.Answer.Life == lifeNever {
		return "if any: " + word
	}
	return word
}

// ExplainClient says how the client proves itself to the token endpoint.
func (e *Entry) ExplainClient() string {
	if e.TokenURL == "" && e.Issuer == "" {
		return ""
	}
	says := map[string]string{
		"":                "as the provider's metadata says, else client_id and client_secret by HTTP Basic",
		AuthBasic:         "client_id and client_secret by HTTP Basic",
		AuthBasicID:       "client_id and client_secret by HTTP Basic, and client_id among the parameters",
		AuthBasicRaw:      "client_id and client_secret by HTTP Basic, not encoded before",
		AuthBasicSecret:   "client_secret alone by HTTP Basic",
		AuthPost:          "client_id and client_secret among the parameters",
		AuthPrivateKeyJWT: "by an assertion that it signs; client_secret is its private key, PEM",
		AuthNone:          "client_id alone, without a secret",
	}[e.ClientAuth]
	if e.Authorize.PKCEOff != "" {
		says += "; without PKCE: " + e.Authorize.PKCEOff
	}
	return says
}

// ExplainRevocation says what disconnecting does at the provider.
func (e *Entry) ExplainRevocation() string {
	return map[string]string{
		revokesNone:       "the provider has no way to end a token: it is erased here, and its user ends it there",
		revokesDiscovered: "where the provider's metadata has an endpoint for it",
		revokesToken:      "ends that token alone",
		revokesGrant:      "may end the account's whole grant to this client",
	}[e.SummarizeRevocation()]
}

// What SummarizeRevocation says.
const (
	revokesNone       = "none"
	revokesDiscovered = "if discovered"
	revokesToken      = "that token"
	revokesGrant      = "the grant"
)

// SummarizeRevocation says in a few words what disconnecting ends at the
// provider.
func (e *Entry) SummarizeRevocation() string {
	switch {
	case !slices.Contains(e.Schemes(), tokenstore.AuthOAuth2):
		return ""
	case e.RevokeURL == "" && e.Issuer != "" && (e.AuthorizeURL == "" || e.TokenURL == ""):
		return revokesDiscovered
	case e.RevokeURL == "":
		return revokesNone
	case e.Revoke.Single:
		return revokesToken
	}
	return revokesGrant
}

// ExplainInjection says how the credential of an auth scheme travels to the API.
func (e *Entry) ExplainInjection(scheme string) string {
	header, prefix, query := e.Inject.Header, e.Inject.Prefix, e.Inject.Query
	switch scheme {
	case tokenstore.AuthBasic:
		return "Authorization: Basic …"
	case tokenstore.AuthAPIKey:
		header, prefix, query = e.Key.Header, e.Key.Prefix, e.Key.Query
		if header == "" {
			return "query parameter " + query
		}
		return fmt.Sprintf("%s: %s…%s", http.CanonicalHeaderKey(header), prefix, e.Key.Suffix)
	case tokenstore.AuthBearerToken:
		header, prefix, query = "", "", ""
	}
	if query != "" {
		return "query parameter " + query
	}
	switch {
	case prefix == "none":
		prefix = ""
	case header == "" || http.CanonicalHeaderKey(header) == "Authorization":
		prefix = cmp.Or(prefix, "Bearer ")
	}
	return fmt.Sprintf("%s: %s…", cmp.Or(http.CanonicalHeaderKey(header), "Authorization"), prefix)
}

// ExplainParam says what a connection parameter is, and who gives it.
func (e *Entry) ExplainParam(name string) string {
	p := e.Params[name]
	var says []string
	if p.Title != "" {
		says = append(says, p.Title)
	}
	source, at, _ := strings.Cut(p.From, ".")
	switch {
	case source == "answer":
		says = append(says, "told by the token endpoint ("+at+")")
	case source == "callback":
		says = append(says, "told at the callback ("+at+")")
	case source == "account":
		says = append(says, "told by the account request ("+at+")")
	case p.Configured():
		says = append(says, "given in the integration's block")
	default:
		says = append(says, "asked of whoever connects, or given in the integration's block")
	}
	switch {
	case p.Host && p.Configured() && len(p.Domains) > 0:
		says = append(says, "a host, such as of "+strings.Join(p.Domains, ", "))
	case len(p.Domains) > 0:
		says = append(says, "a host: "+strings.Join(p.Domains, ", "))
		if p.Host && !p.Configured() {
			says = append(says, "others in the integration's block only")
		}
	case p.Host:
		says = append(says, "a host")
	case p.Pattern != "":
		says = append(says, "of the form "+p.Pattern)
	}
	if p.Default != "" {
		says = append(says, "default "+p.Default)
	}
	return strings.Join(says, "; ")
}

// Configured reports whether the configuration of an integration alone gives the
// parameter, and nobody is asked.
func (e ParamEntry) Configured() bool {
	return e.From == "" && (e.Fixed || e.Host && len(e.Domains) == 0)
}

// Known reports whether a whole host is one that the entry itself has.
func (e ParamEntry) Known(value string) bool {
	pm := param{domains: e.Domains, defaultValue: e.Default}
	_, err := pm.readHost(value, false)
	return err == nil
}

// ParamNames returns the names of the connection parameters, those that somebody
// gives before those that the provider tells.
func (e *Entry) ParamNames() []string {
	names := slices.Sorted(maps.Keys(e.Params))
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(told(e.Params[a]), told(e.Params[b]))
	})
	return names
}

func told(p ParamEntry) int {
	if p.From != "" {
		return 1
	}
	return 0
}

// spell returns a duration in words: 720h is 30 days.
func spell(text string) string {
	d, err := time.ParseDuration(text)
	if err != nil {
		return text
	}
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / unit.length; n > 0 && d%unit.length == 0 {
			if n == 1 {
				return "1 " + unit.name
			}
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return d.String()
}

// Describes reports whether the entry has words of its own for an auth scheme.
// Schemes has those too that go with nearly any provider.
func (e *Entry) Describes(scheme string) bool {
	switch scheme {
	case tokenstore.AuthOAuth2:
		return e.AuthorizeURL != "" || e.Issuer != ""
	case tokenstore.AuthAPIKey:
		return e.Key != (KeyEntry{})
	case tokenstore.AuthBasic:
		return e.Basic != (BasicEntry{})
	case tokenstore.AuthJWTBearer:
		return e.JWT != nil
	}
	return scheme == e.DefaultScheme()
}

// Described returns the auth schemes that the entry Describes, in the order of
// Schemes.
func (e *Entry) Described() []string {
	return slices.DeleteFunc(e.Schemes(), func(scheme string) bool { return !e.Describes(scheme) })
}
