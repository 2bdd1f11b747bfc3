package heartbeat

import (
	"slices"

	"golang.org/x/net/bpf"
)

const (
	// udpHeader is in front of what a filter of a socket sees.
	udpHeader = 8
	// maxAdmitted bounds the fellows that a filter tells from others; the kernel
	// takes 4,096 instructions (BPF_MAXINSNS).
	maxAdmitted = 500
)

// admission is a program for the kernel that drops what is not from a fellow to this
// node, by the names in the packets. Who has not seen any cannot guess these, and
// whatever the sender's addresses are does not matter: fellows change theirs. What
// passes may still be anything.
func admission(self id, fellows []id) ([]bpf.RawInstruction, error) {
	const from, to = udpHeader + 4, udpHeader + 12 // see packet.append
	is := func(at uint32, value id) []bpf.Instruction {
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: at, Size: 4}, // a packet without that is dropped
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(value >> 32), SkipTrue: 3},
			bpf.LoadAbsolute{Off: at + 4, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(value), SkipTrue: 1},
		}
	}
	drop, pass := bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 1 << 18} // octets at most
	program := slices.Concat(is(to, self), []bpf.Instruction{bpf.Jump{Skip: 1}, drop})
	if len(fellows) > maxAdmitted {
		return bpf.Assemble(append(program, pass))
	}
	for _, f := range fellows {
		program = append(append(program, is(from, f)...), pass)
	}
	return bpf.Assemble(append(program, drop))
}
