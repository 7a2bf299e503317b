package seal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func newKeyset(f *testing.F) (text []byte, ks *seal.Keyset) {
	f.Helper()
	text, err := seal.Generate()
	if err == nil {
		ks, err = seal.Parse(text)
	}
	if err != nil {
		f.Fatal(err)
	}
	return text, ks
}

// fuzzOpen opens made-up bytes, and sealed ones that were edited: nothing opens
// but what was sealed.
func fuzzOpen(f *testing.F, ks *seal.Keyset, sealed []byte, sealErr error, open func([]byte) error) {
	f.Helper()
	if err := errors.Join(sealErr, open(sealed)); err != nil {
		f.Fatal(err)
	}
	key, _ := ks.KeyOf(sealed)
	f.Add([]byte{}, uint(0), byte(1))
	f.Add([]byte{1, byte(key >> 24), byte(key >> 16), byte(key >> 8), byte(key)}, uint(5), byte(0))
	f.Add(bytes.Repeat([]byte{1}, 64), uint(17), byte(128))
	f.Fuzz(func(t *testing.T, in []byte, at uint, flip byte) {
		i := int(at % uint(len(sealed)))
		flipped := bytes.Clone(sealed)
		flipped[i] ^= flip
		spliced := slices.Concat(sealed[:i], in)
		for _, made := range [][]byte{in, flipped, flipped[:i], spliced, slices.Concat(in, sealed), slices.Concat(sealed, in)} {
			if err := open(made); !bytes.Equal(made, sealed) && !errors.Is(err, tokenstore.ErrCorrupt) {
				t.Errorf("opening edited bytes = %v, want ErrCorrupt", err)
			}
		}
	})
}

func FuzzOpenConnection(f *testing.F) {
	_, ks := newKeyset(f)
	c := storetest.FullConnection()
	sealed, err := ks.SealConnection(&c, ad)
	fuzzOpen(f, ks, sealed, err, func(b []byte) error { _, err := ks.OpenConnection(b, ad); return err })
}

func FuzzOpenFlow(f *testing.F) {
	_, ks := newKeyset(f)
	flow := storetest.FullFlow()
	sealed, err := ks.SealFlow(&flow, ad)
	fuzzOpen(f, ks, sealed, err, func(b []byte) error { _, err := ks.OpenFlow(b, ad); return err })
}

func FuzzOpenEvent(f *testing.F) {
	_, ks := newKeyset(f)
	e := storetest.FullEvent()
	sealed, err := ks.SealEvent(&e, ad)
	fuzzOpen(f, ks, sealed, err, func(b []byte) error { _, err := ks.OpenEvent(b, ad); return err })
}

func FuzzOpenNote(f *testing.F) {
	_, ks := newKeyset(f)
	n := storetest.FullNote()
	sealed, err := ks.SealNote(&n, ad)
	fuzzOpen(f, ks, sealed, err, func(b []byte) error { _, err := ks.OpenNote(b, ad); return err })
}

func FuzzOpenBytes(f *testing.F) {
	_, ks := newKeyset(f)
	sealed, err := ks.SealBytes([]byte("an engine's secret"), ad)
	fuzzOpen(f, ks, sealed, err, func(b []byte) error { _, err := ks.OpenBytes(b, ad); return err })
}

// FuzzRecord opens what is well sealed and has any text inside: it is refused, or
// is a record that comes back as it is when it is sealed again.
func FuzzRecord(f *testing.F) {
	text, ks := newKeyset(f)
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		f.Fatal(err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		f.Fatal(err)
	}
	inside := func(sealed []byte, err error) {
		f.Helper()
		plain, openErr := primitive.Decrypt(sealed, ad)
		if err := errors.Join(err, openErr); err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	c, flow, e, n := storetest.FullConnection(), storetest.FullFlow(), storetest.FullEvent(), storetest.FullNote()
	inside(ks.SealConnection(&c, ad))
	inside(ks.SealFlow(&flow, ad))
	inside(ks.SealEvent(&e, ad))
	inside(ks.SealNote(&n, ad))
	f.Add([]byte("\x01{}"))
	f.Add([]byte(`` + "\x01" + `{"created_at":"9999-12-31T23:59:59-23:59","token":{"access_token":null},"intent":{"answer":{}}}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		sealed, err := primitive.Encrypt(plain, ad)
		if err != nil {
			t.Fatal(err)
		}
		again(t, ks.OpenConnection, ks.SealConnection, sealed)
		again(t, ks.OpenFlow, ks.SealFlow, sealed)
		again(t, ks.OpenEvent, ks.SealEvent, sealed)
		again(t, ks.OpenNote, ks.SealNote, sealed)
	})
}

func again[T any](t *testing.T, open func(sealed, ad []byte) (T, error), seal func(*T, []byte) ([]byte, error), sealed []byte) {
	t.Helper()
	first, err := open(sealed, ad)
	if err != nil {
		if !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("open = %v, want ErrCorrupt", err)
		}
		return
	}
	sealed, err = seal(&first, ad)
	if _, ok := errors.AsType[*json.MarshalerError](err); ok {
		return // a time beyond the year 9999
	}
	second, openErr := open(sealed, ad)
	if err := errors.Join(err, openErr); err != nil {
		t.Fatalf("a record that was opened can't be sealed again: %v", err)
	}
	if !cmp.Equal(first, second) {
		t.Errorf("a record came back changed: %s", cmp.Diff(first, second))
	}
}
