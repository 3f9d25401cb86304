// Package forkyard gives every agent task its own computer: isolated Linux microVMs on hardware you own.
//
//	sandbox, err := forkyard.Create(ctx, forkyard.Options{Image: "python"})
//	if err != nil {
//		return err
//	}
//	defer sandbox.Terminate(context.WithoutCancel(ctx))
//	result, err := sandbox.Run(ctx, forkyard.Cmd("python", "-c", "print(6 * 7)"))
//
// Every call takes a context first and honours it: where it ends, the call ends, and what it was doing is taken back: a
// command is killed in its machine, a machine that was being made is ended. A program that exits right after such a
// cancellation calls [Settle] before.
//
// Every error is an [*Error], to be had by errors.As; its code is matched by errors.Is:
//
//	if errors.Is(err, forkyard.CodeNotFound) { … }
//
// Goroutines that wait in calls hold no threads.
//
// The package needs cgo and a running server (forkyard serve), which is found by FORKYARD_URL and FORKYARD_API_KEY.
package forkyard
