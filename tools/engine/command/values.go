package main

import (
	"encoding/base64"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

// Signatures by which the provider protocol tells special values from plain objects.
const (
	signatureKey     = "4dabf18193072939515e22adb298388d"
	secretSignature  = "1b47061264138c4ac30d75fd1eb44270"
	bytesSignature   = "803fd3297a5875dc03ca845dda5d2a98"
	assetSignature   = "c44067f5952c0a294b673a41bacd8c17"
	archiveSignature = "0def7320c3a5731c473e5ecbe6d01bc7"
	unknownString    = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
)

var unknowns = map[string]bool{
	"1c4a061d-8072-4f0a-a4cb-0ff528b18fe7": true, // bool
	"3eeb2bf0-c639-47a8-9e75-3b44932eb421": true, // number
	unknownString:                          true,
	"6a19a0b0-7e62-4c92-b797-7f8e31da9cc2": true, // array
	"030794c1-ac77-496b-92df-f27374a8bd58": true, // asset
	"e48ece36-62e2-4504-bad9-02848725956a": true, // archive
	"dd056dcd-154b-4c76-9bd3-c8f88648b5ff": true, // object
}

type properties = map[string]*structpb.Value

func isAbsent(value *structpb.Value) bool {
	if value == nil || value.Kind == nil {
		return true
	}
	_, null := value.Kind.(*structpb.Value_NullValue)
	return null
}

func isSecret(value *structpb.Value) bool {
	return value.GetStructValue().GetFields()[signatureKey].GetStringValue() == secretSignature
}

func isUnknown(value *structpb.Value) bool {
	return unknowns[value.GetStringValue()]
}

// reveal takes a value out of its secret wrapping.
func reveal(value *structpb.Value) *structpb.Value {
	for isSecret(value) {
		value = value.GetStructValue().GetFields()["value"]
	}
	return value
}

func text(value *structpb.Value) string {
	return reveal(value).GetStringValue()
}

func texts(value *structpb.Value) []string {
	var all []string
	for _, element := range reveal(value).GetListValue().GetValues() {
		all = append(all, text(element))
	}
	return all
}

// outputValue wraps bytes that are no UTF-8 as the protocol wants them; protobuf strings cannot hold them.
func outputValue(output string) *structpb.Value {
	if utf8.ValidString(output) {
		return structpb.NewStringValue(output)
	}
	return special(bytesSignature, properties{
		"value": structpb.NewStringValue(base64.StdEncoding.EncodeToString([]byte(output))),
	})
}

// outputText is the reverse of outputValue.
func outputText(value *structpb.Value) string {
	value = reveal(value)
	fields := value.GetStructValue().GetFields()
	if fields[signatureKey].GetStringValue() != bytesSignature {
		return value.GetStringValue()
	}
	raw, err := base64.StdEncoding.DecodeString(fields["value"].GetStringValue())
	if err != nil {
		return ""
	}
	return string(raw)
}

func special(signature string, fields properties) *structpb.Value {
	fields[signatureKey] = structpb.NewStringValue(signature)
	return structpb.NewStructValue(&structpb.Struct{Fields: fields})
}
