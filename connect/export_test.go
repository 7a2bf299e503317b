package connect

import (
	"maps"
	"slices"

	"github.com/lanyard-proxy/lanyard/ui"
)

// Codes returns all codes that a page may show as that of an outcome.
func Codes() []string {
	codes := slices.Sorted(maps.Keys(replies))
	return slices.DeleteFunc(codes, func(code string) bool { return replies[code].mark == "" })
}

// Words are the pages' texts.
func Words() *ui.Words { return words }

// UsePseudo makes pages speak the pseudo-language until the function that it
// returns is called.
func UsePseudo() func() {
	own := words
	words = words.Pseudo()
	return func() { words = own }
}
