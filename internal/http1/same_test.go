package http1_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/internal/http1"
)

// upstream answers each request on a connection with the same bytes.
type upstream struct {
	url    *url.URL
	answer string
	hangUp bool // after an answer

	mu    sync.Mutex
	conns int      // guarded by mu
	got   []string // guarded by mu: heads
}

// serve starts an upstream, which ends with the test.
func serve(t *testing.T, answer string, hangUp bool) *upstream {
	t.Helper()
	u := &upstream{answer: answer, hangUp: hangUp}
	u.url = listen(t, func(c net.Conn) {
		u.mu.Lock()
		u.conns++
		u.mu.Unlock()
		for in := bufio.NewReader(c); ; {
			head, err := readHead(in)
			if err != nil {
				return
			}
			u.mu.Lock()
			u.got = append(u.got, head)
			u.mu.Unlock()
			if _, err := io.WriteString(c, u.answer); err != nil || u.hangUp {
				return
			}
		}
	})
	return u
}

// listen calls handle for each connection, and closes it then.
func listen(t *testing.T, handle func(net.Conn)) *url.URL {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu   sync.Mutex
		open []net.Conn
		work sync.WaitGroup
	)
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			work.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}
}

func readHead(in *bufio.Reader) (head string, err error) {
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := in.ReadString('\n')
		if err != nil {
			return head, err
		}
		head += line
	}
	return head, nil
}

// outcome is what a client makes of an answer.
type outcome struct {
	Failed, BodyFailed bool
	Proto              string
	Status             int
	Length             int64
	Header, Trailer    []string
	Body               string
	Interim            []int
}

func flat(h http.Header) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lines = append(lines, fmt.Sprintf("%s: %q", name, h[name]))
	}
	return lines
}

func ask(t *testing.T, rt http.RoundTripper, req *http.Request) (o outcome) {
	t.Helper()
	var mu sync.Mutex
	req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			o.Interim = append(o.Interim, code)
			return nil
		},
	}))
	res, err := rt.RoundTrip(req)
	if err != nil {
		o.Failed = true
		return o
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	mu.Lock()
	defer mu.Unlock()
	o.BodyFailed, o.Proto, o.Status, o.Length = err != nil, res.Proto, res.StatusCode, res.ContentLength
	o.Header, o.Trailer, o.Body = flat(res.Header), flat(res.Trailer), string(body)
	return o
}

func transport(t *testing.T) *http.Transport {
	t.Helper()
	rt := &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxHead}
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}

func request(method string, u *url.URL, header http.Header) *http.Request {
	if header == nil {
		header = http.Header{}
	}
	return &http.Request{Method: method, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header}
}

// Whatever an upstream answers, it is taken as http.Transport takes it, and its
// connection is used again where that uses it again.
func TestAnswersAreReadAsByTransport(t *testing.T) {
	t.Parallel()
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, tc := range map[string]struct {
		answer string
		hangUp bool
		head   bool // asked for by HEAD, too
	}{
		"with a length":              {answer: ok},
		"no body":                    {answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"204":                        {answer: "HTTP/1.1 204 No Content\r\n\r\n"},
		"304 with a length":          {answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		"head":                       {answer: "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n", head: true},
		"head, chunked":              {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head: true},
		"chunked":                    {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\nok\r\n0\r\n\r\n"},
		"trailers":                   {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\nC: d\r\n\r\n"},
		"until it closes":            {answer: "HTTP/1.1 200 OK\r\n\r\nok", hangUp: true},
		"closes":                     {answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", hangUp: true},
		"says that it closes":        {answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
		"1.0":                        {answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", hangUp: true},
		"1.0, kept":                  {answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"},
		"1.0, chunked":               {answer: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", hangUp: true},
		"interim":                    {answer: "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok},
		"100 unasked":                {answer: "HTTP/1.1 100 Continue\r\n\r\n" + ok},
		"101 unasked":                {answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"length too long":            {answer: "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", hangUp: true},
		"chunks broken off":          {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", hangUp: true},
		"chunk of nonsense":          {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"},
		"trailers broken off":        {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n", hangUp: true},
		"two lengths":                {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"},
		"the same length twice":      {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"},
		"length and chunks":          {answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		"unknown coding":             {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", hangUp: true},
		"negative length":            {answer: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok", hangUp: true},
		"more than was asked for":    {answer: ok + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"},
		"a body behind a 204":        {answer: "HTTP/1.1 204 No Content\r\n\r\nevil"},
		"a body behind a 304":        {answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"},
		"a body behind a HEAD":       {answer: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", head: true},
		"no HTTP":                    {answer: "SSH-2.0-OpenSSH_9.6\r\n\r\n"},
		"no answer":                  {answer: "", hangUp: true},
		"half a head":                {answer: "HTTP/1.1 200 OK\r\nContent-", hangUp: true},
		"a head that is too long":    {answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n"},
		"the longest head":           {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + strings.Repeat("x", maxHead-500) + "\r\n\r\nok"},
		"folded header":              {answer: "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"},
		"no reason":                  {answer: "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"},
		"no status":                  {answer: "HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok"},
		"odd status":                 {answer: "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok"},
		"HTTP/2 over HTTP/1":         {answer: "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"repeated and odd headers":   {answer: "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-Empty:\r\nX-Umlaut: \xfc\r\nContent-Length: 2\r\n\r\nok"},
		"interim, then nothing":      {answer: "HTTP/1.1 103 Early Hints\r\n\r\n", hangUp: true},
		"bare line feeds":            {answer: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
		"a space before the colon":   {answer: "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok"},
		"a long body":                {answer: "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("x", 300_000)},
		"a long body without length": {answer: "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 300_000), hangUp: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method := http.MethodGet
			if tc.head {
				method = http.MethodHead
			}
			of := func(rt func(*upstream) http.RoundTripper) (got []outcome, conns int) {
				up := serve(t, tc.answer, tc.hangUp)
				client := rt(up)
				for range 3 {
					if c, ok := client.(*http1.Client); ok {
						learn(c, up.url) // what fails is forgotten
					}
					got = append(got, ask(t, client, request(method, up.url, nil)))
				}
				up.mu.Lock()
				defer up.mu.Unlock()
				return got, up.conns
			}
			got, conns := of(func(up *upstream) http.RoundTripper { return knowing(t, up.url) })
			want, wantConns := of(func(*upstream) http.RoundTripper { return transport(t) })
			// http.Transport may hand out a connection before it has seen what came
			// unasked, and gives up one that it was slow to write to.
			for n := 0; n < 5 && (conns != wantConns || !cmp.Equal(want, got)); n++ {
				want, wantConns = of(func(*upstream) http.RoundTripper { return transport(t) })
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("http.Transport, and this client:\n%s", diff)
			}
			if conns != wantConns {
				t.Errorf("%d connections, http.Transport needs %d", conns, wantConns)
			}
		})
	}
}

// What is sent is to the byte what http.Transport sends.
func TestRequestsAreSentAsByTransport(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Request){
		"GET":          func(*http.Request) {},
		"POST":         func(r *http.Request) { r.Method = http.MethodPost },
		"DELETE":       func(r *http.Request) { r.Method, r.Body = http.MethodDelete, http.NoBody },
		"own method":   func(r *http.Request) { r.Method = "PROPFIND" },
		"odd path":     func(r *http.Request) { r.URL.Opaque = "//" + r.URL.Host + "/a%2Fb//c;d?x=%zz&&+" },
		"empty query":  func(r *http.Request) { r.URL.ForceQuery = true },
		"another host": func(r *http.Request) { r.Host = "api.example.com" },
		"headers": func(r *http.Request) {
			r.Header = http.Header{"A": {"1", "2"}, "B": {""}, "C": {"\xfc"}, "User-Agent": nil}
		},
		"user agent":      func(r *http.Request) { r.Header["User-Agent"] = []string{"me"} },
		"no user agent":   func(*http.Request) {},
		"trailers wanted": func(r *http.Request) { r.Header["Te"] = []string{"trailers"} },
		"large head":      func(r *http.Request) { r.Header["Big"] = []string{strings.Repeat("x", 20_000)} },
		"odd values":      func(r *http.Request) { r.Header["A"] = []string{"a\r\nB: c"} },
		"odd name":        func(r *http.Request) { r.Header["A b"] = []string{"c"} },
		"odd method":      func(r *http.Request) { r.Method = "GET /evil HTTP/1.1\r\nX:" },
		"length of hop":   func(r *http.Request) { r.Header["Content-Length"] = []string{"7"} },
		"host in headers": func(r *http.Request) { r.Header["Host"] = []string{"evil"} },
		"coding":          func(r *http.Request) { r.Header["Transfer-Encoding"] = []string{"chunked"} },
		"control in path": func(r *http.Request) { r.URL.Opaque = "//" + r.URL.Host + "/a\x01b" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false)
			var failed []bool
			for _, rt := range []http.RoundTripper{transport(t), knowing(t, up.url)} {
				u := *up.url
				r := request(http.MethodGet, &u, nil)
				change(r)
				failed = append(failed, ask(t, rt, r).Failed)
			}
			up.mu.Lock()
			defer up.mu.Unlock()
			switch {
			case failed[0] != failed[1]:
				t.Errorf("failed: http.Transport %t, this client %t", failed[0], failed[1])
			case failed[0] && len(up.got) == 0:
			case len(up.got) != 2 || up.got[0] != up.got[1]:
				t.Errorf("sent: %q", up.got)
			}
		})
	}
}
