package fidelity_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// rawCodec has messages be bytes, so that nothing has to be generated.
type rawCodec struct{}

// Marshal implements encoding.Codec.
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

// Unmarshal implements encoding.Codec.
func (rawCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }

// Name implements encoding.Codec.
func (rawCodec) Name() string { return "raw" }

// grpcAPI is a gRPC service of all that there is to carry: its methods are
// /fidelity.API/Echo and so on.
type grpcAPI struct {
	// compressed counts the messages, of both directions, that were.
	compressed atomic.Int32

	mu      sync.Mutex
	waiting map[string]*wait // :: the caller's word for it → the call; guarded by mu
}

// wait is a call of Wait.
type wait struct {
	came  chan time.Duration // gets the deadline that it came with
	ended chan error         // gets why it ended
}

// expect returns the call of Wait that will have this word.
func (a *grpcAPI) expect(word string) *wait {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[string]*wait{}
	}
	if a.waiting[word] == nil {
		a.waiting[word] = &wait{came: make(chan time.Duration, 1), ended: make(chan error, 1)}
	}
	return a.waiting[word]
}

// newServer returns a server of the API.
func (a *grpcAPI) newServer(options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(options,
		grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(64<<20), grpc.UnknownServiceHandler(a.serve), grpc.StatsHandler(a))...)
}

// HandleRPC implements stats.Handler.
func (a *grpcAPI) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch m := s.(type) {
	case *stats.InPayload:
		if m.CompressedLength < m.Length {
			a.compressed.Add(1)
		}
	case *stats.OutPayload:
		if m.CompressedLength < m.Length {
			a.compressed.Add(1)
		}
	}
}

// TagRPC implements stats.Handler.
func (*grpcAPI) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (*grpcAPI) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*grpcAPI) HandleConn(context.Context, stats.ConnStats) {}

func (a *grpcAPI) serve(_ any, stream grpc.ServerStream) error {
	in, _ := metadata.FromIncomingContext(stream.Context())
	if got := in["authorization"]; len(got) != 1 || got[0] != "Bearer "+token {
		return status.Error(codes.Unauthenticated, "the token is missing")
	}
	method, _ := grpc.MethodFromServerStream(stream)
	switch strings.TrimPrefix(method, "/fidelity.API/") {
	case "Echo", "Chat": // answers each message at once
		return a.echo(stream)
	case "List": // a stream of as many messages as the request has bytes
		return a.list(stream)
	case "Collect": // how many messages and bytes came
		return a.collect(stream)
	case "Refuse": // without a look at what is sent
		return status.Error(codes.PermissionDenied, failure)
	case "Fail":
		return a.fail(stream)
	case "Metadata":
		return a.metadata(stream)
	case "Wait":
		return a.wait(stream)
	}
	return status.Error(codes.Unimplemented, method)
}

func (a *grpcAPI) echo(stream grpc.ServerStream) error {
	for {
		var m []byte
		if err := stream.RecvMsg(&m); err != nil {
			return atEnd(err)
		}
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
}

func atEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (a *grpcAPI) list(stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	for i := range request {
		m := fmt.Appendf(nil, "message %d", i)
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
	return nil
}

func (a *grpcAPI) collect(stream grpc.ServerStream) error {
	messages, size := 0, 0
	for {
		var m []byte
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		messages++
		size += len(m)
	}
	sum := fmt.Appendf(nil, "%d messages, %d bytes", messages, size)
	return stream.SendMsg(&sum)
}

// failure is what Fail ends with.
const failure = "zu spät: “déjà vu” 100% 語"

func (a *grpcAPI) fail(stream grpc.ServerStream) error {
	var m []byte
	if err := stream.RecvMsg(&m); err != nil {
		return err
	}
	if len(m) > 0 { // an error after a message: the status is in trailers that follow a body
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
	s, err := status.New(codes.FailedPrecondition, failure).WithDetails(wrapperspb.Bytes([]byte{0, 255, 7}))
	if err != nil {
		return err
	}
	return s.Err()
}

// metadata sends what it got back, in its header and in its trailer.
func (a *grpcAPI) metadata(stream grpc.ServerStream) error {
	in, _ := metadata.FromIncomingContext(stream.Context())
	back := metadata.MD{}
	for name, values := range in {
		if strings.HasPrefix(name, "x-") {
			back["h"+name] = values
			back["t"+name] = values
		}
	}
	head, tail := metadata.MD{}, metadata.MD{}
	for name, values := range back {
		if name[0] == 'h' {
			head[name] = values
		} else {
			tail[name] = values
		}
	}
	if err := stream.SendHeader(head); err != nil {
		return err
	}
	stream.SetTrailer(tail)
	return a.echo(stream)
}

func (a *grpcAPI) wait(stream grpc.ServerStream) error {
	var word []byte
	if err := stream.RecvMsg(&word); err != nil {
		return err
	}
	w := a.expect(string(word))
	var left time.Duration
	if deadline, ok := stream.Context().Deadline(); ok {
		left = time.Until(deadline)
	}
	w.came <- left
	<-stream.Context().Done()
	w.ended <- context.Cause(stream.Context())
	return stream.Context().Err()
}

// grpcKind is a way of serving the gRPC API.
type grpcKind int

const (
	grpcPlain    grpcKind = iota // h2c
	grpcByTLS                    // HTTP/2 by TLS
	grpcRenewing                 // h2c, with connections that are renewed each second
)

// grpcSite is the gRPC API, and the proxy before it.
type grpcSite struct {
	api   *grpcAPI
	front *front
}

// grpc returns the API that is served in some way, and the proxy before it.
func (w *world) grpc(k grpcKind) (*grpcAPI, *front, error) {
	w.sites.mu.Lock()
	defer w.sites.mu.Unlock()
	if s, ok := w.sites.grpc[k]; ok {
		return s.api, s.front, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, broken("gRPC server: %w", err)
	}
	sp := spec{URL: "http://" + l.Addr().String(), H2: true, GRPC: true}
	var options []grpc.ServerOption
	switch k {
	case grpcPlain:
	case grpcByTLS:
		// Its certificate is borrowed from a server that never serves.
		lender := httptest.NewUnstartedServer(nil)
		lender.StartTLS()
		w.t.Cleanup(lender.Close)
		if sp.CA, err = w.caFile(lender); err != nil {
			return nil, nil, broken("certificate: %w", err)
		}
		sp.URL, sp.H2 = "https://"+l.Addr().String(), false
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&lender.TLS.Certificates[0])))
	case grpcRenewing:
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Second}))
	}
	s := grpcSite{api: &grpcAPI{}}
	srv := s.api.newServer(options...)
	go func() { _ = srv.Serve(l) }() // until it is stopped
	w.t.Cleanup(srv.Stop)
	if s.front, err = w.via(sp); err != nil {
		return nil, nil, err
	}
	if w.sites.grpc == nil {
		w.sites.grpc = map[grpcKind]grpcSite{}
	}
	w.sites.grpc[k] = s
	return s.api, s.front, nil
}

// bearer puts what apps send on each call.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return false }

// dialGRPC returns a client, with a connection of its own to the proxy.
func (w *world) dialGRPC(f *front) (*grpc.ClientConn, error) {
	c, err := grpc.NewClient(strings.TrimPrefix(f.H2C, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer(w.key)),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, broken("gRPC client: %w", err)
	}
	return c, nil
}
