#!/bin/sh
# How `r3-container list` scales: calls, time and memory at 10, 100, 200 and
# 1,000 hosts with 20 tasks each, 20 ms a call, on a lab in the same machine.
# Takes about two minutes. What the columns mean is told at BenchmarkList.
set -eu
cd "$(dirname "$0")/.."
exec go test -run '^$' -bench '^BenchmarkList$' -benchtime "${1:-3x}" -timeout 20m ./cmd/r3-container
