package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
}

// answerWait is how long an answer may take to begin.
const answerWait = time.Minute

// flags adds what says where Lanyard is. Call prepare before the first request.
func (c *apiClient) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.url, "url", "", "where lanyard_api is (default: $LANYARD_URL, or http://localhost:9080)")
	dataFlag(cmd, &c.dir)
}

func dataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", "", "the data directory (default: that of a configuration without `store`)")
}

func dataDir(given string) (string, error) {
	if given == "" {
		given = filepath.Join(caddy.AppDataDir(), "lanyard")
	}
	return filepath.Abs(given)
}

func (c *apiClient) prepare() error {
	for _, u := range []string{os.Getenv("LANYARD_URL"), "http://localhost:9080"} {
		if c.url == "" {
			c.url = u
		}
	}
	u, err := url.Parse(c.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("--url %q is not http(s)://host[:port]", c.url)
	}
	c.url = strings.TrimSuffix(c.url, "/")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerWait
	c.http.Transport = transport
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the key goes nowhere else
	return nil
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
		return "", fmt.Errorf("no API key: LANYARD_API_KEY is not set, and %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// do makes a request and returns the answer, whose status is want; else an
// error with what the answer says.
func (c *apiClient) do(ctx context.Context, method, path string, want int) (*http.Response, error) {
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking Lanyard (--url says where it is): %w", err)
	}
	if res.StatusCode == want {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	var p struct{ Code, Detail string }
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&p); err != nil || p.Code == "" {
		return nil, fmt.Errorf("%s%s answered %s: is lanyard_api there?", c.url, path, res.Status)
	}
	return nil, fmt.Errorf("Lanyard refused (%s): %s", p.Code, p.Detail) //nolint:staticcheck // a name
}

// ask makes a request whose answer is JSON.
func (c *apiClient) ask(ctx context.Context, method, path string, want int, answer any) error {
	res, err := c.do(ctx, method, path, want)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(answer); err != nil {
		return errors.New("Lanyard's answer can't be read") //nolint:staticcheck // a name
	}
	return nil
}

// progress shows on a terminal how far something is, in one line that changes.
type progress struct {
	out  io.Writer // nil where there is no terminal
	last time.Time
}

func newProgress() *progress {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{out: os.Stderr}
}

func (p *progress) show(format string, args ...any) {
	if p.out != nil && time.Since(p.last) > 200*time.Millisecond {
		p.last = time.Now()
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K"+format, args...)
	}
}

// end clears the line.
func (p *progress) end() {
	if p.out != nil {
		_, _ = io.WriteString(p.out, "\r\x1b[K")
	}
}
