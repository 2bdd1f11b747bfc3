package manifests

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const root = "../../manifests"

type object struct {
	unstructured.Unstructured
	file string
}

// load reads all objects below manifests/, kustomizations aside.
func load(t *testing.T) []object {
	t.Helper()
	var objects []object
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// A chart is templates, not objects.
		if entry.IsDir() && entry.Name() == "helm" {
			return fs.SkipDir
		}
		if entry.IsDir() || filepath.Ext(path) != ".yaml" || entry.Name() == "kustomization.yaml" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
		for {
			var content map[string]any
			if err := decoder.Decode(&content); err == io.EOF {
				return nil
			} else if err != nil {
				t.Errorf("%s: %v", path, err)
				return nil
			}
			if len(content) > 0 {
				objects = append(objects, object{unstructured.Unstructured{Object: content}, path})
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) == 0 {
		t.Fatal("no manifests")
	}
	return objects
}

// decode is obj as the given type; fields that the type has not are errors.
func decode[T any](t *testing.T, obj object) T {
	t.Helper()
	var out T
	data, err := yaml.Marshal(obj.Object)
	if err == nil {
		err = yaml.UnmarshalStrict(data, &out)
	}
	if err != nil {
		t.Fatalf("%s: %s %s: %v", obj.file, obj.GetKind(), obj.GetName(), err)
	}
	return out
}

// Each directory of manifests is whole: its kustomization names each file, and
// only files that exist.
func TestKustomizationsListTheirFiles(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "kustomization.yaml" {
			return err
		}
		dir := filepath.Dir(path)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var kustomization struct {
			Resources []string
			Patches   []struct{ Path string }
		}
		if err := yaml.Unmarshal(data, &kustomization); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		named := kustomization.Resources
		for _, patch := range kustomization.Patches {
			if patch.Path != "" {
				named = append(named, patch.Path)
			}
		}
		for _, resource := range named {
			if _, err := os.Stat(filepath.Join(dir, resource)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if name := filepath.Base(file); name != "kustomization.yaml" && !slices.Contains(named, name) {
				t.Errorf("%s does not list %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReferencesResolve(t *testing.T) {
	exists := map[string]bool{
		// Parts of Kubernetes.
		"Role kube-system/extension-apiserver-authentication-reader": true,
	}
	objects := load(t)
	for _, obj := range objects {
		exists[obj.GetKind()+" "+obj.GetNamespace()+"/"+obj.GetName()] = true
	}
	want := func(obj object, kind, namespace, name string) {
		if !exists[kind+" "+namespace+"/"+name] {
			t.Errorf("%s: %s %s names the %s %s/%s, which does not exist", obj.file, obj.GetKind(), obj.GetName(), kind, namespace, name)
		}
	}
	for _, obj := range objects {
		if account, ok, _ := unstructured.NestedString(obj.Object, "spec", "template", "spec", "serviceAccountName"); ok {
			want(obj, "ServiceAccount", obj.GetNamespace(), account)
		}
		switch obj.GetKind() {
		case "RoleBinding", "ClusterRoleBinding":
			kind, _, _ := unstructured.NestedString(obj.Object, "roleRef", "kind")
			name, _, _ := unstructured.NestedString(obj.Object, "roleRef", "name")
			namespace := ""
			if kind == "Role" {
				namespace = obj.GetNamespace()
			}
			want(obj, kind, namespace, name)
			subjects, _, _ := unstructured.NestedSlice(obj.Object, "subjects")
			for _, subject := range subjects {
				subject := subject.(map[string]any)
				want(obj, subject["kind"].(string), subject["namespace"].(string), subject["name"].(string))
			}
		case "ValidatingAdmissionPolicyBinding":
			name, _, _ := unstructured.NestedString(obj.Object, "spec", "policyName")
			want(obj, "ValidatingAdmissionPolicy", "", name)
		}
		// The policies know the programs by the names of their accounts.
		for _, match := range regexp.MustCompile(`system:serviceaccount:([a-z-]+):([a-z-]+)`).FindAllStringSubmatch(text(t, obj), -1) {
			want(obj, "ServiceAccount", match[1], match[2])
		}
	}
}

func text(t *testing.T, obj object) string {
	t.Helper()
	data, err := yaml.Marshal(obj.Object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rights are the verbs, by role and resource, that may change something or show
// secrets. An addition here is a decision about security.
var rights = map[string][]string{
	"ClusterRole baremetal-cloud-controller-manager: services/status":      {"patch"},
	"ClusterRole baremetal-cloud-controller-manager: nodes":                {"patch"},
	"ClusterRole baremetal-cloud-controller-manager: addresspools":         {"patch"},
	"ClusterRole baremetal-cloud-controller-manager: addresspools/status":  {"patch"},
	"ClusterRole baremetal-cloud-controller-manager: bgppeers/status":      {"patch"},
	"ClusterRole baremetal-cloud-controller-manager: events":               {"create", "patch"},
	"ClusterRole baremetal-cloud-controller-manager: tokenreviews":         {"create"},
	"ClusterRole baremetal-cloud-controller-manager: subjectaccessreviews": {"create"},
	"Role baremetal-cloud-controller-manager: leases":                      {"create", "patch", "update"},
	"Role baremetal-cloud-controller-manager: secrets":                     {"create", "get", "update", "watch"},

	"ClusterRole baremetal-cloud-controller-manager-initialize-nodes: nodes/status": {"patch"},

	"ClusterRole baremetal-speaker: nodes": {"patch"},
	"Role baremetal-speaker: secrets":      {"get", "watch"},
}

func TestRightsAreNarrow(t *testing.T) {
	got := map[string][]string{}
	for _, obj := range load(t) {
		if kind := obj.GetKind(); kind != "Role" && kind != "ClusterRole" {
			continue
		}
		name := obj.GetKind() + " " + obj.GetName()
		rules, _, _ := unstructured.NestedSlice(obj.Object, "rules")
		for _, rule := range rules {
			rule := rule.(map[string]any)
			for field, values := range rule {
				if slices.Contains(values.([]any), any("*")) {
					t.Errorf("%s: %s: wildcard in %s", obj.file, name, field)
				}
			}
			resources, _, _ := unstructured.NestedStringSlice(rule, "resources")
			verbs, _, _ := unstructured.NestedStringSlice(rule, "verbs")
			_, named := rule["resourceNames"]
			for _, resource := range resources {
				for _, verb := range verbs {
					reads := verb == "get" || verb == "list" || verb == "watch"
					switch {
					case resource == "secrets" && verb != "create" && !named && (verb != "get" || obj.GetName() != "baremetal-speaker"):
						t.Errorf("%s: %s: %s secrets without names", obj.file, name, verb)
					case resource == "secrets" && obj.GetKind() != "Role":
						t.Errorf("%s: %s: secrets of all namespaces", obj.file, name)
					case resource == "leases" && verb != "create" && !named:
						t.Errorf("%s: %s: %s leases without names", obj.file, name, verb)
					}
					if !reads || resource == "secrets" {
						key := name + ": " + resource
						got[key] = append(got[key], verb)
					}
				}
			}
		}
	}
	for key, verbs := range got {
		slices.Sort(verbs)
		if !slices.Equal(verbs, rights[key]) {
			t.Errorf("%s: may %q, the table says %q", key, verbs, rights[key])
		}
	}
	for key := range rights {
		if _, ok := got[key]; !ok {
			t.Errorf("%s: in the table only", key)
		}
	}
}

// Whose images they are is for those to say who install them.
func TestImagesNameNoRegistry(t *testing.T) {
	for _, obj := range load(t) {
		for _, container := range containers(obj) {
			image, _ := container["image"].(string)
			if image == "" || strings.Contains(image, "/") {
				t.Errorf("%s: %s: image %q", obj.file, obj.GetName(), image)
			}
			if policy := container["imagePullPolicy"]; policy != "IfNotPresent" {
				t.Errorf("%s: %s: imagePullPolicy %v", obj.file, obj.GetName(), policy)
			}
		}
	}
}

func containers(obj object) []map[string]any {
	var all []map[string]any
	for _, field := range []string{"containers", "initContainers"} {
		list, _, _ := unstructured.NestedSlice(obj.Object, "spec", "template", "spec", field)
		for _, container := range list {
			all = append(all, container.(map[string]any))
		}
	}
	return all
}

func TestContainersAreConfined(t *testing.T) {
	for _, obj := range load(t) {
		for _, container := range containers(obj) {
			get := func(field ...string) any {
				value, _, _ := unstructured.NestedFieldNoCopy(container, append([]string{"securityContext"}, field...)...)
				return value
			}
			if get("allowPrivilegeEscalation") != false || get("readOnlyRootFilesystem") != true || get("privileged") == true {
				t.Errorf("%s: %s: %v", obj.file, obj.GetName(), get())
			}
			drop, _ := get("capabilities", "drop").([]any)
			if !slices.Equal(drop, []any{"ALL"}) {
				t.Errorf("%s: %s drops %v", obj.file, obj.GetName(), drop)
			}
			add, _ := get("capabilities", "add").([]any)
			for _, capability := range add {
				// BGP's port; packet sockets for ARP and NDP.
				if capability != "NET_BIND_SERVICE" && (capability != "NET_RAW" || obj.GetName() != "baremetal-speaker") {
					t.Errorf("%s: %s adds %v", obj.file, obj.GetName(), capability)
				}
			}
		}
	}
}

// $(NAME) in an argument stays as it is when the container has no such variable.
func TestArgumentsNameKnownVariables(t *testing.T) {
	for _, obj := range load(t) {
		for _, container := range containers(obj) {
			env, _, _ := unstructured.NestedSlice(container, "env")
			for _, match := range regexp.MustCompile(`\$\((\w+)\)`).FindAllStringSubmatch(strings.Join(arguments(container), " "), -1) {
				if !slices.ContainsFunc(env, func(variable any) bool { return variable.(map[string]any)["name"] == match[1] }) {
					t.Errorf("%s: %s: no variable %s", obj.file, obj.GetName(), match[1])
				}
			}
		}
	}
}

func arguments(container map[string]any) []string {
	args, _, _ := unstructured.NestedStringSlice(container, "args")
	return args
}

// The flags in the manifests are flags of the programs, which are asked for
// their --help. The container's image is named like its program.
func TestProgramsKnowTheFlags(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs")
	}
	kustomizationArgs := regexp.MustCompile(`(?m)^\s*value: (--\S+)$`)
	flags := map[string][]string{}
	for _, obj := range load(t) {
		for _, container := range containers(obj) {
			program, _, _ := strings.Cut(container["image"].(string), ":")
			flags[program] = append(flags[program], arguments(container)...)
		}
	}
	overlays, err := filepath.Glob(filepath.Join(root, "overlays", "*", "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range overlays {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range kustomizationArgs.FindAllStringSubmatch(string(data), -1) {
			for program := range flags {
				if strings.Contains(string(data), "name: "+program+"\n") {
					flags[program] = append(flags[program], match[1])
				}
			}
		}
	}
	if len(flags) != 2 {
		t.Errorf("programs of the manifests: %v", flags)
	}
	for program, args := range flags {
		t.Run(program, func(t *testing.T) {
			dir := filepath.Join("..", "..", "cmd", program)
			if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) == 0 {
				t.Skipf("%s has no sources", dir)
			}
			binary := filepath.Join(t.TempDir(), program)
			if out, err := exec.Command("go", "build", "-o", binary, "./"+dir).CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			help, err := exec.Command(binary, "--help").CombinedOutput()
			if err != nil {
				t.Fatalf("--help: %v\n%s", err, help)
			}
			for _, arg := range args {
				name, _, _ := strings.Cut(arg, "=")
				if !regexp.MustCompile(`(?m)(^|\s)` + regexp.QuoteMeta(name) + `(\s|=|$)`).Match(help) {
					t.Errorf("%s has no flag %s", program, name)
				}
			}
		})
	}
}
