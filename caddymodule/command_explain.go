package caddymodule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// explain shows one provider.
func (c *command) explain(k *catalogue, p *cliProvider) error {
	if c.print.asJSON {
		return c.print.json(p.raw)
	}
	pairs := [][2]string{
		{"provider", p.Name},
		{"title", p.Title},
		{"source", p.Source},
		{"register a client", p.DocsURL},
		{"redirect URI", redirectURI(p)},
		{"API", p.APIURL},
		{"further hosts", strings.Join(p.Hosts, " ")},
	}
	texts := map[string]string{} // :: scope → what it allows
	for _, s := range p.Scopes {
		texts[s.Scope] = s.Text
	}
	e, known := k.entry(p)
	if known {
		pairs = append(pairs, explained(&e)...)
		maps.Copy(texts, e.ScopeTexts)
	} else {
		pairs = append(pairs, [2]string{"schemes", strings.Join(p.AuthSchemes, " ")}, [2]string{"params", fieldNames(p.Params)})
	}
	for _, note := range p.Notes {
		pairs = append(pairs, [2]string{"note", note})
	}
	for _, what := range p.Unchecked {
		pairs = append(pairs, [2]string{"not checked", what})
	}
	if err := c.print.pairs(pairs...); err != nil {
		return err
	}
	if known {
		_, _ = fmt.Fprintf(c.print.out, "\n%s\n\n%s", c.print.paint("In the `lanyard` block of the Caddyfile", faint), integrationBlock(clean(p.Name), &e))
	}
	if len(texts) == 0 {
		return nil
	}
	out := c.print.table(column{head: "SCOPE"}, column{head: "MEANING", cut: true})
	var rows [][]cell
	for _, scope := range slices.Sorted(maps.Keys(texts)) {
		rows = append(rows, []cell{plain(scope), plain(texts[scope])})
	}
	_, _ = fmt.Fprintln(c.print.out)
	return out.rows(rows)
}

// redirectURI returns what has to be registered at a provider to which browsers
// are sent.
func redirectURI(p *cliProvider) string {
	if !slices.Contains(p.AuthSchemes, tokenstore.AuthOAuth2) {
		return ""
	}
	return "{public_url}/callback/" + p.Name + ", where the integration has this name"
}

// explained returns what an entry says, in words.
func explained(e *provider.Entry) [][2]string {
	pairs := [][2]string{
		{"authorization", e.AuthorizeURL},
		{"token endpoint", cmp.Or(e.TokenURL, e.Issuer)},
		{"devices", e.DeviceURL},
		{"client", e.ExplainClient()},
	}
	for _, scheme := range e.Described() {
		pairs = append(pairs, [2]string{scheme, e.ExplainInjection(scheme)})
	}
	for _, name := range e.ParamNames() {
		pairs = append(pairs, [2]string{"param " + name, e.ExplainParam(name)})
	}
	return append(pairs, [2]string{"tokens", e.ExplainTokens()}, [2]string{"revocation", e.ExplainRevocation()})
}

// integrationBlock returns an integration of a provider for a Caddyfile, which does
// once the values are there. Scopes are those without which the account is not
// known or no refresh token comes.
func integrationBlock(name string, e *provider.Entry) string {
	var b strings.Builder
	option := func(text string) { fmt.Fprintf(&b, "\t%s\n", clean(text)) }
	env := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	scheme := e.DefaultScheme()
	id, secret := e.WantsClient(scheme)
	if id {
		option("client_id {env." + env + "_CLIENT_ID}")
	}
	switch {
	case secret && e.ClientAuth == provider.AuthPrivateKeyJWT:
		option("client_secret {file./run/secrets/" + name + ".pem}")
	case secret:
		option("client_secret {env." + env + "_CLIENT_SECRET}")
	}
	var scopes []string
	if scheme == tokenstore.AuthOAuth2 {
		for _, list := range [][]string{e.Account.Scopes, e.Refresh.Scopes} {
			if len(list) > 0 && !slices.Contains(scopes, list[0]) {
				scopes = append(scopes, list[0])
			}
		}
	}
	switch {
	case len(scopes) > 0:
		option("scopes " + strings.Join(scopes, " "))
	case scheme == tokenstore.AuthOAuth2 && len(e.ScopeTexts) > 0:
		option("# scopes …")
	}
	for _, param := range e.ParamNames() {
		p := e.Params[param]
		if p.From == "" && !p.Configured() {
			option("# Whoever connects is asked for this, unless it stands here.")
		}
		switch {
		case p.From != "":
		case p.Default != "":
			option("# param " + param + " " + p.Default)
		case p.Configured() && len(p.Domains) > 0:
			option("param " + param + " " + strings.Replace(p.Domains[0], "*", "acme", 1))
		case p.Configured():
			option("param " + param + " {env." + env + "_" + strings.ToUpper(param) + "}")
		default:
			option("# param " + param + " …")
		}
	}
	if registersName(e) {
		option("# redirect_uri …")
	}
	if scheme == tokenstore.AuthOAuth2 {
		option("# Register {public_url}/callback/" + name + " at the provider.")
	}
	if b.Len() == 0 {
		return "integration " + name + "\n"
	}
	return "integration " + name + " {\n" + b.String() + "}\n"
}

// registersName reports whether the provider wants a redirect_uri that is no
// address. It is for people to know, hence in its notes.
func registersName(e *provider.Entry) bool {
	return slices.ContainsFunc(e.Notes, func(note string) bool { return strings.Contains(note, "redirect_uri") })
}
