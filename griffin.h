/* griffin.h - v0.2.0 - a C library that runs recurrent language models, in one header
 *
 * griffin.h runs Griffin, Hawk and RecurrentGemma models on the processor, inside your program. It
 * also runs their kin: HGRN2, SUPRA, networks that mix their layers, and Transformers of Llama's
 * layout with a window. Such a model remembers a text, however long, in a state of fixed size. A
 * state is plain bytes: you can copy, save, fork and rewind it. The library takes memory, threads,
 * time and files only from you. It needs libc and libm, and compiles as C99 and as C++11.
 *
 * In one source file write
 *
 *     #define GRIFFIN_IMPLEMENTATION
 *     #include "griffin.h"
 *
 * and in all others just the second line. MIT or public domain, see the end.
 *
 *     CONTENTS             manual: QUICK START, FUNCTIONS, OBJECTS, SEQUENCES, THREADS, CONTROL,
 *                          PROMISES, NUMBERS, FILES, ERRORS, MEMORY AND STACK, BUILD OPTIONS,
 *                          LIMITS, VERSIONS, HISTORY
 *     >>api                declarations
 *     >>platform >>basics >>numbers      compilers, errors, memory, bytes, our own exp and log
 *   ONE, the network
 *     >>network >>run                    what it computes, as in the paper; running it
 *     >>state >>sampler >>guess          its memory of a text; choosing tokens; guessing them
 *   TWO, files and text
 *     >>gguf >>config                    what is in a file
 *     >>vocabulary >>text                text to tokens and back
 *     >>model                            opening
 *     >>public                           the functions of the API
 *   THREE, silicon
 *     >>vectors >>dispatch >>kernels     instruction sets; the inner loops, once for all of them
 *
 *
 * QUICK START
 *
 *     griffin_model *m;  griffin_context *c;                   (errors: see examples/hello.c)
 *     griffin_open_file(&m, "model.gguf", NULL);
 *     griffin_state *s = calloc(1, griffin_state_size(m));                 zero is fresh
 *     size_t size = griffin_context_size(m, NULL);
 *     griffin_context_init(&c, m, NULL, malloc(size), size);
 *     n = griffin_encode(m, NULL, "Once upon a time", 16, tokens, 64);
 *     griffin_prefill(c, s, tokens, n, logits);
 *     for (int i = 0; i < 100; i++) {
 *         token = griffin_sample(m, &sampler, logits);
 *         griffin_decode(m, &decoder, token, text, sizeof text); fputs(text, stdout);
 *         griffin_step(c, s, token, logits);
 *     }
 *
 *
 * FUNCTIONS
 *
 *     griffin_open_file, griffin_open_memory   open a model
 *     griffin_close                            closes it
 *     griffin_get_info                         sizes, names and special tokens of a model
 *     griffin_get_tensor, griffin_get_metadata, griffin_next_element   what its file holds
 *     griffin_get_operation                    what it computes, one operation after the other
 *
 *     griffin_state_size, griffin_state_position   how big a state is; how many tokens it has seen
 *     griffin_mark, griffin_mark_size          copy what later tokens change of a state
 *     griffin_rewind                           takes tokens back, to a mark
 *     griffin_save, griffin_load               a state as portable bytes
 *     griffin_save_pieces, griffin_load_pieces     the same through functions of yours
 *
 *     griffin_context_size, griffin_context_init   scratch memory for one caller
 *     griffin_step                             one token into one state
 *     griffin_prefill                          many tokens into one state
 *     griffin_run                              many tokens into many states
 *     griffin_begin, griffin_advance           the same in slices, for a frame budget
 *     griffin_unit_name                        what the next slice does
 *
 *     griffin_sample                           draws a token from logits
 *     griffin_accept                           tells the sampler about a token that it did not draw
 *     griffin_guess_logits, griffin_guess_take, griffin_guess_run, griffin_guess_begin,
 *     griffin_guess_finish                     several tokens in a pass: guessed, and kept if drawn
 *     griffin_guess_add, griffin_guess_time    adds a guess; tells how long a pass took
 *     griffin_lookup_add, griffin_lookup_guess     guesses from the text so far
 *     griffin_draft_check, griffin_draft_take, griffin_draft_next     a smaller model guesses
 *     griffin_encode, griffin_encode_size      text to tokens
 *     griffin_decode                           tokens to text, as a stream
 *     griffin_stop_feed                        finds texts to stop at in a stream
 *     griffin_words_feed                       holds back a word until it is complete
 *     griffin_ban_mask, griffin_ban_accept     texts that must not be written
 *     griffin_heal_start, griffin_heal_mask, griffin_heal_accept   a prompt that ends inside a word
 *     griffin_token_text, griffin_token_type, griffin_find_token   single tokens
 *
 *     griffin_error_string, griffin_version    words for an error; the version that is linked
 *     griffin_config_number, griffin_tiling_name, griffin_activation_name, griffin_find_activation
 *                                              what a program needs that writes model files
 *
 *
 * OBJECTS
 *
 *     object              memory                      written by           threads
 *     griffin_model       allocator, mapped file      nobody after open    share freely
 *     griffin_state       yours, griffin_state_size   calls that name it   one call at a time
 *     griffin_context     yours, griffin_context_size every call with it   one call at a time
 *     griffin_sampler,    yours, plain structs        their functions      one call at a time
 *     ..._decoder, ..._stop, ..._words, ..._ban, ..._heal, ..._guess, ..._lookup, ..._draft
 *
 * A model is the weights. A state is one text so far. For RecurrentGemma 2B it has 33 MiB, or 17
 * MiB with keys and values in bf16, whether the text has ten tokens or ten million. HGRN2 has 24
 * MiB at 1.3 billion parameters and 40 MiB at 2.7 billion, SUPRA 64 MiB at 7 billion. A context is
 * scratch memory. It remembers no text, so any context of a model can continue any of its states.
 * For many characters you need one model, a state for each, and a context for each thread that
 * calls.
 *
 *
 * SEQUENCES
 *
 * A state is bytes. All zero is a fresh state. Between calls, memcpy saves, restores and forks
 * it. griffin_save and griffin_load are for disks and networks. Their bytes are the same on every
 * machine, have a checksum, and belong to one model. They can hold the sampler and the decoder
 * too, so that a resumed run says what it would have said. griffin_save_pieces and
 * griffin_load_pieces hand the same bytes to functions of yours, so nobody needs memory for them.
 *
 * A fresh state is not the only one that a text can begin in. griffin persona, a command of the
 * program in tools/, learns the state before the first token from a text, by gradients, and leaves
 * the weights as they are. It writes a saved state of some kilobytes: a character. Load it, and any
 * text continues it, with bos as always; memcpy makes a hundred of them. Its position is not 0 but
 * the number of its learned keys and values, since a state at position 0 is fresh by definition.
 *
 * To take back a few tokens you do not need a copy of the state. griffin_mark copies only what
 * later tokens overwrite: 0.7 MB for RecurrentGemma 2B. griffin_rewind brings the state back, to
 * the bit, from up to griffin_options.rewind tokens beyond the mark. A mark fits the forks of a
 * state too. HGRN2 and SUPRA overwrite their whole state with every token, so a mark is as large as
 * the state, and a save too. Where there is no attention, `rewind` may be thousands: each costs 8
 * bytes.
 *
 * griffin_step takes one token and griffin_prefill takes many. griffin_run takes any number of
 * tokens for any number of states, and reads each weight once for all of them. Logits need the
 * largest matrix of the model, so they are computed only where you pass a pointer for them.
 *
 * To keep a frame budget, start a job with griffin_begin. Then call griffin_advance(context, 1)
 * while there is time. A unit costs about as much as reading half a megabyte of weights. No state
 * changes until griffin_advance returns 0, so a job can be dropped at any moment. The last unit
 * copies the new recurrent part into the state: 24 MiB are some milliseconds. A program that needs
 * no slices sets griffin_context_options.no_slices, and contexts are smaller by as much.
 *
 *
 * GUESSES
 *
 * A step takes the time in which its weights are read, and a pass over eight tokens takes little
 * more. So a loop that knows what will probably be drawn is faster. griffin_guess (see >>api) does
 * all of it: it runs guesses together, keeps those that the sampler then draws, and decides how
 * many are worth running. Guesses come from the text so far (griffin_lookup), from a smaller model
 * (griffin_draft), from a grammar (griffin_grammar_guess), or from you. What is written does not
 * depend on them. By hand, with a mark, it would be:
 *
 *     for (;;) {                                          logits [n + 1][V], guess[0] was drawn
 *         griffin_span span = { s, guess, n + 1, 1, logits };
 *         griffin_mark(m, s, mark);  griffin_run(c, &span, 1);
 *         for (k = 0; ; k++) {
 *             token = griffin_sample(m, &sampler, logits + k * V);
 *             if (k == n || token != guess[k + 1]) break;         a right guess: draw the next
 *         }
 *         if (k < n) { griffin_rewind(m, s, mark); griffin_prefill(c, s, guess, k + 1, NULL); }
 *         guess[0] = token;  n = guess_what_follows(guess + 1);   n: up to options.rewind - 1
 *     }
 *
 * griffin_guess is better: it needs no mark, does not run right guesses twice, leaves states as if
 * nothing had been guessed, and serves many sequences and frame budgets.
 *
 *
 * THREADS
 *
 * The library makes no threads. If it is built with OpenMP, it uses those of OpenMP. If you give
 * it griffin_jobs, it calls your job system. Otherwise it stays on the thread that calls. Work is
 * cut into chunks of about half a megabyte of weights. A smaller operation stays on the calling
 * thread; with OpenMP, so does a call with fewer than 16 chunks.
 *
 *
 * CONTROL
 *
 * Your program decides what may be written. griffin_sampler has biases; a bias of -INFINITY bans
 * a token. It also has a mask: your function, which may change the logits before a token is
 * drawn. If every token is forbidden, the error is GRIFFIN_E_NO_TOKEN. griffin_stop looks for
 * texts to stop at in what was decoded, and never shows the start of one. tools/griffin_grammar.h
 * is a second header beside this one: its masks let only the texts of a grammar or of a JSON
 * schema pass.
 *
 * To ban a text, do not ban its tokens: the model would spell it in others, down to single bytes.
 * griffin_ban is a mask that forbids every token which would complete the text.
 *
 * A prompt may end inside a word, or with a blank. Its last tokens are then not those of the whole
 * word, and models continue badly. griffin_heal takes these tokens back, and is a mask that lets
 * the model choose again, among all tokens that write the same bytes. With one state and sampler:
 *
 *     griffin_heal heal;  memset(&heal, 0, sizeof heal);
 *     n = griffin_heal_start(&heal, m, tokens, n);              so many tokens remain
 *     griffin_prefill(c, s, tokens, n, logits);
 *     sampler.mask = griffin_heal_mask;  sampler.mask_user = &heal;
 *     ...
 *         token = griffin_sample(m, &sampler, logits);
 *         griffin_heal_accept(&heal, token);           bytes of it that the prompt has
 *
 * Masks can be chained: each of these asks the one in its field `mask` first.
 *
 *
 * PROMISES
 *
 * Exact. Results are those of the reference implementation (google-deepmind/recurrentgemma in
 *     float32), within 1e-5 of the size of the logits. That holds at any length, past the window
 *     and across chunk borders. A token sees itself and W earlier ones, as there; most ports see
 *     one less, which griffin_options.attn_keys = W reproduces. tests/inside_reference.c
 *     HGRN2 and SUPRA are within 2e-5 of float64 where logits have a deviation of 1.5, as their
 *     published programs are. A Transformer is exact within its window. Beyond it, it forgets as
 *     every windowed state does, and is no longer what was trained. tests/test_kin.c
 * Same bits. Logits and states do not depend on the number of threads, on how tokens are cut into
 *     calls, on who shares a call, or on the instruction set. NUMBERS says why.
 *     tests/test_bits.c, inside_same_bits.c, test_company.c, test_threads.c, test_rewind.c,
 *     test_state.c, test_guess.c, test_any_order.c
 * A guest. There are no globals, no threads, no clock, no locale, no environment and no exit.
 *     After opening, nothing is allocated, except by griffin_encode if you give it no scratch.
 *     tests/test_guest.c, test_memory.c, test_stack.c
 * Safe. Files are taken for hostile. Every offset, size and name is checked when a model or a
 *     saved state is opened. A failed call leaves states as they were. tests/inside_files.c,
 *     test_arguments.c, fuzz_gguf.c, fuzz_state.c, fuzz_text.c
 *
 *
 * NUMBERS
 *
 * The plainest program there is defines the value of a linear layer:
 *
 *     acc = 0;  for k = 0 .. K-1:  acc = fma(w[r][k], x[k], acc);   y[r] = acc + b[r]
 *
 * Weights of 16 bits are widened first. Weights in q8_0, q6_0 and q4_0 lie in blocks j of 32. Their
 * inputs are rounded to int8 in groups of 256 with a scale dx of their own:
 *
 *     acc = 0;  for each group:  part = 0;  for each j in it:
 *                                    part = fma(dw[r][j], (float)isum, part);
 *                                acc = fma(dx, part, acc);
 *     y[r] = acc + b[r]
 *
 * where isum is an exact integer. Each vector lane owns an output row, so no instruction set
 * needs another order. Sums over one vector (norm, attention scores, softmax) use 16 partial
 * sums, element i in sum i mod 16, and a fixed tree. exp, tanh, sigmoid, sin and cos are ours,
 * and at most 2 ulp off. The angle of a rotary embedding is a fraction of a turn in 64-bit
 * integers, so distances between tokens are as exact after 10^12 tokens as at the start. All of
 * it assumes IEEE floats, rounding to nearest, without flush-to-zero. Options that change floats
 * are refused, by the compiler or when a model is opened.
 *
 *
 * FILES
 *
 * A model is a GGUF file of architecture "griffin" that the converter in tools/ wrote, with the
 * vocabulary inside. A matrix is a tensor NAME.TILING, where TILING is f32, f16, bf16, q8_0,
 * q6_0 or q4_0. It lies in tiles of 32 rows, which the kernels read where they are: opening copies
 * nothing, unless copy_weights is set or the machine is big-endian. Vectors are f32.
 * griffin.format_version is 2. Anything else is refused by name, with the command that converts
 * it: griffin convert OLD NEW. The bytes are described where they are read: >>network (tilings),
 * >>gguf, >>config, >>vocabulary, and >>state for saved states.
 *
 *
 * ERRORS
 *
 * Functions that can fail return an int. A negative one is a griffin_error, anything else is
 * success. The logger of griffin_options receives a line of text about each error, with file,
 * offset or name, and what was expected. There is no line where no model is at hand to ask for its
 * logger, as with null pointers, nor about an error that a function of yours returned. A failed
 * open also writes it to griffin_options.error. After an error, models, states and structs are as
 * they were. Where a function does more, its comment says so: griffin_sample has changed the
 * logits, griffin_advance has dropped its job, and griffin_guess_run may have moved states on to
 * tokens that were taken.
 *
 *
 * MEMORY AND STACK
 *
 * For RecurrentGemma 2B, an opened model takes 5 MB beside its mapped file.
 * tools/bench/NUMBERS.md has sizes of states, marks, saves and contexts. The library's code has
 * about 310 KB.
 *
 * Every function works on a thread with a stack of 64 KB, also unoptimised. Bytes of stack with
 * gcc -O2, the most over all instruction sets (build/tests/test_stack x prints them):
 *
 *     griffin_run, griffin_prefill             31600
 *     griffin_guess_..., griffin_draft_...     30400
 *     griffin_step, griffin_advance            29300
 *     griffin_heal_mask                         9500
 *     griffin_open_...                          5800
 *     griffin_decode                            3800
 *     griffin_sample                            2500
 *     griffin_load, griffin_load_pieces         1100
 *     all others                                 700, or 950 with a message of an error
 *
 *
 * BUILD OPTIONS, defined before the implementation
 *
 *     GRIFFIN_STATIC        all functions are static: a private copy in one source file
 *     GRIFFIN_PREFIX        is put before every function's name, but only for the linker, so that
 *                           two copies can live in one program; define it wherever its copy is
 *                           included
 *     GRIFFIN_API           stands before every declaration, for example for a DLL
 *     GRIFFIN_NO_STDIO      no griffin_open_file, no file access at all
 *     GRIFFIN_NO_MMAP       files are read instead of mapped
 *     GRIFFIN_NO_STDLIB     no malloc: griffin_options.allocator is then needed; with NO_STDIO what
 *                           is left of libc is mem..., str..., frexp, ldexp and sqrtf
 *     GRIFFIN_SCALAR_ONLY   only the plain C kernels
 *     GRIFFIN_FILE          the quoted name of this file, if you renamed it: it includes itself
 *
 * No -march or -m flag is needed. Kernels for AVX2, AVX-VNNI, AVX-512 (with VNNI) and AMX, or for
 * NEON with and without dot and matrix products, are compiled in and chosen when a model is opened.
 * AMX needs the permission of Linux: see GRIFFIN_CPU_AMX. WebAssembly needs -msimd128, since it
 * cannot choose at run time. gcc for 32-bit x86 needs -msse2 -mfpmath=sse, since the 387 keeps more
 * bits than a float has. Build with -O2; -fopenmp brings threads.
 *
 *
 * LIMITS
 *
 * Inference only. Of Llama's layout: rotary embeddings as they are, linear or as in Llama 3.1, no
 * other scaling; no experts, no norms of queries and keys. A state holds the keys and values of the
 * whole window. Where a file's window is its training length, griffin_options.attn_keys makes it
 * smaller. Vector kernels exist for x86-64, aarch64 and WebAssembly with gcc (for Windows since its
 * version 12) and clang, and for x86-64 with Visual C++ 2022, tested with clang in its place.
 * Elsewhere plain C runs, with the same bits, and slowly. So do float weights in WebAssembly, which
 * has no fused multiply-add. A context cannot grow. Chat templates are not interpreted:
 * tools/commands/turns.c has a table of the usual turns.
 *
 *
 * VERSIONS
 *
 * Until 1.0 the second number grows when the API, the file format or the saves change, and the
 * third when nothing of that does. A program that compiled with 0.2.0 compiles with every 0.2.x,
 * and 0.2.x opens files and saves of 0.2.0. Files and saves of another format are refused by
 * their version number, and the message names the command that converts a file. Structs may grow
 * at their end: fill them with zeros, and zero will mean what it means today.
 *
 * A shared library (make shared) shows the functions of >>api and nothing else. Before any other
 * call, a host of it compares griffin_version() / 100 with the GRIFFIN_VERSION / 100 of the header
 * that its structs come from, and does not go on if they differ: structs carry no size, so a
 * library that knows more fields than the host would use bytes behind the end of its structs. As
 * long as the two are equal, functions, structs and enums stay as they are. Bytes of states and
 * marks are for the library that wrote them. Saves are for every other one.
 *
 *
 * HISTORY
 *
 *     0.2.0  2026-11-28  HGRN2, SUPRA, Llama's layout, and networks that mix all kinds of layers.
 *                        The library reads only what the converter writes; files of 0.1 are refused
 *                        with the command that converts them, to the same bits. Grammars moved to
 *                        tools/griffin_grammar.h. griffin_get_metadata, griffin_get_operation,
 *                        GRIFFIN_TOKEN_MARKER, griffin_options.directory_only, griffin_ban,
 *                        griffin_heal, griffin_guess, griffin_context_options.no_slices,
 *                        griffin_save_pieces, griffin_load_pieces, griffin_words. Calls
 *                        that cannot be dropped write recurrent states in place. Every call works
 *                        on a stack of 64 KB. Compiler options that change floats are refused.
 *                        griffin_tile_*, griffin_preset and griffin_options.config are gone. Saves
 *                        are version 3; those of 0.1 are refused.
 *     0.1.0  2026-11-22  The first version.
 */

/* ================================================================= >>api
 * Everything a host can call. Every function may be called from any thread; the
 * table of objects in the manual says what must not be shared between calls. */

#ifndef GRIFFIN_H
#define GRIFFIN_H

#include <stddef.h>
#include <stdint.h>

#define GRIFFIN_VERSION_MAJOR 0
#define GRIFFIN_VERSION_MINOR 2
#define GRIFFIN_VERSION_PATCH 0
#define GRIFFIN_VERSION (GRIFFIN_VERSION_MAJOR * 10000 + GRIFFIN_VERSION_MINOR * 100 \
                         + GRIFFIN_VERSION_PATCH)

#ifndef GRIFFIN_API                 /* define it yourself for DLL export */
  #ifdef GRIFFIN_STATIC             /* a private copy inside one source file */
    #define GRIFFIN_API static inline
  #else
    #define GRIFFIN_API extern
  #endif
#endif

#ifdef GRIFFIN_PREFIX               /* other names for the linker, the same ones for you */
  #define GRF_PREFIXED_AS(prefix, name) prefix##name
  #define GRF_PREFIXED_BY(prefix, name) GRF_PREFIXED_AS(prefix, name)
  #define GRF_PREFIXED(name) GRF_PREFIXED_BY(GRIFFIN_PREFIX, name)
  #define griffin_error_string   GRF_PREFIXED(griffin_error_string)
  #define griffin_version        GRF_PREFIXED(griffin_version)
  #define griffin_open_file      GRF_PREFIXED(griffin_open_file)
  #define griffin_open_memory    GRF_PREFIXED(griffin_open_memory)
  #define griffin_close          GRF_PREFIXED(griffin_close)
  #define griffin_get_info       GRF_PREFIXED(griffin_get_info)
  #define griffin_get_tensor     GRF_PREFIXED(griffin_get_tensor)
  #define griffin_get_operation  GRF_PREFIXED(griffin_get_operation)
  #define griffin_get_metadata   GRF_PREFIXED(griffin_get_metadata)
  #define griffin_next_element   GRF_PREFIXED(griffin_next_element)
  #define griffin_config_number  GRF_PREFIXED(griffin_config_number)
  #define griffin_tiling_name    GRF_PREFIXED(griffin_tiling_name)
  #define griffin_activation_name GRF_PREFIXED(griffin_activation_name)
  #define griffin_find_activation GRF_PREFIXED(griffin_find_activation)
  #define griffin_state_size     GRF_PREFIXED(griffin_state_size)
  #define griffin_state_position GRF_PREFIXED(griffin_state_position)
  #define griffin_mark_size      GRF_PREFIXED(griffin_mark_size)
  #define griffin_mark           GRF_PREFIXED(griffin_mark)
  #define griffin_rewind         GRF_PREFIXED(griffin_rewind)
  #define griffin_context_size   GRF_PREFIXED(griffin_context_size)
  #define griffin_context_init   GRF_PREFIXED(griffin_context_init)
  #define griffin_step           GRF_PREFIXED(griffin_step)
  #define griffin_prefill        GRF_PREFIXED(griffin_prefill)
  #define griffin_run            GRF_PREFIXED(griffin_run)
  #define griffin_begin          GRF_PREFIXED(griffin_begin)
  #define griffin_advance        GRF_PREFIXED(griffin_advance)
  #define griffin_unit_name      GRF_PREFIXED(griffin_unit_name)
  #define griffin_sample         GRF_PREFIXED(griffin_sample)
  #define griffin_accept         GRF_PREFIXED(griffin_accept)
  #define griffin_guess_logits   GRF_PREFIXED(griffin_guess_logits)
  #define griffin_guess_take     GRF_PREFIXED(griffin_guess_take)
  #define griffin_guess_add      GRF_PREFIXED(griffin_guess_add)
  #define griffin_guess_begin    GRF_PREFIXED(griffin_guess_begin)
  #define griffin_guess_run      GRF_PREFIXED(griffin_guess_run)
  #define griffin_guess_time     GRF_PREFIXED(griffin_guess_time)
  #define griffin_guess_finish   GRF_PREFIXED(griffin_guess_finish)
  #define griffin_draft_check    GRF_PREFIXED(griffin_draft_check)
  #define griffin_draft_take     GRF_PREFIXED(griffin_draft_take)
  #define griffin_draft_next     GRF_PREFIXED(griffin_draft_next)
  #define griffin_lookup_add     GRF_PREFIXED(griffin_lookup_add)
  #define griffin_lookup_guess   GRF_PREFIXED(griffin_lookup_guess)
  #define griffin_encode         GRF_PREFIXED(griffin_encode)
  #define griffin_encode_size    GRF_PREFIXED(griffin_encode_size)
  #define griffin_decode         GRF_PREFIXED(griffin_decode)
  #define griffin_token_text     GRF_PREFIXED(griffin_token_text)
  #define griffin_token_type     GRF_PREFIXED(griffin_token_type)
  #define griffin_find_token     GRF_PREFIXED(griffin_find_token)
  #define griffin_stop_feed      GRF_PREFIXED(griffin_stop_feed)
  #define griffin_words_feed     GRF_PREFIXED(griffin_words_feed)
  #define griffin_ban_mask       GRF_PREFIXED(griffin_ban_mask)
  #define griffin_ban_accept     GRF_PREFIXED(griffin_ban_accept)
  #define griffin_heal_start     GRF_PREFIXED(griffin_heal_start)
  #define griffin_heal_mask      GRF_PREFIXED(griffin_heal_mask)
  #define griffin_heal_accept    GRF_PREFIXED(griffin_heal_accept)
  #define griffin_save           GRF_PREFIXED(griffin_save)
  #define griffin_load           GRF_PREFIXED(griffin_load)
  #define griffin_save_pieces    GRF_PREFIXED(griffin_save_pieces)
  #define griffin_load_pieces    GRF_PREFIXED(griffin_load_pieces)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- results ------------------------------------------------------------
 * Every function that can fail returns an int. Negative: one of these.
 * Zero or positive: success, and what the number counts is said there. */

typedef enum griffin_error {
    GRIFFIN_OK            =  0,
    GRIFFIN_E_ARGUMENT    = -1,  /* a pointer is null or a number out of range */
    GRIFFIN_E_FILE        = -2,  /* the file cannot be opened or read */
    GRIFFIN_E_FORMAT      = -3,  /* not a griffin model, state or grammar, or damaged */
    GRIFFIN_E_VERSION     = -4,  /* written in a version of the format not known here */
    GRIFFIN_E_UNSUPPORTED = -5,  /* well formed, but uses a feature that is not built in */
    GRIFFIN_E_MEMORY      = -6,  /* the allocator gave up */
    GRIFFIN_E_SPACE       = -7,  /* a buffer or context of yours is too small */
    GRIFFIN_E_MISMATCH    = -8,  /* state, context, model or grammar do not belong together */
    GRIFFIN_E_VOCABULARY  = -9,  /* the model carries no vocabulary, so no text */
    GRIFFIN_E_NO_TOKEN    = -10  /* every token is forbidden */
} griffin_error;

GRIFFIN_API const char *griffin_error_string(int error);   /* never null */
GRIFFIN_API int         griffin_version(void);             /* of the code linked in */

/* ---- hooks: all optional, all zero by default ---------------------------- */

/* Used while a model is opened and by griffin_encode without scratch; nothing
 * else allocates. Both functions or neither. Memory must be aligned as malloc
 * aligns it. Default: malloc and free. */
typedef struct griffin_allocator {
    void *(*allocate)(size_t size, void *user);
    void  (*release)(void *memory, void *user);
    void *user;
} griffin_allocator;

/* `message` receives one line of text about every error (ERRORS has exceptions). With GRIFFIN_OK it
 * receives things worth knowing, such as a tensor that is ignored. It may be called
 * from any thread that calls the library. Default: nothing is reported. */
typedef struct griffin_logger {
    void (*message)(int error, const char *text, void *user);
    void *user;
} griffin_logger;

/* Your job system. `run` must call job(data, 0) ... job(data, count - 1), in any
 * order and on any threads, and return when all of them have returned. It must not
 * leave by an exception or by longjmp: a state may be half written then.
 * Default: OpenMP if the implementation was built with it, else the calling thread.
 * Results do not depend on `width`, on the order, or on the threads. */
typedef struct griffin_jobs {
    void (*run)(void (*job)(void *data, int index), void *data, int count, void *user);
    void *user;
    int   width;                            /* without `run`: how many threads of OpenMP to use, at
                                             * most 1024; 0: all there are */
} griffin_jobs;

/* ---- model: opened once, never written again, shared by all threads ------ */

typedef struct griffin_model griffin_model;

typedef enum griffin_cpu {                  /* the best kernels a model may use */
    GRIFFIN_CPU_BEST,                       /* whatever this machine has */
    GRIFFIN_CPU_SCALAR,                     /* plain C, the reference */
    GRIFFIN_CPU_AVX2,
    GRIFFIN_CPU_AVX_VNNI,                   /* AVX2 with dot products of bytes */
    GRIFFIN_CPU_AVX512,
    GRIFFIN_CPU_NEON,                       /* of 64-bit ARM */
    GRIFFIN_CPU_NEON_DOT,                   /* with dot products of bytes */
    GRIFFIN_CPU_WASM,                       /* SIMD128 */
    GRIFFIN_CPU_NEON_I8MM,                  /* NEON_DOT with matrix products of bytes */
    GRIFFIN_CPU_AMX                         /* AVX512 with the matrix unit of x86 servers. Linux
                                             * must permit it, and then enlarges the frames of all
                                             * signals: naming it here asks for that, BEST does not
                                             * and takes AMX if the process has asked before */
} griffin_cpu;

typedef enum griffin_activation {
    GRIFFIN_GELU_TANH,                      /* the default of the family */
    GRIFFIN_GELU_ERF,
    GRIFFIN_SILU,
    GRIFFIN_RELU
} griffin_activation;

typedef enum griffin_kv_type {              /* how a state keeps keys and values */
    GRIFFIN_KV_F32,                         /* as they are computed */
    GRIFFIN_KV_BF16                         /* rounded to nearest even: half the memory */
} griffin_kv_type;

#define GRIFFIN_MAX_LAYERS 1024

/* The sizes of a network. The letters are those of >>network. */
typedef struct griffin_config {
    int   vocab;                            /* V, rows of the embedding */
    int   width;                            /* D, of the residual stream */
    int   mlp_width;                        /* F, of one of the two MLP branches */
    int   layers;                           /* N */
    int   heads, kv_heads, head_dim;        /* H, G; H % G == 0, HGRN2 takes G for H. H head_dim
                                             * is D, but may be other in networks of attention */
    int   lru_width;                        /* E, of the RG-LRU */
    int   gate_blocks;                      /* B, diagonal blocks of its gates; E % B == 0 */
    int   conv_width;                       /* K, taps */
    int   window;                           /* W; a token sees itself and W earlier ones */
    int   rope_dims;                        /* rotated dimensions of each head */
    float rope_base;
    float eps;                              /* inside the root of every norm */
    float norm_offset;                      /* gain = offset + stored weight */
    float embedding_scale;                  /* the factor itself; 1: none */
    float soft_cap;                         /* of the logits; 0: none */
    float decay;                            /* c in a = exp(-c r softplus(parameter)) */
    griffin_activation activation;
    int   qkv_bias;                         /* 1: q, k and v have biases */
    int   no_biases;                        /* 1: the other linear layers have none */
    int   layer_norm;                       /* 1: norms subtract the mean first */
    float mixer_eps;                        /* of the norm inside a mixer; 0: 1e-5 */
    char  blocks[GRIFFIN_MAX_LAYERS + 1];   /* how each layer mixes tokens: 'r' recurrent (RG-LRU),
                                             * 'a' local attention, 'h' HGRN2, 's' SUPRA; NUL ends.
                                             * What no block of a network uses may be 0 */
} griffin_config;

typedef struct griffin_options {
    griffin_allocator allocator;
    griffin_logger    logger;
    griffin_cpu       cpu;
    int               copy_weights;         /* 1: copy tiles out of the file, into huge pages where
                                             * malloc's memory can have them: slower to open, often
                                             * a tenth faster to decode */
    int               attn_keys;            /* keys a token sees, itself included; 0: W + 1, as
                                             * the reference has it; W: as most ports have it; at
                                             * most 2^20 */
    griffin_kv_type   kv_type;
    int               rewind;               /* most tokens griffin_rewind can go back, up to 2^20;
                                             * 0: 16. Each makes every state larger by 8 bytes and
                                             * a token's keys and values: 16 KiB for RecurrentGemma
                                             * 2B */
    char             *error;                /* null, or receives the message of a failed open */
    size_t            error_size;
    int               directory_only;       /* 1: no network. Any GGUF file can be opened, to look
                                             * into it, to count tokens, or to convert it: see
                                             * griffin_open_file */
} griffin_options;

typedef struct griffin_info {
    griffin_config config;
    const char *name;                       /* as stored in the file, "" if not */
    const char *kernels;                    /* the set in use: "scalar", "avx2", "avx512" ... */
    const char *type;                       /* of most weights: "q8_0", "f32", ... */
    int         attn_keys, rewind;          /* as they apply, after defaults */
    griffin_kv_type kv_type;
    int         has_vocabulary;
    int         tokens;                     /* of the vocabulary; 0: none. If config.vocab is more,
                                             * the rest can be drawn and has no text: ban it if the
                                             * model was not trained to avoid it */
    int32_t     bos, eos, end_of_turn, pad; /* -1: the model has none */
    int         add_bos;                    /* griffin_encode starts a text with bos */
    const char *chat_template;              /* "" if the file has none; Jinja, as trained with */
    uint64_t    parameters;
    uint64_t    weight_bytes;               /* private memory: weights that are not used in place */
    uint64_t    file_bytes;
    uint64_t    state_bytes;                /* one sequence */
    uint64_t    mark_bytes;                 /* what griffin_rewind needs of it */
    uint64_t    fingerprint;                /* of configuration and weights */
    int         tensors;                    /* in the file */
    int         operations;                 /* in the program that the layers became */
    griffin_allocator allocator;            /* as in the options, for libraries beside this one */
    griffin_logger    logger;
} griffin_info;

/* Maps the file, or reads it where files cannot be mapped, and checks all of it.
 * options may be null. On failure *model is null and options->error says why.
 * Windows: the path goes to fopen, in the code page of the system. That is UTF-8 if
 * the manifest of the program says so; else read the file and use
 * griffin_open_memory.
 *
 * With directory_only, a file of any architecture and with any types of weights is opened. Its
 * tensors, metadata and, if the library knows its kind, the vocabulary are there for all functions
 * that take no state, context or sampler. info->config is filled in if the network is of Griffin's
 * family. A vocabulary or configuration that cannot be read is left out: the logger, and
 * options->error, receive why.
 *
 * A file must not be changed or cut until griffin_close. To replace it, write another one and
 * rename that. */
#ifndef GRIFFIN_NO_STDIO
GRIFFIN_API int griffin_open_file(griffin_model **model, const char *path,
                                  const griffin_options *options);
#endif

/* The same from memory. The buffer must live and stay unchanged until
 * griffin_close. Untrusted bytes are safe: every offset is checked here. */
GRIFFIN_API int griffin_open_memory(griffin_model **model, const void *data, size_t size,
                                    const griffin_options *options);

GRIFFIN_API void griffin_close(griffin_model *model);      /* null is fine */

/* Valid until griffin_close. */
GRIFFIN_API const griffin_info *griffin_get_info(const griffin_model *model);

/* What the file holds, by number from 0 to info->tensors - 1. shape is row-major: the last
 * dimension runs fastest. */
typedef struct griffin_tensor {
    char     name[64];
    const char *type;                       /* "f32", "i8" for tiles of q8_0, q6_0, q4_0; with
                                             * directory_only also "q4_k" and the like, or
                                             * "unknown"; bytes are 0 if they are not known */
    int      rank;                          /* 1 to 4 */
    uint64_t shape[4];
    uint64_t offset, bytes;                 /* in the file */
} griffin_tensor;

GRIFFIN_API int griffin_get_tensor(const griffin_model *model, int index, griffin_tensor *tensor);

/* What the model does with a token: its operations in order, by number from 0 to
 * info->operations - 1. They work on named buffers of so many numbers a token. `griffin info
 * --program` prints them; the letters are those of >>network. */
typedef struct griffin_input {
    const char *buffer;                     /* "X", "U", "int8", ... */
    int         width;
} griffin_input;

typedef struct griffin_output {
    const char *buffer;
    int         width;
    const char *epilogue;                   /* "store", "add", "activate", "multiply" or "cap": what
                                             * becomes of a product on its way to the buffer */
    const char *matrix;                     /* tensor without "layers.N." and ".weight"; null: this
                                             * is no product, and what follows is 0 */
    const char *type;                       /* "q8_0", ... */
    int         rows, cols, blocks;         /* blocks on the diagonal, each [rows / blocks, cols] */
    int         has_bias;
} griffin_output;

typedef struct griffin_operation {
    const char    *name;                    /* as griffin_unit_name has it */
    int            layer;                   /* -1: before or after the layers */
    int            inputs, outputs;
    griffin_input  input[5];
    griffin_output output[3];
    uint64_t       state_offset, state_bytes;   /* part of a state that it reads or writes */
} griffin_operation;

GRIFFIN_API int griffin_get_operation(const griffin_model *model, int index,
                                      griffin_operation *operation);

/* What else the file says: pairs of a key and a value, or an array of values. Nothing is copied:
 * the pointers are into the file, and valid until griffin_close. */
typedef enum griffin_value_type {           /* the numbers of GGUF */
    GRIFFIN_VALUE_U8, GRIFFIN_VALUE_I8, GRIFFIN_VALUE_U16, GRIFFIN_VALUE_I16,
    GRIFFIN_VALUE_U32, GRIFFIN_VALUE_I32, GRIFFIN_VALUE_F32, GRIFFIN_VALUE_BOOL,
    GRIFFIN_VALUE_STRING, GRIFFIN_VALUE_ARRAY,
    GRIFFIN_VALUE_U64, GRIFFIN_VALUE_I64, GRIFFIN_VALUE_F64
} griffin_value_type;

typedef struct griffin_metadata {
    const char *key;                        /* no NUL ends it */
    size_t      key_length;
    griffin_value_type type;                /* of the value; of an array: of its elements */
    int         is_array;
    uint64_t    count;                      /* elements of an array, may be 0; else 1 */

    uint64_t    index;                      /* the element that follows, from 0 */
    int64_t     integer;                    /* of integers and bools; u64: the same bits */
    double      number;                     /* of all numbers and bools */
    const char *text;                       /* of a string; no NUL ends it */
    size_t      length;
    const unsigned char *data;              /* its bytes: little-endian, anywhere */
} griffin_metadata;

/* The pair with this key, or with key null the pair of this number, from 0. Returns 1, or 0 if
 * there is none. Of an array it gives the first element. griffin_next_element moves on to the next,
 * and returns 1, or 0 after the last. */
GRIFFIN_API int griffin_get_metadata(const griffin_model *model, const char *key, int index,
                                     griffin_metadata *metadata);
GRIFFIN_API int griffin_next_element(griffin_metadata *metadata);

/* For programs that write model files. A file has "griffin.format_version", the numbers of the
 * configuration under "griffin." and their key, "griffin.hidden_activation" with the name of the
 * activation, and matrices as tensors NAME.TILING. */
#define GRIFFIN_FORMAT_VERSION 2            /* 1: matrices in rows, or in tiles named .t32 */

typedef struct griffin_number {
    const char *key;                        /* without "griffin." */
    griffin_value_type type;                /* U32, F32 or BOOL */
    double      value;
} griffin_number;

/* By number from 0. Returns 1, or 0 if there are no more. */
GRIFFIN_API int griffin_config_number(const griffin_config *config, int index,
                                      griffin_number *number);
GRIFFIN_API const char *griffin_tiling_name(int index);                 /* null: no more */
GRIFFIN_API const char *griffin_activation_name(griffin_activation activation);    /* or null */
GRIFFIN_API int griffin_find_activation(const char *name, size_t length);          /* -1: none */

/* ---- state: everything a sequence remembers, as plain bytes --------------
 * A state has a fixed size, holds no pointers, and lives in your memory, as
 * malloc aligns it (64 bytes is a little faster). All-zero bytes are a fresh
 * state. Between calls, memcpy saves, restores and forks it. */

typedef struct griffin_state griffin_state;

GRIFFIN_API size_t  griffin_state_size(const griffin_model *model);
GRIFFIN_API int64_t griffin_state_position(const griffin_state *state);    /* tokens consumed */

/* A mark is what a state needs to go back from tokens that should not have been: its recurrent
 * part, which is a small share of it, or in HGRN2 and SUPRA all of it. It is griffin_mark_size
 * plain bytes in your memory, for use in this process. griffin_rewind takes a state that has gone
 * on for at most griffin_options.rewind tokens back to where the mark was made, exactly: whatever
 * follows has the same bits as if the state had never been further. E_MISMATCH, and nothing
 * changed: the mark is of another model, of a text that the state did not continue, or of a
 * position that it has not reached, can no longer reach, or has forgotten. griffin_load forgets all
 * before the saved position. A mark does not hold logits, sampler, decoder or the state of a
 * grammar: copy those yourself. */
GRIFFIN_API size_t griffin_mark_size(const griffin_model *model);
GRIFFIN_API int    griffin_mark  (const griffin_model *model, const griffin_state *state,
                                  void *mark);
GRIFFIN_API int    griffin_rewind(const griffin_model *model, griffin_state *state,
                                  const void *mark);

/* ---- context: scratch memory for one caller at a time --------------------
 * It remembers no sequence: any context of a model can continue any of its states.
 * A pass reads all weights once, for as many tokens and states as the context has
 * room for. options may be null. A context has pointers into itself: do not move
 * it. To end it, free its memory when no call uses it. */

typedef struct griffin_context griffin_context;

typedef struct griffin_context_options {
    int          rows;                      /* most tokens in one pass, up to 65536; 0: 64; no
                                             * fewer than `states` are made */
    int          states;                    /* most sequences in one pass; 0: 1 */
    griffin_jobs jobs;
    int          no_slices;                 /* 1: griffin_begin returns E_SPACE. The context is then
                                             * smaller, by about griffin_mark_size for each of
                                             * `states`: it has no room for what may be dropped. So
                                             * guesses are run only if all layers are attention */
    int          guesses;                   /* the most guesses of a pass, for which the recurrent
                                             * parts are then kept, up to 65536: the right ones are
                                             * not run again when a later one was wrong. Each takes
                                             * as much memory as a mark. 0: none is kept, and there
                                             * is no such limit; so with HGRN2 and SUPRA, whose
                                             * states are too large */
} griffin_context_options;

/* 0: an option is out of range, for which griffin_context_init has a message. */
GRIFFIN_API size_t griffin_context_size(const griffin_model *model,
                                        const griffin_context_options *options);
GRIFFIN_API int    griffin_context_init(griffin_context **context, const griffin_model *model,
                                        const griffin_context_options *options,
                                        void *memory, size_t size);

/* ---- forward ---------------------------------------------------------------
 * A span is consecutive tokens of one sequence. One call may carry many spans of
 * different states; each weight is read once for all of them. The logits are the
 * same bits however tokens are cut into calls and whoever shares the call. */

typedef struct griffin_span {
    griffin_state *state;
    const int32_t *tokens;
    int            count;
    int            all_logits;              /* 0: after the last token; 1: after every token */
    float         *logits;                  /* [V] or [count][V]; null skips the output head */
} griffin_span;

/* One token into one state. logits: [V] or null. */
GRIFFIN_API int griffin_step(griffin_context *context, griffin_state *state,
                             int32_t token, float *logits);

/* Many tokens into one state, at least one; logits after the last of them, or null. */
GRIFFIN_API int griffin_prefill(griffin_context *context, griffin_state *state,
                                const int32_t *tokens, int count, float *logits);

/* Many spans of any length. Arguments are checked before anything is written;
 * spans must not name the same state twice, nor share memory for logits. */
GRIFFIN_API int griffin_run(griffin_context *context, const griffin_span *spans, int count);

/* The same in slices, for hosts with a frame budget. griffin_begin takes at most as many tokens and
 * spans as the context has rows and states. It copies the tokens; logits are written into your
 * memory along the way. A slice is called a unit, and griffin_advance runs at most `units` of them.
 * Both return how many units are left; at 0 the states have moved on. To cancel, begin something
 * else. griffin_step, griffin_prefill and griffin_run with the same context drop the job, too.
 * Without a job griffin_advance returns 0. griffin_begin returns E_SPACE if the context has too few
 * rows or states, or was made with no_slices; griffin_advance E_MISMATCH if other calls have
 * changed a state since: then the job is dropped, and the states are as those calls left them. */
GRIFFIN_API int griffin_begin  (griffin_context *context, const griffin_span *spans, int count);
GRIFFIN_API int griffin_advance(griffin_context *context, int units);

/* What the next unit does, for profiles: "embed", "angles" (of rotary embeddings), "norm",
 * "quantise" (a row to int8), "linear", "gated" (the inner half of an MLP), "conv", "rglru",
 * "rope", "keep" (keys and values), "attend", "gates" (of HGRN2) or "outer" (the outer-product
 * state); null when there is no job. */
GRIFFIN_API const char *griffin_unit_name(const griffin_context *context);

/* ---- sampling --------------------------------------------------------------
 * All zero is greedy. The struct is the whole random state: copy it to replay.
 * The same logits and sampler give the same token on every platform. Order: biases,
 * mask, repetition penalty, top_k, temperature, top_p, min_p, draw. */

#define GRIFFIN_RECENT 64

/* Added to the logit of a token; -INFINITY bans it. Several for one token add up, and banned
 * stays banned. */
typedef struct griffin_bias {
    int32_t token;
    float   bias;                           /* not NaN */
} griffin_bias;

/* Your own rules: changes logits [vocab], where -INFINITY bans a token. Negative: an error, which
 * griffin_sample returns. */
typedef int griffin_mask_function(float *logits, int vocab, void *user);

typedef struct griffin_sampler {
    uint64_t seed;                          /* advances with every draw */
    float    temperature;                   /* 0: always the likeliest token, lowest id on ties */
    float    top_p;                         /* 0 or 1: off; else keep this much probability */
    float    min_p;                         /* 0: off; else drop below min_p * best */
    int      top_k;                         /* 0: off; else keep this many */
    float    repeat_penalty;                /* 0 or 1: off; 1.1 is mild */
    int      repeat_last;                   /* tokens looked back at; 0: all GRIFFIN_RECENT */
    uint32_t accepted;                      /* how many tokens were accepted so far */
    int32_t  recent[GRIFFIN_RECENT];        /* the last of them, a ring */

    /* Yours: they must outlive the calls; copies share them and no save holds them. */
    const griffin_bias    *biases;
    int                    bias_count;
    griffin_mask_function *mask;            /* null: none */
    void                  *mask_user;
} griffin_sampler;

/* Returns a token, or a negative error (E_NO_TOKEN if all are banned) with the sampler unchanged.
 * Accepts the token itself. Overwrites logits [V]: with a temperature they are left as shares,
 * 1 for the likeliest and 0 for what was dropped. */
GRIFFIN_API int32_t griffin_sample(const griffin_model *model, griffin_sampler *sampler,
                                   float *logits);

/* Tells the repetition penalty of a token that was not sampled, such as one of the prompt. */
GRIFFIN_API void griffin_accept(griffin_sampler *sampler, int32_t token);

/* ---- guessing ---------------------------------------------------------------
 * Another token in a pass costs little beside the weights that the pass reads, and its logits are
 * the same bits as in a pass of its own. So guess what will be drawn, run the guesses together, and
 * keep those that were right. What is drawn, the logits and the state are, to the bit, those of one
 * griffin_step after the other, with any sampler, mask or stop text, since every token is drawn
 * from its own logits in turn. After a prefill that wrote its logits to g.logits, the loop is
 *
 *     for (;;) {
 *         token = griffin_sample(m, &sampler, griffin_guess_logits(&g));
 *         ...                                     show it; leave the loop at an end or a stop text
 *         griffin_lookup_add(&lookup, &token, 1);
 *         if (griffin_guess_take(&g, token) > 0) continue;        it was guessed: no pass
 *         griffin_lookup_guess(&lookup, &g);                      guesses what will follow it
 *         griffin_guess_run(c, &g, 1);
 *     }
 *     griffin_guess_finish(c, &g);                the state has all tokens that were taken
 *
 * Inside the loop the state lacks the last tokens of the text. How many of the guesses are run
 * depends on how many were right lately and on row_cost, so that the loop never takes much longer
 * than one without. An error of any of these calls ends the loop, too. */

/* How often guesses of one kind were right, the last ones counting most. Zero: not known. */
typedef struct griffin_odds { float tried, right; } griffin_odds;

typedef struct griffin_guess {              /* of one sequence */
    const griffin_model *model;             /* yours, as the state and the memory: */
    griffin_state *state;                   /* of nobody else until griffin_guess_finish */
    int32_t  *tokens;                       /* [room]; 64 is plenty */
    float    *logits;                       /* [rows][V]; row 0 is where a prefill writes them */
    int       room, rows;                   /* room is at least 2. A pass needs a row of logits for
                                             * the known tokens, one for each guess, and one for all
                                             * certain guesses together */
    float     row_cost;                     /* time of another token in a pass, as a part of the
                                             * time of a pass of one token; 0: 0.25.
                                             * griffin_guess_time measures it */
    uint64_t  passes, guessed, accepted;    /* counted; guesses that were run, and were right */

    /* The rest begins with zero bytes and is the library's. */
    int       known;                        /* tokens that were taken, but are not in the state */
    int       guesses;                      /* after these, */
    int       running;                      /* so many of which were run, */
    int       certain;                      /* so many of which are certain */
    int       ready;                        /* a pass of all of them was begun */
    int       row;                          /* of the logits after the last known token */
    int64_t   position;                     /* of the first known token, */
    uint64_t  history;                      /* and the state's text before it */
    griffin_odds *odds;                     /* of the guesses */
    float     balance, saving;              /* passes won so far; by the next guess that is right */
    float     pass_time;                    /* of one token */
    int       again;                        /* after a wrong guess the known tokens run again */
} griffin_guess;

/* The logits after the last token that was taken, for griffin_sample; null while tokens that were
 * taken wait for a pass, or if a field is out of range. */
GRIFFIN_API float *griffin_guess_logits(griffin_guess *guess);

/* Takes a token into the text. Returns 1 if its logits are there, since it was guessed and run; 0
 * if it needs a pass, for which guesses may now be added. E_SPACE: `room` tokens need a pass;
 * E_MISMATCH: other calls have changed the state. */
GRIFFIN_API int griffin_guess_take(griffin_guess *guess, int32_t token);

/* Adds what may come after the known tokens and earlier guesses, and returns 1; 0 if no more fit.
 * With odds null the token is certain, since the sampler's mask will leave no other: the logits
 * that it is drawn from do not matter, so they are not computed, and griffin_guess_logits gives
 * zeros. The odds, which you keep, are counted for you. Guesses from different odds do not mix in a
 * pass; certain ones come first. */
GRIFFIN_API int griffin_guess_add(griffin_guess *guess, int32_t token, griffin_odds *odds);

/* One pass for all of these sequences that need one. griffin_guess_begin leaves the pass to
 * griffin_advance, and returns how many units it has, or 0 if no sequence needs one. The logits are
 * there when griffin_advance returns 0; if the pass was left before, the next of these calls begins
 * it again. The states move on in the next call for the same context; if the context does something
 * else before, tokens are run again. E_SPACE: more sequences need a pass than the context has
 * states, or more tokens were taken than it has rows (griffin_guess_finish runs them), or
 * griffin_guess_begin found no_slices. E_MISMATCH: other calls have changed a state, or it is of
 * another model. */
GRIFFIN_API int griffin_guess_begin (griffin_context *context, griffin_guess *guess, int count);
GRIFFIN_API int griffin_guess_run   (griffin_context *context, griffin_guess *guess, int count);

/* For a host with a clock: how long the pass took, in any unit, right after a pass of this sequence
 * alone. row_cost follows the measured times; the tokens drawn do not depend on it. Times that are
 * not above 0 are ignored, and so is a time without a pass. */
GRIFFIN_API int griffin_guess_time(griffin_guess *guess, double time);

/* Brings the state to the end of the text, with the logits after it in row 0. If a pass has
 * computed them already, they are not computed again, and are as griffin_sample left them if you
 * have drawn from them. The next prefill, step or save finds what it would have found without
 * guesses. */
GRIFFIN_API int griffin_guess_finish(griffin_context *context, griffin_guess *guess);

/* Looks for the last place where the text had its present end, the last 32, 16, 8, 4 or 2 tokens,
 * and guesses what came after that place. Where a copy departs from what it copies, it looks for
 * the place nearby where the copy comes back. It remembers the last `size` tokens. */
#define GRIFFIN_LOOKUP_LENGTHS 5

typedef struct griffin_lookup {
    int32_t     *memory;                    /* yours: [6 * size], all zero at first */
    int          size;                      /* a power of 2, at most 2^28 */
    uint32_t     count;                     /* tokens so far */
    int32_t      found[GRIFFIN_LOOKUP_LENGTHS];     /* where the end of the text was before */
    uint32_t     copied;                    /* where the text goes on if it is a copy; 0: none */
    int          astray;                    /* tokens since that was last seen to be so */
    griffin_odds odds[GRIFFIN_LOOKUP_LENGTHS + 2];
} griffin_lookup;

/* Tells it what was read or written. */
GRIFFIN_API int griffin_lookup_add  (griffin_lookup *lookup, const int32_t *tokens, int count);
/* Adds guesses. Returns how many. */
GRIFFIN_API int griffin_lookup_guess(griffin_lookup *lookup, griffin_guess *guess);

/* Lets a smaller model guess. It has the same vocabulary, and a state and a context of its own. The
 * state reads the prompt, as the other one does; after that only these functions touch it. */
#define GRIFFIN_DRAFT_TOKENS 64

typedef struct griffin_draft {
    griffin_context *context;               /* yours, as the memory */
    griffin_state   *state;
    void            *mark;                  /* room for one of the smaller model */
    float           *logits;                /* [V] */
    float            cost;                  /* time of its step, as a part of a step of the model;
                                             * 0: as the sizes of the files */
    griffin_odds     odds;
    /* The rest begins with zero bytes and is the library's. */
    int32_t tokens[GRIFFIN_DRAFT_TOKENS];   /* after the mark: the first `known` were taken, and if
                                             * `fed` is more, the rest were only fed */
    int     known, fed, drafted;            /* how many were taken; fed; guessed since */
    int     astray;                         /* what was fed is not what was taken */
} griffin_draft;

/* GRIFFIN_OK, or E_MISMATCH: the tokens of the two models are not the same. */
GRIFFIN_API int griffin_draft_check(const griffin_model *model, const griffin_model *smaller);

/* Tells it each token that griffin_guess_take is told. The errors are those of griffin_prefill and
 * griffin_rewind. */
GRIFFIN_API int griffin_draft_take(griffin_draft *draft, int32_t token);

/* Adds the next guess, and returns 1; 0 if no more are worth it or fit. After that, or after an
 * error of griffin_sample or griffin_step, it returns 0 until it is told another token. `sampler`
 * is a copy of yours. It draws with that, so with the random numbers that you will draw with, and
 * guesses right wherever both models agree. A mask in it should follow the guesses: the last one is
 * guess->tokens[guess->known + guess->guesses - 1]. */
GRIFFIN_API int griffin_draft_next(griffin_draft *draft, griffin_guess *guess,
                                   griffin_sampler *sampler);

/* ---- text ------------------------------------------------------------------
 * All of it fails with E_VOCABULARY if the model came without a tokenizer. */

typedef struct griffin_encoding {           /* zero: a whole prompt, as the model wants it */
    int    no_bos;                          /* leave out bos, or whatever the model asks for
                                             * before a text */
    int    no_special;                      /* turn markers in the text are plain text */
    int    continues;                       /* 1: follows earlier text, so no bos and no space
                                             * before it; 2: follows a token such as a turn marker,
                                             * so no bos, and a space if the model wants it there */
    void  *scratch;                         /* null: ask the model's allocator */
    size_t scratch_size;                    /* griffin_encode_size says how much is enough */
    int    ends;                            /* the text is complete: the eos or whatever the model
                                             * asks for after a text comes, too */
} griffin_encoding;

/* Returns how many tokens the text makes; writes at most capacity of them, so capacity 0 asks for
 * the size. Text is UTF-8, not necessarily terminated, and may be null if length is 0; broken bytes
 * become U+FFFD. encoding may be null. E_SPACE: the scratch is too small; E_ARGUMENT: 2 GiB of text
 * or more. Scratch for any text of `length` bytes: griffin_encode_size, about 55 bytes
 * for each byte in a Gemma-like vocabulary, and about 100 where thousands of pieces are unused.
 * Null scratch allocates what this text needs. */
GRIFFIN_API int griffin_encode(const griffin_model *model, const griffin_encoding *encoding,
                               const char *text, size_t length, int32_t *tokens, int capacity);
GRIFFIN_API size_t griffin_encode_size(const griffin_model *model, size_t length);

/* Streams tokens back to text. Emits only whole UTF-8 characters and keeps the rest; token -1
 * flushes. All zero is a fresh decoder; set started = 1 for tokens that follow earlier text, or a
 * vocabulary that puts a space before every text loses the first one. Returns the bytes written, a
 * NUL comes after them; a capacity of 512 is enough for most pieces, E_SPACE (and nothing changed)
 * tells if not. */
typedef struct griffin_decoder {
    unsigned char held[4];                  /* bytes of an unfinished character */
    unsigned char count;                    /* how many */
    unsigned char started, any_output, ate_space;
} griffin_decoder;

GRIFFIN_API int griffin_decode(const griffin_model *model, griffin_decoder *decoder,
                               int32_t token, char *text, size_t capacity);

/* Finds stop texts in a stream of decoded text, holding back only what may be the start of one.
 * All zero stops nowhere. A plain struct: copy it together with the state to rewind both. */
#define GRIFFIN_STOP_BYTES 128

typedef struct griffin_stop {
    const char *const *texts;               /* yours: UTF-8, 1 to GRIFFIN_STOP_BYTES bytes each */
    int   count;
    int   found;                            /* 1 + the index of the text that the last call found,
                                             * the longest if several end there; 0: none */
    int   used;                             /* bytes that call took, up to the end of that text */
    int   held_count;
    char  held[GRIFFIN_STOP_BYTES];         /* a proper start of one of the texts */
} griffin_stop;

/* Takes the next `length` bytes and returns how many it wrote: what is certain not to belong to a
 * stop text, followed by a NUL; text null brings out what is held. A text that was found is not
 * written, nor is anything after it: call again with text + used to search on. A capacity of
 * length + GRIFFIN_STOP_BYTES is always enough; E_SPACE, and nothing changed, tells if not. At most
 * 1 GiB at once. `out` must not overlap `text`. */
GRIFFIN_API int griffin_stop_feed(griffin_stop *stop, const char *text, size_t length,
                                  char *out, size_t capacity);

/* Holds back a word until it is complete, so that a reader never sees half of one. Feed
 * it what griffin_decode wrote. If you use griffin_stop_feed too, feed it what that wrote: stop
 * texts must be looked for in every byte at once. A word ends with a space or a line end, which
 * comes with it. Characters from U+3000 on, such as Chinese ones, are words by themselves. All zero
 * begins a text. A plain struct: copy it together with the decoder. */
#define GRIFFIN_WORD_BYTES 64

typedef struct griffin_words {
    int   most;                             /* bytes that are held at most; 0: GRIFFIN_WORD_BYTES.
                                             * A longer word comes out in parts */
    int   held_count;
    char  held[GRIFFIN_WORD_BYTES];         /* the start of a word */
} griffin_words;

/* Takes the next `length` bytes, whole characters, and returns how many it wrote: whole words,
 * followed by a NUL; text null brings out what is held. A capacity of length + GRIFFIN_WORD_BYTES +
 * 1 is always enough; E_SPACE, and nothing changed, tells if not. At most 1 GiB at once. `out` must
 * not overlap `text`. */
GRIFFIN_API int griffin_words_feed(griffin_words *words, const char *text, size_t length,
                                   char *out, size_t capacity);

/* Texts that must not be written, in whatever tokens. Set `model`; with the rest zero it bans
 * nothing. A plain struct: copy
 * it together with the state to rewind both. A mask looks at the text of every token: 4 ms in a
 * vocabulary of 256000. */
typedef struct griffin_ban {
    const griffin_model   *model;
    griffin_stop           stop;            /* texts and count: what is banned; the rest is ours */
    int                    again;           /* so many bytes of the next tokens were written before,
                                             * and are not looked at again: griffin_heal.count */
    griffin_mask_function *mask;            /* another mask, which is asked first, or null */
    void                  *mask_user;
} griffin_ban;

/* For griffin_sampler.mask, with a griffin_ban as its user. E_NO_TOKEN: all are forbidden. */
GRIFFIN_API int griffin_ban_mask(float *logits, int vocab, void *ban);

/* Tells it which token was written. Tokens of the prompt too, if a banned text must not begin
 * there and end in what follows. */
GRIFFIN_API int griffin_ban_accept(griffin_ban *ban, int32_t token);

/* Token healing: chooses the last tokens of a prompt again. All zero heals nothing. A plain struct:
 * copy it together with the state to rewind both. */
#define GRIFFIN_HEAL_BYTES 64

typedef struct griffin_heal {
    const griffin_model   *model;
    int                    count;           /* bytes to be written again; 0: all were */
    char                   text[GRIFFIN_HEAL_BYTES];    /* these bytes */
    griffin_mask_function *mask;            /* another mask, which is asked first, or null */
    void                  *mask_user;
} griffin_heal;

/* Returns how many of the prompt's tokens remain, at least the first (0 of none). The others are
 * taken back, from the earliest one such that the text from there to the end is the beginning of a
 * longer piece. That is at most GRIFFIN_HEAL_BYTES bytes, and no control token or turn marker.
 * Sets all fields but the last two. */
GRIFFIN_API int griffin_heal_start(griffin_heal *heal, const griffin_model *model,
                                   const int32_t *tokens, int count);

/* For griffin_sampler.mask, with a griffin_heal as its user. Only tokens pass that write what is to
 * be written again, or a part of it, or more. Of these it prefers what the tokenizer could have
 * written: tokens that reach the end of the prompt, and the ones with which griffin_encode would
 * start the rest of it. The others pass where none of them is left. */
GRIFFIN_API int griffin_heal_mask(float *logits, int vocab, void *heal);

/* Tells it which token was drawn. Returns how many bytes of its text the prompt has already: a host
 * that has shown the prompt leaves these out. Other masks must know of them too:
 * griffin_ban.again = heal.count, or griffin_grammar_lead, once after griffin_heal_start.
 * E_ARGUMENT: the token does not write what is due. */
GRIFFIN_API int griffin_heal_accept(griffin_heal *heal, int32_t token);

typedef enum griffin_token_kind {
    GRIFFIN_TOKEN_NORMAL = 1, GRIFFIN_TOKEN_UNKNOWN, GRIFFIN_TOKEN_CONTROL,
    GRIFFIN_TOKEN_USER_DEFINED, GRIFFIN_TOKEN_UNUSED, GRIFFIN_TOKEN_BYTE,
    GRIFFIN_TOKEN_MARKER                    /* user-defined, and a turn marker: see no_special */
} griffin_token_kind;

/* The bytes a token stands for (none for control tokens), for grammars and masks: not
 * necessarily whole characters. Returns how many; writes at most capacity, no NUL. */
GRIFFIN_API int griffin_token_text(const griffin_model *model, int32_t token,
                                   char *text, size_t capacity);
/* A griffin_token_kind. */
GRIFFIN_API int griffin_token_type(const griffin_model *model, int32_t token);

/* The token whose piece is exactly this text, as the vocabulary spells it; -1: none, or a pointer
 * is null. */
GRIFFIN_API int32_t griffin_find_token(const griffin_model *model, const char *piece,
                                       size_t length);

/* ---- save and load ------------------------------------------------------------
 * A sequence for disks and networks: little-endian, versioned, checksummed, tied to the model,
 * attn_keys and kv_type; the same bytes for the same text, rewound or not, whatever the other
 * options are. sampler and decoder may be null; with them a resumed run continues identically. Of a
 * sampler the settings and the random state are saved. Logits are not: save between griffin_sample
 * and the step with its token, and take that step after loading. */

/* Returns the bytes written; with data null, the bytes needed. */
GRIFFIN_API int64_t griffin_save(const griffin_model *model, const griffin_state *state,
                                 const griffin_sampler *sampler, const griffin_decoder *decoder,
                                 void *data, size_t capacity);

/* Nothing is changed unless all is well. E_FORMAT: damaged or something else; E_VERSION: of an
 * older or newer library; E_MISMATCH: of another model, attn_keys or kv_type, or a sampler or
 * decoder is asked for that was not saved. What was saved and is not asked for is skipped. */
GRIFFIN_API int     griffin_load(const griffin_model *model, griffin_state *state,
                                 griffin_sampler *sampler, griffin_decoder *decoder,
                                 const void *data, size_t size);

/* The same bytes in pieces, for a host without memory for all of them: 34 MB for RecurrentGemma 2B.
 * A piece has 1 to GRIFFIN_PIECE bytes. These functions of yours must not leave by an exception or
 * by longjmp, and what is saved or loaded is not theirs to change. `write` takes a whole
 * piece, and returns 0 or more. `read` fills in at most `size` bytes and returns how many: 1 to
 * `size`; or 0 at the end of the data. Some requests are small, so a `read` from a bare file
 * descriptor should buffer. A negative result is an error, which the call returns. */
#define GRIFFIN_PIECE 65536

typedef int griffin_write_function(const void *data, size_t size, void *user);
typedef int griffin_read_function(void *data, size_t size, void *user);

/* Returns the bytes written. After an error the pieces that were written are no save: write to a
 * file with another name and rename it at the end, and its readers find the old save or the new. */
GRIFFIN_API int64_t griffin_save_pieces(const griffin_model *model, const griffin_state *state,
                                        const griffin_sampler *sampler,
                                        const griffin_decoder *decoder,
                                        griffin_write_function *write, void *user);

/* Reads one save and nothing after it. Only the last bytes tell whether the others are right, and a
 * state that was overwritten could not come back. So the state must be fresh, and after an error it
 * is fresh: what a host has is never half of something. With state null all is read and checked,
 * and nothing is changed. A host that must load over its only state reads twice: first to check,
 * then, with the state set to zero, to load. The errors are those of griffin_load, and
 * E_ARGUMENT if the state is not fresh. */
GRIFFIN_API int     griffin_load_pieces(const griffin_model *model, griffin_state *state,
                                        griffin_sampler *sampler, griffin_decoder *decoder,
                                        griffin_read_function *read, void *user);


#ifdef __cplusplus
}
#endif
#endif /* GRIFFIN_H */
/* ================================================================= end of header part */

#if defined(GRIFFIN_IMPLEMENTATION) && !defined(GRIFFIN_IMPLEMENTED)
#define GRIFFIN_IMPLEMENTED

/* ================================================================= >>platform
 * What differs between compilers and systems is decided here, once. The rest of the file only sees
 * macros:
 *
 *     GRF_MMAP           files can be mapped into memory
 *     GRF_OPENMP         OpenMP 4.0; GRF_YIELD: a waiting thread can give up its processor
 *     GRF_X86            kernels for x86-64; GRF_AVX_VNNI: the compiler knows AVX-VNNI;
 *                        GRF_AMX: its assembler knows AMX, and the system is Linux
 *     GRF_NEON           kernels for 64-bit ARM; GRF_NEON_DOT: with dot products of bytes,
 *                        GRF_NEON_I8MM: with matrix products of bytes
 *     GRF_WASM           kernels for WebAssembly
 *     GRF_BIG_ENDIAN     0 or 1 */

/* Parts of fast-math that a compiler does not tell of are found when a model is opened. */
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) \
    || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0) \
    || (defined(_MSC_VER) && defined(_M_FP_FAST))
  #error "griffin.h: build without fast-math, it changes sums (see NUMBERS in the manual)"
#endif

/* -fsingle-precision-constant makes them floats. */
typedef char grf_constants_must_be_doubles[sizeof(0.1) == sizeof(double) ? 1 : -1];

/* The 387, and gcc's -std=c99 for s390x, keep floats with more than their 24 bits. The compiler
 * then chooses where it rounds, and results differ. 16 means that only _Float16 is widened. */
#if (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16) \
    || (defined(_M_IX86_FP) && _M_IX86_FP < 2)
  #error "griffin.h: floats must stay floats: -msse2 -mfpmath=sse (x86) or -fexcess-precision=fast"
#endif

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#ifndef GRIFFIN_NO_STDLIB                   /* malloc and free as the default allocator */
  #include <stdlib.h>
#endif

/* POSIX systems map files; elsewhere, and with GRIFFIN_NO_MMAP, they are read with stdio.
 * GRIFFIN_NO_STDIO removes griffin_open_file altogether. */
#ifndef GRIFFIN_NO_STDIO
  #if !defined(GRIFFIN_NO_MMAP) && (defined(__unix__) || defined(__APPLE__))
    #define GRF_MMAP 1
    #include <fcntl.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <unistd.h>
  #else
    #include <stdio.h>
  #endif
#endif

#if defined(_OPENMP) && _OPENMP >= 201307  /* 4.0 brought the atomics; /openmp of MSVC is 2.0 */
  #define GRF_OPENMP 1
  #include <omp.h>
  #if defined(__unix__) || defined(__APPLE__)
    #define GRF_YIELD 1
    #include <sched.h>
  #endif
#endif

/* gcc for Windows places vectors of 32 and 64 bytes as if the stack were aligned for them, but it
 * only aligns the stack in functions without unwind tables (gcc bug 54412). Since version 12 an
 * attribute can switch these tables off. */
#if defined(_WIN32) && defined(__GNUC__) && !defined(__clang__)
  #define GRF_WINDOWS_GCC 1
#endif

/* Some functions are compiled for other instruction sets than the rest of the file. gcc and clang
 * need an attribute for that, MSVC accepts the intrinsics everywhere. clang-cl's <immintrin.h> only
 * includes what /arch selects, so its parts are included one by one. */
#if defined(GRIFFIN_SCALAR_ONLY) || (defined(GRF_WINDOWS_GCC) && __GNUC__ < 12)
#elif defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  #define GRF_X86 1
  #define GRF_TARGET(sets) __attribute__((target(sets)))
  #include <immintrin.h>
  #ifdef _MSC_VER
    #include <intrin.h>
    #include <smmintrin.h>
    #include <avxintrin.h>
    #include <avx2intrin.h>
    #include <f16cintrin.h>
    #include <fmaintrin.h>
    #include <avx512fintrin.h>
    #include <avx512bwintrin.h>
    #include <avx512dqintrin.h>
    #include <avx512vlintrin.h>
    #include <avx512vnniintrin.h>
    #include <avxvnniintrin.h>
  #else
    #include <cpuid.h>
  #endif
#elif defined(_M_X64) && !defined(_M_ARM64EC) && _MSC_VER >= 1930
  #define GRF_X86 1
  #define GRF_TARGET(sets)
  #include <immintrin.h>
  #include <intrin.h>
#endif
#if defined(GRF_X86) && (defined(__clang__) ? __clang_major__ >= 12 : \
                         !defined(__GNUC__) || __GNUC__ >= 11)
  #define GRF_AVX_VNNI 1
#endif
#if defined(GRF_AVX_VNNI) && defined(__linux__) && defined(__LP64__)
  #define GRF_AMX 1
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  #define GRF_BIG_ENDIAN 1
#else
  #define GRF_BIG_ENDIAN 0
#endif

/* NEON is part of every 64-bit ARM, but its dot products of bytes are an extension. A compiler that
 * may use it everywhere (Apple's always may) needs no choice at run time: GRF_NEON_DOT is 1. On
 * Linux the choice can be made at run time: it is 2. GRF_NEON_I8MM likewise. WebAssembly has no
 * choice at run time, only -msimd128 when it is compiled. */
#if defined(__aarch64__) && defined(__GNUC__) && !GRF_BIG_ENDIAN && !defined(GRIFFIN_SCALAR_ONLY)
  #define GRF_NEON 1
  #include <arm_neon.h>
  #if defined(__ARM_FEATURE_DOTPROD)
    #define GRF_NEON_DOT 1
  #elif defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 8)
    #define GRF_NEON_DOT 2
    #include <sys/auxv.h>
  #endif
  #if defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_DOTPROD)
    #define GRF_NEON_I8MM 1
  #elif GRF_NEON_DOT == 2 && (defined(__clang__) || __GNUC__ >= 10)
    #define GRF_NEON_I8MM 2
  #endif
#elif defined(__wasm_simd128__) && !defined(GRIFFIN_SCALAR_ONLY)
  #define GRF_WASM 1
  #include <wasm_simd128.h>
#endif

/* Loops over arrays of registers must be unrolled. Otherwise the arrays are kept in memory. */
#if defined(__clang__)
  #define GRF_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
  #define GRF_UNROLL _Pragma("GCC unroll 16")
#else
  #define GRF_UNROLL
#endif

/* Prefetches the cache line of an address, into the first cache or only into the second. The
 * address need not be valid. */
#if defined(__GNUC__)
  #define GRF_FETCH(p)    __builtin_prefetch(p)
  #define GRF_FETCH_L2(p) __builtin_prefetch(p, 0, 2)
#elif defined(GRF_X86)
  #define GRF_FETCH(p)    _mm_prefetch((const char *)(p), _MM_HINT_T0)
  #define GRF_FETCH_L2(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#else
  #define GRF_FETCH(p)    ((void)(p))
  #define GRF_FETCH_L2(p) ((void)(p))
#endif

/* The compiler moves no load across this point. */
#if defined(__GNUC__)
  #define GRF_IN_ORDER __asm__ volatile("" ::: "memory")
#else
  #define GRF_IN_ORDER ((void)0)
#endif

#if defined(_MSC_VER) && !defined(__clang__)
  #define GRF_INLINE   static __forceinline
  #define GRF_UNUSED
  #define GRF_RESTRICT __restrict
#else
  #ifdef __OPTIMIZE__
    #define GRF_INLINE static inline __attribute__((always_inline, unused))
  #else                                     /* every inlined call would add to the caller's stack */
    #define GRF_INLINE static inline __attribute__((unused))
  #endif
  #define GRF_UNUSED   __attribute__((unused))
  #define GRF_RESTRICT __restrict__
#endif

/* ================================================================= >>basics
 * What the rest stands on: messages, memory, checked arithmetic, little-endian bytes and a hash. */

#define GRF_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int64_t grf_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t grf_max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- messages --------------------------------------------------------------
 * A small printf, so that neither stdio nor the locale is needed. It knows
 *     %s  const char *        %t  const char *, size_t (a text from a file)
 *     %d  int                 %u  uint64_t            %x  uint64_t in hex
 * Messages quote names from hostile files and may go to a terminal. Control characters therefore
 * become '?', and so does every byte that is not part of valid UTF-8. */

typedef struct grf_line { char text[320]; size_t length; } grf_line;

static int grf_utf8_length(const char *text, uint64_t left);   /* >>vocabulary */

static void grf_line_put(grf_line *line, const char *text, size_t length) {
    while (length) {
        unsigned char first = (unsigned char)text[0];
        int bytes = grf_utf8_length(text, length), taken = bytes > 0 ? bytes : 1;
        int control = bytes == 1 ? first < 32 || first == 127           /* U+0080 to U+009F, too */
                                 : first == 0xC2 && (unsigned char)text[1] < 0xA0;
        if (line->length + (size_t)taken >= sizeof line->text) break;
        if (bytes < 1 || control) line->text[line->length++] = '?';
        else for (int i = 0; i < taken; i++) line->text[line->length++] = text[i];
        text += taken;
        length -= (size_t)taken;
    }
    line->text[line->length] = 0;
}

static void grf_line_number(grf_line *line, uint64_t value, unsigned base) {
    char digits[24];
    size_t at = sizeof digits;
    do { digits[--at] = "0123456789abcdef"[value % base]; value /= base; } while (value);
    grf_line_put(line, digits + at, sizeof digits - at);
}

static void grf_line_format(grf_line *line, const char *format, va_list values) {
    const char *text;
    int64_t number;
    for (; *format; format++) {
        if (*format != '%') { grf_line_put(line, format, 1); continue; }
        switch (*++format) {
        case 's':
            text = va_arg(values, const char *);
            grf_line_put(line, text, strlen(text));
            break;
        case 't':
            text = va_arg(values, const char *);
            grf_line_put(line, text, va_arg(values, size_t));
            break;
        case 'u': grf_line_number(line, va_arg(values, uint64_t), 10); break;
        case 'x':
            grf_line_put(line, "0x", 2);
            grf_line_number(line, va_arg(values, uint64_t), 16);
            break;
        case 'd':
            number = va_arg(values, int);
            if (number < 0) grf_line_put(line, "-", 1);
            grf_line_number(line, (uint64_t)(number < 0 ? -number : number), 10);
            break;
        default: grf_line_put(line, format, 1); break;
        }
    }
}

/* Where memory comes from and where errors go. Every model has one. */
typedef struct grf_host {
    griffin_allocator allocator;
    griffin_logger    logger;
    const char       *file;                 /* its name starts every message; may be null */
    char             *error;                /* receives every message of an error; may be null */
    size_t            error_size;
} grf_host;

static int grf_report(const grf_host *host, int error, const char *format, va_list values) {
    grf_line line;
    line.length = 0;
    if (host->file) {
        grf_line_put(&line, host->file, strlen(host->file));
        grf_line_put(&line, ": ", 2);
    }
    grf_line_format(&line, format, values);
    if (host->logger.message) host->logger.message(error, line.text, host->logger.user);
    if (error < 0 && host->error && host->error_size) {
        size_t n = line.length < host->error_size ? line.length : host->error_size - 1;
        while (n && (line.text[n] & 0xC0) == 0x80) n--;     /* no part of a character */
        memcpy(host->error, line.text, n);
        host->error[n] = 0;
    }
    return error;
}

/* Reports an error and returns it: `return grf_fail(host, GRIFFIN_E_FORMAT, "...", ...)`. */
static int grf_fail(const grf_host *host, int error, const char *format, ...) {
    va_list values;
    va_start(values, format);
    grf_report(host, error, format, values);
    va_end(values);
    return error;
}

/* ---- memory ---------------------------------------------------------------- */

static void *grf_host_allocate(const grf_host *host, uint64_t size) {
    if (size == 0) size = 1;
    if (size > (uint64_t)((size_t)-1 >> 1)) return NULL;
    if (host->allocator.allocate)
        return host->allocator.allocate((size_t)size, host->allocator.user);
#ifndef GRIFFIN_NO_STDLIB
    return malloc((size_t)size);
#else
    return NULL;
#endif
}

static void grf_host_release(const grf_host *host, void *memory) {
    if (!memory) return;
    if (host->allocator.allocate) { host->allocator.release(memory, host->allocator.user); return; }
#ifndef GRIFFIN_NO_STDLIB
    free(memory);
#endif
}

static int grf_fail_memory(const grf_host *host, uint64_t size) {
    return grf_fail(host, GRIFFIN_E_MEMORY, "the allocator could not give %u bytes", size);
}

/* An arena is one block of memory, of which 64-byte aligned parts are taken one after the other. If
 * base is null it only counts. So one function can first measure what it builds, then build it. */
typedef struct grf_arena { unsigned char *base; uint64_t used; } grf_arena;

static void *grf_arena_take(grf_arena *arena, uint64_t size) {
    void *part = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size + 63) & ~(uint64_t)63;
    return part;
}

static void *grf_align64(void *memory) {
    return (unsigned char *)memory + ((0 - (uintptr_t)memory) & 63);
}

/* ---- checked arithmetic ---------------------------------------------------------- */

/* For every product of numbers from a file. Returns 0 if it does not fit. */
static int grf_multiply_checked(uint64_t a, uint64_t b, uint64_t *product) {
    if (a != 0 && b > UINT64_MAX / a) return 0;
    *product = a * b;
    return 1;
}

/* ---- little-endian bytes on any machine ---------------------------------------- */

static uint16_t grf_get_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t grf_get_u32(const uint8_t *p) {
    return (uint32_t)grf_get_u16(p) | (uint32_t)grf_get_u16(p + 2) << 16;
}
static uint64_t grf_get_u64(const uint8_t *p) {
    return (uint64_t)grf_get_u32(p) | (uint64_t)grf_get_u32(p + 4) << 32;
}

static void grf_put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static void grf_put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Turns a number of 2, 4 or 8 bytes from a file into the machine's, in place, and back. */
static void grf_native_order(uint8_t *p, int size) {
    for (int i = 0; GRF_BIG_ENDIAN && i < size / 2; i++) {
        uint8_t byte = p[i];
        p[i] = p[size - 1 - i];
        p[size - 1 - i] = byte;
    }
}

static float    grf_float_from_bits(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
static uint32_t grf_bits_from_float(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }
static float    grf_get_f32(const uint8_t *p) { return grf_float_from_bits(grf_get_u32(p)); }

/* FNV-1a with 64 bits, which takes eight bytes at a time where it can. It serves tables and
 * checksums. It resists damage, not attackers. */
#define GRF_HASH_START 0xcbf29ce484222325u

/* Hashes whole groups of 8 bytes. For data in pieces: all but the last must divide by 8. */
static uint64_t grf_hash_start(uint64_t hash, const uint8_t *p, size_t size) {
    for (; size >= 8; p += 8, size -= 8) {
        hash = (hash ^ grf_get_u64(p)) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return hash;
}

static uint64_t grf_hash(uint64_t hash, const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data, *end = p + size;
    hash = grf_hash_start(hash, p, size);
    for (p += size / 8 * 8; p < end; p++) hash = (hash ^ *p) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

static uint64_t grf_hash_number(uint64_t hash, uint64_t number) {
    uint8_t bytes[8];
    grf_put_u64(bytes, number);
    return grf_hash(hash, bytes, sizeof bytes);
}

/* Is a text of this length the expected one, which ends with a zero byte? */
static int grf_text_is(const char *text, uint64_t length, const char *expected) {
    return strlen(expected) == length && memcmp(text, expected, (size_t)length) == 0;
}

/* ---- hash tables ----------------------------------------------------------------------
 * From a 32-bit hash to the index of an item, by open addressing: an item lies at its hash, or in
 * the first free place after it. A hostile file can make its items collide. It is refused if an
 * item would lie more than a thousand places from its hash, so no search has to go further. */

typedef struct grf_table_entry { uint32_t hash, index; } grf_table_entry;   /* index + 1; 0: free */
typedef struct grf_table { grf_table_entry *entries; uint32_t mask; } grf_table;

#define GRF_FARTHEST 1000

static int grf_table_make(grf_table *table, uint64_t count, const grf_host *host) {
    uint64_t size = 16;
    while (size < 2 * count) size *= 2;
    table->mask = (uint32_t)(size - 1);
    size *= sizeof(grf_table_entry);
    table->entries = (grf_table_entry *)grf_host_allocate(host, size);
    if (!table->entries) return grf_fail_memory(host, size);
    memset(table->entries, 0, (size_t)size);
    return GRIFFIN_OK;
}

static int grf_table_add(grf_table *table, uint32_t hash, int index, const grf_host *host) {
    uint32_t at = hash & table->mask;
    for (int steps = 0; table->entries[at].index; steps++) {
        if (steps == GRF_FARTHEST) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "names made to collide");
        }
        at = (at + 1) & table->mask;
    }
    table->entries[at].hash  = hash;
    table->entries[at].index = (uint32_t)index + 1;
    return GRIFFIN_OK;
}

/* The next item that was added with this hash; -1: there are no more. *steps starts as 0. */
GRF_INLINE int32_t grf_table_next(const grf_table *table, uint32_t hash, uint32_t *steps) {
    while (*steps <= GRF_FARTHEST) {
        const grf_table_entry *entry = &table->entries[(hash + (*steps)++) & table->mask];
        if (!entry->index) break;
        if (entry->hash == hash) return (int32_t)entry->index - 1;
    }
    return -1;
}

static uint32_t grf_text_hash(const char *text, uint64_t length) {
    return (uint32_t)grf_hash(GRF_HASH_START, text, (size_t)length);
}

/* A text of a file: no NUL ends it. */
typedef struct grf_name { const char *text; uint64_t length; } grf_name;

/* `records` have `size` bytes each, begin with a grf_name, and are in the table by it. Returns the
 * one of this name, or null. */
static const void *grf_table_find(const grf_table *table, const void *records, size_t size,
                                  const char *text, uint64_t length) {
    uint32_t hash = grf_text_hash(text, length), steps = 0;
    int32_t index;
    while ((index = grf_table_next(table, hash, &steps)) >= 0) {
        const void *record = (const char *)records + (size_t)index * size;
        const grf_name *name = (const grf_name *)record;
        if (name->length == length && memcmp(name->text, text, (size_t)length) == 0) return record;
    }
    return NULL;
}

/* Adds the record of this index, or returns GRF_TWICE if one with its name is there. */
enum { GRF_TWICE = 1 };

static int grf_table_add_name(grf_table *table, const void *records, size_t size, int index,
                              const grf_host *host) {
    const grf_name *name = (const grf_name *)((const char *)records + (size_t)index * size);
    if (grf_table_find(table, records, size, name->text, name->length)) return GRF_TWICE;
    return grf_table_add(table, grf_text_hash(name->text, name->length), index, host);
}

/* A number that is larger for a larger float. */
static uint32_t grf_float_key(float x) {
    uint32_t bits = grf_bits_from_float(x + 0.0f);  /* -0 becomes 0 */
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* ================================================================= >>numbers
 * Arithmetic with the same bits everywhere. A compiler may join a product and a sum into one fused
 * multiply-add, which rounds once instead of twice. So this rule holds for the whole file: a
 * product that is then added to something is written as an explicit fused multiply-add, or passes
 * through a volatile. No compiler setting can then change its rounding. */

/* GRF_FMAF is for functions that are compiled for machines with the instruction. GRF_HAS_FMA says
 * that all functions are. Without optimisation gcc calls fmaf of the C library instead, which
 * rounds twice in musl and on Windows. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__OPTIMIZE__)
  #define GRF_FMAF grf_fma
#else
  #define GRF_FMAF __builtin_fmaf
  #if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    #define GRF_HAS_FMA 1
  #endif
#endif

/* fma(a, b, c) in floats. Without the instruction, the product p of two floats is exact in a double
 * and only the sum p + c is rounded. If that sum is no double it is rounded to odd: of the two
 * doubles around it, the one whose last bit is 1 is taken. Rounding that to float gives the same
 * result as rounding the exact sum (Boldo and Melquiond 2008). */
static float grf_fma(float a, float b, float c) {
#ifdef GRF_HAS_FMA
    return GRF_FMAF(a, b, c);
#else
    double p = (double)a * b, s = p + c, t = s - p;
    double lost = (p - (s - t)) + (c - t);  /* p + c - s, exactly (Knuth's two-sum) */
    if (lost > 0 || lost < 0) {
        uint64_t bits;
        memcpy(&bits, &s, 8);
        if (!(bits & 1)) bits += ((lost > 0) == (s > 0)) ? 1 : (uint64_t)-1;
        memcpy(&s, &bits, 8);
    }
    return (float)s;
#endif
}

/* The functions below compute in double and are only used while a model is opened. exp and log of
 * libm differ between systems in the last bit, so these are our own. */
static double grf_mul(double a, double b) { volatile double p = a * b; return p; }

/* 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), |s| <= 1/3 */
static double grf_two_atanh(double s) {
    double square = grf_mul(s, s), sum = 0;
    for (int n = 37; n >= 1; n -= 2) sum = 1.0 / n + grf_mul(square, sum);
    return grf_mul(2 * s, sum);
}

#define GRF_LN2 0.69314718055994530942

/* ln x, x > 0 and normal: x = m 2^e with m in [2/3, 4/3), ln m = 2 atanh((m - 1) / (m + 1)). */
static double grf_log(double x) {
    int e;
    double m = frexp(x, &e);
    if (m < 2.0 / 3) { m *= 2; e--; }
    return grf_two_atanh((m - 1) / (m + 1)) + grf_mul(e, GRF_LN2);
}

/* e^x, |x| < 700: x = n ln 2 + r, then the Taylor series of e^r. */
static double grf_exp(double x) {
    int n = (int)(x / GRF_LN2 + (x < 0 ? -0.5 : 0.5));
    double r = x - grf_mul(n, GRF_LN2), sum = 1;
    for (int k = 16; k >= 1; k--) sum = 1 + grf_mul(r / k, sum);
    return ldexp(sum, n);
}

/* ln(1 + e^v) = max(v, 0) + ln(1 + u), u = e^-|v|, and ln(1 + u) = 2 atanh(u / (2 + u)). This keeps
 * its relative precision for very negative v. */
static double grf_softplus(double v) {
    double u = grf_exp(-(v < 0 ? -v : v < 700 ? v : 700));
    return (v > 0 ? v : 0) + grf_two_atanh(u / (2 + u));
}

/* ---- single numbers --------------------------------------------------------- */

/* Exact for every half. The payload of a NaN moves up. */
static float grf_float_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) {                    /* zero or subnormal: fraction * 2^-24 */
        float value = (float)fraction * 5.9604644775390625e-8f;
        return grf_float_from_bits(sign | grf_bits_from_float(value));
    }
    exponent = exponent == 31 ? 255 : exponent + 112;
    return grf_float_from_bits(sign | exponent << 23 | fraction << 13);
}

static float grf_float_from_bf16(uint16_t b) { return grf_float_from_bits((uint32_t)b << 16); }

/* Rounds to the nearest, and to the even one of two that are equally near. NaN stays NaN. */
static uint16_t grf_bf16_from_float(float x) {
    uint32_t bits = grf_bits_from_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- what becomes of arithmetic in this build, on this thread -------------------------
 * Computes what comes out otherwise if the compiler or the host has changed the rules of IEEE
 * floats. The inputs are volatile, so that it is done at run time. Fused multiply-adds need no
 * check: they change no result of the library (see above). Returns what is wrong, or null. */
static const char *grf_arithmetic_fault(void) {
    volatile float in[] = { 1, 16777216, 1.17549435e-38f, 5.96046448e-8f, 9 };
    float one = in[0], large = in[1], least = in[2], half_step = in[3], nine = in[4];
    volatile float flushed = least * 0.5f, grown;           /* the smallest normal number / 2 */
    volatile float up = one + half_step * 1.5f, even = one + half_step;
    if (up <= one || even > one) return "results are not rounded to nearest";
    if ((one + large) - large > 0) return "sums are reordered (-fassociative-math)";
    if (grf_bits_from_float(nine / 127) != 0x3d912245u)
        return "quotients are products (-freciprocal-math)";
    grown = flushed * 2;
    if (flushed <= 0 || grown < least) return "small numbers become zero (flush-to-zero is on)";
    return NULL;
}

/* ================================================================= >>network
 * The alphabet, the operations, the builder, the mixers.
 *
 * ---- the alphabet: what the rest of the file works on, in the paper's letters where it has them
 *
 *     V vocabulary   D width   F MLP width   N layers   E recurrent width   B gate blocks
 *     H query heads  G key/value heads  W window  K convolution taps  R rows (tokens in a pass)
 *
 * Rows of activations, and vectors of parameters, are padded with zeros to a multiple of
 * GRF_TILE floats, so no loop over a row has a tail. */

#define GRF_TILE  32                        /* output rows in a weight tile: two vectors of 16 */
#define GRF_GROUP 256                       /* int8 activations with a scale in common */
#define GRF_PANEL 96                        /* most activation rows of a call with one tile */
#define GRF_HEAD_BLOCK 8                    /* most heads in one item of attention ... */
#define GRF_ATTEND_ROWS 4                   /* ... and most rows */
#define GRF_CHUNK (512 * 1024)              /* what one thread takes at once, in bytes of weights */
#define GRF_REWIND 16                       /* griffin_options.rewind if not said otherwise */
#define GRF_WORTH_WAKING 16                 /* fewer chunks than this are not worth other threads */
#define GRF_MOST_THREADS 1024               /* OpenMP ends the process if it cannot make the threads
                                             * that it is asked for */

static int64_t grf_pad(int64_t n) { return (n + GRF_TILE - 1) / GRF_TILE * GRF_TILE; }

/* ---- tilings: how weights lie -----------------------------------------------------
 * A tile is 32 output rows of a matrix, so that each of two vectors of 16 owns its rows. It is a
 * sequence of blocks, ascending in k:
 *
 *     f32, f16, bf16   for each k: 32 weights
 *     q8_0             for each 32 k: 32 f16 scales, then for each 4 k: 32 rows x 4 bytes, stored
 *                      + 128 so that they are unsigned
 *     q4_0             for each 32 k: 32 f16 scales, then for j = 0, 4, 8, 12: 32 rows x 4 bytes;
 *                      byte i of a row has k = j + i in its low nibble and k = j + i + 16 in its
 *                      high nibble, stored + 8
 *     q6_0             for each 32 k: 32 f16 scales, then for h = 0, 8: 32 rows x 4 bytes of upper
 *                      bits, and then twice, for j = h and j = h + 4, what q4_0 has for j. Weights
 *                      of 6 bits are stored + 32. Byte i of the upper bits has, from its bit 4 on,
 *                      those of k = h + i, in bits 6 and 7 k = h + i + 16, in bits 0 and 1
 *                      k = h + i + 4, and in bits 2 and 3 k = h + i + 20
 *
 * A tile whose matrix has fewer rows is filled up with zeros. Elements are in the machine's byte
 * order; in files they are little-endian. A new tiling is a row of grf_tilings, one function for
 * the embedding, and the kernels. */

typedef enum grf_type { GRF_F32, GRF_F16, GRF_BF16, GRF_Q8_0, GRF_Q4_0, GRF_Q6_0,
                       GRF_TILINGS } grf_type;

typedef struct grf_tiling {
    const char *name;
    int         columns, bytes;             /* of a block of 32 rows */
    int         added;                      /* to each weight when it is stored */
    int         quantised;                  /* 1: meets grf_q8; 0: meets floats */
    float     (*weight)(const uint8_t *block, int row, int column);
} grf_tiling;

static float grf_weight_f32(const uint8_t *block, int row, int column) {
    float weight;
    (void)column;
    memcpy(&weight, block + 4 * row, 4);
    return weight;
}

static uint16_t grf_half_at(const uint8_t *block, int row) {
    uint16_t half;
    memcpy(&half, block + 2 * row, 2);
    return half;
}

static float grf_weight_f16(const uint8_t *block, int row, int column) {
    (void)column;
    return grf_float_from_f16(grf_half_at(block, row));
}

static float grf_weight_bf16(const uint8_t *block, int row, int column) {
    (void)column;
    return grf_float_from_bf16(grf_half_at(block, row));
}

/* A product of a half (11 bits) and a code (8 bits) is exact in a float. */
static float grf_weight_q8_0(const uint8_t *block, int row, int column) {
    int code = block[2 * GRF_TILE + column / 4 * (4 * GRF_TILE) + row * 4 + column % 4];
    return grf_float_from_f16(grf_half_at(block, row)) * (float)(code - 128);
}

static float grf_weight_q4_0(const uint8_t *block, int row, int column) {
    int pair = block[2 * GRF_TILE + column % 16 / 4 * (4 * GRF_TILE) + row * 4 + column % 4];
    return grf_float_from_f16(grf_half_at(block, row))
           * (float)((column < 16 ? pair & 15 : pair >> 4) - 8);
}

static float grf_weight_q6_0(const uint8_t *block, int row, int column) {
    static const uint8_t shift[] = { 4, 0, 6, 2 };          /* of columns 0, 4, 16, 20 and on */
    const uint8_t *half = block + 2 * GRF_TILE + column % 16 / 8 * (12 * GRF_TILE) + row * 4;
    int second = column % 8 / 4, upper = half[column % 4] >> shift[column / 16 * 2 + second] & 3;
    int pair = half[(1 + second) * (4 * GRF_TILE) + column % 4];
    return grf_float_from_f16(grf_half_at(block, row))
           * (float)((column < 16 ? pair & 15 : pair >> 4) + upper * 16 - 32);
}

static const grf_tiling grf_tilings[GRF_TILINGS] = {            /* index: grf_type */
    { "f32",   1,  128,   0, 0, grf_weight_f32 },
    { "f16",   1,   64,   0, 0, grf_weight_f16 },
    { "bf16",  1,   64,   0, 0, grf_weight_bf16 },
    { "q8_0", 32, 1088, 128, 1, grf_weight_q8_0 },
    { "q4_0", 32,  576,   8, 1, grf_weight_q4_0 },
    { "q6_0", 32,  832,  32, 1, grf_weight_q6_0 }
};

/* Of a tile with so many columns, a multiple of the tiling's. */
static uint64_t grf_tile_bytes(int type, uint64_t cols) {
    return cols / (uint64_t)grf_tilings[type].columns * (uint64_t)grf_tilings[type].bytes;
}

/* A linear layer y = W x + b, W [rows, cols]. A block-diagonal matrix is `blocks` matrices of
 * rows/blocks x cols, block b reading x[b * cols ...]; its tiles do not cross blocks. */
typedef struct grf_linear {
    int         type;                       /* grf_type */
    int         rows, cols, blocks;
    int         tiles;                      /* of all blocks */
    uint64_t    tile_bytes;
    const uint8_t *tile;                    /* [tiles][tile_bytes] */
    const float *bias;                      /* [pad(rows)] or null */
    const struct grf_fetch *fetch;          /* of the kernels: see >>vectors */
} grf_linear;

static int grf_is_quantised(const grf_linear *w) { return w && grf_tilings[w->type].quantised; }

/* One group of a row of activations, in int8, for quantised weights. A row of `cols` columns has
 * ceil(cols / GRF_GROUP) groups; the last one may be shorter, by a multiple of 32. The groups of
 * all rows of a pass lie as [group][row]: the groups that meet the same weights are neighbours.
 *
 * Tilings store quantised weights with a number added: 128 in q8_0, 8 in q4_0, 32 in q6_0. A sum of
 * products with stored weights is too large by that number times the sum of q. start8 and start4
 * cancel it: they are -128 and -8 times the sum of q over each block of 32 columns. */
typedef struct grf_q8 {
    int8_t  q[GRF_GROUP];                   /* -127 .. 127 */
    int32_t start8[GRF_GROUP / 32], start4[GRF_GROUP / 32];
    float   scale;                          /* value = scale * q */
    int32_t unused[7];                      /* so that no block of q lies across cache lines */
} grf_q8;

/* Keys and values of `count` consecutive positions. Row i of the keys is at k + i * stride, and row
 * i of the values at v + i * stride, with the stride of grf_attention. */
typedef struct grf_kv_run { const uint8_t *k, *v; int count; } grf_kv_run;

/* One query head of one row. It sees the keys [first, end), counted over the three runs. The caller
 * owns all memory. */
typedef struct grf_query {
    float  *q;                              /* [head_stride] rotated and scaled; overwritten */
    float  *score;                          /* [all keys, and 16 more] scratch */
    float  *out;                            /* [head_dim] the result */
    int64_t first, end;
    float  *sum;                            /* [head_stride] used by the kernel, = q */
    float   inverse;                        /* used by the kernel: 1 / sum of p, see >>kernels */
} grf_query;

/* Queries that share their keys: consecutive rows of one text, heads of one group. */
typedef struct grf_attention {
    grf_query    query[GRF_ATTEND_ROWS * GRF_HEAD_BLOCK];
    grf_kv_run   run[3];                    /* ascending positions; any of them may be empty */
    int          queries, head_dim;
    int          head_stride;               /* head_dim, padded to a multiple of 16 with zeros */
    int          type;                      /* of keys and values: GRF_F32 or GRF_BF16 */
    int64_t      stride;                    /* bytes from one key or value to the next */
} grf_attention;

/* Consecutive rows of one text, and of one head the state S of 32 value columns. The caller owns
 * all memory. Row t of q, k and f begins at q + t * q_stride, and so on. */
typedef struct grf_outer {
    float       *state;                     /* S [keys][32], in and out */
    const float *q, *k, *f;                 /* [keys] */
    int64_t      q_stride, k_stride, f_stride;
    const float *v;                         /* [rows][32] */
    float       *o;                         /* [rows][32], 0 before; the result */
    int          keys, rows;
} grf_outer;

/* The kernels of one instruction set. All sets give the same bits. The caller owns all memory, and
 * no address needs to be aligned for vectors. n is a number of floats: a multiple of 16 where a
 * comment says nothing else. y may be the same as x. >>kernels has the equations. */
typedef struct grf_kernels {
    const char *name;
    const struct grf_fetch *fetch;          /* how far ahead they prefetch: see >>vectors */
    /* out[rows][32] = products of the rows of x with one tile of W, without bias. Row m of x begins
     * at x + m * stride. rows <= GRF_PANEL */
    void (*float_tile)(float *out, const grf_linear *w, const uint8_t *tile, const float *x,
                       int64_t stride, int rows);
    /* The same for quantised weights. Group g of row m is x[g * stride + m]. */
    void (*int_tile)(float *out, const grf_linear *w, const uint8_t *tile, const grf_q8 *x,
                     int64_t stride, int rows);
    /* One row: group g goes to y[g * stride]. n % 32 == 0 */
    void (*quantise)(grf_q8 *y, int64_t stride, const float *x, int64_t n);
    /* One row of n floats, the first `width` of which count for the mean; the rest are 0. */
    void (*norm)(float *y, const float *x, const float *gain, int64_t n, int width, float eps);
    /* The same with the mean subtracted. No more than `width` floats are read or written, any
     * number. gain may be null */
    void (*layer_norm)(float *y, const float *x, const float *gain, int width, float eps);
    /* One row: z[k] is its input at one of `taps` positions, the oldest first, and w + k * w_stride
     * are the weights of that tap. */
    void (*conv)(float *y, const float *const *z, const float *w, int64_t w_stride, const float *b,
                 int taps, int64_t n);
    /* One row: h is the state, in and out; y *= h. fresh: the text begins here, h is not read. */
    void (*rglru)(float *h, float *y, const float *i, const float *r, const float *c,
                  const float *log_decay, int fresh, int64_t n);
    /* n angles: turns[j] is what a position adds to angle j, in 2^-64 of a full turn. Any n. */
    void (*rope_angles)(float *cosine, float *sine, const uint64_t *turns, int64_t position, int n);
    /* One head of head_dim floats, of which 2 * half are rotated. Any sizes; to may be from. */
    void (*rope)(float *to, const float *from, const float *cosine, const float *sine, float scale,
                 int half, int head_dim);
    void (*attend)(grf_attention *a);
    /* One row of HGRN2's gates: q and f are zq and zf before, k is only written. */
    void (*gates)(float *q, float *f, float *k, const float *lower, const float *range, float scale,
                  int64_t n);
    void (*outer)(const grf_outer *a);
    void (*activate)(float *y, griffin_activation activation, int64_t n);
    void (*multiply)(float *y, const float *x, int64_t n);                       /* y *= x */
    /* Moves the result of a tile: to[m * stride + j] = out[m][j] + b[j], or plus what was there if
     * `add` is 1. b may be null. Any n <= 32 */
    void (*finish)(float *to, int64_t stride, const float *out, const float *b, int add, int rows,
                   int n);
    void (*soft_cap)(float *y, float cap, int64_t n);              /* y = cap tanh(y / cap) */
    /* y = e^(x - shift). Any n */
    void (*exp_shifted)(float *y, const float *x, float shift, int n);
} grf_kernels;

static const grf_kernels *grf_kernels_find(griffin_cpu cpu);   /* null: not on this machine */

/* ---- the program ---------------------------------------------------------------
 * When a model is opened its layers become a flat list of operations over named buffers. An
 * operation is a number of like items (weight tiles, rows, channels) that may be done in any order,
 * and a chunk is a run of items. `griffin info --program` prints the list. */

typedef enum grf_buffer {                   /* rows of the pass, [R][pad(width)] each */
    GRF_NONE,                               /* ends a list of buffers */
    GRF_X,                                  /* D  the residual stream */
    GRF_U,                                  /* D  normalised */
    GRF_Y,                                  /* E  gate branch of the recurrent block, then h * y */
    GRF_Z,                                  /* E  input of the convolution */
    GRF_C,                                  /* E  its output */
    GRF_I, GRF_R,                           /* E  input and recurrence gate before the sigmoid */
    GRF_Q, GRF_K, GRF_V,                    /* H, G, G heads of head_dim, from the projections */
    GRF_F,                                  /* H heads of head_dim: HGRN2's forget gate */
    GRF_QR,                                 /* H heads of head_stride: Q, rotated and scaled */
    GRF_T,                                  /* rope_dims  cosines, then sines, of a row's angles */
    GRF_A,                                  /* H heads of head_dim: what they read of the text */
    GRF_M,                                  /* F  MLP inner row */
    GRF_INT8,                               /* a row in int8, for int8 and int4 weights: grf_q8 */
    GRF_LOGITS,                             /* V  in memory of the caller */
    GRF_BUFFERS
} grf_buffer;

static const char *const grf_buffer_names[GRF_BUFFERS] = {
    "", "X", "U", "Y", "Z", "C", "I", "R", "Q", "K", "V", "F", "QR", "T", "A", "M", "int8", "logits"
};

typedef enum grf_op_kind {                  /* a row of grf_op_types each (>>run) */
    GRF_OP_EMBED, GRF_OP_ANGLES, GRF_OP_NORM, GRF_OP_QUANTISE, GRF_OP_LINEAR, GRF_OP_GATED,
    GRF_OP_CONV, GRF_OP_RGLRU, GRF_OP_ROPE, GRF_OP_KEEP, GRF_OP_ATTEND, GRF_OP_GATES, GRF_OP_OUTER,
    GRF_OP_KINDS
} grf_op_kind;

/* What becomes of a product W x + b. */
typedef enum grf_epilogue {
    GRF_STORE,                              /* it is the result */
    GRF_ADD,                                /* it is added to what is in the buffer */
    GRF_ACTIVATE,                           /* act(it) */
    GRF_MULTIPLY,                           /* the buffer is multiplied by it: gated MLP only */
    GRF_CAP                                 /* soft_cap tanh(it / soft_cap) */
} grf_epilogue;

static const char *const grf_epilogue_names[] = { "store", "add", "activate", "multiply", "cap" };

typedef struct grf_output {
    grf_buffer         buffer;
    const grf_linear  *w;                   /* null: not by a linear layer */
    const char        *name;                /* of its tensor, without layer and ".weight" */
    grf_epilogue       epilogue;
    griffin_activation activation;          /* of GRF_ACTIVATE */
} grf_output;

/* Part of a state, in bytes. `at` counts from the start of the recurrent part, or, if is_ring is 1,
 * from the first ring. */
typedef struct grf_memory { int64_t at, bytes; int is_ring; } grf_memory;

typedef struct grf_op {
    grf_op_kind  kind;
    int          layer;                     /* -1: outside the layers */
    grf_buffer   in[5];                     /* all that it reads, up to GRF_NONE, */
    grf_output   out[3];                    /* all that it writes, and by which matrices, */
    int          outputs;
    grf_memory   state;                     /* and what it reads and writes of a state */
    int          wanted_rows_only;          /* 1: its row i is the i-th whose logits are wanted */
    int          width;                     /* numbers in a row that it works on, without padding */
    const float *vector[2];                 /* norm: gain, bias, or null; conv: taps [K][pad(E)],
                                             * bias; rglru: -decay softplus(recurrent parameter);
                                             * gates: lower bound, range; outer: decay, or null */
    float        eps, scale, soft_cap;      /* norm; embed, rope and gates; linear */
    int          heads, head_stride;        /* rope: how many, and from one to the next in out[0];
                                             * norm: each by itself; outer: how many */
    int          heads_in, v_heads;         /* rope: of in[0]; outer: of K, of V. They serve several
                                             * heads each if there are fewer */
    int          mean;                      /* norm: 1: subtracts the mean first */
} grf_op;

/* ---- a state: struct griffin_state, then floats -----------------------------------
 *     recurrent part   in the order of the layers, what their builders remember:
 *                      recurrent   h [pad(E)], then K - 1 rows z [pad(E)], oldest first
 *                      hgrn2       S, and with short convolutions K - 1 rows of zq, zf and v
 *                      supra       S
 *     rings            for each attention layer { keys [slots][kv_row], values [slots][kv_row] }
 *     past             [rewind] history at earlier positions, 64 bits each
 * S [H][tiles][head_dim][32] is a matrix for each head. It is cut into tiles of 32 value columns,
 * the last one filled up with zeros.
 *
 * Position p lives in slot p % slots of a ring, and p % rewind of the past. kv_row = G heads of
 * head_dim padded to 16, floats or bf16. The next token sees attn_keys - 1 stored keys; a ring has
 * `rewind` slots more, so that a state rewound by as many tokens still finds all that it saw. */

struct griffin_state {
    uint64_t tag;                           /* of model and layout; 0: fresh */
    int64_t  position;                      /* tokens consumed */
    uint64_t history;                       /* hash of them */
    int64_t  oldest;                        /* position that it can still be rewound to */
    uint64_t reserved[4];
};

typedef struct grf_layout {
    int     slots, rewind;                  /* of a ring; of them more than attention needs */
    int     head_stride;                    /* head_dim padded to 16 */
    int     heads_per_kv;                   /* H / G, handled in */
    int     head_blocks, head_block;        /* so many blocks of so many heads */
    int     kv_type, kv_size;               /* GRF_F32 or GRF_BF16; bytes of one */
    int64_t kv_row, ring_bytes;             /* of one row of keys or values; of one layer */

    /* counted by the builder */
    int     attention_layers;
    int64_t recurrent_floats;               /* of all layers */
    int     columns[GRF_BUFFERS];           /* numbers in a row of each buffer; 0: not used */
    int64_t width[GRF_BUFFERS];             /* the same, padded */
    int64_t q8_row;                         /* grf_q8 of a quantised row, 0 if none needed */
    uint64_t past;                          /* where it starts in a state */

    uint64_t tag, saved_tag;                /* of states in memory; of saved ones: any rewind */
} grf_layout;

typedef struct grf_gguf   grf_gguf;         /* >>gguf: the directory of a file, */
typedef struct grf_tensor grf_tensor;       /* and an entry of it */
typedef struct grf_vocab  grf_vocab;        /* >>vocabulary */

struct griffin_model {
    grf_host           host;
    griffin_info       info;
    const grf_kernels *kernels;
    grf_layout         layout;
    grf_gguf          *file;
    void              *mapped;              /* file bytes to give back at close, or null */
    uint64_t           mapped_size;
    void              *weights;             /* the arena's block */
    char              *name, *chat_template;
    const uint64_t    *turns;               /* [rope_dims / 2] turns per position, in 2^-64 */
    const grf_op      *ops;
    int                n_ops;
    grf_vocab         *vocab;
};

/* ---- the builder ---------------------------------------------------------------
 * The model itself. Read this beside figure 2 of the Griffin paper (arXiv 2402.19427): one builder
 * for each box of the figure, each adding operations to the program. Per token, p its position:
 *
 *     x = s E[token]                                            embedding, s = embedding_scale
 *     for each layer:
 *         x += mixer(norm(x))                                   recurrent or attention block
 *         x += Wd (act(Wg v + bg) * (Wu v + bu)) + bd           v = norm(x), gated MLP
 *     logits = cap tanh(E norm(x) / cap)                        cap = soft_cap; 0: E norm(x)
 *
 * The builder runs twice. The first time it measures: it checks every tensor and counts memory, and
 * no operation is kept. The second time the same calls write. Names of tensors stand without
 * "layers.N." and ".weight". */

typedef struct grf_builder {
    griffin_model *model;
    const griffin_config *config;
    grf_arena  arena;
    int        layer;                       /* the current one; -1: none */
    int        wanted_rows_only;            /* what is added now follows the last layer */
    unsigned char *used;                    /* [tensors] named by the network */
    int        copy;                        /* griffin_options.copy_weights */
    uint64_t   parameters;                  /* of everything, */
    uint64_t   weights_of[GRF_TILINGS];     /* and in matrices of each type */
    const grf_linear *embedding;
    grf_op    *ops;
    int        n_ops;                       /* measuring: no more than so many are needed */
    grf_op     dropped;                     /* receives every operation while measuring */
    int        error;                       /* the first one; later steps do nothing */
} grf_builder;

/* 1: nothing is written. Either the builder measures, or an error has stopped it. The loaders
 * return null then, and only then. */
static int grf_measuring(const grf_builder *b) { return !b->arena.base || b->error; }

/* Defined where files are opened (>>model): the weights of a file, by name. */
static const grf_tensor *grf_gguf_tensor(const grf_gguf *g, const char *name);
static const grf_tensor *grf_tensor_lookup(const grf_builder *b, const char *name);
static const grf_tensor *grf_tensor_lookup_tiles(const grf_builder *b, const char *name);
static float *grf_load_vector(grf_builder *b, const char *name, int d0, int d1, int d2);
static float *grf_load_between(grf_builder *b, const char *name, int n, float least, float most,
                               const char *expected);
static float *grf_load_shares(grf_builder *b, const char *name, int n);
static float *grf_load_decay(grf_builder *b, const char *name, int heads, int head_dim);
static float *grf_load_zeros(grf_builder *b, int n);
static float *grf_load_taps(grf_builder *b, const char *name, int d0, int d1);
static const grf_linear *grf_load_matrix(grf_builder *b, const char *name, int rows, int cols,
                                         int has_bias);
static const grf_linear *grf_load_gates(grf_builder *b, const char *weight, const char *bias);

/* ---- memory in a state: given to operations as weights are, in the order of the layers ---- */

/* So many rows of floats in the recurrent part, each padded. A fresh state has zeros there. */
static grf_memory grf_remember(grf_builder *b, int64_t rows, int width) {
    grf_layout *l = &b->model->layout;
    grf_memory memory = { l->recurrent_floats * 4, rows * grf_pad(width) * 4, 0 };
    l->recurrent_floats += rows * grf_pad(width);
    return memory;
}

/* A ring of keys and values; all rings are alike. */
static grf_memory grf_remember_kv(grf_builder *b) {
    grf_layout *l = &b->model->layout;
    grf_memory memory = { l->attention_layers++ * l->ring_bytes, l->ring_bytes, 1 };
    return memory;
}

/* ---- adding operations ----
 * A box loads its weights, adds its operations in the order in which they run, and names what each
 * of them reads and writes. */

/* Rows of the buffer have at least so many numbers. */
static void grf_widen(grf_builder *b, grf_buffer buffer, int columns) {
    grf_layout *l = &b->model->layout;
    if (columns > l->columns[buffer]) l->columns[buffer] = columns;
    l->width[buffer] = grf_pad(l->columns[buffer]);
}

/* An operation on rows of `width` numbers: from `in` to `out`. */
static grf_op *grf_add(grf_builder *b, grf_op_kind kind, grf_buffer in, grf_buffer out, int width) {
    grf_op *op = grf_measuring(b) ? &b->dropped : b->ops + b->n_ops;
    b->n_ops++;
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->layer = b->layer;
    op->in[0] = in;
    op->out[0].buffer = out;
    op->outputs = out != GRF_NONE;
    op->width = width;
    op->wanted_rows_only = b->wanted_rows_only;
    grf_widen(b, out, width);
    return op;
}

static grf_output grf_output_of(const grf_builder *b, grf_buffer to, grf_epilogue epilogue,
                                const char *name, const grf_linear *w) {
    grf_output output;
    output.buffer = to;
    output.epilogue = epilogue;
    output.activation = b->config->activation;
    output.name = name;
    output.w = w;
    return output;
}

/* to = W x + b with W [rows, cols] and, if has_bias, b [rows] */
static grf_output grf_dense(grf_builder *b, grf_buffer to, grf_epilogue epilogue, const char *name,
                            int rows, int cols, int has_bias) {
    return grf_output_of(b, to, epilogue, name, grf_load_matrix(b, name, rows, cols, has_bias));
}

/* The rows of a buffer in int8. The next operation reads them. */
static void grf_add_quantise(grf_builder *b, grf_buffer from, int width) {
    grf_layout *l = &b->model->layout;
    grf_add(b, GRF_OP_QUANTISE, from, GRF_INT8, width);
    l->q8_row = grf_max64(l->q8_row, (width + GRF_GROUP - 1) / GRF_GROUP);
}

/* Linear layers over the same rows. Those with int8 or int4 weights read them in int8. While
 * measuring, the types of weights are not known, and both forms are counted. */
static grf_op *grf_add_linear(grf_builder *b, grf_op_kind kind, grf_buffer from, int cols,
                              const grf_output *outputs, int count) {
    int floats = 0, bytes = grf_measuring(b);
    for (int i = 0; i < count && !grf_measuring(b); i++) {
        const grf_linear *w = outputs[i].w;
        if (grf_is_quantised(w)) bytes = 1; else floats = 1;
        grf_widen(b, outputs[i].buffer, w->rows);
    }
    if (bytes) grf_add_quantise(b, from, cols);
    grf_op *op = grf_add(b, kind, GRF_NONE, GRF_NONE, cols);
    memcpy(op->out, outputs, (size_t)count * sizeof *outputs);
    op->outputs = count;
    int inputs = 0;
    if (floats) op->in[inputs++] = from;
    if (bytes)  op->in[inputs++] = GRF_INT8;
    return op;
}

/* X += W from + b, W [rows, cols] */
static void grf_add_residual(grf_builder *b, grf_buffer from, const char *name, int rows,
                             int cols) {
    grf_output out = grf_dense(b, GRF_X, GRF_ADD, name, rows, cols, !b->config->no_biases);
    grf_add_linear(b, GRF_OP_LINEAR, from, cols, &out, 1);
}

/* ---- the boxes of the figure ---- */

/* X = s E[token] */
static void grf_embedding(grf_builder *b) {
    grf_op *op = grf_add(b, GRF_OP_EMBED, GRF_NONE, GRF_X, b->config->width);
    op->out[0] = grf_dense(b, GRF_X, GRF_STORE, "embed_tokens", b->config->vocab, b->config->width,
                           0);
    op->scale = b->config->embedding_scale;
    b->embedding = op->out[0].w;
}

/* Null if the file has no such vector. */
static float *grf_load_optional(grf_builder *b, const char *name, int width) {
    return grf_tensor_lookup(b, name) ? grf_load_vector(b, name, width, 0, 0) : NULL;
}

/* to_j = x_j / sqrt(mean(x^2) + eps) * (norm_offset + w_j), and plus b_j if the file has a bias. If
 * the model has LayerNorm, its mean is first subtracted from x = from. */
static grf_op *grf_norm(grf_builder *b, const char *weight, const char *bias, grf_buffer from,
                        grf_buffer to, int width) {
    float *gain = grf_load_vector(b, weight, width, 0, 0);
    grf_op *op = grf_add(b, GRF_OP_NORM, from, to, width);
    for (int j = 0; j < width && !grf_measuring(b); j++) gain[j] += b->config->norm_offset;
    op->vector[0] = gain;
    op->vector[1] = grf_load_optional(b, bias, width);
    op->heads = 1;
    op->mean = b->config->layer_norm;
    op->eps = b->config->eps;
    return op;
}

/* The recurrent block:
 *
 *     Y   = act(Wy U + by)           Z = Wx U + bx
 *     C_t = conv_b + sum_k conv_w[k] Z_{t - K + 1 + k}                      per channel
 *     I   = Wi C + bi                R = Wr C + br                          block-diagonal
 *     log a = -decay softplus(parameter) sigmoid(R)                   decay is the paper's c = 8
 *     h_t = a h_{t-1} + sqrt(1 - a^2) (sigmoid(I) C_t)      at p = 0: h = sigmoid(I) C
 *     Y   = h Y
 *     X  += Wo Y + bo
 *
 * As in the reference, the first token of a text is taken without the root. */
static void grf_recurrent_block(grf_builder *b) {
    int D = b->config->width, E = b->config->lru_width, K = b->config->conv_width;
    int bias = !b->config->no_biases;
    grf_memory h = grf_remember(b, 1, E), past = grf_remember(b, K - 1, E);
    grf_output out[2];

    out[0] = grf_dense(b, GRF_Y, GRF_ACTIVATE, "temporal_block.linear_y", E, D, bias);
    out[1] = grf_dense(b, GRF_Z, GRF_STORE,    "temporal_block.linear_x", E, D, bias);
    grf_add_linear(b, GRF_OP_LINEAR, GRF_U, D, out, 2);

    grf_op *op = grf_add(b, GRF_OP_CONV, GRF_Z, GRF_C, E);
    op->vector[0] = grf_load_taps(b, "temporal_block.conv_1d.weight", E, 1);
    op->vector[1] = grf_load_vector(b, "temporal_block.conv_1d.bias", E, 0, 0);
    op->state = past;

    out[0] = grf_output_of(b, GRF_I, GRF_STORE, "temporal_block.rg_lru.input_gate",
                           grf_load_gates(b, "temporal_block.rg_lru.input_gate_weight",
                                          "temporal_block.rg_lru.input_gate_bias"));
    out[1] = grf_output_of(b, GRF_R, GRF_STORE, "temporal_block.rg_lru.recurrent_gate",
                           grf_load_gates(b, "temporal_block.rg_lru.recurrent_gate_weight",
                                          "temporal_block.rg_lru.recurrent_gate_bias"));
    grf_add_linear(b, GRF_OP_LINEAR, GRF_C, E, out, 2);

    float *log_decay = grf_load_vector(b, "temporal_block.rg_lru.recurrent_param", E, 0, 0);
    for (int e = 0; e < E && !grf_measuring(b); e++)
        log_decay[e] = (float)grf_mul(-(double)b->config->decay, grf_softplus(log_decay[e]));
    op = grf_add(b, GRF_OP_RGLRU, GRF_C, GRF_Y, E);
    op->in[1] = GRF_I; op->in[2] = GRF_R; op->in[3] = GRF_Y;
    op->vector[0] = log_decay;
    op->state = h;

    grf_add_residual(b, GRF_Y, "temporal_block.linear_out", D, E);
}

/* Returns null if the file has none. The tensor's name has no layer. */
static const float *grf_load_rope_factors(grf_builder *b, int half) {
    static const char name[] = "rope_factors.weight";
    int layer = b->layer;
    b->layer = -1;
    const float *factors = grf_tensor_lookup(b, name)
                         ? grf_load_between(b, name, half, 1, 1e9f, "1 to 10^9") : NULL;
    b->layer = layer;
    return factors;
}

/* T = cosines and sines of the angles of position p. A rotary embedding turns pair i of the
 * dimensions of a head by p base^(-2i / rope_dims) / factor_i radians, so that the product of two
 * heads depends on the distance of their tokens. The factors are 1 unless the file has others: a
 * model that was trained for longer texts, as Llama 3.1 was, turns some pairs more slowly. The
 * angle of one token is kept as a fraction of a turn in 2^-64: p times it, modulo one turn, is
 * exact at any position. All layers that rotate share the angles, which the first of them adds to
 * the program. */
static void grf_angles(grf_builder *b) {
    int half = b->config->rope_dims / 2;
    if (half == 0 || b->model->layout.columns[GRF_T]) return;
    const float *factor = grf_load_rope_factors(b, half);
    uint64_t *turns = (uint64_t *)grf_arena_take(&b->arena, 8 * (uint64_t)half);
    for (int i = 0; i < half && !grf_measuring(b); i++) {
        double turn = -2.0 * i / b->config->rope_dims;
        double power = grf_mul(turn, grf_log((double)b->config->rope_base));
        double radians = factor ? grf_exp(power) / (double)factor[i] : grf_exp(power);
        turns[i] = (uint64_t)grf_mul(radians, 18446744073709551616.0 / 6.283185307179586477);
    }
    b->model->turns = turns;
    grf_add(b, GRF_OP_ANGLES, GRF_NONE, GRF_T, 2 * half);
}

/* to = scale rotate(from): of each head the first rope_dims are rotated. Heads lie head_dim apart
 * in `from` and `stride` apart in `to`. */
static grf_op *grf_add_rope(grf_builder *b, grf_buffer from, grf_buffer to, int heads, int stride,
                            float scale) {
    grf_op *op = grf_add(b, GRF_OP_ROPE, from, to, heads * stride);
    op->in[1] = b->config->rope_dims ? GRF_T : GRF_NONE;
    op->heads = heads;
    op->heads_in = heads;
    op->head_stride = stride;
    op->scale = scale;
    return op;
}

/* Local attention, H heads of head_dim for queries, G for keys and values:
 *
 *     Q = Wq U,  K = Wk U,  V = Wv U               with biases if qkv_bias
 *     QR = rotate(Q) / sqrt(head_dim)    K = rotate(K)       by the angles T of p
 *     keep K and V
 *     A = softmax(QR K) V                          over the keys p - W .. p
 *     X += Wo A + bo */
static void grf_attention_block(grf_builder *b) {
    int D = b->config->width, hd = b->config->head_dim, bias = b->config->qkv_bias;
    int H = b->config->heads, G = b->config->kv_heads;
    grf_memory ring = grf_remember_kv(b);
    grf_output qkv[3];

    qkv[0] = grf_dense(b, GRF_Q, GRF_STORE, "temporal_block.q_proj", H * hd, D, bias);
    qkv[1] = grf_dense(b, GRF_K, GRF_STORE, "temporal_block.k_proj", G * hd, D, bias);
    qkv[2] = grf_dense(b, GRF_V, GRF_STORE, "temporal_block.v_proj", G * hd, D, bias);
    grf_angles(b);
    grf_add_linear(b, GRF_OP_LINEAR, GRF_U, D, qkv, 3);

    grf_add_rope(b, GRF_Q, GRF_QR, H, b->model->layout.head_stride, 1 / sqrtf((float)hd));
    grf_add_rope(b, GRF_K, GRF_K, G, hd, 1);

    grf_op *op = grf_add(b, GRF_OP_KEEP, GRF_K, GRF_NONE, G * hd);
    op->in[1] = GRF_V;
    op->state = ring;
    op = grf_add(b, GRF_OP_ATTEND, GRF_QR, GRF_A, H * hd);
    op->state = ring;

    grf_add_residual(b, GRF_A, "temporal_block.o_proj", D, H * hd);
}

/* ---- mixers whose state is a matrix ----
 * Each head has a matrix S [K, V] with K = V = head_dim. Every token decays it, writes, then reads:
 *
 *     S = diag(f) S + k v'       A = S' q
 *
 * In this order: S[d][e] = fma(f[d], S[d][e], k[d] v[e]), and for d = 0 .. K - 1, from 0 on,
 * A[e] = fma(q[d], S[d][e], A[e]). So S[d][e] is a chain over the tokens and A[e] a chain over d.
 * All loops that keep both chains give the same bits. The formula for chunks of tokens, which has
 * products of decays in the place of S, does not keep them. */

static grf_op *grf_add_outer(grf_builder *b, grf_memory state, int k_heads, int v_heads) {
    grf_op *op = grf_add(b, GRF_OP_OUTER, GRF_Q, GRF_A, b->config->heads * b->config->head_dim);
    op->in[1] = GRF_K; op->in[2] = GRF_V;
    op->heads = b->config->heads;
    op->heads_in = k_heads;
    op->v_heads = v_heads;
    op->state = state;
    return op;
}

static grf_memory grf_remember_outer(grf_builder *b) {
    int64_t hd = b->config->head_dim;
    return grf_remember(b, b->config->heads * (grf_pad(hd) / GRF_TILE) * hd, GRF_TILE);
}

static float grf_mixer_eps(const grf_builder *b) {
    return b->config->mixer_eps > 0 ? b->config->mixer_eps : 1e-5f;
}

/* 1 / sqrt(head_dim), rounded once. */
static float grf_head_scale(const grf_builder *b) {
    return (float)grf_exp(grf_mul(-0.5, grf_log(b->config->head_dim)));
}

/* to_t = b + sum_k w[k] Z_{t - K + 1 + k}, Z = W U: a projection with a short convolution. */
static void grf_add_short_conv(grf_builder *b, grf_buffer to, const char *matrix,
                               const char *taps, const char *bias) {
    int D = b->config->width, n = b->config->heads * b->config->head_dim;
    grf_output out = grf_dense(b, GRF_Z, GRF_STORE, matrix, n, D, 0);
    grf_add_linear(b, GRF_OP_LINEAR, GRF_U, D, &out, 1);
    grf_op *op = grf_add(b, GRF_OP_CONV, GRF_Z, to, n);
    op->vector[0] = grf_load_taps(b, taps, n, 0);
    op->vector[1] = grf_load_optional(b, bias, n);
    if (!op->vector[1]) op->vector[1] = grf_load_zeros(b, n);
    if (!b->error) op->state = grf_remember(b, b->config->conv_width - 1, n);
}

/* HGRN2 (arXiv 2404.07904):
 *
 *     zq = Wq U,  zf = Wf U,  V = Wv U             each with a short convolution if it has taps
 *     Q = silu(zq) / sqrt(head_dim)
 *     F = lower + range sigmoid(zf)                range = 1 - lower; in layer 0, lower = 0
 *     K = range sigmoid(-zf)                       = 1 - F, without losing digits
 *     S = diag(F) S + K V',  A = S' Q              per head
 *     X += Wo (A / sqrt(mean(A^2) + mixer_eps) * g)       over all heads together
 *
 * zq is in Q and zf in F until the gates are computed. */
static void grf_hgrn2_block(grf_builder *b) {
    static const struct { grf_buffer to; const char *matrix, *taps, *bias; } inputs[] = {
        { GRF_Q, "temporal_block.q_proj", "temporal_block.q_conv.weight",
                 "temporal_block.q_conv.bias" },
        { GRF_F, "temporal_block.f_proj", "temporal_block.f_conv.weight",
                 "temporal_block.f_conv.bias" },
        { GRF_V, "temporal_block.v_proj", "temporal_block.v_conv.weight",
                 "temporal_block.v_conv.bias" }
    };
    int D = b->config->width, H = b->config->heads, n = H * b->config->head_dim, count = 0;
    grf_memory state = grf_remember_outer(b);
    grf_output out[3];

    for (int i = 0; i < GRF_COUNT(inputs); i++)
        if (grf_tensor_lookup(b, inputs[i].taps))
            grf_add_short_conv(b, inputs[i].to, inputs[i].matrix, inputs[i].taps, inputs[i].bias);
        else
            out[count++] = grf_dense(b, inputs[i].to, GRF_STORE, inputs[i].matrix, n, D, 0);
    if (count) grf_add_linear(b, GRF_OP_LINEAR, GRF_U, D, out, count);

    grf_op *op = grf_add(b, GRF_OP_GATES, GRF_Q, GRF_Q, n);
    op->in[1] = GRF_F;
    op->out[1] = grf_output_of(b, GRF_F, GRF_STORE, NULL, NULL);
    op->out[2] = grf_output_of(b, GRF_K, GRF_STORE, NULL, NULL);
    op->outputs = 3;
    grf_widen(b, GRF_K, n);
    op->vector[0] = grf_load_shares(b, "temporal_block.lower_bound", n);
    op->vector[1] = grf_load_shares(b, "temporal_block.gate_range", n);
    op->scale = grf_head_scale(b);

    grf_add_outer(b, state, H, H)->in[3] = GRF_F;
    op = grf_norm(b, "temporal_block.group_norm.weight", "temporal_block.group_norm.bias", GRF_A,
                  GRF_A, n);
    op->mean = 0;
    op->eps = grf_mixer_eps(b);
    grf_add_residual(b, GRF_A, "temporal_block.o_proj", D, n);
}

/* SUPRA (arXiv 2405.06640). H heads of head_dim for queries, G for keys and values:
 *
 *     Q = relu(Wq U + bq),  K = relu(Wk U + bk),  V = Wv U
 *     Q = norm(Q),  K = norm(K of its head, for H heads)         each only if it has weights
 *     Q = rotate(Q),  K = rotate(K) / sqrt(head_dim)             by the angles T of p
 *     S = decay S + K V',  A = S' Q                              per head, each with its own decay
 *     A = (A - mean(A)) / sqrt(variance(A) + mixer_eps)          per head
 *     X += Wo A + bo
 *
 * Wq and Wk are the projections of a Transformer times the paper's feature maps. */
static void grf_supra_block(grf_builder *b) {
    int D = b->config->width, hd = b->config->head_dim;
    int H = b->config->heads, G = b->config->kv_heads, n = H * hd, k_heads = G;
    grf_memory state = grf_remember_outer(b);
    grf_output qkv[3];
    grf_op *op;

    qkv[0] = grf_dense(b, GRF_Q, GRF_ACTIVATE, "temporal_block.q_proj", n, D, 1);
    qkv[1] = grf_dense(b, GRF_K, GRF_ACTIVATE, "temporal_block.k_proj", G * hd, D, 1);
    qkv[2] = grf_dense(b, GRF_V, GRF_STORE,    "temporal_block.v_proj", G * hd, D, 0);
    qkv[0].activation = qkv[1].activation = GRIFFIN_RELU;
    grf_angles(b);
    grf_add_linear(b, GRF_OP_LINEAR, GRF_U, D, qkv, 3);

    if (grf_tensor_lookup(b, "temporal_block.q_norm.weight"))
        grf_norm(b, "temporal_block.q_norm.weight", "temporal_block.q_norm.bias", GRF_Q, GRF_Q, n);
    if (grf_tensor_lookup(b, "temporal_block.k_norm.weight")) {
        op = grf_add_rope(b, GRF_K, GRF_F, H, hd, 1);           /* repeats heads */
        op->in[1] = GRF_NONE;
        op->heads_in = G;
        grf_norm(b, "temporal_block.k_norm.weight", "temporal_block.k_norm.bias", GRF_F, GRF_K, n);
        k_heads = H;
    }
    if (b->config->rope_dims) grf_add_rope(b, GRF_Q, GRF_Q, H, hd, 1);
    grf_add_rope(b, GRF_K, GRF_K, k_heads, hd, grf_head_scale(b));

    grf_add_outer(b, state, k_heads, G)->vector[0] =
        grf_load_decay(b, "temporal_block.decay", H, hd);

    op = grf_add(b, GRF_OP_NORM, GRF_A, GRF_A, n);
    op->heads = H;
    op->mean = 1;
    op->eps = grf_mixer_eps(b);
    grf_add_residual(b, GRF_A, "temporal_block.o_proj", D, n);
}

/* The gated MLP:  M = act(Wg U + bg) * (Wu U + bu),  X += Wd M + bd */
static void grf_mlp_block(grf_builder *b) {
    int D = b->config->width, F = b->config->mlp_width;
    grf_output out[2];
    out[0] = grf_dense(b, GRF_M, GRF_ACTIVATE, "mlp_block.gate_proj", F, D, !b->config->no_biases);
    out[1] = grf_dense(b, GRF_M, GRF_MULTIPLY, "mlp_block.up_proj",   F, D, !b->config->no_biases);
    grf_add_linear(b, GRF_OP_GATED, GRF_U, D, out, 2);
    grf_add_residual(b, GRF_M, "mlp_block.down_proj", D, F);
}

/* logits = cap tanh(E U / cap). E is the embedding unless the file has a matrix of its own. */
static void grf_output_head(grf_builder *b) {
    int D = b->config->width, V = b->config->vocab;
    grf_output out = grf_output_of(b, GRF_LOGITS, GRF_CAP, "embed_tokens", b->embedding);
    if (grf_tensor_lookup_tiles(b, "lm_head.weight"))
        out = grf_dense(b, GRF_LOGITS, GRF_CAP, "lm_head", V, D, 0);
    grf_add_linear(b, GRF_OP_LINEAR, GRF_U, D, &out, 1)->soft_cap = b->config->soft_cap;
}

/* ---- mixers: what a layer can mix tokens with ----
 * Any layer of a network can have any of these. To add one, write its builder beside its equations
 * and give it a row here. The builder loads its weights by name, takes memory in a state with
 * grf_remember, and adds operations from U onto X. Most of what a mixer needs is there: linear
 * layers with an activation, norms of rows and of heads, convolutions, rotary embeddings. A new
 * operation is a row of grf_op_types (>>run), and perhaps a kernel. The rows of grf_config_rows
 * (>>config) name the letters of the mixers that use a number; files without such a layer need not
 * have it. Marks, saves, rewinds, threads and slices know nothing of mixers. */

typedef struct grf_mixer {
    char        letter;                     /* in griffin_config.blocks */
    const char *name;                       /* in a file's block_types */
    void      (*build)(grf_builder *b);     /* adds its operations: from U, onto X */
} grf_mixer;

static const grf_mixer grf_mixers[] = {
    { 'r', "recurrent", grf_recurrent_block },
    { 'a', "attention", grf_attention_block },
    { 'h', "hgrn2",     grf_hgrn2_block },
    { 's', "supra",     grf_supra_block }
};

/* Null if there is no such mixer. */
static const grf_mixer *grf_mixer_by_letter(char letter) {
    for (int i = 0; i < GRF_COUNT(grf_mixers); i++)
        if (grf_mixers[i].letter == letter) return grf_mixers + i;
    return NULL;
}

static const grf_mixer *grf_mixer_by_name(const char *name, uint64_t length) {
    for (int i = 0; i < GRF_COUNT(grf_mixers); i++)
        if (grf_text_is(name, length, grf_mixers[i].name)) return grf_mixers + i;
    return NULL;
}

/* ---- the network ---- */

static void grf_network(grf_builder *b) {
    int D = b->config->width;
    b->layer = -1;
    grf_embedding(b);
    if (grf_tensor_lookup(b, "embed_norm.weight"))
        grf_norm(b, "embed_norm.weight", "embed_norm.bias", GRF_X, GRF_X, D);
    for (b->layer = 0; b->layer < b->config->layers && !b->error; b->layer++) {
        grf_norm(b, "temporal_pre_norm.weight", "temporal_pre_norm.bias", GRF_X, GRF_U, D);
        grf_mixer_by_letter(b->config->blocks[b->layer])->build(b);
        grf_norm(b, "channel_pre_norm.weight", "channel_pre_norm.bias", GRF_X, GRF_U, D);
        grf_mlp_block(b);
    }
    b->layer = -1;
    b->wanted_rows_only = 1;
    grf_norm(b, "final_norm.weight", "final_norm.bias", GRF_X, GRF_U, D);
    grf_output_head(b);
}

/* Sizes of attention, if there is any. The builder needs them. */
static void grf_lay_out_attention(griffin_model *m) {
    const griffin_config *g = &m->info.config;
    grf_layout *l = &m->layout;
    l->rewind = m->info.rewind;
    if (!strchr(g->blocks, 'a')) return;
    l->slots = m->info.attn_keys - 1 + l->rewind;
    l->kv_type = m->info.kv_type == GRIFFIN_KV_BF16 ? GRF_BF16 : GRF_F32;
    l->kv_size = l->kv_type == GRF_BF16 ? 2 : 4;
    l->head_stride = (g->head_dim + 15) / 16 * 16;
    l->heads_per_kv = g->heads / g->kv_heads;
    l->head_blocks = (l->heads_per_kv + GRF_HEAD_BLOCK - 1) / GRF_HEAD_BLOCK;
    l->head_block = (l->heads_per_kv + l->head_blocks - 1) / l->head_blocks;
    l->kv_row = (int64_t)g->kv_heads * l->head_stride * l->kv_size;
    l->ring_bytes = 2 * (int64_t)l->slots * l->kv_row;
}

/* Sizes of a state, after the builder has counted what it holds. */
static void grf_lay_out_state(griffin_model *m) {
    grf_layout *l = &m->layout;
    m->info.mark_bytes = sizeof(griffin_state) + 4 * (uint64_t)l->recurrent_floats;
    l->past = m->info.mark_bytes + (uint64_t)(l->attention_layers * l->ring_bytes);
    m->info.state_bytes = l->past + 8 * (uint64_t)l->rewind;
}

/* ================================================================= >>run
 * One pass: R rows of every buffer go through the program, then the states move on. A context has
 * the memory of a pass. The operations are its work. The executor gives the work to threads. */

/* ---- the context ---- */

typedef struct grf_span_in_pass {
    griffin_state *state;
    int64_t  position;                      /* of its first token; both as they were at the start */
    uint64_t history;
    int      first, count;                  /* its rows */
    int      slot, slots;                   /* where its recurrent part is written: as it is after
                                             * each of the last `slots` rows, mostly 1 */
} grf_span_in_pass;

typedef struct grf_wanted { int row; float *logits; } grf_wanted;

/* How an operation is cut in this pass. */
typedef struct grf_cut { int64_t items, chunks; } grf_cut;

struct griffin_context {
    const griffin_model *model;
    griffin_jobs jobs;
    int          max_rows, max_spans, max_guesses, no_slices;
    int          spans, rows, wanted_rows;  /* of the pass; spans is 0 when there is none */
    int          in_place;                  /* 1: the pass cannot be dropped, so it may write the
                                             * recurrent part of its states before it is complete */
    int          held;                      /* 1: states do not move on when it is complete */
    int          op;                        /* the next operation ... */
    int64_t      chunk;                     /* ... and its next chunk */
    int64_t      chunks_left;               /* of all operations */
    grf_cut     *cut;                       /* [operations] */
    grf_span_in_pass *span;                 /* [max_spans] */
    int         *span_of;                   /* [rows] */
    int32_t     *token;                     /* [rows] */
    grf_wanted  *wanted;                    /* [rows] */
    float       *buffer[GRF_INT8];          /* [rows][width] */
    grf_q8      *int8;                      /* GRF_INT8: [q8_row][rows of the pass] */
    float       *score;                     /* [rows][H][keys] */
    float       *recurrent;                 /* slots, [max_spans + max_guesses][recurrent_floats],
                                             * to be committed; or null */
    uint8_t     *kv;                        /* [attention layers][keys, values][max_rows][kv_row]
                                             * to be committed */
};

static int64_t grf_score_keys(const griffin_model *m) {
    return ((int64_t)m->info.attn_keys + GRF_ATTEND_ROWS + 31) & ~15;
}

static int grf_context_limits(const griffin_model *model, const griffin_context_options *options,
                              griffin_context *c) {
    memset(c, 0, sizeof *c);
    c->model = model;
    if (options) {
        c->max_rows = options->rows;
        c->max_spans = options->states;
        c->jobs = options->jobs;
        c->no_slices = options->no_slices;
        c->max_guesses = options->guesses;
    }
    if (c->max_rows < 0 || c->max_spans < 0 || c->max_guesses < 0) return 0;
    if (c->max_rows == 0) c->max_rows = 64;
    if (c->max_spans == 0) c->max_spans = 1;
    if (c->max_rows < c->max_spans) c->max_rows = c->max_spans;
    for (const char *block = model->info.config.blocks; *block; block++)
        if (*block != 'r' && *block != 'a') c->max_guesses = 0;     /* mixers of one slot */
    return c->max_rows <= 65536 && c->max_guesses <= 65536;
}

static void grf_context_lay_out(griffin_context *c, grf_arena *arena) {
    const griffin_model *m = c->model;
    const grf_layout *l = &m->layout;
    uint64_t R = (uint64_t)c->max_rows, S = (uint64_t)c->max_spans;
    uint64_t scores = l->attention_layers
        ? R * (uint64_t)m->info.config.heads * (uint64_t)grf_score_keys(m) : 0;
    c->cut     = (grf_cut *)   grf_arena_take(arena, (uint64_t)m->n_ops * sizeof *c->cut);
    c->span    = (grf_span_in_pass *)grf_arena_take(arena, S * sizeof *c->span);
    c->span_of = (int *)       grf_arena_take(arena, R * sizeof *c->span_of);
    c->token   = (int32_t *)   grf_arena_take(arena, R * sizeof *c->token);
    c->wanted  = (grf_wanted *)grf_arena_take(arena, R * sizeof *c->wanted);
    for (int i = GRF_X; i < GRF_INT8; i++)
        c->buffer[i] = (float *)grf_arena_take(arena, R * (uint64_t)l->width[i] * 4);
    c->int8      = (grf_q8 *)grf_arena_take(arena, R * (uint64_t)l->q8_row * sizeof *c->int8);
    c->score     = (float *)grf_arena_take(arena, scores * 4);
    if (!c->no_slices)
        c->recurrent = (float *)grf_arena_take(arena, (S + (uint64_t)c->max_guesses)
                                                      * (uint64_t)l->recurrent_floats * 4);
    c->kv        = (uint8_t *)grf_arena_take(arena, R * 2 * (uint64_t)l->attention_layers
                                                    * (uint64_t)l->kv_row);
}

/* ---- operations: what each kind does with items [from, to) ----
 * Any thread may call them. No two items write the same memory. */

static float *grf_row(const griffin_context *c, grf_buffer buffer, int64_t row) {
    return c->buffer[buffer] + row * c->model->layout.width[buffer];
}

static int64_t grf_position(const griffin_context *c, int64_t row) {
    const grf_span_in_pass *s = c->span + c->span_of[row];
    return s->position + (row - s->first);
}

/* Rows that an operation works on, which are the items of most. */
static int64_t grf_op_rows(const griffin_context *c, const grf_op *op) {
    return op->wanted_rows_only ? c->wanted_rows : c->rows;
}

/* The cost of an item is given in bytes of weights that are read from memory in the same time,
 * roughly. That of a row was measured with a norm and its quantising. */
static int64_t grf_row_cost(const griffin_context *c, const grf_op *op) {
    (void)c;
    return grf_pad(op->width) * 12;
}

static int64_t grf_embed_cost(const griffin_context *c, const grf_op *op) {
    (void)c;
    return grf_pad(op->width) * 32;
}

/* A row of a matrix in tiles: the embedding is also the head. A weight is exact in a float; only
 * the product with `scale` rounds. */
static void grf_unpack_row(float *to, const grf_linear *w, int64_t row, float scale) {
    const grf_tiling *tiling = &grf_tilings[w->type];
    const uint8_t *block = w->tile + (uint64_t)(row / GRF_TILE) * w->tile_bytes;
    for (int k = 0; k < w->cols; block += tiling->bytes)
        for (int i = 0; i < tiling->columns; i++, k++)
            to[k] = tiling->weight(block, (int)(row % GRF_TILE), i) * scale;
}

static void grf_run_embed(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    for (; from < to; from++)
        grf_unpack_row(grf_row(c, op->out[0].buffer, from), op->out[0].w, c->token[from],
                       op->scale);
}

static void grf_run_angles(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    int half = op->width / 2;
    for (; from < to; from++) {
        float *cosine = grf_row(c, op->out[0].buffer, from);
        c->model->kernels->rope_angles(cosine, cosine + half, c->model->turns,
                                       grf_position(c, from), half);
    }
}

static void grf_norm_row(const grf_kernels *kernels, const grf_op *op, float *y, const float *x) {
    const float *bias = op->vector[1];
    int n = op->width / op->heads;
    if (!op->mean) kernels->norm(y, x, op->vector[0], grf_pad(n), n, op->eps);
    else for (int h = 0; h < op->heads; h++)
        kernels->layer_norm(y + h * n, x + h * n, op->vector[0], n, op->eps);
    for (int j = 0; bias && j < op->width; j += GRF_TILE)
        kernels->finish(y + j, 0, y + j, bias + j, 0, 1, GRF_TILE);
}

static void grf_run_norm(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    for (; from < to; from++) {
        int64_t row = op->wanted_rows_only ? c->wanted[from].row : from;
        grf_norm_row(c->model->kernels, op, grf_row(c, op->out[0].buffer, from),
                     grf_row(c, op->in[0], row));
    }
}

/* A row of int8 begins at c->int8 + row; from group to group it is c->rows further. */
static void grf_run_quantise(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    for (; from < to; from++)
        c->model->kernels->quantise(c->int8 + from, c->rows, grf_row(c, op->in[0], from),
                                    grf_pad(op->width));
}

/* ---- linear layers: items are the tiles of all outputs, one matrix after the other ---- */

static int64_t grf_linear_items(const griffin_context *c, const grf_op *op) {
    int64_t tiles = 0;
    for (int i = 0; i < op->outputs; i++) tiles += op->out[i].w->tiles;
    return grf_op_rows(c, op) ? tiles : 0;
}

static int64_t grf_linear_cost(const griffin_context *c, const grf_op *op) {
    int64_t bytes = (int64_t)op->out[0].w->tile_bytes;
    return bytes + bytes * grf_op_rows(c, op) / 8;
}

/* Tile `tile` of w times rows [row, row + count) of the input, without bias. */
static void grf_tile_product(const griffin_context *c, const grf_op *op, const grf_linear *w,
                             int64_t tile, int64_t row, int count, float *out) {
    const uint8_t *weights = w->tile + (uint64_t)tile * w->tile_bytes;
    int64_t block = tile / (w->tiles / w->blocks);
    if (grf_is_quantised(w))
        c->model->kernels->int_tile(out, w, weights, c->int8 + row, c->rows, count);
    else
        c->model->kernels->float_tile(out, w, weights,
                                      grf_row(c, op->in[0], row) + block * w->cols,
                                      c->model->layout.width[op->in[0]], count);
}

/* First output row of a tile, and how many it has. */
static int64_t grf_tile_rows(const grf_linear *w, int64_t tile, int64_t *count) {
    int64_t per_block = w->tiles / w->blocks, rows = w->rows / w->blocks;
    int64_t first = tile % per_block * GRF_TILE;
    *count = grf_min64(GRF_TILE, rows - first);
    return tile / per_block * rows + first;
}

static float *grf_output_row(const griffin_context *c, const grf_output *o, int64_t row) {
    return o->buffer == GRF_LOGITS ? c->wanted[row].logits : grf_row(c, o->buffer, row);
}

/* Output rows are far apart in memory, and the hardware prefetcher does not predict them. This
 * prefetches what grf_finish_tile will read and write, so that it has arrived when the product is
 * done. Inline, because gcc 12 takes a function that only prefetches for one without effect and
 * drops the call. */
GRF_INLINE void grf_fetch_tile(const griffin_context *c, const grf_output *o, int64_t tile,
                               int64_t row, int count) {
    int64_t n, first = grf_tile_rows(o->w, tile, &n);
    if (o->w->bias) { GRF_FETCH(o->w->bias + first); GRF_FETCH(o->w->bias + first + n - 1); }
    for (; count > 0; count--, row++) {
        const float *to = grf_output_row(c, o, row) + first;
        GRF_FETCH(to); GRF_FETCH(to + n - 1);
    }
}

/* Adds the bias to a product, applies the epilogue, and writes the result. */
static void grf_finish_tile(const griffin_context *c, const grf_op *op, const grf_output *o,
                            int64_t tile, int64_t row, int count, float *out) {
    const grf_kernels *kernels = c->model->kernels;
    int64_t n, first = grf_tile_rows(o->w, tile, &n);
    const float *bias = o->w->bias ? o->w->bias + first : NULL;
    if (o->epilogue == GRF_ACTIVATE) {
        if (bias) kernels->finish(out, GRF_TILE, out, bias, 0, count, (int)n);
        kernels->activate(out, o->activation, count * GRF_TILE);
        bias = NULL;
    }
    if (o->epilogue == GRF_CAP && op->soft_cap > 0)
        kernels->soft_cap(out, op->soft_cap, count * GRF_TILE);
    if (o->buffer == GRF_LOGITS)
        for (; count > 0; count--, row++, out += GRF_TILE)
            memcpy(c->wanted[row].logits + first, out, (size_t)n * 4);
    else
        kernels->finish(grf_row(c, o->buffer, row) + first, c->model->layout.width[o->buffer], out,
                        bias, o->epilogue == GRF_ADD, count, (int)n);
}

static void grf_run_linear(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    float out[GRF_PANEL * GRF_TILE];
    const grf_output *o = op->out;
    int64_t rows = grf_op_rows(c, op), before = 0;      /* tiles of earlier outputs */
    for (; from < to; from++) {
        while (from - before >= o->w->tiles) { before += o->w->tiles; o++; }
        for (int64_t row = 0; row < rows; row += GRF_PANEL) {
            int count = (int)grf_min64(GRF_PANEL, rows - row);
            grf_fetch_tile(c, o, from - before, row, count);
            grf_tile_product(c, op, o->w, from - before, row, count, out);
            grf_finish_tile(c, op, o, from - before, row, count, out);
        }
    }
}

/* ---- the gated product M = act(gate) * up: items are tiles of both matrices ---- */

static int64_t grf_gated_items(const griffin_context *c, const grf_op *op) {
    (void)c;
    return op->out[0].w->tiles;
}

static int64_t grf_gated_cost(const griffin_context *c, const grf_op *op) {
    return 2 * grf_linear_cost(c, op);
}

static void grf_run_gated(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    float gate[GRF_PANEL * GRF_TILE], up[GRF_PANEL * GRF_TILE];
    const grf_linear *wg = op->out[0].w, *wu = op->out[1].w;
    grf_buffer M = op->out[0].buffer;
    const grf_kernels *kernels = c->model->kernels;
    for (; from < to; from++) {
        int64_t n, first = grf_tile_rows(wg, from, &n);
        for (int64_t row = 0; row < c->rows; row += GRF_PANEL) {
            int count = (int)grf_min64(GRF_PANEL, c->rows - row);
            grf_fetch_tile(c, &op->out[0], from, row, count);
            grf_fetch_tile(c, &op->out[1], from, row, count);
            grf_tile_product(c, op, wg, from, row, count, gate);
            grf_tile_product(c, op, wu, from, row, count, up);
            if (wg->bias)
                kernels->finish(gate, GRF_TILE, gate, wg->bias + first, 0, count, (int)n);
            if (wu->bias)
                kernels->finish(up, GRF_TILE, up, wu->bias + first, 0, count, (int)n);
            kernels->activate(gate, op->out[0].activation, count * GRF_TILE);
            kernels->multiply(gate, up, count * GRF_TILE);
            kernels->finish(grf_row(c, M, row) + first, c->model->layout.width[M], gate, NULL, 0,
                            count, (int)n);
        }
    }
}

/* ---- the recurrence: items are 16 channels, which go through all rows of all spans ---- */

static int64_t grf_channel_items(const griffin_context *c, const grf_op *op) {
    (void)c;
    return grf_pad(op->width) / 16;
}

static int64_t grf_conv_cost(const griffin_context *c, const grf_op *op) {
    (void)op;
    return (int64_t)c->rows * 256;
}

static int64_t grf_rglru_cost(const griffin_context *c, const grf_op *op) {
    (void)op;
    return (int64_t)c->rows * 1024;
}

/* An operation's part of a state as it was before the pass ... */
static float *grf_recurrent_before(const griffin_context *c, const grf_op *op, int64_t span) {
    return (float *)(c->span[span].state + 1) + op->state.at / 4;
}

/* ... and where its part after the pass is written: into the state itself, or, if the pass can
 * still be dropped, into memory of the context. */
static float *grf_recurrent_slot(const griffin_context *c, const grf_op *op, int64_t span,
                                 int64_t slot) {
    if (c->in_place) return grf_recurrent_before(c, op, span);
    return c->recurrent + (c->span[span].slot + slot) * c->model->layout.recurrent_floats
         + op->state.at / 4;
}

/* Where a mixer writes that knows of one slot. */
static float *grf_recurrent_after(const griffin_context *c, const grf_op *op, int64_t span) {
    return grf_recurrent_slot(c, op, span, 0);
}

/* Input row t of the convolution, counted from the start of the span. The K - 1 rows before it are
 * in the state. */
static const float *grf_conv_input(const griffin_context *c, const grf_op *op, int64_t span,
                                   int64_t t) {
    int K = c->model->info.config.conv_width;
    if (t >= 0) return grf_row(c, op->in[0], c->span[span].first + t);
    return grf_recurrent_before(c, op, span) + (K - 1 + t) * grf_pad(op->width);
}

static void grf_run_conv(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    const float *z[16];
    int64_t row_floats = grf_pad(op->width), at = from * 16, n = (to - from) * 16;
    int K = c->model->info.config.conv_width;
    for (int64_t span = 0; span < c->spans; span++) {
        const grf_span_in_pass *s = c->span + span;
        for (int64_t t = 0; t < s->count; t++) {
            for (int k = 0; k < K; k++) z[k] = grf_conv_input(c, op, span, t - K + 1 + k) + at;
            c->model->kernels->conv(grf_row(c, op->out[0].buffer, s->first + t) + at, z,
                                    op->vector[0] + at, row_floats, op->vector[1] + at, K, n);
        }
        /* The last K - 1 inputs become the state. In place, rows move down in ascending order, so
         * none is overwritten before it has been read. */
        for (int64_t slot = 0; slot < s->slots; slot++)
            for (int k = 0; k < K - 1; k++)
                memcpy(grf_recurrent_slot(c, op, span, slot) + at + k * row_floats,
                       grf_conv_input(c, op, span, s->count - s->slots + slot - K + 2 + k) + at,
                       (size_t)n * 4);
    }
}

static void grf_run_rglru(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    int64_t at = from * 16, n = (to - from) * 16;
    for (int64_t span = 0; span < c->spans; span++) {
        const grf_span_in_pass *s = c->span + span;
        const float *before = grf_recurrent_before(c, op, span) + at;
        float *h = grf_recurrent_after(c, op, span) + at;
        if (h != before) memcpy(h, before, (size_t)n * 4);
        for (int64_t t = s->first; t < s->first + s->count; t++) {
            int64_t slot = t - s->first - (s->count - s->slots);
            if (slot > 0) {
                float *next = grf_recurrent_slot(c, op, span, slot) + at;
                memcpy(next, h, (size_t)n * 4);
                h = next;
            }
            c->model->kernels->rglru(h, grf_row(c, op->out[0].buffer, t) + at,
                                     grf_row(c, op->in[1], t) + at, grf_row(c, op->in[2], t) + at,
                                     grf_row(c, op->in[0], t) + at, op->vector[0] + at,
                                     grf_position(c, t) == 0, n);
        }
    }
}

/* ---- attention ----
 * A head of a query sees keys and values of two origins: those of earlier tokens lie in the ring of
 * the state, those of this pass in c->kv, until the commit copies them into the ring. */

static int64_t grf_ring_slot(const griffin_model *m, int64_t position) {
    return position % m->layout.slots;
}

/* The row of keys (which = 0) or values (1) of a position in a ring. */
static uint8_t *grf_state_ring(const griffin_model *m, griffin_state *state, int64_t ring,
                               int which, int64_t position) {
    const grf_layout *l = &m->layout;
    return (uint8_t *)((float *)(state + 1) + l->recurrent_floats) + ring
         + (which * l->slots + grf_ring_slot(m, position)) * l->kv_row;
}

/* The same of a row of this pass: c->kv is laid out as the rings, with max_rows for slots. */
static uint8_t *grf_new_kv(const griffin_context *c, int64_t ring, int which, int64_t row) {
    const grf_layout *l = &c->model->layout;
    return c->kv + ring / l->slots * c->max_rows + (which * c->max_rows + row) * l->kv_row;
}

/* Without angles, heads are only copied and multiplied by the scale. */
static void grf_run_rope(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    int half = op->in[1] ? c->model->info.config.rope_dims / 2 : 0;
    int hd = c->model->info.config.head_dim, repeats = op->heads / op->heads_in;
    for (; from < to; from++) {
        const float *x = grf_row(c, op->in[0], from);
        const float *cosine = half ? grf_row(c, op->in[1], from) : x;   /* x: not read */
        float *y = grf_row(c, op->out[0].buffer, from);
        for (int h = 0; h < op->heads; h++)
            c->model->kernels->rope(y + h * op->head_stride, x + h / repeats * hd, cosine,
                                    cosine + half, op->scale, half, hd);
    }
}

/* Keys and values are rounded before anybody reads them, those of the same pass too. */
static void grf_store_kv(const grf_layout *l, uint8_t *to, const float *from, int n) {
    if (l->kv_type == GRF_F32) { memcpy(to, from, (size_t)n * 4); return; }
    for (int i = 0; i < n; i++) {
        uint16_t rounded = grf_bf16_from_float(from[i]);
        memcpy(to + 2 * i, &rounded, 2);
    }
}

static void grf_run_keep(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    const grf_layout *l = &c->model->layout;
    int hd = c->model->info.config.head_dim, G = c->model->info.config.kv_heads;
    for (; from < to; from++)
        for (int which = 0; which < 2; which++) {
            uint8_t *kv = grf_new_kv(c, op->state.at, which, from);
            for (int h = 0; h < G; h++)
                grf_store_kv(l, kv + h * l->head_stride * l->kv_size,
                             grf_row(c, op->in[which], from) + h * hd, hd);
        }
}

/* The keys that rows [row, row + count) of one span see between them, oldest first: up to two runs
 * in the ring, then those of this pass. `offset` selects the head. Returns the position of the
 * first. */
static int64_t grf_visible_kv(const griffin_context *c, int64_t ring, int64_t row, int64_t count,
                              int64_t offset, grf_attention *a) {
    const griffin_model *m = c->model;
    const grf_span_in_pass *s = c->span + c->span_of[row];
    int64_t p = grf_position(c, row), first = grf_max64(0, p + 1 - m->info.attn_keys), at = first;
    for (int i = 0; i < 3; i++) {
        int64_t end = i == 2 ? p + count : s->position, new_row = s->first + (at - s->position);
        if (i < 2) end = grf_min64(end, at - grf_ring_slot(m, at) + m->layout.slots);
        a->run[i].count = (int)grf_max64(0, end - at);
        a->run[i].k = offset
            + (i < 2 ? grf_state_ring(m, s->state, ring, 0, at) : grf_new_kv(c, ring, 0, new_row));
        a->run[i].v = offset
            + (i < 2 ? grf_state_ring(m, s->state, ring, 1, at) : grf_new_kv(c, ring, 1, new_row));
        at = grf_max64(at, end);
    }
    return first;
}

/* Rows [row, row + count) of one span and a block of their heads. */
static void grf_attend_together(griffin_context *c, const grf_op *op, int64_t row, int64_t count,
                                int64_t block) {
    const griffin_model *m = c->model;
    const grf_layout *l = &m->layout;
    int64_t kv_head = block / l->head_blocks, in_group = block % l->head_blocks * l->head_block;
    int64_t from = kv_head * l->heads_per_kv + in_group;
    int64_t to = from + grf_min64(l->head_block, l->heads_per_kv - in_group);
    grf_attention a;
    a.head_dim = m->info.config.head_dim;
    a.head_stride = l->head_stride;
    a.type = l->kv_type;
    a.stride = l->kv_row;
    a.queries = 0;
    int64_t start = grf_visible_kv(c, op->state.at, row, count,
                                   kv_head * l->head_stride * l->kv_size, &a);
    for (; count > 0; count--, row++)
        for (int64_t h = from; h < to; h++) {
            grf_query *q = a.query + a.queries++;
            q->q     = grf_row(c, op->in[0], row) + h * l->head_stride;
            q->out   = grf_row(c, op->out[0].buffer, row) + h * a.head_dim;
            q->score = c->score + (row * m->info.config.heads + h) * grf_score_keys(m);
            q->end   = grf_position(c, row) + 1 - start;
            q->first = grf_max64(0, q->end - m->info.attn_keys);
        }
    m->kernels->attend(&a);
}

/* An item is so many rows, which may share keys, and a block of their heads. */
static int64_t grf_attend_rows(const griffin_context *c) {
    return grf_max64(1, grf_min64(GRF_ATTEND_ROWS, c->rows / c->spans));
}

static int64_t grf_attend_items(const griffin_context *c, const grf_op *op) {
    (void)op;
    return (c->rows + grf_attend_rows(c) - 1) / grf_attend_rows(c)
         * c->model->info.config.kv_heads * c->model->layout.head_blocks;
}

static int64_t grf_attend_cost(const griffin_context *c, const grf_op *op) {
    const grf_layout *l = &c->model->layout;
    (void)op;
    return grf_score_keys(c->model) * l->head_stride * l->head_block * 2 * grf_attend_rows(c);
}

static void grf_run_attend(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    int64_t blocks = (int64_t)c->model->info.config.kv_heads * c->model->layout.head_blocks;
    for (; from < to; from++) {
        int64_t row = from / blocks * grf_attend_rows(c), n;
        int64_t last = grf_min64(row + grf_attend_rows(c), c->rows);
        for (; row < last; row += n) {
            for (n = 1; row + n < last && c->span_of[row + n] == c->span_of[row]; n++) {}
            grf_attend_together(c, op, row, n, from % blocks);
        }
    }
}

/* ---- states that are matrices: items are the tiles of S of all heads ---- */

static int64_t grf_gates_cost(const griffin_context *c, const grf_op *op) {
    (void)c;
    return grf_pad(op->width) * 48;
}

static void grf_run_gates(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    for (; from < to; from++)
        c->model->kernels->gates(grf_row(c, op->out[0].buffer, from),
                                 grf_row(c, op->out[1].buffer, from),
                                 grf_row(c, op->out[2].buffer, from), op->vector[0], op->vector[1],
                                 op->scale, grf_pad(op->width));
}

static int64_t grf_outer_items(const griffin_context *c, const grf_op *op) {
    return op->heads * (grf_pad(c->model->info.config.head_dim) / GRF_TILE);
}

/* A tile is read and written once for each span. */
static int64_t grf_outer_cost(const griffin_context *c, const grf_op *op) {
    int64_t keys = c->model->info.config.head_dim;
    (void)op;
    return keys * (c->spans * (2 * GRF_TILE * 4) + c->rows * 64);
}

/* Rows [row, row + count) of one span and one tile. `columns` of the tile are not padding. The
 * kernel gets its values, and gives its results, as rows of 32. */
static void grf_outer_rows(const griffin_context *c, const grf_op *op, int64_t tile, int64_t row,
                           int count, float *state) {
    float v[GRF_PANEL * GRF_TILE], o[GRF_PANEL * GRF_TILE];
    int64_t hd = c->model->info.config.head_dim, tiles = grf_pad(hd) / GRF_TILE;
    int64_t h = tile / tiles, first = tile % tiles * GRF_TILE;
    int64_t k_head = h / (op->heads / op->heads_in), v_head = h / (op->heads / op->v_heads);
    size_t size = (size_t)grf_min64(GRF_TILE, hd - first) * 4;
    grf_outer a;
    a.state = state;
    a.q = grf_row(c, op->in[0], row) + h * hd;      a.q_stride = c->model->layout.width[op->in[0]];
    a.k = grf_row(c, op->in[1], row) + k_head * hd; a.k_stride = c->model->layout.width[op->in[1]];
    a.f = op->vector[0] ? op->vector[0] : grf_row(c, op->in[3], row);
    a.f += h * hd;
    a.f_stride = op->vector[0] ? 0 : c->model->layout.width[op->in[3]];
    a.v = v; a.o = o;
    a.keys = (int)hd; a.rows = count;
    memset(v, 0, (size_t)count * GRF_TILE * 4);
    memset(o, 0, (size_t)count * GRF_TILE * 4);
    for (int t = 0; t < count; t++)
        memcpy(v + t * GRF_TILE, grf_row(c, op->in[2], row + t) + v_head * hd + first, size);
    c->model->kernels->outer(&a);
    for (int t = 0; t < count; t++)
        memcpy(grf_row(c, op->out[0].buffer, row + t) + h * hd + first, o + t * GRF_TILE, size);
}

static void grf_run_outer(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    int64_t tile_floats = (int64_t)c->model->info.config.head_dim * GRF_TILE;
    for (; from < to; from++)
        for (int64_t span = 0; span < c->spans; span++) {
            const grf_span_in_pass *s = c->span + span;
            const float *before = grf_recurrent_before(c, op, span) + from * tile_floats;
            float *state = grf_recurrent_after(c, op, span) + from * tile_floats;
            if (state != before) memcpy(state, before, (size_t)tile_floats * 4);
            for (int t = 0; t < s->count; t += GRF_PANEL)
                grf_outer_rows(c, op, from, s->first + t, (int)grf_min64(GRF_PANEL, s->count - t),
                               state);
        }
}

/* ---- the table of operations ---- */

typedef struct grf_op_type {
    const char *name;                       /* as griffin_unit_name tells it */
    int64_t (*items)(const griffin_context *c, const grf_op *op);
    int64_t (*cost) (const griffin_context *c, const grf_op *op);
    void    (*run)  (griffin_context *c, const grf_op *op, int64_t from, int64_t to);
} grf_op_type;

static const grf_op_type grf_op_types[GRF_OP_KINDS] = {     /* in the order of grf_op_kind */
    { "embed",    grf_op_rows,       grf_embed_cost,  grf_run_embed },
    { "angles",   grf_op_rows,       grf_row_cost,    grf_run_angles },
    { "norm",     grf_op_rows,       grf_row_cost,    grf_run_norm },
    { "quantise", grf_op_rows,       grf_row_cost,    grf_run_quantise },
    { "linear",   grf_linear_items,  grf_linear_cost, grf_run_linear },
    { "gated",    grf_gated_items,   grf_gated_cost,  grf_run_gated },
    { "conv",     grf_channel_items, grf_conv_cost,   grf_run_conv },
    { "rglru",    grf_channel_items, grf_rglru_cost,  grf_run_rglru },
    { "rope",     grf_op_rows,       grf_row_cost,    grf_run_rope },
    { "keep",     grf_op_rows,       grf_row_cost,    grf_run_keep },
    { "attend",   grf_attend_items,  grf_attend_cost, grf_run_attend },
    { "gates",    grf_op_rows,       grf_gates_cost,  grf_run_gates },
    { "outer",    grf_outer_items,   grf_outer_cost,  grf_run_outer }
};

/* ---- the executor ----
 * Every operation is cut into chunks of about GRF_CHUNK bytes of weights read, or as much other
 * work. A chunk is also the unit of griffin_advance. How an operation is cut, and who does a chunk
 * when, has no influence on any bit of the result. */

/* Cuts all operations for the rows of the pass, and stands before the first. */
static void grf_pass_cut(griffin_context *c) {
    c->op = 0;
    c->chunk = c->chunks_left = 0;
    for (int i = 0; i < c->model->n_ops; i++) {
        const grf_op *op = c->model->ops + i;
        const grf_op_type *type = grf_op_types + op->kind;
        int64_t per_chunk = grf_max64(1, GRF_CHUNK / grf_max64(1, type->cost(c, op)));
        c->cut[i].items = type->items(c, op);
        c->cut[i].chunks = (c->cut[i].items + per_chunk - 1) / per_chunk;
        c->chunks_left += c->cut[i].chunks;
    }
}

/* Some chunks of one operation, from number `first` on. */
typedef struct grf_task {
    griffin_context *context;
    const grf_op    *op;
    grf_cut          cut;
    int64_t          first;
} grf_task;

static void grf_run_chunk(void *data, int index) {
    const grf_task *task = (const grf_task *)data;
    int64_t items = task->cut.items, chunks = task->cut.chunks;
    int64_t chunk = task->first + index;
    grf_op_types[task->op->kind].run(task->context, task->op, chunk * items / chunks,
                                     (chunk + 1) * items / chunks);
}

typedef struct grf_team grf_team;

#ifdef GRF_OPENMP
/* A team is the threads of one pass, or of one griffin_advance. The thread that called is the
 * coordinator: it walks through the program. The others are workers. For each operation the
 * coordinator deals out the chunks evenly to the queues, one for each thread, so that a thread
 * reads one stretch of weights. Every thread, the coordinator too, runs the chunks of its own queue
 * and then what is left in the other queues. The coordinator waits until `done` counts all chunks.
 * It does not wait for threads: one that the system has suspended while it held no chunk delays
 * nobody. At the end of the program it sets `finished`, and the workers return.
 *
 * A queue is one number: the next chunk in its upper half, the end in its lower half. One atomic
 * addition takes a chunk and tells whether there was one. */
#define GRF_QUEUES 32

typedef struct grf_queue { uint64_t range, apart[7]; } grf_queue;   /* a cache line of its own */

struct grf_team {
    grf_task  task;                         /* written while no queue has a chunk */
    uint64_t  done, finished;
    int       queues;
    grf_queue queue[GRF_QUEUES];
};

static int grf_has_chunks(uint64_t range) { return range >> 32 < (range & 0xffffffffu); }

/* Called in loops that wait. */
static void grf_pause(int *spins) {
    if (++*spins < 4096) {
#ifdef GRF_X86
        _mm_pause();
#endif
        return;
    }
    *spins = 0;
#ifdef GRF_YIELD
    sched_yield();
#endif
}

/* Runs chunks until all queues are empty, those of queue `own` first. */
static void grf_team_work(grf_team *team, int own) {
    for (int i = 0; i < team->queues; i++) {
        grf_queue *queue = team->queue + (own + i) % team->queues;
        for (;;) {
            uint64_t range;
            #pragma omp atomic capture seq_cst
            { range = queue->range; queue->range += (uint64_t)1 << 32; }
            if (!grf_has_chunks(range)) break;
            grf_run_chunk(&team->task, (int)(range >> 32));
            #pragma omp atomic seq_cst
            team->done += 1;
        }
    }
}

/* The coordinator: one operation. */
static void grf_team_run(grf_team *team, const grf_task *task, int count) {
    uint64_t done = 0;
    int spins = 0;
    team->task = *task;
    #pragma omp atomic write seq_cst
    team->done = 0;
    for (int i = 0; i < team->queues; i++) {
        uint64_t next = (uint64_t)((int64_t)count * i / team->queues);
        uint64_t end = (uint64_t)((int64_t)count * (i + 1) / team->queues);
        #pragma omp atomic write seq_cst
        team->queue[i].range = next << 32 | end;
    }
    grf_team_work(team, 0);
    while (done < (uint64_t)count) {
        grf_pause(&spins);
        #pragma omp atomic read seq_cst
        done = team->done;
    }
}

/* A worker: all operations. */
static void grf_team_follow(grf_team *team, int own) {
    uint64_t range, finished = 0;
    int spins = 0;
    while (!finished) {
        #pragma omp atomic read seq_cst
        range = team->queue[own].range;
        if (grf_has_chunks(range)) { grf_team_work(team, own); spins = 0; }
        grf_pause(&spins);
        #pragma omp atomic read seq_cst
        finished = team->finished;
    }
}
#endif

/* `count` chunks of an operation, on whatever threads there are. */
static void grf_run_chunks(grf_task *task, int count, grf_team *team) {
    const griffin_jobs *jobs = &task->context->jobs;
#ifdef GRF_OPENMP
    if (count > 1 && team) { grf_team_run(team, task, count); return; }
#endif
    (void)team;
    if (count > 1 && jobs->run) jobs->run(grf_run_chunk, task, count, jobs->user);
    else for (int i = 0; i < count; i++) grf_run_chunk(task, i);
}

/* At most `units` chunks from where the pass stands. */
static void grf_run_program(griffin_context *c, int units, grf_team *team) {
    for (; c->op < c->model->n_ops; c->op++, c->chunk = 0) {
        grf_task task;
        task.context = c;
        task.op = c->model->ops + c->op;
        task.cut = c->cut[c->op];
        task.first = c->chunk;
        int now = (int)grf_min64(task.cut.chunks - c->chunk, units);
        grf_run_chunks(&task, now, team);
        units -= now;
        c->chunk += now;
        c->chunks_left -= now;
        if (c->chunk < task.cut.chunks) return;
    }
}

#ifdef GRF_OPENMP
/* How many of the next `units` chunks belong to operations with several. */
static int64_t grf_shared_chunks(const griffin_context *c, int64_t units) {
    int64_t shared = 0;
    for (int i = c->op; i < c->model->n_ops && units > 0; units -= c->cut[i++].chunks)
        if (c->cut[i].chunks > 1) shared += grf_min64(c->cut[i].chunks, units);
    return shared;
}

static void grf_run_team(griffin_context *c, int units, int width) {
    grf_team team;
    memset(&team, 0, sizeof team);
    team.queues = width < GRF_QUEUES ? width : GRF_QUEUES;
    #pragma omp parallel num_threads(width)
    {
        int thread = omp_get_thread_num();
        if (thread > 0) grf_team_follow(&team, thread % team.queues);
        else {
            grf_run_program(c, units, &team);
            #pragma omp atomic write seq_cst
            team.finished = 1;
        }
    }
}
#endif

static void grf_state_commit(griffin_context *c);

/* At most `units` chunks on all threads that are worth it. The last one changes the states. */
static void grf_pass_run(griffin_context *c, int units) {
#ifdef GRF_OPENMP
    int width = c->jobs.width > 0 ? c->jobs.width : omp_get_max_threads();
    if (width > GRF_MOST_THREADS) width = GRF_MOST_THREADS;
    if (!c->jobs.run && width > 1 && grf_shared_chunks(c, units) >= GRF_WORTH_WAKING)
        grf_run_team(c, units, width);
    else
#endif
    grf_run_program(c, units, NULL);
    if (c->op == c->model->n_ops && !c->held) grf_state_commit(c);
}

/* ---- states ---- */

/* Where a state keeps what its history was at an earlier position. */
static uint64_t *grf_state_past(const griffin_model *m, griffin_state *s, int64_t position) {
    return (uint64_t *)(void *)((unsigned char *)s + m->layout.past) + position % m->layout.rewind;
}

static uint64_t grf_state_next_history(uint64_t history, int32_t token) {
    history = (history ^ (uint64_t)(uint32_t)token) + 0x9e3779b97f4a7c15u;
    history = (history ^ history >> 30) * 0xbf58476d1ce4e5b9u;
    return history ^ history >> 27;
}

/* Can the state of a span move on by its first `count` tokens? */
static int grf_span_can_commit(const griffin_context *c, const grf_span_in_pass *in, int count) {
    return count > 0 && (!c->model->layout.recurrent_floats || count > in->count - in->slots);
}

/* The state of a span moves on by its first `count` tokens. */
static void grf_span_commit(griffin_context *c, int span, int count) {
    const griffin_model *m = c->model;
    const grf_layout *l = &m->layout;
    const grf_span_in_pass *in = c->span + span;
    griffin_state *s = in->state;
    if (!c->in_place && l->recurrent_floats)
        memcpy((float *)(s + 1),
               c->recurrent + (in->slot + in->slots - 1 - (in->count - count))
                              * l->recurrent_floats, (size_t)l->recurrent_floats * 4);
    for (int64_t layer = 0; layer < l->attention_layers; layer++)
        for (int which = 0; which < 2; which++)
            for (int t = 0; t < count; t++)
                memcpy(grf_state_ring(m, s, layer * l->ring_bytes, which, in->position + t),
                       grf_new_kv(c, layer * l->ring_bytes, which, in->first + t),
                       (size_t)l->kv_row);
    s->tag = l->tag;
    for (int t = 0; t < count; t++) {
        *grf_state_past(m, s, s->position++) = s->history;
        s->history = grf_state_next_history(s->history, c->token[in->first + t]);
    }
    s->oldest = grf_max64(s->oldest, s->position - l->rewind);
}

/* The pass is complete. Only now do states change, but for the recurrent parts of a pass that
 * cannot be dropped: they have changed in place. */
static void grf_state_commit(griffin_context *c) {
    for (int span = 0; span < c->spans; span++) grf_span_commit(c, span, c->span[span].count);
    c->spans = 0;
}

/* ---- checking arguments, once, before anything happens ----------------------------------- */

/* What has no operations was opened as a directory. */
static int grf_network_check(const griffin_model *m) {
    if (m->n_ops) return GRIFFIN_OK;
    return grf_fail(&m->host, GRIFFIN_E_ARGUMENT,
                    "there is no network: the file was opened with directory_only");
}

static int grf_state_check(const griffin_model *m, const griffin_state *s) {
    int error = grf_network_check(m);
    if (error) return error;
    if (!s) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the state is null");
    if (s->tag == 0 && s->position == 0) return GRIFFIN_OK;
    if (s->tag != m->layout.tag || s->position <= 0)
        return grf_fail(&m->host, GRIFFIN_E_MISMATCH,
                        "the state belongs to another model or other options, or is damaged");
    return GRIFFIN_OK;
}

static int grf_span_check(const griffin_model *m, const griffin_span *span) {
    int error = grf_state_check(m, span->state);
    if (error) return error;
    if (!span->tokens) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the tokens are null");
    if (span->count < 1)
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "a span needs at least one token");
    for (int i = 0; i < span->count; i++)
        if (span->tokens[i] < 0 || span->tokens[i] >= m->info.config.vocab)
            return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "token %d at %d is not in 0 .. %d",
                            span->tokens[i], i, m->info.config.vocab - 1);
    return GRIFFIN_OK;
}

static int grf_spans_check(const griffin_context *c, const griffin_span *spans, int count) {
    if (!c) return GRIFFIN_E_ARGUMENT;
    if (!spans || count < 1) return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT, "no spans");
    for (int i = 0; i < count; i++) {
        int error = grf_span_check(c->model, spans + i);
        if (error) return error;
        for (int j = 0; j < i; j++)
            if (spans[j].state == spans[i].state)
                return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT,
                                "spans %d and %d share a state", j, i);
    }
    return GRIFFIN_OK;
}

/* If the caller changed a state after griffin_begin (by memcpy, a rewind or another step), the
 * commit would mix two texts. Its position and its history show it. */
static int grf_pass_check(const griffin_context *c) {
    for (int i = 0; i < c->spans; i++) {
        const grf_span_in_pass *s = c->span + i;
        if (s->state->position != s->position || s->state->history != s->history)
            return grf_fail(&c->model->host, GRIFFIN_E_MISMATCH,
                            "a state was changed after griffin_begin; begin again");
    }
    return GRIFFIN_OK;
}

/* ---- a pass ---- */

static void grf_pass_clear(griffin_context *c, int in_place) {
    c->spans = c->rows = c->wanted_rows = c->held = 0;
    c->in_place = in_place;
}

/* Adds tokens [done, done + count) of a span to the pass. */
static void grf_pass_add_span(griffin_context *c, const griffin_span *span, int done, int count) {
    grf_span_in_pass *s = c->span + c->spans;
    s->state = span->state;
    s->position = span->state->position;
    s->history = span->state->history;
    s->first = c->rows;
    s->count = count;
    s->slot = c->spans;
    s->slots = 1;
    for (int i = done; i < done + count; i++) {
        int row = c->rows++;
        c->token[row] = span->tokens[i];
        c->span_of[row] = c->spans;
        if (!span->logits || (!span->all_logits && i != span->count - 1)) continue;
        c->wanted[c->wanted_rows].row = row;
        c->wanted[c->wanted_rows++].logits =
            span->logits + (span->all_logits ? (int64_t)i * c->model->info.config.vocab : 0);
    }
    c->spans++;
}

/* As many passes as it takes. Each fills the rows of the context from the spans in order. Nothing
 * can fail or stop it now, so recurrent parts are written in place. */
static void grf_pass_run_spans(griffin_context *c, const griffin_span *spans, int count) {
    int at = 0, done = 0;
    while (at < count) {
        grf_pass_clear(c, 1);
        while (at < count && c->spans < c->max_spans && c->rows < c->max_rows) {
            int now = (int)grf_min64(spans[at].count - done, c->max_rows - c->rows);
            grf_pass_add_span(c, spans + at, done, now);
            done += now;
            if (done < spans[at].count) break;
            done = 0;
            at++;
        }
        grf_pass_cut(c);
        grf_pass_run(c, INT_MAX);
    }
}

/* ================================================================= >>state
 * A state is plain bytes: the struct griffin_state, the recurrent part of all layers in f32, then a
 * ring of keys and values for each attention layer, then the history hashes of the last positions.
 * This chapter has marks, which take back a few tokens, and saves, for disks and networks.
 *
 * A mark is a copy of a state up to its rings. The rings need no copy: they have
 * griffin_options.rewind rows more than attention needs, so that many tokens can be added before a
 * row is lost that the state of the mark needs. griffin_rewind copies the mark back. Rows of tokens
 * that were taken back are out of sight, and the next tokens overwrite them.
 *
 * A mark fits if the state has gone on from it by at most that many tokens. The state knows a hash
 * of its text at each of the last positions, and `oldest`, the first position whose rows are all
 * there. */

static size_t grf_mark_size(const griffin_model *m) {
    return (size_t)m->info.mark_bytes;
}

static int grf_mark_check(const griffin_model *m, griffin_state *s, const griffin_state *mark) {
    const char *why = NULL;
    if (mark->tag != m->layout.tag) why = "it belongs to another model or other options";
    else if (mark->position > s->position) why = "the state has not been there";
    else if (mark->position < s->oldest) why = "that is too long ago";
    else if (mark->history != (mark->position == s->position
                                   ? s->history : *grf_state_past(m, s, mark->position)))
        why = "the state continues another text";
    if (!why) return GRIFFIN_OK;
    return grf_fail(&m->host, GRIFFIN_E_MISMATCH, "a mark at %u does not fit a state at %u: %s",
                    (uint64_t)mark->position, (uint64_t)s->position, why);
}

/* The mark of a fresh state gets a tag, which its state does not have. `oldest` is not moved back,
 * since rows that were overwritten cannot come back. */
static int grf_state_rewind(const griffin_model *m, griffin_state *state, const void *mark) {
    griffin_state to;
    memcpy(&to, mark, sizeof to);
    int error = grf_mark_check(m, state, &to);
    if (error) return error;
    to.oldest = state->oldest;
    if (to.position == 0) to.tag = 0;
    memcpy(state, mark, grf_mark_size(m));
    *state = to;
    return GRIFFIN_OK;
}

/* ---- saved sequences ---------------------------------------------------------------------------
 * All numbers are little-endian. Of a ring, only the rows are saved that the next token sees. So a
 * state that was rewound has the same bytes as one that never had the tokens taken back.
 *
 *     0   8 bytes  "GRIFSTAT"
 *     8   u32      version, 3 (2 had the same bytes, but other fingerprints in the tag)
 *     12  u32      parts: 1 a sampler, 2 a decoder
 *     16  u64      tag: fingerprint of the model, mixed with attn_keys and kv_type; 0: fresh
 *     24  u64      position
 *     32  u64      history hash of the tokens
 *     40  u64      n, bytes of
 *     48           recurrent part in f32, then of every ring the last min(position, attn_keys - 1)
 *                  rows in f32 or bf16
 *     +n           the sampler if there is one: u64 seed; f32 temperature, top_p, min_p; i32 top_k;
 *                  f32 repeat_penalty; i32 repeat_last; u32 accepted; i32[64] recent
 *     ..  8 bytes  the decoder if there is one, as it is declared
 *     ..  u64      checksum (FNV-1a variant of grf_hash) of all bytes before it */

#define GRF_SAVE_VERSION 3
#define GRF_SAVE_HEADER 48
#define GRF_SAVED_SAMPLER (36 + 4 * GRIFFIN_RECENT)
#define GRF_SAVED_DECODER 8

enum { GRF_HAS_SAMPLER = 1, GRF_HAS_DECODER = 2 };

static int64_t grf_saved_rows(const griffin_model *m, int64_t position) {
    return grf_min64(position, m->info.attn_keys - 1);
}

/* The n of the format. Rings come in pairs, for keys and for values. */
static int64_t grf_saved_bytes(const griffin_model *m, int64_t position) {
    const grf_layout *l = &m->layout;
    if (position == 0) return 0;
    return 4 * l->recurrent_floats
         + 2 * l->attention_layers * grf_saved_rows(m, position) * l->kv_row;
}

static int64_t grf_save_size(int64_t bytes, int parts) {
    return GRF_SAVE_HEADER + bytes + (parts & GRF_HAS_SAMPLER ? GRF_SAVED_SAMPLER : 0)
         + (parts & GRF_HAS_DECODER ? GRF_SAVED_DECODER : 0) + 8;
}

/* ---- a save on its way, in pieces ---- */

typedef struct grf_pieces {
    griffin_write_function *write;          /* one of these is null */
    griffin_read_function  *read;
    void    *user;
    int      checked;                       /* the bytes are known to be right */
    uint64_t hash;                          /* of the pieces so far, whose sizes divide by 8 */
    int      error;                         /* the first one; no more pieces then */
} grf_pieces;

/* A piece of the size that it asks for, whatever the host gives at once. */
static void grf_pieces_read(const griffin_model *m, grf_pieces *p, uint8_t *data, size_t size) {
    for (size_t done = 0; done < size && !p->error; ) {
        int n = p->read(data + done, size - done, p->user);
        if (n > 0 && (size_t)n <= size - done) done += (size_t)n;
        else if (n < 0) p->error = n;
        else p->error = grf_fail(&m->host, GRIFFIN_E_FORMAT, n ? "load: more bytes were read than "
                                 "asked for" : "load: the bytes are cut, or not a saved state");
    }
}

static void grf_pieces_write(grf_pieces *p, const uint8_t *data, size_t size) {
    int n = p->error ? p->error : p->write(data, size, p->user);
    if (n < 0) p->error = n;
}

/* Turns numbers of `size` bytes to little-endian or back. */
static void grf_turn_numbers(uint8_t *p, int64_t bytes, int size) {
    for (int64_t i = 0; GRF_BIG_ENDIAN && i < bytes; i += size) grf_native_order(p + i, size);
}

static void grf_pieces_put(grf_pieces *p, const uint8_t *from, int64_t bytes, int size) {
    uint8_t turned[256];
    for (int64_t n; bytes > 0 && !p->error; from += n, bytes -= n) {
        const uint8_t *piece = from;
        n = grf_min64(bytes, GRF_BIG_ENDIAN ? (int64_t)sizeof turned : GRIFFIN_PIECE);
        if (GRF_BIG_ENDIAN) {
            memcpy(turned, from, (size_t)n);
            grf_turn_numbers(turned, n, size);
            piece = turned;
        }
        p->hash = grf_hash_start(p->hash, piece, (size_t)n);
        grf_pieces_write(p, piece, (size_t)n);
    }
}

/* With `to` null the bytes are only checked. */
static void grf_pieces_take(const griffin_model *m, grf_pieces *p, uint8_t *to, int64_t bytes,
                            int size) {
    uint8_t aside[256] = { 0 };
    for (int64_t n; bytes > 0 && !p->error; bytes -= n) {
        uint8_t *piece = to ? to : aside;
        n = grf_min64(bytes, to ? GRIFFIN_PIECE : (int64_t)sizeof aside);
        grf_pieces_read(m, p, piece, (size_t)n);
        if (!p->error && !p->checked) p->hash = grf_hash_start(p->hash, piece, (size_t)n);
        if (!p->error) grf_turn_numbers(piece, n, size);
        if (to) to += n;
    }
}

static void grf_pieces_move(const griffin_model *m, grf_pieces *p, void *memory, int64_t bytes,
                            int size) {
    if (p->write) grf_pieces_put(p, (const uint8_t *)memory, bytes, size);
    else grf_pieces_take(m, p, (uint8_t *)memory, bytes, size);
}

/* What the format holds of a state. Rows that lie together in a ring go together. */
static void grf_pieces_move_state(const griffin_model *m, grf_pieces *p, griffin_state *s,
                                  int64_t position) {
    const grf_layout *l = &m->layout;
    if (!s) grf_pieces_take(m, p, NULL, grf_saved_bytes(m, position), 1);
    if (!s) return;
    if (position) grf_pieces_move(m, p, s + 1, 4 * l->recurrent_floats, 4);
    for (int ring = 0; ring < 2 * l->attention_layers; ring++) {
        int64_t at = position - grf_saved_rows(m, position);
        for (int64_t rows; at < position; at += rows) {
            rows = grf_min64(position - at, l->slots - grf_ring_slot(m, at));
            grf_pieces_move(m, p, grf_state_ring(m, s, ring / 2 * l->ring_bytes, ring % 2, at),
                            rows * l->kv_row, l->kv_size);
        }
    }
}

/* Copies numbers of `size` bytes from memory to a save, or with `load` from a save to memory. */
static void grf_save_copy(void *memory, uint8_t *saved, int bytes, int size, int load) {
    uint8_t *to = load ? (uint8_t *)memory : saved;
    memcpy(to, load ? saved : (uint8_t *)memory, (size_t)bytes);
    grf_turn_numbers(to, bytes, size);
}

/* The saved fields of a sampler stand first in it, in the order of the format and without gaps.
 * Loading takes any numbers, because griffin_sample checks them at every call. */
typedef char grf_sampler_has_no_gaps[offsetof(griffin_sampler, recent) == 36 ? 1 : -1];

static void grf_save_copy_sampler(griffin_sampler *s, uint8_t *p, int load) {
    grf_save_copy(&s->seed, p, 8, 8, load);
    grf_save_copy((uint8_t *)s + 8, p + 8, GRF_SAVED_SAMPLER - 8, 4, load);
}

/* Sampler, decoder and checksum, whose sizes do not divide by 8, are the last piece. */
#define GRF_SAVE_END (GRF_SAVED_SAMPLER + GRF_SAVED_DECODER + 8)

static int64_t grf_state_save(const griffin_model *m, griffin_state *s, griffin_sampler *sampler,
                              const griffin_decoder *decoder, grf_pieces *pieces) {
    uint8_t header[GRF_SAVE_HEADER], end[GRF_SAVE_END], *p = end;
    int parts = (sampler ? GRF_HAS_SAMPLER : 0) | (decoder ? GRF_HAS_DECODER : 0);
    int64_t bytes = grf_saved_bytes(m, s->position);
    memcpy(header, "GRIFSTAT", 8);
    grf_put_u32(header + 8, GRF_SAVE_VERSION);
    grf_put_u32(header + 12, (uint32_t)parts);
    grf_put_u64(header + 16, s->tag ? m->layout.saved_tag : 0);
    grf_put_u64(header + 24, (uint64_t)s->position);
    grf_put_u64(header + 32, s->history);
    grf_put_u64(header + 40, (uint64_t)bytes);
    pieces->hash = grf_hash_start(GRF_HASH_START, header, sizeof header);
    grf_pieces_write(pieces, header, sizeof header);
    grf_pieces_move_state(m, pieces, s, s->position);
    if (sampler) { grf_save_copy_sampler(sampler, p, 0); p += GRF_SAVED_SAMPLER; }
    if (decoder) { memcpy(p, decoder, GRF_SAVED_DECODER); p += GRF_SAVED_DECODER; }
    grf_put_u64(p, grf_hash(pieces->hash, end, (size_t)(p - end)));
    grf_pieces_write(pieces, end, (size_t)(p - end) + 8);
    return pieces->error ? pieces->error : grf_save_size(bytes, parts);
}

static int grf_save_check_version(const griffin_model *m, const uint8_t *header) {
    if (memcmp(header, "GRIFSTAT", 8) != 0)
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: not a saved state");
    if (grf_get_u32(header + 8) != GRF_SAVE_VERSION)
        return grf_fail(&m->host, GRIFFIN_E_VERSION, "load: saved by %s griffin.h, in version %u "
                        "of the format, expected %d",
                        grf_get_u32(header + 8) < GRF_SAVE_VERSION ? "an older" : "a newer",
                        (uint64_t)grf_get_u32(header + 8), GRF_SAVE_VERSION);
    return GRIFFIN_OK;
}

static int grf_save_check_header(const griffin_model *m, const uint8_t *header) {
    uint64_t position = grf_get_u64(header + 24), tag = grf_get_u64(header + 16);
    if (position > INT64_MAX / 2 || (position == 0) != (tag == 0))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: position %u is not possible", position);
    if (position && tag != m->layout.saved_tag)
        return grf_fail(&m->host, GRIFFIN_E_MISMATCH,
                        "load: saved with another model, or other attn_keys or kv_type");
    if (grf_get_u64(header + 40) != (uint64_t)grf_saved_bytes(m, (int64_t)position)
        || grf_get_u32(header + 12) > (GRF_HAS_SAMPLER | GRF_HAS_DECODER))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: the sizes do not fit the position");
    return GRIFFIN_OK;
}

/* A save that is in memory is checked before anything else, so that it can replace a state. */
static int grf_save_check(const griffin_model *m, const uint8_t *p, size_t size) {
    if (size < GRF_SAVE_HEADER + 8)
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: not a saved state");
    int error = grf_save_check_version(m, p);
    if (error) return error;
    if (grf_get_u64(p + size - 8) != grf_hash(GRF_HASH_START, p, size - 8))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT,
                        "load: the checksum does not match, the bytes are damaged or cut");
    error = grf_save_check_header(m, p);
    if (error) return error;
    if (size != (uint64_t)grf_save_size((int64_t)grf_get_u64(p + 40), (int)grf_get_u32(p + 12)))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: %u bytes do not fit what they hold",
                        (uint64_t)size);
    return GRIFFIN_OK;
}

static int grf_load_header(const griffin_model *m, grf_pieces *pieces, uint8_t *header,
                           const griffin_sampler *sampler, const griffin_decoder *decoder) {
    grf_pieces_read(m, pieces, header, GRF_SAVE_HEADER);
    if (!pieces->error) pieces->error = grf_save_check_version(m, header);
    if (!pieces->error) pieces->error = grf_save_check_header(m, header);
    if (pieces->error) return pieces->error;
    pieces->hash = grf_hash_start(GRF_HASH_START, header, GRF_SAVE_HEADER);
    int lacks = ~(int)grf_get_u32(header + 12);
    if ((sampler && (lacks & GRF_HAS_SAMPLER)) || (decoder && (lacks & GRF_HAS_DECODER)))
        pieces->error = grf_fail(&m->host, GRIFFIN_E_MISMATCH, "load: saved without a %s",
                                 sampler && (lacks & GRF_HAS_SAMPLER) ? "sampler" : "decoder");
    return pieces->error;
}

/* From the header on, the state is fresh until all has been read. */
static int grf_state_load(const griffin_model *m, griffin_state *s, griffin_sampler *sampler,
                          griffin_decoder *decoder, grf_pieces *pieces) {
    uint8_t header[GRF_SAVE_HEADER], end[GRF_SAVE_END], *p = end;
    if (grf_load_header(m, pieces, header, sampler, decoder)) return pieces->error;
    int parts = (int)grf_get_u32(header + 12);
    int64_t position = (int64_t)grf_get_u64(header + 24);
    size_t size = (size_t)(grf_save_size(0, parts) - GRF_SAVE_HEADER);
    if (s) memset(s, 0, (size_t)m->info.state_bytes);
    grf_pieces_move_state(m, pieces, s, position);
    grf_pieces_read(m, pieces, end, size);
    if (!pieces->error && !pieces->checked
        && grf_get_u64(end + size - 8) != grf_hash(pieces->hash, end, size - 8))
        pieces->error = grf_fail(&m->host, GRIFFIN_E_FORMAT,
                                 "load: the checksum does not match, the bytes are damaged");
    if (pieces->error && s) memset(s, 0, (size_t)m->info.state_bytes);
    if (pieces->error || !s) return pieces->error;
    s->position = s->oldest = position;
    s->tag = position ? m->layout.tag : 0;
    s->history = grf_get_u64(header + 32);
    if (sampler) grf_save_copy_sampler(sampler, p, 1);
    if (parts & GRF_HAS_SAMPLER) p += GRF_SAVED_SAMPLER;
    if (decoder) memcpy(decoder, p, GRF_SAVED_DECODER);
    return GRIFFIN_OK;
}

/* ---- memory of the host as the other end; it is large enough ---- */

typedef struct grf_bytes { uint8_t *at; } grf_bytes;

static int grf_bytes_write(const void *data, size_t size, void *user) {
    grf_bytes *to = (grf_bytes *)user;
    memcpy(to->at, data, size);
    to->at += size;
    return 0;
}

static int grf_bytes_read(void *data, size_t size, void *user) {
    grf_bytes *from = (grf_bytes *)user;
    memcpy(data, from->at, size);
    from->at += size;
    return (int)size;
}

static int grf_state_load_bytes(const griffin_model *m, griffin_state *s, griffin_sampler *sampler,
                                griffin_decoder *decoder, uint8_t *data, size_t size) {
    grf_bytes from = { data };
    grf_pieces pieces = { NULL, grf_bytes_read, &from, 1, 0, 0 };
    int error = grf_save_check(m, data, size);
    return error ? error : grf_state_load(m, s, sampler, decoder, &pieces);
}

/* ================================================================= >>sampler
 * From logits to a token, in this order:
 *
 *     biases           added to their logits
 *     mask             the host's function, which changes any logit
 *     repeat_penalty   tokens of the recent past become less likely
 *     temperature 0    ends here: the likeliest token, of equals the lowest
 *     top_k            the k likeliest stay
 *     temperature      weight = exp((logit - best) / temperature)
 *     top_p            the likeliest stay, until they have p of the sum of weights
 *     min_p            weights below min_p times the best, which is 1, become 0
 *     draw             a random number between 0 and the sum of weights says which token
 *
 * The vocabulary is never sorted. top_k and top_p find the least entry to keep by counting, eight
 * bits of its key at a time, in four runs over the vocabulary. */

/* Keeps the fewest entries whose weights reach `target` and sets the others to `none`. The greatest
 * are kept first, and among equals those of the lowest index. An entry weighs its value, or 1.
 *
 * threshold is the key of the least entry that is kept. Its bits are found from the top: each round
 * sums the weights of all entries whose higher bits are those of the threshold, by their next eight
 * bits, and takes the greatest byte at which the target is reached. */
static void grf_sampler_select_top(float *x, int n, double target, int by_value, float none) {
    double above = 0;                       /* weight of entries above the threshold */
    uint32_t threshold = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        double weights[256] = { 0 };
        for (int i = 0; i < n; i++) {
            uint32_t key = grf_float_key(x[i]);
            if (shift < 24 && (key ^ threshold) >> (shift + 8)) continue;
            weights[key >> shift & 255] += by_value ? (double)x[i] : 1;
        }
        int byte = 255;
        for (; byte > 0 && above + weights[byte] < target; byte--) above += weights[byte];
        threshold |= (uint32_t)byte << shift;
    }
    for (int i = 0; i < n; i++) {
        uint32_t key = grf_float_key(x[i]);
        if (key > threshold) continue;
        if (key == threshold && above < target) above += by_value ? (double)x[i] : 1;
        else x[i] = none;
    }
}

/* False for every NaN. */
static int grf_sampler_valid(const griffin_sampler *s) {
    return s->temperature >= 0 && s->temperature < INFINITY
        && s->top_p >= 0 && s->top_p <= 1 && s->min_p >= 0 && s->min_p <= 1
        && s->repeat_penalty >= 0 && s->repeat_penalty < INFINITY
        && s->top_k >= 0 && s->repeat_last >= 0 && s->repeat_last <= GRIFFIN_RECENT
        && s->bias_count >= 0 && (s->biases || !s->bias_count);
}

static int grf_sampler_check_biases(const griffin_model *model, const griffin_sampler *s, int n) {
    for (int i = 0; i < s->bias_count; i++) {
        const griffin_bias *b = &s->biases[i];
        if (b->token < 0 || b->token >= n || !(b->bias >= -INFINITY)) {
            return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "griffin_sample: biases[%d] is NaN, "
                            "or its token %d not one of %d", i, (int)b->token, n);
        }
    }
    return GRIFFIN_OK;
}

/* The sum of opposite infinities is NaN, which counts as banned. */
static void grf_sampler_apply_biases(const griffin_sampler *s, float *logits) {
    for (int i = 0; i < s->bias_count; i++) logits[s->biases[i].token] += s->biases[i].bias;
}

/* Keskar et al. 2019 (CTRL): positive logits of recent tokens are divided by the penalty, others
 * multiplied. A token that occurs several times is only changed once. */
static void grf_sampler_penalise(const griffin_sampler *s, float *logits, int n) {
    uint32_t last = s->repeat_last ? (uint32_t)s->repeat_last : GRIFFIN_RECENT;
    if (last > s->accepted) last = s->accepted;
    for (uint32_t i = 1; i <= last; i++) {
        int32_t token = s->recent[(s->accepted - i) % GRIFFIN_RECENT];
        uint32_t k = 1;
        while (k < i && s->recent[(s->accepted - k) % GRIFFIN_RECENT] != token) k++;
        if (k < i || token < 0 || token >= n) continue;
        if (logits[token] > 0) logits[token] /= s->repeat_penalty;
        else logits[token] *= s->repeat_penalty;
    }
}

/* The lowest index of the greatest. NaN counts as minus infinity, and becomes it. */
static int grf_sampler_best(float *x, int n) {
    float top = -INFINITY;
    int best = 0;
    for (int i = 0; i < n; i++) {
        float value = x[i] >= -INFINITY ? x[i] : -INFINITY;
        x[i] = value;
        if (value > top) { top = value; best = i; }
    }
    return best;
}

/* Logits to weights, of which the greatest is 1. An infinite logit leaves only its equals. */
static void grf_sampler_weigh(const griffin_model *model, float temperature, float best, float *x,
                              int n) {
    for (int i = 0; i < n; i++) {
        x[i] = best == INFINITY ? (x[i] == best ? 0 : -INFINITY) : (x[i] - best) / temperature;
    }
    model->kernels->exp_shifted(x, x, 0, n);
}

static double grf_sampler_sum(const float *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum;
}

/* The next number of splitmix64 (Steele et al. 2014), as a double in [0, 1). */
static double grf_sampler_random(uint64_t *seed) {
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * (1.0 / 9007199254740992.0);
}

/* Rounding may leave the sum below `at`: then the last token with a weight is taken. */
static int grf_sampler_draw(const float *weights, int n, uint64_t *seed) {
    double at = grf_sampler_random(seed) * grf_sampler_sum(weights, n), sum = 0;
    int last = 0;
    for (int i = 0; i < n && sum <= at; i++) {
        if (weights[i] > 0) last = i;
        sum += weights[i];
    }
    return last;
}

/* Where a mask leaves one token there is nothing to select. It draws a random number all the same,
 * and leaves the same weights. */
static int grf_sampler_draw_only(float *x, int n, int only, uint64_t *seed) {
    for (int i = 0; i < n; i++)
        if (i != only && x[i] != -INFINITY) return -1;
    for (int i = 0; i < n; i++) x[i] = i == only;
    grf_sampler_random(seed);
    return only;
}

static int grf_sampler_choose(const griffin_model *model, griffin_sampler *s, float *x, int n) {
    int best = grf_sampler_best(x, n);
    if (s->repeat_penalty > 0) {
        grf_sampler_penalise(s, x, n);
        best = grf_sampler_best(x, n);
    }
    if (x[best] == -INFINITY) return -1;
    if (s->temperature <= 0) return best;
    if (grf_sampler_draw_only(x, n, best, &s->seed) >= 0) return best;
    if (s->top_k > 0 && s->top_k < n) grf_sampler_select_top(x, n, s->top_k, 0, -INFINITY);
    grf_sampler_weigh(model, s->temperature, x[best], x, n);
    if (s->top_p > 0 && s->top_p < 1) {
        grf_sampler_select_top(x, n, s->top_p * grf_sampler_sum(x, n), 1, 0);
    }
    float least = s->min_p * x[best];
    for (int i = 0; i < n; i++) {
        if (x[i] < least) x[i] = 0;
    }
    return grf_sampler_draw(x, n, &s->seed);
}

/* ================================================================= >>guess
 * A sequence whose text is ahead of its state. A pass runs its known tokens, which the state does
 * not have yet, and guesses after them. The pass is held: it is complete, but the state has not
 * moved on. Tokens are then taken one after the other, from the logits of their rows. When the next
 * pass is wanted, what was taken goes from the held pass into the state. That needs the recurrent
 * part as it was after the last right token. A context with room for guesses has it after each of
 * them. In another one, only a pass whose guesses were all right can go into the state. Else it is
 * dropped, and the tokens that were taken are run again together with the next guesses. So nothing
 * that was wrong has ever been in a state, and no pass is made only to repair one.
 *
 * How many guesses are run is decided here, in passes of one token as the unit of time. A token
 * more costs c = row_cost. If each guess is right with probability p, then of n guesses
 *
 *     p + p^2 + .. + p^n      are right, and each saves a pass
 *     n c                     is what they cost,
 *     c (known + j)           what the tokens cost that run again if guess j is the first wrong one
 *                             and the context has no room for guesses,
 *     copy                    what holding the pass costs: a copy of the recurrent part
 *
 * and the n with the best sum is taken. As estimates may be wrong, a balance of what was won and
 * lost is kept: each token adds GRF_GUESS_LOSS, and guesses must not bring it below GRF_GUESS_DEBT.
 * Guesses that are not run are compared all the same, so that the odds are known before they are
 * trusted. */

#define GRF_GUESS_LOSS 0.01f
#define GRF_GUESS_DEBT (-4.0f)
#define GRF_GUESS_CREDIT 4.0f               /* more is forgotten, so that it cannot be lost again */

static int grf_guess_check(const griffin_guess *g) {
    if (!g || !g->model) return GRIFFIN_E_ARGUMENT;
    if (g->state && g->tokens && g->logits && g->room >= 2 && g->rows >= 1 && g->known >= 0
        && g->known <= g->room && g->guesses >= 0 && g->guesses <= g->room - g->known
        && g->running >= 0 && g->running <= g->guesses && g->certain >= 0
        && g->certain <= g->guesses && g->row >= 0 && g->row < g->rows && g->row_cost >= 0)
        return GRIFFIN_OK;
    return grf_fail(&g->model->host, GRIFFIN_E_ARGUMENT,
                    "guess: a field is out of range, or a pointer null");
}

static int grf_guess_check_token(const griffin_model *m, int32_t token) {
    if (token >= 0 && token < m->info.config.vocab) return GRIFFIN_OK;
    return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "guess: there is no token %d", token);
}

static float grf_guess_row_cost(const griffin_guess *g) {
    return g->row_cost > 0 ? g->row_cost : 0.25f;
}

/* Copies read and write, and weights are only read. */
static float grf_guess_copy_cost(const griffin_model *m) {
    return 8.0f * (float)m->layout.recurrent_floats / (float)m->info.file_bytes;
}

static void grf_odds_learn(griffin_odds *odds, int right) {
    odds->tried += 1 - odds->tried / 16;
    odds->right += (right ? 1.0f : 0.0f) - odds->right / 16;
}

/* Odds that keep guesses from being made do not keep them for ever. */
static void grf_odds_forget(griffin_odds *odds) {
    odds->tried -= odds->tried / 64;
    odds->right -= odds->right / 64;
}

/* Of a copy of the odds the host may have made anything. */
static float grf_odds_of(const griffin_odds *odds) {
    float p = (odds->right + 0.5f) / (odds->tried + 1);
    return p >= 0 && p <= 1 ? p : 0;
}

/* Fits time = pass_time (1 + rows row_cost) to the lower quartile of what is measured, a small step
 * for each pass: some times are much too long, where the machine did something else in between, and
 * a mean would follow these. */
static void grf_guess_measure(griffin_guess *g, float rows, float time) {
    float c = grf_guess_row_cost(g);
    if (g->pass_time <= 0) g->pass_time = time / (1 + rows * c);
    float step = (time < g->pass_time * (1 + rows * c) ? -3 : 1) / 32.0f / (1 + rows);
    g->pass_time *= 1 + step;
    c += step * rows * (c + 0.05f);
    g->row_cost = c > 0.01f ? c : 0.01f;
}

/* How many of at most `most` guesses after g->certain others are worth it, if one of them costs c
 * to make and to run. */
static int grf_guess_worth(const griffin_guess *g, const griffin_odds *odds, int most,
                           float saving, float c) {
    float p = grf_odds_of(odds), all = 1, best = 0, gain = 0;
    float again = g->again ? grf_guess_row_cost(g) : 0;
    float copy = g->certain ? 0 : grf_guess_copy_cost(g->model);
    int ahead = g->known + g->certain, worth = 0;
    for (int n = 1; n <= most; n++, all *= p) {     /* all: the n - 1 before this one are right */
        float loss = c * (float)n + again * (float)ahead + copy;    /* if the first is wrong */
        gain += all * (p * saving - (1 - p) * again * (float)(ahead + n - 1)) - c;
        if (gain - copy > best && g->balance - loss > GRF_GUESS_DEBT) {
            best = gain - copy;
            worth = n;
        }
    }
    return worth;
}

/* Among `sequences` of a pass, a token that needs no row saves its share. */
static void grf_guess_choose(griffin_guess *g, const griffin_context *context, int sequences,
                             int most) {
    float c = grf_guess_row_cost(g), others = (float)(sequences - 1);
    g->saving = (1 + c * others) / (1 + others);
    g->again = context->model->layout.recurrent_floats && !context->max_guesses;
    if (context->model->layout.recurrent_floats && !context->recurrent) most = 0;
    if ((float)g->certain * (g->saving - c) < grf_guess_copy_cost(g->model) && g->certain) most = 0;
    if (g->certain > most) g->certain = g->guesses = most;
    int uncertain = (int)grf_min64(most, g->guesses) - g->certain;
    g->running = g->certain;
    if (uncertain > 0 && g->odds)
        g->running += grf_guess_worth(g, g->odds, uncertain, g->saving, c);
}

/* Drops from the known tokens those that the state has by now. */
static int grf_guess_follow_state(griffin_guess *g) {
    const griffin_state *s = g->state;
    uint64_t history = g->history;
    int n = 0;
    while (n < g->known && g->position + n < s->position)
        history = grf_state_next_history(history, g->tokens[n++]);
    if (g->position + n != s->position || history != s->history)
        return grf_fail(&g->model->host, GRIFFIN_E_MISMATCH,
                        "guess: other calls have changed the state before griffin_guess_finish");
    g->position += n;
    g->history = history;
    g->known -= n;
    memmove(g->tokens, g->tokens + n, (size_t)(g->known + g->guesses) * sizeof *g->tokens);
    return GRIFFIN_OK;
}

/* What a held pass has run of the known tokens goes into the state. */
static int grf_guess_settle(griffin_context *c, griffin_guess *g) {
    if (g->known == 0) return GRIFFIN_OK;
    for (int i = 0; i < c->spans && c->held && c->op == c->model->n_ops; i++) {
        const grf_span_in_pass *in = c->span + i;
        int n = 0;
        if (in->state != g->state || in->position != g->state->position
            || in->history != g->state->history) continue;
        while (n < g->known && n < in->count && c->token[in->first + n] == g->tokens[n]) n++;
        if (grf_span_can_commit(c, in, n) && (n == in->count || !g->certain))
            grf_span_commit(c, i, n);
    }
    return grf_guess_follow_state(g);
}

/* The bits of a NaN that no kernel makes. Where a pass will write logits, the last one is this
 * until the pass is complete, for the last chunk of the last operation writes there. So a pass that
 * was left half done is as none, and the host may move its structs meanwhile. */
static const uint32_t grf_not_yet = 0x7fc0c0de;

static int grf_guess_ready(const griffin_guess *g) {
    const float *last = g->logits + (g->row + 1) * (int64_t)g->model->info.config.vocab - 1;
    return g->ready && memcmp(last, &grf_not_yet, sizeof grf_not_yet) != 0;
}

static int grf_guess_needs_pass(const griffin_guess *g) {
    return g->known > 0 && !grf_guess_ready(g);
}

/* A failure leaves all of them as they were, but for known tokens that their states have. */
static int grf_guesses_check(const griffin_context *c, griffin_guess *g, int count) {
    if (!c) return GRIFFIN_E_ARGUMENT;
    if (!g || count < 1) return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT, "no guesses");
    for (int i = 0; i < count; i++) {
        int error = grf_guess_check(g + i);
        if (error) return error;
        if (g[i].model != c->model)
            return grf_fail(&c->model->host, GRIFFIN_E_MISMATCH, "guess %d is of another model", i);
        for (int j = 0; j < i; j++)
            if (g[j].state == g[i].state)
                return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT,
                                "guesses %d and %d share a state", j, i);
        error = grf_state_check(c->model, g[i].state);
        if (!error && g[i].known) error = grf_guess_follow_state(g + i);
        if (error) return error;
    }
    return GRIFFIN_OK;
}

/* The first tokens of a sequence as a span without logits. */
static griffin_span grf_guess_span(const griffin_guess *g, int count) {
    griffin_span span;
    memset(&span, 0, sizeof span);
    span.state = g->state;
    span.tokens = g->tokens;
    span.count = count;
    return span;
}

static void grf_guess_add_span(griffin_context *c, griffin_guess *g) {
    griffin_span span = grf_guess_span(g, g->known + g->running);
    float *logits = g->logits;
    int V = c->model->info.config.vocab, row = c->rows + g->known - 1 + g->certain;
    grf_span_in_pass *in = c->span + c->spans, *before = in - (c->spans > 0);
    grf_pass_add_span(c, &span, 0, span.count);
    if (c->max_guesses) {
        in->slots = g->running + 1;
        in->slot = in == before ? 0 : before->slot + before->slots;
    }
    g->row = g->certain > 0;                /* row 0 is then for the certain ones */
    for (logits += g->row * (int64_t)V; row < c->rows; row++, logits += V) {
        memcpy(logits + V - 1, &grf_not_yet, sizeof grf_not_yet);
        c->wanted[c->wanted_rows].row = row;
        c->wanted[c->wanted_rows++].logits = logits;
    }
    g->ready = 1;
    g->passes++;
    g->guessed += (uint64_t)g->running;
    if (!g->running) return;
    c->held = 1;
    g->balance -= grf_guess_row_cost(g) * (float)g->running + grf_guess_copy_cost(c->model);
}

/* Makes room for the known tokens first. `now`: the pass will not be dropped. */
static int grf_guess_begin(griffin_context *c, griffin_guess *g, int count, int now) {
    int64_t rows = 0;
    int spans = 0, running = 0, error = grf_guesses_check(c, g, count);
    for (int i = 0; i < count && !error; i++) {
        error = grf_guess_settle(c, g + i);
        if (error || !grf_guess_needs_pass(g + i)) continue;
        griffin_span span = grf_guess_span(g + i, g[i].known + g[i].guesses);
        error = grf_span_check(c->model, &span);
        spans++;
        rows += g[i].known;
    }
    if (error || !spans) return error;
    if (!now && c->no_slices)
        return grf_fail(&c->model->host, GRIFFIN_E_SPACE, "guess: the context has no_slices");
    if (rows > c->max_rows || spans > c->max_spans)
        return grf_fail(&c->model->host, GRIFFIN_E_SPACE, "guess: %u tokens in %d sequences; the "
                        "context has room for %d in %d", (uint64_t)rows, spans, c->max_rows,
                        c->max_spans);
    for (int i = 0; i < count; i++) {
        if (!grf_guess_needs_pass(g + i)) continue;
        int64_t most = c->max_rows - rows;
        if (c->max_guesses) most = grf_min64(most, c->max_guesses - running);
        grf_guess_choose(g + i, c, spans, (int)most);
        rows += g[i].running;
        running += g[i].running;
    }
    grf_pass_clear(c, now && !running);
    for (int i = 0; i < count; i++)
        if (grf_guess_needs_pass(g + i)) grf_guess_add_span(c, g + i);
    grf_pass_cut(c);
    return (int)grf_min64(c->chunks_left, INT_MAX);
}

/* ---- lookup ----
 * The memory has a ring of tokens, and after it for each length a table from the hash of so many
 * tokens to the position after them: the last one, and 0 for none. What a table says is compared
 * with the text, so it may be wrong. */

#define GRF_LOOKUP_NEAR 6                   /* tokens, before and after, where a copy comes back */
#define GRF_LOOKUP_LOST 12                  /* tokens until it is taken for none */

static int grf_lookup_length(int level) { return 2 << level; }

static int32_t grf_lookup_token(const griffin_lookup *l, uint32_t at) {
    return l->memory[at & (uint32_t)(l->size - 1)];
}

/* The entry for the last tokens, or null if there are not so many. */
static int32_t *grf_lookup_entry(const griffin_lookup *l, int level) {
    uint32_t n = (uint32_t)grf_lookup_length(level);
    uint64_t hash = n;
    if (n > l->count || n > (uint32_t)l->size) return NULL;
    for (uint32_t i = 1; i <= n; i++)
        hash = (hash ^ (uint32_t)grf_lookup_token(l, l->count - i)) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    return l->memory + (int64_t)l->size * (level + 1) + (int64_t)(hash & (uint64_t)(l->size - 1));
}

/* Did the last n tokens occur before this position? All of them must be in the ring. */
static int grf_lookup_agrees(const griffin_lookup *l, uint32_t at, uint32_t n) {
    if (at < n || at >= l->count || l->count - at + n > (uint32_t)l->size) return 0;
    for (uint32_t i = 1; i <= n; i++)
        if (grf_lookup_token(l, at - i) != grf_lookup_token(l, l->count - i)) return 0;
    return 1;
}

/* Finds where the text may go on, and returns the index of the odds for that, or -1. */
static int grf_lookup_find(griffin_lookup *l) {
    int level = GRIFFIN_LOOKUP_LENGTHS;
    while (--level >= 0) {
        uint32_t at = (uint32_t)l->found[level];
        if (level == 0 && l->copied) break;
        if (!grf_lookup_agrees(l, at, (uint32_t)grf_lookup_length(level))) continue;
        l->copied = at;
        l->astray = 0;
        return level;
    }
    for (uint32_t i = 0; l->copied && i <= 2 * GRF_LOOKUP_NEAR; i++) {
        uint32_t at = l->copied + (i & 1 ? (i + 1) / 2 : 0u - i / 2);       /* 0, 1, -1, 2, ... */
        if (!grf_lookup_agrees(l, at, 1)) continue;
        l->copied = at;
        return GRIFFIN_LOOKUP_LENGTHS;
    }
    return grf_lookup_agrees(l, l->copied, 0) ? GRIFFIN_LOOKUP_LENGTHS + 1 : -1;
}

static int grf_lookup_check(const griffin_lookup *l) {
    return l && l->memory && l->size > 0 && l->size <= 1 << 28 && !(l->size & (l->size - 1));
}

/* ---- draft ---- */

static int grf_draft_check(const griffin_draft *d) {
    return d && d->context && d->state && d->mark && d->logits && d->known >= 0 && d->drafted >= 0
        && d->known <= GRIFFIN_DRAFT_TOKENS && d->fed >= 0 && d->fed <= GRIFFIN_DRAFT_TOKENS
        && d->cost >= 0;
}

/* Brings the draft's state to the end of all known tokens, and sets the mark there. If it has fed
 * other tokens or more, it goes back to the mark first. */
static int grf_draft_catch_up(griffin_draft *d) {
    const griffin_model *m = d->context->model;
    int error = GRIFFIN_OK;
    if (d->fed && (d->astray || d->fed >= d->known)) {
        error = griffin_rewind(m, d->state, d->mark);
        if (!error) d->fed = 0;
    }
    if (!error && d->known > d->fed)
        error = griffin_prefill(d->context, d->state, d->tokens + d->fed, d->known - d->fed,
                                d->logits);
    if (!error) error = griffin_mark(m, d->state, d->mark);
    if (!error) d->known = d->fed = d->astray = 0;
    return error;
}

/* ================================================================= >>gguf
 * The container of a model file: GGUF, versions 2 and 3, which differ in nothing but the number.
 *
 *   bytes 0..3   "GGUF"
 *   u32          version, 3 (2 is read as well)
 *   u64          number of tensors
 *   u64          number of metadata pairs
 *
 *   for each pair:
 *     text       key: 1 to 65535 printable ASCII characters, no two keys alike
 *     u32        type of the value
 *     ...        the value
 *
 *   for each tensor:
 *     text       name: 1 to 63 bytes, none of them zero, no two names alike
 *     u32        rank, 1 to 4
 *     u64[rank]  ne, the sizes; ne[0] is the row length and runs fastest, so a matrix of R rows
 *                and C columns has ne = { C, R }
 *     u32        number format (grf_formats); ne[0] must be a whole number of blocks
 *     u64        offset of its data from the data section, a multiple of the alignment
 *
 *   zero bytes up to a multiple of the alignment, counted from the start of the file
 *   data section: the tensors in the order of their infos; zero bytes fill the gaps
 *
 * Numbers are little-endian, and nothing before the data section is aligned. A text is a u64
 * length and so many bytes, without a zero at the end. Values (griffin_value_type):
 *
 *   0 u8   1 i8   2 u16   3 i16   4 u32   5 i32   6 f32   10 u64   11 i64   12 f64
 *   7 bool, one byte, 0 or 1      8 text
 *   9 array: u32 type of the elements, u64 count, then the bare elements; no arrays of arrays
 *
 * The alignment is the u32 of key general.alignment, a power of two from 8 to 65536, or 32 if
 * there is no such key. No padding is needed after the last tensor.
 *
 * Everything is checked when a file is opened, before anyone sees a pointer into it. Afterwards
 * lengths, counts, types, shapes and offsets can be trusted. What is allocated is a small
 * multiple of the file's size at most, whatever the counts in it say. */

#define GRF_GGUF_ITEMS  65536               /* most tensors, and most metadata pairs */
#define GRF_GGUF_TEXT   ((uint64_t)1 << 30) /* bytes in the longest text */
#define GRF_GGUF_SIZE   ((uint64_t)1 << 40) /* in one dimension */
#define GRF_GGUF_ELEMS  ((uint64_t)1 << 48) /* in one tensor */

/* The numbers that tensors are made of. The library reads f32 vectors and matrices in tiles; of the
 * others it needs the size, to check the file and to refuse them by name. */
typedef struct grf_format {
    uint32_t    id;                         /* in GGUF */
    const char *name;
    uint32_t    elements, bytes;            /* of a block; 0: cannot be weights */
} grf_format;

#define GRF_FORMAT_F32 0
#define GRF_FORMAT_I8  24                   /* bytes of tiles */

static const grf_format grf_formats[] = {
    { GRF_FORMAT_F32, "f32", 1, 4 }, { 1, "f16", 1, 2 }, { 30, "bf16", 1, 2 },
    { GRF_FORMAT_I8, "i8", 1, 1 },
    {  8, "q8_0",  32,  34 }, {  2, "q4_0",  32,  18 }, {  3, "q4_1",  32,  20 },
    {  6, "q5_0",  32,  22 }, {  7, "q5_1",  32,  24 }, { 12, "q4_k", 256, 144 },
    { 13, "q5_k", 256, 176 }, { 14, "q6_k", 256, 210 },
    { 10, "q2_k", 256,  84 }, { 11, "q3_k", 256, 110 },
    {  9, "q8_1", 0, 0 }, { 15, "q8_k", 0, 0 },
    { 25, "i16",  0, 0 }, { 26, "i32",  0, 0 }, { 27, "i64",  0, 0 }, { 28, "f64",  0, 0 }
};

/* Returns null if nothing has this number. */
static const grf_format *grf_format_find(uint32_t id) {
    for (int i = 0; i < GRF_COUNT(grf_formats); i++)
        if (grf_formats[i].id == id) return &grf_formats[i];
    return NULL;
}

/* bytes: the fewest that one takes as the element of an array; 0 if it cannot be one. */
static const struct { const char *name; uint32_t bytes; } grf_values[] = {
    { "u8", 1 }, { "i8", 1 }, { "u16", 2 }, { "i16", 2 }, { "u32", 4 }, { "i32", 4 },
    { "f32", 4 }, { "bool", 1 }, { "string", 8 }, { "array", 0 },
    { "u64", 8 }, { "i64", 8 }, { "f64", 8 }
};

#define GRF_VALUES ((uint32_t)GRF_COUNT(grf_values))

/* A metadata pair. A single value is stored like an array of one: element_type is type and count
 * is 1. */
typedef struct grf_kv {
    grf_name name;                          /* the key */
    uint32_t type, element_type;
    uint64_t count;
    uint64_t offset;                        /* of element 0 in the file */
} grf_kv;

struct grf_tensor {
    grf_name name;
    uint32_t type;                          /* id of a grf_format */
    int      rank;
    uint64_t ne[4];                         /* ne[0] runs fastest; 1 from ne[rank] on */
    uint64_t offset, bytes;                 /* in the file */
    uint64_t elements;
};

struct grf_gguf {
    const uint8_t *data;                    /* the file; names and texts point into it */
    uint64_t       size;
    uint32_t       version;
    int            any_type;                /* 1: tensors may be of types that cannot be weights */
    uint64_t       n_kv, n_tensors;
    grf_kv        *kv;                      /* both in the order of the file */
    grf_tensor    *tensors;
    grf_table      kv_names, tensor_names;
    void          *memory;
};

/* ---- a cursor over hostile bytes ------------------------------------------------- */

/* After the first step that does not fit, every read gives zeros. Check `ended` once per record. */
typedef struct grf_cursor { const uint8_t *data; uint64_t at, size; int ended; } grf_cursor;

static const uint8_t *grf_cursor_next(grf_cursor *c, uint64_t count) {
    const uint8_t *p = c->data + c->at;
    if (c->ended || count > c->size - c->at) { c->ended = 1; return NULL; }
    c->at += count;
    return p;
}

static uint32_t grf_cursor_u32(grf_cursor *c) {
    const uint8_t *p = grf_cursor_next(c, 4);
    return p ? grf_get_u32(p) : 0;
}

static uint64_t grf_cursor_u64(grf_cursor *c) {
    const uint8_t *p = grf_cursor_next(c, 8);
    return p ? grf_get_u64(p) : 0;
}

static grf_name grf_cursor_text(grf_cursor *c) {
    grf_name name;
    name.length = grf_cursor_u64(c);
    if (name.length > GRF_GGUF_TEXT) c->ended = 1;
    name.text = (const char *)grf_cursor_next(c, name.length);
    if (!name.text) name.length = 0;
    return name;
}

/* ---- opening ------------------------------------------------------------------------ */

static int grf_gguf_read_header(grf_gguf *g, grf_cursor *c, const grf_host *host) {
    const uint8_t *magic = grf_cursor_next(c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return grf_fail(host, GRIFFIN_E_FORMAT, "byte 0: not a GGUF file, expected \"GGUF\"");
    g->version   = grf_cursor_u32(c);
    g->n_tensors = grf_cursor_u64(c);
    g->n_kv      = grf_cursor_u64(c);
    if (c->ended)
        return grf_fail(host, GRIFFIN_E_FORMAT, "%u bytes, expected a header of 24", c->size);
    if (g->version && (g->version & 0xffff) == 0)
        return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "byte 4: wrong byte order, a big-endian file");
    if (g->version != 2 && g->version != 3)
        return grf_fail(host, GRIFFIN_E_VERSION, "byte 4: GGUF version %u, expected 2 or 3",
                        (uint64_t)g->version);
    /* The shortest pair has 13 bytes, the shortest tensor 24: no count can claim more memory
     * than the file has bytes to back it. */
    if (g->n_kv > GRF_GGUF_ITEMS || g->n_tensors > GRF_GGUF_ITEMS
        || g->n_kv * 13 + g->n_tensors * 24 > c->size - c->at)
        return grf_fail(host, GRIFFIN_E_FORMAT, "byte 8: %u tensors and %u metadata pairs are "
                        "more than %u bytes can hold", g->n_tensors, g->n_kv, c->size);
    return GRIFFIN_OK;
}

static int grf_gguf_allocate(grf_gguf *g, const grf_host *host) {
    uint64_t pairs = g->n_kv * sizeof *g->kv, size = pairs + g->n_tensors * sizeof *g->tensors;
    int error = grf_table_make(&g->kv_names, g->n_kv, host);
    if (!error) error = grf_table_make(&g->tensor_names, g->n_tensors, host);
    if (error) return error;
    g->memory = grf_host_allocate(host, size);
    if (!g->memory) return grf_fail_memory(host, size);
    g->kv = (grf_kv *)g->memory;
    g->tensors = (grf_tensor *)(void *)((uint8_t *)g->memory + pairs);
    return GRIFFIN_OK;
}

/* Each checker returns what is wrong, or null. */
static const char *grf_gguf_check_key(const grf_kv *kv) {
    if (kv->name.length < 1 || kv->name.length > 65535) return "the key must have 1 to 65535 bytes";
    for (uint64_t i = 0; i < kv->name.length; i++)
        if (kv->name.text[i] < 32 || kv->name.text[i] > 126)
            return "the key must be printable ASCII";
    if (kv->type >= GRF_VALUES) return "the type of the value must be 0 to 12";
    if (kv->element_type >= GRF_VALUES || !grf_values[kv->element_type].bytes)
        return "the type of the elements must be 0 to 12 and no array";
    return NULL;
}

/* Moves the cursor over the elements. */
static const char *grf_gguf_check_value(grf_cursor *c, const grf_kv *kv) {
    uint64_t bytes = grf_values[kv->element_type].bytes;
    if (kv->count > (c->size - c->at) / bytes) {
        c->ended = 1;
    } else if (kv->element_type == GRIFFIN_VALUE_STRING) {
        for (uint64_t i = 0; i < kv->count && !c->ended; i++) grf_cursor_text(c);
    } else {
        const uint8_t *p = grf_cursor_next(c, kv->count * bytes);
        for (uint64_t i = 0; kv->element_type == GRIFFIN_VALUE_BOOL && i < kv->count; i++)
            if (p[i] > 1) return "a bool must be 0 or 1";
    }
    return c->ended ? "the value reaches past the end of the file, or a text past 1 GiB" : NULL;
}

static int grf_gguf_read_kv(grf_cursor *c, grf_kv *kv, const grf_host *host) {
    uint64_t start = c->at;
    kv->name  = grf_cursor_text(c);
    kv->type  = kv->element_type = grf_cursor_u32(c);
    kv->count = 1;
    if (kv->type == GRIFFIN_VALUE_ARRAY) {
        kv->element_type = grf_cursor_u32(c);
        kv->count = grf_cursor_u64(c);
    }
    kv->offset = c->at;
    const char *wrong = c->ended ? "it reaches past the end of the file" : grf_gguf_check_key(kv);
    if (!wrong) wrong = grf_gguf_check_value(c, kv);
    if (!wrong) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "metadata at byte %u: %s (key '%t')", start, wrong,
                    kv->name.text, (size_t)kv->name.length);
}

static int grf_gguf_read_tensor(grf_cursor *c, grf_tensor *t, const grf_host *host) {
    uint64_t start = c->at;
    const char *wrong = NULL;
    t->name = grf_cursor_text(c);
    uint32_t rank = grf_cursor_u32(c);
    if (t->name.length < 1 || t->name.length > 63
        || memchr(t->name.text, 0, (size_t)t->name.length))
        wrong = "the name must have 1 to 63 bytes and no zero among them";
    else if (rank < 1 || rank > 4)
        wrong = "the number of dimensions must be 1 to 4";
    else
        for (uint32_t i = 0; i < 4; i++) t->ne[i] = i < rank ? grf_cursor_u64(c) : 1;
    t->rank   = (int)rank;
    t->type   = grf_cursor_u32(c);
    t->offset = grf_cursor_u64(c);
    if (c->ended) wrong = "it reaches past the end of the file";
    if (!wrong) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "tensor at byte %u: %s (name '%t')", start, wrong,
                    t->name.text, (size_t)(t->name.length < 64 ? t->name.length : 64));
}

/* grf_fail for a tensor that has a name. */
static int grf_tensor_fail(const grf_host *host, int error, const grf_tensor *t,
                           const char *format, ...) {
    grf_line line;
    va_list values;
    line.length = 0;
    va_start(values, format);
    grf_line_format(&line, format, values);
    va_end(values);
    return grf_fail(host, error, "tensor '%t': %t", t->name.text, (size_t)t->name.length,
                    line.text, line.length);
}

static int grf_tensor_ends_in(const grf_tensor *t, const char *ending) {
    size_t length = strlen(ending);
    return t->name.length > length
        && memcmp(t->name.text + t->name.length - length, ending, length) == 0;
}

/* A matrix in tiles is a tensor NAME.TILING. Returns the tiling; -1: it is none. */
static int grf_tensor_tiling(const grf_tensor *t) {
    for (int i = 0; i < GRF_TILINGS; i++) {
        const char *name = grf_tilings[i].name;
        if (grf_tensor_ends_in(t, name) && t->name.text[t->name.length - strlen(name) - 1] == '.')
            return i;
    }
    return -1;
}

/* Bytes are tiles; those of griffin.h 0.1 have to be listed, so that they can be refused by version
 * and converted. */
static int grf_tensor_may_be_bytes(const grf_tensor *t) {
    return grf_tensor_tiling(t) >= 0 || grf_tensor_ends_in(t, ".t32");
}

/* Number format and shape; works out elements and bytes, which cannot wrap below 2^48. The bytes
 * of a format without a known size are 0. */
static int grf_gguf_check_shape(const grf_gguf *g, grf_tensor *t, const grf_host *host) {
    static const grf_format unknown = { 0, "unknown", 1, 0 };
    const grf_format *format = grf_format_find(t->type);
    int sized = format && format->bytes;
    if (!g->any_type && (!sized || (format->id == GRF_FORMAT_I8 && !grf_tensor_may_be_bytes(t))))
        return grf_tensor_fail(host, GRIFFIN_E_UNSUPPORTED, t, "number format %u (%s) cannot be "
                               "read", (uint64_t)t->type, format ? format->name : "unknown");
    if (!sized) format = &unknown;
    t->elements = 1;
    for (int i = 0; i < 4; i++)
        if (t->ne[i] < 1 || t->ne[i] > GRF_GGUF_SIZE
            || !grf_multiply_checked(t->elements, t->ne[i], &t->elements)
            || t->elements >= GRF_GGUF_ELEMS)
            return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "dimension %d has size %u, expected "
                                   "1 to 2^40 and fewer than 2^48 elements", i, t->ne[i]);
    if (t->ne[0] % format->elements)
        return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "row length %u is not a multiple of %u "
                               "(type %s)", t->ne[0], (uint64_t)format->elements, format->name);
    t->bytes = t->elements / format->elements * format->bytes;
    return GRIFFIN_OK;
}

/* Turns the offset into one from the start of the file. Every tensor begins after the end of the
 * one before it, so that no two share a byte. */
static int grf_gguf_place(const grf_gguf *g, grf_tensor *t, uint64_t data_start,
                          uint64_t alignment, const grf_host *host) {
    const grf_tensor *before = t > g->tensors ? t - 1 : NULL;
    uint64_t room = g->size - data_start;
    if (t->offset % alignment)
        return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "offset %u is not a multiple of %u",
                               t->offset, alignment);
    if (t->offset > room || t->bytes > room - t->offset)
        return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "%u bytes at offset %u reach past the "
                               "end of the data section, which has %u", t->bytes, t->offset, room);
    t->offset += data_start;
    if (!before || t->offset >= before->offset + before->bytes) return GRIFFIN_OK;
    return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "starts at byte %u, before the end of '%t'",
                           t->offset, before->name.text, (size_t)before->name.length);
}

static const grf_kv *grf_gguf_find(const grf_gguf *g, const char *key) {
    return (const grf_kv *)grf_table_find(&g->kv_names, g->kv, sizeof *g->kv, key, strlen(key));
}

static const grf_tensor *grf_gguf_tensor(const grf_gguf *g, const char *name) {
    return (const grf_tensor *)grf_table_find(&g->tensor_names, g->tensors, sizeof *g->tensors,
                                              name, strlen(name));
}

static int grf_gguf_alignment(const grf_gguf *g, uint64_t *alignment, const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, "general.alignment");
    *alignment = 32;
    if (!kv) return GRIFFIN_OK;
    *alignment = kv->type == GRIFFIN_VALUE_U32 ? grf_get_u32(g->data + kv->offset) : 0;
    if (*alignment < 8 || *alignment > 65536 || (*alignment & (*alignment - 1)))
        return grf_fail(host, GRIFFIN_E_FORMAT, "metadata 'general.alignment' at byte %u must be a "
                        "power of two from 8 to 65536, as u32", kv->offset);
    return GRIFFIN_OK;
}

static int grf_gguf_read_metadata(grf_gguf *g, grf_cursor *c, const grf_host *host) {
    int error = GRIFFIN_OK;
    for (uint64_t i = 0; i < g->n_kv && !error; i++) {
        grf_kv *kv = &g->kv[i];
        error = grf_gguf_read_kv(c, kv, host);
        if (!error) error = grf_table_add_name(&g->kv_names, g->kv, sizeof *kv, (int)i, host);
        if (error == GRF_TWICE)
            error = grf_fail(host, GRIFFIN_E_FORMAT, "metadata at byte %u: key '%t' is there twice",
                             kv->offset, kv->name.text, (size_t)kv->name.length);
    }
    return error;
}

static int grf_gguf_read_tensors(grf_gguf *g, grf_cursor *c, const grf_host *host) {
    uint64_t alignment;
    int error = grf_gguf_alignment(g, &alignment, host);
    for (uint64_t i = 0; i < g->n_tensors && !error; i++) {
        grf_tensor *t = &g->tensors[i];
        error = grf_gguf_read_tensor(c, t, host);
        if (!error) error = grf_gguf_check_shape(g, t, host);
        if (!error)
            error = grf_table_add_name(&g->tensor_names, g->tensors, sizeof *t, (int)i, host);
        if (error == GRF_TWICE)
            error = grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "the name is there twice");
    }
    if (error || g->n_tensors == 0) return error;
    uint64_t data_start = c->at + (-c->at & (alignment - 1));
    if (data_start > g->size)
        return grf_fail(host, GRIFFIN_E_FORMAT, "the file ends at byte %u, before its data section "
                        "at byte %u", g->size, data_start);
    for (uint64_t i = 0; i < g->n_tensors && !error; i++)
        error = grf_gguf_place(g, &g->tensors[i], data_start, alignment, host);
    return error;
}

static void grf_gguf_close(grf_gguf *g, const grf_host *host) {
    grf_host_release(host, g->kv_names.entries);
    grf_host_release(host, g->tensor_names.entries);
    grf_host_release(host, g->memory);
    memset(g, 0, sizeof *g);
}

/* Borrows the data until grf_gguf_close. After a failure there is nothing to close. */
static int grf_gguf_open(grf_gguf *g, const void *data, uint64_t size, int any_type,
                         const grf_host *host) {
    grf_cursor cursor = { (const uint8_t *)data, 0, size, 0 };
    memset(g, 0, sizeof *g);
    g->data = cursor.data;
    g->size = size;
    g->any_type = any_type;
    int error = grf_gguf_read_header(g, &cursor, host);
    if (!error) error = grf_gguf_allocate(g, host);
    if (!error) error = grf_gguf_read_metadata(g, &cursor, host);
    if (!error) error = grf_gguf_read_tensors(g, &cursor, host);
    if (error) grf_gguf_close(g, host);
    return error;
}

/* ---- looking things up -------------------------------------------------------------- */

/* Gives the text at `at`, the start of its length, and returns where the next element starts. */
static const uint8_t *grf_gguf_next_string(const uint8_t *at, const char **text,
                                           uint64_t *length) {
    *length = grf_get_u64(at);
    *text   = (const char *)at + 8;
    return at + 8 + *length;
}

/* The getters return 1 and set *value if the key is there, return 0 and leave *value alone if
 * it is not, and fail if it holds something else than was asked for. */

static int grf_gguf_wrong(const grf_kv *kv, const char *expected, const grf_host *host) {
    return grf_fail(host, GRIFFIN_E_FORMAT, "metadata '%t' at byte %u is %s%s, expected %s",
                    kv->name.text, (size_t)kv->name.length, kv->offset,
                    grf_values[kv->element_type].name,
                    kv->type == GRIFFIN_VALUE_ARRAY ? " array" : "", expected);
}

static int grf_value_is_integer(uint32_t type) {
    return type <= GRIFFIN_VALUE_I32 || type == GRIFFIN_VALUE_U64 || type == GRIFFIN_VALUE_I64;
}

/* An integer of any type as 64 bits in two's complement; *negative says how to take them. The
 * signed types have the odd numbers. */
static uint64_t grf_value_integer(const uint8_t *p, uint32_t type, int *negative) {
    uint32_t bytes = grf_values[type].bytes;
    *negative = (type & 1) && type != GRIFFIN_VALUE_BOOL && p[bytes - 1] >> 7;
    uint64_t value = *negative ? UINT64_MAX : 0;
    for (uint32_t i = bytes; i-- > 0; ) value = value << 8 | p[i];
    return value;
}

/* A number of any type. */
static double grf_value_number(const uint8_t *p, uint32_t type) {
    double number;
    uint64_t bits;
    int negative;
    if (type == GRIFFIN_VALUE_F32) return grf_get_f32(p);
    if (type == GRIFFIN_VALUE_F64) {
        bits = grf_get_u64(p);
        memcpy(&number, &bits, 8);
        return number;
    }
    bits = grf_value_integer(p, type, &negative);
    return negative ? -(double)(0 - bits) : (double)bits;
}

static int grf_gguf_get_uint(const grf_gguf *g, const char *key, uint64_t max, uint64_t *value,
                             const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    int negative;
    if (!kv) return 0;
    if (!grf_value_is_integer(kv->type)) return grf_gguf_wrong(kv, "an integer", host);
    uint64_t number = grf_value_integer(g->data + kv->offset, kv->type, &negative);
    if (negative || number > max)
        return grf_fail(host, GRIFFIN_E_FORMAT, "metadata '%s' at byte %u: %s%u, expected 0 to %u",
                        key, kv->offset, negative ? "-" : "", negative ? 0 - number : number,
                        max);
    *value = number;
    return 1;
}

static int grf_gguf_get_float(const grf_gguf *g, const char *key, float *value,
                              const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    const double largest = 3.4028234663852886e38;           /* of the floats */
    if (!kv) return 0;
    if (!grf_value_is_integer(kv->type) && kv->type != GRIFFIN_VALUE_F32
        && kv->type != GRIFFIN_VALUE_F64) return grf_gguf_wrong(kv, "a number", host);
    double number = grf_value_number(g->data + kv->offset, kv->type);
    if (!(number >= -largest && number <= largest))
        return grf_gguf_wrong(kv, "a finite number", host);
    *value = (float)number;
    return 1;
}

static int grf_gguf_get_bool(const grf_gguf *g, const char *key, int *value,
                             const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GRIFFIN_VALUE_BOOL) return grf_gguf_wrong(kv, "bool", host);
    *value = g->data[kv->offset];
    return 1;
}

static int grf_gguf_get_string(const grf_gguf *g, const char *key, const char **text,
                               uint64_t *length, const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GRIFFIN_VALUE_STRING) return grf_gguf_wrong(kv, "string", host);
    grf_gguf_next_string(g->data + kv->offset, text, length);
    return 1;
}

/* The elements are at g->data + (*array)->offset. */
static int grf_gguf_get_array(const grf_gguf *g, const char *key, uint32_t element_type,
                              const grf_kv **array, const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GRIFFIN_VALUE_ARRAY) return grf_gguf_wrong(kv, "an array", host);
    if (kv->element_type != element_type)
        return grf_gguf_wrong(kv, grf_values[element_type].name, host);
    *array = kv;
    return 1;
}

/* ---- for the host: griffin_metadata and griffin_tensor --------------------------------- */

/* Fills in the element that m->data points to. */
static void grf_metadata_take(griffin_metadata *m) {
    uint64_t length = 0;
    int negative;
    m->integer = 0;
    m->number = 0;
    m->text = NULL;
    if (m->type == GRIFFIN_VALUE_STRING) {
        grf_gguf_next_string(m->data, &m->text, &length);
    } else {
        m->number = grf_value_number(m->data, (uint32_t)m->type);
        if (m->type != GRIFFIN_VALUE_F32 && m->type != GRIFFIN_VALUE_F64)
            m->integer = (int64_t)grf_value_integer(m->data, (uint32_t)m->type, &negative);
    }
    m->length = (size_t)length;
}

static int grf_metadata_next(griffin_metadata *m) {
    if (m->index + 1 >= m->count) return 0;
    m->data += grf_values[m->type].bytes + m->length;       /* 8 bytes and the text, or a number */
    m->index++;
    grf_metadata_take(m);
    return 1;
}

static int grf_metadata_get(const grf_gguf *g, const char *key, int index, griffin_metadata *m) {
    const grf_kv *kv = key ? grf_gguf_find(g, key)
                     : index >= 0 && (uint64_t)index < g->n_kv ? g->kv + index : NULL;
    if (!kv) return 0;
    memset(m, 0, sizeof *m);
    m->key = kv->name.text;
    m->key_length = (size_t)kv->name.length;
    m->type = (griffin_value_type)kv->element_type;
    m->is_array = kv->type == GRIFFIN_VALUE_ARRAY;
    m->count = kv->count;
    m->data = g->data + kv->offset;
    if (m->count) grf_metadata_take(m);
    return 1;
}

static void grf_tensor_get(const grf_gguf *g, int index, griffin_tensor *tensor) {
    const grf_tensor *t = g->tensors + index;
    const grf_format *format = grf_format_find(t->type);
    memset(tensor, 0, sizeof *tensor);
    memcpy(tensor->name, t->name.text, (size_t)t->name.length);
    tensor->type = format ? format->name : "unknown";
    tensor->rank = t->rank;
    for (int i = 0; i < t->rank; i++) tensor->shape[i] = t->ne[t->rank - 1 - i];
    tensor->offset = t->offset;
    tensor->bytes = t->bytes;
}

/* ================================================================= >>config
 * The sizes of the network, from the file's metadata. They are described once, here, for reading,
 * checking, the fingerprint, and the converter, which writes every key. */

typedef struct grf_config_row {
    const char *key;                        /* after "griffin." */
    char        kind;                       /* 'i' int, 'f' float, 'b' int 0 or 1 from a bool */
    size_t      offset;                     /* in griffin_config */
    double      absent;                     /* what stands for a missing key, or GRF_NEEDED */
    double      least, most;
    const char *expected;
    const char *blocks;                     /* letters of the mixers that use it; null: all. For
                                             * others the number may be 0, or its key missing */
} grf_config_row;

/* Vocabulary, sizes, window, cap and scale have no default: a wrong one would change results
 * without a trace. */
#define GRF_NEEDED (-2e30)
#define GRF_MEMBER(name) offsetof(griffin_config, name)

/* Later rows count for the fingerprint only if they are not 0: saves of 0.2.0 belong to the same
 * models as before. */
#define GRF_FIRST_ROWS 19

static const grf_config_row grf_config_rows[] = {
    { "vocab_size",           'i', GRF_MEMBER(vocab),     GRF_NEEDED, 1, 1 << 21,
      "1 <= vocabulary <= 2^21", NULL },
    { "embedding_length",     'i', GRF_MEMBER(width),     GRF_NEEDED, 1, 1 << 20,
      "1 <= width <= 2^20", NULL },
    { "block_count",          'i', GRF_MEMBER(layers),    GRF_NEEDED, 1, GRIFFIN_MAX_LAYERS,
      "1 <= layers <= 1024", NULL },
    { "feed_forward_length",  'i', GRF_MEMBER(mlp_width), GRF_NEEDED, 1, 1 << 22,
      "1 <= MLP width <= 2^22", NULL },
    { "attention.head_count", 'i', GRF_MEMBER(heads),     GRF_NEEDED, 1, 1 << 20,
      "1 <= heads <= 2^20", "ahs" },
    { "attention.head_count_kv", 'i', GRF_MEMBER(kv_heads), 1, 1, 1 << 20,
      "1 <= key/value heads <= 2^20", "as" },
    { "attention.key_length", 'i', GRF_MEMBER(head_dim),  GRF_NEEDED, 1, 1 << 20,
      "1 <= head_dim <= 2^20", "ahs" },
    { "attention.sliding_window", 'i', GRF_MEMBER(window), GRF_NEEDED, 1, 1 << 20,
      "1 <= window <= 2^20", "a" },
    { "attention.layer_norm_rms_epsilon", 'f', GRF_MEMBER(eps), 1e-6, 1e-37, 0.9999999,
      "0 < eps < 1", NULL },
    { "attention.qkv_bias",   'b', GRF_MEMBER(qkv_bias), 0, 0, 1, "false or true", "a" },
    { "rope.dimension_count", 'i', GRF_MEMBER(rope_dims), GRF_NEEDED, 0, 1 << 20,
      "0 <= rotated dimensions <= 2^20", "as" },
    { "rope.freq_base",       'f', GRF_MEMBER(rope_base), 10000, 1, 1e12,
      "1 <= rope base <= 10^12", "as" },
    { "final_logit_softcapping", 'f', GRF_MEMBER(soft_cap), GRF_NEEDED, 0, 1e30,
      "soft cap 0 or positive", NULL },
    { "embedding_scale",      'f', GRF_MEMBER(embedding_scale), GRF_NEEDED, 1e-30, 1e30,
      "embedding scale positive", NULL },
    { "ssm.conv_kernel",      'i', GRF_MEMBER(conv_width), 4, 1, 16,
      "1 <= convolution width <= 16", "r" },
    { "ssm.inner_size",       'i', GRF_MEMBER(lru_width), GRF_NEEDED, 1, 1 << 20,
      "1 <= recurrent width <= 2^20", "r" },
    { "ssm.group_count",      'i', GRF_MEMBER(gate_blocks), GRF_NEEDED, 1, 1 << 20,
      "1 <= gate blocks <= 2^20", "r" },
    { "rglru.c",              'f', GRF_MEMBER(decay), 8, 1e-30, 1e6,
      "0 < decay <= 10^6", "r" },
    { "norm_weight_offset",   'f', GRF_MEMBER(norm_offset), 1, -1e6, 1e6,
      "-10^6 <= norm offset <= 10^6", NULL },
    { "no_biases",            'b', GRF_MEMBER(no_biases), 0, 0, 1, "false or true", NULL },
    { "layer_norm",           'b', GRF_MEMBER(layer_norm), 0, 0, 1, "false or true", NULL },
    { "mixer_norm_epsilon",   'f', GRF_MEMBER(mixer_eps), 0, 0, 0.9999999, "0 <= eps < 1", NULL }
};

/* The first name of each activation is the one that is written. */
static const struct { const char *name; griffin_activation value; } grf_activations[] = {
    { "gelu_pytorch_tanh", GRIFFIN_GELU_TANH }, { "gelu_new", GRIFFIN_GELU_TANH },
    { "gelu", GRIFFIN_GELU_ERF }, { "silu", GRIFFIN_SILU }, { "swish", GRIFFIN_SILU },
    { "relu", GRIFFIN_RELU }
};

/* Returns the row of a name, or -1. */
static int grf_activation_find(const char *text, uint64_t length) {
    for (int i = 0; i < GRF_COUNT(grf_activations); i++)
        if (grf_text_is(text, length, grf_activations[i].name)) return i;
    return -1;
}

static double grf_config_number(const griffin_config *g, const grf_config_row *row) {
    const void *at = (const char *)g + row->offset;
    return row->kind == 'f' ? (double)*(const float *)at : *(const int *)at;
}

static void grf_config_set(griffin_config *g, const grf_config_row *row, double number) {
    void *at = (char *)g + row->offset;
    if (row->kind == 'f') *(float *)at = (float)number;
    else *(int *)at = (int)number;
}

/* ---- from metadata ----------------------------------------------------------------- */

/* Keys begin with the architecture's name and a dot, which is `prefix`. */
static void grf_config_key(grf_line *key, const char *prefix, const char *ending) {
    key->length = 0;
    grf_line_put(key, prefix, strlen(prefix));
    grf_line_put(key, ending, strlen(ending));
}

static int grf_config_missing(const grf_line *key, const grf_host *host) {
    return grf_fail(host, GRIFFIN_E_FORMAT, "metadata key '%s' is missing", key->text);
}

/* 1: a block of the network uses the number. */
static int grf_config_uses(const griffin_config *g, const grf_config_row *row) {
    for (const char *letter = row->blocks; letter && *letter; letter++)
        if (strchr(g->blocks, *letter)) return 1;
    return !row->blocks;
}

static int grf_config_read_number(const grf_gguf *file, const char *prefix,
                                  const grf_config_row *row, griffin_config *g,
                                  const grf_host *host) {
    double number = row->absent;
    uint64_t whole = 0;
    float real = 0;
    int truth = 0, found;
    grf_line key;
    grf_config_key(&key, prefix, row->key);
    switch (row->kind) {
    case 'i': found = grf_gguf_get_uint(file, key.text, UINT64_MAX, &whole, host); break;
    case 'f': found = grf_gguf_get_float(file, key.text, &real, host); break;
    default:  found = grf_gguf_get_bool(file, key.text, &truth, host); break;
    }
    if (found < 0) return found;
    int used = grf_config_uses(g, row);
    if (found) number = row->kind == 'i' ? (double)whole : row->kind == 'f' ? (double)real : truth;
    else if (row->absent == GRF_NEEDED && used) return grf_config_missing(&key, host);
    else if (row->absent == GRF_NEEDED) number = 0;
    if (!used && number == 0) return GRIFFIN_OK;
    if (!(number >= row->least && number <= row->most))
        return grf_fail(host, GRIFFIN_E_FORMAT, "metadata '%s': expected %s", key.text,
                        row->expected);
    grf_config_set(g, row, number);
    return GRIFFIN_OK;
}

static int grf_config_read_activation(const grf_gguf *file, const char *prefix, griffin_config *g,
                                      const grf_host *host) {
    const char *text = NULL;
    uint64_t length = 0;
    grf_line key;
    grf_config_key(&key, prefix, "hidden_activation");
    int found = grf_gguf_get_string(file, key.text, &text, &length, host);
    if (found <= 0) return found;
    int row = grf_activation_find(text, length);
    if (row < 0)
        return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "%s is '%t'; known are gelu_pytorch_tanh, "
                        "gelu, silu, relu", key.text, text, (size_t)length);
    g->activation = grf_activations[row].value;
    return GRIFFIN_OK;
}

/* One name for each layer. */
static int grf_config_read_blocks(const grf_gguf *file, const char *prefix, griffin_config *g,
                                  const grf_host *host) {
    const grf_kv *array = NULL;
    grf_line key;
    grf_config_key(&key, prefix, "block_types");
    int found = grf_gguf_get_array(file, key.text, GRIFFIN_VALUE_STRING, &array, host);
    if (found < 0) return found;
    if (!found) return grf_config_missing(&key, host);
    if (array->count != (uint64_t)g->layers)
        return grf_fail(host, GRIFFIN_E_FORMAT, "%s has %u entries for %d layers", key.text,
                        array->count, g->layers);
    const uint8_t *at = file->data + array->offset;
    for (int i = 0; i < g->layers; i++) {
        const char *text;
        uint64_t length;
        at = grf_gguf_next_string(at, &text, &length);
        const grf_mixer *mixer = grf_mixer_by_name(text, length);
        if (!mixer)
            return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "%s: layer %d is '%t', known are "
                            "recurrent, attention, hgrn2 and supra", key.text, i, text,
                            (size_t)length);
        g->blocks[i] = mixer->letter;
    }
    return GRIFFIN_OK;
}

/* The rules between numbers that everything after this relies on: null, or the broken one. */
static const char *grf_config_broken_rule(const griffin_config *g) {
    int64_t heads_width = (int64_t)g->head_dim * g->heads;
    int i = 0;
    while (g->blocks[i] == 'a') i++;
    if (g->kv_heads && g->heads % g->kv_heads != 0) return "heads a multiple of key/value heads";
    if (i < g->layers ? g->heads && heads_width != g->width : heads_width > 1 << 22)
        return "heads times head_dim equal to width, or with attention alone at most 2^22";
    if (g->gate_blocks && g->lru_width % g->gate_blocks != 0)
        return "recurrent width a multiple of gate blocks";
    if (g->rope_dims % 2 != 0 || g->rope_dims > g->head_dim)
        return "rotated dimensions even, at most head_dim";
    return NULL;
}

static int grf_config_read(const grf_gguf *file, const char *prefix, griffin_config *g,
                           const grf_host *host) {
    int error = GRIFFIN_OK;
    memset(g, 0, sizeof *g);
    for (int i = 0; i < GRF_COUNT(grf_config_rows) && !error; i++)
        if (!grf_config_rows[i].blocks)
            error = grf_config_read_number(file, prefix, &grf_config_rows[i], g, host);
    if (!error) error = grf_config_read_activation(file, prefix, g, host);
    if (!error) error = grf_config_read_blocks(file, prefix, g, host);
    for (int i = 0; i < GRF_COUNT(grf_config_rows) && !error; i++)
        if (grf_config_rows[i].blocks)
            error = grf_config_read_number(file, prefix, &grf_config_rows[i], g, host);
    if (error) return error;
    const char *broken = grf_config_broken_rule(g);
    if (!broken) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "configuration: expected %s", broken);
}

/* ---- which files are read ------------------------------------------------------------ */

#define GRF_CONVERT "'griffin convert OLD NEW' makes a file that can be opened"

static int grf_check_architecture(const grf_gguf *file, const grf_host *host) {
    const char *text = NULL;
    uint64_t length = 0;
    int found = grf_gguf_get_string(file, "general.architecture", &text, &length, host);
    if (found < 0) return found;
    if (!found)
        return grf_fail(host, GRIFFIN_E_FORMAT, "no general.architecture in the metadata: "
                        "'griffin convert OLD NEW' with --config or --preset adds what is missing");
    if (grf_text_is(text, length, "griffin")) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "architecture '%t': this library runs 'griffin'; "
                    "if it is a llama or a recurrentgemma, " GRF_CONVERT, text, (size_t)length);
}

/* Files of older versions and of other programs hold their matrices otherwise. They are refused by
 * the name of such a matrix. */
static int grf_check_version(const grf_gguf *file, const grf_host *host) {
    uint64_t version = 1;
    int found = grf_gguf_get_uint(file, "griffin.format_version", UINT32_MAX, &version, host);
    if (found < 0) return found;
    if (version == GRIFFIN_FORMAT_VERSION) return GRIFFIN_OK;
    if (version > GRIFFIN_FORMAT_VERSION)
        return grf_fail(host, GRIFFIN_E_VERSION, "griffin.format_version is %u, this library reads "
                        "%d", version, GRIFFIN_FORMAT_VERSION);
    for (uint64_t i = 0; i < file->n_tensors; i++) {
        const grf_tensor *t = &file->tensors[i];
        if (grf_tensor_ends_in(t, ".t32"))
            return grf_tensor_fail(host, GRIFFIN_E_VERSION, t, "in tiles of griffin.h 0.1; "
                                   GRF_CONVERT);
        if (t->rank == 2 && grf_tensor_ends_in(t, ".weight"))
            return grf_tensor_fail(host, GRIFFIN_E_UNSUPPORTED, t, "in rows, of type %s; "
                                   GRF_CONVERT, grf_format_find(t->type)->name);
    }
    return grf_fail(host, GRIFFIN_E_VERSION, "no griffin.format_version; " GRF_CONVERT);
}

/* For files that are only looked into: keys may begin as in any architecture of the family. All
 * zero if the network is another one. */
static int grf_config_look(const grf_gguf *file, griffin_config *g, const grf_host *host) {
    static const char *const family[] = { "griffin.", "recurrentgemma.", "recurrent_gemma.",
                                          "recurrent-gemma." };
    const char *text = NULL;
    uint64_t length = 0;
    int found = grf_gguf_get_string(file, "general.architecture", &text, &length, host);
    for (int i = 0; found > 0 && i < GRF_COUNT(family); i++)
        if (strlen(family[i]) == length + 1 && memcmp(family[i], text, (size_t)length) == 0)
            found = grf_config_read(file, family[i], g, host);
    if (found < 0) memset(g, 0, sizeof *g);
    return found < 0 ? found : GRIFFIN_OK;
}

static int grf_config_load(const grf_gguf *file, griffin_config *g, const grf_host *host) {
    int error = grf_check_architecture(file, host);
    if (!error) error = grf_check_version(file, host);
    return error ? error : grf_config_read(file, "griffin.", g, host);
}

/* ================================================================= >>vocabulary
 * A vocabulary is a list of pieces of text. The index of a piece is its token. This chapter reads
 * the list from the metadata of a file, checks it, and builds what >>text looks things up in:
 *
 *     texts      a hash table: from a text to its piece
 *     pairs      a hash table: from two tokens to the merge that joins them
 *     special    a tree of bytes: the pieces that are found in text before anything else
 *     bytes      a table: from a byte to its token
 *
 * There are three kinds of vocabulary. >>text tells how each of them cuts a text into pieces.
 *
 *     GRF_BY_SCORE    SentencePiece, as Gemma, Llama 2 and Mistral have it: every piece has a score
 *     GRF_BY_RANK     pieces of the same form, but with a list of merges instead of scores
 *     GRF_BYTE_LEVEL  GPT-2, SmolLM, Llama 3, Qwen 2: pieces of bytes, with a list of merges
 *
 * The metadata keys are those of llama.cpp: "tokenizer.ggml.tokens" has the texts, ".token_type"
 * a griffin_token_kind for each, ".scores" or ".merges" what decides. A vocabulary without scores
 * is GRF_BY_RANK. ".pre" tells how a byte-level vocabulary splits a text into words: grf_splits.
 * Keys that start with "griffin." are ours.
 *
 * Two spellings are needed to read a piece. In the first two kinds U+2581 stands for a space, and
 * a piece <0x00> to <0xFF> of type byte stands for that byte. In byte-level pieces one printable
 * character stands for each byte. */

#define GRF_MOST_TOKENS 2097152
#define GRF_MOST_MERGES 16777216
#define GRF_SPACE       "\xE2\x96\x81"      /* U+2581 stands for a space in pieces */
#define GRF_MOST_AROUND 16                  /* tokens before a text, and after it */

enum grf_bpe { GRF_BY_SCORE, GRF_BY_RANK, GRF_BYTE_LEVEL };

/* How a text is split into words, by the name in ".pre"; see the words of >>text. whole_words and
 * add_bos hold where no key says otherwise. */
typedef struct grf_split {
    const char *pre;
    uint8_t     llama3;                     /* the expression of Llama 3 with words of at most so
                                             * many numbers; 0: that of GPT-2 */
    uint8_t     digits_apart;               /* before that, every number is a word of its own */
    uint8_t     whole_words;                /* a word that is a piece needs no merges */
    uint8_t     add_bos;
} grf_split;

static const grf_split grf_splits[] = {
    { "default",   0, 0, 0, 0 },            /* the first also stands for a file without the key */
    { "gpt-2",     0, 0, 0, 0 },
    { "gpt2",      0, 0, 0, 0 },
    { "phi-2",     0, 0, 0, 0 },
    { "smollm",    0, 1, 0, 0 },
    { "starcoder", 0, 1, 0, 0 },
    { "refact",    0, 1, 0, 0 },
    { "codeshell", 0, 1, 0, 0 },
    { "llama-bpe", 3, 0, 1, 1 },
    { "llama3",    3, 0, 1, 1 },
    { "llama-v3",  3, 0, 1, 1 },
    { "smaug-bpe", 3, 0, 0, 0 },
    { "qwen2",     1, 0, 0, 0 }
};

/* Two sets of griffin_token_kind: pieces that merges can make, and pieces that only rules make. One
 * text may be a piece in each of the two sets, but only once in each. */
#define GRF_MERGEABLE (1 << GRIFFIN_TOKEN_NORMAL | 1 << GRIFFIN_TOKEN_USER_DEFINED \
                       | 1 << GRIFFIN_TOKEN_UNUSED)
#define GRF_RESERVED  (1 << GRIFFIN_TOKEN_UNKNOWN | 1 << GRIFFIN_TOKEN_CONTROL \
                       | 1 << GRIFFIN_TOKEN_BYTE)

typedef struct grf_piece {
    const char *text;                       /* in the file, or in grf_vocab.repaired */
    uint32_t    length;
    uint32_t    order;                      /* by score: the lowest merges first */
    uint8_t     type;                       /* griffin_token_kind */
    uint8_t     marker;                     /* no_special keeps text from becoming this token */
} grf_piece;

typedef struct grf_merge { int32_t left, right, merged; } grf_merge;

/* A node of the tree of special pieces. The children of a node are a list. */
typedef struct grf_special { uint32_t child, sibling; int32_t id; uint8_t byte; } grf_special;

struct grf_vocab {
    int          count;                     /* tokens; 0: no vocabulary */
    int          kind;                      /* enum grf_bpe */
    const grf_split *split;                 /* of a byte-level vocabulary */
    int32_t      bos, eos, eot, pad, unknown;   /* -1: none */
    int          add_bos, add_eos;
    int32_t      before[GRF_MOST_AROUND];   /* the tokens that a text gets before it, */
    int32_t      after[GRF_MOST_AROUND];    /* and those after it */
    int          before_count, after_count;
    int          dummy_prefix;              /* text starts with a space of its own, */
    int          as_suffix;                 /* or ends with it; */
    int          each_stretch;              /* so does the text after a piece that was cut out; */
    int          prefix_once;               /* but not if it starts with a space anyway */
    int          split_at_spaces;           /* by rank: every space starts a word */
    int          whole_words;               /* byte-level: a word that is a piece stays whole */
    int32_t      first_added;               /* by score: from here on, pieces are cut out of text */
    int          verbatim;                  /* plain spaces of user-defined pieces are meant so */
    int          trim;                      /* runs of spaces shrink to one, none at the ends */
    int          escape;                    /* space becomes U+2581 */
    int          byte_fallback;             /* unknown characters become byte tokens */
    const char  *unk_surface;               /* what the unknown token decodes to */
    uint64_t     unk_length;

    grf_piece   *pieces;                    /* [count] */
    grf_table    texts;                     /* of pieces, by text */
    uint32_t     longest;                   /* bytes of a piece */
    int          unused;                    /* pieces of this type */
    int32_t      bytes[256];                /* the token of a byte, or -1 */
    grf_special *special;                   /* [0] is the root */
    grf_merge   *merges;                    /* the earliest first */
    grf_table    pairs;                     /* of merges, by left and right */
    char        *repaired;                  /* texts that differ from the file's */

    const uint8_t *map_units;               /* the character map, see grf_map_match */
    uint32_t     map_count;
    const char  *map_texts;
    uint32_t     map_size;
    uint32_t     growth;                    /* most bytes that one byte can become in it */
};

/* ---- UTF-8 --------------------------------------------------------------------- */

/* Returns how many bytes the character at `text` has, 1 to 4, if it is valid: no overlong form, no
 * surrogate, at most U+10FFFF. Returns 0 if no valid character starts so, and -1 if one may, but
 * the text ends too early. `left` >= 1 bytes of text are there. */
static int grf_utf8_length(const char *text, uint64_t left) {
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    int length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    unsigned low  = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;   /* of the second byte */
    unsigned high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if ((uint64_t)i == left) return -1;
        if (p[i] < low || p[i] > high) return 0;
    }
    return length;
}

static int grf_utf8_valid(const char *text, uint64_t length) {
    while (length) {
        int n = grf_utf8_length(text, length);
        if (n <= 0) return 0;
        text += n;
        length -= (uint64_t)n;
    }
    return 1;
}

/* The code point of a valid character of n bytes. */
static uint32_t grf_utf8_code_point(const char *text, int n) {
    const unsigned char *p = (const unsigned char *)text;
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7Fu >> n);
    for (int i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3F);
    return c;
}

/* A text that grows at its end. What exceeds the capacity is counted, but not written. */
typedef struct grf_text { char *at; uint64_t capacity, length; } grf_text;

static void grf_text_append(grf_text *text, const char *bytes, uint64_t n) {
    if (n && n <= text->capacity && text->length <= text->capacity - n) {
        memcpy(text->at + text->length, bytes, (size_t)n);
    }
    text->length += n;
}

/* ---- bytes as pieces ---------------------------------------------------------------- */

/* The byte that a character stands for in a byte-level piece, or -1. GPT-2 shows printable Latin-1
 * bytes as themselves and numbers the other 68 from U+0100. */
static int32_t grf_byte_of_character(uint32_t c) {
    int hidden = c <= 32 || (c >= 127 && c <= 160) || c == 173;
    if (c < 256) return hidden ? -1 : (int32_t)c;
    c -= 256;
    return c < 33 ? (int32_t)c : c < 67 ? (int32_t)c - 33 + 127 : c == 67 ? 173 : -1;
}

/* The value of a piece spelled <0x00> to <0xFF>, in capitals; -1 for any other. */
static int grf_byte_of_piece(const grf_piece *piece) {
    const char *digits = "0123456789ABCDEF";
    if (piece->length != 6 || memcmp(piece->text, "<0x", 3) || piece->text[5] != '>') return -1;
    const char *high = (const char *)memchr(digits, piece->text[3], 16);
    const char *low  = (const char *)memchr(digits, piece->text[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

/* ---- lookups ------------------------------------------------------------------------ */

/* The piece of one of `kinds` whose text is this, or -1. `hash` is that of the text. */
static int32_t grf_vocab_find(const grf_vocab *v, const char *text, uint64_t length, uint32_t hash,
                              int kinds) {
    uint32_t steps = 0;
    int32_t id;
    while ((id = grf_table_next(&v->texts, hash, &steps)) >= 0) {
        const grf_piece *piece = &v->pieces[id];
        if (piece->length == length && (kinds >> piece->type & 1)
            && memcmp(piece->text, text, (size_t)length) == 0) break;
    }
    return id;
}

static int32_t grf_vocab_find_any(const grf_vocab *v, const char *text, uint64_t length) {
    uint32_t hash = grf_text_hash(text, length);
    int32_t id = grf_vocab_find(v, text, length, hash, GRF_MERGEABLE);
    return id >= 0 ? id : grf_vocab_find(v, text, length, hash, GRF_RESERVED);
}

static uint32_t grf_vocab_pair_hash(int32_t left, int32_t right) {
    uint64_t pair = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)((pair ^ pair >> 29) * 0xBF58476D1CE4E5B9u >> 32);
}

/* The index of a merge in the list, which is its rank; -1: there is none. */
static int32_t grf_vocab_find_merge(const grf_vocab *v, int32_t left, int32_t right) {
    uint32_t hash = grf_vocab_pair_hash(left, right), steps = 0;
    int32_t rank;
    while ((rank = grf_table_next(&v->pairs, hash, &steps)) >= 0) {
        if (v->merges[rank].left == left && v->merges[rank].right == right) break;
    }
    return rank;
}

/* ---- special pieces ------------------------------------------------------------------- */

static uint32_t grf_special_child(const grf_vocab *v, uint32_t parent, char byte) {
    uint32_t node = v->special[parent].child;
    while (node && v->special[node].byte != (uint8_t)byte) node = v->special[node].sibling;
    return node;
}

/* The longest special piece that the text starts with, or -1. */
static int32_t grf_special_match(const grf_vocab *v, const char *text, uint64_t left,
                                 int no_special) {
    int32_t best = -1;
    for (uint32_t node = 0; left; text++, left--) {
        if ((node = grf_special_child(v, node, *text)) == 0) break;
        int32_t id = v->special[node].id;
        if (id >= 0 && !(no_special && v->pieces[id].marker)) best = id;
    }
    return best;
}

/* [INST], [/INST], [TOOL_CALLS]: capitals, _ and / in brackets. */
static int grf_piece_is_bracketed(const grf_piece *piece) {
    uint32_t n = piece->length - 1, i = 1;
    if (n < 2 || piece->text[0] != '[' || piece->text[n] != ']') return 0;
    while (i < n && memchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_/", piece->text[i], 28)) i++;
    return i == n;
}

/* A user-defined piece counts as a turn marker if a key names it, or if it is spelled like
 * <start_of_turn>, <|im_end|> or [INST]. HTML tags, which vocabularies also define, have no _ and
 * no |. */
static int grf_piece_is_marker(const grf_vocab *v, int32_t id) {
    const grf_piece *piece = &v->pieces[id];
    if (GRF_RESERVED >> piece->type & 1) return 1;
    if (piece->type != GRIFFIN_TOKEN_USER_DEFINED) return 0;
    if (id == v->bos || id == v->eos || id == v->eot || grf_piece_is_bracketed(piece)) return 1;
    return piece->text[0] == '<' && piece->text[piece->length - 1] == '>'
        && (memchr(piece->text, '_', piece->length) || memchr(piece->text, '|', piece->length));
}

/* User-defined pieces are special. With merges, control tokens are found in text too. */
static int grf_piece_is_special(const grf_vocab *v, const grf_piece *piece) {
    if (piece->type == GRIFFIN_TOKEN_USER_DEFINED) return 1;
    return v->kind != GRF_BY_SCORE
        && (piece->type == GRIFFIN_TOKEN_CONTROL || piece->type == GRIFFIN_TOKEN_UNKNOWN);
}

static int grf_special_index(grf_vocab *v, const grf_host *host) {
    uint64_t nodes = 1;
    for (int32_t id = 0; id < v->count; id++) {
        v->pieces[id].marker = (uint8_t)grf_piece_is_marker(v, id);
        if (grf_piece_is_special(v, &v->pieces[id])) nodes += v->pieces[id].length;
    }
    if (nodes <= UINT32_MAX) {
        v->special = (grf_special *)grf_host_allocate(host, nodes * sizeof(grf_special));
    }
    if (!v->special) return grf_fail_memory(host, nodes * sizeof(grf_special));
    memset(v->special, 0, (size_t)nodes * sizeof(grf_special));
    uint32_t used = 1;
    for (int32_t id = 0; id < v->count; id++) {
        const grf_piece *piece = &v->pieces[id];
        if (!grf_piece_is_special(v, piece)) continue;
        uint32_t node = 0, next;
        for (uint32_t i = 0; i < piece->length; i++, node = next) {
            if ((next = grf_special_child(v, node, piece->text[i])) != 0) continue;
            next = used++;
            v->special[next].byte    = (uint8_t)piece->text[i];
            v->special[next].id      = -1;
            v->special[next].sibling = v->special[node].child;
            v->special[node].child   = next;
        }
        v->special[node].id = id;
    }
    return GRIFFIN_OK;
}

/* ---- loading ----------------------------------------------------------------------- */

static int grf_vocab_load_split(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "tokenizer.ggml.pre", *pre = grf_splits[0].pre;
    uint64_t length = strlen(pre);
    int found = grf_gguf_get_string(g, key, &pre, &length, host);
    if (found < 0) return found;
    for (int i = 0; i < GRF_COUNT(grf_splits); i++) {
        v->split = &grf_splits[i];
        if (grf_text_is(pre, length, v->split->pre)) return GRIFFIN_OK;
    }
    return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "%s '%t': only the splits of 'gpt-2', 'smollm', "
                    "'llama-bpe' and 'qwen2' are supported", key, pre, (size_t)length);
}

static int grf_vocab_load_kind(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *model = "";
    uint64_t length = 0;
    int found = grf_gguf_get_string(g, "tokenizer.ggml.model", &model, &length, host);
    if (found < 0) return found;
    if (grf_text_is(model, length, "llama")) return GRIFFIN_OK;
    if (!grf_text_is(model, length, "gpt2")) {
        return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "tokenizer.ggml.model '%t': only 'llama' and "
                        "'gpt2' are supported", model, (size_t)length);
    }
    v->kind = GRF_BYTE_LEVEL;
    return grf_vocab_load_split(v, g, host);
}

static int grf_vocab_load_texts(grf_vocab *v, const grf_gguf *g, const grf_kv *tokens,
                                const grf_host *host) {
    const uint8_t *at = g->data + tokens->offset;
    for (int id = 0; id < v->count; id++) {
        grf_piece *piece = &v->pieces[id];
        uint64_t length;
        at = grf_gguf_next_string(at, &piece->text, &length);
        if (length < 1 || length > 65535 || !grf_utf8_valid(piece->text, length)) {
            return grf_fail(host, GRIFFIN_E_FORMAT,
                            "tokenizer.ggml.tokens: token %d is not 1 to 65535 bytes of UTF-8", id);
        }
        piece->length = (uint32_t)length;
        piece->type   = GRIFFIN_TOKEN_NORMAL;
    }
    return GRIFFIN_OK;
}

/* An array with one number of 4 bytes for each token, or null if there is none. */
static int grf_vocab_get_column(const grf_vocab *v, const grf_gguf *g, const char *key,
                                uint32_t type, const uint8_t **column, const grf_host *host) {
    const grf_kv *array = NULL;
    int found = grf_gguf_get_array(g, key, type, &array, host);
    *column = NULL;
    if (found <= 0) return found;
    if (array->count != (uint64_t)v->count) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "%s: %u entries for %d tokens",
                        key, array->count, v->count);
    }
    *column = g->data + array->offset;
    return GRIFFIN_OK;
}

/* Sets the type of every piece. The piece of type unknown becomes the unknown token. */
static int grf_vocab_load_types(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const uint8_t *types;
    int error = grf_vocab_get_column(v, g, "tokenizer.ggml.token_type", GRIFFIN_VALUE_I32, &types,
                                     host);
    for (int id = 0; types && id < v->count; id++) {
        grf_piece *piece = &v->pieces[id];
        uint32_t type = grf_get_u32(types + 4 * (size_t)id);
        if (type < 1 || type > 6) {
            return grf_fail(host, GRIFFIN_E_FORMAT,
                            "tokenizer.ggml.token_type: token %d is not of type 1 to 6", id);
        }
        if (type == GRIFFIN_TOKEN_BYTE && grf_byte_of_piece(piece) < 0) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "token %d '%t' is not a byte <0x00> to <0xFF>",
                            id, piece->text, (size_t)piece->length);
        }
        if (type == GRIFFIN_TOKEN_UNKNOWN && v->unknown >= 0) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "tokens %d and %d are both of type unknown",
                            (int)v->unknown, id);
        }
        piece->type = (uint8_t)type;
        v->unused += type == GRIFFIN_TOKEN_UNUSED;
        if (type == GRIFFIN_TOKEN_UNKNOWN) v->unknown = id;
    }
    return error;
}

static int grf_vocab_load_scores(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const uint8_t *scores;
    int error = grf_vocab_get_column(v, g, "tokenizer.ggml.scores", GRIFFIN_VALUE_F32, &scores,
                                     host);
    if (error) return error;
    if (!scores && v->kind == GRF_BY_SCORE) v->kind = GRF_BY_RANK;
    for (int id = 0; scores && id < v->count; id++) {
        uint32_t bits = grf_get_u32(scores + 4 * (size_t)id);
        if ((bits & 0x7F800000) == 0x7F800000) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "tokenizer.ggml.scores: token %d has %s", id,
                            "a score that is not finite");
        }
        v->pieces[id].order = ~grf_float_key(grf_float_from_bits(bits));
    }
    return GRIFFIN_OK;
}

static int grf_vocab_load_flags(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    int pieces = v->kind != GRF_BYTE_LEVEL, bos = pieces || v->split->add_bos;
    const struct { const char *key; int *value, absent; } flags[] = {
        { "tokenizer.ggml.add_bos_token",                 &v->add_bos,         bos },
        { "tokenizer.ggml.add_eos_token",                 &v->add_eos,         0 },
        { "tokenizer.ggml.add_space_prefix",              &v->dummy_prefix,    pieces },
        { "tokenizer.ggml.remove_extra_whitespaces",      &v->trim,            0 },
        { "griffin.tokenizer.escape_whitespaces",         &v->escape,          1 },
        { "griffin.tokenizer.treat_whitespace_as_suffix", &v->as_suffix,       0 },
        { "griffin.tokenizer.space_prefix_everywhere",    &v->each_stretch,    0 },
        { "griffin.tokenizer.space_prefix_once",          &v->prefix_once,     0 },
        { "griffin.tokenizer.split_at_spaces",            &v->split_at_spaces, 0 },
        { "griffin.tokenizer.ignore_merges", &v->whole_words, !pieces && v->split->whole_words },
        { "griffin.tokenizer.verbatim_pieces",            &v->verbatim,        0 }
    };
    for (int i = 0; i < GRF_COUNT(flags); i++) {
        *flags[i].value = flags[i].absent;
        int found = grf_gguf_get_bool(g, flags[i].key, flags[i].value, host);
        if (found < 0) return found;
    }
    if (v->kind != GRF_BY_SCORE) v->trim = v->as_suffix = 0;
    if (v->kind != GRF_BYTE_LEVEL) return GRIFFIN_OK;
    v->escape = 0;
    if (!v->dummy_prefix) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "tokenizer.ggml.add_space_prefix with 'gpt2'");
}

static int grf_vocab_load_ids(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    int32_t unknown, other;                 /* other: checked, not used */
    const struct { const char *key; int32_t *id; } ids[] = {
        { "tokenizer.ggml.bos_token_id",       &v->bos },
        { "tokenizer.ggml.eos_token_id",       &v->eos },
        { "tokenizer.ggml.eot_token_id",       &v->eot },
        { "tokenizer.ggml.padding_token_id",   &v->pad },
        { "tokenizer.ggml.unknown_token_id",   &unknown },
        { "griffin.tokenizer.first_added_id",  &v->first_added },
        { "tokenizer.ggml.seperator_token_id", &other },
        { "tokenizer.ggml.mask_token_id",      &other }
    };
    for (int i = 0; i < GRF_COUNT(ids); i++) {
        uint64_t value = 0;
        int found = grf_gguf_get_uint(g, ids[i].key, (uint64_t)v->count - 1, &value, host);
        if (found < 0) return found;
        *ids[i].id = found ? (int32_t)value : -1;
    }
    if (v->unknown < 0) v->unknown = unknown;
    if (v->kind != GRF_BY_SCORE) v->first_added = 0;
    else if (v->first_added < 0) v->first_added = v->count;
    v->add_bos = v->add_bos && v->bos >= 0;
    v->add_eos = v->add_eos && v->eos >= 0;
    return GRIFFIN_OK;
}

/* The tokens before or after a text: those of a list, or else one if a flag says so. */
static int grf_vocab_load_around(const grf_vocab *v, const grf_gguf *g, const char *key, int add,
                                 int32_t one, int32_t *ids, int *count, const grf_host *host) {
    const grf_kv *array = NULL;
    int found = grf_gguf_get_array(g, key, GRIFFIN_VALUE_U32, &array, host);
    *count = found > 0 ? (int)(array->count & INT32_MAX) : add;
    ids[0] = one;
    if (found <= 0) return found;
    int sound = array->count <= GRF_MOST_AROUND;
    for (int i = 0; sound && i < *count; i++) {
        uint32_t id = grf_get_u32(g->data + array->offset + 4 * (size_t)i);
        sound  = id < (uint32_t)v->count;
        ids[i] = (int32_t)id;
    }
    return sound ? GRIFFIN_OK : grf_fail(host, GRIFFIN_E_FORMAT, "%s: expected at most %d tokens "
                                         "from 0 to %d", key, GRF_MOST_AROUND, v->count - 1);
}

static int grf_vocab_load_template(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    int error = grf_vocab_load_around(v, g, "griffin.tokenizer.tokens_before", v->add_bos, v->bos,
                                      v->before, &v->before_count, host);
    return error ? error
                 : grf_vocab_load_around(v, g, "griffin.tokenizer.tokens_after", v->add_eos, v->eos,
                                         v->after, &v->after_count, host);
}

static int grf_vocab_load_surface(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "griffin.tokenizer.unk_surface";
    v->unk_surface = " \xE2\x81\x87 ";
    v->unk_length  = 5;
    int found = grf_gguf_get_string(g, key, &v->unk_surface, &v->unk_length, host);
    if (found < 0) return found;
    if (grf_utf8_valid(v->unk_surface, v->unk_length)) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "%s is not UTF-8", key);
}

/* The character map of SentencePiece: u32 n, n bytes of units (u32), then texts that end with 0.
 * The longest text is needed to size scratch memory. */
static int grf_vocab_load_map(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv || kv->count == 0 || v->kind != GRF_BY_SCORE) return GRIFFIN_OK;
    const uint8_t *data = g->data + kv->offset;
    uint32_t bytes = kv->count > 4 && kv->count <= INT32_MAX ? grf_get_u32(data) : 0;
    if (kv->type != GRIFFIN_VALUE_ARRAY || kv->element_type > GRIFFIN_VALUE_I8
        || bytes < 4 || bytes % 4 || bytes >= kv->count - 4 || data[kv->count - 1]
        || !grf_utf8_valid((const char *)data + 4 + bytes, kv->count - 4 - bytes)) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "%s at byte %u is not a character map", key,
                        kv->offset);
    }
    v->map_units = data + 4;
    v->map_count = bytes / 4;
    v->map_texts = (const char *)data + 4 + bytes;
    v->map_size  = (uint32_t)kv->count - 4 - bytes;
    for (uint32_t i = 0, run = 0; i < v->map_size; i++) {
        run = v->map_texts[i] ? run + 1 : 0;
        if (run > v->growth) v->growth = run;
    }
    return GRIFFIN_OK;
}

/* Some writers put plain spaces into user-defined pieces where U+2581 is meant. Their texts are
 * written anew: the first round only counts the bytes. In a model of SentencePiece a plain space is
 * meant, and then the piece never matches, because the text has none when it is cut. */
static int grf_vocab_repair_texts(grf_vocab *v, const grf_host *host) {
    grf_text text = { NULL, 0, 0 };
    if (!v->escape || v->verbatim || v->kind != GRF_BY_SCORE) return GRIFFIN_OK;
    for (int round = 0; round < 2; round++) {
        text.capacity = text.length;
        text.length = 0;
        if (round) v->repaired = text.at = (char *)grf_host_allocate(host, text.capacity);
        if (round && !text.at) return grf_fail_memory(host, text.capacity);
        for (int id = 0; id < v->count; id++) {
            grf_piece *piece = &v->pieces[id];
            uint64_t start = text.length;
            if (piece->type != GRIFFIN_TOKEN_USER_DEFINED
                || !memchr(piece->text, ' ', piece->length)) continue;
            for (uint32_t i = 0; i < piece->length; i++) {
                if (piece->text[i] == ' ') grf_text_append(&text, GRF_SPACE, 3);
                else grf_text_append(&text, piece->text + i, 1);
            }
            if (!round) continue;
            piece->text   = text.at + start;
            piece->length = (uint32_t)(text.length - start);
        }
        if (!text.length) break;
    }
    return GRIFFIN_OK;
}

static int grf_vocab_index_texts(grf_vocab *v, const grf_host *host) {
    int error = grf_table_make(&v->texts, (uint64_t)v->count, host);
    for (int id = 0; !error && id < v->count; id++) {
        const grf_piece *piece = &v->pieces[id];
        uint32_t hash = grf_text_hash(piece->text, piece->length);
        int kinds = GRF_MERGEABLE >> piece->type & 1 ? GRF_MERGEABLE : GRF_RESERVED;
        if (piece->length > v->longest) v->longest = piece->length;
        if (grf_vocab_find(v, piece->text, piece->length, hash, kinds) >= 0) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "token %d '%t' occurs twice", id, piece->text,
                            (size_t)piece->length);
        }
        error = grf_table_add(&v->texts, hash, id, host);
    }
    return error;
}

/* The byte that a whole piece stands for, or -1. */
static int grf_vocab_byte(const grf_vocab *v, const grf_piece *piece) {
    if (v->kind != GRF_BYTE_LEVEL) {
        return piece->type == GRIFFIN_TOKEN_BYTE ? grf_byte_of_piece(piece) : -1;
    }
    int n = grf_utf8_length(piece->text, piece->length);
    if (piece->length != (uint32_t)n || !(GRF_MERGEABLE >> piece->type & 1)) return -1;
    return (int)grf_byte_of_character(grf_utf8_code_point(piece->text, n));
}

/* A byte-level vocabulary may lack control characters other than tab and line ends, as SmolLM's
 * does, and bytes that no text in Unicode has today. */
static int grf_byte_is_needed(int b) {
    return b == '\t' || b == '\n' || b == '\r' || (b >= ' ' && b != 0xC0 && b != 0xC1 && b < 0xF1);
}

/* Byte tokens must be complete where they are needed: in a byte-level vocabulary nearly so, by
 * score if there is one of them. By rank a text may do without some. */
static int grf_vocab_index_bytes(grf_vocab *v, const grf_host *host) {
    int bytes = 0, lacks = 0;
    for (int b = 0; b < 256; b++) v->bytes[b] = -1;
    for (int id = 0; id < v->count; id++) {
        int b = grf_vocab_byte(v, &v->pieces[id]);
        if (b < 0) continue;
        bytes += v->bytes[b] < 0;
        v->bytes[b] = id;
    }
    v->byte_fallback = v->kind == GRF_BY_SCORE && bytes;
    for (int b = 0; b < 256; b++) {
        lacks |= v->bytes[b] < 0 && (v->byte_fallback
                                     || (v->kind == GRF_BYTE_LEVEL && grf_byte_is_needed(b)));
    }
    if (!lacks) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "the vocabulary has tokens for %d of 256 bytes", bytes);
}

/* Splits "left right" and finds the three tokens; `joined` has room for the longest piece. */
static int grf_vocab_read_merge(const grf_vocab *v, grf_merge *merge, const char *text,
                                uint64_t length, char *joined) {
    const char *space = (const char *)memchr(text, ' ', (size_t)length);
    if (!space || length - 1 > v->longest) return 0;
    uint64_t left = (uint64_t)(space - text), right = length - 1 - left;
    if (!left || !right || memchr(space + 1, ' ', (size_t)right)) return 0;
    memcpy(joined, text, (size_t)left);
    memcpy(joined + left, space + 1, (size_t)right);
    merge->left   = grf_vocab_find_any(v, joined, left);
    merge->right  = grf_vocab_find_any(v, joined + left, right);
    merge->merged = grf_vocab_find_any(v, joined, left + right);
    return merge->left >= 0 && merge->right >= 0 && merge->merged >= 0;
}

static int grf_vocab_load_merges(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "tokenizer.ggml.merges";
    const grf_kv *array = NULL;
    int found = grf_gguf_get_array(g, key, GRIFFIN_VALUE_STRING, &array, host);
    if (v->kind == GRF_BY_SCORE || found < 0) return found < 0 ? found : GRIFFIN_OK;
    if (!found || array->count > GRF_MOST_MERGES) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "%s: expected 0 to %d merges%s", key,
                        GRF_MOST_MERGES, found ? "" : ", as there are no scores");
    }
    v->merges = (grf_merge *)grf_host_allocate(host, array->count * sizeof(grf_merge));
    if (!v->merges) return grf_fail_memory(host, array->count * sizeof(grf_merge));
    int error = grf_table_make(&v->pairs, array->count, host);
    if (error) return error;
    char *joined = (char *)grf_host_allocate(host, v->longest);
    if (!joined) return grf_fail_memory(host, v->longest);
    const uint8_t *at = g->data + array->offset;
    for (int i = 0; !error && i < (int)array->count; i++) {
        grf_merge *m = &v->merges[i];
        const char *text;
        uint64_t length;
        at = grf_gguf_next_string(at, &text, &length);
        if (!grf_vocab_read_merge(v, m, text, length, joined)
            || grf_vocab_find_merge(v, m->left, m->right) >= 0) {
            error = grf_fail(host, GRIFFIN_E_FORMAT, "%s: entry %d '%t' is not two tokens that make"
                             " a third, for the first time", key, i, text, (size_t)length);
        } else {
            error = grf_table_add(&v->pairs, grf_vocab_pair_hash(m->left, m->right), i, host);
        }
    }
    grf_host_release(host, joined);
    return error;
}

static void grf_vocab_free(grf_vocab *v, const grf_host *host) {
    grf_host_release(host, v->pieces);
    grf_host_release(host, v->texts.entries);
    grf_host_release(host, v->special);
    grf_host_release(host, v->merges);
    grf_host_release(host, v->pairs.entries);
    grf_host_release(host, v->repaired);
    memset(v, 0, sizeof *v);
}

/* Pieces of these names end a turn, unless a key names another. */
static int grf_vocab_fill(grf_vocab *v, const grf_gguf *g, const grf_kv *tokens,
                          const grf_host *host) {
    static const char *const ends[] = { "<end_of_turn>", "<|im_end|>", "<|eot_id|>" };
    int error = grf_vocab_load_kind(v, g, host);
    if (!error) error = grf_vocab_load_texts(v, g, tokens, host);
    if (!error) error = grf_vocab_load_types(v, g, host);
    if (!error) error = grf_vocab_load_scores(v, g, host);
    if (!error) error = grf_vocab_load_flags(v, g, host);
    if (!error) error = grf_vocab_load_ids(v, g, host);
    if (!error) error = grf_vocab_load_template(v, g, host);
    if (!error) error = grf_vocab_load_surface(v, g, host);
    if (!error) error = grf_vocab_load_map(v, g, host);
    if (!error) error = grf_vocab_repair_texts(v, host);
    if (!error) error = grf_vocab_index_texts(v, host);
    if (!error) error = grf_vocab_index_bytes(v, host);
    if (error) return error;
    for (int i = 0; v->eot < 0 && i < GRF_COUNT(ends); i++) {
        v->eot = grf_vocab_find_any(v, ends[i], strlen(ends[i]));
    }
    error = grf_special_index(v, host);
    return error ? error : grf_vocab_load_merges(v, g, host);
}

/* A file without tokens gives no vocabulary, and no error. */
static int grf_vocab_load(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const grf_kv *tokens = NULL;
    int error = grf_gguf_get_array(g, "tokenizer.ggml.tokens", GRIFFIN_VALUE_STRING, &tokens, host);
    memset(v, 0, sizeof *v);
    if (error <= 0) return error;
    if (tokens->count < 1 || tokens->count > GRF_MOST_TOKENS) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "tokenizer.ggml.tokens: %u tokens, expected 1 to "
                        "%d", tokens->count, GRF_MOST_TOKENS);
    }
    uint64_t size = tokens->count * sizeof(grf_piece);
    v->pieces = (grf_piece *)grf_host_allocate(host, size);
    if (!v->pieces) return grf_fail_memory(host, size);
    memset(v->pieces, 0, (size_t)size);
    v->count   = (int)tokens->count;
    v->unknown = -1;
    v->growth  = 1;
    error = grf_vocab_fill(v, g, tokens, host);
    if (error) grf_vocab_free(v, host);
    return error;
}

/* ================================================================= >>text
 * Text to tokens and back, and texts to stop at.
 *
 * All three kinds of vocabulary use byte pair encoding: the text is cut into symbols, and then the
 * best pair of neighbours is joined to one symbol, over and over, until no pair can be joined. They
 * differ in where they cut, and in which pair is the best.
 *
 * GRF_BY_SCORE (SentencePiece). Spaces become U+2581, and every character is a symbol. Pieces that
 * were added to the model later are cut out of the text first. Two neighbours can be joined if the
 * text of both is a piece. The pair whose piece has the highest score comes first. What is no piece
 * at the end becomes the tokens of its bytes, or "unknown".
 *
 * GRF_BY_RANK. The text is cut in the same way, but first special pieces are cut out of it. Two
 * neighbours can be joined if the list of merges has the pair. The pair that stands first in the
 * list comes first. A character that is no piece is cut into the tokens of its bytes.
 *
 * GRF_BYTE_LEVEL (GPT-2 and Llama 3). The text is cut into words by one of two expressions, and
 * every byte of a word is a symbol. Pairs and their order are as by rank, but no pair reaches from
 * one word to the next. Nothing is unknown: a byte without a token, such as a control character in
 * SmolLM, is left out, as the reference tokenizer does. Spaces stay at the start of their word.
 *
 * In all of them the leftmost of equal pairs comes first. Encoding takes three steps: the text is
 * rewritten and cut (grf_encoder_prepare), the symbols are joined (grf_encoder_merge), and the
 * tokens are written (grf_encoder_emit_all). A first run of step one without memory measures what
 * the others need. */

#define GRF_MOST_TEXT (INT32_MAX - 1)       /* bytes of rewritten text */
#define GRF_BROKEN    "\xEF\xBF\xBD"        /* U+FFFD stands for a byte that is not UTF-8 */

/* A stretch of rewritten text that becomes one token unless it is joined with a neighbour. prev and
 * next link only neighbours that may be joined: special pieces have none, and words are not linked
 * to each other. */
typedef struct grf_symbol { uint32_t start, length; int32_t prev, next, id; } grf_symbol;

/* A pair that can be joined into the piece `id`. `order` is its score or rank, and in the lower
 * half the index of its left symbol. `length` of both tells whether the pair is out of date. */
typedef struct grf_pair { uint64_t order; uint32_t length; int32_t id; } grf_pair;

/* Where a text last joined an unused piece: the length of the left part, or 0. */
typedef struct grf_join { int32_t piece; uint32_t left; } grf_join;     /* id + 1, or 0: free */

typedef struct grf_encoder {
    const grf_vocab *v;
    int         no_special, continues;      /* of griffin_encoding */
    grf_text    text;                       /* rewritten */
    uint64_t    characters;                 /* of the rewritten text, by score */
    grf_symbol *symbols;                    /* null while the text is only measured */
    int32_t     count;
    int         apart;                      /* the next symbol is not linked to the last one */
    grf_pair   *heap;                       /* the lowest order on top */
    uint64_t    waiting;                    /* pairs in the heap */
    grf_join   *joins;                      /* a hash table by piece */
    uint64_t    join_slots;
    int32_t    *tokens;
    int64_t     capacity, written;
    int         after_unknown;              /* the last token is "unknown" */
} grf_encoder;

/* ---- rewriting ------------------------------------------------------------------------ */

/* The next `used` bytes of raw text become `text`. */
typedef struct grf_rewrite { const char *text; uint64_t length, used; } grf_rewrite;

/* The longest match of SentencePiece's character map, a double array. Bits 10..31 of a unit are the
 * offset to its children, in steps of 256 if bit 9 is set. Bit 8 says that a match ends here. The
 * lower eight bits are the byte that led here. */
static int grf_map_match(const grf_vocab *v, const char *text, uint64_t left, grf_rewrite *match) {
    if (!v->map_count) return 0;
    uint32_t at = 0, u = grf_get_u32(v->map_units);
    for (uint64_t i = 0; i < left; i++) {
        at ^= (u >> 10 << ((u & 0x200) >> 6)) ^ (uint8_t)text[i];
        if (at >= v->map_count) break;
        u = grf_get_u32(v->map_units + 4 * (size_t)at);
        if ((u & 0x800000FF) != (uint8_t)text[i]) break;
        if (!(u >> 8 & 1)) continue;
        uint32_t value = at ^ (u >> 10 << ((u & 0x200) >> 6));
        if (value >= v->map_count) break;
        value = grf_get_u32(v->map_units + 4 * (size_t)value) & 0x7FFFFFFF;
        if (value >= v->map_size || (value && v->map_texts[value - 1])) break;
        match->text = v->map_texts + value;
        match->used = i + 1;
    }
    if (match->used) match->length = strlen(match->text);
    return match->used > 0;
}

/* By score, a special piece at the start of the text, or -1. */
static int32_t grf_encoder_special(const grf_encoder *e, const char *text, uint64_t left) {
    return e->v->kind == GRF_BY_SCORE ? grf_special_match(e->v, text, left, e->no_special) : -1;
}

/* Special pieces stay as they are, the character map may change a match, and a byte that is not
 * UTF-8 becomes U+FFFD. Everything else is copied by characters. */
static grf_rewrite grf_encoder_rewrite(const grf_encoder *e, const char *text, uint64_t left) {
    grf_rewrite next = { text, 0, 0 };
    int32_t id = grf_encoder_special(e, text, left);
    if (id >= 0) {
        next.length = next.used = e->v->pieces[id].length;
    } else if (!grf_map_match(e->v, text, left, &next)) {
        int n = grf_utf8_length(text, left);
        if (n <= 0) next.text = GRF_BROKEN;
        next.used   = n > 0 ? (uint64_t)n : 1;
        next.length = n > 0 ? (uint64_t)n : 3;
    }
    return next;
}

static void grf_encoder_append(grf_encoder *e, const char *text, uint64_t length) {
    for (; length; text++, length--) {
        e->characters += (*text & 0xC0) != 0x80;
        if (*text == ' ' && e->v->escape) grf_text_append(&e->text, GRF_SPACE, 3);
        else grf_text_append(&e->text, text, 1);
    }
}

static void grf_encoder_trim_end(grf_encoder *e) {
    const char *space = e->v->escape ? GRF_SPACE : " ";
    uint64_t n = strlen(space);
    while (e->symbols && e->text.length >= n
           && memcmp(e->text.at + e->text.length - n, space, (size_t)n) == 0) e->text.length -= n;
}

/* Appends a stretch of raw text, rewritten. `first`: nothing comes before it. */
static void grf_encoder_normalise(grf_encoder *e, const char *text, uint64_t length, int first) {
    const grf_vocab *v = e->v;
    const char *end = text + length;
    int drop = v->trim && first;            /* spaces that follow are left out */
    grf_rewrite next;
    for (; drop && text < end; text += next.used) {
        next = grf_encoder_rewrite(e, text, (uint64_t)(end - text));
        if (next.length != 1 || next.text[0] != ' ') break;
    }
    if (text == end) return;
    int spaced = v->prefix_once
              && (*text == ' ' || (end - text >= 3 && memcmp(text, GRF_SPACE, 3) == 0));
    if (first && v->dummy_prefix && !v->as_suffix && !spaced) grf_encoder_append(e, " ", 1);
    for (; text < end; text += next.used) {
        next = grf_encoder_rewrite(e, text, (uint64_t)(end - text));
        while (drop && next.length && next.text[0] == ' ') { next.text++; next.length--; }
        grf_encoder_append(e, next.text, next.length);
        if (next.length) drop = v->trim && next.text[next.length - 1] == ' ';
    }
    if (v->trim) grf_encoder_trim_end(e);
    if (v->dummy_prefix && v->as_suffix) grf_encoder_append(e, " ", 1);
}

/* ---- cutting into symbols -------------------------------------------------------------- */

static void grf_encoder_add(grf_encoder *e, uint64_t start, uint64_t length, int32_t id) {
    grf_symbol *s = &e->symbols[e->count];
    s->start  = (uint32_t)start;
    s->length = (uint32_t)length;
    s->id     = id;
    s->next   = -1;
    s->prev   = e->apart ? -1 : e->count - 1;
    if (!e->apart) e->symbols[s->prev].next = e->count;
    e->apart = 0;
    e->count++;
}

/* A symbol with no neighbours. */
static void grf_encoder_add_special(grf_encoder *e, uint64_t start, uint64_t length, int32_t id) {
    e->apart = 1;
    grf_encoder_add(e, start, length, id);
    e->apart = 1;
}

/* The piece that a stretch of rewritten text is, or -1. */
GRF_INLINE int32_t grf_encoder_piece(const grf_encoder *e, uint64_t start, uint64_t length,
                                     int kinds) {
    const char *text = e->text.at + start;
    if (length > e->v->longest) return -1;
    int32_t id = grf_vocab_find(e->v, text, length, grf_text_hash(text, length), kinds);
    return id >= 0 && e->no_special && e->v->pieces[id].marker ? -1 : id;
}

/* By rank, a character that is no piece becomes the tokens of its bytes, if all of them have one.
 * By score, the text of a symbol decides in the end, so that no piece is looked up here. */
static void grf_encoder_add_character(grf_encoder *e, uint64_t start, uint64_t length) {
    const uint8_t *bytes = (const uint8_t *)e->text.at + start;
    const int32_t *tokens = e->v->bytes;
    int32_t id = -1;
    uint64_t known = 0;
    if (e->v->kind == GRF_BY_RANK) {
        id = grf_encoder_piece(e, start, length, GRF_MERGEABLE);
        while (id < 0 && known < length && tokens[bytes[known]] >= 0) known++;
    }
    if (known < length) { grf_encoder_add(e, start, length, id); return; }
    for (uint64_t i = 0; i < length; i++) grf_encoder_add(e, start + i, 1, tokens[bytes[i]]);
}

static void grf_encoder_split_characters(grf_encoder *e, uint64_t from) {
    uint64_t length;
    for (uint64_t at = from; at < e->text.length; at += length) {
        const char *text = e->text.at + at;
        int32_t id = grf_encoder_special(e, text, e->text.length - at);
        if (id >= 0) {
            length = e->v->pieces[id].length;
            grf_encoder_add_special(e, at, length, id);
        } else {
            length = (uint64_t)grf_utf8_length(text, e->text.length - at);
            if (e->v->split_at_spaces && length == 3 && !memcmp(text, GRF_SPACE, 3)) e->apart = 1;
            grf_encoder_add_character(e, at, length);
        }
    }
}

/* ---- words -------------------------------------------------------------------------------
 * GPT-2, and SmolLM with every number apart before that:
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * Llama 3, and Qwen 2 with \p{N} instead of \p{N}{1,3}:
 *
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 *     \s*[\r\n]+|\s+(?!\S)|\s+                                                                */

enum grf_class { GRF_OTHER, GRF_LETTER, GRF_NUMBER, GRF_BLANK };

/* The code points of each class in Unicode 16, which no file brings along: how many are not of the
 * class, how many are, how many are not, and so on. */
static const uint16_t grf_blanks[] = {
    9,5,18,1,100,1,26,1,5599,1,2431,11,29,2,5,1,47,1,4000,1
};
static const uint16_t grf_letters[] = {
    65,26,6,26,47,1,10,1,4,1,5,23,1,31,1,458,4,12,14,5,7,1,1,1,129,5,1,2,2,4,1,1,6,1,1,3,1,1,1,20,1,
    83,1,139,8,166,1,38,2,1,6,41,71,27,4,4,45,43,35,2,1,99,1,1,15,2,7,2,10,3,2,1,16,1,1,30,29,89,11,
    1,24,33,9,2,4,1,5,22,4,1,9,1,3,1,23,25,7,11,5,24,1,6,17,42,58,54,3,1,18,1,7,10,15,16,4,8,2,2,2,
    22,1,7,1,1,3,4,3,1,16,1,13,2,1,3,14,2,10,1,8,6,4,2,2,22,1,7,1,2,1,2,1,2,31,4,1,1,19,3,16,9,1,3,
    1,22,1,7,1,2,1,5,3,1,18,1,15,2,23,1,11,8,2,2,2,22,1,7,1,2,1,5,3,1,30,2,1,3,15,1,17,1,1,6,3,3,1,
    4,3,2,1,1,1,2,3,2,3,3,3,12,22,1,52,8,1,3,1,23,1,16,3,1,26,3,2,1,2,2,30,1,4,8,1,3,1,23,1,10,1,5,
    3,1,31,2,1,2,15,2,17,9,1,3,1,41,2,1,16,1,5,3,8,3,24,6,5,18,3,24,1,9,1,1,2,7,58,48,1,2,12,7,58,2,
    1,1,1,5,1,24,1,1,1,10,1,2,9,1,2,5,1,1,21,4,32,1,63,8,1,36,27,5,115,43,20,1,16,6,4,4,3,1,3,2,7,3,
    4,13,12,1,17,38,1,1,5,1,2,43,1,333,1,4,2,7,1,1,1,4,2,41,1,4,2,33,1,4,2,7,1,1,1,4,2,15,1,57,1,4,
    2,67,37,16,16,86,2,6,3,620,2,17,1,26,5,75,6,8,7,18,13,19,14,18,14,13,1,3,15,52,35,1,4,1,67,89,7,
    5,2,34,1,1,5,70,10,31,49,30,2,5,11,44,4,26,54,23,9,53,82,1,93,47,17,8,54,30,13,2,10,44,26,36,41,
    3,10,36,2,11,5,43,2,3,41,4,1,6,1,2,3,1,5,192,64,278,2,6,2,38,2,6,2,8,1,1,1,1,1,1,1,31,2,53,1,7,
    1,1,3,3,1,7,3,4,2,6,4,13,5,3,1,7,116,1,13,1,16,13,101,1,4,1,2,10,1,1,3,5,6,1,1,1,1,1,1,4,1,11,2,
    4,5,5,4,1,52,2,2683,229,6,4,3,2,12,38,1,1,5,1,2,56,7,1,16,23,9,7,1,7,1,7,1,7,1,7,1,7,1,7,1,7,80,
    1,469,2,42,5,5,2,4,86,6,3,1,90,1,4,5,43,1,94,17,32,48,16,512,6592,64,22157,67,46,2,269,3,16,10,
    2,20,47,16,31,2,70,49,9,2,103,2,67,2,2,1,1,1,8,21,16,1,3,1,4,1,23,29,52,14,50,62,6,3,1,1,2,11,
    28,10,23,25,29,7,47,28,1,16,5,1,10,10,5,1,41,23,3,1,8,20,23,3,1,3,50,1,1,3,2,2,5,2,1,1,1,24,3,2,
    11,7,3,12,6,2,6,2,6,9,7,1,7,1,43,1,14,6,115,29,11172,12,23,4,49,8452,366,2,106,38,7,12,5,5,1,1,
    10,1,13,1,5,1,1,1,2,1,2,1,108,33,363,18,64,2,54,40,12,116,5,1,135,36,26,6,26,11,89,3,6,2,6,2,6,
    2,3,35,12,1,26,1,19,1,2,1,15,2,14,34,123,389,29,3,49,47,32,13,20,1,8,6,38,10,30,2,36,4,8,48,158,
    18,36,4,36,4,40,8,52,12,11,1,15,1,7,1,2,1,11,1,15,1,7,1,2,3,52,12,311,9,22,10,8,24,6,1,42,1,9,
    69,6,2,1,1,44,1,2,3,1,2,23,10,23,9,31,65,19,1,2,10,22,10,26,70,56,6,2,64,1,15,4,1,3,1,29,42,29,
    3,29,35,8,1,28,27,54,10,22,10,19,13,18,110,73,55,51,13,51,13,36,38,28,9,23,250,42,6,2,16,3,59,
    29,10,1,8,22,42,18,46,21,27,23,12,53,57,2,2,1,13,45,32,25,26,36,29,1,2,1,8,35,3,1,12,48,14,4,21,
    1,1,1,35,18,1,25,19,2,63,7,1,1,1,4,1,15,1,10,7,47,38,8,2,2,2,22,1,7,1,2,1,5,3,1,18,1,12,5,30,10,
    1,1,2,1,1,38,1,1,25,1,1,1,44,53,18,4,20,3,30,48,20,2,1,1,184,47,41,4,36,48,20,1,59,43,13,1,71,
    27,37,7,185,44,116,64,31,8,2,1,2,8,1,2,1,24,15,1,1,1,94,8,2,39,16,1,1,1,28,1,10,40,7,1,21,1,11,
    46,19,1,18,73,199,33,31,9,1,37,17,1,49,30,112,7,1,2,1,38,21,1,25,6,1,2,1,32,14,1,327,19,15,1,1,
    13,1,34,124,1,79,922,230,196,2636,97,15,1072,17,6,25,3995,5,583,6841,30,1762,569,7,31,17,79,17,
    30,18,48,16,4,31,21,5,19,432,45,211,64,128,75,5,1,66,13,64,2,1,1,28,6136,8,1238,41,10,8935,4,1,
    7,1,2,1,291,15,1,29,3,2,1,14,4,8,396,2308,107,5,13,3,9,7,10,5990,85,1,71,1,2,2,1,2,2,2,4,1,12,1,
    1,1,7,1,65,1,4,2,8,1,7,1,28,1,4,1,5,1,1,3,7,1,340,2,25,1,25,1,31,1,25,1,31,1,25,1,31,1,25,1,31,
    1,25,1,8,1844,31,6,6,261,62,146,45,10,7,16,1,321,30,18,44,484,28,228,30,2,1,495,7,1,4,1,2,1,15,
    1,197,59,68,7,1,1204,4,1,27,1,2,1,1,2,1,1,10,1,4,1,1,1,1,6,1,4,1,1,1,1,1,1,3,1,2,1,1,2,1,1,1,1,
    1,1,1,1,1,1,2,1,1,2,4,1,7,1,4,1,4,1,1,1,10,1,17,5,3,1,5,1,17,4420,42720,32,4154,6,222,2,5762,14,
    7473,15,622,2466,542,1506,4939,5,4192
};
static const uint16_t grf_numbers[] = {
    48,10,120,2,5,1,2,3,1441,10,134,10,198,10,412,10,118,10,4,6,108,10,118,10,118,10,2,6,110,13,115,
    10,8,7,103,10,104,7,7,19,109,10,96,10,118,10,70,20,268,10,70,10,719,20,881,3,239,10,6,10,22,10,
    300,10,128,11,165,10,6,10,182,10,86,10,134,10,6,10,1046,1,3,6,6,10,198,51,2,5,726,60,78,22,630,
    30,1385,1,777,1,25,9,14,3,343,4,138,10,30,8,1,15,32,10,39,15,29536,10,188,10,320,6,154,10,38,10,
    198,10,22,10,86,10,406,10,21270,10,493,45,12,57,17,2,341,27,36,4,29,1,8,1,134,5,202,10,942,8,25,
    7,39,9,75,5,22,6,160,2,2,16,2,46,64,9,52,2,30,3,75,5,104,8,24,8,41,7,330,6,48,10,6,10,278,31,
    158,10,42,4,112,7,134,30,128,10,60,10,144,10,7,20,251,10,342,10,118,10,374,10,102,10,6,20,76,12,
    420,19,93,10,662,10,86,29,227,10,70,10,422,10,102,21,1067,111,15553,10,2342,10,86,10,134,10,1,7,
    526,10,262,23,24153,10,1478,20,12,20,108,25,1109,50,2368,10,422,10,502,10,247,10,716,9,128,10,
    791,59,1,3,1,4,76,45,1,15,962,13,2787,10
};

static int grf_class_in(const uint16_t *runs, int count, uint32_t c) {
    uint32_t at = 0;
    for (int i = 0; i < count; i++) {
        at += runs[i];
        if (c < at) return i & 1;
    }
    return 0;
}

static int grf_class_of(uint32_t c) {
    if (grf_class_in(grf_blanks,  GRF_COUNT(grf_blanks),  c)) return GRF_BLANK;
    if (grf_class_in(grf_letters, GRF_COUNT(grf_letters), c)) return GRF_LETTER;
    if (grf_class_in(grf_numbers, GRF_COUNT(grf_numbers), c)) return GRF_NUMBER;
    return GRF_OTHER;
}

/* The class of the character at `at`; *bytes is its length. */
static int grf_word_class(const grf_text *text, uint64_t at, int *bytes) {
    *bytes = grf_utf8_length(text->at + at, text->length - at);
    return grf_class_of(grf_utf8_code_point(text->at + at, *bytes));
}

/* The end of at most `most` characters of one class from `at` on; *last is where the last of them
 * starts. */
static uint64_t grf_word_run_end(const grf_text *text, uint64_t at, int kind, uint64_t most,
                                 uint64_t *last) {
    int n;
    for (; most && at < text->length && grf_word_class(text, at, &n) == kind; most--) {
        *last = at;
        at += (uint64_t)n;
    }
    return at;
}

/* The length of 's, 't, 'm, 'd, 're, 've or 'll at the start of a text, or 0. With `fold` in
 * capitals, too; and then the long s, U+017F, is an s. */
static uint64_t grf_word_contraction(const char *text, uint64_t left, int fold) {
    char c[2] = { 0, 0 };
    if (left < 2 || text[0] != '\'') return 0;
    if (fold && left > 2 && memcmp(text + 1, "\xC5\xBF", 2) == 0) return 3;
    for (int i = 0; i < 2 && (uint64_t)i + 1 < left; i++) {
        c[i] = text[i + 1];
        if (fold && c[i] >= 'A' && c[i] <= 'Z') c[i] = (char)(c[i] - 'A' + 'a');
    }
    if (memchr("stmd", c[0], 4)) return 2;
    return memcmp(c, "re", 2) && memcmp(c, "ve", 2) && memcmp(c, "ll", 2) ? 0 : 3;
}

/* A run of blanks leaves its last one to the word after it. */
static uint64_t grf_word_blanks(const grf_text *text, uint64_t start) {
    uint64_t last = start, end = grf_word_run_end(text, start, GRF_BLANK, UINT64_MAX, &last);
    return end < text->length && last > start ? last : end;
}

/* The word is a contraction, or a run of one class with one space before it, or a run of blanks. */
static uint64_t grf_word_end_gpt2(const grf_text *text, uint64_t start) {
    uint64_t n = grf_word_contraction(text->at + start, text->length - start, 0), last;
    if (n) return start + n;
    uint64_t at = start + (text->at[start] == ' ');
    int bytes, kind = at < text->length ? grf_word_class(text, at, &bytes) : GRF_BLANK;
    return kind == GRF_BLANK ? grf_word_blanks(text, start)
                             : grf_word_run_end(text, at, kind, UINT64_MAX, &last);
}

static int grf_is_line_end(char c) { return c == '\r' || c == '\n'; }

/* The word is a contraction, letters with one other character before them, up to `most` numbers,
 * signs with one space before and line ends after them, blanks up to their last line end, or a run
 * of blanks. */
static uint64_t grf_word_end_llama3(const grf_text *text, uint64_t start, uint64_t most) {
    uint64_t n = grf_word_contraction(text->at + start, text->length - start, 1), last, at;
    int bytes, next, kind = grf_word_class(text, start, &bytes);
    if (n) return start + n;
    if (kind == GRF_NUMBER) return grf_word_run_end(text, start, GRF_NUMBER, most, &last);
    at = kind == GRF_LETTER || grf_is_line_end(text->at[start]) ? start : start + (uint64_t)bytes;
    uint64_t end = grf_word_run_end(text, at, GRF_LETTER, UINT64_MAX, &last);
    if (end > at) return end;
    at = start + (text->at[start] == ' ');
    if (at < text->length && grf_word_class(text, at, &next) == GRF_OTHER) {
        end = grf_word_run_end(text, at, GRF_OTHER, UINT64_MAX, &last);
        while (end < text->length && grf_is_line_end(text->at[end])) end++;
        return end;
    }
    end = grf_word_run_end(text, start, GRF_BLANK, UINT64_MAX, &last);
    while (end > start && !grf_is_line_end(text->at[end - 1])) end--;
    return end > start ? end : grf_word_blanks(text, start);
}

/* The end of the stretch that starts at `at` and is split on its own: all of the text, or one
 * number, or what comes before the next number. */
static uint64_t grf_word_stretch(const grf_split *split, const grf_text *text, uint64_t at) {
    if (!split->digits_apart) return text->length;
    int n, number = grf_word_class(text, at, &n) == GRF_NUMBER;
    for (at += (uint64_t)n; !number && at < text->length; at += (uint64_t)n) {
        if (grf_word_class(text, at, &n) == GRF_NUMBER) break;
    }
    return at;
}

/* The piece that is a whole word, or -1. A word is spelled in the heap, which is still empty and
 * has room for more than that. */
static int32_t grf_encoder_word(const grf_encoder *e, uint64_t start, uint64_t end) {
    char *spelled = (char *)e->heap;
    uint64_t length = 0;
    if (!e->v->whole_words || end - start > e->v->longest) return -1;
    for (; start < end; start++) {
        int32_t byte = e->v->bytes[(uint8_t)e->text.at[start]];
        if (byte < 0) return -1;
        memcpy(spelled + length, e->v->pieces[byte].text, e->v->pieces[byte].length);
        length += e->v->pieces[byte].length;
    }
    uint32_t hash = grf_text_hash(spelled, length);
    int32_t id = grf_vocab_find(e->v, spelled, length, hash, GRF_MERGEABLE);
    return id >= 0 && e->no_special && e->v->pieces[id].marker ? -1 : id;
}

static void grf_encoder_split_words(grf_encoder *e, uint64_t from) {
    grf_text stretch = e->text;
    uint64_t end;
    stretch.length = from;
    for (uint64_t at = from; at < e->text.length; at = end) {
        if (at == stretch.length) stretch.length = grf_word_stretch(e->v->split, &e->text, at);
        uint64_t most = e->v->split->llama3;
        end = most ? grf_word_end_llama3(&stretch, at, most)
                   : grf_word_end_gpt2(&stretch, at);
        int32_t id = grf_encoder_word(e, at, end);
        e->apart = 1;
        if (id >= 0) grf_encoder_add(e, at, end - at, id);
        else for (uint64_t i = at; i < end; i++) {
            int32_t byte = e->v->bytes[(uint8_t)e->text.at[i]];
            if (byte >= 0) grf_encoder_add(e, i, 1, byte);
        }
    }
    e->apart = 1;
}

/* ---- symbols to tokens -------------------------------------------------------------- */

static void grf_encoder_prepare_stretch(grf_encoder *e, const char *text, uint64_t length,
                                        int first) {
    uint64_t from = e->text.length;
    grf_encoder_normalise(e, text, length, first);
    if (!e->symbols) return;
    if (e->v->kind == GRF_BYTE_LEVEL) grf_encoder_split_words(e, from);
    else grf_encoder_split_characters(e, from);
}

/* Whether the stretch that starts at `from` gets a space of its own. */
static int grf_encoder_is_first(const grf_encoder *e, uint64_t from) {
    return from || e->continues == 2 ? e->v->each_stretch : !e->continues;
}

/* The special piece to be cut out of the raw text here, or -1. */
static int32_t grf_encoder_cut(const grf_encoder *e, const char *text, uint64_t left) {
    int32_t id = grf_special_match(e->v, text, left, e->no_special);
    return id >= e->v->first_added ? id : -1;
}

/* With merges, a piece that was cut out leaves one byte in the rewritten text, so that there are
 * never more symbols than bytes. By score it leaves its own text, by which it is found again. */
static void grf_encoder_keep_cut(grf_encoder *e, const char *text, int32_t id) {
    const grf_piece *piece = &e->v->pieces[id];
    int by_score = e->v->kind == GRF_BY_SCORE;
    uint64_t length = by_score ? piece->length : 1;
    if (e->symbols) grf_encoder_add_special(e, e->text.length, length, id);
    grf_text_append(&e->text, by_score ? piece->text : text, length);
    e->characters++;
}

/* Rewrites the text and, if there is memory for symbols, cuts it into them. Before that, special
 * pieces are cut out of the raw text; by score, only the added ones. */
static void grf_encoder_prepare(grf_encoder *e, const char *text, uint64_t length) {
    uint64_t at = 0, from = 0;
    e->text.length = e->characters = 0;
    e->apart = 1;
    while (e->v->first_added < e->v->count && at < length) {
        int32_t id = grf_encoder_cut(e, text + at, length - at);
        if (id < 0) { at++; continue; }
        grf_encoder_prepare_stretch(e, text + from, at - from, grf_encoder_is_first(e, from));
        grf_encoder_keep_cut(e, text + at, id);
        at += e->v->pieces[id].length;
        from = at;
    }
    grf_encoder_prepare_stretch(e, text + from, length - from, grf_encoder_is_first(e, from));
}

/* A binary heap: no pair has a lower order than its parent at (place - 1) / 2. A pair enters it at
 * a free place that has no children, and changes places with its parent while its order is
 * lower. */
static void grf_heap_enter(grf_pair *heap, uint64_t at, grf_pair pair) {
    for (; at && pair.order < heap[(at - 1) / 2].order; at = (at - 1) / 2) {
        heap[at] = heap[(at - 1) / 2];
    }
    heap[at] = pair;
}

/* Takes the top away. The lower of two children moves up each time, and the last pair enters where
 * that ends. */
static grf_pair grf_heap_pop(grf_pair *heap, uint64_t count) {
    grf_pair top = heap[0];
    uint64_t at = 0, child;
    while ((child = 2 * at + 1) < count) {
        if (child + 1 < count && heap[child + 1].order < heap[child].order) child++;
        heap[at] = heap[child];
        at = child;
    }
    grf_heap_enter(heap, at, heap[count - 1]);
    return top;
}

/* The slot of an unused piece, or a free one for it. */
static grf_join *grf_encoder_join(const grf_encoder *e, int32_t id) {
    uint64_t mask = e->join_slots - 1, at = ((uint64_t)id * 0x9E3779B97F4A7C15u >> 32) & mask;
    while (e->joins[at].piece && e->joins[at].piece != id + 1) at = (at + 1) & mask;
    return &e->joins[at];
}

/* Pushes the pair of a symbol and the next one, if there is one and they can be joined. */
static void grf_encoder_push_pair(grf_encoder *e, int32_t left) {
    const grf_vocab *v = e->v;
    const grf_symbol *a = &e->symbols[left];
    if (a->next < 0) return;
    const grf_symbol *b = &e->symbols[a->next];
    grf_pair pair;
    uint32_t order;
    pair.length = a->length + b->length;
    if (v->kind == GRF_BY_SCORE) {
        pair.id = grf_encoder_piece(e, a->start, pair.length, GRF_MERGEABLE);
        if (pair.id < 0) return;
        order = v->pieces[pair.id].order;
        if (v->pieces[pair.id].type == GRIFFIN_TOKEN_UNUSED) {
            grf_join *join = grf_encoder_join(e, pair.id);
            join->piece = pair.id + 1;
            join->left  = a->length;
        }
    } else {
        int32_t rank = grf_vocab_find_merge(v, a->id, b->id);
        if (rank < 0) return;
        order   = (uint32_t)rank;
        pair.id = v->merges[rank].merged;
        if (e->no_special && v->pieces[pair.id].marker) return;
    }
    pair.order = (uint64_t)order << 32 | (uint32_t)left;
    grf_heap_enter(e->heap, e->waiting++, pair);
}

/* A pair is out of date if its left symbol is gone or one of the two has grown. Every join takes
 * one pair off the heap and puts at most two there, so it never holds more than 2 count. */
static void grf_encoder_merge(grf_encoder *e) {
    for (int32_t i = 0; i < e->count; i++) grf_encoder_push_pair(e, i);
    while (e->waiting) {
        grf_pair pair = grf_heap_pop(e->heap, e->waiting--);
        int32_t left = (int32_t)(uint32_t)pair.order;
        grf_symbol *a = &e->symbols[left];
        if (!a->length || a->next < 0) continue;
        grf_symbol *b = &e->symbols[a->next];
        if (a->length + b->length != pair.length) continue;
        a->length = pair.length;
        a->id     = pair.id;
        a->next   = b->next;
        b->length = 0;
        if (a->next >= 0) e->symbols[a->next].prev = left;
        if (a->prev >= 0) grf_encoder_push_pair(e, a->prev);
        grf_encoder_push_pair(e, left);
    }
}

static void grf_encoder_emit(grf_encoder *e, int32_t id) {
    if (e->written < e->capacity) e->tokens[e->written] = id;
    e->written++;
    e->after_unknown = 0;
}

/* Neighbouring unknown symbols share one token. */
static void grf_encoder_emit_unknown(grf_encoder *e, uint64_t start, uint64_t length) {
    if (e->v->byte_fallback) {
        for (; length; start++, length--) {
            grf_encoder_emit(e, e->v->bytes[(uint8_t)e->text.at[start]]);
        }
    } else if (e->v->unknown >= 0 && !e->after_unknown) {
        grf_encoder_emit(e, e->v->unknown);
        e->after_unknown = 1;
    }
}

/* By score, the text of a symbol decides. An unused piece falls apart again into the two parts that
 * it was last joined from. The heap is empty by now, and its memory is the stack for that. */
static void grf_encoder_emit_text(grf_encoder *e, uint32_t start, uint32_t length) {
    uint64_t depth = 1;
    e->heap[0].order  = start;
    e->heap[0].length = length;
    while (depth) {
        grf_pair part = e->heap[--depth];
        int32_t id = grf_encoder_piece(e, part.order, part.length, GRF_RESERVED);
        uint32_t cut = 0;
        if (id < 0) id = grf_encoder_piece(e, part.order, part.length, GRF_MERGEABLE);
        if (id >= 0 && e->v->pieces[id].type == GRIFFIN_TOKEN_UNUSED) {
            cut = grf_encoder_join(e, id)->left;
        }
        if (cut) {
            e->heap[depth].order    = part.order + cut;
            e->heap[depth++].length = part.length - cut;
            e->heap[depth].order    = part.order;
            e->heap[depth++].length = cut;
        } else if (id < 0 || id == e->v->unknown) {
            grf_encoder_emit_unknown(e, part.order, part.length);
        } else {
            grf_encoder_emit(e, id);
        }
    }
}

static void grf_encoder_emit_all(grf_encoder *e) {
    for (int32_t i = 0; i < e->count; i++) {
        const grf_symbol *s = &e->symbols[i];
        if (!s->length) continue;
        if (e->v->kind == GRF_BY_SCORE) grf_encoder_emit_text(e, s->start, s->length);
        else if (s->id < 0) grf_encoder_emit_unknown(e, s->start, s->length);
        else grf_encoder_emit(e, s->id);
    }
}

/* ---- memory of the encoder ------------------------------------------------------------ */

/* Room for the unused pieces that a text may join, and for one more. grf_encoder_merge pushes at
 * most three pairs a symbol: one for each symbol, and then two for each join. */
static uint64_t grf_join_slots(const grf_vocab *v, uint64_t symbols) {
    int64_t unused = v->kind == GRF_BY_SCORE ? v->unused : 0, slots = 1;
    while (slots <= grf_min64(unused, (int64_t)(3 * symbols))) slots *= 2;
    return (uint64_t)slots;
}

/* Lays everything out in scratch memory, or only measures it if base is null. Returns the bytes
 * needed, 63 of them to align the base. */
static uint64_t grf_encoder_lay_out(grf_encoder *e, void *base, uint64_t bytes, uint64_t symbols) {
    grf_arena arena;
    arena.base = base ? (unsigned char *)grf_align64(base) : NULL;
    arena.used = 0;
    e->heap    = (grf_pair *)grf_arena_take(&arena, (2 * symbols + 2) * sizeof(grf_pair));
    e->symbols = (grf_symbol *)grf_arena_take(&arena, (symbols + 1) * sizeof(grf_symbol));
    e->join_slots = grf_join_slots(e->v, symbols);
    e->joins   = (grf_join *)grf_arena_take(&arena, e->join_slots * sizeof(grf_join));
    e->text.at = (char *)grf_arena_take(&arena, bytes);
    e->text.capacity = base ? bytes : 0;
    return arena.used + 63;
}

/* Enough for any text of this length: a byte becomes at most three (a space, or a broken byte),
 * or what the character map makes of it. Where each stretch gets a space, there are at most as many
 * of them as bytes. Only by score, symbols are whole characters. */
static uint64_t grf_encoder_bound(const grf_vocab *v, uint64_t length) {
    uint64_t symbols = 1 + (length < GRF_MOST_TEXT ? length : GRF_MOST_TEXT - 1);
    if (v->each_stretch && v->first_added < v->count) symbols *= 2;
    symbols = (uint64_t)grf_min64((int64_t)(symbols * v->growth), GRF_MOST_TEXT);
    uint64_t bytes = (uint64_t)grf_min64((int64_t)(3 * symbols), GRF_MOST_TEXT);
    grf_encoder e;
    memset(&e, 0, sizeof e);
    e.v = v;
    return grf_encoder_lay_out(&e, NULL, bytes, v->kind == GRF_BY_SCORE ? symbols : bytes);
}

/* Lays out what this very text needs. Before that, the text was measured. */
static uint64_t grf_encoder_fit(grf_encoder *e, void *base) {
    return grf_encoder_lay_out(e, base, e->text.length, e->v->kind == GRF_BY_SCORE
                               ? e->characters : e->text.length);
}

static int grf_encode(const griffin_model *model, const griffin_encoding *encoding,
                      const char *text, size_t length, int32_t *tokens, int capacity) {
    grf_encoder e;
    memset(&e, 0, sizeof e);
    e.v = model->vocab;
    e.no_special = encoding->no_special;
    e.continues  = encoding->continues;
    e.tokens     = tokens;
    e.capacity   = capacity;
    grf_encoder_prepare(&e, text, length);                  /* without memory: measures */
    if (e.text.length > GRF_MOST_TEXT) {
        return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "griffin_encode: text too long");
    }
    uint64_t size = grf_encoder_fit(&e, NULL);
    if (encoding->scratch && encoding->scratch_size < size) {
        return grf_fail(&model->host, GRIFFIN_E_SPACE, "griffin_encode: %u bytes of scratch, but "
                        "the text needs %u", (uint64_t)encoding->scratch_size, size);
    }
    void *memory = encoding->scratch ? encoding->scratch : grf_host_allocate(&model->host, size);
    if (!memory) return grf_fail_memory(&model->host, size);
    grf_encoder_fit(&e, memory);
    memset(e.joins, 0, (size_t)e.join_slots * sizeof(grf_join));
    int starts = !encoding->no_bos && !encoding->continues;
    for (int i = 0; starts && i < e.v->before_count; i++) grf_encoder_emit(&e, e.v->before[i]);
    grf_encoder_prepare(&e, text, length);
    grf_encoder_merge(&e);
    grf_encoder_emit_all(&e);
    for (int i = 0; encoding->ends && i < e.v->after_count; i++) {
        grf_encoder_emit(&e, e.v->after[i]);
    }
    if (!encoding->scratch) grf_host_release(&model->host, memory);
    return (int)e.written;
}

/* ---- tokens to text ----------------------------------------------------------------
 * A token stands for the bytes of its surface: its piece, with U+2581 as a space and byte-level
 * characters as bytes. A decoder holds the bytes of a character until it is complete. */

static const char *grf_token_surface(const grf_vocab *v, int32_t id, uint64_t *length) {
    const grf_piece *piece = &v->pieces[id];
    *length = piece->type == GRIFFIN_TOKEN_CONTROL ? 0 : piece->length;
    if (piece->type != GRIFFIN_TOKEN_UNKNOWN) return piece->text;
    *length = v->unk_length;
    return v->unk_surface;
}

/* Tokens of byte-level pieces stand for bytes that need not be whole characters. */
static int grf_token_is_byte_level(const grf_vocab *v, int32_t id) {
    int type = v->pieces[id].type;
    return v->kind == GRF_BYTE_LEVEL
        && (type == GRIFFIN_TOKEN_NORMAL || type == GRIFFIN_TOKEN_UNUSED);
}

/* The bytes that the character at *at of a surface stands for: 1 to 4 of them. Moves *at on. */
static int grf_token_next_bytes(const grf_vocab *v, int32_t id, const char *text, uint64_t length,
                                uint64_t *at, char bytes[4]) {
    int n = grf_utf8_length(text + *at, length - *at);
    int32_t byte = -1;
    if (v->pieces[id].type == GRIFFIN_TOKEN_BYTE) {
        byte = grf_byte_of_piece(&v->pieces[id]);
        n = (int)length;
    } else if (grf_token_is_byte_level(v, id)) {
        byte = grf_byte_of_character(grf_utf8_code_point(text + *at, n));
    } else if (v->kind != GRF_BYTE_LEVEL && n == 3 && memcmp(text + *at, GRF_SPACE, 3) == 0) {
        byte = ' ';
    }
    if (byte >= 0) bytes[0] = (char)byte;
    else for (int i = 0; i < n; i++) bytes[i] = text[*at + (uint64_t)i];
    *at += (uint64_t)n;
    return byte >= 0 ? 1 : n;
}

static int grf_token_text(const grf_vocab *v, int32_t id, grf_text *out) {
    uint64_t length, at = 0;
    const char *surface = grf_token_surface(v, id, &length);
    char bytes[4];
    while (at < length) {
        int n = grf_token_next_bytes(v, id, surface, length, &at, bytes);
        for (int i = 0; i < n; i++) grf_text_append(out, &bytes[i], 1);
    }
    return (int)out->length;
}

/* Writes what is certain: whole characters, and U+FFFD for each byte that cannot be in one. */
static void grf_decoder_byte(griffin_decoder *d, char byte, grf_text *out) {
    d->held[d->count++] = (unsigned char)byte;
    while (d->count) {
        int n = grf_utf8_length((const char *)d->held, d->count);
        if (n < 0) return;
        if (n) grf_text_append(out, (const char *)d->held, (uint64_t)n);
        else grf_text_append(out, GRF_BROKEN, 3);
        if (!n) n = 1;
        d->count = (unsigned char)(d->count - n);
        memmove(d->held, d->held + n, d->count);
    }
}

static void grf_decoder_flush(griffin_decoder *d, grf_text *out) {
    for (; d->count; d->count--) grf_text_append(out, GRF_BROKEN, 3);
}

/* A space that encoding put at the start of the text is left out: the first one, or with trim all
 * of them until another character has come. */
static void grf_decoder_token(const grf_vocab *v, griffin_decoder *d, int32_t id, grf_text *out) {
    int type = v->pieces[id].type;
    uint64_t length, at = 0;
    const char *text = grf_token_surface(v, id, &length);
    char bytes[4];
    if (type != GRIFFIN_TOKEN_BYTE && !grf_token_is_byte_level(v, id)) {
        grf_decoder_flush(d, out);
        if (d->ate_space || d->any_output || out->length) d->started = 1;
        d->ate_space = 0;
        if (!d->started && (v->dummy_prefix || v->trim) && (GRF_MERGEABLE >> type & 1)
            && length >= 3 && memcmp(text, GRF_SPACE, 3) == 0) {
            at = 3;
            d->ate_space = (unsigned char)!v->trim;
        }
    }
    while (at < length) {
        int n = grf_token_next_bytes(v, id, text, length, &at, bytes);
        for (int i = 0; i < n; i++) grf_decoder_byte(d, bytes[i], out);
    }
}

/* The decoder changes only if the text fits. */
static int grf_decode(const grf_vocab *v, griffin_decoder *decoder, int32_t token, char *text,
                      size_t capacity) {
    griffin_decoder d = *decoder;
    grf_text out = { text, capacity, 0 };
    if (token < 0) grf_decoder_flush(&d, &out);
    else grf_decoder_token(v, &d, token, &out);
    if (out.length) d.any_output = 1;
    if (out.length >= capacity) return GRIFFIN_E_SPACE;
    text[out.length] = 0;
    *decoder = d;
    return (int)out.length;
}

/* ---- stop texts ------------------------------------------------------------------------
 * After every byte, the held bytes are a proper start of one of the texts, and everything before
 * them has been written. A text is found when the held bytes end with it. */

/* The longest text that starts with all held bytes: its index, or -1. With `whole`, the longest
 * text that the held bytes end with. */
static int grf_stop_find(const griffin_stop *s, int whole) {
    int best = -1, longest = 0;
    for (int i = 0; i < s->count; i++) {
        int n = (int)strlen(s->texts[i]), from = whole ? s->held_count - n : 0;
        if (n <= longest || (whole ? from < 0 : n <= s->held_count)) continue;
        if (memcmp(s->held + from, s->texts[i], (size_t)(whole ? n : s->held_count)) != 0) continue;
        best = i;
        longest = n;
    }
    return best;
}

/* Writes all but the last `keep` of the held bytes. */
static void grf_stop_release(griffin_stop *s, int keep, grf_text *out) {
    grf_text_append(out, s->held, (uint64_t)(s->held_count - keep));
    memmove(s->held, s->held + s->held_count - keep, (size_t)keep);
    s->held_count = keep;
}

static void grf_stop_byte(griffin_stop *s, char byte, grf_text *out) {
    s->held[s->held_count++] = byte;
    s->found = 1 + grf_stop_find(s, 1);
    if (s->found) {
        grf_stop_release(s, (int)strlen(s->texts[s->found - 1]), out);
        s->held_count = 0;
    }
    while (s->held_count && grf_stop_find(s, 0) < 0) grf_stop_release(s, s->held_count - 1, out);
}

static int grf_stop_valid(const griffin_stop *s) {
    if (s->count < 0 || (s->count && !s->texts)) return 0;
    if (s->held_count < 0 || s->held_count >= GRIFFIN_STOP_BYTES) return 0;
    for (int i = 0; i < s->count; i++) {
        if (!s->texts[i] || !s->texts[i][0] || strlen(s->texts[i]) > GRIFFIN_STOP_BYTES) return 0;
    }
    return 1;
}

/* ---- whole words ----------------------------------------------------------------------- */

/* How many bytes of a text are whole words. The first byte of a character from U+3000 on is 0xE3
 * or more, and no other byte is; the character is complete, as all of them are. */
static size_t grf_words_whole(const char *text, size_t length) {
    for (size_t n = length; n > 0; n--) {
        unsigned char c = (unsigned char)text[n - 1];
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r') return n;
        if (c >= 0xE3) return (size_t)grf_min64((int64_t)(n - 1) + (c < 0xF0 ? 3 : 4),
                                                (int64_t)length);
    }
    return 0;
}

static int grf_words_feed(griffin_words *w, const char *text, size_t length, grf_text *out) {
    size_t most = (size_t)(w->most ? w->most : GRIFFIN_WORD_BYTES);
    size_t whole = text ? grf_words_whole(text, length) : 0;
    size_t rest = length - whole + (whole ? 0 : (size_t)w->held_count);
    int ends = !text || whole || rest > most;                   /* what is held */
    if (rest > most) whole = length;
    if (ends) {
        grf_text_append(out, w->held, (uint64_t)w->held_count);
        grf_text_append(out, text, (uint64_t)whole);
    }
    if (out->length >= out->capacity) return GRIFFIN_E_SPACE;
    out->at[out->length] = 0;
    if (ends) w->held_count = 0;
    if (length > whole) memcpy(w->held + w->held_count, text + whole, length - whole);
    w->held_count += (int)(length - whole);
    return (int)out->length;
}

/* ---- bans ------------------------------------------------------------------------------
 * A token is forbidden if a stop text would be found in the bytes so far and its own. */

/* Does the byte complete a stop text? Goes on with the longest start of one, as if none had been
 * found. */
static int grf_ban_byte(griffin_stop *s, char byte) {
    grf_text nowhere = { NULL, 0, 0 };
    s->held[s->held_count++] = byte;
    int found = grf_stop_find(s, 1) >= 0;
    while (s->held_count && grf_stop_find(s, 0) < 0) {
        grf_stop_release(s, s->held_count - 1, &nowhere);
    }
    return found;
}

/* Feeds the text of a token. Returns 1 if it completes a stop text. `starts` says which bytes start
 * one, since a mask must pass over the others quickly; null: do not ask. */
static int grf_ban_feed(griffin_stop *s, const grf_vocab *v, int32_t id, int *again,
                        const uint8_t *starts) {
    uint64_t length, at = 0;
    const char *surface = grf_token_surface(v, id, &length);
    char bytes[4];
    int found = 0;
    while (at < length) {
        int n = grf_token_next_bytes(v, id, surface, length, &at, bytes);
        for (int i = 0; i < n; i++) {
            if (*again) { --*again; continue; }
            if (starts && !s->held_count && !starts[(uint8_t)bytes[i]]) continue;
            found |= grf_ban_byte(s, bytes[i]);
        }
    }
    return found;
}

static int grf_ban_mask(const griffin_ban *ban, float *logits, int vocab) {
    const grf_vocab *v = ban->model->vocab;
    uint8_t starts[256] = { 0 };
    int remaining = 0;
    griffin_stop s = ban->stop;
    for (int i = 0; i < s.count; i++) starts[(uint8_t)s.texts[i][0]] = 1;
    for (int32_t id = 0; id < vocab; id++) {
        int again = ban->again;
        if (!(logits[id] > -INFINITY)) continue;
        s.held_count = ban->stop.held_count;
        memcpy(s.held, ban->stop.held, (size_t)s.held_count);
        if (id < v->count && grf_ban_feed(&s, v, id, &again, starts)) logits[id] = -INFINITY;
        else remaining++;
    }
    return remaining;
}

/* ---- healing ---------------------------------------------------------------------------
 * What a tokenizer makes of the end of a prompt depends on what follows. So the last tokens are
 * taken back, as far as one longer piece could replace them, and the model chooses again. */

#define GRF_HEAL_SCRATCH 8192               /* bytes for an encoder, on the stack */

/* The first `most` bytes of a token's text; returns how many it has. 0 for tokens that no text
 * becomes part of. */
static uint64_t grf_heal_text(const grf_vocab *v, int32_t id, char bytes[GRIFFIN_HEAL_BYTES]) {
    const grf_piece *piece = &v->pieces[id];
    grf_text out = { bytes, GRIFFIN_HEAL_BYTES, 0 };
    int plain = (GRF_MERGEABLE >> piece->type & 1) && !piece->marker;
    return plain || piece->type == GRIFFIN_TOKEN_BYTE ? (uint64_t)grf_token_text(v, id, &out) : 0;
}

/* Does a tokenizer write it for text that has pieces? */
static int grf_heal_is_piece(const grf_vocab *v, int32_t id) {
    int type = v->pieces[id].type;
    return type == GRIFFIN_TOKEN_NORMAL || type == GRIFFIN_TOKEN_USER_DEFINED;
}

/* Of the ends of a text that begin at starts[0] > starts[1] > ... the longest which is the
 * beginning of a longer piece: 1 + its index, or 0. */
static int grf_heal_longest(const grf_vocab *v, const char *text, const int *starts, int count) {
    char bytes[GRIFFIN_HEAL_BYTES];
    int best = 0;
    for (int32_t id = 0; id < v->count && best < count; id++) {
        uint64_t n = grf_heal_is_piece(v, id) ? grf_heal_text(v, id, bytes) : 0;
        for (int i = count; i > best; i--) {
            int length = GRIFFIN_HEAL_BYTES - starts[i - 1];
            if (n > (uint64_t)length && memcmp(bytes, text + starts[i - 1], (size_t)length) == 0) {
                best = i;
            }
        }
    }
    return best;
}

static int grf_heal_start(griffin_heal *h, const grf_vocab *v, const int32_t *tokens, int count) {
    char text[GRIFFIN_HEAL_BYTES], bytes[GRIFFIN_HEAL_BYTES];
    int starts[GRIFFIN_HEAL_BYTES], n = 0, from = GRIFFIN_HEAL_BYTES;
    while (n + 1 < count) {
        uint64_t length = grf_heal_text(v, tokens[count - n - 1], bytes);
        if (length < 1 || length > (uint64_t)from) break;
        from -= (int)length;
        memcpy(text + from, bytes, (size_t)length);
        starts[n++] = from;
    }
    n = grf_heal_longest(v, text, starts, n);
    h->count = n ? GRIFFIN_HEAL_BYTES - starts[n - 1] : 0;
    memset(h->text, 0, sizeof h->text);
    if (n) memcpy(h->text, text + starts[n - 1], (size_t)h->count);
    return count - n;
}

/* The token with which the tokenizer starts a text that follows other text; -1: it needs more
 * scratch to know that. */
static int32_t grf_heal_first_token(const griffin_model *model, const char *text, int length) {
    unsigned char scratch[GRF_HEAL_SCRATCH];
    griffin_encoding how;
    int32_t token = -1;
    memset(&how, 0, sizeof how);
    how.continues = how.no_special = 1;
    how.scratch = scratch;
    how.scratch_size = sizeof scratch;
    if (grf_encoder_bound(model->vocab, (uint64_t)length) > sizeof scratch) return -1;
    return grf_encode(model, &how, text, (size_t)length, &token, 1) > 0 ? token : -1;
}

/* 0: the token does not write what must be written; 1: it does; 2: as a tokenizer could have.
 * `first` has the tokens with which the tokenizer starts the text if it ends there, and if a letter
 * follows. */
static int grf_heal_fit(const griffin_heal *h, int32_t id, const int32_t first[2]) {
    const grf_vocab *v = h->model->vocab;
    char bytes[GRIFFIN_HEAL_BYTES];
    uint64_t count = (uint64_t)h->count, n = grf_heal_text(v, id, bytes);
    if (!n || memcmp(bytes, h->text, (size_t)(n < count ? n : count)) != 0) return 0;
    if (id == first[0] || id == first[1]) return 2;
    return 1 + (grf_heal_is_piece(v, id) && (n >= count || first[0] < 0));
}

/* Returns how many tokens remain. */
static int grf_heal_mask(const griffin_heal *h, float *logits, int vocab) {
    char text[GRIFFIN_HEAL_BYTES + 1];
    int32_t first[2];
    int fits[3] = { 0, 0, 0 };
    memcpy(text, h->text, (size_t)h->count);
    text[h->count] = 'a';
    for (int i = 0; i < 2; i++) first[i] = grf_heal_first_token(h->model, text, h->count + i);
    for (int pass = 0; pass < 2; pass++) {  /* the second forbids what only fits */
        for (int32_t id = 0; id < vocab; id++) {
            if (!(logits[id] > -INFINITY)) continue;
            int fit = id < h->model->vocab->count ? grf_heal_fit(h, id, first) : 0;
            if (!pass) fits[fit]++;
            if (fit <= pass) logits[id] = -INFINITY;
        }
        if (!fits[2]) break;
    }
    return fits[2] ? fits[2] : fits[1];
}

/* ---- arguments ---- */

/* Asks another mask first, and says how many tokens remain. */
static int grf_mask_ask(griffin_mask_function *mask, float *logits, int vocab, void *user) {
    int error = mask ? mask(logits, vocab, user) : 0;
    return error < 0 ? error : GRIFFIN_OK;
}

static int grf_text_check(const griffin_model *model, int arguments_ok, const char *function) {
    if (!model) return GRIFFIN_E_ARGUMENT;
    if (model->vocab->count == 0) {
        return grf_fail(&model->host, GRIFFIN_E_VOCABULARY, "%s: the model has no vocabulary",
                        function);
    }
    if (arguments_ok) return GRIFFIN_OK;
    return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "%s: argument out of range", function);
}

static int grf_token_exists(const griffin_model *model, int32_t token) {
    return model && token >= 0 && token < model->vocab->count;
}

/* ================================================================= >>model
 * Opening: file bytes, directory, configuration, vocabulary, then the network's builder twice. */

/* ---- tensors by name ------------------------------------------------------------ */

static void grf_tensor_name(const grf_builder *b, const char *name, grf_line *line) {
    line->length = 0;
    if (b->layer >= 0) {
        grf_line_put(line, "layers.", 7);
        grf_line_number(line, (uint64_t)b->layer, 10);
        grf_line_put(line, ".", 1);
    }
    grf_line_put(line, name, strlen(name));
}

static const grf_tensor *grf_tensor_lookup(const grf_builder *b, const char *name) {
    grf_line line;
    grf_tensor_name(b, name, &line);
    return grf_gguf_tensor(b->model->file, line.text);
}

/* The matrix NAME as NAME.TILING; the first tiling there is, if a file has several. */
static const grf_tensor *grf_tensor_lookup_tiles(const grf_builder *b, const char *name) {
    const grf_tensor *t = NULL;
    for (int type = 0; type < GRF_TILINGS && !t; type++) {
        grf_line line;
        grf_tensor_name(b, name, &line);
        grf_line_put(&line, ".", 1);
        grf_line_put(&line, grf_tilings[type].name, strlen(grf_tilings[type].name));
        t = grf_gguf_tensor(b->model->file, line.text);
    }
    return t;
}

static void grf_shape_text(grf_line *line, const char *type, const uint64_t *ne, int rank) {
    line->length = 0;
    grf_line_put(line, type, strlen(type));
    for (int i = rank - 1; i >= 0; i--) {
        grf_line_put(line, i == rank - 1 ? " [" : ", ", 2);
        grf_line_number(line, ne[i], 10);
    }
    grf_line_put(line, "]", 1);
}

/* The tensor t, found by `name`, must be there and have exactly this number format and shape. */
static const grf_tensor *grf_tensor_require(grf_builder *b, const grf_tensor *t, const char *name,
                                            const char *type, const uint64_t *ne, int rank) {
    grf_line full, expected, found;
    if (b->error) return NULL;
    grf_shape_text(&expected, type, ne, rank);
    if (!t) {
        grf_tensor_name(b, name, &full);
        b->error = grf_fail(&b->model->host, GRIFFIN_E_FORMAT, "tensor '%s' %s is missing",
                            full.text, expected.text);
        return NULL;
    }
    grf_shape_text(&found, grf_format_find(t->type)->name, t->ne, t->rank);
    if (strcmp(found.text, expected.text) != 0) {
        b->error = grf_fail(&b->model->host, GRIFFIN_E_FORMAT, "tensor '%t' is %s, expected %s",
                            t->name.text, (size_t)t->name.length, found.text, expected.text);
        return NULL;
    }
    b->used[t - b->model->file->tensors] = 1;
    return t;
}

/* ---- vectors: f32 in the file, padded with zeros ----------------------------------------- */

static const grf_tensor *grf_require_floats(grf_builder *b, const char *name, int d0, int d1,
                                            int d2) {
    uint64_t ne[3];
    int rank = d1 == 0 ? 1 : d2 == 0 ? 2 : 3;
    ne[rank - 1] = (uint64_t)d0;
    if (rank > 1) ne[rank - 2] = (uint64_t)d1;
    if (rank > 2) ne[0] = (uint64_t)d2;
    return grf_tensor_require(b, grf_tensor_lookup(b, name), name, "f32", ne, rank);
}

/* [d0], [d0, d1] or [d0, d1, d2], row-major; 0 ends the list. Null after an error, and while the
 * builder is measuring. */
static float *grf_load_vector(grf_builder *b, const char *name, int d0, int d1, int d2) {
    const grf_tensor *t = grf_require_floats(b, name, d0, d1, d2);
    if (!t) return NULL;
    uint64_t padded = (uint64_t)grf_pad((int64_t)t->elements);
    float *v = (float *)grf_arena_take(&b->arena, 4 * padded);
    if (!v) { b->parameters += t->elements; return NULL; }
    const uint8_t *from = b->model->file->data + t->offset;
    for (uint64_t i = 0; i < padded; i++) v[i] = i < t->elements ? grf_get_f32(from + 4 * i) : 0;
    return v;
}

/* Numbers from `least` to `most`, which NaN is not. */
static float *grf_load_between(grf_builder *b, const char *name, int n, float least, float most,
                               const char *expected) {
    const grf_tensor *t = grf_require_floats(b, name, n, 0, 0);
    const uint8_t *from = t ? b->model->file->data + t->offset : NULL;
    for (int i = 0; t && i < n; i++) {
        float number = grf_get_f32(from + 4 * i);
        if (number >= least && number <= most) continue;
        b->error = grf_tensor_fail(&b->model->host, GRIFFIN_E_FORMAT, t, "number %d of %d is out "
                                   "of range, expected %s", i, n, expected);
        return NULL;
    }
    return grf_load_vector(b, name, n, 0, 0);
}

/* Shares of something. */
static float *grf_load_shares(grf_builder *b, const char *name, int n) {
    return grf_load_between(b, name, n, 0, 1, "0 to 1");
}

/* One number for each head, head_dim times. */
static float *grf_load_decay(grf_builder *b, const char *name, int heads, int head_dim) {
    const float *of_head = grf_load_shares(b, name, heads);
    int n = heads * head_dim;
    float *decay = (float *)grf_arena_take(&b->arena, 4 * (uint64_t)grf_pad(n));
    for (int i = 0; i < n && !grf_measuring(b); i++) decay[i] = of_head[i / head_dim];
    return decay;
}

static float *grf_load_zeros(grf_builder *b, int n) {
    uint64_t bytes = 4 * (uint64_t)grf_pad(n);
    float *zeros = (float *)grf_arena_take(&b->arena, bytes);
    if (zeros) memset(zeros, 0, (size_t)bytes);
    return zeros;
}

/* Of E channels, [E, K] or with `middle` 1 [E, 1, K], as [K][pad(E)]. The last tap belongs to the
 * current token. */
static float *grf_load_taps(grf_builder *b, const char *name, int E, int middle) {
    int K = b->config->conv_width;
    int64_t stride = grf_pad(E);
    if (K < 1 && !b->error)
        b->error = grf_fail(&b->model->host, GRIFFIN_E_FORMAT, "metadata 'griffin.ssm.conv_kernel' "
                            "is %d, expected the taps of '%s'", K, name);
    const grf_tensor *t = grf_require_floats(b, name, E, middle ? 1 : K, middle ? K : 0);
    if (!t) return NULL;
    float *taps = (float *)grf_arena_take(&b->arena, 4 * (uint64_t)(K * stride));
    if (!taps) { b->parameters += t->elements; return NULL; }
    memset(taps, 0, (size_t)(K * stride) * 4);
    const uint8_t *from = b->model->file->data + t->offset;
    for (int e = 0; e < E; e++)
        for (int k = 0; k < K; k++, from += 4) taps[k * stride + e] = grf_get_f32(from);
    return taps;
}

/* ---- matrices: tiles, used where they are in the file -------------------------------------- */

/* What is known of the weights after measuring: how many there are of which type. */
static void grf_count_linear(grf_builder *b, const grf_linear *w) {
    uint64_t weights = (uint64_t)w->rows * (uint64_t)w->cols;
    b->parameters += weights;
    b->weights_of[w->type] += weights;
}

/* From the little-endian bytes of a file to the machine's. Plain numbers all have an order; of
 * blocks only the scales, which come first. */
static void grf_tiles_native_order(uint8_t *tiles, uint64_t bytes, const grf_tiling *tiling) {
    int plain = tiling->columns == 1;
    uint64_t size = plain ? (uint64_t)tiling->bytes / GRF_TILE : 2;
    uint64_t ordered = plain ? (uint64_t)tiling->bytes : 2 * GRF_TILE;
    if (!GRF_BIG_ENDIAN) return;
    for (uint64_t i = 0; i < bytes; i += size)
        if (i % (uint64_t)tiling->bytes < ordered) grf_native_order(tiles + i, (int)size);
}

/* Copies are made where the host asked for them, and where the machine's byte order is another. */
static const uint8_t *grf_place_tiles(grf_builder *b, const grf_tensor *t, int type) {
    const uint8_t *tiles = b->model->file->data + t->offset;
    if (!b->copy && !GRF_BIG_ENDIAN) return tiles;
    uint8_t *copy = (uint8_t *)grf_arena_take(&b->arena, t->bytes);
    if (!copy) return NULL;
    memcpy(copy, tiles, (size_t)t->bytes);
    grf_tiles_native_order(copy, t->bytes, &grf_tilings[type]);
    return copy;
}

/* The tensor NAME.TILING: numbers as [tiles, cols, 32] of their own type, blocks as bytes [tiles,
 * bytes of a tile]. */
static const grf_linear *grf_load_tiles(grf_builder *b, const char *name, int rows, int cols,
                                        int blocks, const float *bias) {
    const grf_tensor *t = b->error ? NULL : grf_tensor_lookup_tiles(b, name);
    int type = t ? grf_tensor_tiling(t) : 0;
    const grf_tiling *tiling = &grf_tilings[type];
    int plain = tiling->columns == 1;
    uint64_t tiles = (uint64_t)(grf_pad(rows / blocks) / GRF_TILE) * (uint64_t)blocks;
    uint64_t bytes = grf_tile_bytes(type, (uint64_t)cols);
    uint64_t numbers[3] = { GRF_TILE, (uint64_t)cols, tiles }, lump[2] = { bytes, tiles };
    grf_linear shape;
    if (b->error) return NULL;
    if (t && cols % tiling->columns != 0) {
        b->error = grf_tensor_fail(&b->model->host, GRIFFIN_E_FORMAT, t, "%d columns are no "
                                   "multiple of %d, expected another tiling", cols,
                                   tiling->columns);
        return NULL;
    }
    t = grf_tensor_require(b, t, name, !t ? "in tiles" : plain ? tiling->name : "i8",
                           plain ? numbers : lump, plain ? 3 : 2);
    if (!t) return NULL;
    grf_linear *w = (grf_linear *)grf_arena_take(&b->arena, sizeof *w);
    shape.type = type; shape.rows = rows; shape.cols = cols; shape.blocks = blocks;
    shape.tiles = (int)tiles; shape.tile_bytes = bytes; shape.bias = bias;
    shape.fetch = b->model->kernels->fetch;
    shape.tile = grf_place_tiles(b, t, type);
    if (!w) { grf_count_linear(b, &shape); return NULL; }
    *w = shape;
    return w;
}

/* name.weight [rows, cols] and, if has_bias, name.bias [rows]. */
static const grf_linear *grf_load_matrix(grf_builder *b, const char *name, int rows, int cols,
                                         int has_bias) {
    grf_line weight, bias;
    weight.length = bias.length = 0;
    grf_line_put(&weight, name, strlen(name)); grf_line_put(&weight, ".weight", 7);
    grf_line_put(&bias,   name, strlen(name)); grf_line_put(&bias,   ".bias",   5);
    return grf_load_tiles(b, weight.text, rows, cols, 1,
                          has_bias ? grf_load_vector(b, bias.text, rows, 0, 0) : NULL);
}

/* The RG-LRU's block-diagonal gates: B matrices [out, in], bias [B, out]. They may not be
 * quantised: it would spoil the decay, and the int8 kernels read a whole row. */
static const grf_linear *grf_load_gates(grf_builder *b, const char *weight, const char *bias) {
    int B = b->config->gate_blocks, n = b->config->lru_width / B;
    const grf_tensor *t = b->error ? NULL : grf_tensor_lookup_tiles(b, weight);
    if (t && grf_tilings[grf_tensor_tiling(t)].quantised)
        b->error = grf_tensor_fail(&b->model->host, GRIFFIN_E_UNSUPPORTED, t,
                                   "gates are quantised, expected f32, f16 or bf16");
    return grf_load_tiles(b, weight, n * B, n, B, grf_load_vector(b, bias, B, n, 0));
}

/* Directory, a sample of every tensor, and the configuration: another file or fine-tune differs. */
static uint64_t grf_model_fingerprint(const griffin_model *m) {
    const griffin_config *g = &m->info.config;
    uint64_t hash = GRF_HASH_START;
    for (uint64_t i = 0; i < m->file->n_tensors; i++) {
        const grf_tensor *t = m->file->tensors + i;
        const uint8_t *data = m->file->data + t->offset;
        uint64_t half = t->bytes / 2, n = t->bytes < 256 ? t->bytes : 256;
        hash = grf_hash(hash, t->name.text, (size_t)t->name.length);
        hash = grf_hash(hash, data, (size_t)n);
        hash = grf_hash(hash, data + half, (size_t)(t->bytes - half < n ? t->bytes - half : n));
        hash = grf_hash(hash, data + t->bytes - n, (size_t)n);
    }
    for (int i = 0; i < GRF_COUNT(grf_config_rows); i++) {
        float number = (float)grf_config_number(g, &grf_config_rows[i]);    /* ints are < 2^24 */
        if (i >= GRF_FIRST_ROWS && number == 0) continue;
        hash = grf_hash_number(hash, grf_bits_from_float(number));
    }
    hash = grf_hash_number(hash, (uint64_t)g->activation);
    return grf_hash(hash, g->blocks, (size_t)g->layers);
}

static void grf_model_report_unused(const griffin_model *m, const unsigned char *used) {
    uint64_t count = 0;
    const grf_tensor *first = NULL;
    for (uint64_t i = 0; i < m->file->n_tensors; i++)
        if (!used[i] && !count++) first = m->file->tensors + i;
    if (first)
        grf_fail(&m->host, GRIFFIN_OK,
                 "%u tensors are not part of the network and were ignored, the first is '%t'",
                 count, first->name.text, (size_t)first->name.length);
}

/* The network into memory at `base`, or null to measure it. Returns the bytes used. */
static uint64_t grf_run_builder(grf_builder *b, unsigned char *base) {
    grf_layout *l = &b->model->layout;
    b->arena.base = base;
    b->arena.used = 0;
    b->ops = (grf_op *)grf_arena_take(&b->arena, (uint64_t)b->n_ops * sizeof(grf_op));
    b->n_ops = b->wanted_rows_only = 0;
    l->attention_layers = 0;
    l->recurrent_floats = l->q8_row = 0;
    memset(l->columns, 0, sizeof l->columns);
    memset(l->width, 0, sizeof l->width);
    grf_network(b);
    return b->arena.used;
}

static int grf_most_used(const grf_builder *b) {
    int most = 0;
    for (int type = 1; type < GRF_TILINGS; type++)
        if (b->weights_of[type] > b->weights_of[most]) most = type;
    return most;
}

/* Asks for huge pages behind memory that came from malloc: a host's allocator knows better. */
static void grf_advise(const grf_host *host, void *memory, uint64_t size) {
#if defined(GRF_MMAP) && defined(MADV_HUGEPAGE)
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
              from = ((uintptr_t)memory + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)memory + (uintptr_t)size) & ~(page - 1);
    if (!host->allocator.allocate && to > from + (1 << 22))
        madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)host; (void)memory; (void)size;
#endif
}

static int grf_build(griffin_model *m, int copy) {
    grf_builder b;
    memset(&b, 0, sizeof b);
    b.used = (unsigned char *)grf_host_allocate(&m->host, m->file->n_tensors);
    if (!b.used) return grf_fail_memory(&m->host, m->file->n_tensors);
    memset(b.used, 0, (size_t)m->file->n_tensors);
    b.model = m;
    b.config = &m->info.config;
    b.copy = copy;
    uint64_t size = grf_run_builder(&b, NULL);
    size += (uint64_t)b.n_ops * sizeof(grf_op) + 2 * 64;        /* to align them and the base */
    if (!b.error) {
        m->weights = grf_host_allocate(&m->host, size);
        if (m->weights) grf_advise(&m->host, m->weights, size);
        if (!m->weights) b.error = grf_fail_memory(&m->host, size);
    }
    if (!b.error) {
        grf_run_builder(&b, (unsigned char *)grf_align64(m->weights));
        grf_lay_out_state(m);
        if (m->info.state_bytes > (size_t)-1 >> 1)
            b.error = grf_fail(&m->host, GRIFFIN_E_UNSUPPORTED, "a state of %u bytes is more than "
                               "this machine can address", m->info.state_bytes);
        m->ops = b.ops;
        m->n_ops = b.n_ops;
        m->info.parameters = b.parameters;
        m->info.type = grf_tilings[grf_most_used(&b)].name;
        m->info.weight_bytes = size;
        grf_model_report_unused(m, b.used);
    }
    grf_host_release(&m->host, b.used);
    return b.error;
}

/* ---- facts for griffin_get_info ------------------------------------------------------- */

/* A metadata string as a C string in memory of the model's; "" if the file has none. */
static int grf_model_copy_text(griffin_model *m, const char *key, char **memory,
                               const char **text) {
    const char *found = NULL;
    uint64_t length = 0;
    int error = grf_gguf_get_string(m->file, key, &found, &length, &m->host);
    if (error < 0) return error;
    *memory = (char *)grf_host_allocate(&m->host, length + 1);
    if (!*memory) return grf_fail_memory(&m->host, length + 1);
    if (length) memcpy(*memory, found, (size_t)length);
    (*memory)[length] = 0;
    *text = *memory;
    return GRIFFIN_OK;
}

static int grf_model_describe(griffin_model *m) {
    int error = grf_model_copy_text(m, "general.name", &m->name, &m->info.name);
    if (!error)
        error = grf_model_copy_text(m, "tokenizer.chat_template", &m->chat_template,
                                &m->info.chat_template);
    m->info.tensors = (int)m->file->n_tensors;
    m->info.operations = m->n_ops;
    m->info.kernels = m->kernels->name;
    m->info.file_bytes = m->file->size;
    m->info.has_vocabulary = m->vocab->count > 0;
    m->info.tokens = m->vocab->count;
    m->info.allocator = m->host.allocator;
    m->info.logger = m->host.logger;
    m->info.bos         = m->vocab->count ? m->vocab->bos : -1;
    m->info.eos         = m->vocab->count ? m->vocab->eos : -1;
    m->info.end_of_turn = m->vocab->count ? m->vocab->eot : -1;
    m->info.pad         = m->vocab->count ? m->vocab->pad : -1;
    m->info.add_bos = m->vocab->add_bos;
    m->info.fingerprint = grf_model_fingerprint(m);
    uint64_t options = (uint64_t)m->info.config.window + 1;     /* without attention they change
                                                                 * nothing, and this stands */
    if (m->layout.attention_layers)
        options = (uint64_t)m->info.attn_keys | (uint64_t)m->info.kv_type << 32;
    m->layout.saved_tag = 1 | grf_hash_number(m->info.fingerprint, options);
    m->layout.tag = grf_hash_number(m->layout.saved_tag, (uint64_t)m->layout.rewind) | 1;
    return error;
}

/* ---- opening --------------------------------------------------------------------- */

/* Notes what is asked of the attention. */
static int grf_model_check_options(griffin_model *m, const griffin_options *options) {
    m->info.rewind = GRF_REWIND;
    if (!options) return GRIFFIN_OK;
    if (options->attn_keys < 0 || options->attn_keys > 1 << 20)
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "attn_keys is %d, expected 0 to 2^20",
                        options->attn_keys);
    if (options->rewind < 0 || options->rewind > 1 << 20)
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "rewind is %d, expected 0 to 2^20",
                        options->rewind);
    if (options->kv_type != GRIFFIN_KV_F32 && options->kv_type != GRIFFIN_KV_BF16)
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "kv_type is %d, expected f32 or bf16",
                        (int)options->kv_type);
    m->info.attn_keys = options->attn_keys;
    m->info.kv_type = options->kv_type;
    if (options->rewind) m->info.rewind = options->rewind;
    return GRIFFIN_OK;
}

/* With directory_only: what can be read is. */
static int grf_model_look(griffin_model *m) {
    m->info.type = "";
    int error = grf_config_look(m->file, &m->info.config, &m->host);
    if (error != GRIFFIN_E_MEMORY) error = grf_vocab_load(m->vocab, m->file, &m->host);
    return error == GRIFFIN_E_MEMORY ? error : grf_model_describe(m);
}

static int grf_model_open(griffin_model *m, const void *data, uint64_t size,
                          const griffin_options *options) {
    int looking = options && options->directory_only;
    const char *fault = looking ? NULL : grf_arithmetic_fault();
    if (fault)
        return grf_fail(&m->host, GRIFFIN_E_UNSUPPORTED, "%s: results would differ, see NUMBERS in "
                        "the manual", fault);
    m->kernels = grf_kernels_find(options ? options->cpu : GRIFFIN_CPU_BEST);
    if (!m->kernels)
        return grf_fail(&m->host, GRIFFIN_E_UNSUPPORTED,
                        "this machine or build lacks the kernels asked for");
    int error = grf_model_check_options(m, options);
    if (!error) error = grf_gguf_open(m->file, data, size, looking, &m->host);
    if (!error && looking) return grf_model_look(m);
    if (!error) error = grf_config_load(m->file, &m->info.config, &m->host);
    if (!error) error = grf_vocab_load(m->vocab, m->file, &m->host);
    if (!error && m->vocab->count > m->info.config.vocab)
        error = grf_fail(&m->host, GRIFFIN_E_FORMAT,
                         "%d tokens in the vocabulary, but %d rows in the embedding",
                         m->vocab->count, m->info.config.vocab);
    if (error) return error;
    if (!m->info.attn_keys) m->info.attn_keys = m->info.config.window + 1;
    grf_lay_out_attention(m);
    error = grf_build(m, options && options->copy_weights);
    return error ? error : grf_model_describe(m);
}

/* A model together with what it points to. */
typedef struct grf_opened { griffin_model model; grf_gguf file; grf_vocab vocab; } grf_opened;

static int grf_model_new(griffin_model **model, const griffin_options *options, const char *file) {
    grf_host host;
    *model = NULL;
    memset(&host, 0, sizeof host);
    if (options) {
        host.allocator = options->allocator; host.logger = options->logger;
        host.error = options->error; host.error_size = options->error_size;
    }
    host.file = file;
    if (!host.allocator.allocate != !host.allocator.release)
        return grf_fail(&host, GRIFFIN_E_ARGUMENT, "the allocator needs both functions or neither");
    grf_opened *opened = (grf_opened *)grf_host_allocate(&host, sizeof *opened);
    if (!opened) return grf_fail_memory(&host, sizeof *opened);
    memset(opened, 0, sizeof *opened);
    *model = &opened->model;
    (*model)->host = host;
    (*model)->file = &opened->file;
    (*model)->vocab = &opened->vocab;
    return GRIFFIN_OK;
}

#ifndef GRIFFIN_NO_STDIO

#ifdef GRF_MMAP
static int grf_file_load(griffin_model *m, const char *path) {
    struct stat info;
    int file = open(path, O_RDONLY | O_NONBLOCK);       /* a pipe would wait for its writer */
    if (file < 0) return grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be opened");
    int ok = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
    m->mapped_size = ok ? (uint64_t)info.st_size : 0;
    if (m->mapped_size && (uint64_t)(size_t)m->mapped_size == m->mapped_size) {
        void *map = mmap(NULL, (size_t)m->mapped_size, PROT_READ, MAP_PRIVATE, file, 0);
        m->mapped = map == MAP_FAILED ? NULL : map;
    }
    close(file);
    if (!ok) return grf_fail(&m->host, GRIFFIN_E_FILE, "is not a regular file");
    if (m->mapped_size == 0) return grf_fail(&m->host, GRIFFIN_E_FORMAT, "is empty");
    return m->mapped ? GRIFFIN_OK : grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be mapped");
}

static void grf_file_unload(griffin_model *m) {
    if (m->mapped) munmap(m->mapped, (size_t)m->mapped_size);
}
#else
/* The long of fseek has 32 bits in Windows. */
static int64_t grf_file_size(FILE *file) {
#ifdef _WIN32
    return _fseeki64(file, 0, SEEK_END) == 0 ? _ftelli64(file) : -1;
#else
    return fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
#endif
}

/* Reading the first byte tells a folder from a file. */
static int grf_file_read(griffin_model *m, FILE *file) {
    int64_t size = fgetc(file) == EOF ? 0 : grf_file_size(file);
    if (ferror(file) || size < 0) return grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be read");
    if (size == 0) return grf_fail(&m->host, GRIFFIN_E_FORMAT, "is empty");
    m->mapped = grf_host_allocate(&m->host, (uint64_t)size);
    if (!m->mapped) return grf_fail_memory(&m->host, (uint64_t)size);
    m->mapped_size = (uint64_t)size;
    rewind(file);
    if (fread(m->mapped, 1, (size_t)size, file) == (size_t)size) return GRIFFIN_OK;
    return grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be read");
}

static int grf_file_load(griffin_model *m, const char *path) {
#ifdef _MSC_VER
    #pragma warning(suppress: 4996)         /* fopen is standard */
#endif
    FILE *file = fopen(path, "rb");
    if (!file) return grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be opened");
    int error = grf_file_read(m, file);
    fclose(file);
    return error;
}

static void grf_file_unload(griffin_model *m) { grf_host_release(&m->host, m->mapped); }
#endif

#endif

static void grf_model_close(griffin_model *m) {
    grf_host host = m->host;
    grf_vocab_free(m->vocab, &host);
    grf_gguf_close(m->file, &host);
    grf_host_release(&host, m->weights);
    grf_host_release(&host, m->name);
    grf_host_release(&host, m->chat_template);
#ifndef GRIFFIN_NO_STDIO
    grf_file_unload(m);
#endif
    grf_host_release(&host, m);
}

/* After opening, messages no longer go to the caller's buffer, which may be gone by then. */
static int grf_model_finish(griffin_model *m, int error, griffin_model **model) {
    if (error) { grf_model_close(m); return error; }
    m->host.file = NULL;
    m->host.error = NULL;
    *model = m;
    return GRIFFIN_OK;
}

/* ================================================================= >>public
 * The functions of the API. Each checks its arguments and calls what the chapters before have. */

/* ---- models ---- */

GRIFFIN_API int griffin_open_memory(griffin_model **model, const void *data, size_t size,
                                    const griffin_options *options) {
    griffin_model *m;
    if (!model) return GRIFFIN_E_ARGUMENT;
    *model = NULL;
    int error = grf_model_new(&m, options, NULL);
    if (error) return error;
    error = data ? grf_model_open(m, data, size, options)
                 : grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the data are null");
    return grf_model_finish(m, error, model);
}

#ifndef GRIFFIN_NO_STDIO
GRIFFIN_API int griffin_open_file(griffin_model **model, const char *path,
                                  const griffin_options *options) {
    griffin_model *m;
    if (!model) return GRIFFIN_E_ARGUMENT;
    *model = NULL;
    int error = grf_model_new(&m, options, path);
    if (error) return error;
    error = path ? grf_file_load(m, path)
                 : grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the path is null");
    if (!error) error = grf_model_open(m, m->mapped, m->mapped_size, options);
    return grf_model_finish(m, error, model);
}
#endif

GRIFFIN_API void griffin_close(griffin_model *model) {
    if (model) grf_model_close(model);
}

GRIFFIN_API const griffin_info *griffin_get_info(const griffin_model *model) {
    return model ? &model->info : NULL;
}

GRIFFIN_API int griffin_get_tensor(const griffin_model *model, int index, griffin_tensor *tensor) {
    if (!model) return GRIFFIN_E_ARGUMENT;
    if (!tensor || index < 0 || index >= model->info.tensors)
        return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "tensor %d of %d", index,
                        model->info.tensors);
    grf_tensor_get(model->file, index, tensor);
    return GRIFFIN_OK;
}

/* int8 rows are as wide as the operation; other buffers have one width each. */
static int grf_columns(const griffin_model *m, const grf_op *op, grf_buffer buffer) {
    return buffer == GRF_INT8 ? op->width : m->layout.columns[buffer];
}

static void grf_describe_output(const griffin_model *m, const grf_op *op, const grf_output *o,
                                griffin_output *output) {
    output->buffer = grf_buffer_names[o->buffer];
    output->width = grf_columns(m, op, o->buffer);
    output->epilogue = grf_epilogue_names[o->epilogue];
    if (!o->w) return;
    output->matrix = o->name;
    output->type = grf_tilings[o->w->type].name;
    output->rows = o->w->rows;
    output->cols = o->w->cols;
    output->blocks = o->w->blocks;
    output->has_bias = o->w->bias != NULL;
}

GRIFFIN_API int griffin_get_operation(const griffin_model *m, int index,
                                      griffin_operation *operation) {
    if (!m) return GRIFFIN_E_ARGUMENT;
    if (!operation || index < 0 || index >= m->n_ops)
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "operation %d of %d", index, m->n_ops);
    const grf_op *op = m->ops + index;
    memset(operation, 0, sizeof *operation);
    operation->name = grf_op_types[op->kind].name;
    operation->layer = op->layer;
    for (int i = 0; i < GRF_COUNT(op->in) && op->in[i] != GRF_NONE; i++, operation->inputs++) {
        operation->input[i].buffer = grf_buffer_names[op->in[i]];
        operation->input[i].width = grf_columns(m, op, op->in[i]);
    }
    operation->outputs = op->outputs;
    for (int i = 0; i < op->outputs; i++)
        grf_describe_output(m, op, op->out + i, operation->output + i);
    operation->state_bytes = (uint64_t)op->state.bytes;
    if (op->state.bytes)
        operation->state_offset = sizeof(griffin_state) + (uint64_t)op->state.at
            + (op->state.is_ring ? 4 * (uint64_t)m->layout.recurrent_floats : 0);
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_get_metadata(const griffin_model *model, const char *key, int index,
                                     griffin_metadata *metadata) {
    if (!model) return GRIFFIN_E_ARGUMENT;
    if (!metadata) return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "metadata: a null pointer");
    return grf_metadata_get(model->file, key, index, metadata);
}

GRIFFIN_API int griffin_next_element(griffin_metadata *metadata) {
    return metadata ? grf_metadata_next(metadata) : GRIFFIN_E_ARGUMENT;
}

GRIFFIN_API int griffin_config_number(const griffin_config *config, int index,
                                      griffin_number *number) {
    if (!config || !number) return GRIFFIN_E_ARGUMENT;
    if (index < 0 || index >= GRF_COUNT(grf_config_rows)) return 0;
    const grf_config_row *row = &grf_config_rows[index];
    number->key = row->key;
    number->type = row->kind == 'i' ? GRIFFIN_VALUE_U32
                 : row->kind == 'f' ? GRIFFIN_VALUE_F32 : GRIFFIN_VALUE_BOOL;
    number->value = grf_config_number(config, row);
    return 1;
}

GRIFFIN_API const char *griffin_tiling_name(int index) {
    return index >= 0 && index < GRF_TILINGS ? grf_tilings[index].name : NULL;
}

GRIFFIN_API const char *griffin_activation_name(griffin_activation activation) {
    for (int i = 0; i < GRF_COUNT(grf_activations); i++)
        if (grf_activations[i].value == activation) return grf_activations[i].name;
    return NULL;
}

GRIFFIN_API int griffin_find_activation(const char *name, size_t length) {
    int row = name ? grf_activation_find(name, length) : -1;
    return row < 0 ? -1 : (int)grf_activations[row].value;
}

GRIFFIN_API int griffin_version(void) { return GRIFFIN_VERSION; }

GRIFFIN_API const char *griffin_error_string(int error) {
    switch ((griffin_error)error) {
    case GRIFFIN_OK:            return "no error";
    case GRIFFIN_E_ARGUMENT:    return "an argument is null or out of range";
    case GRIFFIN_E_FILE:        return "the file cannot be opened or read";
    case GRIFFIN_E_FORMAT:      return "not a valid model, state or grammar, or damaged";
    case GRIFFIN_E_VERSION:     return "written in a version of the format that is not known here";
    case GRIFFIN_E_UNSUPPORTED: return "uses a feature that is not built in";
    case GRIFFIN_E_MEMORY:      return "out of memory";
    case GRIFFIN_E_SPACE:       return "a buffer or context is too small";
    case GRIFFIN_E_MISMATCH:    return "state, context, model or grammar do not belong together";
    case GRIFFIN_E_VOCABULARY:  return "the model carries no vocabulary";
    case GRIFFIN_E_NO_TOKEN:    return "every token is forbidden";
    }
    return error > 0 ? "no error" : "unknown error";
}

/* ---- states ----
 * Saving only reads its state and sampler, and loading its data: what loses its const here is the
 * side that grf_save_copy copies from. */

GRIFFIN_API size_t griffin_state_size(const griffin_model *model) {
    return model ? (size_t)model->info.state_bytes : 0;
}

GRIFFIN_API int64_t griffin_state_position(const griffin_state *state) {
    return state ? state->position : 0;
}

GRIFFIN_API size_t griffin_mark_size(const griffin_model *model) {
    return model ? grf_mark_size(model) : 0;
}

GRIFFIN_API int griffin_mark(const griffin_model *m, const griffin_state *state, void *mark) {
    if (!m) return GRIFFIN_E_ARGUMENT;
    if (!mark) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "mark: there is no room for it");
    int error = grf_state_check(m, state);
    if (error) return error;
    memcpy(mark, state, grf_mark_size(m));
    memcpy(mark, &m->layout.tag, sizeof m->layout.tag);
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_rewind(const griffin_model *m, griffin_state *state, const void *mark) {
    if (!m) return GRIFFIN_E_ARGUMENT;
    if (!mark) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "rewind: the mark is null");
    int error = grf_state_check(m, state);
    return error ? error : grf_state_rewind(m, state, mark);
}

GRIFFIN_API int64_t griffin_save_pieces(const griffin_model *m, const griffin_state *state,
                                        const griffin_sampler *sampler,
                                        const griffin_decoder *decoder,
                                        griffin_write_function *write, void *user) {
    grf_pieces pieces = { write, NULL, user, 0, 0, 0 };
    if (!m) return GRIFFIN_E_ARGUMENT;
    int error = grf_state_check(m, state);
    if (error) return error;
    if (!write) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "save: a pointer is null");
    return grf_state_save(m, (griffin_state *)(uintptr_t)state,
                          (griffin_sampler *)(uintptr_t)sampler, decoder, &pieces);
}

GRIFFIN_API int64_t griffin_save(const griffin_model *m, const griffin_state *state,
                                 const griffin_sampler *sampler, const griffin_decoder *decoder,
                                 void *data, size_t capacity) {
    grf_bytes to = { (uint8_t *)data };
    if (!m) return GRIFFIN_E_ARGUMENT;
    int error = grf_state_check(m, state);
    if (error) return error;
    int parts = (sampler ? GRF_HAS_SAMPLER : 0) | (decoder ? GRF_HAS_DECODER : 0);
    int64_t size = grf_save_size(grf_saved_bytes(m, state->position), parts);
    if (!data) return size;
    if ((uint64_t)size > capacity)
        return grf_fail(&m->host, GRIFFIN_E_SPACE, "save: %u bytes given, %u needed",
                        (uint64_t)capacity, (uint64_t)size);
    return griffin_save_pieces(m, state, sampler, decoder, grf_bytes_write, &to);
}

GRIFFIN_API int griffin_load_pieces(const griffin_model *m, griffin_state *state,
                                    griffin_sampler *sampler, griffin_decoder *decoder,
                                    griffin_read_function *read, void *user) {
    grf_pieces pieces = { NULL, read, user, 0, 0, 0 };
    if (!m) return GRIFFIN_E_ARGUMENT;
    int error = grf_network_check(m);
    if (error) return error;
    if (!read || (state && (state->tag || state->position)))
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, read ? "load: the state is not fresh"
                                                           : "load: a pointer is null");
    return grf_state_load(m, state, sampler, decoder, &pieces);
}

GRIFFIN_API int griffin_load(const griffin_model *m, griffin_state *state,
                             griffin_sampler *sampler, griffin_decoder *decoder,
                             const void *data, size_t size) {
    if (!m) return GRIFFIN_E_ARGUMENT;
    int error = grf_network_check(m);
    if (error) return error;
    if (!state || !data) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "load: a pointer is null");
    return grf_state_load_bytes(m, state, sampler, decoder, (uint8_t *)(uintptr_t)data, size);
}

/* ---- running ---- */

static size_t grf_context_bytes(const griffin_model *model,
                                const griffin_context_options *options) {
    griffin_context c;
    grf_arena count = { NULL, 0 };
    if (!grf_context_limits(model, options, &c)) return 0;
    grf_arena_take(&count, sizeof c);
    grf_context_lay_out(&c, &count);
    count.used += 64;                       /* to align what the host gives */
    return count.used > (uint64_t)((size_t)-1) ? 0 : (size_t)count.used;
}

GRIFFIN_API size_t griffin_context_size(const griffin_model *model,
                                        const griffin_context_options *options) {
    if (!model || grf_network_check(model)) return 0;
    size_t size = grf_context_bytes(model, options);
    if (!size) grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "context: rows or states out of range");
    return size;
}

GRIFFIN_API int griffin_context_init(griffin_context **context, const griffin_model *model,
                                     const griffin_context_options *options, void *memory,
                                     size_t size) {
    griffin_context limits;
    grf_arena arena = { NULL, 0 };
    if (context) *context = NULL;
    if (!model) return GRIFFIN_E_ARGUMENT;
    int error = grf_network_check(model);
    if (error) return error;
    size_t needed = grf_context_bytes(model, options);
    if (!context || !memory || needed == 0)
        return grf_fail(&model->host, GRIFFIN_E_ARGUMENT,
                        "context: a pointer is null, or rows or states are out of range");
    if (size < needed)
        return grf_fail(&model->host, GRIFFIN_E_SPACE, "context: %u bytes given, %u needed",
                        (uint64_t)size, (uint64_t)needed);
    memset(memory, 0, needed);              /* the padding of every row stays zero from here on */
    grf_context_limits(model, options, &limits);
    arena.base = (unsigned char *)grf_align64(memory);
    *context = (griffin_context *)grf_arena_take(&arena, sizeof **context);
    **context = limits;
    grf_context_lay_out(*context, &arena);
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_begin(griffin_context *c, const griffin_span *spans, int count) {
    int error = grf_spans_check(c, spans, count);
    if (error) return error;
    int64_t rows = 0;
    if (c->no_slices)
        return grf_fail(&c->model->host, GRIFFIN_E_SPACE, "griffin_begin: the context was made "
                        "with no_slices and has no room for what may be dropped");
    for (int i = 0; i < count; i++) rows += spans[i].count;
    if (rows > c->max_rows || count > c->max_spans)
        return grf_fail(&c->model->host, GRIFFIN_E_SPACE,
                        "%u tokens in %d spans; the context has room for %d in %d",
                        (uint64_t)rows, count, c->max_rows, c->max_spans);
    grf_pass_clear(c, 0);
    for (int i = 0; i < count; i++) grf_pass_add_span(c, spans + i, 0, spans[i].count);
    grf_pass_cut(c);
    return (int)grf_min64(c->chunks_left, INT_MAX);
}

GRIFFIN_API int griffin_advance(griffin_context *c, int units) {
    if (!c) return GRIFFIN_E_ARGUMENT;
    if (units < 0) return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT, "%d units", units);
    if (c->spans == 0 || c->op == c->model->n_ops) return 0;
    int error = grf_pass_check(c);
    if (error) { c->spans = 0; return error; }
    grf_pass_run(c, units);
    return (int)grf_min64(c->chunks_left, INT_MAX);
}

GRIFFIN_API const char *griffin_unit_name(const griffin_context *c) {
    if (!c || !c->spans || c->op == c->model->n_ops) return NULL;
    return grf_op_types[c->model->ops[c->op].kind].name;
}

GRIFFIN_API int griffin_run(griffin_context *c, const griffin_span *spans, int count) {
    int error = grf_spans_check(c, spans, count);
    if (!error) grf_pass_run_spans(c, spans, count);
    return error;
}

GRIFFIN_API int griffin_prefill(griffin_context *c, griffin_state *state,
                                const int32_t *tokens, int count, float *logits) {
    griffin_span span;
    memset(&span, 0, sizeof span);
    span.state = state; span.tokens = tokens; span.count = count; span.logits = logits;
    return griffin_run(c, &span, 1);
}

GRIFFIN_API int griffin_step(griffin_context *c, griffin_state *state, int32_t token,
                             float *logits) {
    return griffin_prefill(c, state, &token, 1, logits);
}

/* ---- sampling ---- */

/* The count stays a whole number of turns of the ring when it overflows. */
GRIFFIN_API void griffin_accept(griffin_sampler *sampler, int32_t token) {
    if (!sampler) return;
    sampler->recent[sampler->accepted++ % GRIFFIN_RECENT] = token;
    if (sampler->accepted == 0) sampler->accepted = GRIFFIN_RECENT;
}

GRIFFIN_API int32_t griffin_sample(const griffin_model *model, griffin_sampler *sampler,
                                   float *logits) {
    if (!model) return GRIFFIN_E_ARGUMENT;
    int n = model->info.config.vocab;
    if (!sampler || !logits || !grf_sampler_valid(sampler)) {
        return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "griffin_sample: a field of the sampler "
                        "is out of range, or a pointer null");
    }
    int error = grf_network_check(model);
    if (!error) error = grf_sampler_check_biases(model, sampler, n);
    if (error) return error;
    grf_sampler_apply_biases(sampler, logits);
    if (sampler->mask) error = sampler->mask(logits, n, sampler->mask_user);
    if (error < 0) return error;
    int32_t token = grf_sampler_choose(model, sampler, logits, n);
    if (token < 0) {
        return grf_fail(&model->host, GRIFFIN_E_NO_TOKEN, "griffin_sample: every logit is minus "
                        "infinity or not a number");
    }
    griffin_accept(sampler, token);
    return token;
}

/* ---- guessing ---- */

GRIFFIN_API float *griffin_guess_logits(griffin_guess *g) {
    if (grf_guess_check(g)) return NULL;
    int V = g->model->info.config.vocab;
    if (grf_guess_needs_pass(g)) return NULL;
    if (!g->ready || !g->certain) return g->logits + g->row * (int64_t)V;
    memset(g->logits, 0, (size_t)V * sizeof *g->logits);
    return g->logits;
}

GRIFFIN_API int griffin_guess_take(griffin_guess *g, int32_t token) {
    int error = grf_guess_check(g);
    if (error) return error;
    int right = g->guesses && g->tokens[g->known] == token;
    int accepted = right && g->running && grf_guess_ready(g);
    error = grf_guess_check_token(g->model, token);
    if (!error && !accepted && g->known) error = grf_guess_follow_state(g);
    if (error) return error;
    if (!accepted && g->known == g->room)
        return grf_fail(&g->model->host, GRIFFIN_E_SPACE, "guess: %d tokens wait for a pass",
                        g->known);
    if (g->guesses && !g->certain && g->odds) grf_odds_learn(g->odds, right);
    if (g->known == 0) { g->position = g->state->position; g->history = g->state->history; }
    if (accepted) g->balance += g->saving;
    else if (g->running && g->again)
        g->balance -= grf_guess_row_cost(g) * (float)g->known;
    g->balance += GRF_GUESS_LOSS;
    if (g->balance > GRF_GUESS_CREDIT) g->balance = GRF_GUESS_CREDIT;
    g->tokens[g->known++] = token;
    if (!accepted) {
        g->guesses = g->running = g->certain = g->ready = 0;
        return 0;
    }
    g->accepted++;
    g->guesses--;
    g->running--;
    if (g->certain) g->certain--;
    else g->row++;
    return 1;
}

GRIFFIN_API int griffin_guess_add(griffin_guess *g, int32_t token, griffin_odds *odds) {
    int error = grf_guess_check(g);
    if (!error) error = grf_guess_check_token(g->model, token);
    if (error) return error;
    int uncertain = g->guesses - g->certain, certain = g->certain + !odds;
    if (!grf_guess_needs_pass(g) || (uncertain && odds != g->odds)
        || 1 + uncertain + (odds != NULL) + (certain > 0) > g->rows
        || g->known + g->guesses + 1 >= g->room) return 0;
    g->odds = odds;
    g->certain = certain;
    g->tokens[g->known + g->guesses++] = token;
    return 1;
}

GRIFFIN_API int griffin_guess_begin(griffin_context *c, griffin_guess *g, int count) {
    return grf_guess_begin(c, g, count, 0);
}

GRIFFIN_API int griffin_guess_run(griffin_context *c, griffin_guess *g, int count) {
    int left = grf_guess_begin(c, g, count, 1);
    if (left > 0) grf_pass_run(c, INT_MAX);
    return left < 0 ? left : GRIFFIN_OK;
}

GRIFFIN_API int griffin_guess_time(griffin_guess *g, double time) {
    int error = grf_guess_check(g);
    if (error) return error;
    if (!grf_guess_ready(g) || !(time > 0 && time < 1e30)) return GRIFFIN_OK;
    grf_guess_measure(g, (float)(g->known + g->running - 1), (float)time);
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_guess_finish(griffin_context *c, griffin_guess *g) {
    int error = grf_guesses_check(c, g, 1);
    if (!error) error = grf_guess_settle(c, g);
    if (error) return error;
    int V = c->model->info.config.vocab, there = !g->known || (grf_guess_ready(g) && !g->certain);
    g->guesses = g->running = g->certain = 0;
    griffin_span span = grf_guess_span(g, g->known);
    if (!there) span.logits = g->logits;
    if (g->known) error = griffin_run(c, &span, 1);
    if (error) return error;
    if (there) memmove(g->logits, g->logits + g->row * (int64_t)V, (size_t)V * sizeof *g->logits);
    g->known = g->row = g->ready = 0;
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_lookup_add(griffin_lookup *l, const int32_t *tokens, int count) {
    if (!grf_lookup_check(l) || count < 0 || (!tokens && count)) return GRIFFIN_E_ARGUMENT;
    for (int i = 0; i < count; i++) {
        l->memory[l->count++ & (uint32_t)(l->size - 1)] = tokens[i];
        for (int level = 0; level < GRIFFIN_LOOKUP_LENGTHS; level++) {
            int32_t *entry = grf_lookup_entry(l, level);
            l->found[level] = entry ? *entry : 0;
            if (entry) *entry = (int32_t)l->count;
        }
        l->copied = l->copied && ++l->astray < GRF_LOOKUP_LOST ? l->copied + 1 : 0;
    }
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_lookup_guess(griffin_lookup *l, griffin_guess *g) {
    int before = g ? g->guesses : 0;
    if (!grf_lookup_check(l) || grf_guess_check(g)) return GRIFFIN_E_ARGUMENT;
    int level = grf_lookup_find(l);
    if (level < 0) return 0;
    for (uint32_t at = l->copied, i = 0; ; i++) {
        const int32_t *guess = g->tokens + g->known;
        int32_t token = i < l->count - at ? grf_lookup_token(l, at + i)
                                          : guess[i - (l->count - at)];
        if (i < (uint32_t)before ? token != guess[i]
                                 : griffin_guess_add(g, token, &l->odds[level]) <= 0) break;
    }
    return g->guesses - before;
}

static int grf_draft_same_token(const griffin_model *a, const griffin_model *b, int32_t token) {
    const grf_piece *p = &a->vocab->pieces[token], *q = &b->vocab->pieces[token];
    return p->length == q->length && p->type == q->type
        && memcmp(p->text, q->text, p->length) == 0;
}

GRIFFIN_API int griffin_draft_check(const griffin_model *model, const griffin_model *smaller) {
    if (!model || !smaller) return GRIFFIN_E_ARGUMENT;
    const griffin_info *a = &model->info, *b = &smaller->info;
    int same = a->config.vocab == b->config.vocab && a->tokens == b->tokens && a->eos == b->eos
            && a->end_of_turn == b->end_of_turn;
    for (int32_t i = 0; same && i < a->tokens; i++) same = grf_draft_same_token(model, smaller, i);
    if (same) return GRIFFIN_OK;
    return grf_fail(&model->host, GRIFFIN_E_MISMATCH,
                    "draft: the vocabulary of the smaller model is another");
}

GRIFFIN_API int griffin_draft_take(griffin_draft *d, int32_t token) {
    int error = grf_draft_check(d) ? GRIFFIN_OK : GRIFFIN_E_ARGUMENT;
    if (error) return error;
    error = grf_guess_check_token(d->context->model, token);
    if (!error && d->known == GRIFFIN_DRAFT_TOKENS) error = grf_draft_catch_up(d);
    if (error) return error;
    if (d->known < d->fed && d->tokens[d->known] != token) d->astray = 1;
    d->tokens[d->known++] = token;
    d->drafted = 0;
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_draft_next(griffin_draft *d, griffin_guess *g, griffin_sampler *sampler) {
    int error = grf_draft_check(d) && sampler ? grf_guess_check(g) : GRIFFIN_E_ARGUMENT;
    if (error || g->guesses != d->drafted) return error;    /* others have guessed */
    if (!d->drafted && !d->known) return 0;
    const griffin_model *m = d->context->model;
    float cost = d->cost;
    if (cost <= 0) cost = (float)m->info.file_bytes / (float)g->model->info.file_bytes;
    int most = (int)grf_min64(g->rows, grf_min64(m->info.rewind, GRIFFIN_DRAFT_TOKENS) + 1) - 1;
    if (grf_guess_worth(g, &d->odds, most, 1, grf_guess_row_cost(g) + cost) <= d->drafted) {
        if (d->drafted == 0) grf_odds_forget(&d->odds);
        return 0;
    }
    if (d->drafted == 0) error = grf_draft_catch_up(d);
    else {
        d->tokens[d->fed] = g->tokens[g->known + g->guesses - 1];
        error = griffin_step(d->context, d->state, d->tokens[d->fed], d->logits);
        d->fed += !error;
    }
    if (!error) {
        g->balance -= cost;
        int32_t token = griffin_sample(m, sampler, d->logits);
        error = token < 0 ? token : griffin_guess_add(g, token, &d->odds);
    }
    d->drafted = error == 1 ? d->drafted + 1 : INT_MAX;     /* no more until a token is taken */
    return error;
}

/* ---- text ---- */

GRIFFIN_API size_t griffin_encode_size(const griffin_model *model, size_t length) {
    if (!model || model->vocab->count == 0) return 0;
    return (size_t)grf_min64((int64_t)grf_encoder_bound(model->vocab, length),
                             (int64_t)((size_t)-1 >> 1));
}

GRIFFIN_API int griffin_encode(const griffin_model *model, const griffin_encoding *encoding,
                               const char *text, size_t length, int32_t *tokens, int capacity) {
    griffin_encoding plain;
    memset(&plain, 0, sizeof plain);
    int error = grf_text_check(model, (text || !length) && length <= (size_t)-1 >> 1
                               && capacity >= 0 && (tokens || !capacity),
                               "griffin_encode");
    if (error) return error;
    return grf_encode(model, encoding ? encoding : &plain, text ? text : "", length, tokens,
                      capacity);
}

GRIFFIN_API int griffin_decode(const griffin_model *model, griffin_decoder *decoder,
                               int32_t token, char *text, size_t capacity) {
    int error = grf_text_check(model, decoder && text && decoder->count < 4
                               && (token == -1 || grf_token_exists(model, token)),
                               "griffin_decode");
    if (!error) error = grf_decode(model->vocab, decoder, token, text, capacity);
    if (error != GRIFFIN_E_SPACE) return error;
    return grf_fail(&model->host, error, "griffin_decode: %u bytes are too few for token %d",
                    (uint64_t)capacity, (int)token);
}

GRIFFIN_API int griffin_stop_feed(griffin_stop *stop, const char *text, size_t length,
                                  char *out, size_t capacity) {
    if (!stop || !out || length > INT32_MAX / 2 || !grf_stop_valid(stop)) return GRIFFIN_E_ARGUMENT;
    griffin_stop s = *stop;
    grf_text shown = { out, capacity, 0 };
    s.found = s.used = 0;
    if (!text) grf_stop_release(&s, 0, &shown);
    while (text && !s.found && s.used < (int)length) grf_stop_byte(&s, text[s.used++], &shown);
    if (shown.length >= capacity) return GRIFFIN_E_SPACE;
    out[shown.length] = 0;
    *stop = s;
    return (int)shown.length;
}

GRIFFIN_API int griffin_words_feed(griffin_words *words, const char *text, size_t length,
                                   char *out, size_t capacity) {
    grf_text shown = { out, capacity, 0 };
    if (!words || !out || length > INT32_MAX / 2 || words->most < 0
        || words->most > GRIFFIN_WORD_BYTES || words->held_count < 0
        || words->held_count > GRIFFIN_WORD_BYTES) return GRIFFIN_E_ARGUMENT;
    return grf_words_feed(words, text, text ? length : 0, &shown);
}

static int grf_ban_check(const griffin_ban *ban, int others_ok, const char *function) {
    if (!ban) return GRIFFIN_E_ARGUMENT;
    return grf_text_check(ban->model, others_ok && ban->again >= 0 && grf_stop_valid(&ban->stop),
                          function);
}

GRIFFIN_API int griffin_ban_mask(float *logits, int vocab, void *user) {
    const griffin_ban *ban = (const griffin_ban *)user;
    int error = grf_ban_check(ban, logits && vocab >= 0, "griffin_ban_mask");
    if (!error) error = grf_mask_ask(ban->mask, logits, vocab, ban->mask_user);
    if (error || ban->stop.count == 0 || grf_ban_mask(ban, logits, vocab)) return error;
    return grf_fail(&ban->model->host, GRIFFIN_E_NO_TOKEN, "griffin_ban_mask: every token is "
                    "forbidden");
}

GRIFFIN_API int griffin_ban_accept(griffin_ban *ban, int32_t token) {
    int error = grf_ban_check(ban, ban && grf_token_exists(ban->model, token),
                              "griffin_ban_accept");
    if (!error) grf_ban_feed(&ban->stop, ban->model->vocab, token, &ban->again, NULL);
    return error;
}

GRIFFIN_API int griffin_heal_start(griffin_heal *heal, const griffin_model *model,
                                   const int32_t *tokens, int count) {
    int ok = heal && count >= 0 && (tokens || !count);
    for (int i = 0; i < count && ok; i++) ok = grf_token_exists(model, tokens[i]);
    int error = grf_text_check(model, ok, "griffin_heal_start");
    if (error) return error;
    heal->model = model;
    return grf_heal_start(heal, model->vocab, tokens, count);
}

static int grf_heal_check(const griffin_heal *heal, int others_ok, const char *function) {
    if (!heal || (heal->count && !heal->model)) return GRIFFIN_E_ARGUMENT;
    if (!heal->count && others_ok) return GRIFFIN_OK;
    return grf_text_check(heal->model, others_ok && heal->count >= 0
                          && heal->count <= GRIFFIN_HEAL_BYTES, function);
}

GRIFFIN_API int griffin_heal_mask(float *logits, int vocab, void *user) {
    const griffin_heal *heal = (const griffin_heal *)user;
    int error = grf_heal_check(heal, logits && vocab >= 0, "griffin_heal_mask");
    if (!error) error = grf_mask_ask(heal->mask, logits, vocab, heal->mask_user);
    if (error || heal->count == 0 || grf_heal_mask(heal, logits, vocab)) return error;
    return grf_fail(&heal->model->host, GRIFFIN_E_NO_TOKEN, "griffin_heal_mask: no token that is "
                    "left writes the end of the prompt");
}

GRIFFIN_API int griffin_heal_accept(griffin_heal *heal, int32_t token) {
    static const int32_t unknown[2] = { -1, -1 };
    char bytes[GRIFFIN_HEAL_BYTES];
    int error = grf_heal_check(heal, token >= 0, "griffin_heal_accept");
    if (error || heal->count == 0) return error;
    if (!grf_token_exists(heal->model, token) || !grf_heal_fit(heal, token, unknown)) {
        return grf_fail(&heal->model->host, GRIFFIN_E_ARGUMENT, "griffin_heal_accept: token %d "
                        "does not write the end of the prompt", (int)token);
    }
    uint64_t n = grf_heal_text(heal->model->vocab, token, bytes);
    int used = n < (uint64_t)heal->count ? (int)n : heal->count;
    heal->count -= used;
    memmove(heal->text, heal->text + used, (size_t)heal->count);
    memset(heal->text + heal->count, 0, (size_t)(GRIFFIN_HEAL_BYTES - heal->count));
    return used;
}

GRIFFIN_API int griffin_token_text(const griffin_model *model, int32_t token,
                                   char *text, size_t capacity) {
    grf_text out = { text, capacity, 0 };
    int error = grf_text_check(model, grf_token_exists(model, token) && (text || !capacity),
                               "griffin_token_text");
    return error ? error : grf_token_text(model->vocab, token, &out);
}

GRIFFIN_API int griffin_token_type(const griffin_model *model, int32_t token) {
    int error = grf_text_check(model, grf_token_exists(model, token), "griffin_token_type");
    if (error) return error;
    const grf_piece *piece = &model->vocab->pieces[token];
    int marker = piece->type == GRIFFIN_TOKEN_USER_DEFINED && piece->marker;
    return marker ? (int)GRIFFIN_TOKEN_MARKER : piece->type;
}

GRIFFIN_API int32_t griffin_find_token(const griffin_model *model, const char *piece,
                                       size_t length) {
    int error = grf_text_check(model, piece != NULL, "griffin_find_token");
    return error ? error : grf_vocab_find_any(model->vocab, piece, length);
}

/* ================================================================= >>vectors
 * Kernels are written once, over vectors of 16 numbers: a gv is 16 floats, a gi 16 int32 or 64
 * bytes. This chapter says for each instruction set what such a vector is (one register of AVX-512,
 * two of AVX2, four of NEON and of WebAssembly, an array in plain C) and how its operations are
 * done, in the same order for all. Each set then includes this file once more, and that pass
 * compiles the chapter >>kernels, at the end of the file, with the vectors of the set.
 *
 * A vector has the same size everywhere, so kernels depend on no register size and have no tails.
 * Two rules keep the bits the same everywhere. The sum of a vector is taken by the fixed tree of
 * gv_sum. The result of gv_mul is never added to anything, since a compiler may fuse the two
 * operations; gv_fma does that. */

#ifndef GRIFFIN_FILE                        /* the name of this file, for renamed copies */
  #define GRIFFIN_FILE "griffin.h"
#endif

/* GRF_ISA names the set that is compiled. The vectors are those of GRF_ISA_BASE: the set itself, or
 * another one, from which it then differs in nothing but products of bytes. Such a set defines
 * GRF_BYTES_ONLY, and only the kernel of quantised weights is compiled for it. These names expand
 * where they stand: GV(soft_cap) is grf_soft_cap_avx2 while GRF_ISA is avx2. */
#define GRF_JOIN2(a, b) a##_##b
#define GRF_JOIN(a, b)  GRF_JOIN2(a, b)
#define GV(name)        GRF_JOIN(grf_##name, GRF_ISA)
#define GV_BASE(name)   GRF_JOIN(grf_##name, GRF_ISA_BASE)
#define GV_KERNEL       static GV_TARGET

#define gv           GV_BASE(gv)
#define gi           GV_BASE(gi)
#define gv_load      GV_BASE(gv_load)
#define gv_store     GV_BASE(gv_store)
#define gv_set       GV_BASE(gv_set)
#define gv_add       GV_BASE(gv_add)
#define gv_sub       GV_BASE(gv_sub)
#define gv_mul       GV_BASE(gv_mul)
#define gv_div       GV_BASE(gv_div)
#define gv_sqrt      GV_BASE(gv_sqrt)
#define gv_fma       GV_BASE(gv_fma)
#define gv_max       GV_BASE(gv_max)
#define gv_less      GV_BASE(gv_less)
#define gv_bits      GV_BASE(gv_bits)
#define gv_from_bits GV_BASE(gv_from_bits)
#define gv_from_int  GV_BASE(gv_from_int)
#define gv_f16       GV_BASE(gv_f16)
#define gv_bf16      GV_BASE(gv_bf16)
#define gv_sum       GV_BASE(gv_sum)
#define gv_largest   GV_BASE(gv_largest)
#define gi_load      GV_BASE(gi_load)
#define gi_set       GV_BASE(gi_set)
#define gi_add       GV_BASE(gi_add)
#define gi_exponent  GV_BASE(gi_exponent)
#define gi_nibble    GV_BASE(gi_nibble)
#define gi_six       GV_BASE(gi_six)
#define gi_store8    GV_BASE(gi_store8)
#define gi_byte      GV(gi_byte)
#define gi_dot4      GV(gi_dot4)

/* What a set defines besides:
 *
 *     GV_TARGET        tells the compiler which instructions a function may use
 *     GV_INLINE        begins a function that is always compiled into its caller
 *     GV_FLOAT_ROWS    rows of activations that one pass over a tile multiplies. Each needs two
 *     GV_INT_ROWS      vectors of sums in registers, with quantised weights two more of integers
 *     GV_QUERIES       queries of attention that are multiplied at once with four keys
 *     GV_VALUE_VECTORS vectors of a value that attention adds up at once
 *     GV_BYTE_ZERO     128 or 0: what a weight of q8_0 has added to it after gi_byte. Tiles hold
 *                      weights + 128, for sets whose gi_dot4 multiplies unsigned with signed bytes.
 *                      Where gi_dot4 multiplies signed bytes only, gi_byte takes the 128 off
 *     GV_PAIRS         1 where products of nibbles are first added as int16, in GV(add_pairs)
 *     GV_SUM4          1 where four sums at once, GV(sum4), are faster than gv_sum four times
 *     GV_UNROLL_BLOCK  GRF_UNROLL if the loop over a block of quantised weights is to be unrolled
 *     GV_FETCH_L2      1 if quantised weights can be prefetched into the second cache: grf_fetch.
 *                      GV_INT_ROWS rows do that after the loop over a block, not in its steps
 *     GV_FMAF          a fused multiply-add of three floats
 *     GV_MATRIX_ROWS   if defined, GV(int_matrix) multiplies from so many rows of activations on
 *
 * GV(int_matrix) is for sets that multiply bytes of several rows at once, as matrix units do. It
 * does what GV(int_rows) does: a part of a tile, of the type `type`, times as many of the `rows`
 * rows of x as it likes, their sums added to out. It returns their number. */

/* ---- what the kernels of all sets share ------------------------------------------------------ */

/* A kernel multiplies the weights that it loads with several rows of activations: with as many as
 * have their sums in registers, which is `most`. The compiler keeps sums there only if the number
 * of rows is a constant, so each number is compiled apart. To keep them few, rows go in groups of
 * 12, 6, 4, 3, 2 or 1; 7 or 8 rows go as 4 and the rest, and 5 as 3 and 2. */
static int grf_next_rows(int rows, int most) {
    if (most >= 12 && rows >= 12) return 12;
    if (most >= 6 && (rows == 6 || rows > 8)) return 6;
    if (most >= 4 && rows == 5) return 3;
    if (most >= 4 && rows >= 4) return 4;
    return rows < most ? rows : most;
}

/* The number of these groups. A single row needs one, and does not wait for the loop. */
GRF_INLINE int grf_passes(int rows, int most) {
    int passes = 1;
    if (rows == 1) return 1;
    while ((rows -= grf_next_rows(rows, most)) > 0) passes++;
    return passes;
}

/* Rows at once, and those that may prefetch into the first cache where there is a choice (see
 * grf_fetch). With 6 rows, clang 14 takes half of the products out of the steps, to a place behind
 * the loop that prefetches, and spills their factors: 4 rows are 1.8 times as fast. It also keeps
 * more constants of q6_0 in registers than GCC does. With 6 rows of q6_0 that prefetch into the
 * first cache, GCC spills sums. */
#ifdef __clang__
  #define GV_ROWS(type)       (GV_INT_ROWS < 4 ? GV_INT_ROWS : (type) == GRF_Q6_0 ? 3 : 4)
  #define GV_FIRST_ROWS(type) GV_ROWS(type)
#else
  #define GV_ROWS(type)       GV_INT_ROWS
  #define GV_FIRST_ROWS(type) (GV_INT_ROWS > 4 && (type) == GRF_Q6_0 ? 4 : GV_INT_ROWS)
#endif

/* Queries of attention go in groups of 5, 4, 2 or 1. Models have 5 or 8 heads in an item. */
static int grf_next_queries(int queries, int most) {
    if (most >= 5 && queries % 5 == 0) return 5;
    if (most >= 4 && queries >= 4) return 4;
    return most >= 2 && queries >= 2 ? 2 : 1;
}

/* Calls f(n, ...) with n as a constant. The cases above `most` are not compiled. They name a
 * number that fits the arrays all the same, for checkers that do not see this. */
#define GRF_UP_TO(n, most) ((most) >= (n) ? (n) : 1)
#define GRF_CALL_ROWS(n, most, f, ...) \
    switch (n) { \
    case 12: if ((most) >= 12) f(GRF_UP_TO(12, most), __VA_ARGS__); break; \
    case 6:  if ((most) >= 6)  f(GRF_UP_TO(6, most), __VA_ARGS__);  break; \
    case 4:  if ((most) >= 4)  f(GRF_UP_TO(4, most), __VA_ARGS__);  break; \
    case 3:  if ((most) >= 3)  f(GRF_UP_TO(3, most), __VA_ARGS__);  break; \
    case 2:  if ((most) >= 2)  f(GRF_UP_TO(2, most), __VA_ARGS__);  break; \
    default: f(1, __VA_ARGS__); break; \
    }

#define GRF_CALL_QUERIES(n, most, f, ...) \
    switch (n) { \
    case 5:  if ((most) >= 5) f(GRF_UP_TO(5, most), __VA_ARGS__); break; \
    case 4:  if ((most) >= 4) f((most) >= 4 ? 4 : 1, __VA_ARGS__); break; \
    case 2:  if ((most) >= 2) f((most) >= 2 ? 2 : 1, __VA_ARGS__); break; \
    default: f(1, __VA_ARGS__); break; \
    }

/* What a pass over a part of a tile prefetches: `step` bytes from `at` on in each step. A step is a
 * column of floats or an eighth of a block. If the rows need one pass, it prefetches `distance`
 * bytes ahead of itself. If they need several, the part stays in the first cache, and each pass
 * prefetches its share of the part after the next. */
typedef struct grf_ahead { const uint8_t *at; int step; } grf_ahead;

enum { GRF_AHEAD = 8192 };

static grf_ahead grf_look_ahead(const uint8_t *part, int64_t part_bytes, int distance,
                                int step_bytes, int passes) {
    grf_ahead ahead;
    ahead.at = part + (passes > 1 ? 2 * part_bytes : distance);
    ahead.step = (step_bytes + passes - 1) / passes;
    return ahead;
}

/* The distance for quantised weights, by type and by the number of rows. A positive one is for the
 * first cache, a negative one for the second. With 0, the kernel only prefetches a line that it has
 * already; one row of q4_0 prefetches nothing unless its distance is positive. If rows need several
 * passes, only the sign counts. Sets without GV_FETCH_L2 always fill the first cache: with AVX2 the
 * second one would cost a quarter.
 *
 * With AVX-512 the hardware's own prefetching does more, and ours can disturb it. Measured with one
 * thread, mostly as shares of what memory allows:
 *
 *     Zen 4   Where it waits for memory, it is best left alone: 4 rows of q8_0 make 0.81, and 0.71
 *             with 3 blocks into the second cache; one row of q6_0 0.96 and 0.73. Where it computes
 *             for longer, it needs 8 KiB: 6 rows of q8_0 make 0.79, and 0.61 with 3 blocks; 4 rows
 *             of q6_0 0.94 and 0.60. The first cache was no better than the second.
 *     Zen 5   q4_0 makes 0.89 into the first cache and 0.86 into the second, 4 rows of it 0.85 and
 *             0.80, 4 rows of q8_0 0.88 and 0.83, 6 rows of q8_0 67 tokens/s and 55, 8 rows 85 and
 *             74. With 16 rows there is no difference. 6 rows of q4_0 make 0.70 with 6 KiB and 0.77
 *             with 12, 6 rows of q6_0 0.60 with 3 blocks and 0.80 with 8 KiB.
 *     Xeon    with AMX: q4_0 makes 0.97 into the first cache and 0.89 into the second, but 4 rows
 *             of it 0.83 and 0.90, and 4 rows of q8_0 0.85 and 0.97. One row of q6_0 reads 15.2
 *             GB/s and 16.3. */
typedef struct grf_fetch { int16_t distance[GRF_TILINGS - GRF_Q8_0][6]; } grf_fetch;

GRF_UNUSED static const grf_fetch
    /* rows:      1      2      3      4      6  others */
    grf_fetch_other = { {
        {  8192,  8192,  8192,  8192,  8192,  8192 },           /* q8_0 */
        {  8192,  8192,  8192,  8192,  8192,  8192 },           /* q4_0 */
        {  8192,  8192,  8192,  8192,  8192,  8192 } } },       /* q6_0 */
    grf_fetch_zen4 = { {
        {     0,     0,     0,     0, -8192, -8192 },
        {     0, -8192, -8192, -8192, -8192, -8192 },
        {     0,     0, -8192, -8192, -8192, -8192 } } },
    grf_fetch_zen5 = { {
        { -3264,  6144,  6144,  6144,  6144,  6144 },
        {  6144,  6144,  6144,  6144, 12288,  6144 },
        {  6144,  6144,  6144,  6144, -8192,  6144 } } },
    grf_fetch_intel = { {
        { -3264, -3264, -3264, -3264, -3264, -3264 },
        {  6144, -8192, -8192, -8192, -8192, -8192 },
        { -2496, -2496, -2496, -2496, -2496, -2496 } } };

#define GRF_BYTES_OF_16(type) (grf_tilings[type].bytes / 2)     /* of floats or halves */

/* Attention prefetches keys and values so many rows before it reads them. A row is a few lines of
 * cache, too short for the hardware prefetcher to follow. */
#define GRF_ROWS_AHEAD 16

/* What the integer sum of a block starts at, to cancel what is added to stored weights: see grf_q8.
 * zero: the set's GV_BYTE_ZERO. */
GRF_INLINE int32_t grf_int_start(const int type, const int zero, const grf_q8 *x, int64_t block) {
    switch (type) {
    case GRF_Q4_0: return x->start4[block];
    case GRF_Q6_0: return 4 * x->start4[block];
    default:       return zero ? x->start8[block] : 0;
    }
}

/* For vectors of two or four registers: `value` for each of them, with i as a constant. */
#define GV_PART(part, value) { enum { i = part }; r.at[i] = value; }
#define GV_TWO(type, value)  type r; GV_PART(0, value) GV_PART(1, value) return r
#define GV_FOUR(type, value) type r; GV_PART(0, value) GV_PART(1, value) \
                                     GV_PART(2, value) GV_PART(3, value) return r

/* ---- plain C: the reference ----------------------------------------------------------------- */

#define GRF_ISA          scalar
#define GRF_ISA_BASE     scalar
#define GV_TARGET
#define GV_INLINE        GRF_UNUSED static inline     /* forced, loops would grow tenfold */
#define GV_FLOAT_ROWS    1
#define GV_INT_ROWS      1
#define GV_QUERIES       1
#define GV_VALUE_VECTORS 1
#define GV_BYTE_ZERO     128
#define GV_PAIRS         0
#define GV_SUM4          0
#define GV_UNROLL_BLOCK
#define GV_FETCH_L2      0
#define GV_FMAF          grf_fma
#define GV_EACH(type, value) \
    type r; for (int i = 0; i < 16; i++) r.at[i] = value; return r

typedef struct { float   at[16]; } gv;
typedef struct { int32_t at[16]; } gi;
GV_INLINE gv   gv_load(const float *p) { gv r; memcpy(r.at, p, sizeof r.at); return r; }
GV_INLINE void gv_store(float *p, gv a) { memcpy(p, a.at, sizeof a.at); }
GV_INLINE gv   gv_set(float a) { GV_EACH(gv, a); }
GV_INLINE gv   gv_add(gv a, gv b) { GV_EACH(gv, a.at[i] + b.at[i]); }
GV_INLINE gv   gv_sub(gv a, gv b) { GV_EACH(gv, a.at[i] - b.at[i]); }
GV_INLINE gv   gv_mul(gv a, gv b) { GV_EACH(gv, a.at[i] * b.at[i]); }
GV_INLINE gv   gv_div(gv a, gv b) { GV_EACH(gv, a.at[i] / b.at[i]); }
GV_INLINE gv   gv_sqrt(gv a) { GV_EACH(gv, sqrtf(a.at[i])); }
GV_INLINE gv   gv_fma(gv a, gv b, gv c) { GV_EACH(gv, grf_fma(a.at[i], b.at[i], c.at[i])); }
GV_INLINE gv   gv_max(gv a, gv b) { GV_EACH(gv, a.at[i] > b.at[i] ? a.at[i] : b.at[i]); }
GV_INLINE gv   gv_less(gv a, gv b, gv yes, gv no) {
    GV_EACH(gv, a.at[i] < b.at[i] ? yes.at[i] : no.at[i]);
}
GV_INLINE gi   gv_bits(gv a) { gi r; memcpy(&r, &a, sizeof r); return r; }
GV_INLINE gv   gv_from_bits(gi a) { gv r; memcpy(&r, &a, sizeof r); return r; }
GV_INLINE gv   gv_from_int(gi a) { GV_EACH(gv, (float)a.at[i]); }
GV_INLINE uint16_t GV(half)(const void *p, int i) {
    uint16_t half;
    memcpy(&half, (const uint8_t *)p + 2 * i, 2);
    return half;
}
GV_INLINE gv   gv_f16(const void *p) { GV_EACH(gv, grf_float_from_f16(GV(half)(p, i))); }
GV_INLINE gv   gv_bf16(const void *p) { GV_EACH(gv, grf_float_from_bf16(GV(half)(p, i))); }
GV_INLINE float gv_sum(gv a) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) a.at[i] += a.at[i + width];
    return a.at[0];
}
GV_INLINE float gv_largest(gv a) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            if (!(a.at[i] > a.at[i + width])) a.at[i] = a.at[i + width];
    return a.at[0];
}
/* signed overflow, which only NaN and infinity can cause, must wrap: hence the unsigned detour */
#define GV_WRAP(a, op, b) (int32_t)((uint32_t)(a) op (uint32_t)(b))
GV_INLINE gi   gi_load(const void *p) { gi r; memcpy(&r, p, sizeof r); return r; }
GV_INLINE gi   gi_set(int32_t a) { GV_EACH(gi, a); }
GV_INLINE gi   gi_add(gi a, gi b) { GV_EACH(gi, GV_WRAP(a.at[i], +, b.at[i])); }
GV_INLINE gi   gi_exponent(gi a) { GV_EACH(gi, GV_WRAP(a.at[i], <<, 23)); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    GV_EACH(gi, GV_WRAP(a.at[i], >>, upper ? 4 : 0) & 0x0f0f0f0f);
}
GV_INLINE gi   gi_six(gi a, gi upper, int part) {
    gi low = gi_nibble(a, part & 1);
    int left = part == 2 ? 4 : part == 3 ? 2 : 0, right = part == 1 ? 2 : 0;
    GV_EACH(gi, low.at[i] | (GV_WRAP(GV_WRAP(upper.at[i], <<, left), >>, right) & 0x30303030));
}
GV_INLINE gi   gi_byte(gi a) { return a; }
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 4; k++)
            sum.at[i] += ((const uint8_t *)&u)[4 * i + k] * ((const int8_t *)&s)[4 * i + k];
    return sum;
}
GV_INLINE void gi_store8(int8_t *p, gi a) {
    for (int i = 0; i < 16; i++) p[i] = (int8_t)(uint8_t)((uint32_t)a.at[i] & 255);
}

#include GRIFFIN_FILE

#ifdef GRF_X86
#if defined(__GNUC__) && !defined(__clang__) && defined(__cplusplus)
  #pragma GCC diagnostic push               /* gcc 12's own AVX-512 header, as C++ at -O2 */
  #pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
  #pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#ifdef GRF_WINDOWS_GCC
  #pragma GCC push_options
  #pragma GCC optimize ("no-asynchronous-unwind-tables", "no-unwind-tables")
#endif

/* ---- AVX2, with FMA and F16C: a vector is two registers ------------------------------------- */

#define GRF_ISA          avx2
#define GRF_ISA_BASE     avx2
#define GV_TARGET        GRF_TARGET("avx2,fma,f16c")
#define GV_INLINE        GRF_INLINE GV_TARGET
#define GV_FLOAT_ROWS    2
#define GV_INT_ROWS      2
#define GV_QUERIES       1
#define GV_VALUE_VECTORS 4
#define GV_BYTE_ZERO     0
#define GV_PAIRS         1
#define GV_SUM4          0
#define GV_UNROLL_BLOCK                   /* unrolled, q4_0 is up to a fifth slower (gcc 12) */
#define GV_FETCH_L2      0
#define GV_FMAF          GRF_FMAF

typedef struct { __m256  at[2]; } gv;
typedef struct { __m256i at[2]; } gi;
GV_INLINE gv   gv_load(const float *p) { GV_TWO(gv, _mm256_loadu_ps(p + 8 * i)); }
GV_INLINE void gv_store(float *p, gv a) {
    _mm256_storeu_ps(p, a.at[0]); _mm256_storeu_ps(p + 8, a.at[1]);
}
GV_INLINE gv   gv_set(float a) { GV_TWO(gv, _mm256_set1_ps(a)); }
GV_INLINE gv   gv_add(gv a, gv b) { GV_TWO(gv, _mm256_add_ps(a.at[i], b.at[i])); }
GV_INLINE gv   gv_sub(gv a, gv b) { GV_TWO(gv, _mm256_sub_ps(a.at[i], b.at[i])); }
GV_INLINE gv   gv_mul(gv a, gv b) { GV_TWO(gv, _mm256_mul_ps(a.at[i], b.at[i])); }
GV_INLINE gv   gv_div(gv a, gv b) { GV_TWO(gv, _mm256_div_ps(a.at[i], b.at[i])); }
GV_INLINE gv   gv_sqrt(gv a) { GV_TWO(gv, _mm256_sqrt_ps(a.at[i])); }
GV_INLINE gv   gv_fma(gv a, gv b, gv c) {
    GV_TWO(gv, _mm256_fmadd_ps(a.at[i], b.at[i], c.at[i]));
}
GV_INLINE gv   gv_max(gv a, gv b) { GV_TWO(gv, _mm256_max_ps(a.at[i], b.at[i])); }
GV_INLINE gv   gv_less(gv a, gv b, gv yes, gv no) {
    GV_TWO(gv, _mm256_blendv_ps(no.at[i], yes.at[i],
                                _mm256_cmp_ps(a.at[i], b.at[i], _CMP_LT_OQ)));
}
GV_INLINE gi   gv_bits(gv a) { GV_TWO(gi, _mm256_castps_si256(a.at[i])); }
GV_INLINE gv   gv_from_bits(gi a) { GV_TWO(gv, _mm256_castsi256_ps(a.at[i])); }
GV_INLINE gv   gv_from_int(gi a) { GV_TWO(gv, _mm256_cvtepi32_ps(a.at[i])); }
GV_INLINE __m128i GV(half)(const void *p, int i) {              /* 8 of 16 bits */
    return _mm_loadu_si128((const __m128i *)p + i);
}
GV_INLINE gv   gv_f16(const void *p) { GV_TWO(gv, _mm256_cvtph_ps(GV(half)(p, i))); }
GV_INLINE gv   gv_bf16(const void *p) {
    GV_TWO(gv, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(GV(half)(p, i)), 16)));
}
GV_INLINE float gv_sum(gv a) {
    __m256 b = _mm256_add_ps(a.at[0], a.at[1]);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
GV_INLINE float gv_largest(gv a) {
    __m256 b = _mm256_max_ps(a.at[0], a.at[1]);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
GV_INLINE gi   gi_load(const void *p) {
    GV_TWO(gi, _mm256_loadu_si256((const __m256i *)p + i));
}
GV_INLINE gi   gi_set(int32_t a) { GV_TWO(gi, _mm256_set1_epi32(a)); }
GV_INLINE gi   gi_add(gi a, gi b) { GV_TWO(gi, _mm256_add_epi32(a.at[i], b.at[i])); }
GV_INLINE gi   gi_exponent(gi a) { GV_TWO(gi, _mm256_slli_epi32(a.at[i], 23)); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    const __m256i low = _mm256_set1_epi8(15);
    GV_TWO(gi, _mm256_and_si256(upper ? _mm256_srli_epi16(a.at[i], 4) : a.at[i], low));
}
GV_INLINE __m256i GV(upper_bits)(__m256i a, int part) {
    if (part == 1) a = _mm256_srli_epi16(a, 2);
    if (part >= 2) a = _mm256_slli_epi16(a, part == 2 ? 4 : 2);
    return _mm256_and_si256(a, _mm256_set1_epi8(0x30));
}
GV_INLINE gi   gi_six(gi a, gi upper, int part) {
    a = gi_nibble(a, part & 1);
    GV_TWO(gi, _mm256_or_si256(a.at[i], GV(upper_bits)(upper.at[i], part)));
}
GV_INLINE gi   gi_byte(gi a) {
    GV_TWO(gi, _mm256_xor_si256(a.at[i], _mm256_set1_epi8(-128)));
}
/* vpmaddubsw multiplies unsigned with signed bytes: |u| with s that has the sign of u. A pair of
 * products is at most 2 128 127, which fits 16 bits. */
GV_INLINE __m256i GV(dot4_half)(__m256i sum, __m256i u, __m256i s) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(s, u));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    GV_TWO(gi, GV(dot4_half)(sum.at[i], u.at[i], s.at[i]));
}
/* Nibbles are unsigned, and the 8 pairs of a block fit 16 bits: at most 8 2 15 128. */
GV_INLINE gi GV(add_pairs)(gi pairs, gi u, gi s) {
    GV_TWO(gi, _mm256_add_epi16(pairs.at[i], _mm256_maddubs_epi16(u.at[i], s.at[i])));
}
GV_INLINE gi GV(sum_pairs)(gi pairs) {
    GV_TWO(gi, _mm256_madd_epi16(pairs.at[i], _mm256_set1_epi16(1)));
}
GV_INLINE void gi_store8(int8_t *p, gi a) {
    __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.at[0], a.at[1]), 0xd8);
    __m128i low = _mm256_castsi256_si128(both), high = _mm256_extracti128_si256(both, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(low, high));
}

#include GRIFFIN_FILE

/* ---- AVX-VNNI: AVX2 with dot products of bytes ---------------------------------------------- */

#ifdef GRF_AVX_VNNI
#define GRF_ISA          avx_vnni
#define GRF_ISA_BASE     avx2
#define GRF_BYTES_ONLY
#define GV_TARGET        GRF_TARGET("avx2,avxvnni,fma,f16c")
#define GV_INLINE        GRF_INLINE GV_TARGET
#define GV_INT_ROWS      2
#define GV_BYTE_ZERO     128
#define GV_PAIRS         0
#define GV_UNROLL_BLOCK  GRF_UNROLL
#define GV_FETCH_L2      0

GV_INLINE gi   gi_byte(gi a) { return a; }
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    GV_TWO(gi, _mm256_dpbusd_avx_epi32(sum.at[i], u.at[i], s.at[i]));
}

#include GRIFFIN_FILE
#endif

/* ---- AVX-512 (F, BW, VL, DQ, VNNI): a vector is a register ---------------------------------- */

#define GRF_ISA          avx512
#define GRF_ISA_BASE     avx512
#define GV_TARGET        \
    GRF_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#define GV_INLINE        GRF_INLINE GV_TARGET
#define GV_FLOAT_ROWS    12
#define GV_INT_ROWS      6
#define GV_QUERIES       5
#define GV_VALUE_VECTORS 8
#define GV_BYTE_ZERO     128
#define GV_PAIRS         0
#define GV_SUM4          1
#define GV_UNROLL_BLOCK  GRF_UNROLL
#define GV_FETCH_L2      1
#define GV_FMAF          GRF_FMAF

typedef __m512  gv;
typedef __m512i gi;
GV_INLINE gv   gv_load(const float *p) { return _mm512_loadu_ps(p); }
GV_INLINE void gv_store(float *p, gv a) { _mm512_storeu_ps(p, a); }
GV_INLINE gv   gv_set(float a) { return _mm512_set1_ps(a); }
GV_INLINE gv   gv_add(gv a, gv b) { return _mm512_add_ps(a, b); }
GV_INLINE gv   gv_sub(gv a, gv b) { return _mm512_sub_ps(a, b); }
GV_INLINE gv   gv_mul(gv a, gv b) { return _mm512_mul_ps(a, b); }
GV_INLINE gv   gv_div(gv a, gv b) { return _mm512_div_ps(a, b); }
GV_INLINE gv   gv_sqrt(gv a) { return _mm512_sqrt_ps(a); }
GV_INLINE gv   gv_fma(gv a, gv b, gv c) { return _mm512_fmadd_ps(a, b, c); }
GV_INLINE gv   gv_max(gv a, gv b) { return _mm512_max_ps(a, b); }
GV_INLINE gv   gv_less(gv a, gv b, gv yes, gv no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
GV_INLINE gi   gv_bits(gv a) { return _mm512_castps_si512(a); }
GV_INLINE gv   gv_from_bits(gi a) { return _mm512_castsi512_ps(a); }
GV_INLINE gv   gv_from_int(gi a) { return _mm512_cvtepi32_ps(a); }
GV_INLINE __m256i GV(load16)(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
GV_INLINE gv   gv_f16(const void *p) { return _mm512_cvtph_ps(GV(load16)(p)); }
GV_INLINE gv   gv_bf16(const void *p) {
    return gv_from_bits(_mm512_slli_epi32(_mm512_cvtepu16_epi32(GV(load16)(p)), 16));
}
GV_INLINE grf_gv_avx2 GV(halves)(gv a) {
    grf_gv_avx2 r;
    r.at[0] = _mm512_castps512_ps256(a);
    r.at[1] = _mm512_castps512_ps256(_mm512_shuffle_f32x4(a, a, 0x0e));
    return r;
}
GV_INLINE float gv_sum(gv a) { return grf_gv_sum_avx2(GV(halves)(a)); }
GV_INLINE float gv_largest(gv a) { return grf_gv_largest_avx2(GV(halves)(a)); }
/* four sums by the tree of gv_sum, two and then four vectors at a time */
GV_INLINE void GV(sum4)(float *to, gv a, gv b, gv c, gv d) {
    gv ab = gv_add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    gv cd = gv_add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    gv s = gv_add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = gv_add(s, _mm512_permute_ps(s, 0x4e));
    s = gv_add(s, _mm512_permute_ps(s, 0xb1));
    _mm512_mask_compressstoreu_ps(to, 0x1111, s);
}
GV_INLINE gi   gi_load(const void *p) { return _mm512_loadu_si512(p); }
GV_INLINE gi   gi_set(int32_t a) { return _mm512_set1_epi32(a); }
GV_INLINE gi   gi_add(gi a, gi b) { return _mm512_add_epi32(a, b); }
GV_INLINE gi   gi_exponent(gi a) { return _mm512_slli_epi32(a, 23); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    return _mm512_and_si512(upper ? _mm512_srli_epi16(a, 4) : a, _mm512_set1_epi8(15));
}
GV_INLINE gi   gi_six(gi a, gi upper, int part) {
    if (part & 1)  a = _mm512_srli_epi16(a, 4);
    if (part == 1) upper = _mm512_srli_epi16(upper, 2);
    if (part >= 2) upper = _mm512_slli_epi16(upper, part == 2 ? 4 : 2);
    upper = _mm512_and_si512(upper, _mm512_set1_epi8(0x30));
    return _mm512_ternarylogic_epi32(upper, a, _mm512_set1_epi8(15), 0xf8);     /* u | (a & 15) */
}
GV_INLINE gi   gi_byte(gi a) { return a; }
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) { return _mm512_dpbusd_epi32(sum, u, s); }
GV_INLINE void gi_store8(int8_t *p, gi a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}

#include GRIFFIN_FILE

/* ---- AMX: AVX-512 with a matrix unit ---------------------------------------------------------
 * A register is 16 rows of 64 bytes. tdpbssd adds to sums C [16 rows of activations][16 output
 * rows] the products of signed bytes A [16 rows][32 columns] and B [8][16 output rows][4 columns].
 * All else is that of AVX-512. The instructions are assembler, for gcc 12 believes that
 * _tile_loadconfig reads 8 bytes, and that _tile_loadd reads none.
 *
 * A unit of work is half a block, which is 32 columns of 16 output rows, times 16 rows of
 * activations. Its weights are unpacked to signed bytes, which serve all rows. Its sums can leave
 * C only through memory. Vectors convert them and add them up, in the order of GV(int_group).
 *
 * Matrix unit and vectors work at the same time: C has four registers, and while the sums of a unit
 * are added up, the next three are being multiplied. A store waits for the products of its
 * register, and all tile instructions behind it wait for the store; so it comes as late as it can.
 * A step also unpacks half a block of the next group, and prefetches for the group after it. */

#ifdef GRF_AMX
#define GRF_ISA          amx
#define GRF_ISA_BASE     avx512
#define GV_TARGET        \
    GRF_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#define GV_INLINE        GRF_INLINE GV_TARGET

#ifndef GRF_AMX_LOAD                        /* a test puts plain C in their place */
  typedef struct { uint8_t at[64]; } grf_amx_config;
  #define GRF_AMX_BEGIN(config)    __asm__ volatile("ldtilecfg %0" : : "m"(*(config)) : "memory")
  #define GRF_AMX_END()            __asm__ volatile("tilerelease" : : : "memory")
  #define GRF_AMX_ZERO(c)          __asm__ volatile("tilezero %%tmm" #c : : : "memory")
  #define GRF_AMX_DOT(c, a, b) \
      __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
  #define GRF_AMX_LOAD(a, from, stride) \
      __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #a \
                       : : "r"(from), "r"((int64_t)(stride)) : "memory")
  #define GRF_AMX_STORE(c, to, stride) \
      __asm__ volatile("tilestored %%tmm" #c ", (%0,%1,1)" \
                       : : "r"(to), "r"((int64_t)(stride)) : "memory")
#endif

/* Rows of activations, and the fewest that are worth it; blocks of a group, bytes of half a one. */
enum { GRF_AMX_ROWS = 16, GRF_AMX_LEAST = 10, GRF_AMX_BLOCKS = GRF_GROUP / 32,
       GRF_AMX_HALF = 512 };

/* The weights of a group: half blocks of the first 16 output rows, and then those of the others. */
typedef struct grf_amx_group {
    int8_t code[2 * GRF_AMX_BLOCKS][GRF_AMX_HALF];      /* 8 lines of 16 output rows x 4 columns */
    float  scale[2 * GRF_AMX_BLOCKS][16];
} __attribute__((aligned(64))) grf_amx_group;
typedef struct grf_amx_sums {
    int32_t at[GRF_AMX_ROWS][16];
} __attribute__((aligned(64))) grf_amx_sums;

/* Registers 0 to 3 are C, 4 and 5 A, 6 and 7 B. */
static void grf_amx_begin(int rows) {
    grf_amx_config config;
    memset(&config, 0, sizeof config);
    config.at[0] = 1;                       /* the only palette */
    for (int i = 0; i < 8; i++) {
        config.at[16 + 2 * i] = i == 4 || i == 5 ? 32 : 64;         /* bytes of a row */
        config.at[48 + i] = (uint8_t)(i < 6 ? rows : 8);
    }
    GRF_AMX_BEGIN(&config);
}

/* Unpacks half block u of a group of n blocks at w, its lines as GV(int_turn) finds them. A block
 * that the group lacks is zeros. */
GV_INLINE void grf_amx_unpack(const int type, grf_amx_group *to, const uint8_t *w, int n, int u) {
    const gi added = _mm512_set1_epi8((char)grf_tilings[type].added);
    const int lines = type == GRF_Q8_0 ? 8 : 4, h = u / GRF_AMX_BLOCKS, b = u % GRF_AMX_BLOCKS;
    int8_t *code = to->code[u];
    if (b >= n) {
        memset(code, 0, GRF_AMX_HALF);
        memset(to->scale[u], 0, sizeof to->scale[u]);
        return;
    }
    w += b * grf_tilings[type].bytes;
    gv_store(to->scale[u], gv_f16(w + 32 * h));
    w += 64 + 64 * h;
    GRF_UNROLL for (int j = 0; j < lines; j++, code += 64) {
        const uint8_t *at = w + 128 * j + (type == GRF_Q6_0 ? 128 + j / 2 * 128 : 0);
        const int part = type == GRF_Q6_0 ? j % 2 * 2 : 0;
        gi low = grf_int_weights_avx512(type, at, part);
        _mm512_store_si512(code, _mm512_sub_epi8(low, added));
        if (lines == 8) continue;
        gi high = grf_int_weights_avx512(type, at, part + 1);
        _mm512_store_si512(code + 4 * 64, _mm512_sub_epi8(high, added));
    }
}

/* Begins unit i of the four whose activations are at q and whose weights are at `code`. */
#define GRF_AMX_UNIT(i, a, b) \
    GRF_AMX_LOAD(a, q + 32 * i, sizeof(grf_q8)); \
    GRF_AMX_LOAD(b, code + GRF_AMX_HALF * i, 64); \
    GRF_AMX_ZERO(i); \
    GRF_AMX_DOT(i, a, b)

/* Ends the unit in register i, begins the one four units later, if there is one, and adds up what
 * has ended. With one pass memory is the limit, and a line that lies a page ahead is prefetched,
 * too: the hardware prefetches within a page only, and begins there before the kernel arrives. With
 * more passes that would drive activations out of the second cache. */
#define GRF_AMX_STEP(i, a, b) \
    GRF_AMX_STORE(i, sums.at, sizeof sums.at[0]); \
    if (q) { GRF_AMX_UNIT(i, a, b); } \
    if (unpacked < halves) \
        grf_amx_unpack(type, &group[turn ^ 1], next, n_next, unpacked++); \
    for (int k = 0; k < share; k += 64) GRF_FETCH_L2(ahead + k); \
    if (passes == 1) GRF_FETCH_L2(ahead + 4096); \
    ahead += share; \
    gv d##i = gv_load(scale + 16 * i); \
    GRF_UNROLL for (int m = 0; m < GRF_AMX_ROWS; m++) \
        sum[m] = gv_fma(d##i, gv_from_int(gi_load(sums.at[m])), sum[m])

/* A tile times some sixteens of rows, or less than one. The unit four later belongs to this half of
 * the tile, to the other one, to the rows that follow, or to the next group. The sums are written
 * here: an inline function that does it makes prompts a seventh slower (measured, gcc 12). */
GV_INLINE void grf_amx_tile(const int type, float *out, const uint8_t *w, const grf_q8 *x,
                            int64_t stride, int64_t blocks, int rows) {
    const int bytes = grf_tilings[type].bytes, passes = (rows + GRF_AMX_ROWS - 1) / GRF_AMX_ROWS;
    const int at_once = rows < GRF_AMX_ROWS ? rows : GRF_AMX_ROWS, halves = 2 * GRF_AMX_BLOCKS;
    grf_amx_group group[2];                 /* this one and the next, by turns */
    grf_amx_sums sums;
    int n = (int)grf_min64(blocks, GRF_AMX_BLOCKS), turn = 0;
    memset(&sums, 0, sizeof sums);
    grf_amx_begin(at_once);
    for (int u = 0; u < halves; u++) grf_amx_unpack(type, &group[0], w, n, u);
    const int8_t *q = x->q, *code = group[0].code[0];
    GRF_AMX_UNIT(0, 4, 6);
    GRF_AMX_UNIT(1, 5, 7);
    GRF_AMX_UNIT(2, 4, 6);
    GRF_AMX_UNIT(3, 5, 7);
    for (int n_next; n > 0; n = n_next, x += stride, turn ^= 1) {
        const uint8_t *next = w + n * bytes, *ahead = next + n * bytes;
        const int share = n * bytes / (passes * halves);
        blocks -= n;
        n_next = (int)grf_min64(blocks, GRF_AMX_BLOCKS);
        int unpacked = n_next ? 0 : halves;
        for (int row = 0; row < rows; row += GRF_AMX_ROWS) {
            const int last = row + GRF_AMX_ROWS >= rows;
            const grf_q8 *then = !last ? x + row + GRF_AMX_ROWS : n_next ? x + stride : NULL;
            for (int h = 0; h < 2; h++) {
                float *to = out + row * GRF_TILE + 16 * h;
                gv sum[GRF_AMX_ROWS];
                GRF_UNROLL for (int m = 0; m < GRF_AMX_ROWS; m++) sum[m] = gv_set(0);
                for (int b = 0; b < GRF_AMX_BLOCKS; b += 4) {
                    const int u = GRF_AMX_BLOCKS * h + b;
                    const float *scale = group[turn].scale[u];
                    code = group[turn].code[u] + 4 * GRF_AMX_HALF;
                    if (b == 0)      q = x[row].q + 4 * 32;
                    else if (h == 0) q = x[row].q;
                    else {
                        q    = then ? then->q : NULL;
                        code = group[turn ^ last].code[0];
                    }
                    GRF_AMX_STEP(0, 4, 6);
                    GRF_AMX_STEP(1, 5, 7);
                    GRF_AMX_STEP(2, 4, 6);
                    GRF_AMX_STEP(3, 5, 7);
                }
                GRF_UNROLL for (int m = 0; m < GRF_AMX_ROWS; m++, to += GRF_TILE) {
                    if (m >= at_once) continue;
                    gv_store(to, gv_fma(gv_set(x[row + m].scale), sum[m], gv_load(to)));
                }
            }
        }
        w = next;
    }
    GRF_AMX_END();
}

static GV_TARGET void grf_amx_rows(float *out, const grf_linear *l, const uint8_t *w,
                                   const grf_q8 *x, int64_t stride, int rows) {
    switch (l->type) {
    case GRF_Q8_0: grf_amx_tile(GRF_Q8_0, out, w, x, stride, l->cols / 32, rows); break;
    case GRF_Q4_0: grf_amx_tile(GRF_Q4_0, out, w, x, stride, l->cols / 32, rows); break;
    default:       grf_amx_tile(GRF_Q6_0, out, w, x, stride, l->cols / 32, rows); break;
    }
}

/* Rows in sixteens. A rest that is not worth it goes to AVX-512. */
static GV_TARGET void grf_int_tile_amx(float *out, const grf_linear *l, const uint8_t *w,
                                       const grf_q8 *x, int64_t stride, int rows) {
    int rest = rows % GRF_AMX_ROWS, all = rows - rest;
    memset(out, 0, (size_t)rows * GRF_TILE * 4);
    if (all > 0) grf_amx_rows(out, l, w, x, stride, all);
    out += all * GRF_TILE;
    x += all;
    if (rest >= GRF_AMX_LEAST) grf_amx_rows(out, l, w, x, stride, rest);
    else if (rest > 0)         grf_int_tile_avx512(out, l, w, x, stride, rest);
}

#undef GRF_ISA
#undef GRF_ISA_BASE
#undef GV_TARGET
#undef GV_INLINE
#endif

#ifdef GRF_WINDOWS_GCC
  #pragma GCC pop_options
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__cplusplus)
  #pragma GCC diagnostic pop
#endif
#endif /* GRF_X86 */

/* ---- NEON, of every 64-bit ARM: a vector is four registers ---------------------------------- */

#ifdef GRF_NEON
#define GRF_ISA          neon
#define GRF_ISA_BASE     neon
#if GRF_NEON_DOT == 2 && !defined(__clang__)
  #define GV_TARGET __attribute__((target("arch=armv8-a")))     /* gcc: part of what follows */
#else
  #define GV_TARGET
#endif
#define GV_INLINE        GRF_INLINE GV_TARGET
#define GV_FLOAT_ROWS    2
#define GV_INT_ROWS      2
#define GV_QUERIES       1
#define GV_VALUE_VECTORS 4
#define GV_BYTE_ZERO     0
#define GV_PAIRS         1
#define GV_SUM4          0
#define GV_UNROLL_BLOCK
#define GV_FETCH_L2      0
#define GV_FMAF          GRF_FMAF

typedef struct { float32x4_t at[4]; } gv;
typedef struct { int32x4_t   at[4]; } gi;
GV_INLINE gv   gv_load(const float *p) { GV_FOUR(gv, vld1q_f32(p + 4 * i)); }
GV_INLINE void gv_store(float *p, gv a) {
    vst1q_f32(p, a.at[0]);     vst1q_f32(p + 4, a.at[1]);
    vst1q_f32(p + 8, a.at[2]); vst1q_f32(p + 12, a.at[3]);
}
GV_INLINE gv   gv_set(float a) { GV_FOUR(gv, vdupq_n_f32(a)); }
GV_INLINE gv   gv_add(gv a, gv b) { GV_FOUR(gv, vaddq_f32(a.at[i], b.at[i])); }
GV_INLINE gv   gv_sub(gv a, gv b) { GV_FOUR(gv, vsubq_f32(a.at[i], b.at[i])); }
GV_INLINE gv   gv_mul(gv a, gv b) { GV_FOUR(gv, vmulq_f32(a.at[i], b.at[i])); }
GV_INLINE gv   gv_div(gv a, gv b) { GV_FOUR(gv, vdivq_f32(a.at[i], b.at[i])); }
GV_INLINE gv   gv_sqrt(gv a) { GV_FOUR(gv, vsqrtq_f32(a.at[i])); }
GV_INLINE gv   gv_fma(gv a, gv b, gv c) { GV_FOUR(gv, vfmaq_f32(c.at[i], a.at[i], b.at[i])); }
/* not vmaxq: that differs for zeros of both signs and NaN */
GV_INLINE float32x4_t GV(larger)(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
GV_INLINE gv   gv_max(gv a, gv b) { GV_FOUR(gv, GV(larger)(a.at[i], b.at[i])); }
GV_INLINE gv   gv_less(gv a, gv b, gv yes, gv no) {
    GV_FOUR(gv, vbslq_f32(vcltq_f32(a.at[i], b.at[i]), yes.at[i], no.at[i]));
}
GV_INLINE gi   gv_bits(gv a) { GV_FOUR(gi, vreinterpretq_s32_f32(a.at[i])); }
GV_INLINE gv   gv_from_bits(gi a) { GV_FOUR(gv, vreinterpretq_f32_s32(a.at[i])); }
GV_INLINE gv   gv_from_int(gi a) { GV_FOUR(gv, vcvtq_f32_s32(a.at[i])); }
GV_INLINE uint16x4_t GV(half)(const void *p, int i) {
    return vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 8 * i));
}
GV_INLINE gv   gv_f16(const void *p) {
    GV_FOUR(gv, vcvt_f32_f16(vreinterpret_f16_u16(GV(half)(p, i))));
}
GV_INLINE gv   gv_bf16(const void *p) {
    GV_FOUR(gv, vreinterpretq_f32_u32(vshll_n_u16(GV(half)(p, i), 16)));
}
GV_INLINE float gv_sum(gv a) {
    float32x4_t b = vaddq_f32(vaddq_f32(a.at[0], a.at[2]), vaddq_f32(a.at[1], a.at[3]));
    float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}
GV_INLINE float gv_largest(gv a) {
    float32x4_t b = GV(larger)(GV(larger)(a.at[0], a.at[2]), GV(larger)(a.at[1], a.at[3]));
    b = GV(larger)(b, vextq_f32(b, b, 2));
    return vgetq_lane_f32(GV(larger)(b, vextq_f32(b, b, 1)), 0);
}
GV_INLINE gi   gi_load(const void *p) {
    GV_FOUR(gi, vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p + 16 * i)));
}
GV_INLINE gi   gi_set(int32_t a) { GV_FOUR(gi, vdupq_n_s32(a)); }
GV_INLINE gi   gi_add(gi a, gi b) { GV_FOUR(gi, vaddq_s32(a.at[i], b.at[i])); }
GV_INLINE gi   gi_exponent(gi a) { GV_FOUR(gi, vshlq_n_s32(a.at[i], 23)); }
GV_INLINE int32x4_t GV(upper_nibbles)(int32x4_t a) {
    return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 4));
}
GV_INLINE gi   gi_nibble(gi a, int upper) {
    if (upper) { GV_FOUR(gi, GV(upper_nibbles)(a.at[i])); }
    GV_FOUR(gi, vandq_s32(a.at[i], vdupq_n_s32(0x0f0f0f0f)));
}
GV_INLINE int32x4_t GV(upper_bits)(int32x4_t a, int part) {
    if (part == 1) a = vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 2));
    if (part == 2) a = vreinterpretq_s32_u8(vshlq_n_u8(vreinterpretq_u8_s32(a), 4));
    if (part == 3) a = vreinterpretq_s32_u8(vshlq_n_u8(vreinterpretq_u8_s32(a), 2));
    return vandq_s32(a, vdupq_n_s32(0x30303030));
}
GV_INLINE gi   gi_six(gi a, gi upper, int part) {
    a = gi_nibble(a, part & 1);
    GV_FOUR(gi, vorrq_s32(a.at[i], GV(upper_bits)(upper.at[i], part)));
}
/* the dot products here are of signed bytes, and turning the top bit takes 128 off */
GV_INLINE gi   gi_byte(gi a) {
    GV_FOUR(gi, veorq_s32(a.at[i], vreinterpretq_s32_u8(vdupq_n_u8(128))));
}
GV_INLINE int32x4_t GV(dot4_quarter)(int32x4_t sum, int8x16_t w, int8x16_t x) {
    int32x4_t low  = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
GV_INLINE gi   gi_dot4(gi sum, gi w, gi x) {
    GV_FOUR(gi, GV(dot4_quarter)(sum.at[i], vreinterpretq_s8_s32(w.at[i]),
                                 vreinterpretq_s8_s32(x.at[i])));
}
/* Pairs of a block fit 16 bits, as those of AVX2 do. */
GV_INLINE int32x4_t GV(add_quarter)(int32x4_t pairs, int8x16_t w, int8x16_t x) {
    int16x8_t low  = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    int16x8_t high = vmull_s8(vget_high_s8(w), vget_high_s8(x));
    return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(pairs), vpaddq_s16(low, high)));
}
GV_INLINE gi GV(add_pairs)(gi pairs, gi w, gi x) {
    GV_FOUR(gi, GV(add_quarter)(pairs.at[i], vreinterpretq_s8_s32(w.at[i]),
                                vreinterpretq_s8_s32(x.at[i])));
}
GV_INLINE gi GV(sum_pairs)(gi pairs) {
    GV_FOUR(gi, vpaddlq_s16(vreinterpretq_s16_s32(pairs.at[i])));
}
GV_INLINE void gi_store8(int8_t *p, gi a) {
    int16x8_t low  = vcombine_s16(vmovn_s32(a.at[0]), vmovn_s32(a.at[1]));
    int16x8_t high = vcombine_s16(vmovn_s32(a.at[2]), vmovn_s32(a.at[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

#include GRIFFIN_FILE
#endif

/* ---- NEON with dot products of bytes -------------------------------------------------------- */

#ifdef GRF_NEON_DOT
#define GRF_ISA          neon_dot
#define GRF_ISA_BASE     neon
#define GRF_BYTES_ONLY
#if GRF_NEON_DOT == 1
  #define GV_TARGET
#elif defined(__clang__)
  #define GV_TARGET __attribute__((target("dotprod")))
#else
  #define GV_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define GV_INLINE        GRF_INLINE GV_TARGET
#define GV_INT_ROWS      2
#define GV_BYTE_ZERO     0
#define GV_PAIRS         0
#define GV_UNROLL_BLOCK
#define GV_FETCH_L2      0

GV_INLINE gi   gi_byte(gi a) { return GV_BASE(gi_byte)(a); }
GV_INLINE gi   gi_dot4(gi sum, gi w, gi x) {
    GV_FOUR(gi, vdotq_s32(sum.at[i], vreinterpretq_s8_s32(w.at[i]),
                          vreinterpretq_s8_s32(x.at[i])));
}

#include GRIFFIN_FILE
#endif

/* ---- NEON with matrix products of bytes ------------------------------------------------------
 * usmmla adds to four sums, of two rows of weights and two rows of activations, the products of 8
 * columns. Weights are unsigned. Single rows of activations are multiplied by dot products. */

#ifdef GRF_NEON_I8MM
#define GRF_ISA          neon_i8mm
#define GRF_ISA_BASE     neon
#define GRF_BYTES_ONLY
#if GRF_NEON_I8MM == 1
  #define GV_TARGET
#elif defined(__clang__)
  #define GV_TARGET __attribute__((target("dotprod,i8mm")))
#else
  #define GV_TARGET __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif
#define GV_INLINE        GRF_INLINE GV_TARGET
#define GV_INT_ROWS      1
#define GV_BYTE_ZERO     128
#define GV_PAIRS         0
#define GV_UNROLL_BLOCK
#define GV_FETCH_L2      0
#define GV_MATRIX_ROWS   2

GV_INLINE gi   gi_byte(gi a) { return a; }
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    GV_FOUR(gi, vusdotq_s32(sum.at[i], vreinterpretq_u8_s32(u.at[i]),
                            vreinterpretq_s8_s32(s.at[i])));
}

/* Sums of 16 output rows and two rows of activations: at[i] has output row 2i with each of them,
 * then 2i + 1 with each. */
typedef struct { int32x4_t   at[8]; } GV(sums);
typedef struct { float32x4_t at[8]; } GV(totals);

GV_INLINE gi GV(weights)(const int type, const uint8_t *at, const int part) {
    return type == GRF_Q8_0 ? gi_load(at) : GV_BASE(int_weights)(type, at, part);
}

/* Weights of 16 output rows and 8 columns, the second four of which follow 128 bytes later. */
GV_INLINE void GV(add_columns)(const int pairs, const int type, GV(sums) *sum, const uint8_t *w,
                               const int part, const int second, const grf_q8 *const *x, int k) {
    gi a = GV(weights)(type, w, part), b = GV(weights)(type, w + 128, second);
    int8x16_t two[2];
    GRF_UNROLL for (int p = 0; p < pairs; p++)
        two[p] = vcombine_s8(vld1_s8(x[2 * p]->q + k), vld1_s8(x[2 * p + 1]->q + k));
    GRF_UNROLL for (int i = 0; i < 4; i++) {
        uint8x16_t low  = vreinterpretq_u8_s32(vzip1q_s32(a.at[i], b.at[i]));
        uint8x16_t high = vreinterpretq_u8_s32(vzip2q_s32(a.at[i], b.at[i]));
        GRF_UNROLL for (int p = 0; p < pairs; p++) {
            sum[p].at[2 * i]     = vusmmlaq_s32(sum[p].at[2 * i], low, two[p]);
            sum[p].at[2 * i + 1] = vusmmlaq_s32(sum[p].at[2 * i + 1], high, two[p]);
        }
    }
}

/* A block of 32 columns, as a sum of 4 times 8: see GV(int_turn). */
GV_INLINE void GV(add_block)(const int pairs, const int type, GV(sums) *sum, const uint8_t *w,
                             const grf_q8 *const *x, int b) {
    GRF_UNROLL for (int p = 0; p < pairs; p++) {
        int32_t start[4];
        for (int i = 0; i < 4; i++)
            start[i] = grf_int_start(type, GV_BYTE_ZERO, x[2 * p + i % 2], b);
        GRF_UNROLL for (int i = 0; i < 8; i++) sum[p].at[i] = vld1q_s32(start);
    }
    GRF_UNROLL for (int s = 0; s < 4; s++) {
        const int h = s / 2, part = type == GRF_Q8_0 ? 0 : s % 2;
        const int line = type == GRF_Q8_0 ? 2 * s : type == GRF_Q4_0 ? 2 * h : 3 * h + 1;
        GV(add_columns)(pairs, type, sum, w + 64 + 128 * line, part,
                        type == GRF_Q6_0 ? part + 2 : part, x,
                        32 * b + (type == GRF_Q8_0 ? 8 * s : 8 * h + 16 * part));
    }
}

/* out += dx total, for 16 output rows and one or both rows of a pair. */
GV_INLINE void GV(add_totals)(float *out, const GV(totals) *total, const grf_q8 *const *x,
                              int rows) {
    gv even, odd;
    GRF_UNROLL for (int i = 0; i < 4; i++) {
        even.at[i] = vuzp1q_f32(total->at[2 * i], total->at[2 * i + 1]);
        odd.at[i]  = vuzp2q_f32(total->at[2 * i], total->at[2 * i + 1]);
    }
    gv_store(out, gv_fma(gv_set(x[0]->scale), even, gv_load(out)));
    if (rows < 2) return;
    gv_store(out + GRF_TILE, gv_fma(gv_set(x[1]->scale), odd, gv_load(out + GRF_TILE)));
}

/* Half a tile times one group of columns. */
GV_INLINE void GV(half_group)(const int pairs, const int type, float *out, const uint8_t *w,
                              const uint8_t *scales, const grf_q8 *const *x, int blocks,
                              int rows) {
    GV(totals) total[2];
    GRF_UNROLL for (int p = 0; p < pairs; p++)
        GRF_UNROLL for (int i = 0; i < 8; i++) total[p].at[i] = vdupq_n_f32(0);
    for (int b = 0; b < blocks; b++, w += grf_tilings[type].bytes,
                                scales += grf_tilings[type].bytes) {
        GV(sums) sum[2];
        gv d = gv_f16(scales);
        GV(add_block)(pairs, type, sum, w, x, b);
        GRF_UNROLL for (int i = 0; i < 8; i++) {
            float32x4_t two = i % 2 ? vzip2q_f32(d.at[i / 2], d.at[i / 2])
                                    : vzip1q_f32(d.at[i / 2], d.at[i / 2]);
            GRF_UNROLL for (int p = 0; p < pairs; p++)
                total[p].at[i] = vfmaq_f32(total[p].at[i], two, vcvtq_f32_s32(sum[p].at[i]));
        }
    }
    GRF_UNROLL for (int p = 0; p < pairs; p++)
        GV(add_totals)(out + 2 * p * GRF_TILE, &total[p], x + 2 * p, rows - 2 * p);
}

/* One to four rows; of an odd number the last one is multiplied twice. */
GV_INLINE int GV(int_matrix)(const int type, float *out, const uint8_t *w, const grf_q8 *x,
                             int64_t stride, int64_t blocks, int rows, grf_ahead ahead) {
    const int most = GRF_GROUP / 32, bytes = grf_tilings[type].bytes;
    rows = rows < 4 ? rows : 4;
    for (; blocks > 0; blocks -= most, x += stride, w += most * bytes) {
        const int n = blocks < most ? (int)blocks : most;
        const grf_q8 *row[4];
        for (int m = 0; m < 4; m++) row[m] = x + (m < rows ? m : rows - 1);
        GV_BASE(fetch_bytes)(ahead.at, 8 * n * ahead.step);
        ahead.at += 8 * n * ahead.step;
        for (int half = 0; half < 2; half++) {
            float *to = out + 16 * half;
            const uint8_t *at = w + 64 * half, *scales = w + 32 * half;
            if (rows <= 2) GV(half_group)(1, type, to, at, scales, row, n, rows);
            else           GV(half_group)(2, type, to, at, scales, row, n, rows);
        }
    }
    return rows;
}

#include GRIFFIN_FILE
#endif

/* ---- WebAssembly's SIMD128: a vector is four registers -------------------------------------- */

#ifdef GRF_WASM
#define GRF_ISA          wasm
#define GRF_ISA_BASE     wasm
#define GV_TARGET
#define GV_INLINE        GRF_INLINE
#define GV_FLOAT_ROWS    2
#define GV_INT_ROWS      2
#define GV_QUERIES       1
#define GV_VALUE_VECTORS 1
#define GV_BYTE_ZERO     128
#define GV_PAIRS         0
#define GV_SUM4          0
#define GV_UNROLL_BLOCK
#define GV_FETCH_L2      0
#define GV_FMAF          grf_fma

typedef struct { v128_t at[4]; } gv;
typedef struct { v128_t at[4]; } gi;
GV_INLINE gv   gv_load(const float *p) { GV_FOUR(gv, wasm_v128_load(p + 4 * i)); }
GV_INLINE void gv_store(float *p, gv a) {
    wasm_v128_store(p, a.at[0]);     wasm_v128_store(p + 4, a.at[1]);
    wasm_v128_store(p + 8, a.at[2]); wasm_v128_store(p + 12, a.at[3]);
}
GV_INLINE gv   gv_set(float a) { GV_FOUR(gv, wasm_f32x4_splat(a)); }
GV_INLINE gv   gv_add(gv a, gv b) { GV_FOUR(gv, wasm_f32x4_add(a.at[i], b.at[i])); }
GV_INLINE gv   gv_sub(gv a, gv b) { GV_FOUR(gv, wasm_f32x4_sub(a.at[i], b.at[i])); }
GV_INLINE gv   gv_mul(gv a, gv b) { GV_FOUR(gv, wasm_f32x4_mul(a.at[i], b.at[i])); }
GV_INLINE gv   gv_div(gv a, gv b) { GV_FOUR(gv, wasm_f32x4_div(a.at[i], b.at[i])); }
GV_INLINE gv   gv_sqrt(gv a) { GV_FOUR(gv, wasm_f32x4_sqrt(a.at[i])); }
/* grf_fma for two. Rounded to odd means: what the sum s = p + c has lost is cut off its magnitude,
 * and its last bit set. The lost part points inwards where its sign is not that of the sum. */
GV_INLINE v128_t GV(to_odd)(v128_t s, v128_t p, v128_t c) {
    v128_t t = wasm_f64x2_sub(s, p), zero = wasm_f64x2_splat(0);
    v128_t lost = wasm_f64x2_add(wasm_f64x2_sub(p, wasm_f64x2_sub(s, t)), wasm_f64x2_sub(c, t));
    v128_t inexact = wasm_v128_or(wasm_f64x2_lt(lost, zero), wasm_f64x2_gt(lost, zero));
    v128_t inwards = wasm_i64x2_lt(wasm_v128_xor(lost, s), zero);
    s = wasm_i64x2_add(s, wasm_v128_and(inwards, inexact));
    return wasm_v128_or(s, wasm_v128_and(inexact, wasm_i64x2_splat(1)));
}
GV_INLINE v128_t GV(upper)(v128_t a) {
    return wasm_f64x2_promote_low_f32x4(wasm_i64x2_shuffle(a, a, 1, 1));
}
/* Only a double halfway between two floats could round the other way; its last 28 bits are 0. */
GV_INLINE v128_t GV(halfway)(v128_t s) {
    return wasm_i64x2_eq(wasm_i64x2_shl(s, 36), wasm_i64x2_splat(0));
}
GV_INLINE v128_t GV(fma_quarter)(v128_t a, v128_t b, v128_t c) {
    v128_t c0 = wasm_f64x2_promote_low_f32x4(c), c1 = GV(upper)(c);
    v128_t p0 = wasm_f64x2_promote_low_f32x4(a), p1 = wasm_f64x2_mul(GV(upper)(a), GV(upper)(b));
    p0 = wasm_f64x2_mul(p0, wasm_f64x2_promote_low_f32x4(b));
    v128_t s0 = wasm_f64x2_add(p0, c0), s1 = wasm_f64x2_add(p1, c1);
    if (wasm_v128_any_true(wasm_v128_or(GV(halfway)(s0), GV(halfway)(s1)))) {
        s0 = GV(to_odd)(s0, p0, c0); s1 = GV(to_odd)(s1, p1, c1);
    }
    return wasm_i64x2_shuffle(wasm_f32x4_demote_f64x2_zero(s0), wasm_f32x4_demote_f64x2_zero(s1),
                              0, 2);
}
GV_INLINE gv   gv_fma(gv a, gv b, gv c) {
    GV_FOUR(gv, GV(fma_quarter)(a.at[i], b.at[i], c.at[i]));
}
GV_INLINE gv   gv_max(gv a, gv b) { GV_FOUR(gv, wasm_f32x4_pmax(b.at[i], a.at[i])); }
GV_INLINE gv   gv_less(gv a, gv b, gv yes, gv no) {
    GV_FOUR(gv, wasm_v128_bitselect(yes.at[i], no.at[i], wasm_f32x4_lt(a.at[i], b.at[i])));
}
GV_INLINE gi   gv_bits(gv a) { gi r; memcpy(&r, &a, sizeof r); return r; }
GV_INLINE gv   gv_from_bits(gi a) { gv r; memcpy(&r, &a, sizeof r); return r; }
GV_INLINE gv   gv_from_int(gi a) { GV_FOUR(gv, wasm_f32x4_convert_i32x4(a.at[i])); }
GV_INLINE v128_t GV(half)(const void *p, int i) {
    return wasm_u32x4_load16x4((const uint8_t *)p + 8 * i);
}
/* exponent and fraction where a float has them, times 2^(127 - 15); infinity and NaN stay so */
GV_INLINE v128_t GV(float_of_f16)(v128_t h) {
    v128_t size = wasm_v128_and(h, wasm_i32x4_splat(0x7fff));
    v128_t sign = wasm_i32x4_shl(wasm_v128_xor(h, size), 16);
    v128_t special = wasm_i32x4_gt(size, wasm_i32x4_splat(0x7bff));
    size = wasm_f32x4_mul(wasm_i32x4_shl(size, 13), wasm_f32x4_splat(5.192296858534828e33f));
    special = wasm_v128_and(special, wasm_i32x4_splat(0x7f800000));
    return wasm_v128_or(wasm_v128_or(sign, size), special);
}
GV_INLINE gv   gv_f16(const void *p) { GV_FOUR(gv, GV(float_of_f16)(GV(half)(p, i))); }
GV_INLINE gv   gv_bf16(const void *p) { GV_FOUR(gv, wasm_i32x4_shl(GV(half)(p, i), 16)); }
GV_INLINE float gv_sum(gv a) {
    v128_t b = wasm_f32x4_add(wasm_f32x4_add(a.at[0], a.at[2]), wasm_f32x4_add(a.at[1], a.at[3]));
    b = wasm_f32x4_add(b, wasm_i64x2_shuffle(b, b, 1, 1));
    return wasm_f32x4_extract_lane(b, 0) + wasm_f32x4_extract_lane(b, 1);
}
GV_INLINE float gv_largest(gv a) {
    v128_t b = wasm_f32x4_pmax(a.at[2], a.at[0]), c = wasm_f32x4_pmax(a.at[3], a.at[1]);
    b = wasm_f32x4_pmax(c, b);
    b = wasm_f32x4_pmax(wasm_i64x2_shuffle(b, b, 1, 1), b);
    return wasm_f32x4_extract_lane(wasm_f32x4_pmax(wasm_i32x4_shuffle(b, b, 1, 1, 1, 1), b), 0);
}
GV_INLINE gi   gi_load(const void *p) { GV_FOUR(gi, wasm_v128_load((const uint8_t *)p + 16 * i)); }
GV_INLINE gi   gi_set(int32_t a) { GV_FOUR(gi, wasm_i32x4_splat(a)); }
GV_INLINE gi   gi_add(gi a, gi b) { GV_FOUR(gi, wasm_i32x4_add(a.at[i], b.at[i])); }
GV_INLINE gi   gi_exponent(gi a) { GV_FOUR(gi, wasm_i32x4_shl(a.at[i], 23)); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    if (upper) { GV_FOUR(gi, wasm_u8x16_shr(a.at[i], 4)); }
    GV_FOUR(gi, wasm_v128_and(a.at[i], wasm_i32x4_splat(0x0f0f0f0f)));
}
GV_INLINE v128_t GV(upper_bits)(v128_t a, int part) {
    if (part == 1) a = wasm_u8x16_shr(a, 2);
    if (part >= 2) a = wasm_i8x16_shl(a, part == 2 ? 4 : 2);
    return wasm_v128_and(a, wasm_i32x4_splat(0x30303030));
}
GV_INLINE gi   gi_six(gi a, gi upper, int part) {
    a = gi_nibble(a, part & 1);
    GV_FOUR(gi, wasm_v128_or(a.at[i], GV(upper_bits)(upper.at[i], part)));
}
GV_INLINE gi   gi_byte(gi a) { return a; }
/* bytes 0 and 2 of each four, then 1 and 3, as 16-bit pairs */
GV_INLINE v128_t GV(dot4_quarter)(v128_t sum, v128_t u, v128_t s) {
    v128_t u02 = wasm_v128_and(u, wasm_i16x8_splat(255)), u13 = wasm_u16x8_shr(u, 8);
    v128_t s02 = wasm_i16x8_shr(wasm_i16x8_shl(s, 8), 8), s13 = wasm_i16x8_shr(s, 8);
    sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(u02, s02));
    return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(u13, s13));
}
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    GV_FOUR(gi, GV(dot4_quarter)(sum.at[i], u.at[i], s.at[i]));
}
GV_INLINE void gi_store8(int8_t *p, gi a) {
    v128_t low = wasm_i16x8_narrow_i32x4(a.at[0], a.at[1]);
    v128_t high = wasm_i16x8_narrow_i32x4(a.at[2], a.at[3]);
    wasm_v128_store(p, wasm_i8x16_narrow_i16x8(low, high));
}

#include GRIFFIN_FILE
#endif

/* The short names end here. */
#undef gv
#undef gi
#undef gv_load
#undef gv_store
#undef gv_set
#undef gv_add
#undef gv_sub
#undef gv_mul
#undef gv_div
#undef gv_sqrt
#undef gv_fma
#undef gv_max
#undef gv_less
#undef gv_bits
#undef gv_from_bits
#undef gv_from_int
#undef gv_f16
#undef gv_bf16
#undef gv_sum
#undef gv_largest
#undef gi_load
#undef gi_set
#undef gi_add
#undef gi_exponent
#undef gi_nibble
#undef gi_six
#undef gi_store8
#undef gi_byte
#undef gi_dot4
#undef GV_FOUR
#undef GV_TWO
#undef GV_PART
#undef GV_EACH
#undef GV_WRAP

/* ================================================================= >>dispatch
 * Which set of kernels a model gets: the best one that this machine and its system support, unless
 * the host names one. */

/* A table of kernels: those of the set `base`, but for the product with quantised weights, which is
 * that of the set `bytes`. */
#define GRF_KERNELS(name, fetch, base, bytes) { name, &grf_fetch_##fetch, \
    grf_float_tile_##base, grf_int_tile_##bytes, grf_quantise_##base, grf_norm_row_##base, \
    grf_layer_norm_##base, grf_conv_row_##base, grf_rglru_row_##base, grf_rope_angles_##base, \
    grf_rope_head_##base, grf_attend_##base, grf_gates_##base, grf_outer_##base, \
    grf_activate_##base, grf_multiply_##base, grf_finish_##base, grf_soft_cap_##base, \
    grf_exp_shifted_##base }

/* A bit beside those of the sets: the processor is one of Intel. */
#define GRF_INTEL (1u << 31)

/* The sets that are compiled, the best first. `beside` has bits that the processor must have, too.
 * AVX-VNNI beside AVX-512 tells Zen 5 from Zen 4. Of Intel's processors with AVX-512, one was
 * measured. */
static const struct grf_set {
    griffin_cpu cpu;
    unsigned    beside;
    grf_kernels kernels;
} grf_sets[] = {
#ifdef GRF_AMX
    { GRIFFIN_CPU_AMX, 0, GRF_KERNELS("amx", intel, avx512, amx) },
#endif
#ifdef GRF_NEON_I8MM
    { GRIFFIN_CPU_NEON_I8MM, 0, GRF_KERNELS("neon-i8mm", other, neon, neon_i8mm) },
#endif
#ifdef GRF_X86
    { GRIFFIN_CPU_AVX512, GRF_INTEL, GRF_KERNELS("avx512", intel, avx512, avx512) },
    { GRIFFIN_CPU_AVX512, 1u << GRIFFIN_CPU_AVX_VNNI,
      GRF_KERNELS("avx512", zen5, avx512, avx512) },
    { GRIFFIN_CPU_AVX512, 0, GRF_KERNELS("avx512", zen4, avx512, avx512) },
#endif
#ifdef GRF_AVX_VNNI
    { GRIFFIN_CPU_AVX_VNNI, 0, GRF_KERNELS("avx-vnni", other, avx2, avx_vnni) },
#endif
#ifdef GRF_X86
    { GRIFFIN_CPU_AVX2, 0, GRF_KERNELS("avx2", other, avx2, avx2) },
#endif
#ifdef GRF_NEON_DOT
    { GRIFFIN_CPU_NEON_DOT, 0, GRF_KERNELS("neon-dot", other, neon, neon_dot) },
#endif
#ifdef GRF_NEON
    { GRIFFIN_CPU_NEON, 0, GRF_KERNELS("neon", other, neon, neon) },
#endif
#ifdef GRF_WASM
    { GRIFFIN_CPU_WASM, 0, GRF_KERNELS("wasm", other, wasm, wasm) },
#endif
    { GRIFFIN_CPU_SCALAR, 0, GRF_KERNELS("scalar", other, scalar, scalar) }
};

#ifdef GRF_X86
static void grf_cpuid(uint32_t out[4], int leaf, int part) {    /* eax, ebx, ecx, edx */
#ifdef _MSC_VER
    int registers[4];
    __cpuidex(registers, leaf, part);
    memcpy(out, registers, sizeof registers);
#else
    __cpuid_count(leaf, part, out[0], out[1], out[2], out[3]);
#endif
}

/* Registers that the operating system saves: bits 1 and 2 SSE and AVX, 5 to 7 AVX-512, 17 and 18
 * AMX. */
static GRF_TARGET("xsave") uint64_t grf_saved_registers(void) {
    return (uint64_t)_xgetbv(0);
}

/* Linux gives a process the registers of AMX only if it asks for them, since they enlarge the frame
 * of every signal. That is for the host to decide: with `ask` 0, this only looks whether somebody
 * has asked. arch_prctl is system call 158; 0x1022 gets the permissions, 0x1023 asks for one. */
static int grf_may_use_amx(int ask) {
#ifdef GRF_AMX
    uint64_t allowed = 0;
    long status;
    if (ask)
        __asm__ volatile("syscall" : "=a"(status)
                         : "a"(158L), "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
    __asm__ volatile("syscall" : "=a"(status)
                     : "a"(158L), "D"(0x1022L), "S"(&allowed) : "rcx", "r11", "memory");
    return status == 0 && (allowed >> 18 & 1);
#else
    (void)ask;
    return 0;
#endif
}

/* The sets that both processor and system know, a bit for each griffin_cpu. Leaf 1, ecx: 12 fma,
 * 27 osxsave, 29 f16c. Leaf 7, ebx: 5 avx2, 16 f, 17 dq, 30 bw, 31 vl; ecx: 11 vnni; edx: 24 tiles
 * of AMX, 25 with bytes; its part 1, eax: 4 avx-vnni. */
static unsigned grf_x86_sets(int ask) {
    const uint32_t avx2 = 1u << 12 | 1u << 27 | 1u << 29,
                   avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    uint32_t top[4], one[4], seven[4], more[4] = { 0, 0, 0, 0 };
    grf_cpuid(top, 0, 0);
    if (top[0] < 7) return 0;
    grf_cpuid(one, 1, 0);
    grf_cpuid(seven, 7, 0);
    if ((one[2] & avx2) != avx2 || !(seven[1] >> 5 & 1)) return 0;
    uint64_t saved = grf_saved_registers();
    if ((saved & 0x06) != 0x06) return 0;
    unsigned sets = 1u << GRIFFIN_CPU_AVX2;
    if (top[1] == 0x756e6547) sets |= GRF_INTEL;            /* "Genu", of GenuineIntel */
    if (seven[0] >= 1) grf_cpuid(more, 7, 1);
    if (more[0] >> 4 & 1) sets |= 1u << GRIFFIN_CPU_AVX_VNNI;
    if ((saved & 0xe6) == 0xe6 && (seven[1] & avx512) == avx512 && seven[2] >> 11 & 1)
        sets |= 1u << GRIFFIN_CPU_AVX512;
    if (sets >> GRIFFIN_CPU_AVX512 & 1 && (saved & 0x60000) == 0x60000 && (seven[3] >> 24 & 3) == 3
        && grf_may_use_amx(ask))
        sets |= 1u << GRIFFIN_CPU_AMX;
    return sets;
}
#endif

/* The sets that can run here, a bit for each griffin_cpu. Compilers choose NEON and SIMD128. `cpu`
 * is what the host names. */
static unsigned grf_sets_here(griffin_cpu cpu) {
    unsigned sets = 1u << GRIFFIN_CPU_SCALAR | 1u << GRIFFIN_CPU_NEON | 1u << GRIFFIN_CPU_WASM;
#ifdef GRF_X86
    sets |= grf_x86_sets(cpu == GRIFFIN_CPU_AMX);
#endif
    (void)cpu;
#if GRF_NEON_DOT == 1
    sets |= 1u << GRIFFIN_CPU_NEON_DOT;
#elif GRF_NEON_DOT == 2
    if (getauxval(AT_HWCAP) >> 20 & 1) sets |= 1u << GRIFFIN_CPU_NEON_DOT;  /* HWCAP_ASIMDDP */
#endif
#if GRF_NEON_I8MM == 1
    sets |= 1u << GRIFFIN_CPU_NEON_I8MM;
#elif GRF_NEON_I8MM == 2
    if (getauxval(AT_HWCAP2) >> 13 & 1) sets |= 1u << GRIFFIN_CPU_NEON_I8MM;    /* HWCAP2_I8MM */
#endif
    return sets;
}

static const grf_kernels *grf_kernels_find(griffin_cpu cpu) {
    const unsigned here = grf_sets_here(cpu);
    for (int i = 0; i < GRF_COUNT(grf_sets); i++) {
        const struct grf_set *set = &grf_sets[i];
        if ((cpu == GRIFFIN_CPU_BEST || cpu == set->cpu) && here >> set->cpu & 1
            && (here & set->beside) == set->beside)
            return &set->kernels;
    }
    return NULL;
}

#endif /* GRIFFIN_IMPLEMENTATION */

/* ================================================================= >>kernels
 * The inner loops, compiled once for each instruction set (see >>vectors). Where a sum is rounded,
 * a comment gives its order, which is the same in all sets. */

#ifdef GRF_ISA

#ifndef GRF_BYTES_ONLY

/* ---- functions of one vector ---------------------------------------------------------------- */

GV_INLINE gv GV(neg)(gv x) { return gv_sub(gv_set(-0.0f), x); }

/* x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 2^23 rounds to an integer, which then stands in the
 * low bits of the sum. ln 2 is split so that n times its first part is exact. */
GV_INLINE gv GV(reduce)(gv x, gi *n) {
    gv shift = gv_set(12582912.0f), t = gv_fma(x, gv_set(1.44269504f), shift);
    gv whole = gv_sub(t, shift);
    *n = gi_add(gv_bits(t), gi_set(-0x4b400000));
    x = gv_fma(whole, gv_set(-0.693359375f), x);
    return gv_fma(whole, gv_set(2.12194440e-4f), x);
}

/* e^x by the Taylor series of e^r (the first term left out is below 2^-27), 2^n by adding n to the
 * exponent. Below the smallest normal number: 0. Above the largest: infinity. */
GV_INLINE gv GV(exp)(gv x) {
    gi n;
    gv r = GV(reduce)(x, &n), p = gv_set(1.0f / 5040);
    p = gv_fma(p, r, gv_set(1.0f / 720));
    p = gv_fma(p, r, gv_set(1.0f / 120));
    p = gv_fma(p, r, gv_set(1.0f / 24));
    p = gv_fma(p, r, gv_set(1.0f / 6));
    p = gv_fma(p, r, gv_set(0.5f));
    p = gv_fma(p, r, gv_set(1));
    p = gv_fma(p, r, gv_set(1));
    p = gv_from_bits(gi_add(gv_bits(p), gi_exponent(n)));
    p = gv_less(x, gv_set(-87.336544f), gv_set(0), p);
    return gv_less(gv_set(88.722839f), x, gv_set(INFINITY), p);
}

/* e^x - 1 for x <= 0, exact in relative terms near 0: e^x - 1 = 2^n (e^r - 1) + (2^n - 1). */
GV_INLINE gv GV(expm1)(gv x) {
    gi n;
    x = gv_max(gv_set(-80.0f), x);
    gv r = GV(reduce)(x, &n), p = gv_set(1.0f / 40320);
    p = gv_fma(p, r, gv_set(1.0f / 5040));
    p = gv_fma(p, r, gv_set(1.0f / 720));
    p = gv_fma(p, r, gv_set(1.0f / 120));
    p = gv_fma(p, r, gv_set(1.0f / 24));
    p = gv_fma(p, r, gv_set(1.0f / 6));
    p = gv_fma(p, r, gv_set(0.5f));
    p = gv_fma(p, gv_mul(r, r), r);
    gv scale = gv_from_bits(gi_exponent(gi_add(n, gi_set(127))));
    return gv_fma(scale, p, gv_sub(scale, gv_set(1)));
}

/* 1 / (1 + e^-x), or e^x / (1 + e^x) for negative x, so that nothing overflows. d = 1 + e is
 * rounded; lost = e - (d - 1) is the error. To first order the exact quotient is s - s lost / d.
 * The division by d is left out: where lost matters (e is small), d is close to 1. */
GV_INLINE gv GV(sigmoid)(gv x) {
    gv e = GV(exp)(gv_less(x, gv_set(0), x, GV(neg)(x))), one = gv_set(1), d = gv_add(one, e);
    gv lost = gv_sub(e, gv_sub(d, one)), s = gv_div(gv_less(x, gv_set(0), e, one), d);
    return gv_fma(GV(neg)(s), lost, s);
}

/* x + x^3 P(x^2) for |x| < 0.625, with the polynomial of Moshier's Cephes. */
GV_INLINE gv GV(tanh_near)(gv x) {
    gv square = gv_mul(x, x);
    gv p = gv_fma(gv_set(-5.70498872745e-3f), square, gv_set(2.06390887954e-2f));
    p = gv_fma(p, square, gv_set(-5.37397155531e-2f));
    p = gv_fma(p, square, gv_set(1.33314422036e-1f));
    p = gv_fma(p, square, gv_set(-3.33332819422e-1f));
    return gv_fma(gv_mul(p, square), x, x);
}

/* tanh |x| = 1 - 2 / (1 + e^(2|x|)). Near 0 the difference loses digits. */
GV_INLINE gv GV(tanh)(gv x) {
    gv size = gv_less(x, gv_set(0), GV(neg)(x), x);
    gv large = gv_div(gv_set(-2), gv_add(gv_set(1), GV(exp)(gv_add(size, size))));
    large = gv_add(gv_set(1), large);
    large = gv_less(x, gv_set(0), GV(neg)(large), large);
    return gv_less(size, gv_set(0.625f), GV(tanh_near)(x), large);
}

/* ---- activations: x times the share of it that passes --------------------------------------- */

/* x (1 + tanh u) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
GV_INLINE gv GV(gelu_tanh)(gv x) {
    gv slope = gv_fma(gv_mul(x, x), gv_set(0.0713548162726f), gv_set(1.59576912161f));
    return gv_mul(x, GV(sigmoid)(gv_mul(x, slope)));
}

/* x erfc(-x / sqrt 2) / 2. For z >= 0, erfc(z) = t e^(-z^2 + P(t)), t = 1 / (1 + z/2), with the
 * Chebyshev fit of Numerical Recipes (erfcc; 1.2e-7 relative). */
GV_INLINE gv GV(gelu_erf)(gv x) {
    static const float P[] = { 0.17087277f, -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                               -0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f, -1.26551223f };
    gv size = gv_less(x, gv_set(0), GV(neg)(x), x), z = gv_mul(size, gv_set(0.707106781f));
    gv t = gv_div(gv_set(1), gv_fma(z, gv_set(0.5f), gv_set(1))), p = gv_set(P[0]);
    for (int i = 1; i < GRF_COUNT(P); i++) p = gv_fma(p, t, gv_set(P[i]));
    /* the share of the normal distribution beyond |x| */
    gv tail = gv_mul(gv_mul(gv_set(0.5f), t), GV(exp)(gv_fma(GV(neg)(z), z, p)));
    return gv_mul(x, gv_less(x, gv_set(0), tail, gv_fma(gv_set(-1), tail, gv_set(1))));
}

GV_KERNEL void GV(activate)(float *y, griffin_activation activation, int64_t n) {
    for (int64_t j = 0; j < n; j += 16) {
        gv x = gv_load(y + j);
        switch (activation) {
        case GRIFFIN_GELU_TANH: x = GV(gelu_tanh)(x); break;
        case GRIFFIN_GELU_ERF:  x = GV(gelu_erf)(x); break;
        case GRIFFIN_SILU:      x = gv_mul(x, GV(sigmoid)(x)); break;
        case GRIFFIN_RELU:      x = gv_max(x, gv_set(0)); break;
        }
        gv_store(y + j, x);
    }
}

GV_KERNEL void GV(multiply)(float *y, const float *x, int64_t n) {
    for (int64_t j = 0; j < n; j += 16) gv_store(y + j, gv_mul(gv_load(y + j), gv_load(x + j)));
}

/* to[m][j] = out[m][j] + bias[j], or to[m][j] += out[m][j] + bias[j] if `add` is 1. The last tile
 * of a matrix may have any number of output rows, so n need not be a multiple of 16. */
GV_KERNEL void GV(finish)(float *to, int64_t stride, const float *out, const float *bias, int add,
                          int rows, int n) {
    for (; rows > 0; rows--, to += stride, out += GRF_TILE) {
        int j = 0;
        for (; j + 16 <= n; j += 16) {
            gv y = gv_load(out + j);
            if (bias) y = gv_add(y, gv_load(bias + j));
            gv_store(to + j, add ? gv_add(gv_load(to + j), y) : y);
        }
        for (; j < n; j++) {
            float y = bias ? out[j] + bias[j] : out[j];
            to[j] = add ? to[j] + y : y;
        }
    }
}

/* y = cap tanh(y / cap), 64 logits at a time. If all 64 are small, GV(tanh) would take the result
 * of GV(tanh_near) for each of them. Then only that is computed, without an exponential. */
GV_KERNEL void GV(soft_cap)(float *y, float cap, int64_t n) {
    for (; n > 0; n -= 64, y += 64) {
        int64_t count = grf_min64(n, 64);
        gv size = gv_set(0);
        for (int64_t j = 0; j < count; j += 16) {
            gv x = gv_div(gv_load(y + j), gv_set(cap));
            size = gv_max(gv_max(x, GV(neg)(x)), size);
            gv_store(y + j, x);
        }
        if (gv_largest(size) < 0.625f)
            for (int64_t j = 0; j < count; j += 16)
                gv_store(y + j, gv_mul(gv_set(cap), GV(tanh_near)(gv_load(y + j))));
        else
            for (int64_t j = 0; j < count; j += 16)
                gv_store(y + j, gv_mul(gv_set(cap), GV(tanh)(gv_load(y + j))));
    }
}

GV_KERNEL void GV(exp_shifted)(float *y, const float *x, float shift, int n) {
    int j = 0;
    for (; j + 16 <= n; j += 16)
        gv_store(y + j, GV(exp)(gv_sub(gv_load(x + j), gv_set(shift))));
    int left = n - j;
    if (left == 0) return;
    float last[16];
    memset(last, 0, sizeof last);
    memcpy(last, x + j, (size_t)left * 4);
    gv_store(last, GV(exp)(gv_sub(gv_load(last), gv_set(shift))));
    memcpy(y + j, last, (size_t)left * 4);
}

/* ---- norm: y = x / sqrt(mean(x^2) + eps) * gain --------------------------------------------- */

GV_KERNEL void GV(norm_row)(float *y, const float *x, const float *gain, int64_t n, int width,
                            float eps) {
    gv sum = gv_set(0);
    for (int64_t j = 0; j < n; j += 16) { gv a = gv_load(x + j); sum = gv_fma(a, a, sum); }
    float mean = gv_sum(sum) / (float)width;
    gv r = gv_set(1 / sqrtf(mean + eps));
    for (int64_t j = 0; j < n; j += 16)
        gv_store(y + j, gv_mul(gv_mul(gv_load(x + j), r), gv_load(gain + j)));
}

/* y = (x - mean(x)) / sqrt(variance + eps) * gain. The variance is the mean square of x - mean(x).
 * `width` need not be a multiple of 16; the rest of the last vector counts as 0. */
GV_KERNEL void GV(layer_norm)(float *y, const float *x, const float *gain, int width, float eps) {
    float last[16];
    int whole = width / 16 * 16;
    size_t rest = (size_t)(width - whole) * 4;
    memset(last, 0, sizeof last);
    if (rest) memcpy(last, x + whole, rest);
    gv sum = gv_load(last), squares = gv_set(0);
    for (int j = 0; j < whole; j += 16) sum = gv_add(gv_load(x + j), sum);
    gv mean = gv_set(gv_sum(sum) / (float)width);
    gv_store(last, gv_sub(gv_load(last), mean));
    memset((char *)last + rest, 0, sizeof last - rest);
    for (int j = 0; j < whole; j += 16) {
        gv a = gv_sub(gv_load(x + j), mean);
        squares = gv_fma(a, a, squares);
        gv_store(y + j, a);
    }
    squares = gv_fma(gv_load(last), gv_load(last), squares);
    gv r = gv_set(1 / sqrtf(gv_sum(squares) / (float)width + eps)), one = gv_set(1);
    for (int j = 0; j < whole; j += 16)
        gv_store(y + j, gv_mul(gv_mul(gv_load(y + j), r), gain ? gv_load(gain + j) : one));
    gv_store(last, gv_mul(gv_mul(gv_load(last), r), gain ? gv_load(gain + whole) : one));
    if (rest) memcpy(y + whole, last, rest);
}

/* ---- quantising activations ------------------------------------------------------------------
 * For each group: scale = max|x| / 127, q = x / scale rounded to the nearest integer, and to the
 * even one of two. As in GV(reduce), adding 1.5 2^23 does the rounding. */

GV_KERNEL void GV(quantise)(grf_q8 *y, int64_t stride, const float *x, int64_t n) {
    gv shift = gv_set(12582912.0f);
    for (; n > 0; n -= GRF_GROUP, y += stride) {
        int64_t group = n < GRF_GROUP ? n : GRF_GROUP;
        gv size = gv_set(0);
        for (int64_t j = 0; j < group; j += 16) {
            gv a = gv_load(x + j);
            size = gv_max(gv_max(a, GV(neg)(a)), size);
        }
        float scale = gv_largest(size) / 127;
        gv inverse = gv_set(scale < 1e-37f ? 0 : 1 / scale);    /* 1 / scale must be finite */
        y->scale = scale;
        for (int64_t j = 0; j < group; j += 32, x += 32) {
            gv a = gv_fma(gv_load(x), inverse, shift), b = gv_fma(gv_load(x + 16), inverse, shift);
            gi_store8(y->q + j,      gi_add(gv_bits(a), gi_set(-0x4b400000)));
            gi_store8(y->q + j + 16, gi_add(gv_bits(b), gi_set(-0x4b400000)));
            /* Exact, since these are 32 integers of at most 127; not in range if some x was NaN. */
            float sum = gv_sum(gv_add(gv_sub(a, shift), gv_sub(b, shift)));
            y->start4[j / 32] = sum > -4096 && sum < 4096 ? -8 * (int32_t)sum : 0;
            y->start8[j / 32] = 16 * y->start4[j / 32];
        }
    }
}

/* ---- linear, float weights: out[m][r] = sum_k w[r][k] x[m][k] --------------------------------
 * One chain of fused multiply-adds for each output, ascending in k. */

/* 16 numbers of a type, as floats. */
GV_INLINE gv GV(load_as)(const int type, const uint8_t *p) {
    switch (type) {
    case GRF_F16:  return gv_f16(p);
    case GRF_BF16: return gv_bf16(p);
    default:       return gv_load((const float *)(const void *)p);
    }
}

/* `rows` rows of x times `count` columns of a tile, continuing the sums in out. rows and type are
 * constants at every call: the loops over rows unroll and the sums stay in registers. */
GV_INLINE void GV(float_rows)(const int rows, const int type, float *out, const uint8_t *w,
                              const float *x, int64_t stride, int64_t count, grf_ahead ahead) {
    const int size = GRF_BYTES_OF_16(type);
    const int two = type == GRF_F32 && rows < GV_FLOAT_ROWS;
    const float *x4 = x + 4 * stride, *x8 = x + 8 * stride;
    gv low[GV_FLOAT_ROWS], high[GV_FLOAT_ROWS];             /* output rows 0 to 15, 16 to 31 */
    GRF_UNROLL for (int m = 0; m < rows; m++) {
        low[m] = gv_load(out + m * GRF_TILE);
        high[m] = gv_load(out + m * GRF_TILE + 16);
    }
    for (; count > 0; count--, x++, x4++, x8++, w += 2 * size, ahead.at += ahead.step) {
        gv a = GV(load_as)(type, w), b = GV(load_as)(type, w + size);
        GRF_FETCH(ahead.at);
        if (two) GRF_FETCH(ahead.at + 64);      /* most of a step of 128 bytes */
        GRF_UNROLL for (int m = 0; m < rows; m++) {
            gv xm = gv_set((m < 4 ? x : m < 8 ? x4 : x8)[m % 4 * stride]);
            low[m] = gv_fma(a, xm, low[m]);
            high[m] = gv_fma(b, xm, high[m]);
        }
    }
    GRF_UNROLL for (int m = 0; m < rows; m++) {
        gv_store(out + m * GRF_TILE, low[m]);
        gv_store(out + m * GRF_TILE + 16, high[m]);
    }
}

/* All rows of x, in groups. */
GV_INLINE void GV(float_part)(const int type, float *out, const uint8_t *w, const float *x,
                              int64_t stride, int64_t count, int rows, int passes) {
    const int column = grf_tilings[type].bytes, most = GV_FLOAT_ROWS;
    grf_ahead ahead = grf_look_ahead(w, count * column, GRF_AHEAD, column, passes);
    for (int m; rows > 0; rows -= m, x += m * stride, out += m * GRF_TILE) {
        m = grf_next_rows(rows, most);
        GRF_CALL_ROWS(m, GV_FLOAT_ROWS, GV(float_rows), type, out, w, x, stride, count, ahead)
        ahead.at += count * ahead.step;
    }
}

/* Columns at a time: all if one pass over the tile is enough for the rows, since a long stream is
 * read best; else as many as stay in the first cache until all passes are done. */
GV_KERNEL void GV(float_tile)(float *out, const grf_linear *l, const uint8_t *w, const float *x,
                              int64_t stride, int rows) {
    int passes = grf_passes(rows, GV_FLOAT_ROWS);
    int64_t step = passes == 1 ? l->cols : 512;
    memset(out, 0, (size_t)rows * GRF_TILE * 4);
    for (int64_t k = 0; k < l->cols; k += step) {
        int64_t n = grf_min64(step, l->cols - k);
        switch (l->type) {
        case GRF_F32: GV(float_part)(GRF_F32,  out, w, x + k, stride, n, rows, passes); break;
        case GRF_F16: GV(float_part)(GRF_F16,  out, w, x + k, stride, n, rows, passes); break;
        default:      GV(float_part)(GRF_BF16, out, w, x + k, stride, n, rows, passes); break;
        }
        w += n * grf_tilings[l->type].bytes;
    }
}

/* ---- the recurrent block -------------------------------------------------------------------- */

/* y = b + sum_k w[k] z[k], oldest tap first */
GV_KERNEL void GV(conv_row)(float *y, const float *const *z, const float *w, int64_t w_stride,
                            const float *b, int taps, int64_t n) {
    for (int64_t j = 0; j < n; j += 16) {
        gv sum = gv_load(b + j);
        for (int k = 0; k < taps; k++)
            sum = gv_fma(gv_load(w + k * w_stride + j), gv_load(z[k] + j), sum);
        gv_store(y + j, sum);
    }
}

/* log a = log_decay sigmoid(r);  h = a h + sqrt(1 - a^2) sigmoid(i) c;  y *= h. A fresh sequence
 * starts with h = sigmoid(i) c. 1 - a^2 = -expm1(2 log a) keeps its digits when a is close to 1. */
GV_KERNEL void GV(rglru_row)(float *h, float *y, const float *i, const float *r, const float *c,
                             const float *log_decay, int fresh, int64_t n) {
    for (int64_t j = 0; j < n; j += 16) {
        gv x = gv_mul(GV(sigmoid)(gv_load(i + j)), gv_load(c + j));
        if (!fresh) {
            gv log_a = gv_mul(gv_load(log_decay + j), GV(sigmoid)(gv_load(r + j)));
            gv root = gv_sqrt(GV(neg)(GV(expm1)(gv_mul(log_a, gv_set(2)))));
            x = gv_fma(GV(exp)(log_a), gv_load(h + j), gv_mul(root, x));
        }
        gv_store(h + j, x);
        gv_store(y + j, gv_mul(gv_load(y + j), x));
    }
}

/* ---- states that are matrices --------------------------------------------------------------- */

/* HGRN2's gates: q = silu(zq) scale, f = lower + range sigmoid(zf), k = range sigmoid(-zf). Both
 * sigmoids are of one e = e^-|zf|: 1 / (1 + e) and e / (1 + e). */
GV_KERNEL void GV(gates)(float *q, float *f, float *k, const float *lower, const float *range,
                         float scale, int64_t n) {
    for (int64_t j = 0; j < n; j += 16) {
        gv zq = gv_load(q + j), zf = gv_load(f + j), share = gv_load(range + j), zero = gv_set(0);
        gv e = GV(exp)(gv_less(zf, zero, zf, GV(neg)(zf)));
        gv greater = gv_div(gv_set(1), gv_add(gv_set(1), e)), lesser = gv_mul(e, greater);
        gv_store(q + j, gv_mul(gv_mul(zq, GV(sigmoid)(zq)), gv_set(scale)));
        gv_store(f + j, gv_fma(share, gv_less(zf, zero, lesser, greater), gv_load(lower + j)));
        gv_store(k + j, gv_mul(share, gv_less(zf, zero, greater, lesser)));
    }
}

/* For each row, with d ascending: S[d][e] = f[d] S[d][e] + k[d] v[e] and o[e] += q[d] S[d][e]. S
 * goes by once for `rows` rows, a constant at every call, whose o is in registers. Two rows hide
 * the latency of their sums. More rows, or blocks of S in registers for all rows, were not faster:
 * q, k and f of rows that are a power of two apart meet in the same lines of the first cache. */
#define GV_OUTER_ROWS (GV_FLOAT_ROWS > 1 ? 2 : 1)

GV_INLINE void GV(outer_rows)(const int rows, const grf_outer *a, int row) {
    const float *q = a->q + row * a->q_stride, *k = a->k + row * a->k_stride;
    const float *f = a->f + row * a->f_stride, *v = a->v + row * GRF_TILE;
    float *s = a->state, *o = a->o + row * GRF_TILE;
    gv low[GV_OUTER_ROWS], high[GV_OUTER_ROWS];             /* of o: columns 0 to 15, 16 to 31 */
    GRF_UNROLL for (int m = 0; m < rows; m++) low[m] = high[m] = gv_set(0);
    for (int d = 0; d < a->keys; d++, s += GRF_TILE) {
        gv s0 = gv_load(s), s1 = gv_load(s + 16);
        GRF_UNROLL for (int m = 0; m < rows; m++) {
            gv qm = gv_set(q[m * a->q_stride + d]), km = gv_set(k[m * a->k_stride + d]);
            gv fm = gv_set(f[m * a->f_stride + d]);
            s0 = gv_fma(fm, s0, gv_mul(km, gv_load(v + m * GRF_TILE)));
            s1 = gv_fma(fm, s1, gv_mul(km, gv_load(v + m * GRF_TILE + 16)));
            low[m] = gv_fma(qm, s0, low[m]);
            high[m] = gv_fma(qm, s1, high[m]);
        }
        gv_store(s, s0);
        gv_store(s + 16, s1);
    }
    GRF_UNROLL for (int m = 0; m < rows; m++) {
        gv_store(o + m * GRF_TILE, low[m]);
        gv_store(o + m * GRF_TILE + 16, high[m]);
    }
}

GV_KERNEL void GV(outer)(const grf_outer *a) {
    int row = 0;
    for (; row + GV_OUTER_ROWS <= a->rows; row += GV_OUTER_ROWS)
        GV(outer_rows)(GV_OUTER_ROWS, a, row);
    for (; row < a->rows; row++) GV(outer_rows)(1, a, row);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* cos and sin of 2 pi position turns[j] / 2^64. The product wraps at 2^64, a full turn, so the
 * fraction of a turn is exact at every position. It is split into the nearest quarter of a turn and
 * an angle |x| <= pi/4, of which Taylor series give sine s and cosine c. */
GV_KERNEL void GV(rope_angles)(float *cosine, float *sine, const uint64_t *turns, int64_t position,
                               int n) {
    for (int j = 0; j < n; j++) {
        uint64_t phase = (uint64_t)position * turns[j];
        uint64_t quarter = (phase + ((uint64_t)1 << 61)) >> 62;
        uint64_t rest = phase - (quarter << 62);
        double part = rest >> 63 ? -(double)(~rest + 1) : (double)rest;
        float x = (float)(part * (6.283185307179586477 / 18446744073709551616.0)), x2 = x * x;
        float s = GV_FMAF(x2, 1.0f / 362880, -1.0f / 5040);
        float c = GV_FMAF(x2, -1.0f / 3628800, 1.0f / 40320);
        s = GV_FMAF(x2, s, 1.0f / 120);
        s = GV_FMAF(x2, s, -1.0f / 6);
        s = GV_FMAF(x2 * x, s, x);
        c = GV_FMAF(x2, c, -1.0f / 720);
        c = GV_FMAF(x2, c, 1.0f / 24);
        c = GV_FMAF(x2, c, -0.5f);
        c = GV_FMAF(x2, c, 1);
        cosine[j] = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
        sine[j]   = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
    }
}

/* Element j < half of a head and element j + half are a point in the plane; angle j rotates it.
 * Elements from 2 half on are not rotated. All elements are multiplied by scale. */
GV_KERNEL void GV(rope_head)(float *to, const float *from, const float *cosine, const float *sine,
                             float scale, int half, int head_dim) {
    for (int j = 0; j < half; j++) {
        float a = from[j], b = from[j + half];
        to[j]        = GV_FMAF(a, cosine[j], -(b * sine[j])) * scale;
        to[j + half] = GV_FMAF(b, cosine[j],   a * sine[j])  * scale;
    }
    for (int j = 2 * half; j < head_dim; j++) to[j] = from[j] * scale;
}

#if !GV_SUM4
GV_INLINE void GV(sum4)(float *to, gv a, gv b, gv c, gv d) {
    to[0] = gv_sum(a); to[1] = gv_sum(b); to[2] = gv_sum(c); to[3] = gv_sum(d);
}
#endif

/* Attention of some queries that share their keys (rows of one text, heads of one group):
 *
 *     score[j] = q k[j]      p[j] = e^(score[j] - largest)      out = sum_j p[j] v[j] / sum_j p[j]
 *
 * A key is loaded once for several queries, and so is a value: both loops take groups of queries,
 * of constant size, as the linear layers take groups of rows. The sum over j ascends for each
 * query, so its bits do not depend on which queries share the call.
 *
 * A query sees only the keys [first, end) of those at hand; later rows see later keys. The keys
 * that all queries see are added for all of them together, the keys before and after those for
 * each query alone. */

/* score[at + 0 .. 3] = q k for four keys, `stride` apart, and n queries */
GV_INLINE void GV(attend_four)(const int n, const int type, const grf_query *query, int64_t at,
                               const uint8_t *k, int64_t stride, int64_t head_stride) {
    const int size = GRF_BYTES_OF_16(type);
    gv s[GV_QUERIES][4];
    GRF_UNROLL for (int i = 0; i < n; i++) s[i][0] = s[i][1] = s[i][2] = s[i][3] = gv_set(0);
    for (int64_t d = 0; d < head_stride; d += 16, k += size) {
        gv k0 = GV(load_as)(type, k), k1 = GV(load_as)(type, k + stride);
        gv k2 = GV(load_as)(type, k + 2 * stride), k3 = GV(load_as)(type, k + 3 * stride);
        GRF_UNROLL for (int i = 0; i < n; i++) {
            gv x = gv_load(query[i].q + d);
            s[i][0] = gv_fma(x, k0, s[i][0]);
            s[i][1] = gv_fma(x, k1, s[i][1]);
            s[i][2] = gv_fma(x, k2, s[i][2]);
            s[i][3] = gv_fma(x, k3, s[i][3]);
        }
        GRF_UNROLL for (int i = 0; i < 4; i++) GRF_FETCH(k + (GRF_ROWS_AHEAD + i) * stride);
    }
    GRF_UNROLL for (int i = 0; i < n; i++)
        GV(sum4)(query[i].score + at, s[i][0], s[i][1], s[i][2], s[i][3]);
}

/* The scores of all keys, for all queries: four keys at a time. The last one to three keys of a run
 * go one at a time, with a stride of 0, which gives the score of the same key four times. The next
 * keys overwrite the three scores too many. Behind the last key there is room for them. */
GV_INLINE void GV(attend_scores)(const int type, const grf_attention *a) {
    int64_t at = 0;
    for (int run = 0; run < 3; run++) {
        const uint8_t *k = a->run[run].k;
        for (int64_t left = a->run[run].count, keys; left > 0; left -= keys) {
            keys = left >= 4 ? 4 : 1;
            for (int i = 0, m; i < a->queries; i += m) {
                m = grf_next_queries(a->queries - i, GV_QUERIES);
                GRF_CALL_QUERIES(m, GV_QUERIES, GV(attend_four), type, a->query + i, at, k,
                                 left >= 4 ? a->stride : 0, a->head_stride)
            }
            at += keys;
            k += keys * a->stride;
        }
    }
}

/* score = e^(score - largest); returns 1 / their sum: partial sum i takes the keys i mod 16. */
GV_INLINE float GV(attend_softmax)(float *score, int64_t keys) {
    gv top = gv_set(-INFINITY), sum = gv_set(0);
    for (int64_t j = keys; j & 15; j++) score[j] = -INFINITY;
    for (int64_t j = 0; j < keys; j += 16) top = gv_max(gv_load(score + j), top);
    top = gv_set(gv_largest(top));
    for (int64_t j = 0; j < keys; j += 16) {
        gv e = GV(exp)(gv_sub(gv_load(score + j), top));
        gv_store(score + j, e);
        sum = gv_add(sum, e);
    }
    return 1 / gv_sum(sum);
}

/* sum[d] += score[at + j] v[j][d] for n queries and `vectors` vectors of dimensions from d on, keys
 * ascending. */
GV_INLINE void GV(attend_vectors)(const int n, const int type, const int vectors,
                                  const grf_query *query, int64_t d, int64_t at, const uint8_t *v,
                                  int64_t stride, int64_t keys) {
    const int size = GRF_BYTES_OF_16(type);
    gv s[GV_QUERIES][GV_VALUE_VECTORS];
    GRF_UNROLL for (int i = 0; i < n; i++)
        GRF_UNROLL for (int c = 0; c < vectors; c++) s[i][c] = gv_load(query[i].sum + d + 16 * c);
    v += d / 16 * size;
    for (int64_t j = at; j < at + keys; j++, v += stride)
        GRF_UNROLL for (int c = 0; c < vectors; c++) {
            gv value = GV(load_as)(type, v + size * c);
            GRF_FETCH(v + size * c + GRF_ROWS_AHEAD * stride);
            GRF_UNROLL for (int i = 0; i < n; i++)
                s[i][c] = gv_fma(gv_set(query[i].score[j]), value, s[i][c]);
        }
    GRF_UNROLL for (int i = 0; i < n; i++)
        GRF_UNROLL for (int c = 0; c < vectors; c++) gv_store(query[i].sum + d + 16 * c, s[i][c]);
}

/* The same for all dimensions. One or two queries leave registers for twice as many vectors. */
GV_INLINE void GV(attend_values)(const int n, const int type, const grf_query *query, int64_t at,
                                 const uint8_t *v, int64_t stride, int64_t keys,
                                 int64_t head_stride) {
    const int vectors = n <= 2 ? GV_VALUE_VECTORS : GV_VALUE_VECTORS / 2;
    int64_t d = 0;
    for (; d + 16 * vectors <= head_stride; d += 16 * vectors)
        GV(attend_vectors)(n, type, vectors, query, d, at, v, stride, keys);
    for (; d < head_stride; d += 16) GV(attend_vectors)(n, type, 1, query, d, at, v, stride, keys);
}

/* Adds the keys [from, to) of those at hand to the sums of n queries: a few values at a time, which
 * stay in the first cache until all queries have used them. */
GV_KERNEL void GV(attend_range)(const grf_attention *a, const grf_query *query, int n,
                                int64_t from, int64_t to) {
    int64_t start = 0, keys;                /* start: of the part, among the keys at hand */
    for (int run = 0; run < 3; start += a->run[run].count, run++) {
        int64_t end = grf_min64(to, start + a->run[run].count);
        for (int64_t j = grf_max64(from, start); j < end; j += keys) {
            const uint8_t *v = a->run[run].v + (j - start) * a->stride;
            keys = grf_min64(GRF_ROWS_AHEAD, end - j);
            for (int i = 0, m; i < n; i += m) {
                m = grf_next_queries(n - i, GV_QUERIES);
                if (a->type == GRF_F32)
                    GRF_CALL_QUERIES(m, GV_QUERIES, GV(attend_values), GRF_F32, query + i, j, v,
                                     a->stride, keys, a->head_stride)
                else
                    GRF_CALL_QUERIES(m, GV_QUERIES, GV(attend_values), GRF_BF16, query + i, j, v,
                                     a->stride, keys, a->head_stride)
            }
        }
    }
}

GV_KERNEL void GV(attend)(grf_attention *a) {
    grf_query *q, *last = a->query + a->queries;
    int64_t from = 0, to = INT64_MAX;       /* keys [from, to) are seen by all queries */
    if (a->type == GRF_F32) GV(attend_scores)(GRF_F32, a);
    else                    GV(attend_scores)(GRF_BF16, a);
    for (q = a->query; q < last; q++) {
        q->inverse = GV(attend_softmax)(q->score + q->first, q->end - q->first);
        q->sum = q->q;                      /* the scores are done: q is not read again */
        memset(q->sum, 0, (size_t)a->head_stride * 4);
        from = grf_max64(from, q->first);
        to = grf_min64(to, q->end);
    }
    to = grf_max64(from, to);
    for (q = a->query; q < last; q++)
        GV(attend_range)(a, q, 1, q->first, grf_min64(from, q->end));
    GV(attend_range)(a, a->query, a->queries, from, to);
    for (q = a->query; q < last; q++) {
        GV(attend_range)(a, q, 1, grf_max64(to, q->first), q->end);
        for (int64_t d = 0; d < a->head_stride; d += 16)
            gv_store(q->sum + d, gv_mul(gv_load(q->sum + d), gv_set(q->inverse)));
        memcpy(q->out, q->sum, (size_t)a->head_dim * 4);
    }
}

#endif /* GRF_BYTES_ONLY */

/* ---- linear, quantised weights ----------------------------------------------------------------
 *
 *     out[m][r] = sum_g dx[m][g] (sum_b dw[r][b] (sum_k w[r][k] q[m][k]))
 *
 * over groups g of 256 columns, blocks b of 32 columns in a group, columns k of a block. The
 * innermost sum is exact, in integers. The others are chains of fused multiply-adds, one for each
 * output, in ascending order.
 *
 * Each of the 16 lanes of a vector is an output row; low and high are the two halves of a tile. A
 * step multiplies 4 columns: gi_dot4 adds 4 products in each lane. A block has 8 steps. In q8_0
 * each step has 4 bytes a row. In q4_0 the low and the high nibbles of 4 bytes a row are two steps.
 * In q6_0 four steps share 4 bytes of upper bits a row, with the nibbles of the 8 that follow.
 * Weights have an offset; the integer sum starts at what cancels it (grf_q8). */

#define GV_IN_PAIRS (GV_PAIRS && type == GRF_Q4_0)      /* see GV_PAIRS: sums of a block in int16 */
#if !GV_PAIRS
GV_INLINE gi GV(add_pairs)(gi pairs, gi w, gi x) { (void)w; (void)x; return pairs; }
GV_INLINE gi GV(sum_pairs)(gi pairs) { return pairs; }
#endif

GV_INLINE gi GV(int_start)(const int type, const grf_q8 *x, int block) {
    return gi_set(grf_int_start(type, GV_BYTE_ZERO, x, block));
}

/* sum[m] += w q[m] for 4 columns and 16 output rows */
GV_INLINE void GV(int_add)(const int rows, const int type, gi *sum, gi w, const int8_t *q) {
    GRF_UNROLL for (int m = 0; m < rows; m++) {
        int32_t four;
        memcpy(&four, q + m * (int64_t)sizeof(grf_q8), 4);
        sum[m] = GV_IN_PAIRS ? GV(add_pairs)(sum[m], w, gi_set(four))
                             : gi_dot4(sum[m], w, gi_set(four));
    }
}

/* Part 0 or 1 of the bytes at `at` in q4_0: the low or the high nibbles. In q6_0 the bytes of parts
 * 0 and 1, and then of 2 and 3, follow the upper bits of all four. */
GV_INLINE gi GV(int_weights)(const int type, const uint8_t *at, const int part) {
    switch (type) {
    case GRF_Q4_0: return gi_nibble(gi_load(at), part);
    case GRF_Q6_0: return gi_six(gi_load(at), gi_load(at - (part < 2 ? 128 : 256)), part);
    default:       return gi_byte(gi_load(at));
    }
}

/* Into the first or the second cache, or not at all. */
GV_INLINE void GV(fetch_line)(const int cache, const uint8_t *at) {
    if (cache == 1) GRF_FETCH(at);
    if (cache == 2) GRF_FETCH_L2(at);
}

/* A step for both halves of the tile: a part of the weights of 4 columns at `at`. The loads stay in
 * the order of memory: if the compiler moves them, cache lines are not read one after the other,
 * and the bandwidth falls by a fifth (measured, gcc 12). */
GV_INLINE void GV(int_step)(const int rows, const int type, gi *low, gi *high, const uint8_t *at,
                            const int part, const int8_t *q, const int cache,
                            const uint8_t *ahead) {
    gi w = GV(int_weights)(type, at, part);
    GRF_IN_ORDER;
    GV(fetch_line)(cache, ahead);           /* most of a step of 72, 104 or 136 bytes */
    if (type != GRF_Q4_0) GV(fetch_line)(cache, ahead + 64);
    GV(int_add)(rows, type, low, w, q);
    GV(int_add)(rows, type, high, GV(int_weights)(type, at + 64, part), q);
}

/* Turn j: the step of one line of 32 rows x 4 bytes in q8_0, else the two steps of its nibbles. In
 * q6_0 it is the first or the second line behind the upper bits. */
GV_INLINE void GV(int_turn)(const int rows, const int type, gi *low, gi *high, const uint8_t *w,
                            const int j, const int8_t *q, const int cache, grf_ahead ahead) {
    const int parts = type == GRF_Q8_0 ? 1 : 2, part = type == GRF_Q6_0 ? j % 2 * 2 : 0;
    const uint8_t *at = w + 64 + 128 * j + (type == GRF_Q6_0 ? 128 + j / 2 * 128 : 0);
    const uint8_t *line = ahead.at + parts * j * ahead.step;
    GV(int_step)(rows, type, low, high, at, part, q + 4 * j, cache, line);
    if (parts == 2)
        GV(int_step)(rows, type, low, high, at, part + 1, q + 4 * j + 16, cache,
                     line + ahead.step);
}

/* The first line goes to the first cache: it is all that one of many passes fetches. */
GV_INLINE void GV(fetch_bytes)(const uint8_t *at, int bytes) {
    const uint8_t *end = at + bytes;
    GRF_FETCH(at);
    do GV(fetch_line)(GV_FETCH_L2 ? 2 : 1, at); while ((at += 64) < end);
}

/* One group of columns: out += dx (...), continuing the sums in out. Returns what follows in w. */
GV_INLINE const uint8_t *GV(int_group)(const int rows, const int type, const int first,
                                       float *out, const uint8_t *w, const grf_q8 *x, int blocks,
                                       grf_ahead ahead) {
    const int turns = type == GRF_Q8_0 ? 8 : 4;
    const int after = GV_FETCH_L2 && rows == GV_INT_ROWS && !first;
    const int cache = first ? 1 : rows == 1 && type == GRF_Q4_0 ? 0 : 2, inside = after ? 0 : cache;
    gv low[GV_INT_ROWS], high[GV_INT_ROWS];
    GRF_UNROLL for (int m = 0; m < rows; m++) low[m] = high[m] = gv_set(0);
    for (int b = 0; b < blocks; b++) {
        gi ilow[GV_INT_ROWS], ihigh[GV_INT_ROWS];
        GRF_UNROLL for (int m = 0; m < rows; m++)
            ilow[m] = ihigh[m] = GV_IN_PAIRS ? gi_set(0) : GV(int_start)(type, x + m, b);
        if (type == GRF_Q6_0) {
            GRF_UNROLL for (int j = 0; j < 4; j++)      /* j decides how far bits are shifted */
                GV(int_turn)(rows, type, ilow, ihigh, w, j, x->q + 32 * b, inside, ahead);
        } else {
            GV_UNROLL_BLOCK for (int j = 0; j < turns; j++)
                GV(int_turn)(rows, type, ilow, ihigh, w, j, x->q + 32 * b, inside, ahead);
        }
        if (after) GV(fetch_bytes)(ahead.at, 8 * ahead.step);
        gv dl = gv_f16(w), dh = gv_f16(w + 32);
        w += grf_tilings[type].bytes;
        ahead.at += 8 * ahead.step;
        GV(fetch_line)(cache, ahead.at - 1);
        GRF_UNROLL for (int m = 0; m < rows; m++) {
            if (GV_IN_PAIRS) {
                ilow[m]  = gi_add(GV(int_start)(type, x + m, b), GV(sum_pairs)(ilow[m]));
                ihigh[m] = gi_add(GV(int_start)(type, x + m, b), GV(sum_pairs)(ihigh[m]));
            }
            low[m]  = gv_fma(dl, gv_from_int(ilow[m]),  low[m]);
            high[m] = gv_fma(dh, gv_from_int(ihigh[m]), high[m]);
        }
    }
    GRF_UNROLL for (int m = 0; m < rows; m++) {
        gv dx = gv_set(x[m].scale);
        float *sum = out + m * GRF_TILE;
        gv_store(sum,      gv_fma(dx, low[m],  gv_load(sum)));
        gv_store(sum + 16, gv_fma(dx, high[m], gv_load(sum + 16)));
    }
    return w;
}

GV_INLINE void GV(int_rows)(const int rows, const int type, const int first, float *out,
                            const uint8_t *w, const grf_q8 *x, int64_t stride, int64_t blocks,
                            grf_ahead ahead) {
    const int most = GRF_GROUP / 32;
    for (; blocks > 0; blocks -= most, x += stride, ahead.at += 8 * most * ahead.step)
        w = GV(int_group)(rows, type, first, out, w, x, blocks < most ? (int)blocks : most, ahead);
}

/* All rows of x, in groups. */
GV_INLINE void GV(int_part)(const int type, const grf_fetch *fetch, float *out, const uint8_t *w,
                            const grf_q8 *x, int64_t stride, int64_t blocks, int rows, int passes) {
    const int bytes = grf_tilings[type].bytes, column = passes > 1 ? 5 : rows == 6 ? 4 : rows - 1;
    const int distance = fetch->distance[type - GRF_Q8_0][column];
    const int first = !GV_FETCH_L2
                   || (distance > 0
                       && (rows < GV_INT_ROWS || GV_FIRST_ROWS(type) == GV_ROWS(type)));
    grf_ahead ahead = grf_look_ahead(w, blocks * bytes, distance < 0 ? -distance : distance,
                                     bytes / 8, passes);
    if (distance == 0) { ahead.at = (const uint8_t *)x; ahead.step = 0; }
    for (int m; rows > 0; rows -= m, x += m, out += m * GRF_TILE) {
#ifdef GV_MATRIX_ROWS
        if (rows >= GV_MATRIX_ROWS) {
            m = GV(int_matrix)(type, out, w, x, stride, blocks, rows, ahead);
            ahead.at += blocks * 8 * ahead.step;
            continue;
        }
#endif
        m = grf_next_rows(rows, GV_ROWS(type));
        if (first)
            GRF_CALL_ROWS(m, GV_FIRST_ROWS(type), GV(int_rows), type, 1, out, w, x, stride, blocks,
                          ahead)
        else
            GRF_CALL_ROWS(m, GV_ROWS(type), GV(int_rows), type, 0, out, w, x, stride, blocks, ahead)
        ahead.at += blocks * 8 * ahead.step;
    }
}

/* Columns at a time as in float_tile: all of them, or a group. */
GV_KERNEL void GV(int_tile)(float *out, const grf_linear *l, const uint8_t *w, const grf_q8 *x,
                            int64_t stride, int rows) {
    const grf_fetch *fetch = l->fetch;
    int passes = grf_passes(rows, GV_ROWS(l->type));
    int64_t blocks = l->cols / 32, step = passes == 1 ? blocks : GRF_GROUP / 32;
    memset(out, 0, (size_t)rows * GRF_TILE * 4);
    for (; blocks > 0; blocks -= step, x += stride) {
        int64_t n = grf_min64(step, blocks);
        switch (l->type) {
        case GRF_Q8_0: GV(int_part)(GRF_Q8_0, fetch, out, w, x, stride, n, rows, passes); break;
        case GRF_Q4_0: GV(int_part)(GRF_Q4_0, fetch, out, w, x, stride, n, rows, passes); break;
        default:       GV(int_part)(GRF_Q6_0, fetch, out, w, x, stride, n, rows, passes); break;
        }
        w += n * grf_tilings[l->type].bytes;
    }
}

/* ---- what differs from set to set ends here -------------------------------------------------- */

#undef GRF_ISA
#undef GRF_ISA_BASE
#undef GRF_BYTES_ONLY
#undef GV_TARGET
#undef GV_INLINE
#undef GV_FLOAT_ROWS
#undef GV_INT_ROWS
#undef GV_QUERIES
#undef GV_VALUE_VECTORS
#undef GV_BYTE_ZERO
#undef GV_PAIRS
#undef GV_IN_PAIRS
#undef GV_SUM4
#undef GV_UNROLL_BLOCK
#undef GV_FETCH_L2
#undef GV_FMAF
#undef GV_MATRIX_ROWS
#undef GV_OUTER_ROWS

#endif /* GRF_ISA */

/* ================================================================= licence
 * This file is available under two licences; choose whichever you prefer.
 *
 * ALTERNATIVE A - MIT Licence. Copyright (c) 2026 the griffin.h authors
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
 * associated documentation files (the "Software"), to deal in the Software without restriction,
 * including without limitation the rights to use, copy, modify, merge, publish, distribute,
 * sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 * The above copyright notice and this permission notice shall be included in all copies or
 * substantial portions of the Software.
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
 * NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
 * NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
 * DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 *
 * ALTERNATIVE B - Public Domain (www.unlicense.org)
 * This is free and unencumbered software released into the public domain. Anyone is free to copy,
 * modify, publish, use, compile, sell, or distribute this software, either in source code form or
 * as a compiled binary, for any purpose, commercial or non-commercial, and by any means. In
 * jurisdictions that recognize copyright laws, the author or authors of this software dedicate any
 * and all copyright interest in the software to the public domain. */
