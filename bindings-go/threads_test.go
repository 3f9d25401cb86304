//go:build cgo && linux

package forkyard_test

import (
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
	process, err := sandbox.Start(ctx, command)
	check(t, err)
	defer process.Close()
	const waiters = 1000
	var waiting, ended sync.WaitGroup
	failed := make(chan error, waiters)
	for range waiters {
		waiting.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			same, err := sandbox.Process(process.ID())
			if err != nil {
				failed <- err
				waiting.Done()
				return
			}
			defer same.Close()
			once := sync.OnceFunc(waiting.Done)
			defer once()
			for output, err := range same.Output(ctx) {
				if err != nil {
					failed <- err
					return
				}
				// It has its connection, and waits for more.
				if len(output.Data) > 0 {
					once()
				}
			}
		}()
	}
	check(t, process.WriteStdin(ctx, []byte("x")))
	waiting.Wait()
	count := threads(t)
	t.Logf("%d threads for %d waiting goroutines", count, waiters)
	if count >= mostThreads {
		t.Error("these are too many")
	}
	check(t, process.CloseStdin(ctx))
	ended.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
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
