package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The example of the plugin's public documentation: rules in order, `!` excludes, `*` stops at a slash, `**` does not.
func TestFilesAreCollectedByRulesInOrder(t *testing.T) {
	folder := t.TempDir()
	for _, path := range []string{"assets/logos/logo.svg", "src/index.js", "src/secret.js", "src/deep/a.js", "top.js"} {
		full := filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ patterns, wanted []string }{
		{[]string{"assets/**", "src/**.js", "!**secret.*"}, []string{"assets/logos/logo.svg", "src/deep/a.js", "src/index.js"}},
		{[]string{"src/*.js"}, []string{"src/index.js", "src/secret.js"}},
		{[]string{"!**secret.*", "src/*.js"}, []string{"src/index.js", "src/secret.js"}},
		{[]string{"*"}, []string{"top.js"}},
		{[]string{"none/**"}, nil},
	} {
		assets, err := collectFiles(folder, c.patterns)
		if err != nil {
			t.Fatal(err)
		}
		if found := slices.Sorted(maps.Keys(assets)); !slices.Equal(found, c.wanted) {
			t.Errorf("%v: found %v, wanted %v", c.patterns, found, c.wanted)
		}
	}
}
