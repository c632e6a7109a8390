package main

import (
	"maps"
	"slices"
	"testing"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func secret(plain string) map[string]any {
	return map[string]any{signatureKey: secretSignature, "value": plain}
}

// Each change has its own path and kind, and only triggers replace.
func TestADiffNamesEachChangeByPathAndKind(t *testing.T) {
	type kinds = map[string]pulumirpc.PropertyDiff_Kind
	for name, c := range map[string]struct {
		before, after map[string]any
		found         kinds
		replaces      bool
	}{
		"nothing":  {before: map[string]any{"create": "a"}, after: map[string]any{"create": "a"}, found: kinds{}},
		"a text":   {before: map[string]any{"create": "a"}, after: map[string]any{"create": "b"}, found: kinds{"create": pulumirpc.PropertyDiff_UPDATE}},
		"an added": {before: map[string]any{}, after: map[string]any{"stdin": ""}, found: kinds{"stdin": pulumirpc.PropertyDiff_ADD}},
		"a removed variable": {
			before: map[string]any{"environment": map[string]any{"A": "1", "b.c": "2"}},
			after:  map[string]any{"environment": map[string]any{"A": "1"}},
			found:  kinds{`environment["b.c"]`: pulumirpc.PropertyDiff_DELETE},
		},
		"a trigger": {
			before: map[string]any{"triggers": []any{"1"}}, after: map[string]any{"triggers": []any{"1", 2}},
			found: kinds{"triggers[1]": pulumirpc.PropertyDiff_ADD_REPLACE}, replaces: true,
		},
		"an equal secret": {before: map[string]any{"stdin": secret("a")}, after: map[string]any{"stdin": secret("a")}, found: kinds{}},
		"a secret":        {before: map[string]any{"stdin": secret("a")}, after: map[string]any{"stdin": secret("b")}, found: kinds{"stdin": pulumirpc.PropertyDiff_UPDATE}},
		"a text made secret": {
			before: map[string]any{"stdin": "a"}, after: map[string]any{"stdin": secret("a")},
			found: kinds{"stdin": pulumirpc.PropertyDiff_UPDATE},
		},
		"an unknown": {before: map[string]any{"create": "a"}, after: map[string]any{"create": unknownString}, found: kinds{"create": pulumirpc.PropertyDiff_UPDATE}},
		"an output":  {before: map[string]any{"stdout": "a"}, after: map[string]any{}, found: kinds{}},
	} {
		response := diffInputs(inputs(t, c.before), inputs(t, c.after))
		found := kinds{}
		for path, difference := range response.DetailedDiff {
			found[path] = difference.Kind
		}
		if !maps.Equal(found, c.found) {
			t.Errorf("%s: found %v, wanted %v", name, found, c.found)
		}
		if slices.Contains(response.Replaces, "triggers") != c.replaces {
			t.Errorf("%s: replaces %v", name, response.Replaces)
		}
		if (response.Changes == pulumirpc.DiffResponse_DIFF_SOME) != (len(c.found) > 0) {
			t.Errorf("%s: %s", name, response.Changes)
		}
	}
}

// A wrong type is told by input and wanted type; secrets and unknown values are looked through.
func TestACheckNamesTheInputOfTheWrongType(t *testing.T) {
	good := map[string]any{"create": secret("x"), "environment": map[string]any{"A": unknownString}, "triggers": []any{1, nil}}
	checked, failures := checkInputs(inputs(t, good))
	if len(failures) != 0 || !checked["addPreviousOutputInEnv"].GetBoolValue() {
		t.Errorf("%v, %v", checked, failures)
	}
	for key, wrong := range map[string]any{
		"create": 1, "environment": map[string]any{"A": 1}, "interpreter": "sh", "addPreviousOutputInEnv": "no", "assetPaths": []any{1},
	} {
		_, failures := checkInputs(inputs(t, map[string]any{key: wrong}))
		if len(failures) != 1 || failures[0].Property != key {
			t.Errorf("%s = %v: %v", key, wrong, failures)
		}
	}
}
