// Close the lid and come back: an interpreter's variables outlive the program that made them.
//
// The first program starts a Python interpreter in a named machine, has it compute something, suspends the machine and ends. A
// second program, which knows nothing but the name, goes on with the interpreter's variables.
//
// Usage: go run ./03_pause_and_return, with a server running (make serve).
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// interpreter reads lines of code from a pipe and runs them, all in one set of variables.
const interpreter = `import contextlib, io, os

os.mkfifo("/workspace/code")
os.mkfifo("/workspace/answer")
variables = {}
while True:
    with open("/workspace/code") as code:
        source = code.read()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(source, variables)
    with open("/workspace/answer", "w") as answer:
        answer.write(output.getvalue())
`

const ask = `until [ -p answer ]; do sleep 0.1; done; printf "%s" "$1" >code; cat answer`

var started = time.Now()

// say prints what happens, and when.
func say(format string, values ...any) {
	fmt.Printf("%6.2f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, values...))
}

// execute has the interpreter in the machine run some code, and answers what it printed.
func execute(ctx context.Context, sandbox *forkyard.Sandbox, code string) (string, error) {
	command := forkyard.Cmd("sh", "-c", ask, "sh", code)
	command.Check, command.Timeout = true, time.Minute
	result, err := sandbox.Run(ctx, command)
	return strings.TrimSpace(result.StdoutText()), err
}

// begin is what the first program does.
func begin(ctx context.Context, name string) (err error) {
	sandbox, err := forkyard.Create(ctx, forkyard.Options{Name: name})
	if err != nil {
		return err
	}
	defer func() {
		// Nobody comes back to a machine that did not get that far.
		if err != nil {
			_, ended := sandbox.Terminate(context.WithoutCancel(ctx))
			err = errors.Join(err, ended)
		}
	}()
	if err := sandbox.WriteFile(ctx, "/workspace/interpreter.py", []byte(interpreter), 0); err != nil {
		return err
	}
	process, err := sandbox.Start(ctx, forkyard.Cmd("python", "interpreter.py"))
	if err != nil {
		return err
	}
	defer process.Close()
	code := "primes = [n for n in range(2, 1000) if all(n % d for d in range(2, int(n**0.5) + 1))]"
	if _, err := execute(ctx, sandbox, code); err != nil {
		return err
	}
	count, err := execute(ctx, sandbox, "print(len(primes))")
	if err != nil {
		return err
	}
	say("first program: %s primes are in a variable, in %s", count, sandbox.ID())
	info, err := sandbox.Suspend(ctx)
	if err == nil {
		say("first program: the machine is %s, and I am done", info.Status)
	}
	return err
}

// goOn is what the second program does, in a process of its own.
func goOn(ctx context.Context, name string) (err error) {
	sandbox, err := forkyard.Connect(ctx, name)
	if err != nil {
		return err
	}
	defer func() {
		_, ended := sandbox.Terminate(context.WithoutCancel(ctx))
		err = errors.Join(err, ended)
	}()
	say("second program: found '%s'", name)
	info, err := sandbox.Resume(ctx)
	if err != nil {
		return err
	}
	last, err := execute(ctx, sandbox, "print(primes[-1])")
	if err == nil {
		say("second program: it is %s; its last prime is %s", info.Status, last)
	}
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(errors.Join(err, forkyard.Settle(2*time.Second)))
	}
}

func run(ctx context.Context) error {
	if len(os.Args) > 1 {
		return goOn(ctx, os.Args[1])
	}
	name := fmt.Sprintf("thinker-%x", time.Now().UnixNano())
	if err := begin(ctx, name); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	second := exec.CommandContext(ctx, self, name)
	second.Stdout, second.Stderr = os.Stdout, os.Stderr
	if err := second.Run(); err != nil {
		return err
	}
	say("the machine is gone")
	return nil
}
