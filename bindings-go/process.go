//go:build cgo

package forkyard

import (
	"context"
	"io"
	"iter"
)

// Output is a piece of a process's output, as it came, or a loss.
type Output struct {
	// Stream is which output it was written to.
	Stream OutputStream
	// Data is what was written.
	Data []byte
	// Dropped is how many bytes of both outputs were lost here, since nobody read them while the machine had room for them; there
	// is no data then.
	Dropped int64
}

// Output is the process's output from where it was read last, as it comes, until its end. An error is the last that comes; the
// next iteration goes on where this one stopped.
func (o *Process) Output(ctx context.Context) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		for {
			piece, err := o.nextPiece(ctx)
			if err != nil {
				yield(Output{}, err)
				return
			}
			if piece == nil || piece.Exit != nil {
				return
			}
			if !yield(Output{Stream: piece.Stream, Data: piece.Data, Dropped: piece.Dropped}, nil) {
				return
			}
		}
	}
}

// Wait waits for the process's end, passing over what output is left.
func (o *Process) Wait(ctx context.Context) (ExitStatus, error) {
	for _, err := range o.Output(ctx) {
		if err != nil {
			return ExitStatus{}, err
		}
	}
	exit := o.Exit()
	if exit == nil {
		return ExitStatus{}, internalError("the process's output ended without its end")
	}
	return *exit, nil
}

// Stdin is the process's standard input as a stream. It must have been started with OpenStdin; closing the stream closes it.
func (o *Process) Stdin(ctx context.Context) io.WriteCloser { return &stdin{ctx, o} }

type stdin struct {
	ctx     context.Context
	process *Process
}

func (s *stdin) Write(data []byte) (int, error) {
	if err := s.process.WriteStdin(s.ctx, data); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (s *stdin) Close() error { return s.process.CloseStdin(s.ctx) }
