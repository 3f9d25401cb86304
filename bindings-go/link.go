//go:build cgo

package forkyard

// The library is built by `make go` in the repository's root.

// #cgo linux,amd64 LDFLAGS: -L${SRCDIR}/lib/linux_amd64
// #cgo linux,arm64 LDFLAGS: -L${SRCDIR}/lib/linux_arm64
// #cgo darwin,arm64 LDFLAGS: -L${SRCDIR}/lib/darwin_arm64
// #cgo LDFLAGS: -lforkyard_go -lm
// #cgo linux LDFLAGS: -ldl -lpthread
// #cgo darwin LDFLAGS: -framework CoreFoundation -framework Security
import "C"
