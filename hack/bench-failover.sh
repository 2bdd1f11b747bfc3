#!/usr/bin/env bash
# Measure for how long users find a Service on the LAN to be away when something
# fails, restarts or is maintained. As root. All scenarios with ten runs each take
# more than two hours: see -list, -scenarios and -runs.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/packages.sh
hack/build.sh
hack/lab-binaries/build.sh
exec go run ./test/failover "$@"
