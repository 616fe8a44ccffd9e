package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// How long whatever is waited for may take on a busy machine.
const patience = 5 * time.Minute

// A cluster is where it is measured.
type cluster struct {
	context.Context
	kube    kubernetes.Interface
	dynamic dynamic.Interface
}

// connect finds the cluster by KUBECONFIG. Nothing holds requests back.
func connect(ctx context.Context) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dynamic, err := dynamic.NewForConfig(config)
	return &cluster{ctx, kube, dynamic}, err
}

// Where objects of each kind are in the API.
var resources = map[string]schema.GroupVersionResource{
	"Namespace":     {Version: "v1", Resource: "namespaces"},
	"Service":       {Version: "v1", Resource: "services"},
	"DaemonSet":     {Group: "apps", Version: "v1", Resource: "daemonsets"},
	"EndpointSlice": {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	"BlixtClass":    {Group: "blixt.dev", Version: "v1alpha1", Resource: "blixtclasses"},
	"GatewayClass":  {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"},
	"Gateway":       {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"},
	"TCPRoute":      {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "tcproutes"},
}

// in is where objects of a kind are; those of the whole cluster in no namespace.
func (c *cluster) in(kind, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return c.dynamic.Resource(resources[kind])
	}
	return c.dynamic.Resource(resources[kind]).Namespace(namespace)
}

// create makes an object that is not there.
func (c *cluster) create(object map[string]any) error {
	made := &unstructured.Unstructured{Object: object}
	gvk := resources[made.GetKind()]
	made.SetAPIVersion(gvk.GroupVersion().String())
	_, err := c.in(made.GetKind(), made.GetNamespace()).Create(c, made, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("%s %s: %w", made.GetKind(), made.GetName(), err)
	}
	return nil
}

// createAll makes the objects of a manifest.
func (c *cluster) createAll(manifest string) error {
	for document := range strings.SplitSeq(manifest, "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			return err
		}
		if err := c.create(object); err != nil {
			return err
		}
	}
	return nil
}

// merge changes an object by a JSON merge patch, and says when the API server had answered.
func (c *cluster) merge(kind, namespace, name string, patch any) (time.Time, error) {
	text, err := json.Marshal(patch)
	if err != nil {
		return time.Time{}, err
	}
	_, err = c.in(kind, namespace).Patch(c, name, types.MergePatchType, text, metav1.PatchOptions{})
	return time.Now(), err
}

// clear removes a namespace that an earlier run left, and waits until it is gone: it would take the new one's objects with it.
func (c *cluster) clear(namespace string) error {
	return eventually(patience, "namespace "+namespace+" is gone", func() error {
		err := c.kube.CoreV1().Namespaces().Delete(c, namespace, metav1.DeleteOptions{})
		if errors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is being deleted: %v", err)
	})
}

// ready are the pods of an app that are ready, by the name of their node.
func (c *cluster) ready(namespace, app string) (map[string]corev1.Pod, error) {
	list, err := c.kube.CoreV1().Pods(namespace).List(c, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	pods := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				pods[pod.Spec.NodeName] = pod
			}
		}
	}
	return pods, nil
}

// addresses are the nodes' own of IPv4, by name.
func (c *cluster) addresses() (map[string]netip.Addr, error) {
	list, err := c.kube.CoreV1().Nodes().List(c, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	nodes := map[string]netip.Addr{}
	for _, node := range list.Items {
		for _, address := range node.Status.Addresses {
			if parsed, err := netip.ParseAddr(address.Address); err == nil && parsed.Is4() && address.Type == corev1.NodeInternalIP {
				nodes[node.Name] = parsed
			}
		}
	}
	return nodes, nil
}

// eventually tries until it succeeds.
func eventually(within time.Duration, what string, check func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(context.Background(), 200*time.Millisecond, within, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: not within %s: %w", what, within, last)
	}
	return nil
}
