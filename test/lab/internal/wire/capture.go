package wire

import (
	"context"
	"fmt"
	"time"
)

// CaptureOptions say what to listen to.
type CaptureOptions struct {
	// Interface to listen on. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Claims leaves out what claims no address, such as probes and malformed
	// packets.
	Claims bool `json:"claims,omitempty"`
	// Count and Duration end the capture. Defaults are a million packets and a
	// quarter of an hour.
	Count    int           `json:"count,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`
}

// capture prints the packets that an interface receives and sends.
func capture(ctx context.Context, o CaptureOptions, out *printer) (report Report, err error) {
	if o.Count <= 0 || o.Count > maxPackets {
		o.Count = maxPackets
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	p, err := open(o.Interface, everything)
	if err != nil {
		return report, err
	}
	defer p.conn.Close()
	if err := out.print(Line{Ready: true}); err != nil {
		return report, err
	}
	var failed error
	err = p.receive(ctx, func(packet Packet) bool {
		if _, _, ok := packet.Claim(); o.Claims && !ok {
			return true
		}
		report.Received++
		failed = out.print(Line{Packet: &packet})
		return failed == nil && report.Received < o.Count
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return report, fmt.Errorf("capture: %w", err)
	}
	report.Dropped = p.dropped()
	return report, nil
}
