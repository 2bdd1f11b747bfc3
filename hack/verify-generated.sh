#!/usr/bin/env bash
# Fails when the generated code or CRDs are not what hack/update-generated.sh
# would write. It generates in a copy of the inputs and leaves the tree alone.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

mkdir -p "$copy/hack" "$copy/pkg" "$copy/manifests"
cp go.mod go.sum "$copy/"
cp hack/boilerplate.go.txt "$copy/hack/"
cp -r pkg/apis "$copy/pkg/"
cp -r manifests/crds "$copy/manifests/"
# What is generated no longer has to disappear from the tree too.
find "$copy/pkg" -name 'zz_generated.*.go' -delete
find "$copy/manifests/crds" -name 'lb.baremetal.dev_*.yaml' -delete

hack/update-generated.sh "$copy"

for dir in pkg/apis manifests/crds; do
	if ! diff -ruN "$dir" "$copy/$dir"; then
		echo "$dir is not up to date: run hack/update-generated.sh" >&2
		exit 1
	fi
done
