package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/dns"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/kubelet"
)

var (
	apiURL   = "https://" + net.JoinHostPort(addr.Control, strconv.Itoa(addr.APIPort))
	readyURL = apiURL + "/readyz"
)

// families picks what a cluster is told of a network, IPv4 first.
func (k *keeper) families(ipv4, ipv6 string) []string {
	if k.config.IPv4Only {
		return []string{ipv4}
	}
	return []string{ipv4, ipv6}
}

// writeControlPlane writes the keys and the configuration of the control
// plane, and the administrator's kubeconfig.
func (k *keeper) writeControlPlane() error {
	var ips []net.IP
	for _, ip := range []string{addr.Control, addr.ControlV6, addr.Kubernetes, addr.KubernetesV6, "127.0.0.1", "::1"} {
		ips = append(ips, net.ParseIP(ip))
	}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}
	if err := k.pki.writeServer("apiserver", names, ips); err != nil {
		return err
	}
	if err := k.pki.writeClientPair("apiserver-kubelet", kubelet.APIServerUser); err != nil {
		return err
	}
	if err := k.pki.writeClient(k.pki.path("dns.kubeconfig"), apiURL, dns.User); err != nil {
		return err
	}
	token := newToken()
	row := fmt.Sprintf("%s,admin,admin,system:masters\n", token)
	if err := os.WriteFile(k.pki.path("tokens.csv"), []byte(row), 0o600); err != nil {
		return err
	}
	admin := filepath.Join(k.config.Dir, AdminFile)
	if err := k.pki.writeKubeconfig(admin, apiURL, "admin", &clientcmdapi.AuthInfo{Token: token}); err != nil {
		return err
	}
	for _, c := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := k.pki.writeClient(k.pki.path(c+".kubeconfig"), apiURL, "system:"+c); err != nil {
			return err
		}
	}
	return nil
}

// program describes a program of Kubernetes that runs on a host.
func (k *keeper) program(host, name string, args ...string) control.Program {
	return control.Program{
		Name:    name,
		Argv:    append([]string{filepath.Join(k.config.BinDir, name)}, args...),
		Log:     filepath.Join(k.config.Dir, LogDir, host+"-"+name+".log"),
		Restart: true,
	}
}

// leaderElection makes controllers end when the API server is away, as they do
// in production, and start anew when it is back. Controllers that stayed would
// look for it ever more rarely, up to once a minute, and meanwhile judge nodes
// by what they saw last.
var leaderElection = []string{
	"--leader-elect-lease-duration=6s",
	"--leader-elect-renew-deadline=4s",
	"--leader-elect-retry-period=1s",
}

func (k *keeper) controlPlanePrograms() []control.Program {
	etcd := k.program(ControlPlane, "etcd",
		"--name=cp",
		"--data-dir=/var/lib/etcd",
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=cp=http://127.0.0.1:2380",
		"--unsafe-no-fsync="+strconv.FormatBool(!k.config.Fsync),
		"--quota-backend-bytes=2147483648",
		"--log-level=warn",
	)
	api := k.program(ControlPlane, "kube-apiserver", append([]string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + addr.Control,
		"--bind-address=::",
		"--secure-port=" + strconv.Itoa(addr.APIPort),
		"--service-cluster-ip-range=" + strings.Join(k.families(addr.ClusterIPs, addr.ClusterIPsV6), ","),
		"--tls-cert-file=" + k.pki.path("apiserver.crt"),
		"--tls-private-key-file=" + k.pki.path("apiserver.key"),
		"--client-ca-file=" + k.pki.path("ca.crt"),
		"--token-auth-file=" + k.pki.path("tokens.csv"),
		"--kubelet-client-certificate=" + k.pki.path("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + k.pki.path("apiserver-kubelet.key"),
		"--kubelet-certificate-authority=" + k.pki.path("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + k.pki.path("service-account.key"),
		"--service-account-key-file=" + k.pki.path("service-account.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--default-not-ready-toleration-seconds=" + seconds(k.config.EvictionAfter),
		"--default-unreachable-toleration-seconds=" + seconds(k.config.EvictionAfter),
	}, k.config.APIServerArgs...)...)
	api.WaitURL = "http://127.0.0.1:2379/health"

	manager := k.program(ControlPlane, "kube-controller-manager", append([]string{
		"--kubeconfig=" + k.pki.path("kube-controller-manager.kubeconfig"),
		"--service-account-private-key-file=" + k.pki.path("service-account.key"),
		"--root-ca-file=" + k.pki.path("ca.crt"),
		"--use-service-account-credentials=true",
		"--controllers=*,-service-lb-controller,-node-route-controller,-cloud-node-lifecycle-controller,-node-ipam-controller",
		"--allocate-node-cidrs=false",
		"--node-monitor-grace-period=" + k.config.NodeGrace.String(),
		"--node-monitor-period=500ms",
		// The defaults are made for machines that do other things too.
		"--kube-api-qps=300", "--kube-api-burst=600",
		"--concurrent-service-endpoint-syncs=20",
		"--endpointslice-updates-batch-period=0s",
	}, slices.Concat(leaderElection, k.config.ControllerManagerArgs)...)...)
	manager.WaitURL = readyURL

	scheduler := k.program(ControlPlane, "kube-scheduler", append([]string{
		"--kubeconfig=" + k.pki.path("kube-scheduler.kubeconfig"),
		"--kube-api-qps=300", "--kube-api-burst=600",
	}, leaderElection...)...)
	scheduler.WaitURL = readyURL
	programs := []control.Program{etcd, api, manager, scheduler}
	if k.config.DNS {
		programs = append(programs, k.dnsProgram())
	}
	return programs
}

func (k *keeper) dnsProgram() control.Program {
	p := k.program(ControlPlane, "dns")
	p.Argv = []string{k.config.Command, "dns", "--kubeconfig", k.pki.path("dns.kubeconfig"), "--listen", net.JoinHostPort(addr.Control, "53")}
	p.WaitURL = readyURL
	return p
}
