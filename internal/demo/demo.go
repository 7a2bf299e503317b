// Package demo shows Lanyard's whole job with no account anywhere: a pretend
// provider, an app whose user connects an account there, and a walk through
// both in the terminal. It speaks to Lanyard as any app does, over HTTP.
package demo

import (
	_ "embed" // the configuration
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// Names that the demo's configuration and its parts agree on.
const (
	Integration   = "demo"
	ProviderTitle = "Demo Music"
	clientID      = "demo"
	clientSecret  = "demo-secret"
	userID        = "user_123"
	apiKey        = "demo-key" // which the provider takes in X-Api-Key
)

// AccessLife is how long the demo provider's access tokens live by default:
// short enough to see one run out.
const AccessLife = 30 * time.Second

// callTimeout bounds each request of the demo.
const callTimeout = 30 * time.Second

// maxAnswer is how much of an answer the demo reads: its own answers are small.
const maxAnswer = 64 << 10

// Provider returns the pretend provider: PKCE required, rotating refresh
// tokens, reuse detection. accessLife is the life of its access tokens;
// AccessLife if zero.
func Provider(accessLife time.Duration) *fakeprovider.Server {
	if accessLife <= 0 {
		accessLife = AccessLife
	}
	return fakeprovider.New(fakeprovider.Config{
		ClientID: clientID, ClientSecret: clientSecret,
		Scopes:     []string{"profile:read", "playlists:read", "playlists:write"},
		AccessLife: accessLife, RefreshLife: 24 * time.Hour, Rotate: true, RequirePKCE: true,
		APIKey: apiKey, KeyHeader: "X-Api-Key",
		Title: ProviderTitle,
		User:  fakeprovider.User{ID: "ada", Name: "Ada Lovelace", Email: "ada@demo.test"},
	})
}

// Config says where the parts of the demo are. The URLs are without a slash
// at the end.
type Config struct {
	ConnectURL  string // public_url of the lanyard block
	APIURL      string // where lanyard_api is served
	ProxyURL    string // where lanyard_proxy is served
	ProviderURL string // where the demo provider is served; Run shows it
	AppURL      string // where the demo app is served

	// APIKey and ClientKey are Lanyard's keys, as any app holds them.
	APIKey, ClientKey string

	// Link returns the signed connect link with these parameters. It adds
	// expires and signature. Run doesn't need it.
	Link func(params url.Values) (string, error)

	// Provider is the demo provider if it runs in this process: it is made to
	// expire and revoke tokens. Run needs it; the app then has buttons for it.
	Provider *fakeprovider.Server

	// Client makes the requests. Default: one with a timeout of 30 seconds.
	Client *http.Client
}

func (c *Config) check() error {
	for name, v := range map[string]string{
		"ConnectURL": c.ConnectURL, "APIURL": c.APIURL, "ProxyURL": c.ProxyURL, "AppURL": c.AppURL,
		"APIKey": c.APIKey, "ClientKey": c.ClientKey,
	} {
		if v == "" {
			return errors.New("demo: " + name + " is empty")
		}
	}
	if c.Client == nil {
		c.Client = &http.Client{Timeout: callTimeout}
	}
	return nil
}

// Ports are the demo's listeners, all on loopback.
type Ports struct {
	Proxy, Connect, Provider, App int
}

// ExamplePorts are those of Caddyfile.example.
var ExamplePorts = Ports{Proxy: 9080, Connect: 9081, Provider: 9082, App: 9083}

//go:embed Caddyfile
var caddyfile string

// Caddyfile returns the demo's configuration: that of Caddyfile.example, on
// these ports and with its store in dir.
func Caddyfile(p Ports, dir string) string {
	return strings.NewReplacer(
		"PROXY_PORT", strconv.Itoa(p.Proxy), "CONNECT_PORT", strconv.Itoa(p.Connect),
		"PROVIDER_PORT", strconv.Itoa(p.Provider), "APP_PORT", strconv.Itoa(p.App),
		"STORE_DIR", `"`+strings.ReplaceAll(dir, `"`, `\"`)+`"`,
	).Replace(caddyfile)
}

// URLs fills in where the parts of the demo are with Caddyfile(p, …).
func (p Ports) URLs(c *Config) {
	c.ConnectURL = fmt.Sprintf("http://localhost:%d", p.Connect)
	c.APIURL = fmt.Sprintf("http://127.0.0.1:%d", p.Proxy)
	c.ProxyURL = c.APIURL
	c.ProviderURL = fmt.Sprintf("http://127.0.0.1:%d", p.Provider)
	c.AppURL = fmt.Sprintf("http://localhost:%d", p.App)
}
