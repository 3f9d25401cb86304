//go:build cgo

package forkyard

import (
	"context"
	"iter"
	"sync/atomic"
)

// WatchOptions say what of a folder to watch. The zero value stands for defaults.
type WatchOptions struct {
	// Shallow leaves out what is below the folders in it. Default: all below is watched too, up to 8,192 folders, links not followed.
	Shallow bool
}

// Watch are the events of a watched folder. While it is open its machine is not idle. It is safe for use by many goroutines, each event
// going to one of them, and is to be closed.
type Watch struct {
	native *watchHandle
	closed atomic.Bool
}

// Watch watches a folder, from its return on.
//
// It fails with [CodeNotFound] where there is no such folder, with [CodeFailedPrecondition] where it has more folders than can be watched,
// and with [CodeNoCapacity] where 64 folders of the machine are watched already.
func (o *Sandbox) Watch(ctx context.Context, path string, options WatchOptions) (*Watch, error) {
	native, err := o.watchNative(ctx, []byte(path), !options.Shallow)
	if err != nil {
		return nil, err
	}
	return &Watch{native: native}, nil
}

// Events are the folder's events from where they were read last, as they come, until the folder itself is gone or the watch is closed. An
// error is the last that comes. Where the context ended, the next iteration goes on where this one stopped; where the connection was
// cut, what happened meanwhile is not known: watch again and look.
func (w *Watch) Events(ctx context.Context) iter.Seq2[FileEvent, error] {
	return told(ctx, &w.closed, w.native.next)
}

// Close ends it, and iterations that wait. Closing it again does nothing.
func (w *Watch) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	w.native.shut()
	return w.native.close()
}

// EventStream are the events of a machine as they happen. It does not keep the machine from being idle. It is safe for use by many
// goroutines, each event going to one of them, and is to be closed.
type EventStream struct {
	native *eventsHandle
	closed atomic.Bool
}

// FollowEvents follows the machine's events, from after a cursor or, where it is empty, from the oldest that is kept.
func (o *Sandbox) FollowEvents(cursor string) (*EventStream, error) {
	native, err := o.followNative(cursor)
	if err != nil {
		return nil, err
	}
	return &EventStream{native: native}, nil
}

// Events are the machine's events from where they were read last, as they come, until the machine's end or until the stream is closed. An
// error is the last that comes; the next iteration goes on where this one stopped.
func (s *EventStream) Events(ctx context.Context) iter.Seq2[SandboxEvent, error] {
	return told(ctx, &s.closed, s.native.next)
}

// Close ends it, and iterations that wait. Closing it again does nothing.
func (s *EventStream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.native.shut()
	return s.native.close()
}

// told is what one call after another answers with, until one answers with nothing.
func told[T any](ctx context.Context, closed *atomic.Bool, next func(context.Context) (*T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for !closed.Load() {
			event, err := next(ctx)
			switch {
			case closed.Load() || err == nil && event == nil:
				return
			case err != nil:
				var none T
				yield(none, err)
				return
			case !yield(*event, nil):
				return
			}
		}
	}
}
