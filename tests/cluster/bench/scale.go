package main

import (
	"fmt"
	"sync"
	"time"
)

const (
	// The namespace of many objects, and the name of their class and of its settings.
	many = "blixt-bench-scale"
	// How many of each; each route has a listener, a Service, an EndpointSlice and endpoints of its own.
	gateways, routes, endpoints = 1_000, 10_000, 10
	// Objects that are being created at once, as by many users and controllers.
	creators = 16
	// It is quiet when nothing was written for so long but Leases.
	quiet = 15 * time.Second
	// How long it may take until it is.
	busy = 15 * time.Minute
)

// What a controller came to with many objects. Memory is resident, in MiB.
type scaled struct {
	// How long the objects took to be created, until the last status was written, and how many other writes that were.
	CreateSeconds float64 `json:"create-seconds"`
	QuietSeconds  float64 `json:"quiet-seconds"`
	CreateWrites  int     `json:"create-writes"`
	// The most that the controller had meanwhile.
	CreatePeak float64   `json:"create-peak"`
	Starts     []started `json:"starts"`
	// Then nothing happens.
	RestSeconds float64  `json:"rest-seconds"`
	RestMemory  float64  `json:"rest-memory"`
	Leases      int      `json:"leases"`
	Others      []string `json:"others"`
}

// What came of one start.
type started struct {
	// From the Lease to the first Config, which has all frontends.
	Seconds float64 `json:"seconds"`
	Peak    float64 `json:"peak"`
	// Writes that were no renewal of the Lease, until it was quiet.
	Writes int `json:"writes"`
}

// scale makes many objects, has one controller after the other take over, and looks at the last one at rest.
func (c *cluster) scale(starts int, audit string, rest time.Duration) (any, error) {
	if err := c.clearScale(); err != nil {
		return nil, err
	}
	// On a busy machine the Lease may pass from one to the other meanwhile.
	controllers, err := c.controllers()
	if err != nil {
		return nil, err
	}
	for _, controller := range controllers {
		if err := controller.forgetPeak(); err != nil {
			return nil, err
		}
	}
	log, err := follow(audit)
	if err != nil {
		return nil, err
	}
	var measured scaled
	start := time.Now()
	if err := c.createScale(); err != nil {
		return nil, err
	}
	measured.CreateSeconds = time.Since(start).Seconds()
	say("%d Gateways, %d routes and %d endpoints are created in %.0f s", gateways, routes, routes*endpoints, measured.CreateSeconds)
	writes, last, err := log.untilQuiet()
	if err != nil {
		return nil, err
	}
	measured.CreateWrites, measured.QuietSeconds = len(writes), last.Sub(start).Seconds()
	for _, controller := range controllers {
		peak, err := controller.memory("VmHWM")
		if err != nil {
			return nil, fmt.Errorf("a controller ended while objects were created: %w", err)
		}
		measured.CreatePeak = max(measured.CreatePeak, peak)
	}
	say("every status is written after %.0f s, by %d writes; the controller had %.0f MiB at most", measured.QuietSeconds, len(writes), measured.CreatePeak)

	leader, err := c.leader()
	if err != nil {
		return nil, err
	}
	for number := range starts {
		if leader, err = c.takeOver(leader); err != nil {
			return nil, err
		}
		took, err := c.firstConfig(leader, routes)
		if err != nil {
			return nil, err
		}
		writes, _, err := log.untilQuiet()
		if err != nil {
			return nil, err
		}
		peak, err := leader.memory("VmHWM")
		if err != nil {
			return nil, fmt.Errorf("the leader ended after it took over: %w", err)
		}
		measured.Starts = append(measured.Starts, started{took.Seconds(), peak, len(writes)})
		say("start %d of %d: the first Config after %.1f s, %.0f MiB at most", number+1, starts, took.Seconds(), peak)
	}

	say("count writes for %s", rest)
	if _, err := log.next(); err != nil {
		return nil, err
	}
	start = time.Now()
	time.Sleep(rest)
	measured.RestSeconds = time.Since(start).Seconds()
	all, err := log.next()
	if err != nil {
		return nil, err
	}
	measured.Others = []string{}
	for _, write := range all {
		if write.isLease() {
			measured.Leases++
		} else {
			measured.Others = append(measured.Others, write.String())
		}
	}
	if measured.RestMemory, err = leader.memory("VmRSS"); err != nil {
		return nil, fmt.Errorf("the leader ended at rest: %w", err)
	}
	return measured, nil
}

// clearScale removes what an earlier run left.
func (c *cluster) clearScale() error {
	if err := c.clear(many); err != nil {
		return err
	}
	for _, kind := range []string{"GatewayClass", "BlixtClass"} {
		if err := c.remove(kind, many); err != nil {
			return err
		}
	}
	return nil
}

// createScale makes all objects: one application after the other, each with what belongs to it.
func (c *cluster) createScale() error {
	class := []map[string]any{
		{"kind": "Namespace", "metadata": map[string]any{"name": many}},
		{"kind": "BlixtClass", "metadata": map[string]any{"name": many}, "spec": map[string]any{
			"addressPools": []any{map[string]any{"name": many, "addresses": []any{"172.31.0.0/16"}}},
		}},
		{"kind": "GatewayClass", "metadata": map[string]any{"name": many}, "spec": map[string]any{
			"controllerName": "gateway.networking.k8s.io/blixt",
			"parametersRef":  map[string]any{"group": "blixt.dev", "kind": "BlixtClass", "name": many},
		}},
	}
	for _, object := range class {
		if err := c.create(object); err != nil {
			return err
		}
	}
	objects, failures := make(chan map[string]any), make(chan error, creators)
	var creating sync.WaitGroup
	for range creators {
		creating.Go(func() {
			for object := range objects {
				if err := c.create(object); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	var err error
	for route := range routes {
		for _, object := range application(route) {
			select {
			case objects <- object:
			case err = <-failures:
			}
		}
		if err != nil {
			break
		}
	}
	close(objects)
	creating.Wait()
	select {
	case err = <-failures:
	default:
	}
	return err
}

// application is a route with all that it needs; the first one of a Gateway has that as well.
func application(route int) []map[string]any {
	const listeners = routes / gateways
	named := func(format string, number int) map[string]any {
		return map[string]any{"name": fmt.Sprintf(format, number), "namespace": many}
	}
	service := fmt.Sprintf("service-%d", route)
	var objects []map[string]any
	if route%listeners == 0 {
		var all []any
		for listener := range listeners {
			all = append(all, map[string]any{"name": fmt.Sprintf("tcp-%d", listener), "protocol": "TCP", "port": int64(1000 + listener)})
		}
		objects = append(objects, map[string]any{
			"kind":     "Gateway",
			"metadata": named("gateway-%d", route/listeners),
			"spec":     map[string]any{"gatewayClassName": many, "listeners": all},
		})
	}
	var places []any
	for endpoint := range endpoints {
		number := route*endpoints + endpoint
		places = append(places, map[string]any{
			"addresses":  []any{fmt.Sprintf("10.%d.%d.%d", 100+number>>16, number>>8&255, number&255)},
			"conditions": map[string]any{"ready": true, "serving": true, "terminating": false},
			"nodeName":   fmt.Sprintf("node%d", 1+endpoint%2),
		})
	}
	slice := named("service-%d", route)
	slice["labels"] = map[string]any{
		"kubernetes.io/service-name":             service,
		"endpointslice.kubernetes.io/managed-by": "bench.blixt.dev",
		"service.kubernetes.io/headless":         "",
	}
	return append(objects,
		map[string]any{
			"kind":     "Service",
			"metadata": named("service-%d", route),
			"spec":     map[string]any{"clusterIP": "None", "ports": []any{map[string]any{"port": int64(80)}}},
		},
		map[string]any{
			"kind":        "EndpointSlice",
			"metadata":    slice,
			"addressType": "IPv4",
			"ports":       []any{map[string]any{"name": "", "port": int64(8080), "protocol": "TCP"}},
			"endpoints":   places,
		},
		map[string]any{
			"kind":     "TCPRoute",
			"metadata": named("route-%d", route),
			"spec": map[string]any{
				"parentRefs": []any{map[string]any{
					"name": fmt.Sprintf("gateway-%d", route/listeners), "sectionName": fmt.Sprintf("tcp-%d", route%listeners),
				}},
				"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": service, "port": int64(80)}}}},
			},
		},
	)
}
