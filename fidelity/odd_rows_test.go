package fidelity_test

import (
	"io"
	"strings"
	"time"
)

// evil is an answer that nobody asked for.
var evil = whole("evil")

// says answers with parts, which go out together, with TLS in a record each.
func says(parts ...string) func(*served, int64) error {
	return func(s *served, _ int64) error { return s.together(parts...) }
}

// ends answers as says does, and closes the connection.
func ends(parts ...string) func(*served, int64) error {
	return func(s *served, _ int64) error { return firstOf(s.together(parts...), errClose) }
}

// later answers, and sends more when that is over.
func later(answer, more string) func(*served, int64) error {
	return func(s *served, _ int64) error {
		err := s.send(answer)
		time.Sleep(10 * time.Millisecond)
		return firstOf(err, s.send(more))
	}
}

// bytewise answers byte by byte.
func bytewise(answer string) func(*served, int64) error {
	return func(s *served, _ int64) error {
		for i := range len(answer) {
			if err := s.send(answer[i : i+1]); err != nil {
				return err
			}
			time.Sleep(500 * time.Microsecond)
		}
		return nil
	}
}

// firstTime does one thing with a request that arrives first, and answers it by
// its default when it comes again.
func firstTime(do func(*served) error) func(*served, int64) error {
	return func(s *served, nth int64) error {
		if nth == 1 {
			return do(s)
		}
		return s.send(whole("again"))
	}
}

func closes(*served) error { return errClose }

func resets(s *served) error { return s.reset() }

// silent answers nothing until the proxy hangs up.
func silent(parts ...string) func(*served, int64) error {
	return func(s *served, _ int64) error {
		err := s.send(parts...)
		_ = s.gone(10 * time.Second)
		_ = s.send(evil)
		return firstOf(err, errClose)
	}
}

// in returns the headers of 200 and a body.
func in(headers, body string) string { return "HTTP/1.1 200 OK\r\n" + headers + "\r\n" + body }

// behind are turns whose answer something comes behind that nobody asked for. It
// must not be taken for an answer, nor harm what is sent once.
func behind(want string, serve func(*served, int64) error) []turn {
	return []turn{
		{serve: serve, want: want},
		{fresh: true, soon: true},
		{serve: serve, want: want},
		{ask: "DELETE", fresh: true, once: true},
		{serve: serve, want: want},
		{ask: "POST", lines: []string{"Content-Length: 0"}, fresh: true, once: true},
	}
}

// unhurried takes turns only when both sides have seen what came before.
func unhurried(turns []turn) []turn {
	for i := range turns {
		turns[i].soon = false
	}
	return turns
}

// hangsUp is an app that reads the first bytes of an answer.
func hangsUp(c *client) error {
	_, m, err := c.answer()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(m.body(), make([]byte, 4)); err != nil {
		return err
	}
	return c.Close()
}

const fillsABuffer = 4096 + 100

var noLength = []string{"Content-Length: 0"}

var oddRows = []row{
	odd("A GET whose kept connection ends as it arrives is answered over another", nil,
		turn{serve: firstTime(closes), want: "200 again"}, turn{serve: firstTime(resets), want: "200 again"}, turn{ask: "HEAD", serve: firstTime(closes), want: "200"}),
	odd("A DELETE without a body whose connection ends as it arrives goes out once", marks{"nginx": "sends it twice"},
		turn{ask: "DELETE", serve: firstTime(closes), want: "502", once: true}, turn{}, turn{ask: "DELETE", serve: firstTime(resets), want: "502", once: true}),
	odd("A POST without a body whose connection ends as it arrives goes out once", nil,
		turn{ask: "POST", lines: noLength, serve: firstTime(closes), want: "502", once: true}, turn{}, turn{ask: "POST", lines: noLength, serve: firstTime(resets), want: "502", once: true}),
	odd("A request whose connection ends in the middle of a head goes out once", marks{"nginx": "sends it twice"},
		turn{serve: firstTime(func(s *served) error { return ends("HTTP/1.1 200 OK\r\nX-A: b\r\n")(s, 1) }), want: "502", once: true}),
	odd("A connection that ended while it was idle costs no DELETE and no POST", marks{"nginx": "at times sends a DELETE twice where only one direction has ended, over TLS"},
		turn{serve: ends(whole("turn 0"))}, turn{ask: "DELETE", fresh: true, once: true}, turn{serve: ends(whole("turn 2"))}, turn{ask: "POST", lines: noLength, fresh: true, once: true},
		turn{serve: func(s *served, _ int64) error { return firstOf(s.send(whole("turn 4")), s.half()) }}, turn{ask: "DELETE", fresh: true, once: true}),
	odd("A connection that was reset while it was idle costs no DELETE and no POST", nil,
		turn{serve: func(s *served, _ int64) error {
			err := s.send(whole("turn 0"))
			settle()
			return firstOf(err, s.reset())
		}}, turn{ask: "DELETE", fresh: true, once: true},
		turn{serve: func(s *served, _ int64) error {
			err := s.send(whole("turn 2"))
			settle()
			return firstOf(err, s.reset())
		}}, turn{ask: "POST", lines: noLength, fresh: true, once: true}),
	odd("A GET at the moment when its connection ends is answered", nil, repeat(20, turn{serve: func(s *served, _ int64) error {
		return firstOf(s.send(whole("x")), errClose)
	}, want: "200 x", soon: true})...),

	odd("A second answer behind the one that was asked for is nobody's", nil, behind("200 a", says(whole("a")+evil))...),
	odd("A second answer in a TLS record or a packet of its own is nobody's", nil, append(behind("200 a", says(whole("a"), evil)), unhurried(behind("200 a", later(whole("a"), evil)))...)...),
	odd("A second answer behind a long one is nobody's", nil,
		append(behind("200 "+strings.Repeat("a", fillsABuffer), says(whole(strings.Repeat("a", fillsABuffer))+evil)), behind("200 "+strings.Repeat("a", 40_000), says(whole(strings.Repeat("a", 40_000)), evil))...)...),
	odd("A second answer behind chunks is nobody's", nil,
		append(behind("200 a", says(in("Transfer-Encoding: chunked\r\n", inChunks("a"))+evil)), behind("200 a", says(in("Transfer-Encoding: chunked\r\n", inChunks("a")), evil))...)...),
	odd("Many answers behind one are nobody's", nil, behind("200 a", says(whole("a"), strings.Repeat(evil, 1000)))...),
	odd("Garbage and empty lines behind an answer are nobody's", nil, append(behind("200 a", says(whole("a")+"garbage")), behind("200 a", says(whole("a")+"\r\n\r\n"))...)...),
	odd("A body behind 204 is nobody's", nil, append(behind("204", says("HTTP/1.1 204 No Content\r\n\r\n"+evil)), behind("204", says("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", "evil"))...)...),
	odd("A body behind 304 is nobody's", nil, append(behind("304", says("HTTP/1.1 304 Not Modified\r\n\r\n", evil)), behind("304", says("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"))...)...),
	odd("A body behind the answer to HEAD is nobody's", marks{"nginx": "uses such a connection again"},
		turn{ask: "HEAD", serve: says(whole("evil")), want: "200"}, turn{fresh: true, soon: true},
		turn{ask: "HEAD", serve: says(in("Transfer-Encoding: chunked\r\n", ""), inChunks("evil")), want: "200"}, turn{ask: "DELETE", fresh: true, once: true},
		turn{ask: "HEAD", serve: later(in("Content-Length: 4\r\n", ""), evil), want: "200"}, turn{ask: "DELETE", fresh: true, once: true}),
	odd("A body behind a length of 0 is nobody's", nil, append(behind("200 ", says(in("Content-Length: 0\r\n", ""), evil)), behind("200 ", says(whole("")+evil))...)...),
	odd("A 408 on an idle connection is nobody's", nil, append(unhurried(behind("200 a", later(whole("a"), "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))),
		turn{serve: func(s *served, nth int64) error {
			return firstOf(later(whole("a"), "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(s, nth), errClose)
		}, want: "200 a"}, turn{ask: "DELETE", fresh: true, once: true})...),
	odd("What an answer that nobody waits for says is nobody's", nil,
		turn{serve: silent(), app: func(c *client) error { settle(); return c.Close() }}, turn{fresh: true},
		turn{serve: silent("HTTP/1.1 200 OK\r\nContent-"), app: func(c *client) error { settle(); return c.Close() }}, turn{ask: "DELETE", fresh: true, once: true}),
	odd("The rest of an answer that nobody reads is nobody's", nil,
		turn{serve: silent(in("Content-Length: 1000000\r\n", "half")), app: hangsUp}, turn{fresh: true, soon: true},
		turn{serve: says(in("Content-Length: 1000000\r\n", "half"+strings.Repeat(evil, 1_000_000/len(evil)))), app: hangsUp}, turn{ask: "DELETE", fresh: true, once: true},
		turn{serve: silent(in("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n")), app: hangsUp}, turn{fresh: true}),

	odd("Connection: close is true, though the upstream does not close", nil,
		turn{serve: says(in("Connection: close\r\nContent-Length: 1\r\n", "a")), want: "200 a"}, turn{fresh: true, soon: true},
		turn{serve: says(in("Connection: keep-alive, Close\r\nContent-Length: 1\r\n", "a"), evil), want: "200 a"}, turn{ask: "DELETE", fresh: true, once: true},
		turn{serve: says("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), want: "204"}, turn{fresh: true, soon: true}),
	odd("An upstream of HTTP/1.0 is understood, whether it keeps its connections or not", nil,
		turn{serve: says("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na"), want: "200 a"}, turn{fresh: true, soon: true},
		turn{serve: ends("HTTP/1.0 200 OK\r\n\r\nto the end"), want: "200 to the end"}, turn{},
		turn{serve: says("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na"), want: "200 a"}, turn{ask: "DELETE", once: true}),
	odd("An answer without a length is all that comes", nil,
		turn{serve: ends("HTTP/1.1 200 OK\r\n\r\n", "a", evil), want: "200 a" + evil}, turn{fresh: true},
		turn{serve: ends("HTTP/1.1 200 OK\r\n\r\n"), want: "200 "}, turn{ask: "DELETE", fresh: true, once: true}),
	odd("Answers without bodies leave their connection in step", nil,
		turn{ask: "HEAD", serve: says(in("Content-Length: 1000\r\n", "")), want: "200"}, turn{}, turn{ask: "HEAD", serve: says(in("Transfer-Encoding: chunked\r\n", "")), want: "200"}, turn{},
		turn{serve: says("HTTP/1.1 204 No Content\r\n\r\n"), want: "204"}, turn{}, turn{serve: says("HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"), want: "304"}, turn{},
		turn{serve: says("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"), want: "304"}, turn{}, turn{serve: says(whole("")), want: "200 "}, turn{ask: "DELETE", once: true}),
	odd("Chunks with extensions, odd sizes and trailers come whole", nil,
		turn{serve: says(in("Transfer-Encoding: chunked\r\n", "2;a=b;c=\"d;\"\r\nok\r\n0001\r\n!\r\nA\r\n0123456789\r\n0;x=y\r\nX-Late: 1\r\nX-Late: 2\r\n\r\n")), want: "200 ok!0123456789"}, turn{},
		turn{serve: bytewise(in("Transfer-Encoding: chunked\r\n", "2;a=b\r\nok\r\n1\r\n!\r\n0\r\nX-Late: 1\r\n\r\n")), want: "200 ok!"}, turn{ask: "DELETE", once: true}),
	odd("A head that comes byte by byte is understood", nil, turn{serve: bytewise("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole("turn 0"))}, turn{ask: "DELETE", once: true}),

	odd("Chunks that are none break off", nil, each("broken|502", true,
		in("Transfer-Encoding: chunked\r\n", "2\r\nok\r\nzz\r\n"+evil), in("Transfer-Encoding: chunked\r\n", "-2\r\nok\r\n0\r\n\r\n"), in("Transfer-Encoding: chunked\r\n", "2\r\nok!\r\n0\r\n\r\n"),
		in("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\nok\r\n0\r\n\r\n"), in("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n"+strings.Repeat("0", 100_000)))...),
	odd("Chunks and bodies that break off, break off", nil, each("broken|502", false,
		in("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n"), in("Transfer-Encoding: chunked\r\n", "2\r\no"), in("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n"),
		in("Content-Length: 3\r\n", "ok"), in("Content-Length: 1\r\n", ""), in("Content-Length: 1000000\r\n", strings.Repeat("x", 999_999)))...),
	odd("Of a length and chunks, chunks count", nil,
		turn{serve: says(in("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", inChunks("turn 0")))}, turn{},
		turn{serve: says(in("Transfer-Encoding: chunked\r\nContent-Length: 1000\r\n", inChunks("turn 2")))}, turn{ask: "DELETE", once: true}),
	odd("Lengths and codings that contradict each other, or are none, are a 502", marks{"nginx": "takes the last of two lengths"}, each("502", true,
		in("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), in("Content-Length: -1\r\n", "a"), in("Content-Length: +1\r\n", "a"), in("Content-Length: 1x\r\n", "a"),
		in("Transfer-Encoding: xchunked\r\n", inChunks("a")), in("Transfer-Encoding: chunked, chunked\r\n", inChunks("a")))...),
	odd("What is no status line, or no header, is a 502", marks{"caddy": "breaks off at a status of 099", "nginx": "passes it on as HTTP/0.9"}, each("502", true,
		"HTTP/1.1 2 OK\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 099 X\r\nContent-Length: 1\r\n\r\na", "HTTP/2.1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "\r\n\r\n"+evil,
		in("no colon\r\nContent-Length: 1\r\n", "a"), in(": no name\r\nContent-Length: 1\r\n", "a"))...),
	odd("A 101 that nobody asked for is a 502", marks{"caddy": "answers 200", "nginx": "passes it on, and what comes behind it"}, each("502", true, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x/1\r\n\r\n"+evil, "HTTP/1.1 101 Switching Protocols\r\n\r\n"+evil)...),
	odd("Several answers before the final one leave the connection in step", nil,
		turn{serve: says(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 5) + whole("turn 0"))}, turn{},
		turn{serve: says("HTTP/1.1 100 Continue\r\n\r\n"+whole("a"), "HTTP/1.1 100 Continue\r\n\r\n"+evil), want: "200 a"}, turn{ask: "DELETE", once: true, fresh: true}),
	odd("Answers before a final one that never comes have an end", marks{"nginx": "takes the first for the final answer"}, turn{slow: 15 * time.Second, want: "502|504", serve: func(s *served, _ int64) error {
		for s.send(strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-A: "+strings.Repeat("a", 100)+"\r\n\r\n", 100)) == nil { //nolint:revive // until the proxy hangs up
		}
		return errClose
	}}),
	odd("A head of more than 1 MiB is a 502", marks{"caddy": "takes up to 10 MiB"}, turn{want: "502", serve: says(in(strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 2000)+"Content-Length: 1\r\n", "a"))}, turn{fresh: true}),
	odd("A line without end is a 502", nil, turn{slow: 15 * time.Second, want: "502|504", serve: func(s *served, _ int64) error {
		for err := s.send("HTTP/1.1 200 OK\r\nX-A: "); err == nil; err = s.send(strings.Repeat("a", 10_000)) { //nolint:revive // until the proxy hangs up
		}
		return errClose
	}}, turn{fresh: true}),
	odd("No answer in time is a 504, and nothing goes out twice", nil,
		turn{serve: silent(), want: "504", once: true, slow: 2 * oddTimeout}, turn{fresh: true}, turn{ask: "DELETE", serve: silent(), want: "504", once: true, slow: 2 * oddTimeout}),
	odd("A head that does not go on is a 504 in time", nil, turn{serve: silent("HTTP/1.1 200 OK\r\nX-A"), want: "504|502", once: true, slow: 2 * oddTimeout}, turn{fresh: true}),
	odd("A body may take longer than the head may", marks{"nginx": "has one time for heads and bodies"}, turn{serve: func(s *served, _ int64) error {
		err := s.send(in("Content-Length: 6\r\n", "turn"))
		time.Sleep(oddTimeout + oddTimeout/4)
		return firstOf(err, s.send(" 0"))
	}}),
	{name: "A refusal of a long head comes though the upstream does not read all of it", run: refusedHead},
}

// half ends the upstream's direction.
func (s *served) half() error { return s.conn.(interface{ CloseWrite() error }).CloseWrite() }

func repeat(n int, t turn) []turn {
	turns := make([]turn, n)
	for i := range turns {
		turns[i] = t
	}
	return turns
}

// each are turns with answers that are none. open leaves the connection open.
func each(want string, open bool, answers ...string) []turn {
	var turns []turn
	for _, answer := range answers {
		serve := ends(answer)
		if open {
			serve = func(s *served, _ int64) error {
				err := s.together(answer)
				if gone := s.gone(5 * time.Second); gone != nil {
					return gone
				}
				return firstOf(err, errClose)
			}
		}
		turns = append(turns, turn{serve: serve, want: want, once: true}, turn{fresh: true, soon: true})
	}
	return turns
}
