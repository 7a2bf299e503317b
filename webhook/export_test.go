package webhook

// SetMaxAhead lets n events wait in memory, and returns what sets it back.
func SetMaxAhead(n int) (back func()) {
	was := maxAhead
	maxAhead = n
	return func() { maxAhead = was }
}
