#!/bin/sh
# headers.sh WARNINGS... - each header that is made to be copied compiles alone, its interface and its
# implementation, with $CC as C99 and with $CXX (if there is one) as C++11, without a warning.

passed=0 failed=0

check() {                                   # check COMPILER LANGUAGE STANDARD SOURCE
    if printf "$4" | $1 -x $2 -std=$3 $warnings -Werror -I. -fsyntax-only -; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

warnings=$*
library='#include "griffin.h"\n'
grammar='#include "tools/griffin_grammar.h"\n'
for source in "$library" "#define GRIFFIN_IMPLEMENTATION\n$library" \
              "$library$grammar" "$library#define GRIFFIN_GRAMMAR_IMPLEMENTATION\n$grammar"
do
    check "$CC" c c99 "$source"
    command -v $CXX > /dev/null && check "$CXX" c++ c++11 "$source"
done
echo "$passed passed, $failed failed"
