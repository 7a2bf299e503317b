//go:build !linux

package badgerstore

import "os"

// syncData syncs what was written in place.
func syncData(f *os.File) error { return f.Sync() }
