package revoke_test

import (
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Two users of the app have connected one shared account: the grant is both's.
func TestAnotherUserWithTheSameAccount(t *testing.T) {
	for _, tt := range []struct {
		name, mine, theirs, want string
	}{
		{"the same account", "1", "1", ""},
		{"another", "1", "2", "at-a"},
		{"mine unknown", "", "1", "at-a"},
		{"theirs unknown", "1", "", "at-a"},
	} {
		b := newBench(t)
		c := b.put(active("a"), account(tt.mine))
		b.put(active("b"), account(tt.theirs), user("u2"))
		if _, _, err := b.Revoke(t.Context(), c.ID, tokenstore.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got := b.provider.ledger(); got != tt.want {
			t.Errorf("%s: asked to revoke %q; want %q", tt.name, got, tt.want)
		}
	}
}
