package main

import (
	"context"
	"fmt"
	"strings"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// engine is the way back to the engine that started this plugin.
type engine struct {
	connection *grpc.ClientConn
	client     pulumirpc.EngineClient
}

func dialEngine(address string) (*engine, error) {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0), // an idle connection would look like an engine that is gone
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(messageLimitBytes)))
	if err != nil {
		return nil, fmt.Errorf("the engine at %s: %w", address, err)
	}
	connection.Connect()
	return &engine{connection: connection, client: pulumirpc.NewEngineClient(connection)}, nil
}

// info shows one line to the user, beside the resource named by urn, or beside the stack where urn is empty.
func (e *engine) info(ctx context.Context, urn, line string) {
	if e == nil {
		return
	}
	// A line that cannot be shown must not fail the command that printed it.
	_, _ = e.client.Log(ctx, &pulumirpc.LogRequest{
		Severity: pulumirpc.LogSeverity_INFO,
		Message:  strings.ToValidUTF8(line, "\uFFFD"),
		Urn:      urn,
	})
}

// waitUntilGone returns once a connection that was there has ended, or ctx has.
func (e *engine) waitUntilGone(ctx context.Context) {
	wasReady := false
	for {
		state := e.connection.GetState()
		if wasReady && state != connectivity.Ready {
			return
		}
		wasReady = wasReady || state == connectivity.Ready
		if !e.connection.WaitForStateChange(ctx, state) {
			return
		}
	}
}
