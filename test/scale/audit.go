package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// agentOfUsers is the user agent of this program, which stands for people and
// their tools.
const agentOfUsers = "users"

// policy has the API server log each write once, without its body, but for those
// of Leases.
const policy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: None
  resources: [{group: coordination.k8s.io}]
- level: Metadata
`

// audit counts the writes of the project that the API server logs.
type audit struct {
	path string

	mu     sync.Mutex
	at     int64
	counts writes
}

// writes are numbers of writes by "who what", such as "planner patch nodes".
type writes map[string]int

// newAudit returns the log in dir, and the API server's arguments for it.
func newAudit(dir string) (*audit, []string, error) {
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, nil, err
	}
	rules := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(rules, []byte(policy), 0o644); err != nil {
		return nil, nil, err
	}
	a := &audit{path: filepath.Join(dir, "audit.log"), counts: make(writes)}
	return a, []string{
		"--audit-policy-file=" + rules, "--audit-log-path=" + a.path, "--audit-log-mode=blocking", "--audit-log-maxsize=4096",
	}, nil
}

// programs are the project's, by the beginning of their user agents.
var programs = []struct{ agent, name string }{
	{"baremetal-planner", "planner"},
	{"baremetal-cloud-controller-manager", "controllers"},
	{"baremetal-load-balancer", "controllers"},
	{"baremetal-speaker", "speakers"},
}

// read counts what has been logged so far.
func (a *audit) read() (writes, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	file, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(a.at, io.SeekStart); err != nil {
		return nil, err
	}
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break // the rest of the line is to come
		}
		if err != nil {
			return nil, err
		}
		a.at += int64(len(line))
		if err := a.note(line); err != nil {
			return nil, err
		}
	}
	out := make(writes, len(a.counts))
	for what, n := range a.counts {
		out[what] = n
	}
	return out, nil
}

func (a *audit) note(line []byte) error {
	if !bytes.Contains(line, []byte(`"userAgent":"baremetal-`)) {
		return nil
	}
	var event struct {
		Verb, UserAgent string
		ObjectRef       struct{ Resource, Subresource string }
		ResponseStatus  struct{ Code int }
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	switch event.ObjectRef.Resource {
	case "tokenreviews", "subjectaccessreviews":
		return nil // questions, which are stored nowhere
	}
	for _, p := range programs {
		if strings.HasPrefix(event.UserAgent, p.agent) {
			what := strings.TrimSuffix(event.ObjectRef.Resource+"/"+event.ObjectRef.Subresource, "/")
			a.counts[p.name+" "+event.Verb+" "+what]++
			return nil
		}
	}
	return nil
}

// since are the writes since an earlier count.
func (w writes) since(before writes) writes {
	out := make(writes)
	for what, n := range w {
		if d := n - before[what]; d > 0 {
			out[what] = d
		}
	}
	return out
}

func (w writes) total() (n int) {
	for _, k := range w {
		n += k
	}
	return n
}
