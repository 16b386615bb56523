#!/bin/sh
# sqlite.sh EXTENSION NATIVE - the extension of examples/sqlite in the shell of SQLite. What it
# tells must be what NATIVE (tests/sqlite_native.c) tells, to the byte; tests/sqlite.sql compares.
# What is wrong must be refused with words.

extension=$1 native=$2 folder=build/sqlite passed=0 failed=0
model=examples/models/storyteller.gguf persona=examples/personas/pirate.persona

check() {                                   # check NAME COMMAND...
    name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$name FAILED"; fi
}

rm -rf "$folder"
mkdir -p "$folder"
build/griffin convert $model "$folder/other.gguf" --type q4_0 > "$folder/log" 2>&1 || exit 1
"$native" $model $persona > "$folder/native.sql" || exit 1
sqlite3 -batch < tests/sqlite.sql > "$folder/said" 2>&1
grep -v '^ok ' "$folder/said"
passed=$(grep -c '^ok ' "$folder/said")
failed=$(($(grep -c '^SELECT iif' tests/sqlite.sql) - passed))

# ---- what is refused ----

refused() {                                 # refused WORDS SQL: an error that has these words
    sqlite3 -batch "$folder/characters.db" ".load $extension" "SELECT griffin_open('$model');" \
        "SELECT griffin_open('$folder/other.gguf');" "$2" > "$folder/refused" 2>&1
    check "$2" grep -q "^Error: .*$1" "$folder/refused"
}

say() { refused "griffin_say: .*$1" "SELECT * FROM griffin_say($2);"; }     # say WORDS ARGUMENTS

saved="(SELECT pirate FROM personas)"
newer="CAST(substr($saved, 1, 8) || x'09' || substr($saved, 10) AS BLOB)"
forged="(SELECT state FROM native WHERE name ="

say "n must be a number from 0 to 4096"     ""
say "n must be a number from 0 to 4096"     "NULL, 'x', -1, 1"
say "n must be a number from 0 to 4096"     "NULL, 'x', 4097, 1"
say "n must be a number from 0 to 4096"     "NULL, 'x', 9223372036854775807, 1"
say "n must be a number from 0 to 4096"     "NULL, 'x', NULL, 1"
say "n must be a whole number"              "NULL, 'x', 'many', 1"
say "n must be a whole number"              "NULL, 'x', 1.5, 1"
say "text must be a text"                   "NULL, x'41', 1, 1"
say "text must be a text"                   "NULL, 5, 1, 1"
say "seed must be a whole number"           "NULL, 'x', 1, 'chance'"
say "model must be a name"                  "NULL, 'x', 1, 1, 1"
say "no model 'nobody' is open"             "NULL, 'x', 1, 1, 'nobody'"
say "temperature must be a number"          "NULL, 'x', 1, 1, NULL, 'hot'"
say "out of range"                          "NULL, 'x', 1, 1, NULL, -1"
say "out of range"                          "NULL, 'x', 1, 1, NULL, 1e999"
say "state must be a BLOB"                  "'a state', 'x', 1, 1"
say "not a saved state"                     "x'', 'x', 1, 1"
say "not a saved state"                     "zeroblob(1000000), 'x', 1, 1"
say "damaged or cut"                        "substr($saved, 1, length($saved) - 1), 'x', 1, 1"
say "damaged or cut"                        "substr($saved, 1, 100), 'x', 1, 1"
say "damaged or cut"                        "CAST($saved || x'00' AS BLOB), 'x', 1, 1"
say "a newer griffin.h"                     "$newer, 'x', 1, 1"
say "saved with another model"              "$saved, 'x', 1, 1, 'other'"
say "token -5"                              "$forged 'token -5'), 'x', 1, 1"
say "token 1000000000"                      "$forged 'token 1e9'), NULL, 1, 1"
say "griffin_decode: "                      "$forged 'decoder'), NULL, 1, 1"
refused "griffin_score: .*token -5"         "SELECT griffin_score('x', $forged 'token -5'));"
refused "griffin_next: no model 'x' is"     "SELECT * FROM griffin_next(NULL, 'x', 'x');"
refused "griffin_score: .*not a saved"      "SELECT griffin_score('x', x'00');"
refused "griffin_score: text must be"       "SELECT griffin_score(5);"
refused "griffin_open: .*nothing.gguf"      "SELECT griffin_open('nothing.gguf');"
refused "griffin_open: .*$persona"          "SELECT griffin_open('$persona');"
refused "griffin-tiny.gguf has no voc"      "SELECT griffin_open('build/data/griffin-tiny.gguf');"
refused "griffin_open: path must be"        "SELECT griffin_open(NULL);"
refused "'storyteller' belongs to"          "SELECT griffin_open('$persona', 'storyteller');"
refused "unsafe use of griffin_open" \
    "CREATE VIEW v AS SELECT griffin_open('$model'); SELECT * FROM v;"
refused "write TABLE.COLUMN" \
    "SELECT (SELECT text FROM griffin_say(state, 'x', 1, 1)) FROM heard;"

sqlite3 "$folder/characters.db" ".load $extension" "SELECT griffin_score('x');" \
    > "$folder/refused" 2>&1
check "no model" grep -q "no model is open: SELECT griffin_open" "$folder/refused"

# ---- two processes at once ----

talk() {                                    # goes on for a hundred characters
    sqlite3 -batch "$folder/characters.db" ".timeout 60000" ".load $extension" \
        "SELECT griffin_open('$model');" \
        "SELECT id, s.text, hex(s.state)
         FROM characters, griffin_say(characters.state, ' And', 3, id) AS s WHERE id <= 100;"
}
talk > "$folder/talk.1" 2>&1 &
talk > "$folder/talk.2" 2>&1
wait
check "two processes at once" cmp "$folder/talk.1" "$folder/talk.2"
check "a hundred answers" [ "$(wc -l < "$folder/talk.1")" -ge 101 ]
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
