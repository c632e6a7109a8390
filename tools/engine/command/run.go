package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/structpb"
)

// result is what a command printed, without the last newline of each stream.
type result struct {
	stdout, stderr string
}

// run starts one command as the inputs say, with the output of the run before in its environment if they say so,
// shows its lines while they come, and waits for the end of its output. The end of ctx kills the interpreter
// alone: what that has started lives on, and is waited for while it holds the output open.
func run(ctx context.Context, command string, inputs properties, before result, show func(line string)) (result, error) {
	argv := texts(inputs["interpreter"])
	if len(argv) == 0 {
		argv = []string{"/bin/sh", "-c"}
	}
	argv = append(argv, command)
	process := exec.CommandContext(ctx, argv[0], argv[1:]...)
	process.Dir = text(inputs["dir"])
	process.Env = append(os.Environ(), additionalEnvironment(inputs, before)...)
	if stdin := text(inputs["stdin"]); stdin != "" {
		process.Stdin = strings.NewReader(stdin)
	}
	level := logging(inputs)
	var both sharedBuffer
	stdout := newStream(&both, level.showsStdout, show)
	stderr := newStream(&both, level.showsStderr, show)
	process.Stdout, process.Stderr = stdout.writer, stderr.writer
	err := process.Run()
	printed := result{stdout: stdout.finish(), stderr: stderr.finish()}
	if err != nil {
		return result{}, fmt.Errorf("%w: running %q:\n%s", err, command, both.text())
	}
	return printed, nil
}

func additionalEnvironment(inputs properties, before result) []string {
	var environment []string
	given := reveal(inputs["environment"]).GetStructValue().GetFields()
	for _, name := range slices.Sorted(maps.Keys(given)) {
		environment = append(environment, name+"="+text(given[name]))
	}
	if wanted := reveal(inputs["addPreviousOutputInEnv"]); !isAbsent(wanted) && !wanted.GetBoolValue() {
		return environment
	}
	if before.stdout != "" {
		environment = append(environment, "PULUMI_COMMAND_STDOUT="+before.stdout)
	}
	if before.stderr != "" {
		environment = append(environment, "PULUMI_COMMAND_STDERR="+before.stderr)
	}
	return environment
}

type loggingLevel struct {
	showsStdout, showsStderr bool
}

func logging(inputs properties) loggingLevel {
	switch level := text(inputs["logging"]); level {
	case "", "stdoutAndStderr":
		return loggingLevel{showsStdout: true, showsStderr: true}
	default:
		return loggingLevel{showsStdout: level == "stdout", showsStderr: level == "stderr"}
	}
}

// stream keeps what is written to it and shows it line by line, however long a line is.
type stream struct {
	writer io.Writer
	kept   bytes.Buffer
	pipe   *io.PipeWriter
	shown  sync.WaitGroup
}

func newStream(both io.Writer, isShown bool, show func(line string)) *stream {
	s := &stream{}
	if !isShown {
		s.writer = io.MultiWriter(&s.kept, both)
		return s
	}
	reader, writer := io.Pipe()
	s.pipe = writer
	s.writer = io.MultiWriter(&s.kept, both, writer)
	s.shown.Go(func() {
		lines := bufio.NewReader(reader)
		for {
			line, err := lines.ReadString('\n')
			if line != "" {
				show(strings.TrimSuffix(line, "\n"))
			}
			if err != nil {
				return
			}
		}
	})
	return s
}

func (s *stream) finish() string {
	if s.pipe != nil {
		_ = s.pipe.Close() // never fails
		s.shown.Wait()
	}
	return strings.TrimSuffix(s.kept.String(), "\n")
}

// sharedBuffer keeps two streams in the order in which they came.
type sharedBuffer struct {
	mutex sync.Mutex
	kept  bytes.Buffer
}

func (b *sharedBuffer) Write(chunk []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.kept.Write(chunk)
}

func (b *sharedBuffer) text() string {
	return strings.ToValidUTF8(b.kept.String(), "\uFFFD")
}

func (r result) addTo(outputs properties) {
	outputs["stdout"] = outputValue(r.stdout)
	outputs["stderr"] = outputValue(r.stderr)
}

func resultIn(outputs properties) result {
	return result{stdout: outputText(outputs["stdout"]), stderr: outputText(outputs["stderr"])}
}

func markUnknown(outputs properties) {
	for _, key := range []string{"stdout", "stderr"} {
		outputs[key] = structpb.NewStringValue(unknownString)
	}
}
