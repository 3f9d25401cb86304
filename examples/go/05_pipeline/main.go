// A pipeline of 200 tasks over 8 forks of one machine: what is set up once, every fork has; each takes the next task when it is done
// with its last; and all of it stops at once when there is no more to be won, when a task fails, or at Ctrl-C.
//
//	numbers -> 8 forks -> results
//
// The base draws a secret into its memory and is frozen. Each task has a fork hash the secret with the task's number, and the first
// run, which goes to its end, finds the number with the smallest hash. The second looks for that hash and is cancelled as soon
// as it has it: what runs in the machines is killed, and the tasks behind it never start.
//
// Usage: go run ./05_pipeline [TASKS [FORKS]], with a server running (make serve) whose key may have as many machines. Default: 200
// tasks over 8 forks.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// work hashes the secret, which lies in the machine's memory, with a number.
const work = `{ cat /dev/shm/secret; printf " %s" "$NUMBER"; } | sha256sum`

// errFound is why a search that has found what it looked for is cancelled.
var errFound = errors.New("it is found")

var started = time.Now()

// say prints what happens, and when.
func say(format string, values ...any) {
	fmt.Printf("%6.2f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, values...))
}

type result struct {
	number int
	hash   string
}

// hash has a machine do one task.
func hash(ctx context.Context, machine *forkyard.Sandbox, number int) (result, error) {
	command := forkyard.Cmd("sh", "-c", work)
	command.Env = map[string]string{"NUMBER": strconv.Itoa(number)}
	command.Check, command.Timeout = true, time.Minute
	done, err := machine.Run(ctx, command)
	if err != nil {
		return result{}, fmt.Errorf("task %d: %w", number, err)
	}
	sum, _, _ := strings.Cut(done.StdoutText(), " ")
	return result{number, sum}, nil
}

// pipeline runs the tasks over the machines and hands over the results as they come. The first error, of a task or of take, stops
// all of it; what it returns is that error, once nothing runs any more.
func pipeline(
	ctx context.Context, machines []*forkyard.Sandbox, tasks int, take func(result) error,
) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	numbers := make(chan int)
	go func() {
		defer close(numbers)
		for number := range tasks {
			select {
			case numbers <- number:
			case <-ctx.Done():
				return
			}
		}
	}()
	// Without a buffer: a fork takes its next task when its last result is taken.
	results := make(chan result)
	var working sync.WaitGroup
	for _, machine := range machines {
		working.Add(1)
		go func() {
			defer working.Done()
			for number := range numbers {
				done, err := hash(ctx, machine, number)
				if err != nil {
					stop(err)
					return
				}
				select {
				case results <- done:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	go func() {
		working.Wait()
		close(results)
	}()
	for done := range results {
		if ctx.Err() != nil {
			continue
		}
		if err := take(done); err != nil {
			stop(err)
		}
	}
	return context.Cause(ctx)
}

// setUp draws the secret in a machine, and forks it.
func setUp(ctx context.Context, forks int) (secret string, machines []*forkyard.Sandbox, err error) {
	base, err := forkyard.Create(ctx, forkyard.Options{Image: "base", MemoryMB: 256})
	if err != nil {
		return "", nil, err
	}
	defer func() {
		_, ended := base.Terminate(context.WithoutCancel(ctx))
		err = errors.Join(err, ended)
	}()
	draw := forkyard.Cmd("sh", "-c", "od -An -N16 -tx1 /dev/urandom | tr -d ' \\n' | tee /dev/shm/secret")
	draw.Check = true
	drawn, err := base.Run(ctx, draw)
	if err != nil {
		return "", nil, err
	}
	say("the base has drawn its secret")
	machines, err = base.Fork(ctx, forkyard.ForkOptions{Count: forks})
	return drawn.StdoutText(), machines, err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(errors.Join(err, forkyard.Settle(2*time.Second)))
	}
}

// counts reads the command line.
func counts() (tasks, forks int, err error) {
	counts := [2]int{200, 8}
	for index, argument := range os.Args[1:] {
		if index == len(counts) {
			return 0, 0, errors.New("usage: 05_pipeline [TASKS [FORKS]]")
		}
		if counts[index], err = strconv.Atoi(argument); err != nil || counts[index] < 1 {
			return 0, 0, fmt.Errorf("TASKS and FORKS must be numbers from 1 on, not %q", argument)
		}
	}
	return counts[0], counts[1], nil
}

func run(ctx context.Context) (err error) {
	tasks, forks, err := counts()
	if err != nil {
		return err
	}
	secret, machines, err := setUp(ctx, forks)
	if err != nil {
		return err
	}
	defer func() {
		for _, machine := range machines {
			_, ended := machine.Terminate(context.WithoutCancel(ctx))
			err = errors.Join(err, ended)
		}
	}()
	say("%d forks have it too", len(machines))
	smallest, err := all(ctx, machines, tasks, secret)
	if err != nil {
		return err
	}
	return search(ctx, machines, tasks, smallest)
}

// all goes through all tasks, checks each result, and answers the one with the smallest hash.
func all(ctx context.Context, machines []*forkyard.Sandbox, tasks int, secret string) (result, error) {
	var smallest result
	count, began := 0, time.Now()
	err := pipeline(ctx, machines, tasks, func(done result) error {
		expected := sha256.Sum256(fmt.Appendf(nil, "%s %d", secret, done.number))
		if done.hash != hex.EncodeToString(expected[:]) {
			return fmt.Errorf("task %d is wrong: %q", done.number, done.hash)
		}
		if count++; count%50 == 0 {
			say("  %d of %d tasks are done", count, tasks)
		}
		if smallest.hash == "" || done.hash < smallest.hash {
			smallest = done
		}
		return nil
	})
	if err != nil {
		return result{}, err
	}
	rate := float64(count) / time.Since(began).Seconds()
	say("all %d tasks are done and right, %.0f a second; the smallest hash is that of %d", count, rate, smallest.number)
	return smallest, nil
}

// search goes through the tasks until one has this hash, and proves that nothing runs any more then.
func search(ctx context.Context, machines []*forkyard.Sandbox, tasks int, wanted result) error {
	count := 0
	err := pipeline(ctx, machines, tasks, func(done result) error {
		count++
		if done.hash == wanted.hash {
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		return errors.Join(err, errors.New("the search has not found what is there"))
	}
	say("the search was cancelled after %d of %d tasks: it has found %d", count, tasks, wanted.number)
	// Each is killed by a call of its own, which the cancelled one did not wait for.
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	for _, machine := range machines {
		if err := awaitEnds(ctx, machine); err != nil {
			return err
		}
	}
	say("nothing runs in the machines any more")
	return nil
}

// awaitEnds waits until no process runs in a machine.
func awaitEnds(ctx context.Context, machine *forkyard.Sandbox) error {
	processes, err := machine.Processes(ctx)
	if err != nil {
		return err
	}
	for _, info := range processes {
		if info.State != forkyard.ProcessStateRunning {
			continue
		}
		process, err := machine.Process(info.ID)
		if err != nil {
			return err
		}
		defer process.Close()
		if _, err := process.Wait(ctx); err != nil {
			return fmt.Errorf("process %s in %s: %w", info.ID, machine.ID(), err)
		}
	}
	return nil
}
