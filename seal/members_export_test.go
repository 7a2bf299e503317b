package seal

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Listed are the structs of the stored format that list their members.
var Listed = []reflect.Type{reflect.TypeFor[connectionWire](), reflect.TypeFor[eventWire]()}

// CompareMembers checks that w, which points to a Listed struct, is written as
// encoding/json writes it, and that this is read as it reads it.
func CompareMembers(w any) error {
	want, err := json.Marshal(w)
	if err != nil {
		return err
	}
	got, ok := appendMembers(nil, w.(lister))
	if !ok || string(got) != string(want) {
		return fmt.Errorf("written (%t) as\n%s\nwant\n%s", ok, got, want)
	}
	back, wanted := reflect.New(reflect.TypeOf(w).Elem()), reflect.New(reflect.TypeOf(w).Elem())
	if err := json.Unmarshal(want, wanted.Interface()); err != nil {
		return err
	}
	if !readMembers(want, back.Interface().(lister)) || !reflect.DeepEqual(back.Interface(), wanted.Interface()) {
		return fmt.Errorf("read as\n%+v\nwant\n%+v\nof\n%s", back.Elem(), wanted.Elem(), want)
	}
	return nil
}
