package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	// How often each way is tried in a round; the least disturbed try counts.
	tries = 4
	// How long a try sends.
	sends = time.Second
	// What is written at once.
	chunk = 256 << 10
)

// What came of a round, in Gbit/s.
type carried struct {
	Gateway float64 `json:"gateway"`
	Direct  float64 `json:"direct"`
}

// paths sends bulk TCP to a pod, by the address of the Gateway that enters by the pod's own node and by the pod's own address, by turns.
func (s *stage) paths(rounds int) (any, error) {
	pod, err := netip.ParseAddr(s.servers["balanced"][home].Status.PodIP)
	if err != nil {
		return nil, err
	}
	gateway, direct := netip.AddrPortFrom(s.gateways[home], sinkPort), netip.AddrPortFrom(pod, sinkPort)
	// The first connections find neighbours and warm what is to be warm.
	for _, to := range []netip.AddrPort{gateway, direct} {
		if _, err := send(to); err != nil {
			return nil, err
		}
	}
	var all []carried
	for round := range rounds {
		var of carried
		for try := range tries {
			turns := []struct {
				to   netip.AddrPort
				best *float64
			}{{gateway, &of.Gateway}, {direct, &of.Direct}}
			// Neither is always the first.
			if try%2 == 1 {
				turns[0], turns[1] = turns[1], turns[0]
			}
			for _, turn := range turns {
				rate, err := send(turn.to)
				if err != nil {
					return nil, err
				}
				*turn.best = max(*turn.best, rate)
			}
		}
		all = append(all, of)
		say("round %d of %d: %.1f Gbit/s through the Gateway, %.1f directly", round+1, rounds, of.Gateway, of.Direct)
	}
	return all, nil
}

// send sends as much as it can for a while, until the server says that it has all of it, and answers how fast that was.
func send(to netip.AddrPort) (float64, error) {
	dialled, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return 0, err
	}
	defer dialled.Close()
	start := time.Now()
	if err := dialled.SetDeadline(start.Add(sends + longest)); err != nil {
		return 0, err
	}
	sent, bytes := 0, make([]byte, chunk)
	for time.Since(start) < sends {
		written, err := dialled.Write(bytes)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", to, err)
		}
		sent += written
	}
	if err := dialled.CloseWrite(); err != nil {
		return 0, err
	}
	said, err := io.ReadAll(dialled)
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", to, err)
	}
	if swallowed, err := strconv.Atoi(strings.TrimSpace(string(said))); err != nil || swallowed != sent {
		return 0, fmt.Errorf("%s: %d bytes were sent, the server says %q", to, sent, said)
	}
	return float64(sent) * 8 / took.Seconds() / 1e9, nil
}
