// Command pulumi-resource-command is this project's stand-in for the Pulumi `command` plugin 1.2.1.
//
// It serves `command:local:Command` over the public provider protocol where the real plugin cannot be had, for
// development and tests. tests/engine/plugin_cases holds what the real plugin does; the same cases hold here.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
)

// messageLimitBytes is what the engine itself accepts in one message.
const messageLimitBytes = 400 << 20

const notice = "this is the stand-in for the command plugin " + version + ": for development and tests, not for other machines"

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-resource-command (stand-in):", err)
		os.Exit(1)
	}
}

// serve listens on a free port of the loopback, prints it (the engine waits for that line) and answers until the
// engine ends this process or is gone.
func serve(arguments []string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("no port to listen on: %w", err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(messageLimitBytes))
	lifetime, end := context.WithCancel(context.Background())
	defer end()
	provider := newProvider(lifetime)
	if address := engineAddress(arguments); address != "" {
		if err := provider.attach(address); err != nil {
			return err
		}
		go func() {
			provider.engine.waitUntilGone(lifetime)
			provider.cancelAll()
			server.Stop()
		}()
	}
	pulumirpc.RegisterResourceProviderServer(server, provider)
	fmt.Fprintln(os.Stderr, notice)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return server.Serve(listener)
}

// engineAddress finds the engine's address among the arguments, which may start with flags of the engine's own.
func engineAddress(arguments []string) string {
	for i := 0; i < len(arguments); i++ {
		switch {
		case arguments[i] == "--tracing": // the only flag with its value apart
			i++
		case !strings.HasPrefix(arguments[i], "-"):
			return arguments[i]
		}
	}
	return ""
}
