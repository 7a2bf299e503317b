package fidelity_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// headers returns values by lower-case name, without what is each hop's own.
func headers(lines []string, without ...string) map[string][]string {
	all := map[string][]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(name)
		if name != "connection" && !slices.Contains(without, name) {
			all[name] = append(all[name], strings.Trim(value, " \t"))
		}
	}
	return all
}

// wantHeaders compares headers: each name's values, their number and order.
func wantHeaders(what string, got, want map[string][]string) error {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !slices.Equal(got[name], want[name]) {
			return fmt.Errorf("%s: %s = %s, want %s", what, name, short(got[name]), short(want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == nil {
			return fmt.Errorf("%s: %s: %s was added or not removed", what, name, short(got[name]))
		}
	}
	return nil
}

// sentAs is a row on headers of a request: the upstream gets want and the
// token, and nothing else. want nil: the same as sent.
func sentAs(name string, fails marks, sent, want []string) row {
	if want == nil {
		want = sent
	}
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{lines: sent}, ok)
		if err != nil {
			return err
		}
		return wantHeaders("request", headers(x.request.lines),
			headers(append([]string{"Host: " + w.up.host, "Authorization: Bearer " + token}, want...)))
	}}
}

// answeredAs is a row on the headers of an answer: the app gets want and
// nothing else, but a Date if there was none (RFC 9110 section 6.6.1).
func answeredAs(name string, fails marks, sent, want []string) row {
	if want == nil {
		want = sent
	}
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{}, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/x\r\n"+strings.Join(append(sent, "\r\n<html>"), "\r\n"))
		if err != nil {
			return err
		}
		if err := wantEqual("body", x.body, "<html>"); err != nil {
			return err
		}
		return wantAnswerHeaders(x.answer, append([]string{"Content-Length: 6", "Content-Type: text/x"}, want...))
	}}
}

func wantAnswerHeaders(answer *message, lines []string) error {
	want := headers(lines, "keep-alive")
	got := headers(answer.lines, "keep-alive")
	if want["date"] == nil {
		delete(got, "date")
	}
	return wantHeaders("answer", got, want)
}

// many returns n headers whose values have the given length.
func many(n, length int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("X-Many-%d: %s", i, strings.Repeat(string(rune('a'+i%26)), length))
	}
	return lines
}

var (
	duplicates = []string{"X-Multi: b", "X-Other: 1", "X-Multi: a, c", "X-Multi: b", "x-multi: d"}
	empties    = []string{"X-Empty:", "X-Empty-2: ", "X-Twice:", "X-Twice: "}
	nonASCII   = []string{"X-Utf8: \u00e9\u20ac\U0001f600", "X-Latin1: \xe9\xff\xa4"}
	quoted     = []string{`X-Quoted: "a, b"; c=d, e  f	g,,h`, `X-Json: {"a":[1,2],"b":"\u00e4"}`, "X-Percent: %0d%0a%zz"}
	oddNames   = []string{"0: 1", "X!#$%&'*+-^`|~: 2", "X--: 3"}
)

var requestHeaderRows = []row{
	sentAs("Nothing is added to a request", nil, []string{}, nil),
	sentAs("Values of one name keep their number and order", nil, duplicates, nil),
	sentAs("An empty header stays", nil, empties, nil),
	sentAs("UTF-8 and Latin-1 bytes in a header stay", nil, nonASCII, nil),
	sentAs("Quotes, commas, spaces and escapes in a header stay", nil, quoted, nil),
	sentAs("Names with odd signs stay", nil, oddNames, nil),
	sentAs("Names with an underscore or a dot stay, if the configuration lists them", nil, []string{"x_under: 1", "x.dot: 2"}, nil),
	sentAs("A header of 32 KiB goes out whole", nil, many(1, 32<<10), nil),
	sentAs("500 headers go out", nil, many(500, 20), nil),
	sentAs("64 KiB of headers go out", nil, many(64, 1<<10), nil),
	sentAs("What an app says it is and takes goes out", nil, []string{"User-Agent: app/1 (x)", "Accept: */*", "Accept-Encoding: br;q=1.0, gzip;q=0", "Accept-Language: de"}, nil),
	sentAs("Conditions and ranges go out", nil, []string{
		`If-None-Match: W/"a", "b"`, `If-Match: *`, "If-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT", "Range: bytes=0-1,5-, -7", `If-Range: "a"`, "Cache-Control: no-cache", "Pragma: no-cache",
	}, nil),
	sentAs("Digest, Date, Content-Type and Priority go out", nil, []string{
		"Content-Type: application/x; charset=utf-8", "Digest: sha-256=x", "Date: Mon, 02 Jan 2006 15:04:05 GMT", "Priority: u=1", "Prefer: wait=5", "Idempotency-Key: k", "Traceparent: 00-0-0-01", "From: a@b",
	}, nil),
	sentAs("What is about the connection stays there", marks{"nginx": "passes on `Proxy-Connection` and what `Connection` names"}, []string{
		"Connection: X-Hop, close, X-Hop-2", "X-Hop: 1", "X-Hop-2: 1", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Upgrade: x/1",
	}, []string{}),
	sentAs("TE: trailers reaches the upstream", marks{"caddy": "drops it where `Connection` names it, as it must"}, []string{"TE: trailers", "Connection: TE"}, []string{"TE: trailers"}),
}

var date = "Date: Mon, 02 Jan 2006 15:04:05 GMT"

var answerRows = []row{
	answeredAs("Nothing is added to an answer but a Date", nil, []string{}, nil),
	headless("No Content-Type is guessed", nil, "GET", 200, []string{"Content-Length: 6", "Server: x"}, "<html>"),
	answeredAs("Date and Server are the upstream's", nil, []string{date, "Server: upstream/1 (x)"}, nil),
	answeredAs("Cookies come apart, in order", nil, []string{"Set-Cookie: b=2; Path=/x; Domain=api.test; Secure", "Set-Cookie: a=1", "X-Other: 1", "Set-Cookie: b=2"}, nil),
	answeredAs("Values of one name come in number and order", nil, duplicates, nil),
	answeredAs("An empty header comes", nil, empties, nil),
	answeredAs("UTF-8 and Latin-1 bytes in an answer's header come", nil, nonASCII, nil),
	answeredAs("Quotes, commas, spaces and escapes in an answer's header come", nil, quoted, nil),
	answeredAs("Names with underscores, dots and odd signs come, each for itself", nil, append([]string{"X_under: 1", "X-under: 2", "x.dot: 3"}, oddNames...), nil),
	answeredAs("A header of 32 KiB comes whole", nil, many(1, 32<<10), nil),
	answeredAs("500 headers come", nil, many(500, 20), nil),
	answeredAs("64 KiB of headers come", nil, many(64, 1<<10), nil),
	answeredAs("Caching, security and rate-limit headers come", nil, []string{
		`ETag: W/"x"`, "Cache-Control: no-store", "Age: 5", "Expires: 0", "Vary: Accept, *", "Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT", "Strict-Transport-Security: max-age=1",
		"Access-Control-Allow-Origin: *", "Content-Security-Policy: default-src 'none'", "X-RateLimit-Remaining: 0", "Retry-After: 5", "Accept-Ranges: bytes",
	}, nil),
	answeredAs("Alt-Svc comes", marks{"caddy": "drops it"}, []string{`Alt-Svc: h3=":443"; ma=60`}, nil),
	answeredAs("X-Accel headers are the app's, not the proxy's", nil, []string{"X-Accel-Redirect: /x", "X-Accel-Buffering: no", "X-Accel-Expires: 5", "X-Pad: x", "X-Sendfile: /etc/hostname"}, nil),
	answeredAs("What is about the upstream's connection does not come", marks{"nginx": "passes on `Proxy-Connection` and what `Connection` names"}, []string{"Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x", "Upgrade: h2c"}, []string{}),
	answeredAs("Link, Location and Content-Location come as they are (with links off)", nil, []string{"Link: </a>; rel=next, <http://127.0.0.1:1/b>; rel=last", "Location: http://127.0.0.1:1/c%2f", "Content-Location: //x/y"}, nil),
	answered("Odd and rare status codes come", nil,
		"203 Non-Authoritative Information", "226 IM Used", "299 Odd", "300 Multiple Choices", "402 Payment Required", "418 I'm a teapot", "429 Too Many Requests", "451 Unavailable For Legal Reasons", "499 Odd",
		"500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "511 Network Authentication Required", "599 Odd"),
	answered("A status with another reason phrase, or none, comes", nil, "200 Everything is in Order", "404 ", "503"),
	answered("Redirects are not followed", nil, "301 Moved\r\nLocation: http://127.0.0.1:1/", "302 Found\r\nLocation: /x", "303 See Other\r\nLocation: ../x", "307 Temporary Redirect\r\nLocation: ?x", "308 Permanent Redirect\r\nLocation: //a/b"),
	headless("204 has no body and no length", nil, "GET", 204, []string{"X-A: b"}, ""),
	headless("304 keeps ETag, length and type", marks{"caddy": "drops length and type"}, "GET", 304, []string{`ETag: W/"x"`, "Content-Length: 12345", "Content-Type: text/x", "Cache-Control: max-age=0", date}, ""),
	headless("HEAD tells the length that GET would have", nil, "HEAD", 200, []string{"Content-Length: 1234567890123", `ETag: "x"`, "Content-Type: text/x"}, ""),
	headless("HEAD without a length stays without", nil, "HEAD", 200, []string{"Content-Type: text/x", `ETag: "x"`}, ""),
	headless("HEAD of a 404 keeps its length", nil, "HEAD", 404, []string{"Content-Type: text/x", "Content-Length: 9"}, ""),
	headless("205 comes with its length of 0", nil, "POST", 205, []string{"Content-Type: text/x", "Content-Length: 0"}, ""),
	headless("206 of several ranges comes byte for byte", nil, "GET", 206, []string{
		"Content-Type: multipart/byteranges; boundary=x", "Accept-Ranges: bytes", "Content-Length: 89",
	}, "--x\r\nContent-Range: bytes 0-0/9\r\n\r\na\r\n--x\r\nContent-Range: bytes 8-8/9\r\n\r\ni\r\n--x--\r\n\r\n\r\n\r\n"),
	headless("206 of one range comes with its Content-Range", nil, "GET", 206, []string{"Content-Type: text/x", "Content-Range: bytes 5-6/100", "Content-Length: 2"}, "ab"),
	headless("416 comes with its Content-Range", nil, "GET", 416, []string{"Content-Type: text/x", "Content-Range: bytes */100", "Content-Length: 2"}, "no"),
	headless("Challenges of a 403 come, each for itself", nil, "GET", 403, []string{`WWW-Authenticate: Bearer realm="x", error="x"`, "WWW-Authenticate: Basic", "Content-Type: text/x", "Content-Length: 2"}, "no"),
}

// answered is a row on status lines.
func answered(name string, fails marks, statuses ...string) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		for _, status := range statuses {
			x, err := w.exchange(ctx, asked{}, "HTTP/1.1 "+status+"\r\nContent-Length: 4\r\n\r\nbody")
			if err != nil {
				return fmt.Errorf("%s: %w", status, err)
			}
			if err := wantEqual("status", fmt.Sprint(x.answer.status()), status[:3]); err != nil {
				return err
			}
			if err := wantEqual("body of "+status, x.body, "body"); err != nil {
				return err
			}
			if _, line, ok := strings.Cut(status, "\r\n"); ok {
				if err := wantLines("Location", x.answer.values("Location"), strings.TrimPrefix(line, "Location: ")); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

// headless is a row on an answer with its exact headers and body. A second
// request on the connection shows that the answer had its right end.
func headless(name string, fails marks, method string, status int, lines []string, body string) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		tag, _, off := w.up.handle(func(s *served) error {
			if strings.Contains(s.start, "second") {
				return s.send(ok)
			}
			if _, err := s.text(); err != nil {
				return err
			}
			return s.send(fmt.Sprintf("HTTP/1.1 %d X\r\n%s\r\n\r\n%s", status, strings.Join(lines, "\r\n"), body))
		})
		defer off()
		c, err := w.dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.send(c.head(method, "/"+tag+"/first", "Content-Length: 0"), c.head("GET", "/"+tag+"/second")); err != nil {
			return err
		}
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		if err := wantEqual("status", m.status(), status); err != nil {
			return err
		}
		if err := wantAnswerHeaders(m, lines); err != nil {
			return err
		}
		if method != "HEAD" && status != 204 && status != 304 {
			if err := m.wantText(body); err != nil {
				return err
			}
		}
		if _, m, err = c.answer(); err != nil {
			return fmt.Errorf("the answer behind: %w", err)
		}
		return wantEqual("status of the answer behind", m.status(), 200)
	}}
}
