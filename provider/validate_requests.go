package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Headers that are the connection's, the body's, or Lanyard's: no entry sets
// them.
var ownHeaders = []string{
	"Connection", "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "Keep-Alive", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Via",
}

// checkHeader refuses a header that an entry can't set.
func checkHeader(word, name, value string) error {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%s %q is no name of a header", word, name)
	case slices.Contains(ownHeaders, canonical), strings.HasPrefix(canonical, "Lanyard-"), strings.HasPrefix(canonical, "Proxy-"):
		return fmt.Errorf("%s %q is a header that is set by Lanyard itself", word, name)
	case value == "" || !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value:
		return fmt.Errorf("%s.%s %q can't stand in a header", word, name, value)
	}
	return nil
}

// checkHeaders checks headers, which are to be others than credential's.
func checkHeaders(word string, headers map[string]string, credential ...string) error {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if err := checkHeader(word, name, headers[name]); err != nil {
			return err
		}
		canonical := http.CanonicalHeaderKey(name)
		if seen[canonical] {
			return fmt.Errorf("%s %q stands there twice, in two ways of writing it", word, name)
		}
		if seen[canonical] = true; slices.Contains(credential, canonical) {
			return fmt.Errorf("%s %q is the header of the credential", word, name)
		}
	}
	return nil
}

// checkNames checks further, renamed and dropped parameters of a request, of
// which own are Lanyard's.
func checkNames(word string, params, rename map[string]string, drop, own []string) error {
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if !paramWord.MatchString(name) {
			return fmt.Errorf("%s.params %q is no name of a parameter", word, name)
		}
	}
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(rename)) {
		to := rename[name]
		_, further := params[name]
		switch {
		case !slices.Contains(own, name) && !further:
			return fmt.Errorf("%s.rename %q is none of its parameters: %s", word, name, strings.Join(own, ", "))
		case !paramWord.MatchString(to):
			return fmt.Errorf("%s.rename.%s %q is no name of a parameter", word, name, to)
		case taken[to] != "":
			return fmt.Errorf("%s.rename has %s and %s under the same name, %q", word, taken[to], name, to)
		}
		taken[to] = name
	}
	for _, name := range drop {
		switch _, further := params[name]; {
		case !slices.Contains(own, name) && !further:
			return fmt.Errorf("%s.drop %q is none of its parameters: %s", word, name, strings.Join(own, ", "))
		case slices.Contains(carriers, name):
			return fmt.Errorf("%s.drop %q would leave out what the request is about", word, name)
		case strings.HasPrefix(name, "code_"):
			return fmt.Errorf("%s.drop %q is of PKCE, which authorize.pkce_off leaves out", word, name)
		}
	}
	return checkTaken(word, params, rename, drop, own)
}

// carriers are parameters of which a request for a token has one, the thing that
// it redeems.
var carriers = []string{"access_token", "assertion", "code", "device_code", "refresh_token"}

// checkTaken refuses two parameters that would come under one name: which of
// their values were sent would be luck.
func checkTaken(word string, params, rename map[string]string, drop, own []string) error {
	for _, name := range slices.Sorted(maps.Keys(rename)) {
		to := rename[name]
		_, further := params[to]
		_, away := rename[to]
		if to == name || away || slices.Contains(drop, name) || slices.Contains(drop, to) || !further && !slices.Contains(own, to) ||
			slices.Contains(carriers, name) && slices.Contains(carriers, to) {
			continue
		}
		return fmt.Errorf("%s.rename.%s %q is the name of another of its parameters", word, name, to)
	}
	return nil
}

// checkRequests checks the requests for a token.
func (e Entry) checkRequests() error {
	type request struct {
		word, urlWord, url string
		how                RequestEntry
	}
	requests := []request{
		{"token", "token_url", e.TokenURL, e.Token},
		{"refresh", "refresh.url", e.Refresh.URL, e.Refresh.RequestEntry},
	}
	if e.Exchange != nil {
		requests = append(requests, request{"exchange", "exchange.url", e.Exchange.URL, e.Exchange.RequestEntry})
	}
	if e.Exchange != nil && e.Refresh.With != withAccess {
		return errors.New("exchange needs refresh.with access_token: the token that the code brings is what it sends")
	}
	for _, r := range requests {
		for _, name := range slices.Sorted(maps.Keys(r.how.Params)) {
			if name != "grant_type" && slices.Contains(ownTokenParams, name) {
				return fmt.Errorf("%s.params %q is set by Lanyard itself", r.word, name)
			}
		}
		whole := e.Token.over(r.how) // what it drops may be a parameter of token
		if err := checkNames(r.word, whole.Params, whole.Rename, whole.Drop, ownTokenParams); err != nil {
			return err
		}
		if r.url == "" {
			r.urlWord, r.url = "token_url", e.TokenURL
		}
		if err := checkQuery(r.url, whole.Params, whole.Rename, whole.Drop, ownTokenParams); err != nil {
			return fmt.Errorf("%s %w", r.urlWord, err)
		}
		if err := checkHeaders(r.word+".headers", r.how.Headers); err != nil {
			return err
		}
		if whole.Method == http.MethodGet && whole.Body != "" && whole.Body != bodyQuery {
			return fmt.Errorf("%s.body %q does not go with method GET, which has no body", r.word, whole.Body)
		}
	}
	return nil
}

// checkRevoke checks the request that revokes.
func (e Entry) checkRevoke() error {
	r := e.Revoke
	if err := checkNames("revoke", r.Params, nil, nil, nil); err != nil {
		return err
	}
	client := clientNames(e.Token.Rename)
	own := []string{"client_assertion", "client_assertion_type", cmp.Or(client["client_id"], "client_id"), cmp.Or(client["client_secret"], "client_secret")}
	if slices.Contains(own, r.Param) {
		return fmt.Errorf("revoke.param %q is a name of the client's", r.Param)
	}
	if r.Token != tokenNone && !r.Inject {
		own = append(own, cmp.Or(r.Param, "token"))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Params)) {
		if slices.Contains(own, name) {
			return fmt.Errorf("revoke.params %q is set by Lanyard itself", name)
		}
	}
	if err := checkQuery(e.RevokeURL, r.Params, nil, nil, own); err != nil {
		return fmt.Errorf("revoke_url %w", err)
	}
	if err := checkHeaders("revoke.headers", r.Headers); err != nil {
		return err
	}
	switch {
	case r.Param != "" && !paramWord.MatchString(r.Param):
		return fmt.Errorf("revoke.param %q is no name of a parameter", r.Param)
	case r.Inject && r.Param != "":
		return errors.New("revoke.param does not go with inject: the token is where it is on any request to the API")
	case r.Body == bodyNone && len(r.Params) > 0:
		return errors.New("revoke.params does not go with body none")
	case r.Method == http.MethodGet && (r.Body == bodyForm || r.Body == bodyJSON):
		return fmt.Errorf("revoke.body %q does not go with method GET, which has no body", r.Body)
	}
	return nil
}

// checkRevokeToken refuses a revocation that says of no token.
func (e Entry) checkRevokeToken() error {
	if e.Revoke.Body == bodyNone && !e.Revoke.Inject && e.RevokeURL != "" && !strings.Contains(e.RevokeURL, tokenVar) {
		return errors.New("revoke.body none leaves the token out: write {token} into revoke_url, or say inject")
	}
	return nil
}

// checkInject checks what requests to the API carry.
func (e Entry) checkInject() error {
	in := e.Inject
	switch {
	case in.Query != "" && (in.Header != "" || in.Prefix != ""):
		return errors.New("inject: give either header, with its prefix, or query")
	case in.Query != "" && !queryName.MatchString(in.Query):
		return fmt.Errorf("inject.query %q is not a name of A-Z a-z 0-9 _ . ~ -", in.Query)
	case in.Header != "" && checkCarrier(in.Header) != nil:
		return fmt.Errorf("inject.header %w", checkCarrier(in.Header))
	case in.Prefix != "" && in.Prefix != prefixNone:
		if err := checkPrefix("inject.prefix", in.Prefix, nil); err != nil {
			return err
		}
	}
	// The credential's own headers, under each scheme that the entry can have.
	carriers := []string{http.CanonicalHeaderKey(e.Key.Header)}
	switch {
	case in.Header != "":
		carriers = append(carriers, http.CanonicalHeaderKey(in.Header))
	case in.Query == "":
		carriers = append(carriers, authorizationHeader)
	}
	if err := checkHeaders("inject.headers", in.Headers, carriers...); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(in.Params)) {
		switch {
		case !queryName.MatchString(name):
			return fmt.Errorf("inject.params %q is not a name of A-Z a-z 0-9 _ . ~ -", name)
		case name == in.Query || name == e.Key.Query:
			return fmt.Errorf("inject.params %q is the parameter of the credential", name)
		case in.Params[name] == "":
			return fmt.Errorf("inject.params.%s has no value", name)
		}
	}
	return nil
}

// checkCarrier refuses a header that can carry no credential.
func checkCarrier(name string) error {
	canonical := http.CanonicalHeaderKey(name)
	if !httpguts.ValidHeaderFieldName(name) || slices.Contains(ownHeaders, canonical) || canonical == "Accept" || canonical == "User-Agent" ||
		strings.HasPrefix(canonical, "Lanyard-") || strings.HasPrefix(canonical, "Proxy-") {
		return fmt.Errorf("%q is no header for a key", name)
	}
	return nil
}

// checkPrefix checks what stands before a credential in its header; it may have
// those of names in braces.
func checkPrefix(word, prefix string, names []string) error {
	if !httpguts.ValidHeaderFieldValue(prefix) {
		return fmt.Errorf("%s %q can't stand in a header", word, prefix)
	}
	for _, name := range textNames(prefix) {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%s %q has {%s}, which can't stand there", word, prefix, name)
		}
	}
	if prefix != "" && isWord(prefix[len(prefix)-1]) {
		return fmt.Errorf("%s %q runs into the key: end it in what stands between them, such as %q", word, prefix, prefix+" ")
	}
	return nil
}
