//go:build cgo

package main

import (
	"context"
	"strings"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

func bindProcess() {
	type process = *forkyard.Process
	bind("process.id", func(_ context.Context, _ call, on process, _ none) (any, error) {
		return record{"id": on.ID()}, nil
	}, "Process.ID")
	bind("process.read", func(ctx context.Context, _ call, on process, args struct {
		Until *string `json:"until"`
	}) (any, error) {
		var heard forkyard.Result
		var dropped int64
		for output, err := range on.Output(ctx) {
			if err != nil {
				return nil, err
			}
			dropped += output.Dropped
			if output.Stream == forkyard.OutputStreamStderr {
				heard.Stderr = append(heard.Stderr, output.Data...)
			} else {
				heard.Stdout = append(heard.Stdout, output.Data...)
			}
			if args.Until != nil && strings.Contains(heard.StdoutText(), *args.Until) {
				break
			}
		}
		said := record{
			"stdout": heard.StdoutText(), "stderr": heard.StderrText(), "stdout_bytes": asBytes(heard.Stdout), "dropped": dropped,
		}
		if exit := on.Exit(); exit != nil {
			said["exit"] = exitStatus(*exit)
		}
		return said, nil
	}, "Process.Output", "Process.Exit")
	bind("process.wait", func(ctx context.Context, _ call, on process, _ none) (any, error) {
		return said(exitStatus)(on.Wait(ctx))
	}, "Process.Wait")
	bind("process.info", func(ctx context.Context, _ call, on process, _ none) (any, error) {
		return said(processInfo)(on.Info(ctx))
	}, "Process.Info")
	bind("process.send_signal", func(ctx context.Context, _ call, on process, args struct {
		Signal int `json:"signal"`
	}) (any, error) {
		return nil, on.Signal(ctx, args.Signal)
	}, "Process.Signal")
	bind("process.kill", func(ctx context.Context, _ call, on process, _ none) (any, error) {
		return nil, on.Kill(ctx)
	}, "Process.Kill")
	bind("process.write_stdin", func(ctx context.Context, _ call, on process, args struct {
		Data raw `json:"data"`
	}) (any, error) {
		return nil, on.WriteStdin(ctx, args.Data)
	}, "Process.WriteStdin")
	bind("process.close_stdin", func(ctx context.Context, _ call, on process, _ none) (any, error) {
		return nil, on.CloseStdin(ctx)
	}, "Process.CloseStdin")
	bind("process.resize", func(ctx context.Context, _ call, on process, args sizeArgs) (any, error) {
		return nil, on.Resize(ctx, args.Rows, args.Cols)
	}, "Process.Resize")
}
