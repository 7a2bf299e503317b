package client

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ResponseFormPost as ConnectParams.ResponseMode brings the browser back by a
// form that it posts, which keeps the answer out of URLs.
const ResponseFormPost = "form_post"

const (
	linkLife    = 15 * time.Minute
	maxLinkLife = 24 * time.Hour
)

// ConnectParams says what is to be connected. The zero value lets the user
// choose among the integrations, as the user `default`.
type ConnectParams struct {
	// UserID is the app's ID of its user. Empty: `default`.
	UserID string
	// Integration is one of the configuration's. Empty: the only one, or a page
	// on which the user chooses.
	Integration string
	// Scopes to ask for. Nil: the integration's. With a ConnectionID those that
	// it has been granted are asked for too.
	Scopes []string
	// RedirectURL is where the browser comes back: one of the configured ones,
	// exactly. A link that the app signs needs it where any is configured.
	RedirectURL string
	// State comes back with the browser, at most 512 bytes: random, and kept in
	// the browser's session until then. See Callback.
	State string
	// ConnectionID is a connection of this user that is to be connected again, or
	// to get more scopes. It keeps its ID.
	ConnectionID string
	// ConnectionName is for people.
	ConnectionName string
	// Labels are the app's own, by which lists are filtered. Their names have no
	// `=` or `,`; in links, values have no `,`.
	Labels map[string]string
	// Params are the connection parameters of the provider's URLs, such as a
	// shop's subdomain: all of them and no others.
	Params map[string]string
	// Metadata is a JSON object of the app's own, at most 16 KiB. Not in links.
	Metadata json.RawMessage
	// ResponseMode is `query` or ResponseFormPost. Empty: `query`.
	ResponseMode string
	// Expires is when a link that the app signs ends, at most 24 hours ahead.
	// Zero: in 15 minutes, as always with links that Lanyard makes.
	Expires time.Time
}

// CreateConnectURL returns a link that connects an account of the user's. It is
// signed here: no request is made, and nothing is stored before the user opens
// it. Send the user's own browser there.
func (c *Client) CreateConnectURL(p ConnectParams) (string, error) {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	if p.Metadata != nil {
		return "", errors.New("lanyard: Metadata can't be in a link: use Begin, or Update afterwards")
	}
	labels, err := pairs("Labels", p.Labels)
	if err != nil {
		return "", err
	}
	params, err := pairs("Params", p.Params)
	if err != nil {
		return "", err
	}
	set("integration", p.Integration)
	set("user_id", p.UserID)
	set("scopes", strings.Join(p.Scopes, " "))
	set("redirect_url", p.RedirectURL)
	set("state", p.State)
	set("connection_id", p.ConnectionID)
	set("connection_name", p.ConnectionName)
	set("labels", labels)
	set("params", params)
	set("response_mode", p.ResponseMode)
	return c.sign("/connect", q, p.Expires)
}

// ConnectionsURL returns a link to the page on which the user sees the accounts
// that are connected, and connects them again or disconnects them. It lives 15
// minutes. redirectURL is where the page leads back to, one of the configured
// ones; empty: nowhere.
func (c *Client) ConnectionsURL(userID, redirectURL string) (string, error) {
	if userID == "" {
		return "", errors.New("lanyard: connections link: the user ID is empty")
	}
	q := url.Values{"user_id": {userID}}
	if redirectURL != "" {
		q.Set("redirect_url", redirectURL)
	}
	return c.sign("/connect/connections", q, time.Time{})
}

// sign returns the link to a page of Lanyard's with this query.
func (c *Client) sign(path string, q url.Values, expires time.Time) (string, error) {
	if c.publicURL == "" || c.apiKey() == "" {
		return "", errors.New("lanyard: links need PublicURL and APIKey")
	}
	now := time.Now()
	switch {
	case expires.IsZero():
		expires = now.Add(linkLife)
	case !expires.After(now), expires.Sub(now) > maxLinkLife:
		return "", errors.New("lanyard: Expires is not within the next 24 hours")
	}
	q.Set("expires", strconv.FormatInt(expires.Unix(), 10))
	return c.signed(c.publicURL+path, q.Encode()), nil
}

func (c *Client) signed(endpoint, query string) string {
	key := mac([]byte(c.apiKey()), "lanyard link v1")
	signature := mac(key, "lanyard-link-v1\n"+endpoint+"\n"+query)
	return endpoint + "?" + query + "&signature=" + base64.RawURLEncoding.EncodeToString(signature)
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(message))
	return h.Sum(nil)
}

// pairs writes labels or params as k=v,k=v.
func pairs(what string, all map[string]string) (string, error) {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if k == "" || strings.ContainsAny(k, "=,") || strings.Contains(all[k], ",") {
			return "", fmt.Errorf("lanyard: %s: %q can't be in a link: names have no = or , and values no comma", what, k)
		}
		list = append(list, k+"="+all[k])
	}
	return strings.Join(list, ","), nil
}
