#!/usr/bin/env bash
# Remove the demo's cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x bin/lab/labctl ] || exit 0
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
exec "${sudo[@]}" bin/lab/labctl down --name demo
