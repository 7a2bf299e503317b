// Package build builds the programs that the benchmarks measure, all with the
// same flags: those of ./xcaddy.sh.
package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/lanyard-proxy/lanyard"

// Lanyard runs ./xcaddy.sh and returns what that makes.
func Lanyard(ctx context.Context) (path string, err error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	cmd := exec.CommandContext(ctx, "./xcaddy.sh")
	cmd.Dir = strings.TrimSpace(string(root))
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Lanyard: %w: %s", err, text)
	}
	return filepath.Join(cmd.Dir, "caddy"), nil
}

// Stock builds stock Caddy, of the version in go.mod, in dir.
func Stock(ctx context.Context, dir string) (path string, err error) {
	path = filepath.Join(dir, "stockcaddy")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nobadger,nomysql,nopgx", "-ldflags", "-s -w",
		"-o", path, "github.com/caddyserver/caddy/v2/cmd/caddy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building stock Caddy: %w: %s", err, text)
	}
	return path, nil
}
