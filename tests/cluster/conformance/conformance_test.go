package conformance

import (
	"testing"

	suite "sigs.k8s.io/gateway-api/conformance"
)

// TestConformance runs the suite. All that can be set are flags of the suite's own.
func TestConformance(t *testing.T) {
	suite.RunConformance(t)
}
