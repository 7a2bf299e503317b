package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
)

var challenges = map[string]bool{
	`Bearer error="insufficient_scope"`:                                     true,
	`Bearer realm="a, b", error="insufficient_scope", scope="x y"`:          true,
	`bearer error=insufficient_scope`:                                       true,
	`Bearer ERROR = "insufficient_scope"`:                                   true,
	`Basic realm="x", Bearer error="insufficient_scope"`:                    true,
	`Negotiate abc==, Bearer error="insufficient\_scope"`:                   true,
	`Bearer error="invalid_token"`:                                          false,
	`Bearer error="invalid_token", error_description="insufficient_scope"`:  false,
	`Bearer realm="error=insufficient_scope"`:                               false,
	`Bearer realm="\", error=\"insufficient_scope"`:                         false,
	`Bearer realm="error=\"insufficient_scope\"", error="invalid_token"`:    false,
	`Bearer x_error="insufficient_scope"`:                                   false,
	`Bearer`:                                                                false,
	``:                                                                      false,
	`Bearer error="insufficient_scop`:                                       false,
	`"error"=insufficient_scope`:                                            false,
	`Bearer realm="unfinished, error=insufficient_scope, more insufficient`: false,
}

func TestInsufficientScope(t *testing.T) {
	for value, want := range challenges {
		if got := proxy.InsufficientScope(http.Header{"Www-Authenticate": {`Basic realm="x"`, value}}); got != want {
			t.Errorf("InsufficientScope(%s) = %v, want %v", value, got, want)
		}
	}
}

func FuzzInsufficientScope(f *testing.F) {
	for value := range challenges {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		found := proxy.InsufficientScope(http.Header{"Www-Authenticate": {value}})
		plain := strings.ReplaceAll(value, `\`, "")
		said := strings.Contains(plain, "insufficient_scope") && strings.Contains(strings.ToLower(plain), "error")
		if found && !said {
			t.Errorf("found insufficient_scope in %q", value)
		}
	})
}
