package filter

import (
	"slices"

	"golang.org/x/net/bpf"
)

const (
	// maxSkip is how far a conditional jump reaches.
	maxSkip = 255

	// maxMemory is what a program may take of a socket's option memory. The
	// kernel translates programs and accounts the result; up to Linux 6.7 a
	// socket gets 20 KiB (net.core.optmem_max), and a program is accounted
	// before the one that it replaces is given back. That is less than the limit
	// of 4096 instructions ever allows.
	maxMemory = 20<<10/2 - 1
	// instructionSize is that of the kernel's own instructions, fixedSize at
	// least that of what it keeps besides.
	instructionSize = 8
	fixedSize       = 128

	// signBit makes a constant a negative one to the kernel.
	signBit = 1 << 31
)

// What an instruction becomes in the kernel (bpf_convert_filter in
// net/core/filter.c), in instructions of its own, rounded up.
const (
	costStart     = 8
	costLoad      = 15 // from the packet: checks its length, calls a function for what is not linear
	costExtension = 6
	costReturn    = 2
	costOther     = 1
)

// program is a BPF program in the making, last instruction first.
type program struct {
	reversed []bpf.RawInstruction
	cost     int
	err      error

	accept, reject *label
}

// label is an instruction to jump to. Where it is too far for a conditional jump,
// a copy of it (a return) or a jump to it is put within reach, and taken from
// then on: whatever is written later is nearer to that one.
type label struct {
	at     int // index in reversed
	isExit bool
}

func newProgram() *program {
	p := &program{cost: costStart}
	p.reject = p.exit(0)
	p.accept = p.exit(wholeFrame)
	return p
}

// emit prepends an instruction.
func (p *program) emit(cost int, instruction bpf.RawInstruction, err error) *label {
	if err != nil && p.err == nil {
		p.err = err
	}
	p.reversed = append(p.reversed, instruction)
	p.cost += cost
	return &label{at: len(p.reversed) - 1}
}

func (p *program) exit(length uint32) *label {
	instruction, err := bpf.RetConstant{Val: length}.Assemble()
	to := p.emit(costReturn, instruction, err)
	to.isExit = true
	return to
}

// skip is the number of instructions between the next one to emit and the label.
func (p *program) skip(to *label) int {
	return len(p.reversed) - to.at - 1
}

// near brings the label within reach of the instruction that is emitted after
// as many others.
func (p *program) near(to *label, others int) {
	if p.skip(to)+others > maxSkip {
		p.bring(to)
	}
}

// then emits an instruction after which the program goes on at next.
func (p *program) then(next *label, cost int, instruction bpf.RawInstruction, err error) *label {
	if p.skip(next) > 0 {
		p.bring(next)
	}
	return p.emit(cost, instruction, err)
}

// bring emits what does the same as the label.
func (p *program) bring(to *label) {
	if to.isExit {
		to.at = p.emit(costReturn, p.reversed[to.at], nil).at
		return
	}
	jump, err := bpf.Jump{Skip: uint32(p.skip(to))}.Assemble()
	to.at = p.emit(costOther, jump, err).at
}

// test compares what is loaded with a value. It is cheapest where one of the
// labels is the instruction emitted last.
func (p *program) test(condition bpf.JumpTest, value uint32, yes, no *label) *label {
	p.near(yes, 1) // no may need an instruction between
	p.near(no, 0)
	skipYes, skipNo := p.skip(yes), p.skip(no)
	cost := costOther
	if skipYes > 0 && skipNo > 0 {
		cost++
	}
	if value >= signBit {
		cost++
	}
	jump, err := bpf.JumpIf{Cond: condition, Val: value, SkipTrue: uint8(skipYes), SkipFalse: uint8(skipNo)}.Assemble()
	return p.emit(cost, jump, err)
}

// load loads a number of that many octets. Where the frame is too short, the
// program ends and rejects.
func (p *program) load(offset uint32, size int, next *label) *label {
	instruction, err := bpf.LoadAbsolute{Off: offset, Size: size}.Assemble()
	return p.then(next, costLoad, instruction, err)
}

func (p *program) extension(number bpf.Extension, next *label) *label {
	instruction, err := bpf.LoadExtension{Num: number}.Assemble()
	return p.then(next, costExtension, instruction, err)
}

// recall loads a word that remember has put into a place of the scratch memory.
// That is much cheaper than loading it from the packet twice.
func (p *program) recall(place int, next *label) *label {
	instruction, err := bpf.LoadScratch{Dst: bpf.RegA, N: place}.Assemble()
	return p.then(next, costOther, instruction, err)
}

// remember loads a word from the packet and puts it into that place.
func (p *program) remember(offset uint32, place int, next *label) *label {
	instruction, err := bpf.StoreScratch{Src: bpf.RegA, N: place}.Assemble()
	return p.load(offset, 4, p.then(next, costOther, instruction, err))
}

// renew gives what is emitted from now on a reject of its own. It must follow when
// all is remembered: to the kernel, which looks at one instruction after the
// other, a place is unset behind a return to which a jump leads from before the
// place was set, and it refuses a program that recalls it there.
func (p *program) renew() {
	p.reject = p.exit(0)
}

// flip inverts the highest bit of what is loaded.
func (p *program) flip(next *label) *label {
	instruction, err := bpf.ALUOpConstant{Op: bpf.ALUOpXor, Val: signBit}.Assemble()
	return p.then(next, costOther+1, instruction, err)
}

// check rejects frames in which the number at the offset is another.
func (p *program) check(offset uint32, size int, value uint32, next *label) *label {
	return p.load(offset, size, p.test(bpf.JumpEqual, value, next, p.reject))
}

func (p *program) memory() int { return fixedSize + instructionSize*p.cost }

func (p *program) fits() bool { return p.memory() <= maxMemory }

func (p *program) instructions() ([]bpf.RawInstruction, error) {
	if p.err != nil {
		return nil, p.err
	}
	slices.Reverse(p.reversed)
	return p.reversed, nil
}
