//go:build cgo

package main

import (
	"bytes"
	"context"
	"errors"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// runArgs are a command and how to run it.
type runArgs struct {
	Command      string            `json:"command"`
	Args         []string          `json:"args"`
	Env          map[string]string `json:"env"`
	Cwd          string            `json:"cwd"`
	User         string            `json:"user"`
	Stdin        raw               `json:"stdin"`
	TimeoutMS    float64           `json:"timeout_ms"`
	Check        bool              `json:"check"`
	KillOnCancel *bool             `json:"kill_on_cancel"`
}

func (a runArgs) command() forkyard.Command {
	command := forkyard.Cmd(a.Command, a.Args...)
	command.Env, command.Dir, command.User, command.Stdin = a.Env, a.Cwd, a.User, a.Stdin
	command.Timeout, command.Check = millis(a.TimeoutMS), a.Check
	command.Detach = a.KillOnCancel != nil && !*a.KillOnCancel
	return command
}

// runInScope is what Go has for a block that ends a machine: a deferred call.
func runInScope(ctx context.Context, sandbox *forkyard.Sandbox, args runArgs) (said record, err error) {
	defer func() {
		_, ended := sandbox.Terminate(ctx)
		err = errors.Join(err, ended)
	}()
	ended, err := sandbox.Run(ctx, args.command())
	if err != nil {
		return nil, err
	}
	return result(ended), nil
}

func bindSandbox() {
	type sandbox = *forkyard.Sandbox
	bind("sandbox.record", func(_ context.Context, _ call, on sandbox, _ none) (any, error) {
		return record{"sandbox_id": on.ID(), "name": orNil(on.Name())}, nil
	}, "Sandbox.ID", "Sandbox.Name")
	bind("sandbox.info", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return said(sandboxInfo)(on.Info(ctx))
	}, "Sandbox.Info")
	bind("sandbox.in_scope", func(ctx context.Context, _ call, on sandbox, args runArgs) (any, error) {
		ended, err := runInScope(ctx, on, args)
		return ended, err
	}, "Sandbox.Terminate")
	bind("sandbox.terminate", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return said(sandboxInfo)(on.Terminate(ctx))
	}, "Sandbox.Terminate")
	bind("sandbox.checkpoint", func(ctx context.Context, _ call, on sandbox, args struct {
		Type   forkyard.CheckpointType `json:"checkpoint_type"`
		Name   string                  `json:"name"`
		Labels map[string]string       `json:"labels"`
		Retain bool                    `json:"retain"`
	}) (any, error) {
		return said(snapshotInfo)(on.Checkpoint(ctx, forkyard.CheckpointOptions(args)))
	}, "Sandbox.Checkpoint")
	bind("sandbox.delete_snapshot", func(ctx context.Context, c call, _ sandbox, args struct {
		Client string `json:"client"`
		ID     string `json:"id"`
	}) (any, error) {
		client, ok := c.objects.get(args.Client).(*forkyard.Client)
		if !ok {
			return nil, errors.New(args.Client + " is no client")
		}
		return nil, client.DeleteSnapshot(ctx, args.ID)
	}, "Client.DeleteSnapshot")
	bind("sandbox.fork", func(ctx context.Context, c call, on sandbox, args struct {
		Count       int               `json:"count"`
		Env         map[string]string `json:"env"`
		Labels      map[string]string `json:"labels"`
		TimeoutSecs float64           `json:"timeout_secs"`
		Network     *networkArgs      `json:"network"`
	}) (any, error) {
		options := forkyard.ForkOptions{
			Count: args.Count, Env: args.Env, Labels: args.Labels, Timeout: millis(args.TimeoutSecs * 1000),
		}
		if args.Network != nil {
			policy := args.Network.policy()
			options.Network = &policy
		}
		forks, err := on.Fork(ctx, options)
		if err != nil {
			return nil, err
		}
		return list(forks, func(fork *forkyard.Sandbox) record {
			return c.keep(fork, record{"sandbox_id": fork.ID(), "name": orNil(fork.Name()), "status": "running"})
		}), nil
	}, "Sandbox.Fork")
	bind("sandbox.suspend", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return said(sandboxInfo)(on.Suspend(ctx))
	}, "Sandbox.Suspend")
	bind("sandbox.resume", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return said(sandboxInfo)(on.Resume(ctx))
	}, "Sandbox.Resume")
	bind("sandbox.extend_timeout", func(ctx context.Context, _ call, on sandbox, args struct {
		TimeoutSecs float64 `json:"timeout_secs"`
	}) (any, error) {
		return said(sandboxInfo)(on.ExtendTimeout(ctx, millis(args.TimeoutSecs*1000)))
	}, "Sandbox.ExtendTimeout")
	bind("sandbox.restore", func(ctx context.Context, _ call, on sandbox, args byID) (any, error) {
		return said(sandboxInfo)(on.Restore(ctx, args.ID))
	}, "Sandbox.Restore")
	bindNetwork()
	bindRuns()
}

func bindNetwork() {
	type sandbox = *forkyard.Sandbox
	bind("sandbox.network", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return said(networkInfo)(on.Network(ctx))
	}, "Sandbox.Network")
	bind("sandbox.update_network", func(ctx context.Context, _ call, on sandbox, args networkArgs) (any, error) {
		return said(networkInfo)(on.UpdateNetwork(ctx, args.policy()))
	}, "Sandbox.UpdateNetwork")
	bind("sandbox.network_events", func(ctx context.Context, _ call, on sandbox, args struct {
		Cursor string  `json:"cursor"`
		WaitMS float64 `json:"wait_ms"`
	}) (any, error) {
		events, err := on.NetworkEvents(ctx, args.Cursor, millis(args.WaitMS))
		if err != nil {
			return nil, err
		}
		return record{"events": list(events.Events, networkEvent), "cursor": orNil(events.Cursor)}, nil
	}, "Sandbox.NetworkEvents")
}

func bindRuns() {
	type sandbox = *forkyard.Sandbox
	bind("sandbox.run", func(ctx context.Context, _ call, on sandbox, args runArgs) (any, error) {
		return said(result)(on.Run(ctx, args.command()))
	}, "Sandbox.Run", "Cmd", "Result.OK", "Result.StdoutText", "Result.StderrText")
	bind("sandbox.run_streamed", func(ctx context.Context, _ call, on sandbox, args runArgs) (any, error) {
		var stdout, stderr bytes.Buffer
		command := args.command()
		command.Stdout, command.Stderr = &stdout, &stderr
		ended, err := on.Run(ctx, command)
		// In Go what was heard is not in the result too.
		ended.Stdout, ended.Stderr = stdout.Bytes(), stderr.Bytes()
		var failed *forkyard.CommandError
		if errors.As(err, &failed) {
			return nil, &forkyard.CommandError{Result: ended}
		}
		if err != nil {
			return nil, err
		}
		said := result(ended)
		said["heard"] = record{"stdout": ended.StdoutText(), "stderr": ended.StderrText()}
		return said, nil
	}, "Sandbox.Run")
	bind("sandbox.start", func(ctx context.Context, c call, on sandbox, args struct {
		Command   string   `json:"command"`
		Args      []string `json:"args"`
		Stdin     bool     `json:"stdin"`
		TimeoutMS float64  `json:"timeout_ms"`
		management
	}) (any, error) {
		command := forkyard.Command{
			Program: args.Command, Args: args.Args, OpenStdin: args.Stdin, Timeout: millis(args.TimeoutMS),
		}
		args.manage(&command)
		return started(c)(on.Start(ctx, command))
	}, "Sandbox.Start")
	bind("sandbox.process", func(_ context.Context, c call, on sandbox, args byID) (any, error) {
		return started(c)(on.Process(args.ID))
	}, "Sandbox.Process")
	bind("sandbox.processes", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return saidList(processInfo)(on.Processes(ctx))
	}, "Sandbox.Processes")
}

func started(c call) func(process *forkyard.Process, err error) (any, error) {
	return func(process *forkyard.Process, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return c.keep(process, record{"id": process.ID()}), nil
	}
}
