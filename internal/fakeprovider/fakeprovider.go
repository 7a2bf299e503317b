// Package fakeprovider is an OAuth 2 authorization server and its API in one
// http.Handler: consent page, token endpoint with rotation and reuse
// detection, revocation, introspection, metadata, and an API that checks
// tokens. Tests make it fail on demand (Faults) and read from its Ledger what
// was asked of it; the demo shows it as a provider of its own.
//
// Everything it issues is a unique word that begins with fp_, so that a leak
// can be searched for (Secrets).
package fakeprovider

import (
	"context"
	"crypto"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says what kind of provider it is. The zero value is one that takes
// any client, any redirect URI and any scope, and does not rotate.
type Config struct {
	// Issuer is the base URL of all endpoints (RFC 8414). Empty: the address
	// that each request came to.
	Issuer string
	// ClientID is the one registered client. Empty: any.
	ClientID string
	// ClientSecret is that client's secret, compared unless ClientAuth is none.
	ClientSecret string
	// ClientAuth is how the client must authenticate (RFC 6749 section 2.3):
	// basic, basic_raw (without the form encoding), post or none. Empty: basic
	// or post.
	ClientAuth string
	// RedirectURIs are the registered ones, compared exactly. Empty: any.
	RedirectURIs []string
	// Scopes are the ones that may be asked for. Empty: any.
	Scopes []string
	// AccessLife is how long access tokens live. Default: 1 hour.
	AccessLife time.Duration
	// RefreshLife is how long a refresh token lives. Zero: without end.
	RefreshLife time.Duration
	// Rotate gives a new refresh token at each refresh and ends the one before.
	Rotate bool
	// ReuseGrace is how long after a rotation the token before still gets the
	// newest tokens. Used later than that, and always if zero, it revokes the
	// whole grant (RFC 9700 section 4.14.2).
	ReuseGrace time.Duration
	// SelfRenewal gives no refresh tokens for codes: an access token is renewed with
	// itself, by grant type fb_exchange_token and a parameter of that name, and
	// lives on until its own end.
	SelfRenewal bool
	// RequirePKCE refuses authorization requests without a code challenge.
	RequirePKCE bool
	// FormPost makes authorization responses come as a form that is posted, as if
	// each request asked for response_mode=form_post.
	FormPost bool
	// Title is the provider's name on its pages. Default: Fake Provider.
	Title string
	// User is who is signed in at the provider. Default: Ada Lovelace.
	User User
	// Users are further accounts, one of which may be chosen at the consent.
	Users []User

	// APIKey opens the API beside tokens, in the header KeyHeader, behind
	// KeyPrefix, and in the query parameter KeyQuery; both empty: X-Api-Key. Empty:
	// there is none.
	APIKey, KeyHeader, KeyPrefix, KeyQuery string
	// BasicUser and BasicPassword open the API by HTTP Basic. Empty: nobody does.
	BasicUser, BasicPassword string
	// DeviceInterval is the time between two polls of a device, in whole seconds.
	// Default: 1 second.
	DeviceInterval time.Duration
}

// User is an account at the provider.
type User struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Stage is a point in the life of a token request at which tests may act.
type Stage string

// The stages of a token request, in order.
const (
	Received  Stage = "received"  // read, nothing has happened yet
	Committed Stage = "committed" // tokens were issued, no answer was sent
	Answered  Stage = "answered"  // the whole answer is on the socket
)

// Server is the provider. Make one with New; all methods are safe for
// concurrent use.
type Server struct {
	// Faults makes requests fail on demand.
	Faults Faults

	cfg Config

	mu             sync.Mutex // guards all below
	issuer         string
	user           User
	limit          int         // of token requests a second; 0: none
	lately         []time.Time // when the last token requests within the limit arrived
	accessLife     time.Duration
	hook           func(host string, stage Stage, grantID string)
	grants         []*grant
	codes          map[string]*code         // :: authorization code → what it stands for
	access         map[string]*accessToken  // :: access token → what it stands for
	refresh        map[string]*refreshToken // :: refresh token → what it stands for
	issued         []string                 // every code and token, in order
	posts          []TokenPost
	calls          map[Call]int
	revocations    []Revocation
	introspections int
	own            map[string]*grant           // :: who, other than by consent → grant
	signers        map[string]crypto.PublicKey // :: iss of assertions → whose key signs them
	assertionIDs   map[string]bool             // :: jti of assertions that were taken → true
	devices        map[string]*device          // :: device code → what it waits for
	slowDowns      int                         // polls of devices that are answered slow_down
}

// New returns a provider.
func New(cfg Config) *Server {
	if cfg.AccessLife <= 0 {
		cfg.AccessLife = time.Hour
	}
	if cfg.Title == "" {
		cfg.Title = "Fake Provider"
	}
	if cfg.User == (User{}) {
		cfg.User = User{ID: "ada", Name: "Ada Lovelace", Email: "ada@provider.test"}
	}
	if cfg.KeyHeader == "" && cfg.KeyQuery == "" {
		cfg.KeyHeader = "X-Api-Key"
	}
	if cfg.DeviceInterval < time.Second {
		cfg.DeviceInterval = time.Second
	}
	return &Server{
		cfg:        cfg,
		issuer:     strings.TrimSuffix(cfg.Issuer, "/"),
		user:       cfg.User,
		accessLife: cfg.AccessLife,
		codes:      map[string]*code{},
		access:     map[string]*accessToken{},
		refresh:    map[string]*refreshToken{},
		calls:      map[Call]int{},

		own: map[string]*grant{}, signers: map[string]crypto.PublicKey{}, assertionIDs: map[string]bool{},
		devices: map[string]*device{},
	}
}

// SetIssuer sets the base URL, where it is known only once a listener is open.
func (s *Server) SetIssuer(issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuer = strings.TrimSuffix(issuer, "/")
}

// SetUser says who is signed in from now on. Grants already given keep theirs.
func (s *Server) SetUser(u User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = u
}

// SetAccessLife says how long access tokens issued from now on live.
func (s *Server) SetAccessLife(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accessLife = d
}

// LimitTokenRequests lets the token endpoint take n requests in any second, and
// answer those that are over it with 429 and Retry-After. Zero takes it back.
func (s *Server) LimitTokenRequests(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit, s.lately = n, nil
}

// overLimit counts a token request, and reports whether it is one too many.
func (s *Server) overLimit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == 0 {
		return false
	}
	now := time.Now()
	if len(s.lately) == s.limit {
		if now.Sub(s.lately[0]) < time.Second {
			return true
		}
		s.lately = s.lately[1:]
	}
	s.lately = append(s.lately, now)
	return false
}

// OnTokenRequest sets a function that is called at each stage of each token
// request that arrives from now on, in the request's own goroutine; grantID is
// empty where the request names no known grant. The request goes on when the
// function returns.
func (s *Server) OnTokenRequest(f func(stage Stage, grantID string)) {
	if f == nil {
		s.OnTokenRequestTo(nil)
		return
	}
	s.OnTokenRequestTo(func(_ string, stage Stage, grantID string) { f(stage, grantID) })
}

// OnTokenRequestTo is OnTokenRequest with the host that the request was sent to:
// where clients have addresses of their own for the provider it tells them apart.
func (s *Server) OnTokenRequestTo(f func(host string, stage Stage, grantID string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// stages returns the function to call at each stage of a request that arrives
// now at a host.
func (s *Server) stages(host string) func(stage Stage, grantID string) {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook == nil {
		return func(Stage, string) {}
	}
	return func(stage Stage, grantID string) { hook(host, stage, grantID) }
}

// ServeHTTP implements http.Handler. It routes by itself: http.ServeMux would
// redirect the unusual paths that the API is there to show.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	prefix := issuerPath(s.base(r))
	path, ok := strings.CutPrefix(r.URL.Path, prefix)
	if !ok {
		// RFC 8414 section 3: the well-known part stands before the issuer's path.
		if kind, found := strings.CutSuffix(r.URL.Path, prefix); found && kind == wellKnownOAuth {
			s.serveMetadata(w, r)
			return
		}
		http.NotFound(w, r)
		return
	}
	switch {
	case path == "/authorize":
		s.serveAuthorize(w, r)
	case path == "/token":
		s.serveToken(w, r)
	case path == "/device_authorization":
		s.serveDevice(w, r)
	case path == "/device":
		s.serveDevicePage(w, r)
	case path == "/submit.js":
		serveSubmit(w)
	case path == "/revoke":
		s.serveRevoke(w, r)
	case path == "/introspect":
		s.serveIntrospect(w, r)
	case path == wellKnownOAuth, path == wellKnownOpenID:
		s.serveMetadata(w, r)
	case path == "/style.css":
		serveStyle(w)
	case path == "/api" || strings.HasPrefix(path, "/api/"):
		s.serveAPI(w, r, path)
	default:
		http.NotFound(w, r)
	}
}

// base returns the issuer, or the address that r came to.
func (s *Server) base(r *http.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.issuer != "" {
		return s.issuer
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func issuerPath(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return u.Path
}

const (
	wellKnownOAuth  = "/.well-known/oauth-authorization-server"
	wellKnownOpenID = "/.well-known/openid-configuration"
)

func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request) {
	base := s.base(r)
	methods := []string{"client_secret_basic", "client_secret_post"}
	switch s.cfg.ClientAuth {
	case "basic", "basic_raw":
		methods = methods[:1]
	case "post":
		methods = methods[1:]
	case "none":
		methods = []string{"none"}
	}
	fields := map[string]any{
		"issuer":                                         base,
		"authorization_endpoint":                         base + "/authorize",
		"token_endpoint":                                 base + "/token",
		"revocation_endpoint":                            base + "/revoke",
		"introspection_endpoint":                         base + "/introspect",
		"userinfo_endpoint":                              base + "/api/me",
		"response_types_supported":                       []string{"code"},
		"device_authorization_endpoint":                  base + "/device_authorization",
		"response_modes_supported":                       []string{"query", "form_post"},
		"grant_types_supported":                          []string{grantTypeCode, grantTypeRefresh, grantTypeClient, grantTypeJWT, grantTypeDevice},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          methods,
		"revocation_endpoint_auth_methods_supported":     methods,
		"introspection_endpoint_auth_methods_supported":  methods,
		"authorization_response_iss_parameter_supported": true,
	}
	if len(s.cfg.Scopes) > 0 {
		fields["scopes_supported"] = s.cfg.Scopes
	}
	writeJSON(w, http.StatusOK, fields)
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Server) scopeKnown(scope string) bool {
	return len(s.cfg.Scopes) == 0 || slices.Contains(s.cfg.Scopes, scope)
}
