//go:build cgo

package forkyard_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

func square(ctx context.Context, sandbox *forkyard.Sandbox, number int) (int, error) {
	command := forkyard.Cmd("sh", "-c", "echo $(($N * $N))")
	command.Env, command.Check = map[string]string{"N": strconv.Itoa(number)}, true
	result, err := sandbox.Run(ctx, command)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(result.StdoutText()))
}

var errOdd = errors.New("odd")

func TestASwarmDoesItsTasks(t *testing.T) {
	ctx := bounded(t)
	var tries atomic.Int32
	var last forkyard.SwarmProgress
	changes := 0
	options := forkyard.SwarmOptions{Machine: small, Concurrency: 2, Retries: 1, OnProgress: func(progress forkyard.SwarmProgress) {
		changes++
		last = progress
		if progress.Starting+progress.Running > 2 {
			t.Errorf("%+v are too many at once", progress)
		}
	}}
	report, err := forkyard.Swarm(ctx, options, []int{2, 3, 4}, func(ctx context.Context, sandbox *forkyard.Sandbox, number int) (int, error) {
		if number == 3 {
			tries.Add(1)
			return 0, fmt.Errorf("%d is %w", number, errOdd)
		}
		return square(ctx, sandbox, number)
	})
	check(t, err)
	equal(t, "what is done", fmt.Sprint(report.Results()), "[4 16]")
	equal(t, "how many failed", report.Failed, 1)
	equal(t, "how often the odd one was tried", tries.Load(), 2)
	task := report.Tasks[1]
	equal(t, "its status", task.Status, forkyard.TaskStatusFailed)
	equal(t, "its error", errors.Is(task.Err, errOdd), true)
	equal(t, "how many attempts it had", len(task.Attempts), 2)
	equal(t, "why the first failed", task.Attempts[0].Error, "3 is odd")
	if task.Attempts[0].Ready == nil || task.Attempts[0].SandboxID == "" || report.Speedup <= 0 {
		t.Fatalf("%+v does not say how it went", report)
	}
	equal(t, "the last that was told", last.Succeeded, 2)
	if changes < 8 {
		t.Fatalf("only %d changes were told of", changes)
	}
	for _, attempt := range append(task.Attempts, report.Tasks[0].Attempts...) {
		info, err := client(t).Get(ctx, attempt.SandboxID)
		check(t, err)
		equal(t, "a machine's status", info.Status, forkyard.SandboxStatusTerminated)
	}
}

func TestASwarmThatIsCancelledEndsItsMachines(t *testing.T) {
	ctx := bounded(t)
	cancelled, cancel := context.WithCancel(ctx)
	report, err := forkyard.Swarm(cancelled, forkyard.SwarmOptions{Machine: small, Concurrency: 1}, []int{1, 2},
		func(_ context.Context, sandbox *forkyard.Sandbox, _ int) (string, error) {
			cancel()
			// A job that looks at no context.
			_, err := sandbox.Run(context.Background(), forkyard.Cmd("sleep", "600"))
			return sandbox.ID(), err
		})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v is no cancellation", err)
	}
	equal(t, "how many were cancelled", report.Cancelled, 2)
	info, err := client(t).Get(ctx, report.Tasks[0].Attempts[0].SandboxID)
	check(t, err)
	equal(t, "its machine's status", info.Status, forkyard.SandboxStatusTerminated)
}

func TestASwarmsTaskHasItsTime(t *testing.T) {
	ctx := bounded(t)
	options := forkyard.SwarmOptions{Machine: small, TaskTimeout: time.Second}
	report, err := forkyard.Swarm(ctx, options, []string{"60"},
		func(ctx context.Context, sandbox *forkyard.Sandbox, seconds string) (struct{}, error) {
			_, err := sandbox.Run(ctx, forkyard.Cmd("sleep", seconds))
			return struct{}{}, err
		})
	check(t, err)
	equal(t, "how many failed", report.Failed, 1)
	if err := report.Tasks[0].Err; !errors.Is(err, forkyard.CodeTimeout) || !strings.Contains(err.Error(), "longer than 1s") {
		t.Fatalf("%v does not say that it took too long", err)
	}
}

func TestASwarmIsRefusedBeforeItBegins(t *testing.T) {
	ctx := bounded(t)
	_, err := forkyard.Swarm(ctx, forkyard.SwarmOptions{Concurrency: -1}, []int{1}, square)
	if !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Fatalf("%v does not refuse it", err)
	}
	report, err := forkyard.Swarm(ctx, forkyard.SwarmOptions{Machine: forkyard.Options{Image: "no-such"}, Retries: 3}, []int{1}, square)
	check(t, err)
	// What was refused is refused again: it is not tried again.
	equal(t, "how often it was tried", len(report.Tasks[0].Attempts), 1)
	equal(t, "its error", errors.Is(report.Tasks[0].Err, forkyard.CodeNotFound), true)
}
