package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

var modelName = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)

// Describe returns in one line when, on what and of which commit a run is: the
// day, the processors, the memory, the kernel, Go, and the commit of the working
// directory. What it can't find out is "unknown".
func Describe(ctx context.Context) string {
	model, kernel, memory := runtime.GOARCH, "unknown", "unknown"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := modelName.FindSubmatch(info); m != nil {
			model = string(m[1])
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel, _, _ = strings.Cut(strings.TrimSpace(string(release)), "-") // the rest is its builder's
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		memory = fmt.Sprint(uint64(info.Totalram) * uint64(info.Unit) >> 30) //nolint:unconvert // of 32 bits elsewhere
	}
	return fmt.Sprintf("%s · %d CPUs (%s) · %s GiB of memory · Linux %s · %s · commit %s",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), model, memory, kernel, runtime.Version(), commit(ctx))
}

// commit returns the commit, and whether what was run is not quite it.
func commit(ctx context.Context) string {
	name, err := exec.CommandContext(ctx, "git", "describe", "--always", "--abbrev=10", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	text := strings.TrimSpace(string(name))
	if changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output(); err != nil || len(changes) > 0 {
		text += " (tree has changes)"
	}
	return text
}
