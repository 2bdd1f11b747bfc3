// Package kubelet is the lab's stand-in for a kubelet. It registers its Node,
// renews its Lease, and runs the Pods of its Node as processes, with the init
// process of the host as container runtime: like real containers they keep
// running when the kubelet dies, and are adopted when it is back.
//
// It speaks to the API server with a node's rights and no others.
package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
)

// Config is what the keeper tells the kubelet of a node.
type Config struct {
	NodeName      string            `json:"nodeName"`
	IPs           []string          `json:"ips"`      // IPv4 first
	PodCIDRs      []string          `json:"podCIDRs"` // IPv4 first
	Labels        map[string]string `json:"labels,omitempty"`
	Uninitialized bool              `json:"uninitialized,omitempty"` // wait for a cloud provider
	Kubeconfig    string            `json:"kubeconfig"`
	RuntimeSocket string            `json:"runtimeSocket"`
	LeaseInterval time.Duration     `json:"leaseInterval"`
	LogDir        string            `json:"logDir"`
	// ServerCert and ServerKey are those of the kubelet's own endpoint, and
	// ClientCA signs the certificates of those who ask there.
	ServerCert string `json:"serverCert"`
	ServerKey  string `json:"serverKey"`
	ClientCA   string `json:"clientCA"`
	// RegisteredFile is written once the Node is registered.
	RegisteredFile string `json:"registeredFile"`
	// Command is the lab's program, which containers start through.
	Command string `json:"command"`
	// Images maps the base name of an image to its program, or to a directory
	// with a program of that name and others beside it.
	Images map[string]string `json:"images"`
	// APIHost and APIPort are what Pods on the host's network are told, so
	// that they work before kube-proxy does; ServiceHost is for all others.
	APIHost     string `json:"apiHost"`
	APIPort     int    `json:"apiPort"`
	ServiceHost string `json:"serviceHost"`
	// DNSServer is the cluster's; empty if it has none.
	DNSServer string `json:"dnsServer,omitempty"`
}

const (
	stateDir      = "/run/kubelet"     // gone after a boot, like what it describes
	containerDir  = "/run/containers"  // so is this
	persistentDir = "/var/lib/kubelet" // stays
)

type kubelet struct {
	config  Config
	client  kubernetes.Interface
	dialer  *connrotation.Dialer // of the client's connections
	runtime *rpc.Client
	network *podNetwork
	bootID  string
}

// Main runs the kubelet that a file describes until ctx ends.
func Main(ctx context.Context, configFile string) error {
	text, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	var config Config
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("kubelet configuration %s: %w", configFile, err)
	}
	k, err := newKubelet(config)
	if err != nil {
		return err
	}
	defer k.runtime.Close()
	return k.run(ctx)
}

func newKubelet(config Config) (*kubelet, error) {
	for _, d := range []string{stateDir, containerDir, persistentDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", config.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of %s: %w", config.NodeName, err)
	}
	restConfig.QPS, restConfig.Burst = 100, 200
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: requestTimeout}).DialContext)
	restConfig.Dial = dialer.DialContext
	kubeapi.Patient(restConfig)
	restConfig.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(restConfig, "lab-kubelet"))
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", config.NodeName, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	runtime, err := rpc.Dial("unix", config.RuntimeSocket)
	if err != nil {
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	network, err := newPodNetwork(config)
	if err != nil {
		return nil, err
	}
	return &kubelet{
		config:  config,
		client:  client,
		dialer:  dialer,
		runtime: runtime,
		network: network,
		bootID:  string(boot[:len(boot)-1]),
	}, nil
}

func (k *kubelet) run(ctx context.Context) error {
	node, err := k.register(ctx)
	if err != nil {
		return err
	}
	klog.InfoS("Registered", "node", node.Name, "bootID", k.bootID)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.renewLease(ctx, node) })
	g.Go(func() error { return k.keepNodeReady(ctx) })
	g.Go(func() error { return k.runPods(ctx) })
	g.Go(func() error { return k.serve(ctx) })
	return g.Wait()
}

// writeFile replaces a file at once, so that readers never see half of it.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	if err := os.Chmod(temporary, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// pause waits, and tells whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
