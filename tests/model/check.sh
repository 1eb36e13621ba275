#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks a Promela model exhaustively with spin, at small sizes; then that what was left out of
# it on purpose is found. Usage: check.sh WORKDIR MODEL.pml [C compiler]. 77: spin is missing.
set -eu
work=$1; model=$(readlink -f "$2"); cc=${3:-cc}
command -v spin >/dev/null 2>&1 || { echo "spin is not installed: sh scripts/setup.sh test"; exit 77; }
mkdir -p "$work"; cd "$work"

# search NAME options…: prints "ok STATES" or "error"
search() {
    rm -f pan pan.* "$model.trail" ./*.trail
    spin -a "$@" "$model" >spin.out 2>&1 || { cat spin.out >&2; exit 1; }
    "$cc" -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c
    ./pan -m100000 >pan.out 2>&1 || true
    if grep -q "max search depth too small\|out of memory" pan.out; then cat pan.out >&2; exit 1; fi
    grep -q "errors: 0" pan.out && grep "states, stored" pan.out | awk '{ print "ok", $1, "states" }' || echo "error"
}

for sizes in "-DCALLERS=2 -DWORKERS=2 -DCALLS=1" "-DCALLERS=2 -DWORKERS=2 -DCALLS=1 -DMEET=1" \
             "-DCALLERS=2 -DWORKERS=1 -DCALLS=2 -DCAPACITY=3" "-DCALLERS=1 -DWORKERS=2 -DCALLS=4 -DCAPACITY=3"; do
    found=$(search $sizes)
    echo "$sizes: $found"
    case $found in ok*) ;; *) grep "pan:" "$work/pan.out"; exit 1 ;; esac
done
for mutant in 1 2 3 4; do
    found=$(search -DCALLERS=2 -DWORKERS=2 -DCALLS=1 -DMEET=1 -DMUTANT=$mutant)
    echo "mutant $mutant: $found"
    [ "$found" = error ] || { echo "mutant $mutant was not found"; exit 1; }
done
