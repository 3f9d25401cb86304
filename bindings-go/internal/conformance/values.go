//go:build cgo

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// raw is text, or bytes in base64.
type raw []byte

func (r *raw) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*r = raw(text)
		return nil
	}
	var encoded struct {
		Bytes []byte `json:"$bytes"`
	}
	if err := json.Unmarshal(data, &encoded); err != nil {
		return err
	}
	*r = encoded.Bytes
	return nil
}

func asBytes(data []byte) record {
	return record{"$bytes": base64.StdEncoding.EncodeToString(data)}
}

func millis(count float64) time.Duration {
	return time.Duration(count * float64(time.Millisecond))
}

// orNil is nil for what stands for nothing in Go.
func orNil[T comparable](value T) any {
	var zero T
	if value == zero {
		return nil
	}
	return value
}

func at(moment time.Time) any {
	if moment.IsZero() {
		return nil
	}
	return moment.UnixMilli()
}

func list[T any](values []T, one func(T) record) []record {
	said := make([]record, 0, len(values))
	for _, value := range values {
		said = append(said, one(value))
	}
	return said
}

// labels are never nil in the suite.
func labels(given map[string]string) map[string]string {
	if given == nil {
		return map[string]string{}
	}
	return given
}

// stage is nil for a machine that is not being made, for which Go has a word.
func stage(stage forkyard.Stage) any {
	if stage == forkyard.StageMade {
		return nil
	}
	return stage
}

func sandboxInfo(v forkyard.SandboxInfo) record {
	return record{
		"sandbox_id": v.SandboxID, "status": v.Status, "stage": stage(v.Stage), "reason": orNil(v.Reason), "name": orNil(v.Name),
		"image": v.Image, "image_digest": v.ImageDigest, "snapshot_id": orNil(v.SnapshotID), "cpus": v.CPUs,
		"memory_mb": v.MemoryMB, "timeout_secs": v.Timeout.Seconds(), "labels": labels(v.Labels), "created_at_ms": at(v.CreatedAt),
		"started_at_ms": at(v.StartedAt), "ended_at_ms": at(v.EndedAt),
	}
}

func snapshotInfo(v forkyard.SnapshotInfo) record {
	return record{
		"snapshot_id": v.SnapshotID, "checkpoint_type": v.Type, "status": v.Status, "reason": orNil(v.Reason),
		"name": orNil(v.Name), "source": v.Source, "image": v.Image, "image_digest": v.ImageDigest, "cpus": v.CPUs,
		"memory_mb": v.MemoryMB, "size_bytes": v.Size, "logical_size_bytes": v.LogicalSize, "pause_ms": v.Pause.Milliseconds(),
		"labels": labels(v.Labels), "retain": v.Retain, "created_at_ms": at(v.CreatedAt),
	}
}

func poolInfo(v forkyard.PoolInfo) record {
	return record{
		"pool_id": v.PoolID, "image": orNil(v.Image), "snapshot_id": orNil(v.SnapshotID), "cpus": orNil(v.CPUs),
		"memory_mb": orNil(v.MemoryMB), "min_ready": v.MinReady, "max": orNil(v.Max), "ready": v.Ready, "starting": v.Starting,
		"claimed": v.Claimed, "hits": v.Hits, "misses": v.Misses, "reason": orNil(v.Reason), "created_at_ms": at(v.CreatedAt),
	}
}

func imageInfo(v forkyard.ImageInfo) record {
	return record{"digest": v.Digest, "name": v.Name, "tags": v.Tags, "size_bytes": v.Size}
}

func keyInfo(v forkyard.KeyInfo) record {
	return record{
		"key_id": v.KeyID, "project": v.Project, "scope": v.Scope, "description": v.Description, "max_sandboxes": v.MaxSandboxes,
		"requests_per_second": v.RequestsPerSecond, "created_at_ms": at(v.CreatedAt),
	}
}

func serverInfo(v forkyard.ServerInfo) record {
	return record{"version": v.Version, "accelerator": v.Accelerator, "qemu": v.QEMU, "capacity": record{
		"memory_mb": v.Capacity.MemoryMB, "memory_used_mb": v.Capacity.MemoryUsedMB, "sandboxes": v.Capacity.Sandboxes,
	}}
}

func retention(v forkyard.RetentionPolicy) record {
	return record{
		"budget_mb": orNil(v.BudgetMB), "when_full": v.WhenFull, "keep_last": orNil(v.KeepLast), "max_age_secs": orNil(v.MaxAge.Seconds()),
	}
}

func fileInfo(v forkyard.FileInfo) record {
	said := record{
		"name": v.Name, "kind": v.Kind, "size": v.Size, "mode": v.Mode, "uid": v.UID, "gid": v.GID,
		"modified_at_ms": at(v.ModifiedAt), "target": orNil(v.Target),
	}
	if v.NameBase64 != "" {
		said["name"] = record{"$bytes": v.NameBase64}
	}
	return said
}

func networkInfo(v forkyard.NetworkInfo) record {
	policy, counters := v.Policy, v.Counters
	return record{
		"link": v.Link,
		"policy": record{
			"allow_internet_access": policy.AllowInternetAccess, "allow_out": policy.AllowOut, "deny_out": policy.DenyOut,
			"max_connections": orNil(policy.MaxConnections), "bandwidth_kbps": orNil(policy.BandwidthKbps),
		},
		"counters": record{
			"bytes_out": counters.BytesOut, "bytes_in": counters.BytesIn, "connections_open": counters.ConnectionsOpen,
			"connections_total": counters.ConnectionsTotal, "connections_refused": counters.ConnectionsRefused,
			"dns_queries": counters.DNSQueries, "dropped_frames": counters.DroppedFrames, "dropped_events": counters.DroppedEvents,
		},
	}
}

func networkEvent(v forkyard.NetworkEvent) record {
	return record{
		"at_ms": at(v.At), "kind": v.Kind, "protocol": orNil(v.Protocol), "name": orNil(v.Name), "address": orNil(v.Address),
		"port": orNil(v.Port), "bytes_out": v.BytesOut, "bytes_in": v.BytesIn, "verdict": orNil(v.Verdict), "rule": orNil(v.Rule),
	}
}

// exitCode is nil where a signal ended it, which Go says by -1.
func exitCode(code int) any {
	if code == -1 {
		return nil
	}
	return code
}

func exitStatus(v forkyard.ExitStatus) record {
	return record{
		"exit_code": exitCode(v.ExitCode), "signal": orNil(v.Signal), "oom_killed": v.OOMKilled, "timed_out": v.TimedOut,
		"duration_ms": v.Duration.Milliseconds(), "stdout_size": v.StdoutSize, "stderr_size": v.StderrSize,
	}
}

func processInfo(v forkyard.ProcessInfo) record {
	said := record{
		"id": v.ID, "pid": v.PID, "command": v.Program, "args": v.Args, "state": v.State, "started_at_ms": at(v.StartedAt),
	}
	if v.Exit != nil {
		said["exit"] = exitStatus(*v.Exit)
	}
	if v.Pty != nil {
		said["pty"] = record{"rows": v.Pty.Rows, "cols": v.Pty.Cols}
	}
	sayManagement(said, v)
	return said
}

func result(v forkyard.Result) record {
	return record{
		"process_id": v.ProcessID, "exit_code": exitCode(v.ExitCode), "signal": orNil(v.Signal), "ok": v.OK(),
		"stdout": v.StdoutText(), "stderr": v.StderrText(), "stdout_bytes": asBytes(v.Stdout), "stderr_bytes": asBytes(v.Stderr),
		"oom_killed": v.OOMKilled, "timed_out": v.TimedOut, "duration_ms": v.Duration.Milliseconds(),
	}
}

func failure(err error) record {
	var ended *forkyard.CommandError
	var told *forkyard.Error
	switch {
	case errors.As(err, &ended):
		code := "command_failed"
		if ended.Result.TimedOut {
			code = "timeout"
		}
		return record{"code": code, "message": err.Error(), "result": result(ended.Result)}
	case errors.As(err, &told):
		return record{
			"code": told.Code, "message": told.Message, "request_id": orNil(told.RequestID),
			"retry_after_ms": orNil(told.RetryAfter.Milliseconds()), "resource": orNil(told.Resource), "errno": orNil(told.Errno),
		}
	default:
		return record{"code": "executor", "message": fmt.Sprintf("%T: %v", err, err)}
	}
}

// mode are permission bits; none are said by 0.
func mode(bits *uint32) fs.FileMode {
	if bits == nil {
		return 0
	}
	return fs.FileMode(*bits)
}
