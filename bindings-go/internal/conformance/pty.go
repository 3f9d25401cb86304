//go:build cgo

package main

import (
	"context"
	"strings"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

type sizeArgs struct {
	Rows int `json:"rows"`
	Cols int `json:"cols"`
}

type ptyArgs struct {
	Command       string            `json:"command"`
	Args          []string          `json:"args"`
	Env           map[string]string `json:"env"`
	Cwd           string            `json:"cwd"`
	User          string            `json:"user"`
	Rows          int               `json:"rows"`
	Cols          int               `json:"cols"`
	Term          string            `json:"term"`
	HangupAfterMS float64           `json:"hangup_after_ms"`
	TimeoutMS     float64           `json:"timeout_ms"`
}

func (a ptyArgs) start(ctx context.Context, sandbox *forkyard.Sandbox) (*forkyard.Process, error) {
	return sandbox.Pty(ctx, forkyard.Command{
		Program: a.Command, Args: a.Args, Env: a.Env, Dir: a.Cwd, User: a.User, Timeout: millis(a.TimeoutMS),
	}, forkyard.PtyOptions{Rows: a.Rows, Cols: a.Cols, Term: a.Term, HangupAfter: millis(a.HangupAfterMS)})
}

// bindPty binds terminals, which are processes in Go.
func bindPty() {
	type sandbox = *forkyard.Sandbox
	type pty = *forkyard.Process
	bind("sandbox.pty", func(ctx context.Context, c call, on sandbox, args ptyArgs) (any, error) {
		return started(c)(args.start(ctx, on))
	}, "Sandbox.Pty")
	bind("sandbox.attach_pty", func(_ context.Context, c call, on sandbox, args byID) (any, error) {
		return started(c)(on.Process(args.ID))
	}, "Sandbox.Process")
	bind("sandbox.pty_in_scope", func(ctx context.Context, _ call, on sandbox, args ptyArgs) (any, error) {
		terminal, err := args.start(ctx, on)
		if err != nil {
			return nil, err
		}
		defer terminal.Close()
		return record{"id": terminal.ID()}, terminal.Kill(ctx)
	}, "Sandbox.Pty", "Process.Kill", "Process.Close")
	bind("pty.id", func(_ context.Context, _ call, on pty, _ none) (any, error) {
		return record{"id": on.ID()}, nil
	}, "Process.ID")
	bind("pty.read", func(ctx context.Context, _ call, on pty, args struct {
		Until *string `json:"until"`
	}) (any, error) {
		var shown []byte
		var dropped int64
		for output, err := range on.Output(ctx) {
			if err != nil {
				return nil, err
			}
			dropped += output.Dropped
			shown = append(shown, output.Data...)
			if args.Until != nil && strings.Contains(text(shown), *args.Until) {
				break
			}
		}
		said := record{"shown": text(shown), "shown_bytes": asBytes(shown), "dropped": dropped}
		if exit := on.Exit(); exit != nil {
			said["exit"] = exitStatus(*exit)
		}
		return said, nil
	}, "Process.Output", "Process.Exit")
	bind("pty.wait", func(ctx context.Context, _ call, on pty, _ none) (any, error) {
		return said(exitStatus)(on.Wait(ctx))
	}, "Process.Wait")
	bind("pty.write", func(ctx context.Context, _ call, on pty, args struct {
		Data raw `json:"data"`
	}) (any, error) {
		return nil, on.WriteStdin(ctx, args.Data)
	}, "Process.WriteStdin")
	bind("pty.resize", func(ctx context.Context, _ call, on pty, args sizeArgs) (any, error) {
		return nil, on.Resize(ctx, args.Rows, args.Cols)
	}, "Process.Resize")
	bind("pty.send_signal", func(ctx context.Context, _ call, on pty, args struct {
		Signal int `json:"signal"`
	}) (any, error) {
		return nil, on.Signal(ctx, args.Signal)
	}, "Process.Signal")
	bind("pty.kill", func(ctx context.Context, _ call, on pty, _ none) (any, error) {
		return nil, on.Kill(ctx)
	}, "Process.Kill")
	bind("pty.info", func(ctx context.Context, _ call, on pty, _ none) (any, error) {
		return said(processInfo)(on.Info(ctx))
	}, "Process.Info")
	bind("pty.detach", func(_ context.Context, _ call, on pty, _ none) (any, error) {
		return nil, on.Close()
	}, "Process.Close")
}

// text is what people see of bytes.
func text(data []byte) string {
	return strings.ToValidUTF8(string(data), "\uFFFD")
}
