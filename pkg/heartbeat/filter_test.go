package heartbeat

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/net/bpf"
)

// TestAdmission runs the program as the kernel would, on packets to and from all kinds
// of nodes, that differ in either half of the name.
func TestAdmission(t *testing.T) {
	nodes := []id{0, 1, 2, 1 << 32, 1<<32 | 1, 1<<32 | 2, 1 << 63, ^id(0)}
	random := rand.New(rand.NewPCG(1, 2))
	many := make([]id, maxAdmitted)
	for i := range many {
		many[i] = id(random.Uint64())
	}
	for name, test := range map[string]struct {
		self    id
		fellows []id
		all     bool // who the sender is does not matter
	}{
		"nobody":   {1, nil, false},
		"one":      {1, []id{2}, false},
		"some":     {1<<32 | 1, []id{1, 1<<32 | 2, ^id(0)}, false},
		"many":     {0, append(many[1:], nodes[3]), false},
		"too many": {0, append(many, nodes[3]), true},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := admission(test.self, test.fellows)
			if err != nil {
				t.Fatal(err)
			}
			if len(raw) > 4096 {
				t.Errorf("%d instructions", len(raw))
			}
			program, ok := bpf.Disassemble(raw)
			if !ok {
				t.Fatal("it is no program")
			}
			vm, err := bpf.NewVM(program)
			if err != nil {
				t.Fatal(err)
			}
			run := func(p packet) int {
				n, err := vm.Run(append(make([]byte, udpHeader), p.append(nil)...))
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			fellows := make(map[id]bool)
			for _, f := range test.fellows {
				fellows[f] = true
				if n := run(packet{from: f, to: test.self}); n < maxPacket {
					t.Fatalf("of a packet from %x: %d octets", f, n)
				}
			}
			for _, from := range nodes {
				for _, to := range nodes {
					pass := run(packet{from: from, to: to}) > 0
					if want := to == test.self && (test.all || fellows[from]); pass != want {
						t.Errorf("from %x to %x: %v, want %v", from, to, pass, want)
					}
				}
			}
			for n := range udpHeader + 20 {
				if got, err := vm.Run(make([]byte, n)); err != nil || got != 0 && n < udpHeader+12 {
					t.Errorf("of %d octets: %d, %v", n, got, err)
				}
			}
		})
	}
}
