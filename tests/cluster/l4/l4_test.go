package l4

import (
	"embed"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	confsuite "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

//go:embed manifests
var manifests embed.FS

// Where the servers of base.yaml are, and a namespace beside it.
const (
	namespace = "blixt-l4"
	other     = "blixt-l4-other"
)

// The tests, by files; those of faults and of uninstalling are the last, since they harm the cluster.
var tests []confsuite.ConformanceTest

func TestL4(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.ManifestFS = []fs.FS{manifests}
	suite, err := confsuite.NewConformanceTestSuite(options)
	require.NoError(t, err)

	// The suite's own set-up would apply its base manifests.
	suite.ControllerName = kubernetes.GWCMustHaveAcceptedConditionTrue(t, suite.Client, suite.TimeoutConfig, suite.GatewayClassName)
	suite.Applier.ControllerName = suite.ControllerName
	suite.Applier.GatewayClass = suite.GatewayClassName
	suite.Applier.ManifestFS = suite.ManifestFS
	suite.Applier.MustApplyWithCleanup(t, suite.Client, suite.TimeoutConfig, "manifests/base.yaml", suite.Cleanup)
	kubernetes.NamespacesMustBeReady(t, suite.Client, suite.TimeoutConfig, []string{namespace})

	require.NoError(t, suite.Run(t, append(tests, faults, uninstall)))
}
