// Package webhook tells the app what happens: it follows the audit log and
// sends its events to the app's endpoints, signed as Standard Webhooks says
// (https://www.standardwebhooks.com).
//
// Every event arrives at least once, across crashes and restarts: how far an
// endpoint has come is a note in the store, and moves on only behind what was
// taken or given up. The events of one connection arrive in their order.
package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Store is what a Sender needs of a tokenstore.Store.
type Store interface {
	ListEvents(ctx context.Context, f tokenstore.EventFilter, cursor string, limit int) (page []tokenstore.Event, next string, err error)
	AppendEvents(ctx context.Context, events ...tokenstore.Event) error
	Note(ctx context.Context, id string) (tokenstore.Note, error)
	UpdateNote(ctx context.Context, id string, change func(*tokenstore.Note) error) (tokenstore.Note, error)
	DeleteNote(ctx context.Context, id string) error
}

// Endpoint is where webhooks are sent.
type Endpoint struct {
	URL string // as CheckURL wants it
	// Secrets sign what is sent, each by itself: one, or while it is exchanged the
	// new one and the old one. As ParseSecret returns them.
	Secrets []secret.String
	// Events are the types that are sent, of Types. None: DefaultTypes.
	Events []tokenstore.EventType
}

// DefaultTypes are the types of events that an endpoint gets unless it names
// others.
var DefaultTypes = []tokenstore.EventType{
	tokenstore.EventActive, tokenstore.EventFailed, tokenstore.EventExpired, tokenstore.EventRefreshed,
	tokenstore.EventRefreshFailed, tokenstore.EventRevoked, tokenstore.EventScopes,
}

// Types are the types of events that an endpoint may name: all but what tells of
// webhooks themselves, which would have no end.
var Types = append(slices.Clone(DefaultTypes),
	tokenstore.EventDeleted, tokenstore.EventBegun, tokenstore.EventLinked, tokenstore.EventAuthorized,
	tokenstore.EventDropped, tokenstore.EventChanged, tokenstore.EventUsed, tokenstore.EventDamaged,
	tokenstore.EventFlowEnded, tokenstore.EventCompletion, tokenstore.EventCallRefused, tokenstore.EventKeyRefused,
	tokenstore.EventBackup, tokenstore.EventRekey, tokenstore.EventFrozen, tokenstore.EventThawed,
)

// Config says what a Sender works with.
type Config struct {
	Store Store // required
	// Encode returns an event as the API shows it, in JSON. Required.
	Encode func(tokenstore.Event) ([]byte, error)
	// Transport makes the requests. Default: TLS verified, no proxy.
	Transport http.RoundTripper
	// Metrics counts the requests, by metrics.WebhookResults. Default: nobody sees
	// them.
	Metrics *metrics.Counts
	Logger  *zap.Logger // default: none
}

// Sender sends webhooks. Close has to be called at its end.
type Sender struct {
	cfg    Config
	client *http.Client

	mu      sync.Mutex
	workers map[string]*worker // guarded by mu; :: URL → who sends to it
	left    map[string]*worker // guarded by mu; :: URL that is configured no more → who sent to it, and may be at its last request
	work    sync.WaitGroup
	closed  bool // guarded by mu
}

// New returns a Sender that sends to nobody yet.
func New(cfg Config) *Sender {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewCounts()
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTime}).DialContext,
			TLSHandshakeTimeout:    dialTime,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    atOnce,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxAnswer,
		}
	}
	return &Sender{
		cfg: cfg, workers: map[string]*worker{}, left: map[string]*worker{},
		client: &http.Client{
			Transport: cfg.Transport, Timeout: answerTime,
			// The operator wrote one URL, and the body is for nobody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Use sends to these endpoints from now on, each URL once, and no more to
// others. One that was there already goes on where it is. A new one gets what
// happens from now on; one that was there in an earlier run, what it has not
// taken yet.
func (s *Sender) Use(endpoints []Endpoint) {
	s.mu.Lock() // over reads of the store too: nobody waits for it but the end
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	next := map[string]*worker{}
	for _, e := range endpoints {
		if next[e.URL] != nil {
			continue
		}
		old := cmp.Or(s.workers[e.URL], s.left[e.URL])
		if old != nil && old.endpoint.same(e) && old.ctx.Err() == nil {
			next[e.URL] = old
			continue
		}
		next[e.URL] = newWorker(s, e, old)
	}
	for url, w := range s.workers {
		if next[url] != w {
			w.stop()
			s.left[url] = w
		}
	}
	for url, w := range next {
		delete(s.left, url)
		if s.workers[url] != w {
			s.work.Go(w.run)
		}
	}
	s.workers = next
}

// Close ends all sending and waits for it. What is under way is sent again by
// the next run.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	for _, w := range s.workers {
		w.stop()
	}
	s.mu.Unlock()
	s.work.Wait()
	s.client.CloseIdleConnections()
}

func (e Endpoint) same(other Endpoint) bool {
	return e.URL == other.URL && slices.EqualFunc(e.Secrets, other.Secrets, secret.String.Equal) && slices.Equal(e.Events, other.Events)
}

// wants reports whether an event of type t is sent.
func (e Endpoint) wants(t tokenstore.EventType) bool {
	if len(e.Events) == 0 {
		return slices.Contains(DefaultTypes, t)
	}
	return slices.Contains(e.Events, t)
}

// CheckURL returns why webhooks can't be sent to a URL, or nil: it is https, or
// http to this machine, and holds no user name or password. The error does not
// hold it.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("it is not an absolute URL")
	case u.User != nil:
		return errors.New("it holds a user name; webhooks are proved by their signature")
	case u.Fragment != "":
		return errors.New("it has a fragment, which is never sent")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("its scheme is %q, not https", u.Scheme)
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return errors.New("http is for this machine alone (localhost, 127.0.0.1, [::1]); use https")
	}
	return nil
}

// shown returns what logs call an endpoint: its path and query may be secret.
func shown(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
