package main

import (
	"strings"
	"testing"
)

const chart = "../../../deploy/chart"

func rendered(t *testing.T, assignments ...string) string {
	t.Helper()
	text, err := render(chart, "blixt-system", assignments)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Each value, and what it alone adds.
func TestValuesDoWhatTheySay(t *testing.T) {
	usual := rendered(t)
	for _, test := range []struct{ value, adds string }{
		{"namespace.create=true", "kind: Namespace\n"},
		{"gatewayClass.parameters=home", "  parametersRef:\n    group: blixt.dev\n    kind: BlixtClass\n    name: home"},
		{"gatewayClass.name=edge", "kind: GatewayClass\nmetadata:\n  name: edge"},
		{"secrets.read=true", "resources: [secrets]"},
		{"secrets.read=true", "- --secrets\n"},
		{"image.repository=registry.example/blixt", "image: registry.example/blixt:"},
		{"image.tag=edge", "image: localhost/blixt:edge\n"},
		{"imagePullSecrets[0]=pull", "imagePullSecrets:\n        - name: pull\n"},
		{"log.filter=debug", "value: \"debug\""},
		{"log.format=json", "--log-format=json"},
		{"controller.replicas=3", "replicas: 3"},
		{"controller.port=9700", "--listen=127.0.0.1:9700"},
		{"controller.extraArgs[0]=--help", "- \"--help\""},
		{"agent.controller=https://10.0.0.5:9645", "--controller=https://10.0.0.5:9645\n"},
		{"agent.interfaces[0]=eth*", "- \"--interface=eth*\""},
		{"agent.hook=xdp", "--hook=xdp"},
		{"agent.flows=2000000", "--flows=2000000\n"},
		{"agent.frontends=500", "--frontends=500\n"},
		{"agent.backends=9000", "--backends=9000\n"},
		{"agent.port=9700", "port: 9700\n              path: /readyz"},
		{"agent.capabilities={BPF,NET_RAW}", "- NET_RAW"},
		{"agent.seLinuxOptions.type=spc_t", "seLinuxOptions:\n              type: spc_t"},
		{"agent.podLabels.team=net", "team: net"},
		{"agent.podAnnotations.note=x", "annotations:\n        note: x"},
	} {
		if strings.Contains(usual, test.adds) {
			t.Errorf("%q is there without %s", test.adds, test.value)
		}
		if text := rendered(t, test.value); !strings.Contains(text, test.adds) {
			t.Errorf("%s: %q is missing in\n%s", test.value, test.adds, text)
		}
	}
}

// Each value, and what it takes away.
func TestPartsCanBeLeftOut(t *testing.T) {
	usual := rendered(t)
	for _, test := range []struct{ value, removes string }{
		{"gatewayClass.create=false", "kind: GatewayClass\n"},
		{"crds.install=false", "kind: CustomResourceDefinition\n"},
		{"networkPolicy.create=false", "kind: NetworkPolicy\n"},
		{"controller.replicas=1", "kind: PodDisruptionBudget\n"},
		{"agent.flows=0", "--flows="},
	} {
		if !strings.Contains(usual, test.removes) {
			t.Errorf("%q is not there to begin with", test.removes)
		}
		if strings.Contains(rendered(t, test.value), test.removes) {
			t.Errorf("%s: %q is still there", test.value, test.removes)
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for _, value := range []string{
		"agent.flow=1",
		"unknown=1",
		"agent.hook=ebpf",
		"agent.flows=-1",
		"agent.port=70000",
		"agent.controller=http://10.0.0.5:9645",
		"controller.replicas=0",
		"gatewayClass.name=Edge",
		"image.tag=a b",
		"log.format=xml",
		"secrets.read=perhaps",
	} {
		if _, err := render(chart, "blixt-system", []string{value}); err == nil {
			t.Errorf("%s is taken", value)
		}
	}
}

// Nothing runs as more than it has to.
func TestPrivilegesAreThoseThatTheDocsName(t *testing.T) {
	text := rendered(t, "secrets.read=true")
	for _, banned := range []string{"privileged: true", "hostPID", "hostIPC", "verbs: [\"*\"]", "resources: [\"*\"]", "SYS_ADMIN"} {
		if strings.Contains(text, banned) {
			t.Errorf("%q is in the manifests", banned)
		}
	}
	for _, wanted := range []string{"allowPrivilegeEscalation: false", "readOnlyRootFilesystem: true", "drop: [ALL]"} {
		if found := strings.Count(text, wanted); found != 2 {
			t.Errorf("%q: %d containers of 2 have it", wanted, found)
		}
	}
}
