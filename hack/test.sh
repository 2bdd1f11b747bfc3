#!/usr/bin/env bash
# Everything that CI runs. Needs Go and, for the tests in network namespaces,
# root; installs what else it needs.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n==> %s\n' "$*"; }

command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or later and put it into PATH." >&2; exit 1; }
if [ "$(id -u)" -ne 0 ]; then
	echo "Not root: tests in network namespaces and in the lab will be skipped. Run as root to run them." >&2
else
	step "Debian packages"
	hack/packages.sh bgpd
fi
step "Programs"
hack/build.sh
step "The lab's Kubernetes (minutes, the first time)"
hack/lab-binaries/build.sh
step "Formatting, vet, staticcheck, generated files"
hack/verify.sh
step "Unit tests and tests in network namespaces"
go test -race -timeout 20m ./pkg/... ./provider/... ./cmd/... ./test/imports/... ./test/invariants/... ./test/manifests/...
# Deeper than with the race detector, which it would take minutes.
go test -run TestModel ./pkg/heartbeat
go test -run TestModel ./pkg/heartbeat -model-depth 3 -model-rules three
step "Tests in the lab"
# One after the other: each starts clusters of its own on the same cores.
go test -p 1 -timeout 45m ./test/...
