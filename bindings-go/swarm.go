//go:build cgo

package forkyard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// swarmQueueTimeout is how long a swarm's machine waits for room: a burst beyond the budgets takes longer, it does not fail.
	swarmQueueTimeout = 10 * time.Minute
	// leaseEnd is how long the end of a swarm's machine is waited for.
	leaseEnd = time.Minute
)

// SwarmOptions say how a swarm works through its tasks. Zero values stand for defaults.
type SwarmOptions struct {
	// Machine is what machine each task gets: made of an image, or forked from a snapshot. Its QueueTimeout is 10 minutes unless
	// it says otherwise.
	Machine Options
	// Client is the server to ask. Default: [Default].
	Client *Client
	// Concurrency is how many tasks are under way at once. Default: 8.
	Concurrency int
	// Retries is how often a task that failed is tried again, each time in a new machine. Default: 0.
	Retries int
	// TaskTimeout is how long one attempt may take once its machine runs. Default: for ever.
	TaskTimeout time.Duration
	// OnProgress is called after each change, never twice at once; what it does holds up the swarm.
	OnProgress func(SwarmProgress)
}

// SwarmTask is what became of a task.
type SwarmTask[R any] struct {
	// Index is its place among the tasks, from 0.
	Index int
	// Status is where it stands.
	Status TaskStatus
	// Result is what the job returned for it; zero unless it succeeded.
	Result R
	// Err is what its last attempt failed with; nil if it succeeded.
	Err error
	// Attempts are its attempts, in their order.
	Attempts []SwarmAttempt
}

// SwarmReport is what a swarm did.
type SwarmReport[R any] struct {
	// Wall is the time from its begin to its end.
	Wall time.Duration
	// Sequential is the time that its attempts took in all: what they would have taken one after another, had each been as fast.
	Sequential time.Duration
	// Speedup is how many times faster it was than that.
	Speedup float64
	// Efficiency is the speed-up for each task that could be under way at once: 1 where all of them worked all of the time.
	Efficiency float64
	// Succeeded, Failed and Cancelled are how many tasks ended so.
	Succeeded, Failed, Cancelled int
	// Tasks are the tasks, in the order in which they were given.
	Tasks []SwarmTask[R]
}

// Results are the results of the tasks that are done, in the order in which the tasks were given.
func (r SwarmReport[R]) Results() []R {
	results := make([]R, 0, r.Succeeded)
	for _, task := range r.Tasks {
		if task.Status == TaskStatusSucceeded {
			results = append(results, task.Result)
		}
	}
	return results
}

// Swarm runs a job on each task, each on a machine of its own, and returns when all have ended, well or not. What a job returns
// as its error is its task's and harms no other; a job that panics ends the program, as any goroutine does.
//
// It fails before anything is made where an option is out of range. Where the context ends, so do the swarm's machines, and what
// was done until then is returned with the context's error.
func Swarm[T, R any](
	ctx context.Context,
	options SwarmOptions,
	tasks []T,
	job func(ctx context.Context, sandbox *Sandbox, task T) (R, error),
) (SwarmReport[R], error) {
	if options.TaskTimeout < 0 {
		return SwarmReport[R]{}, invalidError("TaskTimeout must not be negative")
	}
	if options.Machine.QueueTimeout == 0 {
		options.Machine.QueueTimeout = swarmQueueTimeout
	}
	if options.Client == nil {
		client, err := Default()
		if err != nil {
			return SwarmReport[R]{}, err
		}
		options.Client = client
	}
	plan, err := newSwarmPlan(len(tasks), options.Concurrency, options.Retries)
	if err != nil {
		return SwarmReport[R]{}, err
	}
	defer plan.close()
	s := &swarm[T, R]{
		options: options, tasks: tasks, job: job, plan: plan, began: time.Now(),
		results: make([]R, len(tasks)), errs: make([]error, len(tasks)),
	}
	return s.run(ctx)
}

// swarm is what its plan cannot hold: values and errors of Go.
type swarm[T, R any] struct {
	options SwarmOptions
	tasks   []T
	job     func(context.Context, *Sandbox, T) (R, error)
	plan    *swarmPlan
	began   time.Time
	// telling orders changes and what is told of them.
	telling sync.Mutex
	results []R
	errs    []error
}

func (s *swarm[T, R]) now() time.Duration { return time.Since(s.began) }

// change has the plan know of something, and the caller of the plan.
func (s *swarm[T, R]) change(tell func(now time.Duration) error) error {
	s.telling.Lock()
	defer s.telling.Unlock()
	if err := tell(s.now()); err != nil {
		return err
	}
	if s.options.OnProgress == nil {
		return nil
	}
	progress, err := s.plan.progress(s.now())
	if err == nil {
		s.options.OnProgress(progress)
	}
	return err
}

func (s *swarm[T, R]) run(ctx context.Context) (SwarmReport[R], error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error)
	underWay, fault := 0, error(nil)
	for {
		for fault == nil && ctx.Err() == nil {
			var next *int
			fault = s.change(func(now time.Duration) (err error) {
				next, err = s.plan.next(now)
				return err
			})
			if fault != nil || next == nil {
				break
			}
			underWay++
			go func() { ended <- s.attempt(ctx, *next) }()
		}
		if underWay == 0 {
			break
		}
		err := <-ended
		underWay--
		if fault = errors.Join(fault, err); fault != nil {
			stop()
		}
	}
	if fault != nil {
		return SwarmReport[R]{}, fault
	}
	if ctx.Err() != nil {
		if err := s.change(s.plan.cancel); err != nil {
			return SwarmReport[R]{}, err
		}
		report, err := s.report()
		if err == nil {
			err = contextError(ctx)
		}
		return report, err
	}
	return s.report()
}

// attempt tries a task once. What it answers is a fault of the swarm's own, never the task's.
func (s *swarm[T, R]) attempt(ctx context.Context, index int) error {
	result, hadMachine, err := s.try(ctx, index)
	if ctx.Err() != nil && err != nil {
		s.errs[index] = err
		return nil // Told by the plan's cancellation, all at once.
	}
	return s.change(func(now time.Duration) error {
		s.errs[index] = err
		if err == nil {
			s.results[index] = result
			return s.plan.succeeded(index, now)
		}
		// What was refused is refused again; what went wrong in a machine may go well in another.
		var failure *Error
		isFinal := !hadMachine && errors.As(err, &failure) && !failure.Retryable
		_, told := s.plan.failed(index, strings.ToValidUTF8(err.Error(), "\uFFFD"), isFinal, now)
		return told
	})
}

func (s *swarm[T, R]) try(ctx context.Context, index int) (result R, hadMachine bool, err error) {
	sandbox, err := s.options.Client.Create(ctx, s.options.Machine)
	if err != nil {
		return result, false, err
	}
	defer sandbox.Close()
	ctx, stop := s.working(ctx)
	// A job that looks at no context ends too: its machine is gone. Otherwise this comes once the job has ended.
	lease := make(chan struct{})
	end := func() {
		defer close(lease)
		ending, done := context.WithTimeout(context.WithoutCancel(ctx), leaseEnd)
		defer done()
		// One that has ended meanwhile is what was wanted; one that cannot be reached ends by its time-out.
		_, _ = sandbox.Terminate(ending)
	}
	context.AfterFunc(ctx, end)
	defer func() { stop(); <-lease }()
	if err := s.change(func(now time.Duration) error { return s.plan.ready(index, sandbox.ID(), now) }); err != nil {
		return result, true, err
	}
	result, err = s.job(ctx, sandbox, s.tasks[index])
	if err != nil && ctx.Err() != nil {
		err = contextError(ctx)
	}
	return result, true, err
}

// working is the context of an attempt whose machine runs.
func (s *swarm[T, R]) working(ctx context.Context) (context.Context, context.CancelFunc) {
	if limit := s.options.TaskTimeout; limit > 0 {
		return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the task took longer than %v", limit))
	}
	return context.WithCancel(ctx)
}

func (s *swarm[T, R]) report() (SwarmReport[R], error) {
	done, err := s.plan.report(s.now())
	if err != nil {
		return SwarmReport[R]{}, err
	}
	report := SwarmReport[R]{
		Wall: done.Wall, Sequential: done.Sequential, Speedup: done.Speedup, Efficiency: done.Efficiency,
		Succeeded: done.Succeeded, Failed: done.Failed, Cancelled: done.Cancelled,
	}
	for _, task := range done.Tasks {
		report.Tasks = append(report.Tasks, SwarmTask[R]{
			Index: task.Index, Status: task.Status, Attempts: task.Attempts,
			Result: s.results[task.Index], Err: s.errs[task.Index],
		})
	}
	return report, nil
}
