package provider

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	deviceGrant = "urn:ietf:params:oauth:grant-type:device_code" // RFC 8628 section 3.4
	// pollInterval is the time between polls where the answer tells none (RFC 8628
	// section 3.2).
	pollInterval    = 5 * time.Second
	maxPollInterval = 5 * time.Minute
	maxDevice       = time.Hour // of a device code's life
)

// userCode is what a user code may be of: people type it.
var userCode = regexp.MustCompile(`^[\x20-\x7e]{1,64}$`)

// Device begins an authorization on another device (RFC 8628 section 3.1). The
// error wraps errors.ErrUnsupported if the provider has no endpoint for it, is a
// *tokenstore.RefusalError for a no, and else wraps tokenstore.ErrNotSent or
// ErrOutcomeUnknown.
func (p *Provider) Device(ctx context.Context, scopes []string) (tokenstore.Device, error) {
	if p.scheme != tokenstore.AuthOAuth2 {
		return tokenstore.Device{}, fmt.Errorf("device authorization: auth scheme %s: %w", p.scheme, errors.ErrUnsupported)
	}
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	ep, err := p.endpoints(ctx)
	if err != nil {
		return tokenstore.Device{}, fmt.Errorf("device authorization: %w: %w", tokenstore.ErrNotSent, err)
	}
	if ep.device == "" {
		return tokenstore.Device{}, fmt.Errorf("device authorization: the provider has no endpoint for it: %w", errors.ErrUnsupported)
	}
	form := url.Values{"client_id": {p.clientID}}
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, p.scopeSeparator()))
	}
	// Section 3.1: the client authenticates as at the token endpoint.
	r := request{url: ep.device, clientAuth: ep.clientAuth, form: form}
	if err := p.shape(&r, p.elsewhere()); err != nil {
		return tokenstore.Device{}, fmt.Errorf("device authorization: %w: %w", tokenstore.ErrNotSent, err)
	}
	a, err := p.send(ctx, r)
	if err != nil {
		return tokenstore.Device{}, fmt.Errorf("device authorization: %w", err)
	}
	if err := p.plainAnswer("device authorization", &a, secret.String{}); err != nil {
		return tokenstore.Device{}, err
	}
	d, why := p.readDevice(decodeBody(a.Body.Reveal()), &a)
	if why != nil {
		return tokenstore.Device{}, fmt.Errorf("device authorization: %w", why)
	}
	return d, nil
}

// readDevice reads the answer of RFC 8628 section 3.2.
func (p *Provider) readDevice(fields map[string]any, a *tokenstore.Answer) (tokenstore.Device, error) {
	if code, _ := fields["error"].(string); code != "" {
		return tokenstore.Device{}, p.refusal(a, &tokenstore.Token{}, code)
	}
	text := func(name string) string { s, _ := fields[name].(string); return s }
	code, ok := readToken(fields["device_code"])
	d := tokenstore.Device{
		Code: code, UserCode: text("user_code"), VerificationURI: text("verification_uri"),
		VerificationURIComplete: text("verification_uri_complete"),
	}
	if d.VerificationURI == "" {
		d.VerificationURI = text("verification_url") // Google's
	}
	life, known := readSeconds(fields["expires_in"], maxDevice)
	switch {
	case !ok || code.IsZero() || !userCode.MatchString(d.UserCode) || !known:
		return tokenstore.Device{}, unreadable(a, "without a device code, a user code or its life")
	case !p.leadsPeople(d.VerificationURI):
		return tokenstore.Device{}, unreadable(a, "without a verification_uri that people can be sent to")
	}
	if !p.leadsPeople(d.VerificationURIComplete) {
		d.VerificationURIComplete = ""
	}
	interval, told := readSeconds(fields["interval"], maxPollInterval)
	if !told {
		interval = pollInterval
	}
	d.Life, d.Interval = int(life.Seconds()), int(math.Ceil(interval.Seconds()))
	return d, nil
}

// leadsPeople reports whether a browser may be sent to an address that the
// provider named. Its host is not looked at: it is the provider's to choose, and
// nothing of ours goes there.
func (p *Provider) leadsPeople(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && p.entry.AllowPrivate && isLoopback(u.Hostname())
}

// PollDevice asks once whether the user has approved the device (RFC 8628
// section 3.4). The answer is not looked at. To Parse authorization_pending,
// slow_down, expired_token and access_denied are refusals with these codes. The
// errors are those of Exchange.
func (p *Provider) PollDevice(ctx context.Context, code secret.String) (tokenstore.Answer, error) {
	form := url.Values{"grant_type": {deviceGrant}, "device_code": {code.Reveal()}, "client_id": {p.clientID}}
	a, err := p.askToken(ctx, tokenRequest{form: form})
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("device token: %w", err)
	}
	return a, nil
}
