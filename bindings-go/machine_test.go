//go:build cgo

package forkyard_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

func TestAMachineLives(t *testing.T) {
	ctx := bounded(t)
	options := small
	options.Name, options.Labels = "go-life", map[string]string{"purpose": "test"}
	options.Env, options.Timeout = map[string]string{"GREETING": "hello"}, 20*time.Minute
	sandbox := create(t, ctx, options)
	equal(t, "the name", sandbox.Name(), "go-life")
	command := forkyard.Cmd("sh", "-c", `echo "$GREETING"; echo kept >/dev/shm/note`)
	result, err := sandbox.Run(ctx, command)
	check(t, err)
	equal(t, "the environment", result.StdoutText(), "hello\n")
	info, err := sandbox.Info(ctx)
	check(t, err)
	equal(t, "the status", info.Status, forkyard.SandboxStatusRunning)
	equal(t, "the stage", info.Stage, forkyard.StageMade)
	equal(t, "the label", info.Labels["purpose"], "test")
	equal(t, "the idle time-out", info.Timeout, 20*time.Minute)
	equal(t, "the memory", info.MemoryMB, 256)
	equal(t, "not having ended", info.EndedAt.IsZero(), true)
	if info.StartedAt.Before(info.CreatedAt) || time.Since(info.CreatedAt).Abs() > 5*time.Minute {
		t.Fatalf("it was asked for at %v and ran at %v", info.CreatedAt, info.StartedAt)
	}

	info, err = sandbox.Suspend(ctx)
	check(t, err)
	equal(t, "the status", info.Status, forkyard.SandboxStatusSuspended)
	same, err := forkyard.Connect(ctx, "go-life")
	check(t, err)
	defer same.Close()
	equal(t, "the machine of that name", same.ID(), sandbox.ID())
	info, err = same.Resume(ctx)
	check(t, err)
	equal(t, "the status", info.Status, forkyard.SandboxStatusRunning)
	data, err := same.ReadFile(ctx, "/dev/shm/note")
	check(t, err)
	equal(t, "what was in memory", string(data), "kept\n")

	all, err := client(t).List(ctx, forkyard.SandboxFilter{})
	check(t, err)
	found := false
	for _, info := range all {
		found = found || info.SandboxID == sandbox.ID()
	}
	equal(t, "being listed", found, true)
	info, err = client(t).Terminate(ctx, sandbox.ID())
	check(t, err)
	equal(t, "the status", info.Status, forkyard.SandboxStatusTerminated)
	info, err = client(t).Get(ctx, sandbox.ID())
	check(t, err)
	equal(t, "having ended", info.EndedAt.IsZero(), false)
	if _, err := sandbox.Run(ctx, command); !errors.Is(err, forkyard.CodeSandboxLost) && !errors.Is(err, forkyard.CodeFailedPrecondition) {
		t.Fatalf("%v does not say that the machine is gone", err)
	}
}

func TestSnapshotsAndTwins(t *testing.T) {
	ctx := bounded(t)
	base := create(t, ctx, small)
	note := forkyard.Cmd("sh", "-c", "echo before >/dev/shm/note")
	_, err := base.Run(ctx, note)
	check(t, err)
	snapshot, err := base.Checkpoint(ctx, forkyard.CheckpointOptions{Type: forkyard.CheckpointTypeMemory, Name: "go"})
	check(t, err)
	defer func() {
		check(t, client(t).DeleteSnapshot(ctx, snapshot.SnapshotID))
		if _, err := client(t).Snapshot(ctx, snapshot.SnapshotID); !errors.Is(err, forkyard.CodeNotFound) {
			t.Errorf("%v does not say that the snapshot is gone", err)
		}
	}()
	equal(t, "the status", snapshot.Status, forkyard.SnapshotStatusCompleted)
	equal(t, "the source", snapshot.Source, base.ID())
	check(t, base.WriteFile(ctx, "/dev/shm/note", []byte("after\n"), 0))

	fork := create(t, ctx, forkyard.Options{SnapshotID: snapshot.SnapshotID})
	twins, err := base.Fork(ctx, forkyard.ForkOptions{Count: 2, Env: map[string]string{"TWIN": "yes"}})
	check(t, err)
	equal(t, "how many twins there are", len(twins), 2)
	for _, twin := range twins {
		defer terminate(t, twin)
		result, err := twin.Run(ctx, forkyard.Cmd("sh", "-c", "cat /dev/shm/note; echo $TWIN"))
		check(t, err)
		equal(t, "a twin's note", result.StdoutText(), "after\nyes\n")
	}
	data, err := fork.ReadFile(ctx, "/dev/shm/note")
	check(t, err)
	equal(t, "the fork's note", string(data), "before\n")
	_, err = base.Restore(ctx, snapshot.SnapshotID)
	check(t, err)
	data, err = base.ReadFile(ctx, "/dev/shm/note")
	check(t, err)
	equal(t, "the restored note", string(data), "before\n")
	list, err := client(t).Snapshots(ctx)
	check(t, err)
	equal(t, "the newest snapshot", list[0].SnapshotID, snapshot.SnapshotID)
}

func TestWhatTheServerKeeps(t *testing.T) {
	ctx := bounded(t)
	c := client(t)
	policy := forkyard.RetentionPolicy{WhenFull: forkyard.WhenFullDeleteOldest, KeepLast: 50, MaxAge: 90 * time.Minute}
	got, err := c.SetRetention(ctx, policy)
	check(t, err)
	equal(t, "the policy", got, policy)
	_, err = c.SetRetention(ctx, forkyard.RetentionPolicy{})
	check(t, err)
	got, err = c.Retention(ctx)
	check(t, err)
	equal(t, "the policy", got, forkyard.RetentionPolicy{WhenFull: forkyard.WhenFullRefuse})

	server, err := c.ServerInfo(ctx)
	check(t, err)
	if server.Capacity.MemoryMB == 0 || server.Version == "" || server.QEMU == "" {
		t.Fatalf("%+v says nothing", server)
	}
	images, err := c.Images(ctx)
	check(t, err)
	tagged := false
	for _, image := range images {
		for _, tag := range image.Tags {
			tagged = tagged || tag == "base"
		}
	}
	equal(t, "having the image base", tagged, true)

	pool, err := c.CreatePool(ctx, forkyard.PoolOptions{Image: "base", MemoryMB: 192, Max: 2})
	check(t, err)
	equal(t, "the least that are ready", pool.MinReady, 1)
	pool, err = c.ChangePool(ctx, pool.PoolID, forkyard.PoolOptions{Image: "base", MemoryMB: 192, Max: 1})
	check(t, err)
	equal(t, "the most", pool.Max, 1)
	pools, err := c.Pools(ctx)
	check(t, err)
	equal(t, "the newest pool", pools[0].PoolID, pool.PoolID)
	check(t, c.DeletePool(ctx, pool.PoolID))
	if _, err := c.Pool(ctx, pool.PoolID); !errors.Is(err, forkyard.CodeNotFound) {
		t.Fatalf("%v does not say that the pool is gone", err)
	}
}

func TestAKeySeesItsProjectAlone(t *testing.T) {
	ctx := bounded(t)
	c := client(t)
	key, err := c.CreateKey(ctx, forkyard.KeyOptions{Project: "prj_other", Description: "a test's"})
	check(t, err)
	equal(t, "the scope", key.Info.Scope, forkyard.KeyScopeSandboxes)
	equal(t, "how many machines it may have", key.Info.MaxSandboxes, 8)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		equal(t, "the key, printed by "+format, fmt.Sprintf(format, key), "CreatedKey{"+key.Info.KeyID+"}")
	}
	other, err := forkyard.NewClient(forkyard.ClientOptions{APIKey: key.APIKey, Timeout: 20 * time.Second})
	check(t, err)
	defer other.Close()
	_, err = other.Get(ctx, shared(t, ctx).ID())
	var failure *forkyard.Error
	if !errors.As(err, &failure) || failure.Code != forkyard.CodeNotFound || failure.Resource != "sandbox" || failure.RequestID == "" {
		t.Fatalf("%#v does not say that there is no such machine", err)
	}
	if _, err := other.Keys(ctx); !errors.Is(err, forkyard.CodePermissionDenied) {
		t.Fatalf("%v does not say that it may not", err)
	}
	keys, err := c.Keys(ctx)
	check(t, err)
	equal(t, "the newest key", keys[len(keys)-1].KeyID, key.Info.KeyID)
	check(t, c.RevokeKey(ctx, key.Info.KeyID))
	if _, err := other.List(ctx, forkyard.SandboxFilter{}); !errors.Is(err, forkyard.CodeUnauthenticated) {
		t.Fatalf("%v does not say that the key was revoked", err)
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	ctx := bounded(t)
	nobody, err := forkyard.NewClient(forkyard.ClientOptions{URL: "http://127.0.0.1:9", APIKey: "k", Timeout: time.Second})
	check(t, err)
	defer nobody.Close()
	_, err = nobody.List(ctx, forkyard.SandboxFilter{})
	var failure *forkyard.Error
	if !errors.As(err, &failure) || failure.Code != forkyard.CodeConnection || !failure.Retryable {
		t.Fatalf("%v does not say that nobody is there", err)
	}
	if _, err := forkyard.NewClient(forkyard.ClientOptions{URL: "ftp://x"}); !errors.Is(err, forkyard.CodeInvalidArgument) {
		t.Fatalf("%v does not refuse the address", err)
	}
}
