#!/usr/bin/env bash
# Run each fuzzer for FUZZTIME. What it finds lands in testdata/fuzz of its
# package: make it a row of a test.
set -euo pipefail
cd "$(dirname "$0")/.."
for file in $(git grep -l --untracked '^func Fuzz' -- '*_test.go'); do
	for fuzzer in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		# Minimizing what is merely interesting may take a minute each time.
		go test -run '^$' -fuzz "^${fuzzer}\$" -fuzztime "${FUZZTIME:-30s}" -fuzzminimizetime 200x "./$(dirname "$file")"
	done
done
