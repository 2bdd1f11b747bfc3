#!/usr/bin/env bash
# Measure against a bare floor program, in one lab, one run, one table. As root.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/packages.sh
hack/build.sh
hack/lab-binaries/build.sh
exec go run ./test/bench "$@"
