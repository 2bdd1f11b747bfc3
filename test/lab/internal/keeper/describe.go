package keeper

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/kubelet"
)

const runtimeSocket = "/run/container-runtime.sock"

func nodeName(n int) string { return addr.Node(n).Name }

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// describe says what a host boots with. The lock of the keeper is held.
func (k *keeper) describe(h *host) (control.Host, error) {
	spec := control.Host{
		Name:    h.name,
		LabDir:  k.config.Dir,
		Dir:     filepath.Join(k.config.Dir, "hosts", h.name),
		Sysctls: map[string]string{},
	}
	var err error
	switch {
	case h.node != 0:
		err = k.describeNode(&spec, h.node)
	case h.name == ControlPlane:
		spec.Links = []control.Link{lanLink(addr.Control, addr.ControlV6)}
		spec.Routes = append(defaultRoutes(), k.podRoutes(0)...)
		spec.Programs = k.controlPlanePrograms()
	case h.name == RouterHost:
		err = k.describeRouter(&spec)
	case h.name == LANHost:
		spec.Links = []control.Link{lanLink(addr.LANClient, addr.LANClientV6)}
		spec.Routes = defaultRoutes()
	case h.name == FarHost:
		spec.Links = []control.Link{farLink("eth0", addr.FarClient, addr.FarClientV6)}
		spec.Routes = []control.Route{{Destination: "default", Via: addr.RouterFar}, {Destination: "::/0", Via: addr.RouterFarV6}}
	}
	spec.Links = append(spec.Links, h.extra...)
	setCommonSysctls(&spec)
	return spec, err
}

func lanLink(ip, ipv6 string) control.Link {
	return control.Link{
		Name: "eth0", Bridge: lanBridge, MAC: mac(ip),
		Addresses: []string{addr.Prefix(ip, addr.LAN), addr.Prefix(ipv6, addr.LANv6)},
	}
}

// secondLink is one more interface of a node on the LAN.
func secondLink(n int, name string) control.Link {
	plan := addr.Node(n)
	link := lanLink(plan.SecondIPv4.String(), plan.SecondIPv6.String())
	link.Name = name
	return link
}

func farLink(name, ip, ipv6 string) control.Link {
	return control.Link{
		Name: name, Bridge: farBridge, MAC: mac(ip),
		Addresses: []string{addr.Prefix(ip, addr.Far), addr.Prefix(ipv6, addr.FarV6)},
	}
}

func defaultRoutes() []control.Route {
	return []control.Route{{Destination: "default", Via: addr.Router}, {Destination: "::/0", Via: addr.RouterV6}}
}

// podRoutes are the routes to the Pods of all nodes but one.
func (k *keeper) podRoutes(except int) []control.Route {
	var routes []control.Route
	for _, n := range slices.Sorted(maps.Keys(k.nodes)) {
		if n != except {
			routes = append(routes, podRoutesOf(n)...)
		}
	}
	return routes
}

func podRoutesOf(n int) []control.Route {
	plan := addr.Node(n)
	return []control.Route{
		{Destination: plan.PodsIPv4.String(), Via: plan.IPv4.String()},
		{Destination: plan.PodsIPv6.String(), Via: plan.IPv6.String()},
	}
}

// setCommonSysctls makes addresses usable at once and keeps every host's
// routes as they were given to it.
func setCommonSysctls(spec *control.Host) {
	interfaces := []string{"all", "default"}
	for _, l := range spec.Links {
		interfaces = append(interfaces, l.Name)
	}
	for _, i := range interfaces {
		spec.Sysctls["net.ipv6.conf."+i+".accept_dad"] = "0"
		spec.Sysctls["net.ipv6.conf."+i+".dad_transmits"] = "0"
		spec.Sysctls["net.ipv6.conf."+i+".accept_ra"] = "0"
		spec.Sysctls["net.ipv6.conf."+i+".accept_redirects"] = "0"
		spec.Sysctls["net.ipv4.conf."+i+".accept_redirects"] = "0"
		spec.Sysctls["net.ipv4.conf."+i+".send_redirects"] = "0"
		spec.Sysctls["net.ipv4.conf."+i+".rp_filter"] = "0"
	}
}

func forward(spec *control.Host) {
	spec.Sysctls["net.ipv4.ip_forward"] = "1"
	spec.Sysctls["net.ipv6.conf.all.forwarding"] = "1"
}

func (k *keeper) describeNode(spec *control.Host, n int) error {
	plan := addr.Node(n)
	spec.Links = []control.Link{lanLink(plan.IPv4.String(), plan.IPv6.String())}
	spec.Routes = append(defaultRoutes(), k.podRoutes(n)...)
	spec.RuntimeSocket = runtimeSocket
	// What leaves the cluster must not carry a Pod's address: nobody there
	// knows the way back.
	spec.Commands = [][]string{{"nft", fmt.Sprintf(`
		table inet lab {
			chain postrouting {
				type nat hook postrouting priority srcnat + 10;
				ip saddr %s ip daddr != %s masquerade
				ip6 saddr %s ip6 daddr != %s masquerade
			}
		}`, plan.PodsIPv4, addr.Pods, plan.PodsIPv6, addr.PodsV6)}}
	forward(spec)

	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return err
	}
	kubeletConfig := filepath.Join(spec.Dir, "kubelet.json")
	kubeletFile, proxyFile := filepath.Join(spec.Dir, "kubelet.kubeconfig"), filepath.Join(spec.Dir, "kube-proxy.kubeconfig")
	if err := k.pki.writeClient(kubeletFile, apiURL, "system:node:"+plan.Name, "system:nodes"); err != nil {
		return err
	}
	if err := k.pki.writeClient(proxyFile, apiURL, "system:kube-proxy"); err != nil {
		return err
	}
	serving := "kubelet-" + plan.Name
	if err := k.pki.writeServer(serving, []string{plan.Name}, []net.IP{plan.IPv4.AsSlice(), plan.IPv6.AsSlice()}); err != nil {
		return err
	}
	labels := maps.Clone(k.nodes[n].Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if zone := k.nodes[n].Zone; zone != "" {
		labels["topology.kubernetes.io/zone"] = zone
	}
	config := kubelet.Config{
		NodeName:       plan.Name,
		IPs:            k.families(plan.IPv4.String(), plan.IPv6.String()),
		PodCIDRs:       k.families(plan.PodsIPv4.String(), plan.PodsIPv6.String()),
		Labels:         labels,
		Uninitialized:  k.config.Uninitialized,
		Kubeconfig:     kubeletFile,
		RuntimeSocket:  runtimeSocket,
		LeaseInterval:  min(k.config.NodeGrace/4, 10*time.Second),
		LogDir:         filepath.Join(k.config.Dir, PodLogDir),
		ServerCert:     k.pki.path(serving + ".crt"),
		ServerKey:      k.pki.path(serving + ".key"),
		ClientCA:       k.pki.path("ca.crt"),
		RegisteredFile: "/run/kubelet/registered",
		Command:        k.config.Command,
		Images:         k.config.Images,
		APIHost:        addr.Control,
		APIPort:        addr.APIPort,
		ServiceHost:    addr.Kubernetes,
	}
	if k.config.DNS {
		config.DNSServer = addr.Control
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(kubeletConfig, text, 0o600); err != nil {
		return err
	}
	kubeletProgram := k.program(plan.Name, "kubelet")
	kubeletProgram.Argv = []string{k.config.Command, "kubelet", kubeletConfig}
	proxy := k.program(plan.Name, "kube-proxy", append([]string{
		"--kubeconfig=" + proxyFile,
		"--hostname-override=" + plan.Name,
		"--proxy-mode=" + k.config.ProxyMode,
		"--cluster-cidr=" + strings.Join(k.families(addr.Pods, addr.PodsV6), ","),
		// These are limits of the machine, not of one of its namespaces.
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0",
		"--conntrack-tcp-timeout-close-wait=0",
	}, k.config.ProxyArgs...)...)
	// It asks for its Node once at the start, and then no more for a while.
	proxy.WaitFile = config.RegisteredFile
	spec.Programs = []control.Program{kubeletProgram, proxy}
	return nil
}
