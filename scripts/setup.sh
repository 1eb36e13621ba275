#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages that Lathe needs, if any is missing: as root, or through sudo.
# Usage: sh scripts/setup.sh [build|test]   ("test" adds what only the tests need)
set -eu

build="build-essential cmake ninja-build pkg-config libopenblas-pthread-dev liblua5.4-dev libsqlite3-dev \
libpcre2-dev libjansson-dev libedit-dev libcurl4-openssl-dev ca-certificates python3 python3-pip unzip git"
test="$build libcmocka-dev sqlite3 lua-check spin gnuplot-nox python3-pandas chromium \
chromium-driver python3-selenium"

case "${1:-build}" in
build) packages=$build ;;
test) packages=$test ;;
*) echo "setup.sh: the argument is build or test, not '$1'" >&2; exit 2 ;;
esac

missing=""
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case "$state" in ii*) ;; *) missing="$missing $package" ;; esac
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then as_root=""
elif command -v sudo >/dev/null 2>&1; then as_root="sudo"
else
    echo "setup.sh: these packages are missing and neither root nor sudo is at hand:$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q >/dev/null
# shellcheck disable=SC2086
$as_root apt-get install -q -y --no-install-recommends $missing >/dev/null
