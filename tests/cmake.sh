#!/bin/sh
# cmake.sh FOLDER HELLO - builds the projects of examples/cmake in FOLDER as somebody does who has
# nothing else: with the header copied beside the program, fetched from a git repository, and in a
# folder of this machine that stands for the repository. Each must tell what HELLO tells.

folder=$1 hello=$2 model=examples/models/storyteller.gguf passed=0 failed=0

build() {                                   # build NAME PROJECT OPTIONS...
    name=$1 project=$2
    shift 2
    mkdir -p "$folder/$name"
    cp "examples/cmake/$project/CMakeLists.txt" examples/hello.c "$folder/$name/"
    [ "$project" = fetched ] || cp griffin.h "$folder/$name/"
    if cmake -S "$folder/$name" -B "$folder/$name/build" "$@" > "$folder/$name.log" 2>&1 \
       && MAKEFLAGS= cmake --build "$folder/$name/build" >> "$folder/$name.log" 2>&1 \
       && "$folder/$name/build/tale" $model | cmp - "$folder/expected"
    then
        passed=$((passed + 1))
    else
        cat "$folder/$name.log"
        echo "$name FAILED"
        failed=$((failed + 1))
    fi
}

rm -rf "$folder"
mkdir -p "$folder/upstream"
cp griffin.h "$folder/upstream/"
git -C "$folder/upstream" init -q
git -C "$folder/upstream" add griffin.h
git -C "$folder/upstream" -c user.name=test -c user.email=test@localhost commit -q -m griffin.h
git -C "$folder/upstream" branch -q -M main
"$hello" $model > "$folder/expected"

build copied copied
build fetched fetched -DGRIFFIN="$PWD/$folder/upstream"
build local fetched -DFETCHCONTENT_SOURCE_DIR_GRIFFIN="$PWD"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
