package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nobody is the user and the group that the program runs as.
const nobody = 65532

// content is what an image is made of. The same content makes the same digest.
type content struct {
	Certs   string    // the file with the certificates of authorities, in PEM
	Version string    // for the label
	Created time.Time // of the image and of the files in it
}

// program is Lanyard for one platform.
type program struct {
	Platform v1.Platform
	File     string
}

// config returns what the last stage of the Containerfile says.
func (c content) config() v1.Config {
	const source = "https://github.com/lanyard-proxy/lanyard"
	return v1.Config{
		User: fmt.Sprintf("%d:%d", nobody, nobody),
		Env: []string{
			"XDG_DATA_HOME=/data",
			"XDG_CONFIG_HOME=/data/config",
			"TMPDIR=/data",
			"CADDY_ADMIN=unix//data/admin.sock|0600",
			"LANYARD_URL=http://127.0.0.1:9080",
		},
		Entrypoint:   []string{"/caddy"},
		Cmd:          []string{"run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"},
		ExposedPorts: map[string]struct{}{"9081/tcp": {}},
		Volumes:      map[string]struct{}{"/data": {}},
		StopSignal:   "SIGTERM",
		Healthcheck: &v1.HealthConfig{
			Test:        []string{"CMD", "/caddy", "lanyard", "health", "--ready"},
			Interval:    10 * time.Second,
			Timeout:     5 * time.Second,
			StartPeriod: 30 * time.Second,
			Retries:     3,
		},
		Labels: map[string]string{
			"org.opencontainers.image.title":         "Lanyard",
			"org.opencontainers.image.description":   "Holds your users' OAuth tokens and API keys, and puts them on your app's requests",
			"org.opencontainers.image.source":        source,
			"org.opencontainers.image.documentation": source + "/blob/main/deploy/README.md",
			"org.opencontainers.image.licenses":      "Apache-2.0",
			"org.opencontainers.image.version":       c.Version,
		},
	}
}

// index returns the images of all programs under one name.
func (c content) index(programs []program) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		img, err := c.image(p)
		if err != nil {
			return nil, fmt.Errorf("making the image for %s: %w", p.Platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &p.Platform},
		})
	}
	return index, nil
}

// image returns the image of one program: a layer that rarely changes, and one
// with the program.
func (c content) image(p program) (v1.Image, error) {
	base, err := c.layer(
		entry{name: "data/", mode: 0o700, owner: nobody},
		entry{name: "etc/", mode: 0o755},
		entry{name: "etc/ssl/", mode: 0o755},
		entry{name: "etc/ssl/certs/", mode: 0o755},
		entry{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, from: c.Certs},
	)
	if err != nil {
		return nil, err
	}
	caddy, err := c.layer(entry{name: "caddy", mode: 0o755, from: p.File})
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: c.Created}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: p.Platform.Architecture,
		OS:           p.Platform.OS,
		Created:      created,
		Config:       c.config(),
		RootFS:       v1.RootFS{Type: "layers"},
	}); err != nil {
		return nil, err
	}
	return mutate.Append(img,
		mutate.Addendum{Layer: base, History: v1.History{Created: created, CreatedBy: "certificates, /data"}},
		mutate.Addendum{Layer: caddy, History: v1.History{Created: created, CreatedBy: "/caddy"}},
	)
}

// entry is a file of a layer, or a folder where its name ends in a slash.
type entry struct {
	name  string
	mode  int64
	owner int    // user and group
	from  string // the file to be copied
}

func (c content) layer(entries ...entry) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := c.write(w, e); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

func (c content) write(w *tar.Writer, e entry) error {
	head := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, ModTime: c.Created, Typeflag: tar.TypeDir}
	if e.from == "" {
		return w.WriteHeader(head)
	}
	data, err := os.ReadFile(e.from)
	if err != nil {
		return err
	}
	head.Typeflag, head.Size = tar.TypeReg, int64(len(data))
	if err := w.WriteHeader(head); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
