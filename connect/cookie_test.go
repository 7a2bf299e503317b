package connect_test

import (
	"fmt"
	"testing"
)

// TestCookiesOfOthers: too many flows take away no cookie but those of flows.
func TestCookiesOfOthers(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	const prefix = "__Host-lanyard-"
	br.jar[prefix+"dashboard"], br.jar[prefix+"forms"] = "seed", "forms" // made first, so sent first
	for i := range 20 {
		br.jar[prefix+fmt.Sprintf("z%015d", i)] = "flow"
	}
	br.get(b.link())
	if br.jar[prefix+"dashboard"] == "" || br.jar[prefix+"forms"] == "" || len(br.jar) != 22 {
		t.Errorf("left are %v", br.jar)
	}
}
