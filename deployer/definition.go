package deployer

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/rogpeppe/go-internal/diff"
)

// deploymentTag marks a revision that a deployment registered. Its value is
// random for each deployment, so that a revision whose registration was never
// answered is recognised.
const deploymentTag = "jumpsuite:deployment"

// mostTags is how many tags a resource in AWS can have.
const mostTags = 50

// revision makes the input that registers def again: 17 members carry over as
// they are; 9 are AWS's own and stay behind (TaskDefinitionArn, Revision,
// Status, RequiresAttributes, Compatibilities, RegisteredAt, RegisteredBy,
// DeregisteredAt, DeleteRequestedAt). Tags come from the description's own
// list. A test fails when the SDK's structs grow a member that is not named here.
func revision(def types.TaskDefinition, tags []types.Tag) *ecs.RegisterTaskDefinitionInput {
	//lint:ignore SA1019 a definition that has InferenceAccelerators keeps them: AWS decides what it still takes
	accelerators := def.InferenceAccelerators
	return &ecs.RegisterTaskDefinitionInput{
		ContainerDefinitions: append([]types.ContainerDefinition(nil), def.ContainerDefinitions...),
		Cpu:                  def.Cpu,
		EnableFaultInjection: def.EnableFaultInjection,
		EphemeralStorage:     def.EphemeralStorage,
		ExecutionRoleArn:     def.ExecutionRoleArn,
		Family:               def.Family,
		//lint:ignore SA1019 as above
		InferenceAccelerators:   accelerators,
		IpcMode:                 def.IpcMode,
		Memory:                  def.Memory,
		NetworkMode:             def.NetworkMode,
		PidMode:                 def.PidMode,
		PlacementConstraints:    def.PlacementConstraints,
		ProxyConfiguration:      def.ProxyConfiguration,
		RequiresCompatibilities: def.RequiresCompatibilities,
		RuntimePlatform:         def.RuntimePlatform,
		Tags:                    carried(tags),
		TaskRoleArn:             def.TaskRoleArn,
		Volumes:                 def.Volumes,
	}
}

// carried are the tags that can be set again: AWS keeps aws: to itself. It is
// nil when there are none, because an empty list is refused.
func carried(tags []types.Tag) []types.Tag {
	var out []types.Tag
	for _, t := range tags {
		if k := aws.ToString(t.Key); !strings.HasPrefix(strings.ToLower(k), "aws:") && !isJournalTag(k) {
			out = append(out, t)
		}
	}
	return out
}

// marked adds the tag by which the revision is recognised, and those of the journal that
// tell who registers it and why. A definition that has as many tags as AWS allows is
// left unmarked: its tags are its owner's. What else does not fit is left out.
func marked(in *ecs.RegisterTaskDefinitionInput, id string, j Journal) *ecs.RegisterTaskDefinitionInput {
	out := *in
	marks := []types.Tag{{Key: aws.String(deploymentTag), Value: aws.String(id)}}
	for _, t := range j.tags() {
		if key := aws.ToString(t.Key); key == tagBy || key == tagReason && j.Reason != "" {
			marks = append(marks, t)
		}
	}
	if markable(in) {
		out.Tags = append(slices.Clone(in.Tags), marks[:min(len(marks), mostTags-len(in.Tags))]...)
	}
	return &out
}

// markable reports whether a definition has room for a mark.
func markable(in *ecs.RegisterTaskDefinitionInput) bool { return len(in.Tags) < mostTags }

// content is what a definition says, without its tags.
func content(in *ecs.RegisterTaskDefinitionInput) string {
	bare := *in
	bare.Tags = nil
	return string(definitionJSON(&bare))
}

// differences is a unified diff of two definitions. Values of environment
// variables are left out: nothing that we do changes them, and a terminal is
// no place for them.
func differences(fromName string, from *ecs.RegisterTaskDefinitionInput, toName string, to *ecs.RegisterTaskDefinitionInput) string {
	d := diff.Diff(fromName, definitionJSON(from), toName, definitionJSON(to))
	_, unified, _ := bytes.Cut(d, []byte("\n")) // the first line is a "diff a b" of the package's own
	return string(unified)
}

// definitionJSON writes a definition as AWS's tools do: members in lower camel
// case, those that are not set left out.
func definitionJSON(in *ecs.RegisterTaskDefinitionInput) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(plain(reflect.ValueOf(in))); err != nil {
		return []byte(err.Error() + "\n")
	}
	return b.Bytes()
}

func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return plain(v.Elem())
	case reflect.Struct:
		return plainStruct(v)
	case reflect.Slice:
		var out []any
		for i := range v.Len() {
			out = append(out, plain(v.Index(i)))
		}
		return out
	}
	return v.Interface()
}

func plainStruct(v reflect.Value) map[string]any {
	out := map[string]any{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || unset(v.Field(i)) {
			continue
		}
		out[lowerFirst(f.Name)] = plain(v.Field(i))
	}
	if _, ok := v.Interface().(types.KeyValuePair); ok {
		out["value"] = "(not shown)"
	}
	return out
}

func unset(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(r)) + s[n:]
}
