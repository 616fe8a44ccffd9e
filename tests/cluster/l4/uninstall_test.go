package l4

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

const (
	// What it was installed by, in the working directory.
	installed = "install.yaml"
	// Where the directory `deploy` is.
	deploy = "BLIXT_DEPLOY"
	// How long the kernel may take to let go of what was removed.
	release = 10 * time.Second
)

var uninstall = confsuite.ConformanceTest{
	ShortName:   "UninstallingLeavesNothing",
	Description: "A node that agents leave is cleaned up by a pod, and `kubectl delete` of all that was applied leaves no trace on any node and none in the API server",
	Manifests:   []string{"manifests/uninstall.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		c := cluster{suite}
		addresses := addresses(t, suite, "uninstall")
		serves(t, addresses)
		nodes := []string{"node1", "node2"}
		for _, node := range nodes {
			require.NotEmptyf(t, c.traces(t, node), "%s serves", node)
			require.NotEmptyf(t, c.programs(t, node), "%s serves", node)
		}

		t.Run("OfOneNode", func(t *testing.T) {
			programs := c.programs(t, "node2")
			c.changeAgents(t, func(set *appsv1.DaemonSet) {
				set.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "node1"}
			})
			c.isReady(t, agent)
			eventually(t, back, "the agent leaves node2", func() error { return c.isGone("node2") })
			require.Equal(t, programs, c.programs(t, "node2"), "forwarding stays without its agent")
			c.cleanUp(t, "node2")
			c.leavesNothing(t, "node2", programs, "/var/lib/blixt/node2")
			c.changeAgents(t, func(set *appsv1.DaemonSet) { set.Spec.Template.Spec.NodeSelector = nil })
			c.isReady(t, agent)
			serves(t, addresses)
		})

		t.Run("OfAllOfIt", func(t *testing.T) {
			programs := map[string][]int{}
			for _, node := range nodes {
				programs[node] = c.programs(t, node)
				require.NotEmptyf(t, programs[node], "%s serves", node)
			}
			c.harness(t, "cluster", "kubectl", "--", "delete", "--filename="+installed, "--timeout=2m")
			for _, node := range nodes {
				c.leavesNothing(t, node, programs[node])
			}
			c.isForgotten(t)
			for _, address := range addresses {
				_, err := tcp(address)
				require.Errorf(t, err, "%s: nobody answers", address)
			}
		})
	},
}

// isGone says whether a node has no agent's pod.
func (c cluster) isGone(node string) error {
	pods := &corev1.PodList{}
	if err := c.Client.List(context.Background(), pods, client.InNamespace(system)); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Spec.NodeName == node && strings.HasPrefix(pod.Name, agent+"-") {
			return fmt.Errorf("%s is there", pod.Name)
		}
	}
	return nil
}

// cleanUp runs the pod that cleans a node up, as the documentation says.
func (c cluster) cleanUp(t *testing.T, node string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv(deploy), "cleanup.yaml"))
	require.NoErrorf(t, err, "%s: run by `cargo xtask conformance`", deploy)
	file := filepath.Join(t.TempDir(), "cleanup.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "NODE", node)), 0o600))
	c.harness(t, "cluster", "kubectl", "--", "apply", "--filename="+file)
	eventually(t, back, "the pod has cleaned "+node+" up", func() error {
		pod := &corev1.Pod{}
		err := c.Client.Get(context.Background(), types.NamespacedName{Namespace: system, Name: "blixt-cleanup"}, pod)
		if err == nil && pod.Status.Phase != corev1.PodSucceeded {
			err = fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return err
	})
	c.harness(t, "cluster", "kubectl", "--", "delete", "--filename="+file)
}

// leavesNothing waits until nothing of Blixt is left on a node, and none of these programs in the kernel. Files that the documentation
// leaves to whoever cleans up are removed as it says.
func (c cluster) leavesNothing(t *testing.T, node string, programs []int, files ...string) {
	t.Helper()
	for _, file := range files {
		c.harness(t, "cluster", "in", node, "rm", "-r", file)
	}
	eventually(t, release, "nothing is left on "+node, func() error {
		if traces := c.traces(t, node); len(traces) > 0 {
			return fmt.Errorf("there are %s", strings.Join(traces, "; "))
		}
		return nil
	})
	eventually(t, release, "no program of "+node+" is left", func() error {
		loaded := c.harness(t, "cluster", "in", node, "bpftool", "prog", "show")
		for _, program := range programs {
			if strings.Contains("\n"+loaded, fmt.Sprintf("\n%d: ", program)) {
				return fmt.Errorf("there is program %d", program)
			}
		}
		return nil
	})
}

// traces are the pins, files, devices, rules, routes and filters that Blixt has on a node.
func (c cluster) traces(t *testing.T, node string) []string {
	t.Helper()
	const look = `
find /sys/fs/bpf -path '*blixt*'
find /run/blixt /var/lib/blixt -mindepth 1
ip -oneline link | grep blixt
for family in -4 -6; do ip $family rule | grep -w 9641; ip $family route show table 9641; done
tc qdisc show | grep clsact
true`
	var traces []string
	for line := range strings.Lines(c.harness(t, "cluster", "in", node, "sh", "-c", look)) {
		traces = append(traces, strings.TrimSpace(line))
	}
	return traces
}

// programs are the ids of those that Blixt has at a node's devices.
func (c cluster) programs(t *testing.T, node string) []int {
	t.Helper()
	const show = "find /sys/fs/bpf/blixt -name 'link-*' -exec bpftool --json link show pinned {} ';'"
	var programs []int
	for line := range strings.Lines(c.harness(t, "cluster", "in", node, "sh", "-c", show)) {
		link := struct {
			Program int `json:"prog_id"`
		}{}
		require.NoErrorf(t, json.Unmarshal([]byte(line), &link), "%s", line)
		programs = append(programs, link.Program)
	}
	return programs
}

// isForgotten looks for what the API server could still have of Blixt: definitions, rights, a namespace, finalizers on what is left.
func (c cluster) isForgotten(t *testing.T) {
	t.Helper()
	err := c.Client.Get(context.Background(), types.NamespacedName{Name: system}, &corev1.Namespace{})
	assert.Truef(t, apierrors.IsNotFound(err), "namespace %s: %v", system, err)
	for _, list := range []client.ObjectList{
		&apiextensionsv1.CustomResourceDefinitionList{}, &rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{},
	} {
		require.NoError(t, c.Client.List(context.Background(), list))
		text, err := json.Marshal(list)
		require.NoError(t, err)
		assert.NotContainsf(t, string(text), "blixt", "%T", list)
	}
	for _, kind := range []string{"GatewayClass", "Gateway", "TCPRoute", "UDPRoute"} {
		objects := list(kind)
		require.NoError(t, c.Client.List(context.Background(), objects))
		for _, object := range objects.Items {
			assert.Emptyf(t, object.GetFinalizers(), "%s %s", kind, object.GetName())
		}
	}
}
