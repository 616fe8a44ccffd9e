package l4

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// How many connections show a share: with two shares of a half each, one of both has fewer than 60 of 200 once in ten million runs.
const (
	many = 200
	few  = 60
)

func init() {
	tests = append(tests, echo, weightZero, deadBackend, clientAddress, drain, move, listenerSet, notAllowed)
}

var echo = confsuite.ConformanceTest{
	ShortName:   "BothFamiliesOverTCPAndUDP",
	Description: "Clients outside reach pods on every node over TCP and UDP, IPv4 and IPv6, and replies come from the dialled address",
	Manifests:   []string{"manifests/echo.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		for _, address := range addresses(t, suite, "echo") {
			serves(t, []netip.AddrPort{address})
			for protocol, ask := range map[string]func(netip.AddrPort) (answer, error){"tcp": tcp, "udp": udp} {
				nodes := map[string]int{}
				for range many {
					answer, err := ask(address)
					require.NoErrorf(t, err, "%s/%s", address, protocol)
					nodes[answer.node]++
				}
				assert.Lenf(t, nodes, 2, "%s/%s: pods of both nodes answer", address, protocol)
			}
		}
	},
}

var weightZero = confsuite.ConformanceTest{
	ShortName:   "WeightZeroGetsNothing",
	Description: "A backendRef of weight 0 gets no connection and no datagram",
	Manifests:   []string{"manifests/weight-zero.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		for _, address := range addresses(t, suite, "weight-zero") {
			serves(t, []netip.AddrPort{address})
			for protocol, ask := range map[string]func(netip.AddrPort) (answer, error){"tcp": tcp, "udp": udp} {
				for range many {
					answer, err := ask(address)
					require.NoErrorf(t, err, "%s/%s", address, protocol)
					require.Truef(t, strings.HasPrefix(answer.pod, "one-"), "%s/%s: %s answers", address, protocol, answer.pod)
				}
			}
		}
	},
}

var deadBackend = confsuite.ConformanceTest{
	ShortName:   "ShareOfADeadBackendIsRefused",
	Description: "The share of a backendRef without endpoints is refused at once, and nobody else gets it",
	Manifests:   []string{"manifests/dead-backend.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		tcpRefused := func(address netip.AddrPort) (bool, error) {
			_, err := tcp(address)
			if errors.Is(err, syscall.ECONNREFUSED) {
				return true, nil
			}
			return false, err
		}
		for _, address := range addresses(t, suite, "dead-backend") {
			eventually(t, settle, address.String()+" answers", func() error {
				_, err := tcp(address)
				return err
			})
			for protocol, refused := range map[string]func(netip.AddrPort) (bool, error){"tcp": tcpRefused, "udp": refusedUDP} {
				count := 0
				for range many {
					was, err := refused(address)
					require.NoErrorf(t, err, "%s/%s: neither answered nor refused", address, protocol)
					if was {
						count++
					}
				}
				assert.Greaterf(t, count, few, "%s/%s: refused of %d", address, protocol, many)
				assert.Lessf(t, count, many-few, "%s/%s: refused of %d", address, protocol, many)
			}
		}
	},
}

var clientAddress = confsuite.ConformanceTest{
	ShortName:   "PodOnTheReceivingNodeSeesTheClient",
	Description: "A pod sees the client's own address where the node that receives a packet has the pod, and that node's address elsewhere",
	Manifests:   []string{"manifests/client-address.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		own := map[bool]netip.Addr{true: netip.MustParseAddr("172.30.0.1"), false: netip.MustParseAddr("fd00:172:30::1")}
		nodes := nodeAddresses(t, suite)
		for _, address := range addresses(t, suite, "client-address") {
			is4 := address.Addr().Is4()
			for receiver, receives := range nodes {
				// Of all routes the narrowest counts: past the one that leads to every node alike.
				route := []string{"route", "replace", address.Addr().String(), "via", receives[is4].String()}
				require.NoError(t, exec.Command("ip", route...).Run())
				t.Cleanup(func() { _ = exec.Command("ip", "route", "del", address.Addr().String()).Run() })
				serves(t, []netip.AddrPort{address})
				for protocol, ask := range map[string]func(netip.AddrPort) (answer, error){"tcp": tcp, "udp": udp} {
					seen := map[string]int{}
					for range many {
						answer, err := ask(address)
						require.NoErrorf(t, err, "%s/%s", address, protocol)
						expected := own[is4]
						if answer.node != receiver {
							expected = receives[is4]
						}
						require.Equalf(t, expected, answer.client, "%s/%s: received by %s, served on %s", address, protocol, receiver, answer.node)
						seen[answer.node]++
					}
					assert.Lenf(t, seen, 2, "%s/%s: pods of both nodes answer", address, protocol)
				}
			}
		}
	},
}

var drain = confsuite.ConformanceTest{
	ShortName:   "TerminatingPodKeepsItsConnections",
	Description: "Connections of a pod that is being deleted go on, and new ones go to others",
	Manifests:   []string{"manifests/drain.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		cluster{suite}.isScaled(t, "drain", 2)
		address := addresses(t, suite, "drain")[0]
		serves(t, []netip.AddrPort{address})
		connection, err := open(address)
		require.NoError(t, err)
		defer connection.Close()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: connection.answer.pod}}
		require.NoError(t, suite.Client.Delete(context.Background(), pod))
		eventually(t, settle, "new connections go to others", func() error {
			for range 20 {
				answer, err := tcp(address)
				if err != nil {
					t.Errorf("a new connection failed: %v", err)
				}
				if answer.pod == pod.Name {
					return fmt.Errorf("%s still gets new connections", pod.Name)
				}
			}
			return nil
		})
		for range 20 {
			require.NoError(t, connection.say("still here"))
		}
	},
}

var move = confsuite.ConformanceTest{
	ShortName:   "RouteMovesBetweenGateways",
	Description: "A route that names another Gateway serves there, and no longer where it was",
	Manifests:   []string{"manifests/move.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		from, to := addresses(t, suite, "move-from"), addresses(t, suite, "move-to")
		serves(t, from)
		refuses(t, to)
		route := &gatewayv1.TCPRoute{}
		require.NoError(t, suite.Client.Get(context.Background(), types.NamespacedName{Namespace: namespace, Name: "move"}, route))
		before := route.DeepCopy()
		route.Spec.ParentRefs[0].Name = "move-to"
		require.NoError(t, suite.Client.Patch(context.Background(), route, client.MergeFrom(before)))
		serves(t, to)
		refuses(t, from)
	},
}

var listenerSet = confsuite.ConformanceTest{
	ShortName:   "ListenerSetCarriesTraffic",
	Description: "A listener of a ListenerSet serves at the Gateway's addresses",
	Manifests:   []string{"manifests/listener-set.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		serves(t, addresses(t, suite, "listener-set"))
	},
}

var notAllowed = confsuite.ConformanceTest{
	ShortName:   "RouteOfANamespaceThatIsNotAllowed",
	Description: "A route of a namespace that its listener does not allow is told so, and gets no traffic",
	Manifests:   []string{"manifests/not-allowed.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		gateway := types.NamespacedName{Namespace: namespace, Name: "not-allowed"}
		route := types.NamespacedName{Namespace: other, Name: "not-allowed"}
		kubernetes.TCPRouteMustHaveCondition(t, suite.Client, suite.TimeoutConfig, route, gateway, metav1.Condition{
			Type:   string(gatewayv1.RouteConditionAccepted),
			Status: metav1.ConditionFalse,
			Reason: string(gatewayv1.RouteReasonNotAllowedByListeners),
		})
		refuses(t, addresses(t, suite, "not-allowed"))
	},
}

// nodeAddresses are the nodes' own, by name and by family.
func nodeAddresses(t *testing.T, suite *confsuite.ConformanceTestSuite) map[string]map[bool]netip.Addr {
	t.Helper()
	list := &corev1.NodeList{}
	require.NoError(t, suite.Client.List(context.Background(), list))
	nodes := map[string]map[bool]netip.Addr{}
	for _, node := range list.Items {
		nodes[node.Name] = map[bool]netip.Addr{}
		for _, address := range node.Status.Addresses {
			if parsed, err := netip.ParseAddr(address.Address); err == nil && address.Type == corev1.NodeInternalIP {
				nodes[node.Name][parsed.Is4()] = parsed
			}
		}
	}
	return nodes
}
