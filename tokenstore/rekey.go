package tokenstore

// RekeyProgress says how far sealing everything in a store with the primary key
// is.
type RekeyProgress struct {
	// State is `idle` (everything is under the primary key), `needed` (not
	// everything, and nobody has begun), `running`, or `done` since Open.
	State   string
	Total   int // connections, flows, events and notes
	Done    int // of them, those under the primary key
	Damaged int // of them, those that can't be opened
	// Error is why sealing doesn't get on: of the last try, and empty once one
	// went well.
	Error string
}
