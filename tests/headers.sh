#!/bin/sh
# headers.sh WARNINGS... - each header that is there to be copied compiles alone, its interface and
# its implementation, with $CC as C99 and with $CXX (if there is one) as C++11, and warns of nothing.

passed=0 failed=0

check() {                                   # check COMPILER LANGUAGE STANDARD SOURCE
    if printf "$4" | $1 -x $2 -std=$3 $warnings -Werror -I. -fsyntax-only -; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

warnings=$*
for source in \
    '#include "griffin.h"\n' \
    '#define GRIFFIN_IMPLEMENTATION\n#include "griffin.h"\n' \
    '#include "griffin.h"\n#include "tools/griffin_grammar.h"\n' \
    '#include "griffin.h"\n#define GRIFFIN_GRAMMAR_IMPLEMENTATION\n#include "tools/griffin_grammar.h"\n'
do
    case $source in *grammar*) [ -f tools/griffin_grammar.h ] || continue ;; esac
    check "$CC" c c99 "$source"
    command -v $CXX > /dev/null && check "$CXX" c++ c++11 "$source"
done
echo "$passed passed, $failed failed"
