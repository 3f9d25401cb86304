//go:build cgo

package forkyard_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// project is a folder with a bit of everything.
func project(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	check(t, os.Mkdir(filepath.Join(folder, "src"), 0o755))
	check(t, os.WriteFile(filepath.Join(folder, "src/é\n"), bytes.Repeat([]byte{0xff}, 100_000), 0o600))
	check(t, os.WriteFile(filepath.Join(folder, "tool"), []byte("#!/bin/sh\necho works\n"), 0o750))
	check(t, os.Symlink("src", filepath.Join(folder, "link")))
	return folder
}

func TestAFolderComesBackAsItWent(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	defer func() { check(t, sandbox.RemoveAll(ctx, "/tmp/tree")) }()
	var told []int64
	options := forkyard.TransferOptions{OnProgress: func(bytes int64) { told = append(told, bytes) }}
	sent, err := sandbox.UploadDir(ctx, project(t), "/tmp/tree/project", options)
	check(t, err)
	want := forkyard.TreeSummary{Files: 2, Folders: 2, Links: 1, Bytes: 100_021, SkippedPaths: []string{}}
	if !reflect.DeepEqual(sent, want) {
		t.Fatalf("%+v went over, not %+v", sent, want)
	}
	if len(told) == 0 || told[len(told)-1] <= 100_021 || !slices.IsSorted(told) {
		t.Fatalf("%v was told", told)
	}
	command := forkyard.Cmd("sh", "-c", "./tool; stat -c %U:%a tool; ln -s /etc out")
	command.Dir, command.Check = "/tmp/tree/project", true
	ran, err := sandbox.Run(ctx, command)
	check(t, err)
	equal(t, "what it says there", ran.StdoutText(), "works\nagent:750\n")

	copied := filepath.Join(t.TempDir(), "copy")
	fetched, err := sandbox.DownloadDir(ctx, "/tmp/tree/project", copied, forkyard.TransferOptions{})
	check(t, err)
	equal(t, "what was left out", strings.Join(fetched.SkippedPaths, ","), "out")
	data, err := os.ReadFile(filepath.Join(copied, "link/é\n"))
	check(t, err)
	equal(t, "coming back the same", bytes.Equal(data, bytes.Repeat([]byte{0xff}, 100_000)), true)
	info, err := os.Stat(filepath.Join(copied, "tool"))
	check(t, err)
	equal(t, "the mode", info.Mode().Perm(), 0o750)
	entries, err := os.ReadDir(copied)
	check(t, err)
	equal(t, "how many there are", len(entries), 3)
}

func TestWhatCannotBeMovedIsNamed(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	here, none := project(t), forkyard.TransferOptions{}
	named := func(err error, code forkyard.Code, words string) {
		t.Helper()
		if !errors.Is(err, code) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v is not %s, or does not say %q", err, code, words)
		}
	}
	_, err := sandbox.DownloadDir(ctx, "/tmp/none", filepath.Join(here, "fetched"), none)
	named(err, forkyard.CodeNotFound, "/tmp/none: no such file")
	if _, err := os.Stat(filepath.Join(here, "fetched")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something is left of it")
	}
	_, err = sandbox.UploadDir(ctx, filepath.Join(here, "none"), "/tmp/x", none)
	named(err, forkyard.CodeNotFound, "the local file ")
	check(t, sandbox.WriteFile(ctx, "/tmp/taken", nil, 0))
	defer func() { check(t, sandbox.Remove(ctx, "/tmp/taken")) }()
	_, err = sandbox.UploadDir(ctx, here, "/tmp/taken", none)
	named(err, forkyard.CodeFailedPrecondition, "/tmp/taken: not a directory")
}

func TestAFolderIsLeftOutWhereTheContextEnds(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	here := project(t)
	// More than goes over before it is cancelled.
	check(t, os.Truncate(filepath.Join(here, "tool"), 2_000_000_000))
	cancelled, cancel := context.WithCancelCause(ctx)
	enough := errors.New("enough")
	options := forkyard.TransferOptions{OnProgress: func(int64) { cancel(enough) }}
	if _, err := sandbox.UploadDir(cancelled, here, "/tmp/big", options); !errors.Is(err, enough) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v does not say why", err)
	}
	exists, err := sandbox.Exists(ctx, "/tmp/big")
	check(t, err)
	equal(t, "being there", exists, false)

	command := forkyard.Cmd("sh", "-c", "mkdir /tmp/many && truncate -s 2000000000 /tmp/many/zeros")
	command.Check = true
	_, err = sandbox.Run(ctx, command)
	check(t, err)
	defer func() { check(t, sandbox.RemoveAll(ctx, "/tmp/many")) }()
	cancelled, cancel = context.WithCancelCause(ctx)
	defer cancel(nil)
	if _, err := sandbox.DownloadDir(cancelled, "/tmp/many", filepath.Join(here, "many"), options); !errors.Is(err, enough) {
		t.Fatalf("%v does not say why", err)
	}
}
