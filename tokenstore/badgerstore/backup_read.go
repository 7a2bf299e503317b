package badgerstore

import (
	"fmt"
	"io"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// ReadBackup checks a whole backup, and then calls use with each connection in
// it, and returns when it was taken. A connection whose record can't be opened has
// its ID and Damaged alone.
//
// Errors wrap ErrBadBackup or tokenstore.ErrKeyMissing, or are those of use, which
// end it.
func ReadBackup(backup io.ReadSeeker, codec tokenstore.Codec, use func(tokenstore.Connection) error) (time.Time, error) {
	header, err := checkBackup(backup, backups, codec)
	if err != nil {
		return time.Time{}, fmt.Errorf("badgerstore: %w", err)
	}
	r, err := rewind(backup, backups)
	if err != nil {
		return time.Time{}, fmt.Errorf("badgerstore: %w", err)
	}
	for rec, err := range r.records(codec) {
		if err != nil {
			return time.Time{}, fmt.Errorf("badgerstore: %w", err)
		}
		if rec.ID == "" || rec.Deleted {
			continue
		}
		c, err := openValue(codec, header.identity(), rec.ID, rec.Value)
		if err != nil {
			c = tokenstore.Connection{ID: rec.ID, Damaged: true}
		}
		if err := use(c); err != nil {
			return time.Time{}, err
		}
	}
	return header.CreatedAt, nil
}
