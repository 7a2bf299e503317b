package fakeprovider

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// masked stands for a credential in what the API shows of a request.
const masked = "[masked]"

// keyCaller returns what the request's key or password stands for: all scopes of
// the account that is signed in. A request with two credentials has none.
func (s *Server) keyCaller(r *http.Request) (accessToken, bool) {
	var given []bool
	if text := r.Header.Values(s.cfg.KeyHeader); s.cfg.APIKey != "" && s.cfg.KeyHeader != "" && len(text) > 0 {
		if s.cfg.KeyHeader != "Authorization" || !strings.HasPrefix(text[0], "Basic ") {
			given = append(given, len(text) == 1 && text[0] == s.cfg.KeyPrefix+s.cfg.APIKey)
		}
	}
	if q := r.URL.Query(); s.cfg.APIKey != "" && s.cfg.KeyQuery != "" && q.Has(s.cfg.KeyQuery) {
		given = append(given, len(q[s.cfg.KeyQuery]) == 1 && q.Get(s.cfg.KeyQuery) == s.cfg.APIKey)
	}
	if text := r.Header.Values("Authorization"); s.cfg.BasicUser != "" && len(text) > 0 && strings.HasPrefix(text[0], "Basic ") {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(s.cfg.BasicUser+":"+s.cfg.BasicPassword))
		given = append(given, len(text) == 1 && text[0] == want)
	}
	if len(given) != 1 || !given[0] {
		return accessToken{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return accessToken{grant: &grant{user: s.user}, scopes: s.cfg.Scopes, expires: time.Now().Add(time.Hour)}, true
}

func maskKey(h http.Header, cfg Config) {
	if cfg.APIKey == "" || cfg.KeyHeader == "" || http.CanonicalHeaderKey(cfg.KeyHeader) == "Authorization" {
		return
	}
	for i := range h[http.CanonicalHeaderKey(cfg.KeyHeader)] {
		h[http.CanonicalHeaderKey(cfg.KeyHeader)][i] = cfg.KeyPrefix + masked
	}
}

// maskQuery masks the key in a query, and leaves all else as it is.
func (s *Server) maskQuery(query string) string {
	if s.cfg.APIKey == "" {
		return query
	}
	return strings.ReplaceAll(query, url.QueryEscape(s.cfg.APIKey), masked)
}

// accounts returns what may be chosen at the consent, none where there is no
// choice.
func (s *Server) accounts(signedIn User) []User {
	if len(s.cfg.Users) == 0 {
		return nil
	}
	return append([]User{signedIn}, s.cfg.Users...)
}

// account returns the account with this ID, who is signed in if there is none.
func (s *Server) account(id string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.cfg.Users, func(u User) bool { return u.ID == id }); i >= 0 {
		return s.cfg.Users[i]
	}
	return s.user
}
