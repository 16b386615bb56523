#!/bin/sh
# sum.sh LOG... - adds up the last lines of logs, "N passed, N failed". That nothing ran is a
# failure.

for log; do tail -n 1 "$log"; done | awk '
    { passed += $1; failed += $3 }
    END { print passed + 0 " passed, " failed + 0 " failed"; exit failed || !passed }'
