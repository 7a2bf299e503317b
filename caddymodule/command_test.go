package caddymodule_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/caddymodule"
)

var listed = []string{
	`{"id":"conn_1","integration":"github","user_id":"u1","status":"ACTIVE"}`,
	`{"id":"conn_2","integration":"github","user_id":"u2","status":"ACTIVE","status_reason":"invalid_grant"}`,
	`{"id":"conn_3","integration":"a-very-long-name-of-an-integration","user_id":"a user with a long name","status":"EXPIRED","status_reason":"no_refresh_token"}`,
	`{"id":"conn_4","integration":"x","user_id":"\u001b[2J\u202evil","status":"INITIATED"}`,
	`{"id":"conn_5","integration":"x","user_id":"u","status":"FAILED","status_reason":"timeout"}`,
	`{"id":"conn_6","integration":"x","user_id":"u","status":"REVOKED","status_reason":"revoked"}`,
	`{"id":"conn_7","integration":"x","user_id":"u","status":"ACTIVE","disabled":true}`,
	`{"id":"conn_8","error":"store_corrupt"}`,
}

// A shape and a word say what a color says, and nothing of an app's or a
// provider's can steer the terminal.
func TestListWithoutATerminal(t *testing.T) {
	var out strings.Builder
	if err := caddymodule.PrintList(&out, 0, false, listed...); err != nil {
		t.Fatal(err)
	}
	want := `
CONNECTION  INTEGRATION                         USER                     STATUS                      EXPIRES  LAST REFRESH
conn_1      github                              u1                       ● ACTIVE                    –        –
conn_2      github                              u2                       ◆ ACTIVE invalid_grant      –        –
conn_3      a-very-long-name-of-an-integration  a user with a long name  ■ EXPIRED no_refresh_token  –        –
conn_4      x                                   �[2J�vil                 ○ INITIATED                 –        –
conn_5      x                                   u                        ◆ FAILED timeout            –        –
conn_6      x                                   u                        ○ REVOKED                   –        –
conn_7      x                                   u                        ○ ACTIVE disabled           –        –
conn_8      –                                   –                        ■ damaged store_corrupt     –        –
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestListOnANarrowTerminal(t *testing.T) {
	var out strings.Builder
	if err := caddymodule.PrintList(&out, 80, false, listed...); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d wide: %s", n, line)
		}
	}
	if text := out.String(); !strings.Contains(text, "conn_3 ") || !strings.Contains(text, "a-very-") || !strings.Contains(text, "…") {
		t.Error(text)
	}
}

func TestListInColor(t *testing.T) {
	ends := time.Now().Add(52*time.Minute + 10*time.Second).UTC().Format(time.RFC3339)
	before := time.Now().Add(-75 * time.Hour).UTC().Format(time.RFC3339)
	var out strings.Builder
	err := caddymodule.PrintList(&out, 200, true, `{"id":"conn_1","status":"ACTIVE","access_token_expires_at":"`+ends+`","last_refreshed_at":"`+before+`"}`)
	if err != nil || !strings.Contains(out.String(), "\x1b[32m● ACTIVE\x1b[0m  in 52 min  3 d ago\n") {
		t.Errorf("%v: %q", err, out.String())
	}
}
