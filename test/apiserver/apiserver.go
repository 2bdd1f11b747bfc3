// Package apiserver starts a real etcd and kube-apiserver on the loopback, for
// tests of what a fake client cannot show: defaulting, validation, CRDs, watches
// and leases as users have them.
package apiserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

const (
	token        = "admin"
	startTimeout = time.Minute
)

// Server is a running API server with the CRDs of manifests/crds.
type Server struct {
	// Config reaches the server as a member of system:masters.
	Config *rest.Config
	// Kubeconfig is the path of a file that says the same.
	Kubeconfig string

	dir       string
	log       string
	apiserver *process
	restart   func(testing.TB) *process
}

// Start starts a server that ends with the test, with further flags. Without the
// programs the test is skipped, but fails where CI is set: there a missing program
// is a mistake.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	etcd, apiserver := program(t, "etcd"), program(t, "kube-apiserver")
	s := &Server{dir: t.TempDir()}
	peers, clients, secure := ports(t)

	run(t, filepath.Join(s.dir, "etcd.log"), etcd,
		"--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-peer-urls=http://"+peers, "--listen-client-urls=http://"+clients,
		"--advertise-client-urls=http://"+clients,
		"--initial-advertise-peer-urls=http://"+peers, "--initial-cluster=default=http://"+peers)

	_, port, _ := net.SplitHostPort(secure)
	key := s.write(t, "sa.key", serviceAccountKey(t))
	s.log = filepath.Join(s.dir, "kube-apiserver.log")
	arguments := []string{
		"--etcd-servers=http://" + clients,
		"--bind-address=127.0.0.1", "--secure-port=" + port, "--cert-dir=" + filepath.Join(s.dir, "certs"),
		"--authorization-mode=RBAC",
		"--token-auth-file=" + s.write(t, "tokens.csv", []byte(token+`,admin,admin,"system:masters"`)),
		"--service-account-issuer=https://apiserver.test",
		"--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
		"--service-cluster-ip-range=198.18.0.0/16,2001:db8:18::/112",
		"--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
		"--enable-priority-and-fairness=false", "--profiling=false", "--v=1",
	}
	arguments = append(arguments, flags...)
	s.restart = func(t testing.TB) *process { return run(t, s.log, apiserver, arguments...) }
	s.apiserver = s.restart(t)

	s.Config = &rest.Config{
		Host: "https://" + secure, BearerToken: token,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		QPS:             1000, Burst: 2000,
	}
	s.Kubeconfig = s.writeKubeconfig(t)
	s.waitReady(t)
	s.installCRDs(t)
	return s
}

// PID is the process of the kube-apiserver, to stop and continue it.
func (s *Server) PID() int { return s.apiserver.command.Process.Pid }

// Kill ends the kube-apiserver, without a warning, and leaves its etcd alone.
func (s *Server) Kill() { s.apiserver.kill() }

// Restart starts the kube-apiserver again after Kill, at the same address, and
// waits until it is ready. It has to be called from the test that called Start:
// the new process, too, ends with t.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.apiserver = s.restart(t)
	s.waitReady(t)
}

// program finds a binary in bin/lab, or else in the PATH.
func program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(root(), "bin", "lab", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	message := fmt.Sprintf("%s is neither in bin/lab nor in the PATH: run make lab-binaries", name)
	if os.Getenv("CI") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

// root is the top of the repository.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// ports are free addresses on the loopback. They are all found before one is
// used, so that they differ.
func ports(t testing.TB) (string, string, string) {
	t.Helper()
	var addresses [3]string
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		addresses[i] = listener.Addr().String()
	}
	return addresses[0], addresses[1], addresses[2]
}

// process is a program that was started.
type process struct {
	command *exec.Cmd
	// kill ends it, and may be called again.
	kill func()
}

// run starts a process that is killed with the test, or with this process.
func run(t testing.TB, log, path string, args ...string) *process {
	t.Helper()
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, args...)
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The kernel sends Pdeathsig when the thread ends that started the child.
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		started <- command.Start()
		<-ended
	}()
	if err := <-started; err != nil {
		close(ended)
		output.Close()
		t.Fatalf("%s: %v", path, err)
	}
	p := &process{command: command, kill: sync.OnceFunc(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		output.Close()
		close(ended)
	})}
	t.Cleanup(p.kill)
	return p
}

func (s *Server) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *Server) writeKubeconfig(t testing.TB) string {
	t.Helper()
	const name = "test"
	path := filepath.Join(s.dir, "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: s.Config.Host, InsecureSkipTLSVerify: true}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func serviceAccountKey(t testing.TB) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

func (s *Server) waitReady(t testing.TB) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(s.Config)
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, startTimeout, true, func(ctx context.Context) (bool, error) {
		if err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
			return false, nil
		}
		_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err == nil, nil
	})
	if err != nil {
		text, _ := os.ReadFile(s.log)
		t.Fatalf("kube-apiserver is not ready: %v\n%s", err, text[max(0, len(text)-4096):])
	}
}

func (s *Server) installCRDs(t testing.TB) {
	t.Helper()
	client := apiextensions.NewForConfigOrDie(s.Config)
	files, err := filepath.Glob(filepath.Join(root(), "manifests", "crds", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in manifests/crds (%v)", err)
	}
	for _, file := range files {
		for _, crd := range readCRDs(t, file) {
			if _, err := client.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			waitEstablished(t, client, crd.Name)
		}
	}
}

func readCRDs(t testing.TB, file string) (crds []*apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(document, crd); err != nil && err != io.EOF {
			t.Fatalf("%s: %v", file, err)
		}
		if crd.Name != "" {
			crds = append(crds, crd)
		}
	}
	return crds
}

func waitEstablished(t testing.TB, client apiextensions.Interface, name string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, startTimeout, true, func(ctx context.Context) (bool, error) {
		crd, err := client.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range crd.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("CRD %s is not established: %v", name, err)
	}
}
