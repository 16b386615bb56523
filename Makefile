# griffin.h needs no build: copy it. This file builds the program around it and checks its promises.
#
#     make            build/griffin, the command line program
#     make run        the shipped model tells a tale
#     make test       every test; gcc and make are all it takes
#     make hello      the ten lines of the README; so for every other program in examples/
#     make web        build/web, a page to be put on any static file server; wants clang and lld
#     make check-all  what CI runs after the tests; wants what .ci/run installs
#     make clean

CC       = gcc
CXX      = $(subst gcc,g++,$(CC:clang%=clang++%))
CFLAGS   = -O2
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
BUILD    = build

# The tools are plain C99 over POSIX. Contraction to fma is off, although griffin.h gives the same
# bits with it: `make same-bits` shows that.
STANDARD = -std=c99 -D_POSIX_C_SOURCE=200809L -ffp-contract=off

# Threads come from OpenMP where the compiler has it.
OPENMP := $(shell mkdir -p build && echo 'int main(void) { return 0; }' | \
            $(CC) -fopenmp -x c - -o build/.openmp 2>/dev/null && echo -fopenmp)

all: $(BUILD)/griffin

# ---- the program -------------------------------------------------------------------------------
# Everything but main is in a library, so that tests link to whatever of it they need.

LIBRARY = $(BUILD)/libtools.a
SOURCES = $(wildcard tools/*/*.c)
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o)

$(BUILD)/griffin: $(BUILD)/tools/griffin.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) $^ -lm -o $@

$(LIBRARY): $(OBJECTS)
	rm -f $@ && ar qcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(STANDARD) $(CFLAGS) $(WARNINGS) $(OPENMP) -pthread -I. -MMD -c $< -o $@

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/*/*/*.d)

# ---- using it ----------------------------------------------------------------------------------

MODEL  = examples/models/storyteller.gguf
PROMPT = Once upon a time there was a king who had three daughters,

run: $(BUILD)/griffin
	$(BUILD)/griffin run -m $(MODEL) -p "$(PROMPT)"

# Each example is a program by itself: cc -O2 examples/hello.c -lm. Here they skip their copy of the
# library and share the one that is compiled already, but for two whose point is how it is compiled.
EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/*.c)) \
           $(if $(shell command -v $(CXX)),cpp_host)

$(EXAMPLES): %: $(BUILD)/examples/%
	$< $(MODEL)

$(BUILD)/examples/%.o: STANDARD += -DGRIFFIN_IMPLEMENTED
$(BUILD)/examples/embedded_model.o: STANDARD += -UGRIFFIN_IMPLEMENTED
$(BUILD)/examples/embedded_model.o: $(MODEL)

$(BUILD)/examples/%: $(BUILD)/examples/%.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) -pthread $^ -lm -o $@

$(BUILD)/examples/cpp_host: $(wildcard examples/cpp_host/*.cpp) griffin.h
	$(CXX) -std=c++11 $(CFLAGS) $(WARNINGS) $(filter %.cpp,$^) -lm -o $@

# The page and its engine, a module that imports nothing; wasi-libc lends memcpy and the like.
WASM = clang --target=wasm32-wasi --sysroot=/usr -msimd128

web: build/web/griffin.wasm $(patsubst examples/web/%,build/web/%,$(wildcard examples/web/*.html \
         examples/web/*.js)) build/web/storyteller.gguf

build/web/griffin.wasm: examples/web/web.c griffin.h
	@mkdir -p $(@D)
	$(WASM) -std=c99 -ffp-contract=off -O2 $(WARNINGS) -nostartfiles -Wl,--no-entry,--strip-all \
	    $< -o $@

build/web/%: examples/web/%
	@mkdir -p $(@D)
	cp $< $@

build/web/storyteller.gguf: $(MODEL)
	@mkdir -p $(@D)
	cp $< $@

# ---- tests -------------------------------------------------------------------------------------
# tests/test_*.c are programs that end with the line "N passed, N failed". They read reference
# models, build/data/NAME.gguf (f32) and NAME.TYPE.gguf, which the converter makes from
# tests/data/NAME. Types that the library has no tiles of are converted twice: to a file of rows as
# other programs write them, and from that.

TESTS  = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
NAMES  = $(patsubst tests/data/%/config.json,%,$(wildcard tests/data/*/config.json))
TYPES  = f16 bf16 q8_0 q4_0
MODELS = $(NAMES:%=build/data/%.gguf) $(foreach n,$(NAMES),$(TYPES:%=build/data/$n.%.gguf)) \
         $(FOREIGN:%=build/data/griffin-tiny.%.gguf)
FOREIGN = q4_1 q5_0 q5_1

test: $(TESTS) $(MODELS)
	@$(call run-tests,$(TESTS))

$(BUILD)/tests/test_examples: | $(EXAMPLES:%=$(BUILD)/examples/%)

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) -pthread $^ -lm -o $@

# It has two more copies of the library in it.
$(BUILD)/tests/test_guest: $(BUILD)/tests/guest_prefixed.o $(BUILD)/tests/guest_static.o

build/data/%.gguf: build/griffin
	@mkdir -p $(@D)
	@build/griffin convert tests/data/$(basename $*) $@ \
	    --type $(or $(patsubst .%,%,$(suffix $*)),f32) > $@.log 2>&1 || { cat $@.log; exit 1; }

$(FOREIGN:%=build/data/griffin-tiny.%.gguf): build/data/griffin-tiny.%.gguf: build/griffin
	@mkdir -p $(@D)
	@{ build/griffin convert tests/data/griffin-tiny $(@:.gguf=.rows.gguf) --type $* --rows && \
	    build/griffin convert $(@:.gguf=.rows.gguf) $@; } > $@.log 2>&1 || { cat $@.log; exit 1; }

# Runs programs, under $(RUNNER) if that is set, and sums their last lines. One that crashes counts
# as a failure, and so does running none.
define run-tests
passed=0; failed=0; \
for program in $(1); do \
    $(RUNNER) $$program > $$program.log 2>&1; status=$$?; \
    set -- $$(tail -n 1 $$program.log | tr -d '\r'); \
    case "$$2$$4" in passed,failed) ;; *) set -- 0 - 1 ;; esac; \
    [ $$status -eq 0 ] || [ $$3 -gt 0 ] || set -- $$1 - 1; \
    [ $$3 -eq 0 ] || cat $$program.log; \
    echo "$$program: $$1 passed, $$3 failed"; \
    passed=$$((passed + $$1)); failed=$$((failed + $$3)); \
done; \
echo "$$passed passed, $$failed failed"; \
[ $$passed -gt 0 ] && [ $$failed -eq 0 ]
endef

# ---- check-all ---------------------------------------------------------------------------------

check-all: same-bits symbols platforms web-test tests-elsewhere sanitizers valgrind lint fuzz spills

# The library compiled by COMPILER_LANGUAGE_OPTIMISATION_DIALECT, warnings being errors, must give
# the bits that tests/test_bits.c knows.
VARIANTS = $(foreach c,gcc clang,$(foreach l,c99 c++11,$(foreach o,O0 O3,$(foreach d,iso gnu,\
               build/bits/$c_$l_$o_$d))))

part      = $(word $1,$(subst _, ,$*))
dialect   = $(if $(filter gnu,$(call part,4)),$(subst c,gnu,$(call part,2)),$(call part,2))
language  = -std=$(dialect) -x $(if $(findstring +,$(call part,2)),c++ -fno-exceptions,c)
optimiser = -$(call part,3) $(if $(filter O3,$(call part,3)),-march=native)

same-bits: $(VARIANTS) $(MODELS)
	@$(call run-tests,$(VARIANTS))

build/bits/%: tests/test_bits.c tests/test.h griffin.h
	@mkdir -p $(@D)
	$(call part,1) $(language) $(optimiser) $(WARNINGS) -Werror $< -x none -lm -o $@

# What the linker sees of the library: no data that can be written; outside only the functions of
# the manual, with a prefix if one was asked for; and with neither stdio nor stdlib no more of the C
# library than this. libgcc tells x86-64 processors apart.
COPIES = plain bare prefixed
NEEDED = mem(cpy|move|set|cmp|chr)|bcmp|str(len|cmp|ncmp|chr)|sqrtf|frexp|ldexp|__cpu_.*

build/symbols/%_bare.o:     COPY = -ffreestanding -DGRIFFIN_NO_STDIO -DGRIFFIN_NO_STDLIB
build/symbols/%_prefixed.o: COPY = -DGRIFFIN_PREFIX=griffin_our_

symbols: $(foreach c,gcc clang,$(COPIES:%=build/symbols/$c_%.o))
	@! nm $^ | grep -E '^[0-9a-f]+ [BbDdCcGgSs] ' || { echo "data that can be written"; exit 1; }
	@! nm -g --defined-only $^ | grep -E '^[0-9a-f]+ . ' | grep -v ' T griffin_' \
	    || { echo "names that are not griffin_..."; exit 1; }
	@! nm -g --defined-only $(filter %_prefixed.o,$^) | grep ' T ' | grep -v ' griffin_our_griffin_' \
	    || { echo "names without the prefix"; exit 1; }
	@! nm -u $(filter %_bare.o,$^) | grep ' U ' | grep -vE ' U ($(NEEDED))$$' \
	    || { echo "not in the list of what may be needed"; exit 1; }
	@echo "$(words $^) passed, 0 failed"

build/symbols/%.o: tools/shared/engine.c griffin.h
	@mkdir -p $(@D)
	$(firstword $(subst _, ,$*)) -std=c99 -D_POSIX_C_SOURCE=200809L -O2 -fno-pie $(COPY) -c $< -o $@

# Other processors and systems, as far as Debian has compilers and emulators for them. Each must
# give those bits too, pass the tests of what else may differ there (fewer where an emulator is slow)
# and tell a tale as this machine does: by the program, or by hello.c where there is no POSIX.
WASI = $(WASM) \
       $(foreach e,SIGNAL MMAN PROCESS_CLOCKS GETPID,-D_WASI_EMULATED_$e) \
       $(foreach e,signal mman process-clocks getpid,-lwasi-emulated-$e)
NODE = node --no-warnings --experimental-wasi-unstable-preview1 tests/wasi.mjs
WINE = WINEDEBUG=-all WINEPREFIX=$(CURDIR)/build/platforms/wine wine

# $(call platform,NAME,COMPILER,RUNNER,TELLER,TESTS), test_bits being one for all
platform = $(eval PLATFORMS += build/platforms/$1.same)\
           $(eval build/platforms/$1.same: CROSS  = $2)\
           $(eval build/platforms/$1.same: RUNNER = $3)\
           $(eval build/platforms/$1.same: TELLER = $4)\
           $(eval build/platforms/$1.same: TESTED = bits $5)

$(call platform,aarch64,aarch64-linux-gnu-gcc -static,qemu-aarch64,griffin,\
    files formats kv rewind same_bits sampler state)
$(call platform,armv7,arm-linux-gnueabihf-gcc -static,qemu-arm,griffin,\
    files formats kv rewind sampler state tokenizer)
$(call platform,riscv64,riscv64-linux-gnu-gcc -static,qemu-riscv64,griffin,\
    files formats kv rewind sampler state tokenizer)
$(call platform,s390x,s390x-linux-gnu-gcc -static -fexcess-precision=fast,qemu-s390x,griffin,\
    files formats kv rewind sampler state tokenizer)
$(call platform,i686,i686-linux-gnu-gcc -static -msse2 -mfpmath=sse,,griffin,\
    arguments files formats kv math memory rewind sampler state tokenizer)
$(call platform,musl,musl-gcc -static,,griffin,\
    arguments files formats kv math memory rewind same_bits sampler state threads tokenizer)
$(call platform,wasm,$(WASI),$(NODE),griffin,\
    files formats kv math rewind same_bits sampler state)
$(call platform,windows,x86_64-w64-mingw32-gcc -static -pthread,$(WINE),hello,\
    arguments files formats kv math memory reference rewind same_bits sampler state threads \
    tokenizer)
$(call platform,clang-cl,sh tests/msvc.sh,$(WINE),hello,\
    formats)
$(call platform,msvc,sh tests/msvc.sh -U__clang__ -march=x86-64-v4 -mavx512vnni -mavxvnni,$(WINE),hello,\
    files formats same_bits state)

platforms: $(PLATFORMS) windows-stack

TELL_griffin = run -m $(MODEL) -p "$(PROMPT)" -n 8 --seed 1
TELL_hello   = $(MODEL)
SOURCE_griffin = tools/*.c tools/*/*.c
SOURCE_hello   = examples/hello.c
HERE_griffin   = build/griffin
HERE_hello     = build/examples/hello

build/platforms/%.same: $(MODELS) build/griffin build/examples/hello tests/*.[chms]*
	@mkdir -p build/platforms/$*
	@for test in $(TESTED); do \
	    $(CROSS) $(STANDARD) -O1 -I. tests/test_$$test.c -lm \
	        -o build/platforms/$*/test_$$test.exe || exit 1; \
	done
	@$(call run-tests,$(TESTED:%=build/platforms/$*/test_%.exe))
	$(CROSS) $(STANDARD) -O1 $(WARNINGS) -Werror -I. $(SOURCE_$(TELLER)) -lm \
	    -o build/platforms/$*/$(TELLER).exe
	@$(HERE_$(TELLER)) $(TELL_$(TELLER)) > build/platforms/$*/expected 2> /dev/null
	@$(RUNNER) build/platforms/$*/$(TELLER).exe $(TELL_$(TELLER)) | tr -d '\r' \
	    | cmp - build/platforms/$*/expected
	@touch $@

# Wine starts every program with an aligned stack and Debian's gcc has a patch, so only the assembly
# shows whether functions that keep wide vectors on the stack align it: see GRF_WINDOWS_GCC.
windows-stack:
	@x86_64-w64-mingw32-gcc -O2 -std=c99 -DGRIFFIN_IMPLEMENTATION -x c -S griffin.h -o - | awk ' \
	    /^[A-Za-z_]/           { name = $$1; aligned = 0 } \
	    /and.*-(32|64), %rsp/  { aligned = 1 } \
	    /[yz]mm.*\(%r[sb]p/    { used++; if (!aligned) { print name, $$0; wrong = 1 } } \
	    END                    { exit wrong || !used }'
	@echo "1 passed, 0 failed"

# Bytes of code and tables in the compiled library, by what it was built with.
sizes:
	@mkdir -p build
	@for with in "-O2" "-O2 -DGRIFFIN_SCALAR_ONLY" "-O2 -DGRIFFIN_NO_STDIO" \
	             "-Os" "-Os -DGRIFFIN_SCALAR_ONLY"; do \
	    $(CC) -std=c99 $$with -DGRIFFIN_IMPLEMENTATION -x c -c griffin.h -o build/size.o && \
	    size build/size.o | awk -v with="$$with" 'NR == 2 { print $$1, with }'; \
	done

# The page in a browser, driven by node, against its engine on this machine.
web-test: web build/web_native
	@node tests/web.mjs build/web build/web_native

build/web_native: tests/web_native.c examples/web/web.c griffin.h
	$(CC) $(STANDARD) -O1 $(WARNINGS) $< -lm -o $@

# The tests once more: unoptimised by gcc, and by clang with all it can do.
tests-elsewhere: all $(MODELS)
	$(MAKE) test BUILD=build/gcc-O0 CC=gcc CFLAGS=-O0
	$(MAKE) test BUILD=build/clang-O3 CC=clang CFLAGS="-O3 -march=native"

# Addresses and undefined behaviour in every test, data races in those that make threads. OpenMP's
# own locks would look like races; clang needs a minute a test for vector kernels with `undefined`,
# and without them there is nothing for test_same_bits to compare.
SANITIZE = $(MAKE) test OPENMP= CC=clang CFLAGS="-O1 -g -fno-sanitize-recover=all -fsanitize=$1"

sanitizers: all $(MODELS)
	+$(call SANITIZE,address) BUILD=build/asan
	+$(call SANITIZE,undefined -DGRIFFIN_SCALAR_ONLY) BUILD=build/ubsan
	+$(call SANITIZE,thread) BUILD=build/tsan \
	    TESTS="$(patsubst tests/%.c,build/tsan/tests/%,$(shell grep -l pthread.h tests/test_*.c))"

# Uninitialised memory, which the sanitizers above do not see.
VALGRIND_TESTS = $(filter %_files %_weights %_tokenizer %_state %_reference,$(TESTS))
valgrind: $(VALGRIND_TESTS) $(MODELS)
	@$(call run-tests,$(VALGRIND_TESTS))
valgrind: RUNNER = valgrind -q --error-exitcode=9 --leak-check=full --suppressions=tests/valgrind.supp

# cppcheck takes memcpy into a union's member for a read of it.
lint:
	cppcheck --std=c99 --enable=warning,portability --error-exitcode=1 --quiet \
	    --suppress=uninitvar:griffin.h -DGRIFFIN_IMPLEMENTATION -D__x86_64__ -D__unix__ \
	    griffin.h tools
	@echo "1 passed, 0 failed"

# Sums stay in registers: reads the machine code of the kernels for x86-64.
spills: build/spills_gcc.checked build/spills_clang.checked

build/spills_%.checked: tools/shared/engine.c griffin.h tests/spills.awk
	$* -std=c99 -D_POSIX_C_SOURCE=200809L -O2 -c $< -o $(@:.checked=.o)
	@objdump -d --no-show-raw-insn $(@:.checked=.o) | awk -f tests/spills.awk
	@touch $@

# A short look with each fuzzer, from the seeds in the folders of tests/data that its opening
# comment names. The command for a long look stands there too.
FUZZED  = $(patsubst tests/%.c,$(BUILD)/tests/%.fuzzed,$(wildcard tests/fuzz_*.c))
SECONDS = 30

fuzz:
	$(MAKE) run-fuzzers BUILD=build/fuzz CC=clang OPENMP= \
	    CFLAGS="-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	            -DGRIFFIN_SCALAR_ONLY"

run-fuzzers: $(FUZZED)
	@echo "$(words $^) passed, 0 failed"

$(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz_%.o $(LIBRARY)
	$(CC) -fsanitize=fuzzer,address,undefined $^ -lm -o $@

$(BUILD)/tests/fuzz_%.fuzzed: $(BUILD)/tests/fuzz_%
	@mkdir -p $<.corpus
	@echo "fuzz_$*, $(SECONDS) s"
	@$< -max_total_time=$(SECONDS) -rss_limit_mb=4096 -artifact_prefix=$<. $<.corpus \
	    $$(sed '/\*\//q' tests/fuzz_$*.c | grep -o 'tests/data/[a-z_/]*' | sort -u) > $<.log 2>&1 \
	    || { tail -n 40 $<.log; exit 1; }

clean:
	rm -rf build

.PHONY: all run $(EXAMPLES) web test web-test check-all same-bits symbols platforms sizes \
        windows-stack tests-elsewhere sanitizers valgrind lint fuzz spills run-fuzzers clean
.SECONDARY:
