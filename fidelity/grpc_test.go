package fidelity_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var grpcRows = []row{
	{name: "gRPC: a call with one message and one answer", run: onGRPC(grpcPlain, grpcUnary)},
	{name: "gRPC: a server streams ten thousand messages", run: onGRPC(grpcPlain, grpcServerStream)},
	{name: "gRPC: a client streams, ten thousand messages", run: onGRPC(grpcPlain, grpcClientStream)},
	{name: "gRPC: both stream, each message is answered before the next is sent", run: onGRPC(grpcPlain, grpcChat)},
	{name: "gRPC: an error without a message comes with code, text and details", run: onGRPC(grpcPlain, grpcFails("")), fails: map[string]string{
		"caddy": "at times loses all three, with the trailers",
	}},
	{name: "gRPC: an error after a message comes with code, text and details", run: onGRPC(grpcPlain, grpcFails("x"))},
	{name: "gRPC: metadata passes both ways, binary and repeated too, in headers and trailers", run: onGRPC(grpcPlain, grpcMetadata)},
	{name: "gRPC: a server that refuses while the client still sends is heard", run: onGRPC(grpcPlain, grpcRefuses)},
	{name: "gRPC: a deadline arrives, and passing it ends the call at the API", run: onGRPC(grpcPlain, grpcDeadline)},
	{name: "gRPC: cancelling a call ends it at the API within a second", run: onGRPC(grpcPlain, grpcCancelled)},
	{name: "gRPC: messages of 8 MiB pass both ways", run: onGRPC(grpcPlain, grpcLarge)},
	{name: "gRPC: compressed messages stay compressed, both ways", run: onGRPC(grpcPlain, grpcCompressed)},
	{name: "gRPC: a stream that is silent for five seconds goes on", run: onGRPC(grpcPlain, grpcSilent)},
	{name: "gRPC: a thousand streams at once, on eight connections", run: grpcMany, patience: time.Minute},
	{name: "gRPC: an API that renews its connections (GOAWAY) fails no call and breaks no stream", run: onGRPC(grpcRenewing, grpcGoAway), patience: time.Minute},
	{name: "gRPC by TLS: calls, streams and errors", run: onGRPC(grpcByTLS, grpcAll), fails: map[string]string{
		"caddy": "at times loses an error's code, text and details, with the trailers",
	}},
	{name: "HTTP 2: an answer streams while the request goes on, each piece answered before the next", run: fullDuplex(overH2C, h2)},
	{name: "HTTP 2 by TLS: an answer streams while the request goes on, each piece answered before the next", run: fullDuplex(overTLS, h2)},
	{name: "HTTP 1.1: an answer streams while the request goes on, each piece answered before the next", run: fullDuplex(plain, h1)},
	{name: "HTTP 2: trailers that nothing announced arrive after an answer", run: h2Trailers("")},
	{name: "HTTP 2: the trailers of a request arrive", run: h2Trailers("why?"), fails: map[string]string{
		"nginx": "takes them for an error, and closes the connection",
	}},
	{name: "HTTP 2: `te: trailers`, the content type and `grpc-timeout` go to the API as sent", run: h2Headers},
}

// onGRPC runs f with a client of a gRPC API of this kind.
func onGRPC(k grpcKind, f func(context.Context, *grpcAPI, *grpc.ClientConn) error) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		api, front, err := w.grpc(k)
		if err != nil {
			return err
		}
		c, err := w.dialGRPC(front)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, api, c)
	}
}

// grpcMethod is the full name of a method of the API.
func grpcMethod(name string) string { return "/fidelity.API/" + name }

// openCall opens a call both of whose sides may stream.
func openCall(ctx context.Context, c *grpc.ClientConn, name string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, grpcMethod(name), options...)
}

// receiveMessage reads a message and compares it.
func receiveMessage(s grpc.ClientStream, want []byte) error {
	var got []byte
	if err := s.RecvMsg(&got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("message is %.80q, want %.80q", got, want)
	}
	return nil
}

// echoed sends a message and waits for the same.
func echoed(s grpc.ClientStream, m []byte) error {
	if err := s.SendMsg(&m); err != nil {
		return err
	}
	return receiveMessage(s, m)
}

// endCall ends a stream and reports it if that is not well.
func endCall(s grpc.ClientStream) error {
	if err := s.CloseSend(); err != nil {
		return err
	}
	var m []byte
	if err := s.RecvMsg(&m); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ends with %w", err)
	}
	return nil
}

func grpcUnary(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	for _, m := range [][]byte{{}, []byte("hello"), noise(100_000)} {
		var got []byte
		if err := c.Invoke(ctx, grpcMethod("Echo"), &m, &got); err != nil {
			return err
		}
		if !bytes.Equal(got, m) {
			return fmt.Errorf("%d bytes are answered with %d others", len(m), len(got))
		}
	}
	return nil
}

func grpcServerStream(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	s, err := openCall(ctx, c, "List")
	if err != nil {
		return err
	}
	const n = 10_000
	m := make([]byte, n)
	if err := s.SendMsg(&m); err != nil {
		return err
	}
	for i := range n {
		if err := receiveMessage(s, fmt.Appendf(nil, "message %d", i)); err != nil {
			return err
		}
	}
	return endCall(s)
}

func grpcClientStream(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	s, err := openCall(ctx, c, "Collect")
	if err != nil {
		return err
	}
	for range 10_000 {
		m := []byte("message")
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := receiveMessage(s, []byte("10000 messages, 70000 bytes")); err != nil {
		return err
	}
	return endCall(s)
}

func grpcChat(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	s, err := openCall(ctx, c, "Chat")
	if err != nil {
		return err
	}
	for i := range 1000 {
		if err := echoed(s, fmt.Appendf(nil, "question %d", i)); err != nil {
			return err
		}
	}
	return endCall(s)
}

// grpcFails calls what fails, after it has answered a message if there is one.
func grpcFails(message string) func(context.Context, *grpcAPI, *grpc.ClientConn) error {
	return func(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
		s, err := openCall(ctx, c, "Fail")
		if err != nil {
			return err
		}
		m := []byte(message)
		if err := s.SendMsg(&m); err != nil {
			return err
		}
		if message != "" {
			if err := receiveMessage(s, m); err != nil {
				return err
			}
		}
		got := status.Convert(s.RecvMsg(&m))
		if got.Code() != codes.FailedPrecondition || got.Message() != failure {
			return fmt.Errorf("status is %v, %q", got.Code(), got.Message())
		}
		for _, d := range got.Details() {
			if b, ok := d.(*wrapperspb.BytesValue); ok && bytes.Equal(b.Value, []byte{0, 255, 7}) {
				return nil
			}
		}
		return fmt.Errorf("details are %v", got.Details())
	}
}

func grpcMetadata(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	sent := metadata.MD{
		"x-one": {"a b, c"}, "x-many": {"1", "2", "2", "1"}, "x-empty": {""},
		"x-raw-bin": {"\x00\xff,", "", "second"}, "x-long": {strings.Repeat("v", 4000)},
	}
	var head, tail metadata.MD
	var m []byte
	if err := c.Invoke(metadata.NewOutgoingContext(ctx, sent), grpcMethod("Metadata"), &m, &m, grpc.Header(&head), grpc.Trailer(&tail)); err != nil {
		return err
	}
	for name, values := range sent {
		if got := head["h"+name]; !slices.Equal(got, values) {
			return fmt.Errorf("%s came back as header %q, want %q; all are %v", name, got, values, slices.Sorted(maps.Keys(head)))
		}
		if got := tail["t"+name]; !slices.Equal(got, values) {
			return fmt.Errorf("%s came back as trailer %q, want %q; all are %v", name, got, values, slices.Sorted(maps.Keys(tail)))
		}
	}
	return nil
}

func grpcLarge(ctx context.Context, _ *grpcAPI, c *grpc.ClientConn) error {
	s, err := openCall(ctx, c, "Chat")
	if err != nil {
		return err
	}
	for range 3 {
		if err := echoed(s, noise(8<<20)); err != nil {
			return err
		}
	}
	return endCall(s)
}

// grpcCompressed has the client compress, and so the API, too.
func grpcCompressed(ctx context.Context, api *grpcAPI, c *grpc.ClientConn) error {
	before := api.compressed.Load()
	s, err := openCall(ctx, c, "Chat", grpc.UseCompressor(gzip.Name))
	if err != nil {
		return err
	}
	for range 3 {
		if err := echoed(s, bytes.Repeat([]byte("again and "), 100_000)); err != nil {
			return err
		}
	}
	if got := api.compressed.Load() - before; got != 6 {
		return fmt.Errorf("%d of 6 messages were compressed at the API", got)
	}
	return endCall(s)
}
