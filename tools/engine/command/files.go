package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gobwas/glob"
	"google.golang.org/protobuf/types/known/structpb"
)

type rule struct {
	pattern   glob.Glob
	isExclude bool
}

// rules holds globs in order; the last that matches a path decides.
type rules []rule

func parseRules(patterns []string) (rules, error) {
	var parsed rules
	for _, pattern := range patterns {
		body, isExclude := strings.CutPrefix(pattern, "!")
		compiled, err := glob.Compile(body, '/')
		if err != nil {
			return nil, fmt.Errorf("the glob %q: %w", pattern, err)
		}
		parsed = append(parsed, rule{pattern: compiled, isExclude: isExclude})
	}
	return parsed, nil
}

func (r rules) includes(path string) bool {
	for _, one := range slices.Backward(r) {
		if one.pattern.Match(path) {
			return !one.isExclude
		}
	}
	return false
}

// collectFiles gives every file below dir that the globs include, by its path relative to dir, as an asset.
func collectFiles(dir string, patterns []string) (properties, error) {
	wanted, err := parseRules(patterns)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = "."
	}
	assets := properties{}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil || !wanted.includes(relative) {
			return err
		}
		assets[relative], err = fileAsset(path)
		return err
	})
	return assets, err
}

func fileAsset(path string) (*structpb.Value, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return nil, err
	}
	return special(assetSignature, properties{
		"hash": structpb.NewStringValue(hex.EncodeToString(digest.Sum(nil))),
		"path": structpb.NewStringValue(path),
	}), nil
}

// archive holds assets as one value. Its hash is over the paths and hashes in it.
func archive(assets properties) *structpb.Value {
	digest := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(assets)) {
		fmt.Fprintf(digest, "%s %q\n", assets[path].GetStructValue().Fields["hash"].GetStringValue(), path)
	}
	return special(archiveSignature, properties{
		"hash":   structpb.NewStringValue(hex.EncodeToString(digest.Sum(nil))),
		"assets": structpb.NewStructValue(&structpb.Struct{Fields: assets}),
	})
}

// addFiles adds the files that assetPaths and archivePaths ask for to the outputs.
func addFiles(outputs properties) error {
	dir := text(outputs["dir"])
	if patterns := texts(outputs["assetPaths"]); patterns != nil {
		assets, err := collectFiles(dir, patterns)
		if err != nil {
			return err
		}
		outputs["assets"] = structpb.NewStructValue(&structpb.Struct{Fields: assets})
	}
	if patterns := texts(outputs["archivePaths"]); patterns != nil {
		assets, err := collectFiles(dir, patterns)
		if err != nil {
			return err
		}
		outputs["archive"] = archive(assets)
	}
	return nil
}
