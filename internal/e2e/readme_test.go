package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// story runs README.md as a newcomer does: each command of its sh blocks, in
// order. What differs is where things are: the ports are free ones, the home
// directory is empty, and GitHub is the fake provider.
type story struct {
	t       *testing.T
	home    string
	shell   string // what the commands before have set, as commands
	env     []string
	ports   [][2]string // each port of README.md and the one it is here
	fake    *fakeprovider.Server
	config  string // of the running Lanyard, a Caddyfile
	caddy   *child
	browser *http.Client
	begin   string // the command that begins a connection
	link    string // the last connect link
}

// step is a command of README.md, by its beginning, and how it is run.
type step struct {
	command string
	run     func(s *story, command string)
}

var readme = []step{
	{"git clone https://github.com/lanyard-proxy/lanyard", (*story).isThisRepository},
	{"cd lanyard", func(*story, string) {}},
	{"./xcaddy.sh run", (*story).buildsAndRuns},
	{"./caddy lanyard demo --yes", (*story).walksThroughTheDemo},
	{"export GITHUB_CLIENT_ID=your-client-id", (*story).exports},
	{"export GITHUB_CLIENT_SECRET=your-client-secret", (*story).exports},
	{"./caddy run --config examples/github/Caddyfile", (*story).runsTheExample},
	{"KEYS=~/.local/share/caddy/lanyard", (*story).sets},
	{"curl http://localhost:9080/v1/connections ", (*story).begins},
	{"CONNECTION=conn_", (*story).opensTheLink},
	{"curl http://localhost:9080/github/user ", (*story).callsGitHub},
	{`LANYARD_API_KEY=$(cat "$KEYS/lanyard-api-key") node connect/testdata/sign.mjs`, (*story).signsALink},
	{`curl "http://localhost:9080/v1/connections/$CONNECTION/complete"`, (*story).completes},
	{"./test.sh", (*story).isAScript},
}

func TestReadme(t *testing.T) {
	s := &story{t: t, home: t.TempDir(), browser: newBrowser(t), env: os.Environ()}
	for _, port := range []string{"9080", "9081", "9082", "9083"} {
		s.ports = append(s.ports, [2]string{port, fmt.Sprint(freePort(t))})
	}
	steps := readme
	for _, command := range commands(t) {
		if len(steps) == 0 || !strings.HasPrefix(command, steps[0].command) {
			t.Fatalf("README.md has the command\n%s\nwhich this test does not know, or not here", command)
		}
		t.Log(command)
		steps[0].run(s, command)
		if t.Failed() {
			return
		}
		steps = steps[1:]
	}
	if len(steps) > 0 {
		t.Errorf("README.md no longer has %q", steps[0].command)
	}
	s.madeTheFilesItShould()
}

// commands returns the commands of README.md, those over several lines joined.
func commands(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, b := range blocksOf(t, "README.md") {
		if b.info != "sh" {
			continue
		}
		for line := range strings.SplitSeq(strings.ReplaceAll(b.text, "\\\n", ""), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				all = append(all, line)
			}
		}
	}
	return all
}

// here puts the ports of this run into what README.md or a Caddyfile says.
func (s *story) here(text string) string {
	for _, p := range s.ports {
		text = strings.ReplaceAll(text, ":"+p[0], ":"+p[1])
	}
	return text
}

func (s *story) isThisRepository(command string) {
	module := strings.TrimPrefix(command, "git clone https://")
	if !strings.HasPrefix(readDoc(s.t, "go.mod"), "module "+module+"\n") {
		s.t.Errorf("go.mod is not %s's", module)
	}
}

// buildsAndRuns runs the script on a copy of the sources, so that ./caddy,
// which other tests use, stays what it is.
func (s *story) buildsAndRuns(command string) {
	dir := s.t.TempDir()
	s.copySources(dir)
	example := filepath.Join(dir, "Caddyfile.example")
	b, err := os.ReadFile(example)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(example, []byte(s.here(string(b))), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-euc", "exec "+command)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "XDG_DATA_HOME="+s.t.TempDir(), "XDG_CONFIG_HOME="+s.t.TempDir())
	c := s.run(cmd)
	defer s.end(c)
	address := regexp.MustCompile(`Open <(http://localhost:\d+)>`).FindStringSubmatch(readDoc(s.t, "README.md"))
	if address == nil {
		s.t.Fatal("README.md does not say what to open")
	}
	s.answers(s.here(address[1]), 5*time.Minute, c)
	if said := c.out.String(); !strings.Contains(said, "Open "+address[1]) {
		s.t.Errorf("README.md says to open %s, the script says otherwise:\n%s", address[1], said)
	}
}

// copySources copies what the program is built from.
func (s *story) copySources(to string) {
	s.t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular() || rel == "caddy":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o700)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) walksThroughTheDemo(command string) {
	cmd := exec.CommandContext(s.t.Context(), "sh", "-euc", strings.Replace(command, "./caddy", "exec '"+binary(s.t)+"'", 1))
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	for _, b := range blocksOf(s.t, "README.md") {
		if b.info != "text" || !strings.Contains(b.text, "✓") {
			continue
		}
		for line := range strings.SplitSeq(strings.TrimSpace(b.text), "\n") {
			if word := strings.Fields(line)[1]; !bytes.Contains(out, []byte("✓ "+word)) {
				s.t.Errorf("README.md shows a line %q, the demo does not:\n%s", word, out)
			}
		}
	}
}

// exports sets a variable for the programs that are started later, too.
func (s *story) exports(command string) {
	s.env = append(s.env, strings.TrimPrefix(command, "export "))
}

func (s *story) sets(command string) { s.shell += command + "\n" }

// runsTheExample starts the example, with a provider of its own in the
// catalogue's place and everything else as it stands there.
func (s *story) runsTheExample(command string) {
	callback := regexp.MustCompile("callback URL is\\s+`(.+?)`").FindStringSubmatch(readDoc(s.t, "README.md"))
	if callback == nil {
		s.t.Fatal("README.md does not say what callback URL to register")
	}
	s.fake = fakeprovider.New(fakeprovider.Config{
		ClientID: "your-client-id", ClientSecret: "your-client-secret", Scopes: []string{"read:user"},
		RedirectURIs: []string{s.here(callback[1])}, RequirePKCE: true, Rotate: true, Title: "GitHub",
	})
	srv := httptest.NewServer(s.fake)
	s.t.Cleanup(srv.Close)
	s.fake.SetIssuer(srv.URL)
	file := strings.Fields(command)[3]
	s.config = strings.Replace(s.here(readDoc(s.t, file)), "\t\tintegration github {", fmt.Sprintf(
		"\t\tprovider github {\n\t\t\tissuer %s\n\t\t\tapi_url %s/api\n\t\t\tallow_private\n\t\t}\n\t\tintegration github {", srv.URL, srv.URL), 1)
	s.writeConfig()
	cmd := exec.Command(binary(s.t), "run", "--config", filepath.Join(s.home, "Caddyfile"))
	cmd.Dir = s.home
	cmd.Env = append(slices.Clone(s.env), "HOME="+s.home, "XDG_DATA_HOME=", "XDG_CONFIG_HOME=")
	s.caddy = s.run(cmd)
	s.answers(s.here("http://localhost:9080/v1/health/ready"), patience, s.caddy)
	s.eventually("the log tells of three keys that were made", patience, func() error { // what is said comes by a pipe
		if said := s.caddy.out.String(); strings.Count(said, "key made") != 3 {
			return errors.New(said)
		}
		return nil
	})
}

func (s *story) writeConfig() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.home, "Caddyfile"), []byte(s.config), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// begins begins a connection, and holds the answer against README.md's.
func (s *story) begins(command string) {
	s.begin = command
	answer := s.sh(command)
	i := slices.IndexFunc(blocksOf(s.t, "README.md"), func(b block) bool { return b.info == "json" })
	if err := sameAnswer("", decode(s.t, blocksOf(s.t, "README.md")[i].text), decode(s.t, answer)); err != nil {
		s.t.Errorf("README.md's answer: %v\nwas answered %s", err, answer)
	}
	var c connection
	if err := json.Unmarshal([]byte(answer), &c); err != nil {
		s.t.Fatal(err)
	}
	s.link = c.ConnectURL
	s.shell += "CONNECTION=" + c.ID + "\n"
}

// opensTheLink does what README.md says in words: open the link, continue,
// allow. The command that follows is begins' already, with the real ID.
func (s *story) opensTheLink(string) {
	res, page := s.get(s.allow(s.link))
	if res.StatusCode != http.StatusOK || !strings.Contains(page, "is connected</h1>") {
		s.t.Errorf("the flow ended with HTTP %d: %s", res.StatusCode, page)
	}
}

func (s *story) callsGitHub(command string) {
	if out := s.sh(command); !strings.Contains(out, `"login"`) {
		s.t.Errorf("the call was answered with %s", out)
	}
}

func (s *story) signsALink(command string) {
	if _, err := exec.LookPath("node"); err != nil {
		s.t.Log("left out: there is no node here")
		return
	}
	if res, page := s.get(strings.TrimSpace(s.sh(command))); res.StatusCode != http.StatusOK || !forward.MatchString(page) {
		s.t.Errorf("the link that was signed leads to HTTP %d: %s", res.StatusCode, page)
	}
}

// completes gives the running Lanyard a redirect_url, connects again, and
// completes with what the browser comes back with.
func (s *story) completes(command string) {
	s.config = strings.Replace(s.config, "\t\tintegration github {", "\t\tredirect_url http://localhost:3000/connected\n\t\tintegration github {", 1)
	s.writeConfig()
	if err := s.caddy.Process.Signal(syscall.SIGUSR1); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the reload is through", patience, func() error {
		if s.begins(s.begin); !strings.Contains(s.link, "redirect_url=") {
			return errors.New("the link has no redirect_url")
		}
		return nil
	})
	res, page := s.get(s.allow(s.link))
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil || back.Query().Get("completion_code") == "" {
		s.t.Fatalf("callback: HTTP %d to %q: %s", res.StatusCode, res.Header.Get("Location"), page)
	}
	s.shell += "COMPLETION_CODE=" + back.Query().Get("completion_code") + "\n"
	if out := s.sh(command); !strings.Contains(out, `"status":"ACTIVE"`) {
		s.t.Errorf("completing was answered with %s", out)
	}
}

// isAScript only looks at ./test.sh: it is what runs this test.
func (s *story) isAScript(command string) {
	if out, err := exec.CommandContext(s.t.Context(), "sh", "-n", filepath.Join(root, command)).CombinedOutput(); err != nil {
		s.t.Errorf("%s: %v: %s", command, err, out)
	}
	if info, err := os.Stat(filepath.Join(root, command)); err != nil || info.Mode()&0o100 == 0 {
		s.t.Errorf("%s can't be run: %v", command, err)
	}
}

// number ends the name of a file that is another at each opening.
var number = regexp.MustCompile(`-[0-9]+$`)

const ballast = "lanyard-ballast"

// madeTheFilesItShould holds the data directory against the table of its files
// in docs/operations.md.
func (s *story) madeTheFilesItShould() {
	var want, got []string
	for _, name := range tableUnder(s.t, "docs/operations.md", "Files", 1) {
		want = append(want, strings.TrimSuffix(name, "/"))
	}
	entries, err := os.ReadDir(filepath.Join(s.home, ".local/share/caddy/lanyard"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, number.ReplaceAllString(e.Name(), "-N"))
	}
	if !slices.Contains(got, ballast) { // not made on a small disk
		got = append(got, ballast)
	}
	want[slices.Index(want, "badger/N")] = "badger"
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		s.t.Errorf("the data directory holds %v, docs/operations.md says %v", got, want)
	}
}
