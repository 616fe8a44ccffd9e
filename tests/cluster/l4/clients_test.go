package l4

import (
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

func init() {
	tests = append(tests, clients)
}

var clients = confsuite.ConformanceTest{
	ShortName:   "ClientsInPodsAndOnNodes",
	Description: "Clients in a pod and on a node itself reach pods of both nodes, that very pod among them, over TCP and UDP, IPv4 and IPv6",
	Manifests:   []string{"manifests/clients.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		c := cluster{suite}
		addresses := addresses(t, suite, "clients")
		serves(t, addresses)
		// One of the pods that answer; one behind the same bridge that does not; and the node's own network, which agents live in.
		for _, where := range [][]corev1.Pod{c.pods(t, namespace, "every"), c.pods(t, namespace, "one"), c.pods(t, system, agent)} {
			for _, pod := range where {
				c.within(t, pod, func() {
					for _, address := range addresses {
						for protocol, ask := range map[string]func(netip.AddrPort) (answer, error){"tcp": tcp, "udp": udp} {
							nodes := map[string]int{}
							for range many {
								answer, err := ask(address)
								require.NoErrorf(t, err, "%s/%s from %s on %s", address, protocol, pod.Name, pod.Spec.NodeName)
								nodes[answer.node]++
							}
							assert.Lenf(t, nodes, 2, "%s/%s from %s on %s: pods of both nodes answer", address, protocol, pod.Name, pod.Spec.NodeName)
						}
					}
				})
			}
		}
	},
}

// within runs something in the network of a pod.
func (c cluster) within(t *testing.T, pod corev1.Pod, run func()) {
	t.Helper()
	own, err := os.Open("/proc/thread-self/ns/net")
	require.NoError(t, err)
	defer own.Close()
	pods, err := os.Open("/proc/" + c.process(t, pod) + "/ns/net")
	require.NoError(t, err)
	defer pods.Close()
	// What is dialled by an address is dialled by this very thread.
	runtime.LockOSThread()
	require.NoError(t, unix.Setns(int(pods.Fd()), unix.CLONE_NEWNET))
	defer func() {
		require.NoError(t, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET))
		runtime.UnlockOSThread()
	}()
	run()
}

// process is the id of a pod's process.
func (c cluster) process(t *testing.T, pod corev1.Pod) string {
	t.Helper()
	for line := range strings.Lines(c.harness(t, "cluster", "in", pod.Spec.NodeName, "ctr", "--namespace=k8s.io", "tasks", "list")) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == container(pod) {
			return words[1]
		}
	}
	require.Failf(t, "no process", "of %s/%s", pod.Namespace, pod.Name)
	return ""
}
