package storetest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Canary is in every text and every credential of the full records.
const Canary = "canary"

// FullConnection returns a connection in which every field that is there, at
// any depth, is set and different: a field that is added to tokenstore and
// forgotten by a codec shows when this record is read back.
func FullConnection() tokenstore.Connection {
	var c tokenstore.Connection
	new(filler).fill(reflect.ValueOf(&c).Elem(), "connection")
	c.ID = tokenstore.NewID()
	// No codec knows them: the one is how a list shows what none can open, the
	// other is written into the audit log.
	c.Damaged, c.News = false, nil
	return c
}

// FullFlow returns a flow in which every field is set, as FullConnection does.
// It is kept for some time yet.
func FullFlow() tokenstore.Flow {
	var f tokenstore.Flow
	new(filler).fill(reflect.ValueOf(&f).Elem(), "flow")
	f.ExpiresAt = time.Now().Add(time.Hour).UTC()
	f.News = nil
	return f
}

// FullEvent returns an event in which every field is set, as FullConnection does.
func FullEvent() tokenstore.Event {
	var e tokenstore.Event
	new(filler).fill(reflect.ValueOf(&e).Elem(), "event")
	return e
}

// FullNote returns a note in which every field is set, as FullConnection does. It
// is kept for some time yet.
func FullNote() tokenstore.Note {
	var n tokenstore.Note
	new(filler).fill(reflect.ValueOf(&n).Elem(), "note")
	n.KeepUntil = time.Now().Add(time.Hour).UTC()
	return n
}

type filler struct{ n int }

func (f *filler) fill(v reflect.Value, path string) {
	f.n++
	text := fmt.Sprintf("%s %s %d", Canary, path, f.n)
	switch v.Interface().(type) {
	case time.Time:
		// Before 2026 and with nanoseconds, so that nothing is cut off.
		v.Set(reflect.ValueOf(time.Date(2025, 1, 1, 0, 0, f.n, f.n, time.UTC)))
		return
	case secret.String:
		// Not UTF-8 at its end: credentials are bytes.
		v.Set(reflect.ValueOf(secret.New(text + " \xff")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint64:
		v.SetUint(1<<63 + uint64(f.n)) //nolint:gosec // counts fields
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(v.Index(0), path)
		f.fill(v.Index(1), path)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, path)
		f.fill(value, path)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), path)
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	default:
		panic("storetest: " + path + " has a type that fill doesn't know: " + v.Type().String())
	}
}
