#!/usr/bin/env bash
# Run Kubernetes' own tests of LoadBalancer Services in a lab, and print one line
# for each. As root. Arguments are those of test/upstream, for example
# -focus 'session affinity'.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/packages.sh nc wget
hack/build.sh
hack/lab-binaries/build.sh upstream
exec go run ./test/upstream "$@"
