package speaker

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// jwt is a ServiceAccount token with the claims.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

// boundClaims are the claims of a token as kubelet projects it into a Pod.
const boundClaims = `{"aud":["https://kubernetes.default.svc"],"exp":1800000000,"iss":"https://kubernetes.default.svc",` +
	`"kubernetes.io":{"namespace":"kube-system","node":{"name":"n1","uid":"3f0f8a4e-0b52-4d0b-9f6b-0a7a4c8a3f11"},` +
	`"pod":{"name":"baremetal-speaker-x","uid":"p"},"serviceaccount":{"name":"baremetal-speaker","uid":"s"},"warnafter":1700003607},` +
	`"sub":"system:serviceaccount:kube-system:baremetal-speaker"}`

const boundUID = "3f0f8a4e-0b52-4d0b-9f6b-0a7a4c8a3f11"

func TestTokenNodeUID(t *testing.T) {
	t.Parallel()
	whole := jwt(boundClaims)
	padded := strings.Replace(whole, ".", "==.", 2)
	for name, c := range map[string]struct{ token, want string }{
		"bound to a Pod":    {whole, boundUID},
		"with a line end":   {whole + "\n", boundUID},
		"before KEP-4193":   {jwt(`{"kubernetes.io":{"namespace":"kube-system","pod":{"name":"x","uid":"p"}}}`), ""},
		"of a Secret":       {jwt(`{"kubernetes.io/serviceaccount/namespace":"kube-system"}`), ""},
		"of somebody else":  {jwt(`{"sub":"me"}`), ""},
		"node is null":      {jwt(`{"kubernetes.io":{"node":null}}`), ""},
		"node is text":      {jwt(`{"kubernetes.io":{"node":"n1"}}`), ""},
		"UID is a number":   {jwt(`{"kubernetes.io":{"node":{"uid":1}}}`), ""},
		"UID is too long":   {jwt(`{"kubernetes.io":{"node":{"uid":"` + strings.Repeat("u", maxNodeUID+1) + `"}}}`), ""},
		"claims are a list": {jwt(`[]`), ""},
		"claims are cut":    {jwt(boundClaims[:len(boundClaims)-1]), ""},
		"empty":             {"", ""},
		"opaque":            {"abcdef.0123456789abcdef", ""},
		"encrypted":         {whole + ".more.parts", ""},
		"no base64":         {"a.!.c", ""},
		"padded":            {padded, ""},
		"too long":          {whole + strings.Repeat("A", maxToken), ""},
	} {
		if got := tokenNodeUID([]byte(c.token)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestNodeUIDFrom(t *testing.T) {
	t.Parallel()
	// As kubelet projects it: through two links.
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "..2026"), 0o700),
		os.WriteFile(filepath.Join(dir, "..2026", "token"), []byte(jwt(boundClaims)), 0o600),
		os.Symlink("..2026", filepath.Join(dir, "..data")),
		os.Symlink("..data/token", path),
	); err != nil {
		t.Fatal(err)
	}
	if got, err := nodeUIDFrom(path); got != boundUID || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := nodeUIDFrom(""); got != "" || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
	if got, err := nodeUIDFrom(filepath.Join(dir, "missing")); got != "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %q, %v", got, err)
	}
	if got, err := nodeUIDFrom("/dev/zero"); got != "" || !errors.Is(err, errTooLong) {
		t.Errorf("endless: %q, %v", got, err)
	}
}

func TestBootID(t *testing.T) {
	t.Parallel()
	first, err := bootID()
	if err != nil || len(first) != 36 {
		t.Errorf("got %q, %v; want a UUID", first, err)
	}
	if second, err := bootID(); err != nil || second != first {
		t.Errorf("got %q, then %q, %v", first, second, err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": " \n", "long": strings.Repeat("x", maxBootID+1)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := bootIDIn(path); err == nil || got != "" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := bootIDIn(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
