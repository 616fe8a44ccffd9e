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
	coordinationv1 "k8s.io/api/coordination/v1"
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
	// How long programs and pods may take to be back.
	back = 3 * time.Minute
)

// A cluster is what faults are made in.
type cluster struct {
	*confsuite.ConformanceTestSuite
}

// pods are those of a Deployment or DaemonSet.
func (c cluster) pods(t *testing.T, namespace, name string) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	require.NoError(t, c.Client.List(context.Background(), list, client.InNamespace(namespace)))
	var pods []corev1.Pod
	for _, pod := range list.Items {
		if strings.HasPrefix(pod.Name, name+"-") && pod.DeletionTimestamp == nil {
			pods = append(pods, pod)
		}
	}
	require.NotEmptyf(t, pods, "pods of %s/%s", namespace, name)
	return pods
}

// leader is the controller's pod that holds the Lease, and what it calls itself there: each process has a name of its own.
func (c cluster) leader(t *testing.T) (corev1.Pod, string) {
	t.Helper()
	var pod corev1.Pod
	var holder string
	eventually(t, back, "somebody leads", func() error {
		var err error
		if holder, err = c.holder(); err != nil {
			return err
		}
		name, _, _ := strings.Cut(holder, "_")
		return c.Client.Get(context.Background(), types.NamespacedName{Namespace: system, Name: name}, &pod)
	})
	return pod, holder
}

// holder is who holds the controller's Lease.
func (c cluster) holder() (string, error) {
	lease := &coordinationv1.Lease{}
	if err := c.Client.Get(context.Background(), types.NamespacedName{Namespace: system, Name: controller}, lease); err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", fmt.Errorf("nobody holds Lease %s/%s", system, controller)
	}
	return *lease.Spec.HolderIdentity, nil
}

// signal sends a signal to a pod's process. The kubelet starts one that ended again.
func (c cluster) signal(t *testing.T, pod corev1.Pod, signal string) {
	t.Helper()
	c.harness(t, "cluster", "in", pod.Spec.NodeName, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal="+signal, container(pod))
}

// container is the id of a pod's only container.
func container(pod corev1.Pod) string {
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	return id
}

// roll has every pod of the DaemonSet replaced.
func (c cluster) roll(t *testing.T) {
	t.Helper()
	c.changeAgents(t, func(set *appsv1.DaemonSet) {
		if set.Spec.Template.Annotations == nil {
			set.Spec.Template.Annotations = map[string]string{}
		}
		set.Spec.Template.Annotations["blixt.dev/rolled-at"] = time.Now().Format(time.RFC3339Nano)
	})
}

// changeAgents changes the DaemonSet.
func (c cluster) changeAgents(t *testing.T, change func(set *appsv1.DaemonSet)) {
	t.Helper()
	set := &appsv1.DaemonSet{}
	require.NoError(t, c.Client.Get(context.Background(), types.NamespacedName{Namespace: system, Name: agent}, set))
	before := set.DeepCopy()
	change(set)
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
			if isTrue(pod.Status.Conditions, corev1.PodReady) {
				available++
			}
		}
		if len(list.Items) != pods || available != pods {
			return fmt.Errorf("there are %d, %d of them ready", len(list.Items), available)
		}
		return nil
	})
}

func isTrue(conditions []corev1.PodCondition, kind corev1.PodConditionType) bool {
	for _, condition := range conditions {
		if condition.Type == kind {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// harness runs a command of the program that made the cluster, and answers what it prints.
func (c cluster) harness(t *testing.T, args ...string) string {
	t.Helper()
	program := os.Getenv(harness)
	require.NotEmptyf(t, program, "%s: run by `cargo xtask conformance`", harness)
	output, err := exec.Command(program, args...).CombinedOutput()
	require.NoErrorf(t, err, "%s: %s", strings.Join(args, " "), output)
	return string(output)
}
