#!/usr/bin/env bash
# Build the programs into bin/.
set -euo pipefail
cd "$(dirname "$0")/.."
# A semantic version: the metrics library refuses anything else at start.
version=$(git describe --tags --match 'v*' --dirty 2>/dev/null) ||
	version=v0.0.0-0.g$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
CGO_ENABLED=0 go build -trimpath \
	-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=${version}" \
	-o bin/ ./cmd/...
