package connect

import (
	"maps"
	"slices"
)

// Codes returns all codes that a page may show.
func Codes() []string { return slices.Sorted(maps.Keys(replies)) }
