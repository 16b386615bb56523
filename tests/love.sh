#!/bin/sh
# love.sh FOLDER NATIVE TOKENS - the scene of examples/love, as built into FOLDER, in LÖVE, under
# Xvfb. What the three say and the bits of their logits must be those of NATIVE
# (tests/love_native.c), also when they have gone back in time. Leaves FOLDER/screenshot.png. How
# frames kept their budget is reported, for that depends on the machine; FOLDER/log has it too.

folder=$1 native=$2 tokens=$3 seed=19 passed=0 failed=0

check() {                                   # check NAME COMMAND...
    name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$name FAILED"; fi
}

rm -f "$folder/screenshot.png"
"$native" "$folder/storyteller.gguf" $seed "$tokens" "$folder/pirate.persona" \
    "$folder/wolf.persona" "$folder/girl.persona" > "$folder/expected" || exit 1
timeout 300 xvfb-run -a -s "-screen 0 1280x800x24" love "$folder" --test --tokens="$tokens" \
    --seed=$seed --picture="$PWD/$folder/screenshot.png" > "$folder/said" 2> "$folder/log"
check "the program ends by itself" [ $? -eq 0 ]

lines=$(wc -l < "$folder/expected")
head -n "$lines" "$folder/said" > "$folder/compared"
check "words and bits" cmp "$folder/expected" "$folder/compared"
check "most lines have words" [ "$lines" -gt $((tokens / 2)) ]
check "the same after going back" grep -q '^went back 60 moments: 0 differences$' "$folder/said"
check "refused after close" \
    grep -q '^after close: .*The wolf: .*; .*the model is closed; .*advance: ' "$folder/said"
check "a picture" [ -s "$folder/screenshot.png" ]
check "frames are counted" grep '^[0-9]* frames, ' "$folder/log"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
