//go:build cgo

package forkyard_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// unique is a word that no other test uses.
func unique(word string) string {
	return fmt.Sprintf("%s-%d-%d", word, os.Getpid(), time.Now().UnixNano())
}

func TestAListIsFilteredAndFetchedAsItIsRead(t *testing.T) {
	ctx := bounded(t)
	c := client(t)
	team := unique("team")
	options := small
	options.Labels = map[string]string{"team": team, "place": "a", "odd": "a:b&ü"}
	first := create(t, ctx, options)
	options.Labels = map[string]string{"team": team, "place": "b", "odd": "a:b&ü"}
	second := create(t, ctx, options)
	info, err := first.Info(ctx)
	check(t, err)
	mine := map[string]string{"team": team}
	both, running := []string{second.ID(), first.ID()}, forkyard.SandboxStatusRunning
	for _, test := range []struct {
		filter forkyard.SandboxFilter
		want   []string
	}{
		{forkyard.SandboxFilter{Labels: mine}, both},
		{forkyard.SandboxFilter{Labels: map[string]string{"team": team, "place": "a"}}, []string{first.ID()}},
		{forkyard.SandboxFilter{Labels: map[string]string{"team": team, "odd": "a:b&ü"}, PageSize: 1}, both},
		{forkyard.SandboxFilter{Labels: mine, Image: info.ImageDigest, Status: running}, both},
		{forkyard.SandboxFilter{Labels: mine, Image: "python"}, nil},
		{forkyard.SandboxFilter{Labels: mine, Status: forkyard.SandboxStatusSuspended}, nil},
	} {
		var read []string
		for info, err := range c.Sandboxes(ctx, test.filter) {
			check(t, err)
			read = append(read, info.SandboxID)
		}
		if !reflect.DeepEqual(read, test.want) {
			t.Fatalf("%+v finds %q, not %q", test.filter, read, test.want)
		}
		list, err := c.List(ctx, test.filter)
		check(t, err)
		equal(t, "how many are listed", len(list), len(test.want))
	}
	for want, filter := range map[string]forkyard.SandboxFilter{
		"a label's key": {Labels: map[string]string{"a:b": "c"}},
		"limit":         {PageSize: 1001},
		"PageSize":      {PageSize: -1},
		"Status":        {Status: "asleep"},
	} {
		if _, err := c.List(ctx, filter); !errors.Is(err, forkyard.CodeInvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	// Leaving the loop is no error, and no more is fetched.
	for range c.Sandboxes(ctx, forkyard.SandboxFilter{Labels: mine, PageSize: 1}) {
		break
	}
}

func TestThoseWhoAskAtOnceGetTheSameMachine(t *testing.T) {
	ctx := bounded(t)
	name, options := unique("shared"), small
	options.ManualResume = true
	const askers = 5
	found := make(chan *forkyard.Sandbox, askers)
	for range askers {
		go func() {
			// Each with its own connections, as a program of its own.
			mine, err := forkyard.NewClient(forkyard.ClientOptions{})
			if err != nil {
				t.Error(err)
				found <- nil
				return
			}
			defer mine.Close()
			sandbox, err := mine.GetOrCreate(ctx, name, options)
			if err != nil {
				t.Error(err)
			}
			found <- sandbox
		}()
	}
	machine := <-found
	if machine == nil {
		t.Fatal("there is no machine")
	}
	defer terminate(t, machine)
	for range askers - 1 {
		other := <-found
		if other == nil || other.ID() != machine.ID() {
			t.Fatal("another got another")
		}
		check(t, other.Close())
	}
	equal(t, "its name", machine.Name(), name)
	check(t, machine.WriteFile(ctx, "/dev/shm/note", []byte("here"), 0))
	_, err := machine.Suspend(ctx)
	check(t, err)
	// What does not exist is not asked for: the machine does.
	again, err := forkyard.GetOrCreate(ctx, name, forkyard.Options{Image: "no-such-image", MemoryMB: 512})
	check(t, err)
	defer again.Close()
	equal(t, "the machine", again.ID(), machine.ID())
	data, err := again.ReadFile(ctx, "/dev/shm/note")
	check(t, err)
	equal(t, "what is in its memory", string(data), "here")
	_, err = machine.Terminate(ctx)
	check(t, err)
	// Its name is free, and what was asked for counts.
	_, err = forkyard.GetOrCreate(ctx, name, forkyard.Options{Image: "no-such-image"})
	if !errors.Is(err, forkyard.CodeNotFound) {
		t.Fatalf("%v does not say that there is no such image", err)
	}
}

func TestAnIdleTimeoutIsChanged(t *testing.T) {
	ctx := bounded(t)
	brief := create(t, ctx, small)
	info, err := brief.ExtendTimeout(ctx, 900*time.Millisecond)
	check(t, err)
	equal(t, "the idle time-out", info.Timeout, time.Second)
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		info, err := client(t).Get(ctx, brief.ID())
		check(t, err)
		if info.Status == forkyard.SandboxStatusTerminated {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("it lives on")
		}
	}
	if _, err := brief.ExtendTimeout(ctx, time.Minute); !errors.Is(err, forkyard.CodeSandboxLost) {
		t.Fatalf("%v does not say that it is gone", err)
	}
	options := small
	options.Name = unique("long")
	machine := create(t, ctx, options)
	for _, timeout := range []time.Duration{0, 31 * 24 * time.Hour} {
		if _, err := machine.ExtendTimeout(ctx, timeout); !errors.Is(err, forkyard.CodeInvalidArgument) {
			t.Fatalf("%v does not refuse %v", err, timeout)
		}
	}
	_, err = machine.Suspend(ctx)
	check(t, err)
	info, err = machine.ExtendTimeout(ctx, 20*time.Minute)
	check(t, err)
	equal(t, "the status", info.Status, forkyard.SandboxStatusSuspended)
	info, err = machine.Resume(ctx)
	check(t, err)
	equal(t, "the idle time-out", info.Timeout, 20*time.Minute)
}

// shown reads what a terminal shows until this is.
func shown(t *testing.T, ctx context.Context, pty *forkyard.Process, wanted string) string {
	t.Helper()
	all := ""
	for output, err := range pty.Output(ctx) {
		check(t, err)
		all += string(output.Data)
		if strings.Contains(all, wanted) {
			return all
		}
	}
	t.Fatalf("it ended with %q", all)
	return ""
}

var echo = forkyard.Cmd("sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done")

func TestAProcessOnATerminal(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	command := forkyard.Cmd("sh", "-c", `stty size; echo "$TERM $K $(pwd)"; read x; stty size; exit 7`)
	command.Env, command.Dir = map[string]string{"K": "v"}, "/tmp"
	pty, err := sandbox.Pty(ctx, command, forkyard.PtyOptions{Rows: 30, Cols: 100, Term: "vt100"})
	check(t, err)
	defer pty.Close()
	info, err := pty.Info(ctx)
	check(t, err)
	if info.Pty == nil || *info.Pty != (forkyard.PtySize{Rows: 30, Cols: 100}) {
		t.Fatalf("its size is %v", info.Pty)
	}
	equal(t, "what it shows", shown(t, ctx, pty, "/tmp\r\n"), "30 100\r\nvt100 v /tmp\r\n")
	check(t, pty.Resize(ctx, 40, 132))
	check(t, pty.WriteStdin(ctx, []byte("\n")))
	equal(t, "its new size", shown(t, ctx, pty, "132\r\n"), "\r\n40 132\r\n")
	exit, err := pty.Wait(ctx)
	check(t, err)
	equal(t, "the exit code", exit.ExitCode, 7)
	if err := pty.Resize(ctx, 1, 1); !errors.Is(err, forkyard.CodeFailedPrecondition) {
		t.Fatalf("%v does not say that it has ended", err)
	}

	// Without a program it is the account's shell, which Ctrl-C does not end.
	shell, err := sandbox.Pty(ctx, forkyard.Command{}, forkyard.PtyOptions{})
	check(t, err)
	defer shell.Close()
	shown(t, ctx, shell, "$ ")
	check(t, shell.WriteStdin(ctx, []byte("sleep 1234\n")))
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		result, err := sandbox.Run(ctx, forkyard.Cmd("pgrep", "-fx", "sleep 1234"))
		check(t, err)
		if result.OK() {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("it does not run")
		}
	}
	check(t, shell.WriteStdin(ctx, []byte("\x03")))
	check(t, shell.WriteStdin(ctx, []byte("echo still here | tr a-z A-Z\n")))
	shown(t, ctx, shell, "STILL HERE")
	check(t, shell.Kill(ctx))
	exit, err = shell.Wait(ctx)
	check(t, err)
	equal(t, "the signal", exit.Signal, 9)
}

func TestTwoProcessesViewersAndATwinHaveOneTerminal(t *testing.T) {
	ctx := bounded(t)
	machine := create(t, ctx, small)
	first, err := machine.Pty(ctx, echo, forkyard.PtyOptions{})
	check(t, err)
	defer first.Close()
	equal(t, "what is shown", shown(t, ctx, first, "ready\r\n"), "ready\r\n")
	second, err := machine.Process(first.ID())
	check(t, err)
	check(t, second.WriteStdin(ctx, []byte("one\n")))
	equal(t, "what the first sees", shown(t, ctx, first, "one\r\n"), "got one\r\n")
	equal(t, "what the second sees", shown(t, ctx, second, "one\r\n"), "ready\r\ngot one\r\n")
	check(t, second.Close())
	check(t, first.WriteStdin(ctx, []byte("two\n")))
	equal(t, "what the first sees", shown(t, ctx, first, "two\r\n"), "got two\r\n")

	twins, err := machine.Fork(ctx, forkyard.ForkOptions{})
	check(t, err)
	defer terminate(t, twins[0])
	there, err := twins[0].Process(first.ID())
	check(t, err)
	defer there.Close()
	check(t, there.WriteStdin(ctx, []byte("twin\n")))
	equal(t, "what the twin shows", shown(t, ctx, there, "twin\r\n"), "ready\r\ngot one\r\ngot two\r\ngot twin\r\n")
}

func TestWhatNoTerminalCanBeIsRefusedByPty(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	checked := echo
	checked.Check = true
	for want, try := range map[string]struct {
		command forkyard.Command
		options forkyard.PtyOptions
	}{
		"Rows must be between":  {echo, forkyard.PtyOptions{Rows: -1}},
		"cols must be between":  {echo, forkyard.PtyOptions{Cols: 5000}},
		"term must be":          {echo, forkyard.PtyOptions{Term: "a b"}},
		"hangup_after":          {echo, forkyard.PtyOptions{HangupAfter: 25 * time.Hour}},
		"command must be":       {forkyard.Command{Args: []string{"-l"}}, forkyard.PtyOptions{}},
		"Check, Stdout and Std": {checked, forkyard.PtyOptions{}},
	} {
		_, err := sandbox.Pty(ctx, try.command, try.options)
		if !errors.Is(err, forkyard.CodeInvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	process, err := sandbox.Start(ctx, forkyard.Cmd("sleep", "60"))
	check(t, err)
	defer process.Close()
	if err := process.Resize(ctx, 24, 80); !errors.Is(err, forkyard.CodeFailedPrecondition) {
		t.Errorf("%v does not say that it has no terminal", err)
	}
	check(t, process.Kill(ctx))
}
