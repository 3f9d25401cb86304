//go:build cgo

package main

import (
	"context"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

type openArgs struct {
	URL       string  `json:"url"`
	APIKey    string  `json:"api_key"`
	TimeoutMS float64 `json:"timeout_ms"`
}

func (a openArgs) client() (*forkyard.Client, error) {
	return forkyard.NewClient(forkyard.ClientOptions{URL: a.URL, APIKey: a.APIKey, Timeout: millis(a.TimeoutMS)})
}

type networkArgs struct {
	AllowInternetAccess bool     `json:"allow_internet_access"`
	AllowOut            []string `json:"allow_out"`
	DenyOut             []string `json:"deny_out"`
	MaxConnections      int      `json:"max_connections"`
	BandwidthKbps       int      `json:"bandwidth_kbps"`
}

func (a networkArgs) policy() forkyard.NetworkPolicy {
	return forkyard.NetworkPolicy{
		AllowInternetAccess: a.AllowInternetAccess, AllowOut: a.AllowOut, DenyOut: a.DenyOut,
		MaxConnections: a.MaxConnections, BandwidthKbps: a.BandwidthKbps,
	}
}

type createArgs struct {
	Image            string            `json:"image"`
	SnapshotID       string            `json:"snapshot_id"`
	Name             string            `json:"name"`
	CPUs             float64           `json:"cpus"`
	MemoryMB         int               `json:"memory_mb"`
	TimeoutSecs      float64           `json:"timeout_secs"`
	AutoResume       *bool             `json:"auto_resume"`
	QueueTimeoutSecs float64           `json:"queue_timeout_secs"`
	Env              map[string]string `json:"env"`
	Labels           map[string]string `json:"labels"`
	Network          networkArgs       `json:"network"`
}

func (a createArgs) options() forkyard.Options {
	return forkyard.Options{
		Image: a.Image, SnapshotID: a.SnapshotID, Name: a.Name, CPUs: a.CPUs, MemoryMB: a.MemoryMB,
		Timeout: millis(a.TimeoutSecs * 1000), ManualResume: a.AutoResume != nil && !*a.AutoResume,
		QueueTimeout: millis(a.QueueTimeoutSecs * 1000), Env: a.Env, Labels: a.Labels, Network: a.Network.policy(),
	}
}

type filterArgs struct {
	Name     string                 `json:"name"`
	Status   forkyard.SandboxStatus `json:"status"`
	Image    string                 `json:"image"`
	Labels   map[string]string      `json:"labels"`
	PageSize int                    `json:"page_size"`
}

type poolArgs struct {
	Image      string  `json:"image"`
	SnapshotID string  `json:"snapshot_id"`
	CPUs       float64 `json:"cpus"`
	MemoryMB   int     `json:"memory_mb"`
	MinReady   int     `json:"min_ready"`
	Max        int     `json:"max"`
}

func (a poolArgs) options() forkyard.PoolOptions { return forkyard.PoolOptions(a) }

// made keeps a machine that was made or found.
func made(c call, sandbox *forkyard.Sandbox, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return c.keep(sandbox, record{"sandbox_id": sandbox.ID(), "name": orNil(sandbox.Name()), "status": "running"}), nil
}

// said makes a record of what a call answered.
func said[T any](one func(T) record) func(value T, err error) (any, error) {
	return func(value T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return one(value), nil
	}
}

func saidList[T any](one func(T) record) func(values []T, err error) (any, error) {
	return func(values []T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return list(values, one), nil
	}
}

func bindClient() {
	type client = *forkyard.Client
	bind("client.open", func(_ context.Context, c call, _ any, args openArgs) (any, error) {
		client, err := args.client()
		if err != nil {
			return nil, err
		}
		return c.keep(client, record{}), nil
	}, "NewClient")
	bind("client.in_scope", func(ctx context.Context, _ call, _ any, args openArgs) (any, error) {
		client, err := args.client()
		if err != nil {
			return nil, err
		}
		defer client.Close()
		return said(serverInfo)(client.ServerInfo(ctx))
	}, "NewClient", "Client.Close")
	bind("client.create", func(ctx context.Context, c call, on client, args createArgs) (any, error) {
		sandbox, err := on.Create(ctx, args.options())
		return made(c, sandbox, err)
	}, "Client.Create")
	bind("client.create_in_scope", func(ctx context.Context, _ call, on client, args struct {
		createArgs
		Run runArgs `json:"run"`
	}) (any, error) {
		sandbox, err := on.Create(ctx, args.options())
		if err != nil {
			return nil, err
		}
		ended, err := runInScope(ctx, sandbox, args.Run)
		if err != nil {
			return nil, err
		}
		ended["sandbox_id"] = sandbox.ID()
		return ended, nil
	}, "Client.Create", "Sandbox.Terminate")
	bind("client.get_or_create", func(ctx context.Context, c call, on client, args createArgs) (any, error) {
		options := args.options()
		options.Name = ""
		sandbox, err := on.GetOrCreate(ctx, args.Name, options)
		return made(c, sandbox, err)
	}, "Client.GetOrCreate")
	bind("client.connect", func(ctx context.Context, c call, on client, args struct {
		NameOrID string `json:"name_or_id"`
	}) (any, error) {
		sandbox, err := on.Connect(ctx, args.NameOrID)
		return made(c, sandbox, err)
	}, "Client.Connect")
	bind("client.get", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return said(sandboxInfo)(on.Get(ctx, args.ID))
	}, "Client.Get")
	bind("client.list", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return saidList(sandboxInfo)(on.List(ctx, forkyard.SandboxFilter{}))
	}, "Client.List")
	bind("client.find", func(ctx context.Context, _ call, on client, args filterArgs) (any, error) {
		return saidList(sandboxInfo)(on.List(ctx, forkyard.SandboxFilter(args)))
	}, "Client.List")
	bind("client.iter", func(ctx context.Context, _ call, on client, args struct {
		Filter filterArgs `json:"filter"`
		Take   int        `json:"take"`
	}) (any, error) {
		found := []record{}
		for info, err := range on.Sandboxes(ctx, forkyard.SandboxFilter(args.Filter)) {
			if err != nil {
				return nil, err
			}
			if found = append(found, sandboxInfo(info)); len(found) == args.Take {
				break
			}
		}
		return found, nil
	}, "Client.Sandboxes")
	bind("client.terminate", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return said(sandboxInfo)(on.Terminate(ctx, args.ID))
	}, "Client.Terminate")
	bind("client.images", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return saidList(imageInfo)(on.Images(ctx))
	}, "Client.Images")
	bind("client.server_info", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return said(serverInfo)(on.ServerInfo(ctx))
	}, "Client.ServerInfo")
	bindKeys()
	bindSnapshots()
	bindPools()
	bindSwarm()
}

func bindKeys() {
	type client = *forkyard.Client
	bind("client.create_key", func(ctx context.Context, _ call, on client, args struct {
		Project           string            `json:"project"`
		Scope             forkyard.KeyScope `json:"scope"`
		Description       string            `json:"description"`
		MaxSandboxes      int               `json:"max_sandboxes"`
		RequestsPerSecond int               `json:"requests_per_second"`
	}) (any, error) {
		created, err := on.CreateKey(ctx, forkyard.KeyOptions(args))
		if err != nil {
			return nil, err
		}
		return record{"api_key": created.APIKey, "info": keyInfo(created.Info)}, nil
	}, "Client.CreateKey")
	bind("client.list_keys", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return saidList(keyInfo)(on.Keys(ctx))
	}, "Client.Keys")
	bind("client.revoke_key", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return nil, on.RevokeKey(ctx, args.ID)
	}, "Client.RevokeKey")
}

func bindSnapshots() {
	type client = *forkyard.Client
	bind("client.snapshot", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return said(snapshotInfo)(on.Snapshot(ctx, args.ID))
	}, "Client.Snapshot")
	bind("client.snapshots", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return saidList(snapshotInfo)(on.Snapshots(ctx))
	}, "Client.Snapshots")
	bind("client.delete_snapshot", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return nil, on.DeleteSnapshot(ctx, args.ID)
	}, "Client.DeleteSnapshot")
	bind("client.retention", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return said(retention)(on.Retention(ctx))
	}, "Client.Retention")
	bind("client.set_retention", func(ctx context.Context, _ call, on client, args struct {
		BudgetMB   int               `json:"budget_mb"`
		WhenFull   forkyard.WhenFull `json:"when_full"`
		KeepLast   int               `json:"keep_last"`
		MaxAgeSecs float64           `json:"max_age_secs"`
	}) (any, error) {
		return said(retention)(on.SetRetention(ctx, forkyard.RetentionPolicy{
			BudgetMB: args.BudgetMB, WhenFull: args.WhenFull, KeepLast: args.KeepLast, MaxAge: millis(args.MaxAgeSecs * 1000),
		}))
	}, "Client.SetRetention")
}

func bindPools() {
	type client = *forkyard.Client
	bind("client.create_pool", func(ctx context.Context, _ call, on client, args poolArgs) (any, error) {
		return said(poolInfo)(on.CreatePool(ctx, args.options()))
	}, "Client.CreatePool")
	bind("client.pool", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return said(poolInfo)(on.Pool(ctx, args.ID))
	}, "Client.Pool")
	bind("client.pools", func(ctx context.Context, _ call, on client, _ none) (any, error) {
		return saidList(poolInfo)(on.Pools(ctx))
	}, "Client.Pools")
	bind("client.change_pool", func(ctx context.Context, _ call, on client, args struct {
		ID   string   `json:"id"`
		Spec poolArgs `json:"spec"`
	}) (any, error) {
		return said(poolInfo)(on.ChangePool(ctx, args.ID, args.Spec.options()))
	}, "Client.ChangePool")
	bind("client.delete_pool", func(ctx context.Context, _ call, on client, args byID) (any, error) {
		return nil, on.DeletePool(ctx, args.ID)
	}, "Client.DeletePool")
}

func bindSwarm() {
	bind("client.swarm", func(ctx context.Context, _ call, on *forkyard.Client, args struct {
		Tasks         []string `json:"tasks"`
		Image         string   `json:"image"`
		SnapshotID    string   `json:"snapshot_id"`
		MemoryMB      int      `json:"memory_mb"`
		Concurrency   int      `json:"concurrency"`
		Retries       int      `json:"retries"`
		TaskTimeoutMS float64  `json:"task_timeout_ms"`
	}) (any, error) {
		told := 0
		job := func(ctx context.Context, sandbox *forkyard.Sandbox, script string) (string, error) {
			command := forkyard.Cmd("sh", "-c", script)
			command.Check = true
			ended, err := sandbox.Run(ctx, command)
			return ended.StdoutText(), err
		}
		report, err := forkyard.Swarm(ctx, forkyard.SwarmOptions{
			Machine: forkyard.Options{Image: args.Image, SnapshotID: args.SnapshotID, MemoryMB: args.MemoryMB},
			Client:  on, Concurrency: args.Concurrency, Retries: args.Retries, TaskTimeout: millis(args.TaskTimeoutMS),
			OnProgress: func(progress forkyard.SwarmProgress) { told = progress.Succeeded + progress.Failed },
		}, args.Tasks, job)
		if err != nil {
			return nil, err
		}
		tasks := list(report.Tasks, func(task forkyard.SwarmTask[string]) record {
			said := record{"index": task.Index, "status": task.Status, "attempts": len(task.Attempts)}
			if task.Err != nil {
				said["error"] = failure(task.Err)
			} else {
				said["result"] = task.Result
			}
			return said
		})
		return record{
			"succeeded": report.Succeeded, "failed": report.Failed, "cancelled": report.Cancelled,
			"results": report.Results(), "told": told, "tasks": tasks,
		}, nil
	}, "Swarm", "SwarmReport.Results", "Cmd")
}
