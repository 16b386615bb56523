# checks.mk - what must hold besides the tests before a change lands: `make check-all`, or one of
# these. .ci/run says what they need and sums them up.
#
#     same-bits        16 ways to compile the library, the same bits from each
#     symbols          what the linker sees of the library
#     headers-clang    the headers compile alone by clang, too
#     platforms        other processors and systems: tests/platforms.sh has the table
#     sqlite-test      characters in a table of SQLite
#     cmake-test       projects that fetch or copy the header
#     cpp-test         the header for C++, by two compilers, without exceptions and RTTI
#     windows-stack    functions align the stack for wide vectors there
#     web-test         the page in a browser
#     love-test        three characters in LÖVE, on a screen that nobody sees
#     python-test      examples/python, with NumPy and without, against a program in C
#     life-test        a million tokens in one state, and the same calls again
#     tests-elsewhere  the tests unoptimised, and by clang with all it can do
#     sanitizers       the tests under the sanitizers of gcc and clang
#     valgrind         uninitialised memory in the readers and the network
#     lint             cppcheck
#     spills           sums of the kernels stay in registers
#     fuzz             each fuzzer for $(SECONDS) seconds
#     prove            the readers of files, by a bounded model checker
#     sizes            not a check: bytes of the compiled library
#     real-model       not in check-all: fetches a model that others have trained, and talks to it

check-all: sanitizers platforms tests-elsewhere same-bits fuzz prove valgrind web-test love-test \
           sqlite-test cmake-test cpp-test python-test life-test lint spills windows-stack symbols \
           headers-clang

# ---- the library, compiled in other ways -------------------------------------------------------
# COMPILER-STANDARD-OPTIMISATION; warnings are errors. Each must give the bits that
# tests/test_bits.c knows.

COMPILERS = gcc clang
ALONE     = -std=c99 -D_POSIX_C_SOURCE=200809L -O2 -DGRIFFIN_IMPLEMENTATION -x c
STANDARDS = c99 gnu99 c++11 gnu++11
VARIANTS  = $(foreach c,$(COMPILERS),$(foreach s,$(STANDARDS),$(foreach o,O0 O3,$c-$s-$o)))

same-bits: $(VARIANTS:%=build/bits/%.log)
	@sh tests/sum.sh $^

$(VARIANTS:%=build/bits/%.log): build/bits/%.log: build/bits/% FORCE | $(MODELS)
	@sh tests/run.sh $< $@

$(VARIANTS:%=build/bits/%): build/bits/%: tests/test_bits.c tests/test.h griffin.h
	@mkdir -p $(@D)
	$(word 1,$(subst -, ,$*)) -std=$(word 2,$(subst -, ,$*)) -$(word 3,$(subst -, ,$*)) \
	    $(if $(findstring O3,$*),-march=native) $(if $(findstring +,$*),-x c++ -fno-exceptions) \
	    $(WARNINGS) -Werror $< -x none -lm -o $@

headers-clang:
	@CC=clang CXX=clang++ sh tests/headers.sh $(WARNINGS)

# What the linker sees of the library: no data that can be written; outside only the functions of
# the manual, with a prefix if one was asked for; and with neither stdio nor stdlib no more of the C
# library than this. libgcc tells x86-64 processors apart. The shared library shows all functions of
# the API, which the header names once more as GRF_PREFIXED, and the extension of SQLite just one.
COPIES = plain bare prefixed
NEEDED = mem(cpy|move|set|cmp|chr)|bcmp|str(len|cmp|ncmp|chr)|sqrtf|frexp|ldexp|__cpu_.*

build/symbols/%_bare.o:     COPY = -ffreestanding -DGRIFFIN_NO_STDIO -DGRIFFIN_NO_STDLIB
build/symbols/%_prefixed.o: COPY = -DGRIFFIN_PREFIX=griffin_our_

symbols: $(foreach c,$(COMPILERS),$(COPIES:%=build/symbols/$c_%.o)) \
         build/symbols/libgriffin.shown build/symbols/griffin_sqlite.shown
	@! nm $(filter %.o,$^) | grep -E '^[0-9a-f]+ [BbDdCcGgSs] ' \
	    || { echo "data that can be written"; exit 1; }
	@! nm -g --defined-only $(filter %.o,$^) | grep -E '^[0-9a-f]+ . ' | grep -v ' T griffin_' \
	    || { echo "names that are not griffin_..."; exit 1; }
	@! nm -g --defined-only $(filter %_prefixed.o,$^) | grep ' T ' | grep -v ' griffin_our_griffin_' \
	    || { echo "names without the prefix"; exit 1; }
	@! nm -u $(filter %_bare.o,$^) | grep ' U ' | grep -vE ' U ($(NEEDED))$$' \
	    || { echo "not in the list of what may be needed"; exit 1; }
	@echo "$(words $^) passed, 0 failed"

SHOWN_libgriffin     = sed -n 's/^  .define .*GRF_PREFIXED(\(griffin_.*\))$$/\1/p' griffin.h
SHOWN_griffin_sqlite = echo sqlite3_griffinsqlite_init

build/symbols/%.shown: build/%.so
	@mkdir -p $(@D)
	@nm -D --defined-only $< | sed 's/.* T //' | sort > $@.found
	@$(SHOWN_$*) | sort | diff - $@.found
	@mv $@.found $@

build/symbols/%.o: griffin.h
	@mkdir -p $(@D)
	$(firstword $(subst _, ,$*)) $(ALONE) -fno-pie $(COPY) -c $< -o $@

# Sums stay in registers: reads the machine code of the kernels for x86-64.
spills: $(COMPILERS:%=build/spills_%.checked)
	@echo "$(words $^) passed, 0 failed"

build/spills_%.checked: griffin.h tests/spills.awk
	$* $(ALONE) -c $< -o $(@:.checked=.o)
	@objdump -d --no-show-raw-insn $(@:.checked=.o) | awk -f tests/spills.awk
	@touch $@

# Bytes of code and tables in the compiled library, by what it was built with.
sizes:
	@mkdir -p build
	@for with in "-O2" "-O2 -DGRIFFIN_SCALAR_ONLY" "-O2 -DGRIFFIN_NO_STDIO" \
	             "-Os" "-Os -DGRIFFIN_SCALAR_ONLY"; do \
	    $(CC) -std=c99 $$with -DGRIFFIN_IMPLEMENTATION -x c -c griffin.h -o build/size.o && \
	    size build/size.o | awk -v with="$$with" 'NR == 2 { print $$1, with }'; \
	done

# ---- other machines ----------------------------------------------------------------------------

PLATFORMS = $(shell sh tests/platforms.sh)

platforms: $(PLATFORMS:%=platform-%)

$(PLATFORMS:%=platform-%): platform-%: build/griffin build/examples/hello $(MODELS)
	@sh tests/platforms.sh $*

# Wine starts every program with an aligned stack and Debian's gcc has a patch, so only the assembly
# shows whether functions that keep wide vectors on the stack align it: see GRF_WINDOWS_GCC.
windows-stack:
	@x86_64-w64-mingw32-gcc -O2 -std=c99 -DGRIFFIN_IMPLEMENTATION -x c -S griffin.h -o - | awk ' \
	    /^[A-Za-z_]/           { name = $$1; aligned = 0 } \
	    /and.*-(32|64), %rsp/  { aligned = 1 } \
	    /[yz]mm.*\(%r[sb]p/    { used++; if (!aligned) { print name, $$0; wrong = 1 } } \
	    END                    { exit wrong || !used }'
	@echo "1 passed, 0 failed"

# Characters in a table, through the shell of SQLite, against the library on this machine.
sqlite-test: build/griffin_sqlite.so build/sqlite_native build/griffin build/data/griffin-tiny.gguf
	@sh tests/sqlite.sh build/griffin_sqlite build/sqlite_native

build/sqlite_native: tests/sqlite_native.c griffin.h
	$(CC) $(STANDARD) -O1 $(WARNINGS) $< -lm -o $@

cmake-test: build/examples/hello
	@sh tests/cmake.sh build/cmake $<

# The header for C++, by two compilers and standards, with the shared library.
CPP_WAYS = g++-c++17 clang++-c++17 g++-c++20 clang++-c++20

cpp-test: $(CPP_WAYS:%=build/cpp/%.log)
	@sh tests/sum.sh $^

$(CPP_WAYS:%=build/cpp/%.log): %.log: % FORCE
	@sh tests/run.sh $< $@

$(CPP_WAYS:%=build/cpp/%): build/cpp/%: tests/cpp_host.cpp examples/cpp_host/griffin.hpp \
                           tests/test.h build/libgriffin.so
	@mkdir -p $(@D)
	$(subst +-,+ -std=,$*) -O1 -fno-exceptions -fno-rtti $(WARNINGS) -Wcast-qual -Werror -I. \
	    $< build/libgriffin.so -o $@

# The page in a browser, driven by node, against its engine on this machine.
web-test: web build/web_native
	@node tests/web.mjs build/web build/web_native

build/web_native: tests/web_native.c examples/web/web.c griffin.h
	$(CC) $(STANDARD) -O1 $(WARNINGS) $< -lm -o $@

# Three characters in LÖVE, under Xvfb, against the library on this machine.
love-test: love-files build/love_native
	@sh tests/love.sh build/love build/love_native 150

build/love_native: tests/love_native.c griffin.h
	$(CC) $(STANDARD) -O1 $(WARNINGS) $< -lm -o $@

# Python as a host: against a program in C, and against NumPy's mathematics.
python-test: shared build/griffin build/examples/hello $(MODELS)
	@CC="$(CC)" python3 tests/python_host.py
	@CC="$(CC)" python3 -S tests/python_host.py
	@build/griffin convert $(MODEL) build/f32.gguf --type f32 > build/f32.log
	@for model in build/f32 build/data/griffin-tiny build/data/griffin-paper-tiny \
	              build/data/hawk-tiny; do \
	    python3 examples/python/compare.py $$model.gguf && echo "1 passed, 0 failed" || exit 1; \
	done

# A pass of this model is too small to be shared by threads.
LIFE = OMP_NUM_THREADS=1 build/examples/life --log build/years.log

life-test: build/examples/life
	@$(LIFE) --tokens 1000000 > build/years.lived
	@$(LIFE) --replay > build/years.again
	@for run in lived again; do sed '/tokens in/,$$d' build/years.$$run > build/years.$$run.said; done
	@cmp build/years.lived.said build/years.again.said
	@tail -n 2 build/years.again && ls -l build/years.log build/years.log.save
	@tail -n 1 build/years.again | grep -q "the same bits" && echo "1 passed, 0 failed"

# ---- a real model ------------------------------------------------------------------------------

real-model: build/griffin $(BUILD)/tests/real_model
	@sh tests/real_model.sh

$(BUILD)/tests/real_model: $(BUILD)/tests/real_model.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) $^ -lm -o $@

# ---- the tests once more -----------------------------------------------------------------------
# Each of these has a build of its own, in build/NAME. `make test` and headers-clang compile the
# headers alone; these need not do it again.

tests-elsewhere: test-gcc-O0 test-gcc-O2 test-clang-O3

# What depends on optimisation: bits, stacks, memory, and all that a copy of the library shows.
test-gcc-O0: all $(MODELS)
	@$(MAKE) test HEADERS= BUILD=build/gcc-O0 CC=gcc CFLAGS=-O0 \
	    TESTS="$(filter inside_% test_bits test_company test_guest test_memory test_stack \
	                    test_state,$(TESTS))"

# `make test` does not optimise most copies of the library in tests.
test-gcc-O2: all $(MODELS)
	@$(MAKE) test HEADERS= BUILD=build/gcc-O2 CC=gcc CFLAGS=-O2 UNOPTIMISED= \
	    TESTS="$(filter inside_%,$(TESTS))"

test-clang-O3: all $(MODELS)
	@$(MAKE) test HEADERS= BUILD=build/clang-O3 CC=clang CFLAGS="-O3 -march=native"

# Addresses and undefined behaviour in every test, data races in those that make threads. OpenMP's
# own locks would look like races. clang needs a minute for a copy of the vector kernels with
# `undefined`, gcc minutes for one with both, and plain C in their place would run for half an hour.
# So clang looks for addresses, and gcc for the rest. Only the fuzzers are made by clang with plain C.
sanitizers: test-asan test-ubsan test-tsan

SANITIZED = -O1 -g -fno-sanitize-recover=all

test-asan: all $(MODELS)
	@$(MAKE) test HEADERS= OPENMP= BUILD=build/asan CC=clang \
	    CFLAGS="$(SANITIZED) -fsanitize=address"

test-ubsan: all $(MODELS)
	@$(MAKE) test HEADERS= OPENMP= BUILD=build/ubsan CC=gcc \
	    CFLAGS="$(SANITIZED) -fsanitize=undefined"

test-tsan: all $(MODELS)
	@$(MAKE) test HEADERS= OPENMP= BUILD=build/tsan CC=clang \
	    CFLAGS="$(SANITIZED) -fsanitize=thread" \
	    TESTS="$(patsubst tests/%.c,%,$(shell grep -l pthread.h tests/*.c))"

# Uninitialised memory, which the sanitizers do not see.
VALGRIND = valgrind -q --error-exitcode=9 --leak-check=full --suppressions=tests/valgrind.supp

VALGRIND_TESTS = inside_files test_weights test_tokenizer test_state inside_reference

valgrind: $(VALGRIND_TESTS:%=build/tests/%.valgrind)
	@sh tests/sum.sh $^

build/tests/%.valgrind: build/tests/% FORCE | $(MODELS)
	@RUNNER="$(VALGRIND)" sh tests/run.sh $< $@

# ---- other readers of the source ---------------------------------------------------------------
# cppcheck finds more in a header that is read alone than in the C file that includes it. So the
# library is read once alone, and once with the tools, in tools/shared/engine.c.
# cppcheck takes memcpy into a union's member for a read of it.

LINT = cppcheck --std=c99 --enable=warning,portability --error-exitcode=1 --quiet \
           -D__x86_64__ -D__unix__

lint:
	$(LINT) --suppress=uninitvar:griffin.h -DGRIFFIN_IMPLEMENTATION griffin.h
	$(LINT) tools
	@echo "1 passed, 0 failed"

# A short look with each fuzzer, from the seeds in the folders of tests/data that its opening
# comment names. The command for a long look stands there too.
FUZZERS = $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))
SECONDS = 30

fuzz:
	@$(MAKE) run-fuzzers BUILD=build/fuzz CC=clang OPENMP= \
	    CFLAGS="-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	            -DGRIFFIN_SCALAR_ONLY"

run-fuzzers: $(FUZZERS:%=$(BUILD)/tests/%.fuzzed)
	@echo "$(words $^) passed, 0 failed"

$(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz_%.o $(LIBRARY)
	$(CC) -fsanitize=fuzzer,address,undefined $^ -lm -o $@

$(BUILD)/tests/fuzz_%.fuzzed: $(BUILD)/tests/fuzz_% FORCE
	@mkdir -p $<.corpus
	@echo "fuzz_$*, $(SECONDS) s"
	@$< -max_total_time=$(SECONDS) -rss_limit_mb=4096 -artifact_prefix=$<. $<.corpus \
	    $$(sed '/\*\//q' tests/fuzz_$*.c | grep -o 'tests/data/[a-z_/]*' | sort -u) > $<.log 2>&1 \
	    || { tail -n 40 $<.log; exit 1; }

# What is proved, for how long an input, stands in tests/prove_files.c and tests/prove.sh.
prove:
	@sh tests/prove.sh

.PHONY: check-all same-bits headers-clang symbols spills sizes platforms \
        $(PLATFORMS:%=platform-%) windows-stack web-test love-test \
        sqlite-test cmake-test cpp-test python-test life-test \
        tests-elsewhere test-gcc-O0 test-gcc-O2 test-clang-O3 \
        sanitizers test-asan test-ubsan test-tsan valgrind lint fuzz run-fuzzers real-model prove
