//go:build cgo

package forkyard

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
)

// Paths in a machine are absolute and may hold any bytes but NUL.

// ReadFile answers a file's contents, at most 1 GiB.
func (o *Sandbox) ReadFile(ctx context.Context, path string) ([]byte, error) {
	return o.readNative(ctx, []byte(path))
}

// WriteFile replaces a file's contents as a whole, at most 1 GiB, making missing folders; until then the old contents stay. Mode
// are its permission bits; 0 stands for those of the file that it replaces, else 0o644.
func (o *Sandbox) WriteFile(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	_, err := o.writeNative(ctx, []byte(path), data, permissions(mode))
	return err
}

// WriteFrom replaces a file's contents by all that a reader gives, as [Sandbox.WriteFile] does, and answers how many bytes those
// are. They wait in a temporary file on this host until all are there, and memory stays flat.
func (o *Sandbox) WriteFrom(ctx context.Context, path string, from io.Reader, mode fs.FileMode) (int64, error) {
	spool, err := os.CreateTemp("", "forkyard-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(spool.Name())
	size, err := io.Copy(spool, contextReader{ctx, from})
	if err = errors.Join(err, spool.Close()); err != nil {
		return 0, err
	}
	return size, o.Upload(ctx, spool.Name(), path, TransferOptions{Mode: mode})
}

// contextReader ends a copy with its context.
type contextReader struct {
	ctx  context.Context
	from io.Reader
}

func (r contextReader) Read(data []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, contextError(r.ctx)
	}
	return r.from.Read(data)
}

// ListFiles answers a folder's entries, by name.
func (o *Sandbox) ListFiles(ctx context.Context, path string) ([]FileInfo, error) {
	return o.listNative(ctx, []byte(path))
}

// Stat answers a file's attributes, those of a link's target.
func (o *Sandbox) Stat(ctx context.Context, path string) (FileInfo, error) {
	return o.statNative(ctx, []byte(path))
}

// Exists says whether there is something of this name.
func (o *Sandbox) Exists(ctx context.Context, path string) (bool, error) {
	_, err := o.statNative(ctx, []byte(path))
	var failure *Error
	if errors.As(err, &failure) && failure.Errno == "ENOENT" {
		return false, nil
	}
	return err == nil, err
}

// MakeDir makes a folder and what is missing above it; one that is there is as wanted.
func (o *Sandbox) MakeDir(ctx context.Context, path string) error {
	_, err := o.makeDirNative(ctx, []byte(path))
	return err
}

// Move moves a file or folder, over another only where told to. It is not tried again after a failed connection: nobody knows
// then whether it was moved.
func (o *Sandbox) Move(ctx context.Context, from, to string, overwrite bool) error {
	_, err := o.moveNative(ctx, []byte(from), []byte(to), overwrite)
	return err
}

// Remove removes a file or an empty folder.
func (o *Sandbox) Remove(ctx context.Context, path string) error {
	return o.removeNative(ctx, []byte(path), false)
}

// RemoveAll removes a file, or a folder and all that is in it.
func (o *Sandbox) RemoveAll(ctx context.Context, path string) error {
	return o.removeNative(ctx, []byte(path), true)
}

// permissions are a file's permission bits; nil stands for the default.
func permissions(mode fs.FileMode) *uint32 {
	if mode == 0 {
		return nil
	}
	bits := uint32(mode.Perm())
	return &bits
}
