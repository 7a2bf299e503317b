package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// requestTimeout bounds one try. What Lanyard asks of a provider for it takes
	// less.
	requestTimeout = 60 * time.Second
	// maxAnswer bounds an answer: a page of 200 connections with all that each
	// may hold.
	maxAnswer = 16 << 20
	// tries is how often a request is sent whose answer does not come.
	tries = 3
	// pause is before the second try; each further one waits twice as long.
	pause = 200 * time.Millisecond
)

// call is one request to the management API.
type call struct {
	method, path string
	query        url.Values
	body         any
	connectionID string // that it is about, for errors
}

// do makes a call and reads the answer into out. A GET or POST whose answer
// does not come is sent again: each POST has an Idempotency-Key, so that it is
// done once.
func (c *Client) do(ctx context.Context, r call, out any) error {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return fmt.Errorf("lanyard: encoding the request: %w", err)
		}
	}
	once := ""
	if r.method == http.MethodPost {
		once = rand.Text()
	}
	for try := 1; ; try++ {
		err := c.try(ctx, r, body, once, out)
		again := r.method == http.MethodGet || once != ""
		if err == nil || !again || try == tries || !repeatable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause << (try - 1)):
		}
	}
}

// noAnswerError is why no whole answer came.
type noAnswerError struct{ err error }

// Error implements error.
func (e *noAnswerError) Error() string { return "lanyard: no answer: " + e.err.Error() }

// Unwrap returns why.
func (e *noAnswerError) Unwrap() error { return e.err }

// repeatable reports whether sending the request again may give another answer
// at once: none came, or the first is still under way.
func repeatable(err error) bool {
	var none *noAnswerError
	var refused *APIError
	return errors.As(err, &none) || errors.As(err, &refused) && refused.Code == "idempotency_conflict"
}

func (c *Client) try(ctx context.Context, r call, body []byte, once string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	header := http.Header{}
	if body != nil {
		header.Set("Content-Type", "application/json")
	}
	if once != "" {
		header.Set("Idempotency-Key", once)
	}
	res, err := c.send(ctx, r, header, bytes.NewReader(body)) //nolint:bodyclose // discard does it
	if err != nil {
		return err
	}
	defer discard(res.Body)
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &noAnswerError{err}
	case len(b) > maxAnswer:
		return errors.New("lanyard: the answer is too long")
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errors.New("lanyard: the answer is none of Lanyard's: it is not JSON of the known form")
	}
	return nil
}

// send sends a request and returns its answer if that is a success. The caller
// closes its body.
func (c *Client) send(ctx context.Context, r call, header http.Header, body io.Reader) (*http.Response, error) {
	if c.api.url == nil || c.apiKey() == "" {
		return nil, errors.New("lanyard: the API needs APIURL and APIKey")
	}
	u := *c.api.url
	u.Path += r.path
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("lanyard: %w", err)
	}
	req.Header = header
	req.Header.Set("Authorization", "Bearer "+c.apiKey())
	// RoundTrip follows no redirects: the key goes to Lanyard and nowhere else.
	res, err := c.api.transport.RoundTrip(req)
	if err != nil {
		return nil, &noAnswerError{err}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer discard(res.Body)
		return nil, refusal(res, r.connectionID)
	}
	return res, nil
}
