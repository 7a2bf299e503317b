package ui

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// maxLogo bounds a logo's file in bytes: every page loads it.
const maxLogo = 256 << 10

// BrandConfig is what an integrator says about the app, its texts resolved.
// Each may be empty.
type BrandConfig struct {
	Name   string // the app's, as its users know it
	Logo   string // path of a PNG or SVG file
	Accent string // #rrggbb
	// Home, Help, Privacy and Terms are https addresses, or http on loopback.
	Home, Help, Privacy, Terms string
}

// Brand is what pages show of the app. The zero value is Lanyard's own look.
type Brand struct {
	Name                       string
	Home, Help, Privacy, Terms string
	Logo                       *Asset // nil: the name's first letter
	Style                      *Asset // the sheet that follows Style's; nil: none
}

// NewBrand checks a configuration and reads its logo. The error says which part
// is wrong, and of a color that can't be read a near one that can.
func NewBrand(c BrandConfig) (Brand, error) {
	b := Brand{Name: c.Name, Home: c.Home, Help: c.Help, Privacy: c.Privacy, Terms: c.Terms}
	for _, link := range [][2]string{{"home", c.Home}, {"help", c.Help}, {"privacy", c.Privacy}, {"terms", c.Terms}} {
		if err := checkLink(link[1]); err != nil {
			return Brand{}, fmt.Errorf("brand: %s: %w", link[0], err)
		}
	}
	if c.Accent != "" {
		sheet, err := accentSheet(c.Accent)
		if err != nil {
			return Brand{}, fmt.Errorf("brand: accent: %w", err)
		}
		b.Style = &sheet
	}
	if c.Logo != "" {
		logo, err := readLogo(c.Logo)
		if err != nil {
			return Brand{}, fmt.Errorf("brand: logo: %w", err)
		}
		b.Logo = &logo
	}
	return b, nil
}

func checkLink(link string) error {
	if link == "" || strings.HasPrefix(link, "mailto:") {
		return nil
	}
	u, err := url.Parse(link)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is no absolute https address", link)
	}
	addr, err := netip.ParseAddr(u.Hostname())
	loopback := u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return fmt.Errorf("%q must be https, or http on a loopback name", link)
	}
	return nil
}

// accentSheet returns the sheet of an accent color: as it is given where it
// stands on light ground or below white text, and a lighter tint on dark
// ground.
func accentSheet(text string) (Asset, error) {
	c, err := parseColor(text)
	if err != nil {
		return Asset{}, err
	}
	if ratio := contrast(c, lightSurface); ratio < textContrast {
		return Asset{}, fmt.Errorf("%s has a contrast of %.1f:1 to the pages' light background, and text needs %.1f:1; %q has it",
			c, ratio, textContrast, c.toward(black, lightSurface))
	}
	return NewAsset("brand", "css", fmt.Appendf(nil,
		":root{--brand:%s;--brand-2:%s;--accent:%s}\n@media (prefers-color-scheme:dark){:root{--accent:%s}}\n",
		c, c, c, c.toward(white, darkSurface))), nil
}

func readLogo(path string) (Asset, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return Asset{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(f, maxLogo+1))
	switch {
	case err != nil:
		return Asset{}, err
	case len(body) > maxLogo:
		return Asset{}, fmt.Errorf("%s is larger than %d KiB", path, maxLogo>>10)
	case bytes.HasPrefix(body, []byte("\x89PNG\r\n\x1a\n")):
		return NewAsset("logo", "png", body), nil
	case isSVG(body):
		return NewAsset("logo", "svg", body), nil
	}
	return Asset{}, fmt.Errorf("%s is neither a PNG nor an SVG picture", path)
}

// isSVG reports whether body is XML whose root is an SVG picture. Pages show it
// as an image, in which nothing runs.
func isSVG(body []byte) bool {
	d := xml.NewDecoder(bytes.NewReader(body))
	root := ""
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return root == "http://www.w3.org/2000/svg svg"
		}
		if err != nil {
			return false
		}
		if start, ok := t.(xml.StartElement); ok && root == "" {
			root = start.Name.Space + " " + start.Name.Local
		}
	}
}
