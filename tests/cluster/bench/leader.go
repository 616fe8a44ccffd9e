package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// How Blixt is installed.
	system     = "blixt-system"
	controller = "blixt-controller"
)

// A leader is the process of the controller that holds the Lease.
type leader struct {
	pod string
	id  int
}

// leader waits until there is one.
func (c *cluster) leader() (found leader, err error) {
	err = eventually(patience, "a controller holds the Lease", func() error {
		lease, err := c.kube.CoordinationV1().Leases(system).Get(c, controller, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
			return fmt.Errorf("nobody holds it")
		}
		name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
		pod, err := c.kube.CoreV1().Pods(system).Get(c, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		id, err := process(pod)
		found = leader{name, id}
		return err
	})
	return found, err
}

// controllers are the processes of all replicas.
func (c *cluster) controllers() ([]leader, error) {
	pods, err := c.kube.CoreV1().Pods(system).List(c, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var all []leader
	for _, pod := range pods.Items {
		if strings.HasPrefix(pod.Name, controller+"-") && pod.DeletionTimestamp == nil {
			id, err := process(&pod)
			if err != nil {
				return nil, err
			}
			all = append(all, leader{pod.Name, id})
		}
	}
	return all, nil
}

// process finds the process of a pod's only container: nodes share this machine's processes.
func process(pod *corev1.Pod) (int, error) {
	if len(pod.Status.ContainerStatuses) == 0 {
		return 0, fmt.Errorf("pod %s has no container", pod.Name)
	}
	_, container, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		// Processes come and go.
		text, err := os.ReadFile(file)
		if err == nil && container != "" && strings.Contains(string(text), container) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("no process is in container %q of pod %s", container, pod.Name)
}

// memory is what the process has or had resident, in MiB.
func (l leader) memory(field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.id))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == field+":" {
			kib, err := strconv.ParseFloat(words[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d of pod %s has no %s", l.id, l.pod, field)
}

// forgetPeak has the kernel forget the most that the process ever had.
func (l leader) forgetPeak() error {
	const peak = "5"
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", l.id), []byte(peak), 0)
}

// takeOver deletes the leader's pod and waits for the next leader, and until the Deployment is whole again.
func (c *cluster) takeOver(from leader) (to leader, err error) {
	if err := c.kube.CoreV1().Pods(system).Delete(c, from.pod, metav1.DeleteOptions{}); err != nil {
		return to, err
	}
	err = eventually(patience, "another controller leads", func() error {
		if to, err = c.leader(); err == nil && to.pod == from.pod {
			err = fmt.Errorf("%s still does", from.pod)
		}
		return err
	})
	if err != nil {
		return to, err
	}
	return to, eventually(patience, "the controller has all its replicas", func() error {
		deployment, err := c.kube.AppsV1().Deployments(system).Get(c, controller, metav1.GetOptions{})
		if err == nil && deployment.Status.AvailableReplicas != *deployment.Spec.Replicas {
			err = fmt.Errorf("%d of %d", deployment.Status.AvailableReplicas, *deployment.Spec.Replicas)
		}
		return err
	})
}

// firstConfig is how long a leader took from the Lease, since it has it, to its first Config, by its log as the container runtime noted it. The
// Config must have all frontends. A process may have led before, and lost the Lease on a machine that was busy.
func (c *cluster) firstConfig(of leader, frontends int) (took time.Duration, err error) {
	err = eventually(patience, "the leader publishes a Config", func() error {
		log, err := c.kube.CoreV1().Pods(system).GetLogs(of.pod, &corev1.PodLogOptions{Timestamps: true}).Stream(c)
		if err != nil {
			return err
		}
		defer log.Close()
		var leads, published time.Time
		var first string
		for lines := bufio.NewScanner(log); lines.Scan(); {
			stamp, line, _ := strings.Cut(lines.Text(), " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			switch {
			case err != nil:
				return err
			case strings.Contains(line, " leading "):
				leads, first = at, ""
			case strings.Contains(line, " published ") && !leads.IsZero() && first == "":
				published, first = at, line
			}
		}
		if first == "" {
			return fmt.Errorf("its log says of no Config")
		}
		if !strings.HasSuffix(first, fmt.Sprintf(" frontends=%d", frontends)) {
			return fmt.Errorf("the first Config has not %d frontends: %s", frontends, first)
		}
		took = published.Sub(leads)
		return nil
	})
	return took, err
}

// remove deletes an object of the whole cluster that may be there.
func (c *cluster) remove(kind, name string) error {
	err := c.in(kind, "").Delete(c, name, metav1.DeleteOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}
