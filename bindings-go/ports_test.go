//go:build cgo

package forkyard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// echoing says back what it is told, deaf takes connections and never reads, page is a web server; all in Perl, which every image has.
const (
	listening = `use IO::Socket::INET; $SIG{CHLD} = "IGNORE"; ` +
		`$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 64, ReuseAddr => 1) or die $!; ` +
		`while ($c = $s->accept) { if (fork) { close $c; next } `
	echoing = listening + `syswrite($c, $b) while sysread($c, $b, 65536); exit }`
	deaf    = listening + `sleep 600; exit }`
	web     = listening + `$r = <$c>; 1 while <$c> =~ /[^\r\n]/; $b = "you asked: $r"; ` +
		`print $c "HTTP/1.1 200 OK\r\nContent-Length: ".length($b)."\r\nConnection: close\r\n\r\n$b"; exit }`
)

// listens has a machine listen on a port until the test ends.
func listens(t *testing.T, ctx context.Context, sandbox *forkyard.Sandbox, port int, program string) {
	t.Helper()
	process, err := sandbox.Start(ctx, forkyard.Cmd("perl", "-e", program, fmt.Sprint(port)))
	check(t, err)
	t.Cleanup(func() {
		check(t, process.Kill(ctx))
		check(t, process.Close())
	})
	check(t, sandbox.Ports().Wait(ctx, port, time.Minute))
}

// dial connects to a port until the test ends.
func dial(t *testing.T, ctx context.Context, sandbox *forkyard.Sandbox, port int) *forkyard.Tunnel {
	t.Helper()
	tunnel, err := sandbox.Ports().Connect(ctx, port)
	check(t, err)
	t.Cleanup(func() { check(t, tunnel.Close()) })
	return tunnel
}

func fetch(t *testing.T, client *http.Client, url, key string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	check(t, err)
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := client.Do(request)
	check(t, err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	check(t, err)
	return answer.StatusCode, string(data)
}

func TestPagesAreReached(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	listens(t, ctx, sandbox, 7201, web)
	ports := sandbox.Ports()
	found, err := ports.List(ctx)
	check(t, err)
	equal(t, "how many listen", len(found), 1)
	equal(t, "what listens", found[0], forkyard.ListeningPort{Port: 7201, LoopbackOnly: true})

	url, err := ports.URL(7201)
	check(t, err)
	const said = "you asked: GET /a HTTP/1.1\r\n"
	status, body := fetch(t, http.DefaultClient, url+"a", os.Getenv("FORKYARD_API_KEY"))
	equal(t, "the page with a key", fmt.Sprint(status, body), fmt.Sprint(200, said))
	status, _ = fetch(t, http.DefaultClient, url+"a", "")
	equal(t, "the status without one", status, 401)
	preview, err := ports.PreviewURL(ctx, 7201, time.Minute)
	check(t, err)
	_, body = fetch(t, http.DefaultClient, preview+"a", "")
	equal(t, "the preview's page", body, said)

	// Whatever speaks over a net.Conn speaks over a connection to a machine.
	over := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ports.Connect(ctx, 7201)
	}}}
	_, body = fetch(t, over, "http://machine/a", "")
	equal(t, "the page over a connection", body, said)
}

func TestAStreamGoesBothWays(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	listens(t, ctx, sandbox, 7202, echoing)
	tunnel := dial(t, ctx, sandbox, 7202)
	equal(t, "the other end", tunnel.RemoteAddr().String(), sandbox.ID()+":7202")
	equal(t, "the network", tunnel.LocalAddr().Network(), "forkyard")
	_, err := io.WriteString(tunnel, "one")
	check(t, err)
	heard := make([]byte, 2)
	_, err = io.ReadFull(tunnel, heard)
	check(t, err)
	equal(t, "what comes back", string(heard), "on")
	_, err = io.WriteString(tunnel, "two")
	check(t, err)
	check(t, tunnel.CloseWrite())
	rest, err := io.ReadAll(tunnel)
	check(t, err)
	equal(t, "the rest", string(rest), "etwo")
	if _, err := tunnel.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("%v does not say that it was closed", err)
	}

	// Much more than is held on the way.
	much := bytes.Repeat([]byte("forkyard"), 400_000)
	tunnel = dial(t, ctx, sandbox, 7202)
	var writing sync.WaitGroup
	writing.Add(1)
	go func() {
		defer writing.Done()
		if count, err := tunnel.Write(much); err != nil || count != len(much) {
			t.Errorf("%d bytes were sent, and then: %v", count, err)
		}
		if err := tunnel.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	all, err := io.ReadAll(tunnel)
	check(t, err)
	writing.Wait()
	equal(t, "coming back the same", bytes.Equal(all, much), true)
}

func TestDeadlinesEndReadsAndWrites(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	listens(t, ctx, sandbox, 7203, echoing)
	listens(t, ctx, sandbox, 7204, deaf)
	late := func(err error) {
		t.Helper()
		var failure net.Error
		if !errors.As(err, &failure) || !failure.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, forkyard.CodeTimeout) {
			t.Fatalf("%v is no time-out", err)
		}
	}
	tunnel := dial(t, ctx, sandbox, 7203)
	buffer := make([]byte, 64)
	check(t, tunnel.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err := tunnel.Read(buffer)
	late(err)
	_, err = tunnel.Read(buffer)
	late(err)
	// A deadline that is set while somebody reads holds for him.
	check(t, tunnel.SetReadDeadline(time.Time{}))
	reading := make(chan error, 1)
	go func() {
		_, err := tunnel.Read(make([]byte, 64))
		reading <- err
	}()
	check(t, tunnel.SetDeadline(time.Now().Add(-time.Second)))
	late(<-reading)
	_, err = tunnel.Write([]byte("x"))
	late(err)

	// However often it passes, nothing is lost.
	check(t, tunnel.SetWriteDeadline(time.Time{}))
	const said = "0123456789"
	var heard strings.Builder
	for round := range 20 {
		_, err := io.WriteString(tunnel, said)
		check(t, err)
		for heard.Len() < (round+1)*len(said) {
			check(t, tunnel.SetReadDeadline(time.Now().Add(2*time.Millisecond)))
			count, err := tunnel.Read(buffer)
			if err != nil {
				late(err)
			}
			heard.Write(buffer[:count])
			check(t, ctx.Err())
		}
	}
	equal(t, "what was heard", heard.String(), strings.Repeat(said, 20))

	// What nobody takes is held up to some size, and how much that is, is told.
	stuck := dial(t, ctx, sandbox, 7204)
	check(t, stuck.SetWriteDeadline(time.Now().Add(2*time.Second)))
	much := make([]byte, 64<<20)
	count, err := stuck.Write(much)
	late(err)
	if count == 0 || count >= len(much) {
		t.Fatalf("%d bytes were sent", count)
	}
}

// As code that knows of connections alone looks at it.
func TestAnErrorIsOneOfTheNet(t *testing.T) {
	for _, test := range []struct {
		err                  net.Error
		isTimeout, mayRepeat bool
	}{
		{&forkyard.Error{Code: forkyard.CodeTimeout}, true, false},
		{&forkyard.Error{Code: forkyard.CodeUnavailable, Retryable: true}, false, true},
	} {
		equal(t, "being a time-out", test.err.Timeout(), test.isTimeout)
		equal(t, "being temporary", test.err.Temporary(), test.mayRepeat)
		equal(t, "being a time-out for the os", os.IsTimeout(test.err), test.isTimeout)
	}
}

func TestClosingAStreamEndsWhatIsUnderWay(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	listens(t, ctx, sandbox, 7205, deaf)
	tunnel := dial(t, ctx, sandbox, 7205)
	ended := make(chan error, 2)
	go func() {
		_, err := tunnel.Read(make([]byte, 64))
		ended <- err
	}()
	go func() {
		_, err := tunnel.Write(make([]byte, 64<<20))
		ended <- err
	}()
	// As soon as they wait, or before.
	check(t, tunnel.Close())
	check(t, tunnel.Close())
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) || !errors.Is(err, forkyard.CodeFailedPrecondition) {
			t.Fatalf("%v does not say that it was closed", err)
		}
	}
	for what, err := range map[string]error{
		"ending what goes there": tunnel.CloseWrite(),
		"setting a deadline":     tunnel.SetDeadline(time.Now()),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v does not say that it was closed", what, err)
		}
	}
}

func TestAForwardedPortLeadsThere(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	listens(t, ctx, sandbox, 7206, echoing)
	forward, err := sandbox.Ports().Forward(ctx, 7206, forkyard.ForwardOptions{})
	check(t, err)
	equal(t, "this host's address", forward.Addr().IP.String(), "127.0.0.1")
	near, err := net.DialTCP("tcp", nil, forward.Addr())
	check(t, err)
	defer near.Close()
	much := bytes.Repeat([]byte("x"), 1_000_000)
	go func() {
		if _, err := near.Write(much); err != nil {
			t.Error(err)
		}
		if err := near.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	all, err := io.ReadAll(near)
	check(t, err)
	equal(t, "coming back the same", bytes.Equal(all, much), true)
	taken := forkyard.ForwardOptions{LocalPort: forward.Addr().Port}
	if _, err := sandbox.Ports().Forward(ctx, 7206, taken); !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Fatalf("%v does not say that the port is taken", err)
	}
	check(t, forward.Close(ctx))
	check(t, forward.Close(ctx))
	if late, err := net.DialTCP("tcp", nil, forward.Addr()); err == nil {
		late.Close()
		t.Fatal("it still takes connections")
	}
	// One that nobody has time for ends too.
	forward, err = sandbox.Ports().Forward(ctx, 7206, forkyard.ForwardOptions{})
	check(t, err)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := forward.Close(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v is no cancellation", err)
	}
	for {
		late, err := net.DialTCP("tcp", nil, forward.Addr())
		if err != nil {
			break
		}
		late.Close()
		check(t, ctx.Err())
	}
}

func TestWhatIsNoPortIsRefused(t *testing.T) {
	ctx := bounded(t)
	ports := shared(t, ctx).Ports()
	refused := func(what string, err error, code forkyard.Code, words string) {
		t.Helper()
		if !errors.Is(err, code) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v is not %s, or does not say %q", what, err, code, words)
		}
	}
	for _, port := range []int{0, -1, 65_536} {
		_, err := ports.URL(port)
		refused("an address", err, forkyard.CodeInvalidArgument, "a port must be between 1 and 65535, not ")
		_, err = ports.Connect(ctx, port)
		refused("a connection", err, forkyard.CodeInvalidArgument, "a port must be")
		_, err = ports.Forward(ctx, port, forkyard.ForwardOptions{})
		refused("a forwarded port", err, forkyard.CodeInvalidArgument, "a port must be")
	}
	_, err := ports.Forward(ctx, 80, forkyard.ForwardOptions{LocalPort: 65_536})
	refused("a local port", err, forkyard.CodeInvalidArgument, "LocalPort must be")
	_, err = ports.PreviewURL(ctx, 80, 0)
	refused("a preview of no time", err, forkyard.CodeInvalidArgument, "expires_secs must be between 1 and 604800")
	_, err = ports.Connect(ctx, 81)
	refused("a connection to nobody", err, forkyard.CodeFailedPrecondition, "nothing listens on port 81")
	refused("waiting", ports.Wait(ctx, 81, 100*time.Millisecond), forkyard.CodeTimeout, "nothing listens on port 81")
	short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	if err := ports.Wait(short, 81, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v does not say that the context ended", err)
	}
}

func TestAStreamBreaksOffWithItsMachine(t *testing.T) {
	ctx := bounded(t)
	sandbox := create(t, ctx, small)
	listens := forkyard.Cmd("perl", "-e", echoing, "7207")
	process, err := sandbox.Start(ctx, listens)
	check(t, err)
	defer process.Close()
	check(t, sandbox.Ports().Wait(ctx, 7207, time.Minute))
	tunnel := dial(t, ctx, sandbox, 7207)
	reading := make(chan error, 1)
	go func() {
		_, err := tunnel.Read(make([]byte, 64))
		reading <- err
	}()
	_, err = sandbox.Terminate(ctx)
	check(t, err)
	if err := <-reading; !errors.Is(err, forkyard.CodeConnection) {
		t.Fatalf("%v does not say that it broke off", err)
	}
	if _, err := sandbox.Ports().Connect(ctx, 7207); !errors.Is(err, forkyard.CodeSandboxLost) {
		t.Fatalf("%v does not say that the machine is gone", err)
	}
}
