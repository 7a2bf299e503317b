// Command image builds Lanyard's container image without a container engine:
// the one that the Containerfile describes, for all platforms, as an OCI layout
// or straight into a registry.
//
//	go -C deploy run ./image -o layout
//	go -C deploy run ./image -push registry.example.com/lanyard:1.0.0 -version 1.0.0
//
// The same source makes the same digest, with the same Go and the same file of
// certificates. The image's date is that of SOURCE_DATE_EPOCH, by default the
// beginning of 1970. A registry's password is where `docker login` has put it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// platforms are those that an image is built for.
var platforms = []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}

// As ./xcaddy.sh has them.
const (
	tags    = "nobadger,nomysql,nopgx"
	ldflags = "-s -w"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1) //nolint:gocritic // what stop would undo ends with the process
	}
}

func run(ctx context.Context) error {
	out := flag.String("o", "", "write an OCI layout to this `folder`, which must not be there yet")
	push := flag.String("push", "", "push to this `reference`, such as registry.example.com/lanyard:1.0.0")
	certs := flag.String("certs", "/etc/ssl/certs/ca-certificates.crt", "the `file` with the certificates of authorities")
	version := flag.String("version", "dev", "the version that the image's label tells")
	flag.Parse()
	if *out == "" && *push == "" || flag.NArg() > 0 {
		return errors.New("needs -o FOLDER or -push REFERENCE, and nothing else; -h explains")
	}
	created, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lanyard-image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs, err := compile(ctx, dir)
	if err != nil {
		return err
	}
	index, err := content{Certs: *certs, Version: *version, Created: created}.index(programs)
	if err != nil {
		return err
	}
	if *out != "" {
		if err := writeLayout(*out, *version, index); err != nil {
			return fmt.Errorf("writing %s: %w", *out, err)
		}
	}
	if *push != "" {
		if err := pushIndex(ctx, *push, index); err != nil {
			return fmt.Errorf("pushing to %s: %w", *push, err)
		}
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, digest)
	return err
}

// sourceDate reads a number of seconds since 1970 (reproducible-builds.org).
func sourceDate(epoch string) (time.Time, error) {
	if epoch == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// compile builds the program for each platform, in dir.
func compile(ctx context.Context, dir string) ([]program, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("looking for the module: %w", err)
	}
	var programs []program
	for _, p := range platforms {
		file := filepath.Join(dir, p.Architecture)
		// Without the state of the checkout, which is no part of the source.
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", //nolint:gosec // what is built is our own
			"-tags", tags, "-ldflags", ldflags, "-o", file, "./cmd/lanyard")
		cmd.Dir = filepath.Dir(filepath.Dir(strings.TrimSpace(string(root))))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+p.OS, "GOARCH="+p.Architecture, "GOAMD64=v1", "GOARM64=v8.0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building for %s: %w: %s", p, err, text)
		}
		programs = append(programs, program{Platform: p, File: file})
	}
	return programs, nil
}

// writeLayout writes the layout, with the version as the image's tag in it.
func writeLayout(dir, version string, index v1.ImageIndex) error {
	if _, err := os.Stat(dir); err == nil {
		return os.ErrExist
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return l.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version}))
}

func pushIndex(ctx context.Context, to string, index v1.ImageIndex) error {
	ref, err := name.ParseReference(to)
	if err != nil {
		return err
	}
	return remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
