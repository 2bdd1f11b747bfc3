package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Usage is what a program has taken so far.
type Usage struct {
	CPU    time.Duration // in user and kernel mode
	RSS    int           // resident memory, in bytes
	PID    int           // on its host
	Starts int           // of the program, the first one counted
}

// ProgramUsage reads what a program of a host, named as in Kill, has taken
// since its start.
func (l *Lab) ProgramUsage(ctx context.Context, host, program string) (Usage, error) {
	status, err := l.Status(ctx)
	if err != nil {
		return Usage{}, err
	}
	for _, h := range status.Hosts {
		if h.Name != host {
			continue
		}
		at := slices.IndexFunc(h.Programs, func(p ProgramStatus) bool { return p.Running && p.Matches(program) })
		if at < 0 {
			break
		}
		p := h.Programs[at]
		text, err := l.On(ctx, host, "cat", fmt.Sprintf("/proc/%d/status", p.PID), fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			return Usage{}, err
		}
		usage, err := parseUsage(text)
		usage.PID, usage.Starts = p.PID, p.Starts
		return usage, err
	}
	return Usage{}, fmt.Errorf("no program %q runs on %s", program, host)
}

// parseUsage reads /proc/PID/status and /proc/PID/stat, see proc(5).
func parseUsage(text string) (Usage, error) {
	var u Usage
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				return u, err
			}
			u.RSS = kib << 10
		}
		if _, fields, ok := strings.Cut(line, ") "); ok { // after the name, which may hold anything
			f := strings.Fields(fields)
			if len(f) < 13 {
				return u, errors.New("/proc/PID/stat is too short")
			}
			const ticksPerSecond = 100
			for _, ticks := range f[11:13] {
				n, err := strconv.Atoi(ticks)
				if err != nil {
					return u, err
				}
				u.CPU += time.Duration(n) * time.Second / ticksPerSecond
			}
		}
	}
	return u, nil
}
