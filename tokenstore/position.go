package tokenstore

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Position is a place in the order of ListConnections: by time of creation,
// then by ID. It needs no record to stand there, so that pages stay right while
// connections come and go.
type Position struct {
	CreatedAt time.Time
	ID        string
}

// PositionOf returns where c stands.
func PositionOf(c *Connection) Position { return Position{CreatedAt: c.CreatedAt, ID: c.ID} }

// Compare returns -1, 0 or 1 as p is before, at or after other.
func (p Position) Compare(other Position) int {
	if d := p.CreatedAt.Compare(other.CreatedAt); d != 0 {
		return d
	}
	return strings.Compare(p.ID, other.ID)
}

// Cursor returns p in the form that callers pass back. Whoever lists by labels
// may find the ID in it of a connection that is not on the page.
func (p Position) Cursor() string {
	text := fmt.Sprintf("%d.%d.%s", p.CreatedAt.Unix(), p.CreatedAt.Nanosecond(), p.ID)
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// ParseCursor reads what Cursor wrote, or returns an error that wraps
// ErrBadCursor.
func ParseCursor(cursor string) (Position, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return Position{}, fmt.Errorf("%w: not base64url", ErrBadCursor)
	}
	parts := strings.SplitN(string(text), ".", 3)
	if len(parts) != 3 || parts[2] == "" {
		return Position{}, fmt.Errorf("%w: incomplete", ErrBadCursor)
	}
	sec, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("%w: no time in it", ErrBadCursor)
	}
	nsec, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || nsec < 0 || nsec >= int64(time.Second) {
		return Position{}, fmt.Errorf("%w: no time in it", ErrBadCursor)
	}
	return Position{CreatedAt: time.Unix(sec, nsec).UTC(), ID: parts[2]}, nil
}
