package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Reading and writing JSON by reflection was most of what a read or write of a
// record costs. So the records that are read and written all the time list their
// members themselves, for both. What is written is what encoding/json writes of
// the same struct, byte for byte; what is read is that too, and anything else
// (another order, unknown members, white space) is left to encoding/json.

// lister is a struct of the stored format that lists its members: all of them,
// in the order of its fields.
type lister interface{ members(c *coder) }

// coder writes an object's members, or reads them.
type coder struct {
	text    []byte // what was written, or what is still to be read
	reading bool
	begun   bool // a member of this object came before
	failed  bool // encoding/json has to do it
}

// appendMembers appends the text of w, if it can be written here.
func appendMembers(text []byte, w lister) (_ []byte, ok bool) {
	c := coder{text: text}
	c.object(w)
	return c.text, !c.failed
}

// readMembers reads text into w, which is zero, and reports whether that was all
// of it. If not, something of it may be in w.
func readMembers(text []byte, w lister) bool {
	c := coder{text: text, reading: true}
	c.object(w)
	return !c.failed && len(c.text) == 0
}

func (c *coder) object(w lister) {
	c.punct('{')
	c.begun = false
	w.members(c)
	c.begun = true
	c.punct('}')
}

// punct writes or reads one character.
func (c *coder) punct(char byte) {
	switch {
	case !c.reading:
		c.text = append(c.text, char)
	case len(c.text) == 0 || c.text[0] != char:
		c.failed = true
	default:
		c.text = c.text[1:]
	}
}

// next reports whether the next character to be read is this one.
func (c *coder) next(char byte) bool { return len(c.text) > 0 && c.text[0] == char }

// member begins a member and reports whether there is one: when writing, if it is
// set; when reading, if it comes next.
func (c *coder) member(name string, set bool) bool {
	if c.failed {
		return false
	}
	if !c.reading {
		if set {
			if c.begun {
				c.text = append(c.text, ',')
			}
			c.text = append(append(append(c.text, '"'), name...), '"', ':')
			c.begun = true
		}
		return set
	}
	rest := c.text
	if c.begun {
		if !c.next(',') {
			return false
		}
		rest = rest[1:]
	}
	n := len(name)
	if len(rest) < n+3 || rest[0] != '"' || string(rest[1:n+1]) != name || rest[n+1] != '"' || rest[n+2] != ':' {
		return false
	}
	c.text, c.begun = rest[n+3:], true
	return true
}

// member's kinds. Each is left out where it is zero, as omitzero says.

func text[T ~string](c *coder, name string, p *T) {
	if c.member(name, *p != "") {
		textValue(c, p)
	}
}

// required is text for a member that is never left out.
func required[T ~string](c *coder, name string, p *T) {
	if c.member(name, true) {
		textValue(c, p)
	}
}

func textValue[T ~string](c *coder, p *T) {
	switch {
	case c.reading:
		if raw, plain := c.quoted(); plain {
			*p = T(raw)
		} else if json.Unmarshal(raw, p) != nil {
			c.failed = true
		}
	case isPlain(string(*p)):
		c.text = append(append(append(c.text, '"'), *p...), '"')
	default:
		quoted, err := json.Marshal(*p)
		c.text, c.failed = append(c.text, quoted...), c.failed || err != nil
	}
}

// isPlain reports whether s stands between quotes as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < ' ' || b > '~' || b == '"' || b == '\\' || b == '<' || b == '>' || b == '&' {
			return false
		}
	}
	return true
}

// quoted reads a string: what is between the quotes if that is plain, else all of it.
func (c *coder) quoted() (raw []byte, plain bool) {
	if !c.next('"') {
		c.failed = true
		return nil, true
	}
	end := bytes.IndexByte(c.text[1:], '"') + 1
	if end > 0 && bytes.IndexByte(c.text[1:end], '\\') < 0 {
		raw, c.text = c.text[1:end], c.text[end+1:]
		return raw, true
	}
	for i := 1; i < len(c.text); i++ {
		switch c.text[i] {
		case '\\':
			i++
		case '"':
			raw, c.text = c.text[:i+1], c.text[i+1:]
			return raw, false
		}
	}
	c.failed = true
	return nil, true
}

func (c *coder) bytes(name string, p *[]byte) {
	if !c.member(name, *p != nil) {
		return
	}
	if !c.reading {
		c.punct('"')
		c.text = base64.StdEncoding.AppendEncode(c.text, *p)
		c.punct('"')
		return
	}
	raw, plain := c.quoted()
	b, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(raw))), raw)
	*p, c.failed = b, c.failed || !plain || err != nil
}

func (c *coder) time(name string, p *time.Time) {
	if !c.member(name, !p.IsZero()) {
		return
	}
	var err error
	if c.reading {
		raw, plain := c.quoted()
		err = p.UnmarshalText(raw)
		c.failed = c.failed || !plain
	} else {
		c.punct('"')
		c.text, err = p.AppendText(c.text)
		c.punct('"')
	}
	c.failed = c.failed || err != nil
}

func number[T ~int | ~int64 | ~uint64](c *coder, name string, p *T) {
	if c.member(name, *p != 0) {
		numberValue(c, p)
	}
}

func numberValue[T ~int | ~int64 | ~uint64](c *coder, p *T) {
	if !c.reading {
		if *p < 0 {
			c.text = strconv.AppendInt(c.text, int64(*p), 10)
		} else {
			c.text = strconv.AppendUint(c.text, uint64(*p), 10)
		}
		return
	}
	n := 0
	for n < len(c.text) && (c.text[n] == '-' || (c.text[n] >= '0' && c.text[n] <= '9')) {
		n++
	}
	c.failed = c.failed || json.Unmarshal(c.text[:n], p) != nil
	c.text = c.text[n:]
}

func (c *coder) flag(name string, p *bool) {
	if !c.member(name, *p) {
		return
	}
	const value = "true"
	if !c.reading {
		c.text = append(c.text, value...)
		return
	}
	*p = bytes.HasPrefix(c.text, []byte(value))
	if c.failed = c.failed || !*p; !c.failed {
		c.text = c.text[len(value):]
	}
}

func (c *coder) list(name string, p *[]string) {
	if !c.member(name, *p != nil) {
		return
	}
	c.punct('[')
	if c.reading {
		*p = []string{}
		for !c.failed && !c.next(']') {
			if len(*p) > 0 {
				c.punct(',')
			}
			*p = append(*p, "")
			textValue(c, &(*p)[len(*p)-1])
		}
	}
	if !c.reading {
		for i := range *p {
			if i > 0 {
				c.punct(',')
			}
			textValue(c, &(*p)[i])
		}
	}
	c.punct(']')
}

func (c *coder) texts(name string, p *map[string]string) {
	if !c.member(name, *p != nil) {
		return
	}
	pair := func(first bool, key, value *string) {
		if !first {
			c.punct(',')
		}
		textValue(c, key)
		c.punct(':')
		textValue(c, value)
	}
	c.punct('{')
	if c.reading {
		*p = map[string]string{}
		for first := true; !c.failed && !c.next('}'); first = false {
			var key, value string
			pair(first, &key, &value)
			(*p)[key] = value
		}
	} else {
		for i, key := range slices.Sorted(maps.Keys(*p)) {
			value := (*p)[key]
			pair(i == 0, &key, &value)
		}
	}
	c.punct('}')
}

// part is a struct whose members can all be left out, and that is left out
// without any.
func (c *coder) part(name string, w lister) {
	before, begun := len(c.text), c.begun
	if !c.member(name, true) {
		return
	}
	inside := len(c.text) + 1
	c.object(w)
	if !c.reading && len(c.text) == inside+1 {
		c.text, c.begun = c.text[:before], begun
	}
}

// pointed is a struct that is left out where there is none.
func pointed[T any, P interface {
	*T
	lister
}](c *coder, name string, p *P) {
	if !c.member(name, *p != nil) {
		return
	}
	if c.reading {
		*p = new(T)
	}
	c.object(*p)
}
