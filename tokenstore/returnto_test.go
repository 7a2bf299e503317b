package tokenstore_test

import (
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestReturnTo(t *testing.T) {
	for _, tt := range []struct {
		name, last string
		registered []string
		want       string
	}{
		{"where it led last", "https://b", []string{"https://a", "https://b"}, "https://b"},
		{"that is registered no more", "https://c", []string{"https://a", "https://b"}, "https://a"},
		{"it led nowhere yet", "", []string{"https://a"}, "https://a"},
		{"none is registered", "https://c", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tokenstore.Connection{RedirectURL: tt.last}
			if got := c.ReturnTo(tt.registered); got != tt.want {
				t.Errorf("ReturnTo(%v) = %q, want %q", tt.registered, got, tt.want)
			}
		})
	}
}
