// Five agents review one project at once: setup is paid once, frozen with its memory, and forked for each agent.
//
// A base machine gets the project and starts the reviewer (../python/code_review/reviewer.py), which imports its tools and
// waits. A snapshot with its memory is taken, and five forks of it each review from one perspective, which an environment
// variable names. Run one by one, all at once, and once more with the setup done in every agent, for comparison.
//
// The lead's summary is made by rule; where OPENAI_API_KEY is set, by the model FORKYARD_LEAD_MODEL (default gpt-4o-mini)
// behind OPENAI_BASE_URL.
//
// Usage: go run ./02_swarm [AGENTS], with a server running (make serve) that has the image 'code-review'. Default: five agents.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

var perspectives = []string{"security", "complexity", "docstrings", "tests", "structure"}

var machine = forkyard.Options{Image: "code-review", MemoryMB: 384}

// ask speaks to the reviewer that waits in the machine.
const ask = `until [ -p ask ]; do sleep 0.1; done; printf "%s" "$PERSPECTIVE" >ask; cat answer`

type finding struct {
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Message string  `json:"message"`
	Cost    float64 `json:"cost"`
}

type review struct {
	Perspective string    `json:"perspective"`
	Score       float64   `json:"score"`
	Findings    []finding `json:"findings"`
}

type report = forkyard.SwarmReport[review]

var started = time.Now()

// say prints what happens, and when.
func say(format string, values ...any) {
	fmt.Printf("%6.2f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, values...))
}

// askFor has the reviewer in a machine look at the project, and takes what it says in its one line of JSON.
func askFor(ctx context.Context, sandbox *forkyard.Sandbox, perspective string, answer any) error {
	command := forkyard.Cmd("sh", "-c", ask)
	command.Env = map[string]string{"PERSPECTIVE": perspective}
	command.Timeout, command.Check = 2*time.Minute, true
	result, err := sandbox.Run(ctx, command)
	if err != nil {
		return err
	}
	return json.Unmarshal(result.Stdout, answer)
}

func reviewIn(ctx context.Context, sandbox *forkyard.Sandbox, perspective string) (answer review, err error) {
	err = askFor(ctx, sandbox, perspective, &answer)
	return answer, err
}

// setUp brings the project and the reviewer into a machine, and proves that the reviewer has its tools.
func setUp(ctx context.Context, sandbox *forkyard.Sandbox) (tools map[string]string, err error) {
	_, here, _, _ := runtime.Caller(0)
	folder := filepath.Join(filepath.Dir(here), "../../python/code_review")
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".py" {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		return sandbox.Upload(ctx, path, "/workspace/"+filepath.ToSlash(name), forkyard.TransferOptions{})
	})
	if err != nil {
		return nil, err
	}
	process, err := sandbox.Start(ctx, forkyard.Cmd("python", "reviewer.py"))
	if err != nil {
		return nil, err
	}
	defer process.Close()
	err = askFor(ctx, sandbox, "tools", &tools)
	return tools, err
}

// setUpAndReview is what each agent has to do without a snapshot.
func setUpAndReview(ctx context.Context, sandbox *forkyard.Sandbox, perspective string) (review, error) {
	if _, err := setUp(ctx, sandbox); err != nil {
		return review{}, err
	}
	return reviewIn(ctx, sandbox, perspective)
}

// freeze makes the base and its snapshot.
func freeze(ctx context.Context) (snapshot forkyard.SnapshotInfo, err error) {
	say("the base: a machine with the project and a reviewer that has its tools loaded")
	base, err := forkyard.Create(ctx, machine)
	if err != nil {
		return snapshot, err
	}
	defer func() {
		_, ended := base.Terminate(context.WithoutCancel(ctx))
		err = errors.Join(err, ended)
	}()
	began := time.Now()
	tools, err := setUp(ctx, base)
	if err != nil {
		return snapshot, err
	}
	say("it has %v (%.1f s)", tools, time.Since(began).Seconds())
	options := forkyard.CheckpointOptions{Type: forkyard.CheckpointTypeMemory, Name: "code-review-base"}
	if snapshot, err = base.Checkpoint(ctx, options); err == nil {
		say("frozen as %s: %d MiB on disk; it stood still for %v", snapshot.SnapshotID, snapshot.Size>>20, snapshot.Pause)
	}
	return snapshot, err
}

// swarm has all perspectives looked at, and says so whenever another agent is done.
func swarm(
	ctx context.Context, what string, machine forkyard.Options, concurrency int,
	job func(context.Context, *forkyard.Sandbox, string) (review, error),
) (report, error) {
	say("%s", what)
	said := 0
	return forkyard.Swarm(ctx, forkyard.SwarmOptions{
		Machine: machine, Concurrency: concurrency,
		OnProgress: func(progress forkyard.SwarmProgress) {
			if done := progress.Succeeded + progress.Failed; done > said {
				said = done
				say("  %d of %d agents are done", done, progress.Total)
			}
		},
	}, perspectives, job)
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
		agents, err := strconv.Atoi(os.Args[1])
		if err != nil || agents < 1 || agents > len(perspectives) {
			return fmt.Errorf("AGENTS must be 1 to %d, not %q", len(perspectives), os.Args[1])
		}
		perspectives = perspectives[:agents]
	}
	oneByOne, atOnce, err := reviewFrozen(ctx)
	if err != nil {
		return err
	}
	agents := len(perspectives)
	compared := fmt.Sprintf("for comparison, %d machines that each do the setup", agents)
	withSetup, err := swarm(ctx, compared, machine, agents, setUpAndReview)
	if err != nil {
		return err
	}
	showReviews(atOnce)
	showTimes(oneByOne, atOnce, withSetup)
	if oneByOne.Failed+atOnce.Failed+withSetup.Failed > 0 {
		return errors.New("not all agents succeeded")
	}
	fmt.Printf("\n  the lead, %s\n", summarise(ctx, atOnce.Results()))
	return nil
}

// reviewFrozen has forks of one snapshot look at the project, both ways.
func reviewFrozen(ctx context.Context) (oneByOne, atOnce report, err error) {
	client, err := forkyard.Default()
	if err != nil {
		return oneByOne, atOnce, err
	}
	snapshot, err := freeze(ctx)
	if err != nil {
		return oneByOne, atOnce, err
	}
	defer func() {
		err = errors.Join(err, client.DeleteSnapshot(context.WithoutCancel(ctx), snapshot.SnapshotID))
	}()
	frozen, agents := forkyard.Options{SnapshotID: snapshot.SnapshotID}, len(perspectives)
	if oneByOne, err = swarm(ctx, fmt.Sprintf("%d forks, one by one", agents), frozen, 1, reviewIn); err == nil {
		atOnce, err = swarm(ctx, fmt.Sprintf("%d forks, all at once", agents), frozen, agents, reviewIn)
	}
	return oneByOne, atOnce, err
}

// showReviews prints each perspective's score, and its first findings.
func showReviews(done report) {
	fmt.Println()
	for _, task := range done.Tasks {
		name := perspectives[task.Index]
		if task.Err != nil {
			fmt.Printf("  %-12s failed: %v\n", name, task.Err)
			continue
		}
		findings := task.Result.Findings
		fmt.Printf("  %-12s %4.1f of 10, %d findings\n", name, task.Result.Score, len(findings))
		for _, it := range findings[:min(3, len(findings))] {
			fmt.Printf("%16s%s:%d  %.80s\n", "", it.File, it.Line, it.Message)
		}
	}
}

// showTimes prints what each way took; the first, which runs the agents one by one, is what the others are compared with.
func showTimes(oneByOne, atOnce, withSetup report) {
	agents := float64(len(perspectives))
	head := fmt.Sprintf("on %d processors", runtime.NumCPU())
	fmt.Printf("\n  %-34s %9s  %8s  %10s\n", head, "wall", "speed-up", "efficiency")
	for _, row := range []struct {
		name        string
		concurrency float64
		done        report
	}{
		{"forks, one by one", 1, oneByOne},
		{"forks, all at once", agents, atOnce},
		{"setup in every agent, all at once", agents, withSetup},
	} {
		speedup := float64(oneByOne.Wall) / float64(row.done.Wall)
		fmt.Printf("  %-34s %7.2f s  %8.2f  %9.0f%%\n", row.name, row.done.Wall.Seconds(), speedup, 100*speedup/row.concurrency)
	}
	fmt.Printf("\n  setup in every agent takes %.1f times as long as forks\n", float64(withSetup.Wall)/float64(atOnce.Wall))
}

// summarise is the lead's summary: a model's where there is one, else, or where it fails, by rule.
func summarise(ctx context.Context, reviews []review) string {
	key := os.Getenv("OPENAI_API_KEY")
	if key == "" {
		return "by rule: " + leadByRule(reviews)
	}
	answer, err := leadByModel(ctx, reviews, key)
	if err != nil {
		return fmt.Sprintf("by rule, since the model did not answer (%v): %s", err, leadByRule(reviews))
	}
	return "by model: " + strings.TrimSpace(answer)
}
