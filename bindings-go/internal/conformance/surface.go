//go:build cgo

package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// exempt are public functions that need no case, with the reason.
var exempt = record{
	"Code.Error":               "has a code be the target of errors.Is; tested with the package",
	"CommandError.Error":       "for people",
	"CommandError.Unwrap":      "for errors.As; tested with the package",
	"Connect":                  "Client.Connect by the default client; tested with the package",
	"Create":                   "Client.Create by the default client; tested with the package",
	"CreatedKey.GoString":      "keeps the secret from %#v; tested with the package",
	"CreatedKey.String":        "keeps the secret from %v; tested with the package",
	"Default":                  "the client by the environment; tested with the package",
	"Error.Error":              "for people",
	"Error.Is":                 "for errors.Is; tested with the package",
	"Error.Temporary":          "for net.Error; tested with the package",
	"Error.Timeout":            "for net.Error; tested with the package",
	"File.Info":                "what Stat answered as it was opened; tested with the package",
	"GetOrCreate":              "Client.GetOrCreate by the default client; tested with the package",
	"Process.KillInBackground": "what Run does where its context ends; tested with the package",
	"Sandbox.Close":            "lets go of the object, which changes nothing on the server; tested with the package",
	"Process.Stdin":            "WriteStdin and CloseStdin as a stream; tested with the package",
	"Settle":                   "at a program's end; tested with the package",
	"Sandbox.WriteFrom":        "Upload of a reader; tested with the package",
	"Tunnel.LocalAddr":         "for net.Conn; tested with the package",
	"Tunnel.RemoteAddr":        "for net.Conn; tested with the package",
	"Tunnel.SetDeadline":       "for net.Conn; tested with the package",
	"Tunnel.SetReadDeadline":   "for net.Conn; tested with the package",
	"Tunnel.SetWriteDeadline":  "for net.Conn; tested with the package",
}

// findSurface looks for the public functions and methods in the package's source.
func findSurface() (record, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return nil, errors.New("the source is not known")
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(here)))
	isSource := func(info fs.FileInfo) bool {
		return !strings.HasSuffix(info.Name(), "_test.go") && info.Name() != "nocgo.go"
	}
	packages, err := parser.ParseDir(token.NewFileSet(), root, isSource, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var methods []string
	for _, file := range packages["forkyard"].Files {
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Name.IsExported() {
				if name, ok := publicName(function); ok {
					methods = append(methods, name)
				}
			}
		}
	}
	slices.Sort(methods)
	names := make([]string, 0, len(calls))
	for name := range calls {
		names = append(names, name)
	}
	slices.Sort(names)
	return record{"calls": names, "methods": methods, "exempt": exempt}, nil
}

// publicName is a function's, with its receiver's where it has one that is public.
func publicName(function *ast.FuncDecl) (string, bool) {
	if function.Recv == nil {
		return function.Name.Name, true
	}
	receiver := function.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	of, ok := receiver.(*ast.Ident)
	if !ok || !of.IsExported() {
		return "", false
	}
	return of.Name + "." + function.Name.Name, true
}
