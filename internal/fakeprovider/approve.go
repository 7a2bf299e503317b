package fakeprovider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Approve says yes on the consent page at authorizeURL, as a browser would,
// and returns the address that the page then leads to. With scopes only these
// are ticked, else all. A request that the provider refuses by redirect gives
// the address of that redirect.
//
// Of client the transport and the cookies are used; redirects aren't followed.
func Approve(ctx context.Context, client *http.Client, authorizeURL string, scopes ...string) (callbackURL string, err error) {
	return answerConsent(ctx, client, authorizeURL, url.Values{"decision": {"allow"}}, scopes)
}

// ApproveAs is Approve with another of the accounts that the page offers.
func ApproveAs(ctx context.Context, client *http.Client, authorizeURL, userID string, scopes ...string) (callbackURL string, err error) {
	return answerConsent(ctx, client, authorizeURL, url.Values{"decision": {"allow"}, "account": {userID}}, scopes)
}

// Deny says no on the consent page at authorizeURL, see Approve.
func Deny(ctx context.Context, client *http.Client, authorizeURL string) (callbackURL string, err error) {
	return answerConsent(ctx, client, authorizeURL, url.Values{"decision": {"deny"}}, nil)
}

func answerConsent(ctx context.Context, client *http.Client, authorizeURL string, form url.Values, scopes []string) (string, error) {
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u, err := url.Parse(authorizeURL)
	if err != nil {
		return "", fmt.Errorf("consent: reading the authorization URL: %w", err)
	}
	status, location, err := visit(ctx, &c, http.MethodGet, authorizeURL, nil)
	if err != nil || location != "" {
		return location, err
	}
	if status != http.StatusOK {
		return "", fmt.Errorf("consent: the page answered %d", status)
	}
	if len(scopes) == 0 {
		scopes = strings.Fields(u.Query().Get("scope"))
	}
	form["scope"] = scopes
	status, location, err = visit(ctx, &c, http.MethodPost, authorizeURL, form)
	if err != nil {
		return "", err
	}
	if location == "" {
		return "", fmt.Errorf("consent: the answer to %s was %d, not a redirect", form.Get("decision"), status)
	}
	return location, nil
}

// visit makes one request and returns the answer's status and its absolute
// Location, if it is a redirect.
func visit(ctx context.Context, c *http.Client, method, to string, form url.Values) (status int, location string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", fmt.Errorf("consent: %w", err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // it names the whole URL, with the state
			err = u.Err
		}
		return 0, "", fmt.Errorf("consent: asking the provider: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxForm)); err != nil {
		return 0, "", fmt.Errorf("consent: reading the page: %w", err)
	}
	if resp.StatusCode < 300 || resp.StatusCode > 399 {
		return resp.StatusCode, "", nil
	}
	to2, err := resp.Location()
	if err != nil {
		return 0, "", fmt.Errorf("consent: redirect without an address: %w", err)
	}
	return resp.StatusCode, to2.String(), nil
}
