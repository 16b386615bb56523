#!/bin/sh
# platforms.sh NAME - griffin.h on another processor or system, as far as Debian has a compiler and
# an emulator for it: it must give the bits of tests/test_bits.c, pass the tests of what else may
# differ there (fewer where the emulator is slow), and tell a tale as this machine does: by the
# program, or by hello where there is no POSIX. Works in build/platforms/NAME; needs build/griffin,
# build/examples/hello and the models. Without a NAME it lists the names.
#
# To add a platform, add a line: name | compiler | what runs its programs | teller | tests

emulated="files formats kv rewind sampler state tokenizer"
native="arguments files formats kv math memory rewind sampler state tokenizer"
wasi_emulates="-D_WASI_EMULATED_SIGNAL -lwasi-emulated-signal
    -D_WASI_EMULATED_MMAN -lwasi-emulated-mman
    -D_WASI_EMULATED_PROCESS_CLOCKS -lwasi-emulated-process-clocks
    -D_WASI_EMULATED_GETPID -lwasi-emulated-getpid"
wasm="clang --target=wasm32-wasi --sysroot=/usr -msimd128 -Wno-unused-command-line-argument"
wasm="$wasm $(echo $wasi_emulates)"
node="node --no-warnings --experimental-wasi-unstable-preview1 tests/wasi.mjs"
like_msvc="sh tests/msvc.sh -U__clang__ -march=x86-64-v4 -mavx512vnni -mavxvnni"
export WINEDEBUG=-all WINEPREFIX=$PWD/build/platforms/wine

table="
aarch64  | aarch64-linux-gnu-gcc -static      | qemu-aarch64 | griffin | $emulated same_bits
armv7    | arm-linux-gnueabihf-gcc -static    | qemu-arm     | griffin | $emulated
riscv64  | riscv64-linux-gnu-gcc -static      | qemu-riscv64 | griffin | $emulated
s390x    | s390x-linux-gnu-gcc -static -fexcess-precision=fast | qemu-s390x | griffin | $emulated
i686     | i686-linux-gnu-gcc -static -msse2 -mfpmath=sse      |            | griffin | $native
musl     | musl-gcc -static                   |              | griffin | $native same_bits threads
wasm     | $wasm                              | $node        | griffin | $emulated same_bits math
windows  | x86_64-w64-mingw32-gcc -static -pthread | wine    | hello   | $native same_bits threads reference
clang-cl | sh tests/msvc.sh                   | wine         | hello   | formats
msvc     | $like_msvc                         | wine         | hello   | files formats same_bits state
"

if [ $# -eq 0 ]; then
    echo "$table" | sed -n 's/ *|.*//p'
    exit
fi

set -e
name=$1
line=$(echo "$table" | grep "^$name ")
field() { echo "$line" | cut -d '|' -f $1; }
compiler="$(field 2) -std=c99 -D_POSIX_C_SOURCE=200809L -ffp-contract=off -O1 -I."
RUNNER=$(field 3) teller=$(echo $(field 4)) tests="bits $(field 5)"
export RUNNER
at=build/platforms/$name
mkdir -p $at

strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
$compiler $strict -c tools/shared/engine.c -o $at/engine.o

# A test that looks inside the library has a copy of its own; all others share this one.
for test in $tests; do
    if [ $test != bits ] && grep -q '^#define GRIFFIN_IMPLEMENTATION' tests/test_$test.c; then
        define= library=
    else
        define=-DGRIFFIN_IMPLEMENTED library=$at/engine.o
    fi
    $compiler $define -c tests/test_$test.c -o $at/test_$test.o
    $compiler $at/test_$test.o $library -lm -o $at/test_$test.exe
    sh tests/run.sh $at/test_$test.exe $at/test_$test.log
done

case $teller in
griffin) here=build/griffin sources="tools/griffin.c $(ls tools/*/*.c | grep -v shared/engine.c)"
         tell() { "$@" run -m examples/models/storyteller.gguf -p "$tale" -n 8 --seed 1; } ;;
hello)   here=build/examples/hello sources=examples/hello.c
         tell() { "$@" examples/models/storyteller.gguf; } ;;
esac
tale="Once upon a time there was a king who had three daughters,"
objects=
for source in $sources; do
    object=$at/$(echo $source | tr / _).o
    $compiler $strict -DGRIFFIN_IMPLEMENTED -c $source -o $object
    objects="$objects $object"
done
$compiler $objects $at/engine.o -lm -o $at/$teller.exe
tell $here > $at/expected 2> /dev/null
tell $RUNNER $at/$teller.exe 2> $at/tale.log | tr -d '\r' > $at/told
if cmp $at/told $at/expected; then echo "1 passed, 0 failed" >> $at/tale.log
else echo "0 passed, 1 failed" >> $at/tale.log; cat $at/tale.log; fi
echo "$name: $teller tells $(tail -n 1 $at/tale.log)"

logs=$at/tale.log
for test in $tests; do logs="$logs $at/test_$test.log"; done
sh tests/sum.sh $logs
