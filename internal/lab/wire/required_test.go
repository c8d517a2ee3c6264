package wire

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write required.txt from the SDK's source")

// The SDK is updated now and then; its list of required members must follow.
func TestRequiredMembersAreThoseOfTheSDK(t *testing.T) {
	want := requiredOfSDK(t)
	if *update {
		if err := os.WriteFile("required.txt", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if requiredText != want {
		t.Error("required.txt is not what the SDK's source says; run go test -update")
	}
	if !strings.Contains(want, "\necs.UpdateServiceInput Service\n") {
		t.Error("UpdateService does not require its service")
	}
}

func requiredOfSDK(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, service := range []string{"ecs", "ecr", "elasticloadbalancingv2", "ssm", "sts"} {
		for _, sub := range []string{"", "/types"} {
			lines = append(lines, requiredOfPackage(t, service, "github.com/aws/aws-sdk-go-v2/service/"+service+sub)...)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func requiredOfPackage(t *testing.T, service, path string) []string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		t.Skipf("the SDK's source is not here: go list %s: %v", path, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source of %s: %v", path, err)
	}
	var lines []string
	for _, file := range files {
		base := filepath.Base(file)
		if base == "types.go" || strings.HasPrefix(base, "api_op_") && !strings.HasSuffix(base, "_test.go") {
			lines = append(lines, requiredOfFile(t, service, file)...)
		}
	}
	return lines
}

// requiredOfFile lists the required members of the structs that requests are made of.
func requiredOfFile(t *testing.T, service, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || service == "ssm" && !strings.HasPrefix(spec.Name.Name, "DescribeInstanceInformation") && !strings.HasPrefix(spec.Name.Name, "InstanceInformation") {
			return true
		}
		shape, ok := spec.Type.(*ast.StructType)
		if !ok || strings.HasSuffix(spec.Name.Name, "Output") {
			return true
		}
		if names := requiredFields(shape); len(names) > 0 {
			lines = append(lines, service+"."+spec.Name.Name+" "+strings.Join(names, " "))
		}
		return true
	})
	return lines
}

func requiredFields(s *ast.StructType) []string {
	var names []string
	for _, field := range s.Fields.List {
		if len(field.Names) == 1 && strings.Contains(field.Doc.Text(), "This member is required.") {
			names = append(names, field.Names[0].Name)
		}
	}
	return names
}
