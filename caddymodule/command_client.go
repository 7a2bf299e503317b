package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

// apiClient calls the management API of a running Lanyard.
type apiClient struct {
	url  string
	dir  string // data directory, where the key is unless the environment has it
	http http.Client

	named bool // somebody has said where it is
}

const (
	// answerWait is how long an answer may take to begin.
	answerWait = time.Minute
	// maxAnswer is how long an answer that is one JSON value may be: a page of 200
	// connections with all the metadata that they can have.
	maxAnswer = 16 << 20
)

// flags adds what says where Lanyard is. Call prepare before the first request.
func (c *apiClient) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.url, "url", "", "where lanyard_api is: http://host:port, or unix//path/to/socket (default: $LANYARD_URL, or http://localhost:9080)")
	dataFlag(cmd, &c.dir)
}

func dataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", "", "the data directory (default: that of a configuration without the option store)")
}

func dataDir(given string) (string, error) {
	if given == "" {
		given = filepath.Join(caddy.AppDataDir(), "lanyard")
	}
	return filepath.Abs(given)
}

func (c *apiClient) prepare() error {
	c.url = cmp.Or(c.url, os.Getenv("LANYARD_URL"))
	c.named = c.url != ""
	c.url = cmp.Or(c.url, "http://localhost:9080")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerWait
	transport.Proxy = nil // of the environment: the key and tokens go to Lanyard and nowhere else
	if socket, ok := socketPath(c.url); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
		c.url = "http://localhost"
	}
	u, err := url.Parse(c.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return usage("--url %q is neither http(s)://host[:port] nor unix//path", c.url)
	}
	c.url = strings.TrimSuffix(c.url, "/")
	c.http.Transport = transport
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the key goes nowhere else
	return nil
}

// socketPath reads unix//path, as Caddy writes it, and unix:///path.
func socketPath(u string) (string, bool) {
	for _, prefix := range []string{"unix//", "unix:///"} {
		if path, ok := strings.CutPrefix(u, prefix); ok && path != "" {
			return "/" + path, true
		}
	}
	return "", false
}

// key returns the API key.
func (c *apiClient) key() (string, error) {
	if key := os.Getenv("LANYARD_API_KEY"); key != "" {
		return key, nil
	}
	dir, err := dataDir(c.dir)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, apiKeyFile)) //nolint:gosec // the operator names the directory
	if err != nil {
		return "", advise(fmt.Errorf("no API key: LANYARD_API_KEY is not set, and %w", err),
			"set LANYARD_API_KEY, or say with --data where the data directory is")
	}
	return strings.TrimSpace(string(text)), nil
}

// call is a request to the API.
type call struct {
	method  string // default: GET
	path    string
	body    any               // sent as JSON, unless nil
	lines   io.Reader         // sent as JSON lines, unless nil
	header  map[string]string // besides
	keyless bool              // sent without the key
}

// refusal is an answer that says what is wrong.
type refusal struct {
	Status     int    `json:"-"`
	Code       string `json:"code"`
	Detail     string `json:"detail"`
	Reason     string `json:"reason"`
	ConnectURL string `json:"connect_url"`
}

func (e *refusal) Error() string {
	text := fmt.Sprintf("Lanyard refused (%s): %s", e.Code, clean(e.Detail))
	if e.Reason != "" {
		text += " Reason: " + clean(e.Reason) + "."
	}
	return text
}

// send makes a request and returns the answer if it is a good one; else an error
// with what the answer says.
func (c *apiClient) send(ctx context.Context, in call) (*http.Response, error) {
	req, err := c.request(ctx, in)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, advise(fmt.Errorf("asking Lanyard: %w", err), "is it running? --url or LANYARD_URL says where it is")
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	p := refusal{Status: res.StatusCode}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&p); err != nil || p.Code == "" {
		return nil, advise(fmt.Errorf("%s%s answered %s", c.url, in.path, res.Status), "is lanyard_api there? --url or LANYARD_URL says where it is")
	}
	return nil, &p
}

func (c *apiClient) request(ctx context.Context, in call) (*http.Request, error) {
	body := in.lines
	if in.body != nil {
		b, err := json.Marshal(in.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, in.method, c.url+in.path, body)
	if err != nil {
		return nil, err
	}
	if !in.keyless {
		key, err := c.key()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+key)
	}
	switch {
	case in.lines != nil:
		req.Header.Set("Content-Type", "application/jsonl")
	case in.method == http.MethodPost:
		req.Header.Set("Idempotency-Key", rand.Text()) // what the transport sends again is done once
	}
	if in.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range in.header {
		req.Header.Set(name, value)
	}
	return req, nil
}

// ask makes a request whose answer is JSON.
func (c *apiClient) ask(ctx context.Context, in call, answer any) error {
	res, err := c.send(ctx, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(answer); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.New("Lanyard's answer can't be read") //nolint:staticcheck // a name
	}
	return nil
}
