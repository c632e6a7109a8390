package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"sync"
	"time"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// version is the real plugin's, whose place this takes.
const version = "1.2.1"

const localCommand = "command:local:Command"

// provider answers the engine. Its calls may run at once.
type provider struct {
	pulumirpc.UnimplementedResourceProviderServer
	lifetime  context.Context
	cancelAll context.CancelFunc
	engine    *engine
	announced sync.Once
}

func newProvider(lifetime context.Context) *provider {
	lifetime, cancelAll := context.WithCancel(lifetime)
	return &provider{lifetime: lifetime, cancelAll: cancelAll}
}

func (p *provider) attach(address string) error {
	engine, err := dialEngine(address)
	if err != nil {
		return err
	}
	p.engine = engine
	return nil
}

func (p *provider) Attach(_ context.Context, request *pulumirpc.PluginAttach) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, p.attach(request.Address)
}

func (p *provider) Handshake(
	context.Context, *pulumirpc.ProviderHandshakeRequest,
) (*pulumirpc.ProviderHandshakeResponse, error) {
	return &pulumirpc.ProviderHandshakeResponse{AcceptSecrets: true, AcceptsByteString: true}, nil
}

func (p *provider) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version}, nil
}

func (p *provider) GetSchema(context.Context, *pulumirpc.GetSchemaRequest) (*pulumirpc.GetSchemaResponse, error) {
	schema := `{"name":"command","version":"` + version + `","resources":{"` + localCommand + `":{}}}`
	return &pulumirpc.GetSchemaResponse{Schema: schema}, nil
}

func (p *provider) CheckConfig(_ context.Context, request *pulumirpc.CheckRequest) (*pulumirpc.CheckResponse, error) {
	return &pulumirpc.CheckResponse{Inputs: request.News}, nil
}

func (p *provider) DiffConfig(context.Context, *pulumirpc.DiffRequest) (*pulumirpc.DiffResponse, error) {
	return &pulumirpc.DiffResponse{Changes: pulumirpc.DiffResponse_DIFF_NONE}, nil
}

func (p *provider) Configure(
	ctx context.Context, _ *pulumirpc.ConfigureRequest,
) (*pulumirpc.ConfigureResponse, error) {
	p.announced.Do(func() { p.engine.info(ctx, "", notice) })
	return &pulumirpc.ConfigureResponse{AcceptSecrets: true, SupportsPreview: true}, nil
}

func (p *provider) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	p.cancelAll()
	return &emptypb.Empty{}, nil
}

func (p *provider) Check(_ context.Context, request *pulumirpc.CheckRequest) (*pulumirpc.CheckResponse, error) {
	if err := served(request.Type); err != nil {
		return nil, err
	}
	inputs, failures := checkInputs(request.News.GetFields())
	return &pulumirpc.CheckResponse{Inputs: &structpb.Struct{Fields: inputs}, Failures: failures}, nil
}

func (p *provider) Diff(_ context.Context, request *pulumirpc.DiffRequest) (*pulumirpc.DiffResponse, error) {
	return diffInputs(request.Olds.GetFields(), request.News.GetFields()), nil
}

func (p *provider) Create(ctx context.Context, request *pulumirpc.CreateRequest) (*pulumirpc.CreateResponse, error) {
	call := call{urn: request.Urn, timeoutS: request.Timeout, isPreview: request.Preview}
	outputs := maps.Clone(request.Properties.GetFields())
	if err := p.runInto(ctx, call, text(outputs["create"]), outputs, result{}); err != nil {
		return nil, err
	}
	response := &pulumirpc.CreateResponse{Properties: &structpb.Struct{Fields: outputs}}
	if !request.Preview {
		response.Id = newID(request.Name)
	}
	return response, nil
}

func (p *provider) Update(ctx context.Context, request *pulumirpc.UpdateRequest) (*pulumirpc.UpdateResponse, error) {
	call := call{urn: request.Urn, timeoutS: request.Timeout, isPreview: request.Preview}
	outputs := maps.Clone(request.News.GetFields())
	command := text(outputs["update"])
	if command == "" {
		command = text(outputs["create"])
	}
	if err := p.runInto(ctx, call, command, outputs, resultIn(request.Olds.GetFields())); err != nil {
		return nil, err
	}
	return &pulumirpc.UpdateResponse{Properties: &structpb.Struct{Fields: outputs}}, nil
}

// Delete runs the command as state holds it, with the environment and everything else from there.
func (p *provider) Delete(ctx context.Context, request *pulumirpc.DeleteRequest) (*emptypb.Empty, error) {
	olds := request.Properties.GetFields()
	command := text(olds["delete"])
	if command == "" {
		return &emptypb.Empty{}, nil
	}
	ctx, release := p.bound(ctx, request.Timeout)
	defer release()
	_, err := run(ctx, command, olds, resultIn(olds), p.shower(ctx, request.Urn))
	return &emptypb.Empty{}, err
}

// Read finds what state holds: nothing outside of it can be asked.
func (p *provider) Read(_ context.Context, request *pulumirpc.ReadRequest) (*pulumirpc.ReadResponse, error) {
	if len(request.Properties.GetFields()) == 0 {
		return nil, status.Error(codes.Unimplemented, "a local.Command cannot be imported: it is only in its stack's state")
	}
	return &pulumirpc.ReadResponse{Id: request.Id, Properties: request.Properties, Inputs: request.Inputs}, nil
}

func (p *provider) Invoke(_ context.Context, request *pulumirpc.InvokeRequest) (*pulumirpc.InvokeResponse, error) {
	return nil, served(request.Tok)
}

// call is what Create and Update have in common.
type call struct {
	urn       string
	timeoutS  float64
	isPreview bool
}

// runInto runs a command, if there is one, and adds what came of it to outputs. A preview runs nothing.
func (p *provider) runInto(ctx context.Context, call call, command string, outputs properties, before result) error {
	if call.isPreview {
		markUnknown(outputs)
		return nil
	}
	printed := before
	if command != "" {
		bounded, release := p.bound(ctx, call.timeoutS)
		defer release()
		var err error
		if printed, err = run(bounded, command, outputs, before, p.shower(ctx, call.urn)); err != nil {
			return err
		}
	}
	printed.addTo(outputs)
	return addFiles(outputs)
}

func (p *provider) shower(ctx context.Context, urn string) func(string) {
	return func(line string) { p.engine.info(ctx, urn, line) }
}

// bound ends a call with its timeout and with Cancel too.
func (p *provider) bound(ctx context.Context, timeoutS float64) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.lifetime, cancel)
	release := func() { stop(); cancel() }
	if timeoutS > 0 {
		timer := time.AfterFunc(time.Duration(timeoutS*float64(time.Second)), cancel)
		release = func() { timer.Stop(); stop(); cancel() }
	}
	return ctx, release
}

// served refuses what the real plugin can do and this one cannot.
func served(token string) error {
	if token == localCommand {
		return nil
	}
	return status.Errorf(codes.Unimplemented, "%s is not in the stand-in for the command plugin, which serves only %s; "+
		"install the real plugin: pulumi plugin install resource command %s", token, localCommand, version)
}

func newID(name string) string {
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	return name + hex.EncodeToString(suffix)
}
