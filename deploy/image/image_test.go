package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestContainerfile holds the image that is made here against what the last
// stage of the Containerfile says.
func TestContainerfile(t *testing.T) {
	said := readContainerfile(t)
	want := content{Version: "dev"}.config()
	equal := func(instruction string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\nthe Containerfile says %q\nthe image has         %q", instruction, got, want)
		}
	}
	equal("FROM", said["FROM"], []string{"scratch"})
	equal("USER", said["USER"], []string{want.User})
	equal("STOPSIGNAL", said["STOPSIGNAL"], []string{want.StopSignal})
	equal("ENTRYPOINT", execForm(t, said["ENTRYPOINT"]), want.Entrypoint)
	equal("CMD", execForm(t, said["CMD"]), want.Cmd)
	equal("VOLUME", execForm(t, said["VOLUME"]), slices.Sorted(maps.Keys(want.Volumes)))
	equal("EXPOSE", said["EXPOSE"], []string{strings.TrimSuffix(slices.Sorted(maps.Keys(want.ExposedPorts))[0], "/tcp")})
	equal("ENV", pairs(t, said["ENV"]), toMap(want.Env))
	labels := pairs(t, said["LABEL"])
	labels["org.opencontainers.image.version"] = strings.ReplaceAll(labels["org.opencontainers.image.version"], "$VERSION", want.Labels["org.opencontainers.image.version"])
	equal("LABEL", labels, want.Labels)
	equal("ARG", said["ARG"], []string{"VERSION=dev"})
	equal("HEALTHCHECK", healthcheck(t, said["HEALTHCHECK"]), want.Healthcheck)
	equal("COPY", said["COPY"], []string{
		"--from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt",
		"--from=build /src/caddy /caddy",
		"--from=build --chown=" + want.User + " /data /data",
	})
	for instruction := range said {
		if !slices.Contains([]string{"FROM", "ARG", "LABEL", "COPY", "ENV", "VOLUME", "EXPOSE", "USER", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"}, instruction) {
			t.Errorf("this test does not know the instruction %s", instruction)
		}
	}
}

// TestIgnored: each engine has a name of its own for what it leaves out.
func TestIgnored(t *testing.T) {
	if read(t, "../../.containerignore") != read(t, "../../.dockerignore") {
		t.Error(".containerignore and .dockerignore are not the same")
	}
}

// TestBuiltTheSame: the Containerfile names the Go of go.mod, and the programs are
// built as xcaddy.sh builds them.
func TestBuiltTheSame(t *testing.T) {
	minor := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../../go.mod"))[1]
	pinned := regexp.MustCompile(`(?m)^FROM .*\bgolang:` + regexp.QuoteMeta(minor) + `\.\d+-\S+ AS build$`)
	if !pinned.MatchString(read(t, "../../Containerfile")) {
		t.Errorf("the Containerfile does not build with a version of Go %s, which go.mod wants", minor)
	}
	script := read(t, "../../xcaddy.sh")
	for _, line := range []string{"tags=" + tags, "ldflags='" + ldflags + "'", "export CGO_ENABLED=0"} {
		if !strings.Contains(script, "\n"+line+"\n") {
			t.Errorf("xcaddy.sh has no line %q", line)
		}
	}
}

func TestIndex(t *testing.T) {
	c, programs := small(t)
	index, err := c.index(programs)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != len(platforms) {
		t.Fatalf("%d images, want one for each of %v", len(manifest.Manifests), platforms)
	}
	for i, m := range manifest.Manifests {
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		file, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if p := file.Platform(); !p.Equals(platforms[i]) || !m.Platform.Equals(platforms[i]) {
			t.Errorf("image %d says %v, the index %v, want %v", i, p, m.Platform, platforms[i])
		}
	}
}

// TestReproducible: the same content gives the same digest, and each part of it
// matters.
func TestReproducible(t *testing.T) {
	c, programs := small(t)
	digest := func(c content, programs []program) v1.Hash {
		index, err := c.index(programs)
		if err != nil {
			t.Fatal(err)
		}
		d, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	want := digest(c, programs)
	for _, p := range programs { // the files' own times are of no matter
		if err := os.Chtimes(p.File, time.Now(), time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if got := digest(c, programs); got != want {
		t.Errorf("a second build has the digest %v, the first %v", got, want)
	}
	other := c
	other.Version = "2"
	if digest(other, programs) == want {
		t.Error("another version has the same digest")
	}
	if err := os.WriteFile(programs[1].File, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if digest(c, programs) == want {
		t.Error("another program has the same digest")
	}
}

// TestLayoutAndPush: what the layout and a registry hold is the index that was
// built.
func TestLayoutAndPush(t *testing.T) {
	c, programs := small(t)
	index, err := c.index(programs)
	if err != nil {
		t.Fatal(err)
	}
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}

	dir := filepath.Join(t.TempDir(), "layout")
	if err := writeLayout(dir, "1.0.0", index); err != nil {
		t.Fatal(err)
	}
	l, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(l); err != nil {
		t.Error(err)
	}
	manifest, err := l.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	entry := manifest.Manifests[0]
	if len(manifest.Manifests) != 1 || entry.Digest != want || entry.Annotations["org.opencontainers.image.ref.name"] != "1.0.0" {
		t.Errorf("the layout holds %+v, want %v as 1.0.0", manifest.Manifests, want)
	}
	if err := writeLayout(dir, "1.0.0", index); err == nil {
		t.Error("a folder that is there was written to")
	}

	srv := httptest.NewServer(registry.New(registry.Logger(quiet(t))))
	defer srv.Close()
	to := strings.TrimPrefix(srv.URL, "http://") + "/lanyard:1.0.0"
	if err := pushIndex(t.Context(), to, index); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pulled.Digest(); err != nil || got != want {
		t.Errorf("pulled %v, %v; pushed %v", got, err, want)
	}
}

// small returns content whose programs are none.
func small(t *testing.T) (content, []program) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("this is "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := content{Certs: write("certs"), Version: "1.0.0", Created: time.Unix(1_800_000_000, 0).UTC()}
	var programs []program
	for _, p := range platforms {
		programs = append(programs, program{Platform: p, File: write(p.Architecture)})
	}
	return c, programs
}

// readContainerfile returns what stands behind each instruction of the last
// stage, by instruction.
func readContainerfile(t *testing.T) map[string][]string {
	t.Helper()
	said := map[string][]string{}
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, "../../Containerfile"), "")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if instruction == "FROM" {
			clear(said)
		}
		if instruction != "" {
			said[instruction] = append(said[instruction], strings.TrimSpace(rest))
		}
	}
	return said
}

func execForm(t *testing.T, lines []string) []string {
	t.Helper()
	var args []string
	if len(lines) != 1 || json.Unmarshal([]byte(lines[0]), &args) != nil {
		t.Errorf("%q is not one instruction in the exec form", lines)
	}
	return args
}

// pairs reads NAME=VALUE NAME="VALUE" ….
func pairs(t *testing.T, lines []string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(\S+?)=("[^"]*"|\S+)`).FindAllStringSubmatch(strings.Join(lines, " "), -1) {
		if _, twice := all[m[1]]; twice {
			t.Errorf("%s is set twice", m[1])
		}
		all[m[1]] = strings.Trim(m[2], `"`)
	}
	return all
}

func healthcheck(t *testing.T, lines []string) *v1.HealthConfig {
	t.Helper()
	options, command, _ := strings.Cut(strings.Join(lines, " "), "CMD ")
	h := &v1.HealthConfig{Test: append([]string{"CMD"}, execForm(t, []string{command})...)}
	for option := range strings.FieldsSeq(options) {
		name, value, _ := strings.Cut(option, "=")
		d, derr := time.ParseDuration(value)
		n, nerr := strconv.Atoi(value)
		if derr != nil && nerr != nil {
			t.Errorf("healthcheck: %q: %v", option, cmp.Or(derr, nerr))
		}
		switch name {
		case "--interval":
			h.Interval = d
		case "--timeout":
			h.Timeout = d
		case "--start-period":
			h.StartPeriod = d
		case "--retries":
			h.Retries = n
		default:
			t.Errorf("healthcheck: unknown option %q", option)
		}
	}
	return h
}

func toMap(env []string) map[string]string {
	all := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		all[name] = value
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}
