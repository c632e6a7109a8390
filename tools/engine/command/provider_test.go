package main

import (
	"context"
	"testing"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/protobuf/types/known/structpb"
)

func create(t *testing.T, plain map[string]any, isPreview bool) *pulumirpc.CreateResponse {
	t.Helper()
	created, err := newProvider(context.Background()).Create(context.Background(), &pulumirpc.CreateRequest{
		Name: "c", Properties: &structpb.Struct{Fields: inputs(t, plain)}, Preview: isPreview,
	})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// Secret inputs come back secret, and what the command printed does not become secret by them.
func TestSecretInputsStaySecretAndOutputIsPlain(t *testing.T) {
	outputs := create(t, map[string]any{"create": "cat", "stdin": secret("hunter-two")}, false).Properties.Fields
	if !isSecret(outputs["stdin"]) || text(outputs["stdin"]) != "hunter-two" {
		t.Errorf("stdin came back as %v", outputs["stdin"])
	}
	if outputs["stdout"].GetStringValue() != "hunter-two" {
		t.Errorf("stdout came back as %v", outputs["stdout"])
	}
}

// A preview runs nothing, has no id, and knows its inputs but not what the command will print.
func TestAPreviewKnowsInputsButNoOutput(t *testing.T) {
	created := create(t, map[string]any{"create": "echo ran >&2; exit 1"}, true)
	outputs := created.Properties.Fields
	if created.Id != "" || !isUnknown(outputs["stdout"]) || !isUnknown(outputs["stderr"]) || isUnknown(outputs["create"]) {
		t.Errorf("id %q, outputs %v", created.Id, outputs)
	}
}

// Another type is refused, with the way to the real plugin.
func TestOtherTypesAreRefused(t *testing.T) {
	_, err := newProvider(context.Background()).Invoke(context.Background(), &pulumirpc.InvokeRequest{Tok: "command:local:run"})
	if err == nil {
		t.Error("local.run was served")
	}
}
