module github.com/forkyard/forkyard/bindings-go

go 1.23
