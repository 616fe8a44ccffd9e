// Helm renders a chart without a cluster, as `helm template` does: helm CHART NAMESPACE [KEY=VALUE..].
//
// The chart is checked by Helm's own linter first, and the values against the chart's schema.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	release "helm.sh/helm/v4/pkg/release/v1/util"
	"helm.sh/helm/v4/pkg/strvals"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: helm CHART NAMESPACE [KEY=VALUE..]")
		os.Exit(2)
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(text)
}

// render returns the manifests in the order in which Helm installs them.
func render(dir, namespace string, assignments []string) (string, error) {
	// Helm tells of each symbolic link that it follows: the CRDs are one.
	slog.SetLogLoggerLevel(slog.LevelWarn)
	values := map[string]any{}
	for _, assignment := range assignments {
		if err := strvals.ParseInto(assignment, values); err != nil {
			return "", err
		}
	}
	linter := lint.RunAll(dir, values, namespace)
	for _, message := range linter.Messages {
		if message.Severity >= support.WarningSev {
			return "", message
		}
	}
	chart, err := loader.LoadDir(dir)
	if err != nil {
		return "", err
	}
	options := common.ReleaseOptions{Name: "blixt", Namespace: namespace, Revision: 1, IsInstall: true}
	top, err := util.ToRenderValues(chart, values, options, common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(chart, top)
	if err != nil {
		return "", err
	}
	for path := range files {
		// Notes are for people; partial templates render to nothing.
		if !strings.HasSuffix(path, ".yaml") {
			delete(files, path)
		}
	}
	hooks, manifests, err := release.SortManifests(files, nil, release.InstallOrder)
	if err != nil {
		return "", err
	}
	if len(hooks) > 0 {
		return "", fmt.Errorf("%s: hooks are run by Helm alone, and cannot be in a file for kubectl", hooks[0].Path)
	}
	var text strings.Builder
	for _, manifest := range manifests {
		fmt.Fprintf(&text, "---\n%s\n", strings.TrimSpace(manifest.Content))
	}
	return text.String(), nil
}
