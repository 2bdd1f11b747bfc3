package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// AskOptions say how to ask for addresses.
type AskOptions struct {
	// Interface to ask on. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Addresses are single ones, ranges (FROM-TO), or prefixes.
	Addresses []string `json:"addresses"`
	// Count is how often to ask for each. Default 1.
	Count int `json:"count,omitempty"`
	// Every is the time between two requests; the addresses take turns.
	// Default 500µs.
	Every time.Duration `json:"every,omitempty"`
	// Wait is how long to wait for answers after the last request. Default
	// 500ms.
	Wait time.Duration `json:"wait,omitempty"`
	// Unicast is the MAC address to send to, as a kernel does that verifies an
	// entry of its neighbour table. Default broadcast or multicast.
	Unicast string `json:"unicast,omitempty"`
	// NoOption leaves the source link-layer address out of solicitations.
	NoOption bool `json:"noOption,omitempty"`
	// Probe asks as one who wants to use the address: an ARP probe (RFC 5227),
	// or a solicitation of duplicate address detection (RFC 4862).
	Probe bool `json:"probe,omitempty"`
}

// Answer is what came of asking for an address.
type Answer struct {
	Address netip.Addr `json:"address"`
	// Asked counts the requests, Answered those that got an answer before the
	// next one for the same address, Replies all answers.
	Asked    int `json:"asked"`
	Answered int `json:"answered"`
	Replies  int `json:"replies"`
	// MACs are the addresses told in answers, Sources those of their Ethernet
	// headers; each once, sorted.
	MACs    []string `json:"macs,omitempty"`
	Sources []string `json:"sources,omitempty"`
	// Latencies of the requests that were answered, in their order: the time to
	// the first answer.
	Latencies []time.Duration `json:"latencies,omitempty"`

	asked   time.Time
	waiting bool
}

// ask sends requests and prints an Answer for each address.
func ask(ctx context.Context, o AskOptions, out *printer) (report Report, err error) {
	addresses, err := Expand(o.Addresses)
	if err != nil {
		return report, err
	}
	if o.Count <= 0 {
		o.Count = 1
	}
	if o.Every <= 0 {
		o.Every = 500 * time.Microsecond
	}
	if o.Wait <= 0 {
		o.Wait = 500 * time.Millisecond
	}
	if len(addresses)*o.Count > maxFrames {
		return report, fmt.Errorf("%d requests are more than %d", len(addresses)*o.Count, maxFrames)
	}
	p, err := open(o.Interface, received)
	if err != nil {
		return report, err
	}
	defer p.conn.Close()
	a := &asker{port: p, answers: make([]Answer, len(addresses)), byAddress: make(map[netip.Addr]*Answer, len(addresses)), probe: o.Probe}
	requests := make([][]byte, len(addresses))
	for i, address := range addresses {
		a.answers[i].Address = address
		a.byAddress[address] = &a.answers[i]
		if requests[i], err = a.request(o, address); err != nil {
			return report, err
		}
	}

	listening, stop := context.WithCancel(ctx)
	defer stop()
	heard := make(chan error, 1)
	go func() { heard <- p.receive(listening, a.hear) }()
	err = pace(ctx, len(addresses)*o.Count, o.Every, func(i int) error {
		i %= len(addresses)
		a.note(i)
		report.Sent++
		return p.send(requests[i])
	})
	if err != nil {
		return report, err
	}
	select {
	case <-time.After(o.Wait):
	case <-ctx.Done():
	}
	stop()
	if err := <-heard; err != nil {
		return report, err
	}
	report.Dropped = p.dropped()
	for i := range a.answers {
		report.Received += a.answers[i].Replies
		if err := out.print(Line{Answer: &a.answers[i]}); err != nil {
			return report, err
		}
	}
	return report, nil
}

// asker relates answers to requests.
type asker struct {
	port  *port
	probe bool

	mu        sync.Mutex
	answers   []Answer
	byAddress map[netip.Addr]*Answer
}

func (a *asker) request(o AskOptions, address netip.Addr) ([]byte, error) {
	var to net.HardwareAddr
	if o.Unicast != "" {
		mac, err := net.ParseMAC(o.Unicast)
		if err != nil {
			return nil, err
		}
		to = mac
	}
	if o.Probe {
		sender := netip.IPv4Unspecified()
		if address.Is6() {
			sender = netip.IPv6Unspecified()
		}
		return request(a.port.mac, sender, address, to, false), nil
	}
	sender, err := a.port.own(address)
	if err != nil {
		return nil, err
	}
	return request(a.port.mac, sender, address, to, !o.NoOption), nil
}

func (a *asker) note(i int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := &a.answers[i]
	answer.Asked++
	answer.asked, answer.waiting = time.Now(), true
}

func (a *asker) hear(p Packet) bool {
	if p.Malformed != "" || p.Kind != ARPReply && p.Kind != Advertising {
		return true
	}
	// Answers come to the asker alone, but for those to an asker without an
	// address (RFC 4861 section 7.2.4).
	if p.Destination != a.port.mac.String() && !(a.probe && p.Kind == Advertising) {
		return true
	}
	address, mac, ok := p.Claim()
	if !ok {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := a.byAddress[address]
	if answer == nil || answer.Asked == 0 {
		return true
	}
	answer.Replies++
	answer.MACs, answer.Sources = insert(answer.MACs, mac), insert(answer.Sources, p.Source)
	if answer.waiting {
		answer.waiting = false
		answer.Answered++
		answer.Latencies = append(answer.Latencies, p.Time.Sub(answer.asked))
	}
	return true
}

// insert keeps a sorted list of distinct texts.
func insert(list []string, text string) []string {
	if i, found := slices.BinarySearch(list, text); !found {
		return slices.Insert(list, i, text)
	}
	return list
}
