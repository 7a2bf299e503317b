// Package client is for apps that use Lanyard. It makes connect links, takes
// the browser back when its user has connected, calls providers' APIs through
// the proxy, and speaks the management API. It has no dependencies.
//
//	lanyard, err := client.New(client.Config{
//		PublicURL: "https://connect.example.com",
//		APIURL:    "http://localhost:9080",
//		APIKey:    os.Getenv("LANYARD_API_KEY"),
//		ClientKey: os.Getenv("LANYARD_CLIENT_KEY"),
//	})
//
// There are three steps: send the user to CreateConnectURL, call Callback where
// the browser comes back, and hand HTTPClient to any SDK that takes an
// *http.Client.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config says where Lanyard is and what opens it. What a use does not need may
// be left out: links need PublicURL and APIKey, calls of providers ProxyURL and
// ClientKey, everything else APIURL and APIKey.
type Config struct {
	// PublicURL is the public_url of Lanyard's configuration, where browsers
	// reach it.
	PublicURL string
	// APIURL is where lanyard_api is, such as http://localhost:9080, or
	// unix:///run/lanyard.sock.
	APIURL string
	// ProxyURL is where lanyard_proxy is, with its prefix if it has one, or the
	// same as unix://. Empty: APIURL.
	ProxyURL string
	// APIKey signs links and opens the management API.
	APIKey string
	// ClientKey opens the proxy. Empty: the proxy says `open`.
	ClientKey string
}

// Format implements fmt.Formatter: no verb prints the keys.
func (c Config) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "{PublicURL:%s APIURL:%s ProxyURL:%s}", c.PublicURL, c.APIURL, c.ProxyURL)
}

// MarshalJSON implements json.Marshaler, for logs: the keys are left out.
func (c Config) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"PublicURL": c.PublicURL, "APIURL": c.APIURL, "ProxyURL": c.ProxyURL})
}

// Client speaks with one Lanyard. Make it with New. It is safe for concurrent
// use; an app needs one.
type Client struct {
	publicURL string
	// Functions, since no verb of fmt prints what they return.
	apiKey, clientKey func() string
	api, proxy        endpoint
	apis              catalogue
}

// New returns a Client. It makes no request.
func New(cfg Config) (*Client, error) {
	c := &Client{
		publicURL: strings.TrimRight(cfg.PublicURL, "/"),
		apiKey:    func() string { return cfg.APIKey }, clientKey: func() string { return cfg.ClientKey },
	}
	if cfg.PublicURL != "" {
		if _, err := parseURL(cfg.PublicURL); err != nil {
			return nil, fmt.Errorf("lanyard: PublicURL: %w", err)
		}
	}
	var err error
	if c.api, err = newEndpoint(cfg.APIURL); err != nil {
		return nil, fmt.Errorf("lanyard: APIURL: %w", err)
	}
	if cfg.ProxyURL == "" {
		c.proxy = c.api
		return c, nil
	}
	if c.proxy, err = newEndpoint(cfg.ProxyURL); err != nil {
		return nil, fmt.Errorf("lanyard: ProxyURL: %w", err)
	}
	return c, nil
}

// Close closes the connections that are idle. A Client that is used afterwards
// opens new ones.
func (c *Client) Close() {
	for _, e := range []endpoint{c.api, c.proxy} {
		if e.transport != nil {
			e.transport.CloseIdleConnections()
		}
	}
}

// endpoint is one side of Lanyard. The zero value is one that is not configured.
type endpoint struct {
	url       *url.URL // no slash at its end
	transport *http.Transport
}

// socketHost is the host of requests that go by a socket, which takes any.
const socketHost = "lanyard"

const (
	dialTimeout = 5 * time.Second
	idleTimeout = 90 * time.Second
	// maxIdle bounds idle connections: all calls of an app go to one host.
	maxIdle = 100
)

func newEndpoint(raw string) (endpoint, error) {
	if raw == "" {
		return endpoint{}, nil
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		// No proxy of the environment: keys go to Lanyard and nowhere else.
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: idleTimeout,
	}
	if socket, ok := strings.CutPrefix(raw, "unix://"); ok {
		if !strings.HasPrefix(socket, "/") {
			return endpoint{}, errors.New("a socket is written unix:///path/to/it")
		}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
		return endpoint{&url.URL{Scheme: "http", Host: socketHost}, transport}, nil
	}
	u, err := parseURL(raw)
	return endpoint{u, transport}, err
}

// parseURL reads an address that paths can be added to.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(raw, "/"))
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it is not an absolute URL with http or https")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return nil, errors.New("it must end with its host or path")
	}
	return u, nil
}

// discard reads a little of what is left of a body, so that its connection can
// be used again.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}
