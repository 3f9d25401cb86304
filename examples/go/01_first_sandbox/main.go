// A machine of one's own: write files, run them, watch a longer command, read a result back.
//
// Usage: go run ./01_first_sandbox [IMAGE], with a server running (make serve).
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

const words = `import collections, json, sys

counts = collections.Counter(sys.stdin.read().split())
json.dump(counts.most_common(3), open("/workspace/result.json", "w"))
print(sum(counts.values()), "words")
`

const countdown = `import time

for number in (3, 2, 1):
    print(number, flush=True)
    time.sleep(0.3)
print("done", flush=True)
`

var started = time.Now()

// say prints what happens, and when.
func say(format string, values ...any) {
	fmt.Printf("%6.2f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, values...))
}

// watch says each piece of output as it comes.
type watch struct{}

func (watch) Write(data []byte) (int, error) {
	// A line and its end may come in two pieces.
	if text := strings.TrimSpace(string(data)); text != "" {
		say("  countdown.py: %q", text)
	}
	return len(data), nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	image := "python"
	if len(os.Args) > 1 {
		image = os.Args[1]
	}
	if err := run(ctx, image); err != nil {
		log.Fatal(errors.Join(err, forkyard.Settle(2*time.Second)))
	}
	say("both machines are gone")
}

func run(ctx context.Context, image string) (err error) {
	say("asking for a machine with image '%s'", image)
	sandbox, err := forkyard.Create(ctx, forkyard.Options{Image: image, MemoryMB: 512})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end(ctx, sandbox)) }()
	say("%s runs", sandbox.ID())
	for path, source := range map[string]string{"/workspace/words.py": words, "/workspace/countdown.py": countdown} {
		if err := sandbox.WriteFile(ctx, path, []byte(source), 0); err != nil {
			return err
		}
	}
	say("wrote two source files")

	counting := forkyard.Cmd("python", "words.py")
	counting.Stdin, counting.Check = []byte("to be or not to be that is"), true
	result, err := sandbox.Run(ctx, counting)
	if err != nil {
		return err
	}
	say("words.py says: %s (it ran %.2f s)", strings.TrimSpace(result.StdoutText()), result.Duration.Seconds())

	counting = forkyard.Cmd("python", "countdown.py")
	counting.Stdout, counting.Timeout, counting.Check = watch{}, time.Minute, true
	if _, err := sandbox.Run(ctx, counting); err != nil {
		return err
	}
	data, err := sandbox.ReadFile(ctx, "/workspace/result.json")
	if err != nil {
		return err
	}
	say("the result, read back: %s", data)
	return lookFromBeside(ctx, image)
}

// lookFromBeside makes another machine, which must see nothing of the first.
func lookFromBeside(ctx context.Context, image string) (err error) {
	other, err := forkyard.Create(ctx, forkyard.Options{Image: image, MemoryMB: 512})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end(ctx, other)) }()
	say("%s runs beside it", other.ID())
	files, err := other.ListFiles(ctx, "/workspace")
	if err != nil {
		return err
	}
	if len(files) > 0 {
		return fmt.Errorf("the second machine sees the first one's files: %v", files)
	}
	say("it sees nothing of the first one's files")
	return nil
}

// end ends a machine, also where the program was interrupted.
func end(ctx context.Context, sandbox *forkyard.Sandbox) error {
	_, err := sandbox.Terminate(context.WithoutCancel(ctx))
	return err
}
