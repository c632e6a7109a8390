package main

import (
	"fmt"
	"maps"
	"slices"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/protobuf/types/known/structpb"
)

type kind string

const (
	anyList    kind = "a list"
	textKind   kind = "a string"
	textList   kind = "a list of strings"
	textObject kind = "an object of strings"
	switchKind kind = "true or false"
)

// inputKinds names every input of a local.Command.
var inputKinds = map[string]kind{
	"addPreviousOutputInEnv": switchKind,
	"archivePaths":           textList,
	"assetPaths":             textList,
	"create":                 textKind,
	"delete":                 textKind,
	"dir":                    textKind,
	"environment":            textObject,
	"interpreter":            textList,
	"logging":                textKind,
	"stdin":                  textKind,
	"triggers":               anyList,
	"update":                 textKind,
}

// checkInputs says which inputs have no meaning, and gives them back with the defaults in place.
func checkInputs(news properties) (properties, []*pulumirpc.CheckFailure) {
	var failures []*pulumirpc.CheckFailure
	inputs := properties{"addPreviousOutputInEnv": structpb.NewBoolValue(true)}
	for _, key := range slices.Sorted(maps.Keys(news)) {
		if isAbsent(news[key]) {
			continue
		}
		inputs[key] = news[key]
		wanted, known := inputKinds[key]
		if known && !isOfKind(news[key], wanted) {
			reason := fmt.Sprintf("%s of a local.Command must be %s", key, wanted)
			failures = append(failures, &pulumirpc.CheckFailure{Property: key, Reason: reason})
		}
	}
	return inputs, failures
}

func isOfKind(value *structpb.Value, wanted kind) bool {
	value = reveal(value)
	if isUnknown(value) {
		return true
	}
	switch wanted {
	case textKind:
		_, matches := value.GetKind().(*structpb.Value_StringValue)
		return matches
	case switchKind:
		_, matches := value.GetKind().(*structpb.Value_BoolValue)
		return matches
	case textObject:
		return value.GetStructValue() != nil && allTexts(slices.Collect(maps.Values(value.GetStructValue().Fields)))
	case textList:
		return value.GetListValue() != nil && allTexts(value.GetListValue().Values)
	default:
		return value.GetListValue() != nil
	}
}

func allTexts(values []*structpb.Value) bool {
	return !slices.ContainsFunc(values, func(value *structpb.Value) bool { return !isOfKind(value, textKind) })
}
