//go:build cgo

package forkyard_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

func TestACommandSaysHowItEnded(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	command := forkyard.Cmd("sh", "-c", `echo "$WORD"; pwd; id -un; cat; printf '\377' >&2; exit 3`)
	command.Env = map[string]string{"WORD": "grüße"}
	command.Dir, command.User, command.Stdin = "/tmp", "root", []byte("from stdin")
	result, err := sandbox.Run(ctx, command)
	check(t, err)
	equal(t, "the exit code", result.ExitCode, 3)
	equal(t, "standard output", result.StdoutText(), "grüße\n/tmp\nroot\nfrom stdin")
	equal(t, "standard error", string(result.Stderr), "\xff")
	equal(t, "its text", result.StderrText(), "\uFFFD")
	equal(t, "OK", result.OK(), false)

	result, err = sandbox.Run(ctx, forkyard.Cmd("sh", "-c", "kill -9 $$"))
	check(t, err)
	equal(t, "the exit code", result.ExitCode, -1)
	equal(t, "the signal", result.Signal, 9)
}

func TestACheckedCommandFails(t *testing.T) {
	ctx := bounded(t)
	command := forkyard.Cmd("sh", "-c", "echo no such luck >&2; exit 7")
	command.Check = true
	result, err := shared(t, ctx).Run(ctx, command)
	var failed *forkyard.CommandError
	if !errors.As(err, &failed) || !errors.Is(err, forkyard.CodeCommandFailed) {
		t.Fatalf("%v is no CommandError", err)
	}
	equal(t, "the message", err.Error(), "the command exited with 7: no such luck")
	equal(t, "the result's exit code", result.ExitCode, 7)
}

func TestACommandsTimeIsUp(t *testing.T) {
	ctx := bounded(t)
	command := forkyard.Cmd("sleep", "60")
	command.Timeout = 200 * time.Millisecond
	result, err := shared(t, ctx).Run(ctx, command)
	if !errors.Is(err, forkyard.CodeTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v is no time-out", err)
	}
	equal(t, "TimedOut", result.TimedOut, true)
}

func TestOutputIsWrittenAsItComes(t *testing.T) {
	ctx := bounded(t)
	reader, writer := io.Pipe()
	command := forkyard.Cmd("sh", "-c", "echo first; cat; echo err >&2")
	command.Stdout = writer
	command.Stdin = bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	live := make(chan []byte, 1)
	go func() {
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Error(err)
		}
		live <- data
	}()
	result, err := shared(t, ctx).Run(ctx, command)
	check(t, err)
	check(t, writer.Close())
	// More than the machine's ring holds: standard input is written while the output is read.
	equal(t, "the live output", len(<-live), len("first\n")+len(command.Stdin))
	equal(t, "the collected one", len(result.Stdout), 0)
	equal(t, "standard error", result.StderrText(), "err\n")
	equal(t, "the exit code", result.ExitCode, 0)
}

// failing is a writer that is full.
type failing struct{}

var errFull = errors.New("full")

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestAWriterThatFailsEndsTheCommand(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	command := forkyard.Cmd("sh", "-c", "echo x; exec sleep 4321")
	command.Stdout = failing{}
	if _, err := sandbox.Run(ctx, command); !errors.Is(err, errFull) {
		t.Fatalf("%v is not the writer's error", err)
	}
	gone(t, ctx, sandbox, "sleep 4321")
}

func TestCancellingKillsTheCommand(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	cancelled, cancel := context.WithCancelCause(ctx)
	why := errors.New("no longer wanted")
	reader, writer := io.Pipe()
	command := forkyard.Cmd("sh", "-c", "echo runs; exec sleep 1234")
	command.Stdout = writer
	go func() {
		// Once it runs.
		if _, err := reader.Read(make([]byte, 16)); err != nil {
			t.Error(err)
		}
		cancel(why)
	}()
	_, err := sandbox.Run(cancelled, command)
	if !errors.Is(err, why) || !errors.Is(err, forkyard.CodeCancelled) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v does not say why", err)
	}
	gone(t, ctx, sandbox, "sleep 1234")

	// The same where the library collects the output.
	short, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	_, err = sandbox.Run(short, forkyard.Cmd("sleep", "2345"))
	var failure *forkyard.Error
	if !errors.As(err, &failure) || failure.Code != forkyard.CodeTimeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v is no time-out", err)
	}
	check(t, forkyard.Settle(30*time.Second))
	gone(t, ctx, sandbox, "sleep 2345")
}

func gone(t *testing.T, ctx context.Context, sandbox *forkyard.Sandbox, line string) {
	t.Helper()
	check(t, waitUntilGone(ctx, sandbox, line))
}

// waitUntilGone waits until nothing in a machine runs a command line of two words.
func waitUntilGone(ctx context.Context, sandbox *forkyard.Sandbox, line string) error {
	// The words come apart, so that the look does not find itself.
	program, argument, _ := strings.Cut(line, " ")
	command := forkyard.Cmd("sh", "-c",
		`while cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -q "$PROGRAM $ARGUMENT"; do sleep 0.1; done`)
	command.Env = map[string]string{"PROGRAM": program, "ARGUMENT": argument}
	command.Timeout, command.Check = 30*time.Second, true
	_, err := sandbox.Run(ctx, command)
	return err
}

// A look that finds nothing would prove nothing.
func TestTheLookForProcessesFindsThem(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	process, err := sandbox.Start(ctx, forkyard.Cmd("sleep", "3456"))
	check(t, err)
	defer process.Close()
	looking := make(chan error, 1)
	go func() { looking <- waitUntilGone(ctx, sandbox, "sleep 3456") }()
	select {
	case err := <-looking:
		t.Fatalf("it did not see a process that runs (%v)", err)
	case <-time.After(2 * time.Second):
	}
	check(t, process.Kill(ctx))
	check(t, <-looking)
}

func TestAContextThatHasEndedMakesNoCall(t *testing.T) {
	bounded(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client(t).List(ended, forkyard.SandboxFilter{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v is no cancellation", err)
	}
}

func TestWhatCannotCrossIsRefused(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, forkyard.CodeInvalidArgument) {
			t.Errorf("%s: %v is not refused", what, err)
		}
	}
	_, err := sandbox.Run(ctx, forkyard.Cmd("\xff"))
	refused("text that is not UTF-8", err)
	_, err = sandbox.Run(ctx, forkyard.Command{Program: "true", Timeout: -1})
	refused("a negative time", err)
	_, err = sandbox.Run(ctx, forkyard.Command{Program: "true", OpenStdin: true})
	refused("an open input that nobody could write to", err)
	_, err = sandbox.Start(ctx, forkyard.Command{Program: "true", Check: true})
	refused("a check of what is not waited for", err)
	_, err = sandbox.Checkpoint(ctx, forkyard.CheckpointOptions{Type: "everything"})
	refused("a word that is none", err)
	if err != nil && !strings.Contains(err.Error(), "filesystem, memory") {
		t.Errorf("%v does not say what is allowed", err)
	}
	_, err = forkyard.Create(ctx, forkyard.Options{MemoryMB: -5})
	refused("a negative size", err)
	_, err = new(forkyard.Client).List(ctx, forkyard.SandboxFilter{})
	refused("a client of nobody's", err)
}
