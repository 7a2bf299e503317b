package fakeprovider

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	grantTypeCode    = "authorization_code"
	grantTypeRefresh = "refresh_token"
	grantTypeSelf    = "fb_exchange_token" // with Config.SelfRenewal
)

// maxForm bounds what the endpoints read: 1 MiB is far over any honest form.
const maxForm = 1 << 20

// serveToken is the token endpoint (RFC 6749 section 3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	at := s.stages(r.Host)
	form, refusal := readForm(w, r)
	id, auth, secret := clientCredentials(r, form)
	grantID, number := s.grantOf(form)
	grantType := form.Get("grant_type")
	n := s.openPost(TokenPost{
		At: time.Now().UTC(), Host: r.Host, GrantType: grantType, Grant: grantID, Client: id, Auth: auth,
		Params: slices.Sorted(maps.Keys(form)), RefreshNumber: number,
	})
	at(Received, grantID)

	var f Fault
	if s.overLimit() {
		f = RetryAfter(http.StatusTooManyRequests, "1")
		f.name = OutcomeLimited
	} else {
		f = s.Faults.take(endpointToken, grantType)
	}
	f.waitBefore(r.Context())
	if f.fails() && !f.commit {
		s.closePost(n, func(p *TokenPost) { p.Outcome = f.name })
		f.send(w, f.answerFor(nil))
		at(Answered, grantID)
		return
	}

	var fields map[string]any
	reused := false
	if refusal == nil && (grantType != grantTypeJWT || auth != "none") { // an assertion is proof enough
		refusal = s.checkClient(id, auth, secret)
	}
	if refusal == nil {
		fields, reused, refusal = s.redeem(r, id, auth, form, f.scopes)
	}
	if refusal != nil {
		s.closePost(n, func(p *TokenPost) { p.Outcome, p.Reused = refusal.code, reused })
		Fault{}.send(w, refusal.answer())
		at(Answered, grantID)
		return
	}
	s.closePost(n, func(p *TokenPost) { p.Committed, p.Reused = true, reused })
	at(Committed, grantID)
	f.waitAfter(r.Context())
	a := f.answerFor(fields)
	s.closePost(n, func(p *TokenPost) {
		if p.Outcome = OutcomeIssued; f.fails() {
			p.Outcome = f.name
		}
	})
	f.send(w, a)
	at(Answered, grantID)
}

// redeem answers a token request of a client that has proved itself. cut, if not
// nil, is granted instead of what was asked for; reused is that of redeemRefresh.
func (s *Server) redeem(
	r *http.Request, client, auth string, form url.Values, cut []string,
) (fields map[string]any, reused bool, refusal *oauthError) {
	switch form.Get("grant_type") {
	case grantTypeCode:
		fields, refusal = s.redeemCode(client, form, cut)
	case grantTypeRefresh:
		return s.redeemRefresh(client, form, cut)
	case grantTypeSelf:
		fields, refusal = s.renewAccess(client, form)
	case grantTypeClient:
		fields, refusal = s.clientGrant(client, auth, form, cut)
	case grantTypeJWT:
		fields, refusal = s.redeemAssertion(s.base(r), form, cut)
	case grantTypeDevice:
		fields, refusal = s.redeemDevice(client, form, cut)
	default:
		refusal = badRequest("unsupported_grant_type", "")
	}
	return fields, false, refusal
}

// openPost enters a token request in the ledger and returns its place there.
func (s *Server) openPost(p TokenPost) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts = append(s.posts, p)
	return len(s.posts) - 1
}

func (s *Server) closePost(n int, change func(*TokenPost)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.posts[n])
}

// readForm reads a form body. The form is never nil.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *oauthError) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return url.Values{}, badRequest("invalid_request", "the form can't be read")
	}
	if len(r.PostForm) == 0 {
		return url.Values{}, badRequest("invalid_request", "no form in the body")
	}
	for name, values := range r.PostForm {
		// RFC 6749 section 3.2: "parameters MUST NOT be included more than once".
		if len(values) > 1 {
			return r.PostForm, badRequest("invalid_request", "repeated parameter "+name)
		}
	}
	return r.PostForm, nil
}

// clientCredentials returns what the client says it is, and how it said it:
// basic, post, none, or both, which is refused.
func clientCredentials(r *http.Request, form url.Values) (id, auth, secret string) {
	basic, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic ")
	switch {
	case ok && form.Has("client_secret"):
		return "", "both", ""
	case ok:
		raw, err := base64.StdEncoding.DecodeString(basic)
		if err != nil {
			return "", "basic", ""
		}
		id, secret, _ = strings.Cut(string(raw), ":")
		if u, err := url.QueryUnescape(id); err == nil {
			id = u
		}
		return id, "basic", secret
	case form.Has("client_secret"):
		return form.Get("client_id"), "post", form.Get("client_secret")
	}
	return form.Get("client_id"), "none", ""
}

// checkClient authenticates the client (RFC 6749 section 2.3.1). The secret
// of the Basic form comes as it was sent, form encoding included.
func (s *Server) checkClient(id, auth, secret string) *oauthError {
	if auth == "basic" && s.cfg.ClientAuth != "basic_raw" {
		// "The client identifier is encoded using the
		// application/x-www-form-urlencoded encoding algorithm", the secret too.
		u, err := url.QueryUnescape(secret)
		if err != nil {
			return &oauthError{http.StatusUnauthorized, "invalid_client", "client secret is not form-encoded"}
		}
		secret = u
	}
	want := s.cfg.ClientAuth
	switch {
	case auth == "both":
		return badRequest("invalid_request", "client authenticated twice")
	case s.cfg.ClientID != "" && id != s.cfg.ClientID:
		return &oauthError{http.StatusUnauthorized, "invalid_client", "unknown client"}
	case want == "none" || s.cfg.ClientID == "":
		return nil
	case auth == "none", want == "post" && auth != "post", strings.HasPrefix(want, "basic") && auth != "basic":
		return &oauthError{http.StatusUnauthorized, "invalid_client", "the client must authenticate otherwise"}
	case secret != s.cfg.ClientSecret:
		return &oauthError{http.StatusUnauthorized, "invalid_client", "wrong client secret"}
	}
	return nil
}

// serveRevoke is the revocation endpoint (RFC 7009). A refresh token ends its
// grant; an access token ends alone.
func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) {
	rev := Revocation{At: time.Now().UTC()}
	form, a, f := s.guarded(w, r, endpointRevoke)
	s.mu.Lock()
	if a == nil {
		if t, ok := s.refresh[form.Get("token")]; ok {
			rev.Kind, rev.Grant = "refresh_token", t.grant.id
			t.grant.revoked = true
		} else if t, ok := s.access[form.Get("token")]; ok {
			rev.Kind, rev.Grant = "access_token", t.grant.id
			t.dead = true
		}
		// Section 2.2: 200 for an unknown token too.
		a = &answer{status: http.StatusOK}
	}
	if !f.drop {
		rev.Status = a.status
	}
	s.revocations = append(s.revocations, rev)
	s.mu.Unlock()
	f.send(w, *a)
}

// serveIntrospect is the introspection endpoint (RFC 7662).
func (s *Server) serveIntrospect(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.introspections++
	s.mu.Unlock()
	form, a, f := s.guarded(w, r, endpointIntrospect)
	if a != nil {
		f.send(w, *a)
		return
	}
	fields := map[string]any{"active": false}
	text := form.Get("token")
	if t, live := s.liveAccess(text); live {
		fields = map[string]any{
			"active": true, "token_type": "Bearer", "scope": strings.Join(t.scopes, " "), "client_id": t.grant.client,
			"sub": t.grant.user.ID, "username": t.grant.user.Name, "exp": t.expires.Unix(),
		}
	} else if sub, client, live := s.liveRefresh(text); live {
		fields = map[string]any{"active": true, "client_id": client, "sub": sub}
	}
	writeJSON(w, http.StatusOK, fields)
}

func (s *Server) liveRefresh(text string) (sub, client string, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.refresh[text]
	if !ok || t.grant.revoked || !t.redeemed.IsZero() || (!t.expires.IsZero() && time.Now().After(t.expires)) {
		return "", "", false
	}
	return t.grant.user.ID, t.grant.client, true
}

// guarded reads the form of an endpoint for registered clients, with its
// faults. Where the endpoint is not to process the request, it returns what to
// answer instead, and the fault to send it with.
func (s *Server) guarded(w http.ResponseWriter, r *http.Request, at endpoint) (url.Values, *answer, Fault) {
	if r.Method != http.MethodPost {
		return nil, &answer{status: http.StatusMethodNotAllowed, header: http.Header{"Allow": {http.MethodPost}}}, Fault{}
	}
	form, refusal := readForm(w, r)
	f := s.Faults.take(at, "")
	f.waitBefore(r.Context())
	if f.fails() {
		a := f.answerFor(map[string]any{})
		return nil, &a, f
	}
	if refusal == nil {
		refusal = s.checkClient(clientCredentials(r, form))
	}
	if refusal != nil {
		a := refusal.answer()
		return nil, &a, Fault{}
	}
	return form, nil, f
}
