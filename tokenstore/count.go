package tokenstore

import "context"

// Statuses are all that a connection may have.
var Statuses = []Status{StatusInitiated, StatusActive, StatusExpired, StatusFailed, StatusRevoked}

// Count is how many connections of an integration have a status.
type Count struct {
	Integration string // empty: of all integrations that were not named
	Status      Status
	N           int
}

// Counter is a Store that counts its connections without opening them.
type Counter interface {
	// CountConnections counts those of each of these integrations, and together
	// those of all others, by status. What there is none of is not in it. It may
	// take seconds where there are millions, in which the store does everything
	// else, too; what is written meanwhile may be counted or not.
	CountConnections(ctx context.Context, integrations []string) ([]Count, error)
}

// Space is how much room a store takes, and has.
type Space struct {
	Size     int64 // bytes that it takes
	Free     int64 // bytes that it could take
	Reserved int64 // where fewer bytes are free, new connections are refused
}

// Spacer is a Store that knows the disk it is on.
type Spacer interface {
	// Space looks at the disk. ok is false where that can't be known.
	Space() (s Space, ok bool)
}

// Sizer is a Store that knows how large it is, but not the disk it is on.
type Sizer interface {
	// Size returns the bytes that it takes.
	Size(ctx context.Context) (int64, error)
}

// Pool is the connections to a database.
type Pool struct{ InUse, Idle, Max int }

// Pooler is a Store in a database.
type Pooler interface{ Pool() Pool }
