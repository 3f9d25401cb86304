//go:build cgo

package main

import forkyard "github.com/forkyard/forkyard/bindings-go"

// management is how a process is to be kept running.
type management struct {
	Name    string `json:"name"`
	Restart *struct {
		When         forkyard.RestartWhen `json:"when"`
		MaxRestarts  int                  `json:"max_restarts"`
		BackoffMS    float64              `json:"backoff_ms"`
		MaxBackoffMS float64              `json:"max_backoff_ms"`
	} `json:"restart"`
	HealthCheck *struct {
		Command       []string `json:"command"`
		Port          int      `json:"port"`
		HTTPPath      string   `json:"http_path"`
		IntervalMS    float64  `json:"interval_ms"`
		TimeoutMS     float64  `json:"timeout_ms"`
		Retries       int      `json:"retries"`
		StartPeriodMS float64  `json:"start_period_ms"`
	} `json:"health_check"`
}

// manage has a command kept running so.
func (m management) manage(command *forkyard.Command) {
	command.Name = m.Name
	if it := m.Restart; it != nil {
		command.Restart = &forkyard.RestartPolicy{
			When: it.When, MaxRestarts: it.MaxRestarts, Backoff: millis(it.BackoffMS), MaxBackoff: millis(it.MaxBackoffMS),
		}
	}
	if it := m.HealthCheck; it != nil {
		command.HealthCheck = &forkyard.HealthCheck{
			Command: it.Command, Port: it.Port, HTTPPath: it.HTTPPath, Interval: millis(it.IntervalMS),
			Timeout: millis(it.TimeoutMS), Retries: it.Retries, StartPeriod: millis(it.StartPeriodMS),
		}
	}
}

// sayManagement adds to a process's record how it is kept running.
func sayManagement(said record, v forkyard.ProcessInfo) {
	said["name"], said["restarts"], said["next_start_at_ms"] = orNil(v.Name), v.Restarts, at(v.NextStartAt)
	said["healthy"] = v.Healthy
	if v.LastExit != nil {
		said["last_exit"] = exitStatus(*v.LastExit)
	}
}
