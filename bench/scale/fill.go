package main

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// keysetFile is where the program looks for the keyset.
const keysetFile = "lanyard-keys.json"

// openStore opens the store in dir, which has to have a keyset.
func openStore(dir string) (*badgerstore.Store, error) {
	keys, err := readKeyset(dir)
	if err != nil {
		return nil, err
	}
	return badgerstore.Open(dir, badgerstore.Config{Codec: keys})
}

func readKeyset(dir string) (*seal.Keyset, error) {
	text, err := os.ReadFile(filepath.Join(dir, keysetFile))
	if err != nil {
		return nil, err
	}
	return seal.Parse(text)
}

// fill makes a keyset and a store of s in dir, in the way `caddy lanyard migrate`
// does. It tells progress how far it has come.
func fill(dir string, s sample, progress io.Writer) error {
	text, err := seal.Generate()
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, keysetFile), text, 0o600)
	}
	if err != nil {
		return err
	}
	keys, err := seal.Parse(text)
	if err != nil {
		return err
	}
	// TestFill reads back what is there, and so does each measurement.
	unchecked := func(iter.Seq2[tokenstore.Record, error]) error { return nil }
	if err := badgerstore.Load(dir, keys, s.records(progress), unchecked); err != nil {
		return err
	}
	return badgerstore.EndLoad(dir, keys)
}

// records is the sample as a store is told it: connections by their IDs, and the
// newest events behind them.
func (s sample) records(progress io.Writer) iter.Seq2[tokenstore.Record, error] {
	return func(yield func(tokenstore.Record, error) bool) {
		began := time.Now()
		for done, i := range s.sorted() {
			c, _ := s.stored(int(i))
			if !yield(tokenstore.Record{Connection: &c}, nil) {
				return
			}
			if done > 0 && done%max(s.n/10, 100_000) == 0 {
				_, _ = fmt.Fprintf(progress, "%d of %d, %.0f a second\n", done, s.n, float64(done)/time.Since(began).Seconds())
			}
		}
		seq := uint64(0)
		for i := max(0, s.n-tokenstore.MaxEvents*9/10); i < s.n; i++ { // some have two
			_, news := s.stored(i)
			for _, e := range news {
				seq++
				e.Seq, e.At = seq, s.at
				if !yield(tokenstore.Record{Event: &e}, nil) {
					return
				}
			}
		}
	}
}

// sorted returns the numbers of all connections by their IDs.
func (s sample) sorted() []int32 {
	type named struct {
		id [idLen]byte
		i  int32
	}
	all := make([]named, s.n)
	for i := range all {
		all[i].i = int32(i)
		copy(all[i].id[:], s.id(i))
	}
	slices.SortFunc(all, func(a, b named) int { return bytes.Compare(a.id[:], b.id[:]) })
	order := make([]int32, s.n)
	for at, one := range all {
		order[at] = one.i
	}
	return order
}

// stored returns connection i as it stands in a store, and what was told of it.
func (s sample) stored(i int) (tokenstore.Connection, []tokenstore.Event) {
	c := s.connection(i)
	c.CreatedAt, c.Revision = s.at.Add(time.Duration(i-s.n)*time.Microsecond), 1
	c.UpdatedAt = c.CreatedAt
	return c, c.TakeNews()
}
