// What `make bench` has Go do: a job on a machine, whose samples it prints as JSON. Usage: bench JOB SANDBOX_ID.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

const (
	runs, firstRuns      = 50, 5
	atOnce               = 1000
	calls, step, callers = 100_000, 10_000, 16
)

func main() {
	if err := measure(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func measure(ctx context.Context) error {
	if len(os.Args) != 3 {
		return errors.New("usage: bench JOB SANDBOX_ID")
	}
	jobs := map[string]func(context.Context, *forkyard.Sandbox) ([]float64, error){
		"run": run, "gather": gather, "memory": memory,
	}
	job, ok := jobs[os.Args[1]]
	if !ok {
		return fmt.Errorf("there is no job %q", os.Args[1])
	}
	sandbox, err := forkyard.Connect(ctx, os.Args[2])
	if err != nil {
		return err
	}
	samples, err := job(ctx, sandbox)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(samples)
}

// run is milliseconds of `true`; the first runs warm up.
func run(ctx context.Context, sandbox *forkyard.Sandbox) (samples []float64, err error) {
	for range firstRuns + runs {
		started := time.Now()
		if _, err := sandbox.Run(ctx, forkyard.Cmd("true")); err != nil {
			return nil, err
		}
		samples = append(samples, time.Since(started).Seconds()*1000)
	}
	return samples[firstRuns:], nil
}

// gather is runs a second where 1,000 are under way at once.
func gather(ctx context.Context, sandbox *forkyard.Sandbox) ([]float64, error) {
	all := func(count int) error {
		return together(count, func() error {
			_, err := sandbox.Run(ctx, forkyard.Cmd("true"))
			return err
		})
	}
	if err := all(50); err != nil {
		return nil, err
	}
	started := time.Now()
	if err := all(atOnce); err != nil {
		return nil, err
	}
	return []float64{atOnce / time.Since(started).Seconds()}, nil
}

// memory is MiB of resident memory after each 10,000 of 100,000 calls.
func memory(ctx context.Context, sandbox *forkyard.Sandbox) (samples []float64, err error) {
	for range calls / step {
		err := together(callers, func() error {
			for range step / callers {
				if _, err := sandbox.Info(ctx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		held, err := resident()
		if err != nil {
			return nil, err
		}
		samples = append(samples, held)
	}
	return samples, nil
}

// together does something so many times at once.
func together(count int, do func() error) error {
	failed := make([]error, count)
	var doing sync.WaitGroup
	for i := range count {
		doing.Add(1)
		go func() {
			defer doing.Done()
			failed[i] = do()
		}()
	}
	doing.Wait()
	return errors.Join(failed...)
}

// resident is MiB that the process holds (proc(5), statm, in pages).
func resident() (float64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	return float64(pages*os.Getpagesize()) / (1 << 20), err
}
