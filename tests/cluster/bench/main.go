// Bench measures Blixt in a cluster that is up, where clients are: what `cargo xtask cluster bench` runs. It prints what it
// measured as JSON and holds it against nothing: bars are the caller's.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

func main() {
	subject := flag.String("subject", "", "change, path or scale")
	rounds := flag.Int("rounds", 1, "how often")
	audit := flag.String("audit", "", "the API server's audit log")
	rest := flag.Duration("rest", 0, "how long writes are counted at rest")
	flag.Parse()

	subjects := map[string]func(*cluster) (any, error){
		"change": func(c *cluster) (any, error) {
			return c.onStage(func(s *stage) (any, error) { return s.changes(*rounds) })
		},
		"path": func(c *cluster) (any, error) {
			return c.onStage(func(s *stage) (any, error) { return s.paths(*rounds) })
		},
		"scale": func(c *cluster) (any, error) { return c.scale(*rounds, *audit, *rest) },
	}
	if err := run(subjects[*subject]); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(measure func(*cluster) (any, error)) error {
	if measure == nil {
		return fmt.Errorf("-subject: give change, path or scale")
	}
	c, err := connect(context.Background())
	if err != nil {
		return err
	}
	measured, err := measure(c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measured)
}

// say tells who waits how far it is.
func say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
}
