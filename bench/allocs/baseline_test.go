package main

import (
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someBaseline = `# What is compared

./proxy BenchmarkCall 40
./tokenstore/badgerstore BenchmarkConnection/table 100 ±5%
./tokenstore/badgerstore BenchmarkUserPage 100 ±5%
./seal BenchmarkParse ?
`

func TestBaseline(t *testing.T) {
	base, err := parseBaseline(someBaseline)
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{name{"./proxy", "BenchmarkCall"}, 40, 0},
		{name{"./tokenstore/badgerstore", "BenchmarkConnection/table"}, 100, 5},
		{name{"./tokenstore/badgerstore", "BenchmarkUserPage"}, 100, 5},
		{name{"./seal", "BenchmarkParse"}, -1, 0},
	}
	if diff := cmp.Diff(want, base.entries(), cmp.AllowUnexported(entry{}, name{})); diff != "" {
		t.Errorf("parseBaseline (-want +got):\n%s", diff)
	}
	counts := map[name]int{want[0].name: 41, want[1].name: 90, want[2].name: 96, want[3].name: 0, {"./api", "BenchmarkOther"}: 7}
	text := base.with(counts)
	if want := strings.NewReplacer("40", "41", "table 100", "table 90", "?", "0").Replace(someBaseline); text != want {
		t.Errorf("with = %s\nwant %s", text, want)
	}
	if missing := base.missing(map[name]int{want[0].name: 1}); len(missing) != 3 || missing[2] != "./seal BenchmarkParse" {
		t.Errorf("missing = %q", missing)
	}
}

func TestBadBaseline(t *testing.T) {
	for _, text := range []string{
		"",
		"# nothing",
		"./proxy BenchmarkCall",
		"./proxy BenchmarkCall 4 ±5% 6",
		"proxy BenchmarkCall 4",
		"./proxy Call 4",
		"./proxy BenchmarkCall four",
		"./proxy BenchmarkCall -4",
		"./proxy BenchmarkCall 4 5%",
		"./proxy BenchmarkCall 4 ±5",
		"./proxy BenchmarkCall 4 ±%",
		"./proxy BenchmarkCall 4\n./proxy BenchmarkCall 4",
	} {
		if b, err := parseBaseline(text); err == nil {
			t.Errorf("parseBaseline(%q) = %v, want an error", text, b.entries())
		}
	}
}

func TestParseBenchmarks(t *testing.T) {
	const printed = `goos: linux
pkg: github.com/lanyard-proxy/lanyard/proxy
cpu: Some CPU
BenchmarkCall                	     500	      4116 ns/op	    1904 B/op	      43 allocs/op
BenchmarkCall                	     500	      4100 ns/op	    1900 B/op	      41 allocs/op
BenchmarkCall                	     500	      4200 ns/op	    1905 B/op	      42 allocs/op
BenchmarkStream/small        	     500	      4200 ns/op	  17.50 MB/s	    1905 B/op	       0 allocs/op
BenchmarkSkipped             	--- SKIP: BenchmarkSkipped
    bench_test.go:7: 5 allocs/op
PASS
ok  	github.com/lanyard-proxy/lanyard/proxy	0.052s
pkg: github.com/lanyard-proxy/lanyard/tokenstore/badgerstore
BenchmarkCall 500 1 ns/op 7 B/op 9 allocs/op
`
	got, err := parseBenchmarks(printed)
	want := map[name]int{
		{"./proxy", "BenchmarkCall"}:                  41,
		{"./proxy", "BenchmarkStream/small"}:          0,
		{"./tokenstore/badgerstore", "BenchmarkCall"}: 9,
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("parseBenchmarks = %v, %v; want %v", got, err, want)
	}
}

func TestCompare(t *testing.T) {
	call := name{"./proxy", "BenchmarkCall"}
	for what, c := range map[string]struct {
		line string
		now  int
		says string // in the table
		err  string // in the advice; empty: none
	}{
		"the same":              {"./proxy BenchmarkCall 40", 40, "40", ""},
		"one more":              {"./proxy BenchmarkCall 40", 41, "WORSE", "allocates more"},
		"one where none was":    {"./proxy BenchmarkCall 0", 1, "WORSE", "allocates more"},
		"none, as before":       {"./proxy BenchmarkCall 0", 0, "0", ""},
		"within tolerance":      {"./proxy BenchmarkCall 40 ±5%", 42, "42", ""},
		"beyond tolerance":      {"./proxy BenchmarkCall 40 ±5%", 43, "WORSE", "allocates more"},
		"a little better":       {"./proxy BenchmarkCall 40", 36, "a little better", ""},
		"much better":           {"./proxy BenchmarkCall 40", 35, "BETTER", "-w"},
		"better, but that wide": {"./proxy BenchmarkCall 40 ±20%", 33, "33", ""},
		"none where few were":   {"./proxy BenchmarkCall 1", 0, "BETTER", "-w"},
		"not counted before":    {"./proxy BenchmarkCall ?", 40, "NEW", "-w"},
		"gone":                  {"./proxy BenchmarkOther 40", 40, "GONE", "take its line out"},
	} {
		t.Run(what, func(t *testing.T) {
			base, err := parseBaseline(c.line)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err = compare(&out, base, map[name]int{call: c.now})
			if !strings.Contains(out.String(), c.says) {
				t.Errorf("compare prints\n%s\nwant %q in it", out.String(), c.says)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("compare = %v, want %q", err, c.err)
			}
		})
	}
}

// TestKeptBaseline: what is kept can be read, and is as -w writes it.
func TestKeptBaseline(t *testing.T) {
	text := readKept(t)
	base, err := parseBaseline(text)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[name]int{}
	for _, e := range base.entries() {
		if e.allocs < 0 {
			t.Errorf("%s has no count", e.name)
		}
		counts[e.name] = e.allocs
	}
	if diff := cmp.Diff(base.with(counts), text); diff != "" {
		t.Errorf("%s is written otherwise (-want +got):\n%s", baselinePath, diff)
	}
}

func readKept(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../allocs.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
