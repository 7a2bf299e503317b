package fakeprovider

import (
	_ "embed" // the page and its style
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

//go:embed authorize.html
var authorizeHTML string

//go:embed style.css
var styleCSS []byte

var authorizePage = template.Must(template.New("authorize").Parse(authorizeHTML))

// authRequest is an authorization request (RFC 6749 section 4.1.1).
type authRequest struct {
	clientID    string
	redirectURI string
	state       string
	challenge   string
	scopes      []string
	formPost    bool
}

type authorizeView struct {
	Title   string
	Problem string // what is wrong with the request; empty: ask for consent
	Client  string
	User    User
	Users   []User // to choose from; none: it is User
	Scopes  []string
	Host    string // where the browser goes next
}

// serveAuthorize is the authorization endpoint: GET asks the user, POST takes
// the answer, both with the request in the query.
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "GET or POST only", http.StatusMethodNotAllowed)
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.page(w, http.StatusBadRequest, authorizeView{Problem: "The address of this page can't be read."})
		return
	}
	req, problem, code := s.readAuthRequest(q)
	if problem != "" {
		// RFC 6749 section 4.1.2.1: without a registered redirect URI the
		// browser must not be sent anywhere.
		s.page(w, http.StatusBadRequest, authorizeView{Problem: problem})
		return
	}
	if code != "" {
		s.redirect(w, r, req, url.Values{"error": {code}}, Fault{})
		return
	}
	if r.Method == http.MethodPost {
		s.decide(w, r, req)
		return
	}
	s.mu.Lock()
	user := s.user
	s.mu.Unlock()
	host := req.redirectURI
	if u, err := url.Parse(req.redirectURI); err == nil {
		host = u.Host
	}
	s.page(w, http.StatusOK, authorizeView{
		Client: req.clientID, User: user, Users: s.accounts(user), Scopes: req.scopes, Host: host,
	})
}

// readAuthRequest checks an authorization request. problem is for a page,
// code is an error of RFC 6749 section 4.1.2.1 for the redirect URI.
func (s *Server) readAuthRequest(q url.Values) (req authRequest, problem, code string) {
	for name, values := range q {
		if len(values) > 1 {
			return req, "The app's request says " + name + " twice.", ""
		}
	}
	req = authRequest{
		clientID: q.Get("client_id"), redirectURI: q.Get("redirect_uri"), state: q.Get("state"),
		challenge: q.Get("code_challenge"), scopes: strings.Fields(q.Get("scope")),
		formPost: s.cfg.FormPost || q.Get("response_mode") == "form_post",
	}
	if req.clientID == "" || (s.cfg.ClientID != "" && req.clientID != s.cfg.ClientID) {
		return req, "No app is registered here with this client ID.", ""
	}
	u, err := url.Parse(req.redirectURI)
	if err != nil || !u.IsAbs() || u.Fragment != "" ||
		(len(s.cfg.RedirectURIs) > 0 && !slices.Contains(s.cfg.RedirectURIs, req.redirectURI)) {
		return req, "The address to return to is not registered for this app.", ""
	}
	switch method := q.Get("code_challenge_method"); {
	case q.Get("response_type") != "code":
		return req, "", "unsupported_response_type"
	case req.challenge == "" && (s.cfg.RequirePKCE || method != ""), req.challenge != "" && method != "S256":
		return req, "", "invalid_request"
	case slices.ContainsFunc(req.scopes, func(sc string) bool { return !s.scopeKnown(sc) }):
		return req, "", "invalid_scope"
	}
	return req, "", ""
}

// decide takes the user's answer.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, req authRequest) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.page(w, http.StatusBadRequest, authorizeView{Problem: "The answer can't be read."})
		return
	}
	switch r.PostForm.Get("decision") {
	case "allow":
	case "deny":
		s.redirect(w, r, req, url.Values{"error": {"access_denied"}, "error_description": {"The user said no"}}, Fault{})
		return
	default:
		s.page(w, http.StatusBadRequest, authorizeView{Problem: "The answer was neither allow nor deny."})
		return
	}
	f := s.Faults.take(endpointAuthorize, "")
	f.waitBefore(r.Context())
	switch {
	case f.refuse != nil:
		s.redirect(w, r, req, url.Values{"error": {f.refuse.code}, "error_description": {f.refuse.description}}, f)
		return
	case f.fails():
		f.send(w, f.answerFor(nil))
		return
	}
	scopes := slices.DeleteFunc(slices.Clone(req.scopes), func(sc string) bool { return !slices.Contains(r.PostForm["scope"], sc) })
	if f.scopes != nil {
		scopes = f.scopes
	}
	s.redirect(w, r, req, url.Values{"code": {s.newCode(req, scopes, s.account(r.PostForm.Get("account")))}}, f)
}

// redirect sends the browser back to the client (RFC 6749 section 4.1.2) with
// the issuer (RFC 9207).
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, req authRequest, params url.Values, f Fault) {
	u, err := url.Parse(req.redirectURI)
	if err != nil { // checked by readAuthRequest
		http.Error(w, "bad redirect URI", http.StatusBadRequest)
		return
	}
	if req.state != "" {
		params.Set("state", req.state)
	}
	iss := s.base(r)
	if f.iss != nil {
		iss = *f.iss
	}
	if iss != "" {
		params.Set("iss", iss)
	}
	if req.formPost {
		s.formPost(w, req.redirectURI, params)
		return
	}
	// The registered URI's own query is kept (RFC 6749 section 3.1.2).
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += params.Encode()
	pageHeaders(w)
	w.Header().Set("Location", u.String())
	w.WriteHeader(http.StatusSeeOther)
}

func (s *Server) page(w http.ResponseWriter, status int, v authorizeView) {
	v.Title = s.cfg.Title
	var b strings.Builder
	if err := authorizePage.Execute(&b, v); err != nil {
		http.Error(w, "page can't be shown", http.StatusInternalServerError)
		return
	}
	pageHeaders(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(b.String()))
}

// pageHeaders sets what every page carries. There is no form-action: Chromium
// applies it to the redirects that follow a form, and Allow leads to the
// client and on to wherever the client sends the browser.
func pageHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

func serveStyle(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "max-age=300")
	_, _ = w.Write(styleCSS)
}
