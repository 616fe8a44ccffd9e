package l4

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

func init() {
	tests = append(tests, besideKubeProxy)
}

var besideKubeProxy = confsuite.ConformanceTest{
	ShortName:   "KubeProxyReachesTheSamePods",
	Description: "Pods that a route leads to are reached by a NodePort of each node from outside, and by a ClusterIP from nodes and pods, as without Blixt",
	Manifests:   []string{"manifests/kube-proxy.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		c := cluster{suite}
		// Now agents know the pods as backends; and connections that are closed hold ports of nodes, which kube-proxy chooses among.
		// A client of UDP never closes: none asks these pods by the Gateway here (docs/kubernetes/troubleshooting.md says why).
		for _, address := range addresses(t, suite, "kube-proxy") {
			serves(t, []netip.AddrPort{address})
			for range many {
				_, err := tcp(address)
				require.NoError(t, err)
			}
		}
		service := &corev1.Service{}
		key := types.NamespacedName{Namespace: namespace, Name: "kube-proxy"}
		require.NoError(t, suite.Client.Get(context.Background(), key, service))
		for _, port := range service.Spec.Ports {
			ask := tcp
			if port.Protocol == corev1.ProtocolUDP {
				ask = udp
			}
			reaches := func(address netip.Addr, number int32, from string) {
				to := netip.AddrPortFrom(address, uint16(number))
				// kube-proxy has its own time to see the Service.
				eventually(t, settle, to.String()+" answers "+from, func() error {
					_, err := ask(to)
					return err
				})
				for range few {
					_, err := ask(to)
					require.NoErrorf(t, err, "%s/%s from %s", to, port.Name, from)
				}
			}
			for node, families := range nodeAddresses(t, suite) {
				for _, address := range families {
					reaches(address, port.NodePort, "outside, by "+node)
				}
			}
			for _, where := range [][]corev1.Pod{c.pods(t, system, agent), c.pods(t, namespace, "one")} {
				for _, pod := range where {
					c.within(t, pod, func() {
						for _, text := range service.Spec.ClusterIPs {
							reaches(netip.MustParseAddr(text), port.Port, pod.Name+" on "+pod.Spec.NodeName)
						}
					})
				}
			}
		}
	},
}
