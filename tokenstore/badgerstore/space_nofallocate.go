//go:build !linux

package badgerstore

import "os"

// reserve does nothing where there is no fallocate.
func reserve(string, int64) error { return nil }

func allocate(f *os.File, bytes int64) error { return fill(f, bytes) }
