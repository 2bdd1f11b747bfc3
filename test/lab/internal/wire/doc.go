// Package wire speaks ARP (RFC 826) and NDP (RFC 4861) from raw sockets, as
// hosts of the lab do: it asks for addresses, listens, floods, claims, answers,
// and sends what nobody should. All of it is bounded in count and in time.
//
// Nothing here touches the neighbour table of the host's kernel, so that
// thousands of addresses can be asked for. Frames with a VLAN tag are not seen.
package wire

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Bounds of every program here.
const (
	maxDuration  = 15 * time.Minute
	maxFrames    = 20_000_000
	maxPackets   = 1_000_000 // that a capture keeps
	maxAddresses = 1 << 17
)

// Line is what a program prints, as a line of JSON each: one with Ready when it
// listens or is about to send, then what it finds.
type Line struct {
	Ready  bool    `json:"ready,omitempty"`
	Packet *Packet `json:"packet,omitempty"`
	Answer *Answer `json:"answer,omitempty"`
	Report *Report `json:"report,omitempty"`
}

// Report is what a program did, when it has ended.
type Report struct {
	// Sent counts the frames sent, and Kinds those of each kind.
	Sent  int            `json:"sent"`
	Kinds map[string]int `json:"kinds,omitempty"`
	// Received counts the packets read, and Dropped those that the kernel had
	// no room for.
	Received int `json:"received,omitempty"`
	Dropped  int `json:"dropped,omitempty"`
	// Took is how long it ran.
	Took time.Duration `json:"took"`
}

// Names of the programs.
const (
	AskProgram     = "ask"
	CaptureProgram = "capture"
	FloodProgram   = "flood"
	ClaimProgram   = "claim"
	RespondProgram = "respond"
	GarbleProgram  = "garble"
)

// Main runs a program with its options as JSON. It ends by itself, with ctx, or
// when its input ends.
func Main(ctx context.Context, program, options string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, maxDuration)
	defer cancel()
	go func() { // ends with the process, if nothing else
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	print := &printer{encoder: json.NewEncoder(out)}
	switch program {
	case AskProgram:
		return run(ctx, options, print, ask)
	case CaptureProgram:
		return run(ctx, options, print, capture)
	case FloodProgram:
		return run(ctx, options, print, flood)
	case ClaimProgram:
		return run(ctx, options, print, claim)
	case RespondProgram:
		return run(ctx, options, print, respond)
	case GarbleProgram:
		return run(ctx, options, print, garble)
	}
	return fmt.Errorf("no program %q", program)
}

func run[O any](ctx context.Context, options string, out *printer, f func(context.Context, O, *printer) (Report, error)) error {
	var o O
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	start := time.Now()
	report, err := f(ctx, o, out)
	if err != nil {
		return err
	}
	report.Took = time.Since(start)
	return out.print(Line{Report: &report})
}

// printer writes lines from several goroutines.
type printer struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (p *printer) print(l Line) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.encoder.Encode(l)
}

// pace calls f n times, or until ctx ends, at an interval: calls that are late
// are made up for, and calls closer than a millisecond come in bunches.
func pace(ctx context.Context, n int, every time.Duration, f func(i int) error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	start := time.Now()
	for i := range n {
		if wait := time.Until(start.Add(time.Duration(i) * every)); wait > 0 {
			timer.Reset(max(wait, time.Millisecond))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}
