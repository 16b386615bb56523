#!/bin/sh
# tasks.sh [TASK [KIND ...]] - synthetic tasks of memory, learned by tiny models of five kinds: how
# many answers are right in sequences as long as in training, and in those up to sixteen times as
# long? Copying and induction are those of the Griffin paper's section 6.2; recall is multi-query
# associative recall, by networks of two layers. Prints the rows of the tables in README.md, or
# those of a task or a kind, one in some minutes; BATCH=16 takes a quarter of the sequences of
# copying and induction. Run it from the top of the repository.
set -e
mkdir -p build/training

learn() {
    task=$1 kind=$2 model=build/training/$1-$2.gguf
    shift 2
    build/griffin train --task "$task" --kind "$kind" --rate 0.004 --reports 5 \
        --checkpoint "$model.ck" --resume -o "$model" "$@" > "$model.log"
    tail -n 1 "$model.log" | awk -v row="| $task | $kind" '
        { gsub(",", ""); for (i = 1; i < NF; i++) if ($i == "%") row = row " | " $(i - 1) " %" }
        END { print row " |" }'
}

tasks=${1:-copying induction recall}
[ $# = 0 ] || shift
for task in $tasks; do
    for kind in ${@:-griffin hawk attention hgrn2 supra}; do
        size="--length 64 --batch ${BATCH:-64} --steps 1000"
        [ $task != recall ] || size='--length 32 --batch 32 --steps 1500 --layers 2 --heads 2'
        case $task-$kind in
            recall-griffin) size="$size --blocks ra" ;;
            *-attention)    size="$size --window 1024" ;;
        esac
        learn $task $kind $size
    done
done
