package dashboard

import (
	"maps"
	"slices"

	"github.com/lanyard-proxy/lanyard/ui"
)

// Words are the pages' texts.
func Words() *ui.Words { return words }

// UsePseudo makes pages speak the pseudo-language until the function that it
// returns is called.
func UsePseudo() func() {
	own := words
	words = words.Pseudo()
	return func() { words = own }
}

// Notices are the names of what can be said of a change.
func Notices() []string { return slices.Sorted(maps.Keys(notices)) }

// EventTypes are the types of events that pages have marks for.
func EventTypes() []string {
	var types []string
	for t := range marks {
		types = append(types, string(t))
	}
	return types
}
