#!/bin/sh
# SPDX-License-Identifier: MIT
# An installed lathe finds its plugins, scripts and schemas, and a newcomer's plugin is made,
# built, found and tried out there, for each kind that has a template.
set -eu
command -v cmake >/dev/null && command -v cc >/dev/null || exit 77
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cmake --install "$LATHE_BUILD" --prefix "$folder/prefix" >install.txt 2>&1 || { cat install.txt; exit 1; }
installed=$folder/prefix/bin/lathe
unset LATHE_PLUGIN_PATH

fail() {
    echo "FAILED: $*"
    exit 1
}

"$installed" plugins --json >plugins.json
grep -q "$folder/prefix/" plugins.json || fail "plugins are not those beside the executable"
grep -q "$LATHE_BUILD" plugins.json && fail "a plugin of the build tree was taken: $(grep "$LATHE_BUILD" plugins.json)"
grep -q '"refusal": "' plugins.json && fail "a plugin was refused: $(cat plugins.json)"
"$installed" doctor >doctor.txt || fail "doctor: $(cat doctor.txt)"

made=0
for template in "$LATHE_SOURCE"/plugins/*/template.c; do
    kind=$(basename "$(dirname "$template")")
    "$installed" new "$kind" "mine_$kind" >new.txt 2>&1 || fail "new $kind: $(cat new.txt)"
    [ -f "mine_$kind.c" ] || fail "new $kind: no source"
    "$installed" plugins --check "$kind/mine_$kind" >check.txt 2>&1 || fail "check $kind: $(cat check.txt)"
    # The command that it names builds it again.
    rm "$folder"/prefix/lib*/lathe/plugins/"$kind"/mine_"$kind".so 2>/dev/null ||
        rm "$folder"/prefix/lib/*/lathe/plugins/"$kind"/mine_"$kind".so
    sh -c "$(sed -n 's/^ *build again *//p' new.txt)" || fail "the command to build $kind again failed"
    "$installed" plugins "$kind/mine_$kind" >/dev/null || fail "$kind/mine_$kind is gone"
    "$installed" new "$kind" "mine_$kind" >new.txt 2>&1 && fail "new $kind overwrote"
    made=$((made + 1))
done
[ "$made" -ge 5 ] || fail "only $made templates"

# A compiler that isn't there, or fails, leaves nothing behind.
CC=/nowhere/cc "$installed" new scheduler other >new.txt 2>&1 && fail "new without a compiler succeeded"
grep -q "install one" new.txt || fail "no advice: $(cat new.txt)"
CC=false "$installed" new scheduler other >new.txt 2>&1 && fail "new with a failing compiler succeeded"
[ ! -e other.c ] || fail "a half-made source was left"

# The prefix may be moved as a whole.
mv prefix moved
moved/bin/lathe plugins >moved.txt || fail "moved: $(cat moved.txt)"
grep -q '^scheduler  fcfs' moved.txt || fail "moved: no fcfs: $(cat moved.txt)"
echo "all well, $made plugins made"
