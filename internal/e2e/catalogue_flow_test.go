package e2e_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/dialect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// shown is what the API says of a connection.
type shown struct {
	connection
	Scopes struct{ Granted, Missing []string }
	// Account is null where it is not known.
	Account struct{ ID, Name, Email string }
	Told    map[string]string `json:"provider_metadata"`
}

// ask calls /v1, in a subtest that may run beside others.
func (c *catalogue) ask(t *testing.T, method, path string, in, out any) error {
	t.Helper()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.proxyURL(path), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.apiKey)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := c.tryDo(req)
	if err == nil && a.Status >= 300 {
		err = fmt.Errorf("%s %s: HTTP %d: %s", method, path, a.Status, a.Body)
	}
	if err == nil && out != nil {
		err = json.Unmarshal([]byte(a.Body), out)
	}
	return err
}

func (c *catalogue) look(t *testing.T, id string) (shown, error) {
	t.Helper()
	var s shown
	err := c.ask(t, http.MethodGet, "/v1/connections/"+id, nil, &s)
	return s, err
}

// visit makes a proxied request.
func (c *catalogue) visit(t *testing.T, s *speaker, id string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.proxyURL("/lanyard-call/"+s.name), nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Lanyard-Key", c.clientKey)
	req.Header.Set("Connection-Id", id)
	req.Header.Set("User-Agent", "") // net/http would name itself
	return c.tryDo(req)
}

// byHand reports whether the credential is one that somebody made by hand.
func (s *speaker) byHand() bool {
	return s.scheme == tokenstore.AuthAPIKey || s.scheme == tokenstore.AuthBasic
}

// params returns what whoever connects has to give.
func (s *speaker) params() map[string]string {
	given := map[string]string{}
	for name, p := range s.entry.Params {
		from, _, told := strings.Cut(p.From, ".")
		switch {
		case !told && !p.Host && !p.Fixed:
			given[name] = s.dialect.Params[name]
		case told && from != "account" && s.byHand() && strings.Contains(s.entry.APIURL, "{"+name+"}"):
			given[name] = s.dialect.Told[name] // nothing else tells it of a key
		}
	}
	return given
}

// join connects an account, and returns the connection.
func (c *catalogue) join(t *testing.T, s *speaker, account dialect.Account) (string, error) {
	t.Helper()
	in := map[string]any{"integration": s.name, "user_id": account.ID, "redirect_url": c.app.url + "/callback", "state": "app-state"}
	if given := s.params(); len(given) > 0 {
		in["params"] = given
	}
	if s.scheme != tokenstore.AuthOAuth2 {
		delete(in, "redirect_url")
		delete(in, "state")
		if given := c.credentials(s, account); given != nil {
			in["credentials"] = given
		}
	}
	var begun connection
	if err := c.ask(t, http.MethodPost, "/v1/connections", in, &begun); err != nil {
		return "", fmt.Errorf("beginning: %w", err)
	}
	if s.scheme != tokenstore.AuthOAuth2 {
		return begun.ID, nil
	}
	browser := newBrowser(t)
	page, err := c.leads(t, browser, begun.ConnectURL)
	if err != nil {
		return "", fmt.Errorf("opening the link: %w", err)
	}
	response, err := c.server.Consent(s.name, page, account)
	if err != nil {
		return "", fmt.Errorf("asking for consent: %w", err)
	}
	back, err := c.leads(t, browser, c.site.Public+"/callback/"+s.name+"?"+response)
	if err != nil {
		return "", fmt.Errorf("coming back: %w", err)
	}
	u, err := url.Parse(back)
	if err != nil {
		return "", err
	}
	q := u.Query()
	if q.Get("error") != "" {
		err := fmt.Errorf("the app is told %s: %s", q.Get("error"), q.Get("error_description"))
		if c.server.Record(s.name, account.ID).Access != "" {
			err = fmt.Errorf("%w; the provider gave a token with the answer %s: see answer.paths, answer.success, answer.token_types, params or account", err, s.dialect.Code.Answer)
		}
		return "", err
	}
	done := map[string]string{"completion_code": q.Get("completion_code"), "user_id": account.ID}
	if err := c.ask(t, http.MethodPost, "/v1/connections/"+begun.ID+"/complete", done, nil); err != nil {
		return "", fmt.Errorf("completing: %w", err)
	}
	return begun.ID, nil
}

// leads loads a page and returns where it leads to.
func (c *catalogue) leads(t *testing.T, browser *http.Client, to string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
	if err != nil {
		return "", err
	}
	res, err := browser.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		return "", err
	}
	c.note(body.Bytes())
	c.out.meetAnswer(res.Header, body.Bytes())
	if res.StatusCode != http.StatusSeeOther {
		return "", fmt.Errorf("HTTP %d: %s", res.StatusCode, textOf(body.String()))
	}
	return res.Header.Get("Location"), nil
}

// textOf returns what a page says, cut short.
func textOf(page string) string {
	_, main, ok := strings.Cut(page, "<main")
	if !ok {
		main = page
	}
	return main[:min(len(main), 600)]
}

// credentials makes what stands in the place of a consent, known to the
// provider.
func (c *catalogue) credentials(s *speaker, account dialect.Account) map[string]string {
	switch s.scheme {
	case tokenstore.AuthAPIKey:
		key := dialect.Sample(s.entry.Key.Pattern, true)
		if s.entry.Key.Pattern == "" {
			key = "key-" + rand.Text()
		}
		c.server.Give(s.name, key, account)
		return map[string]string{"api_key": key}
	case tokenstore.AuthBasic:
		user, password := "ada-"+account.ID, rand.Text()
		given := map[string]string{"username": user, "password": password}
		if s.entry.Basic.Password == "none" {
			user, password = "key-"+rand.Text(), ""
			given = map[string]string{"username": user}
		}
		c.server.Give(s.name, user+":"+password, account)
		c.out.meet(credential, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
		return given
	case tokenstore.AuthJWTBearer:
		given := map[string]string{"key": s.key}
		if s.entry.JWT.Issuer == "given" {
			b, _ := json.Marshal(map[string]string{"client_email": robot, "private_key": s.key, "private_key_id": "k1"})
			given["key"] = string(b)
		}
		if s.entry.JWT.KeyID == "given" {
			given["key_id"] = "k1"
		}
		if s.entry.JWT.Subject == "given" {
			given["subject"] = account.ID
		}
		return given
	}
	return nil
}

// soonNil waits until check returns nil.
func soonNil(check func() error) error {
	var err error
	for began := time.Now(); time.Since(began) < patience; time.Sleep(25 * time.Millisecond) {
		if err = check(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("still so after %v: %w", patience, err)
}

// withWhy adds to an error what the provider found wrong.
func (c *catalogue) withWhy(s *speaker, step string, err error) error {
	if why := c.server.Complaints(s.name); len(why) > 0 {
		said := fmt.Errorf("%s says: %s", s.name, strings.Join(slices.Compact(why), "; "))
		if err == nil {
			err = said
		} else {
			err = fmt.Errorf("%w; %w", err, said)
		}
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", step, err)
}

var errNotRenewed = errors.New("the token was not renewed")
