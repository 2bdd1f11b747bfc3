#!/usr/bin/env bash
# Formatting, vet, staticcheck, and generated files that are stale.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	echo "Not formatted; run gofmt -w on:" >&2
	echo "$unformatted" >&2
	failed=1
fi
go vet ./... || failed=1
go tool staticcheck ./... || failed=1
hack/verify-generated.sh || failed=1
if ! go mod tidy -diff >/dev/null; then
	echo "go.mod is not tidy; run go mod tidy" >&2
	failed=1
fi
exit $failed
