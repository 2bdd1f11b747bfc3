#!/usr/bin/env bash
# Tests that need neither root nor the lab; others skip with a message.
set -euo pipefail
cd "$(dirname "$0")/.."
go test -race ./pkg/... ./provider/... ./cmd/... ./test/imports/... ./test/invariants/... ./test/manifests/...
