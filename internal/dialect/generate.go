package dialect

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Generate returns the dialect that an entry describes, for integrations of an
// auth scheme.
func Generate(name string, e provider.Entry, scheme string) *Dialect {
	g := &generator{e: e, d: &Dialect{Name: name, Params: map[string]string{}, Told: map[string]string{}, ScopeSeparator: e.Authorize.ScopeSeparator}}
	for p, how := range e.Params {
		switch {
		case how.From == "":
			g.d.Params[p] = sampleParam(how)
		case how.From == "account."+e.Account.ID || e.Account.ID == "{"+p+"}":
			g.d.Told[p], g.d.AccountForm = "$account", cmp.Or(how.Pattern, "[a-z]+")
		default:
			g.d.Told[p] = sampleParam(how)
		}
	}
	g.api(scheme)
	switch scheme {
	case tokenstore.AuthOAuth2:
		g.flow()
		g.revoke()
	case tokenstore.AuthClientCredentials, tokenstore.AuthJWTBearer:
		g.mint(scheme)
		g.revoke()
	}
	g.faults()
	return g.d
}

func sampleParam(p provider.ParamEntry) string {
	for _, domain := range p.Domains {
		if below, ok := strings.CutPrefix(domain, "*."); ok {
			return "acme." + below
		}
	}
	if len(p.Domains) > 0 {
		return p.Domains[0]
	}
	return cmp.Or(p.Default, Sample(p.Pattern, false))
}

// generator reads an entry.
type generator struct {
	e provider.Entry
	d *Dialect
}

// fill puts a connection's parameters and the dialects' words into a text.
func (g *generator) fill(text string) string {
	pairs := []string{"{client_id}", "$client", "{client_secret}", "$secret", "{uuid}", "$uuid", "{token}", "$token"}
	for _, values := range []map[string]string{g.d.Params, g.d.Told} {
		for name, value := range values {
			pairs = append(pairs, "{"+name+"}", value)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// proof adds how a client proves itself.
func proof(r *Request, auth string) {
	switch auth {
	case "", provider.AuthBasic, provider.AuthBasicRaw:
		r.Headers["Authorization"] = "Basic $client:$secret"
	case provider.AuthBasicID:
		r.Headers["Authorization"], r.Params["client_id"] = "Basic $client:$secret", "$client"
	case provider.AuthBasicSecret:
		r.Headers["Authorization"] = "Basic $secret:"
	case provider.AuthPost:
		r.Params["client_id"], r.Params["client_secret"] = "$client", "$secret"
	case provider.AuthNone:
		r.Params["client_id"] = "$client"
	case provider.AuthPrivateKeyJWT:
		r.Params["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
		r.Params["client_assertion"] = "$assertion"
	}
}

// request returns a request for a token with such parameters, in the words of
// several parts of the entry, the later ones before the earlier.
func (g *generator) request(url string, params map[string]string, parts ...provider.RequestEntry) Request {
	url, _, _ = strings.Cut(url, "?")
	r := Request{URL: g.fill(url), Params: params, Headers: map[string]string{}}
	proof(&r, g.e.ClientAuth)
	rename := map[string]string{}
	var drop []string
	for _, part := range parts {
		r.Method, r.Body = cmp.Or(part.Method, r.Method), cmp.Or(part.Body, r.Body)
		for name, value := range part.Params {
			r.Params[name] = g.fill(value)
		}
		for name, value := range part.Headers {
			r.Headers[name] = g.fill(value)
		}
		maps.Copy(rename, part.Rename)
		if len(part.Drop) > 0 {
			drop = part.Drop
		}
	}
	for _, name := range drop {
		delete(r.Params, name)
	}
	renamed := map[string]string{}
	for name, value := range r.Params {
		renamed[cmp.Or(rename[name], name)] = value
	}
	r.Params = renamed
	return r
}

// flow describes the authorization code flow and refreshes.
func (g *generator) flow() {
	e, d := &g.e, g.d
	page := provider.RequestEntry{Params: e.Authorize.Params, Rename: e.Authorize.Rename, Drop: e.Authorize.Drop}
	params := map[string]string{"response_type": "code", "client_id": "$client", "redirect_uri": "$redirect", "state": "$state", "code_challenge": "$challenge", "code_challenge_method": "S256"}
	code := map[string]string{"grant_type": "authorization_code", "code": "$code", "redirect_uri": "$redirect", "code_verifier": "$verifier"}
	if e.Authorize.PKCEOff != "" {
		delete(code, "code_verifier")
		delete(params, "code_challenge")
		delete(params, "code_challenge_method")
	}
	if len(Scopes(*e)) > 0 {
		params["scope"] = "$scopes"
	}
	auth := e.ClientAuth
	e.ClientAuth = provider.AuthOmit
	d.Authorize = g.request(e.AuthorizeURL, params, page)
	e.ClientAuth = auth
	d.Authorize.Method = http.MethodGet
	if e.Authorize.Fragment != "" {
		d.Authorize.URL += "#" + e.Authorize.Fragment
	}
	d.Authorize.Answer = cmp.Or(e.Callback.Code, "code") + "=$code&state=$state"
	if e.Callback.Scope != "" {
		d.Authorize.Answer += "&" + e.Callback.Scope + "=$scopes"
	}
	d.HMAC = e.Callback.HMAC
	for name, p := range e.Params {
		if told, ok := strings.CutPrefix(p.From, "callback."); ok {
			d.Authorize.Answer += "&" + told + "=" + d.Told[name]
		}
	}
	d.Code = g.request(e.TokenURL, code, e.Token)
	renewed := map[string]string{"grant_type": "refresh_token", "refresh_token": "$refresh"}
	if e.Refresh.With == "access_token" {
		renewed = map[string]string{"grant_type": "refresh_token", "access_token": "$access"}
	}
	if e.Exchange != nil {
		d.Exchange = g.request(cmp.Or(e.Exchange.URL, e.TokenURL), maps.Clone(renewed), e.Token, e.Exchange.RequestEntry)
		d.Exchange.Answer = g.answer(true)
	}
	if g.renewable() {
		if e.Refresh.SendScope {
			renewed["scope"] = "$scopes"
		}
		d.Refresh = g.request(cmp.Or(e.Refresh.URL, e.TokenURL), renewed, e.Token, e.Refresh.RequestEntry)
		d.Rotates = e.Refresh.Rotation != provider.RotationNone && e.Refresh.With != "access_token"
		d.Reusable = e.Refresh.Rotation != provider.RotationSingleUse && e.Refresh.Rotation != ""
		d.Refresh.Answer = g.answer(d.Rotates)
		d.Pause = e.Refresh.Pause != ""
	}
	d.Code.Answer = g.answer(true)
}

// renewable reports whether the entry says anything about refreshes.
func (g *generator) renewable() bool {
	r := &g.e.Refresh
	return r.With != "" || r.Rotation != "" || r.Life != "" || r.URL != "" || len(r.Scopes) > 0 || g.e.Answer.Life != "never"
}

// mint describes a request for a token without a user.
func (g *generator) mint(scheme string) {
	params := map[string]string{"grant_type": "client_credentials"}
	if scheme == tokenstore.AuthJWTBearer {
		params = map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "$assertion"}
		g.e.ClientAuth = provider.AuthOmit
		if g.e.JWT.Carry == "bearer" {
			params = map[string]string{}
		}
	}
	g.d.Mint = g.request(g.e.TokenURL, params, g.e.Token)
	if scheme == tokenstore.AuthJWTBearer && g.e.JWT.Carry == "bearer" {
		g.d.Mint.Headers["Authorization"] = "Bearer $assertion"
		g.d.Mint.Params = nil
	}
	g.d.Mint.Answer = g.answer(false)
}

// api describes requests to the API, and the one for the account.
func (g *generator) api(scheme string) {
	e := &g.e
	call := Request{URL: g.fill(e.APIURL), Params: map[string]string{}, Headers: map[string]string{}}
	for name, value := range e.Inject.Headers {
		call.Headers[name] = g.fill(value)
	}
	for name, value := range e.Inject.Params {
		call.Params[name] = g.fill(value)
	}
	switch scheme {
	case tokenstore.AuthAPIKey:
		if e.Key.Query != "" {
			call.Params[e.Key.Query] = "$access"
		} else {
			call.Headers[e.Key.Header] = g.fill(e.Key.Prefix) + "$access" + e.Key.Suffix
		}
	case tokenstore.AuthBasic:
		call.Headers["Authorization"] = "Basic $access"
	default:
		header, prefix := cmp.Or(e.Inject.Header, "Authorization"), e.Inject.Prefix
		switch {
		case prefix == "none":
			prefix = ""
		case prefix == "" && strings.EqualFold(header, "Authorization"):
			prefix = "Bearer "
		}
		if e.Inject.Query != "" {
			call.Params[e.Inject.Query] = "$access"
		} else {
			call.Headers[header] = prefix + "$access"
		}
	}
	g.d.Call = call
	if e.Account.URL == "" {
		return
	}
	url, query, _ := strings.Cut(e.Account.URL, "?")
	account := Request{Method: cmp.Or(e.Account.Method, http.MethodGet), URL: g.fill(url), Params: maps.Clone(call.Params), Headers: maps.Clone(call.Headers), JSON: e.Account.Body}
	for pair := range strings.SplitSeq(query, "&") {
		if name, _, ok := strings.Cut(pair, "="); ok {
			account.Params[name] = "$any"
		}
	}
	answer := object{}
	g.told(answer, "account.")
	answer.put(e.Account.Email, "$email")
	answer.put(e.Account.Name, "$name")
	answer.put(e.Account.ID, "$account")
	account.Answer = answer.String()
	g.d.Account = account
}

// told puts what the provider tells into an answer.
func (g *generator) told(answer object, from string) {
	for _, name := range slices.Sorted(maps.Keys(g.e.Params)) {
		p := g.e.Params[name]
		path, ok := strings.CutPrefix(p.From, from)
		if !ok {
			continue
		}
		value := g.d.Told[name]
		if len(p.Domains) > 0 || p.Host {
			value = "https://" + value
		}
		answer.put(path, value)
	}
}

// answer returns the token endpoint's good answer.
func (g *generator) answer(refresh bool) string {
	e := &g.e
	at := func(field string) string { return cmp.Or(e.Answer.Paths[field], field) }
	answer := object{}
	answer.put(at("access_token"), "$access")
	answer.put(at("token_type"), "Bearer")
	answer.put(at("scope"), "$scopes")
	if refresh && g.renewable() && e.Refresh.With != "access_token" {
		answer.put(at("refresh_token"), "$refresh")
	}
	switch {
	case e.Answer.Life == "never":
	case e.Answer.Paths["expires_at"] != "" && e.Answer.Paths["expires_in"] == "":
		answer.put(at("expires_at"), "$expires_at")
	default:
		answer.put(at("expires_in"), "$life")
	}
	for path, value := range e.Answer.Success {
		answer.put(path, value)
	}
	g.told(answer, "answer.")
	return answer.String()
}

func (g *generator) revoke() {
	e := &g.e
	if e.RevokeURL == "" {
		return
	}
	r := Request{Method: e.Revoke.Method, URL: g.fill(e.RevokeURL), Body: e.Revoke.Body, Params: map[string]string{}, Headers: map[string]string{}}
	switch {
	case e.Revoke.Inject:
		maps.Copy(r.Params, g.d.Call.Params)
		maps.Copy(r.Headers, g.d.Call.Headers)
		if len(r.Params) == 0 {
			r.Body = cmp.Or(r.Body, bodyNone)
		}
	case r.Body == bodyNone || e.Revoke.Token == "none" || strings.Contains(r.URL, "$token"):
	case e.Revoke.Token == "access":
		r.Params[cmp.Or(e.Revoke.Param, "token")] = "$access"
	default:
		r.Params[cmp.Or(e.Revoke.Param, "token")] = "$token"
	}
	if !e.Revoke.Inject {
		proof(&r, cmp.Or(e.Revoke.ClientAuth, e.ClientAuth))
	}
	for name, there := range e.Token.Rename {
		if value, ok := r.Params[name]; ok {
			delete(r.Params, name)
			r.Params[there] = value
		}
	}
	for name, value := range e.Revoke.Params {
		r.Params[name] = g.fill(value)
	}
	for name, value := range e.Revoke.Headers {
		r.Headers[name] = g.fill(value)
	}
	good := object{}
	for path, value := range e.Answer.Success {
		good.put(path, value)
	}
	r.Answer = good.String()
	g.d.Revoke = r
}

// faults describes how the provider says no.
func (g *generator) faults() {
	e := &g.e
	at, status := cmp.Or(e.Answer.Paths["error"], "error"), http.StatusBadRequest
	if len(e.Answer.Success) > 0 {
		status = http.StatusOK
	}
	say := func(codes []string, standard string) Fault {
		if len(codes) > 0 && (e.Answer.Paths["error"] != "" || len(e.Answer.Success) > 0) {
			standard = codes[0]
		}
		body := object{}
		body.put(at, standard)
		return Fault{status, body.String()}
	}
	g.d.Dead, g.d.Client = say(e.Errors.Dead, "invalid_grant"), say(e.Errors.Client, "invalid_client")
}

// Scopes returns some scopes to ask for: those that bring a refresh token and
// the account among them.
func Scopes(e provider.Entry) []string {
	var all []string
	for _, from := range [][]string{e.Refresh.Scopes, e.Account.Scopes, e.Scopes, slices.Sorted(maps.Keys(e.ScopeTexts))} {
		if len(from) > 0 {
			all = append(all, from[0])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Of returns the dialect that was written by hand for an integration, else the
// one that the entry describes.
func Of(name string, e provider.Entry, scheme string) *Dialect {
	d, made := ByHand(name), Generate(name, e, scheme)
	if d == nil {
		return made
	}
	if d.Dead.Status == 0 {
		d.Dead, d.Client = made.Dead, made.Client
	}
	if d.Account.URL == "" && made.Account.URL != "" {
		d.Account = made.Account
		for param, how := range e.Params {
			if strings.HasPrefix(how.From, "account.") {
				d.Told = with(d.Told, m{param: made.Told[param]})
			}
		}
	}
	return d
}
