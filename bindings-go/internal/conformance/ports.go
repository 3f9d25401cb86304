//go:build cgo

package main

import (
	"context"
	"io"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

type portArgs struct {
	Port int `json:"port"`
}

func bindPorts() {
	type sandbox = *forkyard.Sandbox
	bind("ports.list", func(ctx context.Context, _ call, on sandbox, _ none) (any, error) {
		return saidList(listeningPort)(on.Ports().List(ctx))
	}, "Ports.List", "Sandbox.Ports")
	bind("ports.wait", func(ctx context.Context, _ call, on sandbox, args struct {
		Port      int     `json:"port"`
		TimeoutMS float64 `json:"timeout_ms"`
	}) (any, error) {
		return nil, on.Ports().Wait(ctx, args.Port, millis(args.TimeoutMS))
	}, "Ports.Wait", "Sandbox.Ports")
	bind("ports.url", func(_ context.Context, _ call, on sandbox, args portArgs) (any, error) {
		return on.Ports().URL(args.Port)
	}, "Ports.URL", "Sandbox.Ports")
	bind("ports.preview_url", func(ctx context.Context, _ call, on sandbox, args struct {
		Port        int     `json:"port"`
		ExpiresSecs float64 `json:"expires_secs"`
	}) (any, error) {
		return on.Ports().PreviewURL(ctx, args.Port, millis(args.ExpiresSecs*1000))
	}, "Ports.PreviewURL", "Sandbox.Ports")
	bind("ports.connect", func(ctx context.Context, c call, on sandbox, args portArgs) (any, error) {
		tunnel, err := on.Ports().Connect(ctx, args.Port)
		if err != nil {
			return nil, err
		}
		return c.keep(tunnel, record{}), nil
	}, "Ports.Connect", "Sandbox.Ports")
	bind("ports.forward", func(ctx context.Context, c call, on sandbox, args portArgs) (any, error) {
		forward, err := on.Ports().Forward(ctx, args.Port, forkyard.ForwardOptions{})
		if err != nil {
			return nil, err
		}
		return c.keep(forward, address(forward)), nil
	}, "Ports.Forward", "Sandbox.Ports", "Forward.Addr")
	bind("ports.exchange_in_scope", func(ctx context.Context, _ call, on sandbox, args struct {
		Port int `json:"port"`
		Data raw `json:"data"`
	}) (any, error) {
		forward, err := on.Ports().Forward(ctx, args.Port, forkyard.ForwardOptions{})
		if err != nil {
			return nil, err
		}
		defer forward.Close(ctx)
		tunnel, err := on.Ports().Connect(ctx, args.Port)
		if err != nil {
			return nil, err
		}
		defer tunnel.Close()
		if _, err := tunnel.Write(args.Data); err != nil {
			return nil, err
		}
		if err := tunnel.CloseWrite(); err != nil {
			return nil, err
		}
		heard, err := io.ReadAll(tunnel)
		said := address(forward)
		said["heard"] = asBytes(heard)
		return said, err
	}, "Forward.Close", "Tunnel.Close", "Tunnel.Write", "Tunnel.CloseWrite", "Tunnel.Read")
	bind("forward.close", func(ctx context.Context, _ call, on *forkyard.Forward, _ none) (any, error) {
		return nil, on.Close(ctx)
	}, "Forward.Close")
	bindTunnel()
}

func bindTunnel() {
	type tunnel = *forkyard.Tunnel
	bind("tunnel.read", func(ctx context.Context, _ call, on tunnel, _ none) (any, error) {
		defer endWith(ctx, on)()
		piece := make([]byte, 64<<10)
		count, err := on.Read(piece)
		if err == io.EOF {
			err = nil
		}
		return asBytes(piece[:count]), err
	}, "Tunnel.Read")
	bind("tunnel.read_all", func(ctx context.Context, _ call, on tunnel, _ none) (any, error) {
		defer endWith(ctx, on)()
		return said(asBytes)(io.ReadAll(on))
	}, "Tunnel.Read")
	bind("tunnel.write", func(ctx context.Context, _ call, on tunnel, args struct {
		Data raw `json:"data"`
	}) (any, error) {
		defer endWith(ctx, on)()
		_, err := on.Write(args.Data)
		return nil, err
	}, "Tunnel.Write")
	bind("tunnel.close_write", func(_ context.Context, _ call, on tunnel, _ none) (any, error) {
		return nil, on.CloseWrite()
	}, "Tunnel.CloseWrite")
	bind("tunnel.close", func(_ context.Context, _ call, on tunnel, _ none) (any, error) {
		return nil, on.Close()
	}, "Tunnel.Close")
}

// endWith ends what a connection does where a context ends: its deadline passes then.
func endWith(ctx context.Context, tunnel *forkyard.Tunnel) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = tunnel.SetDeadline(time.Unix(1, 0)) })
}

func address(forward *forkyard.Forward) record {
	return record{"host": forward.Addr().IP.String(), "port": forward.Addr().Port}
}

func listeningPort(port forkyard.ListeningPort) record {
	return record{"port": port.Port, "loopback_only": port.LoopbackOnly}
}
