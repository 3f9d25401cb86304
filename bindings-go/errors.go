//go:build cgo

package forkyard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Error says what went wrong, for people.
func (e *Error) Error() string {
	if e.RequestID == "" {
		return e.Message
	}
	return fmt.Sprintf("%s (request %s)", e.Message, e.RequestID)
}

// Is matches a [Code], and the standard library's errors that say the same: [context.DeadlineExceeded],
// [context.Canceled], [fs.ErrNotExist], [fs.ErrExist], [fs.ErrPermission].
func (e *Error) Is(target error) bool {
	switch target {
	case e.Code:
		return true
	case context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return e.Code == CodeTimeout
	case context.Canceled:
		return e.Code == CodeCancelled
	case fs.ErrNotExist:
		return e.Code == CodeNotFound
	case fs.ErrExist:
		return e.Code == CodeAlreadyExists
	case fs.ErrPermission:
		return e.Code == CodePermissionDenied
	}
	return false
}

// Timeout says whether a deadline passed, as [net.Error] has it.
func (e *Error) Timeout() bool { return e.Code == CodeTimeout }

// Temporary says the same as Retryable, as [net.Error] has it.
func (e *Error) Temporary() bool { return e.Retryable }

// Error makes a code the target of errors.Is.
func (c Code) Error() string { return string(c) }

// CommandError says that a command's time was up or, where it was to be checked, that it did not exit with 0.
type CommandError struct {
	// Result is what the command did, its output included.
	Result Result
}

func (e *CommandError) Error() string {
	result := e.Result
	var how string
	switch {
	case result.TimedOut:
		return fmt.Sprintf("the command was killed after its time-out (%v)", result.Duration)
	case result.OOMKilled:
		how = "was killed for want of memory"
	case result.Signal != 0:
		how = fmt.Sprintf("was ended by signal %d", result.Signal)
	default:
		how = fmt.Sprintf("exited with %d", result.ExitCode)
	}
	if last := lastLines(result.StderrText()); last != "" {
		how += ": " + last
	}
	return "the command " + how
}

// Unwrap is the same as an [*Error], of code [CodeTimeout] or [CodeCommandFailed].
func (e *CommandError) Unwrap() error {
	code := CodeCommandFailed
	if e.Result.TimedOut {
		code = CodeTimeout
	}
	return &Error{Code: code, Message: e.Error()}
}

// lastLines is the end of what a command wrote to standard error.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := strings.Join(lines[max(0, len(lines)-5):], "\n")
	return strings.ToValidUTF8(last[max(0, len(last)-1000):], "")
}

// causedFailure keeps a cause of the standard library's, or a context's, beside what every error of this package is.
type causedFailure struct {
	failure *Error
	cause   error
}

func (e *causedFailure) Error() string   { return e.failure.Error() }
func (e *causedFailure) Unwrap() []error { return []error{e.failure, e.cause} }

func contextError(ctx context.Context) error {
	code, what := CodeCancelled, "the call was cancelled"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code, what = CodeTimeout, "the call's context ended"
	}
	cause := context.Cause(ctx)
	return &causedFailure{&Error{Code: code, Message: fmt.Sprintf("%s: %v", what, cause)}, cause}
}

func invalidError(message string) error {
	return &Error{Code: CodeInvalidArgument, Message: message}
}

func internalError(message string) error {
	return &Error{Code: CodeInternal, Message: message}
}
