package deploy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// Those that Lanyard's image runs as in both files.
const lanyardService, edgeService = "lanyard", "edge"

// compose loads a file as docker compose does: by the schema, to which what it
// does not know is an error, and whole.
func compose(t *testing.T, text []byte) (*types.Project, error) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml"), Content: text}},
		Environment: types.Mapping{},
	})
}

func TestCompose(t *testing.T) {
	for file, shared := range map[string]bool{"compose.yaml": false, "compose.postgres.yaml": true} {
		t.Run(file, func(t *testing.T) {
			p, err := compose(t, read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			if err := checkCompose(p, shared); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestComposeMistakes: the test above sees what it is there to see.
func TestComposeMistakes(t *testing.T) {
	const one, many = "compose.yaml", "compose.postgres.yaml"
	for _, tt := range []struct{ file, old, new, want string }{
		{one, "read_only: true", "readonly: true", "services.lanyard.readonly"},
		{one, "read_only: true", "read_only: false", "read-only"},
		{one, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "capabilities"},
		{one, "cap_drop: [ALL]", "cap_drop: [ALL]\n    cap_add: [NET_BIND_SERVICE]", "capabilities"},
		{one, `["no-new-privileges:true"]`, `["seccomp:unconfined"]`, "privileges"},
		{one, `"65532:65532"`, `"0:0"`, "user"},
		{one, "network_mode: service:lanyard", "network_mode: host", "network"},
		{one, "stop_grace_period: 40s", "stop_grace_period: 5s", "stop"},
		{one, "mem_limit: 512m", "# mem_limit", "memory"},
		{one, "- lanyard-data:/data", "- /data", "volume"},
		{one, "condition: service_healthy", "condition: service_started", "healthy"},
		{one, `"80:8080"`, `"9080:9080"`, "9080"},
		{many, "replicas: 3", "replicas: 1", "replicas"},
		{many, "internal: true", "internal: false", "database"},
		{many, "networks: [database]", "networks: [default, database]", "database"},
		{many, "disable: true", "disable: false", "edge"},
	} {
		text := string(read(t, tt.file))
		broken := strings.Replace(text, tt.old, tt.new, 1)
		if broken == text {
			t.Errorf("%s has no %q", tt.file, tt.old)
			continue
		}
		p, err := compose(t, []byte(broken))
		if err == nil {
			err = checkCompose(p, tt.file == many)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %q: %v, want something about %q", tt.file, tt.new, err, tt.want)
		}
	}
}

// checkCompose looks for what the schema can't see. Shared says that the
// connections are in a database.
func checkCompose(p *types.Project, shared bool) error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for name, s := range p.Services {
		for _, port := range s.Ports {
			wrong(port.Target == 9080, "%s publishes 9080, the app's side", name)
		}
		if name != lanyardService && name != edgeService {
			continue
		}
		wrong(s.User != "65532:65532", "%s: user is %q", name, s.User)
		wrong(!s.ReadOnly, "%s: the root is not read-only", name)
		wrong(!slices.Contains(s.CapDrop, "ALL") || len(s.CapAdd) > 0 || s.Privileged, "%s: has capabilities", name)
		wrong(!slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "%s: may gain privileges", name)
		wrong(s.MemLimit == 0 || s.PidsLimit == 0, "%s: no limit of memory or processes", name)
	}
	lanyard, app := p.Services[lanyardService], p.Services["app"]
	wrong(lanyard.StopGracePeriod == nil || lanyard.StopGracePeriod.String() != "40s", "lanyard does not have 40 seconds to stop")
	wrong(app.DependsOn[lanyardService].Condition != types.ServiceConditionHealthy, "the app does not wait until lanyard is healthy")
	wrong(lanyard.HealthCheck != nil, "lanyard's health check is the image's")
	if shared {
		wrong(lanyard.Deploy == nil || lanyard.Deploy.Replicas == nil || *lanyard.Deploy.Replicas != 3, "not three replicas")
		wrong(len(lanyard.Ports) > 0, "several can't publish one port")
		_, outside := p.Services["postgres"].Networks["default"]
		wrong(outside || !p.Networks["database"].Internal, "the database is reached from outside")
		wrong(p.Services[edgeService].HealthCheck == nil || !p.Services[edgeService].HealthCheck.Disable, "the edge is no Lanyard: its health is not the image's")
		return errors.Join(errs...)
	}
	wrong(app.NetworkMode != "service:"+lanyardService, "the app does not share lanyard's network")
	wrong(!slices.ContainsFunc(lanyard.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Type == types.VolumeTypeVolume && v.Source != "" && v.Target == "/data"
	}), "there is no named volume at /data")
	return errors.Join(errs...)
}
