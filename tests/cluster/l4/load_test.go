package l4

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// How many connections a client opens each second.
const rate = 200

// A load opens connections all the time, to its addresses by turns, and remembers each one that failed.
type load struct {
	addresses []netip.AddrPort
	stop      chan struct{}
	running   sync.WaitGroup

	mutex    sync.Mutex
	answered map[string]int
	failures []string
}

func start(addresses []netip.AddrPort) *load {
	l := &load{addresses: addresses, stop: make(chan struct{}), answered: map[string]int{}}
	l.running.Add(1)
	go l.run()
	return l
}

func (l *load) run() {
	defer l.running.Done()
	begin := time.Now()
	for turn := 0; ; turn++ {
		// A machine that was busy for a moment catches up.
		due := begin.Add(time.Duration(turn) * time.Second / rate)
		select {
		case <-l.stop:
			return
		case <-time.After(time.Until(due)):
			l.running.Add(1)
			go l.connect(l.addresses[turn%len(l.addresses)])
		}
	}
}

func (l *load) connect(address netip.AddrPort) {
	defer l.running.Done()
	begin := time.Now()
	answer, err := tcp(address)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if err != nil {
		l.failures = append(l.failures, fmt.Sprintf("%s %s: %v", begin.Format("15:04:05.000"), address, err))
		return
	}
	l.answered[answer.node]++
}

// during lets something happen while connections are opened: none of them may fail, pods of both nodes have to answer, and no condition may turn.
func during(t *testing.T, suite *confsuite.ConformanceTestSuite, addresses []netip.AddrPort, what string, happen func(t *testing.T)) {
	t.Run(what, func(t *testing.T) {
		bothNodesAnswer(t, addresses)
		statuses := watchStatuses(t, suite)
		load, begin := start(addresses), time.Now()
		var seconds float64
		func() {
			// Also where something in it fails: the next one has a load of its own.
			defer func() {
				seconds = time.Since(begin).Seconds()
				close(load.stop)
				load.running.Wait()
			}()
			happen(t)
		}()
		total := len(load.failures)
		for _, count := range load.answered {
			total += count
		}
		t.Logf("%d connections in %.0f s, %d failed, answered by node: %v", total, seconds, len(load.failures), load.answered)
		// A machine that is too busy to open as many proves less than is said.
		if float64(total) < seconds*rate*0.9 {
			t.Errorf("%d connections in %.0f s are fewer than %d a second", total, seconds, rate)
		}
		if len(load.answered) != 2 {
			t.Errorf("pods of both nodes have to answer, not of %v", load.answered)
		}
		for index, failure := range load.failures {
			if index == 20 {
				t.Errorf("... and %d more", len(load.failures)-index)
				break
			}
			t.Error(failure)
		}
		for _, turn := range statuses.end() {
			t.Error(turn)
		}
	})
}

// bothNodesAnswer waits until none of a few connections fails and pods of both nodes answer them.
func bothNodesAnswer(t *testing.T, addresses []netip.AddrPort) {
	t.Helper()
	for _, address := range addresses {
		eventually(t, back, fmt.Sprintf("pods of both nodes answer by %s", address), func() error {
			nodes := map[string]int{}
			for range few {
				answer, err := tcp(address)
				if err != nil {
					return err
				}
				nodes[answer.node]++
			}
			if len(nodes) != 2 {
				return fmt.Errorf("answered by node: %v", nodes)
			}
			return nil
		})
	}
}
