//go:build cgo

package forkyard

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Ports are a machine's TCP ports. All goes through the server: the machine needs no network for it. Connections break off where the
// machine is suspended or ends, and a fork does not have its original's.
type Ports struct {
	sandbox *Sandbox
}

// ForwardOptions say where on this host to listen. Zero values stand for defaults.
type ForwardOptions struct {
	// LocalPort is this host's port. Default: any that is free.
	LocalPort int
	// Host is this host's address. Default: 127.0.0.1; another lets others in.
	Host string
}

// Ports are the machine's.
func (o *Sandbox) Ports() Ports { return Ports{o} }

// List answers the ports that something in the machine listens on, in their order.
func (p Ports) List(ctx context.Context) ([]ListeningPort, error) {
	return p.sandbox.portsNative(ctx)
}

// Wait waits until something listens on a port, at most so long; 0 looks once. It fails with [CodeTimeout] where nothing did in time.
func (p Ports) Wait(ctx context.Context, port int, timeout time.Duration) error {
	return p.sandbox.waitPort(ctx, port, timeout)
}

// Connect connects to a port. The context is that of connecting alone: the connection has deadlines of its own.
//
// It fails with [CodeFailedPrecondition] where nothing listens there, and with [CodeNoCapacity] where 512 connections to the
// machine's ports are open already.
func (p Ports) Connect(ctx context.Context, port int) (*Tunnel, error) {
	native, err := p.sandbox.connectPort(ctx, port)
	if err != nil {
		return nil, err
	}
	return &Tunnel{native: native, remote: tunnelAddr{p.sandbox.ID(), port}}, nil
}

// Forward listens on this host and connects whoever comes to the machine's port, up to 256 at once; nothing need listen there yet.
// It fails with [CodeInvalidArgument] where the address is taken, or none of this host's.
func (p Ports) Forward(ctx context.Context, port int, options ForwardOptions) (*Forward, error) {
	host := options.Host
	if host == "" {
		host = "127.0.0.1"
	}
	native, err := p.sandbox.forwardPort(ctx, port, host, options.LocalPort)
	if err != nil {
		return nil, err
	}
	address, err := netip.ParseAddr(native.host())
	if err != nil {
		_ = native.close()
		return nil, internalError("the address listened on is none: " + err.Error())
	}
	bound := netip.AddrPortFrom(address, uint16(native.port()))
	return &Forward{native: native, addr: net.TCPAddrFromAddrPort(bound)}, nil
}

// PreviewURL answers an address at which whoever has it reaches the HTTP server on a port, WebSockets included, without a key, for so
// long: 1 second to 7 days, part of a second being a whole one. Nothing need listen there yet. It is a secret, and ends at its time
// or with the machine.
func (p Ports) PreviewURL(ctx context.Context, port int, lifetime time.Duration) (string, error) {
	return p.sandbox.previewURL(ctx, port, lifetime)
}

// URL is the address of the HTTP server on a port for those who have the API key (Authorization: Bearer …), which is not passed on into
// the machine.
func (p Ports) URL(port int) (string, error) {
	return p.sandbox.portURL(port)
}

// Forward is a port on this host that leads to one in a machine until it is closed.
type Forward struct {
	native *forwardHandle
	addr   *net.TCPAddr
	closed atomic.Bool
}

// Addr is where this host listens.
func (f *Forward) Addr() *net.TCPAddr { return f.addr }

// Close ends it and all its connections, and waits until nobody is taken any more; where the context ends before, nobody will be
// soon. Closing it again does nothing.
func (f *Forward) Close(ctx context.Context) error {
	if f.closed.Swap(true) {
		return nil
	}
	defer f.native.close()
	return f.native.shut(ctx)
}
