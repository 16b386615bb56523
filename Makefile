# griffin.h needs no build: copy it. This file builds the program around it and checks its promises.
#
#     make            build/griffin, the command line program
#     make run        the shipped model tells a tale
#     make test       every test; gcc and make are all it takes
#     make hello      the ten lines of the README
#     make json_action    a character answers in JSON
#     make check-all  what CI runs after the tests; wants what .ci/run installs
#     make clean

CC       = gcc
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
SOURCES = $(filter-out tools/griffin.c,$(wildcard tools/*.c))
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o)

$(BUILD)/griffin: $(BUILD)/tools/griffin.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) $^ -lm -o $@

$(LIBRARY): $(OBJECTS)
	rm -f $@ && ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(STANDARD) $(CFLAGS) $(WARNINGS) $(OPENMP) -pthread -I. -MMD -c $< -o $@

-include $(wildcard $(BUILD)/*/*.d)

# ---- using it ----------------------------------------------------------------------------------

MODEL  = examples/models/storyteller.gguf
PROMPT = Once upon a time there was a king who had three daughters,

run: $(BUILD)/griffin
	$(BUILD)/griffin run -m $(MODEL) -p "$(PROMPT)"

hello json_action: %: $(BUILD)/%
	$(BUILD)/$* $(MODEL)

$(BUILD)/hello $(BUILD)/json_action: $(BUILD)/%: $(BUILD)/examples/%.o
	$(CC) $(CFLAGS) $(OPENMP) $^ -lm -o $@

# ---- tests -------------------------------------------------------------------------------------
# tests/test_*.c are programs that end with the line "N passed, N failed". They read reference
# models, build/data/NAME.gguf and NAME.TYPE.gguf, which the converter makes from tests/data/NAME:
# f32 in rows and the other types in tiles.

TESTS  = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
NAMES  = $(patsubst tests/data/%/config.json,%,$(wildcard tests/data/*/config.json))
TYPES  = f16 bf16 q8_0 q4_0
MODELS = $(NAMES:%=build/data/%.gguf) $(foreach n,$(NAMES),$(TYPES:%=build/data/$n.%.gguf))

test: $(TESTS) $(MODELS)
	@$(call run-tests,$(TESTS))

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) -pthread $^ -lm -o $@

build/data/%.gguf: build/griffin
	@mkdir -p $(@D)
	@build/griffin convert tests/data/$(basename $*) $@ \
	    $(if $(suffix $*),--type $(patsubst .%,%,$(suffix $*)),--type f32 --rows) \
	    > $@.log 2>&1 || { cat $@.log; exit 1; }

# Runs programs, under $(RUNNER) if that is set, and sums their last lines. One that crashes counts
# as a failure, and so does running none.
define run-tests
passed=0; failed=0; \
for program in $(1); do \
    $(RUNNER) $$program > $$program.log 2>&1; status=$$?; \
    set -- $$(tail -n 1 $$program.log); \
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

check-all: same-bits platforms tests-elsewhere sanitizers valgrind lint fuzz

# The library compiled by COMPILER_LANGUAGE_OPTIMISATION_DIALECT, warnings being errors, must give
# the logits of the plain build, bit for bit: on every instruction set, at once or token by token.
VARIANTS = $(foreach c,gcc clang,$(foreach l,c99 c++11,$(foreach o,O0 O3,$(foreach d,iso gnu,\
               $c_$l_$o_$d))))

# Everything that is compared: the reference models, one of them in all types, and the example.
COMPARED = $(NAMES:%=build/data/%.gguf) $(MODEL) \
           $(patsubst %,build/data/griffin-tiny.%.gguf,$(TYPES) q4_1 q5_0 q5_1)

part      = $(word $1,$(subst _, ,$*))
dialect   = $(if $(filter gnu,$(call part,4)),$(subst c,gnu,$(call part,2)),$(call part,2))
language  = -std=$(dialect) -x $(if $(findstring +,$(call part,2)),c++ -fno-exceptions,c)
optimiser = -$(call part,3) $(if $(filter O3,$(call part,3)),-march=native)

same-bits: $(VARIANTS:%=build/bits/%.same)
	@echo "$(words $^) passed, 0 failed"

build/bits/%/engine.o: tools/engine.c griffin.h
	@mkdir -p $(@D)
	$(call part,1) $(language) $(optimiser) -D_POSIX_C_SOURCE=200809L $(WARNINGS) -Werror -c $< -o $@

build/bits/%/griffin: build/bits/%/engine.o build/griffin
	$(CC) $(OPENMP) build/tools/griffin.o $< $(LIBRARY) -lm -o $@

build/bits/%.same: build/bits/%/griffin build/bits/expected
	@$(call same-logits,$<,build/bits/$*,$$(cat build/bits/cpus))
	@echo "$*: the same bits" && touch $@

build/bits/expected: build/griffin $(COMPARED)
	@$(call logits,$<,$@,scalar,0,2)
	@for cpu in scalar avx2 avx512 neon neon-dot; do \
	    $< info $(MODEL) --cpu $$cpu > build/bits/info 2>&1 && echo $$cpu; \
	done > build/bits/cpus; echo "comparing" $$(cat build/bits/cpus)

# $(call logits,PROGRAM,FOLDER,CPUS,CHUNKS,THREADS) writes FOLDER/CPU.CHUNK/MODEL.
define logits
for cpu in $3; do for chunk in $4; do mkdir -p $2/$$cpu.$$chunk; for m in $(COMPARED); do \
    n=$$(basename $$m .gguf); tokens=tests/data/$${n%%.*}/tokens.json; \
    [ -f $$tokens ] || tokens=tests/data/griffin-tiny/tokens.json; \
    $1 logits $$m --tokens $$tokens --cpu $$cpu --chunk $$chunk -t $5 \
        --out $2/$$cpu.$$chunk/$$n || exit 1; \
done; done; done
endef

# $(call same-logits,PROGRAM,FOLDER,CPUS) compares them with build/bits/expected.
define same-logits
$(call logits,$1,$2,$3,0 1,1); \
for f in $2/*/*; do cmp $$f build/bits/expected/scalar.0/$${f##*/} || exit 1; done
endef

# The program for other processors, run by emulators, must give the same logits too, and the tests
# of what differs there must pass. s390x has plain C only, but stores numbers the other way round.
PLATFORMS = aarch64 wasm s390x

platforms: $(PLATFORMS:%=build/platforms/%.same) $(PLATFORMS:%=build/platforms/%.tests)
	@echo "$(words $(PLATFORMS)) passed, 0 failed"

build/platforms/aarch64%: CROSS  = aarch64-linux-gnu-gcc -static
build/platforms/aarch64%: RUNNER = qemu-aarch64
build/platforms/aarch64%: CPUS   = scalar neon neon-dot
build/platforms/aarch64%: TESTED = formats math sampler same_bits

build/platforms/wasm%:    CROSS  = clang --target=wasm32-wasi --sysroot=/usr -msimd128 \
    $(foreach e,SIGNAL MMAN PROCESS_CLOCKS GETPID,-D_WASI_EMULATED_$e) \
    $(foreach e,signal mman process-clocks getpid,-lwasi-emulated-$e)
build/platforms/wasm%:    RUNNER = node --no-warnings --experimental-wasi-unstable-preview1 \
    tests/wasi.mjs
build/platforms/wasm%:    CPUS   = scalar wasm
build/platforms/wasm%:    TESTED = files formats math sampler same_bits state

build/platforms/s390x%:   CROSS  = s390x-linux-gnu-gcc -static
build/platforms/s390x%:   RUNNER = qemu-s390x
build/platforms/s390x%:   CPUS   = scalar
build/platforms/s390x%:   TESTED = files formats state tokenizer

build/platforms/%/griffin: griffin.h $(wildcard tools/*.[ch])
	@mkdir -p $(@D)
	$(CROSS) $(STANDARD) -O1 $(WARNINGS) -Werror -I. $(filter %.c,$^) -lm -o $@

build/platforms/%.same: build/platforms/%/griffin build/bits/expected
	@$(call same-logits,$(RUNNER) $<,build/platforms/$*/bits,$(CPUS))
	@echo "$*: the same bits" && touch $@

build/platforms/%.tests: griffin.h $(wildcard tests/*.[ch]) $(MODELS)
	@mkdir -p build/platforms/$*
	@for test in $(TESTED); do \
	    $(CROSS) $(STANDARD) -O1 -I. tests/test_$$test.c -lm -o build/platforms/$*/test_$$test \
	        || exit 1; \
	done
	@$(call run-tests,$(TESTED:%=build/platforms/$*/test_%)) && touch $@

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
	    $$(grep -o 'tests/data/[a-z_/]*' tests/fuzz_$*.c | sort -u) > $<.log 2>&1 \
	    || { tail -n 40 $<.log; exit 1; }

clean:
	rm -rf build

.PHONY: all run hello json_action test check-all same-bits platforms tests-elsewhere sanitizers \
        valgrind lint fuzz run-fuzzers clean
.SECONDARY:
