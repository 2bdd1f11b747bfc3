package speaker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// bootIDFile is a UUID that the kernel draws once per boot; containers see
	// that of the host.
	bootIDFile = "/proc/sys/kernel/random/boot_id"
	// maxBootID bounds what is read of it; a UUID has 36 characters.
	maxBootID = 128
	// maxToken bounds a ServiceAccount token; real ones have about 1 KiB.
	maxToken = 64 << 10
	// maxNodeUID bounds the UID in a token, which is a UUID too.
	maxNodeUID = 253
)

// bootID tells boots of the node apart: what the kernel forwards survives a
// restart of the speaker, but not a boot.
func bootID() (string, error) { return bootIDIn(bootIDFile) }

func bootIDIn(path string) (string, error) {
	text, err := readBounded(path, maxBootID)
	if err != nil {
		return "", fmt.Errorf("boot ID of the kernel: %w", err)
	}
	id := string(bytes.TrimSpace(text))
	if id == "" {
		return "", fmt.Errorf("boot ID of the kernel: %s is empty", path)
	}
	return id, nil
}

// nodeUIDFrom is the UID of the Node in the token that a client configuration
// names (rest.Config.BearerTokenFile), without asking the API server. It is
// empty, without an error, where the token does not tell: no file, as with a
// client certificate, or a token that is not bound to a Pod.
func nodeUIDFrom(tokenFile string) (string, error) {
	if tokenFile == "" {
		return "", nil
	}
	token, err := readBounded(tokenFile, maxToken)
	if err != nil {
		return "", fmt.Errorf("UID of the Node in the ServiceAccount token: %w", err)
	}
	return tokenNodeUID(token), nil
}

// tokenNodeUID is the UID of the Node in a ServiceAccount token that is bound to
// a Pod (KEP-4193, in tokens since Kubernetes 1.30), empty if there is none. The
// signature is not verified: the file is the speaker's own, and the UID only
// serves to refuse a state that is somebody else's.
func tokenNodeUID(token []byte) string {
	if len(token) > maxToken {
		return ""
	}
	// A JSON Web Token (RFC 7519): header, claims and signature.
	parts := bytes.Split(bytes.TrimSpace(token), []byte("."))
	if len(parts) != 3 {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(string(parts[1]))
	if err != nil {
		return ""
	}
	var claims struct {
		Kubernetes struct {
			Node struct {
				UID string `json:"uid"`
			} `json:"node"`
		} `json:"kubernetes.io"`
	}
	if err := json.Unmarshal(text, &claims); err != nil {
		return ""
	}
	uid := claims.Kubernetes.Node.UID
	if len(uid) > maxNodeUID {
		return ""
	}
	return uid
}

// errTooLong refuses a file.
var errTooLong = errors.New("the file is too long")

// readBounded reads a file of at most n bytes. Those of the kernel have no size,
// and a projected token is a symbolic link.
func readBounded(path string, n int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, n+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > n {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, errTooLong, n)
	}
	return data, nil
}
