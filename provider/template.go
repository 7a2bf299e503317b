package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// template is a URL, or a host with a port, cut into what it consists of, so
// that a value can only ever become part of one label or one segment.
type template struct {
	text       string
	scheme     string  // with "://"; empty for a host alone
	host, path []piece // labels, segments; no host: the text has no places
	port       string  // with its colon
	query      string  // with its question mark, and a fragment
	whole      bool    // the host is one place and nothing else
}

// piece is one label of a host or one segment of a path. Without a param it is
// before alone.
type piece struct{ before, param, after string }

// spot is a place of a parameter.
type spot struct {
	param string
	host  bool // in a label of the host
	whole bool // where the host is
}

// parseTemplate finds the places in text. Its errors go on where the word that
// text belongs to was named.
func parseTemplate(text string) (template, error) {
	t := template{text: text}
	if !strings.ContainsAny(text, "{}") {
		return t, nil
	}
	rest := text
	if i := strings.Index(rest, "://"); i >= 0 {
		t.scheme, rest = rest[:i+3], rest[i+3:]
	}
	rest, t.query = cutBefore(rest, "?#")
	rest, path := cutBefore(rest, "/")
	host, port := cutBefore(rest, ":@")
	t.port = port
	if strings.ContainsAny(t.scheme+t.port+t.query, "{}") || strings.Contains(t.port, "@") {
		return t, errors.New("must have its parameters in labels of the host or segments of the path, and nowhere else")
	}
	var err error
	if t.host, err = pieces(host, "."); err != nil {
		return t, err
	}
	if t.path, err = pieces(path, "/"); err != nil {
		return t, err
	}
	t.whole = len(t.host) == 1 && t.host[0].param != "" && t.host[0].before == "" && t.host[0].after == ""
	if err := t.checkSuffix(); err != nil {
		return t, err
	}
	probes := map[string]string{}
	for _, s := range t.places() {
		probes[s.param] = probe
		if s.whole {
			probes[s.param] = probeHost
		}
	}
	if _, err := t.fill(probes); err != nil {
		return t, errors.New("is not a URL in which parameters can stand")
	}
	return t, nil
}

// cutBefore cuts s before the first of some characters.
func cutBefore(s, chars string) (before, after string) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// pieces cuts s at sep. A piece has one place at most, which two values could
// not fill in the same way twice.
func pieces(s, sep string) ([]piece, error) {
	var all []piece
	for part := range strings.SplitSeq(s, sep) {
		before, rest, open := strings.Cut(part, "{")
		param, after, closed := strings.Cut(rest, "}")
		switch {
		case !open && !strings.Contains(part, "}"):
		case !open || !closed || param == "" || strings.ContainsAny(before+param+after, "{}"):
			return nil, errors.New("has braces that are not one {name} in a label or segment")
		}
		all = append(all, piece{before, param, after})
	}
	return all, nil
}

// domain is what a host that has places ends in: two labels at least, and no
// number, so that no value makes it an address.
var domain = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*\.[a-z][a-z0-9-]+$`)

// suffix returns what of the host stands behind its last place, and whether
// there is a place.
func (t *template) suffix() (fixed string, placed bool) {
	for _, p := range t.host {
		if p.param != "" {
			fixed, placed = "", true
			continue
		}
		if fixed != "" {
			fixed += "."
		}
		fixed += p.before
	}
	return fixed, placed
}

// checkSuffix refuses a host that a value could make anybody's.
func (t *template) checkSuffix() error {
	fixed, placed := t.suffix()
	if !placed || t.whole { // of a whole host the parameter itself says which
		return nil
	}
	if !domain.MatchString(fixed) {
		return errors.New("must end, behind its parameters, in a domain of two labels or more")
	}
	return checkOwned(fixed)
}

// checkOwned refuses a domain below which anybody may have one.
func checkOwned(fixed string) error {
	// What the list has from companies, such as myshopify.com, is what
	// parameters are for. A wildcard of the list counts a label more.
	if public, registry := publicsuffix.PublicSuffix(probe + "." + fixed); registry && len(public) >= len(fixed) {
		return fmt.Errorf("must end in a domain of its provider's: below %s anybody may have one", fixed)
	}
	return nil
}

// places returns the places of the template.
func (t *template) places() []spot {
	var all []spot
	for _, p := range t.host {
		if p.param != "" {
			all = append(all, spot{p.param, !t.whole, t.whole})
		}
	}
	for _, p := range t.path {
		if p.param != "" && p != tokenPiece {
			all = append(all, spot{param: p.param})
		}
	}
	return all
}

// fill puts values, which were checked, into their places, and reads the result
// again: it is no URL unless each part is where the template has it. tokenPiece
// stays.
func (t *template) fill(values map[string]string) (string, error) {
	if t.host == nil {
		return t.text, nil
	}
	host, path := join(t.host, ".", values), join(t.path, "/", values)
	scheme := cmp.Or(t.scheme, "https://")
	query, _ := cutBefore(t.query, "#")
	u, err := url.Parse(scheme + host + t.port + path + query)
	fixed, placed := t.suffix()
	switch {
	case err != nil, u.Scheme+"://" != scheme, u.User != nil, u.Opaque != "", u.Fragment != "",
		u.Host != host+t.port, u.EscapedPath() != path, strings.TrimPrefix(query, "?") != u.RawQuery,
		!t.whole && strings.Count(host, ".") != len(t.host)-1, strings.Count(path, "/") != len(t.path)-1:
		return "", errors.New("is no URL with these parameters")
	case placed && !t.whole && !strings.HasSuffix(u.Hostname(), "."+fixed):
		return "", errors.New("leads to another host with these parameters")
	}
	for label := range strings.SplitSeq(host, ".") {
		if placed && !hostValue.MatchString(label) {
			return "", errors.New("has no valid host with these parameters")
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return "", errors.New("has another path with these parameters")
		}
	}
	if slices.Contains(t.path, tokenPiece) {
		values = maps.Clone(values)
		if values == nil {
			values = map[string]string{}
		}
		values[tokenPiece.param] = tokenVar
		path = join(t.path, "/", values)
	}
	return t.scheme + host + t.port + path + t.query, nil
}

// tokenPiece is the segment of revoke_url where the token goes.
var tokenPiece = piece{param: "token"}

func join(all []piece, sep string, values map[string]string) string {
	var b strings.Builder
	for i, p := range all {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(p.before)
		if p.param != "" {
			b.WriteString(values[p.param])
		}
		if p == tokenPiece && values[p.param] == "" {
			b.WriteString(probe)
		}
		b.WriteString(p.after)
	}
	return b.String()
}

// textPlace is a place in the value of a header or a parameter. Other braces
// are what they are there.
var textPlace = regexp.MustCompile(`\{([a-z][a-z0-9_]*)\}`)

// textNames returns the names of the places in a value.
func textNames(value string) []string {
	var names []string
	for _, m := range textPlace.FindAllStringSubmatch(value, -1) {
		names = append(names, m[1])
	}
	return names
}

// fillText puts values into the places of a value that there are values for.
func fillText(text string, values map[string]string) string {
	return textPlace.ReplaceAllStringFunc(text, func(place string) string {
		if v, ok := values[place[1:len(place)-1]]; ok {
			return v
		}
		return place
	})
}
