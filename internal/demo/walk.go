package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// pollEvery is how often the walk looks whether its user has connected.
const pollEvery = 300 * time.Millisecond

// Options say how the walk is walked.
type Options struct {
	Out io.Writer
	In  io.Reader // where Enter is pressed; not read with Yes
	Yes bool      // approve by itself, wait for nobody

	// Life is how long access tokens live on the walk. Default: 3 seconds with
	// Yes, else 15, which leaves time to call.
	Life time.Duration
}

// Run walks through the whole job and checks each step: connect, call, the
// token runs out, call again, revoke at the provider, call, reconnect, call.
// It returns nil when all went as it should, else an error that names the step.
//
// Everything in cfg must be running, the demo app included. Without Yes one
// goroutine reads o.In; it ends with the line that is read after Run returned,
// since a read from a terminal can't be interrupted.
func Run(ctx context.Context, cfg Config, o Options) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if cfg.Provider == nil || cfg.ProviderURL == "" {
		return errors.New("demo: Provider or ProviderURL is empty")
	}
	if o.Life <= 0 {
		if o.Life = 15 * time.Second; o.Yes {
			o.Life = 3 * time.Second
		}
	}
	cfg.Provider.SetAccessLife(o.Life)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jar, err := cookiejar.New(nil)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	browser := *cfg.Client
	browser.Jar = jar
	w := &walk{cfg: cfg, out: o.Out, yes: o.Yes, browser: &browser}
	if !o.Yes {
		w.lines = make(chan string)
		go w.read(ctx, o.In)
	}
	w.intro()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"connect", w.connect},
		{"call", w.firstCall},
		{"expire", w.runOut},
		{"refresh", w.secondCall},
		{"revoke", w.revoke},
		{"reconnect", w.reconnect},
		{"ledger", w.ledger},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("demo: step %s: %w", step.name, err)
		}
	}
	return nil
}

// walk is one run of Run.
type walk struct {
	cfg     Config
	out     io.Writer
	yes     bool
	lines   chan string // what was typed; closed at the end of the input
	browser *http.Client
	conn    connection // as last seen
}

func (w *walk) say(format string, args ...any) { _, _ = fmt.Fprintf(w.out, format+"\n", args...) }

// done reports a step that went well.
func (w *walk) done(word, format string, args ...any) {
	w.say("  ✓ %-12s %s", word, fmt.Sprintf(format, args...))
}

func (w *walk) intro() {
	w.say("Lanyard demo: everything runs on this machine, nothing is kept.")
	w.say("")
	w.say("  %-12s %-24s a pretend provider: OAuth 2, PKCE, rotating refresh tokens", ProviderTitle, w.cfg.ProviderURL)
	w.say("  %-12s %-24s the pages that users see", "Connect", w.cfg.ConnectURL)
	w.say("  %-12s %-24s what an app calls", "Proxy", w.cfg.ProxyURL)
	w.say("  %-12s %-24s an app that does", "Demo app", w.cfg.AppURL)
	w.say("")
}

// read passes on what is typed.
func (w *walk) read(ctx context.Context, in io.Reader) {
	defer close(w.lines)
	for sc := bufio.NewScanner(in); sc.Scan(); {
		select {
		case w.lines <- strings.TrimSpace(sc.Text()):
		case <-ctx.Done():
			return
		}
	}
}

// line waits until Enter was pressed.
func (w *walk) line(ctx context.Context, prompt string) error {
	if w.yes {
		return nil
	}
	w.say("")
	w.say("  %s", prompt)
	select {
	case _, ok := <-w.lines:
		if !ok {
			return errors.New("the input ended")
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *walk) connect(ctx context.Context) error {
	if err := w.visit(ctx, "1  Connect an account. Open", "/connect", 0); err != nil {
		return err
	}
	w.done("connected", "%s, %s, %s", ProviderTitle, w.conn.ID, w.conn.UserID)
	return nil
}

// visit lets the user, or Run itself, go through the connect flow that begins
// at one of the demo app's pages, and waits until the connection is active
// with a token generation over after.
func (w *walk) visit(ctx context.Context, prompt, path string, after uint64) error {
	if w.yes {
		if err := w.approve(ctx, path); err != nil {
			return err
		}
	} else {
		w.say("")
		w.say("  %s", prompt)
		w.say("     %s%s", w.cfg.AppURL, path)
		w.say("     waiting for you … (or type a and Enter to approve without a browser)")
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		conn, err := w.cfg.connection(ctx)
		switch {
		case errors.Is(err, errNoConnection):
		case err != nil:
			return err
		case conn.Status == statusActive && conn.Generation > after:
			w.conn = conn
			return nil
		}
		if w.yes {
			return fmt.Errorf("the connection is %s, generation %d, after the flow", conn.Status, conn.Generation)
		}
		select {
		case <-tick.C:
		case typed, ok := <-w.lines:
			if !ok {
				return errors.New("the input ended")
			}
			if typed == "a" {
				if err := w.approve(ctx, path); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// approve goes through the flow as a browser would, and says yes.
func (w *walk) approve(ctx context.Context, path string) error {
	at, err := w.open(ctx, w.cfg.AppURL+path)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(at, w.cfg.ProviderURL+"/authorize?") {
		return fmt.Errorf("the link led to %s, not to the provider", withoutQuery(at))
	}
	back, err := fakeprovider.Approve(ctx, w.browser, at)
	if err != nil {
		return err
	}
	if at, err = w.open(ctx, back); err != nil {
		return err
	}
	if at != w.cfg.AppURL+"/?notice=connected" {
		return fmt.Errorf("the flow ended at %s, not at the app", withoutQuery(at))
	}
	return nil
}

// open gets a page, following redirects, and returns its address.
func (w *walk) open(ctx context.Context, to string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return "", fmt.Errorf("opening a page: %w", err)
	}
	resp, err := w.browser.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // it names the whole URL, codes and all
			err = u.Err
		}
		return "", fmt.Errorf("opening %s: %w", withoutQuery(to), err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return "", fmt.Errorf("reading a page: %w", err)
	}
	at := resp.Request.URL.String()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %d", withoutQuery(at), resp.StatusCode)
	}
	return at, nil
}

// withoutQuery cuts off what may hold a code or a state.
func withoutQuery(address string) string {
	address, _, _ = strings.Cut(address, "?")
	return address
}

// expect calls the API and checks the status.
func (w *walk) expect(ctx context.Context, status int) (call, error) {
	got, err := w.cfg.call(ctx, w.conn.ID, "/me")
	if err != nil {
		return call{}, err
	}
	if got.Status != status {
		return call{}, fmt.Errorf("GET /me answered %d %s, not %d", got.Status, got.Code, status)
	}
	return got, nil
}

func (w *walk) firstCall(ctx context.Context) error {
	// The key is shown: it opens nothing but this demo, and ends with it.
	if err := w.line(ctx, "2  Call the API. Press Enter, or call it yourself; no token is in sight:\n"+
		"     curl -H 'Lanyard-Key: "+w.cfg.ClientKey+"' -H 'Connection-Id: "+w.conn.ID+"' "+w.cfg.ProxyURL+"/me"); err != nil {
		return err
	}
	got, err := w.expect(ctx, http.StatusOK)
	if err != nil {
		return err
	}
	// Whoever was slow to press Enter has a new token by now.
	if w.conn, err = w.cfg.connection(ctx); err != nil {
		return err
	}
	w.done("called", "GET /me: %d in %d ms, no token in sight", got.Status, got.Took.Milliseconds())
	if !w.yes {
		w.say("      %s", strings.TrimSpace(got.Body))
	}
	return nil
}

// runOut waits until the access token has expired.
func (w *walk) runOut(ctx context.Context) error {
	end := w.conn.AccessTokenExpiresAt
	if end.IsZero() {
		return errors.New("the connection does not say when its token expires")
	}
	left := time.Until(end)
	if !w.yes {
		w.say("")
		w.say("  3  The access token runs out in %d s; waiting.", max(0, int(left.Seconds()+0.5)))
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.done("expired", "the access token has run out")
	return nil
}

func (w *walk) secondCall(ctx context.Context) error {
	if err := w.line(ctx, "4  Call again. Press Enter."); err != nil {
		return err
	}
	got, err := w.expect(ctx, http.StatusOK)
	if err != nil {
		return err
	}
	before := w.conn.Generation
	if w.conn, err = w.cfg.connection(ctx); err != nil {
		return err
	}
	if w.conn.Generation <= before {
		return fmt.Errorf("the token generation is still %d", before)
	}
	w.done("refreshed", "token generation %d → %d, on the way", before, w.conn.Generation)
	w.done("200", "GET /me: %d in %d ms; the app noticed nothing", got.Status, got.Took.Milliseconds())
	return nil
}

func (w *walk) revoke(ctx context.Context) error {
	if err := w.line(ctx, "5  Revoke at the provider, and call. Press Enter."); err != nil {
		return err
	}
	w.cfg.Provider.RevokeAll()
	got, err := w.expect(ctx, http.StatusFailedDependency)
	if err != nil {
		return err
	}
	if got.Code != "reconnect_required" || !strings.HasPrefix(got.ConnectURL, w.cfg.ConnectURL+"/connect?") {
		return fmt.Errorf("the answer has code %q and no link to reconnect", got.Code)
	}
	w.done("revoked", "at the provider; GET /me: %d %s, with a link to reconnect", got.Status, got.Code)
	return nil
}

func (w *walk) reconnect(ctx context.Context) error {
	id := w.conn.ID
	if err := w.visit(ctx, "6  Reconnect. Open", "/reconnect", w.conn.Generation); err != nil {
		return err
	}
	if w.conn.ID != id {
		return fmt.Errorf("the connection is another one now: %s, before %s", w.conn.ID, id)
	}
	got, err := w.expect(ctx, http.StatusOK)
	if err != nil {
		return err
	}
	w.done("reconnected", "the same connection; GET /me: %d", got.Status)
	return nil
}

// ledger asks the provider's books whether any refresh token was used twice.
func (w *walk) ledger(context.Context) error {
	if reused := w.cfg.Provider.Ledger().Reused(); len(reused) > 0 {
		return fmt.Errorf("the provider saw %s twice", strings.Join(reused, ", "))
	}
	if !w.yes {
		w.say("")
		w.say("  That is all. No refresh token was used twice, and the app never saw a token.")
	}
	return nil
}
