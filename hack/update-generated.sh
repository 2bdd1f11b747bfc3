#!/usr/bin/env bash
# Generates the deepcopy functions of pkg/apis and the CRDs of manifests/crds.
# The generators are tools of go.mod, so their versions are pinned there. With a
# directory as argument it works on the copy of the module in it.
set -euo pipefail

cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

go tool deepcopy-gen \
	--go-header-file hack/boilerplate.go.txt \
	--output-file zz_generated.deepcopy.go \
	./pkg/apis/lb/v1alpha1

# Embedded metadata has no schema of its own here: there is none in our types.
go tool controller-gen \
	crd:generateEmbeddedObjectMeta=false \
	paths=./pkg/apis/lb/v1alpha1 \
	output:crd:dir=manifests/crds
