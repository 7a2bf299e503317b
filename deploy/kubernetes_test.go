package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// manifests is what one file of kubernetes/ holds.
type manifests struct {
	config     corev1.ConfigMap
	claim      corev1.PersistentVolumeClaim
	deployment appsv1.Deployment
	service    corev1.Service
	policy     networkingv1.NetworkPolicy
	budget     policyv1.PodDisruptionBudget
}

// decode reads a file by the types of the API server, to which an unknown or
// repeated field is an error.
func decode(text []byte) (m manifests, err error) {
	into := map[string]any{
		"v1/ConfigMap": &m.config, "v1/PersistentVolumeClaim": &m.claim, "v1/Service": &m.service,
		"apps/v1/Deployment": &m.deployment, "networking.k8s.io/v1/NetworkPolicy": &m.policy, "policy/v1/PodDisruptionBudget": &m.budget,
	}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var head struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(doc, &head); err != nil {
			return m, err
		}
		kind := head.APIVersion + "/" + head.Kind
		if into[kind] == nil {
			return m, fmt.Errorf("%s: unknown, or there twice", kind)
		}
		if err := yaml.UnmarshalStrict(append(bytes.Clone(doc), '\n'), into[kind]); err != nil {
			return m, fmt.Errorf("%s: %w", kind, err)
		}
		delete(into, kind)
	}
	return m, nil
}

func TestKubernetes(t *testing.T) {
	for file, shared := range map[string]bool{"kubernetes/sidecar.yaml": false, "kubernetes/postgres.yaml": true} {
		t.Run(file, func(t *testing.T) {
			m, err := decode(read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.check(shared); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKubernetesMistakes: the test above sees what it is there to see.
func TestKubernetesMistakes(t *testing.T) {
	const one, many = "kubernetes/sidecar.yaml", "kubernetes/postgres.yaml"
	for _, tt := range []struct{ file, old, new, want string }{
		{one, "runAsUser: 65532", "runAsUsr: 65532", `unknown field`},
		{one, "terminationGracePeriodSeconds", "hostNetwork: true\n      terminationGracePeriodSeconds", "the host's"},
		{one, "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"},
		{one, "runAsUser: 65532", "runAsUser: 0", "user"},
		{one, "allowPrivilegeEscalation: false", "privileged: true", "privilege"},
		{one, "drop: [ALL]", "drop: [NET_RAW]", "capabilities"},
		{one, "drop: [ALL]", "drop: [ALL]\n              add: [NET_ADMIN]", "capabilities"},
		{one, "type: RuntimeDefault", "type: Unconfined", "seccomp"},
		{one, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "read-only"},
		{one, "persistentVolumeClaim:\n            claimName: lanyard", "hostPath:\n            path: /data", "hostPath"},
		{one, "claimName: lanyard", "claimName: other", "claim"},
		{one, "type: Recreate", "type: RollingUpdate", "Recreate"},
		{one, "replicas: 1", "replicas: 2", "Recreate"},
		{one, "restartPolicy: Always", "restartPolicy: OnFailure", "sidecar"},
		{one, "{name: data, mountPath: /data}", "{name: date, mountPath: /data}", `no volume "date"`},
		{one, "[/caddy, lanyard, health, --live]", "[/bin/true]", "probe"},
		{one, "limits: {memory: 512Mi}", "limits: {cpu: 100m}", "memory"},
		{one, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "token"},
		{one, "enableServiceLinks: false", "enableServiceLinks: true", "service links"},
		{one, "targetPort: connect", "targetPort: conect", "port conect"},
		{one, "selector: {app: your-app}", "selector: {app: other}", "select"},
		{one, "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "NetworkPolicy"},
		{many, "replicas: 3", "replicas: 1", "replicas"},
		{many, "maxUnavailable: 0", "maxUnavailable: 1", "rolling"},
		{many, "  maxUnavailable: 1\n", "  maxUnavailable: 0\n", "budget"},
	} {
		text := string(read(t, tt.file))
		broken := strings.Replace(text, tt.old, tt.new, 1)
		if broken == text {
			t.Errorf("%s has no %q", tt.file, tt.old)
			continue
		}
		m, err := decode([]byte(broken))
		if err == nil {
			err = m.check(tt.file == many)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %q: %v, want something about %q", tt.file, tt.new, err, tt.want)
		}
	}
}

// check looks for what decoding can't see. Shared says that the connections are
// in a database.
func (m *manifests) check(shared bool) error {
	spec := &m.deployment.Spec
	pod := &spec.Template.Spec
	errs := []error{restricted(pod), m.references()}
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(isNot(pod.AutomountServiceAccountToken, false), "the pod has the service account's token")
	wrong(isNot(pod.EnableServiceLinks, false), "the pod has service links in its environment")
	wrong(pod.TerminationGracePeriodSeconds == nil || *pod.TerminationGracePeriodSeconds < 40, "the pod has less than 40 seconds to stop")
	if shared {
		rolling := spec.Strategy.RollingUpdate
		wrong(isNot(spec.Replicas, 3), "not three replicas")
		wrong(rolling == nil || rolling.MaxUnavailable.IntValue() != 0, "not a rolling update that keeps all replicas up")
		wrong(m.budget.Spec.MaxUnavailable == nil || m.budget.Spec.MaxUnavailable.IntValue() != 1, "the disruption budget does not let one pod go")
	} else {
		wrong(isNot(spec.Replicas, 1) || spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType, "the store has one owner: one replica and Recreate")
	}
	types := m.policy.Spec.PolicyTypes
	wrong(!slices.Contains(types, networkingv1.PolicyTypeIngress) || !slices.Contains(types, networkingv1.PolicyTypeEgress), "the NetworkPolicy leaves a direction open")

	if len(pod.InitContainers) != 1 {
		return errors.Join(append(errs, errors.New("not one sidecar"))...)
	}
	c := &pod.InitContainers[0]
	wrong(isNot(c.RestartPolicy, corev1.ContainerRestartPolicyAlways), "it is no native sidecar")
	wrong(isNot(c.SecurityContext.RunAsUser, 65532), "the sidecar is not the user 65532")
	for _, want := range []struct {
		probe *corev1.Probe
		flag  string
	}{{c.StartupProbe, "--ready"}, {c.ReadinessProbe, "--live"}, {c.LivenessProbe, "--live"}} {
		wrong(want.probe == nil || want.probe.Exec == nil || !slices.Equal(want.probe.Exec.Command, []string{"/caddy", "lanyard", "health", want.flag}) ||
			want.probe.TimeoutSeconds < 5, "a probe is not lanyard health %s, with the time to start a program", want.flag)
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		wrong(isNot(c.SecurityContext.ReadOnlyRootFilesystem, true), "%s: the root is not read-only", c.Name)
		wrong(c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero(), "%s: no memory limit, or no requests", c.Name)
	}
	return errors.Join(errs...)
}

// references finds names that nothing has.
func (m *manifests) references() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	pod := &m.deployment.Spec.Template
	for what, selector := range map[string]map[string]string{
		"the Deployment": m.deployment.Spec.Selector.MatchLabels, "the Service": m.service.Spec.Selector, "the NetworkPolicy": m.policy.Spec.PodSelector.MatchLabels,
	} {
		wrong(!maps.Equal(selector, pod.Labels), "%s does not select the pods", what)
	}
	if m.budget.Spec.Selector != nil {
		wrong(!maps.Equal(m.budget.Spec.Selector.MatchLabels, pod.Labels), "the budget does not select the pods")
	}
	volumes, ports := map[string]bool{}, map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		wrong(v.ConfigMap != nil && v.ConfigMap.Name != m.config.Name, "volume %s: no such ConfigMap", v.Name)
		wrong(v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName != m.claim.Name, "volume %s: no such claim", v.Name)
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, mount := range c.VolumeMounts {
			wrong(!volumes[mount.Name], "%s: there is no volume %q", c.Name, mount.Name)
			wrong(mount.SubPath != "", "%s: a subPath is never updated", c.Name)
		}
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
	}
	for _, p := range m.service.Spec.Ports {
		wrong(!ports[p.TargetPort.StrVal], "the Service: there is no port %s", p.TargetPort.StrVal)
	}
	for _, rule := range m.policy.Spec.Ingress {
		for _, p := range rule.Ports {
			wrong(!ports[p.Port.StrVal], "the NetworkPolicy: there is no port %s", p.Port.StrVal)
		}
	}
	return errors.Join(errs...)
}

// restricted holds a pod against the restricted Pod Security Standard:
// https://kubernetes.io/docs/concepts/security/pod-security-standards/.
func restricted(pod *corev1.PodSpec) error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(pod.HostNetwork || pod.HostPID || pod.HostIPC, "the pod has a namespace of the host's")
	for _, v := range pod.Volumes {
		s := v.VolumeSource
		wrong(s.HostPath != nil, "volume %s is a hostPath", v.Name)
		wrong(s.ConfigMap == nil && s.Secret == nil && s.EmptyDir == nil && s.PersistentVolumeClaim == nil && s.Projected == nil && s.DownwardAPI == nil && s.CSI == nil && s.Ephemeral == nil,
			"volume %s is of a type that is not allowed", v.Name)
	}
	all := pod.SecurityContext
	if all == nil {
		all = &corev1.PodSecurityContext{}
	}
	wrong(len(all.Sysctls) > 0, "sysctls are set")
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		own := c.SecurityContext
		if own == nil {
			own = &corev1.SecurityContext{}
		}
		wrong(isNot(or(own.RunAsNonRoot, all.RunAsNonRoot), true), "%s: no runAsNonRoot", c.Name)
		user := or(own.RunAsUser, all.RunAsUser)
		wrong(user == nil || *user == 0, "%s: user is root, or the image's", c.Name)
		wrong(isNot(own.AllowPrivilegeEscalation, false) || own.Privileged != nil && *own.Privileged, "%s: may gain a privilege", c.Name)
		wrong(own.ProcMount != nil || own.SELinuxOptions != nil || own.AppArmorProfile != nil || own.WindowsOptions != nil, "%s: leaves a default of the standard", c.Name)
		caps := own.Capabilities
		wrong(caps == nil || !slices.Contains(caps.Drop, "ALL") || len(caps.Add) > 0, "%s: has capabilities", c.Name)
		seccomp := or(own.SeccompProfile, all.SeccompProfile)
		wrong(seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault && seccomp.Type != corev1.SeccompProfileTypeLocalhost, "%s: no seccomp profile", c.Name)
		for _, p := range c.Ports {
			wrong(p.HostPort != 0, "%s: takes a port of the host's", c.Name)
		}
	}
	return errors.Join(errs...)
}

func or[T any](own, all *T) *T {
	if own != nil {
		return own
	}
	return all
}

func isNot[T comparable](p *T, want T) bool { return p == nil || *p != want }

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
