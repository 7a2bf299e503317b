package provider

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
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
	query      string  // with its question mark
}

// piece is one label of a host or one segment of a path. Without a param it is
// before alone.
type piece struct{ before, param, after string }

// spot is a place of a parameter.
type spot struct {
	param string
	host  bool
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
	if strings.ContainsAny(t.scheme+t.port+t.query, "{}") {
		return t, errors.New("must have its parameters in labels of the host or segments of the path, and nowhere else")
	}
	var err error
	if t.host, err = pieces(host, "."); err != nil {
		return t, err
	}
	if t.path, err = pieces(path, "/"); err != nil {
		return t, err
	}
	if err := t.checkSuffix(); err != nil {
		return t, err
	}
	probes := map[string]string{}
	for _, s := range t.places() {
		probes[s.param] = probe
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
	if !placed {
		return nil
	}
	if !domain.MatchString(fixed) {
		return errors.New("must end, behind its parameters, in a domain of two labels or more")
	}
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
			all = append(all, spot{p.param, true})
		}
	}
	for _, p := range t.path {
		if p.param != "" {
			all = append(all, spot{p.param, false})
		}
	}
	return all
}

// fill puts values, which were checked, into their places, and reads the result
// again: it is no URL unless each part is where the template has it.
func (t *template) fill(values map[string]string) (string, error) {
	if t.host == nil {
		return t.text, nil
	}
	host, path := join(t.host, ".", values), join(t.path, "/", values)
	scheme := t.scheme
	if scheme == "" {
		scheme = "https://"
	}
	rest := host + t.port + path + t.query
	u, err := url.Parse(scheme + rest)
	fixed, placed := t.suffix()
	switch {
	case err != nil, u.Scheme+"://" != scheme, u.User != nil, u.Opaque != "", u.Fragment != "",
		u.Host != host+t.port, u.EscapedPath() != path, strings.TrimPrefix(t.query, "?") != u.RawQuery,
		strings.Count(host, ".") != len(t.host)-1, strings.Count(path, "/") != len(t.path)-1:
		return "", errors.New("is no URL with these parameters")
	case placed && !strings.HasSuffix(u.Hostname(), "."+fixed):
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
	return t.scheme + rest, nil
}

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
		b.WriteString(p.after)
	}
	return b.String()
}
