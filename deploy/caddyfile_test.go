package deploy_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// configuration is a Caddyfile of this folder, and what its manifest gives it.
type configuration struct {
	text    string
	secrets []string // the files
	env     []string // the names
}

// configurations returns them all, by the manifest that they are for.
func configurations(t *testing.T) map[string]configuration {
	t.Helper()
	all := map[string]configuration{}
	for manifest, file := range map[string]string{"compose.yaml": "Caddyfile", "compose.postgres.yaml": "Caddyfile.postgres"} {
		p, err := compose(t, read(t, manifest))
		if err != nil {
			t.Fatal(err)
		}
		s := p.Services[lanyardService]
		c := configuration{text: string(read(t, file)), env: slices.Collect(maps.Keys(s.Environment))}
		for _, secret := range s.Secrets {
			c.secrets = append(c.secrets, secret.Source)
		}
		all[manifest] = c
	}
	all["the edge of compose.postgres.yaml"] = configuration{text: string(read(t, "Caddyfile.edge"))}
	for _, manifest := range []string{"kubernetes/sidecar.yaml", "kubernetes/postgres.yaml"} {
		m, err := decode(read(t, manifest))
		if err != nil {
			t.Fatal(err)
		}
		c := configuration{text: m.config.Data["Caddyfile"]}
		for _, v := range m.deployment.Spec.Template.Spec.InitContainers[0].Env {
			c.env = append(c.env, v.Name)
		}
		// All files of the Secret are those that README.md has one make.
		c.secrets = secretsIn(c.text)
		all[manifest] = c
	}
	values := unit(t)
	c := configuration{text: string(read(t, "systemd/Caddyfile"))}
	for _, credential := range values["Service.LoadCredential"] {
		name, _, _ := strings.Cut(credential, ":")
		c.secrets = append(c.secrets, name)
	}
	for _, line := range values["Service.Environment"] {
		for pair := range strings.FieldsSeq(line) {
			name, _, _ := strings.Cut(pair, "=")
			c.env = append(c.env, name)
		}
	}
	all[unitFile] = c
	return all
}

// secretFile is a placeholder for a file that a manifest puts there.
var secretFile = regexp.MustCompile(`\{file\./run/(?:secrets|credentials/lanyard\.service)/([a-z_]+)\}`)

func secretsIn(text string) (names []string) {
	for _, m := range secretFile.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// TestCaddyfiles: each Caddyfile is formatted, has just the secrets and
// variables that its manifest gives it, and is taken by the program.
func TestCaddyfiles(t *testing.T) {
	bin := program(t)
	readme := string(read(t, "README.md"))
	keyset, err := exec.Command(bin, "lanyard", "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"lanyard_keyset":       string(keyset),
		"lanyard_api_key":      strings.Repeat("a1", 32) + "\n",
		"lanyard_client_key":   strings.Repeat("c1", 32) + "\n",
		"github_client_secret": "a-secret\n",
		"lanyard_database_url": "postgres://lanyard:secret@db-0:5432,db-1:5432/lanyard?target_session_attrs=read-write\n",
	}
	for manifest, c := range configurations(t) {
		t.Run(manifest, func(t *testing.T) {
			given := slices.Sorted(slices.Values(c.secrets))
			if used := slices.Sorted(slices.Values(secretsIn(c.text))); !slices.Equal(given, used) {
				t.Errorf("the manifest gives the secrets %q, the Caddyfile takes %q", given, used)
			}
			for _, m := range regexp.MustCompile(`\{\$?env\.(\w+)\}`).FindAllStringSubmatch(c.text, -1) {
				if !slices.Contains(c.env, m[1]) {
					t.Errorf("the manifest does not set %s", m[1])
				}
			}
			dir := t.TempDir()
			for _, name := range given {
				if values[name] == "" || !strings.Contains(readme, "secrets/"+name) {
					t.Errorf("README.md does not say how to make the secret %s, or this test does not know it", name)
				}
				write(t, filepath.Join(dir, name), values[name])
			}
			file := filepath.Join(dir, "Caddyfile")
			write(t, file, c.text)
			if out, err := exec.Command(bin, "fmt", "--diff", file).CombinedOutput(); err != nil {
				t.Errorf("not formatted: %s", out)
			}
			write(t, file, secretFile.ReplaceAllString(c.text, "{file."+dir+"/$1}"))
			cmd := exec.Command(bin, "validate", "--adapter", "caddyfile", "--config", file)
			cmd.Env = append(os.Environ(), "GITHUB_CLIENT_ID=an-id", "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("caddy validate: %v\n%s", err, out)
			}
			if strings.Contains(string(out), `"level":"warn"`) && !strings.Contains(c.text, "names lanyard") {
				t.Errorf("caddy validate warns:\n%s", out)
			}
		})
	}
}

// program returns the program under test.
func program(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("LANYARD_BIN")
	if bin == "" {
		bin, _ = filepath.Abs("../caddy")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skipf("the program under test is not built: run ./xcaddy.sh (%v)", err)
	}
	return bin
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
