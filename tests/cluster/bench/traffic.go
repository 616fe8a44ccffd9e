package main

import (
	_ "embed"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

//go:embed traffic.yaml
var manifest string

const (
	// The namespace of traffic.yaml.
	namespace = "blixt-bench"
	// Where the server says who it is, and where it swallows what it is sent.
	echoPort, sinkPort = 7000, 7001
	// How long one connection may take.
	answers = time.Second
)

// A stage is what traffic is measured on.
type stage struct {
	*cluster
	// The servers by their DaemonSet and node.
	servers map[string]map[string]corev1.Pod
	// The address of each node, and of the Gateway that clients reach by it.
	nodes, gateways map[string]netip.Addr
	// The port of each node that leads to the Service of kube-proxy.
	nodePort uint16
}

// onStage sets a stage, measures on it and strikes it, whatever comes of it.
func (c *cluster) onStage(measure func(*stage) (any, error)) (any, error) {
	s := &stage{cluster: c, servers: map[string]map[string]corev1.Pod{}, gateways: map[string]netip.Addr{}}
	defer s.strike()
	if err := s.set(); err != nil {
		return nil, err
	}
	return measure(s)
}

// set makes what a stage consists of, and leads clients by it.
func (s *stage) set() (err error) {
	if err := s.clear(namespace); err != nil {
		return err
	}
	if err := s.createAll(manifest); err != nil {
		return err
	}
	if s.nodes, err = s.addresses(); err != nil {
		return err
	}
	for _, app := range []string{"balanced", "proxied"} {
		err = eventually(patience, "each node has a server that is ready", func() error {
			if s.servers[app], err = s.ready(namespace, app); err == nil && len(s.servers[app]) != len(s.nodes) {
				err = fmt.Errorf("%d of %d", len(s.servers[app]), len(s.nodes))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	service, err := s.kube.CoreV1().Services(namespace).Get(s, "proxied", metav1.GetOptions{})
	if err != nil {
		return err
	}
	s.nodePort = uint16(service.Spec.Ports[0].NodePort)
	for service, port := range map[string]int{"balanced": echoPort, "sink": sinkPort, "proxied": echoPort} {
		if err := s.create(s.slice(service, port)); err != nil {
			return err
		}
	}
	for node, by := range s.nodes {
		gateway, err := s.gateway(node)
		if err != nil {
			return err
		}
		// Of all routes the narrowest counts: past the one that leads to every node alike.
		if err := ip("route", "replace", gateway.String(), "via", by.String()); err != nil {
			return err
		}
		s.gateways[node] = gateway
		for _, to := range []netip.AddrPort{s.balanced(node), s.proxied(node)} {
			err := eventually(patience, to.String()+" answers", func() error {
				_, err := ask(to)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// strike undoes what the stage has outside of the cluster's objects, and these.
func (s *stage) strike() {
	for _, gateway := range s.gateways {
		if err := ip("route", "del", gateway.String()); err != nil {
			say("%v", err)
		}
	}
	if err := s.clear(namespace); err != nil {
		say("%v", err)
	}
}

// balanced is where clients reach a Gateway by a node, and proxied where they reach kube-proxy by it.
func (s *stage) balanced(node string) netip.AddrPort {
	return netip.AddrPortFrom(s.gateways[node], echoPort)
}

func (s *stage) proxied(node string) netip.AddrPort {
	return netip.AddrPortFrom(s.nodes[node], s.nodePort)
}

// home is the node whose server is a Service's first one.
const home = "node2"

// slice holds the server of one node, as the EndpointSlice of a Service.
func (s *stage) slice(service string, port int) map[string]any {
	labels := map[string]any{
		"kubernetes.io/service-name":             service,
		"endpointslice.kubernetes.io/managed-by": "bench.blixt.dev",
	}
	if service != "proxied" {
		// As the controller of slices labels them: kube-proxy does not look at it.
		labels["service.kubernetes.io/headless"] = ""
	}
	return map[string]any{
		"kind":        "EndpointSlice",
		"metadata":    map[string]any{"name": service, "namespace": namespace, "labels": labels},
		"addressType": "IPv4",
		"ports":       []any{map[string]any{"name": portNames[port], "port": int64(port), "protocol": "TCP"}},
		"endpoints":   s.endpoints(serverOf[service], home),
	}
}

// serverOf is the DaemonSet that serves a Service.
var serverOf = map[string]string{"balanced": "balanced", "sink": "balanced", "proxied": "proxied"}

var portNames = map[int]string{echoPort: "echo", sinkPort: "sink"}

// endpoints has one server of a node alone.
func (s *stage) endpoints(app, node string) []any {
	return []any{map[string]any{
		"addresses":  []any{s.servers[app][node].Status.PodIP},
		"conditions": map[string]any{"ready": true},
		"nodeName":   node,
	}}
}

// gateway waits for the address of a Gateway.
func (s *stage) gateway(name string) (found netip.Addr, err error) {
	err = eventually(patience, "Gateway "+name+" has an IPv4 address", func() error {
		gateway, err := s.in("Gateway", namespace).Get(s, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		addresses, _, _ := unstructured.NestedSlice(gateway.Object, "status", "addresses")
		for _, address := range addresses {
			value, _ := address.(map[string]any)["value"].(string)
			if parsed, err := netip.ParseAddr(value); err == nil && parsed.Is4() {
				found = parsed
				return nil
			}
		}
		return fmt.Errorf("addresses are %v", addresses)
	})
	return found, err
}

// ask opens a connection and hears which pod has it.
func ask(to netip.AddrPort) (string, error) {
	connection, err := net.DialTimeout("tcp", to.String(), answers)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(answers)); err != nil {
		return "", err
	}
	greeting := make([]byte, 512)
	length, err := connection.Read(greeting)
	if err != nil {
		return "", err
	}
	pod, _, _ := strings.Cut(string(greeting[:length]), " ")
	return pod, nil
}

func ip(words ...string) error {
	output, err := exec.Command("ip", words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %s", strings.Join(words, " "), output)
	}
	return nil
}
