package l4

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

const (
	// How long Blixt goes on without its controller, and without the API server.
	away = time.Minute
	// How long it goes on without anything else.
	shortly = 15 * time.Second
)

var faults = confsuite.ConformanceTest{
	ShortName:   "NoConnectionFailsMeanwhile",
	Description: "While parts of Blixt and of the cluster restart, are rolled or are away, and while backends and nodes come and go, no connection fails and no condition turns; what was changed meanwhile arrives",
	Manifests:   []string{"manifests/faults.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		c := cluster{suite}
		c.isScaled(t, "scaled", 1)
		turning := &turning{cluster: c}
		turning.turn(t)
		turning.addresses = addresses(t, suite, "turning")
		addresses := addresses(t, suite, "faults")
		turning.arrives(t)
		during := func(what string, happen func(t *testing.T)) { during(t, suite, addresses, what, happen) }

		during("AnAgentIsKilled", func(t *testing.T) {
			for _, pod := range c.pods(t, system, agent) {
				c.signal(t, pod, "KILL")
				turning.turn(t)
				turning.arrives(t)
			}
			c.isReady(t, agent)
		})
		during("TheDaemonSetIsRolled", func(t *testing.T) {
			c.roll(t)
			c.isReady(t, agent)
		})
		during("TheLeaderIsKilled", func(t *testing.T) {
			pod, holder := c.leader(t)
			c.signal(t, pod, "KILL")
			turning.turn(t)
			c.leads(t, "another process leads", func(now string) bool { return now != holder })
			turning.arrives(t)
			c.isReady(t, controller)
		})
		during("TheLeaderIsPaused", func(t *testing.T) {
			pod, holder := c.leader(t)
			c.signal(t, pod, "STOP")
			defer c.signal(t, pod, "CONT")
			c.leads(t, "the other pod leads", func(now string) bool { return !strings.HasPrefix(now, pod.Name+"_") })
			turning.turn(t)
			turning.arrives(t)
			c.changeRoute(t, "turning")
			_, leads := c.leader(t)
			c.signal(t, pod, "CONT")
			time.Sleep(shortly)
			now, err := c.holder()
			require.NoError(t, err)
			require.Equalf(t, leads, now, "%s goes on, and leads no more", holder)
			turning.turn(t)
			turning.arrives(t)
			c.isReady(t, controller)
		})
		during("TheControllerIsAway", func(t *testing.T) {
			replicas := c.scale(t, system, controller, 0)
			time.Sleep(away)
			turning.turn(t)
			c.scale(t, system, controller, replicas)
			turning.arrives(t)
			c.isReady(t, controller)
		})
		during("TheAPIServerIsAway", func(t *testing.T) {
			c.harness(t, "cluster", "kill", "apiserver")
			time.Sleep(away)
			c.harness(t, "cluster", "start", "apiserver")
			turning.turn(t)
			turning.arrives(t)
			c.isReady(t, agent)
			c.isReady(t, controller)
		})
		during("EtcdIsKilled", func(t *testing.T) {
			c.harness(t, "cluster", "kill", "etcd")
			time.Sleep(shortly)
			c.harness(t, "cluster", "start", "etcd")
			turning.turn(t)
			turning.arrivesWithin(t, back)
			c.isReady(t, controller)
		})
		during("ContainerdIsKilled", func(t *testing.T) {
			c.harness(t, "cluster", "kill", "containerd-node2")
			time.Sleep(shortly)
			turning.turn(t)
			turning.arrives(t)
			c.harness(t, "cluster", "start", "containerd-node2")
			c.isReady(t, agent)
			c.isReady(t, controller)
		})
		during("BackendsComeAndGo", func(t *testing.T) {
			c.scale(t, namespace, "scaled", 10)
			c.isScaled(t, "scaled", 10)
			time.Sleep(5 * time.Second)
			c.scale(t, namespace, "scaled", 1)
			c.isScaled(t, "scaled", 1)
		})
		during("ANodeIsDrained", func(t *testing.T) {
			c.harness(t, "cluster", "kubectl", "--", "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=2m")
			defer c.harness(t, "cluster", "kubectl", "--", "uncordon", "node2")
			c.isScaled(t, "scaled", 1)
			c.isReady(t, controller)
			c.says(t, "2/2 nodes")
			turning.turn(t)
			turning.arrives(t)
		})
		during("ANodeVanishes", func(t *testing.T) {
			// The patience of others with nodes is as long as the API server may be away.
			c.watchNodes(t, 20*time.Second)
			defer c.watchNodes(t, 90*time.Second)
			c.harness(t, "cluster", "kill", "kubelet-node2")
			c.says(t, "1/1 nodes", "not ready and not counted: node2")
			turning.turn(t)
			turning.arrives(t)
			c.harness(t, "cluster", "start", "kubelet-node2")
			c.says(t, "2/2 nodes")
			c.isScaled(t, "scaled", 1)
		})
	},
}

// changeRoute changes a route in what nobody sees but its status, and waits until that speaks of it.
func (c cluster) changeRoute(t *testing.T, name string) {
	t.Helper()
	route := &gatewayv1.TCPRoute{}
	require.NoError(t, c.Client.Get(context.Background(), types.NamespacedName{Namespace: namespace, Name: name}, route))
	before := route.DeepCopy()
	route.Spec.Rules[0].BackendRefs[0].Weight = new(int32(7))
	require.NoError(t, c.Client.Patch(context.Background(), route, client.MergeFrom(before)))
	require.NotEqual(t, before.Generation, route.Generation)
	eventually(t, settle, "the route's new generation is in force", func() error { return routesAreInForce(c.ConformanceTestSuite, name) })
}

// leads waits for a holder of the Lease of that kind.
func (c cluster) leads(t *testing.T, what string, is func(holder string) bool) {
	t.Helper()
	eventually(t, back, what, func() error {
		holder, err := c.holder()
		if err == nil && !is(holder) {
			err = fmt.Errorf("%s leads", holder)
		}
		return err
	})
}

// watchNodes has a node that says nothing for so long taken for not ready.
func (c cluster) watchNodes(t *testing.T, patience time.Duration) {
	t.Helper()
	c.harness(t, "cluster", "kill", "controller-manager")
	c.harness(t, "cluster", "start", "controller-manager", "--", "--node-monitor-grace-period="+patience.String())
}

// says waits until the Gateway's condition Programmed has these words in its message.
func (c cluster) says(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, back, fmt.Sprintf("Programmed says %q", words), func() error {
		gateway := &gatewayv1.Gateway{}
		if err := c.Client.Get(context.Background(), types.NamespacedName{Namespace: namespace, Name: "faults"}, gateway); err != nil {
			return err
		}
		for _, condition := range gateway.Status.Conditions {
			if condition.Type != string(gatewayv1.GatewayConditionProgrammed) {
				continue
			}
			for _, word := range words {
				if !strings.Contains(condition.Message, word) {
					return fmt.Errorf("it says %q", condition.Message)
				}
			}
			return nil
		}
		return errors.New("it says nothing")
	})
}
