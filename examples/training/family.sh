#!/bin/sh
# family.sh TRAIN.txt VALID.txt - a Griffin, a Hawk, an HGRN2, a SUPRA and a model of global attention
# of one size, trained alike on sequences of 64 tokens: what do they make of longer texts? Prints the
# rows of the table in README.md, one in some minutes. Run it from the top of the repository.
set -e
mkdir -p build/training

compare() {
    kind=$1 model=build/training/family-$1.gguf
    shift
    build/griffin train "$train" -o "$model" --kind "$kind" --width 128 --layers 4 --vocab 512 \
        --length 64 --batch 16 --afresh --steps 800 --reports 4 --checkpoint "$model.ck" --resume \
        "$@" > "$model.log"
    printf '| %s | %s' "$kind" "$(awk '/million/ { print $1; exit }' "$model.log")"
    for length in 64 256 1024; do
        build/griffin perplexity -m "$model" -f "$valid" --length $length 2> /dev/null |
            awk '/bits/ { printf " | %.4f", $4 }'
    done
    echo ' |'
}

train=$1 valid=$2
compare griffin   --mlp 384 --window 64
compare hawk      --mlp 384
compare attention --mlp 424 --window 1024
compare hgrn2     --mlp 384
compare supra     --mlp 384
