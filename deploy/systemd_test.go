package deploy_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// directives are those of systemd.unit(5), systemd.service(5), systemd.exec(5),
// systemd.kill(5) and systemd.resource-control(5) that the unit has, by section.
// systemd only warns of others, and goes on without them.
var directives = map[string]string{
	"Unit": "Description Documentation Wants After",
	"Service": "Type ExecStart ExecReload Restart RestartSec TimeoutStopSec Environment LoadCredential DynamicUser StateDirectory StateDirectoryMode " +
		"UMask LimitNOFILE LimitCORE AmbientCapabilities CapabilityBoundingSet NoNewPrivileges ProtectSystem ProtectHome PrivateTmp PrivateDevices " +
		"ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables ProtectProc LockPersonality " +
		"MemoryDenyWriteExecute RemoveIPC RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID SystemCallArchitectures " +
		"SystemCallFilter SystemCallErrorNumber",
	"Install": "WantedBy",
}

const unitFile = "systemd/lanyard.service"

// unit returns the values of each directive of the unit, as Section.Name.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	values, section := map[string][]string{}, ""
	for line := range strings.Lines(string(read(t, unitFile))) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if known := " " + directives[section] + " "; !ok || !strings.Contains(known, " "+name+" ") {
			t.Errorf("[%s] has %q, which this test does not know: systemd may not, either", section, line)
		}
		values[section+"."+name] = append(values[section+"."+name], value)
	}
	return values
}

func TestUnit(t *testing.T) {
	values := unit(t)
	for name, want := range map[string]string{
		"Service.Type": "notify", "Service.DynamicUser": "yes", "Service.StateDirectory": "lanyard", "Service.StateDirectoryMode": "0700",
		"Service.NoNewPrivileges": "yes", "Service.ProtectSystem": "strict", "Service.ProtectHome": "yes", "Service.MemoryDenyWriteExecute": "yes",
		"Service.LimitCORE": "0", "Service.CapabilityBoundingSet": "CAP_NET_BIND_SERVICE", "Service.TimeoutStopSec": "40s",
	} {
		if got := strings.Join(values[name], ", "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestUnitVerify asks systemd itself, where it is.
func TestUnitVerify(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("takes systemd-analyze")
	}
	bin := program(t)
	file := filepath.Join(t.TempDir(), "lanyard.service")
	text := strings.ReplaceAll(string(read(t, unitFile)), "/usr/local/bin/caddy", bin)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	out, err := exec.CommandContext(ctx, "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", file).CombinedOutput()
	if err != nil { // over 2.0, or a systemd that has no --offline yet
		if regexp.MustCompile(`unrecognized option`).Match(out) {
			t.Skip("this systemd-analyze can't look at a file")
		}
		t.Errorf("systemd-analyze security: %v: %s", err, out)
	}
}
