module github.com/forkyard/forkyard/examples/go

go 1.23

require github.com/forkyard/forkyard/bindings-go v0.0.0

replace github.com/forkyard/forkyard/bindings-go => ../../bindings-go
