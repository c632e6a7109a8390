package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

func inputs(t *testing.T, plain map[string]any) properties {
	t.Helper()
	converted, err := structpb.NewStruct(plain)
	if err != nil {
		t.Fatal(err)
	}
	return converted.Fields
}

type shownLines struct {
	mutex sync.Mutex
	lines []string
}

func (s *shownLines) add(line string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.lines = append(s.lines, line)
}

func waitForText(t *testing.T, path string) string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if content, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(content), "\n") {
			return strings.TrimSpace(string(content))
		}
		time.Sleep(5 * time.Millisecond) // polls a condition with a deadline
	}
	t.Fatalf("nothing was written to %s in 10 s", path)
	return ""
}

// The end of a call kills the interpreter alone: what it started lives on, unless it was exec'd in its place.
func TestTheEndOfACallKillsTheInterpreterAlone(t *testing.T) {
	folder := t.TempDir()
	fifo, childFile := filepath.Join(folder, "fifo"), filepath.Join(folder, "child")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		// The child holds none of the streams; it waits until the test writes into the pipe.
		child := "(read line < fifo; echo $line > answer) >/dev/null 2>&1 & echo $! > child; wait"
		_, err := run(ctx, child, inputs(t, map[string]any{"dir": folder}), result{}, func(string) {})
		failed <- err
	}()
	waitForText(t, childFile)
	cancel()
	if err := <-failed; err == nil || !strings.HasPrefix(err.Error(), "signal: killed: running ") {
		t.Fatalf("a killed command ended with %v", err)
	}
	if err := os.WriteFile(fifo, []byte("alive\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if answer := waitForText(t, filepath.Join(folder, "answer")); answer != "alive" {
		t.Fatalf("the child answered %q", answer)
	}
}

// A line of any length is shown and kept whole; the real plugin stops reading at 64 KiB.
func TestALineOfAMebibyteIsShownWhole(t *testing.T) {
	shown := &shownLines{}
	printed, err := run(context.Background(), `head -c 1048576 /dev/zero | tr '\0' x; echo; echo end`,
		properties{}, result{}, shown.add)
	if err != nil {
		t.Fatal(err)
	}
	if len(printed.stdout) != 1048576+len("\nend") {
		t.Errorf("kept %d bytes", len(printed.stdout))
	}
	if len(shown.lines) != 2 || len(shown.lines[0]) != 1048576 || shown.lines[1] != "end" {
		t.Errorf("showed %d lines", len(shown.lines))
	}
}

// The error of a command names it and holds all that it printed, whatever is logged.
func TestAnErrorHoldsAllOutput(t *testing.T) {
	_, err := run(context.Background(), "echo one; echo two >&2; exit 9",
		inputs(t, map[string]any{"logging": "none"}), result{}, func(string) { t.Error("a line was shown") })
	const start = "exit status 9: running \"echo one; echo two >&2; exit 9\":\n"
	// Two pipes: which of them comes first is open.
	if err == nil || (err.Error() != start+"one\ntwo\n" && err.Error() != start+"two\none\n") {
		t.Errorf("got %q, wanted %q and both lines", err, start)
	}
}

// What the run before printed is in the environment, beside what the inputs name, unless they switch it off.
func TestThePreviousOutputIsInTheEnvironmentUnlessSwitchedOff(t *testing.T) {
	before := result{stdout: "out", stderr: "err"}
	const show = `echo "$PULUMI_COMMAND_STDOUT $PULUMI_COMMAND_STDERR $NAME"`
	for wanted, plain := range map[string]map[string]any{
		"out err x": {"environment": map[string]any{"NAME": "x"}},
		"  x":       {"environment": map[string]any{"NAME": "x"}, "addPreviousOutputInEnv": false},
	} {
		printed, err := run(context.Background(), show, inputs(t, plain), before, func(string) {})
		if err != nil || printed.stdout != wanted {
			t.Errorf("got %q (%v), wanted %q", printed.stdout, err, wanted)
		}
	}
}
