// Package imports checks that data flows one way: a package imports only
// packages on lower floors.
package imports

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/baremetal-lb/cloud-provider-baremetal/"

// floors of the house, from the ground. A package may import those of its
// module on lower floors only.
var floors = []struct {
	name     string
	packages []string
}{
	{"values", []string{"pkg/apis/lb/v1alpha1", "pkg/announce"}},
	{"pure decisions", []string{"pkg/ipam", "pkg/plan"}},
	{"one outside thing", []string{"pkg/bgp", "pkg/layer2", "pkg/heartbeat", "pkg/statefile", "pkg/kubeapi", "pkg/apis/lb/client"}},
	{"loops", []string{"pkg/planner", "pkg/speaker", "provider"}},
	{"commands", []string{"cmd/baremetal-cloud-controller-manager", "cmd/baremetal-speaker"}},
}

// sameFloor are the imports within a floor, each with its reason.
var sameFloor = map[[2]string]string{
	{"pkg/plan", "pkg/ipam"}: "one answer to the question which pool an address belongs to",
}

// forbidden are dependencies, direct or not, that a package must not have.
var forbidden = []struct{ pkg, prefix, reason string }{
	{"pkg/ipam", "k8s.io/client-go", "allocation is a pure function; what it knows comes as arguments"},
	{"pkg/plan", "k8s.io/client-go", "a plan can be replayed from a dump, without a cluster"},
	{"pkg/plan", "github.com/osrg/gobgp", "who announces what does not depend on how"},
	{"pkg/announce", "k8s.io/", "the language between planner and speakers is no API object"},
	{"pkg/layer2", "k8s.io/client-go", "who is to answer on the LAN is decided elsewhere"},
	{"pkg/layer2", "github.com/vishvananda/netlink", "what interfaces there are comes as an argument"},
	{"pkg/heartbeat", "k8s.io/client-go", "candidates agree without the API server"},
	{"pkg/heartbeat", "github.com/vishvananda/netlink", "what interfaces there are comes as an argument"},
	{"pkg/speaker", "k8s.io/client-go/kubernetes/scheme", "a speaker reads its Node and some Secrets; all API groups would cost it memory"},
	{"pkg/speaker", "k8s.io/cloud-provider", "a speaker knows nothing of clouds"},
	{"pkg/planner", "github.com/osrg/gobgp", "the planner speaks to the API server only"},
	{"provider", "github.com/osrg/gobgp", "the cloud-controller-manager speaks to the API server only"},
}

// timeless packages take time and randomness as arguments.
var timeless = []string{"pkg/ipam", "pkg/plan", "pkg/announce"}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) map[string]listed {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./pkg/...", "./provider/...", "./cmd/...")
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("go list: %s", failed.Stderr)
		}
		t.Fatal(err)
	}
	packages := make(map[string]listed)
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

func floorOf(pkg string) int {
	for i, f := range floors {
		for _, root := range f.packages {
			if pkg == root || strings.HasPrefix(pkg, root+"/internal/") {
				return i
			}
		}
	}
	return -1
}

func TestFloors(t *testing.T) {
	for name, p := range list(t) {
		floor := floorOf(name)
		if floor < 0 {
			t.Errorf("%s is on no floor: enter it in this test", name)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if !ours || strings.HasPrefix(to, name+"/internal/") {
				continue
			}
			if below := floorOf(to); below > floor || below == floor && sameFloor[[2]string{name, to}] == "" {
				t.Errorf("%s (%s) imports %s (%s)", name, floors[floor].name, to, floors[below].name)
			}
		}
	}
}

func TestForbiddenDependencies(t *testing.T) {
	packages := list(t)
	for _, f := range forbidden {
		p, ok := packages[f.pkg]
		if !ok {
			t.Errorf("no package %s", f.pkg)
		}
		if i := slices.IndexFunc(p.Deps, func(d string) bool { return strings.HasPrefix(d, f.prefix) }); i >= 0 {
			t.Errorf("%s depends on %s: %s", f.pkg, p.Deps[i], f.reason)
		}
	}
}

func TestTimelessPackages(t *testing.T) {
	for _, pkg := range timeless {
		root := filepath.Join("../..", pkg)
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				selector, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if from, ok := selector.X.(*ast.Ident); ok && (from.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "NewTimer", "NewTicker", "Sleep"}, selector.Sel.Name) || from.Name == "rand") {
					t.Errorf("%s: %s.%s: time and randomness are arguments here", files.Position(n.Pos()), from.Name, selector.Sel.Name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
