//go:build cgo

package forkyard_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// infoWhen is a process's record as soon as a condition holds for it.
func infoWhen(
	t *testing.T, ctx context.Context, process *forkyard.Process, holds func(forkyard.ProcessInfo) bool,
) forkyard.ProcessInfo {
	t.Helper()
	for {
		info, err := process.Info(ctx)
		check(t, err)
		if holds(info) {
			return info
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestWhatFailsIsStartedAgain(t *testing.T) {
	ctx := bounded(t)
	sandbox := create(t, ctx, small)
	script := "n=$(cat /tmp/runs 2>/dev/null || echo 0); echo run $n; echo $((n + 1)) >/tmp/runs; test $n = 2"
	command := forkyard.Cmd("sh", "-c", script)
	command.Name, command.Restart = "shaky", &forkyard.RestartPolicy{Backoff: 100 * time.Millisecond}
	process, err := sandbox.Start(ctx, command)
	check(t, err)
	defer process.Close()
	exit, err := process.Wait(ctx)
	check(t, err)
	equal(t, "the last run's exit code", exit.ExitCode, 0)
	info, err := process.Info(ctx)
	check(t, err)
	equal(t, "the name", info.Name, "shaky")
	equal(t, "the restarts", info.Restarts, 2)
	equal(t, "the state", info.State, forkyard.ProcessStateExited)
	equal(t, "the next start", info.NextStartAt, time.Time{})
	equal(t, "the run before's exit code", info.LastExit.ExitCode, 1)
	again, err := sandbox.Process(process.ID())
	check(t, err)
	defer again.Close()
	var written strings.Builder
	for output, err := range again.Output(ctx) {
		check(t, err)
		written.Write(output.Data)
	}
	equal(t, "the output", written.String(), "run 0\nrun 1\nrun 2\n")

	// One that waits is told to end.
	command = forkyard.Cmd("false")
	command.Name = "waits"
	command.Restart = &forkyard.RestartPolicy{
		When: forkyard.RestartWhenAlways, MaxRestarts: 5, Backoff: 10 * time.Minute, MaxBackoff: 10 * time.Minute,
	}
	waits, err := sandbox.Start(ctx, command)
	check(t, err)
	defer waits.Close()
	info = infoWhen(t, ctx, waits, func(info forkyard.ProcessInfo) bool { return !info.NextStartAt.IsZero() })
	equal(t, "the state", info.State, forkyard.ProcessStateRunning)
	if pause := info.NextStartAt.Sub(info.StartedAt); pause < 5*time.Minute {
		t.Fatalf("it is started again after %v", pause)
	}
	if _, err = sandbox.Start(ctx, command); !errors.Is(err, forkyard.CodeAlreadyExists) {
		t.Fatalf("a second process of the name: %v", err)
	}
	check(t, waits.Kill(ctx))
	exit, err = waits.Wait(ctx)
	check(t, err)
	equal(t, "its only run's exit code", exit.ExitCode, 1)
}

func TestItIsFoundOutWhetherAProcessDoesItsWork(t *testing.T) {
	ctx := bounded(t)
	sandbox := create(t, ctx, small)
	command := forkyard.Cmd("sleep", "1000")
	command.HealthCheck = &forkyard.HealthCheck{
		Command: []string{"test", "-e", "/tmp/well"}, Interval: 200 * time.Millisecond, Timeout: 20 * time.Second, Retries: 1,
		StartPeriod: time.Millisecond,
	}
	process, err := sandbox.Start(ctx, command)
	check(t, err)
	defer process.Close()
	infoWhen(t, ctx, process, func(info forkyard.ProcessInfo) bool { return info.Healthy != nil && !*info.Healthy })
	check(t, sandbox.WriteFile(ctx, "/tmp/well", nil, 0))
	info := infoWhen(t, ctx, process, func(info forkyard.ProcessInfo) bool { return info.Healthy != nil && *info.Healthy })
	equal(t, "the restarts", info.Restarts, 0)
}

func TestWhatCannotBeKeptRunningIsRefused(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	always := &forkyard.RestartPolicy{When: forkyard.RestartWhenAlways}
	for _, test := range []struct {
		command forkyard.Command
		says    string
	}{
		{forkyard.Command{HealthCheck: &forkyard.HealthCheck{}}, "health_check needs a 'command' or a 'port'"},
		{forkyard.Command{HealthCheck: &forkyard.HealthCheck{Port: -1}}, "HealthCheck.Port must be between 1 and 65535"},
		{forkyard.Command{Restart: always, OpenStdin: true}, "no standard input"},
		{forkyard.Command{Restart: &forkyard.RestartPolicy{When: "sometimes"}}, "sometimes"},
		{forkyard.Command{Restart: &forkyard.RestartPolicy{MaxRestarts: -1}}, "Restart.MaxRestarts must not be negative"},
	} {
		test.command.Program = "true"
		_, err := sandbox.Start(ctx, test.command)
		if !errors.Is(err, forkyard.CodeInvalidArgument) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v does not say: %s", err, test.says)
		}
	}
	if _, err := sandbox.Run(ctx, forkyard.Command{Program: "true", Restart: always}); !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Errorf("run to its end, it was answered with %v", err)
	}
}
