//go:build cgo

package forkyard

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// tunnelPiece is how many bytes of a connection cross into the library at once.
const tunnelPiece = 64 << 10

// Tunnel is a connection to a port in a machine: a [net.Conn], for whatever speaks over one. Each direction ends by itself. It is safe
// for use by many goroutines, and is to be closed.
type Tunnel struct {
	native        *tunnelHandle
	remote        tunnelAddr
	closed        atomic.Bool
	reads, writes deadline
	reading       sync.Mutex
	writing       sync.Mutex
	// ahead is what was fetched and not read yet.
	ahead []byte
}

var (
	_ net.Conn  = (*Tunnel)(nil)
	_ net.Error = (*Error)(nil)
)

// Read reads what comes, and waits for the first of it. Its end is [io.EOF]. It fails with [net.ErrClosed] where the connection was
// closed, and with [os.ErrDeadlineExceeded] where its deadline has passed; nothing is lost then.
func (t *Tunnel) Read(data []byte) (int, error) {
	t.reading.Lock()
	defer t.reading.Unlock()
	ctx := t.reads.context()
	if err := t.failure(ctx, nil); err != nil || len(data) == 0 {
		return 0, err
	}
	if len(t.ahead) == 0 {
		ahead, err := t.native.read(ctx, max(len(data), tunnelPiece))
		if err != nil {
			return 0, t.failure(ctx, err)
		}
		if len(ahead) == 0 {
			// Closing it looks the same from here.
			if t.closed.Load() {
				return 0, closedError()
			}
			return 0, io.EOF
		}
		t.ahead = ahead
	}
	length := copy(data, t.ahead)
	t.ahead = t.ahead[length:]
	return length, nil
}

// Write sends all of it, or answers how many bytes were sent with why no more were. It fails as Read does.
func (t *Tunnel) Write(data []byte) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	for sent := 0; ; {
		ctx := t.writes.context()
		if err := t.failure(ctx, nil); err != nil || sent == len(data) {
			return sent, err
		}
		count, err := t.native.write(ctx, data[sent:min(len(data), sent+tunnelPiece)])
		sent += int(count)
		if err != nil {
			return sent, t.failure(ctx, err)
		}
	}
}

// CloseWrite ends what goes there. What comes from there can be read on.
func (t *Tunnel) CloseWrite() error {
	ctx := t.writes.context()
	err := t.failure(ctx, nil)
	if err == nil {
		err = t.failure(ctx, t.native.closeWrite(ctx))
	}
	return err
}

// Close ends the connection, and reads and writes that are under way. Closing it again does nothing.
func (t *Tunnel) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.native.shut()
	return t.native.close()
}

// LocalAddr is this end's; it has no port.
func (t *Tunnel) LocalAddr() net.Addr { return tunnelAddr{host: "localhost"} }

// RemoteAddr is the machine's id and port.
func (t *Tunnel) RemoteAddr() net.Addr { return t.remote }

// SetDeadline sets when reads and writes end, those that are under way too; the zero time stands for never.
func (t *Tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

// SetReadDeadline sets when reads end.
func (t *Tunnel) SetReadDeadline(at time.Time) error { return t.set(&t.reads, at) }

// SetWriteDeadline sets when writes end. One that ends so may have sent a part.
func (t *Tunnel) SetWriteDeadline(at time.Time) error { return t.set(&t.writes, at) }

func (t *Tunnel) set(deadline *deadline, at time.Time) error {
	if t.closed.Load() {
		return closedError()
	}
	deadline.set(at)
	return nil
}

// failure is why a call of this context failed, or would; nil where nothing is wrong.
func (t *Tunnel) failure(ctx context.Context, err error) error {
	switch {
	case t.closed.Load(), errors.Is(err, CodeFailedPrecondition):
		return closedError()
	case ctx.Err() != nil:
		return &Error{Code: CodeTimeout, Message: "the connection's deadline has passed"}
	}
	return err
}

func closedError() error {
	return &causedFailure{&Error{Code: CodeFailedPrecondition, Message: "the connection was closed"}, net.ErrClosed}
}

// tunnelAddr is one end of a connection to a machine.
type tunnelAddr struct {
	host string
	port int
}

func (a tunnelAddr) Network() string { return "forkyard" }
func (a tunnelAddr) String() string  { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

// deadline ends calls at a time that may be changed while they are under way.
type deadline struct {
	mutex sync.Mutex
	timer *time.Timer
	ctx   context.Context
	end   context.CancelCauseFunc
}

// context ends at the deadline.
func (d *deadline) context() context.Context {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.current()
}

func (d *deadline) current() context.Context {
	if d.ctx == nil {
		d.ctx, d.end = context.WithCancelCause(context.Background())
	}
	return d.ctx
}

func (d *deadline) set(at time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	// One that fires just now ends those who wait, and nobody who comes later.
	if d.timer != nil && !d.timer.Stop() || d.current().Err() != nil {
		d.end(os.ErrDeadlineExceeded)
		d.ctx = nil
	}
	d.timer = nil
	d.current()
	end, left := d.end, time.Until(at)
	switch {
	case at.IsZero():
	case left <= 0:
		end(os.ErrDeadlineExceeded)
	default:
		d.timer = time.AfterFunc(left, func() { end(os.ErrDeadlineExceeded) })
	}
}
