//go:build !cgo

package forkyard

// Without cgo there is no package: its calls are made by a library written in Rust. The compiler's message names the cure.
var _ = forkyard_needs_cgo__set_CGO_ENABLED_to_1_and_install_a_C_compiler
