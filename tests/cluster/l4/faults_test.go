package l4

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

const (
	// How Blixt is installed.
	system     = "blixt-system"
	controller = "blixt-controller"
	agent      = "blixt-agent"
	// The program that made the cluster, which can break it.
	harness = "BLIXT_XTASK"
	// How long something is away.
	away = time.Minute
	// How long programs and pods may take to be back.
	back = 3 * time.Minute
)

var faults = confsuite.ConformanceTest{
	ShortName:   "NoConnectionFailsMeanwhile",
	Description: "While parts of Blixt and of the cluster restart, are rolled or are away, and while backends come and go, no connection fails",
	Manifests:   []string{"manifests/faults.yaml"},
	Test: func(t *testing.T, suite *confsuite.ConformanceTestSuite) {
		addresses := addresses(t, suite, "faults")
		c := cluster{suite}
		c.isScaled(t, "scaled", 1)
		for _, address := range addresses {
			eventually(t, settle, "no share is refused", func() error {
				for range few {
					if _, err := tcp(address); err != nil {
						return err
					}
				}
				return nil
			})
		}
		during(t, addresses, "AnAgentIsKilled", func(t *testing.T) {
			for _, pod := range c.pods(t, agent) {
				c.kill(t, pod)
				time.Sleep(10 * time.Second)
			}
			c.isReady(t, agent)
		})
		during(t, addresses, "TheDaemonSetIsRolled", func(t *testing.T) {
			c.roll(t)
			c.isReady(t, agent)
		})
		during(t, addresses, "TheControllerIsAway", func(t *testing.T) {
			replicas := c.scale(t, system, controller, 0)
			time.Sleep(away)
			c.scale(t, system, controller, replicas)
			c.isReady(t, controller)
		})
		during(t, addresses, "TheAPIServerIsAway", func(t *testing.T) {
			c.harness(t, "cluster", "kill", "apiserver")
			time.Sleep(away)
			c.harness(t, "cluster", "start", "apiserver")
			c.isReady(t, agent)
			c.isReady(t, controller)
		})
		during(t, addresses, "BackendsComeAndGo", func(t *testing.T) {
			c.scale(t, namespace, "scaled", 10)
			c.isScaled(t, "scaled", 10)
			time.Sleep(5 * time.Second)
			c.scale(t, namespace, "scaled", 1)
			c.isScaled(t, "scaled", 1)
		})
	},
}

// A cluster is what faults are made in.
type cluster struct {
	*confsuite.ConformanceTestSuite
}

// pods are those of a Deployment or DaemonSet of Blixt's.
func (c cluster) pods(t *testing.T, name string) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	require.NoError(t, c.Client.List(context.Background(), list, client.InNamespace(system)))
	var pods []corev1.Pod
	for _, pod := range list.Items {
		if strings.HasPrefix(pod.Name, name+"-") {
			pods = append(pods, pod)
		}
	}
	require.NotEmptyf(t, pods, "pods of %s/%s", system, name)
	return pods
}

// kill ends a pod's process without a word; the kubelet starts it again.
func (c cluster) kill(t *testing.T, pod corev1.Pod) {
	t.Helper()
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	c.harness(t, "cluster", "in", pod.Spec.NodeName, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=KILL", id)
}

// roll has every pod of the DaemonSet replaced.
func (c cluster) roll(t *testing.T) {
	t.Helper()
	set := &appsv1.DaemonSet{}
	require.NoError(t, c.Client.Get(context.Background(), types.NamespacedName{Namespace: system, Name: agent}, set))
	before := set.DeepCopy()
	if set.Spec.Template.Annotations == nil {
		set.Spec.Template.Annotations = map[string]string{}
	}
	set.Spec.Template.Annotations["blixt.dev/rolled-at"] = time.Now().Format(time.RFC3339Nano)
	require.NoError(t, c.Client.Patch(context.Background(), set, client.MergeFrom(before)))
}

// scale sets the number of a Deployment's pods, and answers what it was.
func (c cluster) scale(t *testing.T, namespace, name string, replicas int32) int32 {
	t.Helper()
	deployment := &appsv1.Deployment{}
	require.NoError(t, c.Client.Get(context.Background(), types.NamespacedName{Namespace: namespace, Name: name}, deployment))
	before := deployment.DeepCopy()
	deployment.Spec.Replicas = &replicas
	require.NoError(t, c.Client.Patch(context.Background(), deployment, client.MergeFrom(before)))
	return *before.Spec.Replicas
}

// isReady waits for all pods of a Deployment or DaemonSet of Blixt's, of its newest template.
func (c cluster) isReady(t *testing.T, name string) {
	t.Helper()
	eventually(t, back, name+" is ready", func() error {
		key := types.NamespacedName{Namespace: system, Name: name}
		if name == agent {
			set := &appsv1.DaemonSet{}
			if err := c.Client.Get(context.Background(), key, set); err != nil {
				return err
			}
			status, wanted := set.Status, set.Status.DesiredNumberScheduled
			if status.ObservedGeneration != set.Generation || status.UpdatedNumberScheduled != wanted || status.NumberAvailable != wanted || wanted == 0 {
				return fmt.Errorf("status is %+v", status)
			}
			return nil
		}
		deployment := &appsv1.Deployment{}
		if err := c.Client.Get(context.Background(), key, deployment); err != nil {
			return err
		}
		status, wanted := deployment.Status, *deployment.Spec.Replicas
		if status.ObservedGeneration != deployment.Generation || status.UpdatedReplicas != wanted || status.AvailableReplicas != wanted {
			return fmt.Errorf("status is %+v", status)
		}
		return nil
	})
}

// isScaled waits until so many pods of a Deployment are there and all of them available, and no more.
func (c cluster) isScaled(t *testing.T, name string, pods int) {
	t.Helper()
	eventually(t, back, fmt.Sprintf("%s has %d pods", name, pods), func() error {
		list := &corev1.PodList{}
		if err := c.Client.List(context.Background(), list, client.InNamespace(namespace), client.MatchingLabels{"app": name}); err != nil {
			return err
		}
		available := 0
		for _, pod := range list.Items {
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
					available++
				}
			}
		}
		if len(list.Items) != pods || available != pods {
			return fmt.Errorf("there are %d, %d of them ready", len(list.Items), available)
		}
		return nil
	})
}

// harness runs a command of the program that made the cluster.
func (c cluster) harness(t *testing.T, args ...string) {
	t.Helper()
	program := os.Getenv(harness)
	require.NotEmptyf(t, program, "%s: run by `cargo xtask conformance`", harness)
	output, err := exec.Command(program, args...).CombinedOutput()
	require.NoErrorf(t, err, "%s: %s", strings.Join(args, " "), output)
}
