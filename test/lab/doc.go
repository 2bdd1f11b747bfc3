// Package lab runs a real Kubernetes cluster in network namespaces, for tests
// and for people. The control plane and kube-proxy are the real programs, and
// so are the router and the kernels between them; only the kubelet is a
// stand-in, which runs Pods as processes.
//
//	             LAN 192.0.2.0/24                       198.51.100.0/24
//	             2001:db8:2::/64                        2001:db8:51::/64
//
//	node1 .11 ──┐
//	node2 .12 ──┤
//	node3 .13 ──┤             ┌─────────────────┐
//	   ...      ├── bridge ───┤.1   router    .1├─────── client .100
//	   cp  .2 ──┤             │ BIRD, AS 64500  │
//	  lan .100 ─┘             └─────────────────┘
//
// Everything but the cluster's own networks has the router as its default
// route. Nodes are in AS 64512. Further networks, all in package addr:
//
//	198.18.N.0/24    2001:db8:18:N::/64   Pods of node N, routed between nodes
//	198.19.0.0/17    2001:db8:19::/112    ClusterIPs
//	203.0.113.0/24   2001:db8:100::/64    free, for pools
//	198.19.128.0/17                       free, for large pools
//	192.0.2.200-250  2001:db8:2::2:0/112  free, for pools on the LAN itself
//
// # Hosts
//
// A host is a set of namespaces (PID, mount, network, UTS, IPC) with an init
// process that boots it, supervises its programs, and is the container runtime
// of its kubelet. It has its own /proc, /sys, /run and /var/lib; /var/lib stays
// over a reboot, and the boot id changes with it. All other files are the
// machine's. Killing the init process is a power loss.
//
// All hosts of a lab are children of one process, the keeper, whose network
// namespace holds the bridges. It is process 1 of a PID namespace: when it ends,
// even by kill -9, the kernel removes every process, and with them every
// namespace, mount and interface. A lab started by Start ends with the process
// that started it, which holds a pipe to the keeper. Nothing is shared between
// labs, and nothing with the machine's own network.
//
// # ARP and NDP
//
// Neighbors, WatchNeighbor and FlushNeighbors show what the kernel of a host
// makes of its LAN. Ask, StartCapture, StartFlood, StartClaim, StartResponder
// and StartGarble speak ARP and NDP from raw sockets on a host: they ask for
// thousands of addresses past the kernel's table, count packets, and are bad
// neighbours. OnLink makes a host look for a pool outside its subnet on the LAN.
//
// # Faults
//
// Cut and CutCarrier take a host off the network, CutCarrierOf one of its
// interfaces. Drop, Part and SetLoss lose frames between hosts on the LAN, which
// neither end can tell: the switch is a bridge, and they are nftables rules of its
// ports. Two halves of a cluster, a node that the API server does not hear, and a
// way that is open in one direction only are made of them; Heal ends all.
//
// Kill, Restart and Signal are for single programs, SetQuota and Saturate for the
// CPU time they get. PowerOff is a power loss, Shutdown tells the containers
// first. FailProxyHealth makes kube-proxy say that its node is not to attract
// traffic.
//
// A node whose link is cut is NotReady when NodeGrace has passed since its last
// lease, which is up to a quarter of that old by then, and the node lifecycle
// controller has looked, every half second: with the default of 5s after 4.3 to
// 4.8s (Kubernetes' own default of 50s makes 40 to 51s). Only leases count: a node
// that the API server hears and nobody else stays Ready. After a cut of seconds it
// is Ready again 0.2s after the end.
//
// # Use
//
//	func TestService(t *testing.T) {
//		l := lab.StartTest(t, lab.Config{Name: "service", Nodes: 3})
//		_, err := l.KubectlStdin(ctx, strings.NewReader(manifest), "apply", "-f", "-")
//		...
//		load, err := l.StartLoad(ctx, lab.Client, "http://203.0.113.1/", lab.LoadOptions{Rate: 100})
//		err = l.Cut(ctx, "node1")
//		...
//		report, err := load.Stop()
//	}
//
// Containers run the programs that Config.Images names by the base name of
// their image: the project's own from bin/, and lab-echo, a server that tells
// its Pod, its node and its client. They run with the user, the capabilities,
// the volumes and the Pod-bound token of their manifest, in a root file system
// of their own. As on real nodes, a user other than root keeps no added
// capability unless the program's file has it.
//
// kubectl exec and kubectl logs work: the API server, and nobody else, reaches
// the kubelets' endpoints.
//
// The stand-in kubelet differs from a real one in this: no port-forward, no
// terminals for exec, of logs no more than the text and its last lines, no gRPC
// probes, of preStop hooks sleep only, no image but those of the table, no
// resource limits, no seccomp, no host ports, no Events; what is not ready yet
// is probed five times a second, and a Node that is found NotReady is reported
// Ready again at once.
//
// There is no cluster DNS unless Config.DNS asks for one. /tmp is the machine's, so that tests and hosts can
// exchange files; /var/tmp is each host's own.
//
// The command labctl does all of this by hand.
package lab
