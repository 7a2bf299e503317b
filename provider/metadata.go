package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	metadataLife  = time.Hour       // how long a document is taken as it is
	metadataPause = 3 * time.Second // how long a failure is
	metadataLimit = 5 * time.Second // of one request for a document
	maxDocument   = 64 << 10        // of one document, in bytes
)

// metadata is what is read of an authorization server's metadata (RFC 8414
// section 2, OpenID Connect Discovery 1.0 section 3).
type metadata struct {
	authorize, token, revoke, introspect, device, userinfo string

	authMethods []string // nil: not told
	plain       bool     // S256 is not among the methods that are told (RFC 7636 section 4.2)
	issRequired bool     // RFC 9207 section 3
}

// discovery finds a provider's endpoints at first use and keeps them. One
// fetch runs at a time, for everybody who waits; whoever leaves early does not
// stop it.
type discovery struct {
	entry     Entry
	transport *http.Transport
	browser   bool // an authorization endpoint is needed

	mu     sync.Mutex // guards what follows
	found  *metadata  // the last document that was good
	err    error      // of the last fetch
	until  time.Time  // when the next fetch is due
	flight chan struct{}
	cancel context.CancelFunc // ends the flight; nil while there is none
	closed bool
	wg     sync.WaitGroup
}

// get returns the metadata, fetching it where it is due.
func (d *discovery) get(ctx context.Context) (*metadata, error) {
	d.mu.Lock()
	if time.Now().Before(d.until) {
		defer d.mu.Unlock()
		return d.last()
	}
	if d.flight == nil {
		if d.closed {
			d.mu.Unlock()
			return nil, errors.New("discovery has ended")
		}
		d.start(ctx)
	}
	flight := d.flight
	d.mu.Unlock()

	select {
	case <-flight:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for discovery: %w", ctx.Err())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last()
}

// last returns what is known. A document outlives fetches that fail: endpoints
// hardly ever move, and a provider whose metadata is out may issue tokens.
func (d *discovery) last() (*metadata, error) {
	if d.found != nil {
		return d.found, nil
	}
	return nil, d.err
}

// start begins a fetch with its own deadline. d.mu is held.
func (d *discovery) start(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*metadataLimit)
	flight := make(chan struct{})
	d.flight, d.cancel = flight, cancel
	d.wg.Go(func() {
		defer cancel()
		md, err := d.fetch(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.err, d.until = err, time.Now().Add(metadataPause)
		if err == nil {
			d.found, d.until = md, time.Now().Add(metadataLife)
		}
		d.flight, d.cancel = nil, nil
		close(flight)
	})
}

// close ends a fetch that is under way and waits for it.
func (d *discovery) close() {
	d.mu.Lock()
	d.closed = true
	if d.cancel != nil {
		d.cancel()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// fetch returns the first good document.
func (d *discovery) fetch(ctx context.Context) (*metadata, error) {
	openID, oauth := metadataURLs(d.entry.Issuer)
	md, err := d.read(ctx, openID)
	if err == nil {
		return md, nil
	}
	md, err2 := d.read(ctx, oauth)
	if err2 == nil {
		return md, nil
	}
	return nil, fmt.Errorf("discovery at %s: %w; %w", d.entry.Issuer, err, err2)
}

// metadataURLs returns where an issuer's metadata may be. OpenID Connect
// appends to the issuer's path, RFC 8414 section 3.1 inserts before it.
func metadataURLs(issuer string) (openID, oauth string) {
	u, err := url.Parse(issuer)
	if err != nil { // Validate has parsed it
		return "", ""
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	return origin + path + "/.well-known/openid-configuration",
		origin + "/.well-known/oauth-authorization-server" + path
}

func (d *discovery) read(ctx context.Context, rawURL string) (*metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, http.NoBody)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "lanyard")
	res, err := d.transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Path, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: HTTP %d", req.URL.Path, res.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Path, err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("%s: longer than 64 KiB", req.URL.Path)
	}
	md, err := d.parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Path, err)
	}
	return md, nil
}

// parse reads a document and checks all of it that will be used.
func (d *discovery) parse(b []byte) (*metadata, error) {
	doc, err := decodeObject(b)
	if err != nil {
		return nil, err
	}
	if err := sameIssuer(doc["issuer"], d.entry.Issuer); err != nil {
		return nil, err
	}
	md := &metadata{}
	for _, f := range []struct {
		name, byHand string
		required     bool
		into         *string
	}{
		{"authorization_endpoint", d.entry.AuthorizeURL, d.browser, &md.authorize},
		{"token_endpoint", d.entry.TokenURL, true, &md.token},
		{"revocation_endpoint", d.entry.RevokeURL, false, &md.revoke},
		{"introspection_endpoint", d.entry.IntrospectURL, false, &md.introspect},
		{"device_authorization_endpoint", d.entry.DeviceURL, false, &md.device}, // RFC 8628 section 4
		{"userinfo_endpoint", d.entry.Account.URL, false, &md.userinfo},
	} {
		value, _ := doc[f.name].(string)
		if f.byHand != "" || value == "" && !f.required {
			continue
		}
		if _, err := checkURL(value, d.entry.AllowPrivate); err != nil {
			return nil, fmt.Errorf("%s %w", f.name, err)
		}
		*f.into = value
	}
	if err := d.entry.checkAuthorizeQuery(md.authorize); err != nil {
		return nil, fmt.Errorf("authorization_endpoint %w", err)
	}
	md.issRequired, _ = doc["authorization_response_iss_parameter_supported"].(bool)
	md.authMethods = listOf(doc["token_endpoint_auth_methods_supported"])
	// None told is no answer: many take a challenge and don't say so.
	methods := listOf(doc["code_challenge_methods_supported"])
	md.plain = len(methods) > 0 && !slices.Contains(methods, "S256")
	return md, nil
}

// listOf returns the texts in a list; nil if v is none.
func listOf(v any) []string {
	list, ok := v.([]any)
	if !ok {
		return nil
	}
	texts := []string{}
	for _, item := range list {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// sameIssuer refuses a document of another issuer. RFC 8414 section 3.3: "The
// issuer value returned MUST be identical to the authorization server's issuer
// identifier value".
func sameIssuer(told any, issuer string) error {
	name, _ := told.(string)
	switch {
	case name == issuer:
		return nil
	case strings.Contains(name, "{tenantid}"):
		return fmt.Errorf("it is for all tenants, and names the issuer of none (%q): put the tenant's ID into issuer", name)
	case strings.TrimSuffix(name, "/") == strings.TrimSuffix(issuer, "/"):
		return fmt.Errorf("it names the issuer %q: write it just so, with or without the slash at its end", name)
	}
	return errors.New("it names another issuer")
}

// clientAuthOf chooses among the methods that a token endpoint takes. None
// told means client_secret_basic (RFC 8414 section 2). A client whose secret is a
// private key signs with it, and never sends it.
func clientAuthOf(methods []string, signs bool) (string, error) {
	switch {
	case signs && slices.Contains(methods, "private_key_jwt"):
		return AuthPrivateKeyJWT, nil
	case signs:
		return "", errors.New("discovery: client_secret is a private key, and the provider does not take private_key_jwt")
	case methods == nil, slices.Contains(methods, "client_secret_basic"):
		return AuthBasic, nil
	case slices.Contains(methods, "client_secret_post"):
		return AuthPost, nil
	case slices.Contains(methods, "none"):
		return AuthNone, nil
	case slices.Contains(methods, "private_key_jwt"):
		return "", errors.New("discovery: the provider takes private_key_jwt only: client_secret has to be the client's private key, PEM")
	}
	return "", errors.New("discovery: the provider takes none of client_secret_basic, client_secret_post, private_key_jwt and none; say client_auth if one of them works")
}
