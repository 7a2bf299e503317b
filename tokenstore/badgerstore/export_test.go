package badgerstore

// CloseDatabase takes Badger away from under the store, so that commits fail.
func (s *Store) CloseDatabase() { _ = s.db.Close() }

// Waiting returns how many writes wait for the committer.
func (s *Store) Waiting() int { return len(s.jobs) }
