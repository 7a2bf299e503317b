package caddymodule

import (
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
)

// forOthers are the permissions of everybody but the owner.
const forOthers fs.FileMode = 0o077

// warnOfOthers tells if other users of the machine may look into the data
// directory or its keys. What Lanyard makes there is its own user's alone; what
// was there before, or was copied, may not be.
func warnOfOthers(dir string, logger *zap.Logger) {
	for _, name := range []string{"", keysetFile, apiKeyFile, clientKeyFile} {
		name = filepath.Join(dir, name)
		if info, err := os.Stat(name); err == nil && info.Mode()&forOthers != 0 {
			logger.Warn("other users have access to the data directory or its keys",
				zap.String("file", name), zap.Stringer("mode", info.Mode().Perm()))
		}
	}
}
