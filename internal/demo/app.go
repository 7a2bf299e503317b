package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // the page and its style
	"encoding/json"
	"errors"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
)

//go:embed app.html
var appHTML string

//go:embed style.css
var styleCSS []byte

var appPage = template.Must(template.New("app").Parse(appHTML))

// App is the demo app: a web app with one signed-in user who connects an
// account at the demo provider. It is an http.Handler for the root of a site
// on loopback.
type App struct {
	cfg     Config
	handler http.Handler

	mu   sync.Mutex // guards last
	last *call      // the newest call, nil before the first
}

// NewApp returns the demo app, or an error if cfg lacks something.
func NewApp(cfg Config) (*App, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Link == nil {
		return nil, errors.New("demo: Link is nil")
	}
	a := &App{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /style.css", a.style)
	// Connecting is a link, not a form: Chromium applies form-action to the
	// redirects that follow a form, and these lead to the provider. It only
	// starts a flow, so that another site gains nothing by sending users here.
	mux.HandleFunc("GET /connect", a.connect)
	mux.HandleFunc("GET /reconnect", a.reconnect)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("POST /call", a.callAPI)
	if cfg.Provider != nil {
		mux.HandleFunc("POST /expire", a.expire)
		mux.HandleFunc("POST /revoke", a.revoke)
	}
	a.handler = http.NewCrossOriginProtection().Handler(mux)
	return a, nil
}

// ServeHTTP implements http.Handler.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !loopbackName(r.Host) { // DNS rebinding
		http.Error(w, "The demo app answers on localhost only.", http.StatusMisdirectedRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	a.handler.ServeHTTP(w, r)
}

func loopbackName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

// notice is what the page says at its top.
type notice struct {
	Text string
	Good bool
}

// notices :: code in the page's address → what it says. The first six are the
// errors with which a connect flow returns.
var notices = map[string]notice{
	"user_denied":         {Text: "You did not connect Demo Music. Nothing was shared."},
	"timeout":             {Text: "This took longer than 10 minutes. Start again."},
	"source_error":        {Text: "Demo Music is not answering right now. Try again in a minute."},
	"provisioning_failed": {Text: "Lanyard could not save this connection. Its log says why."},
	"invalid_scope":       {Text: "Demo Music does not offer one of the permissions asked for. They stand in the Caddyfile, under scopes."},
	"other":               {Text: "Demo Music was not connected. Start again."},
	"connected":           {Text: "Demo Music is connected.", Good: true},
	"not_started_here":    {Text: "This answer belongs to a connect flow that was not started in this browser. Nothing was connected."},
	"works":               {Text: "The connection works. There is nothing to reconnect.", Good: true},
	"cannot_reconnect":    {Text: "Lanyard offers no link to reconnect. What it said stands below."},
	"expired":             {Text: "Demo Music no longer takes the access token it gave. Call the API: Lanyard gets a new one on the way."},
	"revoked":             {Text: "Demo Music has ended the access it gave. Call the API to see what an app is told."},
}

// view is what the page shows.
type view struct {
	Title      string
	User       string
	ProxyURL   string
	Notice     notice
	Connection connection // with an empty ID if there is none
	State      string     // the connection's status in words
	Mark       string     // and as a class
	Call       *call
	Hint       string // what Call means
	Breakable  bool   // the provider can be made to expire and revoke
	Problem    string // why there is nothing to show
}

func (a *App) home(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	last := a.last
	a.mu.Unlock()
	v := view{Notice: notices[r.URL.Query().Get("notice")], Breakable: a.cfg.Provider != nil, Call: last}
	conn, err := a.cfg.connection(r.Context())
	switch {
	case errors.Is(err, errNoConnection):
	case err != nil:
		a.fail(w, err)
		return
	default:
		v.Connection = conn
		v.State, v.Mark = inWords(conn.Status)
	}
	if last != nil {
		v.Hint = hint(*last)
	}
	a.page(w, http.StatusOK, v)
}

// inWords returns a status for people, and the mark that stands beside it.
func inWords(status string) (words, mark string) {
	switch status {
	case statusActive:
		return "Connected", "ok"
	case "EXPIRED", "REVOKED":
		return "Reconnect needed", "warn"
	case "INITIATED":
		return "Not finished", "idle"
	}
	return "Not connected", "idle"
}

// hint says what an answer means.
func hint(c call) string {
	switch {
	case c.Code != "" && c.ConnectURL != "":
		return "This is Lanyard’s answer: the connection needs its user. With it comes a link to reconnect."
	case c.Code != "":
		return "This is Lanyard’s answer, not the provider’s: it could not send the request on."
	case c.Status == http.StatusUnauthorized:
		return "The provider refused a token that Lanyard refreshed less than a minute ago, so Lanyard passed the answer on. Call again in a moment."
	case c.Status < 300:
		return "The provider’s answer. Lanyard put the token on the request; this app has never seen it."
	}
	return "The provider’s answer, as it came."
}

// connect starts the flow with a link that the app signs by itself.
func (a *App) connect(w http.ResponseWriter, r *http.Request) {
	params := url.Values{
		"integration": {Integration}, "user_id": {userID}, "redirect_url": {a.cfg.AppURL + "/callback"}, "state": {rand.Text()},
	}
	conn, err := a.cfg.connection(r.Context())
	switch {
	case errors.Is(err, errNoConnection):
	case err != nil:
		a.fail(w, err)
		return
	case conn.worked():
		params.Set("connection_id", conn.ID)
	}
	link, err := a.cfg.Link(params)
	if err != nil {
		a.fail(w, err)
		return
	}
	a.send(w, params.Get("state"), link)
}

// reconnect calls the API and follows the link in Lanyard's answer.
func (a *App) reconnect(w http.ResponseWriter, r *http.Request) {
	conn, err := a.cfg.connection(r.Context())
	if errors.Is(err, errNoConnection) {
		seeOther(w, "/connect")
		return
	}
	var got call
	if err == nil {
		got, err = a.keep(r.Context(), conn.ID)
	}
	switch {
	case err != nil:
		a.fail(w, err)
	case strings.HasPrefix(got.ConnectURL, a.cfg.ConnectURL+"/connect?"):
		// The link in an answer carries no state of ours; its connection stands
		// in for it.
		a.send(w, conn.ID, got.ConnectURL)
	case got.Status < 300:
		seeOther(w, "/?notice=works")
	default:
		seeOther(w, "/?notice=cannot_reconnect")
	}
}

// send sends the browser into a flow, and remembers in the browser that it
// began here: flow is the state or the connection that comes back.
func (a *App) send(w http.ResponseWriter, flow, link string) {
	http.SetCookie(w, flowCookie(flow, 600))
	seeOther(w, link)
}

// flowCookie binds one flow to the browser. It is not Secure: the demo app is
// on http://localhost.
func flowCookie(flow string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // G124: not Secure, see above
		Name: "demo_flow_" + flow, Value: "1", Path: "/callback", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// callback takes the user back from Lanyard. It completes only a flow that
// this browser began, for the user who is signed in here.
func (a *App) callback(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if code := q.Get("error"); code != "" {
		if _, ok := notices[code]; !ok {
			code = "other"
		}
		seeOther(w, "/?notice="+code)
		return
	}
	id, flow := q.Get("connection_id"), q.Get("state")
	if flow == "" {
		flow = id
	}
	if _, err := r.Cookie("demo_flow_" + flow); err != nil || !isWord(flow) || !isWord(id) {
		seeOther(w, "/?notice=not_started_here")
		return
	}
	if err := a.cfg.complete(r.Context(), id, q.Get("completion_code")); err != nil {
		a.fail(w, err)
		return
	}
	http.SetCookie(w, flowCookie(flow, -1))
	seeOther(w, "/?notice=connected")
}

// isWord reports whether s has the form of a state or connection ID.
func isWord(s string) bool {
	return s != "" && len(s) <= 100 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '_'
	}) < 0
}

func (a *App) callAPI(w http.ResponseWriter, r *http.Request) {
	conn, err := a.cfg.connection(r.Context())
	if err == nil {
		_, err = a.keep(r.Context(), conn.ID)
	}
	if err != nil {
		a.fail(w, err)
		return
	}
	seeOther(w, "/")
}

// keep calls the API and keeps the answer for the page.
func (a *App) keep(ctx context.Context, id string) (call, error) {
	got, err := a.cfg.call(ctx, id, "/me")
	if err != nil {
		return call{}, err
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, []byte(got.Body), "", "  ") == nil {
		got.Body = pretty.String()
	}
	a.mu.Lock()
	a.last = &got
	a.mu.Unlock()
	return got, nil
}

func (a *App) expire(w http.ResponseWriter, _ *http.Request) {
	a.cfg.Provider.ExpireAccessTokens()
	seeOther(w, "/?notice=expired")
}

func (a *App) revoke(w http.ResponseWriter, _ *http.Request) {
	a.cfg.Provider.RevokeAll()
	seeOther(w, "/?notice=revoked")
}

func (a *App) style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write(styleCSS)
}

// fail shows what went wrong between the app and Lanyard.
func (a *App) fail(w http.ResponseWriter, err error) {
	a.page(w, http.StatusBadGateway, view{Problem: err.Error()})
}

func (a *App) page(w http.ResponseWriter, status int, v view) {
	v.Title, v.User, v.ProxyURL = ProviderTitle, userID, a.cfg.ProxyURL
	var b bytes.Buffer
	if err := appPage.Execute(&b, v); err != nil {
		http.Error(w, "The page can't be shown.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// seeOther redirects without a body, which could repeat a link.
func seeOther(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
