// Package conformance is the official conformance suite of the Gateway API, as it is published: nothing is added to it or taken away.
package conformance
