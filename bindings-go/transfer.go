//go:build cgo

package forkyard

import (
	"context"
	"io/fs"
)

// TransferOptions say how a file or a folder goes over. Zero values stand for defaults.
type TransferOptions struct {
	// Mode are the permission bits of a file that is sent. Default: those of the file that it replaces, else 0o644. What is in a
	// folder keeps its own.
	Mode fs.FileMode
	// OnProgress is told how many bytes went over so far: not of every piece, but of the last. After a cut they count from 0 again.
	OnProgress func(bytes int64)
}

// Upload sends a local file, streamed. The machine's file changes as a whole once all of it is there. A cut connection is tried
// again from the file's beginning.
func (o *Sandbox) Upload(ctx context.Context, local, remote string, options TransferOptions) error {
	return options.watch(ctx, func(told *progress) error {
		_, err := o.uploadNative(ctx, local, []byte(remote), permissions(options.Mode), told)
		return err
	})
}

// Download fetches a file, streamed, and answers its size. The local file changes as a whole once all of it is there.
func (o *Sandbox) Download(ctx context.Context, remote, local string, options TransferOptions) (size int64, err error) {
	err = options.watch(ctx, func(told *progress) error {
		size, err = o.downloadNative(ctx, []byte(remote), local, told)
		return err
	})
	return size, err
}

// UploadDir sends a local folder with all that is in it, streamed. One that is not there appears as a whole, with what is missing above
// it. Into one that is there everything is put, each file as a whole, over what has the same name; nothing is removed. All of it
// belongs to the image's user; permission bits and times are kept, links are kept as links. A cut connection is tried again from
// the beginning. Progress is of the stream, which is somewhat longer than the files.
//
// It fails with [CodeNoSpace] where the machine's disk is full; the message names the file that could not be read or written.
func (o *Sandbox) UploadDir(ctx context.Context, local, remote string, options TransferOptions) (sent TreeSummary, err error) {
	err = options.watch(ctx, func(told *progress) error {
		sent, err = o.uploadDirNative(ctx, local, []byte(remote), told)
		return err
	})
	return sent, err
}

// DownloadDir fetches a folder with all that is in it, streamed, as [Sandbox.UploadDir] sends one; it belongs to the caller. The
// machine is not trusted: nothing lands outside the local folder, and links that lead out of it are left out and counted.
//
// It fails with [CodeNotFound] where the machine has no such folder; the message names the file that could not be read or written.
func (o *Sandbox) DownloadDir(ctx context.Context, remote, local string, options TransferOptions) (fetched TreeSummary, err error) {
	err = options.watch(ctx, func(told *progress) error {
		fetched, err = o.downloadDirNative(ctx, []byte(remote), local, told)
		return err
	})
	return fetched, err
}

// watch does a transfer and tells of its progress meanwhile, on the caller's own goroutine: what is told may take its time, and
// make calls.
func (t TransferOptions) watch(ctx context.Context, transfer func(*progress) error) error {
	told := newProgress()
	defer told.close()
	if t.OnProgress == nil {
		return transfer(told)
	}
	ended := make(chan error, 1)
	go func() {
		defer told.end()
		ended <- transfer(told)
	}()
	for seen := int64(0); ; {
		// Not of the caller's context: the transfer's end is what ends this.
		now, err := told.next(context.WithoutCancel(ctx), seen)
		if err != nil || now == nil {
			return <-ended
		}
		seen = *now
		t.OnProgress(seen)
	}
}
