package l4

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// The kinds whose conditions are followed.
var followed = []string{"Gateway", "TCPRoute"}

// Statuses follow all conditions of the tests' objects, and remember each that turned.
type statuses struct {
	client  client.WithWatch
	stop    context.CancelFunc
	running sync.WaitGroup

	mutex sync.Mutex
	known map[string]map[string]condition
	turns []string
}

// A condition without its message, which counts generations and nodes; `of` is the object's generation that it is of.
type condition struct {
	status, reason, since string
	of                    int64
}

// follows says whether it says what was said before, of the same object or a newer one.
func (c condition) follows(before condition) bool {
	same := c
	same.of = before.of
	return same == before && c.of >= before.of
}

func watchStatuses(t *testing.T, suite *confsuite.ConformanceTestSuite) *statuses {
	t.Helper()
	watching, err := client.NewWithWatch(suite.RestConfig, suite.ClientOptions)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	s := &statuses{client: watching, stop: stop, known: map[string]map[string]condition{}}
	for _, kind := range followed {
		version, err := s.look(kind)
		require.NoError(t, err)
		s.running.Add(1)
		go s.follow(ctx, kind, version)
	}
	require.NotEmpty(t, s.known)
	return s
}

// end looks once more, and answers what turned.
func (s *statuses) end() []string {
	s.stop()
	s.running.Wait()
	for _, kind := range followed {
		if _, err := s.look(kind); err != nil {
			s.turns = append(s.turns, fmt.Sprintf("%s: cannot be listed: %v", kind, err))
		}
	}
	return s.turns
}

// look takes all objects in as they are, and answers from where to watch.
func (s *statuses) look(kind string) (string, error) {
	objects := list(kind)
	if err := s.client.List(context.Background(), objects, client.InNamespace(namespace)); err != nil {
		return "", err
	}
	for _, object := range objects.Items {
		s.see(object)
	}
	return objects.GetResourceVersion(), nil
}

// follow watches until it is stopped. While the API server is away it waits: what turned there and back unseen has another time since.
func (s *statuses) follow(ctx context.Context, kind, version string) {
	defer s.running.Done()
	for ctx.Err() == nil {
		options := &client.ListOptions{Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: version}}
		if watching, err := s.client.Watch(ctx, list(kind), options); err == nil {
			for event := range watching.ResultChan() {
				if object, is := event.Object.(*unstructured.Unstructured); is && event.Type == watch.Modified {
					s.see(*object)
				}
			}
			watching.Stop()
		}
		for ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
			var err error
			if version, err = s.look(kind); err == nil {
				break
			}
		}
	}
}

// see compares the conditions of an object with what they were.
func (s *statuses) see(object unstructured.Unstructured) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	owner, now := object.GetKind()+" "+object.GetName(), conditions(object)
	before, is := s.known[owner]
	s.known[owner] = now
	if !is {
		return
	}
	for name, condition := range now {
		if !condition.follows(before[name]) {
			s.turns = append(s.turns, fmt.Sprintf("%s %s: %s turned from %v to %v", time.Now().Format("15:04:05.000"), owner, name, before[name], condition))
		}
	}
	for name, condition := range before {
		if _, is := now[name]; !is {
			s.turns = append(s.turns, fmt.Sprintf("%s %s: %s %v is gone", time.Now().Format("15:04:05.000"), owner, name, condition))
		}
	}
}

// conditions are all of an object: its own, and those of its listeners and parents.
func conditions(object unstructured.Unstructured) map[string]condition {
	found := map[string]condition{}
	status, _, _ := unstructured.NestedMap(object.Object, "status")
	take := func(of string, holder map[string]any) {
		items, _, _ := unstructured.NestedSlice(holder, "conditions")
		for _, item := range items {
			text := func(field string) string {
				text, _, _ := unstructured.NestedString(item.(map[string]any), field)
				return text
			}
			generation, _, _ := unstructured.NestedInt64(item.(map[string]any), "observedGeneration")
			found[of+text("type")] = condition{text("status"), text("reason"), text("lastTransitionTime"), generation}
		}
	}
	take("", status)
	listeners, _, _ := unstructured.NestedSlice(status, "listeners")
	for _, listener := range listeners {
		holder := listener.(map[string]any)
		take(fmt.Sprintf("listener %v ", holder["name"]), holder)
	}
	parents, _, _ := unstructured.NestedSlice(status, "parents")
	for _, parent := range parents {
		holder := parent.(map[string]any)
		take(fmt.Sprintf("parent %v of %v ", holder["parentRef"], holder["controllerName"]), holder)
	}
	return found
}

func list(kind string) *unstructured.UnstructuredList {
	objects := &unstructured.UnstructuredList{}
	objects.SetGroupVersionKind(gatewayv1.SchemeGroupVersion.WithKind(kind + "List"))
	return objects
}
