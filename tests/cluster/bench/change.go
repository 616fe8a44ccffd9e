package main

import (
	"fmt"
	"net/netip"
	"time"
)

const (
	// Changes in a round, of each.
	changes = 50
	// Between two changes. Those of kube-proxy are twice as far apart: it takes changes in at most once a second.
	pause = 600 * time.Millisecond
	// Between two connections of a client that waits for a change.
	look = 2 * time.Millisecond
	// A change is obeyed when so many connections in a row have obeyed it.
	settled = 20
	// How long it may take.
	longest = 10 * time.Second
)

// What came of the changes of a round: milliseconds from the API server's answer to the first connection that obeys, by the node that
// it enters by.
type changed struct {
	Blixt     map[string][]float64 `json:"blixt"`
	KubeProxy map[string][]float64 `json:"kube-proxy"`
	// Connections that nobody answered meanwhile.
	Failed map[string]int `json:"failed"`
}

// changes moves a Service of Blixt's and one of kube-proxy's between two servers by turns.
func (s *stage) changes(rounds int) (any, error) {
	var all []changed
	for round := range rounds {
		of := changed{map[string][]float64{}, map[string][]float64{}, map[string]int{}}
		for number := range changes {
			to := []string{"node1", "node2"}[number%2]
			if err := s.move("balanced", to, s.balanced, of.Blixt, of.Failed); err != nil {
				return nil, err
			}
			if err := s.move("proxied", to, s.proxied, of.KubeProxy, of.Failed); err != nil {
				return nil, err
			}
		}
		all = append(all, of)
		say("round %d of %d: %d changes of each", round+1, rounds, changes)
	}
	return all, nil
}

// move has a Service served by another node's server, and notes when clients by each node are served by it.
func (s *stage) move(service, to string, way func(string) netip.AddrPort, times map[string][]float64, failed map[string]int) error {
	time.Sleep(pause)
	type outcome struct {
		node   string
		first  time.Time
		failed int
		err    error
	}
	outcomes := make(chan outcome)
	for node := range s.nodes {
		go func() {
			first, failed, err := obeyed(way(node), s.servers[service][to].Name)
			outcomes <- outcome{node, first, failed, err}
		}()
	}
	answered, err := s.merge("EndpointSlice", namespace, service, map[string]any{"endpoints": s.endpoints(service, to)})
	for range s.nodes {
		outcome := <-outcomes
		if outcome.err != nil && err == nil {
			err = fmt.Errorf("%s by %s: %w", service, outcome.node, outcome.err)
		}
		milliseconds := outcome.first.Sub(answered).Seconds() * 1e3
		times[outcome.node] = append(times[outcome.node], max(0, milliseconds))
		failed[service] += outcome.failed
	}
	return err
}

// obeyed opens connections until they go to the pod that is wanted, and go on doing so. It answers when the first of these was
// greeted, and how many were not.
func obeyed(to netip.AddrPort, want string) (first time.Time, failed int, err error) {
	end := time.Now().Add(longest)
	for inARow := 0; inARow < settled; time.Sleep(look) {
		pod, err := ask(to)
		now := time.Now()
		switch {
		case now.After(end):
			return first, failed, fmt.Errorf("%s: a change is not obeyed within %s; the last connection: %q, %v", to, longest, pod, err)
		case err != nil:
			failed++
			inARow = 0
		case pod != want:
			inARow = 0
		default:
			if inARow == 0 {
				first = now
			}
			inARow++
		}
	}
	return first, failed, nil
}
