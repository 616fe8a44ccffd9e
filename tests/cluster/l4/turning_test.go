package l4

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// A turning Gateway leads to one pod or to another, by EndpointSlices of a Service without a selector: nobody else writes these.
type turning struct {
	cluster
	addresses []netip.AddrPort
	// The Deployment whose pod it leads to.
	to string
}

// turn has it lead to the other pod.
func (t *turning) turn(test *testing.T) {
	test.Helper()
	if t.to == "one" {
		t.to = "two"
	} else {
		t.to = "one"
	}
	// The API server may be back for a moment only.
	eventually(test, back, "the slices lead to "+t.to, t.write)
}

func (t *turning) write() error {
	pods := &corev1.PodList{}
	if err := t.Client.List(context.Background(), pods, client.InNamespace(namespace), client.MatchingLabels{"app": t.to}); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		// One that runs answers, also on a node of which nobody hears.
		if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
			return t.lead(pod)
		}
	}
	return fmt.Errorf("none of %d pods runs", len(pods.Items))
}

// lead writes a slice of each family.
func (t *turning) lead(pod corev1.Pod) error {
	for _, ip := range pod.Status.PodIPs {
		family := discoveryv1.AddressTypeIPv4
		if netip.MustParseAddr(ip.IP).Is6() {
			family = discoveryv1.AddressTypeIPv6
		}
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "turning-" + strings.ToLower(string(family))}}
		_, err := controllerutil.CreateOrUpdate(context.Background(), t.Client, slice, func() error {
			slice.Labels = map[string]string{discoveryv1.LabelServiceName: "turning"}
			slice.AddressType = family
			slice.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{ip.IP}, NodeName: &pod.Spec.NodeName}}
			slice.Ports = []discoveryv1.EndpointPort{{Name: new("tcp"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(port))}}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// arrives waits until it does, by either node: connections go by both.
func (t *turning) arrives(test *testing.T) {
	test.Helper()
	t.arrivesWithin(test, settle)
}

func (t *turning) arrivesWithin(test *testing.T, within time.Duration) {
	test.Helper()
	for _, address := range t.addresses {
		eventually(test, within, fmt.Sprintf("%s leads to %s", address, t.to), func() error {
			for range 20 {
				answer, err := tcp(address)
				if err != nil {
					return err
				}
				if !strings.HasPrefix(answer.pod, t.to+"-") {
					return fmt.Errorf("it leads to %s", answer.pod)
				}
			}
			return nil
		})
	}
	require.NotEmpty(test, t.addresses)
}
