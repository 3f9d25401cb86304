package forkyard_test

import (
	"os/exec"
	"runtime"
	"syscall"
)

// endWithTests has a server end where a test panics or the tests' time is up: this program ends without a word then. The kernel tells
// when the thread that started the server ends, so this is to be the one that lives as long as the tests.
func endWithTests(server *exec.Cmd) {
	runtime.LockOSThread()
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
