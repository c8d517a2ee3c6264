package deployer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// AWS's own members of a task definition: they cannot be registered.
var readOnly = []string{"Compatibilities", "DeleteRequestedAt", "DeregisteredAt", "RegisteredAt", "RegisteredBy", "RequiresAttributes", "Revision", "Status", "TaskDefinitionArn"}

func members(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		if t.Field(i).IsExported() {
			out = append(out, t.Field(i).Name)
		}
	}
	slices.Sort(out)
	return out
}

// A member that a newer SDK adds must be decided on: carried over, or AWS's own.
func TestEveryMemberOfATaskDefinitionIsCarriedOverOrReadOnly(t *testing.T) {
	have := members(reflect.TypeFor[types.TaskDefinition]())
	input := members(reflect.TypeFor[ecs.RegisterTaskDefinitionInput]())
	want := append(slices.DeleteFunc(slices.Clone(input), func(n string) bool { return n == "Tags" }), readOnly...)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("members of TaskDefinition:\n got %v\nwant %v", have, want)
	}
	if len(readOnly) != 9 || len(input) != 18 {
		t.Errorf("%d read-only members and %d of the input, want 9 and 18", len(readOnly), len(input))
	}
}

// fill sets everything in v to something that is not zero.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && depth > 0 {
				fill(v.Field(i), depth-1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), reflect.ValueOf("value").Convert(v.Type().Elem()))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(7)
	}
}

func TestEveryMemberKeepsItsValueWhenRegisteredAgain(t *testing.T) {
	var def types.TaskDefinition
	fill(reflect.ValueOf(&def).Elem(), 6)
	got := reflect.ValueOf(revision(def, []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}})).Elem()
	for i := range got.NumField() {
		f := got.Type().Field(i)
		if !f.IsExported() || f.Name == "Tags" {
			continue
		}
		want := reflect.ValueOf(def).FieldByName(f.Name)
		if got.Field(i).IsZero() || !reflect.DeepEqual(got.Field(i).Interface(), want.Interface()) {
			t.Errorf("%s: got %v, want %v", f.Name, got.Field(i), want)
		}
	}
}

func tag(k, v string) types.Tag { return types.Tag{Key: aws.String(k), Value: aws.String(v)} }

func TestTagsAreCarriedOver(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []types.Tag
		want []types.Tag
	}{
		{"no tags stay nil, not empty", nil, nil},
		{"own tags", []types.Tag{tag("team", "shop"), tag("cost", "7")}, []types.Tag{tag("team", "shop"), tag("cost", "7")}},
		{"AWS's are left out", []types.Tag{tag("aws:cloudformation:stack-name", "x"), tag("AWS:x", "y")}, nil},
		{"the last deployment's mark is left out", []types.Tag{tag(deploymentTag, "old"), tag("team", "shop")}, []types.Tag{tag("team", "shop")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := carried(tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("carried(%v) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func TestMarkKeepsToTheNumberOfTagsThatAWSAllows(t *testing.T) {
	in := &ecs.RegisterTaskDefinitionInput{}
	if got := marked(in, "id1", fullJournal()); len(got.Tags) != 3 || *got.Tags[0].Value != "id1" || len(in.Tags) != 0 {
		t.Errorf("marked: %v, the given one %v", got.Tags, in.Tags)
	}
	for i := range mostTags {
		in.Tags = append(in.Tags, tag(fmt.Sprint(i), ""))
	}
	if got := marked(in, "id1", fullJournal()); len(got.Tags) != mostTags {
		t.Errorf("%d tags, want %d", len(got.Tags), mostTags)
	}
}

func TestDifferencesShowTheImageAndNoSecrets(t *testing.T) {
	from := &ecs.RegisterTaskDefinitionInput{Family: aws.String("web"), ContainerDefinitions: []types.ContainerDefinition{{
		Name: aws.String("web"), Image: aws.String("web:1"),
		Environment: []types.KeyValuePair{{Name: aws.String("PASSWORD"), Value: aws.String("hunter2")}},
	}}}
	to := *from
	to.ContainerDefinitions = slices.Clone(from.ContainerDefinitions)
	to.ContainerDefinitions[0].Image = aws.String("web:2")
	got := differences("web:7", from, "web (new)", &to)
	want := `--- web:7
+++ web (new)
@@ -7,7 +7,7 @@
           "value": "(not shown)"
         }
       ],
-      "image": "web:1",
+      "image": "web:2",
       "name": "web"
     }
   ],
`
	if got != want {
		t.Errorf("differences:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(string(definitionJSON(from)), "hunter2") {
		t.Error("the value of an environment variable is shown")
	}
	if d := differences("a", from, "b", from); d != "" {
		t.Errorf("differences of the same: %q", d)
	}
}
