#!/bin/sh
# uptrain.sh TRAIN.txt VALID.txt - the SUPRA paper in miniature: attention trained for 1000 steps, and
# then made a recurrent network by a tenth of that; against networks that were recurrent from the
# start. Prints the rows of the table in README.md, all in some ten minutes on one core. Run it from
# the top of the repository.
set -e
mkdir -p build/training
folder=build/training

measure() {
    printf '| %s | %s' "$1" "$2"
    build/griffin perplexity -m "$3" -f "$valid" --length 128 2> /dev/null |
        awk '/bits/ { printf " | %.4f", $4 }'
    echo ' |'
}

# what it is, its name, its steps, and more options
train() {
    what=$1 model=$folder/uptrain-$2.gguf steps=$3
    shift 3
    build/griffin train "$text" -o "$model" --steps "$steps" --length 128 --batch 8 --afresh \
        --keep-last --reports 4 --checkpoint "$model.ck" --resume "$@" > "$model.log"
    measure "$what" "$steps" "$model"
}

text=$1 valid=$2
shape='--width 128 --layers 4 --heads 4 --kv-heads 4 --vocab 512 --window 128 --kind attention'
from="--kind supra --from $folder/uptrain-attention.gguf"
train 'attention'                    attention 1000 $shape
train 'SUPRA from it'                kept       100 $from --rate 0.001
train 'SUPRA from the start'         fresh      100 $shape --blocks s
train 'SUPRA from the start'         long      1000 $shape --blocks s
train 'SUPRA from it, random maps'   random     100 $from --rate 0.001 --features random
train 'SUPRA from it, high rate'     fast       100 $from
train 'SUPRA from it, high rate, random maps' wild 100 $from --features random
train 'SUPRA from it, mixers alone'  mixers     100 $from --mixer-only
