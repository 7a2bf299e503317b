package caddymodule

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// The files in the data directory.
const (
	keysetFile    = "lanyard-keys.json"
	apiKeyFile    = "lanyard-api-key" //nolint:gosec // a file's name
	clientKeyFile = "lanyard-client-key"
)

// ensureKeyset returns the keyset of the data directory, the configured one if
// there is one. One is made only where there is no store yet: a store whose
// keys are gone must not be sealed on with new ones.
func ensureKeyset(dir string, configured *keyset, logger *zap.Logger) (*keyset, error) {
	if configured != nil {
		return configured, nil
	}
	name := filepath.Join(dir, keysetFile)
	text, err := os.ReadFile(name) //nolint:gosec // a fixed name in the configured directory
	if errors.Is(err, fs.ErrNotExist) {
		if badgerstore.Exists(dir) {
			return nil, fmt.Errorf("the store in %s was sealed with keys that are not here: put %s back, or configure `keyset`: %w",
				dir, keysetFile, tokenstore.ErrKeyMissing)
		}
		if text, err = seal.Generate(); err != nil {
			return nil, fmt.Errorf("making %s: %w", keysetFile, err)
		}
		err = makeFile(name, text, logger)
	}
	if err != nil {
		return nil, err
	}
	ks, err := parseKeyset(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return ks, nil
}

// ensureAPIKeys returns the configured keys, or the data directory's own.
func ensureAPIKeys(dir string, configured []secret.String, logger *zap.Logger) ([]secret.String, error) {
	if len(configured) > 0 {
		return configured, nil
	}
	key, err := ensureKey(filepath.Join(dir, apiKeyFile), checkAPIKey, logger)
	if err != nil {
		return nil, err
	}
	return []secret.String{key}, nil
}

// ensureClients returns the configured keys, or the data directory's own.
func ensureClients(dir string, configured []proxy.Client, logger *zap.Logger) ([]proxy.Client, error) {
	if len(configured) > 0 {
		return configured, nil
	}
	key, err := ensureKey(filepath.Join(dir, clientKeyFile), checkClientKey, logger)
	if err != nil {
		return nil, err
	}
	return []proxy.Client{{Key: guard.Key{Name: "default", Value: key}}}, nil
}

func ensureKey(name string, check func(string) error, logger *zap.Logger) (secret.String, error) {
	text, err := os.ReadFile(name) //nolint:gosec // a fixed name in the configured directory
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(rand.Text() + rand.Text()) // 260 bits
		err = makeFile(name, text, logger)
	}
	if err != nil {
		return secret.String{}, err
	}
	key := strings.TrimSpace(string(text))
	if err := check(key); err != nil {
		return secret.String{}, fmt.Errorf("%s: %w", name, err)
	}
	return secret.New(key), nil
}

// makeFile makes a file that only its owner can read, whole or not at all, and
// never over one that is there.
func makeFile(name string, content []byte, logger *zap.Logger) error {
	if err := writeFile(name, content, os.Link); err != nil { // unlike Rename it refuses to replace
		return fmt.Errorf("making %s: %w", name, err)
	}
	logger.Info("key made", zap.String("file", name))
	return nil
}

// replaceFile replaces a file that only its owner can read: after a crash it is
// the old one or the new one, whole.
func replaceFile(name string, content []byte) error { return writeFile(name, content, os.Rename) }

// writeFile writes a file that only its owner can read beside name, and has place
// give it that name.
func writeFile(name string, content []byte, place func(from, to string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), temporary+"*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already where it was renamed
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = place(tmp.Name(), name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	return err
}

// temporary begins the names of files that are about to be made. temporaryAge is
// how old one is that a kill has left: a process that starts beside this one may
// be making a younger one now.
const (
	temporary    = ".new-"
	temporaryAge = time.Minute
)

// removeTemporary removes what a kill has left of files that writeFile was about
// to make in dir.
func removeTemporary(dir string) error {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), temporary) {
			continue
		}
		if info, gone := f.Info(); gone == nil && time.Since(info.ModTime()) > temporaryAge {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name()))) //nolint:gosec // found in the configured directory
		}
	}
	return err
}

func syncDir(name string) error {
	d, err := os.Open(name) //nolint:gosec // the configured directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
