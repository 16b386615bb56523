#!/bin/sh
# Proves each row of the table below with cbmc: see tests/prove_files.c. `sh tests/prove.sh` proves
# all, `sh tests/prove.sh prove_pair` one. The table has the name, the most bytes of input, and how
# often a loop may be taken. SHORT has loops with a limit of their own. cbmc proves that none is
# taken more often.
#
# Debian has the package cbmc, but not in version 12: `sh tests/cbmc.sh build/cbmc` gets it there.
# Where the command is missing nothing is proved, and that is said.

command -v cbmc >/dev/null || PATH=$PWD/build/cbmc:$PATH
CBMC=${CBMC:-cbmc}  GOTO_CC=${GOTO_CC:-goto-cc}  INSTRUMENT=${INSTRUMENT:-goto-instrument}
OUT=build/prove
CHECKS="--bounds-check --pointer-check --pointer-overflow-check --signed-overflow-check
        --undefined-shift-check --div-by-zero-check --unwinding-assertions --no-standard-checks
        --drop-unused-functions --slice-formula"
SHORT=grf_pieces_take.0:3,grf_pieces_move_state.0:3,grf_pieces_move_state.1:3

# The time of a solver depends on chance: a proof of seconds took hours when a field had moved in a
# struct that it never reads. So each has five minutes, and then another solver tries.
solve() {                                   # name length unwind more option...
    goto=$OUT/$1.goto log=$OUT/$1.log unwind=$3
    shift 4
    timeout 300 $CBMC "$goto" $CHECKS --unwind "$unwind" --unwindset "$SHORT" "$@" >"$log" 2>&1
}

prove() {                                   # name length unwind more
    $GOTO_CC -DLENGTH="$2" -I. tests/prove_files.c -o $OUT/$1.all --function $1 &&
    $INSTRUMENT --replace-calls grf_fail:fail_ --replace-calls grf_tensor_fail:fail_tensor_ \
                --replace-calls grf_hash:hash_ $4 $OUT/$1.all $OUT/$1.goto >$OUT/$1.log 2>&1 &&
    { solve "$@" || [ $? -ne 124 ] || solve "$@" --sat-solver cadical; } &&
    grep -q '^VERIFICATION SUCCESSFUL' $OUT/$1.log
}

SAVED="--replace-calls grf_hash_start:hash_start_ --replace-calls grf_pieces_read:read_"

mkdir -p $OUT
if ! command -v ${CBMC%% *} >/dev/null; then
    echo "cbmc is not installed: nothing was proved"
    exit 0
fi
passed=0 failed=0
while read -r name length unwind more; do
    [ -z "$1" ] || [ "$1" = "$name" ] || continue
    if prove "$name" "$length" "$unwind" "$more"; then
        passed=$((passed + 1))
        echo "$name: proved, LENGTH $length"
    else
        failed=$((failed + 1))
        echo "$name FAILED: see $OUT/$name.log"
        grep ': FAILURE$' $OUT/$name.log | head -20
    fi
done <<TABLE
prove_place  0   5
prove_shape  63  66
prove_cursor 64  10
prove_header 64  20
prove_tensor 32  34
prove_key    48  50
prove_value  16  18
prove_pair   48  4 --replace-calls grf_gguf_check_key:key_ --replace-calls grf_gguf_check_value:value_
prove_state  0   10 $SAVED --replace-calls grf_ring_slot:slot_
prove_skip   0   10 $SAVED
prove_read   16  18
prove_save   104 10 --replace-calls grf_hash_start:hash_start_
TABLE
echo "$passed passed, $failed failed"
[ $failed = 0 ]
