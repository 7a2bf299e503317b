package fidelity_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// faultsFile holds how the peers fail the rows that are marked: a mark is true of
// that fault alone. A line is the peer, the row and the fault, with tabs between.
const faultsFile = "testdata/faults.txt"

var addFaults = flag.Bool("faults", false, "add to "+faultsFile+" how the peers fail the rows that are marked")

var (
	faultsMu sync.Mutex
	faults   = sync.OnceValue(func() map[string]bool { // guarded by faultsMu
		all := map[string]bool{}
		b, _ := os.ReadFile(faultsFile)
		for line := range strings.Lines(string(b)) {
			all[strings.TrimSuffix(line, "\n")] = true
		}
		return all
	})
)

var variable = regexp.MustCompile(`[0-9]+(\.[0-9]+)?(ms|s)?|(read|write) tcp [^:]*:|\b(EOF|unexpected EOF|connection reset by peer|broken pipe)\b`)

// faultOf is what is the same each time that a row fails in the same way.
func faultOf(proxy, row string, err error) string {
	said := variable.ReplaceAllStringFunc(strings.ReplaceAll(err.Error(), "\n", " "), func(s string) string {
		switch s[0] {
		case 'r', 'w':
			return ""
		case 'E', 'u', 'c', 'b':
			return "an end"
		}
		return "N"
	})
	return proxy + "\t" + row + "\t" + said[:min(90, len(said))]
}

// known reports whether a peer fails a row as it did when that was marked.
func known(proxy, row string, err error) bool {
	faultsMu.Lock()
	defer faultsMu.Unlock()
	fault := faultOf(proxy, row, err)
	if *addFaults {
		faults()[fault] = true
	}
	return faults()[fault]
}

func writeFaults() error {
	if !*addFaults {
		return nil
	}
	faultsMu.Lock()
	defer faultsMu.Unlock()
	return os.WriteFile(faultsFile, []byte(strings.Join(slices.Sorted(maps.Keys(faults())), "\n")+"\n"), 0o600)
}

// TestFaultsAreOfMarks: each fault that is known is one of a mark, and each mark
// has one.
func TestFaultsAreOfMarks(t *testing.T) {
	faultsMu.Lock()
	defer faultsMu.Unlock()
	marked := map[string]bool{} // :: peer and row → a fault is known
	for _, g := range groups() {
		for _, r := range g.rows {
			for proxy := range r.fails {
				marked[proxy+"\t"+r.name] = false
			}
		}
	}
	for fault := range faults() {
		of := fault[:max(0, strings.LastIndex(fault, "\t"))]
		if _, ok := marked[of]; !ok {
			t.Errorf("%s: a fault of what is not marked: %s", faultsFile, fault)
		}
		marked[of] = true
	}
	for of, has := range marked {
		if !has {
			t.Errorf("%s: no fault of what is marked: %s", faultsFile, fmt.Sprintf("%q", of))
		}
	}
}
