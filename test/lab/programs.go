package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// commandFile is the lab's program in the directory of a lab: a copy, so that
// a later build does not change a lab that runs.
const commandFile = "labctl"

// EchoImage is the base name of the image of the echo server.
const EchoImage = "lab-echo"

// requiredPrograms are what a lab runs of Kubernetes, and the machine's tools.
var (
	labPrograms     = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"}
	machinePrograms = []string{"ip", "nft"}
	routerPrograms  = map[string][]string{
		BIRD: {"/usr/sbin/bird", "/usr/sbin/birdc"},
		FRR:  {"/usr/lib/frr/zebra", "/usr/lib/frr/bgpd", "/usr/bin/vtysh"},
	}
)

// projectRoot finds the checkout: from the program, if it is in bin/lab, or
// else from the working directory, as tests run in their package's.
func projectRoot() (string, error) {
	if exe, err := os.Executable(); err == nil {
		if dir := filepath.Dir(exe); filepath.Base(dir) == "lab" && filepath.Base(filepath.Dir(dir)) == "bin" {
			return filepath.Dir(filepath.Dir(dir)), nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod above the working directory")
}

// checkPrograms tells what a lab of this kind is missing.
func checkPrograms(root, router string) error {
	var errs []error
	for _, p := range labPrograms {
		if _, err := os.Stat(filepath.Join(root, "bin", "lab", p)); err != nil {
			errs = append(errs, fmt.Errorf("%w (make lab-binaries)", err))
		}
	}
	for _, p := range append(machinePrograms, routerPrograms[router]...) {
		if _, err := exec.LookPath(p); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

var buildCommand = sync.OnceValues(func() (string, error) {
	if exe, err := os.Executable(); err == nil && filepath.Base(exe) == commandFile {
		return exe, nil
	}
	root, err := projectRoot()
	if err != nil {
		return "", err
	}
	// The build cache makes this quick when nothing has changed, and a test
	// never runs an old lab.
	target := filepath.Join(root, "bin", "lab", commandFile)
	build := exec.Command("go", "build", "-o", target, "./test/lab/labctl")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the lab's program: %w: %s", err, out)
	}
	return target, nil
})

// installCommand puts the lab's program into the directory of a lab.
func installCommand(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := projectRoot()
	if err != nil {
		return err
	}
	// Tests of other packages may be building it at the same time.
	lock, err := os.Open(filepath.Join(root, "bin", "lab"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	source, err := buildCommand()
	if err != nil {
		return err
	}
	target := filepath.Join(dir, commandFile)
	err = os.Link(source, target)
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copy the lab's program: %w", err)
	}
	return out.Close()
}
