package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// importAtOnce is how many lines are under way at once: what a provider's pace
	// allows is less, and the store syncs them together.
	importAtOnce = 8
	// lineTime bounds one line. A renewal waits its turn at the provider.
	lineTime = time.Minute
	// maxUntaken is how many results wait for a client that sends everything
	// before it reads: what the connection itself holds are a few thousand.
	maxUntaken = 1 << 16
)

// lineMedia are the media types of JSON lines.
var lineMedia = []string{"application/jsonl", "application/x-ndjson"}

// linesOf returns the media type of a body of JSON lines, empty if it is none.
func linesOf(contentType []string) string {
	if len(contentType) != 1 {
		return ""
	}
	media, _, err := mime.ParseMediaType(contentType[0])
	if err != nil || !slices.Contains(lineMedia, media) {
		return ""
	}
	return media
}

// lineView is the result of one line.
type lineView struct {
	Line     int               `json:"line"` // from 1
	ID       string            `json:"id,omitempty"`
	Status   tokenstore.Status `json:"status,omitempty"`
	Verified *bool             `json:"verified"`
	Error    *lineError        `json:"error,omitempty"`
}

type lineError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// importLines imports each line of the body by itself, some at the same time,
// and answers in their order as it goes.
func (h *Handler) importLines(w http.ResponseWriter, r *http.Request, in *input, verify bool) {
	out := &streamWriter{to: w, control: http.NewResponseController(w)}
	_ = out.control.EnableFullDuplex() // HTTP/2 has it always
	header := w.Header()
	header.Set("Content-Type", in.lines)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	_ = out.control.Flush() // a client may wait for this before it sends more

	ctx, stop := context.WithCancel(r.Context())
	results := make(chan chan lineView, importAtOnce-1) // with the one that is waited for
	var readErr error                                   // read after results is closed
	go func() {                                         // ends with the body, or with ctx; results is drained below
		defer close(results)
		readErr = h.eachLine(ctx, r.Body, func(n int, line []byte, p *guard.Problem) { //nolint:contextcheck // ctx ends the reading alone
			_ = out.control.SetWriteDeadline(time.Now().Add(streamPatience)) // who still sends has not gone
			result := make(chan lineView, 1)
			results <- result
			go func() { result <- h.importLine(r.Context(), in.by, n, line, p, verify) }()
		})
	}()
	views := make(chan lineView, maxUntaken)
	go func() { // ends with results; views is drained below
		defer close(views)
		for result := range results {
			views <- <-result
		}
	}()
	gone := false
	for view := range views {
		if gone {
			continue
		}
		b, err := json.Marshal(view)
		if err == nil {
			_, err = out.Write(append(b, '\n'))
		}
		if err == nil {
			err = out.control.Flush()
		}
		if err != nil {
			gone = true
			stop()
			_ = out.control.SetReadDeadline(time.Now()) // so that reading ends too
		}
	}
	stop()
	if gone || readErr != nil {
		h.log.Warn("import cut off", zap.Bool("client_gone", gone), zap.Error(readErr))
		panic(http.ErrAbortHandler) // so that it doesn't look like the end
	}
	_ = out.control.SetWriteDeadline(time.Time{}) // the connection may serve on
}

// eachLine calls do for each line that is not empty, until ctx ends. A line that
// is too long is called with a problem in its place.
func (h *Handler) eachLine(ctx context.Context, body io.Reader, do func(n int, line []byte, p *guard.Problem)) error {
	in := bufio.NewReaderSize(body, 64<<10)
	for n := 1; ctx.Err() == nil; n++ {
		line, long, err := readLine(in)
		line = bytes.TrimSpace(line)
		switch {
		case long:
			do(n, nil, bodyTooLarge("The line"))
		case len(line) > 0 && (err == nil || errors.Is(err, io.EOF)):
			do(n, line, nil)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return ctx.Err()
}

// readLine reads one line. Of one that is over 1 MiB it keeps nothing.
func readLine(in *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxBody; !long {
			line = append(line, part...)
		} else {
			line = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, long, err
		}
	}
}

// importLine imports one line. It is brought to its end whether or not somebody
// still listens.
func (h *Handler) importLine(
	ctx context.Context, by tokenstore.Actor, n int, line []byte, p *guard.Problem, verify bool,
) lineView {
	view := lineView{Line: n}
	if p == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lineTime)
		defer cancel()
		in := &input{by: by}
		if in.body, p = object(line, "The line"); p == nil {
			var c tokenstore.Connection
			if c, view.Verified, p = h.importOne(ctx, in, verify); p == nil {
				view.ID, view.Status = c.ID, c.Status
			}
		}
	}
	if p != nil {
		view.Error = &lineError{Code: p.Code, Detail: p.Detail}
	}
	return view
}
