//go:build cgo

package forkyard_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// take reads so many events, or all there are where there are fewer.
func take[T any](t *testing.T, events iter.Seq2[T, error], count int) []T {
	t.Helper()
	var told []T
	for event, err := range events {
		check(t, err)
		if told = append(told, event); len(told) == count {
			break
		}
	}
	return told
}

func TestAWatchGoesOnWhereItWasLeft(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	check(t, sandbox.MakeDir(ctx, "/tmp/watched/below"))
	defer func() { check(t, sandbox.RemoveAll(ctx, "/tmp/watched")) }()
	watch, err := sandbox.Watch(ctx, "/tmp/watched", forkyard.WatchOptions{Shallow: true})
	check(t, err)
	defer watch.Close()
	command := forkyard.Cmd("sh", "-c", "mkdir below/unseen; mkdir a; mv a b")
	command.Dir, command.Check = "/tmp/watched", true
	_, err = sandbox.Run(ctx, command)
	check(t, err)
	want := []forkyard.FileEvent{
		{Kind: forkyard.FileEventKindCreated, Path: "/tmp/watched/a", IsDir: true},
		{Kind: forkyard.FileEventKindMoved, Path: "/tmp/watched/b", From: "/tmp/watched/a", IsDir: true},
	}
	told := append(take(t, watch.Events(ctx), 1), take(t, watch.Events(ctx), 1)...)
	if !slices.Equal(told, want) {
		t.Fatalf("%+v was told, not %+v", told, want)
	}

	// A wait whose context ends leaves what comes to the next.
	brief, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	for event, err := range watch.Events(brief) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%+v, %v, and not the context's end", event, err)
		}
	}
	check(t, sandbox.MakeDir(ctx, "/tmp/watched/c"))
	equal(t, "what comes then", take(t, watch.Events(ctx), 1)[0].Path, "/tmp/watched/c")
}

func TestClosingAWatchEndsAWait(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	_, err := sandbox.Watch(ctx, "/tmp/none", forkyard.WatchOptions{})
	equal(t, "its being missing", errors.Is(err, forkyard.CodeNotFound), true)
	check(t, sandbox.MakeDir(ctx, "/tmp/closed"))
	defer func() { check(t, sandbox.RemoveAll(ctx, "/tmp/closed")) }()
	watch, err := sandbox.Watch(ctx, "/tmp/closed", forkyard.WatchOptions{})
	check(t, err)
	ended := make(chan error, 8)
	for range cap(ended) {
		go func() {
			for _, err := range watch.Events(ctx) {
				ended <- err
				return
			}
			ended <- nil
		}()
	}
	check(t, watch.Close())
	check(t, watch.Close())
	for range cap(ended) {
		check(t, <-ended)
	}
}

func TestALifeIsListedAndFollowedToItsEnd(t *testing.T) {
	ctx := bounded(t)
	machine := create(t, ctx, small)
	begun, err := machine.Events(ctx, "", 0)
	check(t, err)
	if len(begun.Events) != 2 || begun.Events[1].Kind != forkyard.SandboxEventKindStarted || begun.Ended {
		t.Fatalf("%+v was told", begun)
	}
	if age := time.Since(begun.Events[0].At).Abs(); age > 10*time.Minute {
		t.Fatalf("it was made %v from now", age)
	}
	followed, err := machine.FollowEvents(begun.Cursor)
	check(t, err)
	defer followed.Close()
	_, err = machine.Terminate(ctx)
	check(t, err)
	told := take(t, followed.Events(ctx), 9)
	if len(told) != 1 || told[0].Kind != forkyard.SandboxEventKindTerminated || told[0].Reason != "asked for by the caller" {
		t.Fatalf("%+v was told", told)
	}
	_, err = machine.Events(ctx, "x", 0)
	equal(t, "what is no cursor", errors.Is(err, forkyard.CodeInvalidArgument), true)
}
