package announce

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// Sizes of an encoded program, in bytes. All annotations of an object together
// may have 256 KiB.
const (
	// CompressAbove is the length of plain JSON above which it is compressed.
	CompressAbove = 16 << 10
	// MaxEncoded is the largest value that Encode writes and Decode reads.
	MaxEncoded = 200 << 10
	// maxPlain bounds what a compressed value may expand to, for annotations
	// come from the API and may be malformed or hostile.
	maxPlain = 16 << 20
)

// ErrTooLarge means that a program does not fit into MaxEncoded.
var ErrTooLarge = errors.New("announcements exceed the size of a node annotation")

// UnknownVersionError means that a value is of a format version that this
// program does not read. The speaker keeps its state and reports it.
type UnknownVersionError struct{ Version int }

func (e UnknownVersionError) Error() string {
	return fmt.Sprintf("announcements of format version %d; this program reads version %d", e.Version, FormatVersion)
}

// Encode writes a normalized program as canonical JSON, compressed above
// CompressAbove. It fails with ErrTooLarge above MaxEncoded.
func Encode(p Program) (string, error) {
	value, err := encode(p)
	if err == nil && len(value) > MaxEncoded {
		return "", ErrTooLarge
	}
	return value, err
}

// encode is Encode of any size that Decode could expand.
func encode(p Program) (string, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encoding announcements: %w", err)
	}
	if len(plain) <= CompressAbove {
		return string(plain), nil
	}
	// What does not fit plain text of maxPlain is refused by Decode.
	if len(plain) > maxPlain {
		return "", ErrTooLarge
	}
	var packed bytes.Buffer
	text := base64.NewEncoder(base64.StdEncoding, &packed)
	zip := gzip.NewWriter(text)
	if _, err := zip.Write(plain); err != nil {
		return "", fmt.Errorf("compressing announcements: %w", err)
	}
	if err := errors.Join(zip.Close(), text.Close()); err != nil {
		return "", fmt.Errorf("compressing announcements: %w", err)
	}
	return packed.String(), nil
}

// Decode reads what Encode wrote. It refuses, with an error, values that are
// oversized, malformed or of another version
// (UnknownVersionError); it never returns a part of a program.
func Decode(value string) (Program, error) {
	if len(value) > MaxEncoded {
		return Program{}, ErrTooLarge
	}
	plain := []byte(value)
	if !strings.HasPrefix(value, "{") {
		var err error
		if plain, err = decompress(value); err != nil {
			return Program{}, fmt.Errorf("decoding announcements: %w", err)
		}
	}
	// The version first: a later format may have fields unknown here.
	var format struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(plain, &format); err != nil {
		return Program{}, fmt.Errorf("decoding announcements: %w", err)
	}
	if format.Version != FormatVersion {
		return Program{}, UnknownVersionError{Version: format.Version}
	}
	var p Program
	strict := json.NewDecoder(bytes.NewReader(plain))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&p); err != nil {
		return Program{}, fmt.Errorf("decoding announcements: %w", err)
	}
	if strict.More() {
		return Program{}, errors.New("decoding announcements: data after the program")
	}
	if err := p.validate(); err != nil {
		return Program{}, fmt.Errorf("decoding announcements: %w", err)
	}
	return p, nil
}

func decompress(value string) ([]byte, error) {
	zip, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(value)))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(zip, maxPlain+1))
	if err != nil {
		return nil, err
	}
	if len(plain) > maxPlain {
		return nil, ErrTooLarge
	}
	return plain, nil
}

// validate checks what the types alone do not: references between the parts,
// and the hash, which also catches text that was edited by hand. It leaves the
// program in its canonical form.
func (p *Program) validate() error {
	peers := make(map[string]bool, len(p.Peers))
	for _, peer := range p.Peers {
		switch {
		case peer.Name == "" || peers[peer.Name]:
			return fmt.Errorf("peer %q: empty or repeated name", peer.Name)
		case !plainAddr(peer.Address):
			return fmt.Errorf("peer %q: address %v", peer.Name, peer.Address)
		case peer.Source.IsValid() && (!plainAddr(peer.Source) || peer.Source.Is4() != peer.Address.Is4()):
			return fmt.Errorf("peer %q: source address %v", peer.Name, peer.Source)
		case peer.LocalASN == 0 || peer.PeerASN == 0 || peer.Port == 0:
			return fmt.Errorf("peer %q: an AS number or the port is 0", peer.Name)
		}
		peers[peer.Name] = true
	}
	if len(p.Peers) > 0 && !p.RouterID.Is4() {
		return fmt.Errorf("router ID %v is not an IPv4 address", p.RouterID)
	}
	nodes, err := p.validateNodes()
	if err != nil {
		return err
	}
	for i, g := range p.Groups {
		if err := g.validate(peers, nodes); err != nil {
			return fmt.Errorf("group %d: %w", i, err)
		}
	}
	told := p.Hash
	p.Normalize()
	if p.Hash != told {
		return fmt.Errorf("hash %q does not match the content (%q)", told, p.Hash)
	}
	return nil
}

func (p *Program) validateNodes() (names map[string]bool, err error) {
	names = make(map[string]bool, len(p.Nodes))
	for _, n := range p.Nodes {
		if n.Name == "" || names[n.Name] {
			return nil, fmt.Errorf("node %q: empty or repeated name", n.Name)
		}
		for _, l := range n.Links {
			if slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return !p.IsValid() || !plainAddr(p.Addr()) }) {
				return nil, fmt.Errorf("node %q: prefixes of link %v: %v", n.Name, l.MAC, l.Prefixes)
			}
		}
		names[n.Name] = true
	}
	return names, nil
}

func (g *Group) validate(peers, nodes map[string]bool) error {
	if len(g.Addresses) == 0 {
		return errors.New("no addresses")
	}
	if (g.BGP == nil) == (g.Layer2 == nil) {
		return errors.New("needs one way to announce its addresses")
	}
	if g.BGP != nil {
		for _, name := range g.BGP.Peers {
			if !peers[name] {
				return fmt.Errorf("no peer %q", name)
			}
		}
		return nil
	}
	if len(g.Layer2.Candidates) == 0 {
		return errors.New("no candidates")
	}
	for _, name := range g.Layer2.Candidates {
		if !nodes[name] {
			return fmt.Errorf("no node %q", name)
		}
	}
	return nil
}

func plainAddr(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6()
}

// EncodeFitting encodes the program, leaving out addresses where all of them
// do not fit into MaxEncoded; it returns the ranges it left out. Addresses for
// which keep is true are the last to go, so that a new address never displaces
// one that is announced already.
func EncodeFitting(p Program, keep func(netip.Addr) bool) (value string, fitted Program, left []Range, err error) {
	value, err = encode(p)
	switch {
	case err == nil && len(value) <= MaxEncoded:
		return value, p, nil, nil
	case err != nil && !errors.Is(err, ErrTooLarge):
		return "", Program{}, nil, err
	}
	entries, kept := entriesOf(p, keep)
	f := fitting{program: p, entries: entries, fails: len(entries), failsSize: max(len(value), 2*MaxEncoded)}
	if err := f.search(kept); err != nil {
		return "", Program{}, nil, err
	}
	for _, e := range entries[f.fits:] {
		left = append(left, e.addresses)
	}
	return f.value, f.fitted, left, nil
}

// fitting searches for the number of entries that fit into MaxEncoded. To encode a
// program that is so large takes its time, so that it does so a few times only: it
// guesses by the sizes that it knows, and is content with little room left.
type fitting struct {
	program Program
	entries []entry

	fits   int // entries of fitted, encoded as value
	fitted Program
	value  string

	fails     int // entries that do not fit
	failsSize int // and what they take, which may be a guess
}

const (
	// spare is the room that may be left.
	spare = MaxEncoded / 64
	// maxTries bounds the search where guesses are bad.
	maxTries = 10
)

// search tries no entries at all first, then those to keep, and then what it
// guesses.
func (f *fitting) search(kept int) error {
	if err := f.try(0); err != nil {
		return err
	}
	if f.fails == 0 {
		return ErrTooLarge // it is not the addresses
	}
	next := kept
	if kept == 0 || kept >= f.fails {
		next = f.guess()
	}
	for tries := 0; tries < maxTries && f.fails-f.fits > 1 && MaxEncoded-len(f.value) > spare; tries++ {
		if err := f.try(min(max(next, f.fits+1), f.fails-1)); err != nil {
			return err
		}
		next = f.guess()
	}
	return nil
}

// guess is the number of entries that would leave half of the spare room, if all
// of them took the same.
func (f *fitting) guess() int {
	room := MaxEncoded - spare/2 - len(f.value)
	return f.fits + (f.fails-f.fits)*room/(f.failsSize-len(f.value))
}

// try encodes the first n entries.
func (f *fitting) try(n int) error {
	candidate := withEntries(f.program, f.entries[:n])
	value, err := encode(candidate)
	switch {
	case errors.Is(err, ErrTooLarge):
		f.fails, f.failsSize = n, max(2*MaxEncoded, f.failsSize/2)
	case err != nil:
		return err
	case len(value) > MaxEncoded:
		f.fails, f.failsSize = n, len(value)
	default:
		f.fits, f.fitted, f.value = n, candidate, value
	}
	return nil
}

// entry is one range of one group: the unit that is left out.
type entry struct {
	group     int
	addresses Range
}

// entriesOf are the entries of the program, those to keep first.
func entriesOf(p Program, keep func(netip.Addr) bool) (entries []entry, keeping int) {
	var kept, others []entry
	for i, g := range p.Groups {
		for _, r := range g.Addresses {
			// A range is split where it holds both kinds.
			for addr := r.From(); ; {
				end := addr
				for end != r.To() && keep(end.Next()) == keep(addr) {
					end = end.Next()
				}
				e := entry{group: i, addresses: Range(netipx.IPRangeFrom(addr, end))}
				if keep(addr) {
					kept = append(kept, e)
				} else {
					others = append(others, e)
				}
				if end == r.To() {
					break
				}
				addr = end.Next()
			}
		}
	}
	return append(kept, others...), len(kept)
}

func withEntries(p Program, entries []entry) Program {
	ranges := make([][]Range, len(p.Groups))
	for _, e := range entries {
		ranges[e.group] = append(ranges[e.group], e.addresses)
	}
	groups := p.Groups
	p.Groups = nil
	for i, g := range groups {
		if len(ranges[i]) > 0 {
			g.Addresses = ranges[i]
			p.Groups = append(p.Groups, g)
		}
	}
	p.Peers = append([]Peer(nil), p.Peers...)
	p.Normalize()
	return p
}
