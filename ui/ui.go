// Package ui is what all pages share, those for users and those for operators:
// the stylesheet, the pictures, the integrator's brand, the languages, and the
// headers that keep pages out of frames, caches and the hands of other sites.
package ui

import (
	"crypto/sha256"
	_ "embed" // the stylesheet, the icon and the providers' pictures
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"
)

//go:embed static/ui.css
var style []byte

//go:embed static/favicon.svg
var favicon []byte

//go:embed static/icons.json
var iconSource []byte

// The files that all pages refer to.
var (
	Style   = NewAsset("ui", "css", style)
	Favicon = Asset{Name: "favicon.svg", contentType: types["svg"], body: favicon, keep: "public, max-age=86400"}
)

// Asset is a file that pages refer to. Make one with NewAsset.
type Asset struct {
	Name        string // the last segment of its path
	contentType string
	body        []byte
	keep        string // Cache-Control
}

// types are the content types by what a file's name ends in.
var types = map[string]string{
	"css": "text/css; charset=utf-8",
	"js":  "text/javascript; charset=utf-8",
	"svg": "image/svg+xml",
	"png": "image/png",
}

// NewAsset returns an asset whose name changes with its content, so that
// browsers may keep it for good. ext is css, js, svg or png.
func NewAsset(stem, ext string, body []byte) Asset {
	sum := sha256.Sum256(body)
	return Asset{
		Name:        stem + "-" + hex.EncodeToString(sum[:6]) + "." + ext,
		contentType: types[ext], body: body, keep: "public, max-age=31536000, immutable",
	}
}

// ServeHTTP serves the file under whatever path. A picture that somebody opens
// by itself is in a sandbox: an SVG is a document then, which may hold scripts.
func (a Asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	SetHeaders(w.Header(), Policy{})
	h := w.Header()
	if a.contentType == types["svg"] {
		h.Set("Content-Security-Policy", h.Get("Content-Security-Policy")+"; sandbox")
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", a.keep)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body)
	}
}

// Policy is what a page may do besides being shown. The zero value: nothing.
type Policy struct {
	// Script allows scripts from the page's own origin.
	Script bool
	// Live allows these scripts to make requests to that origin.
	Live bool
	// FormAction is the CSP source to which forms may go, with every redirect
	// that follows. Empty: there are no forms.
	FormAction string
}

// SetHeaders puts on an answer what keeps pages out of caches, frames and the
// hands of other sites, and holds them to the policy.
func SetHeaders(h http.Header, p Policy) {
	csp := "default-src 'none'; style-src 'self'; img-src 'self'"
	if p.Script {
		csp += "; script-src 'self'"
	}
	if p.Live {
		csp += "; connect-src 'self'"
	}
	forms := p.FormAction
	if forms == "" {
		forms = "'none'"
	}
	h.Set("Content-Security-Policy", csp+"; form-action "+forms+"; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// icons are paths in a square of 24 by provider, from simple-icons (CC0; the
// marks are their owners').
var icons = mustIcons()

func mustIcons() map[string]string {
	var all map[string]string
	if err := json.Unmarshal(iconSource, &all); err != nil {
		panic(fmt.Sprintf("ui: static/icons.json: %v", err))
	}
	return all
}

// Tile is the picture that stands for a provider or an app.
type Tile struct {
	Class   string // of the element
	Path    string // an SVG path in a square of 24; empty: Initial stands there
	Initial string
}

// ProviderTile returns the tile of a provider by its catalogue name, else the
// first letter of its title.
func ProviderTile(name, title string) Tile {
	if path, ok := icons[name]; ok {
		return Tile{Class: "pic b-" + name, Path: path, Initial: Initial(title)}
	}
	return Tile{Initial: Initial(title)}
}

// Initial returns the letter that stands for a name that has no picture.
func Initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return strings.ToUpper(string(r))
		}
	}
	return "·"
}
