package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// FloodOptions describe requests for addresses that nobody needs to have.
type FloodOptions struct {
	// Interface to send on. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Addresses to ask for, in turn: single ones, ranges, or prefixes.
	Addresses []string `json:"addresses"`
	// Rate is how many requests to send each second. Default 20,000.
	Rate int `json:"rate,omitempty"`
	// Duration of the flood. Default 10s.
	Duration time.Duration `json:"duration,omitempty"`
}

// flood asks for addresses in broadcasts and multicasts.
func flood(ctx context.Context, o FloodOptions, out *printer) (report Report, err error) {
	addresses, err := Expand(o.Addresses)
	if err != nil {
		return report, err
	}
	if o.Rate <= 0 {
		o.Rate = 20_000
	}
	if o.Duration <= 0 {
		o.Duration = 10 * time.Second
	}
	p, err := open(o.Interface, nothing)
	if err != nil {
		return report, err
	}
	defer p.conn.Close()
	requests := make([][]byte, len(addresses))
	for i, address := range addresses {
		sender, err := p.own(address)
		if err != nil {
			return report, err
		}
		requests[i] = request(p.mac, sender, address, nil, true)
	}
	return report, transmit(ctx, p, o.Rate, o.Duration, out, &report, func(i int) []byte { return requests[i%len(requests)] })
}

// transmit sends frames at a rate for some time. A machine too slow for the
// rate sends fewer frames, not longer.
func transmit(ctx context.Context, p *port, rate int, d time.Duration, out *printer, report *Report, next func(i int) []byte) error {
	n := int(min(float64(rate)*d.Seconds(), maxFrames))
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if err := out.print(Line{Ready: true}); err != nil {
		return err
	}
	return pace(ctx, n, time.Second/time.Duration(rate), func(i int) error {
		report.Sent++
		return p.send(next(i))
	})
}

// ClaimOptions describe claims to addresses of others.
type ClaimOptions struct {
	// Interface to send on. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Addresses to claim: single ones, ranges, or prefixes.
	Addresses []string `json:"addresses"`
	// MAC address to claim them for. Default the interface's own.
	MAC string `json:"mac,omitempty"`
	// Reply sends ARP replies instead of requests; both forms are in use
	// (RFC 5227 section 3). Of NDP there is one form.
	Reply bool `json:"reply,omitempty"`
	// Count is how often to claim each address, Every the time between two
	// rounds. Defaults are once, and a second.
	Count int           `json:"count,omitempty"`
	Every time.Duration `json:"every,omitempty"`
}

// claim sends gratuitous ARP packets and unsolicited advertisements.
func claim(ctx context.Context, o ClaimOptions, out *printer) (report Report, err error) {
	addresses, err := Expand(o.Addresses)
	if err != nil {
		return report, err
	}
	if o.Count <= 0 {
		o.Count = 1
	}
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if len(addresses)*o.Count > maxFrames {
		return report, fmt.Errorf("%d claims are more than %d", len(addresses)*o.Count, maxFrames)
	}
	p, err := open(o.Interface, nothing)
	if err != nil {
		return report, err
	}
	defer p.conn.Close()
	mac, err := p.macOr(o.MAC)
	if err != nil {
		return report, err
	}
	if err := out.print(Line{Ready: true}); err != nil {
		return report, err
	}
	return report, pace(ctx, o.Count, o.Every, func(int) error {
		for _, address := range addresses {
			if err := p.send(gratuitous(address, mac, mac, o.Reply)); err != nil {
				return err
			}
			report.Sent++
		}
		return nil
	})
}

func (p *port) macOr(text string) (net.HardwareAddr, error) {
	if text == "" {
		return p.mac, nil
	}
	return net.ParseMAC(text)
}

// RespondOptions describe a host that uses addresses.
type RespondOptions struct {
	// Interface to answer on. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Addresses it uses: single ones, ranges, or prefixes.
	Addresses []string `json:"addresses"`
	// MAC address of the host. Default the interface's own.
	MAC string `json:"mac,omitempty"`
	// Source of the Ethernet header. Default MAC.
	Source string `json:"source,omitempty"`
	// Duration it answers. Default a quarter of an hour.
	Duration time.Duration `json:"duration,omitempty"`
}

// respond answers those who ask for addresses.
func respond(ctx context.Context, o RespondOptions, out *printer) (report Report, err error) {
	addresses, err := Expand(o.Addresses)
	if err != nil {
		return report, err
	}
	used := make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		used[a] = true
	}
	p, err := open(o.Interface, received)
	if err != nil {
		return report, err
	}
	defer p.conn.Close()
	mac, err := p.macOr(o.MAC)
	if err != nil {
		return report, err
	}
	source := mac
	if o.Source != "" {
		if source, err = net.ParseMAC(o.Source); err != nil {
			return report, err
		}
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	if err := out.print(Line{Ready: true}); err != nil {
		return report, err
	}
	var failed error
	err = p.receive(ctx, func(packet Packet) bool {
		if packet.Malformed != "" || packet.Kind != ARPRequest && packet.Kind != Solicitation || packet.Gratuitous() || !used[packet.TargetIP] {
			return true
		}
		report.Received++
		var frame []byte
		if frame, failed = answer(&packet, source, mac); failed == nil {
			failed = p.send(frame)
			report.Sent++
		}
		return failed == nil && report.Sent < maxFrames
	})
	if err == nil {
		err = failed
	}
	report.Dropped = p.dropped()
	return report, err
}
