#!/bin/sh
# tasks.sh - the two synthetic tasks of the Griffin paper's section 6.2, learned by tiny models of
# three kinds from sequences of 64 tokens: how many answers are right in those, and in sequences up
# to sixteen times as long? Prints the rows of the table in README.md, one in some minutes. Run it
# from the top of the repository.
set -e
mkdir -p build/training

learn() {
    task=$1 kind=$2 model=build/training/$1-$2.gguf
    shift 2
    build/griffin train --task "$task" --kind "$kind" --length 64 --batch 64 --steps 1000 \
        --rate 0.004 --reports 5 -o "$model" "$@" > "$model.log"
    tail -n 1 "$model.log" | awk -v row="| $task | $kind" '
        { gsub(",", ""); for (i = 1; i < NF; i++) if ($i == "%") row = row " | " $(i - 1) " %" }
        END { print row " |" }'
}

for task in copying induction; do
    learn $task griffin
    learn $task hawk
    learn $task attention --window 1024
done
