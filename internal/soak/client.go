package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"strings"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// answer is a whole answer of the program.
type answer struct {
	status int
	header http.Header
	body   string
}

// String shows an answer in a report.
func (a answer) String() string {
	if a.status == 0 {
		return "no answer"
	}
	return fmt.Sprintf("HTTP %d %s %s", a.status, a.header.Get("Lanyard-Error"), strings.TrimSpace(a.body))
}

// view is what the API says of one connection.
type view struct {
	ID           string `json:"id"`
	Status       string `json:"status"`
	StatusReason string `json:"status_reason"`
	Generation   uint64 `json:"generation"`
	ConnectURL   string `json:"connect_url"`
}

// String shows a view in a report.
func (v view) String() string {
	return fmt.Sprintf("%s %s generation %d", v.Status, v.StatusReason, v.Generation)
}

// unexpectedError is a whole answer of the program that should have been
// another. Every other error of a request is that of a program cut off.
type unexpectedError struct {
	doing string
	got   answer
}

func (e *unexpectedError) Error() string { return e.doing + ": " + e.got.String() }

// maxAnswer bounds what is read of an answer: all are small.
const maxAnswer = 1 << 20

func do(client *http.Client, req *http.Request) (answer, error) {
	res, err := client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("asking the program: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("reading its answer: %w", err)
	}
	return answer{res.StatusCode, res.Header, string(b)}, nil
}

// call makes a proxied call that tells whose token it carried.
func (w *world) call(ctx context.Context, id string) (answer, error) {
	car := w.pick()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, car.proxyURL("/me"), http.NoBody)
	if err != nil {
		return answer{}, fmt.Errorf("calling: %w", err)
	}
	req.Header.Set("Lanyard-Key", w.site.clientKey)
	req.Header.Set("Connection-Id", id)
	whom := w.runningAt(car)
	a, err := do(w.client, req)
	if err != nil {
		err = asked(whom, fmt.Errorf("calling with %s: %w", id, err))
	}
	return a, err
}

// caller returns under which name at the provider a call was served, or empty.
func caller(a answer) string {
	var who struct {
		Name string `json:"name"`
	}
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &who) != nil {
		return ""
	}
	return who.Name
}

// api calls /v1 of some sidecar. A status other than want is an *unexpectedError;
// want 0 takes any.
func (w *world) api(ctx context.Context, want int, method, path string, in, out any) (answer, error) {
	return w.apiOf(ctx, w.pick(), want, method, path, in, out)
}

// apiOf calls /v1 of one sidecar.
func (w *world) apiOf(ctx context.Context, car *sidecar, want int, method, path string, in, out any) (answer, error) {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return answer{}, fmt.Errorf("calling the API: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, car.proxyURL(path), body)
	if err != nil {
		return answer{}, fmt.Errorf("calling the API: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+w.site.apiKey)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	whom := w.runningAt(car)
	a, err := do(w.client, req)
	if err != nil {
		return a, asked(whom, err)
	}
	if want != 0 && a.status != want {
		return a, &unexpectedError{method + " " + path, a}
	}
	if out != nil && a.status < 300 {
		if err := json.Unmarshal([]byte(a.body), out); err != nil {
			return a, &unexpectedError{method + " " + path, a}
		}
	}
	return a, nil
}

// get returns what the API says of a connection; found is false for 404.
func (w *world) get(ctx context.Context, id string) (v view, found bool, err error) {
	a, err := w.api(ctx, 0, http.MethodGet, "/v1/connections/"+id, nil, &v)
	switch {
	case err != nil:
		return v, false, err
	case a.status == http.StatusNotFound:
		return v, false, nil
	case a.status != http.StatusOK:
		return v, false, &unexpectedError{"GET " + id, a}
	}
	return v, true, nil
}

// newBrowser returns a client with cookies of its own that follows no redirect
// by itself.
func (w *world) newBrowser() (*http.Client, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("making a browser: %w", err)
	}
	return &http.Client{
		Jar: jar, Transport: w.client.Transport, Timeout: w.client.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// browse loads a page that must lead on, from some sidecar, and returns where to.
func (w *world) browse(ctx context.Context, browser *http.Client, page string) (*url.URL, error) {
	car := w.pick()
	public := fmt.Sprintf("localhost:%d", car.Public)
	page = strings.Replace(page, "//"+public+"/", fmt.Sprintf("//localhost:%d/", car.Connect), 1)
	whom := w.runningAt(car)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("browsing: %w", err)
	}
	req.Host = public
	// Each page from an address of its own: all users together are more than
	// lanyard_connect takes from one.
	var from [16]byte
	_, _ = rand.Read(from[:]) // never fails
	req.Header.Set("X-Forwarded-For", netip.AddrFrom16(from).String())
	a, err := do(browser, req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // its text names the whole URL
			err = u.Err
		}
		return nil, asked(whom, fmt.Errorf("browsing: %w", err))
	}
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status != http.StatusSeeOther {
		a.body = ""
		return nil, &unexpectedError{"browsing " + req.URL.Path, a}
	}
	return to, nil
}

// consent says yes at the provider under the given name, and returns the
// address that the provider's page leads to.
func (w *world) consent(ctx context.Context, user, account, authorizeURL string) (string, error) {
	w.signIn.Lock()
	defer w.signIn.Unlock()
	w.fake.SetUser(fakeprovider.User{ID: user, Name: account})
	back, err := fakeprovider.Approve(ctx, w.consenting, authorizeURL)
	if err != nil {
		return "", fmt.Errorf("consenting: %w", err)
	}
	return back, nil
}
