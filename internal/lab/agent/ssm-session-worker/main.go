// Command ssm-session-worker is one session's end on its host, as a process of
// its own, for labs whose hosts look at who connects to them. Its argument is the session's id,
// its input an agent.Config in JSON, its output what the service is told.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"jumpsuite/internal/lab/agent"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var c agent.Config
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return fmt.Errorf("read the session's configuration: %w", err)
	}
	if len(os.Args) != 2 || os.Args[1] != c.Session {
		return fmt.Errorf("the argument is %q, not the session %s", os.Args[1:], c.Session)
	}
	output, err := agent.Run(context.Background(), c)
	if err != nil {
		return err
	}
	_, err = fmt.Print(output)
	return err
}
