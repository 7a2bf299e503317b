package caddymodule

import (
	"maps"
	"slices"

	"github.com/lanyard-proxy/lanyard/provider"
)

// entryPlaces are the placeholders of a provider itself, beside its connection
// parameters: they are filled later.
var entryPlaces = []string{"client_id", "client_secret", "token", "uuid"}

// entry returns a provider of the configuration's own with the placeholders in
// its URLs, and in what its requests say, resolved. Its own places stay. So do
// patterns and JSON, which have braces of their own, and what is for people.
func (r *resolver) entry(e provider.Entry) provider.Entry {
	for _, name := range slices.AppendSeq(slices.Clone(entryPlaces), maps.Keys(e.Params)) {
		r.repl.Set(name, "{"+name+"}")
		defer r.repl.Delete(name)
	}
	e.Hosts = slices.Clone(e.Hosts)
	for i := range e.Hosts {
		r.replace("hosts", &e.Hosts[i])
	}
	if e.Exchange != nil {
		ex := *e.Exchange
		e.Exchange = &ex
		r.replace("exchange: url", &ex.URL)
		r.request("exchange", &ex.RequestEntry)
	}
	if e.JWT != nil {
		j := *e.JWT
		e.JWT = &j
		r.replace("jwt: audience", &j.Audience)
	}
	texts := map[string]*string{
		"issuer": &e.Issuer, "authorize_url": &e.AuthorizeURL, "token_url": &e.TokenURL, "revoke_url": &e.RevokeURL,
		"introspect_url": &e.IntrospectURL, "device_url": &e.DeviceURL, "api_url": &e.APIURL, "account": &e.Account.URL,
		"refresh: url": &e.Refresh.URL, "client_assertion: audience": &e.ClientAssertion.Audience, "authorize: fragment": &e.Authorize.Fragment,
		"key: prefix": &e.Key.Prefix, "key: suffix": &e.Key.Suffix, "inject: prefix": &e.Inject.Prefix,
	}
	for _, field := range slices.Sorted(maps.Keys(texts)) { // the same error each time
		r.replace(field, texts[field])
	}
	r.request("token", &e.Token)
	r.request("refresh", &e.Refresh.RequestEntry)
	lists := map[string]*map[string]string{
		"authorize: param": &e.Authorize.Params, "revoke: param": &e.Revoke.Params, "revoke: header": &e.Revoke.Headers,
		"inject: set": &e.Inject.Headers, "inject: query_param": &e.Inject.Params,
	}
	for _, field := range slices.Sorted(maps.Keys(lists)) {
		r.replaceAll(field, lists[field])
	}
	return e
}

func (r *resolver) request(word string, q *provider.RequestEntry) {
	r.replaceAll(word+": param", &q.Params)
	r.replaceAll(word+": header", &q.Headers)
}

// replace resolves a text in its place.
func (r *resolver) replace(field string, text *string) { *text = r.text(field, *text) }

// replaceAll is replace for the values of a map, of which it makes a new one.
func (r *resolver) replaceAll(field string, texts *map[string]string) {
	*texts = maps.Clone(*texts)
	for _, name := range slices.Sorted(maps.Keys(*texts)) {
		(*texts)[name] = r.text(field+" "+name, (*texts)[name])
	}
}
