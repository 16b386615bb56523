#!/bin/sh
# tasks.sh [TASK [KIND ...]] - synthetic tasks of memory, learned by tiny models of five kinds from
# sequences of 64 tokens: how many answers are right in those, and in sequences up to sixteen times as
# long? Copying and induction are those of the Griffin paper's section 6.2, recall is multi-query
# associative recall. Prints the rows of the tables in README.md, or those of a task or a kind, one in
# some minutes. Run it from the top of the repository.
set -e
mkdir -p build/training

learn() {
    task=$1 kind=$2 model=build/training/$1-$2.gguf
    shift 2
    build/griffin train --task "$task" --kind "$kind" --length 64 --rate 0.004 --reports 5 \
        --checkpoint "$model.ck" --resume -o "$model" "$@" > "$model.log"
    tail -n 1 "$model.log" | awk -v row="| $task | $kind" '
        { gsub(",", ""); for (i = 1; i < NF; i++) if ($i == "%") row = row " | " $(i - 1) " %" }
        END { print row " |" }'
}

tasks=${1:-copying induction recall}
[ $# = 0 ] || shift
for task in $tasks; do
    for kind in ${@:-griffin hawk attention hgrn2 supra}; do
        batch='--batch 64 --steps 1000' window=
        [ $task != recall ] || batch='--batch 16 --steps 1000'
        [ $kind != attention ] || window='--window 1024'
        learn $task $kind $batch $window
    done
done
