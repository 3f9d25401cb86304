//go:build cgo

package forkyard

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// readPiece is how many bytes a file that is read in order fetches at once.
const readPiece = 1 << 20

// File is a file in a machine, open for reading: an [io.ReadSeekCloser] and [io.ReaderAt]. It is fetched piece by piece as it
// is read; a file that is written meanwhile may be seen half old and half new. It is not safe for use by several goroutines,
// but for ReadAt.
type File struct {
	ctx     context.Context
	sandbox *Sandbox
	path    []byte
	info    FileInfo
	offset  int64
	// ahead is what was fetched and not read yet, from offset on.
	ahead []byte
}

var (
	_ io.ReadSeekCloser = (*File)(nil)
	_ io.ReaderAt       = (*File)(nil)
)

// Open opens a file for reading. The context is that of all reading too.
func (o *Sandbox) Open(ctx context.Context, path string) (*File, error) {
	info, err := o.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	if info.Kind == FileKindDirectory {
		return nil, invalidError("'" + path + "' is a folder: list it with ListFiles")
	}
	return &File{ctx: ctx, sandbox: o, path: []byte(path), info: info}, nil
}

// Info is the file's attributes as they were when it was opened.
func (f *File) Info() FileInfo { return f.info }

// Read reads on, to the size that the file had when it was opened.
func (f *File) Read(data []byte) (int, error) {
	if f.sandbox == nil {
		return 0, fs.ErrClosed
	}
	if len(f.ahead) == 0 {
		length := min(max(int64(len(data)), readPiece), f.info.Size-f.offset)
		if length <= 0 {
			return 0, io.EOF
		}
		ahead, err := f.fetch(f.offset, length)
		if err != nil {
			return 0, err
		}
		f.ahead = ahead
	}
	length := copy(data, f.ahead)
	f.ahead = f.ahead[length:]
	f.offset += int64(length)
	return length, nil
}

// ReadAt reads from a place on, without moving Read's.
func (f *File) ReadAt(data []byte, offset int64) (int, error) {
	if f.sandbox == nil {
		return 0, fs.ErrClosed
	}
	if offset < 0 {
		return 0, invalidError("the offset must not be negative")
	}
	length := min(int64(len(data)), f.info.Size-offset)
	if length <= 0 {
		if len(data) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	fetched, err := f.fetch(offset, length)
	if err != nil {
		return 0, err
	}
	if copied := copy(data, fetched); copied < len(data) {
		return copied, io.EOF
	}
	return len(data), nil
}

// fetch answers at least one byte.
func (f *File) fetch(offset, length int64) ([]byte, error) {
	fetched, err := f.sandbox.readRange(f.ctx, f.path, offset, length)
	if err == nil && len(fetched) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return fetched, err
}

// Seek sets where Read goes on.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.info.Size
	default:
		return 0, invalidError("whence must be io.SeekStart, io.SeekCurrent or io.SeekEnd")
	}
	if offset < 0 {
		return 0, errors.New("the offset lies before the file's beginning")
	}
	f.offset, f.ahead = offset, nil
	return offset, nil
}

// Close lets go of the file.
func (f *File) Close() error {
	f.sandbox, f.ahead = nil, nil
	return nil
}
