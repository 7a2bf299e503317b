package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Fields of an answer that may stand elsewhere (AnswerEntry.Paths).
var answerFields = []string{
	"access_token", "error", "expires_at", "expires_in", "refresh_expires_in", "refresh_token", "scope", "token_type",
}

// Parameters of the authorization request that are Lanyard's own.
var ownParams = []string{
	"client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state",
}

// Parameters of requests for a token that are Lanyard's own.
var ownTokenParams = []string{
	"access_token", "assertion", "client_assertion", "client_assertion_type", "client_id", "client_secret", "code", "code_verifier",
	"device_code", "grant_type", "redirect_uri", "refresh_token", "scope",
}

// errorCode is the form of an error code that is shown.
var errorCode = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`)

// errorText is the form of a listed error that has no code: Twitch's "invalid
// refresh token".
var errorText = regexp.MustCompile(`^[!-~]([ -~]{0,126}[!-~])?$`)

// scopeToken is RFC 6749 section 3.3.
var scopeToken = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)

// paramWord is the name of a parameter of a request.
var paramWord = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]{1,64}$`)

func (e Entry) checkChoices() error {
	var exchange RequestEntry
	if e.Exchange != nil {
		exchange = e.Exchange.RequestEntry
	}
	err := oneOf([]choice{
		{"client_auth", e.ClientAuth},
		{"client_assertion.issuer", e.ClientAssertion.Issuer},
		{"token.method", e.Token.Method},
		{"token.body", e.Token.Body},
		{"exchange.method", exchange.Method},
		{"exchange.body", exchange.Body},
		{"refresh.method", e.Refresh.Method},
		{"refresh.body", e.Refresh.Body},
		{"refresh.with", e.Refresh.With},
		{"refresh.rotation", e.Refresh.Rotation},
		{"revoke.method", e.Revoke.Method},
		{"revoke.client_auth", e.Revoke.ClientAuth},
		{"revoke.body", e.Revoke.Body},
		{"revoke.token", e.Revoke.Token},
		{"account.method", e.Account.Method},
	})
	switch {
	case err != nil:
		return err
	case e.ClientAssertion != (ClientAssertionEntry{}) && e.ClientAuth != AuthPrivateKeyJWT:
		return fmt.Errorf("client_assertion goes with client_auth %s only", AuthPrivateKeyJWT)
	}
	return nil
}

func (e Entry) checkLists() error {
	for _, s := range e.Scopes {
		if !scopeToken.MatchString(s) {
			return fmt.Errorf("scopes %q is not a scope (RFC 6749 section 3.3)", s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(e.ScopeTexts)) {
		if len(e.Scopes) > 0 && !slices.Contains(e.Scopes, s) {
			return fmt.Errorf("scope_texts %q is not one of scopes", s)
		}
	}
	for _, list := range []struct {
		word   string
		scopes []string
	}{{"account.scopes", e.Account.Scopes}, {"refresh.scopes", e.Refresh.Scopes}} {
		for _, s := range list.scopes {
			if !scopeToken.MatchString(s) || len(e.Scopes) > 0 && !slices.Contains(e.Scopes, s) {
				return fmt.Errorf("%s %q is none of the provider's scopes", list.word, s)
			}
		}
	}
	for _, word := range e.Answer.TokenTypes {
		if word == "" || word != strings.ToLower(word) || !typeName.MatchString(word) {
			return fmt.Errorf("answer.token_types %q is not a token type in lower case", word)
		}
	}
	for _, list := range []struct {
		word  string
		codes []string
	}{{"errors.dead", e.Errors.Dead}, {"errors.client", e.Errors.Client}, {"errors.denied", e.Errors.Denied}} {
		for _, code := range list.codes {
			if !errorText.MatchString(code) || code != strings.ToLower(code) {
				return fmt.Errorf("%s %q is not an error code, or text, in lower case", list.word, code)
			}
		}
	}
	return nil
}

// isCredential reports whether a token stands at a path of an answer.
func (e *Entry) isCredential(path string) bool {
	for _, field := range []string{"access_token", "refresh_token", "id_token"} {
		if path == field || strings.HasSuffix(path, "."+field) || path == e.Answer.Paths[field] {
			return true
		}
	}
	return false
}

// checkPaths checks the paths into answers.
func (e Entry) checkPaths() error {
	for _, field := range slices.Sorted(maps.Keys(e.Answer.Paths)) {
		if !slices.Contains(answerFields, field) {
			return fmt.Errorf("answer.paths %q is not one of %s", field, strings.Join(answerFields, ", "))
		}
		if err := checkPath(e.Answer.Paths[field]); err != nil {
			return fmt.Errorf("answer.paths.%s %w", field, err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(e.Answer.Success)) {
		if err := checkPath(path); err != nil {
			return fmt.Errorf("answer.success %w", err)
		}
		if e.Answer.Success[path] == "" {
			return fmt.Errorf("answer.success %q has no value to compare with", path)
		}
	}
	for _, at := range []struct{ word, path string }{{"account.id", e.Account.ID}, {"account.name", e.Account.Name}, {"account.email", e.Account.Email}} {
		if names := textNames(at.path); len(names) == 1 && at.path == "{"+names[0]+"}" && at.word == "account.id" {
			if _, declared := e.Params[names[0]]; !declared {
				return fmt.Errorf("account.id %q is none of its params", at.path)
			}
			continue
		}
		if at.path == "" {
			continue
		}
		if err := checkPath(at.path); err != nil {
			return fmt.Errorf("%s %w", at.word, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		from, path, _ := strings.Cut(e.Params[name].From, ".")
		if from == fromAccount && e.Account.URL == "" {
			return fmt.Errorf("params.%s.from %q needs account.url", name, e.Params[name].From)
		}
		switch {
		case from == "":
			continue
		case e.isCredential(path):
			return fmt.Errorf("params.%s.from %q is a token: what is kept of an answer is shown to the app", name, e.Params[name].From)
		case from == fromCallback && slices.Contains([]string{cmp.Or(e.Callback.Code, "code"), e.Callback.HMAC, "state"}, path):
			return fmt.Errorf("params.%s.from %q is a secret: what is kept of an answer is shown to the app", name, e.Params[name].From)
		case from == fromCallback && !paramWord.MatchString(path):
			return fmt.Errorf("params.%s.from %q is no parameter of an authorization response", name, e.Params[name].From)
		case from == fromCallback:
			continue
		}
		if err := checkPath(path); err != nil {
			return fmt.Errorf("params.%s.from %w", name, err)
		}
	}
	return nil
}

// checkPath checks a path into an answer (AnswerEntry).
func checkPath(path string) error {
	wrong := fmt.Errorf("%q is no path: names, numbers and [name=value] with dots between them", path)
	for rest := path; ; {
		var step string
		step, rest = cutPath(rest)
		if test, ok := strings.CutPrefix(step, "["); ok {
			name, _, compared := strings.Cut(test, "=")
			if !compared || name == "" || !strings.HasSuffix(test, "]") || strings.Count(step, "]") != 1 {
				return wrong
			}
		} else if step == "" || strings.ContainsAny(step, "[]") {
			return wrong
		}
		if rest == "" {
			break
		}
	}
	if strings.HasSuffix(path, ".") {
		return wrong
	}
	return nil
}

func (e Entry) checkAuthorize() error {
	for _, name := range slices.Sorted(maps.Keys(e.Authorize.Params)) {
		if slices.Contains(ownParams, name) {
			return fmt.Errorf("authorize.params %q is set by Lanyard itself", name)
		}
	}
	if err := checkNames("authorize", e.Authorize.Params, e.Authorize.Rename, e.Authorize.Drop, ownParams); err != nil {
		return err
	}
	if _, ok := e.Authorize.Rename["state"]; ok || slices.Contains(e.Authorize.Drop, "state") {
		return errors.New("authorize: state has to stay as it is: without it a response belongs to nobody")
	}
	if strings.ContainsAny(e.Authorize.Fragment, "#{}") || strings.IndexFunc(e.Authorize.Fragment, notVisible) >= 0 {
		return fmt.Errorf("authorize.fragment %q is not what can stand behind a #, without it", e.Authorize.Fragment)
	}
	if sep := e.Authorize.ScopeSeparator; len(sep) > 3 || sep != "" && strings.ContainsFunc(sep, isWordRune) {
		return fmt.Errorf("authorize.scope_separator %q is not what stands between scopes, such as a comma", sep)
	}
	if err := e.checkAuthorizeQuery(e.AuthorizeURL); err != nil {
		return fmt.Errorf("authorize_url %w", err)
	}
	return nil
}

// checkAuthorizeQuery refuses an authorization endpoint that says what Lanyard
// says itself, in the words of OAuth or the provider's.
func (e Entry) checkAuthorizeQuery(rawURL string) error {
	if err := checkQuery(rawURL, nil, nil, nil, ownParams); err != nil {
		return err
	}
	return checkQuery(rawURL, e.Authorize.Params, e.Authorize.Rename, e.Authorize.Drop, ownParams)
}

// checkQuery refuses a URL that has of itself what a request's own or further
// parameters are called there: which of the two holds would be the provider's
// guess. The error goes on behind the URL's name.
func checkQuery(rawURL string, params, rename map[string]string, drop, own []string) error {
	for part := range strings.SplitSeq(rawURL, "#") {
		_, query, _ := strings.Cut(part, "?")
		there, err := url.ParseQuery(query)
		if err != nil {
			return errors.New("has a query that can't be read")
		}
		for _, name := range slices.Concat(own, slices.Sorted(maps.Keys(params))) {
			if sent := cmp.Or(rename[name], name); !slices.Contains(drop, name) && there.Has(sent) {
				return fmt.Errorf("must not set %q: Lanyard does itself", sent)
			}
		}
	}
	return nil
}

func (e Entry) checkCallback() error {
	c := e.Callback
	for _, w := range []struct{ word, value string }{{"callback.code", c.Code}, {"callback.scope", c.Scope}, {"callback.hmac", c.HMAC}} {
		if w.value != "" && (!paramWord.MatchString(w.value) || w.value == "state" || w.value == "error") {
			return fmt.Errorf("%s %q is no parameter of an authorization response", w.word, w.value)
		}
	}
	return nil
}

func (e Entry) checkTimes() error {
	if _, err := parseLife(e.Answer.Life); err != nil {
		return fmt.Errorf("answer.life %w", err)
	}
	if life, err := parseLife(e.Refresh.Life); err != nil || life == forever {
		return fmt.Errorf("refresh.life %q is not a duration such as 720h", e.Refresh.Life)
	}
	if _, err := shortTime(e.Refresh.Margin, maxMargin); err != nil {
		return fmt.Errorf("refresh.margin %w", err)
	}
	if _, err := shortTime(e.Refresh.Pause, maxPause); err != nil {
		return fmt.Errorf("refresh.pause %w", err)
	}
	if _, err := e.Refresh.interval(); err != nil {
		return fmt.Errorf("refresh.interval %w", err)
	}
	if n := e.Refresh.Concurrency; n < 0 || n > maxConcurrency {
		return fmt.Errorf("refresh.concurrency %d is not from 1 to %d", n, maxConcurrency)
	}
	return nil
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }

func isWordRune(r rune) bool { return r < 0x80 && isWord(byte(r)) } //nolint:gosec // below 0x80
