package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// fileName is the file in the state directory.
	fileName = "program.json"
	// formatVersion is the format of the envelope; that of the program inside
	// is announce.FormatVersion.
	formatVersion = 1
	// maxIdentity bounds each of the names and UIDs in the envelope. A Node's
	// name has at most 253 bytes (RFC 1123), a UID 36.
	maxIdentity = 253
	// maxFile bounds the file. As a JSON string a program grows to at most
	// twice its length: each character that announce.Decode accepts is itself,
	// a two-byte escape of one byte (quotes, line ends), or a six-byte escape
	// of three (U+2028). The rest of the envelope fits into 4 KiB.
	maxFile = 2*announce.MaxEncoded + 4<<10
)

// Why a file is not used.
var (
	// ErrCorrupt means that the file is not what a Writer wrote: truncated,
	// edited, or damaged.
	ErrCorrupt = errors.New("damaged")
	// ErrForeign means that the file belongs to another node or cluster.
	ErrForeign = errors.New("of another node or cluster")
	// ErrVersion means that the file has a format that this program does not
	// read, older or newer.
	ErrVersion = errors.New("of an unknown format")
	// ErrTooLarge means that the file is larger than any that a Writer writes.
	ErrTooLarge = errors.New("too large")
	// ErrNotRegular means that there is something else than a file: a symbolic
	// link, a directory, a named pipe.
	ErrNotRegular = errors.New("not a regular file")
	// ErrProgram means that the file is whole, but announce.Decode refuses the
	// program in it. Whether it is of a version that is unknown here, errors.As
	// with announce.UnknownVersionError tells.
	ErrProgram = errors.New("unusable program")
)

// State is what is kept.
type State struct {
	// Cluster is the UID of the namespace kube-system, from the program.
	Cluster string
	// Node and NodeUID are the name and the UID of the speaker's Node.
	Node    string
	NodeUID string
	// BootID is that of the kernel when the state was kept. After a boot, what
	// the kernel forwards is not what it forwarded then.
	BootID string
	// Program is the value of the Node annotation, verbatim, as announce.Decode
	// reads it.
	Program string
}

// Identity is what the reader knows of itself. Empty fields are unknown, and
// nothing is refused because of them.
type Identity struct {
	// Node and NodeUID are the name and the UID of the Node that the reader
	// runs on.
	Node    string
	NodeUID string
	// Cluster is the UID of the namespace kube-system.
	Cluster string
}

// envelope is the content of the file.
type envelope struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	NodeUID string `json:"nodeUID"`
	BootID  string `json:"bootID"`
	// SHA256 is that of Program. The program's own hash is short, and a file
	// that was damaged is to be told from a program that is not understood.
	SHA256  string `json:"sha256"`
	Program string `json:"program"`
}

// encode writes the content of the file. It refuses what decode would refuse,
// but does not look into the program.
func encode(s State) ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	// HTML escapes would take six bytes for one.
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(envelope{
		Format:  formatVersion,
		Cluster: s.Cluster,
		Node:    s.Node,
		NodeUID: s.NodeUID,
		BootID:  s.BootID,
		SHA256:  checksum(s.Program),
		Program: s.Program,
	})
	if err != nil {
		return nil, err
	}
	if out.Len() > maxFile {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, out.Len(), maxFile)
	}
	return out.Bytes(), nil
}

// decode reads what encode wrote, if it belongs to who.
func decode(data []byte, who Identity) (State, announce.Program, error) {
	s, err := unwrap(data)
	if err == nil {
		err = s.belongs(who)
	}
	if err != nil {
		return State{}, announce.Program{}, err
	}
	p, err := announce.Decode(s.Program)
	if err != nil {
		return State{}, announce.Program{}, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	if p.Cluster != s.Cluster {
		return State{}, announce.Program{}, fmt.Errorf("%w: the program is of cluster %q, the file of cluster %q", ErrForeign, p.Cluster, s.Cluster)
	}
	return s, p, nil
}

// unwrap is the state in the envelope.
func unwrap(data []byte) (State, error) {
	// The format first: a later one may have fields unknown here. This also
	// refuses data after the envelope.
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &format); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if format.Format != formatVersion {
		return State{}, fmt.Errorf("%w: %d; this program reads format %d", ErrVersion, format.Format, formatVersion)
	}
	var e envelope
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&e); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if e.SHA256 != checksum(e.Program) {
		return State{}, fmt.Errorf("%w: the program's checksum does not match", ErrCorrupt)
	}
	s := State{Cluster: e.Cluster, Node: e.Node, NodeUID: e.NodeUID, BootID: e.BootID, Program: e.Program}
	if err := s.validate(); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return s, nil
}

// validate checks what the bounds of the file rest on.
func (s *State) validate() error {
	if s.Node == "" {
		return errors.New("no name of a Node")
	}
	for _, field := range []struct{ name, value string }{
		{"cluster", s.Cluster},
		{"node", s.Node},
		{"nodeUID", s.NodeUID},
		{"bootID", s.BootID},
	} {
		if !plain(field.value) {
			return fmt.Errorf("%s %.40q: more than %d bytes, or other than printable ASCII characters", field.name, field.value, maxIdentity)
		}
	}
	switch {
	case len(s.Program) > announce.MaxEncoded:
		return fmt.Errorf("program: %w: %d bytes, at most %d", ErrTooLarge, len(s.Program), announce.MaxEncoded)
	case !utf8.ValidString(s.Program):
		// JSON would not keep it verbatim.
		return errors.New("program: not UTF-8")
	}
	return nil
}

func plain(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= maxIdentity
}

// belongs refuses a state of somebody else, as far as is known who reads it.
func (s *State) belongs(who Identity) error {
	for _, field := range []struct{ name, theirs, ours string }{
		{"Node", s.Node, who.Node},
		{"Node UID", s.NodeUID, who.NodeUID},
		{"cluster", s.Cluster, who.Cluster},
	} {
		if field.ours != "" && field.ours != field.theirs {
			return fmt.Errorf("%w: it is of %s %q, and this is %q", ErrForeign, field.name, field.theirs, field.ours)
		}
	}
	return nil
}

func checksum(program string) string {
	sum := sha256.Sum256([]byte(program))
	return hex.EncodeToString(sum[:])
}
