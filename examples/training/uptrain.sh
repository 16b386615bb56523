#!/bin/sh
# uptrain.sh TRAIN.txt VALID.txt - the SUPRA paper in miniature: attention trained for 500 steps,
# and then made a recurrent network in a tenth of that; against networks that were recurrent from
# the start. Prints the rows of the table in README.md, all in a few minutes on one core. Run it
# from the top of the repository.
set -e
mkdir -p build/training
folder=build/training

# the last bits a byte that a log has in lines with a word
bits() { grep "$1" "$2" | sed -n 's/.*(\([0-9.]*\) bits a byte).*/\1/p' | tail -n 1; }

measure() {
    printf '| %s | %s | %s | %s' "$1" "$2" "$(bits before "$3.log")" "$(bits % "$3.log")"
    build/griffin perplexity -m "$3" -f "$valid" --length 64 2> /dev/null |
        awk '/bits/ { printf " | %.4f", $4 }'
    echo ' |'
}

# what it is, its name, its steps, and more options
train() {
    what=$1 model=$folder/uptrain-$2.gguf steps=$3
    shift 3
    build/griffin train "$text" -o "$model" --steps "$steps" --length 64 --batch 8 --afresh \
        --keep-last --reports 4 --checkpoint "$model.ck" --resume "$@" > "$model.log"
    measure "$what" "$steps" "$model"
}

text=$1 valid=$2
shape='--width 64 --layers 4 --heads 2 --kv-heads 2 --vocab 300 --window 64 --kind attention'
from="--kind supra --from $folder/uptrain-attention.gguf"
train 'attention' attention 500 $shape
train 'SUPRA from it' kept 50 $from
train 'a quarter of the rate' slow 50 $from --rate 0.002
train 'mixers alone' mixers 50 $from --mixer-only
train 'feature maps at random' random 50 $from --features random
train 'feature maps at random, a quarter of the rate' wild 50 $from --features random --rate 0.002
train 'SUPRA from the start' fresh 50 $shape --blocks s
train 'SUPRA from the start' long 500 $shape --blocks s
