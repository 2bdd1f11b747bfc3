#!/usr/bin/env bash
# Measure how the cost grows: up to 1,000 nodes and 10,000 Services, of which one
# node is real and the others are simulated. As root; takes more than an hour, and
# writes the figures and plots into docs/scaling. Arguments are those of test/scale;
# a small run that writes nothing:
#
#	hack/bench-scale.sh -nodes 10 -services 1000 -families ipv4 -out ''
set -euo pipefail
cd "$(dirname "$0")/.."
hack/packages.sh
hack/build.sh
hack/lab-binaries/build.sh
exec go run ./test/scale -out docs/scaling "$@"
