package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// TestCommands runs the commands as their users do, against a real Lanyard: one
// for all scripts, which run at the same time, each with users of its own.
func TestCommands(t *testing.T) {
	s := newSchemes(t, withSocket, func(_ *world, c *fakeprovider.Config) { c.DeviceInterval = time.Second })
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(s.bin, filepath.Join(bin, "caddy")); err != nil {
		t.Fatal(err)
	}
	// What is in ended makes an end of all grants. The scripts of a directory run
	// at the same time, and t.Run waits for them.
	for _, dir := range []string{"testdata/commands", "testdata/commands/ended"} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: dir,
				Setup: func(env *testscript.Env) error {
					for name, value := range map[string]string{
						"PATH": bin + ":" + os.Getenv("PATH"), "HOME": env.WorkDir, "XDG_DATA_HOME": env.WorkDir + "/data",
						"LANYARD_URL": s.proxyURL(""), "LANYARD_API_KEY": s.apiKey, "SOCKET": s.socket(), "STORE": s.path("data"), "KEY": s.key,
						"RECIPIENT": identity.Recipient().String(),
					} {
						env.Setenv(name, value)
					}
					for name, text := range map[string]string{
						"apikey": s.key + "\n", "robot.json": s.file, "basic.json": fmt.Sprintf(`{"username": "ada", "password": %q}`, s.password),
					} {
						if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(text), 0o600); err != nil {
							return err
						}
					}
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"connected": s.cmdConnected, "endgrants": s.cmdEndGrants, "device": s.cmdDevice, "field": cmdField,
					"exit": cmdExit, "seen": cmdSeen, "unage": cmdUnage(identity),
				},
			})
		})
	}
}

// connected VAR USER: VAR is the ID of a new ACTIVE connection.
func (s schemes) cmdConnected(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], s.connect(args[1]))
}

// endgrants: the provider revokes everything that it has granted.
func (s schemes) cmdEndGrants(*testscript.TestScript, bool, []string) { s.fake.RevokeAll() }

// device approve|deny: the user answers on another device, once one waits.
func (s schemes) cmdDevice(ts *testscript.TestScript, _ bool, args []string) {
	answer := map[string]func(string) bool{
		"approve": func(code string) bool { return s.fake.ApproveDevice(code) }, "deny": s.fake.DenyDevice,
	}[args[0]]
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if codes := s.fake.UserCodes(); len(codes) == 1 && answer(codes[0]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no device waits")
		}
	}
}

// field VAR FILE WORD: VAR is the word after WORD in FILE.
func cmdField(ts *testscript.TestScript, _ bool, args []string) {
	words := bytes.FieldsFunc([]byte(ts.ReadFile(args[1])), func(r rune) bool { return r == ' ' || r == '\n' || r == '"' || r == ',' || r == ':' })
	for i, w := range words {
		if string(w) == args[2] && i+1 < len(words) {
			ts.Setenv(args[0], string(words[i+1]))
			return
		}
	}
	ts.Fatalf("no %q in %s", args[2], args[1])
}

// seen FILE TEXT: the text comes to stand in the file.
func cmdSeen(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && bytes.Contains(b, []byte(args[1])) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: no %q, %v: %s", args[0], args[1], err, b)
		}
	}
}

// exit CODE COMMAND…: the command ends with this exit code.
func cmdExit(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("sh", append([]string{"-c", fmt.Sprintf(`"$@"; test $? -eq %s`, args[0]), "sh"}, args[1:]...)...))
}

// unage FILE OUT: OUT is what FILE holds, encrypted for $RECIPIENT.
func cmdUnage(identity age.Identity) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		r, err := age.Decrypt(strings.NewReader(ts.ReadFile(args[0])), identity)
		ts.Check(err)
		text, err := io.ReadAll(r)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
	}
}

// TestDocsCommands: docs/commands.md has every command and every flag.
func TestDocsCommands(t *testing.T) {
	doc := readDoc(t, "docs/commands.md")
	help := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), binary(t), append(append([]string{"lanyard"}, args...), "--help")...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	_, list, _ := strings.Cut(help(), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		if !regexp.MustCompile("`" + name + "[` ]").MatchString(doc) {
			t.Errorf("command %s is not there", name)
		}
		_, flags, _ := strings.Cut(help(name), "\nFlags:\n")
		for _, flag := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`).FindAllStringSubmatch(flags, -1) {
			if flag[1] != "--help" && !regexp.MustCompile(flag[1]+`\b`).MatchString(doc) {
				t.Errorf("%s: flag %s is not there", name, flag[1])
			}
		}
	}
}
