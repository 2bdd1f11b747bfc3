package lab

import (
	"context"
	"os/exec"
	"runtime"
)

// Saturate keeps all cores of the machine busy, with programs of a host that
// never wait. They end with the returned function, or with the host.
func (l *Lab) Saturate(ctx context.Context, host string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var busy []*exec.Cmd
	stop = func() {
		cancel()
		for _, cmd := range busy {
			_ = cmd.Wait() // it was killed
		}
	}
	for range runtime.NumCPU() {
		cmd := Command(ctx, "sh", "-c", "while :; do :; done")
		if err := l.StartOn(ctx, host, cmd); err != nil {
			stop()
			return nil, err
		}
		busy = append(busy, cmd)
	}
	return stop, nil
}
