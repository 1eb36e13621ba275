#!/bin/sh
# SPDX-License-Identifier: MIT
# Everything from a fresh clone on Debian 12 to an answer: packages, model, build, experiment.
# A second run finds it all there and takes seconds (and the experiment).
# Usage: sh scripts/quickstart.sh
set -eu
cd "$(dirname "$0")/.."

sh scripts/setup.sh build
sh scripts/fetch_model.sh
echo "building"
cmake --preset release -DLATHE_TESTS=OFF >build.log 2>&1 && cmake --build --preset release >>build.log 2>&1 || {
    tail -n 20 build.log >&2
    echo "quickstart.sh: the build failed; the whole output is in build.log" >&2
    exit 1
}
rm -f build.log

lathe=build/release/lathe
$lathe run experiments/first_light.lua
echo
$lathe sql results/first_light.db "select label, requests, ttft_p50_ms, ttft_max_ms, tpot_p50_ms, tokens_per_s from run_latency"
cat <<END

Try next:
  $lathe sql results/first_light.db                     # ask your own; the views are listed
  $lathe generate -m smollm2-135m --chat -p "Why is the sky blue?"
  $lathe new scheduler mine                             # a scheduler of your own, built at once
END
