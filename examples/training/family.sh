#!/bin/sh
# family.sh TRAIN.txt VALID.txt [KIND ...] - a Griffin, a Hawk, an HGRN2, a SUPRA and a model of global
# attention of one size, trained alike on sequences of 64 tokens: what do they make of longer texts?
# Prints the rows of the table in README.md, or those of some kinds; a row takes about a minute on
# one core. Run it from the top of the repository.
set -e
mkdir -p build/training

compare() {
    kind=$1 model=build/training/family-$1.gguf
    shift
    build/griffin train "$train" -o "$model" --kind "$kind" --width 64 --layers 4 --heads 2 \
        --vocab 300 --length 64 --batch 8 --afresh --steps 800 --reports 4 --checkpoint "$model.ck" \
        --resume "$@" > "$model.log"
    printf '| %s | %s' "$kind" "$(awk '/million/ { print $1; exit }' "$model.log")"
    for length in 64 256 1024; do
        build/griffin perplexity -m "$model" -f "$valid" --length $length 2> /dev/null |
            awk '/bits/ { printf " | %.4f", $4 }'
    done
    echo ' |'
}

train=$1 valid=$2
shift 2
for kind in ${@:-griffin hawk attention hgrn2 supra}; do
    case $kind in
        attention) compare $kind --window 1024 --mlp 212 ;;
        *) compare $kind --window 64 ;;
    esac
done
