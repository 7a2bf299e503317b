package nearest_test

import (
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/nearest"
)

func TestWord(t *testing.T) {
	names := []string{"client_id", "client_secret", "scopes"}
	for name, want := range map[string]string{
		"client_idd": "client_id", "clientid": "client_id", "clint_id": "client_id", "scope": "scopes", "client_id": "client_id",
		"x": "", "": "", "review": "", "secret": "",
	} {
		if got := nearest.Word(name, names); got != want {
			t.Errorf("Word(%q) = %q, want %q", name, got, want)
		}
	}
}
