//go:build cgo

package main

import (
	"context"
	"fmt"
)

// binding makes a call.
type binding struct {
	// via are the public methods that it goes through, the telling one first.
	via []string
	run func(ctx context.Context, c call) (any, error)
}

// calls are all of them.
var calls = map[string]binding{}

// bind enters a call on an object of type O, with arguments of type A, into the table.
func bind[O, A any](name string, run func(ctx context.Context, c call, on O, args A) (any, error), via ...string) {
	calls[name] = binding{via, func(ctx context.Context, c call) (any, error) {
		on, ok := c.on.(O)
		if !ok && name != "client.open" && name != "client.in_scope" {
			return nil, fmt.Errorf("%s is called on %T", name, c.on)
		}
		var args A
		if err := c.read(&args); err != nil {
			return nil, fmt.Errorf("its arguments: %w", err)
		}
		return run(ctx, c, on, args)
	}}
}

// none are no arguments.
type none struct{}

// byID are those of a call for one thing.
type byID struct {
	ID string `json:"id"`
}

func init() {
	bindClient()
	bindSandbox()
	bindFiles()
	bindProcess()
	bindPty()
	bindPorts()
	bindEvents()
}
