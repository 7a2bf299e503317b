package fidelity_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

var sseRows = []row{
	{name: "Events arrive as they are sent, with pauses of up to three seconds, comments as heartbeats too", run: sseEvents(plain, h1)},
	{name: "Events arrive as they are sent, to an app that speaks HTTP 2", run: sseEvents(plain, h2)},
	{name: "Events arrive as they are sent, from an API that speaks HTTP 2 by TLS", run: sseEvents(overTLS, h1)},
	{name: "The head of a stream arrives before its first event", run: sseSteps(plain, h1, "")},
	{name: "Bytes that are sent one by one arrive one by one", run: sseSteps(plain, h1, strings.Split("data: byte by byte\n\n", "")...)},
	{name: "Bytes that are sent one by one arrive one by one, by HTTP 2 on both sides", run: sseSteps(overTLS, h2, strings.Split("data: byte by byte\n\n", "")...)},
	{name: "An event of a MiB arrives whole, without the one after it", run: sseSteps(plain, h1, "data: 1\n\n", "data: "+strings.Repeat("0123456789abcdef", 1<<16)+"\n\n", "data: 3\n\n")},
	{
		name: "Line ends, a byte order mark, NUL and what is no UTF-8 stay as they are",
		run:  sseSteps(plain, h1, "\xef\xbb\xbfdata: lf\n\n", "data: crlf\r\n\r\n", "data: cr\r\r", "id:\x00\xff\xfe\n\n", "data\n", "\n\n\n"),
	},
	{name: "Last-Event-ID goes to the API, and so does what is asked for", run: sseResumed},
	{name: "Events in answer to a POST arrive as they are sent", run: ssePosted},
	{name: "An app that leaves a stream ends it at the API within a second", run: sseLeft(plain, h1)},
	{name: "An app that leaves a stream ends it at the API within a second, by HTTP 2 on both sides", run: sseLeft(overTLS, h2)},
	{name: "A stream that the API ends, ends for the app as a whole one", run: sseEnds(plain, h1)},
	{name: "A stream that breaks off at the API is no whole one for the app", run: sseBreaks(plain, h1)},
	{name: "A stream that breaks off at the API is no whole one for the app, by HTTP 2 on both sides", run: sseBreaks(overTLS, h2)},
	{name: "Compressed events arrive as they are sent, and compressed", run: sseCompressed},
}

// openStream asks for the stream that h is.
func openStream(ctx context.Context, w *world, k kind, app *http.Transport, h http.HandlerFunc, change ...func(*http.Request)) (*http.Response, error) {
	s, err := w.site(k)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.front.base(app)+s.handle(h), nil)
	if err != nil {
		return nil, broken("request: %w", err)
	}
	req.Header.Set("Accept", "text/event-stream")
	w.authorize(req.Header)
	for _, f := range change {
		f(req)
	}
	res, err := app.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		_ = res.Body.Close()
		return nil, fmt.Errorf("answer is %s, %q", res.Status, res.Header.Get("Content-Type"))
	}
	return res, nil
}

// events is a handler that sends what comes to it, as it comes, until next is
// closed.
func events(next <-chan string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_ = flush(w)
		for {
			select {
			case <-r.Context().Done():
				return
			case event, ok := <-next:
				if !ok {
					return
				}
				if _, err := io.WriteString(w, event); err != nil || flush(w) != nil {
					return
				}
			}
		}
	}
}

// step has a piece of a stream sent, and waits until it has arrived.
func step(ctx context.Context, next chan<- string, res *http.Response, piece string) error {
	select {
	case next <- piece:
	case <-ctx.Done():
		return errors.New("the API's stream has ended")
	}
	got := make([]byte, len(piece))
	if n, err := io.ReadFull(res.Body, got); err != nil {
		return fmt.Errorf("%d of %d bytes arrived: %w", n, len(piece), err)
	}
	if string(got) != piece {
		return fmt.Errorf("%.100q arrived as %.100q", piece, got)
	}
	return nil
}

// sseEvents looks at the time at which events arrive.
func sseEvents(k kind, app *http.Transport) func(context.Context, *world) error {
	pauses := []time.Duration{0, 50 * time.Millisecond, time.Second, 3 * time.Second, 0, 2 * time.Second}
	return func(ctx context.Context, w *world) error {
		next := make(chan string)
		res, err := openStream(ctx, w, k, app, events(next))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		for i, pause := range pauses {
			time.Sleep(pause)
			event := fmt.Sprintf("id: %d\ndata: x\n\n", i)
			if pause == 2*time.Second {
				event = ": still here\n\n"
			}
			sent := time.Now()
			if err := step(ctx, next, res, event); err != nil {
				return fmt.Errorf("event %d: %w", i, err)
			}
			if late := time.Since(sent); late > prompt {
				return fmt.Errorf("event %d came %v late: %w", i, late, context.DeadlineExceeded)
			}
		}
		return nil
	}
}

// sseSteps sends each piece once the one before has arrived, and nothing
// behind it: a proxy that waits for more waits for ever.
func sseSteps(k kind, app *http.Transport, pieces ...string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
		defer cancel()
		next := make(chan string)
		res, err := openStream(ctx, w, k, app, events(next))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		for i, piece := range pieces {
			if err := step(ctx, next, res, piece); err != nil {
				return fmt.Errorf("piece %d: %w", i, err)
			}
		}
		return nil
	}
}

func sseResumed(ctx context.Context, w *world) error {
	seen := make(chan http.Header, 1)
	next := make(chan string)
	close(next)
	want := http.Header{"Last-Event-Id": {"42/ü; =\"x\""}, "Accept": {"text/event-stream"}, "Cache-Control": {"no-store"}}
	res, err := openStream(ctx, w, plain, h1, func(rw http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		events(next)(rw, r)
	}, func(r *http.Request) {
		maps.Copy(r.Header, want)
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got := <-seen
	for name, values := range want {
		if len(got[name]) != 1 || got[name][0] != values[0] {
			return fmt.Errorf("%s is %q, want %q", name, got[name], values)
		}
	}
	return nil
}

func ssePosted(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	const question = `{"stream": true}`
	next := make(chan string)
	res, err := openStream(ctx, w, plain, h1, func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != question || r.Method != http.MethodPost {
			http.Error(rw, "not what was sent", http.StatusBadRequest)
			return
		}
		events(next)(rw, r)
	}, func(r *http.Request) {
		r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(question)), int64(len(question))
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for _, event := range []string{"data: {\"delta\": \"a\"}\n\n", "data: {\"delta\": \"b\"}\n\n", "data: [DONE]\n\n"} {
		if err := step(ctx, next, res, event); err != nil {
			return err
		}
	}
	return nil
}

// sseLeft has the app leave while nothing is being sent.
func sseLeft(k kind, app *http.Transport) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		ended := make(chan bool, 1)
		next := make(chan string)
		leave, cancel := context.WithCancel(ctx)
		defer cancel()
		res, err := openStream(leave, w, k, app, func(rw http.ResponseWriter, r *http.Request) {
			events(next)(rw, r)
			ended <- true
		})
		if err != nil {
			return err
		}
		if err := step(ctx, next, res, "data: 1\n\n"); err != nil {
			return err
		}
		cancel()
		_ = res.Body.Close()
		_, err = arrives(ctx, ended, soon+prompt, "the API's stream goes on")
		return err
	}
}

func sseEnds(k kind, app *http.Transport) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		next := make(chan string)
		res, err := openStream(ctx, w, k, app, events(next))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if err := step(ctx, next, res, "data: 1\n\n"); err != nil {
			return err
		}
		close(next)
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			return fmt.Errorf("it ends with %q, %w", rest, err)
		}
		return nil
	}
}

func sseBreaks(k kind, app *http.Transport) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		next := make(chan string)
		res, err := openStream(ctx, w, k, app, func(rw http.ResponseWriter, r *http.Request) {
			events(next)(rw, r)
			panic(http.ErrAbortHandler)
		})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if err := step(ctx, next, res, "data: 1\n\n"); err != nil {
			return err
		}
		close(next)
		switch _, err := io.ReadAll(res.Body); {
		case ctx.Err() != nil:
			return errors.New("it does not end")
		case err == nil:
			return errors.New("it ends as if it were whole")
		}
		return nil
	}
}

// sseCompressed has each event be a block of one gzip stream.
func sseCompressed(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	next := make(chan string)
	res, err := openStream(ctx, w, plain, h1, events(next, "Content-Encoding", "gzip"), func(r *http.Request) {
		r.Header.Set("Accept-Encoding", "gzip")
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Encoding"); got != "gzip" {
		return fmt.Errorf("Content-Encoding is %q", got)
	}
	var block bytes.Buffer
	zip := gzip.NewWriter(&block)
	for i := range 5 {
		block.Reset()
		fmt.Fprintf(zip, "id: %d\ndata: compressed\n\n", i)
		_ = zip.Flush()
		if err := step(ctx, next, res, block.String()); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return nil
}
