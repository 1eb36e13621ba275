#!/bin/sh
# SPDX-License-Identifier: MIT
# The command line's manners: help, exit statuses, one-line errors that say what to do.
set -u
failures=0
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect STATUS PART arguments…: the status, and PART in what was said on either stream.
expect() {
    status=$1 part=$2
    shift 2
    "$LATHE" "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ "$got" = "$status" ] || fail "lathe $*: status $got, expected $status: $(cat err.txt)"
    cat out.txt err.txt | grep -qF -- "$part" || fail "lathe $*: \"$part\" was not said, but: $(cat out.txt err.txt)"
}

# refuse STATUS PART arguments…: the same, and the error is one line on stderr that names the verb.
refuse() {
    expect "$@"
    shift 2
    [ "$(wc -l <err.txt)" = 1 ] || fail "lathe $*: the error has $(wc -l <err.txt) lines"
    [ ! -s out.txt ] || fail "lathe $*: something was said on stdout"
}

expect 0 "usage: lathe VERB" --help
expect 0 "usage: lathe VERB" help
expect 0 "plugin ABI" --version
expect 2 "usage: lathe VERB"
refuse 2 'did you mean `plugins`?' plugin
refuse 2 'there is no verb `zebra`' zebra
refuse 2 'there is no verb `zebra`' help zebra

verbs=$("$LATHE" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ -n "$verbs" ] || fail "no verbs are listed"
for verb in $verbs; do
    expect 0 "usage: lathe $verb" "$verb" --help
    expect 0 "usage: lathe $verb" help "$verb"
    refuse 2 "lathe $verb: " "$verb" --no-such-option
done

# A bus starts it, not a person: it is not listed, but says what it is.
"$LATHE" --help | grep -q "^  worker" && fail "worker is listed"
expect 0 "usage: lathe worker" worker --help
expect 0 "usage: lathe worker" help worker
refuse 2 "an open socket (--fd N)" worker
refuse 2 "an open socket (--fd N)" worker --fd 77 --bus "$LATHE_BUILD/plugins/bus/shm.so"
refuse 2 "lathe worker: " worker --no-such-option
refuse 1 "NAME.so, is expected" worker --fd 0 --bus /nowhere
refuse 1 "bus direct has no worker processes" worker --fd 0 --bus "$LATHE_BUILD/plugins/bus/direct.so"
refuse 1 "the socket 0 can't be read" worker --fd 0 --bus "$LATHE_BUILD/plugins/bus/shm.so"

expect 0 "KIND" plugins
expect 0 "scheduler  fcfs" plugins scheduler
expect 0 "scheduler/fcfs" plugins scheduler/fcfs
expect 0 '"name": "fcfs"' plugins scheduler/fcfs --json
expect 0 "ok" plugins scheduler/fcfs --check
refuse 2 'did you mean `scheduler`?' plugins schedular
refuse 1 'did you mean `fcfs`?' plugins scheduler/fcsf
refuse 1 "no plugin name" plugins scheduler/../../etc/passwd
refuse 1 "no plugin name" plugins "scheduler/"
refuse 2 "KIND or KIND/NAME" plugins scheduler bus

LATHE_PLUGIN_PATH=plugins
export LATHE_PLUGIN_PATH
refuse 1 "relative" plugins
LATHE_PLUGIN_PATH=/nowhere/at/all
refuse 1 "/nowhere/at/all" plugins
unset LATHE_PLUGIN_PATH
LATHE_LOG=loud
export LATHE_LOG
refuse 2 "LATHE_LOG" plugins
unset LATHE_LOG

# A decoy in the current folder, and one that the loader's own path points to, are not looked at.
mkdir -p scheduler plugins/scheduler
echo "not a plugin" >scheduler/decoy.so
echo "not a plugin" >plugins/scheduler/decoy.so
LD_LIBRARY_PATH=$PWD/scheduler
export LD_LIBRARY_PATH
refuse 1 'no scheduler plugin `decoy`' plugins scheduler/decoy
unset LD_LIBRARY_PATH
LATHE_PLUGIN_PATH=$PWD/plugins
export LATHE_PLUGIN_PATH
refuse 1 "not a shared object" plugins scheduler/decoy
expect 0 "refused" plugins scheduler
unset LATHE_PLUGIN_PATH

"$LATHE" doctor --json >doctor.json 2>err.txt
[ $? -le 1 ] || fail "doctor: $(cat err.txt)"
grep -q '"state": "ok"' doctor.json || fail "doctor found nothing"
refuse 2 "no arguments" doctor now

refuse 2 "KIND and NAME" new scheduler
refuse 2 'did you mean `scheduler`?' new shceduler mine
refuse 2 "no name for a plugin" new scheduler ../mine
refuse 2 "no name for a plugin" new scheduler template
refuse 1 "already" new scheduler fcfs

# Output that can't be written is a failure, not a silent success.
if [ -w /dev/full ]; then
    "$LATHE" --help >/dev/full 2>/dev/null && fail "a full disk was not noticed"
fi

[ "$failures" = 0 ] && echo "all well"
[ "$failures" = 0 ]
