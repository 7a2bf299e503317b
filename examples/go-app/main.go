// Command go-app is an app whose users connect accounts through Lanyard: it
// connects one, asks for more scopes, takes an API key, and calls the API with
// an SDK that knows nothing of Lanyard.
package main

import (
	"crypto/rand"
	"errors"
	"html/template"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/client"
)

// userID is whoever the app has signed in. This one has no sign-in.
const userID = "user_123"

type app struct {
	lanyard *client.Client
	url     string // of this app
	api     *url.URL
}

func main() {
	a := &app{url: env("APP_URL", "http://localhost:9083")}
	var err error
	a.lanyard, err = client.New(client.Config{
		PublicURL: env("LANYARD_PUBLIC_URL", "http://localhost:9081"),
		APIURL:    env("LANYARD_URL", "http://localhost:9080"),
		APIKey:    os.Getenv("LANYARD_API_KEY"),
		ClientKey: os.Getenv("LANYARD_CLIENT_KEY"),
	})
	if err != nil {
		log.Fatal(err)
	}
	// The pretend provider answers as GitHub does. Leave this out for GitHub.
	if a.api, err = url.Parse(env("API_URL", "http://127.0.0.1:9082/api") + "/"); err != nil {
		log.Fatal(err)
	}
	at, err := url.Parse(a.url)
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /connect", a.connect)
	mux.HandleFunc("GET /connected", a.connected)
	mux.HandleFunc("GET /repos", a.repos)
	mux.HandleFunc("POST /key", a.key)
	srv := &http.Server{
		Addr: "127.0.0.1:" + at.Port(), ReadHeaderTimeout: 10 * time.Second,
		Handler: http.NewCrossOriginProtection().Handler(mux),
	}
	log.Println("open", a.url)
	log.Fatal(srv.ListenAndServe())
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// connect sends the user away: to connect an account, or with id to connect
// that one again, with the scopes in the query if there are any.
func (a *app) connect(w http.ResponseWriter, r *http.Request) {
	p := client.ConnectParams{
		UserID: userID, Integration: "demo", ConnectionID: r.FormValue("id"), Scopes: r.Form["scope"],
		RedirectURL: a.url + "/connected", State: rand.Text(),
	}
	link, err := a.lanyard.CreateConnectURL(p)
	if err != nil {
		fail(w, r, err)
		return
	}
	// This browser is known by it when it comes back.
	a.setState(w, p.State, 15*60)
	http.Redirect(w, r, link, http.StatusSeeOther)
}

// connected takes the user back.
func (a *app) connected(w http.ResponseWriter, r *http.Request) {
	state := ""
	if c, err := r.Cookie("state"); err == nil {
		state = c.Value
	}
	a.setState(w, "", -1)
	if _, err := a.lanyard.Callback(r, state, userID); err != nil {
		fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) setState(w http.ResponseWriter, state string, seconds int) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure where the app has https
		Name: "state", Value: state, Path: "/connected", MaxAge: seconds, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(a.url, "https:"),
	})
}

// key connects an API key that the user has typed in.
func (a *app) key(w http.ResponseWriter, r *http.Request) {
	_, err := a.lanyard.BeginWithCredentials(r.Context(),
		client.ConnectParams{UserID: userID, Integration: "demo_key"}, map[string]string{"api_key": r.PostFormValue("key")})
	if err != nil {
		fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// home shows the user's connections.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	var all []*client.Connection
	for c, err := range a.lanyard.Connections(r.Context(), client.Filter{UserID: userID}) {
		if err != nil {
			fail(w, r, err)
			return
		}
		all = append(all, c)
	}
	show(w, "home", all)
}

// fail tells the user what to do.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	var reconnect *client.ReconnectRequired
	var ended *client.CallbackError
	switch {
	case errors.As(err, &reconnect): // by a link of our own, which has a state
		http.Redirect(w, r, "/connect?id="+url.QueryEscape(reconnect.ConnectionID), http.StatusSeeOther)
	case errors.As(err, &ended) && ended.Code == "user_denied":
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case errors.Is(err, client.ErrState):
		http.Error(w, "This link was not for this browser. Please begin again.", http.StatusBadRequest)
	default:
		log.Println(err) // no error of the client's holds a key or a token
		http.Error(w, "That did not work. Please try again.", http.StatusBadGateway)
	}
}

func show(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		log.Println(err)
	}
}

var pages = template.Must(template.New("").Parse(`
{{define "home"}}<!doctype html><html lang="en"><title>Accounts</title><h1>Accounts</h1>
<ul>{{range .}}
<li>{{.Integration}} {{.Status}} {{.Account.Name}} {{range .Scopes.Granted}}{{.}} {{end}}
<a href="/repos?id={{.ID}}">repositories</a>{{if eq .AuthScheme "OAUTH2"}}
<a href="/connect?id={{.ID}}&scope=playlists:read">allow playlists too</a>{{end}}{{end}}
</ul>
<p><a href="/connect?scope=profile:read">Connect an account</a>
<form method="post" action="/key"><label>API key <input name="key" type="password" autocomplete="off"></label> <button>Connect</button></form>
{{end}}
{{define "repos"}}<!doctype html><html lang="en"><title>Repositories</title><h1>{{len .}} repositories</h1>
<ol>{{range .}}<li>{{.}}{{end}}</ol>
{{end}}`))
