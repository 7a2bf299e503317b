package proxy

import (
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/secret"
)

const (
	// scrubbed is how much of a body is looked at: error pages and debug dumps
	// are far smaller.
	scrubbed = 1 << 20
	// minScrubbed is the length of the shortest token that is looked for: a
	// shorter one is found in innocent words.
	minScrubbed = 8
	// scrubBuffer is how much of a body is looked at in one go.
	scrubBuffer = 16 << 10
	// scrubWork is how many bytes may be compared for each byte looked at. A
	// text that is made to cost more is passed on.
	scrubWork = 16
)

// scrubber masks tokens in what an upstream answers, with as many bytes as they
// take there, so that lengths and framing stay. It knows a token as it is,
// URL-encoded, escaped in JSON, and in base64. A nil scrubber masks nothing.
type scrubber struct {
	forms []string  // of all tokens that were sent
	start [256]bool // :: byte → a form may begin with it, escaped or not
	count int       // how many were masked
	work  int       // how many bytes may yet be compared
	// headersOnly leaves bodies as they are.
	headersOnly bool
}

// add has a token masked as well.
func (s *scrubber) add(token secret.String) {
	t := token.Reveal()
	if len(t) < minScrubbed {
		return
	}
	s.forms = append(s.forms, t)
	for skip := range 3 { // what stands before it moves it against groups of three
		for _, enc := range [...]*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", skip) + t))
			// The first and last characters may be made of other bytes, too.
			if form := text[(skip*8+5)/6 : (skip+len(t))*8/6]; !slices.Contains(s.forms, form) {
				s.forms = append(s.forms, form)
			}
		}
	}
	s.start['%'], s.start['\\'] = true, true
	for _, form := range s.forms {
		s.start[form[0]] = true
	}
}

// found returns how many were masked.
func (s *scrubber) found() int {
	if s == nil {
		return 0
	}
	return s.count
}

// header masks the values of a header.
func (s *scrubber) header(h http.Header) {
	if s == nil {
		return
	}
	for _, values := range h {
		for i, value := range values {
			s.work = scrubWork * len(value)
			b, before := []byte(value), s.count
			if s.mask(b, true); s.count != before {
				values[i] = string(b)
			}
		}
	}
}

// body returns the body of res with the tokens masked, if it is a text.
func (s *scrubber) body(res *http.Response) io.ReadCloser {
	if s == nil || s.headersOnly || !isText(res.Header) {
		return res.Body
	}
	s.work = scrubWork * scrubbed
	return &scrubReader{ReadCloser: res.Body, s: s, left: scrubbed}
}

// isText reports whether a body can be read as it is.
func isText(h http.Header) bool {
	for _, coding := range h["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	// Broken parameters make it no less of a text, and without a type nobody
	// knows: lengths stay, so that it can do no harm.
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	kind, _, _ = strings.Cut(kind, ",")
	kind = strings.ToLower(strings.TrimSpace(kind))
	switch kind {
	case "":
		return true
	case "application/json", "application/xml", "application/javascript", "application/x-www-form-urlencoded",
		"application/x-ndjson", "application/jsonl", "application/yaml", "application/x-javascript":
		return true
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml")
}

// mask masks the tokens in b. It returns how much of b is done: all, or up to
// where a token begins that the end cuts off, unless this is the last.
func (s *scrubber) mask(b []byte, last bool) int {
	for i := 0; i < len(b); i++ {
		if !s.start[b[i]] || s.work <= 0 {
			continue
		}
		n, open := 0, false
		for _, form := range s.forms {
			m, cut := s.match(b[i:], form)
			n, open = max(n, m), open || cut
		}
		switch {
		case open && !last: // a longer form may go on from here
			return i
		case n > 0:
			for j := range n {
				b[i+j] = '*'
			}
			s.count++
			i += n - 1
		case b[i] == '\\' && i+1 < len(b) && b[i+1] == '\\': // an escaped one escapes nothing
			i++
		}
	}
	return len(b)
}

// match returns the length of form at the start of b, in whatever way each of
// its bytes is written there, or zero. cut says that b ends before form does.
func (s *scrubber) match(b []byte, form string) (length int, cut bool) {
	for i := range len(form) {
		s.work--
		if length < len(b) && b[length] == form[i] { // nearly always
			length++
			continue
		}
		n, cut := unit(b[length:], form[i])
		if n == 0 {
			return 0, cut
		}
		length += n
	}
	return length, false
}

// unit returns how many bytes at the start of b stand for c, which the first
// does not: %XX, \c or \u00XX. It is zero if they don't, and cut says if that is
// for b's end only.
func unit(b []byte, c byte) (n int, cut bool) {
	switch {
	case len(b) == 0:
		return 0, true
	case b[0] == '%':
		return escaped(b, "%", c)
	case b[0] == '\\' && len(b) == 1:
		return 0, true
	case b[0] == '\\' && b[1] == c && c != 'u':
		return 2, false
	case b[0] == '\\':
		return escaped(b, `\u00`, c)
	}
	return 0, false
}

// escaped is unit for a prefix and two hexadecimal digits.
func escaped(b []byte, prefix string, c byte) (n int, cut bool) {
	const lower, upper = "0123456789abcdef", "0123456789ABCDEF"
	n = len(prefix) + 2
	for i := range min(n, len(b)) {
		var want [2]byte
		switch {
		case i < len(prefix):
			want = [2]byte{prefix[i], prefix[i]}
		case i == len(prefix):
			want = [2]byte{lower[c>>4], upper[c>>4]}
		default:
			want = [2]byte{lower[c&15], upper[c&15]}
		}
		if b[i] != want[0] && b[i] != want[1] {
			return 0, false
		}
	}
	if len(b) < n {
		return 0, true
	}
	return n, false
}

// scrubReader masks what is read from a body. It holds back only what may be
// the beginning of a token, until the next read or the end.
type scrubReader struct {
	io.ReadCloser
	s     *scrubber
	left  int    // how much is yet to be looked at
	buf   []byte // what was read and not yet passed on
	ready int    // how much of buf may be
	store []byte // where buf stands
	err   error  // how the body ended
}

// Read implements io.Reader.
func (r *scrubReader) Read(p []byte) (int, error) {
	for {
		switch {
		case r.ready > 0:
			n := copy(p, r.buf[:r.ready])
			r.buf, r.ready = r.buf[n:], r.ready-n
			return n, nil
		case r.err != nil:
			return 0, r.err
		case r.left == 0:
			return r.ReadCloser.Read(p)
		}
		r.fill()
	}
}

// fill reads once and masks what is there.
func (r *scrubReader) fill() {
	held := len(r.buf)
	size := held + min(r.left, scrubBuffer)
	if cap(r.store) < size {
		r.store = slices.Grow(r.store[:0], size)
	}
	next := r.store[:size]
	copy(next, r.buf) // which stands further back in it
	n, err := r.ReadCloser.Read(next[held:])
	r.buf, r.err = next[:held+n], err
	r.left -= n
	r.ready = r.s.mask(r.buf, err != nil || r.left == 0)
}
