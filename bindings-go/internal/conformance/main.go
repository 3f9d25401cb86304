//go:build cgo

// Conformance is the Go executor of the conformance suite: it makes the calls that the driver asks for, one JSON line each,
// through the package's public API.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// order is what the driver says.
type order struct {
	ID     uint64          `json:"id"`
	Call   string          `json:"call"`
	On     string          `json:"on"`
	Args   json.RawMessage `json:"args"`
	Cancel bool            `json:"cancel"`
}

// answer is what it hears.
type answer struct {
	ID      uint64   `json:"id"`
	Returns any      `json:"returns,omitempty"`
	Error   record   `json:"error,omitempty"`
	Via     []string `json:"via"`
}

// record is a record as the suite writes it.
type record = map[string]any

// call is one that is to be made.
type call struct {
	objects *objects
	on      any
	args    json.RawMessage
}

// objects are what calls answered with that can be called on, by handle.
type objects struct {
	sync.Mutex
	all map[string]any
}

// keep keeps an object, and adds its handle to what is said of it.
func (c call) keep(object any, said record) record {
	c.objects.Lock()
	defer c.objects.Unlock()
	handle := fmt.Sprintf("h%d", len(c.objects.all))
	c.objects.all[handle] = object
	said["$handle"] = handle
	return said
}

func (o *objects) get(handle string) any {
	o.Lock()
	defer o.Unlock()
	return o.all[handle]
}

// read takes the arguments; unknown ones are refused.
func (c call) read(into any) error {
	decoder := json.NewDecoder(bytes.NewReader(c.args))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	kept := &objects{all: map[string]any{}}
	var writing, cancelling sync.Mutex
	cancels := map[uint64]context.CancelFunc{}
	send := func(answer answer) {
		line, err := json.Marshal(answer)
		if err != nil {
			line, _ = json.Marshal(record{"id": answer.ID, "error": failure(err)})
		}
		writing.Lock()
		defer writing.Unlock()
		_, _ = output.Write(append(line, '\n'))
	}
	lines := bufio.NewReader(input)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var told order
		if err == nil {
			err = json.Unmarshal(line, &told)
		}
		if err != nil {
			return err
		}
		cancelling.Lock()
		if told.Cancel {
			if cancel := cancels[told.ID]; cancel != nil {
				cancel()
			}
			cancelling.Unlock()
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancels[told.ID] = cancel
		cancelling.Unlock()
		go func() {
			send(perform(ctx, kept, told))
			cancelling.Lock()
			delete(cancels, told.ID)
			cancelling.Unlock()
			cancel()
		}()
	}
}

func perform(ctx context.Context, kept *objects, told order) answer {
	said := answer{ID: told.ID, Via: []string{}}
	if told.Call == "surface" {
		surface, err := findSurface()
		if err != nil {
			said.Error = failure(err)
			return said
		}
		said.Returns = surface
		return said
	}
	known, ok := calls[told.Call]
	if !ok {
		said.Error = record{"code": "executor", "message": "no binding for " + told.Call}
		return said
	}
	said.Via = known.via
	returned, err := known.run(ctx, call{kept, kept.get(told.On), told.Args})
	switch {
	case err == nil:
		said.Returns = returned
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		said.Error = record{"code": "cancelled", "message": err.Error()}
	default:
		said.Error = failure(err)
	}
	return said
}
