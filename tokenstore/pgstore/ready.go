package pgstore

import "fmt"

// CheckKeys returns an error that wraps tokenstore.ErrKeyMissing if another
// process seals with a key that the keyset lacks, as far as it was seen: some
// seconds after that at the latest.
func (s *Store) CheckKeys() error {
	now := s.sealer.now.Load()
	if _, err := now.id.openIndexKey(now.codec); err != nil {
		return fmt.Errorf("pgstore: %w", err)
	}
	return nil
}
