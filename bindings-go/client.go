//go:build cgo

package forkyard

import (
	"context"
	"sync"
)

var shared struct {
	sync.Mutex
	client *Client
}

// Default is the client that the package's own functions use: one for the program, found by the environment, made at its first
// use. It is not to be closed.
func Default() (*Client, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.client == nil {
		client, err := NewClient(ClientOptions{})
		if err != nil {
			return nil, err
		}
		shared.client = client
	}
	return shared.client, nil
}

// Create makes a machine and waits until it runs, as [Client.Create] does, by the default client.
func Create(ctx context.Context, options Options) (*Sandbox, error) {
	client, err := Default()
	if err != nil {
		return nil, err
	}
	return client.Create(ctx, options)
}

// GetOrCreate answers the machine of a name, or makes it, as [Client.GetOrCreate] does, by the default client.
func GetOrCreate(ctx context.Context, name string, options Options) (*Sandbox, error) {
	client, err := Default()
	if err != nil {
		return nil, err
	}
	return client.GetOrCreate(ctx, name, options)
}

// Connect finds a machine that is there already, by its name or id, by the default client.
func Connect(ctx context.Context, nameOrID string) (*Sandbox, error) {
	client, err := Default()
	if err != nil {
		return nil, err
	}
	return client.Connect(ctx, nameOrID)
}

// String keeps the secret to itself.
func (k CreatedKey) String() string { return "CreatedKey{" + k.Info.KeyID + "}" }

// GoString keeps the secret to itself.
func (k CreatedKey) GoString() string { return k.String() }
