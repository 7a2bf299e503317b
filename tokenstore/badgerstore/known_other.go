//go:build !linux

package badgerstore

// statFile knows no file again: each start reads the whole store.
func statFile(string) (fileStat, error) { return fileStat{}, errNotKnown }
