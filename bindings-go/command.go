//go:build cgo

package forkyard

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxOutput is how many bytes of each output a command's result holds at most.
const maxOutput = 128 << 20

// Command is a program to run and how to run it. No shell is involved. Zero values stand for defaults.
type Command struct {
	// Program is a path, or a name looked up in PATH.
	Program string
	// Args are its arguments, without the program's own name.
	Args []string
	// Env are variables added to the machine's environment.
	Env map[string]string
	// Dir is the folder to run in. Default: the image's, such as /workspace.
	Dir string
	// User is the account to run as. Default: the image's, such as agent.
	User string
	// Stdin is what it reads from standard input. Default: nothing.
	Stdin []byte
	// OpenStdin leaves standard input open for [Process.WriteStdin]; for [Sandbox.Start] alone.
	OpenStdin bool
	// Timeout is how long it may run, at most a week, before it and all that it started are killed in the machine. Default: for
	// ever.
	Timeout time.Duration
	// Check has [Sandbox.Run] fail where it does not exit with 0.
	Check bool
	// Stdout gets standard output as it comes, instead of [Result]; for [Sandbox.Run] alone.
	Stdout io.Writer
	// Stderr gets standard error as it comes, instead of [Result]; for [Sandbox.Run] alone.
	Stderr io.Writer
	// Detach leaves it running where the context of [Sandbox.Run] ends; otherwise it is killed then.
	Detach bool
	// Name is what it is called in [Sandbox.Processes]: 1 to 63 of a-z 0-9 -, of no other process that has not ended. Default:
	// nothing.
	Name string
	// Restart has the machine start it again when it has ended; for [Sandbox.Start] alone, and not with standard input. Default,
	// where nil: never.
	Restart *RestartPolicy
	// HealthCheck has the machine find out again and again whether it does its work; for [Sandbox.Start] alone. Default, where nil:
	// not.
	HealthCheck *HealthCheck
}

// Cmd is a program with its arguments, and defaults otherwise.
func Cmd(program string, args ...string) Command {
	return Command{Program: program, Args: args}
}

func (c Command) spec() commandSpec {
	return commandSpec{
		Program:     c.Program,
		Args:        c.Args,
		Env:         c.Env,
		Dir:         c.Dir,
		User:        c.User,
		Stdin:       c.Stdin,
		OpenStdin:   c.OpenStdin,
		Timeout:     c.Timeout,
		Detach:      c.Detach,
		Name:        c.Name,
		Restart:     c.Restart,
		HealthCheck: c.HealthCheck,
	}
}

// OK says whether the command exited with 0.
func (r Result) OK() bool { return r.ExitCode == 0 }

// StdoutText is standard output as text: UTF-8, with U+FFFD in place of what is not.
func (r Result) StdoutText() string { return strings.ToValidUTF8(string(r.Stdout), "\uFFFD") }

// StderrText is standard error as text: UTF-8, with U+FFFD in place of what is not.
func (r Result) StderrText() string { return strings.ToValidUTF8(string(r.Stderr), "\uFFFD") }

// Run runs a command to its end. However often the connection is cut, it runs once, and all of its output arrives.
//
// It fails with a [*CommandError] where the command's time was up or, with Check, it did not exit with 0; the result is there
// then too.
func (o *Sandbox) Run(ctx context.Context, command Command) (Result, error) {
	if command.OpenStdin {
		return Result{}, invalidError("OpenStdin is for Start: Run gives Stdin to the command, and closes it")
	}
	if command.Restart != nil || command.HealthCheck != nil {
		return Result{}, invalidError("Restart and HealthCheck are for Start: Run runs the command once, to its end")
	}
	run := o.runWhole
	if command.Stdout != nil || command.Stderr != nil {
		run = o.runLive
	}
	result, err := run(ctx, command)
	if err != nil {
		return Result{}, err
	}
	if result.TimedOut || command.Check && !result.OK() {
		return result, &CommandError{Result: result}
	}
	return result, nil
}

func (o *Sandbox) runWhole(ctx context.Context, command Command) (Result, error) {
	return o.runNative(ctx, command.spec())
}

// runLive hands out the output as it comes.
func (o *Sandbox) runLive(ctx context.Context, command Command) (result Result, err error) {
	spec := command.spec()
	// Written while the output is read: of a process that answers before it has read all, nothing is lost.
	spec.Stdin, spec.OpenStdin = nil, len(command.Stdin) > 0
	process, err := o.startNative(ctx, spec)
	if err != nil {
		return result, err
	}
	defer process.Close()
	defer func() {
		if err != nil && !command.Detach {
			process.KillInBackground()
		}
	}()
	if spec.OpenStdin {
		writing, stop := context.WithCancel(ctx)
		written := make(chan struct{})
		defer func() { stop(); <-written }()
		go func() {
			defer close(written)
			// A process that ends without reading all of its input is no failure of the call.
			if process.WriteStdin(writing, command.Stdin) == nil {
				_ = process.CloseStdin(writing)
			}
		}()
	}
	for output, err := range process.Output(ctx) {
		if err == nil {
			err = result.take(command, output)
		}
		if err != nil {
			return result, err
		}
	}
	exit, err := process.Wait(ctx)
	result.ExitCode, result.Signal, result.OOMKilled = exit.ExitCode, exit.Signal, exit.OOMKilled
	result.TimedOut, result.Duration, result.ProcessID = exit.TimedOut, exit.Duration, process.ID()
	return result, err
}

// take puts a piece of output where it belongs.
func (r *Result) take(command Command, output Output) error {
	collected, live := &r.Stdout, command.Stdout
	if output.Stream == OutputStreamStderr {
		collected, live = &r.Stderr, command.Stderr
	}
	if live != nil {
		_, err := live.Write(output.Data)
		return err
	}
	if len(*collected)+len(output.Data) > maxOutput {
		message := fmt.Sprintf("the output is over %d bytes: give the command a writer for it", maxOutput)
		return &Error{Code: CodeFailedPrecondition, Message: message}
	}
	*collected = append(*collected, output.Data...)
	return nil
}

// Start starts a command and leaves it running. Its output is kept in a ring of 3 MiB until somebody reads it, over all its
// restarts.
//
// It fails with [CodeAlreadyExists] where a process of this name has not ended.
func (o *Sandbox) Start(ctx context.Context, command Command) (*Process, error) {
	if command.Check || command.Stdout != nil || command.Stderr != nil {
		return nil, invalidError("Check, Stdout and Stderr are for Run: read a process's output with Process.Output")
	}
	return o.startNative(ctx, command.spec())
}

// Pty starts a command on a terminal, which it has as its input and both its outputs; without a program it is the account's shell.
// A terminal is a process: [Process.Output] is what it shows, escape sequences included, and [Process.WriteStdin] types on it. It
// outlives the connections to it: up to 64 viewers, in any programs, find it by its id with [Sandbox.Process], get what was shown,
// as far as it is kept (a MiB), and may type too. Close leaves it running, Kill ends it.
//
// It fails with [CodeNoCapacity] where 32 terminals run in the machine already.
func (o *Sandbox) Pty(ctx context.Context, command Command, options PtyOptions) (*Process, error) {
	if command.Check || command.Stdout != nil || command.Stderr != nil {
		return nil, invalidError("Check, Stdout and Stderr are for Run: read what a terminal shows with Process.Output")
	}
	return o.ptyNative(ctx, command.spec(), options)
}
