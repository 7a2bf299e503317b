package badgerstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// benchSize is how many connections the stores below have, benchPage how many
// of them are one user's.
const (
	benchSize = 200
	benchPage = 20
)

// benchStore returns a store of connections as most are, with an access token of
// 1 KB, and their IDs. They are in Badger's tables where tables says so, and else
// in memory, where what was just written is. The first benchPage have a refresh
// token whose life ends.
func benchStore(b *testing.B, tables bool) (*badgerstore.Store, []string) {
	b.Helper()
	dir, cfg := b.TempDir(), badgerstore.Config{Codec: newKeys(b)}
	s, err := badgerstore.Open(dir, cfg)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UTC()
	ids := make([]string, benchSize)
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = fmt.Sprintf("conn_%026d", i) // as long as they are, and always the same
		c := tokenstore.Connection{
			ID: ids[i], Integration: "github", UserID: "user-" + strconv.Itoa(i/benchPage), Name: "Acme's GitHub",
			Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2, CreatedAt: now.Add(time.Duration(i) * time.Second),
			Token: tokenstore.Token{
				AccessToken: secret.New(strings.Repeat("a", 1024)), RefreshToken: secret.New(strings.Repeat("r", 64)),
				TokenType: "Bearer", IssuedAt: now, ExpiresAt: now.Add(time.Hour), Generation: 1,
			},
		}
		if i < benchPage {
			c.Token.RefreshExpiresAt = now.Add(time.Hour)
		}
		wg.Go(func() {
			if _, err := s.CreateConnection(b.Context(), c); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if tables { // Close writes what is in memory into one
		// What is not known is checked before the start, and so not counted.
		if err := errors.Join(s.Close(), os.Remove(badgerstore.Known(dir))); err != nil {
			b.Fatal(err)
		}
		if s, err = badgerstore.Open(dir, cfg); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s, ids
}

// BenchmarkConnection is the cost of reading a connection that is not in the
// cache, opening its record included: from memory, where those are that were
// written last, and from a table.
func BenchmarkConnection(b *testing.B) {
	for _, name := range []string{"memory", "table"} {
		b.Run(name, func(b *testing.B) {
			s, ids := benchStore(b, name == "table")
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, err := s.Connection(b.Context(), ids[n%len(ids)]); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}

// BenchmarkUpdateConnection is the cost of one durable write with nobody beside
// it: the record read, sealed again, and synced.
func BenchmarkUpdateConnection(b *testing.B) {
	s, ids := benchStore(b, true)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		_, err := s.UpdateConnection(b.Context(), ids[n%len(ids)], func(c *tokenstore.Connection) error {
			c.Token.Generation++
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// BenchmarkUserPage is the cost of a user's connections, 20, on one page.
func BenchmarkUserPage(b *testing.B) {
	s, _ := benchStore(b, true)
	b.ReportAllocs()
	for b.Loop() {
		page, _, err := s.ListConnections(b.Context(), tokenstore.Filter{UserID: "user-7"}, "", benchPage)
		if err != nil || len(page) != benchPage {
			b.Fatalf("ListConnections = %d, %v", len(page), err)
		}
	}
}

// BenchmarkNewestConnection is the cost of finding the connection of a user who
// is named in place of one, where the cache does not know it.
func BenchmarkNewestConnection(b *testing.B) {
	s, _ := benchStore(b, true)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.NewestConnection(b.Context(), tokenstore.Filter{UserID: "user-7", Integration: "github"}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDueConnections is the cost of the keeper's look at what is due, with
// 20 that are.
func BenchmarkDueConnections(b *testing.B) {
	s, _ := benchStore(b, true)
	later := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if ids, err := s.DueConnections(b.Context(), later); err != nil || len(ids) != benchPage {
			b.Fatalf("DueConnections = %d, %v", len(ids), err)
		}
	}
}

// writeAll has each of the writers write its own record times times, and returns
// how many were written in a second.
func writeAll(b *testing.B, writers, times int, write func(writer int) error) float64 {
	b.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range times {
				if err := write(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(writers*times) / time.Since(began).Seconds()
}

// BenchmarkGroupedWrites compares what 128 writers get done when the writes that
// wait are committed together, as the store does it, with the same number of
// writers who each commit a transaction of their own to a Badger that syncs them,
// of the same bytes, and with none of the reading, sealing and counting that the
// store does besides. Each operation is a round of one after the other; the
// medians of the rounds are reported: -benchtime=5x is five.
func BenchmarkGroupedWrites(b *testing.B) {
	const writers = 128
	s, ids := benchStore(b, false)
	// What stands in the store for one of these connections.
	value := make([]byte, 2100)
	db, err := badger.Open(badgerstore.Options(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	var grouped, single, ratio []float64
	for b.Loop() {
		g := writeAll(b, writers, 32, func(i int) error {
			_, err := s.UpdateConnection(context.Background(), ids[i], func(*tokenstore.Connection) error { return nil })
			return err
		})
		one := writeAll(b, writers, 4, func(i int) error {
			return db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(ids[i]), value) })
		})
		grouped, single, ratio = append(grouped, g), append(single, one), append(ratio, g/one)
	}
	for unit, all := range map[string][]float64{"grouped/s": grouped, "single/s": single, "grouped/single": ratio} {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
	b.ReportMetric(0, "ns/op") // of both together: says nothing
}

// BenchmarkDurableWrites measures acknowledged writes of 3 KB records with the
// mark and without syncing that: the ratio is what the mark costs.
func BenchmarkDurableWrites(b *testing.B) {
	for _, writers := range []int{1, 128, 256} {
		for _, mark := range []bool{true, false} {
			b.Run(fmt.Sprintf("writers=%d/mark=%t", writers, mark), func(b *testing.B) {
				s, err := badgerstore.Open(b.TempDir(), badgerstore.Config{Codec: newKeys(b)})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				if !mark {
					if err := s.MoveMark("/dev/shm/mark"); err != nil {
						b.Skip("there is no file system in memory: ", err)
					}
					defer os.Remove("/dev/shm/mark")
				}
				name := strings.Repeat("n", 3000)
				var wg sync.WaitGroup
				work := make(chan struct{})
				for range writers {
					c, err := s.CreateConnection(b.Context(), tokenstore.Connection{ID: tokenstore.NewID(), Name: name})
					if err != nil {
						b.Fatal(err)
					}
					wg.Go(func() {
						for range work {
							_, err := s.UpdateConnection(b.Context(), c.ID, func(*tokenstore.Connection) error { return nil })
							if err != nil {
								b.Error(err)
							}
						}
					})
				}
				for b.Loop() {
					work <- struct{}{}
				}
				close(work)
				wg.Wait()
			})
		}
	}
}
