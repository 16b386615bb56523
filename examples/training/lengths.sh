#!/bin/sh
# lengths.sh TRAIN.txt VALID.txt - a Griffin, a Hawk and a model of global attention, of one size
# and trained alike on sequences of 256 tokens: what do they make of longer texts? Prints the rows
# of the table in README.md, one in twenty minutes on one core. Run it from the top of the
# repository.
set -e
mkdir -p build/training

compare() {
    kind=$1 model=build/training/$1.gguf
    shift
    build/griffin train "$train" -o "$model" --kind "$kind" --width 128 --layers 6 --vocab 2048 \
        --length 256 --afresh --steps 3000 --checkpoint "$model.ck" --resume "$@" > "$model.log"
    printf '| %s' "$kind"
    for length in 256 1024 4096; do
        build/griffin perplexity -m "$model" -f "$valid" --length $length 2> /dev/null |
            awk '/bits/ { printf " | %.4f", $4 }'
    done
    echo ' |'
}

train=$1 valid=$2
compare griffin   --mlp 384 --window 256
compare hawk      --mlp 368
compare attention --mlp 416 --window 4096
