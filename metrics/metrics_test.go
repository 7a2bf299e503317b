package metrics_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/metrics"
)

func TestCounts(t *testing.T) {
	c := metrics.NewCounts("a", "b")
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			c.Add("a")
			c.Add(fmt.Sprint("made up ", i))
		})
	}
	all.Wait()
	if diff := cmp.Diff(map[string]uint64{"a": 1000, "b": 0, metrics.Other: 1000}, maps.Collect(c.All())); diff != "" {
		t.Error(diff)
	}
}

func TestHistogram(t *testing.T) {
	h := metrics.NewHistogram(time.Millisecond, time.Second)
	for _, d := range []time.Duration{-time.Hour, 0, time.Millisecond, time.Millisecond + 1, time.Second, time.Minute} {
		h.Observe(d)
	}
	count, sum, within := h.Read()
	if count != 6 || sum != time.Minute+time.Second+2*time.Millisecond+1 {
		t.Errorf("there are %d, together %v", count, sum)
	}
	if diff := cmp.Diff(map[time.Duration]uint64{time.Millisecond: 3, time.Second: 5}, within); diff != "" {
		t.Error(diff)
	}
}

func TestSetIsBoundedByWhatIsKnown(t *testing.T) {
	s := metrics.NewSet()
	s.Know("github")
	s.Of("github").Waiters.Add(1)
	for i := range 10_000 {
		s.Of(fmt.Sprint("made-up-", i)).Waiters.Add(1)
	}
	s.Know("github", "slack")
	for name, want := range map[string]int64{"github": 1, "slack": 0, metrics.Other: 10_000, "made-up-1": 10_000} {
		if got := s.Of(name).Waiters.Load(); got != want {
			t.Errorf("%s has %d, want %d", name, got, want)
		}
	}
	s.Know("slack")
	s.Of("github").Waiters.Add(1)
	if got := s.Of(metrics.Other).Waiters.Load(); got != 10_001 {
		t.Errorf("others have %d, want 10001: one is configured no more", got)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	s := metrics.NewSet()
	s.Know("github")
	name := strings.Clone("github")
	if n := testing.AllocsPerRun(100, func() {
		i := s.Of(name)
		i.Calls.Add(metrics.StatusClass(204))
		i.Added.Observe(30 * time.Microsecond)
	}); n != 0 {
		t.Errorf("counting a call allocates %v times", n)
	}
}

func BenchmarkCountCall(b *testing.B) {
	s := metrics.NewSet()
	s.Know("github", "slack", "google")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := s.Of("github")
			i.Calls.Add(metrics.StatusClass(200))
			i.Added.Observe(40 * time.Microsecond)
		}
	})
}

var codes = regexp.MustCompile(`Code:\s+"([a-z_]+)"`)

// TestCallOutcomesAreAllThereAre: no code of the proxy's counts as Other.
func TestCallOutcomesAreAllThereAre(t *testing.T) {
	known := map[string]bool{}
	for _, dir := range []string{"../proxy", "../guard"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range codes.FindAllSubmatch(text, -1) {
				if !strings.HasSuffix(file, "_test.go") {
					known[string(m[1])] = true
				}
			}
		}
	}
	if len(known) < 20 {
		t.Fatalf("found the codes %v", known)
	}
	for code := range known {
		if !slices.Contains(metrics.CallOutcomes, code) {
			t.Errorf("%s is not counted by itself", code)
		}
	}
	for _, outcome := range metrics.CallOutcomes {
		own := outcome == metrics.CallSwitched || outcome == metrics.CallCanceled || outcome == metrics.StatusClass(int(outcome[0]-'0')*100)
		if !own && !known[outcome] {
			t.Errorf("%s is no code of an answer", outcome)
		}
	}
}
