#!/usr/bin/env bash
# Builds the programs of the lab's control plane into bin/lab. Only what is
# missing, or older than the pinned versions, is built again. The first build
# compiles Kubernetes and takes some minutes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
out=../../bin/lab
mkdir -p "$out"

kubernetes=k8s.io/kubernetes
programs=(
	"kube-apiserver $kubernetes/cmd/kube-apiserver"
	"kube-controller-manager $kubernetes/cmd/kube-controller-manager"
	"kube-scheduler $kubernetes/cmd/kube-scheduler"
	"kube-proxy $kubernetes/cmd/kube-proxy"
	"kubectl $kubernetes/cmd/kubectl"
	"etcd go.etcd.io/etcd/server/v3"
)

# Components take their version from the linker; without it they call
# themselves v0.0.0-master.
version=$(go list -m -f '{{.Version}}' "$kubernetes")
minor=${version#v1.}
minor=${minor%%.*}
stamp=""
for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	stamp+=" -X $pkg.gitVersion=$version -X $pkg.gitMajor=1 -X $pkg.gitMinor=$minor"
done

number=0
for program in "${programs[@]}"; do
	read -r name package <<<"$program"
	number=$((number + 1))
	target=$out/$name
	if [[ -x $target && ! go.mod -nt $target && ! go.sum -nt $target ]]; then
		continue
	fi
	echo "building $name ($number/${#programs[@]}) ..."
	# A build that is cut short must not leave a program that looks finished.
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w${stamp}" -o "$target.new" "$package"
	mv "$target.new" "$target"
done

# The lab's own command, of the project's module.
go -C ../.. build -o bin/lab/labctl ./test/lab/labctl
