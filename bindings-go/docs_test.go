//go:build cgo

package forkyard_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

var snippet = regexp.MustCompile("(?s)```go\n(.*?)```\n(?:\n```text\n(.*?)```)?")

// Every Go program of the docs runs and prints what it is said to print.
func TestTheDocsTellTheTruth(t *testing.T) {
	ctx := bounded(t)
	pages, err := filepath.Glob("../docs/*/*.md")
	check(t, err)
	here, err := filepath.Abs(".")
	check(t, err)
	programs := 0
	for _, page := range append(pages, "README.md", "../README.md") {
		text, err := os.ReadFile(page)
		check(t, err)
		found := snippet.FindAllStringSubmatch(string(text), -1)
		// A pattern that finds nothing would prove nothing.
		equal(t, "how many programs are found in "+page, len(found), strings.Count(string(text), "```go\n"))
		for number, match := range found {
			programs++
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(page), number), func(t *testing.T) {
				folder := t.TempDir()
				module := "module snippet\n\ngo 1.23\n\nrequire github.com/forkyard/forkyard/bindings-go v0.0.0\n" +
					"replace github.com/forkyard/forkyard/bindings-go => " + here + "\n"
				check(t, os.WriteFile(filepath.Join(folder, "go.mod"), []byte(module), 0o600))
				check(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(match[1]), 0o600))
				command := goRun(t, folder, ".")
				output, err := command.Output()
				check(t, err)
				equal(t, "the output", string(output), match[2])
			})
		}
	}
	if programs < 3 {
		t.Fatalf("only %d programs were found", programs)
	}
	check(t, ctx.Err())
}

func TestTheExamplesRun(t *testing.T) {
	bounded(t)
	const folder = "../examples/go"
	last := map[string]string{
		"01_first_sandbox":    "both machines are gone",
		"02_swarm":            "the lead, by rule: ",
		"03_pause_and_return": "the machine is gone",
		"04_network":          "none: nothing left it",
		"05_pipeline":         "nothing runs in the machines any more",
	}
	entries, err := filepath.Glob(folder + "/0*")
	check(t, err)
	equal(t, "how many there are", len(entries), len(last))
	for _, entry := range entries {
		name := filepath.Base(entry)
		t.Run(name, func(t *testing.T) {
			arguments := []string{"./" + name}
			switch name {
			case "02_swarm":
				// A few agents take a third of the time.
				arguments = append(arguments, "2")
			case "04_network":
				arguments = append(arguments, pageHost(t))
			}
			command := goRun(t, folder, arguments...)
			command.Env = append(os.Environ(), "OPENAI_API_KEY=")
			output, err := command.Output()
			check(t, err)
			lines := strings.Split(strings.TrimSpace(string(output)), "\n")
			if said := lines[len(lines)-1]; !strings.Contains(said, last[name]) {
				t.Fatalf("the last that it says is %q", said)
			}
		})
	}
}

// goRun runs a program with the Go that built this test.
func goRun(t *testing.T, folder string, arguments ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(filepath.Join(runtime.GOROOT(), "bin", "go"), append([]string{"run"}, arguments...)...)
	command.Dir, command.Stderr = folder, os.Stderr
	return command
}
