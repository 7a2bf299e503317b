package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// atOnce bounds the requests that are under way to one endpoint.
	atOnce = 16
	// answerTime is how long an endpoint may take for its answer.
	answerTime = 15 * time.Second
	dialTime   = 5 * time.Second
	// maxAnswer is how much of an answer is read, in bytes. It is not looked at.
	maxAnswer = 64 << 10
	// The pause after a failure doubles from firstPause to longestPause.
	firstPause   = 5 * time.Second
	longestPause = time.Hour
	// longestAsked bounds what an endpoint may ask for by Retry-After.
	longestAsked = 24 * time.Hour
	// giveUpAfter is how long an event is tried: a night and the day after.
	giveUpAfter = 28 * time.Hour
	// stopGrace is how long requests under way may go on at the end.
	stopGrace = 5 * time.Second
)

// message is the body of a webhook.
type message struct {
	Type      tokenstore.EventType `json:"type"`
	Timestamp time.Time            `json:"timestamp"`
	Data      json.RawMessage      `json:"data"` // the event as the API shows it
}

// deliver sends an event until it is taken or given up, or returns false if the worker
// ends before.
func (w *worker) deliver(next waiting) bool {
	e := next.event
	body, err := w.encode(e)
	if err != nil {
		w.log.Error("webhook not encoded", zap.Error(err))
		return true
	}
	log := w.log.With(zap.String("event", string(e.Type)), zap.String("connection_id", e.ConnectionID))
	for attempt := 1; ; attempt++ {
		if !w.turn() {
			return false
		}
		if !w.term.hold.Held() { // another may be sending by now
			<-w.slots
			return false
		}
		asked, err := w.send(e, body)
		<-w.slots
		w.sender.cfg.Metrics.Add(resultOf(err))
		if err == nil {
			if w.failing.Swap(false) {
				log.Info("webhook endpoint takes webhooks again")
			}
			return true
		}
		if errors.Is(err, errGone) {
			if !w.gone.Swap(true) {
				log.Error("webhook endpoint has gone (410), nothing more is sent until the configuration is loaded again")
			}
			w.stop()
		}
		if w.term.ctx.Err() != nil {
			return false
		}
		if !w.failing.Swap(true) {
			log.Warn("webhook endpoint does not take webhooks, trying again", zap.Error(err))
		}
		log.Debug("webhook not taken", zap.Int("attempt", attempt), zap.Error(err))
		left := time.Until(next.until)
		if left <= 0 {
			w.giveUp(e, log)
			return true
		}
		w.hold(asked)
		if !sleep(w.term.ctx, min(backoff(attempt), left)) {
			return false
		}
	}
}

func (w *worker) encode(e tokenstore.Event) ([]byte, error) {
	data, err := w.sender.cfg.Encode(e)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(message{Type: e.Type, Timestamp: e.At.UTC(), Data: data}); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// turn waits until one more request may be made, and takes its slot.
func (w *worker) turn() bool {
	for {
		w.mu.Lock()
		pause := time.Until(w.pause)
		w.mu.Unlock()
		if pause > 0 {
			if !sleep(w.term.ctx, pause) {
				return false
			}
			continue
		}
		select {
		case <-w.term.ctx.Done():
			return false
		case w.slots <- struct{}{}:
		}
		w.mu.Lock()
		held := time.Now().Before(w.pause) // asked for while this one waited for its slot
		w.mu.Unlock()
		if !held {
			return true
		}
		<-w.slots
	}
}

// hold sends nothing to the endpoint for the time that it asked for.
func (w *worker) hold(asked time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pause = later(w.pause, time.Now().Add(min(asked, longestAsked)))
}

// errGone is the error of an endpoint that wants nothing any more.
var errGone = errors.New("answer 410")

// send makes one request. It returns how long the endpoint wants to be left
// alone if it has not taken the event; the error does not hold its URL.
func (w *worker) send(e tokenstore.Event, body []byte) (asked time.Duration, err error) {
	ctx, cancel := context.WithTimeout(w.term.sendCtx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.endpoint.URL, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("the URL can't be used")
	}
	now := time.Now().Unix()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Lanyard")
	req.Header.Set(headerID, messageID(e))
	req.Header.Set(headerTimestamp, strconv.FormatInt(now, 10))
	req.Header.Set(headerSignature, signatures(w.endpoint.Secrets, messageID(e), now, body))
	res, err := w.sender.client.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		return 0, u.Err // without the URL
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer) // so that the connection can be used again
	switch {
	case res.StatusCode >= 200 && res.StatusCode <= 299:
		return 0, nil
	case res.StatusCode == http.StatusGone:
		return 0, errGone
	}
	return retryAfter(res.Header.Get("Retry-After"), time.Now()), fmt.Errorf("answer %d", res.StatusCode)
}

// resultOf returns what metrics call the outcome of a request.
func resultOf(err error) string {
	switch {
	case err == nil:
		return metrics.WebhookTaken
	case errors.Is(err, errGone):
		return metrics.WebhookGone
	}
	return metrics.WebhookFailed
}

// giveUp writes down that e was not taken, so that the rest goes on.
func (w *worker) giveUp(e tokenstore.Event, log *zap.Logger) {
	w.sender.cfg.Metrics.Add(metrics.WebhookGivenUp)
	log.Error("webhook given up", zap.Uint64("seq", e.Seq), zap.Duration("after", giveUpAfter))
	ctx, cancel := context.WithTimeout(w.term.sendCtx, storeTime)
	defer cancel()
	err := w.sender.cfg.Store.AppendEvents(ctx, tokenstore.Event{
		Type: tokenstore.EventWebhookLost, Reason: string(e.Type),
		ConnectionID: e.ConnectionID, Integration: e.Integration, UserID: e.UserID,
		Actor: tokenstore.Actor{Kind: tokenstore.ActorLanyard},
	})
	if err != nil {
		log.Error("event not written", zap.Error(err))
	}
}

// messageID returns the webhook-id of e: the same each time it is sent, and
// another one than that of any other event, also of one that has its number in a
// log that was restored.
func messageID(e tokenstore.Event) string {
	return "evt_" + strconv.FormatUint(e.Seq, 10) + "_" + strconv.FormatInt(e.At.UnixNano(), 36)
}

// backoff returns the pause after the attempt with this number, from 1 on: with
// jitter, so that those that failed together don't come back together.
func backoff(attempt int) time.Duration {
	pause := longestPause
	if attempt < 16 { // the shift stays small
		pause = min(firstPause<<(attempt-1), longestPause)
	}
	return pause - rand.N(pause/4) //nolint:gosec // no secret
}

// retryAfter reads a Retry-After (RFC 9110 section 10.2.3), or returns zero.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(max(0, min(seconds, int(longestAsked/time.Second)))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sleep reports whether ctx lasted for d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
