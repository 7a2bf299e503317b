package fidelity_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// fullDuplex sends each piece of a body once the one before has come back.
func fullDuplex(k kind, app *http.Transport) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
		defer cancel()
		s, err := w.site(k)
		if err != nil {
			return err
		}
		path := s.handle(func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).EnableFullDuplex()
			_ = flush(rw)
			buf := make([]byte, 32<<10)
			for {
				n, err := r.Body.Read(buf)
				if n > 0 {
					if _, err := rw.Write(buf[:n]); err != nil || flush(rw) != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		})
		body, pieces := io.Pipe()
		defer pieces.Close()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.front.base(app)+path, body)
		if err != nil {
			return broken("request: %w", err)
		}
		w.authorize(req.Header)
		res, err := app.RoundTrip(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		for i := range 100 {
			piece := noise(1 + 100*i)
			sent := make(chan error, 1)
			go func() {
				_, err := pieces.Write(piece)
				sent <- err
			}()
			if err := wantBytes(res.Body, piece); err != nil {
				return fmt.Errorf("piece %d: %w", i, err)
			}
			if err := <-sent; err != nil {
				return fmt.Errorf("sending piece %d: %w", i, err)
			}
		}
		_ = pieces.Close()
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			return fmt.Errorf("it ends with %q, %w", rest, err)
		}
		return nil
	}
}

// h2Trailers has the answer's trailers hold the request's, which is this, or
// none if it is empty.
func h2Trailers(question string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		s, err := w.site(overH2C)
		if err != nil {
			return err
		}
		path := s.handle(func(rw http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = rw.Write(b)
			_ = flush(rw)
			rw.Header()[http.TrailerPrefix+"X-Answer"] = []string{"a", "b", r.Trailer.Get("X-Question")}
		})
		body, pieces := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.front.H2C+path, body)
		if err != nil {
			return broken("request: %w", err)
		}
		w.authorize(req.Header)
		if question != "" {
			req.Trailer = http.Header{"X-Question": nil}
		}
		go func() {
			_, _ = io.WriteString(pieces, "body")
			if question != "" {
				req.Trailer.Set("X-Question", question)
			}
			_ = pieces.Close()
		}()
		app := h2.Clone() // trailers of requests take down the connection to nginx
		defer app.CloseIdleConnections()
		res, err := app.RoundTrip(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != "body" {
			return fmt.Errorf("body is %q, %w", got, err)
		}
		if got := strings.Join(res.Trailer["X-Answer"], " "); got != "a b "+question {
			return fmt.Errorf("trailers are %q, want %q", got, "a b "+question)
		}
		return nil
	}
}

func h2Headers(ctx context.Context, w *world) error {
	s, err := w.site(overH2C)
	if err != nil {
		return err
	}
	seen := make(chan http.Header, 1)
	path := s.handle(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.front.H2C+path, strings.NewReader("x"))
	if err != nil {
		return broken("request: %w", err)
	}
	want := map[string]string{
		"Te": "trailers", "Content-Type": "application/grpc+proto", "Grpc-Timeout": "1500m",
		"Grpc-Accept-Encoding": "identity, gzip", "User-Agent": "grpc-own/1.0",
	}
	for name, value := range want {
		req.Header.Set(name, value)
	}
	w.authorize(req.Header)
	res, err := h2.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := arrives(ctx, seen, 5*time.Second, "the request does not arrive")
	if err != nil {
		return err
	}
	for name, value := range want {
		if v := strings.Join(got[name], " AND "); v != value {
			return fmt.Errorf("%s is %q, want %q", name, v, value)
		}
	}
	return nil
}
