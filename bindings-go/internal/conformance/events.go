//go:build cgo

package main

import (
	"context"
	"errors"
	"iter"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

type takeArgs struct {
	Take int `json:"take"`
}

type cursorArgs struct {
	Cursor string `json:"cursor"`
}

// told reads so many events, or all until the end.
func told[T any](events iter.Seq2[T, error], take int, one func(T) record) (any, error) {
	said := []record{}
	for event, err := range events {
		if err != nil {
			return nil, err
		}
		if said = append(said, one(event)); len(said) == take {
			break
		}
	}
	return said, nil
}

// first is the one event that a scope is left after.
func first[T any](events iter.Seq2[T, error], one func(T) record) (any, error) {
	for event, err := range events {
		if err != nil {
			return nil, err
		}
		return one(event), nil
	}
	return nil, errors.New("it ended before it told anything")
}

func bindEvents() {
	type sandbox = *forkyard.Sandbox
	bind("files.watch", func(ctx context.Context, c call, on sandbox, args struct {
		Path      raw   `json:"path"`
		Recursive *bool `json:"recursive"`
	}) (any, error) {
		shallow := args.Recursive != nil && !*args.Recursive
		watch, err := on.Watch(ctx, string(args.Path), forkyard.WatchOptions{Shallow: shallow})
		if err != nil {
			return nil, err
		}
		return c.keep(watch, record{}), nil
	}, "Sandbox.Watch")
	bind("files.watch_in_scope", func(ctx context.Context, _ call, on sandbox, args struct {
		Path raw    `json:"path"`
		Make string `json:"make"`
	}) (any, error) {
		watch, err := on.Watch(ctx, string(args.Path), forkyard.WatchOptions{})
		if err != nil {
			return nil, err
		}
		defer watch.Close()
		if err := on.MakeDir(ctx, args.Make); err != nil {
			return nil, err
		}
		return first(watch.Events(ctx), fileEvent)
	}, "Sandbox.Watch", "Watch.Events", "Watch.Close")
	bind("watch.read", func(ctx context.Context, _ call, on *forkyard.Watch, args takeArgs) (any, error) {
		return told(on.Events(ctx), args.Take, fileEvent)
	}, "Watch.Events")
	bind("watch.close", func(_ context.Context, _ call, on *forkyard.Watch, _ none) (any, error) {
		return nil, on.Close()
	}, "Watch.Close")
	bind("sandbox.events", func(ctx context.Context, _ call, on sandbox, args struct {
		Cursor string  `json:"cursor"`
		WaitMS float64 `json:"wait_ms"`
	}) (any, error) {
		events, err := on.Events(ctx, args.Cursor, millis(args.WaitMS))
		if err != nil {
			return nil, err
		}
		return record{"events": list(events.Events, sandboxEvent), "cursor": orNil(events.Cursor), "ended": events.Ended}, nil
	}, "Sandbox.Events")
	bind("sandbox.follow_events", func(_ context.Context, c call, on sandbox, args cursorArgs) (any, error) {
		events, err := on.FollowEvents(args.Cursor)
		if err != nil {
			return nil, err
		}
		return c.keep(events, record{}), nil
	}, "Sandbox.FollowEvents")
	bind("sandbox.follow_events_in_scope", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		events, err := on.FollowEvents("")
		if err != nil {
			return nil, err
		}
		defer events.Close()
		return first(events.Events(ctx), sandboxEvent)
	}, "Sandbox.FollowEvents", "EventStream.Events", "EventStream.Close")
	bind("events.read", func(ctx context.Context, _ call, on *forkyard.EventStream, args takeArgs) (any, error) {
		return told(on.Events(ctx), args.Take, sandboxEvent)
	}, "EventStream.Events")
	bind("events.close", func(_ context.Context, _ call, on *forkyard.EventStream, _ none) (any, error) {
		return nil, on.Close()
	}, "EventStream.Close")
}

func fileEvent(v forkyard.FileEvent) record {
	return record{"kind": v.Kind, "path": v.Path, "from": orNil(v.From), "is_dir": v.IsDir}
}

func sandboxEvent(v forkyard.SandboxEvent) record {
	said := record{
		"at_ms": at(v.At), "kind": v.Kind, "reason": orNil(v.Reason), "snapshot_id": orNil(v.SnapshotID),
		"forked_from": orNil(v.ForkedFrom), "forks": v.Forks, "network": nil,
	}
	if v.Network != nil {
		said["network"] = networkEvent(*v.Network)
	}
	return said
}
