package proxy

import (
	"context"
	"io"
	"net/http"
)

// tunnel carries a connection that switched to another protocol (RFC 9110
// section 7.8), until both sides have ended or one has failed.
func tunnel(ctx context.Context, rc *http.ResponseController, c *call, res *http.Response) {
	upstream, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !c.body.ended() { // a body would be read as the new protocol
		panic(http.ErrAbortHandler)
	}
	app, buffered, err := rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = app.Close() }()
	stop := context.AfterFunc(ctx, func() {
		_ = upstream.Close()
		_ = app.Close()
	})
	defer stop()

	header := *res
	header.Body = nil // it is the connection, not a body to be written
	if header.Write(buffered) != nil || buffered.Flush() != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !copyHalf(app, upstream) {
			_ = upstream.Close()
			_ = app.Close()
		}
	}()
	// What the app sent too early is in the reader.
	if !copyHalf(upstream, buffered.Reader) {
		_ = upstream.Close()
		_ = app.Close()
	}
	<-done
}

// copyHalf copies one direction and passes its end on. It reports false if it
// could not, so that the other direction has no use either.
func copyHalf(dst io.Writer, src io.Reader) bool {
	if _, err := io.Copy(dst, src); err != nil {
		return false
	}
	half, ok := dst.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}
