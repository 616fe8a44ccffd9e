// Package l4 holds Blixt's own tests of what a client sees, in the form of the official suite: each has manifests, and a function that looks at
// statuses and sends traffic. They run where clients are, outside the nodes.
package l4
