package fidelity_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// grpcRefuses sends until it hears that nobody wants it.
func grpcRefuses(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	s, err := openCall(ctx, c, "Refuse")
	if err != nil {
		return err
	}
	for m := make([]byte, 1<<10); err == nil; {
		err = s.SendMsg(&m)
	}
	var m []byte
	if got := status.Convert(s.RecvMsg(&m)); got.Code() != codes.PermissionDenied || got.Message() != failure {
		return fmt.Errorf("status is %v, %q", got.Code(), got.Message())
	}
	return nil
}

// waiting opens a call that the API does not end.
func waiting(ctx context.Context, api *grpcAPI, c *grpc.ClientConn) (*wait, grpc.ClientStream, time.Duration, error) {
	s, err := openCall(ctx, c, "Wait")
	if err != nil {
		return nil, nil, 0, err
	}
	word := noise(16)
	if err := s.SendMsg(&word); err != nil {
		return nil, nil, 0, err
	}
	call := api.expect(string(word))
	left, err := arrives(ctx, call.came, 10*time.Second, "the call does not arrive")
	return call, s, left, err
}

func grpcDeadline(ctx context.Context, api *grpcAPI, c *grpc.ClientConn) error {
	const limit = 2 * time.Second
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	call, s, left, err := waiting(short, api, c)
	if err != nil {
		return err
	}
	if left <= 0 || left > limit {
		return fmt.Errorf("the API has %v left of %v", left, limit)
	}
	var m []byte
	if code := status.Code(s.RecvMsg(&m)); code != codes.DeadlineExceeded {
		return fmt.Errorf("status is %v", code)
	}
	_, err = arrives(ctx, call.ended, soon+prompt, "the call goes on at the API")
	return err
}

func grpcCancelled(ctx context.Context, api *grpcAPI, c *grpc.ClientConn) error {
	leave, cancel := context.WithCancel(ctx)
	defer cancel()
	call, _, _, err := waiting(leave, api, c)
	if err != nil {
		return err
	}
	cancel()
	_, err = arrives(ctx, call.ended, soon+prompt, "the call goes on at the API")
	return err
}

func grpcSilent(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	s, err := openCall(ctx, c, "Chat")
	if err != nil {
		return err
	}
	for _, pause := range []time.Duration{0, 5 * time.Second} {
		time.Sleep(pause)
		if err := echoed(s, []byte("still there?")); err != nil {
			return err
		}
	}
	return endCall(s)
}

// grpcMany has all streams open before any goes on.
func grpcMany(ctx context.Context, w *world) error {
	const connections, each = 8, 125
	_, front, err := w.grpc(grpcPlain)
	if err != nil {
		return err
	}
	var work, opening sync.WaitGroup
	opening.Add(connections * each)
	failed := make(chan error, connections*each)
	for range connections {
		c, err := w.dialGRPC(front)
		if err != nil {
			return err
		}
		defer c.Close()
		for range each {
			work.Go(func() {
				s, err := openCall(ctx, c, "Chat")
				if err == nil {
					err = echoed(s, []byte("open"))
				}
				opening.Done()
				opening.Wait()
				for i := 0; i < 3 && err == nil; i++ {
					err = echoed(s, noise(1000))
				}
				if err == nil {
					err = endCall(s)
				}
				failed <- err
			})
		}
	}
	work.Wait()
	close(failed)
	var first error
	n := 0
	for err := range failed {
		if err != nil {
			first = err
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("%d of %d streams fail: %w", n, connections*each, first)
	}
	return nil
}

// grpcGoAway calls an API that ends each connection after a second, once the
// streams on it have ended.
func grpcGoAway(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	long, err := openCall(ctx, c, "Chat")
	if err != nil {
		return err
	}
	calls := 0
	for began := time.Now(); time.Since(began) < 3*time.Second; calls++ {
		m, got := []byte("call"), []byte(nil)
		if err := c.Invoke(ctx, grpcMethod("Echo"), &m, &got); err != nil {
			return fmt.Errorf("call %d: %w", calls, err)
		}
		if calls%50 == 0 {
			if err := echoed(long, m); err != nil {
				return fmt.Errorf("the stream, at call %d: %w", calls, err)
			}
		}
	}
	return endCall(long)
}

// grpcAll is one call of each sort.
func grpcAll(ctx context.Context, api *grpcAPI, c *grpc.ClientConn) error {
	for _, f := range []func(context.Context, *grpcAPI, *grpc.ClientConn) error{
		grpcUnary, grpcServerStream, grpcClientStream, grpcChat, grpcFails(""), grpcFails("x"), grpcMetadata, grpcCancelled, grpcDeadline, grpcCompressed,
	} {
		if err := f(ctx, api, c); err != nil {
			return err
		}
	}
	return nil
}

// TestOwnAnswersToGRPC: what Lanyard answers itself has no grpc-status, and
// clients make a code of its HTTP status, as docs/proxying.md has it.
func TestOwnAnswersToGRPC(t *testing.T) {
	w := newWorld(t, "lanyard")
	_, front, err := w.grpc(grpcPlain)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	key, _, _ := strings.Cut(w.key, ".")
	for sent, want := range map[string]codes.Code{
		w.key:                                    codes.OK,
		"wrong" + key + "." + connectionID:       codes.Unauthenticated,
		key + ".conn_AAAAAAAAAAAAAAAAAAAAAAAAAA": codes.Unimplemented,
	} {
		w.key = sent
		c, err := w.dialGRPC(front)
		if err != nil {
			t.Fatal(err)
		}
		var m []byte
		if got := status.Code(c.Invoke(ctx, grpcMethod("Echo"), &m, &m)); got != want {
			t.Errorf("code with %.20q… = %v, want %v", sent, got, want)
		}
		_ = c.Close()
	}
}
