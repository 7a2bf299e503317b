package badgerstore

import (
	"crypto/rand"
	"os"
)

// fill writes what no file system can make smaller.
func fill(f *os.File, bytes int64) error {
	chunk := make([]byte, mib)
	for bytes > 0 {
		_, _ = rand.Read(chunk) // never fails
		n, err := f.Write(chunk[:min(bytes, mib)])
		if err != nil {
			return err
		}
		bytes -= int64(n)
	}
	return nil
}
