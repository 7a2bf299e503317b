package caddymodule

import (
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/provider"
)

// StoreConfig says where connections are kept.
type StoreConfig struct {
	// The engine: `badger`, the default, which one Lanyard has for itself, or
	// `postgres`, which any number of them share.
	Engine string `json:"engine,omitempty"`
	// The data directory of `badger`: the engine's own folder, and the keys that
	// are made where none are configured. Default: `lanyard` in Caddy's data
	// directory.
	Dir string `json:"dir,omitempty"`
	// Where the database of `postgres` is, as a placeholder such as
	// `{env.DATABASE_URL}`: `postgres://user:password@host:5432/database`. With
	// it `keyset`, `api_keys` and `clients` are required.
	URL string `json:"url,omitempty"`
}

// ClientConfig is a key with which an app may call the proxy.
type ClientConfig struct {
	// What logs call the app that has this key.
	Name string `json:"name,omitempty"`
	// The key, at least 32 characters of `A-Z a-z 0-9 _ -`, as a placeholder
	// such as `{env.LANYARD_CLIENT_KEY}`.
	Key string `json:"key,omitempty"`
	// The integrations whose connections the key may use. Default: all. Of this
	// and the three below, what is listed is allowed and nothing else.
	Integrations []string `json:"integrations,omitempty"`
	// The users whose connections the key may use. Default: all. Another user's
	// or integration's connection is answered as one that does not exist.
	Users []string `json:"users,omitempty"`
	// The methods it may call, in capitals: `GET`. Default: all.
	Methods []string `json:"methods,omitempty"`
	// The paths it may call, below `api_url`: whole (`/user`), or all below one
	// (`/repos/acme/*`, which `/repos/acme` is not). A path on a further host
	// begins with that host: `uploads.example.com/files/*`. Paths are compared
	// as they are sent, byte for byte and without the query. Default: all.
	Paths []string `json:"paths,omitempty"`
}

// IntegrationConfig is your registered client at one provider.
type IntegrationConfig struct {
	// The provider: a name of the catalogue, or of `providers`.
	// Default: the integration's own name.
	Provider string `json:"provider,omitempty"`
	// How its connections authenticate: `OAUTH2`, `OAUTH2_CLIENT_CREDENTIALS`,
	// `API_KEY`, `BASIC`, `BEARER_TOKEN` or `JWT_BEARER`. Default: `OAUTH2` where
	// the provider has an authorization endpoint or an issuer, else the first of
	// `key`, `basic`, `jwt` and `token_url` that it describes.
	AuthScheme string `json:"auth_scheme,omitempty"`
	// The OAuth client identifier (RFC 6749 section 2.2).
	ClientID string `json:"client_id,omitempty"`
	// The OAuth client's secret, as a placeholder such as
	// `{env.GITHUB_CLIENT_SECRET}`. Empty for public clients.
	ClientSecret string `json:"client_secret,omitempty"`
	// What a connect link asks for that names no scopes itself, and what is asked
	// for where there is no user: by `OAUTH2_CLIENT_CREDENTIALS` and `JWT_BEARER`.
	Scopes []string `json:"scopes,omitempty"`
	// Connection parameters of the provider that are the same for all connections,
	// such as the host of an installation of your own :: name → value. Whoever
	// connects an account is not asked for them.
	Params map[string]string `json:"params,omitempty"`
	// What is sent as `redirect_uri`, where the provider has a name of its own for
	// the address, as eBay has. Default: `{public_url}/callback/NAME`, which is
	// where the browser has to come back to all the same.
	RedirectURI string `json:"redirect_uri,omitempty"`
	// Whether the user sees a page that says what will be shared before going
	// to the provider. It is always shown where no redirect URL is configured.
	Review bool `json:"review,omitempty"`
}

// App is Lanyard: it owns the store of connections and keeps their tokens
// fresh. The handlers `lanyard_connect`, `lanyard_api` and `lanyard_proxy` and
// the transport `lanyard` expose it.
//
// URLs, keys, client IDs and secrets may be placeholders that are known at
// start (`{env.NAME}`, `{file./path}`). Secrets should be: a placeholder stays
// one in Caddy's admin API and in the saved configuration.
type App struct {
	// Where browsers reach `lanyard_connect`: https, or http on localhost,
	// 127.0.0.1 or [::1]; it may have a path. `{public_url}/callback/NAME` is
	// the redirect URI of the integration NAME. Required.
	PublicURL string `json:"public_url,omitempty"`
	// Where connections are kept.
	Store *StoreConfig `json:"store,omitempty"`
	// The keys that seal the store, Tink's JSON, as `caddy lanyard keygen`
	// prints it. Default: made at the first start, in `lanyard-keys.json` in
	// the data directory. Required with PostgreSQL, as the two below are.
	Keyset string `json:"keyset,omitempty"`
	// The keys of the management API, at least 32 characters of ASCII each,
	// none of them a space. The first signs connect links, all of them are
	// taken. Default: made at the first start, in `lanyard-api-key` in the data
	// directory.
	APIKeys []string `json:"api_keys,omitempty"`
	// The keys that may call the proxy. Default: one, made at the first start,
	// in `lanyard-client-key` in the data directory.
	Clients []ClientConfig `json:"clients,omitempty"`
	// Where the browser may be sent after connecting: exact URLs of the app.
	// Where there are none, Lanyard shows its own page.
	RedirectURLs []string `json:"redirect_urls,omitempty"`
	// `off` makes a connection active at the callback. Default: an app with a
	// redirect URL completes each connection itself, having checked whose
	// browser came back.
	Completion string `json:"completion,omitempty"`
	// The integrations by name (`a-z 0-9 _ -`).
	Integrations map[string]*IntegrationConfig `json:"integrations,omitempty"`
	// Providers of your own by name, in the words of a catalogue file. One
	// that has a catalogue name is used instead of the catalogue's.
	Providers map[string]provider.Entry `json:"providers,omitempty"`
	// What the pages that users see show of the app.
	Brand *BrandConfig `json:"brand,omitempty"`
	// Where the app is told what happens.
	Webhooks []WebhookConfig `json:"webhooks,omitempty"`

	logger    *zap.Logger
	settings  *settings
	emitter   *emitter                // nil where no handler of Caddy's events app wants any
	onStart   []func(*instance) error // what handlers build once there is an instance
	engine    *engine                 // set once it is held, so that Cleanup releases just that
	instance  *instance               // set once this configuration is in force
	collector *collector              // shows its registry what the engine counts
	started   chan struct{}           // closed when Start has ended
	startErr  error                   // set before started is closed

	apiURL, proxyURL string // where lanyard_api and lanyard_proxy listen on loopback, for the demo app
}
