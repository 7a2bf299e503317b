package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// serveUpstream is the API that is called: a process of its own, so that its
// memory and its open files are, too.
func serveUpstream(addr string) error {
	var u upstream
	mux := http.NewServeMux()
	mux.HandleFunc("GET /open", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, u.open.Load()) })
	mux.HandleFunc("GET /events", u.checked(u.events))
	mux.HandleFunc("GET /ws", u.checked(u.webSocket))
	mux.HandleFunc("GET /call", u.checked(u.call))
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

type upstream struct {
	open atomic.Int64 // requests under way but for those that ask for this
}

// token is the access token of a connection.
func token(connection int) string {
	return fmt.Sprintf("tok-%05d-%s", connection, strings.Repeat("t", 40))
}

// checked serves those who bring the token of the connection that the query
// names, and nobody else.
func (u *upstream) checked(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token(number(r, "c")) {
			http.Error(w, "not the token of this connection", http.StatusUnauthorized)
			return
		}
		u.open.Add(1)
		defer u.open.Add(-1)
		next(w, r)
	}
}

func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.URL.Query().Get(name))
	return n
}

// events sends events of a size, numbered, with the time of their sending,
// every so many milliseconds, a number of them or until the caller leaves. The
// first comes at any time within that span, so that not all come at once.
func (u *upstream) events(w http.ResponseWriter, r *http.Request) {
	every := time.Duration(max(1, number(r, "ms"))) * time.Millisecond
	count := number(r, "count")
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	next := time.Now().Add(somewhere(every))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	var event []byte
	for seq := 0; count == 0 || seq < count; seq++ {
		select {
		case <-r.Context().Done():
			return
		case <-timer.C:
		}
		event = message(append(event[:0], "data: "...), seq, number(r, "size"))
		if _, err := w.Write(append(event, "\n\n"...)); err != nil || rc.Flush() != nil {
			return
		}
		next = next.Add(every)
		timer.Reset(time.Until(next))
	}
}

// webSocket sends back each message that comes.
func (u *upstream) webSocket(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: "+acceptOf(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
	in := bufio.NewReaderSize(io.MultiReader(io.LimitReader(rw.Reader, int64(rw.Reader.Buffered())), conn), 512)
	var payload, frame []byte
	for {
		if payload, err = readFrame(in, payload); err != nil {
			return
		}
		frame = appendFrame(frame[:0], payload, false)
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

// call answers after some milliseconds.
func (u *upstream) call(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(number(r, "ms"))*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if r.Context().Err() == nil {
		_, _ = w.Write(answerTo(number(r, "seq")))
	}
}

// answerTo is the answer to the call of that number.
func answerTo(seq int) []byte {
	return fmt.Appendf(nil, "answer %08d %s", seq, strings.Repeat("a", 180))
}

// message appends a numbered message with the time, at least size bytes of it.
func message(b []byte, seq, size int) []byte {
	begin := len(b)
	b = fmt.Appendf(b, "%d %d ", seq, time.Now().UnixNano())
	for len(b)-begin < size {
		b = append(b, 'x')
	}
	return b
}

// parse returns the number of a message and how old it is.
func parse(b string) (seq int, age time.Duration, err error) {
	first, rest, _ := strings.Cut(b, " ")
	second, _, _ := strings.Cut(rest, " ")
	seq, err = strconv.Atoi(first)
	at, atErr := strconv.ParseInt(second, 10, 64)
	if err := errors.Join(err, atErr); err != nil {
		return 0, 0, fmt.Errorf("not a message: %.40q", b)
	}
	return seq, time.Duration(time.Now().UnixNano() - at), nil
}
