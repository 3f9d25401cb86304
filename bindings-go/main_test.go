//go:build cgo

package forkyard_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// small is the machine of tests that need nothing of it.
var small = forkyard.Options{Image: "base", MemoryMB: 256}

// TestMain starts a real server for all tests, by the binary and the images that `make test` names.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	stop, err := serve(os.Getenv("FORKYARD_BIN"), os.Getenv("FORKYARD_TEST_IMAGES"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func serve(binary, images string) (stop func() error, err error) {
	if binary == "" || images == "" {
		return nil, fmt.Errorf("FORKYARD_BIN and FORKYARD_TEST_IMAGES name a server and images for it: `make test` sets them, -short goes without")
	}
	// Beside the images: machines link their files.
	data, err := os.MkdirTemp(filepath.Dir(images), "gotest-")
	if err != nil {
		return nil, err
	}
	address, err := free("127.0.0.1")
	if err != nil {
		return nil, err
	}
	arguments := []string{"serve", "--listen", address, "--data-dir", data, "--image-dir", images}
	if own := ownAddress(); own != "" {
		if page, err = free(own); err != nil {
			return nil, err
		}
		arguments = append(arguments, "--network-allow", page)
	}
	server := exec.Command(binary, arguments...)
	server.Stderr = os.Stderr
	endWithTests(server)
	if err := server.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- server.Wait() }()
	stop = func() error {
		defer os.RemoveAll(data)
		select {
		case err := <-exited:
			return fmt.Errorf("the server had ended already: %v", err)
		default:
		}
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case err := <-exited:
			return err
		case <-time.After(time.Minute):
			return fmt.Errorf("the server does not end")
		}
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if connection, err := net.Dial("tcp", address); err == nil {
			connection.Close()
			break
		}
		select {
		case err := <-exited:
			return nil, fmt.Errorf("the server ended: %w", err)
		default:
		}
		if time.Since(began) > time.Minute {
			return nil, fmt.Errorf("the server does not serve (and ended so: %w)", stop())
		}
	}
	key, err := os.ReadFile(filepath.Join(data, "api-key"))
	os.Setenv("FORKYARD_URL", "http://"+address)
	os.Setenv("FORKYARD_API_KEY", strings.TrimSpace(string(key)))
	return stop, err
}

// free is an address and a port on which nobody listens.
func free(address string) (string, error) {
	probe, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return "", err
	}
	return probe.Addr().String(), probe.Close()
}

// page is where on this host a page may be served that machines can be allowed to reach: not on loopback, which they have
// themselves. Empty where this host has no other address.
var page string

// pageHost is where a test serves its page.
func pageHost(t *testing.T) string {
	t.Helper()
	if page == "" {
		t.Skip("this host has no address but loopback")
	}
	return page
}

// ownAddress is an address of this host that is not loopback; empty where there is none.
func ownAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			return network.IP.String()
		}
	}
	return ""
}

// bounded is a context that ends a test that hangs.
func bounded(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

func client(t *testing.T) *forkyard.Client {
	t.Helper()
	client, err := forkyard.Default()
	check(t, err)
	return client
}

// create makes a machine that ends with the test.
func create(t *testing.T, ctx context.Context, options forkyard.Options) *forkyard.Sandbox {
	t.Helper()
	sandbox, err := forkyard.Create(ctx, options)
	check(t, err)
	t.Cleanup(func() { terminate(t, sandbox) })
	return sandbox
}

func terminate(t *testing.T, sandbox *forkyard.Sandbox) {
	t.Helper()
	ending, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if _, err := sandbox.Terminate(ending); err != nil {
		t.Error(err)
	}
	if err := sandbox.Close(); err != nil {
		t.Error(err)
	}
}

var common struct {
	sync.Once
	sandbox *forkyard.Sandbox
	err     error
}

// shared is one machine for all tests that leave it as it was; it ends with the server.
func shared(t *testing.T, ctx context.Context) *forkyard.Sandbox {
	t.Helper()
	common.Do(func() { common.sandbox, common.err = forkyard.Create(ctx, small) })
	check(t, common.err)
	return common.sandbox
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, not %v", what, got, want)
	}
}
