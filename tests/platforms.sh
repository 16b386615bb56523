#!/bin/sh
# platforms.sh NAME - griffin.h on another processor or system, as far as Debian has a compiler and
# an emulator for it: it must give the bits of tests/test_bits.c, pass the tests of what else may
# differ there (fewer where the emulator is slow), and tell a tale as this machine does: by the
# program, or by hello where there is no POSIX. Works in build/platforms/NAME; needs build/griffin,
# build/examples/hello and the models. Without a NAME it lists the names.
#
# To add a platform, add a line to the table: its name | the compiler | what its programs run under
# | who tells the tale | tests.

aarch64="aarch64-linux-gnu-gcc -static"
armv7="arm-linux-gnueabihf-gcc -static"
riscv64="riscv64-linux-gnu-gcc -static"
s390x="s390x-linux-gnu-gcc -static -fexcess-precision=fast"
i686="i686-linux-gnu-gcc -static -msse2 -mfpmath=sse"
mingw="x86_64-w64-mingw32-gcc -static -pthread"
clang_cl="sh tests/msvc.sh"
msvc="sh tests/msvc.sh -U__clang__ -march=x86-64-v4 -mavx512vnni -mavxvnni"
wasm="clang --target=wasm32-wasi --sysroot=/usr -msimd128 -Wno-unused-command-line-argument"
for lent in SIGNAL MMAN PROCESS_CLOCKS GETPID; do
    library=$(echo $lent | tr A-Z_ a-z-)
    wasm="$wasm -D_WASI_EMULATED_$lent -lwasi-emulated-$library"
done
node="node --no-warnings --experimental-wasi-unstable-preview1 tests/wasi.mjs"
# For clang to read intrinsics as Visual C++ does, all of it is compiled for AVX-512.
if grep -q avx512_vnni /proc/cpuinfo; then wide=wine; else wide=none; fi
export WINEDEBUG=-all WINEPREFIX=$PWD/build/platforms/wine

few="test_bits inside_formats"
sets="inside_same_bits test_company"        # of instructions: the same bits
kernels="$few test_state inside_files $sets"
emulated="$few test_sampler inside_files inside_kv"
states="test_rewind test_state"             # minutes under qemu
text="test_tokenizer"
native="$emulated $states $text test_arguments test_memory inside_math"
threads="$sets test_threads"

table="
aarch64  | $aarch64            | qemu-aarch64 | griffin | $emulated $states inside_same_bits
armv7    | $armv7              | qemu-arm     | hello   | $few inside_files
vfpv4    | $armv7 -mfpu=vfpv4  | qemu-arm     | griffin | $emulated $text
riscv64  | $riscv64            | qemu-riscv64 | griffin | $emulated $text
s390x    | $s390x              | qemu-s390x   | griffin | $emulated test_state $text
i686     | $i686               |              | griffin | $native
musl     | musl-gcc -static    |              | griffin | $native $threads test_stack
wasm     | $wasm               | $node        | griffin | $emulated $states inside_math $sets
windows  | $mingw              | wine         | griffin | $native $threads inside_reference
clang-cl | $clang_cl           | wine         | hello   | $few
msvc     | $msvc               | $wide        | hello   | $kernels
"

if [ $# -eq 0 ]; then
    echo "$table" | sed -n 's/ *|.*//p'
    exit
fi

set -e
name=$1
line=$(echo "$table" | grep "^$name ")
field() { echo "$line" | cut -d '|' -f $1; }
export RUNNER=$(echo $(field 3))
case $RUNNER in
qemu-*) level=-O2 ;;                        # what is emulated runs longer than it compiles
*)      level=-O1 ;;
esac
compiler="$(field 2) -std=c99 -D_POSIX_C_SOURCE=200809L -ffp-contract=off $level -I."
teller=$(echo $(field 4)) tests=$(field 5)
at=build/platforms/$name
mkdir -p $at

strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
shared="-DGRIFFIN_IMPLEMENTED -DGRIFFIN_GRAMMAR_IMPLEMENTED"

# The library is compiled once, with the rest of the program or alone.
case $teller in
griffin)
    main=tools/griffin.c here=build/griffin
    tale="Once upon a time, there was a"
    tell() { "$@" run -m examples/models/storyteller.gguf -p "$tale" -n 8 --seed 1; }
    library=
    for source in tools/*/*.c; do
        object=$at/$(echo $source | tr / _).o
        $compiler $strict -c $source -o $object
        library="$library $object"
    done ;;
hello)
    main=examples/hello.c here=build/examples/hello
    tell() { "$@" examples/models/storyteller.gguf; }
    library=$at/griffin.o
    $compiler $strict -DGRIFFIN_IMPLEMENTATION -x c -c griffin.h -o $library ;;
esac

# A test that looks inside the library has a copy of its own; all others share this one.
logs=
for test in $tests; do
    case $test in
    inside_*) define= linked= ;;
    *)        define=$shared linked=$library ;;
    esac
    $compiler $define -c tests/$test.c -o $at/$test.o
    $compiler $at/$test.o $linked -lm -o $at/$test.exe
    if [ "$RUNNER" = none ]; then
        echo "$at/$test.exe: compiled, not run, for this processor has no AVX-512"
        echo "1 passed, 0 failed" > $at/$test.log
    else
        sh tests/run.sh $at/$test.exe $at/$test.log
    fi
    logs="$logs $at/$test.log"
done
[ "$RUNNER" != none ] || exec sh tests/sum.sh $logs

$compiler $strict $shared -c $main -o $at/$teller.o
$compiler $at/$teller.o $library -lm -o $at/$teller.exe
tell $here > $at/expected 2> /dev/null
tell timeout 600 $RUNNER $at/$teller.exe 2> $at/tale.log | tr -d '\r' > $at/told
if cmp $at/told $at/expected; then told="1 passed, 0 failed"; else told="0 passed, 1 failed"; fi
[ "$told" = "1 passed, 0 failed" ] || cat $at/tale.log
echo "$told" >> $at/tale.log
echo "$name: the tale of $teller: $told"

sh tests/sum.sh $logs $at/tale.log
