package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/lanyard-proxy/lanyard/ui"
)

// BrandConfig is what the pages that users see show of the app.
type BrandConfig struct {
	// The app's name as its users know it. Default: the host of the first
	// redirect URL, else of `public_url`.
	Name string `json:"name,omitempty"`
	// The path of the app's picture, a PNG or SVG file of at most 256 KiB.
	// Default: the first letter of its name.
	Logo string `json:"logo,omitempty"`
	// The color of links and of the app's tile, as `#4a3fd1`. Text in it must be
	// readable on the pages' light background, with a contrast of 4.5:1; the dark
	// pages get a lighter tint of it.
	Accent string `json:"accent,omitempty"`
	// Where the app itself is. Pages that end without a way back lead there.
	Home string `json:"home,omitempty"`
	// Where users get help.
	Help string `json:"help,omitempty"`
	// The privacy policy.
	Privacy string `json:"privacy,omitempty"`
	// The terms of use.
	Terms string `json:"terms,omitempty"`
}

func (a *App) parseBrand(d *caddyfile.Dispenser) error {
	if a.Brand != nil {
		return twice(d)
	}
	b := new(BrandConfig)
	a.Brand = b
	return parseBlock(d, options{
		"name":    once(&b.Name),
		"logo":    once(&b.Logo),
		"accent":  once(&b.Accent),
		"home":    once(&b.Home),
		"help":    once(&b.Help),
		"privacy": once(&b.Privacy),
		"terms":   once(&b.Terms),
	})
}

// resolve reads what the configuration refers to.
func (b *BrandConfig) resolve(r *resolver) (ui.Brand, error) {
	if b == nil {
		return ui.Brand{}, nil
	}
	c := ui.BrandConfig{
		Name: r.text("brand: name", b.Name), Logo: r.text("brand: logo", b.Logo), Accent: r.text("brand: accent", b.Accent),
		Home: r.text("brand: home", b.Home), Help: r.text("brand: help", b.Help),
		Privacy: r.text("brand: privacy", b.Privacy), Terms: r.text("brand: terms", b.Terms),
	}
	if r.err != nil {
		return ui.Brand{}, r.err
	}
	return ui.NewBrand(c)
}
