package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// encoded is the annotation with the program.
func encoded(t testing.TB, p announce.Program) string {
	t.Helper()
	p.Normalize()
	value, err := announce.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// scattered is a program of n addresses that cannot be joined into ranges.
func scattered(n int) announce.Program {
	p := announce.Program{Epoch: 7, Cluster: "c1", Groups: []announce.Group{{Pool: "scattered", BGP: &announce.BGP{LocalPref: 100}}}}
	random := rand.New(rand.NewPCG(1, 2))
	addr := netip.MustParseAddr("2001:db8::")
	for range n {
		for range 2 + random.IntN(200) {
			addr = addr.Next()
		}
		p.Groups[0].Addresses = append(p.Groups[0].Addresses, announce.Single(addr))
	}
	return p
}

// sample is a state that encode accepts, with a small program.
func sample(t testing.TB) State {
	return State{Cluster: "c1", Node: "n1", NodeUID: "u1", BootID: "b1", Program: encoded(t, scattered(3))}
}

// known is the Identity of the sample's reader.
var known = Identity{Node: "n1", NodeUID: "u1", Cluster: "c1"}

// edited is the sample's file with another value of one field, or of several.
func edited(t testing.TB, fields map[string]any) []byte {
	t.Helper()
	data, err := encode(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		all[name] = value
	}
	data, err = json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withProgram is the sample's file with another program.
func withProgram(t testing.TB, program string) []byte {
	return edited(t, map[string]any{"program": program, "sha256": checksum(program)})
}

func TestEnvelopeRoundTrip(t *testing.T) {
	t.Parallel()
	plain, packed := encoded(t, scattered(900)), encoded(t, scattered(42_000))
	for name, size := range map[string]struct {
		program  string
		min, max int
	}{
		"plain":  {plain, announce.CompressAbove * 9 / 10, announce.CompressAbove},
		"packed": {packed, announce.MaxEncoded * 9 / 10, announce.MaxEncoded},
	} {
		if n := len(size.program); n < size.min || n > size.max {
			t.Errorf("%s: %d bytes, want %d to %d for the test to mean anything", name, n, size.min, size.max)
		}
	}
	small := encoded(t, scattered(3))
	largest := strings.Repeat("\n", announce.MaxEncoded-len(small))
	long := strings.Repeat(`\`, maxIdentity)
	for name, s := range map[string]State{
		"small":        sample(t),
		"quotes":       {Cluster: "c1", Node: "n1", Program: plain},
		"packed":       {Cluster: "c1", Node: "n1", Program: packed},
		"worst escape": {Cluster: "c1", Node: long, NodeUID: long, BootID: long, Program: "{" + largest + small[1:]},
		"no cluster":   {Node: "n1", Program: encoded(t, announce.Program{Epoch: 1})},
	} {
		data, err := encode(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, p, err := decode(data, Identity{Node: s.Node, NodeUID: s.NodeUID, Cluster: s.Cluster})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got != s {
			t.Errorf("%s: another state comes back", name)
		}
		if want, _ := announce.Decode(s.Program); p.Hash != want.Hash || p.Epoch != want.Epoch {
			t.Errorf("%s: another program comes back", name)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*State){
		"no name of a Node":  func(s *State) { s.Node = "" },
		"bootID":             func(s *State) { s.BootID = "two\nlines" },
		"nodeUID":            func(s *State) { s.NodeUID = strings.Repeat("u", maxIdentity+1) },
		"cluster":            func(s *State) { s.Cluster = "\xff" },
		"program: too large": func(s *State) { s.Program = strings.Repeat("a", announce.MaxEncoded+1) },
		"program: not UTF-8": func(s *State) { s.Program = "{\xff}" },
		"too large: ":        func(s *State) { s.Program = strings.Repeat("\x01", announce.MaxEncoded) },
	} {
		s := sample(t)
		edit(&s)
		if _, err := encode(s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	whole, err := encode(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	newer := announce.Program{Cluster: "c1"}
	newer.Normalize()
	newer.Version = announce.FormatVersion + 1
	later, err := json.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := scattered(3)
	elsewhere.Cluster = "c2"
	for name, c := range map[string]struct {
		data []byte
		who  Identity
		want error
		text string // of the error
	}{
		"empty":                  {data: nil, want: ErrCorrupt},
		"zeros":                  {data: make([]byte, 4096), want: ErrCorrupt},
		"null":                   {data: []byte("null"), want: ErrVersion},
		"no JSON":                {data: []byte("announce everything"), want: ErrCorrupt},
		"truncated":              {data: whole[:len(whole)/2], want: ErrCorrupt},
		"no end":                 {data: whole[:len(whole)-2], want: ErrCorrupt},
		"data after it":          {data: append(bytes.Clone(whole), whole...), want: ErrCorrupt},
		"brace after it":         {data: append(bytes.Clone(whole), '}'), want: ErrCorrupt},
		"unknown field":          {data: edited(t, map[string]any{"nodes": 1}), want: ErrCorrupt, text: "nodes"},
		"wrong type":             {data: edited(t, map[string]any{"node": 1}), want: ErrCorrupt},
		"format is text":         {data: edited(t, map[string]any{"format": "1"}), want: ErrCorrupt},
		"checksum":               {data: edited(t, map[string]any{"sha256": checksum("")}), want: ErrCorrupt, text: "checksum"},
		"no checksum":            {data: edited(t, map[string]any{"sha256": ""}), want: ErrCorrupt, text: "checksum"},
		"other text":             {data: edited(t, map[string]any{"program": "{}"}), want: ErrCorrupt, text: "checksum"},
		"no node":                {data: edited(t, map[string]any{"node": ""}), want: ErrCorrupt},
		"control character":      {data: edited(t, map[string]any{"bootID": "\x00"}), want: ErrCorrupt, text: "bootID"},
		"older format":           {data: edited(t, map[string]any{"format": 0}), want: ErrVersion, text: "0"},
		"newer format":           {data: edited(t, map[string]any{"format": 2, "later": 1}), want: ErrVersion, text: "2"},
		"another node":           {data: whole, who: Identity{Node: "n2"}, want: ErrForeign, text: `Node "n1"`},
		"node of that name":      {data: whole, who: Identity{Node: "n1", NodeUID: "u2"}, want: ErrForeign, text: `Node UID "u1"`},
		"another cluster":        {data: whole, who: Identity{Node: "n1", Cluster: "c2"}, want: ErrForeign, text: `cluster "c1"`},
		"unknown node UID in it": {data: edited(t, map[string]any{"nodeUID": ""}), who: known, want: ErrForeign},
		"program of another":     {data: withProgram(t, encoded(t, elsewhere)), want: ErrForeign, text: `cluster "c2"`},
		"cluster was edited":     {data: edited(t, map[string]any{"cluster": "c2"}), want: ErrForeign},
		"no program":             {data: withProgram(t, ""), want: ErrProgram},
		"program is no program":  {data: withProgram(t, "{}"), want: ErrProgram},
		"program of a later":     {data: withProgram(t, string(later)), want: ErrProgram, text: "version 2"},
		"program too large":      {data: withProgram(t, strings.Repeat("a", announce.MaxEncoded+1)), want: ErrTooLarge},
		"not UTF-8":              {data: bytes.Replace(whole, []byte("scattered"), []byte("scatt\xffred"), 1), want: ErrCorrupt, text: "checksum"},
	} {
		s, p, err := decode(c.data, c.who)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got error %v, want %v with %q", name, err, c.want, c.text)
		}
		if s != (State{}) || p.Version != 0 || p.Groups != nil {
			t.Errorf("%s: a part of a result: %+v", name, s)
		}
	}
	if _, _, err := decode(withProgram(t, string(later)), known); !errors.As(err, new(announce.UnknownVersionError)) {
		t.Errorf("a program of a later version: %v", err)
	}
}

// TestDecodeRefusesDamage changes each byte of a file: what is still read is
// what was written, but for names that a reader compares or that only make it
// more careful.
func TestDecodeRefusesDamage(t *testing.T) {
	t.Parallel()
	s := sample(t)
	whole, err := encode(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		for _, bit := range []byte{1, 2, 4, 8, 16, 32, 64, 128} {
			data := bytes.Clone(whole)
			data[i] ^= bit
			got, _, err := decode(data, known)
			got.BootID = s.BootID
			if err == nil && got != s {
				t.Errorf("byte %d is %q and not %q: read as %+v", i, data[i], whole[i], got)
			}
		}
	}
}

// FuzzRead also tries each input with its checksum corrected, for no mutation
// gets past that.
func FuzzRead(f *testing.F) {
	whole, err := encode(sample(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	f.Add([]byte(`{"format":1}`))
	f.Add(edited(f, map[string]any{"format": 2, "later": true}))
	f.Add(edited(f, map[string]any{"bootID": "\u2028", "node": `"\`}))
	f.Add(withProgram(f, encoded(f, announce.Program{Cluster: "c1"})))
	f.Add(withProgram(f, encoded(f, scattered(1000)))) // compressed
	f.Add(withProgram(f, `{"version":2}`))
	f.Add(append(bytes.Clone(whole), '}'))
	f.Fuzz(func(t *testing.T, data []byte) {
		check(t, data)
		var e envelope
		if json.Unmarshal(data, &e) == nil {
			e.Format, e.SHA256 = formatVersion, checksum(e.Program)
			corrected, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			check(t, corrected)
		}
	})
}

// check reads data, and what it is written as again.
func check(t *testing.T, data []byte) {
	s, p, err := decode(data, Identity{})
	if err != nil {
		if s != (State{}) || p.Version != 0 {
			t.Fatalf("a part of a result, with %v", err)
		}
		return
	}
	again, err := encode(s)
	if err != nil {
		t.Fatalf("%+v is read but not written: %v", s, err)
	}
	// A reader that knows all of itself reads it as well.
	got, q, err := decode(again, Identity{Node: s.Node, NodeUID: s.NodeUID, Cluster: s.Cluster})
	if err != nil || got != s || p.Hash != q.Hash || p.Epoch != q.Epoch {
		t.Fatalf("%+v was written as %+v: %v", s, got, err)
	}
}
