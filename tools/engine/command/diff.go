package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// diffInputs says where news differ from the inputs as state holds them. A change of triggers replaces, any other
// updates.
func diffInputs(olds, news properties) *pulumirpc.DiffResponse {
	response := &pulumirpc.DiffResponse{
		Changes:         pulumirpc.DiffResponse_DIFF_NONE,
		DetailedDiff:    map[string]*pulumirpc.PropertyDiff{},
		HasDetailedDiff: true,
	}
	for _, key := range slices.Sorted(maps.Keys(inputKinds)) {
		found := map[string]pulumirpc.PropertyDiff_Kind{}
		diffValue(key, olds[key], news[key], found)
		if len(found) == 0 {
			continue
		}
		response.Changes = pulumirpc.DiffResponse_DIFF_SOME
		response.Diffs = append(response.Diffs, key)
		if key == "triggers" {
			response.Replaces = append(response.Replaces, key)
		}
		for path, kind := range found {
			if key == "triggers" {
				kind++ // each kind's replacing twin follows it in the protocol
			}
			response.DetailedDiff[path] = &pulumirpc.PropertyDiff{Kind: kind}
		}
	}
	return response
}

func diffValue(path string, before, after *structpb.Value, found map[string]pulumirpc.PropertyDiff_Kind) {
	switch {
	case isAbsent(before) && isAbsent(after):
	case isAbsent(before):
		found[path] = pulumirpc.PropertyDiff_ADD
	case isAbsent(after):
		found[path] = pulumirpc.PropertyDiff_DELETE
	case isSecret(before) || isSecret(after):
		// Not looked into: a path inside would tell which part of a secret changed. A value that just became
		// secret counts as changed, else state would keep it in clear text.
		if isSecret(before) != isSecret(after) || !proto.Equal(reveal(before), reveal(after)) {
			found[path] = pulumirpc.PropertyDiff_UPDATE
		}
	case before.GetStructValue() != nil && after.GetStructValue() != nil:
		diffObjects(path, before.GetStructValue().Fields, after.GetStructValue().Fields, found)
	case before.GetListValue() != nil && after.GetListValue() != nil:
		diffLists(path, before.GetListValue().Values, after.GetListValue().Values, found)
	case !proto.Equal(before, after):
		found[path] = pulumirpc.PropertyDiff_UPDATE
	}
}

func diffObjects(path string, before, after properties, found map[string]pulumirpc.PropertyDiff_Kind) {
	keys := maps.Clone(before)
	maps.Copy(keys, after)
	for key := range keys {
		inner := path + "." + key
		if !plainKey.MatchString(key) {
			inner = path + "[" + strconv.Quote(key) + "]"
		}
		diffValue(inner, before[key], after[key], found)
	}
}

func diffLists(path string, before, after []*structpb.Value, found map[string]pulumirpc.PropertyDiff_Kind) {
	for i := range max(len(before), len(after)) {
		diffValue(fmt.Sprintf("%s[%d]", path, i), at(before, i), at(after, i), found)
	}
}

func at(values []*structpb.Value, i int) *structpb.Value {
	if i < len(values) {
		return values[i]
	}
	return nil
}
