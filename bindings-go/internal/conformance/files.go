//go:build cgo

package main

import (
	"context"
	"io"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

type pathArgs struct {
	Path raw `json:"path"`
}

// part reads part of a file: by its offset alone as a stream, else in place.
func part(ctx context.Context, sandbox *forkyard.Sandbox, path string, offset, length *int64) ([]byte, error) {
	file, err := sandbox.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if length == nil {
		if _, err := file.Seek(*offset, io.SeekStart); err != nil {
			return nil, err
		}
		return io.ReadAll(file)
	}
	begin := int64(0)
	if offset != nil {
		begin = *offset
	}
	return io.ReadAll(io.NewSectionReader(file, begin, *length))
}

func bindFiles() {
	type sandbox = *forkyard.Sandbox
	// Calls that answer nothing in Go are followed by a look at what they made.
	stat := func(ctx context.Context, on sandbox, path string, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return said(fileInfo)(on.Stat(ctx, path))
	}
	bind("files.read", func(ctx context.Context, _ call, on sandbox, args struct {
		Path   raw    `json:"path"`
		Offset *int64 `json:"offset"`
		Length *int64 `json:"length"`
	}) (any, error) {
		read := func() ([]byte, error) { return on.ReadFile(ctx, string(args.Path)) }
		if args.Offset != nil || args.Length != nil {
			read = func() ([]byte, error) { return part(ctx, on, string(args.Path), args.Offset, args.Length) }
		}
		return said(asBytes)(read())
	}, "Sandbox.ReadFile", "Sandbox.Open", "File.Read", "File.ReadAt", "File.Seek", "File.Close")
	bind("files.read_text", func(ctx context.Context, _ call, on sandbox, args pathArgs) (any, error) {
		data, err := on.ReadFile(ctx, string(args.Path))
		return forkyard.Result{Stdout: data}.StdoutText(), err
	}, "Sandbox.ReadFile")
	bind("files.write", func(ctx context.Context, _ call, on sandbox, args struct {
		Path raw     `json:"path"`
		Data raw     `json:"data"`
		Mode *uint32 `json:"mode"`
	}) (any, error) {
		path := string(args.Path)
		return stat(ctx, on, path, on.WriteFile(ctx, path, args.Data, mode(args.Mode)))
	}, "Sandbox.WriteFile")
	bind("files.list", func(ctx context.Context, _ call, on sandbox, args pathArgs) (any, error) {
		return saidList(fileInfo)(on.ListFiles(ctx, string(args.Path)))
	}, "Sandbox.ListFiles")
	bind("files.stat", func(ctx context.Context, _ call, on sandbox, args pathArgs) (any, error) {
		return said(fileInfo)(on.Stat(ctx, string(args.Path)))
	}, "Sandbox.Stat")
	bind("files.exists", func(ctx context.Context, _ call, on sandbox, args pathArgs) (any, error) {
		return on.Exists(ctx, string(args.Path))
	}, "Sandbox.Exists")
	bind("files.make_dir", func(ctx context.Context, _ call, on sandbox, args pathArgs) (any, error) {
		return stat(ctx, on, string(args.Path), on.MakeDir(ctx, string(args.Path)))
	}, "Sandbox.MakeDir")
	bind("files.move", func(ctx context.Context, _ call, on sandbox, args struct {
		Source    raw  `json:"source"`
		Target    raw  `json:"target"`
		Overwrite bool `json:"overwrite"`
	}) (any, error) {
		return stat(ctx, on, string(args.Target), on.Move(ctx, string(args.Source), string(args.Target), args.Overwrite))
	}, "Sandbox.Move")
	bind("files.remove", func(ctx context.Context, _ call, on sandbox, args struct {
		Path      raw  `json:"path"`
		Recursive bool `json:"recursive"`
	}) (any, error) {
		if args.Recursive {
			return nil, on.RemoveAll(ctx, string(args.Path))
		}
		return nil, on.Remove(ctx, string(args.Path))
	}, "Sandbox.Remove", "Sandbox.RemoveAll")
	bind("files.upload", func(ctx context.Context, _ call, on sandbox, args struct {
		Local  string  `json:"local"`
		Remote raw     `json:"remote"`
		Mode   *uint32 `json:"mode"`
	}) (any, error) {
		var told int64
		options := forkyard.TransferOptions{Mode: mode(args.Mode), OnProgress: func(bytes int64) { told = bytes }}
		if err := on.Upload(ctx, args.Local, string(args.Remote), options); err != nil {
			return nil, err
		}
		info, err := on.Stat(ctx, string(args.Remote))
		said := fileInfo(info)
		said["told"] = told
		return said, err
	}, "Sandbox.Upload")
	bind("files.download", func(ctx context.Context, _ call, on sandbox, args struct {
		Remote raw    `json:"remote"`
		Local  string `json:"local"`
	}) (any, error) {
		var told int64
		options := forkyard.TransferOptions{OnProgress: func(bytes int64) { told = bytes }}
		size, err := on.Download(ctx, string(args.Remote), args.Local, options)
		return record{"size": size, "told": told}, err
	}, "Sandbox.Download")
	bind("files.upload_dir", func(ctx context.Context, _ call, on sandbox, args struct {
		Local  string `json:"local"`
		Remote raw    `json:"remote"`
	}) (any, error) {
		var told int64
		options := forkyard.TransferOptions{OnProgress: func(bytes int64) { told = bytes }}
		summary, err := on.UploadDir(ctx, args.Local, string(args.Remote), options)
		return treeSummary(summary, told), err
	}, "Sandbox.UploadDir")
	bind("files.download_dir", func(ctx context.Context, _ call, on sandbox, args struct {
		Remote raw    `json:"remote"`
		Local  string `json:"local"`
	}) (any, error) {
		var told int64
		options := forkyard.TransferOptions{OnProgress: func(bytes int64) { told = bytes }}
		summary, err := on.DownloadDir(ctx, string(args.Remote), args.Local, options)
		return treeSummary(summary, told), err
	}, "Sandbox.DownloadDir")
}

func treeSummary(summary forkyard.TreeSummary, told int64) record {
	return record{
		"files": summary.Files, "folders": summary.Folders, "links": summary.Links, "bytes": summary.Bytes,
		"skipped": summary.Skipped, "skipped_paths": summary.SkippedPaths, "told": told,
	}
}
