//go:build cgo

package forkyard_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

func TestFilesAreWrittenAndRead(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	const folder = "/tmp/files/deep"
	defer func() { check(t, sandbox.RemoveAll(ctx, "/tmp/files")) }()
	check(t, sandbox.WriteFile(ctx, folder+"/a", []byte{0, 255, 10}, 0o600))
	check(t, sandbox.WriteFile(ctx, folder+"/\xff", nil, 0))
	data, err := sandbox.ReadFile(ctx, folder+"/a")
	check(t, err)
	equal(t, "the contents", string(data), "\x00\xff\n")
	data, err = sandbox.ReadFile(ctx, folder+"/\xff")
	check(t, err)
	equal(t, "the length of nothing", len(data), 0)

	info, err := sandbox.Stat(ctx, folder+"/a")
	check(t, err)
	equal(t, "the mode", info.Mode, 0o600)
	equal(t, "the size", info.Size, 3)
	if age := time.Since(info.ModifiedAt).Abs(); age > time.Minute {
		t.Fatalf("the file is %v old", age)
	}
	entries, err := sandbox.ListFiles(ctx, folder)
	check(t, err)
	equal(t, "how many there are", len(entries), 2)
	equal(t, "the first", entries[0].Name, "a")
	equal(t, "the second's exact name", entries[1].NameBase64, "/w==")

	check(t, sandbox.MakeDir(ctx, folder+"/b/c"))
	check(t, sandbox.Move(ctx, folder+"/a", folder+"/b/c/a", false))
	exists, err := sandbox.Exists(ctx, folder+"/a")
	check(t, err)
	equal(t, "being where it was", exists, false)
	exists, err = sandbox.Exists(ctx, folder+"/b/c/a")
	check(t, err)
	equal(t, "being where it is", exists, true)
	if err := sandbox.Remove(ctx, folder+"/b"); err == nil {
		t.Fatal("a folder with something in it was removed")
	}
	if _, err := sandbox.ReadFile(ctx, folder+"/a"); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, forkyard.CodeNotFound) {
		t.Fatalf("%v does not say that it is not there", err)
	}
	if _, err := sandbox.ReadFile(ctx, "relative"); !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Fatalf("%v does not refuse a relative path", err)
	}
}

// Reads, seeks and reads at places as such a reader must.
func TestAnOpenFileIsAReader(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	contents := []byte("some forty bytes to be read in all ways.")
	check(t, sandbox.WriteFile(ctx, "/tmp/reader", contents, 0))
	defer func() { check(t, sandbox.Remove(ctx, "/tmp/reader")) }()
	file, err := sandbox.Open(ctx, "/tmp/reader")
	check(t, err)
	check(t, iotest.TestReader(file, contents))
	check(t, file.Close())
	if _, err := sandbox.Open(ctx, "/tmp"); !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Fatalf("%v does not say that this is a folder", err)
	}
}

func TestFilesAreStreamed(t *testing.T) {
	ctx := bounded(t)
	sandbox := shared(t, ctx)
	const remote = "/tmp/streamed"
	contents := make([]byte, 3<<20+17)
	rand.New(rand.NewSource(1)).Read(contents)
	local := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(local, contents, 0o600))

	var told []int64
	options := forkyard.TransferOptions{Mode: 0o640, OnProgress: func(bytes int64) { told = append(told, bytes) }}
	check(t, sandbox.Upload(ctx, local, remote, options))
	defer func() { check(t, sandbox.Remove(ctx, remote)) }()
	equal(t, "the last of the progress", told[len(told)-1], int64(len(contents)))

	file, err := sandbox.Open(ctx, remote)
	check(t, err)
	equal(t, "the mode", file.Info().Mode, 0o640)
	data, err := io.ReadAll(file)
	check(t, err)
	equal(t, "reading the same", bytes.Equal(data, contents), true)
	_, err = file.Seek(-17, io.SeekEnd)
	check(t, err)
	data, err = io.ReadAll(file)
	check(t, err)
	equal(t, "its end being the same", bytes.Equal(data, contents[len(contents)-17:]), true)
	check(t, file.Close())
	if _, err := file.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("%v does not say that it was closed", err)
	}

	told = nil
	back := filepath.Join(t.TempDir(), "back")
	size, err := sandbox.Download(ctx, remote, back, options)
	check(t, err)
	equal(t, "the size", size, int64(len(contents)))
	equal(t, "the last of the progress", told[len(told)-1], size)
	data, err = os.ReadFile(back)
	check(t, err)
	equal(t, "coming back the same", bytes.Equal(data, contents), true)

	size, err = sandbox.WriteFrom(ctx, remote, io.MultiReader(strings.NewReader("a"), bytes.NewReader(contents)), 0)
	check(t, err)
	equal(t, "the size", size, int64(len(contents)+1))
	if err := sandbox.Upload(ctx, local+"-not", remote, options); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v does not say that the local file is not there", err)
	}
	if _, err := sandbox.Download(ctx, remote+"-not", back, options); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v does not say that the file is not there", err)
	}
}
