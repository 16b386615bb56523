#!/bin/sh
# headers.sh WARNINGS... - each header that is made to be copied compiles alone, its interface and
# its implementation, with $CC as C99 and with $CXX (if there is one) as C++11, without a warning;
# and the library with no option that changes arithmetic.

passed=0 failed=0

check() {                                   # check COMPILER LANGUAGE STANDARD SOURCE
    if printf "$4" | $1 -x $2 -std=$3 $warnings -Werror -I. -fsyntax-only -; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

warnings="$* -Wcast-qual"
library='#include "griffin.h"\n'
grammar='#include "tools/griffin_grammar.h"\n'
for source in "$library" "#define GRIFFIN_IMPLEMENTATION\n$library" \
              "$library$grammar" "$library#define GRIFFIN_GRAMMAR_IMPLEMENTATION\n$grammar"
do
    check "$CC" c c99 "$source"
    command -v $CXX > /dev/null && check "$CXX" c++ c++11 "$source"
done

# As a file of its own, as `make shared` compiles it: compilers then also warn of what is not used.
for only in "" -DGRIFFIN_SCALAR_ONLY; do
    if $CC -x c -std=c99 $warnings -Werror -DGRIFFIN_IMPLEMENTATION $only -fsyntax-only griffin.h
    then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done

# An option that the compiler has is refused by it, or where a model would be opened. The first is
# no such option.
mkdir -p build/tests
program=build/tests/${CC##*/}-options
accepted() {
    printf '#define GRIFFIN_IMPLEMENTATION\n#define GRIFFIN_SCALAR_ONLY\n%b%s' "$library" \
        'int main(void) { griffin_model *m; return griffin_open_memory(&m, "", 0, NULL)
                                                   == GRIFFIN_E_UNSUPPORTED; }' \
        | $CC $1 -O1 -I. -x c - -lm -o $program 2> /dev/null && $program
}
expected=accepted
for option in -ffp-contract=fast -ffast-math -funsafe-math-optimizations -freciprocal-math \
              -ffinite-math-only "-fassociative-math -fno-signed-zeros -fno-trapping-math"
do
    echo 'int main(void) {}' | $CC $option -Werror -x c - -o $program 2> /dev/null || continue
    if accepted "$option"; then found=accepted; else found=refused; fi
    if [ $found = $expected ]; then
        passed=$((passed + 1))
    else
        echo "$CC $option was $found"
        failed=$((failed + 1))
    fi
    expected=refused
done
echo "$passed passed, $failed failed"
