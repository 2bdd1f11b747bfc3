#!/usr/bin/env bash
# Builds the programs of the lab's control plane into bin/lab; with the argument
# "upstream" also Kubernetes' own tests and what they run, into bin/upstream.
# Only what is missing, or older than the pinned versions, is built again. The
# first build compiles Kubernetes and takes some minutes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
lab=../../bin/lab
upstream=../../bin/upstream

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

# build COMMAND TARGET PACKAGE builds a program, unless it is there and fresh.
build() {
	local command=$1 target=$2 package=$3
	if [[ -x $target && ! go.mod -nt $target && ! go.sum -nt $target ]]; then
		return
	fi
	echo "building $(basename "$target") ..."
	mkdir -p "$(dirname "$target")"
	# A build that is cut short must not leave a program that looks finished.
	# shellcheck disable=SC2086 # the command is words
	CGO_ENABLED=0 go $command -trimpath -ldflags "-s -w${stamp}" -o "$target.new" "$package"
	mv "$target.new" "$target"
}

for program in "${programs[@]}"; do
	read -r name package <<<"$program"
	build build "$lab/$name" "$package"
done

if [[ ${1-} == upstream ]]; then
	build "test -c" "$upstream/e2e.test" "$kubernetes/test/e2e"
	build build "$upstream/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
	# The image of the tests' Pods, as far as the tests of load balancers use it.
	build build "$upstream/agnhost/agnhost" "$kubernetes/test/images/agnhost"
	install -m 755 agnhost/wget "$upstream/agnhost/wget"
fi

# The lab's own command, of the project's module.
go -C ../.. build -o bin/lab/labctl ./test/lab/labctl
