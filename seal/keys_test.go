package seal_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func parse(t *testing.T, text []byte) *seal.Keyset {
	t.Helper()
	ks, err := seal.Parse(text)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	return ks
}

// TestKeyRotation goes the whole way of a key: a new one is added, what the old
// one sealed is sealed again, the old one is dropped.
func TestKeyRotation(t *testing.T) {
	text, old := generate(t)
	sealed, err := old.SealBytes([]byte("secret"), ad)
	if err != nil {
		t.Fatal(err)
	}
	added, err := seal.AddPrimary(text)
	if err != nil {
		t.Fatalf("AddPrimary = %v", err)
	}
	both := parse(t, added)
	if len(both.Keys()) != 2 || both.Keys()[1] != old.Keys()[0] || both.Keys()[0] == old.Keys()[0] {
		t.Fatalf("Keys() = %v after AddPrimary to %v, want a new one before it", both.Keys(), old.Keys())
	}
	again, err := both.Reseal(sealed, ad)
	if err != nil {
		t.Fatalf("Reseal = %v", err)
	}
	for _, tt := range []struct {
		what   string
		sealed []byte
		want   uint32
	}{{"sealed by the old key", sealed, both.Keys()[1]}, {"sealed again", again, both.Keys()[0]}} {
		if id, ok := both.KeyOf(tt.sealed); !ok || id != tt.want {
			t.Errorf("KeyOf(%s) = %d, %v; want %d", tt.what, id, ok, tt.want)
		}
		if plain, err := both.OpenBytes(tt.sealed, ad); err != nil || string(plain) != "secret" {
			t.Errorf("OpenBytes(%s) = %q, %v", tt.what, plain, err)
		}
	}
	if _, err := both.Reseal(sealed, []byte("elsewhere")); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("Reseal under other associated data = %v, want ErrCorrupt", err)
	}

	dropped, err := seal.DropOld(added)
	if err != nil {
		t.Fatalf("DropOld = %v", err)
	}
	alone := parse(t, dropped)
	if !slices.Equal(alone.Keys(), both.Keys()[:1]) {
		t.Errorf("Keys() = %v after DropOld, want %v", alone.Keys(), both.Keys()[:1])
	}
	if _, err := alone.OpenBytes(sealed, ad); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("OpenBytes without the key = %v, want ErrCorrupt", err)
	}
	if _, err := alone.OpenBytes(again, ad); err != nil {
		t.Errorf("OpenBytes of what was sealed again = %v", err)
	}
	if _, err := old.OpenBytes(again, ad); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("the old key opens what was sealed again: %v", err)
	}
}

// TestNextKey: programs that share a store open what another seals at each step.
func TestNextKey(t *testing.T) {
	text, first := generate(t)
	if _, err := seal.Promote(text); err == nil {
		t.Error("Promote of a keyset with one key succeeded")
	}
	next, err := seal.AddNext(text)
	if err != nil {
		t.Fatalf("AddNext = %v", err)
	}
	both := parse(t, next)
	if len(both.Keys()) != 2 || both.Keys()[0] != first.Keys()[0] {
		t.Fatalf("Keys() = %v after AddNext to %v, want that first and a new one", both.Keys(), first.Keys())
	}
	promoted, err := seal.Promote(next)
	if err != nil {
		t.Fatalf("Promote = %v", err)
	}
	turned := parse(t, promoted)
	if !slices.Equal(turned.Keys(), []uint32{both.Keys()[1], both.Keys()[0]}) {
		t.Errorf("Keys() = %v after Promote of %v", turned.Keys(), both.Keys())
	}
	if _, err := seal.Promote(promoted); err == nil {
		t.Error("a second Promote succeeded")
	}
	for _, step := range []struct {
		what string
		a, b *seal.Keyset
	}{{"the first and the next", first, both}, {"the next and the promoted", both, turned}} {
		for _, way := range [][2]*seal.Keyset{{step.a, step.b}, {step.b, step.a}} {
			sealed, err := way[0].SealBytes([]byte("secret"), ad)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := way[1].OpenBytes(sealed, ad); err != nil {
				t.Errorf("%s don't open what the other seals: %v", step.what, err)
			}
		}
	}
}

func TestKeyOfForeignBytes(t *testing.T) {
	_, ks := generate(t)
	for _, sealed := range [][]byte{nil, {1, 2, 3, 4}, []byte("plain text"), bytes.Repeat([]byte{0}, 40)} {
		if id, ok := ks.KeyOf(sealed); ok {
			t.Errorf("KeyOf(%q) = %d", sealed, id)
		}
	}
}

func TestChangesRefuseWhatParseRefuses(t *testing.T) {
	for _, text := range []string{"", "{}", "torn"} {
		if _, err := seal.AddPrimary([]byte(text)); err == nil {
			t.Errorf("AddPrimary(%q) succeeded", text)
		}
		if _, err := seal.DropOld([]byte(text)); err == nil {
			t.Errorf("DropOld(%q) succeeded", text)
		}
	}
}

// A key whose sealed bytes don't name it could not be rotated.
func TestKeyWithoutPrefixIsRefused(t *testing.T) {
	handle, err := keyset.NewHandle(aead.AES256GCMNoPrefixKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Parse(text.Bytes()); err == nil || !strings.Contains(err.Error(), "prefix") {
		t.Errorf("Parse of a key without a prefix = %v, want an error", err)
	}
}
