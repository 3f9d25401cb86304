// Two twins, two policies: one may fetch a page from one host and nothing else, the other nothing at all.
//
// The page is served by this program, on an address of this host's. No machine reaches its host unless the operator opens an
// address, so the server must run with --network-allow ADDRESS:PORT (this program says which).
//
// Usage: go run ./04_network [ADDRESS:PORT], with such a server running. Default: port 8137 of an address that is not loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

const page = "a page from the one host\n"

// ownHost is where this host can be reached but for loopback: a machine has a loopback of its own.
func ownHost() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			return net.JoinHostPort(network.IP.String(), "8137"), nil
		}
	}
	return "", errors.New("this host has no address but loopback")
}

// fetch is what the machine gets.
func fetch(ctx context.Context, machine *forkyard.Sandbox, url string) (string, error) {
	result, err := machine.Run(ctx, forkyard.Cmd("curl", "--silent", "--show-error", "--max-time", "20", url))
	if text := result.StdoutText(); text != "" {
		return strings.TrimSpace(text), err
	}
	return strings.TrimSpace(result.StderrText()), err
}

// describe is an event in one line.
func describe(event forkyard.NetworkEvent) string {
	where := event.Address
	if event.Name != "" {
		where = event.Name
	}
	if event.Port != 0 {
		where = fmt.Sprintf("%s:%d", where, event.Port)
	}
	line := fmt.Sprintf("%-19s %-22s by '%s'", event.Kind, where, event.Rule)
	if event.BytesIn > 0 {
		line += fmt.Sprintf(" %d bytes out, %d in", event.BytesOut, event.BytesIn)
	}
	return line
}

// show says what a twin gets, and what the server saw of it.
func show(ctx context.Context, name string, twin *forkyard.Sandbox, urls ...string) error {
	fmt.Printf("the twin that %s:\n", name)
	for _, url := range urls {
		got, err := fetch(ctx, twin, url)
		if err != nil {
			return err
		}
		fmt.Printf("  %-28s %s\n", url, got)
	}
	info, err := twin.Network(ctx)
	if err != nil {
		return err
	}
	seen, err := twin.NetworkEvents(ctx, "", 2*time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("  its link is %s; its events:\n", info.Link)
	for _, event := range seen.Events {
		fmt.Printf("    %s\n", describe(event))
	}
	if len(seen.Events) == 0 {
		fmt.Println("    none: nothing left it")
	}
	return nil
}

// twin is a fork of a machine that may reach this.
func twin(ctx context.Context, original *forkyard.Sandbox, policy forkyard.NetworkPolicy) (*forkyard.Sandbox, error) {
	forks, err := original.Fork(ctx, forkyard.ForkOptions{Network: &policy})
	if err != nil {
		return nil, err
	}
	return forks[0], nil
}

func run(ctx context.Context, host string) (err error) {
	original, err := forkyard.Create(ctx, forkyard.Options{Image: "base", MemoryMB: 256})
	if err != nil {
		return err
	}
	end := func(machine *forkyard.Sandbox) {
		_, ended := machine.Terminate(context.WithoutCancel(ctx))
		err = errors.Join(err, ended)
	}
	defer end(original)
	guided, err := twin(ctx, original, forkyard.NetworkPolicy{AllowOut: []string{host}})
	if err != nil {
		return err
	}
	defer end(guided)
	shut, err := twin(ctx, original, forkyard.NetworkPolicy{})
	if err != nil {
		return err
	}
	defer end(shut)

	url := "http://" + host + "/"
	urls := []string{url, "http://198.51.100.7/", "http://169.254.169.254/"}
	if err := show(ctx, "may fetch one page", guided, urls...); err != nil {
		return err
	}
	if err := show(ctx, "may fetch nothing", shut, urls...); err != nil {
		return err
	}
	got, err := fetch(ctx, guided, url)
	if err == nil && got != strings.TrimSpace(page) {
		err = fmt.Errorf("the page was not reached: is the server run with --network-allow %s?", host)
	}
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serveAndRun(ctx); err != nil {
		log.Fatal(errors.Join(err, forkyard.Settle(2*time.Second)))
	}
}

// serveAndRun has the page served meanwhile.
func serveAndRun(ctx context.Context) error {
	host, err := ownHost()
	if len(os.Args) > 1 {
		host, err = os.Args[1], nil
	}
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", host)
	if err != nil {
		return err
	}
	web := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) })}
	go web.Serve(listener)
	defer web.Close()
	return run(ctx, host)
}
