package e2e_test

import (
	"bytes"
	"encoding/base64"
	endian "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
)

// spellings returns the ways in which a secret could stand somewhere.
func spellings(s string) map[string][]byte {
	each := func(format string) []byte {
		var b bytes.Buffer
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, format, c)
		}
		return b.Bytes()
	}
	var plainJSON bytes.Buffer
	enc := json.NewEncoder(&plainJSON)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)
	escapedJSON, _ := json.Marshal(s)
	units := utf16.Encode([]rune(s))
	little, big := make([]byte, 0, 2*len(s)), make([]byte, 0, 2*len(s))
	for _, u := range units {
		little = endian.LittleEndian.AppendUint16(little, u)
		big = endian.BigEndian.AppendUint16(big, u)
	}
	out := map[string][]byte{
		"plain": []byte(s), "hex": []byte(hex.EncodeToString([]byte(s))), "HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(s)))),
		"url-encoded": []byte(url.QueryEscape(s)), "url-encoded path": []byte(url.PathEscape(s)), "url-encoded bytes": each("%%%02x"), "url-encoded BYTES": each("%%%02X"),
		"json": bytes.Trim(bytes.TrimSpace(plainJSON.Bytes()), `"`), "json for html": bytes.Trim(escapedJSON, `"`), "json bytes": each(`\u%04x`),
		"quoted": []byte(strings.Trim(fmt.Sprintf("%q", s), `"`)), "numbers": bytes.TrimSpace(each("%d ")),
		"html": []byte(html.EscapeString(s)), "html template": []byte(strings.ReplaceAll(template.HTMLEscapeString(s), "+", "&#43;")), "html bytes": each("&#%d;"),
		"utf-16le": little, "utf-16be": big,
	}
	// Base64 of a longer text holds the secret at one of three offsets: of
	// each, the part that does not depend on its neighbours.
	for off := range 3 {
		enc := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", off) + s))
		start, end := (off*8+5)/6, len(enc)-1
		out[fmt.Sprintf("base64 at %d", off)] = []byte(enc[start:end])
		out[fmt.Sprintf("base64url at %d", off)] = []byte(strings.NewReplacer("+", "-", "/", "_").Replace(enc[start:end]))
	}
	return out
}

// shortest is the length under which a word is no secret: tests send short ones
// in the place of codes and states.
const shortest = 16

// finder finds all spellings of all secrets in one pass.
type finder struct {
	window  [1 << 15]uint64        // a bit for the hash of each pattern's first eight bytes
	pattern map[[8]byte][]*pattern // :: the first eight bytes → the patterns
}

type pattern struct {
	text   []byte
	how    string
	secret string
	kind   kind
}

func newFinder(secrets map[string]kind) *finder {
	f := &finder{pattern: map[[8]byte][]*pattern{}}
	for s, k := range secrets {
		if len(s) < shortest {
			continue
		}
		for how, text := range spellings(s) {
			at := [8]byte(text)
			f.pattern[at] = append(f.pattern[at], &pattern{text, how, s, k})
			h := endian.LittleEndian.Uint64(text) * spread >> (64 - 21)
			f.window[h/64] |= 1 << (h % 64)
		}
	}
	return f
}

// spread is odd, and makes a hash of what it is multiplied with.
const spread = 0x9e3779b97f4a7c15

// find returns a line for each secret that stands in a place, but for those of
// the kinds that belong there.
func (f *finder) find(where string, in []byte, belong kind) []string {
	var out []string
	found := map[string]bool{}
	for i := f.next(in, 0); i >= 0; i = f.next(in, i+1) {
		for _, p := range f.pattern[[8]byte(in[i:])] {
			if p.kind&belong == 0 && !found[p.secret] && bytes.HasPrefix(in[i:], p.text) {
				found[p.secret] = true
				out = append(out, fmt.Sprintf("%s holds a secret of the run (kind %d, %s): …%s…", where, p.kind, p.how, around(in, i, len(p.text))))
			}
		}
	}
	slices.Sort(out)
	return out
}

// nothing is what the store's files are full of.
var nothing [4096]byte

// next returns the first place from i on at which a pattern may begin, or -1. It
// sees every byte of every file, which under the race detector would take most of
// the suite's time.
//
//go:norace
func (f *finder) next(in []byte, i int) int {
	for ; i+8 <= len(in); i++ {
		if in[i] == 0 {
			for len(in) >= i+len(nothing) && bytes.Equal(in[i:i+len(nothing)], nothing[:]) {
				i += len(nothing) - 8 // UTF-16 begins with a zero
			}
		}
		h := endian.LittleEndian.Uint64(in[i:]) * spread >> (64 - 21)
		if f.window[h/64]&(1<<(h%64)) != 0 {
			return i
		}
	}
	return -1
}

// around shows where a secret was found, without it.
func around(b []byte, i, n int) string {
	return strings.ToValidUTF8(string(b[max(0, i-60):i])+"[HERE]"+string(b[i+n:min(len(b), i+n+20)]), "?")
}
