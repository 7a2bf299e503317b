package seal_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
)

// fill sets about a share of what is in v, at random.
func fill(r *rand.Rand, v reflect.Value, share float64) {
	if v.Kind() != reflect.Struct && r.Float64() >= share {
		return
	}
	texts := []string{"", "plain", `"quoted" \ and <tagged> & more`, "naïve \u2028 ✓ \ufffd", "\xff no UTF-8", "\x00\n\t", "{[,:]}"}
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		if r.Float64() < share {
			*p = time.Unix(r.Int64N(4e9), r.Int64N(1e9)).UTC()
		}
		return
	case *[]byte:
		*p = make([]byte, r.IntN(40))
		for i := range *p {
			(*p)[i] = byte(r.Int())
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(r, field, share)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), share)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		for i := range v.Len() {
			fill(r, v.Index(i), share)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			v.SetMapIndex(reflect.ValueOf(texts[r.IntN(len(texts))]), reflect.ValueOf(texts[r.IntN(len(texts))]))
		}
	case reflect.String:
		v.SetString(texts[r.IntN(len(texts))])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64() - r.Int64())
	case reflect.Uint64:
		v.SetUint(r.Uint64())
	default:
		panic("no value for " + v.Type().String())
	}
}

// TestMembers: the structs that list their members are written and read as
// encoding/json does it, whatever is in them. A member that is not listed, or not
// in its place, fails it.
func TestMembers(t *testing.T) {
	for _, listed := range seal.Listed {
		t.Run(listed.Name(), func(t *testing.T) {
			for seed := range uint64(1000) {
				w := reflect.New(listed)
				fill(rand.New(rand.NewPCG(seed, 1)), w.Elem(), float64(seed%11)/10)
				if err := seal.CompareMembers(w.Interface()); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

// TestUnknownMember: what a later release writes is read all the same.
func TestUnknownMember(t *testing.T) {
	c, err := openText(t, `{"id":"conn_1","integration":"github","later":[1,{"a":null}],"status":"ACTIVE", "revision":7}`)
	if err != nil || c.ID != "conn_1" || c.Status != "ACTIVE" || c.Revision != 7 {
		t.Errorf("OpenConnection = %+v, %v", c, err)
	}
}
