package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

// runAsCommand makes the test binary be the command, so that tests kill and
// restart the real thing.
const runAsCommand = "RUN_AS_" + "BAREMETAL_CLOUD_CONTROLLER_MANAGER"

var binary = flag.String("binary", "", "program to test; default: this one")

func TestMain(m *testing.M) {
	if os.Getenv(runAsCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a running cloud-controller-manager.
type process struct {
	*exec.Cmd
	log string
}

// start starts a cloud-controller-manager against the server.
func start(t testing.TB, server *apiserver.Server, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "ccm-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	executable := *binary
	if executable == "" {
		if executable, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	p := &process{log: log.Name()}
	p.Cmd = exec.Command(executable, append([]string{
		"--kubeconfig=" + server.Kubeconfig,
		"--authentication-kubeconfig=" + server.Kubeconfig,
		"--authorization-kubeconfig=" + server.Kubeconfig,
		"--authentication-skip-lookup",
		"--secure-port=" + freePort(t),
		"--leader-elect=false",
	}, args...)...)
	p.Env = append(os.Environ(), runAsCommand+"=1")
	p.Stdout, p.Stderr = log, log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("%s:\n%s", filepath.Base(p.log), text[max(0, len(text)-32768):])
		}
	})
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// terminate ends the process as a kubelet does, and returns its exit code.
func (p *process) terminate(t testing.TB) int {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	return p.ProcessState.ExitCode()
}

// ended reports whether the process has ended, and waits for nobody.
func (p *process) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// logged reports whether the process has written the text.
func (p *process) logged(text string) bool {
	content, _ := os.ReadFile(p.log)
	return bytes.Contains(content, []byte(text))
}

// resident is the resident memory of the process, in MiB.
func (p *process) resident(t testing.TB) int {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	t.Fatal("no VmRSS in /proc")
	return 0
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// eventually waits until the condition holds, and returns how long it took.
func eventually(t testing.TB, within time.Duration, what string, condition func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !condition() {
		if time.Since(begin) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}
