#!/bin/sh
# SPDX-License-Identifier: MIT
# `lathe services`: a person finds out what a method takes and gives.
set -u
failures=0
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect STATUS PATTERN arguments…: the status, and a line like PATTERN on either stream.
expect() {
    status=$1 pattern=$2
    shift 2
    "$LATHE" services "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ "$got" = "$status" ] || fail "lathe services $*: status $got, expected $status: $(cat err.txt)"
    cat out.txt err.txt | grep -q -- "$pattern" || fail "lathe services $*: no line like \"$pattern\" in: $(cat out.txt err.txt)"
}

expect 0 "^model.forward  *tokens in, logits out$"
expect 0 "^memory.table "
expect 0 "^scheduler.rank " scheduler
grep -q "^model" out.txt && fail "lathe services scheduler lists the model's methods"

# Each method that is listed is described, with a call that names it.
methods=$("$LATHE" services | sed -n 's/^\([a-z]*\.[a-z_]*\) .*/\1/p')
[ "$(echo "$methods" | wc -l)" -ge 11 ] || fail "few methods are listed: $methods"
for method in $methods; do
    expect 0 "^  REPLY" "$method"
    expect 0 "^In a script: engine:call(\"${method%.*}\", \"${method#*.}\"" "$method"
done

expect 0 "^  slices  *a list of tables  *(required)" model.forward
expect 0 "^    first_position  *an integer from 0 to 2147483647  *0  *of its first row, absolute$" model.forward
expect 0 "^    logits  *true or false  *false  *output rows give logits$" model.forward
expect 0 "^      format  *one of summary, top, full, scores, values, norms, lens, hidden  *summary " model.forward
expect 0 "^  text  *a text  *(required)" tokenizer.encode
expect 0 "^  tokens  *a list of i32  *ids$" tokenizer.encode
expect 0 "^      top_p  *a number above 0 to at most 1  *1  *1: off$" sampler.sample
expect 0 "It takes no fields" memory.usage
expect 0 "^  block_tokens  *u32" memory.usage
for hidden in head reserved token_first vocab_tokens needed; do
    expect 0 "REPLY" model.forward
    grep -q "^ *$hidden " out.txt && fail "model.forward shows $hidden, which nobody gives"
done

expect 1 'did you mean `model`?' modle
expect 1 'did you mean `forward`?' model.foward
expect 1 "it has describe, forward" model.zebra
expect 1 "there are tokenizer, model, sampler, scheduler, memory" batching
expect 2 "not 2 words" model sampler
expect 2 "unknown option --jso" --jso

[ "$failures" = 0 ] || exit 1
echo "lathe services: all as it should be"
