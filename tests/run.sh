#!/bin/sh
# run.sh PROGRAM LOG - runs a test, under $RUNNER if that is set, and prints its sum; of one that
# fails everything it said. The last line of the log becomes "N passed, N failed" in any case: a
# test that crashes counts as a failure, and so does one that does not end with such a line.

# Tests run side by side, so a thread that waits must not keep a processor busy.
export OMP_WAIT_POLICY=passive

# A test that has not ended after half an hour is stopped, and has failed.
limit=
command -v timeout > /dev/null && limit="timeout 1800"

$limit $RUNNER "$1" > "$2" 2>&1
status=$?
program=$1 log=$2

set -- $(tail -n 1 "$log" | tr -d '\r')     # N passed, N failed
passed=$1 failed=$3
[ "$2 $4" = "passed, failed" ] || { passed=0 failed=1; }
[ $status -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
echo "$passed passed, $failed failed" >> "$log"

[ "$failed" -eq 0 ] || cat "$log"
echo "$program: $passed passed, $failed failed"
