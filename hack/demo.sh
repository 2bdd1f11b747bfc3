#!/usr/bin/env bash
# Start a three-node cluster in network namespaces, install the project, and
# show two Services of type LoadBalancer: one that answers behind a BGP router,
# and one on the LAN.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

name=demo
current="starting"
step() { current=$*; printf '\n==> %s\n' "$*"; }
show() { printf '$ %s\n' "bin/lab/labctl $*"; labctl "$@"; }
failed() {
	cat >&2 <<-TEXT

	The demo failed at: $current
	Logs of the cluster's programs: $(printf '%s ' "${sudo[@]}")bin/lab/labctl status --name $name
	Run make demo again to start afresh, or make demo-down to remove what is there.
	TEXT
}
sudo=()
trap failed ERR

if ! command -v go >/dev/null; then
	echo "Go is missing: install Go 1.26 or later and put it into PATH." >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	sudo=(sudo)
	if ! command -v sudo >/dev/null; then
		echo "The demo makes network namespaces: run it as root, or install sudo." >&2
		exit 1
	fi
fi
labctl() { "${sudo[@]}" bin/lab/labctl "$@"; }
kubectl() { labctl kubectl --name $name "$@"; }
on() { labctl on --name $name "$@"; }

step "Debian packages: what the lab needs and is missing"
hack/packages.sh
step "Programs: bin/baremetal-cloud-controller-manager and bin/baremetal-speaker"
hack/build.sh
step "The lab's Kubernetes in bin/lab (some minutes the first time, kept then)"
hack/lab-binaries/build.sh

step "A cluster of three nodes, with a router, a LAN client and a client behind the router"
labctl down --name $name
labctl up --name $name --nodes 3

step "Install: kubectl apply --server-side -k manifests/base"
kubectl apply --server-side -k "$PWD/manifests/base" | grep -v '^Warning' | tail -n 3
kubectl -n baremetal-lb-system rollout status --timeout=60s daemonset/baremetal-speaker
kubectl -n baremetal-lb-system rollout status --timeout=60s deployment/baremetal-cloud-controller-manager

step "Two AddressPools, a BGPPeer, three web servers and two Services (hack/demo.yaml)"
kubectl apply -f "$PWD/hack/demo.yaml"
kubectl rollout status --timeout=60s deployment/web
kubectl wait --timeout=30s --for=condition=lb.baremetal.dev/Announced service/web service/web-lan
address=$(kubectl get service web -o 'jsonpath={.status.loadBalancer.ingress[0].ip}')
lan_address=$(kubectl get service web-lan -o 'jsonpath={.status.loadBalancer.ingress[0].ip}')

step "The Services have addresses"
show kubectl --name $name get service web web-lan

step "The router has a route to it over the three nodes"
routed() { [ "$(on router ip route show "$address" | grep -c nexthop)" = 3 ]; }
for _ in $(seq 100); do routed && break; sleep 0.1; done
routed
show on --name $name router ip route show "$address"

step "kube-proxy forwards both on all nodes (routes are there faster)"
forwarded() {
	local rules
	rules=$(on "$1" nft list map ip kube-proxy service-ips)
	[[ $rules == *"$address . tcp . 80 "* && $rules == *"$lan_address . tcp . 80 "* ]]
}
for node in node1 node2 node3; do
	for _ in $(seq 100); do forwarded $node && break; sleep 0.1; done
	forwarded $node
done

step "A client behind the router asks it"
for _ in 1 2 3 4 5; do
	show on --name $name client curl -sS --max-time 2 "http://$address/"
done

step "A client on the LAN asks the other Service: one node answers its ARP requests"
for _ in 1 2 3; do
	show on --name $name lan curl -sS --max-time 2 "http://$lan_address/"
done
show on --name $name lan ip neigh show to "$lan_address"
for node in node1 node2 node3; do
	show on --name $name $node ip -brief link show dev eth0
done
show kubectl --name $name get service web-lan -o "jsonpath={.status.conditions[?(@.type=='lb.baremetal.dev/Announced')].message}{'\n'}"

trap - ERR
prefix=$(printf '%s ' "${sudo[@]}")
prefix=${prefix# }
cat <<TEXT

The cluster stays up. To explore:
  ${prefix}bin/lab/labctl kubectl --name $name get svc,addresspools,bgppeers,pods -A
  ${prefix}bin/lab/labctl kubectl --name $name describe svc web
  ${prefix}bin/lab/labctl on --name $name router birdc -s /run/bird.ctl show protocols
  ${prefix}bin/lab/labctl poweroff --name $name node2
  ${prefix}bin/lab/labctl --help
To remove it: make demo-down
TEXT
