# griffin.h needs no build: copy it. This file builds the program around it and checks its promises.
#
#     make            build/griffin, the command line program
#     make run        the shipped model tells a tale
#     make test       every test; gcc and make are all it takes (make test_state: one of them)
#     make hello      the program of the README; so for every other program in examples/
#     make shared     build/libgriffin.so, the library for other languages, and that of grammars
#     make love       three characters at a fire, in LÖVE; wants Debian's love
#     make sqlite     build/griffin_sqlite.so, an extension of SQLite; wants libsqlite3-dev
#     make web        build/web, a page to be put on any static file server; wants clang and lld
#     make check-all  what CI runs after the tests: see tests/checks.mk
#     make clean

# As many jobs as the machine has processors; `make -j1` for one.
ifeq ($(MAKELEVEL),0)
  MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN || echo 2)
endif

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
ENGINE  = tools/shared/engine.c
SOURCES = $(ENGINE) $(filter-out $(ENGINE),$(wildcard tools/*/*.c))     # the longest first
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o)

$(BUILD)/griffin: $(BUILD)/tools/griffin.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) $^ -lm -o $@

$(LIBRARY): $(OBJECTS)
	rm -f $@ && ar qcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(STANDARD) $(CFLAGS) $(WARNINGS) $(OPENMP) -pthread -I. -MMD -MP -c $< -o $@

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/*/*/*.d)

# ---- using it ----------------------------------------------------------------------------------

MODEL  = examples/models/storyteller.gguf
PROMPT = Once upon a time, there was a

run: $(BUILD)/griffin
	$(BUILD)/griffin run -m $(MODEL) -p "$(PROMPT)"

# Each example is a program by itself: cc -O2 -I. examples/hello.c -lm. Here they skip their copy of
# the library and share the one that is compiled already, but for one whose point is how it is
# compiled.
EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/*.c)) \
           $(if $(shell command -v $(CXX)),cpp_host)

$(EXAMPLES): %: $(BUILD)/examples/%
	$< $(MODEL)

SHARED = -DGRIFFIN_IMPLEMENTED -DGRIFFIN_GRAMMAR_IMPLEMENTED
$(BUILD)/examples/%.o: STANDARD += $(SHARED)
$(BUILD)/examples/embedded_model.o: STANDARD += -UGRIFFIN_IMPLEMENTED
$(BUILD)/examples/embedded_model.o: $(MODEL)

$(BUILD)/examples/%: $(BUILD)/examples/%.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) -pthread $^ -lm -o $@

$(BUILD)/examples/cpp_host: examples/cpp_host/main.cpp examples/cpp_host/griffin.hpp $(LIBRARY)
	$(CXX) -std=c++17 $(CFLAGS) $(WARNINGS) $(OPENMP) -I. $< $(LIBRARY) -lm -o $@

# Made again from their texts: after a change of the model, to which they belong.
PERSONAS = $(patsubst examples/personas/%.txt,%,$(wildcard examples/personas/*.txt))

personas: $(BUILD)/griffin
	@for who in $(PERSONAS); do \
	    $(BUILD)/griffin persona examples/personas/$$who.txt -m $(MODEL) --split none \
	        -o examples/personas/$$who.persona --steps 40 --batch 8 --reports 4 || exit 1; \
	done

# The page and its engine, a module that imports nothing; wasi-libc lends memcpy and the like.
WASM = clang --target=wasm32-wasi --sysroot=/usr -msimd128

web: build/web/griffin.wasm $(patsubst examples/web/%,build/web/%,$(wildcard examples/web/*.html \
         examples/web/*.js)) build/web/storyteller.gguf \
     $(patsubst examples/personas/%,build/web/%,$(wildcard examples/personas/*.persona))

build/web/griffin.wasm: examples/web/web.c griffin.h
	@mkdir -p $(@D)
	$(WASM) -std=c99 -ffp-contract=off -O2 $(WARNINGS) -nostartfiles -Wl,--no-entry,--strip-all \
	    $< -o $@

build/web/%: examples/web/%
	@mkdir -p $(@D)
	cp $< $@

build/web/%: examples/personas/%
	@mkdir -p $(@D)
	cp $< $@

build/web/storyteller.gguf: $(MODEL)
	@mkdir -p $(@D)
	cp $< $@

# The library for other languages: only the functions of the API can be seen. The scene's has no
# OpenMP, for a pass of its model is too small to be shared.
LIBRARIES = build/libgriffin.so build/love/libgriffin.so

shared: build/libgriffin.so build/libgriffin_grammar.so

$(LIBRARIES): griffin.h
	@mkdir -p $(@D)
	$(CC) -std=c99 -D_POSIX_C_SOURCE=200809L -ffp-contract=off $(CFLAGS) $(WARNINGS) \
	    $(if $(findstring love,$@),,$(OPENMP)) -shared -fPIC -fvisibility=hidden \
	    -DGRIFFIN_API='__attribute__((visibility("default")))' -DGRIFFIN_IMPLEMENTATION \
	    -x c $< -lm -o $@

# Grammars are a guest in a library of their own: it finds the other one in its own folder.
build/libgriffin_grammar.so: tools/griffin_grammar.h build/libgriffin.so
	$(CC) -std=c99 -ffp-contract=off $(CFLAGS) $(WARNINGS) -shared -fPIC -fvisibility=hidden \
	    -DGRIFFIN_GRAMMAR_API='__attribute__((visibility("default")))' \
	    -DGRIFFIN_GRAMMAR_IMPLEMENTATION -include griffin.h -x c $< -Lbuild -lgriffin \
	    -Wl,-rpath,'$$ORIGIN' -o $@

# Three characters at a fire. Lua's FFI reads the declarations of griffin.h itself, as the
# preprocessor leaves them.
LOVE = $(patsubst examples/love/%,build/love/%,$(wildcard examples/love/*.lua)) \
       $(patsubst examples/personas/%,build/love/%,$(wildcard examples/personas/*.persona)) \
       build/love/storyteller.gguf build/love/griffin_api.h build/love/libgriffin.so

love: love-files
	love build/love

love-files: $(LOVE)

build/love/griffin_api.h: griffin.h
	@mkdir -p $(@D)
	sed '/#include <std/d' $< | $(CC) -E -P -DGRIFFIN_API= -x c - > $@

build/love/%: examples/love/%
	@mkdir -p $(@D)
	cp $< $@

build/love/%: examples/personas/%
	@mkdir -p $(@D)
	cp $< $@

build/love/storyteller.gguf: $(MODEL)
	@mkdir -p $(@D)
	cp $< $@

# The extension has a copy of the library of its own, and shows nothing but the function by which
# SQLite loads it. It stays on the thread that calls.
sqlite: build/griffin_sqlite.so

build/griffin_sqlite.so: examples/sqlite/griffin_sqlite.c griffin.h
	@mkdir -p $(@D)
	$(CC) $(STANDARD) $(CFLAGS) $(WARNINGS) -shared -fPIC -fvisibility=hidden $< -lm -o $@

# ---- tests -------------------------------------------------------------------------------------
# tests/test_*.c are programs that end with the line "N passed, N failed", linked to the library
# that the program uses. tests/inside_*.c are the same with a copy of the library in them, since
# they call its private functions. They read reference models, build/data/NAME.gguf (f32) and
# NAME.TYPE.gguf, which the converter makes from tests/data/NAME. Types that the library has no
# tiles of are converted twice: to a file of rows as other programs write them, and from that.

TESTS  = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c tests/inside_*.c))
NAMES  = $(patsubst tests/data/%/config.json,%,$(wildcard tests/data/*/config.json))
TYPES  = f16 bf16 q8_0 q4_0 q6_0
MODELS = $(NAMES:%=build/data/%.gguf) $(foreach n,$(NAMES),$(TYPES:%=build/data/$n.%.gguf)) \
         $(FOREIGN:%=build/data/griffin-tiny.%.gguf)
FOREIGN = q4_1 q5_0 q5_1

HEADERS = $(BUILD)/tests/headers.log

test: $(TESTS:%=$(BUILD)/tests/%.log) $(HEADERS)
	@sh tests/sum.sh $^

$(TESTS): %: $(BUILD)/tests/%.log
	@sh tests/sum.sh $<

$(BUILD)/tests/%.log: $(BUILD)/tests/% FORCE | $(MODELS) $(BUILD)/tmp
	@sh tests/run.sh $< $@

$(TESTS:%=$(BUILD)/tests/%): %: %.o $(LIBRARY)
	$(CC) $(CFLAGS) $(OPENMP) -pthread $^ -lm -o $@

# These two have a copy where they are compiled alone, but not here.
$(BUILD)/tests/%.o: STANDARD += -DTEST_TMP='"$(BUILD)/tmp/"'
$(BUILD)/tests/test_bits.o $(BUILD)/tests/test_json_action.o: STANDARD += $(SHARED)

# To optimise a test, or the copy of the library in it, takes longer than it saves, but for those that
# compute much. The library that tests link to is optimised. `make test-gcc-O2` optimises the copies.
UNOPTIMISED = -O0
COMPUTE     = inside_same_bits test_grammar test_train_gradients
$(patsubst %,$(BUILD)/tests/%.o,$(filter-out $(COMPUTE),$(TESTS)) guest_prefixed guest_static): \
    override CFLAGS += $(UNOPTIMISED)

# It has two more copies of the library in it.
$(BUILD)/tests/test_guest: $(BUILD)/tests/guest_prefixed.o $(BUILD)/tests/guest_static.o

$(BUILD)/tests/test_examples: | $(EXAMPLES:%=$(BUILD)/examples/%)

build/data/%.gguf: build/griffin
	@mkdir -p $(@D)
	@OMP_NUM_THREADS=1 build/griffin convert $(or $(FOLDER),tests/data/$(basename $*)) $@ \
	    --type $(or $(patsubst .%,%,$(suffix $*)),f32) $(SCALES) > $@.log 2>&1 \
	    || { cat $@.log; exit 1; }

# Two models have the weights of another model under older names. In the file of the other model
# they begin at byte FIRST. model.rest has the weights that the other model lacks.
build/data/hgrn2-legacy/%: OTHER = hgrn2-tiny
build/data/hgrn2-legacy/%: FIRST = 3305
build/data/supra-openlm/%: OTHER = supra-tiny
build/data/supra-openlm/%: FIRST = 3449

RENAMED = hgrn2-legacy supra-openlm
build/data/hgrn2-legacy%gguf: FOLDER = build/data/hgrn2-legacy
build/data/supra-openlm%gguf: FOLDER = build/data/supra-openlm
$(foreach n,$(RENAMED),$(filter build/data/$n.%,$(MODELS))): $(RENAMED:%=build/data/%/model.safetensors)

build/data/%/model.safetensors: tests/data/%/model.header
	@mkdir -p $(@D)
	@cp tests/data/$*/config.json $(@D)
	@{ cat $<; tail -c +$(FIRST) tests/data/$(OTHER)/model.safetensors; \
	    cat $(wildcard tests/data/$*/model.rest) /dev/null; } > $@

# tests/test_bits.c knows the bits of this file, so its weights must stay what they are.
build/data/griffin-tiny.q4_0.gguf: SCALES = --plain-scales --head q8_0

$(FOREIGN:%=build/data/griffin-tiny.%.gguf): build/data/griffin-tiny.%.gguf: build/griffin
	@mkdir -p $(@D)
	@{ export OMP_NUM_THREADS=1; \
	    build/griffin convert tests/data/griffin-tiny $(@:.gguf=.rows.gguf) --type $* --rows && \
	    build/griffin convert $(@:.gguf=.rows.gguf) $@; } > $@.log 2>&1 || { cat $@.log; exit 1; }

# The headers compile alone, in both languages, without a warning.
$(BUILD)/tests/headers.log: tests/headers.sh FORCE
	@mkdir -p $(@D)
	@CC="$(CC)" CXX="$(CXX)" sh tests/headers.sh $(WARNINGS) > $@ 2>&1 || cat $@
	@echo "headers: $$(tail -n 1 $@)"

$(BUILD)/tmp:
	@mkdir -p $@

clean:
	rm -rf build

include tests/checks.mk

FORCE:
.PHONY: personas shared sqlite love love-files all run $(EXAMPLES) web test $(TESTS) clean FORCE
.SECONDARY:
