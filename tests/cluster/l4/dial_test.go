package l4

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

const (
	// The port of every listener that serves.
	port = 7000
	// How long a healthy answer may take; a lost packet is sent again within it.
	patience = 5 * time.Second
	// How long a change may take to be in force.
	settle = 30 * time.Second
)

// An answer is what the echo server says of itself and of its client.
type answer struct {
	pod, node string
	client    netip.Addr
}

func parse(line string) (answer, error) {
	words := strings.Fields(line)
	if len(words) != 3 {
		return answer{}, fmt.Errorf("no greeting: %q", line)
	}
	client, err := netip.ParseAddr(words[2])
	return answer{words[0], words[1], client.Unmap()}, err
}

// tcp opens a connection, says one line, hears it back and closes.
func tcp(to netip.AddrPort) (answer, error) {
	connection, err := open(to)
	if err != nil {
		return answer{}, err
	}
	defer connection.Close()
	return connection.answer, connection.say("hello")
}

// A conn is a connection that was greeted.
type conn struct {
	net.Conn
	lines  *bufio.Reader
	answer answer
}

func open(to netip.AddrPort) (*conn, error) {
	dialled, err := net.DialTimeout("tcp", to.String(), patience)
	if err != nil {
		return nil, err
	}
	connection := &conn{Conn: dialled, lines: bufio.NewReader(dialled)}
	line, err := connection.hear()
	if err == nil {
		connection.answer, err = parse(line)
	}
	if err != nil {
		dialled.Close()
		return nil, err
	}
	return connection, nil
}

func (c *conn) hear() (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := c.lines.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (c *conn) say(text string) error {
	if _, err := fmt.Fprintln(c, text); err != nil {
		return err
	}
	heard, err := c.hear()
	if err == nil && heard != text {
		err = fmt.Errorf("said %q, heard %q", text, heard)
	}
	return err
}

// udp sends a datagram from a port of its own and takes the answer from anybody, so that it can tell from whom it came.
func udp(to netip.AddrPort) (answer, error) {
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return answer{}, err
	}
	defer socket.Close()
	if _, err := socket.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		return answer{}, err
	}
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	datagram := make([]byte, 1500)
	length, from, err := socket.ReadFromUDPAddrPort(datagram)
	if err != nil {
		return answer{}, err
	}
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != to {
		return answer{}, fmt.Errorf("dialled %s, and was answered by %s", to, from)
	}
	line, said, _ := strings.Cut(string(datagram[:length]), "\n")
	if said != "hello" {
		return answer{}, fmt.Errorf("said \"hello\", heard %q", said)
	}
	return parse(line)
}

// refusedUDP says whether a datagram is refused: by an ICMP error, which only a connected socket hears of.
func refusedUDP(to netip.AddrPort) (bool, error) {
	socket, err := net.Dial("udp", to.String())
	if err != nil {
		return false, err
	}
	defer socket.Close()
	if _, err := fmt.Fprint(socket, "hello"); err != nil {
		return false, err
	}
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return false, err
	}
	_, err = socket.Read(make([]byte, 1500))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return true, nil
	}
	return false, err
}

// addresses waits until a Gateway serves, and gives an address of each family.
func addresses(t *testing.T, suite *confsuite.ConformanceTestSuite, name string) []netip.AddrPort {
	t.Helper()
	var found []netip.AddrPort
	eventually(t, suite.TimeoutConfig.GatewayMustHaveAddress, "Gateway "+name+" has an address of each family and is programmed", func() error {
		gateway := &gatewayv1.Gateway{}
		if err := suite.Client.Get(context.Background(), types.NamespacedName{Namespace: namespace, Name: name}, gateway); err != nil {
			return err
		}
		found = nil
		families := map[bool]bool{}
		for _, address := range gateway.Status.Addresses {
			if parsed, err := netip.ParseAddr(address.Value); err == nil {
				found = append(found, netip.AddrPortFrom(parsed, port))
				families[parsed.Is4()] = true
			}
		}
		if len(families) != 2 {
			return fmt.Errorf("addresses are %v", found)
		}
		for _, condition := range gateway.Status.Conditions {
			if condition.Type == string(gatewayv1.GatewayConditionProgrammed) && condition.Status == "True" && condition.ObservedGeneration == gateway.Generation {
				return routesAreInForce(suite, name)
			}
		}
		return fmt.Errorf("conditions are %v", gateway.Status.Conditions)
	})
	return found
}

// routesAreInForce says what is not yet known of routes of a Gateway: once a condition says whether a route serves, every node does
// what it says.
func routesAreInForce(suite *confsuite.ConformanceTestSuite, gateway string) error {
	for _, kind := range []string{"TCPRoute", "UDPRoute"} {
		routes := list(kind)
		if err := suite.Client.List(context.Background(), routes, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, route := range routes.Items {
			parents, _, _ := unstructured.NestedSlice(route.Object, "spec", "parentRefs")
			if len(parents) == 0 || parents[0].(map[string]any)["name"] != gateway {
				continue
			}
			if err := isInForce(route); err != nil {
				return err
			}
		}
	}
	return nil
}

func isInForce(route unstructured.Unstructured) error {
	parents, _, _ := unstructured.NestedSlice(route.Object, "status", "parents")
	for _, parent := range parents {
		conditions, _, _ := unstructured.NestedSlice(parent.(map[string]any), "conditions")
		for _, condition := range conditions {
			of := condition.(map[string]any)
			if of["type"] == "blixt.dev/Serving" && of["status"] != "Unknown" && of["observedGeneration"] == route.GetGeneration() {
				return nil
			}
		}
	}
	return fmt.Errorf("%s %s is not in force yet: %v", route.GetKind(), route.GetName(), parents)
}

// eventually tries until it succeeds.
func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(context.Background(), 200*time.Millisecond, within, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	require.NoErrorf(t, err, "%s: %v", what, last)
}

// serves waits until every address answers over TCP.
func serves(t *testing.T, addresses []netip.AddrPort) {
	t.Helper()
	for _, address := range addresses {
		eventually(t, settle, address.String()+" answers", func() error {
			_, err := tcp(address)
			return err
		})
	}
}

// refuses waits until every address refuses connections.
func refuses(t *testing.T, addresses []netip.AddrPort) {
	t.Helper()
	for _, address := range addresses {
		eventually(t, settle, address.String()+" refuses", func() error {
			if _, err := tcp(address); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("not refused: %v", err)
			}
			return nil
		})
	}
}
