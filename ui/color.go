package ui

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// color is a color in sRGB, each part from 0 to 255.
type color [3]float64

// The surfaces on which the accent stands as text: the darkest of the light
// scheme, and the lightest of the dark one.
var (
	lightSurface = color{0xef, 0xee, 0xea}
	darkSurface  = color{0x26, 0x26, 0x2b}
	white        = color{255, 255, 255}
	black        = color{0, 0, 0}
)

// textContrast is what text needs (WCAG 2.2, 1.4.3), which is more than what
// graphics do (1.4.11).
const textContrast = 4.5

var hexColor = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

func parseColor(s string) (color, error) {
	if !hexColor.MatchString(s) {
		return color{}, fmt.Errorf("%q is no color of the form \"#4a3fd1\"; in a Caddyfile it stands in quotes, since # begins a comment", s)
	}
	n, err := strconv.ParseUint(s[1:], 16, 32)
	return color{float64(n >> 16), float64(n >> 8 & 255), float64(n & 255)}, err
}

func (c color) String() string {
	return fmt.Sprintf("#%02x%02x%02x", int(c[0]), int(c[1]), int(c[2]))
}

// luminance is WCAG's relative luminance.
func (c color) luminance() float64 {
	var l float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		part := c[i] / 255
		if part <= 0.04045 {
			part /= 12.92
		} else {
			part = math.Pow((part+0.055)/1.055, 2.4)
		}
		l += weight * part
	}
	return l
}

// contrast is WCAG's contrast ratio, from 1 to 21.
func contrast(a, b color) float64 {
	la, lb := a.luminance(), b.luminance()
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// toward returns the color next to c, on the way to another one, that has the
// contrast of text to the surface. c itself, if it has.
func (c color) toward(other, surface color) color {
	for i := range 101 {
		share := float64(i) / 100
		var mixed color
		for j := range mixed {
			mixed[j] = math.Round(c[j] + (other[j]-c[j])*share)
		}
		if contrast(mixed, surface) >= textContrast {
			return mixed
		}
	}
	return other
}
