package badgerstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// TestRekeyOfLargeRecords: records that don't fit into one transaction together.
func TestRekeyOfLargeRecords(t *testing.T) {
	r, dir := newRotation(t), t.TempDir()
	s := open(t, dir, r.before)
	for i := range 4 {
		create(t, s, tokenstore.Connection{ID: fmt.Sprintf("a%d", i), Name: strings.Repeat("x", 62<<10)})
	}
	create(t, s, tokenstore.Connection{ID: "b", Name: strings.Repeat("x", 1_040_000)})
	if err := s.SetCodec(r.both); err != nil {
		t.Fatal(err)
	}
	if err := s.BeginRekey(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Rekey(ctx, nothing); err != nil {
		t.Errorf("Rekey = %.300v", err)
	}
}

// looked calls do when so many records have been found that a key sealed.
type looked struct {
	tokenstore.Codec
	key uint32
	at  int // 0: never
	do  func()
}

func (l *looked) KeyOf(sealed []byte) (uint32, bool) {
	id, ok := l.Codec.KeyOf(sealed)
	if id == l.key && l.at > 0 {
		if l.at--; l.at == 0 {
			l.do()
		}
	}
	return id, ok
}

// withPrimary returns a keyset with another primary key.
func withPrimary(t *testing.T, text []byte, id uint32) *seal.Keyset {
	t.Helper()
	var keyset map[string]any
	err := json.Unmarshal(text, &keyset)
	if err == nil {
		keyset["primaryKeyId"] = id
		text, err = json.Marshal(keyset)
	}
	if err != nil {
		t.Fatal(err)
	}
	ks, err := seal.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// TestKeysetChangesDuringARekey: it begins again, and forgets no key by which
// something was sealed in between.
func TestKeysetChangesDuringARekey(t *testing.T) {
	for _, tc := range []struct {
		name string
		old  bool // at a record under the old key, else under the new
		at   int
		back bool // the keyset is the one from before at the end
	}{
		{"at the first record", true, 1, false},
		{"at the last, and back", false, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text, err := seal.Generate()
			var texts [3][]byte
			var sets [3]*seal.Keyset
			for i := range texts {
				if texts[i] = text; err == nil {
					sets[i], err = seal.Parse(text)
				}
				if err == nil {
					text, err = seal.AddPrimary(text)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			second := sets[1].Keys()[0]
			dir := t.TempDir()
			s := open(t, dir, sets[0])
			for _, id := range []string{"a", "b"} {
				c := live("u")
				c.ID = id
				create(t, s, c)
			}
			codec := &looked{Codec: sets[1], key: second, do: func() {
				err := s.SetCodec(sets[2])
				if err == nil && tc.back {
					if err = rename(t, s, "a")(); err == nil {
						err = s.SetCodec(withPrimary(t, texts[2], second))
					}
				}
				if err != nil {
					t.Error(err)
				}
			}}
			if tc.old {
				codec.key = sets[0].Keys()[0]
			}
			if err := s.SetCodec(codec); err != nil {
				t.Fatal(err)
			}
			if err := s.BeginRekey(); err != nil {
				t.Fatal(err)
			}
			codec.at = tc.at
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := s.Rekey(ctx, nothing); err != nil {
				t.Fatalf("Rekey = %v", err)
			}
			last := lastPrimary(t, texts, tc.back)
			if err := s.SetCodec(last); err != nil {
				t.Fatalf("SetCodec with the primary key alone = %v", err)
			}
			for _, id := range []string{"a", "b"} {
				if _, err := s.Connection(t.Context(), id); err != nil {
					t.Errorf("Connection %s = %v", id, err)
				}
			}
		})
	}
}

// lastPrimary returns a keyset with the key alone that is the primary one at the
// end.
func lastPrimary(t *testing.T, texts [3][]byte, second bool) *seal.Keyset {
	t.Helper()
	text := texts[2]
	if second {
		text = texts[1]
	}
	text, err := seal.DropOld(text)
	if err != nil {
		t.Fatal(err)
	}
	ks, err := seal.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// TestRekeySaysWhy: what keeps it from getting on is part of its progress until
// it does.
func TestRekeySaysWhy(t *testing.T) {
	keys := newRotation(t)
	s := open(t, filled(t, keys.before), keys.both)
	if err := s.BeginRekey(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rekey(t.Context(), func() error { return errors.New("the keyset's file can't be written") }); err == nil {
		t.Fatal("Rekey succeeded")
	}
	if p := s.RekeyProgress(); p.State != "running" || !strings.Contains(p.Error, "can't be written") {
		t.Errorf("progress = %+v", p)
	}
	if err := s.Rekey(t.Context(), nothing); err != nil {
		t.Fatal(err)
	}
	if p := s.RekeyProgress(); p.State != "done" || p.Error != "" {
		t.Errorf("progress = %+v", p)
	}
}
