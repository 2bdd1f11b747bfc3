#!/usr/bin/env bash
# Measure 2,000 addresses on the LAN: latency of answers, on a quiet LAN and in a
# flood, and what a takeover sends. As root.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/packages.sh
hack/build.sh
hack/lab-binaries/build.sh
exec go test -tags measure -run '^TestLayer2Scale$' -v -count 1 -timeout 20m ./test/e2e "$@"
