package kubelet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// sandbox is the network of a Pod. Pods on the host's network have none of
// their own, and an empty NetNS.
type sandbox struct {
	NetNS string       `json:"netns"`
	Link  string       `json:"link"` // the host's end
	IPs   []netip.Addr `json:"ips"`
}

// podNetwork gives Pods network namespaces and addresses. It records them
// below /run, so that a kubelet that starts again finds them.
type podNetwork struct {
	nodeIPs  []netip.Addr
	gateways []netip.Addr
	prefixes []netip.Prefix

	mu   sync.Mutex
	next []netip.Addr
	used map[netip.Addr]types.UID
	pods map[types.UID]*sandbox
}

const (
	sandboxDir = stateDir + "/sandboxes"
	netnsDir   = "/run/netns"
)

func newPodNetwork(config Config) (*podNetwork, error) {
	n := &podNetwork{used: map[netip.Addr]types.UID{}, pods: map[types.UID]*sandbox{}}
	for _, s := range config.IPs {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("node address: %w", err)
		}
		n.nodeIPs = append(n.nodeIPs, ip)
	}
	for _, s := range config.PodCIDRs {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("pod network: %w", err)
		}
		gateway := prefix.Addr().Next()
		n.prefixes = append(n.prefixes, prefix)
		n.gateways = append(n.gateways, gateway)
		n.next = append(n.next, gateway.Next())
	}
	if err := os.MkdirAll(sandboxDir, 0o755); err != nil {
		return nil, err
	}
	records, err := os.ReadDir(sandboxDir)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		text, err := os.ReadFile(filepath.Join(sandboxDir, r.Name()))
		if err != nil {
			return nil, err
		}
		var s sandbox
		if err := json.Unmarshal(text, &s); err != nil {
			continue // cut short while it was written; set up again
		}
		uid := types.UID(r.Name())
		n.pods[uid] = &s
		for _, ip := range s.IPs {
			n.used[ip] = uid
		}
	}
	return n, nil
}

// setUp returns the sandbox of a Pod, and makes it if there is none.
func (n *podNetwork) setUp(uid types.UID, hostNetwork bool) (*sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s, ok := n.pods[uid]; ok {
		return s, nil
	}
	if hostNetwork {
		return &sandbox{IPs: n.nodeIPs}, nil
	}
	hash := sha256.Sum256([]byte(uid))
	s := &sandbox{
		NetNS: filepath.Join(netnsDir, string(uid)),
		Link:  "pod" + hex.EncodeToString(hash[:5]),
	}
	for i := range n.prefixes {
		ip, err := n.allocate(i, uid)
		if err != nil {
			return nil, err
		}
		s.IPs = append(s.IPs, ip)
	}
	record, err := json.Marshal(s)
	if err == nil {
		err = writeFile(filepath.Join(sandboxDir, string(uid)), record, 0o644)
	}
	if err == nil {
		err = n.connect(s)
	}
	if err != nil {
		n.remove(uid, s)
		return nil, err
	}
	n.pods[uid] = s
	return s, nil
}

// allocate takes the next free address, so that one given back rests. The lock
// is held.
func (n *podNetwork) allocate(family int, uid types.UID) (netip.Addr, error) {
	const tries = 254
	for range tries {
		ip := n.next[family]
		n.next[family] = ip.Next()
		if last := ip.AsSlice(); !n.prefixes[family].Contains(ip.Next()) || last[len(last)-1] == 0xfe {
			n.next[family] = n.gateways[family].Next()
		}
		if _, taken := n.used[ip]; !taken {
			n.used[ip] = uid
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address left in %s", n.prefixes[family])
}

// tearDown removes the sandbox of a Pod.
func (n *podNetwork) tearDown(uid types.UID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.pods[uid]
	if !ok {
		return nil
	}
	return n.remove(uid, s)
}

func (n *podNetwork) remove(uid types.UID, s *sandbox) error {
	var errs []error
	if link, err := netlink.LinkByName(s.Link); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	if err := unix.Unmount(s.NetNS, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		errs = append(errs, fmt.Errorf("network namespace %s: %w", s.NetNS, err))
	}
	for _, f := range []string{s.NetNS, filepath.Join(sandboxDir, string(uid))} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, ip := range s.IPs {
		delete(n.used, ip)
	}
	delete(n.pods, uid)
	return errors.Join(errs...)
}

// connect makes the network namespace and joins it to the host by routes.
func (n *podNetwork) connect(s *sandbox) error {
	if err := makeNetNS(s.NetNS); err != nil {
		return err
	}
	ns, err := netns.GetFromPath(s.NetNS)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", s.NetNS, err)
	}
	defer ns.Close()
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: s.Link})
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(ns)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("interface %s: %w", s.Link, err)
	}
	if err := n.connectHost(s); err != nil {
		return err
	}
	return n.connectPod(s, ns)
}

func (n *podNetwork) connectHost(s *sandbox) error {
	link, err := netlink.LinkByName(s.Link)
	if err != nil {
		return fmt.Errorf("interface %s: %w", s.Link, err)
	}
	for _, gateway := range n.gateways {
		if err := netlink.AddrAdd(link, hostAddress(gateway)); err != nil {
			return fmt.Errorf("address %s of %s: %w", gateway, s.Link, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s up: %w", s.Link, err)
	}
	for i, ip := range s.IPs {
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: hostPrefix(ip), Scope: netlink.SCOPE_LINK, Src: net.IP(n.nodeIPs[i].AsSlice()),
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route to pod %s: %w", ip, err)
		}
	}
	return nil
}

func (n *podNetwork) connectPod(s *sandbox, ns netns.NsHandle) error {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("netlink of %s: %w", s.NetNS, err)
	}
	defer h.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("interface %s of pod: %w", name, err)
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("interface %s of pod up: %w", name, err)
		}
	}
	link, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("interface eth0 of pod: %w", err)
	}
	index := link.Attrs().Index
	for i, ip := range s.IPs {
		if err := h.AddrAdd(link, hostAddress(ip)); err != nil {
			return fmt.Errorf("address %s of pod: %w", ip, err)
		}
		gateway := n.gateways[i]
		for _, r := range []*netlink.Route{
			{LinkIndex: index, Dst: hostPrefix(gateway), Scope: netlink.SCOPE_LINK},
			{LinkIndex: index, Gw: net.IP(gateway.AsSlice())},
		} {
			if err := h.RouteAdd(r); err != nil {
				return fmt.Errorf("routes of pod %s: %w", ip, err)
			}
		}
	}
	return nil
}

func hostPrefix(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(ip.AsSlice()), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

func hostAddress(ip netip.Addr) *netlink.Addr {
	a := &netlink.Addr{IPNet: hostPrefix(ip)}
	if ip.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// makeNetNS makes a network namespace that lasts as long as a file. The thread
// that enters it is given up afterwards.
func makeNetNS(path string) error {
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("new network namespace: %w", err)
			}
			// As container runtimes do: ports below 1024 need no capability.
			for key, value := range map[string]string{
				"net/ipv4/ip_unprivileged_port_start":  "0",
				"net/ipv6/conf/default/accept_dad":     "0",
				"net/ipv6/conf/default/dad_transmits":  "0",
				"net/ipv6/conf/default/accept_ra":      "0",
				"net/ipv6/conf/default/addr_gen_mode":  "0",
				"net/ipv6/conf/all/disable_ipv6":       "0",
				"net/ipv4/conf/default/rp_filter":      "0",
				"net/ipv4/conf/all/rp_filter":          "0",
				"net/ipv4/conf/default/arp_notify":     "0",
				"net/ipv4/conf/default/send_redirects": "0",
			} {
				if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
					return fmt.Errorf("sysctl %s: %w", key, err)
				}
			}
			if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("keep network namespace: %w", err)
			}
			return nil
		}()
	}()
	return <-done
}
