package provider

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

var (
	clientAuths   = []string{AuthBasic, AuthBasicID, AuthBasicRaw, AuthBasicSecret, AuthPost, AuthPrivateKeyJWT, AuthNone}
	requestBodies = []string{bodyForm, bodyJSON, bodyQuery}
	postOrGet     = []string{http.MethodPost, http.MethodGet}
)

// choices are the words that take one of a few values, by their path in an
// entry; `.*` behind a path stands for the names in it.
var choices = map[string][]string{
	"client_auth":             clientAuths,
	"client_assertion.issuer": {jwtClientID, assertionRedirectHost},
	"jwt.issuer":              {jwtClientID, jwtGiven},
	"jwt.subject":             {jwtIssuer, jwtGiven, jwtOptional},
	"jwt.key_id":              {jwtGiven},
	"jwt.scope":               {jwtClaim, jwtParam, jwtNone},
	"jwt.carry":               {jwtParam, jwtBearer},
	"account.method":          {http.MethodGet, http.MethodPost},
	"token.method":            postOrGet,
	"token.body":              requestBodies,
	"exchange.method":         postOrGet,
	"exchange.body":           requestBodies,
	"refresh.method":          postOrGet,
	"refresh.body":            requestBodies,
	"refresh.with":            {withRefresh, withAccess},
	"refresh.rotation":        {RotationSingleUse, RotationGrace, RotationNone},
	"revoke.method":           {http.MethodPost, http.MethodDelete, http.MethodGet},
	"revoke.client_auth":      append(slices.Clone(clientAuths), AuthOmit),
	"revoke.body":             append(slices.Clone(requestBodies), bodyNone),
	"revoke.token":            {tokenAny, tokenAccess, tokenNone},
	"answer.paths.*":          answerFields,
}

// Words returns what the words of an entry may say that take one of a few
// values, by their path such as `refresh.rotation`; `answer.paths.*` are the
// names that answer.paths may have.
func Words() map[string][]string {
	words := maps.Clone(choices)
	for word, right := range words {
		words[word] = slices.Clone(right)
	}
	return words
}

// choice is what a word says that takes one of a few values.
type choice struct{ word, value string }

// oneOf returns the error of the first that is none of its words.
func oneOf(said []choice) error {
	for _, c := range said {
		if right := choices[c.word]; c.value != "" && !slices.Contains(right, c.value) {
			return fmt.Errorf("%s %q is not one of %s", c.word, c.value, strings.Join(right, ", "))
		}
	}
	return nil
}
