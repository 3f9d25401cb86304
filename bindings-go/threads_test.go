//go:build cgo && linux

package forkyard_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// Most OS threads that a program may have with a thousand calls under way.
const mostThreads = 40

func TestAThousandWaitingGoroutinesHoldNoThreads(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	command := forkyard.Cmd("cat")
	command.OpenStdin = true
	// A process lets 64 read its output at once.
	const processes, readers = 20, 50
	var waiting, ended sync.WaitGroup
	failed := make(chan error, processes*readers)
	started := make([]*forkyard.Process, processes)
	for i := range started {
		process, err := sandbox.Start(ctx, command)
		check(t, err)
		defer process.Close()
		started[i] = process
		for range readers {
			waiting.Add(1)
			ended.Add(1)
			go func() {
				defer ended.Done()
				once := sync.OnceFunc(waiting.Done)
				defer once()
				if err := readAll(ctx, sandbox, process.ID(), once); err != nil {
					failed <- err
				}
			}()
		}
		check(t, process.WriteStdin(ctx, []byte("x")))
	}
	waiting.Wait()
	count := threads(t)
	t.Logf("%d threads for %d waiting goroutines", count, processes*readers)
	if count >= mostThreads {
		t.Error("these are too many")
	}
	for _, process := range started {
		check(t, process.CloseStdin(ctx))
	}
	ended.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// readAll reads a process's output to its end, and says when it has some and waits for more.
func readAll(ctx context.Context, sandbox *forkyard.Sandbox, id string, waits func()) error {
	process, err := sandbox.Process(id)
	if err != nil {
		return err
	}
	defer process.Close()
	for output, err := range process.Output(ctx) {
		if err != nil {
			return err
		}
		if len(output.Data) > 0 {
			waits()
		}
	}
	return nil
}

func threads(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	check(t, err)
	for _, line := range strings.Split(string(status), "\n") {
		if count, ok := strings.CutPrefix(line, "Threads:"); ok {
			number, err := strconv.Atoi(strings.TrimSpace(count))
			check(t, err)
			return number
		}
	}
	t.Fatal("the kernel does not say how many threads there are")
	return 0
}
