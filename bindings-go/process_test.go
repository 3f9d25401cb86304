//go:build cgo

package forkyard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

func TestAProcessIsSpokenWith(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	command := forkyard.Cmd("sh", "-c", `while read line; do echo "<$line>"; done; echo bye >&2; exit 4`)
	command.OpenStdin = true
	process, err := sandbox.Start(ctx, command)
	check(t, err)
	defer process.Close()
	stdin := process.Stdin(ctx)
	for _, word := range []string{"one", "two"} {
		_, err = fmt.Fprintln(stdin, word)
		check(t, err)
		equal(t, "the answer", first(t, ctx, process), "<"+word+">\n")
	}
	equal(t, "the exit, before it is known", process.Exit(), nil)
	check(t, stdin.Close())
	exit, err := process.Wait(ctx)
	check(t, err)
	equal(t, "the exit code", exit.ExitCode, 4)
	equal(t, "all of the output", exit.StdoutSize, int64(len("<one>\n<two>\n")))
	equal(t, "the exit, read again", *process.Exit(), exit)
	again, err := process.Wait(ctx)
	check(t, err)
	equal(t, "a second wait's answer", again, exit)
	info, err := process.Info(ctx)
	check(t, err)
	equal(t, "the state", info.State, forkyard.ProcessStateExited)

	// By its id, from the beginning.
	same, err := sandbox.Process(process.ID())
	check(t, err)
	defer same.Close()
	var text [2]strings.Builder
	for output, err := range same.Output(ctx) {
		check(t, err)
		if output.Stream == forkyard.OutputStreamStderr {
			text[1].Write(output.Data)
		} else {
			text[0].Write(output.Data)
		}
	}
	equal(t, "standard output", text[0].String(), "<one>\n<two>\n")
	equal(t, "standard error", text[1].String(), "bye\n")
}

// first is the next piece of output; the rest stays where it is.
func first(t *testing.T, ctx context.Context, process *forkyard.Process) string {
	t.Helper()
	for output, err := range process.Output(ctx) {
		check(t, err)
		return string(output.Data)
	}
	t.Fatal("the output has ended")
	return ""
}

func TestASignalEndsAProcess(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	process, err := sandbox.Start(ctx, forkyard.Cmd("sleep", "60"))
	check(t, err)
	defer process.Close()
	check(t, process.Signal(ctx, 15))
	exit, err := process.Wait(ctx)
	check(t, err)
	equal(t, "the signal", exit.Signal, 15)
	if err := process.Kill(ctx); !errors.Is(err, forkyard.CodeFailedPrecondition) {
		t.Fatalf("%v does not say that it has ended", err)
	}
	all, err := sandbox.Processes(ctx)
	check(t, err)
	found := false
	for _, info := range all {
		found = found || info.ID == process.ID() && info.Exit != nil && info.Exit.Signal == 15
	}
	equal(t, "being listed", found, true)
}

func TestAWaitThatIsCancelledLosesNothing(t *testing.T) {
	ctx := bounded(t)
	process, err := shared(t, ctx).Start(ctx, forkyard.Cmd("sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.02; done"))
	check(t, err)
	defer process.Close()
	var text, want strings.Builder
	for deadline := 5 * time.Millisecond; process.Exit() == nil; {
		short, stop := context.WithTimeout(ctx, deadline)
		for output, err := range process.Output(short) {
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			text.Write(output.Data)
		}
		stop()
		check(t, ctx.Err())
	}
	for i := range 40 {
		fmt.Fprintln(&want, i+1)
	}
	equal(t, "the output", text.String(), want.String())
}

func TestAClosedHandleSaysSo(t *testing.T) {
	ctx := bounded(t)
	process, err := shared(t, ctx).Start(ctx, forkyard.Cmd("sleep", "60"))
	check(t, err)
	waiting := make(chan error, 1)
	go func() {
		_, err := process.Wait(ctx)
		waiting <- err
	}()
	id := process.ID()
	again, err := shared(t, ctx).Process(id)
	check(t, err)
	defer again.Close()
	check(t, process.Close())
	check(t, process.Close())
	if _, err := process.Info(ctx); !errors.Is(err, forkyard.CodeInvalidArgument) || !strings.Contains(err.Error(), "closed") {
		t.Fatalf("%v does not say that it was closed", err)
	}
	check(t, again.Kill(ctx))
	// The wait was under way, or came too late: it ends either way.
	if err := <-waiting; err != nil && !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Fatal(err)
	}
}
