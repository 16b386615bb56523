/* griffin.h - v0.1.0 - run Griffin, Hawk and RecurrentGemma language models, from one header
 *
 * Recurrent language models whose memory of a text, however long, has a fixed size: exactly the
 * reference's numbers, the same bits on every machine, and a guest in your program. C99 or C++11,
 * libc and libm, nothing else. In one source file write
 *
 *     #define GRIFFIN_IMPLEMENTATION
 *     #include "griffin.h"
 *
 * and in all others just the second line. MIT or public domain, see the end.
 *
 *     CONTENTS             manual: QUICK START, OBJECTS, SEQUENCES, THREADS, CONTROL, PROMISES,
 *                          NUMBERS, FILES, ERRORS, BUILD OPTIONS, LIMITS
 *     >>api                declarations
 *     >>platform >>basics >>numbers      compilers, errors, memory, bytes, our own exp and log
 *   ONE, the network
 *     >>shapes >>network                 what it computes, as in the paper
 *     >>context >>operations >>steps     running it
 *     >>state >>sampler                  its memory of a text; choosing tokens
 *   TWO, files and text
 *     >>formats >>gguf >>config          what is in a file
 *     >>vocabulary >>text                text to tokens and back
 *     >>model                            opening
 *     >>grammar                          what may be written
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
 *     for (i = 0; i < 100; i++) {
 *         token = griffin_sample(m, &sampler, logits);
 *         griffin_decode(m, &decoder, token, text, sizeof text); fputs(text, stdout);
 *         griffin_step(c, s, token, logits);
 *     }
 *
 *
 * OBJECTS
 *
 *     object              memory                      written by           threads
 *     griffin_model       allocator, mapped file      nobody after open    share freely
 *     griffin_grammar     allocator                   nobody after open    share freely
 *     griffin_state       yours, griffin_state_size   steps that name it   one call at a time
 *     griffin_context     yours, griffin_context_size every call with it   one call at a time
 *     griffin_sampler,    yours, plain structs        their functions      one call at a time
 *     ..._decoder, ..._stop,
 *     ..._grammar_state
 *
 * A model is the weights. A state is one text so far: for RecurrentGemma 2B 33 MiB, or 17 with keys
 * and values in bf16, whether the text has ten tokens or ten million. A context is scratch memory
 * that remembers no text, so any context of a model continues any of its states. A crowd is one
 * model, a context for each thread that calls, and as many states as there are minds.
 *
 *
 * SEQUENCES
 *
 * A state is bytes: all zero is a fresh one, memcpy is save, restore and fork, at any moment,
 * because it is only written when a call is complete. griffin_save and griffin_load are for disks
 * and networks: portable, checksummed, tied to the model, and with the sampler and the decoder in
 * them, so that a resumed run says what it would have said.
 *
 * To take back a few tokens, a copy of the state is not needed: griffin_mark keeps what a later
 * token overwrites, 0.7 MB for RecurrentGemma 2B, and griffin_rewind brings the state back from up
 * to griffin_options.rewind tokens beyond, to the bit. Marks also fit the forks of a state.
 *
 * griffin_step takes a token, griffin_prefill many at once, and griffin_run any mixture for any
 * number of states, reading each weight once for all of them. Logits cost the largest matrix of
 * the model, so they are only computed where a pointer asks for them.
 *
 * To spend a frame budget, put the tokens in flight with griffin_begin and call
 * griffin_advance(context, 1) while there is time; a unit costs about as much as reading half a
 * megabyte of weights. Until it returns 0 no state has changed, so dropping the job is free.
 *
 *
 * THREADS
 *
 * The library makes none. Built with OpenMP it uses OpenMP's; with griffin_jobs it calls your job
 * system; else it stays on the caller's thread. Work is cut into pieces of about half a megabyte
 * of weights; what is smaller than that, and with OpenMP a call of fewer than 16 such pieces, never
 * leaves the calling thread.
 *
 *
 * CONTROL
 *
 * Who writes the text has the last word on every token. griffin_sampler takes biases, of which
 * -INFINITY is a ban, and a mask, your function that changes the logits before a token is drawn. A
 * griffin_grammar is a mask that lets only texts of a formal language pass:
 *
 *     griffin_grammar_open(&g, m, "root ::= \"yes\" | \"no\"", 21, NULL);
 *     griffin_grammar_state at;  memset(&at, 0, sizeof at);                zero is the beginning
 *     ...
 *         griffin_grammar_mask(g, &at, logits);
 *         token = griffin_sample(m, &sampler, logits);
 *         if (token == griffin_get_info(m)->eos) break;        allowed where a text is complete
 *         griffin_grammar_accept(g, &at, token);
 *         griffin_step(c, s, token, logits);
 *
 * The state of a grammar is bytes, too: copy both states, and both rewind. A mask for JSON costs
 * about 0.15 ms in a vocabulary of 256000 tokens, whose models take 50 ms and more for a step, and
 * 0.003 ms in one of 2000. griffin_stop looks for texts to stop at in what was decoded, and never
 * shows the start of one. Where everything is forbidden, the error is GRIFFIN_E_NO_TOKEN.
 *
 *
 * PROMISES, each with its file in tests/
 *
 * Exact. The results are those of the reference implementation (google-deepmind/recurrentgemma in
 *     float32) at any length, past the window and across chunk borders, within 1e-5 of the size of
 *     the logits. A token sees itself and W earlier ones, as there; most ports see one less,
 *     which griffin_options.attn_keys = W reproduces.
 * Same bits. Logits and states do not depend on the number of threads, on how tokens are cut into
 *     calls, on who shares a call, or on the instruction set: NUMBERS says why.
 * A guest. No globals, no threads, no clock, no locale, no environment, no exit. Nothing is
 *     allocated after opening, except by griffin_encode if you give it no scratch.
 * Safe. Files are hostile until proved otherwise: every offset, size and name is checked when a
 *     model or a saved state is opened, and whatever fails leaves nothing behind.
 *
 *
 * NUMBERS
 *
 * The value of a linear layer is defined by the plainest program there is,
 *
 *     acc = 0;  for k = 0 .. K-1:  acc = fma(w[r][k], x[k], acc);   y[r] = acc + b[r]
 *
 * with 16-bit weights widened first; and for q8_0 and q4_0 weights, in blocks j of 32, whose inputs
 * are rounded to int8 in groups of 256 with a scale dx of their own,
 *
 *     acc = 0;  for each group:  part = 0;  for each j in it:
 *                                    part = fma(dw[r][j], (float)isum, part);
 *                                acc = fma(dx, part, acc);
 *     y[r] = acc + b[r]
 *
 * where isum is an exact integer. Each vector lane owns an output row, so nobody needs another
 * order. Sums over one vector (norm, attention scores, softmax) use 16 partial sums, element i in
 * sum i mod 16, and a fixed tree. exp, tanh, sigmoid, sin and cos are ours, at most 2 ulp off; the
 * angle of a rotary embedding is a fraction of a turn in 64-bit integers, so that distances between
 * tokens are as exact after 10^12 of them as at the start. All of it assumes IEEE floats, rounding
 * to nearest, without flush-to-zero; -ffast-math is refused.
 *
 * How many int8 inputs share a scale was measured: on a model of 5 million parameters perplexity is
 * 28.495 with a scale for 32, 28.502 for 256 (28.489 in f32), and the products of a prompt are a
 * sixth faster with 256, since the float work for each block halves. Types of 6 and 4 bits with
 * nested scales were measured too: q4_k has the bytes of q4_0 and 28.66 for its 28.71, q6_k three
 * quarters of the bytes of q8_0 and 28.49. They are read, but have no tiles: q4_k would gain 0.2 %
 * for an eighth more arithmetic.
 *
 *
 * FILES
 *
 * A model is a GGUF file (version 2 or 3) of architecture "griffin" with Hugging Face's tensor
 * names and the vocabulary inside; tools/ has the converter. The bytes are described where they
 * are read: >>formats, >>gguf, >>config, >>vocabulary, and >>state for saved states. Weights of
 * types f32, f16, bf16, q8_0 and q4_0 may be stored in the tiles the kernels read, as the converter
 * does it: they are then used where they are, and opening copies nothing. Row-major ones are packed
 * into tiles when opened; q4_1, q5_0, q5_1, q4_k, q5_k and q6_k are also widened to f32. A file
 * without metadata needs griffin_options.config.
 *
 *
 * ERRORS
 *
 * Functions that can fail return an int: negative is a griffin_error, anything else success. The
 * logger of griffin_options hears a line about each, with file, offset or name, and what was
 * expected; a failed open also writes it to griffin_options.error. Nothing has changed then.
 *
 *
 * BUILD OPTIONS, defined before the implementation
 *
 *     GRIFFIN_STATIC        all functions static: a private copy in one source file
 *     GRIFFIN_PREFIX        put before every function's name, but only for the linker, so that two
 *                           copies can live in one program; say it wherever its copy is included
 *     GRIFFIN_API           what stands before every declaration, say for a DLL
 *     GRIFFIN_NO_STDIO      no griffin_open_file, no file access at all
 *     GRIFFIN_NO_MMAP       files are read rather than mapped
 *     GRIFFIN_NO_GRAMMAR    no grammars, 23 KB of code less
 *     GRIFFIN_NO_STDLIB     no malloc: griffin_options.allocator is then needed; with NO_STDIO what
 *                           is left of libc is mem..., str..., frexp, ldexp and sqrtf
 *     GRIFFIN_SCALAR_ONLY   only the plain C kernels
 *     GRIFFIN_FILE          the quoted name of this file, if you renamed it: it includes itself
 *
 * No -march or -m flag is needed: kernels for AVX2, AVX-VNNI and AVX-512 (with VNNI), or for NEON
 * with and without dot products, are compiled in and chosen when a model is opened. WebAssembly
 * needs -msimd128, since it cannot ask; gcc for 32-bit x86 needs -msse2 -mfpmath=sse, since the 387
 * keeps more bits than a float has. -O2 matters; -fopenmp is welcome.
 *
 *
 * LIMITS
 *
 * Inference only. Vector kernels exist for x86-64, aarch64 and WebAssembly with gcc (for Windows
 * since its version 12) and clang, and for x86-64 with Visual C++ 2022, tested with clang in its
 * place; elsewhere plain C runs, with the same bits and slowly, as do float weights in WebAssembly,
 * which has no fused multiply-add. Files with tiles are for little-endian machines. A context
 * cannot grow. Chat templates are not interpreted: tools/commands/chat.c assembles RecurrentGemma's turns
 * itself.
 */

/* ================================================================= >>api
 * Everything a host can call. Every function may be called from any thread; the
 * table of objects in the manual says what must not be shared between calls. */

#ifndef GRIFFIN_H
#define GRIFFIN_H

#include <stddef.h>
#include <stdint.h>

#define GRIFFIN_VERSION_MAJOR 0
#define GRIFFIN_VERSION_MINOR 1
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
  #define griffin_preset         GRF_PREFIXED(griffin_preset)
  #define griffin_open_file      GRF_PREFIXED(griffin_open_file)
  #define griffin_open_memory    GRF_PREFIXED(griffin_open_memory)
  #define griffin_close          GRF_PREFIXED(griffin_close)
  #define griffin_get_info       GRF_PREFIXED(griffin_get_info)
  #define griffin_get_tensor     GRF_PREFIXED(griffin_get_tensor)
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
  #define griffin_encode         GRF_PREFIXED(griffin_encode)
  #define griffin_encode_size    GRF_PREFIXED(griffin_encode_size)
  #define griffin_decode         GRF_PREFIXED(griffin_decode)
  #define griffin_token_text     GRF_PREFIXED(griffin_token_text)
  #define griffin_token_type     GRF_PREFIXED(griffin_token_type)
  #define griffin_find_token     GRF_PREFIXED(griffin_find_token)
  #define griffin_stop_feed      GRF_PREFIXED(griffin_stop_feed)
  #define griffin_grammar_open   GRF_PREFIXED(griffin_grammar_open)
  #define griffin_grammar_close  GRF_PREFIXED(griffin_grammar_close)
  #define griffin_grammar_size   GRF_PREFIXED(griffin_grammar_size)
  #define griffin_grammar_mask   GRF_PREFIXED(griffin_grammar_mask)
  #define griffin_grammar_accept GRF_PREFIXED(griffin_grammar_accept)
  #define griffin_save           GRF_PREFIXED(griffin_save)
  #define griffin_load           GRF_PREFIXED(griffin_load)
  #define griffin_tile_size      GRF_PREFIXED(griffin_tile_size)
  #define griffin_tile_pack      GRF_PREFIXED(griffin_tile_pack)
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

/* Told one line of text about every error, and (with GRIFFIN_OK) about things
 * worth knowing, such as an ignored tensor. May be called from any thread that
 * calls the library. Default: silence. */
typedef struct griffin_logger {
    void (*message)(int error, const char *text, void *user);
    void *user;
} griffin_logger;

/* Your job system. `run` calls job(data, 0) ... job(data, count - 1), in any
 * order and on any threads, and returns when all of them have returned.
 * Default: OpenMP if the implementation was built with it, else this thread.
 * Results do not depend on `width`, on the order, or on the threads. */
typedef struct griffin_jobs {
    void (*run)(void (*job)(void *data, int index), void *data, int count, void *user);
    void *user;
    int   width;                            /* threads worth feeding; 0: let the default decide */
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
    GRIFFIN_CPU_WASM                        /* SIMD128 */
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

/* The sizes of a network. Letters are those of the manual's network section. */
typedef struct griffin_config {
    int   vocab;                            /* V, rows of the embedding */
    int   width;                            /* D, of the residual stream */
    int   mlp_width;                        /* F, of one of the two MLP branches */
    int   layers;                           /* N */
    int   heads, kv_heads, head_dim;        /* H, G, D / H; H % G == 0 */
    int   lru_width;                        /* E, of the recurrence */
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
    char  blocks[GRIFFIN_MAX_LAYERS + 1];   /* per layer 'r' recurrent or 'a' attention; NUL ends */
} griffin_config;

/* Fills in a published shape: "recurrentgemma-2b" ("2b"), "recurrentgemma-9b" ("9b"), and the
 * paper's "griffin-S", "hawk-S", "mqa-S" with S of 100m 200m 400m 1.3b 3b 7b 14b (vocabulary
 * 32000). mqa is the paper's Transformer baseline: all attention. E_ARGUMENT: no such name. */
GRIFFIN_API int griffin_preset(griffin_config *config, const char *name);

typedef struct griffin_options {
    griffin_allocator allocator;
    griffin_logger    logger;
    griffin_cpu       cpu;
    int               copy_weights;         /* 1: copy tiles out of the file, into huge pages where
                                             * malloc's memory can have them: slower to open, often
                                             * a tenth faster to decode */
    int               attn_keys;            /* keys a token sees, itself included; 0: W + 1, as
                                             * the reference has it; W: as most ports have it */
    griffin_kv_type   kv_type;
    int               rewind;               /* most tokens griffin_rewind can go back; 0: 16. Each
                                             * adds a token's keys and values to every state: 16 KiB
                                             * for RecurrentGemma 2B */
    const griffin_config *config;           /* for files without metadata; else ignored */
    char             *error;                /* null, or receives the message of a failed open */
    size_t            error_size;
} griffin_options;

typedef struct griffin_info {
    griffin_config config;
    const char *name;                       /* as stored in the file, "" if not */
    const char *kernels;                    /* "scalar", "avx2", "avx512" */
    const char *type;                       /* of most weights: "q8_0", "f32", ... */
    int         attn_keys, rewind;          /* in force, */
    griffin_kv_type kv_type;                /* as is this */
    int         has_vocabulary;
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
} griffin_info;

/* Maps the file (or reads it where mapping is missing) and packs the weights.
 * options may be null. On failure *model is null and options->error says why.
 * Windows: the path is fopen's, in the system's code page, which is UTF-8 if the
 * program's manifest says so; else read the file and use griffin_open_memory. */
#ifndef GRIFFIN_NO_STDIO
GRIFFIN_API int griffin_open_file(griffin_model **model, const char *path,
                                  const griffin_options *options);
#endif

/* The same from memory. Borrows the buffer: keep it alive and unchanged until
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
    const char *type;                       /* "f32", "q4_k", ... */
    int      rank;                          /* 1 to 4 */
    uint64_t shape[4];
    uint64_t offset, bytes;                 /* in the file */
} griffin_tensor;

GRIFFIN_API int griffin_get_tensor(const griffin_model *model, int index, griffin_tensor *tensor);

/* ---- state: everything a sequence remembers, as plain bytes --------------
 * A state has a fixed size, holds no pointers, and lives in your memory, as
 * malloc aligns it (64 bytes is a little faster). All-zero bytes are a fresh
 * state. memcpy is save, restore and fork, at any moment: states are written
 * only when a step is complete. */

typedef struct griffin_state griffin_state;

GRIFFIN_API size_t  griffin_state_size(const griffin_model *model);
GRIFFIN_API int64_t griffin_state_position(const griffin_state *state);    /* tokens consumed */

/* A mark is what a state needs to come back from tokens that should not have been: its recurrent
 * part, a small share of it. Plain bytes in your memory, griffin_mark_size of them, for this
 * process. griffin_rewind takes a state that has gone on for at most griffin_options.rewind tokens
 * back to where the mark was made, exactly: whatever follows has the same bits as if the state had
 * never been further. E_MISMATCH, and nothing changed: a mark of another model, of a text that the
 * state did not continue, or of a position that it has not reached, can no longer reach, or has
 * forgotten, as griffin_load forgets all before the saved one. */
GRIFFIN_API size_t griffin_mark_size(const griffin_model *model);
GRIFFIN_API int    griffin_mark  (const griffin_model *model, const griffin_state *state,
                                  void *mark);
GRIFFIN_API int    griffin_rewind(const griffin_model *model, griffin_state *state,
                                  const void *mark);

/* ---- context: scratch memory for one caller at a time --------------------
 * Remembers no sequence: any context of a model can continue any of its states.
 * options may be null. Nothing needs to be undone: free the memory when no call
 * uses the context. */

typedef struct griffin_context griffin_context;

typedef struct griffin_context_options {
    int          rows;                      /* most tokens in one pass; 0: 64 */
    int          states;                    /* most sequences in one pass; 0: 1 */
    griffin_jobs jobs;
} griffin_context_options;

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

/* Many tokens into one state; logits after the last of them, or null. */
GRIFFIN_API int griffin_prefill(griffin_context *context, griffin_state *state,
                                const int32_t *tokens, int count, float *logits);

/* Many spans of any length. Arguments are checked before anything is written;
 * spans must not name the same state twice. */
GRIFFIN_API int griffin_run(griffin_context *context, const griffin_span *spans, int count);

/* The same in slices, for hosts with a frame budget. griffin_begin takes at most
 * as many tokens and spans as the context has rows and states, and copies what it
 * needs of them (not the logits, which are written along the way). griffin_advance
 * runs at most `units` slices. Both return how many units remain: with 0 the states
 * have moved on. To cancel, just begin something else. */
GRIFFIN_API int griffin_begin  (griffin_context *context, const griffin_span *spans, int count);
GRIFFIN_API int griffin_advance(griffin_context *context, int units);

/* What the next unit does, for profiles: "embed", "norm" (and quantise, where integers follow),
 * "quantise", "linear", "gated" (the inner half of an MLP), "conv", "rglru", "rope" or "attend";
 * null when nothing is in flight. */
GRIFFIN_API const char *griffin_unit_name(const griffin_context *context);

/* ---- sampling --------------------------------------------------------------
 * All zero is greedy. The struct is the whole random state: copy it to replay.
 * The same logits and sampler give the same token on every platform. Order: biases,
 * mask, repetition penalty, temperature, top_k, top_p, min_p, draw. */

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
 * Accepts the token itself. Overwrites logits [V]: with a temperature they are left as weights, 1
 * for the likeliest and 0 for what was dropped. */
GRIFFIN_API int32_t griffin_sample(const griffin_model *model, griffin_sampler *sampler,
                                   float *logits);

/* Lets the penalty know of a token that was not sampled, such as those of the prompt. */
GRIFFIN_API void griffin_accept(griffin_sampler *sampler, int32_t token);

/* ---- text ------------------------------------------------------------------
 * All of it fails with E_VOCABULARY if the model came without a tokenizer. */

typedef struct griffin_encoding {           /* zero: a whole prompt, as the model wants it */
    int    no_bos;                          /* leave out the bos that the model asks for */
    int    no_special;                      /* turn markers in the text are plain text */
    int    continues;                       /* follows earlier text: no bos, no space before it */
    void  *scratch;                         /* null: ask the model's allocator */
    size_t scratch_size;                    /* griffin_encode_size says how much is enough */
} griffin_encoding;

/* Returns how many tokens the text makes; writes at most capacity of them, so capacity 0 asks for
 * the size. Text is UTF-8, not necessarily terminated; broken bytes become U+FFFD.
 * encoding may be null. Scratch for any text of `length` bytes: griffin_encode_size, about 55 bytes
 * for each byte in a Gemma-like vocabulary; null scratch allocates what this text needs. */
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
 * length + GRIFFIN_STOP_BYTES is always enough; E_SPACE, and nothing changed, tells if not. */
GRIFFIN_API int griffin_stop_feed(griffin_stop *stop, const char *text, size_t length,
                                  char *out, size_t capacity);

typedef enum griffin_token_kind {
    GRIFFIN_TOKEN_NORMAL = 1, GRIFFIN_TOKEN_UNKNOWN, GRIFFIN_TOKEN_CONTROL,
    GRIFFIN_TOKEN_USER_DEFINED, GRIFFIN_TOKEN_UNUSED, GRIFFIN_TOKEN_BYTE
} griffin_token_kind;

/* The bytes a token stands for (none for control tokens), for grammars and masks: not
 * necessarily whole characters. Returns how many; writes at most capacity, no NUL. */
GRIFFIN_API int griffin_token_text(const griffin_model *model, int32_t token,
                                   char *text, size_t capacity);
/* A griffin_token_kind. */
GRIFFIN_API int griffin_token_type(const griffin_model *model, int32_t token);

/* The token whose piece is exactly this text, as the vocabulary spells it; -1: none. */
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

/* ---- grammar -------------------------------------------------------------------
 * Lets a model write only what a grammar derives from its rule "root". The text of a
 * grammar is GBNF as llama.cpp has it:
 *
 *     root ::= "{" space name ":" [0-9]{1,3} "}"      # literals, classes, repetition
 *     name ::= "\"" ( [^"\\] | "\\" . )* "\""         # groups, alternatives, any character
 *     space ::= " "?                                  # also * + {2} {2,}
 *
 * with \n \r \t \\ \" \[ \] \xNN \uNNNN \UNNNNNNNN in literals and classes. Line ends are white
 * space. A rule must not lead back to itself before it has read something.
 *
 * It is exact for every token, whatever literals or parts of characters its bytes span. Control
 * tokens and turn markers never fit; eos and end_of_turn do where the text may end. */
#ifndef GRIFFIN_NO_GRAMMAR

typedef struct griffin_grammar griffin_grammar;

#define GRIFFIN_GRAMMAR_FRAMES 512          /* rules a text can be inside of, plus alternatives that
                                             * have begun alike */

typedef struct griffin_grammar_frame { uint16_t position, below; } griffin_grammar_frame;

/* How far a text has come: plain bytes, all zero before its first token. Copy it together with
 * the griffin_state. */
typedef struct griffin_grammar_state {
    uint64_t grammar;                       /* a hash of its text; 0: nothing was accepted yet */
    uint16_t frames, places, ended, zero;
    griffin_grammar_frame frame[GRIFFIN_GRAMMAR_FRAMES];
} griffin_grammar_state;

/* Immutable and shared by threads, as the model is, which must stay open as long. Only allocator,
 * logger, error and error_size of the options count; without them, and with options null, the
 * model's allocator and logger do. Keeps about 20 bytes for each token of the vocabulary (5 MB for
 * 256000) and needs as much again while it opens, which takes 0.2 s then, or 1 s with long bounded
 * repetitions. E_FORMAT: the message says in which line and column. */
GRIFFIN_API int griffin_grammar_open(griffin_grammar **grammar, const griffin_model *model,
                                     const char *text, size_t length,
                                     const griffin_options *options);
GRIFFIN_API void griffin_grammar_close(griffin_grammar *grammar);              /* null is fine */
GRIFFIN_API uint64_t griffin_grammar_size(const griffin_grammar *grammar);     /* bytes of memory */

/* Sets the logits [vocab] of all tokens that must not come next to -INFINITY. Returns how many
 * tokens remain, or E_NO_TOKEN if none does (in a vocabulary with a token for each byte that is
 * only after the end), E_SPACE if the grammar leaves thousands of ways open, E_MISMATCH if the
 * state is of another grammar. Uses 36 KB of stack. */
GRIFFIN_API int griffin_grammar_mask(const griffin_grammar *grammar,
                                     const griffin_grammar_state *state, float *logits);

/* Moves the state on by a token. Returns 1 if the text may end there, else 0. E_ARGUMENT: the
 * token cannot follow; E_SPACE: it opens more rules than GRIFFIN_GRAMMAR_FRAMES. The state is then
 * as it was. */
GRIFFIN_API int griffin_grammar_accept(const griffin_grammar *grammar,
                                       griffin_grammar_state *state, int32_t token);

#endif

/* ---- for writers of model files -----------------------------------------------
 * Weights that a file holds in tiles of 32 rows are used in place, without a copy: from a mapped
 * file, or from the buffer given to griffin_open_memory. >>network says how such tensors are named
 * and >>shapes what is in a tile. type is "f32", "f16", "bf16", "q8_0" or "q4_0". */

/* Bytes of a tile of so many columns; E_UNSUPPORTED if the type has no tiles of that length. */
GRIFFIN_API int64_t griffin_tile_size(const char *type, int cols);

/* Packs 1 to 32 rows, each encoded as in a GGUF tensor of that type, into a tile. */
GRIFFIN_API int griffin_tile_pack(const char *type, int cols, const void *rows, int count,
                                  void *tile);

#ifdef __cplusplus
}
#endif
#endif /* GRIFFIN_H */
/* ================================================================= end of header part */

#if defined(GRIFFIN_IMPLEMENTATION) && !defined(GRIFFIN_IMPLEMENTED)
#define GRIFFIN_IMPLEMENTED

/* ================================================================= >>platform
 * What differs between compilers and systems is decided here, once. */

#if defined(__FAST_MATH__) || (defined(_MSC_VER) && defined(_M_FP_FAST))
  #error "griffin.h: build without fast-math, it changes sums (see NUMBERS in the manual)"
#endif

/* Floats kept with more than their 24 bits, as the 387 and gcc's -std=c99 for s390x have it, are
 * rounded where the compiler likes. 16 is gcc's way to say that only _Float16 is widened. */
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

#if defined(_OPENMP) && _OPENMP >= 201307  /* 4.0 has the atomics; /openmp of MSVC has not */
  #define GRF_OPENMP 1
  #include <omp.h>
  #if defined(__unix__) || defined(__APPLE__)
    #define GRF_YIELD 1                     /* waiting threads give way to other programs */
    #include <sched.h>
  #endif
#endif

/* gcc for Windows places vectors of 32 and 64 bytes as if the stack were aligned for them (gcc bug
 * 54412). It only aligns it in functions without unwind tables, which gcc 12 can be asked for. */
#if defined(_WIN32) && defined(__GNUC__) && !defined(__clang__)
  #define GRF_WINDOWS_GCC 1
#endif

/* Functions for other instruction sets than the rest: gcc and clang have to be told, MSVC takes the
 * intrinsics anywhere. clang-cl leaves out of <immintrin.h> what /arch did not ask for. */
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

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  #define GRF_BIG_ENDIAN 1
#else
  #define GRF_BIG_ENDIAN 0
#endif

/* NEON is part of every 64-bit ARM. Its dot products of bytes are an extension: a compiler that is
 * told of it (or assumes it, as Apple's does) needs no choice at run time, on Linux others can
 * choose. WebAssembly chooses nothing at run time: -msimd128. */
#if defined(__aarch64__) && defined(__GNUC__) && !GRF_BIG_ENDIAN && !defined(GRIFFIN_SCALAR_ONLY)
  #define GRF_NEON 1
  #include <arm_neon.h>
  #if defined(__ARM_FEATURE_DOTPROD)
    #define GRF_NEON_DOT 1
  #elif defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 8)
    #define GRF_NEON_DOT 2                  /* ask the kernel */
    #include <sys/auxv.h>
  #endif
#elif defined(__wasm_simd128__) && !defined(GRIFFIN_SCALAR_ONLY)
  #define GRF_WASM 1
  #include <wasm_simd128.h>
#endif

/* Loops over register arrays must unroll, or the arrays live in memory. */
#if defined(__clang__)
  #define GRF_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
  #define GRF_UNROLL _Pragma("GCC unroll 16")
#else
  #define GRF_UNROLL
#endif

/* Asks for a line of memory that is needed soon; any address will do. */
#if defined(__GNUC__)
  #define GRF_FETCH(p) __builtin_prefetch(p)
#elif defined(GRF_X86)
  #define GRF_FETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#else
  #define GRF_FETCH(p) ((void)(p))
#endif

/* Keeps loads before it from moving behind it and the other way round. */
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
  #define GRF_INLINE   static inline __attribute__((always_inline, unused))
  #define GRF_UNUSED   __attribute__((unused))
  #define GRF_RESTRICT __restrict__
#endif

/* ================================================================= >>basics
 * Errors, allocation, checked arithmetic, bytes. */

#define GRF_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int64_t grf_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t grf_max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- messages --------------------------------------------------------------
 * A tiny printf, so that neither stdio nor the locale is needed. It knows
 *     %s  const char *        %t  const char *, size_t (a text from a file)
 *     %d  int                 %u  uint64_t            %x  uint64_t in hex
 * Unprintable bytes become '?': names in hostile files reach terminals this way. */

typedef struct grf_line { char text[320]; size_t length; } grf_line;

static void grf_line_put(grf_line *line, const char *text, size_t length) {
    size_t i;
    for (i = 0; i < length && line->length + 1 < sizeof line->text; i++) {
        unsigned char c = (unsigned char)text[i];
        line->text[line->length++] = (c < 32 || c == 127) ? '?' : (char)c;
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
        case 's': text = va_arg(values, const char *); grf_line_put(line, text, strlen(text)); break;
        case 't':
            text = va_arg(values, const char *);
            grf_line_put(line, text, va_arg(values, size_t));
            break;
        case 'u': grf_line_number(line, va_arg(values, uint64_t), 10); break;
        case 'x': grf_line_put(line, "0x", 2); grf_line_number(line, va_arg(values, uint64_t), 16); break;
        case 'd':
            number = va_arg(values, int);
            if (number < 0) grf_line_put(line, "-", 1);
            grf_line_number(line, (uint64_t)(number < 0 ? -number : number), 10);
            break;
        default: grf_line_put(line, format, 1); break;
        }
    }
}

/* Where memory comes from and errors go; one in every model. */
typedef struct grf_host {
    griffin_allocator allocator;
    griffin_logger    logger;
    const char       *file;                 /* starts every message; null: none */
    char             *error;                /* receives the message too; null: none */
    size_t            error_size;
} grf_host;

static int grf_report(const grf_host *host, int error, const char *format, va_list values) {
    grf_line line;
    line.length = 0;
    if (host->file) { grf_line_put(&line, host->file, strlen(host->file)); grf_line_put(&line, ": ", 2); }
    grf_line_format(&line, format, values);
    if (host->logger.message) host->logger.message(error, line.text, host->logger.user);
    if (error < 0 && host->error && host->error_size) {
        size_t n = line.length < host->error_size ? line.length : host->error_size - 1;
        memcpy(host->error, line.text, n);
        host->error[n] = 0;
    }
    return error;
}

/* Reports and returns the error: `return grf_fail(host, GRIFFIN_E_FORMAT, "...", ...)`. */
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

/* An arena hands out 64-byte aligned parts of one block. With base null it only counts, so one
 * function both measures and lays out whatever is built with it. */
typedef struct grf_arena { unsigned char *base; uint64_t used; } grf_arena;

static void *grf_arena_take(grf_arena *arena, uint64_t size) {
    void *part = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size + 63) & ~(uint64_t)63;
    return part;
}

static void *grf_align64(void *memory) {
    return (unsigned char *)memory + ((0 - (uintptr_t)memory) & 63);
}

/* ---- checked arithmetic: every product or sum of numbers from a file ---------- */

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
    int i;
    for (i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static void grf_put_u64(uint8_t *p, uint64_t v) {
    int i;
    for (i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Turns a number of 2 or 4 bytes from a file into the machine's, in place, and back. */
static void grf_native_order(uint8_t *p, int size) {
    uint32_t wide = size == 4 ? grf_get_u32(p) : 0;
    uint16_t narrow = grf_get_u16(p);
    if (size == 4) memcpy(p, &wide, 4);
    else memcpy(p, &narrow, 2);
}

static float    grf_float_from_bits(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
static uint32_t grf_bits_from_float(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }
static float    grf_get_f32(const uint8_t *p) { return grf_float_from_bits(grf_get_u32(p)); }

/* FNV-1a, 64 bits, a word at a time where it can: for tables and checksums, not for secrets. */
#define GRF_HASH_START 0xcbf29ce484222325u

static uint64_t grf_hash(uint64_t hash, const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    for (; size >= 8; p += 8, size -= 8) {
        hash = (hash ^ grf_get_u64(p)) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    for (; size; p++, size--) hash = (hash ^ *p) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

static uint64_t grf_hash_number(uint64_t hash, uint64_t number) {
    uint8_t bytes[8];
    grf_put_u64(bytes, number);
    return grf_hash(hash, bytes, sizeof bytes);
}

/* A 32-bit number that is larger for a larger float. */
static uint32_t grf_float_key(float x) {
    uint32_t bits = grf_bits_from_float(x + 0.0f);  /* -0 becomes 0 */
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* ================================================================= >>numbers
 * Arithmetic with the same bits everywhere. Rule for the whole file: a product that is then added
 * to something is written as an explicit fused multiply-add, or passes through a volatile, so that
 * no compiler setting can change its rounding. */

/* GRF_FMAF is for functions compiled for a machine with the instruction; GRF_HAS_FMA: all are. gcc
 * calls the C library when it does not optimise, and musl and Windows round twice there. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__OPTIMIZE__)
  #define GRF_FMAF grf_fma
#else
  #define GRF_FMAF __builtin_fmaf
  #if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    #define GRF_HAS_FMA 1
  #endif
#endif

/* fma(a, b, c) in floats. Without the instruction: the product of two floats is exact in a double,
 * so only p + c rounds; rounding it to odd first makes the second rounding, to float, the only one
 * that counts. */
static float grf_fma(float a, float b, float c) {
#ifdef GRF_HAS_FMA
    return GRF_FMAF(a, b, c);
#else
    double p = (double)a * b, s = p + c, t = s - p;
    double lost = (p - (s - t)) + (c - t);
    if (lost > 0 || lost < 0) {
        uint64_t bits;
        memcpy(&bits, &s, 8);
        if (!(bits & 1)) bits += ((lost > 0) == (s > 0)) ? 1 : (uint64_t)-1;
        memcpy(&s, &bits, 8);
    }
    return (float)s;
#endif
}

/* The functions below are only used while a model is opened, in double. libm's exp and log differ
 * between systems in the last bit, so these are ours. */
static double grf_mul(double a, double b) { volatile double p = a * b; return p; }

/* 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), |s| <= 1/3 */
static double grf_two_atanh(double s) {
    double square = grf_mul(s, s), sum = 0;
    int n;
    for (n = 37; n >= 1; n -= 2) sum = 1.0 / n + grf_mul(square, sum);
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
    int n = (int)(x / GRF_LN2 + (x < 0 ? -0.5 : 0.5)), k;
    double r = x - grf_mul(n, GRF_LN2), sum = 1;
    for (k = 16; k >= 1; k--) sum = 1 + grf_mul(r / k, sum);
    return ldexp(sum, n);
}

/* ln(1 + e^v), exact in relative terms for very negative v too. */
static double grf_softplus(double v) {
    double u = grf_exp(-(v < 0 ? -v : v < 700 ? v : 700));
    return (v > 0 ? v : 0) + grf_two_atanh(u / (2 + u));
}

/* ---- single numbers --------------------------------------------------------- */

/* Exact for every half; the payload of a NaN moves up. */
static float grf_float_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) {                    /* zero or subnormal: fraction * 2^-24 */
        return grf_float_from_bits(sign | grf_bits_from_float((float)fraction * 5.9604644775390625e-8f));
    }
    exponent = exponent == 31 ? 255 : exponent + 112;
    return grf_float_from_bits(sign | exponent << 23 | fraction << 13);
}

static float grf_float_from_bf16(uint16_t b) { return grf_float_from_bits((uint32_t)b << 16); }

/* The nearest, the even one of two; NaN stays NaN. */
static uint16_t grf_bf16_from_float(float x) {
    uint32_t bits = grf_bits_from_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ================================================================= >>shapes
 * What the rest of the file works on. One alphabet, the paper's where it has a letter:
 *
 *     V vocabulary   D width   F MLP width   N layers   E recurrent width   B gate blocks
 *     H query heads  G key/value heads  W window  K convolution taps  R rows (tokens in a pass)
 *
 * Rows of activations, and vectors of parameters, are padded with zeros to a multiple of
 * GRF_TILE floats, so no loop over a row has a tail. */

#define GRF_TILE  32                        /* output rows in a weight tile: two vectors of 16 */
#define GRF_GROUP 256                       /* int8 activations with a scale in common */
#define GRF_PANEL 96                        /* activation rows that meet one tile at once */
#define GRF_HEAD_BLOCK 8                    /* most heads in one item of attention ... */
#define GRF_ATTEND_ROWS 4                   /* ... and most rows */
#define GRF_PIECE (512 * 1024)              /* what one thread takes at once, in bytes of weights */
#define GRF_REWIND 16                       /* griffin_options.rewind if not said otherwise */
#define GRF_WORTH_WAKING 16                 /* fewer pieces than this are not worth other threads */

static int64_t grf_pad(int64_t n) { return (n + GRF_TILE - 1) / GRF_TILE * GRF_TILE; }

/* The type numbers of GGUF that can be weights here. */
enum grf_type {
    GRF_F32 = 0, GRF_F16 = 1, GRF_BF16 = 30, GRF_I8 = 24,   /* i8: tiles only */
    GRF_Q4_0 = 2, GRF_Q4_1 = 3, GRF_Q5_0 = 6, GRF_Q5_1 = 7, GRF_Q8_0 = 8,
    GRF_Q4_K = 12, GRF_Q5_K = 13, GRF_Q6_K = 14,
    GRF_TYPES = 31
};

/* A linear layer y = W x + b, W [rows, cols], as tiles of 32 output rows, ascending in k:
 *
 *     f32, f16, bf16   for each k: 32 weights
 *     q8_0             for each block of 32 k: 32 f16 scales, then for each 4 k: 32 rows x 4 bytes,
 *                      stored + 128 so that they are unsigned
 *     q4_0             for each block of 32 k: 32 f16 scales, then for j = 0, 4, 8, 12: 32 rows x 4
 *                      bytes; low nibble k = j + i, high nibble k = j + i + 16, stored + 8
 *
 * Elements are in the machine's byte order, in files little-endian. A block-diagonal matrix is
 * `blocks` matrices of rows/blocks x cols, block b reading x[b * cols ...]; its tiles do not cross
 * blocks. */
#define GRF_BLOCK_BYTES_Q8_0 1088           /* of 32 columns in a tile */
#define GRF_BLOCK_BYTES_Q4_0 576

typedef struct grf_linear {
    int         type;                       /* GRF_F32, GRF_F16, GRF_BF16, GRF_Q8_0 or GRF_Q4_0 */
    int         rows, cols, blocks;
    int         tiles;                      /* of all blocks */
    uint64_t    tile_bytes;
    const uint8_t *tile;                    /* [tiles][tile_bytes] */
    const float *bias;                      /* [pad(rows)] or null */
} grf_linear;

/* Activations for int8 and int4 weights. Weights are stored with an offset: + 128 in q8_0, + 8 in
 * q4_0. start8 and start4 cancel it: they are -128 and -8 times the sum of a block's q, and the
 * integer sum begins there. The groups of all rows lie side by side, [cols][rows]: what a block of
 * columns is multiplied with is read in one stream. */
typedef struct grf_q8 {
    float   scale;                          /* value = scale * q */
    int32_t start8[GRF_GROUP / 32], start4[GRF_GROUP / 32];
    int8_t  q[GRF_GROUP];
} grf_q8;

/* Keys and values of consecutive positions, one row each. */
typedef struct grf_keys { const uint8_t *k, *v; int count; } grf_keys;

/* One head of one row. Of the keys that are at hand it sees those from first on, before end. */
typedef struct grf_query {
    float  *q;                              /* [head] rotated and scaled; its place serves sum */
    float  *score;                          /* [keys, with room for 16 more] scratch */
    float  *out;                            /* [head_dim] */
    int64_t first, end;
    float  *sum;                            /* [head] set by the kernel: sum of weighted values */
    float   inverse;                        /* 1 / sum of e^(score - largest) */
} grf_query;

/* Queries of consecutive rows and of heads that share keys and values. */
typedef struct grf_attention {
    grf_query    query[GRF_ATTEND_ROWS * GRF_HEAD_BLOCK];
    grf_keys     part[3];                   /* in order of position */
    int          queries, head_dim, head;   /* head: head_dim padded to 16 */
    int          type;                      /* of keys and values: GRF_F32 or GRF_BF16 */
    int64_t      stride;                    /* bytes from one key row to the next */
} grf_attention;

/* The kernels of one instruction set. All sets give the same bits. n is a multiple of 16 unless
 * noted; x and y may be the same. The mathematics stands beside the code, at >>kernels. */
typedef struct grf_kernels {
    const char *name;
    /* out[rows][32] = tile of W times rows of x. stride: from a row to the next, or from the
     * groups of some columns to those of the next */
    void (*float_tile)(float *out, const grf_linear *w, const uint8_t *tile, const float *x,
                       int64_t stride, int rows);
    void (*int_tile)(float *out, const grf_linear *w, const uint8_t *tile, const grf_q8 *x,
                     int64_t stride, int rows);
    /* the groups of a row lie `stride` apart; n % 32 == 0 */
    void (*quantise)(grf_q8 *y, int64_t stride, const float *x, int64_t n);
    void (*norm)(float *y, const float *x, const float *gain, int64_t n, int width, float eps);
    void (*conv)(float *y, const float *const *z, const float *w, int64_t w_stride, const float *b,
                 int taps, int64_t n);
    /* one token: h [n] in and out, y [n] *= h */
    void (*rglru)(float *h, float *y, const float *i, const float *r, const float *c,
                  const float *log_decay, int fresh, int64_t n);
    void (*rope_angles)(float *cosine, float *sine, const uint64_t *turns, int64_t position, int n);
    void (*rope)(float *to, const float *from, const float *cosine, const float *sine, float scale,
                 int half, int head_dim);                                          /* any sizes */
    void (*attend)(grf_attention *a);
    void (*activate)(float *y, griffin_activation activation, int64_t n);
    void (*multiply)(float *y, const float *x, int64_t n);                       /* y *= x */
    /* tile by tile: to[rows] = out[rows][32] + b, or plus what was there; n <= 32, b may be null */
    void (*finish)(float *to, int64_t stride, const float *out, const float *b, int add, int rows,
                   int n);
    void (*soft_cap)(float *y, float cap, int64_t n);
    void (*exp_shifted)(float *y, const float *x, float shift, int n);             /* any n */
} grf_kernels;

static const grf_kernels *grf_kernels_find(griffin_cpu cpu);   /* null: not on this machine */

/* ---- the program ---------------------------------------------------------------
 * At open the layers become a flat list of operations over named buffers. An operation is a
 * number of like items (weight tiles, rows, channels); pieces are runs of items. */

typedef enum grf_buffer {                   /* [R][pad(width)] each */
    GRF_X,                                  /* D  the residual stream */
    GRF_U,                                  /* D  normalised */
    GRF_Y,                                  /* E  gate branch of the recurrent block, then h * y */
    GRF_Z,                                  /* E  input of the convolution */
    GRF_C,                                  /* E  its output */
    GRF_I, GRF_R,                           /* E  input and recurrence gate before the sigmoid */
    GRF_Q, GRF_K, GRF_V,                    /* D, G head_dim  as they come from the projections */
    GRF_QR,                                 /* H heads padded to 16: rotated and scaled */
    GRF_A,                                  /* D  attention output */
    GRF_M,                                  /* F  MLP inner row */
    GRF_BUFFERS,
    GRF_LOGITS = -1                         /* rows of the caller */
} grf_buffer;

typedef enum grf_kind {
    GRF_EMBED, GRF_NORM, GRF_QUANTISE, GRF_LINEAR, GRF_GATED,
    GRF_CONV, GRF_RGLRU, GRF_ROPE, GRF_ATTEND
} grf_kind;

/* What becomes of a finished tile of a linear layer. */
typedef enum grf_then { GRF_STORE, GRF_ADD, GRF_ACTIVATE, GRF_CAP } grf_then;

typedef struct grf_output {
    const grf_linear *w;
    grf_buffer        to;
    grf_then          then;
} grf_output;

typedef struct grf_op {
    grf_kind      kind;
    grf_buffer    from, to;
    int           outputs;                  /* linear layers that share the input */
    grf_output    output[3];
    int           head;                     /* only rows whose logits are wanted */
    int           slot;                     /* which recurrent or attention layer, from 0 */
    const float  *gain;                     /* norm: [pad(D)] */
    int           quantise;                 /* norm: quantise its rows, too */
    const float  *conv_w, *conv_b;          /* [K][pad(E)], [pad(E)] */
    const float  *log_decay;                /* [pad(E)]  -c softplus(recurrent parameter) */
} grf_op;

/* ---- a state: struct griffin_state, then floats -----------------------------------
 *     recurrent part   [recurrent layers] { h [pad(E)], then K - 1 rows z [pad(E)], oldest first }
 *     rings            [attention layers] { keys [slots][kv_row], values [slots][kv_row] }
 *     past             [rewind] history at earlier positions, 64 bits each
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

typedef struct grf_layout {                 /* sizes that follow from the configuration */
    int     recurrent_layers, attention_layers;
    int     slots, rewind;                  /* of a ring; of them more than attention needs */
    int     head;                           /* head_dim padded to 16 */
    int     heads_per_kv;                   /* H / G, handled in */
    int     head_blocks, head_block;        /* so many blocks of so many heads */
    int     kv_type, kv_size;               /* GRF_F32 or GRF_BF16; bytes of one */
    int64_t kv_row;                         /* bytes */
    int64_t lane;                           /* pad(E) */
    int64_t recurrent_row;                  /* floats of one recurrent layer: K * lane */
    int64_t recurrent_floats, ring_bytes;   /* of all layers; of one attention layer */
    uint64_t past;                          /* where it starts in a state */
    int64_t width[GRF_BUFFERS];             /* floats in a row of each buffer */
    int64_t q8_row;                         /* grf_q8 of a quantised row, 0 if none needed */
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
    const grf_linear  *embedding;
    const uint64_t    *turns;               /* [rope_dims / 2] turns per position, in 2^-64 */
    const grf_op      *ops;
    int                n_ops;
    grf_vocab         *vocab;
};

/* ================================================================= >>network
 * The model itself. Read this beside figure 2 of the Griffin paper (arXiv 2402.19427): one builder
 * for each box of the figure, each adding operations to the program. Per token, p its position:
 *
 *     x = s E[token]                                            embedding, s = embedding_scale
 *     for each layer:
 *         x += temporal(norm(x))                                recurrent or attention block
 *         x += Wd (act(Wg v + bg) * (Wu v + bu)) + bd           v = norm(x), gated MLP
 *     logits = cap tanh(E norm(x) / cap)                        cap = soft_cap; 0: E norm(x)
 *
 *     norm(x)_j = x_j / sqrt(mean(x^2) + eps) * (norm_offset + w_j)
 *
 * The builder runs twice: once to check every tensor and to measure, once to lay out. */

typedef struct grf_builder {
    griffin_model *model;
    const griffin_config *config;
    grf_arena  arena;                       /* base null: measuring */
    const char *prefix;                     /* "model." or "" */
    int        layer, recurrent, attention; /* the current one; how many of each kind so far */
    unsigned char *used;                    /* [tensors] named by the network */
    float     *row;                         /* [32][longest row] for packing */
    uint64_t   row_floats;
    int        copy;                        /* griffin_options.copy_weights */
    int        quantised_cols;              /* longest input of a quantised layer */
    uint64_t   parameters;                  /* of everything, */
    uint64_t   weights_of[GRF_TYPES];       /* and in matrices of each type */
    grf_op    *ops;                         /* null: measuring */
    grf_op     dropped;                     /* what operations are written to then */
    int        n_ops;
    int        error;                       /* the first one; later steps do nothing */
} grf_builder;

/* Defined where files are opened (>>model): the weights of a file, by name. */
static const grf_tensor *grf_gguf_tensor(const grf_gguf *g, const char *name);
static const grf_tensor *grf_tensor_lookup(const grf_builder *b, const char *name);
static const grf_tensor *grf_tensor_lookup_tiles(const grf_builder *b, const char *name);
static float *grf_load_vector(grf_builder *b, const char *name, int d0, int d1, int d2);
static float *grf_load_taps(grf_builder *b);
static const grf_linear *grf_load_matrix(grf_builder *b, const char *name, int rows, int cols,
                                   int has_bias);
static const grf_linear *grf_load_gates(grf_builder *b, const char *weight, const char *bias);
static int grf_is_quantised(const grf_linear *w);

/* ---- adding operations ---------------------------------------------------------------- */

#define GRF_LAYER_OPS 16                    /* no layer needs more, nor do the ends */

static grf_op *grf_add(grf_builder *b, grf_kind kind, grf_buffer from, grf_buffer to) {
    grf_op *op = b->ops ? b->ops + b->n_ops++ : &b->dropped;
    memset(op, 0, sizeof *op);
    op->kind = kind; op->from = from; op->to = to;
    return op;
}

static grf_output grf_output_of(const grf_linear *w, grf_buffer to, grf_then then) {
    grf_output output;
    output.w = w; output.to = to; output.then = then;
    return output;
}

/* Rows to read quantised: at once where a norm has just written them, else in a step of its own. */
static void grf_add_quantise(grf_builder *b, grf_buffer from, int head) {
    grf_op *last = b->ops ? b->ops + b->n_ops - 1 : &b->dropped;
    if (last->kind == GRF_NORM) last->quantise = 1;
    else grf_add(b, GRF_QUANTISE, from, from)->head = head;
}

/* Linear layers over the same rows; those with int8 or int4 weights read them quantised. */
static grf_op *grf_add_linear(grf_builder *b, grf_kind kind, grf_buffer from,
                              const grf_output *outputs, int count, int head) {
    int i, quantised = 0;
    grf_op *op;
    for (i = 0; i < count; i++) quantised |= grf_is_quantised(outputs[i].w);
    if (quantised) grf_add_quantise(b, from, head);
    op = grf_add(b, kind, from, outputs[0].to);
    memcpy(op->output, outputs, (size_t)count * sizeof *outputs);
    op->outputs = count;
    op->head = head;
    return op;
}

/* x += W from + b */
static void grf_add_residual(grf_builder *b, grf_buffer from, const grf_linear *w) {
    grf_output output = grf_output_of(w, GRF_X, GRF_ADD);
    grf_add_linear(b, GRF_LINEAR, from, &output, 1, 0);
}

/* ---- the boxes of the figure ------------------------------------------------------------ */

static void grf_norm(grf_builder *b, const char *name, int head) {
    float *gain = grf_load_vector(b, name, b->config->width, 0, 0);
    grf_op *op = grf_add(b, GRF_NORM, GRF_X, GRF_U);
    int j;
    for (j = 0; gain && j < b->config->width; j++) gain[j] += b->config->norm_offset;
    op->gain = gain;
    op->head = head;
}


/* The recurrent block, u = norm(x):
 *
 *     y   = act(Wy u + by)           z = Wx u + bx
 *     c_t = conv_b + sum_k conv_w[k] z_{t - K + 1 + k}                      per channel
 *     i   = sigmoid(Wi c + bi)       r = sigmoid(Wr c + br)                 block-diagonal
 *     log a = -decay softplus(parameter) r                              decay is the paper's c = 8
 *     h_t = a h_{t-1} + sqrt(1 - a^2) (i c_t)       at p = 0: h = i c_t
 *     x  += Wo (h * y) + bo */
static void grf_recurrent_block(grf_builder *b) {
    int D = b->config->width, E = b->config->lru_width, e;
    grf_output in[2], gates[2];
    float *conv_w, *conv_b, *log_decay;
    grf_op *op;

    in[0] = grf_output_of(grf_load_matrix(b, "temporal_block.linear_y", E, D, 1), GRF_Y, GRF_ACTIVATE);
    in[1] = grf_output_of(grf_load_matrix(b, "temporal_block.linear_x", E, D, 1), GRF_Z, GRF_STORE);
    grf_add_linear(b, GRF_LINEAR, GRF_U, in, 2, 0);

    conv_w = grf_load_taps(b);
    conv_b = grf_load_vector(b, "temporal_block.conv_1d.bias", E, 0, 0);
    op = grf_add(b, GRF_CONV, GRF_Z, GRF_C);
    op->conv_w = conv_w; op->conv_b = conv_b;
    op->slot = b->recurrent;

    gates[0] = grf_output_of(grf_load_gates(b, "temporal_block.rg_lru.input_gate_weight",
                                      "temporal_block.rg_lru.input_gate_bias"), GRF_I, GRF_STORE);
    gates[1] = grf_output_of(grf_load_gates(b, "temporal_block.rg_lru.recurrent_gate_weight",
                                      "temporal_block.rg_lru.recurrent_gate_bias"),
                             GRF_R, GRF_STORE);
    grf_add_linear(b, GRF_LINEAR, GRF_C, gates, 2, 0);

    log_decay = grf_load_vector(b, "temporal_block.rg_lru.recurrent_param", E, 0, 0);
    for (e = 0; log_decay && e < E; e++)
        log_decay[e] = (float)grf_mul(-(double)b->config->decay, grf_softplus(log_decay[e]));
    op = grf_add(b, GRF_RGLRU, GRF_C, GRF_Y);
    op->log_decay = log_decay;
    op->slot = b->recurrent++;

    grf_add_residual(b, GRF_Y, grf_load_matrix(b, "temporal_block.linear_out", D, E, 1));
}

/* Local attention, u = norm(x), heads of head_dim, G of them for keys and values:
 *
 *     q = Wq u,  k = Wk u,  v = Wv u       q and k rotated by p (first rope_dims of each head)
 *     A = softmax(q k / sqrt(head_dim)) v  over the keys p - W .. p
 *     x += Wo A + bo */
static void grf_attention_block(grf_builder *b) {
    int D = b->config->width, kv = b->config->kv_heads * b->config->head_dim;
    int bias = b->config->qkv_bias;
    grf_output qkv[3];
    qkv[0] = grf_output_of(grf_load_matrix(b, "temporal_block.q_proj", D,  D, bias), GRF_Q, GRF_STORE);
    qkv[1] = grf_output_of(grf_load_matrix(b, "temporal_block.k_proj", kv, D, bias), GRF_K, GRF_STORE);
    qkv[2] = grf_output_of(grf_load_matrix(b, "temporal_block.v_proj", kv, D, bias), GRF_V, GRF_STORE);
    grf_add_linear(b, GRF_LINEAR, GRF_U, qkv, 3, 0);
    grf_add(b, GRF_ROPE, GRF_Q, GRF_QR)->slot = b->attention;
    grf_add(b, GRF_ATTEND, GRF_QR, GRF_A)->slot = b->attention++;
    grf_add_residual(b, GRF_A, grf_load_matrix(b, "temporal_block.o_proj", D, D, 1));
}

/* x += Wd (act(Wg v + bg) * (Wu v + bu)) + bd,  v = norm(x) */
static void grf_mlp_block(grf_builder *b) {
    int D = b->config->width, F = b->config->mlp_width;
    grf_output up[2];
    up[0] = grf_output_of(grf_load_matrix(b, "mlp_block.gate_proj", F, D, 1), GRF_M, GRF_STORE);
    up[1] = grf_output_of(grf_load_matrix(b, "mlp_block.up_proj",   F, D, 1), GRF_M, GRF_STORE);
    grf_add_linear(b, GRF_GATED, GRF_U, up, 2, 0);
    grf_add_residual(b, GRF_M, grf_load_matrix(b, "mlp_block.down_proj", D, F, 1));
}

static void grf_embedding(grf_builder *b) {
    int i, half = b->config->rope_dims / 2;
    uint64_t *turns = (uint64_t *)grf_arena_take(&b->arena, 8 * (uint64_t)half);
    b->model->embedding = grf_load_matrix(b, "embed_tokens", b->config->vocab, b->config->width, 0);
    b->model->turns = turns;
    grf_add(b, GRF_EMBED, GRF_X, GRF_X);
    /* pair i turns by base^(-2i / rope_dims) radians a token: kept as a fraction of a turn in
     * 2^-64, so that p times it, modulo one turn, is exact at any position */
    for (i = 0; turns && i < half; i++) {
        double turn = -2.0 * i / b->config->rope_dims;
        double power = grf_mul(turn, grf_log((double)b->config->rope_base));
        turns[i] = (uint64_t)grf_mul(grf_exp(power), 18446744073709551616.0 / 6.283185307179586477);
    }
}

/* Only for rows whose logits are wanted. The head is the embedding unless the file has its own. */
static void grf_head(grf_builder *b) {
    const grf_linear *w = b->model->embedding;
    grf_output output;
    b->layer = -1;
    grf_norm(b, "final_norm.weight", 1);
    b->prefix = "";
    if (grf_tensor_lookup(b, "lm_head.weight") || grf_tensor_lookup_tiles(b, "lm_head.weight"))
        w = grf_load_matrix(b, "lm_head", b->config->vocab, b->config->width, 0);
    output = grf_output_of(w, GRF_LOGITS, GRF_CAP);
    grf_add_linear(b, GRF_LINEAR, GRF_U, &output, 1, 1);
}

static void grf_network(grf_builder *b) {
    const griffin_config *config = b->config;
    b->layer = -1;
    b->prefix = grf_gguf_tensor(b->model->file, "model.final_norm.weight") ? "model." : "";
    grf_embedding(b);
    for (b->layer = 0; b->layer < config->layers && !b->error; b->layer++) {
        grf_norm(b, "temporal_pre_norm.weight", 0);
        switch (config->blocks[b->layer]) {             /* a new kind of mixing block goes here */
        case 'r': grf_recurrent_block(b); break;
        case 'a': grf_attention_block(b); break;
        default: break;
        }
        grf_norm(b, "channel_pre_norm.weight", 0);
        grf_mlp_block(b);
    }
    grf_head(b);
}

/* ================================================================= >>context
 * Scratch for one pass: R rows of every buffer, and what the pass will change in the states. */

typedef struct grf_flight {                 /* a span in flight */
    griffin_state *state;
    int64_t  position;                      /* of its first token; both as they were at the start */
    uint64_t history;
    int      first, count;                  /* its rows */
} grf_flight;

typedef struct grf_wanted { int row; float *logits; } grf_wanted;

struct griffin_context {
    const griffin_model *model;
    griffin_jobs jobs;
    int          max_rows, max_spans;
    int          spans, rows, n_wanted;     /* in flight; spans is 0 when nothing is */
    int          op;                        /* the next operation ... */
    int64_t      piece;                     /* ... and its next piece */
    struct grf_crew *crew;                  /* threads at work on it, or null */
    grf_flight  *flight;                    /* [max_spans] */
    int         *span_of;                   /* [rows] */
    int32_t     *token;                     /* [rows] */
    grf_wanted  *wanted;                    /* [rows] */
    float       *buffer[GRF_BUFFERS];       /* [rows][width] */
    grf_q8      *quantised;                 /* [q8_row][rows of the pass] */
    float       *cosine, *sine;             /* [rows][rope_dims / 2] */
    float       *score;                     /* [rows][H][keys] */
    float       *recurrent;                 /* [spans][recurrent_floats] to be committed */
    uint8_t     *keys;                      /* [attention layers][keys, values][rows][kv_row] */
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
    }
    if (c->max_rows < 0 || c->max_spans < 0) return 0;
    if (c->max_rows == 0) c->max_rows = 64;
    if (c->max_spans == 0) c->max_spans = 1;
    if (c->max_rows < c->max_spans) c->max_rows = c->max_spans;
    return c->max_rows <= 65536;
}

static void grf_context_lay_out(griffin_context *c, grf_arena *arena) {
    const grf_layout *l = &c->model->layout;
    uint64_t R = (uint64_t)c->max_rows, S = (uint64_t)c->max_spans;
    uint64_t attends = l->attention_layers > 0;
    uint64_t angles = attends * R * (uint64_t)(c->model->info.config.rope_dims / 2);
    int i;
    c->flight  = (grf_flight *)grf_arena_take(arena, S * sizeof *c->flight);
    c->span_of = (int *)       grf_arena_take(arena, R * sizeof *c->span_of);
    c->token   = (int32_t *)   grf_arena_take(arena, R * sizeof *c->token);
    c->wanted  = (grf_wanted *)grf_arena_take(arena, R * sizeof *c->wanted);
    for (i = 0; i < GRF_BUFFERS; i++)
        c->buffer[i] = (float *)grf_arena_take(arena, R * (uint64_t)l->width[i] * 4);
    c->quantised = (grf_q8 *)grf_arena_take(arena, R * (uint64_t)l->q8_row * sizeof *c->quantised);
    c->cosine    = (float *) grf_arena_take(arena, angles * 4);
    c->sine      = (float *) grf_arena_take(arena, angles * 4);
    c->score     = (float *) grf_arena_take(arena, attends * R * (uint64_t)c->model->info.config.heads
                                                 * (uint64_t)grf_score_keys(c->model) * 4);
    c->recurrent = (float *) grf_arena_take(arena, S * (uint64_t)l->recurrent_floats * 4);
    c->keys      = (uint8_t *)grf_arena_take(arena, R * 2 * (uint64_t)l->attention_layers
                                                  * (uint64_t)l->kv_row);
}

GRIFFIN_API size_t griffin_context_size(const griffin_model *model,
                                        const griffin_context_options *options) {
    griffin_context c;
    grf_arena count = { NULL, 0 };
    if (!model || !grf_context_limits(model, options, &c)) return 0;
    grf_arena_take(&count, sizeof c);
    grf_context_lay_out(&c, &count);
    count.used += 64;                       /* to align what the host gives */
    return count.used > (uint64_t)((size_t)-1) ? 0 : (size_t)count.used;
}

GRIFFIN_API int griffin_context_init(griffin_context **context, const griffin_model *model,
                                     const griffin_context_options *options, void *memory,
                                     size_t size) {
    griffin_context limits;
    grf_arena arena = { NULL, 0 };
    size_t needed = griffin_context_size(model, options);
    if (context) *context = NULL;
    if (!model) return GRIFFIN_E_ARGUMENT;
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

/* ================================================================= >>operations
 * What each kind of operation does with a run of its items, for any number of rows. `items` may be
 * done in any order and by any thread. */

static float *grf_row(const griffin_context *c, grf_buffer buffer, int64_t row) {
    return c->buffer[buffer] + row * c->model->layout.width[buffer];
}

/* Rows an operation works on: the head only sees those whose logits are wanted. */
static int grf_rows(const griffin_context *c, const grf_op *op) {
    return op->head ? c->n_wanted : c->rows;
}

static const grf_flight *grf_flight_of(const griffin_context *c, int64_t row) {
    return c->flight + c->span_of[row];
}

static int64_t grf_position(const griffin_context *c, int64_t row) {
    const grf_flight *f = grf_flight_of(c, row);
    return f->position + (row - f->first);
}

/* A row of a packed matrix: the embedding is also the head, in tiles. Exact products only. */
static void grf_unpack_row(float *to, const grf_linear *w, int64_t row, float scale) {
    const uint8_t *tile = w->tile + (uint64_t)(row / GRF_TILE) * w->tile_bytes;
    int64_t r = row % GRF_TILE, k;
    for (k = 0; k < w->cols; k++) {
        const uint8_t *at = tile;           /* of the block of 32 that holds k */
        int64_t i = k % 32;
        uint16_t half;
        float value;
        switch (w->type) {
        case GRF_F32:
            memcpy(&value, tile + (k * GRF_TILE + r) * 4, 4);
            break;
        case GRF_F16: case GRF_BF16:
            memcpy(&half, tile + (k * GRF_TILE + r) * 2, 2);
            value = w->type == GRF_F16 ? grf_float_from_f16(half) : grf_float_from_bf16(half);
            break;
        case GRF_Q8_0:
            at += k / 32 * 34 * GRF_TILE;
            memcpy(&half, at + 2 * r, 2);
            value = grf_float_from_f16(half)
                    * (float)(at[2 * GRF_TILE + i / 4 * 4 * GRF_TILE + r * 4 + i % 4] - 128);
            break;
        default:
            at += k / 32 * 18 * GRF_TILE;
            memcpy(&half, at + 2 * r, 2);
            at += 2 * GRF_TILE + i % 16 / 4 * 4 * GRF_TILE + r * 4 + i % 4;
            value = grf_float_from_f16(half) * (float)((i < 16 ? *at & 15 : *at >> 4) - 8);
            break;
        }
        to[k] = value * scale;
    }
}

static void grf_run_embed(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    const griffin_model *m = c->model;
    int half = m->info.config.rope_dims / 2;
    for (; from < to; from++) {
        grf_unpack_row(grf_row(c, op->to, from), m->embedding, c->token[from],
                       m->info.config.embedding_scale);
        if (m->layout.attention_layers)
            m->kernels->rope_angles(c->cosine + from * half, c->sine + from * half, m->turns,
                                    grf_position(c, from), half);
    }
}

static void grf_quantise_row(griffin_context *c, grf_buffer buffer, int64_t row) {
    c->model->kernels->quantise(c->quantised + row, c->rows, grf_row(c, buffer, row),
                                c->model->layout.width[buffer]);
}

static void grf_run_quantise(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    for (; from < to; from++) grf_quantise_row(c, op->from, from);
}

static void grf_run_norm(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    const griffin_model *m = c->model;
    for (; from < to; from++) {
        m->kernels->norm(grf_row(c, op->to, from),
                         grf_row(c, op->from, op->head ? c->wanted[from].row : from), op->gain,
                         m->layout.width[op->from], m->info.config.width, m->info.config.eps);
        if (op->quantise) grf_quantise_row(c, op->to, from);
    }
}

/* ---- linear layers: items are the tiles of all outputs, one matrix after the other ----------- */

/* Tile `tile` of w times rows [row, row + count) of `from`, without bias. */
static void grf_tile_product(const griffin_context *c, const grf_op *op, const grf_linear *w,
                             int64_t tile, int64_t row, int count, float *out) {
    const grf_layout *l = &c->model->layout;
    const uint8_t *weights = w->tile + (uint64_t)tile * w->tile_bytes;
    int64_t block = tile / (w->tiles / w->blocks);
    if (grf_is_quantised(w))
        c->model->kernels->int_tile(out, w, weights, c->quantised + row, c->rows, count);
    else
        c->model->kernels->float_tile(out, w, weights,
                                      grf_row(c, op->from, row) + block * w->cols,
                                      l->width[op->from], count);
}

/* First output row of a tile, and how many it has. */
static int64_t grf_tile_rows(const grf_linear *w, int64_t tile, int64_t *count) {
    int64_t per_block = w->tiles / w->blocks, rows = w->rows / w->blocks;
    int64_t first = tile % per_block * GRF_TILE;
    *count = grf_min64(GRF_TILE, rows - first);
    return tile / per_block * rows + first;
}

static float *grf_target(const griffin_context *c, const grf_output *o, int64_t row) {
    return o->then == GRF_CAP ? c->wanted[row].logits : grf_row(c, o->to, row);
}

/* What grf_finish_tile will read and write lies in single lines far apart, which nobody guesses:
 * asked for before the product, they are there after it. Inline, since gcc 12 takes a function that
 * only fetches for one without effect, and drops the call. */
GRF_INLINE void grf_fetch_tile(const griffin_context *c, const grf_output *o, int64_t tile,
                               int64_t row, int count) {
    int64_t n, first = grf_tile_rows(o->w, tile, &n);
    if (o->w->bias) { GRF_FETCH(o->w->bias + first); GRF_FETCH(o->w->bias + first + n - 1); }
    for (; count > 0; count--, row++) {
        const float *to = grf_target(c, o, row) + first;
        GRF_FETCH(to); GRF_FETCH(to + n - 1);
    }
}

static void grf_finish_tile(griffin_context *c, const grf_output *o, int64_t tile, int64_t row,
                            int count, float *out) {
    const griffin_config *config = &c->model->info.config;
    const grf_kernels *kernels = c->model->kernels;
    int64_t n, first = grf_tile_rows(o->w, tile, &n);
    const float *bias = o->w->bias ? o->w->bias + first : NULL;
    if (o->then == GRF_CAP) {
        if (config->soft_cap > 0) kernels->soft_cap(out, config->soft_cap, count * GRF_TILE);
        for (; count > 0; count--, row++, out += GRF_TILE)
            memcpy(grf_target(c, o, row) + first, out, (size_t)n * 4);
        return;
    }
    if (o->then == GRF_ACTIVATE) {
        if (bias) kernels->finish(out, GRF_TILE, out, bias, 0, count, (int)n);
        kernels->activate(out, config->activation, count * GRF_TILE);
        bias = NULL;
    }
    kernels->finish(grf_target(c, o, row) + first, c->model->layout.width[o->to], out, bias,
                    o->then == GRF_ADD, count, (int)n);
}

static void grf_run_linear(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    float out[GRF_PANEL * GRF_TILE];
    const grf_output *o = op->output;
    int64_t row, rows = grf_rows(c, op), before = 0;    /* tiles of earlier outputs */
    for (; from < to; from++) {
        while (from - before >= o->w->tiles) { before += o->w->tiles; o++; }
        for (row = 0; row < rows; row += GRF_PANEL) {
            int count = (int)grf_min64(GRF_PANEL, rows - row);
            grf_fetch_tile(c, o, from - before, row, count);
            grf_tile_product(c, op, o->w, from - before, row, count, out);
            grf_finish_tile(c, o, from - before, row, count, out);
        }
    }
}

/* m = act(gate) * up, tile by tile */
static void grf_run_gated(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    float gate[GRF_PANEL * GRF_TILE], up[GRF_PANEL * GRF_TILE];
    const grf_linear *wg = op->output[0].w, *wu = op->output[1].w;
    const grf_kernels *kernels = c->model->kernels;
    int64_t row, n;
    for (; from < to; from++) {
        int64_t first = grf_tile_rows(wg, from, &n);
        for (row = 0; row < c->rows; row += GRF_PANEL) {
            int count = (int)grf_min64(GRF_PANEL, c->rows - row);
            grf_fetch_tile(c, &op->output[0], from, row, count);
            grf_fetch_tile(c, &op->output[1], from, row, count);
            grf_tile_product(c, op, wg, from, row, count, gate);
            grf_tile_product(c, op, wu, from, row, count, up);
            if (wg->bias)
                kernels->finish(gate, GRF_TILE, gate, wg->bias + first, 0, count, (int)n);
            if (wu->bias)
                kernels->finish(up, GRF_TILE, up, wu->bias + first, 0, count, (int)n);
            kernels->activate(gate, c->model->info.config.activation, count * GRF_TILE);
            kernels->multiply(gate, up, count * GRF_TILE);
            kernels->finish(grf_row(c, op->to, row) + first, c->model->layout.width[op->to], gate,
                            NULL, 0, count, (int)n);
        }
    }
}

/* ---- the recurrence: items are words of 16 channels ------------------------------------- */

static float *grf_pending(const griffin_context *c, int64_t span, int slot) {
    const grf_layout *l = &c->model->layout;
    return c->recurrent + span * l->recurrent_floats + slot * l->recurrent_row;
}

static const float *grf_recurrent_state(const griffin_context *c, int64_t span, int slot) {
    return (const float *)(c->flight[span].state + 1) + slot * c->model->layout.recurrent_row;
}

/* Input row t of the convolution, counted from the start of the span: negative in the state. */
static const float *grf_conv_input(const griffin_context *c, int64_t span, int slot, int64_t t) {
    int K = c->model->info.config.conv_width;
    if (t >= 0) return grf_row(c, GRF_Z, c->flight[span].first + t);
    return grf_recurrent_state(c, span, slot) + (K + t) * c->model->layout.lane;
}

static void grf_run_conv(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    const float *z[16];
    int64_t lane = c->model->layout.lane, at = from * 16, n = (to - from) * 16, span, t;
    int K = c->model->info.config.conv_width, k;
    for (span = 0; span < c->spans; span++) {
        const grf_flight *f = c->flight + span;
        for (t = 0; t < f->count; t++) {
            for (k = 0; k < K; k++) z[k] = grf_conv_input(c, span, op->slot, t - K + 1 + k) + at;
            c->model->kernels->conv(grf_row(c, op->to, f->first + t) + at, z, op->conv_w + at, lane,
                                    op->conv_b + at, K, n);
        }
        for (k = 1; k < K; k++)             /* the last K - 1 inputs wait for the commit */
            memcpy(grf_pending(c, span, op->slot) + k * lane + at,
                   grf_conv_input(c, span, op->slot, f->count - K + k) + at, (size_t)n * 4);
    }
}

static void grf_run_rglru(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    int64_t at = from * 16, n = (to - from) * 16, span, t;
    for (span = 0; span < c->spans; span++) {
        const grf_flight *f = c->flight + span;
        float *h = grf_pending(c, span, op->slot) + at;
        memcpy(h, grf_recurrent_state(c, span, op->slot) + at, (size_t)n * 4);
        for (t = f->first; t < f->first + f->count; t++)
            c->model->kernels->rglru(h, grf_row(c, op->to, t) + at, grf_row(c, GRF_I, t) + at,
                                     grf_row(c, GRF_R, t) + at, grf_row(c, op->from, t) + at,
                                     op->log_decay + at, grf_position(c, t) == 0, n);
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

/* Keys (which = 0) or values (1) of a row that wait for the commit. */
static uint8_t *grf_new_keys(const griffin_context *c, int slot, int which, int64_t row) {
    return c->keys + (((int64_t)slot * 2 + which) * c->max_rows + row) * c->model->layout.kv_row;
}

static uint8_t *grf_ring(const griffin_model *m, griffin_state *state, int slot, int which,
                         int64_t position) {
    const grf_layout *l = &m->layout;
    return (uint8_t *)((float *)(state + 1) + l->recurrent_floats)
         + (slot * 2 + which) * l->ring_bytes / 2 + position % l->slots * l->kv_row;
}

/* Keys and values are rounded before anybody reads them, those of the same pass too. */
static void grf_store_keys(const grf_layout *l, uint8_t *to, const float *from, int n) {
    int i;
    if (l->kv_type == GRF_F32) { memcpy(to, from, (size_t)n * 4); return; }
    for (i = 0; i < n; i++) {
        uint16_t rounded = grf_bf16_from_float(from[i]);
        memcpy(to + 2 * i, &rounded, 2);
    }
}

static void grf_run_rope(griffin_context *c, const grf_op *op, int64_t from, int64_t to) {
    const griffin_config *g = &c->model->info.config;
    const grf_kernels *kernels = c->model->kernels;
    const grf_layout *l = &c->model->layout;
    int half = g->rope_dims / 2, hd = g->head_dim, head = l->head, h;
    float scale = 1 / sqrtf((float)hd);
    for (; from < to; from++) {
        const float *cosine = c->cosine + from * half, *sine = c->sine + from * half;
        uint8_t *keys = grf_new_keys(c, op->slot, 0, from);
        uint8_t *values = grf_new_keys(c, op->slot, 1, from);
        for (h = 0; h < g->heads; h++)
            kernels->rope(grf_row(c, op->to, from) + h * head, grf_row(c, op->from, from) + h * hd,
                          cosine, sine, scale, half, hd);
        for (h = 0; h < g->kv_heads; h++) {
            float *k = grf_row(c, GRF_K, from) + h * hd;
            kernels->rope(k, k, cosine, sine, 1, half, hd);
            grf_store_keys(l, keys + h * head * l->kv_size, k, hd);
            grf_store_keys(l, values + h * head * l->kv_size, grf_row(c, GRF_V, from) + h * hd, hd);
        }
    }
}

/* The keys that rows [row, row + count) of one span see between them, oldest first: up to two runs
 * in the ring, then those of this pass. Returns the position of the first. */
static int64_t grf_visible_keys(const griffin_context *c, int slot, int64_t row, int64_t count,
                                int64_t offset, grf_attention *a) {
    const griffin_model *m = c->model;
    const grf_flight *f = grf_flight_of(c, row);
    int64_t p = grf_position(c, row), first = grf_max64(0, p + 1 - m->info.attn_keys), at = first;
    int i;
    for (i = 0; i < 3; i++) {
        int64_t end = i == 2 ? p + count : f->position, new_row = f->first + (at - f->position);
        if (i < 2) end = grf_min64(end, at - at % m->layout.slots + m->layout.slots);
        a->part[i].count = (int)grf_max64(0, end - at);
        a->part[i].k =
            (i < 2 ? grf_ring(m, f->state, slot, 0, at) : grf_new_keys(c, slot, 0, new_row))
            + offset;
        a->part[i].v =
            (i < 2 ? grf_ring(m, f->state, slot, 1, at) : grf_new_keys(c, slot, 1, new_row))
            + offset;
        at = grf_max64(at, end);
    }
    return first;
}

/* Rows of one span and a block of their heads. */
static void grf_attend_together(griffin_context *c, const grf_op *op, int64_t row, int64_t count,
                                int64_t block) {
    const griffin_model *m = c->model;
    const grf_layout *l = &m->layout;
    int64_t kv = block / l->head_blocks, in_group = block % l->head_blocks * l->head_block;
    int64_t h, from = kv * l->heads_per_kv + in_group, start;
    int64_t to = from + grf_min64(l->head_block, l->heads_per_kv - in_group);
    grf_attention a;
    a.head_dim = m->info.config.head_dim;
    a.head = l->head;
    a.type = l->kv_type;
    a.stride = l->kv_row;
    a.queries = 0;
    start = grf_visible_keys(c, op->slot, row, count, kv * l->head * l->kv_size, &a);
    for (; count > 0; count--, row++)
        for (h = from; h < to; h++) {
            grf_query *q = a.query + a.queries++;
            q->q     = grf_row(c, op->from, row) + h * l->head;
            q->out   = grf_row(c, op->to, row) + h * a.head_dim;
            q->score = c->score + (row * m->info.config.heads + h) * grf_score_keys(m);
            q->end   = grf_position(c, row) + 1 - start;
            q->first = grf_max64(0, q->end - m->info.attn_keys);
        }
    m->kernels->attend(&a);
}

/* Rows that may share keys. */
static int64_t grf_attend_rows(const griffin_context *c) {
    return grf_max64(1, grf_min64(GRF_ATTEND_ROWS, c->rows / c->spans));
}

/* An item is some rows and a block of their heads. */
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

/* ================================================================= >>steps
 * The executor. Every operation is cut into pieces of about GRF_PIECE bytes of weights read, or as
 * much other work; a piece is also the unit of griffin_advance. How it is cut, and who does a piece
 * when, has no influence on any bit of the result. */

static int64_t grf_linear_tiles(const grf_op *op) {
    int64_t tiles = 0;
    int i;
    if (op->kind == GRF_GATED) return op->output[0].w->tiles;
    for (i = 0; i < op->outputs; i++) tiles += op->output[i].w->tiles;
    return tiles;
}

static int64_t grf_items(const griffin_context *c, const grf_op *op) {
    const grf_layout *l = &c->model->layout;
    switch (op->kind) {
    case GRF_LINEAR: case GRF_GATED: return grf_rows(c, op) ? grf_linear_tiles(op) : 0;
    case GRF_CONV: case GRF_RGLRU:   return l->lane / 16;
    case GRF_ATTEND: return (c->rows + grf_attend_rows(c) - 1) / grf_attend_rows(c)
                          * c->model->info.config.kv_heads * l->head_blocks;
    default:                         return grf_rows(c, op);
    }
}

/* What an item costs, in bytes of weights read from memory in the same time (roughly). */
static int64_t grf_item_cost(const griffin_context *c, const grf_op *op) {
    const grf_layout *l = &c->model->layout;
    int64_t bytes;
    switch (op->kind) {
    case GRF_LINEAR: case GRF_GATED:
        bytes = (int64_t)op->output[0].w->tile_bytes * (op->kind == GRF_GATED ? 2 : 1);
        return bytes + bytes * grf_rows(c, op) / 8;
    case GRF_CONV:   return (int64_t)c->rows * 256;
    case GRF_RGLRU:  return (int64_t)c->rows * 1024;
    case GRF_ATTEND: return grf_score_keys(c->model) * l->head * l->head_block * 2
                          * grf_attend_rows(c);
    case GRF_EMBED:  return l->width[GRF_X] * 32;
    default:         return l->width[op->from] * 12;    /* as a norm that quantises, measured */
    }
}

static int64_t grf_pieces(const griffin_context *c, const grf_op *op) {
    int64_t items = grf_items(c, op), cost = grf_item_cost(c, op);
    int64_t per_piece = grf_max64(1, GRF_PIECE / grf_max64(1, cost));
    return (items + per_piece - 1) / per_piece;
}

typedef struct grf_piece_run { griffin_context *context; int64_t first; } grf_piece_run;

static void grf_run_piece(void *data, int index) {
    const grf_piece_run *run = (const grf_piece_run *)data;
    griffin_context *c = run->context;
    const grf_op *op = c->model->ops + c->op;
    int64_t items = grf_items(c, op), pieces = grf_pieces(c, op), piece = run->first + index;
    int64_t from = piece * items / pieces, to = (piece + 1) * items / pieces;
    switch (op->kind) {
    case GRF_EMBED:    grf_run_embed   (c, op, from, to); break;
    case GRF_NORM:     grf_run_norm    (c, op, from, to); break;
    case GRF_QUANTISE: grf_run_quantise(c, op, from, to); break;
    case GRF_LINEAR:   grf_run_linear  (c, op, from, to); break;
    case GRF_GATED:    grf_run_gated   (c, op, from, to); break;
    case GRF_CONV:     grf_run_conv    (c, op, from, to); break;
    case GRF_RGLRU:    grf_run_rglru   (c, op, from, to); break;
    case GRF_ROPE:     grf_run_rope    (c, op, from, to); break;
    case GRF_ATTEND:   grf_run_attend  (c, op, from, to); break;
    }
}

#ifdef GRF_OPENMP
/* A crew is the threads of one griffin_advance. The caller's thread leads: it walks through the
 * program and deals out the pieces of each operation in runs, one for each lane, so that a thread
 * reads one stretch of weights. A thread takes the pieces of its own lane and then what is left in
 * others. The leader waits for the pieces that are still being worked on, not for threads: one that
 * lost its processor with empty hands holds up nobody.
 *
 * ticket: the next piece in its upper half, their end in the lower. A thread that takes one too
 * many leaves without harm, since the end it compares with came with the number. */
#define GRF_LANES 32

struct grf_lane { uint64_t ticket, apart[7]; };     /* in a cache line of its own */
struct grf_crew { uint64_t done, home; int lanes; struct grf_lane lane[GRF_LANES]; };

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

static void grf_take_pieces(griffin_context *c, struct grf_lane *lane) {
    struct grf_crew *crew = c->crew;
    grf_piece_run run;
    run.context = c;
    run.first = 0;
    for (;;) {
        uint64_t ticket;
        #pragma omp atomic capture seq_cst
        { ticket = lane->ticket; lane->ticket += (uint64_t)1 << 32; }
        if (ticket >> 32 >= (ticket & 0xffffffffu)) return;
        grf_run_piece(&run, (int)(ticket >> 32));
        #pragma omp atomic seq_cst
        crew->done += 1;
    }
}

static void grf_take_lanes(griffin_context *c, int own) {
    struct grf_crew *crew = c->crew;
    int i;
    for (i = 0; i < crew->lanes; i++) grf_take_pieces(c, crew->lane + (own + i) % crew->lanes);
}

static void grf_lead(griffin_context *c, int64_t first, int count) {
    struct grf_crew *crew = c->crew;
    uint64_t done = 0;
    int spins = 0, i;
    #pragma omp atomic write seq_cst
    crew->done = 0;
    for (i = 0; i < crew->lanes; i++) {
        int64_t from = first + (int64_t)count * i / crew->lanes;
        int64_t end = first + (int64_t)count * (i + 1) / crew->lanes;
        #pragma omp atomic write seq_cst
        crew->lane[i].ticket = (uint64_t)from << 32 | (uint64_t)end;
    }
    grf_take_lanes(c, 0);
    while (done < (uint64_t)count) {
        grf_pause(&spins);
        #pragma omp atomic read seq_cst
        done = crew->done;
    }
}

static void grf_follow(griffin_context *c, int thread) {
    struct grf_crew *crew = c->crew;
    uint64_t ticket, home = 0;
    int own = thread % crew->lanes, spins = 0;
    while (!home) {
        #pragma omp atomic read seq_cst
        ticket = crew->lane[own].ticket;
        if (ticket >> 32 < (ticket & 0xffffffffu)) { grf_take_lanes(c, own); spins = 0; }
        grf_pause(&spins);
        #pragma omp atomic read seq_cst
        home = crew->home;
    }
}
#endif

/* Pieces [first, first + count) of the current operation, on whatever threads there are. */
static void grf_run_pieces(griffin_context *c, int64_t first, int count) {
    grf_piece_run run;
    int i;
#ifdef GRF_OPENMP
    if (count > 1 && c->crew) { grf_lead(c, first, count); return; }
#endif
    run.context = c;
    run.first = first;
    if (count > 1 && c->jobs.run) c->jobs.run(grf_run_piece, &run, count, c->jobs.user);
    else for (i = 0; i < count; i++) grf_run_piece(&run, i);
}

/* At most `units` pieces from where the pass stands. */
static void grf_run_units(griffin_context *c, int64_t units) {
    while (units > 0 && c->op < c->model->n_ops) {
        int64_t pieces = grf_pieces(c, c->model->ops + c->op);
        int now = (int)grf_min64(pieces - c->piece, units);
        if (now > 0) grf_run_pieces(c, c->piece, now);
        units -= now;
        c->piece += now;
        if (c->piece == pieces) { c->op++; c->piece = 0; }
    }
    while (c->op < c->model->n_ops && grf_pieces(c, c->model->ops + c->op) == 0) c->op++;
}

#ifdef GRF_OPENMP
/* Pieces that threads could share among the next `units`. */
static int64_t grf_shared_units(const griffin_context *c, int64_t units) {
    int64_t shared = 0, pieces;
    int i;
    for (i = c->op; i < c->model->n_ops && units > 0; i++, units -= pieces) {
        pieces = grf_pieces(c, c->model->ops + i);
        if (pieces > 1) shared += grf_min64(pieces, units);
    }
    return shared;
}

static int grf_run_with_crew(griffin_context *c, int64_t units) {
    int width = c->jobs.width > 0 ? c->jobs.width : omp_get_max_threads();
    struct grf_crew crew;
    if (c->jobs.run || width < 2 || grf_shared_units(c, units) < GRF_WORTH_WAKING) return 0;
    memset(&crew, 0, sizeof crew);
    crew.lanes = width < GRF_LANES ? width : GRF_LANES;
    c->crew = &crew;
    #pragma omp parallel num_threads(width)
    {
        if (omp_get_thread_num() == 0) {
            grf_run_units(c, units);
            #pragma omp atomic write seq_cst
            crew.home = 1;
        } else {
            grf_follow(c, omp_get_thread_num());
        }
    }
    c->crew = NULL;
    return 1;
}
#endif

/* Where a state keeps what its history was at an earlier position. */
static uint64_t *grf_past(const griffin_model *m, griffin_state *s, int64_t position) {
    return (uint64_t *)(void *)((unsigned char *)s + m->layout.past) + position % m->layout.rewind;
}

static uint64_t grf_next_history(uint64_t history, int32_t token) {
    history = (history ^ (uint64_t)(uint32_t)token) + 0x9e3779b97f4a7c15u;
    history = (history ^ history >> 30) * 0xbf58476d1ce4e5b9u;
    return history ^ history >> 27;
}

/* The pass is complete: only now do states change. */
static void grf_commit(griffin_context *c) {
    const griffin_model *m = c->model;
    const grf_layout *l = &m->layout;
    int span, slot, which, t;
    for (span = 0; span < c->spans; span++) {
        const grf_flight *f = c->flight + span;
        griffin_state *s = f->state;
        memcpy((float *)(s + 1), c->recurrent + span * l->recurrent_floats,
               (size_t)l->recurrent_floats * 4);
        for (slot = 0; slot < l->attention_layers; slot++)
            for (which = 0; which < 2; which++)
                for (t = 0; t < f->count; t++)
                    memcpy(grf_ring(m, s, slot, which, f->position + t),
                           grf_new_keys(c, slot, which, f->first + t), (size_t)l->kv_row);
        s->tag = l->tag;
        for (t = 0; t < f->count; t++) {
            *grf_past(m, s, s->position++) = s->history;
            s->history = grf_next_history(s->history, c->token[f->first + t]);
        }
        s->oldest = grf_max64(s->oldest, s->position - l->rewind);
    }
    c->spans = 0;
}

/* ---- checking arguments, once, before anything happens ----------------------------------- */

static int grf_check_state(const griffin_model *m, const griffin_state *s) {
    if (!s) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the state is null");
    if (s->tag == 0 && s->position == 0) return GRIFFIN_OK;
    if (s->tag != m->layout.tag || s->position <= 0)
        return grf_fail(&m->host, GRIFFIN_E_MISMATCH,
                        "the state belongs to another model or other options, or is damaged");
    return GRIFFIN_OK;
}

static int grf_check_span(const griffin_model *m, const griffin_span *span) {
    int i, error = grf_check_state(m, span->state);
    if (error) return error;
    if (!span->tokens || span->count < 1)
        return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "a span needs at least one token");
    for (i = 0; i < span->count; i++)
        if (span->tokens[i] < 0 || span->tokens[i] >= m->info.config.vocab)
            return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "token %d at %d is not in 0 .. %d",
                            span->tokens[i], i, m->info.config.vocab - 1);
    return GRIFFIN_OK;
}

static int grf_check_spans(const griffin_context *c, const griffin_span *spans, int count) {
    int i, j, error;
    if (!c) return GRIFFIN_E_ARGUMENT;
    if (!spans || count < 1) return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT, "no spans");
    for (i = 0; i < count; i++) {
        error = grf_check_span(c->model, spans + i);
        if (error) return error;
        for (j = 0; j < i; j++)
            if (spans[j].state == spans[i].state)
                return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT,
                                "spans %d and %d share a state", j, i);
    }
    return GRIFFIN_OK;
}

/* Puts tokens [done, done + count) of a span in flight. */
static void grf_board(griffin_context *c, const griffin_span *span, int done, int count) {
    grf_flight *f = c->flight + c->spans;
    int i, row;
    f->state = span->state;
    f->position = span->state->position;
    f->history = span->state->history;
    f->first = c->rows;
    f->count = count;
    for (i = done; i < done + count; i++) {
        row = c->rows++;
        c->token[row] = span->tokens[i];
        c->span_of[row] = c->spans;
        if (!span->logits || (!span->all_logits && i != span->count - 1)) continue;
        c->wanted[c->n_wanted].row = row;
        c->wanted[c->n_wanted++].logits =
            span->logits + (span->all_logits ? (int64_t)i * c->model->info.config.vocab : 0);
    }
    c->spans++;
}

static void grf_clear_flight(griffin_context *c) {
    c->spans = c->rows = c->n_wanted = c->op = 0;
    c->piece = 0;
}

static int grf_units_left(const griffin_context *c) {
    int64_t units = -c->piece;
    int i;
    if (c->spans == 0) return 0;
    for (i = c->op; i < c->model->n_ops; i++) units += grf_pieces(c, c->model->ops + i);
    return (int)grf_min64(units, INT_MAX);
}

/* A state that was replaced or stepped since griffin_begin would get a commit of another past. */
static int grf_check_flight(const griffin_context *c) {
    int i;
    for (i = 0; i < c->spans; i++) {
        const grf_flight *f = c->flight + i;
        if (f->state->position != f->position || f->state->history != f->history)
            return grf_fail(&c->model->host, GRIFFIN_E_MISMATCH,
                            "a state in flight was changed; begin again");
    }
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_begin(griffin_context *c, const griffin_span *spans, int count) {
    int64_t rows = 0;
    int i, error = grf_check_spans(c, spans, count);
    if (error) return error;
    for (i = 0; i < count; i++) rows += spans[i].count;
    if (rows > c->max_rows || count > c->max_spans)
        return grf_fail(&c->model->host, GRIFFIN_E_SPACE,
                        "%u tokens in %d spans; the context has room for %d in %d",
                        (uint64_t)rows, count, c->max_rows, c->max_spans);
    grf_clear_flight(c);
    for (i = 0; i < count; i++) grf_board(c, spans + i, 0, spans[i].count);
    return grf_units_left(c);
}

GRIFFIN_API int griffin_advance(griffin_context *c, int units) {
    int error;
    if (!c) return GRIFFIN_E_ARGUMENT;
    if (units < 0) return grf_fail(&c->model->host, GRIFFIN_E_ARGUMENT, "%d units", units);
    if (c->spans == 0) return 0;
    error = grf_check_flight(c);
    if (error) { grf_clear_flight(c); return error; }
#ifdef GRF_OPENMP
    if (!grf_run_with_crew(c, units))
#endif
    grf_run_units(c, units);
    if (c->op == c->model->n_ops) grf_commit(c);
    return grf_units_left(c);
}

GRIFFIN_API const char *griffin_unit_name(const griffin_context *c) {
    static const char *const names[] = {    /* in the order of grf_kind */
        "embed", "norm", "quantise", "linear", "gated", "conv", "rglru", "rope", "attend"
    };
    return c && c->spans ? names[c->model->ops[c->op].kind] : NULL;
}

/* As many passes as it takes; each fills the rows of the context from the spans in order. */
GRIFFIN_API int griffin_run(griffin_context *c, const griffin_span *spans, int count) {
    int at = 0, done = 0, error = grf_check_spans(c, spans, count);
    if (error) return error;
    while (at < count) {
        grf_clear_flight(c);
        while (at < count && c->spans < c->max_spans && c->rows < c->max_rows) {
            int now = (int)grf_min64(spans[at].count - done, c->max_rows - c->rows);
            grf_board(c, spans + at, done, now);
            done += now;
            if (done < spans[at].count) break;
            done = 0;
            at++;
        }
        error = griffin_advance(c, INT_MAX);
        if (error) return error;
    }
    return GRIFFIN_OK;
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

/* ================================================================= >>state
 * Marks, and states for disks and networks. */

GRIFFIN_API size_t griffin_state_size(const griffin_model *model) {
    return model && model->info.state_bytes <= (size_t)-1 ? (size_t)model->info.state_bytes : 0;
}

GRIFFIN_API int64_t griffin_state_position(const griffin_state *state) {
    return state ? state->position : 0;
}

/* ---- marks: the start of a state up to the rings, but with a tag even if it is fresh --------- */

GRIFFIN_API size_t griffin_mark_size(const griffin_model *model) {
    return model && model->info.mark_bytes <= (size_t)-1 ? (size_t)model->info.mark_bytes : 0;
}

GRIFFIN_API int griffin_mark(const griffin_model *m, const griffin_state *state, void *mark) {
    int error;
    if (!m) return GRIFFIN_E_ARGUMENT;
    if (!mark) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "mark: there is no room for it");
    error = grf_check_state(m, state);
    if (error) return error;
    memcpy(mark, state, griffin_mark_size(m));
    memcpy(mark, &m->layout.tag, sizeof m->layout.tag);
    return GRIFFIN_OK;
}

static int grf_check_mark(const griffin_model *m, griffin_state *s, const griffin_state *mark) {
    const char *why = NULL;
    if (mark->tag != m->layout.tag) why = "it belongs to another model or other options";
    else if (mark->position > s->position) why = "the state has not been there";
    else if (mark->position < s->oldest) why = "that is too long ago";
    else if (mark->history != (mark->position == s->position
                                   ? s->history : *grf_past(m, s, mark->position)))
        why = "the state continues another text";
    if (!why) return GRIFFIN_OK;
    return grf_fail(&m->host, GRIFFIN_E_MISMATCH, "a mark at %u does not fit a state at %u: %s",
                    (uint64_t)mark->position, (uint64_t)s->position, why);
}

/* Keys and values need nothing: those of the tokens taken back are out of sight and overwritten in
 * time. The state does not get younger by it: what its rings lost stays lost. */
GRIFFIN_API int griffin_rewind(const griffin_model *m, griffin_state *state, const void *mark) {
    griffin_state to;
    int error;
    if (!m) return GRIFFIN_E_ARGUMENT;
    if (!mark) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "rewind: the mark is null");
    error = grf_check_state(m, state);
    if (error) return error;
    memcpy(&to, mark, sizeof to);
    error = grf_check_mark(m, state, &to);
    if (error) return error;
    to.oldest = state->oldest;
    if (to.position == 0) to.tag = 0;
    memcpy(state, mark, griffin_mark_size(m));
    *state = to;
    return GRIFFIN_OK;
}

/* ---- saved sequences ---------------------------------------------------------------------------
 * All little-endian. A ring is saved as far as the next token sees it, so that a state that was
 * rewound has the same bytes as one that never went astray.
 *
 *     0   8 bytes  "GRIFSTAT"
 *     8   u32      version, 2
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

#define GRF_SAVE_VERSION 2
#define GRF_SAVE_HEADER 48
#define GRF_SAVED_SAMPLER (36 + 4 * GRIFFIN_RECENT)
#define GRF_SAVED_DECODER 8

enum { GRF_HAS_SAMPLER = 1, GRF_HAS_DECODER = 2 };

/* Rows of a ring half that the token after `position` others sees. */
static int64_t grf_saved_rows(const griffin_model *m, int64_t position) {
    return grf_min64(position, m->info.attn_keys - 1);
}

static int64_t grf_saved_pieces(const griffin_model *m, int64_t position) {
    return position ? 1 + 2 * m->layout.attention_layers * grf_saved_rows(m, position) : 0;
}

static int64_t grf_saved_bytes(const griffin_model *m, int64_t position) {
    const grf_layout *l = &m->layout;
    if (position == 0) return 0;
    return 4 * l->recurrent_floats + (grf_saved_pieces(m, position) - 1) * l->kv_row;
}

static int64_t grf_save_size(int64_t bytes, int parts) {
    return GRF_SAVE_HEADER + bytes + (parts & GRF_HAS_SAMPLER ? GRF_SAVED_SAMPLER : 0)
         + (parts & GRF_HAS_DECODER ? GRF_SAVED_DECODER : 0) + 8;
}

/* The first piece is the recurrent part, the others are rows. Returns how many bytes. */
static int64_t grf_saved_piece(const griffin_model *m, griffin_state *s, int64_t i,
                               uint8_t **piece) {
    int64_t rows = grf_saved_rows(m, s->position), ring;
    *piece = (uint8_t *)(s + 1);
    if (i-- == 0) return 4 * m->layout.recurrent_floats;
    ring = i / rows;
    *piece = grf_ring(m, s, (int)(ring / 2), (int)(ring % 2), s->position - rows + i % rows);
    return m->layout.kv_row;
}

static void grf_copy_ordered(uint8_t *to, const uint8_t *from, int64_t bytes, int size) {
    int64_t i;
    memcpy(to, from, (size_t)bytes);
    for (i = 0; GRF_BIG_ENDIAN && i < bytes; i += size) grf_native_order(to + i, size);
}

static uint8_t *grf_save_state(const griffin_model *m, griffin_state *s, int parts, uint8_t *p) {
    int64_t i, n;
    uint8_t *piece;
    memcpy(p, "GRIFSTAT", 8);
    grf_put_u32(p + 8, GRF_SAVE_VERSION);
    grf_put_u32(p + 12, (uint32_t)parts);
    grf_put_u64(p + 16, s->tag ? m->layout.saved_tag : 0);
    grf_put_u64(p + 24, (uint64_t)s->position);
    grf_put_u64(p + 32, s->history);
    grf_put_u64(p + 40, (uint64_t)grf_saved_bytes(m, s->position));
    p += GRF_SAVE_HEADER;
    for (i = 0; i < grf_saved_pieces(m, s->position); i++, p += n) {
        n = grf_saved_piece(m, s, i, &piece);
        grf_copy_ordered(p, piece, n, i ? m->layout.kv_size : 4);
    }
    return p;
}

static const uint8_t *grf_load_state(const griffin_model *m, griffin_state *s, const uint8_t *p) {
    int64_t i, n;
    uint8_t *piece;
    memset(s, 0, griffin_state_size(m));
    s->position = s->oldest = (int64_t)grf_get_u64(p + 24);
    s->tag = s->position ? m->layout.tag : 0;
    s->history = grf_get_u64(p + 32);
    p += GRF_SAVE_HEADER;
    for (i = 0; i < grf_saved_pieces(m, s->position); i++, p += n) {
        n = grf_saved_piece(m, s, i, &piece);
        grf_copy_ordered(piece, p, n, i ? m->layout.kv_size : 4);
    }
    return p;
}

static uint8_t *grf_save_sampler(const griffin_sampler *s, uint8_t *p) {
    int i;
    grf_put_u64(p, s->seed);
    grf_put_u32(p + 8,  grf_bits_from_float(s->temperature));
    grf_put_u32(p + 12, grf_bits_from_float(s->top_p));
    grf_put_u32(p + 16, grf_bits_from_float(s->min_p));
    grf_put_u32(p + 20, (uint32_t)s->top_k);
    grf_put_u32(p + 24, grf_bits_from_float(s->repeat_penalty));
    grf_put_u32(p + 28, (uint32_t)s->repeat_last);
    grf_put_u32(p + 32, s->accepted);
    for (i = 0; i < GRIFFIN_RECENT; i++) grf_put_u32(p + 36 + 4 * i, (uint32_t)s->recent[i]);
    return p + GRF_SAVED_SAMPLER;
}

/* Whatever the numbers are: griffin_sample looks at them at every call. */
static void grf_load_sampler(griffin_sampler *s, const uint8_t *p) {
    int i;
    s->seed = grf_get_u64(p);
    s->temperature    = grf_get_f32(p + 8);
    s->top_p          = grf_get_f32(p + 12);
    s->min_p          = grf_get_f32(p + 16);
    s->top_k          = (int)grf_get_u32(p + 20);
    s->repeat_penalty = grf_get_f32(p + 24);
    s->repeat_last    = (int)grf_get_u32(p + 28);
    s->accepted       = grf_get_u32(p + 32);
    for (i = 0; i < GRIFFIN_RECENT; i++) s->recent[i] = (int32_t)grf_get_u32(p + 36 + 4 * i);
}

GRIFFIN_API int64_t griffin_save(const griffin_model *m, const griffin_state *state,
                                 const griffin_sampler *sampler, const griffin_decoder *decoder,
                                 void *data, size_t capacity) {
    int parts = (sampler ? GRF_HAS_SAMPLER : 0) | (decoder ? GRF_HAS_DECODER : 0), error;
    uint8_t *start = (uint8_t *)data, *p;
    int64_t size;
    if (!m) return GRIFFIN_E_ARGUMENT;
    error = grf_check_state(m, state);
    if (error) return error;
    size = grf_save_size(grf_saved_bytes(m, state->position), parts);
    if (!data) return size;
    if ((uint64_t)size > capacity)
        return grf_fail(&m->host, GRIFFIN_E_SPACE, "save: %u bytes given, %u needed",
                        (uint64_t)capacity, (uint64_t)size);
    p = grf_save_state(m, (griffin_state *)(uintptr_t)state, parts, start);
    if (sampler) p = grf_save_sampler(sampler, p);
    if (decoder) { memcpy(p, decoder, GRF_SAVED_DECODER); p += GRF_SAVED_DECODER; }
    grf_put_u64(p, grf_hash(GRF_HASH_START, start, (size_t)(p - start)));
    return size;
}

static int grf_check_save(const griffin_model *m, const uint8_t *p, size_t size) {
    uint64_t position, bytes;
    if (size < GRF_SAVE_HEADER + 8 || memcmp(p, "GRIFSTAT", 8) != 0)
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: not a saved state");
    if (grf_get_u32(p + 8) != GRF_SAVE_VERSION)
        return grf_fail(&m->host, GRIFFIN_E_VERSION, "load: version %u of the format, expected %d",
                        (uint64_t)grf_get_u32(p + 8), GRF_SAVE_VERSION);
    if (grf_get_u64(p + size - 8) != grf_hash(GRF_HASH_START, p, size - 8))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT,
                        "load: the checksum does not match, the bytes are damaged or cut");
    position = grf_get_u64(p + 24);
    if (position > INT64_MAX / 2 || (position == 0) != (grf_get_u64(p + 16) == 0))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: position %u is not possible", position);
    if (position && grf_get_u64(p + 16) != m->layout.saved_tag)
        return grf_fail(&m->host, GRIFFIN_E_MISMATCH,
                        "load: saved with another model, or other attn_keys or kv_type");
    bytes = (uint64_t)grf_saved_bytes(m, (int64_t)position);
    if (grf_get_u64(p + 40) != bytes || grf_get_u32(p + 12) > (GRF_HAS_SAMPLER | GRF_HAS_DECODER)
        || size != (uint64_t)grf_save_size((int64_t)bytes, (int)grf_get_u32(p + 12)))
        return grf_fail(&m->host, GRIFFIN_E_FORMAT, "load: %u bytes do not fit what they hold",
                        (uint64_t)size);
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_load(const griffin_model *m, griffin_state *state,
                             griffin_sampler *sampler, griffin_decoder *decoder,
                             const void *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    int error, has;
    if (!m) return GRIFFIN_E_ARGUMENT;
    if (!state || !data) return grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "load: a pointer is null");
    error = grf_check_save(m, p, size);
    if (error) return error;
    has = (int)grf_get_u32(p + 12);
    if ((sampler && !(has & GRF_HAS_SAMPLER)) || (decoder && !(has & GRF_HAS_DECODER)))
        return grf_fail(&m->host, GRIFFIN_E_MISMATCH, "load: saved without a %s",
                        sampler && !(has & GRF_HAS_SAMPLER) ? "sampler" : "decoder");
    p = grf_load_state(m, state, p);
    if (sampler) grf_load_sampler(sampler, p);
    if (has & GRF_HAS_SAMPLER) p += GRF_SAVED_SAMPLER;
    if (decoder) memcpy(decoder, p, GRF_SAVED_DECODER);
    return GRIFFIN_OK;
}

/* ================================================================= >>sampler
 * From logits to a token. The vocabulary is never sorted: the entries to keep are found by
 * counting, eight bits of their keys at a time. */

static double grf_uniform(uint64_t *seed) {                 /* splitmix64, to [0, 1) */
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * (1.0 / 9007199254740992.0);
}

/* Keeps the fewest entries whose weights reach `target` and sets the others to `none`: the
 * greatest first, among equals the lowest index first. An entry weighs 1, or what it is. */
static void grf_keep(float *x, int n, double target, int by_value, float none) {
    double weights[256], above = 0;         /* above: of what is surely kept */
    uint32_t threshold = 0;
    int shift, bucket, i;
    for (shift = 24; shift >= 0; shift -= 8) {
        for (bucket = 0; bucket < 256; bucket++) weights[bucket] = 0;
        for (i = 0; i < n; i++) {
            uint32_t key = grf_float_key(x[i]);
            if (shift < 24 && (key ^ threshold) >> (shift + 8)) continue;
            weights[key >> shift & 255] += by_value ? (double)x[i] : 1;
        }
        for (bucket = 255; bucket > 0 && above + weights[bucket] < target; bucket--) {
            above += weights[bucket];
        }
        threshold |= (uint32_t)bucket << shift;
    }
    for (i = 0; i < n; i++) {
        uint32_t key = grf_float_key(x[i]);
        if (key > threshold) continue;
        if (key == threshold && above < target) above += by_value ? (double)x[i] : 1;
        else x[i] = none;
    }
}

static int grf_sampler_ok(const griffin_sampler *s) {       /* false for every NaN */
    return s->temperature >= 0 && s->temperature < INFINITY
        && s->top_p >= 0 && s->top_p <= 1 && s->min_p >= 0 && s->min_p <= 1
        && s->repeat_penalty >= 0 && s->repeat_penalty < INFINITY
        && s->top_k >= 0 && s->repeat_last >= 0 && s->repeat_last <= GRIFFIN_RECENT
        && s->bias_count >= 0 && (s->biases || !s->bias_count);
}

static int grf_biases_ok(const griffin_model *model, const griffin_sampler *s) {
    int i, n = model->info.config.vocab;
    for (i = 0; i < s->bias_count; i++) {
        const griffin_bias *b = &s->biases[i];
        if (b->token < 0 || b->token >= n || !(b->bias >= -INFINITY)) {
            return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "griffin_sample: biases[%d] is NaN, "
                            "or its token %d not one of %d", i, (int)b->token, n);
        }
    }
    return GRIFFIN_OK;
}

/* The sum of opposite infinities is NaN, which counts as banned. */
static int grf_control(const griffin_sampler *s, float *logits, int n) {
    int i;
    for (i = 0; i < s->bias_count; i++) logits[s->biases[i].token] += s->biases[i].bias;
    return s->mask ? s->mask(logits, n, s->mask_user) : GRIFFIN_OK;
}

/* Keskar et al. 2019 (CTRL): a token that was there lately becomes less likely, once. */
static void grf_penalise(const griffin_sampler *s, float *logits, int n) {
    uint32_t last = s->repeat_last ? (uint32_t)s->repeat_last : GRIFFIN_RECENT, i, k;
    if (last > s->accepted) last = s->accepted;
    for (i = 1; i <= last; i++) {
        int32_t token = s->recent[(s->accepted - i) % GRIFFIN_RECENT];
        for (k = 1; k < i && s->recent[(s->accepted - k) % GRIFFIN_RECENT] != token; k++) { }
        if (k < i || token < 0 || token >= n) continue;
        if (logits[token] > 0) logits[token] /= s->repeat_penalty;
        else logits[token] *= s->repeat_penalty;
    }
}

/* The lowest index of the greatest. NaN counts as minus infinity, and becomes it. */
static int grf_best(float *x, int n) {
    float top = -INFINITY;
    int i, best = 0;
    for (i = 0; i < n; i++) {
        float value = x[i] >= -INFINITY ? x[i] : -INFINITY;
        x[i] = value;
        if (value > top) { top = value; best = i; }
    }
    return best;
}

/* Logits to weights, of which the greatest is 1. An infinite logit leaves only its equals. */
static void grf_weigh(const griffin_model *model, float temperature, float best, float *x, int n) {
    int i;
    for (i = 0; i < n; i++) {
        x[i] = best == INFINITY ? (x[i] == best ? 0 : -INFINITY) : (x[i] - best) / temperature;
    }
    model->kernels->exp_shifted(x, x, 0, n);
}

static double grf_sum(const float *x, int n) {
    double sum = 0;
    int i;
    for (i = 0; i < n; i++) sum += x[i];
    return sum;
}

static int grf_draw(const float *weights, int n, uint64_t *seed) {
    double at = grf_uniform(seed) * grf_sum(weights, n), sum = 0;
    int i, last = 0;
    for (i = 0; i < n && sum <= at; i++) {
        if (weights[i] > 0) last = i;
        sum += weights[i];
    }
    return last;
}

static int grf_choose(const griffin_model *model, griffin_sampler *s, float *logits, int n) {
    int best = grf_best(logits, n), i;
    float least;
    if (s->repeat_penalty > 0) {
        grf_penalise(s, logits, n);
        best = grf_best(logits, n);
    }
    if (logits[best] == -INFINITY) return -1;
    if (s->temperature <= 0) return best;
    if (s->top_k > 0 && s->top_k < n) grf_keep(logits, n, s->top_k, 0, -INFINITY);
    grf_weigh(model, s->temperature, logits[best], logits, n);
    if (s->top_p > 0 && s->top_p < 1) grf_keep(logits, n, s->top_p * grf_sum(logits, n), 1, 0);
    least = s->min_p * logits[best];
    for (i = 0; i < n; i++) {
        if (logits[i] < least) logits[i] = 0;
    }
    return grf_draw(logits, n, &s->seed);
}

GRIFFIN_API void griffin_accept(griffin_sampler *sampler, int32_t token) {
    if (!sampler) return;
    sampler->recent[sampler->accepted++ % GRIFFIN_RECENT] = token;
    if (sampler->accepted == 0) sampler->accepted = GRIFFIN_RECENT;     /* 2^32 is a whole turn */
}

GRIFFIN_API int32_t griffin_sample(const griffin_model *model, griffin_sampler *sampler,
                                   float *logits) {
    int32_t token;
    int error;
    if (!model) return GRIFFIN_E_ARGUMENT;
    if (!sampler || !logits || !grf_sampler_ok(sampler)) {
        return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "griffin_sample: a field of the sampler "
                        "is out of range, or a pointer null");
    }
    error = grf_biases_ok(model, sampler);
    if (!error) error = grf_control(sampler, logits, model->info.config.vocab);
    if (error < 0) return error;
    token = grf_choose(model, sampler, logits, model->info.config.vocab);
    if (token < 0) {
        return grf_fail(&model->host, GRIFFIN_E_NO_TOKEN, "griffin_sample: every logit is minus "
                        "infinity or not a number");
    }
    griffin_accept(sampler, token);
    return token;
}

/* ================================================================= >>formats
 * The number formats of weights in a file, and how to read them.
 *
 * A row of a tensor is a sequence of blocks; all numbers are little-endian and nothing is
 * aligned. h is an IEEE half. Elements of a block are x[0], x[1], ... ; j runs over 0 .. 15,
 * l over 0 .. 31. The sizes are in grf_formats below.
 *
 *   f32    float x
 *   f16    h x
 *   bf16   the upper two bytes of a float
 *
 *   q8_0   0: h d      2: i8 q[32]                        x[l] = q[l] d
 *   q4_0   0: h d                          2: u8 q[16]    x[j] = (v - 8) d
 *   q4_1   0: h d      2: h m              4: u8 q[16]    x[j] = v d + m
 *   q5_0   0: h d                2: u32 H  6: u8 q[16]    x[j] = (v - 16) d
 *   q5_1   0: h d      2: h m    4: u32 H  8: u8 q[16]    x[j] = v d + m
 *          v of element j is the low nibble of q[j], of element j + 16 its high nibble; in
 *          q5 bit i of H is worth 16 in the v of element i.
 *
 *   q4_k   0: h d      2: h dmin    4: u8 s[12]                  16: u8 q[128]
 *   q5_k   0: h d      2: h dmin    4: u8 s[12]    16: u8 H[32]  48: u8 q[128]
 *          Eight sub-blocks i of 32:  x[32 i + l] = (d scale(i)) v - (dmin min(i)).
 *          v is a nibble of q[32 (i / 2) + l], the low one for even i, the high one for odd;
 *          in q5_k bit i of H[l] adds 16. The 6-bit numbers scale(i) and min(i) lie in s:
 *              i < 4    scale = s[i] & 63                           min = s[i + 4] & 63
 *              i >= 4   scale = s[i + 4] & 15 | s[i - 4] >> 6 << 4
 *                                                      min = s[i + 4] >> 4 | s[i] >> 6 << 4
 *
 *   q6_k   0: u8 q[128]    128: u8 H[64]    192: i8 s[16]    208: h d
 *          Two halves of 128, each with 64 bytes of q, 32 of H and 8 of s. In a half the
 *          element e = 32 k + l has the low four bits of v in q[l + 32 (k & 1)], the low
 *          nibble for k < 2 and the high one otherwise; bits 2k and 2k + 1 of H[l] are its
 *          upper two:   x[e] = (d s[e / 16]) (v - 32).
 *
 * Decoding is the same bits on every compiler, also where it fuses a product with a sum: a
 * product of a half (11 bits), a scale (at most 7) and a code (at most 5 and a sign) fits into
 * the 24 bits of a float, so it is exact, and only the sum rounds. */

/* ---- blocks: each function decodes n of them, one after the other --------------- */

static void grf_decode_f32(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 4) *x++ = grf_get_f32(p);
}

static void grf_decode_f16(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 2) *x++ = grf_float_from_f16(grf_get_u16(p));
}

static void grf_decode_bf16(const uint8_t *p, float *x, uint64_t n) {
    for (; n; n--, p += 2) *x++ = grf_float_from_bf16(grf_get_u16(p));
}

static void grf_decode_q8_0(const uint8_t *p, float *x, uint64_t n) {
    int l;
    for (; n; n--, p += 34, x += 32) {
        float d = grf_float_from_f16(grf_get_u16(p));
        for (l = 0; l < 32; l++) x[l] = (float)(int8_t)p[2 + l] * d;
    }
}

/* q4_0, q4_1, q5_0, q5_1: the same parts in the same order, some of them absent. */
GRF_INLINE void grf_nibbles(const uint8_t *p, float *x, uint64_t n, int has_min,
                            int has_fifth) {
    int j, zero = has_min ? 0 : has_fifth ? 16 : 8;
    for (; n; n--, p += 16, x += 32) {
        float    d = grf_float_from_f16(grf_get_u16(p));
        float    m = has_min ? grf_float_from_f16(grf_get_u16(p + 2)) : 0;
        uint32_t fifth = 0;
        p += has_min ? 4 : 2;
        if (has_fifth) { fifth = grf_get_u32(p); p += 4; }
        for (j = 0; j < 16; j++) {
            int low  = (p[j] & 15) | (int)(fifth >> j & 1) << 4;
            int high = (p[j] >> 4) | (int)(fifth >> (j + 16) & 1) << 4;
            x[j]      = (float)(low - zero) * d;
            x[j + 16] = (float)(high - zero) * d;
        }
        if (has_min) for (j = 0; j < 32; j++) x[j] += m;    /* else -0 must stay -0 */
    }
}

static void grf_decode_q4_0(const uint8_t *p, float *x, uint64_t n) { grf_nibbles(p, x, n, 0, 0); }
static void grf_decode_q4_1(const uint8_t *p, float *x, uint64_t n) { grf_nibbles(p, x, n, 1, 0); }
static void grf_decode_q5_0(const uint8_t *p, float *x, uint64_t n) { grf_nibbles(p, x, n, 0, 1); }
static void grf_decode_q5_1(const uint8_t *p, float *x, uint64_t n) { grf_nibbles(p, x, n, 1, 1); }

/* Unpacks scale and minimum of sub-block i from the twelve bytes s of q4_k and q5_k. */
static void grf_k_scale(const uint8_t *s, int i, int *scale, int *min) {
    if (i < 4) {
        *scale = s[i] & 63;
        *min   = s[i + 4] & 63;
    } else {
        *scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
        *min   = (s[i + 4] >> 4) | (s[i] >> 6) << 4;
    }
}

/* q4_k and q5_k. */
GRF_INLINE void grf_k_blocks(const uint8_t *p, float *x, uint64_t n, int has_fifth) {
    int i, l, scale, min;
    for (; n; n--, p += has_fifth ? 176 : 144) {
        float d = grf_float_from_f16(grf_get_u16(p)), dmin = grf_float_from_f16(grf_get_u16(p + 2));
        for (i = 0; i < 8; i++) {
            const uint8_t *q = p + (has_fifth ? 48 : 16) + 32 * (i / 2);
            float step, base;
            grf_k_scale(p + 4, i, &scale, &min);
            step = d * (float)scale;
            base = dmin * (float)min;
            for (l = 0; l < 32; l++) {
                int v = q[l] >> 4 * (i & 1) & 15;
                if (has_fifth) v |= (p[16 + l] >> i & 1) << 4;
                *x++ = step * (float)v - base;
            }
        }
    }
}

static void grf_decode_q4_k(const uint8_t *p, float *x, uint64_t n) { grf_k_blocks(p, x, n, 0); }
static void grf_decode_q5_k(const uint8_t *p, float *x, uint64_t n) { grf_k_blocks(p, x, n, 1); }

static void grf_decode_q6_k(const uint8_t *p, float *x, uint64_t n) {
    int e;
    for (; n; n--, p += 210) {
        float d = grf_float_from_f16(grf_get_u16(p + 208));
        for (e = 0; e < 256; e++) {
            int half = e / 128, k = e / 32 % 4, l = e % 32;
            int low  = p[64 * half + 32 * (k & 1) + l] >> 4 * (k / 2) & 15;
            int high = p[128 + 32 * half + l] >> 2 * k & 3;
            float step = d * (float)(int8_t)p[192 + e / 16];
            *x++ = step * (float)((low | high << 4) - 32);
        }
    }
}

/* ---- all of them --------------------------------------------------------------- */

typedef struct grf_format {
    uint32_t    id;                         /* in GGUF */
    const char *name;
    uint32_t    block_elems, block_bytes;
    void      (*decode)(const uint8_t *blocks, float *x, uint64_t n);  /* null: no weights */
} grf_format;

static const grf_format grf_formats[] = {
    { GRF_F32,  "f32",     1,   4, grf_decode_f32 },
    { GRF_F16,  "f16",     1,   2, grf_decode_f16 },
    { GRF_BF16, "bf16",    1,   2, grf_decode_bf16 },
    { GRF_Q8_0, "q8_0",   32,  34, grf_decode_q8_0 },
    { GRF_Q4_0, "q4_0",   32,  18, grf_decode_q4_0 },
    { GRF_Q4_1, "q4_1",   32,  20, grf_decode_q4_1 },
    { GRF_Q5_0, "q5_0",   32,  22, grf_decode_q5_0 },
    { GRF_Q5_1, "q5_1",   32,  24, grf_decode_q5_1 },
    { GRF_Q4_K, "q4_k",  256, 144, grf_decode_q4_k },
    { GRF_Q5_K, "q5_k",  256, 176, grf_decode_q5_k },
    { GRF_Q6_K, "q6_k",  256, 210, grf_decode_q6_k },
    {  9, "q8_1",  32,  36, NULL }, { 10, "q2_k", 256,  84, NULL }, { 11, "q3_k", 256, 110, NULL },
    { 15, "q8_k", 256, 292, NULL }, { GRF_I8, "i8", 1, 1, NULL }, { 25, "i16",    1,   2, NULL },
    { 26, "i32",    1,   4, NULL }, { 27, "i64",    1,   8, NULL }, { 28, "f64",    1,   8, NULL }
};

/* Null for a number that means nothing here. */
static const grf_format *grf_format_find(uint32_t id) {
    int i;
    for (i = 0; i < GRF_COUNT(grf_formats); i++) {
        if (grf_formats[i].id == id) return &grf_formats[i];
    }
    return NULL;
}

/* The type can be decoded, and `elements` are whole blocks: grf_gguf_open has seen to both. */
static void grf_dequantise(uint32_t type, const uint8_t *blocks, float *out, uint64_t elements) {
    const grf_format *format = grf_format_find(type);
    format->decode(blocks, out, elements / format->block_elems);
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
 *     u32        number format (>>formats); ne[0] must be a whole number of blocks
 *     u64        offset of its data from the data section, a multiple of the alignment
 *
 *   zero bytes up to a multiple of the alignment, counted from the start of the file
 *   data section: the tensors at their offsets, rows of blocks; zero bytes fill the gaps
 *
 * Numbers are little-endian, and nothing before the data section is aligned. A text is a u64
 * length and so many bytes, without a zero at the end. Values:
 *
 *   0 u8   1 i8   2 u16   3 i16   4 u32   5 i32   6 f32   10 u64   11 i64   12 f64
 *   7 bool, one byte, 0 or 1      8 text
 *   9 array: u32 type of the elements, u64 count, then the bare elements; no arrays of arrays
 *
 * The alignment is the u32 of key general.alignment, a power of two from 8 to 65536, or 32 if
 * there is no such key. A writer puts tensors in the order of their infos, each padded to the
 * alignment; the reader takes any order without overlap, and no padding after the last.
 *
 * Everything is checked when a file is opened, before anyone sees a pointer into it. Afterwards
 * lengths, counts, types, shapes and offsets can be trusted. What is allocated is a small
 * multiple of the file's size at most, whatever the counts in it say. */

#define GRF_GGUF_ITEMS  65536               /* most tensors, and most metadata pairs */
#define GRF_GGUF_TEXT   ((uint64_t)1 << 30) /* bytes in the longest text */
#define GRF_GGUF_SIZE   ((uint64_t)1 << 40) /* in one dimension */
#define GRF_GGUF_ELEMS  ((uint64_t)1 << 48) /* in one tensor */

enum grf_value {
    GRF_VALUE_U8, GRF_VALUE_I8, GRF_VALUE_U16, GRF_VALUE_I16, GRF_VALUE_U32, GRF_VALUE_I32,
    GRF_VALUE_F32, GRF_VALUE_BOOL, GRF_VALUE_STRING, GRF_VALUE_ARRAY,
    GRF_VALUE_U64, GRF_VALUE_I64, GRF_VALUE_F64, GRF_VALUES
};

/* bytes: the fewest that one takes as the element of an array; 0 if it cannot be one. */
static const struct { const char *name; uint32_t bytes; } grf_values[GRF_VALUES] = {
    { "u8", 1 }, { "i8", 1 }, { "u16", 2 }, { "i16", 2 }, { "u32", 4 }, { "i32", 4 },
    { "f32", 4 }, { "bool", 1 }, { "string", 8 }, { "array", 0 },
    { "u64", 8 }, { "i64", 8 }, { "f64", 8 }
};

/* A single value is stored like an array of one: element_type is type and count is 1. */
typedef struct grf_kv {
    const char *key;
    uint64_t    key_length;
    uint32_t    type, element_type;
    uint64_t    count;
    uint64_t    offset;                     /* of element 0 in the file */
} grf_kv;

struct grf_tensor {
    const char *name;
    uint32_t    name_length;
    uint32_t    type;
    int         rank;
    uint64_t    ne[4];                      /* ne[0] runs fastest; 1 from ne[rank] on */
    uint64_t    offset, bytes;              /* in the file */
    uint64_t    elements;
};

struct grf_gguf {
    const uint8_t *data;                    /* the file; keys, names and texts point into it */
    uint64_t       size;
    uint32_t       version;
    uint64_t       n_kv, n_tensors;
    grf_kv        *kv;                      /* in the order of the file */
    grf_tensor    *tensors;
    const void   **kv_sorted;               /* by key */
    const void   **tensors_sorted;          /* by name */
    void          *memory;
};

/* ---- sorted pointers ----------------------------------------------------------- */

typedef int (*grf_compare)(const void *a, const void *b);   /* negative: a comes first */

/* Heapsort: no recursion, no memory, and no input makes it slow. First the items become a
 * heap, the greatest on top, from the last parent down to the root; then the top goes to the
 * end and the heap shrinks. */
static void grf_sort(const void **items, uint64_t count, grf_compare compare) {
    uint64_t start = count / 2, end = count, parent, child;
    while (end > 1) {
        const void *item;
        if (start > 0) {
            item = items[--start];
        } else {
            item = items[--end];
            items[end] = items[0];
        }
        for (parent = start; (child = 2 * parent + 1) < end; parent = child) {
            if (child + 1 < end && compare(items[child], items[child + 1]) < 0) child++;
            if (compare(item, items[child]) >= 0) break;
            items[parent] = items[child];
        }
        items[parent] = item;
    }
}

/* An item that equals its neighbour in a sorted list, or null. */
static const void *grf_twice(const void *const *items, uint64_t count, grf_compare compare) {
    uint64_t i;
    for (i = 1; i < count; i++) {
        if (compare(items[i - 1], items[i]) == 0) return items[i];
    }
    return NULL;
}

/* The item that compares equal, or null. */
static const void *grf_search(const void *const *items, uint64_t count, const void *wanted,
                              grf_compare compare) {
    uint64_t low = 0, high = count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int order = compare(wanted, items[middle]);
        if (order == 0) return items[middle];
        if (order < 0) high = middle; else low = middle + 1;
    }
    return NULL;
}

static int grf_compare_text(const char *a, uint64_t a_length, const char *b, uint64_t b_length) {
    int order = memcmp(a, b, (size_t)(a_length < b_length ? a_length : b_length));
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int grf_compare_kv(const void *a, const void *b) {
    const grf_kv *p = (const grf_kv *)a, *q = (const grf_kv *)b;
    return grf_compare_text(p->key, p->key_length, q->key, q->key_length);
}

static int grf_compare_tensor(const void *a, const void *b) {
    const grf_tensor *p = (const grf_tensor *)a, *q = (const grf_tensor *)b;
    return grf_compare_text(p->name, p->name_length, q->name, q->name_length);
}

static int grf_compare_offset(const void *a, const void *b) {
    const grf_tensor *p = (const grf_tensor *)a, *q = (const grf_tensor *)b;
    return (p->offset > q->offset) - (p->offset < q->offset);
}

/* ---- a cursor over hostile bytes ------------------------------------------------- */

/* After the first step that does not fit, every read gives zeros: ask `ended` once per record. */
typedef struct grf_cursor { const uint8_t *data; uint64_t at, size; int ended; } grf_cursor;

static const uint8_t *grf_next(grf_cursor *c, uint64_t count) {
    const uint8_t *p = c->data + c->at;
    if (c->ended || count > c->size - c->at) { c->ended = 1; return NULL; }
    c->at += count;
    return p;
}

static uint32_t grf_next_u32(grf_cursor *c) {
    const uint8_t *p = grf_next(c, 4);
    return p ? grf_get_u32(p) : 0;
}

static uint64_t grf_next_u64(grf_cursor *c) {
    const uint8_t *p = grf_next(c, 8);
    return p ? grf_get_u64(p) : 0;
}

static const char *grf_next_text(grf_cursor *c, uint64_t *length) {
    const char *text;
    *length = grf_next_u64(c);
    if (*length > GRF_GGUF_TEXT) c->ended = 1;
    text = (const char *)grf_next(c, *length);
    if (!text) *length = 0;
    return text;
}

/* ---- opening ------------------------------------------------------------------------ */

static int grf_gguf_read_header(grf_gguf *g, grf_cursor *c, const grf_host *host) {
    const uint8_t *magic = grf_next(c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return grf_fail(host, GRIFFIN_E_FORMAT, "byte 0: not a GGUF file, expected \"GGUF\"");
    g->version   = grf_next_u32(c);
    g->n_tensors = grf_next_u64(c);
    g->n_kv      = grf_next_u64(c);
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

static void grf_gguf_lay_out(grf_gguf *g, grf_arena *arena) {
    g->kv             = (grf_kv *)grf_arena_take(arena, g->n_kv * sizeof *g->kv);
    g->tensors        = (grf_tensor *)grf_arena_take(arena, g->n_tensors * sizeof *g->tensors);
    g->kv_sorted      = (const void **)grf_arena_take(arena, g->n_kv * sizeof *g->kv_sorted);
    g->tensors_sorted = (const void **)grf_arena_take(arena, g->n_tensors * sizeof *g->tensors_sorted);
}

static int grf_gguf_allocate(grf_gguf *g, const grf_host *host) {
    grf_arena arena = { NULL, 0 };
    uint64_t size;
    grf_gguf_lay_out(g, &arena);
    size = arena.used + 63;
    g->memory = grf_host_allocate(host, size);
    if (!g->memory) return grf_fail_memory(host, size);
    arena.base = (unsigned char *)grf_align64(g->memory);
    arena.used = 0;
    grf_gguf_lay_out(g, &arena);
    return GRIFFIN_OK;
}

/* Each checker returns what is wrong, or null. */
static const char *grf_gguf_check_key(const grf_kv *kv) {
    uint64_t i;
    if (kv->key_length < 1 || kv->key_length > 65535) return "the key must have 1 to 65535 bytes";
    for (i = 0; i < kv->key_length; i++) {
        if (kv->key[i] < 32 || kv->key[i] > 126) return "the key must be printable ASCII";
    }
    if (kv->type >= GRF_VALUES) return "the type of the value must be 0 to 12";
    if (kv->element_type >= GRF_VALUES || !grf_values[kv->element_type].bytes)
        return "the type of the elements must be 0 to 12 and no array";
    return NULL;
}

/* Moves the cursor over the elements. */
static const char *grf_gguf_check_value(grf_cursor *c, const grf_kv *kv) {
    const uint8_t *p;
    uint64_t i, length, bytes = grf_values[kv->element_type].bytes;
    if (kv->count > (c->size - c->at) / bytes) {
        c->ended = 1;
    } else if (kv->element_type == GRF_VALUE_STRING) {
        for (i = 0; i < kv->count && !c->ended; i++) grf_next_text(c, &length);
    } else {
        p = grf_next(c, kv->count * bytes);
        for (i = 0; kv->element_type == GRF_VALUE_BOOL && i < kv->count; i++) {
            if (p[i] > 1) return "a bool must be 0 or 1";
        }
    }
    return c->ended ? "the value reaches past the end of the file, or a text past 1 GiB" : NULL;
}

static int grf_gguf_read_kv(grf_cursor *c, grf_kv *kv, const grf_host *host) {
    uint64_t start = c->at;
    const char *wrong;
    kv->key   = grf_next_text(c, &kv->key_length);
    kv->type  = kv->element_type = grf_next_u32(c);
    kv->count = 1;
    if (kv->type == GRF_VALUE_ARRAY) {
        kv->element_type = grf_next_u32(c);
        kv->count = grf_next_u64(c);
    }
    kv->offset = c->at;
    wrong = c->ended ? "it reaches past the end of the file" : grf_gguf_check_key(kv);
    if (!wrong) wrong = grf_gguf_check_value(c, kv);
    if (!wrong) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "metadata at byte %u: %s (key '%t')", start, wrong,
                    kv->key, (size_t)kv->key_length);
}

static int grf_gguf_read_tensor(grf_cursor *c, grf_tensor *t, const grf_host *host) {
    uint64_t start = c->at, length;
    uint32_t i, rank;
    const char *wrong = NULL;
    t->name = grf_next_text(c, &length);
    rank    = grf_next_u32(c);
    if (length < 1 || length > 63 || memchr(t->name, 0, (size_t)length))
        wrong = "the name must have 1 to 63 bytes and no zero among them";
    else if (rank < 1 || rank > 4)
        wrong = "the number of dimensions must be 1 to 4";
    else
        for (i = 0; i < 4; i++) t->ne[i] = i < rank ? grf_next_u64(c) : 1;
    t->type   = grf_next_u32(c);
    t->offset = grf_next_u64(c);
    t->rank        = (int)rank;
    t->name_length = (uint32_t)length;
    if (c->ended) wrong = "it reaches past the end of the file";
    if (!wrong) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "tensor at byte %u: %s (name '%t')", start, wrong,
                    t->name, (size_t)(length < 64 ? length : 64));
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
    return grf_fail(host, error, "tensor '%t': %t", t->name, (size_t)t->name_length,
                    line.text, line.length);
}

/* Weights already in tiles (see >>network) are bytes to this reader. */
static int grf_is_tiled(const grf_tensor *t) {
    return t->type == GRF_I8 && t->name_length > 4
        && memcmp(t->name + t->name_length - 4, ".t32", 4) == 0;
}

/* Number format and shape; works out elements and bytes, which cannot wrap below 2^48. */
static int grf_gguf_check_shape(grf_tensor *t, const grf_host *host) {
    const grf_format *format = grf_format_find(t->type);
    int i;
    if (!format || (!format->decode && !grf_is_tiled(t)))
        return grf_tensor_fail(host, GRIFFIN_E_UNSUPPORTED, t, "number format %u (%s) cannot be "
                               "read", (uint64_t)t->type, format ? format->name : "unknown");
    t->elements = 1;
    for (i = 0; i < 4; i++) {
        if (t->ne[i] < 1 || t->ne[i] > GRF_GGUF_SIZE
            || !grf_multiply_checked(t->elements, t->ne[i], &t->elements) || t->elements >= GRF_GGUF_ELEMS)
            return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "dimension %d has size %u, expected "
                                   "1 to 2^40 and fewer than 2^48 elements", i, t->ne[i]);
    }
    if (t->ne[0] % format->block_elems)
        return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "row length %u is not a multiple of %u "
                               "(type %s)", t->ne[0], (uint64_t)format->block_elems, format->name);
    t->bytes = t->elements / format->block_elems * format->block_bytes;
    return GRIFFIN_OK;
}

/* Turns the offset into one from the start of the file. */
static int grf_gguf_place(const grf_gguf *g, grf_tensor *t, uint64_t data_start,
                          uint64_t alignment, const grf_host *host) {
    uint64_t room = g->size - data_start;
    if (t->offset % alignment)
        return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "offset %u is not a multiple of %u",
                               t->offset, alignment);
    if (t->offset > room || t->bytes > room - t->offset)
        return grf_tensor_fail(host, GRIFFIN_E_FORMAT, t, "%u bytes at offset %u reach past the "
                               "end of the data section, which has %u", t->bytes, t->offset, room);
    t->offset += data_start;
    return GRIFFIN_OK;
}

static const grf_kv *grf_gguf_find(const grf_gguf *g, const char *key) {
    grf_kv wanted;
    wanted.key = key;
    wanted.key_length = strlen(key);
    return (const grf_kv *)grf_search(g->kv_sorted, g->n_kv, &wanted, grf_compare_kv);
}

static int grf_gguf_alignment(const grf_gguf *g, uint64_t *alignment, const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, "general.alignment");
    *alignment = 32;
    if (!kv) return GRIFFIN_OK;
    *alignment = kv->type == GRF_VALUE_U32 ? grf_get_u32(g->data + kv->offset) : 0;
    if (*alignment < 8 || *alignment > 65536 || (*alignment & (*alignment - 1)))
        return grf_fail(host, GRIFFIN_E_FORMAT, "metadata 'general.alignment' at byte %u must be a "
                        "power of two from 8 to 65536, as u32", kv->offset);
    return GRIFFIN_OK;
}

static int grf_gguf_read_metadata(grf_gguf *g, grf_cursor *c, const grf_host *host) {
    const grf_kv *twice;
    uint64_t i;
    for (i = 0; i < g->n_kv; i++) {
        int result = grf_gguf_read_kv(c, &g->kv[i], host);
        if (result < 0) return result;
        g->kv_sorted[i] = &g->kv[i];
    }
    grf_sort(g->kv_sorted, g->n_kv, grf_compare_kv);
    twice = (const grf_kv *)grf_twice(g->kv_sorted, g->n_kv, grf_compare_kv);
    if (!twice) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "metadata at byte %u: key '%t' is there twice",
                    twice->offset, twice->key, (size_t)twice->key_length);
}

static int grf_gguf_read_tensors(grf_gguf *g, grf_cursor *c, const grf_host *host) {
    uint64_t i, alignment, data_start;
    int result = grf_gguf_alignment(g, &alignment, host);
    for (i = 0; i < g->n_tensors && result == GRIFFIN_OK; i++) {
        result = grf_gguf_read_tensor(c, &g->tensors[i], host);
        if (result == GRIFFIN_OK) result = grf_gguf_check_shape(&g->tensors[i], host);
    }
    if (result < 0 || g->n_tensors == 0) return result;
    data_start = c->at + (-c->at & (alignment - 1));
    if (data_start > g->size)
        return grf_fail(host, GRIFFIN_E_FORMAT, "the file ends at byte %u, before its data section "
                        "at byte %u", g->size, data_start);
    for (i = 0; i < g->n_tensors; i++) {
        result = grf_gguf_place(g, &g->tensors[i], data_start, alignment, host);
        if (result < 0) return result;
        g->tensors_sorted[i] = &g->tensors[i];
    }
    return GRIFFIN_OK;
}

/* No two tensors share a byte or a name. Leaves the pointers sorted by name. */
static int grf_gguf_check_tensors(grf_gguf *g, const grf_host *host) {
    const grf_tensor *a, *b;
    uint64_t i;
    grf_sort(g->tensors_sorted, g->n_tensors, grf_compare_offset);
    for (i = 1; i < g->n_tensors; i++) {
        a = (const grf_tensor *)g->tensors_sorted[i - 1];
        b = (const grf_tensor *)g->tensors_sorted[i];
        if (a->bytes > b->offset - a->offset)
            return grf_tensor_fail(host, GRIFFIN_E_FORMAT, a, "overlaps '%t' at byte %u",
                                   b->name, (size_t)b->name_length, b->offset);
    }
    grf_sort(g->tensors_sorted, g->n_tensors, grf_compare_tensor);
    a = (const grf_tensor *)grf_twice(g->tensors_sorted, g->n_tensors, grf_compare_tensor);
    return a ? grf_tensor_fail(host, GRIFFIN_E_FORMAT, a, "the name is there twice") : GRIFFIN_OK;
}

static void grf_gguf_close(grf_gguf *g, const grf_host *host) {
    grf_host_release(host, g->memory);
    memset(g, 0, sizeof *g);
}

/* Borrows the data until grf_gguf_close. After a failure there is nothing to close. */
static int grf_gguf_open(grf_gguf *g, const void *data, uint64_t size, const grf_host *host) {
    grf_cursor cursor = { (const uint8_t *)data, 0, size, 0 };
    int result;
    memset(g, 0, sizeof *g);
    g->data = cursor.data;
    g->size = size;
    result = grf_gguf_read_header(g, &cursor, host);
    if (result == GRIFFIN_OK) result = grf_gguf_allocate(g, host);
    if (result == GRIFFIN_OK) result = grf_gguf_read_metadata(g, &cursor, host);
    if (result == GRIFFIN_OK) result = grf_gguf_read_tensors(g, &cursor, host);
    if (result == GRIFFIN_OK) result = grf_gguf_check_tensors(g, host);
    if (result != GRIFFIN_OK) grf_gguf_close(g, host);
    return result;
}

/* ---- looking things up -------------------------------------------------------------- */

static const grf_tensor *grf_gguf_tensor(const grf_gguf *g, const char *name) {
    size_t length = strlen(name);
    grf_tensor wanted;
    if (length > 63) return NULL;
    wanted.name = name;
    wanted.name_length = (uint32_t)length;
    return (const grf_tensor *)grf_search(g->tensors_sorted, g->n_tensors, &wanted,
                                          grf_compare_tensor);
}

/* Gives the text at `at`, the start of its length, and returns where the next element starts. */
static const uint8_t *grf_gguf_next_string(const uint8_t *at, const char **text,
                                           uint64_t *length) {
    *length = grf_get_u64(at);
    *text   = (const char *)at + 8;
    return at + 8 + *length;
}

/* The getters return 1 and set *value if the key is there, return 0 and leave *value alone if
 * it is not, and fail if it holds something else than asked for. */

static int grf_gguf_wrong(const grf_kv *kv, const char *expected, const grf_host *host) {
    return grf_fail(host, GRIFFIN_E_FORMAT, "metadata '%t' at byte %u is %s%s, expected %s",
                    kv->key, (size_t)kv->key_length, kv->offset, grf_values[kv->element_type].name,
                    kv->type == GRF_VALUE_ARRAY ? " array" : "", expected);
}

static int grf_value_is_integer(uint32_t type) {
    return type <= GRF_VALUE_I32 || type == GRF_VALUE_U64 || type == GRF_VALUE_I64;
}

/* An integer of any type as 64 bits in two's complement; *negative says how to take them. The
 * signed types have the odd numbers. */
static uint64_t grf_gguf_integer(const grf_gguf *g, const grf_kv *kv, int *negative) {
    uint32_t i, bytes = grf_values[kv->type].bytes;
    const uint8_t *p = g->data + kv->offset;
    uint64_t value;
    *negative = (kv->type & 1) && p[bytes - 1] >> 7;
    value = *negative ? UINT64_MAX : 0;
    for (i = bytes; i-- > 0; ) value = value << 8 | p[i];
    return value;
}

static int grf_gguf_get_uint(const grf_gguf *g, const char *key, uint64_t max, uint64_t *value,
                             const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    int negative;
    uint64_t number;
    if (!kv) return 0;
    if (!grf_value_is_integer(kv->type)) return grf_gguf_wrong(kv, "an integer", host);
    number = grf_gguf_integer(g, kv, &negative);
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
    double number;
    int negative;
    uint64_t bits;
    if (!kv) return 0;
    if (kv->type == GRF_VALUE_F32) {
        number = grf_get_f32(g->data + kv->offset);
    } else if (kv->type == GRF_VALUE_F64) {
        bits = grf_get_u64(g->data + kv->offset);
        memcpy(&number, &bits, 8);
    } else if (grf_value_is_integer(kv->type)) {
        bits = grf_gguf_integer(g, kv, &negative);
        number = negative ? -(double)(0 - bits) : (double)bits;
    } else {
        return grf_gguf_wrong(kv, "a number", host);
    }
    if (!(number >= -largest && number <= largest))
        return grf_gguf_wrong(kv, "a finite number", host);
    *value = (float)number;
    return 1;
}

static int grf_gguf_get_bool(const grf_gguf *g, const char *key, int *value,
                             const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GRF_VALUE_BOOL) return grf_gguf_wrong(kv, "bool", host);
    *value = g->data[kv->offset];
    return 1;
}

static int grf_gguf_get_string(const grf_gguf *g, const char *key, const char **text,
                               uint64_t *length, const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GRF_VALUE_STRING) return grf_gguf_wrong(kv, "string", host);
    grf_gguf_next_string(g->data + kv->offset, text, length);
    return 1;
}

/* The elements are at g->data + (*array)->offset. */
static int grf_gguf_get_array(const grf_gguf *g, const char *key, uint32_t element_type,
                              const grf_kv **array, const grf_host *host) {
    const grf_kv *kv = grf_gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GRF_VALUE_ARRAY) return grf_gguf_wrong(kv, "an array", host);
    if (kv->element_type != element_type)
        return grf_gguf_wrong(kv, grf_values[element_type].name, host);
    *array = kv;
    return 1;
}

/* ================================================================= >>config
 * The sizes of the network: from a published name, from the file's metadata, or from the caller. */

static void grf_family_defaults(griffin_config *g) {
    memset(g, 0, sizeof *g);
    g->conv_width = 4;
    g->kv_heads = 1;
    g->rope_base = 10000;
    g->eps = 1e-6f;
    g->norm_offset = 1;
    g->embedding_scale = 1;
    g->decay = 8;
}

static void grf_repeat_blocks(griffin_config *g, const char *pattern) {
    int i, n = (int)strlen(pattern);
    for (i = 0; i < g->layers && i < GRIFFIN_MAX_LAYERS; i++) g->blocks[i] = pattern[i % n];
    g->blocks[i] = 0;
}

/* Griffin paper, appendix C, table 2: heads of 128, MLP 3 D, 16 gate blocks, window 1024. */
static int grf_paper_preset(griffin_config *g, const char *size) {
    static const struct { const char *name; int D, E, N; } table[] = {
        { "100m",  768, 1024, 12 }, { "200m", 1024, 1536, 12 }, { "400m", 1536, 2048, 12 },
        { "1.3b", 2048, 2560, 24 }, { "3b",   3072, 4096, 24 }, { "7b",   4096, 5632, 32 },
        { "14b",  5120, 8192, 40 }
    };
    int i;
    for (i = 0; i < GRF_COUNT(table) && strcmp(size, table[i].name) != 0; i++) {}
    if (i == GRF_COUNT(table)) return GRIFFIN_E_ARGUMENT;
    g->vocab = 32000;
    g->width = table[i].D;
    g->lru_width = table[i].E;
    g->layers = table[i].N;
    g->gate_blocks = 16;
    g->head_dim = 128;
    g->window = 1024;
    return GRIFFIN_OK;
}

/* RecurrentGemma report: a Griffin with scaled embedding and capped logits. */
static int grf_gemma_preset(griffin_config *g, const char *size) {
    int large = strcmp(size, "9b") == 0;
    if (!large && strcmp(size, "2b") != 0) return GRIFFIN_E_ARGUMENT;
    g->vocab = 256000;
    g->width = g->lru_width = large ? 4096 : 2560;
    g->layers = large ? 38 : 26;
    g->gate_blocks = large ? 16 : 10;
    g->head_dim = 256;
    g->window = 2048;
    g->soft_cap = 30;
    g->embedding_scale = large ? 64.0f : 50.5f;         /* sqrt(D) rounded to bf16 */
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_preset(griffin_config *config, const char *name) {
    static const struct { const char *prefix, *blocks; } families[] = {
        { "griffin-", "rra" }, { "hawk-", "r" }, { "mqa-", "a" }
    };
    const char *blocks = "rra";
    int i, error = GRIFFIN_E_ARGUMENT;
    if (!config || !name) return GRIFFIN_E_ARGUMENT;
    grf_family_defaults(config);
    for (i = 0; i < GRF_COUNT(families) && error; i++) {
        size_t n = strlen(families[i].prefix);
        if (strncmp(name, families[i].prefix, n) != 0) continue;
        blocks = families[i].blocks;
        error = grf_paper_preset(config, name + n);
    }
    if (error)
        error =
            grf_gemma_preset(config, strncmp(name, "recurrentgemma-", 15) == 0 ? name + 15 : name);
    if (error) return error;
    config->mlp_width = 3 * config->width;
    config->heads = config->width / config->head_dim;
    config->rope_dims = config->head_dim / 2;
    grf_repeat_blocks(config, blocks);
    return GRIFFIN_OK;
}

/* ---- from metadata ----------------------------------------------------------------- */

typedef struct grf_reading {                /* keys of one file, under one architecture's prefix */
    const grf_gguf *file;
    const grf_host *host;
    const char     *prefix;
    int             error;                  /* the first one */
} grf_reading;

static void grf_key(const grf_reading *r, const char *ending, grf_line *key) {
    key->length = 0;
    grf_line_put(key, r->prefix, strlen(r->prefix));
    grf_line_put(key, ending, strlen(ending));
}

/* Absent is an error unless there is a default to keep. */
static void grf_absent(grf_reading *r, const grf_line *key) {
    r->error = grf_fail(r->host, GRIFFIN_E_FORMAT, "metadata key '%s' is missing", key->text);
}

enum { GRF_OPTIONAL, GRF_REQUIRED };

static void grf_read_int(grf_reading *r, const char *ending, int required, int *value) {
    grf_line key;
    uint64_t wide = 0;
    int found;
    if (r->error) return;
    grf_key(r, ending, &key);
    found = grf_gguf_get_uint(r->file, key.text, 1 << 24, &wide, r->host);
    if (found < 0) r->error = found;
    else if (found) *value = (int)wide;
    else if (required) grf_absent(r, &key);
}

static void grf_read_float(grf_reading *r, const char *ending, int required, float *value) {
    grf_line key;
    int found;
    if (r->error) return;
    grf_key(r, ending, &key);
    found = grf_gguf_get_float(r->file, key.text, value, r->host);
    if (found < 0) r->error = found;
    else if (!found && required) grf_absent(r, &key);
}

static void grf_read_activation(grf_reading *r, griffin_activation *activation) {
    static const struct { const char *name; griffin_activation value; } table[] = {
        { "gelu_pytorch_tanh", GRIFFIN_GELU_TANH }, { "gelu_new", GRIFFIN_GELU_TANH },
        { "gelu", GRIFFIN_GELU_ERF }, { "silu", GRIFFIN_SILU }, { "swish", GRIFFIN_SILU },
        { "relu", GRIFFIN_RELU }
    };
    grf_line key;
    const char *text = NULL;
    uint64_t length = 0;
    int i, found;
    if (r->error) return;
    grf_key(r, "hidden_activation", &key);
    found = grf_gguf_get_string(r->file, key.text, &text, &length, r->host);
    if (found < 0) { r->error = found; return; }
    if (!found) return;
    for (i = 0; i < GRF_COUNT(table); i++)
        if (strlen(table[i].name) == length && memcmp(table[i].name, text, (size_t)length) == 0) {
            *activation = table[i].value;
            return;
        }
    r->error = grf_fail(r->host, GRIFFIN_E_UNSUPPORTED,
                        "%s is '%t'; known are gelu_pytorch_tanh, gelu, silu, relu", key.text, text,
                        (size_t)length);
}

/* One name for each layer; without the key, the kind follows from the tensors. */
static void grf_read_blocks(grf_reading *r, griffin_config *g) {
    grf_line key;
    const grf_kv *array = NULL;
    const uint8_t *at;
    int i, found;
    if (r->error) return;
    grf_key(r, "block_types", &key);
    found = grf_gguf_get_array(r->file, key.text, GRF_VALUE_STRING, &array, r->host);
    if (found < 0) { r->error = found; return; }
    if (!found) return;
    if (array->count != (uint64_t)g->layers) {
        r->error = grf_fail(r->host, GRIFFIN_E_FORMAT, "%s has %u entries for %d layers",
                            key.text, array->count, g->layers);
        return;
    }
    at = r->file->data + array->offset;
    for (i = 0; i < g->layers; i++) {
        const char *text;
        uint64_t length;
        at = grf_gguf_next_string(at, &text, &length);
        if (length == 9 && memcmp(text, "recurrent", 9) == 0) g->blocks[i] = 'r';
        else if (length == 9 && memcmp(text, "attention", 9) == 0) g->blocks[i] = 'a';
        else {
            r->error = grf_fail(r->host, GRIFFIN_E_UNSUPPORTED,
                                "%s: layer %d is '%t', known are recurrent and attention",
                                key.text, i, text, (size_t)length);
            return;
        }
    }
}

/* 1 if the file says what it is, 0 if it has no metadata of ours, or an error. */
static int grf_architecture(grf_reading *r) {
    static const char *const known[] = {
        "griffin.", "recurrentgemma.", "recurrent_gemma.", "recurrent-gemma."
    };
    const char *text = NULL;
    uint64_t length = 0;
    int i, found = grf_gguf_get_string(r->file, "general.architecture", &text, &length, r->host);
    if (found <= 0) return found;
    for (i = 0; i < GRF_COUNT(known); i++)
        if (strlen(known[i]) == length + 1 && memcmp(known[i], text, (size_t)length) == 0) {
            r->prefix = known[i];
            return 1;
        }
    return grf_fail(r->host, GRIFFIN_E_UNSUPPORTED, "architecture '%t'; this library runs griffin",
                    text, (size_t)length);
}

/* Keys of spec 3.3. Window, cap and embedding scale change results without a trace, so they have
 * no default. */
static int grf_read_config(grf_reading *r, griffin_config *g) {
    grf_family_defaults(g);
    grf_read_int(r, "embedding_length", GRF_REQUIRED, &g->width);
    grf_read_int(r, "block_count", GRF_REQUIRED, &g->layers);
    grf_read_int(r, "feed_forward_length", GRF_REQUIRED, &g->mlp_width);
    grf_read_int(r, "attention.head_count", GRF_REQUIRED, &g->heads);
    grf_read_int(r, "attention.head_count_kv", GRF_OPTIONAL, &g->kv_heads);
    grf_read_int(r, "attention.sliding_window", GRF_REQUIRED, &g->window);
    grf_read_float(r, "final_logit_softcapping", GRF_REQUIRED, &g->soft_cap);
    grf_read_float(r, "embedding_scale", GRF_REQUIRED, &g->embedding_scale);
    grf_read_float(r, "attention.layer_norm_rms_epsilon", GRF_OPTIONAL, &g->eps);
    grf_read_float(r, "rope.freq_base", GRF_OPTIONAL, &g->rope_base);
    grf_read_float(r, "rglru.c", GRF_OPTIONAL, &g->decay);
    grf_read_float(r, "norm_weight_offset", GRF_OPTIONAL, &g->norm_offset);
    grf_read_int(r, "ssm.conv_kernel", GRF_OPTIONAL, &g->conv_width);
    if (r->error) return r->error;
    g->vocab = 0;                           /* 0: as the embedding has it */
    g->lru_width = g->width;
    g->gate_blocks = g->heads;
    g->head_dim = g->heads > 0 ? g->width / g->heads : 0;
    grf_read_int(r, "vocab_size", GRF_OPTIONAL, &g->vocab);
    grf_read_int(r, "ssm.inner_size", GRF_OPTIONAL, &g->lru_width);
    grf_read_int(r, "ssm.group_count", GRF_OPTIONAL, &g->gate_blocks);
    grf_read_int(r, "attention.key_length", GRF_OPTIONAL, &g->head_dim);
    g->rope_dims = g->head_dim / 2;
    grf_read_int(r, "rope.dimension_count", GRF_OPTIONAL, &g->rope_dims);
    grf_read_activation(r, &g->activation);
    if (!r->error && (g->layers < 1 || g->layers > GRIFFIN_MAX_LAYERS))
        r->error = grf_fail(r->host, GRIFFIN_E_FORMAT, "%d layers; 1 to %d are possible",
                            g->layers, GRIFFIN_MAX_LAYERS);
    grf_read_blocks(r, g);
    return r->error;
}

/* What the tensors themselves tell: vocabulary, kinds of layers, biases of q, k and v. */
static void grf_complete_config(const grf_gguf *file, griffin_config *g) {
    const char *prefix = grf_gguf_tensor(file, "model.final_norm.weight") ? "model." : "";
    const grf_tensor *embedding;
    int i;
    grf_line name;
    name.length = 0;
    grf_line_put(&name, prefix, strlen(prefix));
    grf_line_put(&name, "embed_tokens.weight", 19);
    embedding = grf_gguf_tensor(file, name.text);
    if (g->vocab == 0 && embedding && embedding->ne[1] <= 1 << 21) g->vocab = (int)embedding->ne[1];
    for (i = 0; i < g->layers && i < GRIFFIN_MAX_LAYERS; i++) {
        size_t start;
        name.length = 0;
        grf_line_put(&name, prefix, strlen(prefix));
        grf_line_put(&name, "layers.", 7);
        grf_line_number(&name, (uint64_t)i, 10);
        start = name.length;
        grf_line_put(&name, ".temporal_block.q_proj.bias", 27);
        if (grf_gguf_tensor(file, name.text)) g->qkv_bias = 1;
        name.length = start;
        grf_line_put(&name, ".temporal_block.rg_lru.recurrent_param", 38);
        if (g->blocks[i] == 0) g->blocks[i] = grf_gguf_tensor(file, name.text) ? 'r' : 'a';
    }
    g->blocks[i] = 0;
}

/* The rules that everything after this relies on; null if they hold, else the one that does not. */
static const char *grf_broken_rule(const griffin_config *g) {
    int i, n = 0;
    while (n <= GRIFFIN_MAX_LAYERS && g->blocks[n]) n++;
    if (g->layers < 1 || g->layers > GRIFFIN_MAX_LAYERS || n != g->layers)
        return "one block kind for each of 1 to 1024 layers";
    for (i = 0; i < n; i++)
        if (g->blocks[i] != 'r' && g->blocks[i] != 'a') return "block kinds are 'r' and 'a'";
    if (g->vocab < 1 || g->vocab > 1 << 21)
        return "1 <= vocabulary (rows of embed_tokens.weight) <= 2^21";
    if (g->width < 1 || g->width > 1 << 20) return "1 <= width <= 2^20";
    if (g->mlp_width < 1 || g->mlp_width > 1 << 22) return "1 <= MLP width <= 2^22";
    if (g->lru_width < 1 || g->lru_width > 1 << 20) return "1 <= recurrent width <= 2^20";
    if (g->heads < 1 || g->kv_heads < 1 || g->heads % g->kv_heads != 0)
        return "heads a multiple of key/value heads";
    if (g->head_dim < 1 || (int64_t)g->head_dim * g->heads != g->width)
        return "heads times head_dim equal to width";
    if (g->gate_blocks < 1 || g->lru_width % g->gate_blocks != 0)
        return "recurrent width a multiple of gate blocks";
    if (g->conv_width < 1 || g->conv_width > 16) return "1 <= convolution width <= 16";
    if (g->window < 1 || g->window > 1 << 20) return "1 <= window <= 2^20";
    if (g->rope_dims < 0 || g->rope_dims % 2 != 0 || g->rope_dims > g->head_dim)
        return "rotated dimensions even, at most head_dim";
    if (!(g->eps > 0 && g->eps < 1)) return "0 < eps < 1";
    if (!(g->rope_base >= 1 && g->rope_base < 1e12f)) return "1 <= rope base < 10^12";
    if (!(g->decay > 0 && g->decay < 1e6f)) return "0 < decay < 10^6";
    if (!(g->soft_cap >= 0 && g->soft_cap < 1e30f)) return "soft cap 0 or positive";
    if (!(g->embedding_scale > 0 && g->embedding_scale < 1e30f)) return "embedding scale positive";
    if (!(g->norm_offset > -1e6f && g->norm_offset < 1e6f)) return "norm offset a number";
    if ((int)g->activation < 0 || g->activation > GRIFFIN_RELU) return "a known activation";
    return NULL;
}

static int grf_find_config(const griffin_options *options, const grf_gguf *file,
                           const grf_host *host, griffin_config *g) {
    grf_reading r;
    const char *broken;
    int found;
    r.file = file; r.host = host; r.prefix = ""; r.error = 0;
    found = grf_architecture(&r);
    if (found < 0) return found;
    if (found) {
        int error = grf_read_config(&r, g);
        if (error) return error;
    } else if (options && options->config) {
        *g = *options->config;
    } else {
        return grf_fail(host, GRIFFIN_E_FORMAT, "no general.architecture in the metadata; "
                        "give the configuration with the model (griffin_options.config)");
    }
    grf_complete_config(file, g);
    broken = grf_broken_rule(g);
    if (broken) return grf_fail(host, GRIFFIN_E_FORMAT, "configuration: expected %s", broken);
    return GRIFFIN_OK;
}

/* ================================================================= >>vocabulary
 * Pieces of text and the numbers of their tokens: how a vocabulary is read from the metadata of
 * a file, and how text becomes tokens. Three kinds share one loop of byte pair encoding:
 *
 *     GRF_BY_SCORE    SentencePiece: the pair with the best score first
 *     GRF_BY_RANK     the same pieces with a list of merges: the earliest merge first
 *     GRF_BYTE_LEVEL  GPT-2: a list of merges over bytes, inside words
 *
 * In a file, byte-level pieces spell each byte as one printable character. */

#define GRF_MOST_TOKENS 2097152
#define GRF_MOST_MERGES 16777216
#define GRF_MOST_TEXT   (INT32_MAX - 1)     /* bytes of normalised text */
#define GRF_SPACE       "\xE2\x96\x81"      /* U+2581 stands for a space in pieces */
#define GRF_BROKEN      "\xEF\xBF\xBD"      /* U+FFFD stands for a byte that is not UTF-8 */

enum grf_bpe { GRF_BY_SCORE, GRF_BY_RANK, GRF_BYTE_LEVEL };

/* Sets of griffin_token_kind: what text may merge into, and what only rules produce. A text may
 * occur once in each of the two. */
#define GRF_MERGEABLE (1 << GRIFFIN_TOKEN_NORMAL | 1 << GRIFFIN_TOKEN_USER_DEFINED \
                       | 1 << GRIFFIN_TOKEN_UNUSED)
#define GRF_RESERVED  (1 << GRIFFIN_TOKEN_UNKNOWN | 1 << GRIFFIN_TOKEN_CONTROL \
                       | 1 << GRIFFIN_TOKEN_BYTE)

typedef struct grf_piece {
    const char *text;                       /* in the file, or in grf_vocab.repaired */
    uint32_t    length;
    uint32_t    order;                      /* by score: the lowest merges first */
    int32_t     number;                     /* of an unused piece: its place among those */
    uint8_t     type;                       /* griffin_token_kind */
    uint8_t     marker;                     /* no_special keeps text from becoming this token */
} grf_piece;

typedef struct grf_merge { int32_t left, right, merged; } grf_merge;

typedef struct grf_slot  { uint32_t hash, index; } grf_slot;    /* index + 1; 0: free */
typedef struct grf_table { grf_slot *slots; uint32_t mask; } grf_table;

/* A tree of bytes: the pieces that are looked for in text before anything else. */
typedef struct grf_node { uint32_t child, sibling; int32_t id; uint8_t byte; } grf_node;

struct grf_vocab {
    int          count;                     /* tokens; 0: no vocabulary */
    int          kind;                      /* enum grf_bpe */
    int32_t      bos, eos, eot, pad, unknown;   /* -1: none */
    int          add_bos, add_eos;
    int          dummy_prefix;              /* text starts with a space of its own, */
    int          as_suffix;                 /* or ends with it */
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
    grf_node    *special;                   /* [0] is the root */
    grf_merge   *merges;                    /* the earliest first */
    grf_table    pairs;                     /* of merges, by left and right */
    char        *repaired;                  /* texts that differ from the file's */

    const uint8_t *map_units;               /* the character map, see grf_map */
    uint32_t     map_count;
    const char  *map_texts;
    uint32_t     map_size;
    uint32_t     growth;                    /* most bytes that one byte can become in it */
};

/* ---- UTF-8 --------------------------------------------------------------------- */

/* Bytes of the character at `text`, of which left >= 1 are there: 1 to 4; 0 if no valid
 * character starts so; -1 if one may, but the text ends first. Valid means no overlong form, no
 * surrogate, at most U+10FFFF. */
static int grf_utf8_length(const char *text, uint64_t left) {
    const unsigned char *p = (const unsigned char *)text;
    unsigned low = 0x80, high = 0xBF;       /* of the second byte */
    int length, i;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (p[0] == 0xE0) low  = 0xA0;
    if (p[0] == 0xED) high = 0x9F;
    if (p[0] == 0xF0) low  = 0x90;
    if (p[0] == 0xF4) high = 0x8F;
    for (i = 1; i < length; i++, low = 0x80, high = 0xBF) {
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
    int i;
    for (i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3F);
    return c;
}

/* Text that is written as far as there is room, and always counted. */
typedef struct grf_text { char *at; uint64_t capacity, length, characters; } grf_text;

static void grf_append(grf_text *text, const char *bytes, uint64_t n) {
    uint64_t i;
    if (n && n <= text->capacity && text->length <= text->capacity - n) {
        memcpy(text->at + text->length, bytes, (size_t)n);
    }
    for (i = 0; i < n; i++) text->characters += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    text->length += n;
}

/* ---- the characters of byte-level pieces ------------------------------------------
 * GPT-2 shows printable Latin-1 bytes as themselves and numbers the other 68 from U+0100. */

static int32_t grf_byte_of_character(uint32_t c) {
    int hidden = c <= 32 || (c >= 127 && c <= 160) || c == 173;
    if (c < 256) return hidden ? -1 : (int32_t)c;
    c -= 256;
    return c < 33 ? (int32_t)c : c < 67 ? (int32_t)c - 33 + 127 : c == 67 ? 173 : -1;
}

/* The value of a piece spelled <0x00> to <0xFF>, in capitals; -1 for any other. */
static int grf_byte_of_piece(const grf_piece *piece) {
    const char *digits = "0123456789ABCDEF", *high, *low;
    if (piece->length != 6 || memcmp(piece->text, "<0x", 3) || piece->text[5] != '>') return -1;
    high = (const char *)memchr(digits, piece->text[3], 16);
    low  = (const char *)memchr(digits, piece->text[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

/* ---- tables ---------------------------------------------------------------------
 * Open addressing. A file made to collide is refused before it becomes slow. */

static int grf_table_make(grf_table *table, uint64_t count, const grf_host *host) {
    uint64_t size = 16;
    while (size < 2 * count) size *= 2;
    table->slots = (grf_slot *)grf_host_allocate(host, size * sizeof(grf_slot));
    if (!table->slots) return grf_fail_memory(host, size * sizeof(grf_slot));
    memset(table->slots, 0, (size_t)size * sizeof(grf_slot));
    table->mask = (uint32_t)(size - 1);
    return GRIFFIN_OK;
}

static int grf_table_add(grf_table *table, uint32_t hash, int index, const grf_host *host) {
    uint32_t at = hash & table->mask, steps;
    for (steps = 0; table->slots[at].index; steps++) {
        if (steps == 1000) return grf_fail(host, GRIFFIN_E_FORMAT, "vocabulary made to collide");
        at = (at + 1) & table->mask;
    }
    table->slots[at].hash  = hash;
    table->slots[at].index = (uint32_t)index + 1;
    return GRIFFIN_OK;
}

static uint32_t grf_text_hash(const char *text, uint64_t length) {
    return (uint32_t)grf_hash(GRF_HASH_START, text, (size_t)length);
}

/* The piece of one of `kinds` whose text is this, or -1. */
static int32_t grf_find(const grf_vocab *v, const char *text, uint64_t length, int kinds) {
    uint32_t hash, at;
    if (length > v->longest) return -1;
    hash = grf_text_hash(text, length);
    for (at = hash & v->texts.mask; v->texts.slots[at].index; at = (at + 1) & v->texts.mask) {
        int32_t id = (int32_t)v->texts.slots[at].index - 1;
        const grf_piece *piece = &v->pieces[id];
        if (v->texts.slots[at].hash == hash && piece->length == length
            && (kinds >> piece->type & 1) && memcmp(piece->text, text, (size_t)length) == 0) {
            return id;
        }
    }
    return -1;
}

static int32_t grf_find_any(const grf_vocab *v, const char *text, uint64_t length) {
    int32_t id = grf_find(v, text, length, GRF_MERGEABLE);
    return id >= 0 ? id : grf_find(v, text, length, GRF_RESERVED);
}

static uint32_t grf_pair_hash(int32_t left, int32_t right) {
    uint64_t pair = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)((pair ^ pair >> 29) * 0xBF58476D1CE4E5B9u >> 32);
}

/* The place of a merge in the list, which is its rank; -1: there is none. */
static int32_t grf_find_merge(const grf_vocab *v, int32_t left, int32_t right) {
    uint32_t hash = grf_pair_hash(left, right), at;
    for (at = hash & v->pairs.mask; v->pairs.slots[at].index; at = (at + 1) & v->pairs.mask) {
        int32_t rank = (int32_t)v->pairs.slots[at].index - 1;
        if (v->merges[rank].left == left && v->merges[rank].right == right) return rank;
    }
    return -1;
}

static uint32_t grf_child(const grf_vocab *v, uint32_t parent, char byte) {
    uint32_t node = v->special[parent].child;
    while (node && v->special[node].byte != (uint8_t)byte) node = v->special[node].sibling;
    return node;
}

/* The longest special piece that the text starts with, or -1. */
static int32_t grf_match(const grf_vocab *v, const char *text, uint64_t left, int no_special) {
    int32_t best = -1;
    uint32_t node = 0;
    for (; left; text++, left--) {
        int32_t id;
        if ((node = grf_child(v, node, *text)) == 0) break;
        id = v->special[node].id;
        if (id >= 0 && !(no_special && v->pieces[id].marker)) best = id;
    }
    return best;
}

/* ---- loading ----------------------------------------------------------------------- */

static int grf_load_texts(grf_vocab *v, const grf_gguf *g, const grf_kv *tokens,
                          const grf_host *host) {
    const uint8_t *at = g->data + tokens->offset;
    uint64_t length;
    int id;
    for (id = 0; id < v->count; id++) {
        grf_piece *piece = &v->pieces[id];
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
static int grf_load_column(const grf_vocab *v, const grf_gguf *g, const char *key, uint32_t type,
                           const uint8_t **column, const grf_host *host) {
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

static int grf_load_types(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const uint8_t *types;
    int id, error = grf_load_column(v, g, "tokenizer.ggml.token_type", GRF_VALUE_I32, &types,
                                    host);
    for (id = 0; types && id < v->count; id++) {
        grf_piece *piece = &v->pieces[id];
        uint32_t type = grf_get_u32(types + 4 * (size_t)id);
        if (type < 1 || type > 6) {
            return grf_fail(host, GRIFFIN_E_FORMAT,
                            "tokenizer.ggml.token_type: token %d is not of type 1 to 6", id);
        }
        piece->type = (uint8_t)type;
        if (type == GRIFFIN_TOKEN_UNUSED) piece->number = v->unused++;
        if (type == GRIFFIN_TOKEN_BYTE && grf_byte_of_piece(piece) < 0) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "token %d '%t' is not a byte <0x00> to <0xFF>",
                            id, piece->text, (size_t)piece->length);
        }
    }
    return error;
}

static int grf_load_scores(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const uint8_t *scores;
    int id, error = grf_load_column(v, g, "tokenizer.ggml.scores", GRF_VALUE_F32, &scores, host);
    if (error) return error;
    if (!scores && v->kind == GRF_BY_SCORE) v->kind = GRF_BY_RANK;
    for (id = 0; scores && id < v->count; id++) {
        uint32_t bits = grf_get_u32(scores + 4 * (size_t)id);
        if ((bits & 0x7F800000) == 0x7F800000) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "tokenizer.ggml.scores: token %d has %s", id,
                            "a score that is not finite");
        }
        v->pieces[id].order = ~grf_float_key(grf_float_from_bits(bits));
    }
    return GRIFFIN_OK;
}

/* Some writers put plain spaces into user-defined pieces where U+2581 is meant. */
static int grf_repair_texts(grf_vocab *v, const grf_host *host) {
    grf_text text = { NULL, 0, 0, 0 };
    int id;
    uint32_t i;
    for (id = 0; id < v->count; id++) {
        const grf_piece *piece = &v->pieces[id];
        if (piece->type == GRIFFIN_TOKEN_USER_DEFINED && memchr(piece->text, ' ', piece->length)) {
            text.capacity += 3 * (uint64_t)piece->length;
        }
    }
    if (!text.capacity || !v->escape || v->kind != GRF_BY_SCORE) return GRIFFIN_OK;
    v->repaired = text.at = (char *)grf_host_allocate(host, text.capacity);
    if (!text.at) return grf_fail_memory(host, text.capacity);
    for (id = 0; id < v->count; id++) {
        grf_piece *piece = &v->pieces[id];
        uint64_t start = text.length;
        if (piece->type != GRIFFIN_TOKEN_USER_DEFINED
            || !memchr(piece->text, ' ', piece->length)) continue;
        for (i = 0; i < piece->length; i++) {
            if (piece->text[i] == ' ') grf_append(&text, GRF_SPACE, 3);
            else grf_append(&text, piece->text + i, 1);
        }
        piece->text   = text.at + start;
        piece->length = (uint32_t)(text.length - start);
    }
    return GRIFFIN_OK;
}

static int grf_index_texts(grf_vocab *v, const grf_host *host) {
    int id, error = grf_table_make(&v->texts, (uint64_t)v->count, host);
    for (id = 0; id < v->count; id++) {
        if (v->pieces[id].length > v->longest) v->longest = v->pieces[id].length;
    }
    for (id = 0; !error && id < v->count; id++) {
        const grf_piece *piece = &v->pieces[id];
        int kinds = GRF_MERGEABLE >> piece->type & 1 ? GRF_MERGEABLE : GRF_RESERVED;
        if (grf_find(v, piece->text, piece->length, kinds) >= 0) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "token %d '%t' occurs twice", id, piece->text,
                            (size_t)piece->length);
        }
        error = grf_table_add(&v->texts, grf_text_hash(piece->text, piece->length), id, host);
    }
    return error;
}

/* The byte that a token stands for, or -1. */
static int grf_byte_of_token(const grf_vocab *v, const grf_piece *piece) {
    int n;
    if (v->kind != GRF_BYTE_LEVEL) {
        return piece->type == GRIFFIN_TOKEN_BYTE ? grf_byte_of_piece(piece) : -1;
    }
    n = grf_utf8_length(piece->text, piece->length);
    if (piece->length != (uint32_t)n || !(GRF_MERGEABLE >> piece->type & 1)) return -1;
    return (int)grf_byte_of_character(grf_utf8_code_point(piece->text, n));
}

static int grf_index_bytes(grf_vocab *v, const grf_host *host) {
    int id, b, bytes = 0;
    for (b = 0; b < 256; b++) v->bytes[b] = -1;
    for (id = 0; id < v->count; id++) {
        if ((b = grf_byte_of_token(v, &v->pieces[id])) < 0) continue;
        bytes += v->bytes[b] < 0;
        v->bytes[b] = id;
    }
    v->byte_fallback = v->kind == GRF_BY_SCORE && bytes;
    if (bytes == 256 || (!v->byte_fallback && v->kind != GRF_BYTE_LEVEL)) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "the vocabulary has tokens for %d of 256 bytes", bytes);
}

/* The piece of type unknown is the unknown token, whatever the key says. */
static int grf_index_unknown(grf_vocab *v, const grf_host *host) {
    int32_t id, unknown = -1;
    for (id = 0; id < v->count; id++) {
        if (v->pieces[id].type != GRIFFIN_TOKEN_UNKNOWN) continue;
        if (unknown >= 0) {
            return grf_fail(host, GRIFFIN_E_FORMAT, "tokens %d and %d are both of type unknown",
                            unknown, id);
        }
        unknown = id;
    }
    if (unknown >= 0) v->unknown = unknown;
    return GRIFFIN_OK;
}

/* A user-defined piece is taken for a turn marker if a key names it, or if it is spelled like
 * <start_of_turn> or <|im_end|>. HTML tags, which vocabularies also define, have no _ and no |. */
static int grf_is_marker(const grf_vocab *v, int32_t id) {
    const grf_piece *piece = &v->pieces[id];
    if (GRF_RESERVED >> piece->type & 1) return 1;
    if (piece->type != GRIFFIN_TOKEN_USER_DEFINED) return 0;
    if (id == v->bos || id == v->eos || id == v->eot) return 1;
    return piece->text[0] == '<' && piece->text[piece->length - 1] == '>'
        && (memchr(piece->text, '_', piece->length) || memchr(piece->text, '|', piece->length));
}

/* With ranks, control tokens are found in text too; with scores only user-defined ones. */
static int grf_is_special(const grf_vocab *v, const grf_piece *piece) {
    if (piece->type == GRIFFIN_TOKEN_USER_DEFINED) return 1;
    return v->kind != GRF_BY_SCORE
        && (piece->type == GRIFFIN_TOKEN_CONTROL || piece->type == GRIFFIN_TOKEN_UNKNOWN);
}

static int grf_index_special(grf_vocab *v, const grf_host *host) {
    uint64_t nodes = 1;
    uint32_t used = 1, node, next, i;
    int32_t id;
    for (id = 0; id < v->count; id++) {
        v->pieces[id].marker = (uint8_t)grf_is_marker(v, id);
        if (grf_is_special(v, &v->pieces[id])) nodes += v->pieces[id].length;
    }
    if (nodes <= UINT32_MAX) v->special = (grf_node *)grf_host_allocate(host, nodes * sizeof(grf_node));
    if (!v->special) return grf_fail_memory(host, nodes * sizeof(grf_node));
    memset(v->special, 0, (size_t)nodes * sizeof(grf_node));
    for (id = 0; id < v->count; id++) {
        const grf_piece *piece = &v->pieces[id];
        if (!grf_is_special(v, piece)) continue;
        for (i = 0, node = 0; i < piece->length; i++, node = next) {
            if ((next = grf_child(v, node, piece->text[i])) != 0) continue;
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

/* Splits "left right" and finds the three tokens; `joined` has room for the longest piece. */
static int grf_load_merge(const grf_vocab *v, grf_merge *merge, const char *text, uint64_t length,
                          char *joined) {
    const char *space = (const char *)memchr(text, ' ', (size_t)length);
    uint64_t left, right;
    if (!space || length - 1 > v->longest) return 0;
    left  = (uint64_t)(space - text);
    right = length - 1 - left;
    if (!left || !right || memchr(space + 1, ' ', (size_t)right)) return 0;
    memcpy(joined, text, (size_t)left);
    memcpy(joined + left, space + 1, (size_t)right);
    merge->left   = grf_find_any(v, joined, left);
    merge->right  = grf_find_any(v, joined + left, right);
    merge->merged = grf_find_any(v, joined, left + right);
    return merge->left >= 0 && merge->right >= 0 && merge->merged >= 0;
}

static int grf_load_merges(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "tokenizer.ggml.merges", *text;
    const grf_kv *array = NULL;
    const uint8_t *at;
    uint64_t length;
    int i, error = GRIFFIN_OK, found = grf_gguf_get_array(g, key, GRF_VALUE_STRING, &array, host);
    char *joined;
    if (v->kind == GRF_BY_SCORE || found < 0) return found < 0 ? found : GRIFFIN_OK;
    if (!found || array->count > GRF_MOST_MERGES) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "%s: expected 0 to %d merges%s", key,
                        GRF_MOST_MERGES, found ? "" : ", as there are no scores");
    }
    v->merges = (grf_merge *)grf_host_allocate(host, array->count * sizeof(grf_merge));
    if (!v->merges) return grf_fail_memory(host, array->count * sizeof(grf_merge));
    if ((error = grf_table_make(&v->pairs, array->count, host)) < 0) return error;
    joined = (char *)grf_host_allocate(host, v->longest);
    if (!joined) return grf_fail_memory(host, v->longest);
    at = g->data + array->offset;
    for (i = 0; !error && i < (int)array->count; i++) {
        grf_merge *m = &v->merges[i];
        at = grf_gguf_next_string(at, &text, &length);
        if (!grf_load_merge(v, m, text, length, joined)
            || grf_find_merge(v, m->left, m->right) >= 0) {
            error = grf_fail(host, GRIFFIN_E_FORMAT, "%s: entry %d '%t' is not two tokens that make"
                             " a third, for the first time", key, i, text, (size_t)length);
        } else {
            error = grf_table_add(&v->pairs, grf_pair_hash(m->left, m->right), i, host);
        }
    }
    grf_host_release(host, joined);
    return error;
}

/* The character map of SentencePiece: u32 n, n bytes of units (u32), then texts that end with 0.
 * What a match may become is needed to size scratch memory. */
static int grf_load_map(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    const grf_kv *kv = grf_gguf_find(g, key);
    const uint8_t *data;
    uint32_t bytes, i, run = 0;
    if (!kv || kv->count == 0 || v->kind != GRF_BY_SCORE) return GRIFFIN_OK;
    data  = g->data + kv->offset;
    bytes = kv->count > 4 && kv->count <= INT32_MAX ? grf_get_u32(data) : 0;
    if (kv->type != GRF_VALUE_ARRAY || kv->element_type > GRF_VALUE_I8 || bytes < 4 || bytes % 4
        || bytes >= kv->count - 4 || data[kv->count - 1]
        || !grf_utf8_valid((const char *)data + 4 + bytes, kv->count - 4 - bytes)) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "%s at byte %u is not a character map", key,
                        kv->offset);
    }
    v->map_units = data + 4;
    v->map_count = bytes / 4;
    v->map_texts = (const char *)data + 4 + bytes;
    v->map_size  = (uint32_t)kv->count - 4 - bytes;
    for (i = 0; i < v->map_size; i++) {
        run = v->map_texts[i] ? run + 1 : 0;
        if (run > v->growth) v->growth = run;
    }
    return GRIFFIN_OK;
}

static int grf_load_kind(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *model = "", *pre = "default";
    uint64_t length = 0, pre_length = 7;
    int found = grf_gguf_get_string(g, "tokenizer.ggml.model", &model, &length, host);
    if (found < 0) return found;
    if (length == 5 && memcmp(model, "llama", 5) == 0) return GRIFFIN_OK;
    if (length != 4 || memcmp(model, "gpt2", 4) != 0) {
        return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "tokenizer.ggml.model '%t': only 'llama' and "
                        "'gpt2' are supported", model, (size_t)length);
    }
    v->kind = GRF_BYTE_LEVEL;
    found = grf_gguf_get_string(g, "tokenizer.ggml.pre", &pre, &pre_length, host);
    if (found < 0) return found;
    if ((pre_length == 7 && memcmp(pre, "default", 7) == 0)
        || (pre_length == 5 && memcmp(pre, "gpt-2", 5) == 0)
        || (pre_length == 4 && memcmp(pre, "gpt2", 4) == 0)) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "tokenizer.ggml.pre '%t': only 'default' and "
                    "'gpt-2' are supported", pre, (size_t)pre_length);
}

/* -1 in add_bos: not said. */
static int grf_load_flags(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    int by_pieces = v->kind != GRF_BYTE_LEVEL, i;
    const struct { const char *key; int *value, absent; } flags[] = {
        { "tokenizer.ggml.add_bos_token",                 &v->add_bos,     -1 },
        { "tokenizer.ggml.add_eos_token",                 &v->add_eos,      0 },
        { "tokenizer.ggml.add_space_prefix",              &v->dummy_prefix, by_pieces },
        { "tokenizer.ggml.remove_extra_whitespaces",      &v->trim,         0 },
        { "griffin.tokenizer.escape_whitespaces",         &v->escape,       1 },
        { "griffin.tokenizer.treat_whitespace_as_suffix", &v->as_suffix,    0 }
    };
    for (i = 0; i < GRF_COUNT(flags); i++) {
        int found;
        *flags[i].value = flags[i].absent;
        found = grf_gguf_get_bool(g, flags[i].key, flags[i].value, host);
        if (found < 0) return found;
    }
    if (v->kind != GRF_BY_SCORE) v->trim = v->as_suffix = 0;
    if (v->kind != GRF_BYTE_LEVEL) return GRIFFIN_OK;
    v->escape = 0;
    if (!v->dummy_prefix) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_UNSUPPORTED, "tokenizer.ggml.add_space_prefix with 'gpt2'");
}

static int grf_load_ids(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    int32_t other;                          /* checked, not used */
    const struct { const char *key; int32_t *id; } ids[] = {
        { "tokenizer.ggml.bos_token_id",       &v->bos },
        { "tokenizer.ggml.eos_token_id",       &v->eos },
        { "tokenizer.ggml.eot_token_id",       &v->eot },
        { "tokenizer.ggml.padding_token_id",   &v->pad },
        { "tokenizer.ggml.unknown_token_id",   &v->unknown },
        { "tokenizer.ggml.seperator_token_id", &other },
        { "tokenizer.ggml.mask_token_id",      &other }
    };
    int i;
    for (i = 0; i < GRF_COUNT(ids); i++) {
        uint64_t value = 0;
        int found = grf_gguf_get_uint(g, ids[i].key, (uint64_t)v->count - 1, &value, host);
        if (found < 0) return found;
        *ids[i].id = found ? (int32_t)value : -1;
    }
    if (v->add_bos < 0) v->add_bos = v->kind != GRF_BYTE_LEVEL;
    v->add_bos = v->add_bos && v->bos >= 0;
    return GRIFFIN_OK;
}

static int grf_load_surface(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const char *key = "griffin.tokenizer.unk_surface";
    int found;
    v->unk_surface = " \xE2\x81\x87 ";
    v->unk_length  = 5;
    found = grf_gguf_get_string(g, key, &v->unk_surface, &v->unk_length, host);
    if (found < 0) return found;
    if (grf_utf8_valid(v->unk_surface, v->unk_length)) return GRIFFIN_OK;
    return grf_fail(host, GRIFFIN_E_FORMAT, "%s is not UTF-8", key);
}

static int grf_load_vocab(grf_vocab *v, const grf_gguf *g, const grf_kv *tokens,
                          const grf_host *host) {
    const char *end_of_turn = "<end_of_turn>";
    int error = grf_load_kind(v, g, host);
    if (!error) error = grf_load_texts(v, g, tokens, host);
    if (!error) error = grf_load_types(v, g, host);
    if (!error) error = grf_load_scores(v, g, host);
    if (!error) error = grf_load_flags(v, g, host);
    if (!error) error = grf_load_ids(v, g, host);
    if (!error) error = grf_load_surface(v, g, host);
    if (!error) error = grf_load_map(v, g, host);
    if (!error) error = grf_repair_texts(v, host);
    if (!error) error = grf_index_texts(v, host);
    if (!error) error = grf_index_bytes(v, host);
    if (!error) error = grf_index_unknown(v, host);
    if (error) return error;
    if (v->eot < 0) v->eot = grf_find_any(v, end_of_turn, strlen(end_of_turn));
    error = grf_index_special(v, host);
    return error ? error : grf_load_merges(v, g, host);
}

static void grf_vocab_free(grf_vocab *v, const grf_host *host) {
    grf_host_release(host, v->pieces);
    grf_host_release(host, v->texts.slots);
    grf_host_release(host, v->special);
    grf_host_release(host, v->merges);
    grf_host_release(host, v->pairs.slots);
    grf_host_release(host, v->repaired);
    memset(v, 0, sizeof *v);
}

/* A file without tokens gives no vocabulary, and no error. */
static int grf_vocab_load(grf_vocab *v, const grf_gguf *g, const grf_host *host) {
    const grf_kv *tokens = NULL;
    int error = grf_gguf_get_array(g, "tokenizer.ggml.tokens", GRF_VALUE_STRING, &tokens, host);
    memset(v, 0, sizeof *v);
    if (error <= 0) return error;
    if (tokens->count < 1 || tokens->count > GRF_MOST_TOKENS) {
        return grf_fail(host, GRIFFIN_E_FORMAT, "tokenizer.ggml.tokens: %u tokens, expected 1 to "
                        "%d", tokens->count, GRF_MOST_TOKENS);
    }
    v->count  = (int)tokens->count;
    v->growth = 1;
    v->pieces = (grf_piece *)grf_host_allocate(host, tokens->count * sizeof(grf_piece));
    if (!v->pieces) {
        v->count = 0;
        return grf_fail_memory(host, tokens->count * sizeof(grf_piece));
    }
    memset(v->pieces, 0, (size_t)v->count * sizeof(grf_piece));
    error = grf_load_vocab(v, g, tokens, host);
    if (error) grf_vocab_free(v, host);
    return error;
}

/* ---- text to symbols ----------------------------------------------------------------
 * A symbol is a stretch of text that becomes one token unless it merges with its neighbour.
 * Neighbours that must not merge are not linked: special pieces, and words of GPT-2. */

typedef struct grf_symbol { uint32_t start, length; int32_t prev, next, id; } grf_symbol;

/* A possible merge: of the symbol in the lower half of `order` and its next, into `id`. */
typedef struct grf_pair { uint64_t order; uint32_t length; int32_t id; } grf_pair;

typedef struct grf_encoder {
    const grf_vocab *v;
    int         no_special, continues;
    grf_text    text;                       /* normalised */
    grf_symbol *symbols;                    /* null while the text is only measured */
    int32_t     count;
    int         apart;                      /* the next symbol starts a new chain */
    grf_pair   *heap;                       /* the lowest order on top */
    uint64_t    waiting;
    uint32_t   *cuts;                       /* of unused pieces: length of the left part, or 0 */
    int32_t    *tokens;
    int64_t     capacity, written;
    int         after_unknown;
} grf_encoder;

/* The next piece of raw text to copy: what it becomes, and how many bytes it takes. */
typedef struct grf_unit { const char *text; uint64_t length, used; } grf_unit;

/* The longest match of the character map. Units are a double array: bits 10..31 are the offset
 * to the children (in steps of 256 with bit 9), bit 8 says that a match ends here, and the lower
 * eight are the byte that led here. */
static int grf_map(const grf_vocab *v, const char *text, uint64_t left, grf_unit *unit) {
    uint32_t at = 0, u = v->map_count ? grf_get_u32(v->map_units) : 0, value;
    uint64_t i;
    unit->used = 0;
    for (i = 0; i < left; i++) {
        at ^= (u >> 10 << ((u & 0x200) >> 6)) ^ (uint8_t)text[i];
        if (at >= v->map_count) break;
        u = grf_get_u32(v->map_units + 4 * (size_t)at);
        if ((u & 0x800000FF) != (uint8_t)text[i]) break;
        if (!(u >> 8 & 1)) continue;
        value = at ^ (u >> 10 << ((u & 0x200) >> 6));
        if (value >= v->map_count) break;
        value = grf_get_u32(v->map_units + 4 * (size_t)value) & 0x7FFFFFFF;
        if (value >= v->map_size || (value && v->map_texts[value - 1])) break;
        unit->text = v->map_texts + value;
        unit->used = i + 1;
    }
    if (unit->used) unit->length = strlen(unit->text);
    return unit->used > 0;
}

static grf_unit grf_next_unit(const grf_encoder *e, const char *text, uint64_t left) {
    grf_unit unit = { text, 0, 0 };
    int32_t id = e->v->kind == GRF_BY_SCORE ? grf_match(e->v, text, left, e->no_special) : -1;
    int n;
    if (id >= 0) {
        unit.length = unit.used = e->v->pieces[id].length;
    } else if (!grf_map(e->v, text, left, &unit)) {
        n = grf_utf8_length(text, left);
        if (n <= 0) unit.text = GRF_BROKEN;
        unit.used   = n > 0 ? (uint64_t)n : 1;
        unit.length = n > 0 ? (uint64_t)n : 3;
    }
    return unit;
}

static void grf_append_escaped(grf_encoder *e, const char *text, uint64_t length) {
    for (; length; text++, length--) {
        if (*text == ' ' && e->v->escape) grf_append(&e->text, GRF_SPACE, 3);
        else grf_append(&e->text, text, 1);
    }
}

static void grf_trim_end(grf_encoder *e) {
    const char *space = e->v->escape ? GRF_SPACE : " ";
    uint64_t n = strlen(space);
    while (e->symbols && e->text.length >= n
           && memcmp(e->text.at + e->text.length - n, space, (size_t)n) == 0) e->text.length -= n;
}

/* Raw text to normalised text. `first`: nothing comes before it. */
static void grf_normalise(grf_encoder *e, const char *text, uint64_t length, int first) {
    const grf_vocab *v = e->v;
    const char *end = text + length;
    int drop = v->trim && first;            /* spaces that follow are left out */
    grf_unit unit;
    for (; drop && text < end; text += unit.used) {
        unit = grf_next_unit(e, text, (uint64_t)(end - text));
        if (unit.length != 1 || unit.text[0] != ' ') break;
    }
    if (text == end) return;
    if (first && v->dummy_prefix && !v->as_suffix) grf_append_escaped(e, " ", 1);
    for (; text < end; text += unit.used) {
        unit = grf_next_unit(e, text, (uint64_t)(end - text));
        while (drop && unit.length && unit.text[0] == ' ') { unit.text++; unit.length--; }
        grf_append_escaped(e, unit.text, unit.length);
        if (unit.length) drop = v->trim && unit.text[unit.length - 1] == ' ';
    }
    if (v->trim) grf_trim_end(e);
    if (v->dummy_prefix && v->as_suffix) grf_append_escaped(e, " ", 1);
}

static void grf_add_symbol(grf_encoder *e, uint64_t start, uint64_t length, int32_t id) {
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
static void grf_add_special(grf_encoder *e, uint64_t start, uint64_t length, int32_t id) {
    e->apart = 1;
    grf_add_symbol(e, start, length, id);
    e->apart = 1;
}

/* The piece that a stretch of normalised text is, or -1. */
static int32_t grf_piece_at(const grf_encoder *e, uint64_t start, uint64_t length, int kinds) {
    int32_t id = grf_find(e->v, e->text.at + start, length, kinds);
    return id >= 0 && e->no_special && e->v->pieces[id].marker ? -1 : id;
}

/* By rank, a character that is no piece becomes the tokens of its bytes, if there are all. */
static void grf_add_character(grf_encoder *e, uint64_t start, uint64_t length) {
    const uint8_t *bytes = (const uint8_t *)e->text.at + start;
    int32_t id = -1;
    uint64_t i, known = 0;
    if (e->v->kind == GRF_BY_RANK) id = grf_piece_at(e, start, length, GRF_MERGEABLE);
    if (e->v->kind == GRF_BY_RANK && id < 0) {
        for (i = 0; i < length; i++) known += e->v->bytes[bytes[i]] >= 0;
    }
    if (known < length) { grf_add_symbol(e, start, length, id); return; }
    for (i = 0; i < length; i++) grf_add_symbol(e, start + i, 1, e->v->bytes[bytes[i]]);
}

static void grf_split_characters(grf_encoder *e, uint64_t from) {
    uint64_t at, length;
    for (at = from; at < e->text.length; at += length) {
        uint64_t left = e->text.length - at;
        int32_t id = e->v->kind == GRF_BY_SCORE ? grf_match(e->v, e->text.at + at, left,
                                                            e->no_special) : -1;
        length = id >= 0 ? e->v->pieces[id].length : (uint64_t)grf_utf8_length(e->text.at + at, left);
        if (id >= 0) grf_add_special(e, at, length, id);
        else grf_add_character(e, at, length);
    }
}

/* ---- words of GPT-2 --------------------------------------------------------------------
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+           */

enum grf_class { GRF_OTHER, GRF_LETTER, GRF_NUMBER, GRF_BLANK };

/* Runs of code points, Unicode 14: how many are skipped, how many belong, and so on. */
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
    3,10,36,2,9,7,43,2,3,41,4,1,6,1,2,3,1,5,192,64,278,2,6,2,38,2,6,2,8,1,1,1,1,1,1,1,31,2,53,1,7,1,
    1,3,3,1,7,3,4,2,6,4,13,5,3,1,7,116,1,13,1,16,13,101,1,4,1,2,10,1,1,3,5,6,1,1,1,1,1,1,4,1,11,2,4,
    5,5,4,1,52,2,2683,229,6,4,3,2,12,38,1,1,5,1,2,56,7,1,16,23,9,7,1,7,1,7,1,7,1,7,1,7,1,7,1,7,80,1,
    469,2,42,5,5,2,4,86,6,3,1,90,1,4,5,43,1,94,17,32,48,16,512,6592,64,22157,67,46,2,269,3,16,10,2,
    20,47,16,31,2,70,49,9,2,103,2,64,5,2,1,1,1,5,24,16,1,3,1,4,1,23,29,52,14,50,62,6,3,1,1,2,11,28,
    10,23,25,29,7,47,28,1,16,5,1,10,10,5,1,41,23,3,1,8,20,23,3,1,3,50,1,1,3,2,2,5,2,1,1,1,24,3,2,11,
    7,3,12,6,2,6,2,6,9,7,1,7,1,43,1,14,6,115,29,11172,12,23,4,49,8452,366,2,106,38,7,12,5,5,1,1,10,
    1,13,1,5,1,1,1,2,1,2,1,108,33,363,18,64,2,54,40,12,116,5,1,135,36,26,6,26,11,89,3,6,2,6,2,6,2,3,
    35,12,1,26,1,19,1,2,1,15,2,14,34,123,389,29,3,49,47,32,13,20,1,8,6,38,10,30,2,36,4,8,48,158,18,
    36,4,36,4,40,8,52,12,11,1,15,1,7,1,2,1,11,1,15,1,7,1,2,67,311,9,22,10,8,24,6,1,42,1,9,69,6,2,1,
    1,44,1,2,3,1,2,23,10,23,9,31,65,19,1,2,10,22,10,26,70,56,6,2,64,1,15,4,1,3,1,29,42,29,3,29,35,8,
    1,28,27,54,10,22,10,19,13,18,110,73,55,51,13,51,13,36,348,42,6,2,78,29,10,1,8,22,42,18,46,21,27,
    23,12,53,57,2,2,1,13,45,32,25,26,36,29,1,2,1,8,35,3,1,12,48,14,4,21,1,1,1,35,18,1,25,84,7,1,1,1,
    4,1,15,1,10,7,47,38,8,2,2,2,22,1,7,1,2,1,5,3,1,18,1,12,5,158,53,18,4,20,3,30,48,20,2,1,1,184,47,
    41,4,36,48,20,1,59,43,13,1,71,27,37,7,185,44,116,64,31,8,2,1,2,8,1,2,1,24,15,1,1,1,94,8,2,39,16,
    1,1,1,28,1,10,40,7,1,21,1,11,46,19,1,18,73,263,9,1,37,17,1,49,30,112,7,1,2,1,38,21,1,25,6,1,2,1,
    32,14,1,327,19,189,1,79,922,230,196,2636,97,15,1071,4049,583,8633,569,7,31,17,79,17,30,18,48,16,
    4,31,21,5,19,688,64,128,75,5,1,66,13,64,2,1,1,28,6136,8,1238,42,9,8935,4,1,7,1,2,1,291,45,3,17,
    4,8,396,2308,107,5,13,3,9,7,10,5990,85,1,71,1,2,2,1,2,2,2,4,1,12,1,1,1,7,1,65,1,4,2,8,1,7,1,28,
    1,4,1,5,1,1,3,7,1,340,2,25,1,25,1,31,1,25,1,31,1,25,1,31,1,25,1,31,1,25,1,8,1844,31,481,45,10,7,
    16,1,321,30,18,44,1268,7,1,4,1,2,1,15,1,197,59,68,7,1,1204,4,1,27,1,2,1,1,2,1,1,10,1,4,1,1,1,1,
    6,1,4,1,1,1,1,1,1,3,1,2,1,1,2,1,1,1,1,1,1,1,1,1,1,2,1,1,2,4,1,7,1,4,1,4,1,1,1,10,1,17,5,3,1,5,1,
    17,4420,42720,32,4153,7,222,2,5762,14,7473,3103,542,1506,4939
};
static const uint16_t grf_numbers[] = {
    48,10,120,2,5,1,2,3,1441,10,134,10,198,10,412,10,118,10,4,6,108,10,118,10,118,10,2,6,110,13,115,
    10,8,7,103,10,104,7,7,19,109,10,96,10,118,10,70,20,268,10,70,10,719,20,881,3,239,10,6,10,22,10,
    300,10,128,11,165,10,6,10,182,10,86,10,134,10,6,10,1046,1,3,6,6,10,198,51,2,5,726,60,78,22,630,
    30,1385,1,777,1,25,9,14,3,343,4,138,10,30,8,1,15,32,10,39,15,29536,10,188,10,320,6,154,10,38,10,
    198,10,22,10,86,10,406,10,21270,10,493,45,12,57,17,2,341,27,36,4,29,1,8,1,134,5,202,10,942,8,25,
    7,39,9,75,5,22,6,160,2,2,16,2,46,64,9,52,2,30,3,75,5,104,8,24,8,41,7,330,6,48,10,294,31,158,10,
    42,4,112,7,134,30,128,10,60,10,144,10,7,20,251,10,342,10,118,10,374,10,102,10,102,12,420,19,93,
    10,758,29,227,10,70,10,534,21,1067,111,17905,10,86,10,134,10,1,7,798,23,25673,20,108,25,1109,50,
    2368,10,422,10,1485,9,128,10,791,59,1,3,1,4,76,45,1,15,962,13,2787,10
};

static int grf_in_runs(const uint16_t *runs, int count, uint32_t c) {
    uint32_t at = 0;
    int i;
    for (i = 0; i < count; i++) {
        at += runs[i];
        if (c < at) return i & 1;
    }
    return 0;
}

static int grf_class_of(uint32_t c) {
    if (grf_in_runs(grf_blanks,  GRF_COUNT(grf_blanks),  c)) return GRF_BLANK;
    if (grf_in_runs(grf_letters, GRF_COUNT(grf_letters), c)) return GRF_LETTER;
    if (grf_in_runs(grf_numbers, GRF_COUNT(grf_numbers), c)) return GRF_NUMBER;
    return GRF_OTHER;
}

/* The end of the characters of one class from `at` on; *last is where the last of them starts. */
static uint64_t grf_run_end(const grf_text *text, uint64_t at, int kind, uint64_t *last) {
    while (at < text->length) {
        int n = grf_utf8_length(text->at + at, text->length - at);
        if (grf_class_of(grf_utf8_code_point(text->at + at, n)) != kind) break;
        *last = at;
        at += (uint64_t)n;
    }
    return at;
}

static uint64_t grf_contraction(const char *text, uint64_t left) {
    if (left < 2 || text[0] != '\'') return 0;
    if (strchr("stmd", text[1]) && text[1]) return 2;
    if (left < 3) return 0;
    return memcmp(text, "'re", 3) == 0 || memcmp(text, "'ve", 3) == 0
        || memcmp(text, "'ll", 3) == 0 ? 3 : 0;
}

static uint64_t grf_word_end(const grf_text *text, uint64_t start) {
    uint64_t n = grf_contraction(text->at + start, text->length - start);
    uint64_t at = start + (text->at[start] == ' '), last = start, end;
    int kind = GRF_BLANK;
    if (n) return start + n;
    if (at < text->length) {
        n = (uint64_t)grf_utf8_length(text->at + at, text->length - at);
        kind = grf_class_of(grf_utf8_code_point(text->at + at, (int)n));
    }
    if (kind != GRF_BLANK) return grf_run_end(text, at, kind, &last);
    end = grf_run_end(text, start, GRF_BLANK, &last);
    return end < text->length && last > start ? last : end;
}

static void grf_split_words(grf_encoder *e, uint64_t from) {
    uint64_t at = from, end;
    while (at < e->text.length) {
        end = grf_word_end(&e->text, at);
        e->apart = 1;
        for (; at < end; at++) grf_add_symbol(e, at, 1, e->v->bytes[(uint8_t)e->text.at[at]]);
    }
    e->apart = 1;
}

/* ---- symbols to tokens -------------------------------------------------------------- */

static void grf_encode_stretch(grf_encoder *e, const char *text, uint64_t length, int first) {
    uint64_t from = e->text.length;
    grf_normalise(e, text, length, first);
    if (!e->symbols) return;
    if (e->v->kind == GRF_BYTE_LEVEL) grf_split_words(e, from);
    else grf_split_characters(e, from);
}

/* Normalises the text and, if there is memory for them, makes its symbols. By rank, special
 * pieces are cut out of the raw text before; each leaves one byte in the normalised text, so
 * that there are never more symbols than bytes. */
static void grf_prepare(grf_encoder *e, const char *text, uint64_t length) {
    uint64_t at = 0, from = 0;
    e->text.length = e->text.characters = 0;
    e->apart = 1;
    while (e->v->kind != GRF_BY_SCORE && at < length) {
        int32_t id = grf_match(e->v, text + at, length - at, e->no_special);
        if (id < 0) { at++; continue; }
        grf_encode_stretch(e, text + from, at - from, from == 0 && !e->continues);
        if (e->symbols) grf_add_special(e, e->text.length, 1, id);
        grf_append(&e->text, text + at, 1);
        at += e->v->pieces[id].length;
        from = at;
    }
    grf_encode_stretch(e, text + from, length - from, from == 0 && !e->continues);
}

static void grf_push(grf_encoder *e, grf_pair pair) {
    uint64_t at = e->waiting++;
    for (; at && pair.order < e->heap[(at - 1) / 2].order; at = (at - 1) / 2) {
        e->heap[at] = e->heap[(at - 1) / 2];
    }
    e->heap[at] = pair;
}

static grf_pair grf_pop(grf_encoder *e) {
    grf_pair top = e->heap[0], last = e->heap[--e->waiting];
    uint64_t at = 0, child;
    while ((child = 2 * at + 1) < e->waiting) {
        if (child + 1 < e->waiting && e->heap[child + 1].order < e->heap[child].order) child++;
        if (last.order <= e->heap[child].order) break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return top;
}

/* Pushes the merge of a symbol with the next, if there is one. */
static void grf_consider(grf_encoder *e, int32_t left) {
    const grf_vocab *v = e->v;
    const grf_symbol *a = &e->symbols[left], *b;
    uint32_t order;
    grf_pair pair;
    if (a->next < 0) return;
    b = &e->symbols[a->next];
    pair.length = a->length + b->length;
    if (v->kind == GRF_BY_SCORE) {
        pair.id = grf_piece_at(e, a->start, pair.length, GRF_MERGEABLE);
        if (pair.id < 0) return;
        order = v->pieces[pair.id].order;
        if (v->pieces[pair.id].type == GRIFFIN_TOKEN_UNUSED) {
            e->cuts[v->pieces[pair.id].number] = a->length;
        }
    } else {
        int32_t rank = grf_find_merge(v, a->id, b->id);
        if (rank < 0) return;
        order   = (uint32_t)rank;
        pair.id = v->merges[rank].merged;
        if (e->no_special && v->pieces[pair.id].marker) return;
    }
    pair.order = (uint64_t)order << 32 | (uint32_t)left;
    grf_push(e, pair);
}

/* A pair is out of date if its symbol is gone or one of the two has grown. Every merge takes one
 * pair off the heap and puts at most two there, so that it never holds more than 2 count. */
static void grf_merge_symbols(grf_encoder *e) {
    int32_t i;
    for (i = 0; i < e->count; i++) grf_consider(e, i);
    while (e->waiting) {
        grf_pair pair = grf_pop(e);
        int32_t left = (int32_t)(uint32_t)pair.order;
        grf_symbol *a = &e->symbols[left], *b;
        if (!a->length || a->next < 0) continue;
        b = &e->symbols[a->next];
        if (a->length + b->length != pair.length) continue;
        a->length = pair.length;
        a->id     = pair.id;
        a->next   = b->next;
        b->length = 0;
        if (a->next >= 0) e->symbols[a->next].prev = left;
        if (a->prev >= 0) grf_consider(e, a->prev);
        grf_consider(e, left);
    }
}

static void grf_put_token(grf_encoder *e, int32_t id) {
    if (e->written < e->capacity) e->tokens[e->written] = id;
    e->written++;
    e->after_unknown = 0;
}

/* Neighbouring unknown symbols share one token. */
static void grf_put_unknown(grf_encoder *e, uint64_t start, uint64_t length) {
    if (e->v->byte_fallback) {
        for (; length; start++, length--) grf_put_token(e, e->v->bytes[(uint8_t)e->text.at[start]]);
    } else if (e->v->unknown >= 0 && !e->after_unknown) {
        grf_put_token(e, e->v->unknown);
        e->after_unknown = 1;
    }
}

/* By score, the text decides. An unused piece falls apart again into what it was merged from;
 * the heap is empty by now, and its memory is the stack for that. */
static void grf_put_text(grf_encoder *e, uint32_t start, uint32_t length) {
    uint64_t depth = 1;
    e->heap[0].order  = start;
    e->heap[0].length = length;
    while (depth) {
        grf_pair part = e->heap[--depth];
        int32_t id = grf_piece_at(e, part.order, part.length, GRF_RESERVED);
        uint32_t cut = 0;
        if (id < 0) id = grf_piece_at(e, part.order, part.length, GRF_MERGEABLE);
        if (id >= 0 && e->v->pieces[id].type == GRIFFIN_TOKEN_UNUSED) {
            cut = e->cuts[e->v->pieces[id].number];
        }
        if (cut) {
            e->heap[depth].order    = part.order + cut;
            e->heap[depth++].length = part.length - cut;
            e->heap[depth].order    = part.order;
            e->heap[depth++].length = cut;
        } else if (id < 0 || id == e->v->unknown) {
            grf_put_unknown(e, part.order, part.length);
        } else {
            grf_put_token(e, id);
        }
    }
}

static void grf_put_symbols(grf_encoder *e) {
    int32_t i;
    for (i = 0; i < e->count; i++) {
        const grf_symbol *s = &e->symbols[i];
        if (!s->length) continue;
        if (e->v->kind == GRF_BY_SCORE) grf_put_text(e, s->start, s->length);
        else if (s->id < 0) grf_put_unknown(e, s->start, s->length);
        else grf_put_token(e, s->id);
    }
}

/* Places everything in scratch memory, or only measures it with base null. Returns the bytes
 * needed, 63 of them to align the base. */
static uint64_t grf_encoder_memory(grf_encoder *e, void *base, uint64_t bytes, uint64_t symbols) {
    grf_arena arena;
    arena.base = base ? (unsigned char *)grf_align64(base) : NULL;
    arena.used = 0;
    e->heap    = (grf_pair *)grf_arena_take(&arena, (2 * symbols + 2) * sizeof(grf_pair));
    e->symbols = (grf_symbol *)grf_arena_take(&arena, (symbols + 1) * sizeof(grf_symbol));
    e->cuts    = (uint32_t *)grf_arena_take(&arena, (uint64_t)e->v->unused * sizeof(uint32_t));
    e->text.at = (char *)grf_arena_take(&arena, bytes);
    e->text.capacity = base ? bytes : 0;
    return arena.used + 63;
}

/* Enough for any text of this length: a byte becomes at most three (a space, or a broken byte),
 * or what the character map makes of it. Only by score, symbols are whole characters. */
static uint64_t grf_encode_bound(const grf_vocab *v, uint64_t length) {
    uint64_t symbols = (uint64_t)grf_min64((int64_t)length, GRF_MOST_TEXT - 1) + 1, bytes;
    grf_encoder e;
    memset(&e, 0, sizeof e);
    e.v = v;
    symbols = (uint64_t)grf_min64((int64_t)(symbols * v->growth), GRF_MOST_TEXT);
    bytes   = (uint64_t)grf_min64((int64_t)(3 * symbols), GRF_MOST_TEXT);
    return grf_encoder_memory(&e, NULL, bytes, v->kind == GRF_BY_SCORE ? symbols : bytes);
}

/* The bytes of scratch that this very text needs; 0: it is too long. */
static uint64_t grf_encode_measure(grf_encoder *e, const char *text, uint64_t length) {
    e->symbols = NULL;
    e->text.capacity = 0;
    grf_prepare(e, text, length);
    if (e->text.length > GRF_MOST_TEXT) return 0;
    return grf_encoder_memory(e, NULL, e->text.length, e->v->kind == GRF_BY_SCORE
                              ? e->text.characters : e->text.length);
}

/* After grf_encode_measure of the same text, in memory of the size that it said. */
static void grf_encode_text(grf_encoder *e, const char *text, uint64_t length, void *memory) {
    uint64_t bytes = e->text.length;
    grf_encoder_memory(e, memory, bytes, e->v->kind == GRF_BY_SCORE ? e->text.characters : bytes);
    memset(e->cuts, 0, (size_t)e->v->unused * sizeof(uint32_t));
    grf_prepare(e, text, length);
    grf_merge_symbols(e);
    grf_put_symbols(e);
}

/* ================================================================= >>text
 * Text to tokens and back. */

static int grf_text_check(const griffin_model *model, int arguments_ok, const char *function) {
    if (!model) return GRIFFIN_E_ARGUMENT;
    if (model->vocab->count == 0) {
        return grf_fail(&model->host, GRIFFIN_E_VOCABULARY, "%s: the model has no vocabulary",
                        function);
    }
    if (arguments_ok) return GRIFFIN_OK;
    return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "%s: argument out of range", function);
}

GRIFFIN_API size_t griffin_encode_size(const griffin_model *model, size_t length) {
    if (!model || model->vocab->count == 0) return 0;
    return (size_t)grf_min64((int64_t)grf_encode_bound(model->vocab, length),
                             (int64_t)((size_t)-1 >> 1));
}

GRIFFIN_API int griffin_encode(const griffin_model *model, const griffin_encoding *encoding,
                               const char *text, size_t length, int32_t *tokens, int capacity) {
    griffin_encoding plain;
    grf_encoder e;
    uint64_t size;
    void *memory;
    int error = grf_text_check(model, (text || !length) && capacity >= 0 && (tokens || !capacity),
                               "griffin_encode");
    if (error) return error;
    memset(&plain, 0, sizeof plain);
    if (!encoding) encoding = &plain;
    memset(&e, 0, sizeof e);
    e.v = model->vocab;
    e.no_special = encoding->no_special;
    e.continues  = encoding->continues;
    e.tokens     = tokens;
    e.capacity   = capacity;
    size = grf_encode_measure(&e, text, length);
    if (!size) return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "griffin_encode: text too long");
    if (encoding->scratch && encoding->scratch_size < size) {
        return grf_fail(&model->host, GRIFFIN_E_SPACE, "griffin_encode: %u bytes of scratch, but "
                        "the text needs %u", (uint64_t)encoding->scratch_size, size);
    }
    memory = encoding->scratch ? encoding->scratch : grf_host_allocate(&model->host, size);
    if (!memory) return grf_fail_memory(&model->host, size);
    if (e.v->add_bos && !encoding->no_bos && !encoding->continues) grf_put_token(&e, e.v->bos);
    grf_encode_text(&e, text, length, memory);
    if (!encoding->scratch) grf_host_release(&model->host, memory);
    return (int)e.written;
}

/* ---- tokens to text ---------------------------------------------------------------- */

/* What a token stands for: a text for grf_next_bytes to read. */
static const char *grf_surface(const grf_vocab *v, int32_t id, uint64_t *length) {
    const grf_piece *piece = &v->pieces[id];
    *length = piece->length;
    if (piece->type == GRIFFIN_TOKEN_CONTROL) *length = 0;
    if (piece->type != GRIFFIN_TOKEN_UNKNOWN) return piece->text;
    *length = v->unk_length;
    return v->unk_surface;
}

/* Tokens of byte-level pieces stand for bytes that need not be whole characters. */
static int grf_is_byte_level(const grf_vocab *v, int32_t id) {
    int type = v->pieces[id].type;
    return v->kind == GRF_BYTE_LEVEL
        && (type == GRIFFIN_TOKEN_NORMAL || type == GRIFFIN_TOKEN_UNUSED);
}

/* The bytes that the next character of a surface stands for: 1 to 4 of them. */
static int grf_next_bytes(const grf_vocab *v, int32_t id, const char *text, uint64_t length,
                          uint64_t *at, char bytes[4]) {
    int n = grf_utf8_length(text + *at, length - *at);
    int32_t byte = -1;
    if (v->pieces[id].type == GRIFFIN_TOKEN_BYTE) {
        byte = grf_byte_of_piece(&v->pieces[id]);
        n = (int)length;
    } else if (grf_is_byte_level(v, id)) {
        byte = grf_byte_of_character(grf_utf8_code_point(text + *at, n));
    } else if (v->kind != GRF_BYTE_LEVEL && n == 3 && memcmp(text + *at, GRF_SPACE, 3) == 0) {
        byte = ' ';
    }
    if (byte >= 0) bytes[0] = (char)byte;
    else memcpy(bytes, text + *at, (size_t)n);
    *at += (uint64_t)n;
    return byte >= 0 ? 1 : n;
}

/* Emits what is certain: whole characters, and U+FFFD for each byte that cannot be in one. */
static void grf_decode_byte(griffin_decoder *d, char byte, grf_text *out) {
    d->held[d->count++] = (unsigned char)byte;
    while (d->count) {
        int n = grf_utf8_length((const char *)d->held, d->count);
        if (n < 0) return;
        if (n) grf_append(out, (const char *)d->held, (uint64_t)n);
        else grf_append(out, GRF_BROKEN, 3);
        if (!n) n = 1;
        d->count = (unsigned char)(d->count - n);
        memmove(d->held, d->held + n, d->count);
    }
}

static void grf_decode_flush(griffin_decoder *d, grf_text *out) {
    for (; d->count; d->count--) grf_append(out, GRF_BROKEN, 3);
}

/* A space that encoding put at the start of the text is taken off again: the first one, or with
 * trim all until something else has come. */
static void grf_decode_token(const grf_vocab *v, griffin_decoder *d, int32_t id, grf_text *out) {
    int type = v->pieces[id].type, i, n;
    uint64_t length, at = 0;
    const char *text = grf_surface(v, id, &length);
    char bytes[4];
    if (type != GRIFFIN_TOKEN_BYTE && !grf_is_byte_level(v, id)) {
        grf_decode_flush(d, out);
        if (d->ate_space || d->any_output || out->length) d->started = 1;
        d->ate_space = 0;
        if (!d->started && (v->dummy_prefix || v->trim) && (GRF_MERGEABLE >> type & 1)
            && length >= 3 && memcmp(text, GRF_SPACE, 3) == 0) {
            at = 3;
            d->ate_space = (unsigned char)!v->trim;
        }
    }
    while (at < length) {
        n = grf_next_bytes(v, id, text, length, &at, bytes);
        for (i = 0; i < n; i++) grf_decode_byte(d, bytes[i], out);
    }
}

GRIFFIN_API int griffin_decode(const griffin_model *model, griffin_decoder *decoder,
                               int32_t token, char *text, size_t capacity) {
    griffin_decoder d;
    grf_text out = { text, capacity, 0, 0 };
    int error = grf_text_check(model, decoder && text && decoder->count < 4 && token >= -1
                               && token < (model ? model->vocab->count : 0), "griffin_decode");
    if (error) return error;
    d = *decoder;
    if (token < 0) grf_decode_flush(&d, &out);
    else grf_decode_token(model->vocab, &d, token, &out);
    if (out.length) d.any_output = 1;
    if (out.length >= capacity) return GRIFFIN_E_SPACE;
    text[out.length] = 0;
    *decoder = d;
    return (int)out.length;
}

/* ---- stop texts ------------------------------------------------------------------------ */

/* The longest text that the held bytes start (`whole` 0) or end with (1): its index, or -1. A text
 * is complete when they end with it: its start was held, or a longer one around it. */
static int grf_find_stop(const griffin_stop *s, int whole) {
    int i, best = -1, longest = 0;
    for (i = 0; i < s->count; i++) {
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
    grf_append(out, s->held, (uint64_t)(s->held_count - keep));
    memmove(s->held, s->held + s->held_count - keep, (size_t)keep);
    s->held_count = keep;
}

static void grf_stop_byte(griffin_stop *s, char byte, grf_text *out) {
    s->held[s->held_count++] = byte;
    s->found = 1 + grf_find_stop(s, 1);
    if (s->found) {
        grf_stop_release(s, (int)strlen(s->texts[s->found - 1]), out);
        s->held_count = 0;
    }
    while (s->held_count && grf_find_stop(s, 0) < 0) grf_stop_release(s, s->held_count - 1, out);
}

static int grf_stop_ok(const griffin_stop *s) {
    int i;
    if (s->count < 0 || (s->count && !s->texts)) return 0;
    if (s->held_count < 0 || s->held_count >= GRIFFIN_STOP_BYTES) return 0;
    for (i = 0; i < s->count; i++) {
        if (!s->texts[i] || !s->texts[i][0] || strlen(s->texts[i]) > GRIFFIN_STOP_BYTES) return 0;
    }
    return 1;
}

GRIFFIN_API int griffin_stop_feed(griffin_stop *stop, const char *text, size_t length,
                                  char *out, size_t capacity) {
    grf_text shown = { out, capacity, 0, 0 };
    griffin_stop s;
    if (!stop || !out || length > INT32_MAX / 2 || !grf_stop_ok(stop)) return GRIFFIN_E_ARGUMENT;
    s = *stop;
    s.found = s.used = 0;
    if (!text) grf_stop_release(&s, 0, &shown);
    while (text && !s.found && s.used < (int)length) grf_stop_byte(&s, text[s.used++], &shown);
    if (shown.length >= capacity) return GRIFFIN_E_SPACE;
    out[shown.length] = 0;
    *stop = s;
    return (int)shown.length;
}

/* ---- single tokens -------------------------------------------------------------------- */

static int grf_token_check(const griffin_model *model, int32_t token, int more,
                           const char *function) {
    return grf_text_check(model, more && token >= 0 && token < (model ? model->vocab->count : 0),
                          function);
}

GRIFFIN_API int griffin_token_text(const griffin_model *model, int32_t token,
                                   char *text, size_t capacity) {
    grf_text out = { text, capacity, 0, 0 };
    uint64_t length, at = 0;
    const char *surface;
    char bytes[4];
    int error = grf_token_check(model, token, text || !capacity, "griffin_token_text");
    if (error) return error;
    surface = grf_surface(model->vocab, token, &length);
    while (at < length) {
        int n = grf_next_bytes(model->vocab, token, surface, length, &at, bytes), i;
        for (i = 0; i < n; i++) grf_append(&out, &bytes[i], 1);
    }
    return (int)out.length;
}

GRIFFIN_API int griffin_token_type(const griffin_model *model, int32_t token) {
    int error = grf_token_check(model, token, 1, "griffin_token_type");
    return error ? error : model->vocab->pieces[token].type;
}

GRIFFIN_API int32_t griffin_find_token(const griffin_model *model, const char *piece,
                                       size_t length) {
    int error = grf_text_check(model, piece != NULL, "griffin_find_token");
    return error ? error : grf_find_any(model->vocab, piece, length);
}

/* ================================================================= >>model
 * Opening: file bytes, directory, configuration, vocabulary, then the network's builder twice. */

/* ---- tensors by name ------------------------------------------------------------ */

static void grf_layer_name(const grf_builder *b, const char *name, grf_line *line) {
    line->length = 0;
    grf_line_put(line, b->prefix, strlen(b->prefix));
    if (b->layer >= 0) {
        grf_line_put(line, "layers.", 7);
        grf_line_number(line, (uint64_t)b->layer, 10);
        grf_line_put(line, ".", 1);
    }
    grf_line_put(line, name, strlen(name));
}

static const grf_tensor *grf_tensor_lookup(const grf_builder *b, const char *name) {
    grf_line line;
    grf_layer_name(b, name, &line);
    return grf_gguf_tensor(b->model->file, line.text);
}

static const grf_tensor *grf_tensor_lookup_tiles(const grf_builder *b, const char *name) {
    grf_line line;
    grf_layer_name(b, name, &line);
    grf_line_put(&line, ".t32", 4);
    return b->error ? NULL : grf_gguf_tensor(b->model->file, line.text);
}

static void grf_shape_text(grf_line *line, const uint64_t *ne, int rank) {
    int i;
    line->length = 0;
    for (i = rank - 1; i >= 0; i--) {
        grf_line_put(line, i == rank - 1 ? "[" : ", ", i == rank - 1 ? 1 : 2);
        grf_line_number(line, ne[i], 10);
    }
    grf_line_put(line, "]", 1);
}

/* The tensor of this name, which must be exactly [d0, d1, d2] (row-major; 0 ends the list). */
static const grf_tensor *grf_tensor_require(grf_builder *b, const char *name, int d0, int d1, int d2) {
    int shape[3], rank = d1 == 0 ? 1 : d2 == 0 ? 2 : 3, i;
    uint64_t want[3];
    const grf_tensor *t;
    if (b->error) return NULL;
    shape[0] = d0; shape[1] = d1; shape[2] = d2;
    for (i = 0; i < rank; i++) want[rank - 1 - i] = (uint64_t)shape[i];
    t = grf_tensor_lookup(b, name);
    if (!t || t->rank != rank || memcmp(t->ne, want, (size_t)rank * sizeof want[0]) != 0) {
        grf_line full, expected, found;
        grf_layer_name(b, name, &full);
        grf_shape_text(&expected, want, rank);
        if (!t) b->error = grf_fail(&b->model->host, GRIFFIN_E_FORMAT,
                                    "tensor '%s' %s is missing", full.text, expected.text);
        else {
            grf_shape_text(&found, t->ne, t->rank);
            b->error = grf_fail(&b->model->host, GRIFFIN_E_FORMAT, "tensor '%s' is %s, expected %s",
                                full.text, found.text, expected.text);
        }
        return NULL;
    }
    b->used[t - b->model->file->tensors] = 1;
    return t;
}

static void grf_tensor_floats(const grf_builder *b, const grf_tensor *t, uint64_t first,
                              uint64_t count, float *out) {
    const grf_format *f = grf_format_find(t->type);
    grf_dequantise(t->type,
                   b->model->file->data + t->offset + first / f->block_elems * f->block_bytes, out,
                   count);
}

/* A parameter vector in floats, padded with zeros. */
static float *grf_load_vector(grf_builder *b, const char *name, int d0, int d1, int d2) {
    const grf_tensor *t = grf_tensor_require(b, name, d0, d1, d2);
    uint64_t padded;
    float *v;
    if (!t) return NULL;
    padded = (uint64_t)grf_pad((int64_t)t->elements);
    v = (float *)grf_arena_take(&b->arena, 4 * padded);
    if (!v) { b->parameters += t->elements; return NULL; }
    grf_tensor_floats(b, t, 0, t->elements, v);
    memset(v + t->elements, 0, (size_t)(padded - t->elements) * 4);
    return v;
}

/* ---- packing row-major tensors into tiles ------------------------------------------ */

static uint64_t grf_tile_bytes(int type, uint64_t cols) {
    switch (type) {
    case GRF_F32:  return cols * 4 * GRF_TILE;
    case GRF_Q8_0: return cols / 32 * 34 * GRF_TILE;
    case GRF_Q4_0: return cols / 32 * 18 * GRF_TILE;
    default:       return cols * 2 * GRF_TILE;
    }
}

/* Weights stay in their own type where a kernel knows it; all others are widened, exactly. */
static int grf_packed_type(uint32_t type) {
    switch (type) {
    case GRF_F16: case GRF_BF16: case GRF_Q8_0: case GRF_Q4_0: return (int)type;
    default: return GRF_F32;
    }
}

/* Rows of 16-bit or 32-bit elements; a block of 32 k at a time keeps both sides in cache. */
static void grf_pack_elements(uint8_t *tile, const uint8_t *rows, int count, int cols, int size) {
    int64_t k0, k, r;
    for (k0 = 0; k0 < cols; k0 += 32)
        for (r = 0; r < count; r++)
            for (k = k0; k < cols && k < k0 + 32; k++) {
                const uint8_t *from = rows + (r * cols + k) * size;
                uint32_t wide = size == 4 ? grf_get_u32(from) : 0;
                uint16_t narrow = size == 2 ? grf_get_u16(from) : (uint16_t)0;
                if (size == 4) memcpy(tile + (k * GRF_TILE + r) * 4, &wide, 4);
                else           memcpy(tile + (k * GRF_TILE + r) * 2, &narrow, 2);
            }
}

/* Rows of q8_0 (34 bytes a block) or q4_0 (18): scales first, then groups of 4 bytes of each row.
 * A byte of q4_0 holds k = i and k = i + 16 in the file as in the tile. */
static void grf_pack_blocks(uint8_t *tile, const uint8_t *rows, int count, int cols, int bytes,
                            int flip) {
    int64_t blocks = cols / 32, j, r, i;
    for (j = 0; j < blocks; j++, tile += bytes * GRF_TILE)
        for (r = 0; r < count; r++) {
            const uint8_t *from = rows + (r * blocks + j) * bytes;
            uint16_t scale = grf_get_u16(from);
            memcpy(tile + 2 * r, &scale, 2);
            for (i = 0; i < bytes - 2; i++)
                tile[2 * GRF_TILE + i / 4 * 4 * GRF_TILE + r * 4 + i % 4] =
                    (uint8_t)(from[2 + i] ^ flip);
        }
}

static void grf_pack_rows(uint8_t *tile, int type, const uint8_t *rows, int count, int cols) {
    switch (type) {
    case GRF_Q8_0: grf_pack_blocks(tile, rows, count, cols, 34, 0x80); break;
    case GRF_Q4_0: grf_pack_blocks(tile, rows, count, cols, 18, 0); break;
    case GRF_F32:  grf_pack_elements(tile, rows, count, cols, 4); break;
    default:       grf_pack_elements(tile, rows, count, cols, 2); break;
    }
}

/* One tile from `count` rows of t, beginning with row `first`. */
static void grf_pack_tile(const grf_builder *b, uint8_t *tile, const grf_linear *w,
                          const grf_tensor *t, uint64_t first, int count) {
    uint64_t row_bytes = t->bytes / (t->elements / (uint64_t)w->cols);
    const uint8_t *rows = b->model->file->data + t->offset + first * row_bytes;
    int r;
    if (grf_packed_type(t->type) == (int)t->type) {
        grf_pack_rows(tile, w->type, rows, count, w->cols);
        return;
    }
    for (r = 0; r < count; r++)
        grf_tensor_floats(b, t, (first + (uint64_t)r) * (uint64_t)w->cols, (uint64_t)w->cols,
                          b->row + (int64_t)r * w->cols);
    for (r = 0; r < count; r++) {
        int k;
        for (k = 0; k < w->cols; k++)
            memcpy(tile + ((int64_t)k * GRF_TILE + r) * 4, b->row + (int64_t)r * w->cols + k, 4);
    }
}

static int grf_is_quantised(const grf_linear *w) {
    return w && (w->type == GRF_Q8_0 || w->type == GRF_Q4_0);
}

/* What is known of the weights after measuring: how many there are of which type, and the longest
 * row that must be quantised. */
static void grf_count_linear(grf_builder *b, const grf_linear *w) {
    uint64_t weights = (uint64_t)w->rows * (uint64_t)w->cols;
    b->parameters += weights;
    b->weights_of[w->type] += weights;
    if (grf_is_quantised(w) && b->quantised_cols < w->cols) b->quantised_cols = w->cols;
}

/* A linear layer whose tiles are at `tile`, or, if that is null, in the arena. */
static grf_linear *grf_new_linear(grf_builder *b, int type, int rows, int cols, int blocks,
                                  const float *bias, const uint8_t *tile) {
    grf_linear shape, *w = (grf_linear *)grf_arena_take(&b->arena, sizeof *w);
    shape.type = type; shape.rows = rows; shape.cols = cols; shape.blocks = blocks;
    shape.tiles = (int)(grf_pad(rows / blocks) / GRF_TILE) * blocks;
    shape.tile_bytes = grf_tile_bytes(type, (uint64_t)cols);
    shape.bias = bias;
    shape.tile = tile ? tile : (const uint8_t *)
        grf_arena_take(&b->arena, (uint64_t)shape.tiles * shape.tile_bytes);
    if (b->row_floats < (uint64_t)cols * GRF_TILE) b->row_floats = (uint64_t)cols * GRF_TILE;
    if (!w) {
        grf_count_linear(b, &shape);
        return NULL;
    }
    *w = shape;
    return w;
}

/* From the little-endian bytes of a file to the machine's, and back. Plain numbers all have an
 * order; of blocks only the scales, which are the first 64 bytes. */
static void grf_tiles_native_order(uint8_t *tiles, uint64_t bytes, int type) {
    uint64_t block = type == GRF_Q8_0 ? 34 * GRF_TILE : type == GRF_Q4_0 ? 18 * GRF_TILE : 64, i;
    int size = type == GRF_F32 ? 4 : 2;
    if (!GRF_BIG_ENDIAN) return;
    for (i = 0; i < bytes; i += (uint64_t)size) if (i % block < 64) grf_native_order(tiles + i, size);
}

/* Tiles in the file are used where they are. A tensor NAME.t32 holds them: f32, f16 and bf16 as
 * [tiles, cols, 32] of that type, q8_0 and q4_0 as bytes [tiles, bytes of a tile]. */
static int grf_tiled_type(const grf_tensor *t, uint64_t cols, uint64_t tiles) {
    int plain = t->type == GRF_F32 || t->type == GRF_F16 || t->type == GRF_BF16;
    if (plain && t->rank == 3 && t->ne[0] == GRF_TILE && t->ne[1] == cols && t->ne[2] == tiles)
        return (int)t->type;
    if (t->type != GRF_I8 || t->rank != 2 || t->ne[1] != tiles || cols % 32 != 0) return -1;
    return t->ne[0] == grf_tile_bytes(GRF_Q8_0, cols) ? GRF_Q8_0
         : t->ne[0] == grf_tile_bytes(GRF_Q4_0, cols) ? GRF_Q4_0 : -1;
}

static const grf_linear *grf_tiled(grf_builder *b, const grf_tensor *t, int rows, int cols,
                                   int blocks, const float *bias) {
    int tiles = (int)(grf_pad(rows / blocks) / GRF_TILE) * blocks;
    int type = grf_tiled_type(t, (uint64_t)cols, (uint64_t)tiles);
    grf_linear *w;
    if (type < 0) {
        b->error = grf_tensor_fail(&b->model->host, GRIFFIN_E_FORMAT, t,
                                   "expected %d tiles of %d columns", tiles, cols);
        return NULL;
    }
    b->used[t - b->model->file->tensors] = 1;
    if (!b->copy && !GRF_BIG_ENDIAN)
        return grf_new_linear(b, type, rows, cols, blocks, bias, b->model->file->data + t->offset);
    w = grf_new_linear(b, type, rows, cols, blocks, bias, NULL);
    if (!w) return NULL;
    memcpy((uint8_t *)w->tile, b->model->file->data + t->offset, (size_t)t->bytes);
    grf_tiles_native_order((uint8_t *)w->tile, t->bytes, type);
    return w;
}

/* name.weight [rows, cols] and, if has_bias, name.bias [rows]. */
static const grf_linear *grf_load_matrix(grf_builder *b, const char *name, int rows, int cols,
                                   int has_bias) {
    grf_line weight, bias;
    const grf_tensor *t;
    const float *bias_vector;
    grf_linear *w;
    int i;
    weight.length = bias.length = 0;
    grf_line_put(&weight, name, strlen(name)); grf_line_put(&weight, ".weight", 7);
    grf_line_put(&bias,   name, strlen(name)); grf_line_put(&bias,   ".bias",   5);
    bias_vector = has_bias ? grf_load_vector(b, bias.text, rows, 0, 0) : NULL;
    t = grf_tensor_lookup_tiles(b, weight.text);
    if (t) return grf_tiled(b, t, rows, cols, 1, bias_vector);
    t = grf_tensor_require(b, weight.text, rows, cols, 0);
    if (!t) return NULL;
    w = grf_new_linear(b, grf_packed_type(t->type), rows, cols, 1, bias_vector, NULL);
    for (i = 0; w && i < w->tiles; i++) {
        uint8_t *tile = (uint8_t *)w->tile + (uint64_t)i * w->tile_bytes;
        int64_t first = (int64_t)i * GRF_TILE, count = grf_min64(GRF_TILE, rows - first);
        if (count < GRF_TILE) memset(tile, 0, (size_t)w->tile_bytes);
        grf_pack_tile(b, tile, w, t, (uint64_t)first, (int)count);
    }
    return w;
}

/* The RG-LRU's block-diagonal gates: weight [B, in, out], whose rows already ascend in k = in; bias
 * [B, out]. */
static const grf_linear *grf_load_gates(grf_builder *b, const char *weight, const char *bias) {
    int B = b->config->gate_blocks, n = b->config->lru_width / B,
        tiles = (int)(grf_pad(n) / GRF_TILE);
    const float *bias_vector = grf_load_vector(b, bias, B, n, 0);
    const grf_tensor *t = grf_tensor_lookup_tiles(b, weight);
    grf_linear *w;
    int64_t row, i;
    if (t) return grf_tiled(b, t, n * B, n, B, bias_vector);
    t = grf_tensor_require(b, weight, B, n, n);
    if (!t) return NULL;
    w = grf_new_linear(b, GRF_F32, n * B, n, B, bias_vector, NULL);
    if (!w) return NULL;
    memset((uint8_t *)w->tile, 0, (size_t)((uint64_t)w->tiles * w->tile_bytes));
    for (row = 0; row < (int64_t)B * n; row++) {
        grf_tensor_floats(b, t, (uint64_t)row * (uint64_t)n, (uint64_t)n, b->row);
        for (i = 0; i < tiles; i++)
            memcpy((uint8_t *)w->tile + (uint64_t)(row / n * tiles + i) * w->tile_bytes
                       + (uint64_t)(row % n) * 4 * GRF_TILE,
                   b->row + i * GRF_TILE, (size_t)grf_min64(GRF_TILE, n - i * GRF_TILE) * 4);
    }
    return w;
}

/* conv_1d.weight [E, 1, K] as [K][pad(E)]; the last tap belongs to the current token. */
static float *grf_load_taps(grf_builder *b) {
    int E = b->config->lru_width, K = b->config->conv_width, e, k;
    const grf_tensor *t = grf_tensor_require(b, "temporal_block.conv_1d.weight", E, 1, K);
    float *taps = (float *)grf_arena_take(&b->arena, 4 * (uint64_t)(K * grf_pad(E)));
    if (t && !taps) b->parameters += t->elements;
    if (!t || !taps) return NULL;
    memset(taps, 0, (size_t)(K * grf_pad(E)) * 4);
    grf_tensor_floats(b, t, 0, t->elements, b->row);
    for (e = 0; e < E; e++)
        for (k = 0; k < K; k++) taps[k * grf_pad(E) + e] = b->row[e * K + k];
    return taps;
}

/* ---- for writers of model files -------------------------------------------------------------- */

static int grf_tile_type(const char *name) {
    static const int types[] = { GRF_F32, GRF_F16, GRF_BF16, GRF_Q8_0, GRF_Q4_0 };
    int i;
    for (i = 0; name && i < GRF_COUNT(types); i++)
        if (strcmp(name, grf_format_find((uint32_t)types[i])->name) == 0) return types[i];
    return -1;
}

GRIFFIN_API int64_t griffin_tile_size(const char *type, int cols) {
    int known = grf_tile_type(type);
    if (cols < 1) return GRIFFIN_E_ARGUMENT;
    if (known < 0 || (uint32_t)cols % grf_format_find((uint32_t)known)->block_elems != 0)
        return GRIFFIN_E_UNSUPPORTED;
    return (int64_t)grf_tile_bytes(known, (uint64_t)cols);
}

GRIFFIN_API int griffin_tile_pack(const char *type, int cols, const void *rows, int count,
                                  void *tile) {
    int64_t size = griffin_tile_size(type, cols);
    if (size < 0) return (int)size;
    if (!rows || !tile || count < 1 || count > GRF_TILE) return GRIFFIN_E_ARGUMENT;
    memset(tile, 0, (size_t)size);
    grf_pack_rows((uint8_t *)tile, grf_tile_type(type), (const uint8_t *)rows, count, cols);
    grf_tiles_native_order((uint8_t *)tile, (uint64_t)size, grf_tile_type(type));
    return GRIFFIN_OK;
}

/* ---- sizes ------------------------------------------------------------------------------- */

static int grf_is_attention(const griffin_config *g, int layer) { return g->blocks[layer] == 'a'; }

static void grf_lay_out(griffin_model *m) {
    const griffin_config *g = &m->info.config;
    grf_layout *l = &m->layout;
    int i;
    for (i = 0; i < g->layers; i++)
        if (grf_is_attention(g, i)) l->attention_layers++; else l->recurrent_layers++;
    l->rewind = m->info.rewind;
    l->slots = m->info.attn_keys - 1 + l->rewind;
    l->kv_type = m->info.kv_type == GRIFFIN_KV_BF16 ? GRF_BF16 : GRF_F32;
    l->kv_size = l->kv_type == GRF_BF16 ? 2 : 4;
    l->head = (g->head_dim + 15) / 16 * 16;
    l->heads_per_kv = g->heads / g->kv_heads;
    l->head_blocks = (l->heads_per_kv + GRF_HEAD_BLOCK - 1) / GRF_HEAD_BLOCK;
    l->head_block = (l->heads_per_kv + l->head_blocks - 1) / l->head_blocks;
    l->kv_row = (int64_t)g->kv_heads * l->head * l->kv_size;
    l->lane = grf_pad(g->lru_width);
    l->recurrent_row = g->conv_width * l->lane;
    l->recurrent_floats = l->recurrent_layers * l->recurrent_row;
    l->ring_bytes = 2 * (int64_t)l->slots * l->kv_row;
    for (i = 0; i < GRF_BUFFERS; i++) l->width[i] = grf_pad(g->width);
    for (i = GRF_Y; i <= GRF_R; i++) l->width[i] = l->lane;
    l->width[GRF_K] = l->width[GRF_V] = grf_pad((int64_t)g->kv_heads * g->head_dim);
    l->width[GRF_QR] = grf_pad((int64_t)g->heads * l->head);
    l->width[GRF_M] = grf_pad(g->mlp_width);
    l->past = sizeof(griffin_state)
        + (uint64_t)(4 * l->recurrent_floats + l->attention_layers * l->ring_bytes);
    m->info.state_bytes = l->past + 8 * (uint64_t)l->rewind;
    m->info.mark_bytes = sizeof(griffin_state) + 4 * (uint64_t)l->recurrent_floats;
}

/* Directory, a sample of every tensor, and the configuration: another file or fine-tune differs. */
static uint64_t grf_fingerprint(const griffin_model *m) {
    const griffin_config *g = &m->info.config;
    const uint64_t numbers[] = {
        (uint64_t)g->window, (uint64_t)g->heads, (uint64_t)g->kv_heads, (uint64_t)g->rope_dims,
        (uint64_t)g->activation, grf_bits_from_float(g->rope_base), grf_bits_from_float(g->eps),
        grf_bits_from_float(g->norm_offset), grf_bits_from_float(g->embedding_scale), grf_bits_from_float(g->soft_cap),
        grf_bits_from_float(g->decay)
    };
    uint64_t hash = GRF_HASH_START, i;
    for (i = 0; i < m->file->n_tensors; i++) {
        const grf_tensor *t = m->file->tensors + i;
        const uint8_t *data = m->file->data + t->offset;
        size_t n = (size_t)(t->bytes < 256 ? t->bytes : 256);
        hash = grf_hash(hash, t->name, t->name_length);
        hash = grf_hash(hash, data, n);
        hash = grf_hash(hash, data + t->bytes / 2,
                        (size_t)(t->bytes - t->bytes / 2 < n ? t->bytes - t->bytes / 2 : n));
        hash = grf_hash(hash, data + t->bytes - n, n);
    }
    for (i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        hash = grf_hash_number(hash, numbers[i]);
    return grf_hash(hash, g->blocks, (size_t)g->layers);
}

static void grf_report_unused(const griffin_model *m, const unsigned char *used) {
    uint64_t i, count = 0;
    const grf_tensor *first = NULL;
    for (i = 0; i < m->file->n_tensors; i++)
        if (!used[i] && !count++) first = m->file->tensors + i;
    if (first)
        grf_fail(&m->host, GRIFFIN_OK,
                 "%u tensors are not part of the network and were ignored, the first is '%t'",
                 count, first->name, (size_t)first->name_length);
}

static const griffin_config *grf_start_builder(grf_builder *b, griffin_model *m,
                                               unsigned char *base) {
    b->model = m;
    b->config = &m->info.config;
    b->arena.base = base;
    b->arena.used = 0;
    b->recurrent = b->attention = b->n_ops = 0;
    b->ops = (grf_op *)grf_arena_take(&b->arena, GRF_LAYER_OPS * (uint64_t)(m->info.config.layers + 1)
                                               * sizeof(grf_op));
    return b->config;
}

static uint32_t grf_most_used(const grf_builder *b) {
    uint32_t type, most = 0;
    for (type = 1; type < GRF_TYPES; type++)
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
    uint64_t size;
    memset(&b, 0, sizeof b);
    b.used = (unsigned char *)grf_host_allocate(&m->host, m->file->n_tensors);
    if (!b.used) return grf_fail_memory(&m->host, m->file->n_tensors);
    memset(b.used, 0, (size_t)m->file->n_tensors);
    b.copy = copy;
    grf_start_builder(&b, m, NULL);
    grf_network(&b);
    size = b.arena.used + 64;
    if (!b.error) {
        m->weights = grf_host_allocate(&m->host, size);
        if (m->weights) grf_advise(&m->host, m->weights, size);
        b.row = (float *)grf_host_allocate(&m->host, 4 * b.row_floats);
        if (!m->weights || !b.row) b.error = grf_fail_memory(&m->host, size + 4 * b.row_floats);
    }
    if (!b.error) {
        grf_start_builder(&b, m, (unsigned char *)grf_align64(m->weights));
        grf_network(&b);
        m->ops = b.ops;
        m->n_ops = b.n_ops;
        m->layout.q8_row = (b.quantised_cols + GRF_GROUP - 1) / GRF_GROUP;
        m->info.parameters = b.parameters;
        m->info.type = grf_format_find(grf_most_used(&b))->name;
        m->info.weight_bytes = size;
        grf_report_unused(m, b.used);
    }
    grf_host_release(&m->host, b.row);
    grf_host_release(&m->host, b.used);
    return b.error;
}

/* ---- facts for griffin_get_info ------------------------------------------------------- */

/* A metadata string as a C string in memory of the model's; "" if the file has none. */
static int grf_copy_string(griffin_model *m, const char *key, char **memory, const char **text) {
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

static int grf_describe(griffin_model *m) {
    int error = grf_copy_string(m, "general.name", &m->name, &m->info.name);
    if (!error)
        error = grf_copy_string(m, "tokenizer.chat_template", &m->chat_template,
                                &m->info.chat_template);
    m->info.tensors = (int)m->file->n_tensors;
    m->info.kernels = m->kernels->name;
    m->info.file_bytes = m->file->size;
    m->info.has_vocabulary = m->vocab->count > 0;
    m->info.bos         = m->vocab->count ? m->vocab->bos : -1;
    m->info.eos         = m->vocab->count ? m->vocab->eos : -1;
    m->info.end_of_turn = m->vocab->count ? m->vocab->eot : -1;
    m->info.pad         = m->vocab->count ? m->vocab->pad : -1;
    m->info.add_bos = m->vocab->add_bos;
    m->info.fingerprint = grf_fingerprint(m);
    m->layout.saved_tag = 1 | grf_hash_number(m->info.fingerprint, (uint64_t)m->info.attn_keys
                                                  | (uint64_t)m->info.kv_type << 32);
    m->layout.tag = grf_hash_number(m->layout.saved_tag, (uint64_t)m->layout.rewind) | 1;
    return error;
}

/* ---- open and close --------------------------------------------------------------------- */

/* Notes what is asked of the attention. */
static int grf_check_options(griffin_model *m, const griffin_options *options) {
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

static int grf_open(griffin_model *m, const void *data, uint64_t size,
                    const griffin_options *options) {
    int error;
    m->kernels = grf_kernels_find(options ? options->cpu : GRIFFIN_CPU_BEST);
    if (!m->kernels)
        return grf_fail(&m->host, GRIFFIN_E_UNSUPPORTED,
                        "this machine or build lacks the kernels asked for");
    error = grf_check_options(m, options);
    if (!error) error = grf_gguf_open(m->file, data, size, &m->host);
    if (!error) error = grf_find_config(options, m->file, &m->host, &m->info.config);
    if (!error) error = grf_vocab_load(m->vocab, m->file, &m->host);
    if (!error && m->vocab->count > m->info.config.vocab)
        error = grf_fail(&m->host, GRIFFIN_E_FORMAT,
                         "%d tokens in the vocabulary, but %d rows in the embedding",
                         m->vocab->count, m->info.config.vocab);
    if (error) return error;
    if (!m->info.attn_keys) m->info.attn_keys = m->info.config.window + 1;
    grf_lay_out(m);
    error = grf_build(m, options && options->copy_weights);
    return error ? error : grf_describe(m);
}

/* A model together with what it points to. */
typedef struct grf_opened { griffin_model model; grf_gguf file; grf_vocab vocab; } grf_opened;

static int grf_new_model(griffin_model **model, const griffin_options *options, const char *file) {
    grf_opened *opened;
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
    opened = (grf_opened *)grf_host_allocate(&host, sizeof *opened);
    if (!opened) return grf_fail_memory(&host, sizeof *opened);
    memset(opened, 0, sizeof *opened);
    *model = &opened->model;
    (*model)->host = host;
    (*model)->file = &opened->file;
    (*model)->vocab = &opened->vocab;
    return GRIFFIN_OK;
}

/* After opening, messages no longer go to the caller's buffer, which may be gone by then. */
static int grf_finish_open(griffin_model *m, int error, griffin_model **model) {
    if (error) { griffin_close(m); return error; }
    m->host.file = NULL;
    m->host.error = NULL;
    *model = m;
    return GRIFFIN_OK;
}

GRIFFIN_API int griffin_open_memory(griffin_model **model, const void *data, size_t size,
                                    const griffin_options *options) {
    griffin_model *m;
    int error;
    if (!model) return GRIFFIN_E_ARGUMENT;
    *model = NULL;
    error = grf_new_model(&m, options, NULL);
    if (error) return error;
    error = data ? grf_open(m, data, size, options)
                 : grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the data are null");
    return grf_finish_open(m, error, model);
}

#ifndef GRIFFIN_NO_STDIO

#ifdef GRF_MMAP
static int grf_load_file(griffin_model *m, const char *path) {
    struct stat info;
    int file = open(path, O_RDONLY), ok;
    if (file < 0) return grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be opened");
    ok = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
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

static void grf_unload_file(griffin_model *m) {
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
static int grf_read_file(griffin_model *m, FILE *file) {
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

static int grf_load_file(griffin_model *m, const char *path) {
#ifdef _MSC_VER
    #pragma warning(suppress: 4996)         /* fopen is standard */
#endif
    FILE *file = fopen(path, "rb");
    int error;
    if (!file) return grf_fail(&m->host, GRIFFIN_E_FILE, "cannot be opened");
    error = grf_read_file(m, file);
    fclose(file);
    return error;
}

static void grf_unload_file(griffin_model *m) { grf_host_release(&m->host, m->mapped); }
#endif

GRIFFIN_API int griffin_open_file(griffin_model **model, const char *path,
                                  const griffin_options *options) {
    griffin_model *m;
    int error;
    if (!model) return GRIFFIN_E_ARGUMENT;
    *model = NULL;
    error = grf_new_model(&m, options, path);
    if (error) return error;
    error = path ? grf_load_file(m, path)
                 : grf_fail(&m->host, GRIFFIN_E_ARGUMENT, "the path is null");
    if (!error) error = grf_open(m, m->mapped, m->mapped_size, options);
    return grf_finish_open(m, error, model);
}
#endif

GRIFFIN_API void griffin_close(griffin_model *m) {
    grf_host host;
    if (!m) return;
    host = m->host;
    grf_vocab_free(m->vocab, &host);
    grf_gguf_close(m->file, &host);
    grf_host_release(&host, m->weights);
    grf_host_release(&host, m->name);
    grf_host_release(&host, m->chat_template);
#ifndef GRIFFIN_NO_STDIO
    grf_unload_file(m);
#endif
    grf_host_release(&host, m);
}

GRIFFIN_API const griffin_info *griffin_get_info(const griffin_model *model) {
    return model ? &model->info : NULL;
}

GRIFFIN_API int griffin_get_tensor(const griffin_model *model, int index, griffin_tensor *tensor) {
    const grf_tensor *t;
    int i;
    if (!model) return GRIFFIN_E_ARGUMENT;
    if (!tensor || index < 0 || index >= model->info.tensors)
        return grf_fail(&model->host, GRIFFIN_E_ARGUMENT, "tensor %d of %d", index,
                        model->info.tensors);
    t = model->file->tensors + index;
    memset(tensor, 0, sizeof *tensor);
    memcpy(tensor->name, t->name, t->name_length);
    tensor->type = grf_format_find(t->type)->name;
    tensor->rank = t->rank;
    for (i = 0; i < t->rank; i++) tensor->shape[i] = t->ne[t->rank - 1 - i];
    tensor->offset = t->offset;
    tensor->bytes = t->bytes;
    return GRIFFIN_OK;
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
    case GRIFFIN_E_MISMATCH:    return "state, context and model do not belong together";
    case GRIFFIN_E_VOCABULARY:  return "the model carries no vocabulary";
    case GRIFFIN_E_NO_TOKEN:    return "every token is forbidden";
    }
    return error > 0 ? "no error" : "unknown error";
}

/* ================================================================= >>grammar
 * A grammar becomes a program that reads bytes (Thompson 1968, with calls), here absolute:
 *
 *     BYTE b       reads this byte
 *     SET n        reads a character of a class, by the rows from n on
 *     SPLIT a      goes on behind it and at a
 *     JUMP a       goes on at a
 *     CALL a       goes on at a, and behind it after the RETURN
 *     RETURN
 *
 * The text so far has brought it to a few places at once. A place is a position and the calls
 * around it; calls are frames { position, below } in one array that the places share, below being
 * 1 + the index of the next frame out, or 0.
 *
 * A class is a table over UTF-8. A row has 64 entries, for the low six bits of a byte: 0 no,
 * 1 the character is complete, n + 2 row n reads the next byte. First bytes have four rows in
 * succession. Inside a character the position is the number of codes plus the row, and the frame
 * below it says where to go on afterwards.
 *
 * Which tokens may follow is found by walking down a tree of all tokens' bytes with a set of
 * places at every node. The heavy walks are those where nearly everything may follow, as inside a
 * string. As far as they do not return from their rule they are always the same, so they are done
 * when the grammar is opened: an outline holds their tokens, and the nodes where they return. */

#ifndef GRIFFIN_NO_GRAMMAR

#define GRF_MOST_GRAMMAR  262144            /* bytes of text */
#define GRF_MOST_CODES    32768
#define GRF_MOST_ROWS     1024
#define GRF_MOST_RULES    4096
#define GRF_MOST_GROUPS   64                /* within each other */
#define GRF_MOST_RANGES   256               /* in a class */
#define GRF_MOST_OUTLINES 64
#define GRF_LAST_CHARACTER 0x10FFFF

enum grf_instruction { GRF_BYTE, GRF_SET, GRF_SPLIT, GRF_JUMP, GRF_CALL, GRF_RETURN };

typedef struct grf_code {
    uint8_t  kind, byte;
    int32_t  to;                            /* relative, or a rule, until the program is linked */
    uint32_t at;                            /* of a call: where the text has it */
} grf_code;

typedef struct grf_rule  { uint32_t name, length, start; } grf_rule;    /* start: 1 + code, or 0 */
typedef struct grf_group { int start, alternative, jumps; uint32_t at; } grf_group;
typedef struct grf_range { uint32_t low, high; } grf_range;

typedef struct grf_compiler {
    const grf_host *host;
    const char *text;
    uint32_t  length, at;
    int       error;                        /* the first one; nothing happens after it */
    int       n_codes, n_rows, n_rules, n_ranges, depth, stacked;
    int       rule;                         /* being read, or -1 */
    int       atom;                         /* where what may be repeated starts, or -1 */
    grf_group groups[GRF_MOST_GROUPS];
    grf_range ranges[GRF_MOST_RANGES + 2];
    grf_rule  rules[GRF_MOST_RULES];
    grf_code  codes[GRF_MOST_CODES];
    uint16_t  rows[GRF_MOST_ROWS][64];

    /* of a code: reached without reading anything since its rule began; the next that waits for
     * the same rule. Of a rule: the first that waits to hear that it can be empty, if it can, and
     * whether it is being (1) or was (2) searched. */
    uint16_t  stack[GRF_MOST_CODES], waits[GRF_MOST_CODES], waiting[GRF_MOST_RULES];
    uint16_t  path[GRF_MOST_RULES];
    uint8_t   reached[GRF_MOST_CODES], empty[GRF_MOST_RULES], searched[GRF_MOST_RULES];
} grf_compiler;

/* ---- reading a grammar -------------------------------------------------------------------- */

static void grf_wrong(grf_compiler *c, uint32_t at, const char *what) {
    int line = 1, column = 1;
    uint32_t i, n = 0;
    if (c->error) return;
    for (i = 0; i < at; i++) {
        column += ((unsigned char)c->text[i] & 0xC0) != 0x80;
        if (c->text[i] == '\n') { line++; column = 1; }
    }
    while (at + n < c->length && n < 24 && c->text[at + n] != '\n') n++;
    while (n && at + n < c->length && ((unsigned char)c->text[at + n] & 0xC0) == 0x80) n--;
    c->error = grf_fail(c->host, GRIFFIN_E_FORMAT, "grammar, line %d, column %d, at '%t': %s",
                        line, column, c->text + at, (size_t)n, what);
}

static char grf_here(const grf_compiler *c) { return c->at < c->length ? c->text[c->at] : '\0'; }

static void grf_skip_blank(grf_compiler *c) {
    for (; c->at < c->length; c->at++) {
        if (c->text[c->at] == '#') {
            while (c->at < c->length && c->text[c->at] != '\n') c->at++;
        }
        if (c->at == c->length || !memchr(" \t\r\n", c->text[c->at], 4)) return;
    }
}

static int grf_in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
        || c == '-' || c == '_';
}

static uint32_t grf_name_length(const grf_compiler *c) {
    uint32_t n = 0;
    while (c->at + n < c->length && grf_in_name(c->text[c->at + n])) n++;
    return n;
}

/* The end of the ::= behind a name of n bytes; 0 if there is none. */
static uint32_t grf_definition(const grf_compiler *c, uint32_t n) {
    uint32_t at = c->at + n;
    while (at < c->length && (c->text[at] == ' ' || c->text[at] == '\t')) at++;
    return n && c->length - at >= 3 && memcmp(c->text + at, "::=", 3) == 0 ? at + 3 : 0;
}

static int grf_find_rule(const grf_compiler *c, const char *name, uint32_t length) {
    int i;
    for (i = 0; i < c->n_rules; i++) {
        const grf_rule *r = &c->rules[i];
        if (r->length == length && memcmp(c->text + r->name, name, length) == 0) return i;
    }
    return -1;
}

/* The number of the rule whose name is next; a new one if it was never mentioned. */
static int grf_rule_here(grf_compiler *c, uint32_t n) {
    int rule = grf_find_rule(c, c->text + c->at, n);
    if (rule >= 0) return rule;
    if (c->n_rules == GRF_MOST_RULES) {
        grf_wrong(c, c->at, "more than 4096 rules");
        return 0;
    }
    c->rules[c->n_rules].name   = c->at;
    c->rules[c->n_rules].length = n;
    c->rules[c->n_rules].start  = 0;
    return c->n_rules++;
}

static int grf_room(grf_compiler *c, uint64_t more) {
    if (!c->error && (uint64_t)c->n_codes + more > GRF_MOST_CODES) {
        grf_wrong(c, c->at, "the grammar is too large: more than 32768 steps");
    }
    return !c->error;
}

static void grf_emit(grf_compiler *c, int kind, int byte, int to) {
    grf_code *code = &c->codes[c->n_codes];
    if (!grf_room(c, 1)) return;
    code->kind = (uint8_t)kind;
    code->byte = (uint8_t)byte;
    code->to   = to;
    code->at   = c->at;
    c->n_codes++;
}

static void grf_insert_split(grf_compiler *c, int where, int to) {
    int last = c->n_codes;
    grf_code split;
    grf_emit(c, GRF_SPLIT, 0, to);
    if (c->error) return;
    split = c->codes[last];
    memmove(c->codes + where + 1, c->codes + where, (size_t)(last - where) * sizeof split);
    c->codes[where] = split;
}

static void grf_open_group(grf_compiler *c) {
    grf_group *g = &c->groups[c->depth];
    if (c->depth == GRF_MOST_GROUPS) { grf_wrong(c, c->at, "groups nest deeper than 64"); return; }
    g->start = g->alternative = c->n_codes;
    g->jumps = -1;
    g->at = c->at;
    c->depth++;
    c->atom = -1;
}

/* Alternatives so far end with jumps to the end of the group, each knowing the one before it. */
static void grf_alternate(grf_compiler *c) {
    grf_group *g = &c->groups[c->depth - 1];
    grf_insert_split(c, g->alternative, c->n_codes - g->alternative + 2);
    grf_emit(c, GRF_JUMP, 0, g->jumps);
    g->jumps = c->n_codes - 1;
    g->alternative = c->n_codes;
    c->atom = -1;
}

static void grf_close_group(grf_compiler *c) {
    const grf_group *g = &c->groups[--c->depth];
    int jump = c->error ? -1 : g->jumps, before;
    for (; jump >= 0; jump = before) {
        before = c->codes[jump].to;
        c->codes[jump].to = c->n_codes - jump;
    }
    c->atom = g->start;
}

static void grf_end_rule(grf_compiler *c) {
    if (c->rule < 0 || c->error) return;
    if (c->depth > 1) grf_wrong(c, c->groups[c->depth - 1].at, "this group is not closed");
    else grf_close_group(c);
    grf_emit(c, GRF_RETURN, 0, c->rule);
}

static void grf_begin_rule(grf_compiler *c, uint32_t n) {
    grf_end_rule(c);
    c->rule = grf_rule_here(c, n);
    if (c->rules[c->rule].start) grf_wrong(c, c->at, "this rule is defined twice");
    c->rules[c->rule].start = (uint32_t)c->n_codes + 1;
    c->depth = 0;
    grf_open_group(c);
    c->at = grf_definition(c, n);
}

/* Replaces the last atom by `least` to `most` of it, -1 being no limit. The copies are made behind
 * it and then moved down. */
static void grf_repeat(grf_compiler *c, int least, int most) {
    int start = c->atom, end = c->n_codes, length = end - start, i;
    int copies = most >= 0 ? most : least > 0 ? least : 1;
    if (start < 0) grf_wrong(c, c->at, "there is nothing to repeat");
    if (c->error || !grf_room(c, (uint64_t)(length + 1) * (uint64_t)(copies + 1))) return;
    for (i = 0; i < copies; i++) {
        int past = most < 0 ? length + 2 : (most - i) * (length + 1);
        if (i >= least) grf_emit(c, GRF_SPLIT, 0, past);
        memcpy(c->codes + c->n_codes, c->codes + start, (size_t)length * sizeof(grf_code));
        c->n_codes += length;
    }
    if (most < 0 && least > 0) grf_emit(c, GRF_SPLIT, 0, -length);
    if (most < 0 && least == 0) grf_emit(c, GRF_JUMP, 0, -(length + 1));
    memmove(c->codes + start, c->codes + end, (size_t)(c->n_codes - end) * sizeof(grf_code));
    c->n_codes -= length;
}

static int grf_count_here(grf_compiler *c) {
    int n = 0, digits = 0;
    for (; grf_here(c) >= '0' && grf_here(c) <= '9' && n < GRF_MOST_CODES; c->at++, digits++) {
        n = 10 * n + (c->text[c->at] - '0');
    }
    if (!digits || n >= GRF_MOST_CODES) grf_wrong(c, c->at, "expected a number below 32768");
    return n;
}

static void grf_repeat_bounds(grf_compiler *c) {    /* {m} {m,} {m,n} */
    uint32_t at = c->at++;
    int least = grf_count_here(c), most = least;
    if (grf_here(c) == ',') {
        c->at++;
        most = grf_here(c) == '}' ? -1 : grf_count_here(c);
    }
    if (!c->error && grf_here(c) != '}') grf_wrong(c, c->at, "expected }");
    if (most >= 0 && most < least) grf_wrong(c, at, "the bounds are the wrong way round");
    c->at++;
    grf_repeat(c, least, most);
}

/* ---- characters and classes ---------------------------------------------------------------- */

static uint32_t grf_hex_here(grf_compiler *c, int digits) {
    uint32_t value = 0, start = c->at - 2;
    for (; digits; digits--, c->at++) {
        char d = grf_here(c);
        int letter = d | 32;
        if (d >= '0' && d <= '9') value = value << 4 | (uint32_t)(d - '0');
        else if (letter >= 'a' && letter <= 'f') value = value << 4 | (uint32_t)(letter - 'a' + 10);
        else { grf_wrong(c, start, "expected more hexadecimal digits"); return 0; }
    }
    if (value > GRF_LAST_CHARACTER || value >> 11 == 0xD800 >> 11) {
        grf_wrong(c, start, "this is not a character of Unicode");
    }
    return value;
}

/* The next character of a literal or class, which must not be the end of the text. */
static uint32_t grf_character_here(grf_compiler *c) {
    int n = grf_utf8_length(c->text + c->at, c->length - c->at);
    uint32_t character = grf_utf8_code_point(c->text + c->at, n);
    c->at += (uint32_t)n;
    if (character != '\\') return character;
    c->at++;
    switch (c->at <= c->length ? c->text[c->at - 1] : 0) {
    case 'x': return grf_hex_here(c, 2);
    case 'u': return grf_hex_here(c, 4);
    case 'U': return grf_hex_here(c, 8);
    case 't': return '\t';
    case 'r': return '\r';
    case 'n': return '\n';
    case '\\': case '"': case '[': case ']': return (unsigned char)c->text[c->at - 1];
    default: grf_wrong(c, c->at - 2, "expected \\x \\u \\U \\t \\r \\n \\\\ \\\" \\[ or \\]");
    }
    return 0;
}

static void grf_emit_character(grf_compiler *c, uint32_t character) {
    int more = character < 0x80 ? 0 : character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
    static const uint8_t first[4] = { 0, 0xC0, 0xE0, 0xF0 };
    grf_emit(c, GRF_BYTE, (int)(first[more] | character >> 6 * more), 0);
    for (; more > 0; more--) {
        grf_emit(c, GRF_BYTE, (int)(0x80 | (character >> 6 * (more - 1) & 0x3F)), 0);
    }
}

static void grf_literal(grf_compiler *c) {
    uint32_t opened = c->at++;
    int start = c->n_codes;
    while (!c->error && grf_here(c) != '"') {
        if (c->at >= c->length) grf_wrong(c, opened, "this literal is not closed");
        else grf_emit_character(c, grf_character_here(c));
    }
    c->at++;
    c->atom = start;
}

/* Ranges are kept sorted, with gaps between them. */
static void grf_add_range(grf_compiler *c, uint32_t low, uint32_t high) {
    grf_range *r = c->ranges;
    int from = 0, to;
    while (from < c->n_ranges && r[from].high + 1 < low) from++;
    for (to = from; to < c->n_ranges && r[to].low <= high + 1; to++) {
        if (r[to].low  < low)  low  = r[to].low;
        if (r[to].high > high) high = r[to].high;
    }
    if (from == to && c->n_ranges >= GRF_MOST_RANGES) {
        grf_wrong(c, c->at, "more than 256 ranges in a class");
        return;
    }
    memmove(r + from + 1, r + to, (size_t)(c->n_ranges - to) * sizeof *r);
    r[from].low  = low;
    r[from].high = high;
    c->n_ranges += 1 - (to - from);
}

static void grf_complement(grf_compiler *c) {
    uint32_t next = 0, low;
    int i, n = 0;
    for (i = 0; i < c->n_ranges; i++) {
        low = next;
        next = c->ranges[i].high + 1;
        if (c->ranges[i].low == low) continue;
        c->ranges[n].high = c->ranges[i].low - 1;
        c->ranges[n++].low = low;
    }
    if (next <= GRF_LAST_CHARACTER) {
        c->ranges[n].low = next;
        c->ranges[n++].high = GRF_LAST_CHARACTER;
    }
    c->n_ranges = n;
}

/* Of the characters low to high the class has 0 none, 1 some, 2 all. */
static int grf_cover(const grf_compiler *c, uint32_t low, uint32_t high) {
    int from = 0, to = c->n_ranges;         /* the first range that ends at low or later */
    while (from < to) {
        int middle = (from + to) / 2;
        if (c->ranges[middle].high < low) from = middle + 1; else to = middle;
    }
    if (from == c->n_ranges || c->ranges[from].low > high) return 0;
    return c->ranges[from].low <= low && c->ranges[from].high >= high ? 2 : 1;
}

/* The number of the first of these rows, which are shared by all that need the same. */
static int grf_keep_rows(grf_compiler *c, const uint16_t *rows, int count) {
    size_t size = (size_t)count * sizeof c->rows[0];
    int i;
    for (i = 0; i + count <= c->n_rows; i++) {
        if (memcmp(c->rows[i], rows, size) == 0) return i;
    }
    if (c->n_rows + count > GRF_MOST_ROWS) {
        grf_wrong(c, c->at, "the classes of the grammar are too complicated");
        return 0;
    }
    memcpy(c->rows[c->n_rows], rows, size);
    c->n_rows += count;
    return c->n_rows - count;
}

/* The entry for a start of characters that has `level` more bytes to come: of those from `first`
 * on, but at least `least`, since longer spellings of smaller ones are not UTF-8. Calls itself for
 * the next byte, three times at most. */
static uint16_t grf_entry(grf_compiler *c, int level, uint32_t first, uint32_t least) {
    uint32_t last = first + ((uint32_t)1 << 6 * level) - 1, b;
    uint16_t row[64];
    int cover = last < least ? 0 : grf_cover(c, first < least ? least : first, last);
    if (first < least && cover) cover = 1;
    if (!cover || !level) return cover != 0;
    for (b = 0; b < 64; b++) {
        row[b] = cover == 2 && b ? row[0]
               : grf_entry(c, level - 1, first + (b << 6 * (level - 1)), least);
    }
    return (uint16_t)(grf_keep_rows(c, row, 1) + 2);
}

/* The ranges, or all but them, as a SET. Halves of surrogate pairs are not characters. */
static void grf_emit_set(grf_compiler *c, int negated) {
    uint16_t rows[256];
    uint32_t b;
    int any = 0;
    if (!negated) grf_complement(c);
    grf_add_range(c, 0xD800, 0xDFFF);
    grf_complement(c);
    for (b = 0; b < 256; b++) {
        rows[b] = b < 0x80 ? grf_entry(c, 0, b, 0)
                : b < 0xC2 ? (uint16_t)0
                : b < 0xE0 ? grf_entry(c, 1, (b & 0x1F) << 6, 0x80)
                : b < 0xF0 ? grf_entry(c, 2, (b & 0x0F) << 12, 0x800)
                : b < 0xF5 ? grf_entry(c, 3, (b & 0x07) << 18, 0x10000) : (uint16_t)0;
        any |= rows[b];
    }
    if (!any) grf_wrong(c, c->at, "nothing is in this class");
    c->atom = c->n_codes;
    grf_emit(c, GRF_SET, 0, grf_keep_rows(c, rows, 4));
    c->n_ranges = 0;
}

static void grf_class(grf_compiler *c) {
    uint32_t opened = c->at++, low, high;
    int negated = grf_here(c) == '^';
    c->at += (uint32_t)negated;
    if (grf_here(c) == ']') grf_wrong(c, opened, "an empty class");
    while (!c->error && grf_here(c) != ']') {
        if (c->at >= c->length) { grf_wrong(c, opened, "this class is not closed"); return; }
        low = high = grf_character_here(c);
        if (grf_here(c) == '-' && c->at + 1 < c->length && c->text[c->at + 1] != ']') {
            c->at++;
            high = grf_character_here(c);
        }
        if (high < low) grf_wrong(c, opened, "a range of this class is the wrong way round");
        grf_add_range(c, low, high);
    }
    c->at++;
    if (!c->error) grf_emit_set(c, negated);
}

static void grf_any_character(grf_compiler *c) {
    c->at++;
    grf_add_range(c, 0, GRF_LAST_CHARACTER);
    grf_emit_set(c, 0);
}

static void grf_sign(grf_compiler *c) {
    switch (grf_here(c)) {
    case '"': grf_literal(c); return;
    case '[': grf_class(c); return;
    case '.': grf_any_character(c); return;
    case '{': grf_repeat_bounds(c); return;
    case '*': grf_repeat(c, 0, -1); break;
    case '+': grf_repeat(c, 1, -1); break;
    case '?': grf_repeat(c, 0, 1); break;
    case '|': grf_alternate(c); break;
    case '(': grf_open_group(c); break;
    case ')':
        if (c->depth > 1) grf_close_group(c);
        else grf_wrong(c, c->at, "there is no group to close");
        break;
    default: grf_wrong(c, c->at, "expected a literal, class, group or rule");
    }
    c->at++;
}

static void grf_read_rules(grf_compiler *c) {
    for (grf_skip_blank(c); !c->error && c->at < c->length; grf_skip_blank(c)) {
        uint32_t n = grf_name_length(c);
        if (grf_definition(c, n)) {
            grf_begin_rule(c, n);
        } else if (c->rule < 0) {
            grf_wrong(c, c->at, "expected a rule, name ::= ...");
        } else if (n) {
            c->atom = c->n_codes;
            grf_emit(c, GRF_CALL, 0, grf_rule_here(c, n));
            c->at += n;
        } else {
            grf_sign(c);
        }
    }
    grf_end_rule(c);
}

/* ---- checking and linking ------------------------------------------------------------------- */

static void grf_reach(grf_compiler *c, int code) {
    if (c->reached[code]) return;
    c->reached[code] = 1;
    c->stack[c->stacked++] = (uint16_t)code;
}

static void grf_reach_return(grf_compiler *c, int rule) {
    int code, next;
    if (c->empty[rule]) return;
    c->empty[rule] = 1;
    for (code = c->waiting[rule]; code; code = next) {
        next = c->waits[code - 1];
        grf_reach(c, code);                 /* waiting codes are numbered from 1, so: behind it */
    }
}

/* Which codes are reached, and which rules left, without reading anything. */
static void grf_reach_all(grf_compiler *c) {
    int i;
    for (i = 0; i < c->n_rules; i++) grf_reach(c, (int)c->rules[i].start - 1);
    while (c->stacked) {
        int at = c->stack[--c->stacked];
        const grf_code *code = &c->codes[at];
        switch (code->kind) {
        case GRF_SPLIT: grf_reach(c, at + 1); grf_reach(c, at + code->to); break;
        case GRF_JUMP: grf_reach(c, at + code->to); break;
        case GRF_RETURN: grf_reach_return(c, code->to); break;
        case GRF_CALL:
            c->waits[at] = c->waiting[code->to];
            c->waiting[code->to] = (uint16_t)(at + 1);
            if (c->empty[code->to]) grf_reach(c, at + 1);
            break;
        default: break;
        }
    }
}

/* Follows calls that come first in their rule, depth first; stack holds the codes and path the
 * rules on the way. */
static void grf_refuse_left_recursion(grf_compiler *c, int rule) {
    int depth = 0, called;
    if (c->searched[rule]) return;
    c->stack[depth] = (uint16_t)(c->rules[rule].start - 1);
    c->path[depth++] = (uint16_t)rule;
    c->searched[rule] = 1;
    while (depth && !c->error) {
        int at = c->stack[depth - 1]++;
        if (c->codes[at].kind == GRF_RETURN) c->searched[c->path[--depth]] = 2;
        if (c->codes[at].kind != GRF_CALL || !c->reached[at]) continue;
        called = c->codes[at].to;
        if (c->searched[called] == 1) {
            grf_wrong(c, c->codes[at].at, "left recursion, this rule leads back to itself");
        } else if (!c->searched[called]) {
            c->searched[called] = 1;
            c->stack[depth] = (uint16_t)(c->rules[called].start - 1);
            c->path[depth++] = (uint16_t)called;
        }
    }
}

/* Makes everything absolute. What would only return after a call needs no frame: it jumps. */
static void grf_link(grf_compiler *c) {
    int i, next;
    for (i = 0; i < c->n_codes; i++) {
        if (c->codes[i].kind == GRF_SPLIT || c->codes[i].kind == GRF_JUMP) c->codes[i].to += i;
    }
    for (i = 0; i < c->n_codes; i++) {
        grf_code *code = &c->codes[i];
        if (code->kind != GRF_CALL) continue;
        code->to = (int32_t)c->rules[code->to].start - 1;
        for (next = i + 1; c->codes[next].kind == GRF_JUMP; ) next = c->codes[next].to;
        if (c->codes[next].kind == GRF_RETURN) code->kind = GRF_JUMP;
    }
}

/* The code where the root begins is left in `rule`. */
static int grf_compile(grf_compiler *c) {
    int i;
    c->rule = c->atom = -1;
    for (c->at = 0; c->at < c->length; c->at += (uint32_t)i) {
        i = grf_utf8_length(c->text + c->at, c->length - c->at);
        if (i <= 0) { grf_wrong(c, c->at, "this is not UTF-8"); return c->error; }
    }
    c->at = 0;
    grf_read_rules(c);
    for (i = 0; i < c->n_rules; i++) {
        if (!c->rules[i].start) grf_wrong(c, c->rules[i].name, "there is no rule of this name");
    }
    c->rule = grf_find_rule(c, "root", 4);
    if (c->rule < 0) grf_wrong(c, c->length, "there is no rule 'root' to begin with");
    if (c->error) return c->error;
    grf_reach_all(c);
    for (i = 0; i < c->n_rules; i++) grf_refuse_left_recursion(c, i);
    if (c->error) return c->error;
    grf_link(c);
    c->rule = (int)c->rules[c->rule].start - 1;
    return GRIFFIN_OK;
}

/* ---- the tree of all tokens' bytes ---------------------------------------------------------- */

/* Nodes stand in the order of their texts, so all below a node follow it. Tokens stand in the same
 * order: those that end at node i are from its `first` to that of i + 1. */
typedef struct grf_twig { uint32_t next_byte, first; } grf_twig;    /* next << 8 | byte */

#define GRF_MOST_TWIGS    (1 << 24)
#define GRF_LONGEST_TOKEN 256

/* What a heavy walk found: tokens that may follow, in ranges [first, end) of the tree's order, and
 * nodes below which the calls around decide. */
typedef struct grf_outline {
    uint32_t *ranges, *exits;               /* one block of memory */
    uint32_t  n_ranges, n_exits;
    int       returned;                     /* the calls around decide from the root on, too */
} grf_outline;

struct griffin_grammar {
    const griffin_model *model;
    grf_host     host;
    uint64_t     id;                        /* of the text; not 0 */
    uint64_t     size;                      /* of all allocations */
    grf_code    *codes;
    uint16_t   (*rows)[64];
    int          n_codes, n_rows, root;
    grf_twig    *twigs;                     /* [0] is the root of the tree, [n_twigs] ends it */
    uint32_t     n_twigs, n_written;
    int32_t     *order;                     /* n_written tokens as in the tree, then the others */
    uint16_t    *outline_of;                /* [n_codes] 1 + index, or 0 */
    grf_outline  outlines[GRF_MOST_OUTLINES];
    int          n_outlines;
};

static uint32_t grf_twig_next(const griffin_grammar *g, uint32_t i) {
    return g->twigs[i].next_byte >> 8;
}

static void *grf_grammar_memory(griffin_grammar *g, uint64_t count, size_t each) {
    void *memory = grf_host_allocate(&g->host, count * each);
    if (memory) g->size += count * each;
    return memory;
}

/* Control tokens and turn markers have no text that a grammar could mean. */
static int grf_has_text(const grf_vocab *v, int32_t id) {
    const grf_piece *piece = &v->pieces[id];
    if (piece->type == GRIFFIN_TOKEN_BYTE) return 1;
    return !piece->marker && id != v->bos && id != v->eos && id != v->eot && id != v->pad;
}

typedef struct grf_sorter {
    char     *bytes;                        /* of token i: from starts[i] to starts[i + 1] */
    uint32_t *starts;
    int32_t  *from, *to;
} grf_sorter;

static uint32_t grf_token_bytes(const grf_sorter *s, int32_t id, const char **bytes) {
    *bytes = s->bytes + s->starts[id];
    return s->starts[id + 1] - s->starts[id];
}

static int grf_sorts_before(const grf_sorter *s, int32_t a, int32_t b) {
    const char *p, *q;
    uint32_t m = grf_token_bytes(s, a, &p), n = grf_token_bytes(s, b, &q);
    int order = memcmp(p, q, m < n ? m : n);
    return order ? order < 0 : m < n;
}

/* Merges runs of doubling length; the result is in `from`. */
static void grf_sort_tokens(grf_sorter *s, int32_t count) {
    int64_t run, start, a, b, to;
    for (run = 1; run < count; run *= 2) {
        int32_t *other = s->from;
        for (start = to = 0; start < count; start += 2 * run) {
            int64_t middle = grf_min64(start + run, count), end = grf_min64(start + 2 * run, count);
            for (a = start, b = middle; to < end; to++) {
                int right = a == middle || (b < end && grf_sorts_before(s, s->from[b], s->from[a]));
                s->to[to] = s->from[right ? b++ : a++];
            }
        }
        s->from = s->to;
        s->to = other;
    }
}

/* Bytes that two neighbours in the order share at their start. */
static uint32_t grf_shared(const grf_sorter *s, int32_t a, int32_t b) {
    const char *p, *q;
    uint32_t m = grf_token_bytes(s, a, &p), n = grf_token_bytes(s, b, &q), i = 0;
    while (i < m && i < n && p[i] == q[i]) i++;
    return i;
}

static int grf_grow_twigs(griffin_grammar *g, const grf_sorter *s) {
    uint32_t open[GRF_LONGEST_TOKEN + 1], i, depth = 0, shared, length, count = 1;
    const char *bytes;
    for (i = 0; i < g->n_written; i++) {
        count += grf_token_bytes(s, g->order[i], &bytes);
        if (i) count -= grf_shared(s, g->order[i - 1], g->order[i]);
    }
    if (count >= GRF_MOST_TWIGS) return grf_fail_memory(&g->host, count);
    g->twigs = (grf_twig *)grf_grammar_memory(g, count + 1, sizeof(grf_twig));
    if (!g->twigs) return grf_fail_memory(&g->host, count * sizeof(grf_twig));
    open[0] = 0;
    g->twigs[0].first = 0;
    g->n_twigs = 1;
    for (i = 0; i < g->n_written; i++) {
        length = grf_token_bytes(s, g->order[i], &bytes);
        shared = i ? grf_shared(s, g->order[i - 1], g->order[i]) : 0;
        for (; depth > shared; depth--) g->twigs[open[depth]].next_byte |= g->n_twigs << 8;
        while (depth < length) {
            g->twigs[g->n_twigs].next_byte = (uint8_t)bytes[depth];
            g->twigs[g->n_twigs].first = i;
            open[++depth] = g->n_twigs++;
        }
    }
    for (; depth; depth--) g->twigs[open[depth]].next_byte |= g->n_twigs << 8;
    g->twigs[0].next_byte = g->twigs[g->n_twigs].next_byte = g->n_twigs << 8;
    g->twigs[g->n_twigs].first = g->n_written;
    return GRIFFIN_OK;
}

/* The bytes of all tokens, one after another; those without text have none. */
static int grf_collect_bytes(griffin_grammar *g, grf_sorter *s) {
    const grf_vocab *v = g->model->vocab;
    uint64_t total = 0;
    int32_t id;
    for (id = 0; id < v->count; id++) {
        int n = grf_has_text(v, id) ? griffin_token_text(g->model, id, NULL, 0) : 0;
        if (n > GRF_LONGEST_TOKEN) {
            return grf_fail(&g->host, GRIFFIN_E_UNSUPPORTED, "token %d has %d bytes, more than the "
                            "%d that grammars work with", (int)id, n, GRF_LONGEST_TOKEN);
        }
        s->starts[id] = (uint32_t)total;
        total += (uint64_t)n;
    }
    s->starts[id] = (uint32_t)total;
    s->bytes = (char *)grf_host_allocate(&g->host, total);
    if (!s->bytes) return grf_fail_memory(&g->host, total);
    for (id = 0; id < v->count; id++) {
        size_t n = s->starts[id + 1] - s->starts[id];
        if (n) griffin_token_text(g->model, id, s->bytes + s->starts[id], n);
    }
    return GRIFFIN_OK;
}

static int grf_order_tokens(griffin_grammar *g, grf_sorter *s) {
    int32_t count = g->model->vocab->count, id, others = count;
    int error = grf_collect_bytes(g, s);
    if (error) return error;
    for (id = 0; id < count; id++) {
        if (s->starts[id + 1] > s->starts[id]) s->from[g->n_written++] = id;
        else g->order[--others] = id;
    }
    grf_sort_tokens(s, (int32_t)g->n_written);
    memcpy(g->order, s->from, g->n_written * sizeof *g->order);
    return grf_grow_twigs(g, s);
}

static int grf_build_tree(griffin_grammar *g) {
    uint64_t count = (uint64_t)g->model->vocab->count, size = count * 12 + 4;
    uint32_t *scratch = (uint32_t *)grf_host_allocate(&g->host, size);
    grf_sorter s;
    int error;
    if (!scratch) return grf_fail_memory(&g->host, size);
    memset(&s, 0, sizeof s);
    s.starts = scratch;
    s.from = (int32_t *)scratch + count + 1;
    s.to = s.from + count;
    g->order = (int32_t *)grf_grammar_memory(g, count, sizeof *g->order);
    error = g->order ? grf_order_tokens(g, &s) : grf_fail_memory(&g->host, 4 * count);
    grf_host_release(&g->host, s.bytes);
    grf_host_release(&g->host, scratch);
    return error;
}

/* ---- reading bytes --------------------------------------------------------------------------- */

#define GRF_WALK_FRAMES 2048
#define GRF_WALK_PLACES 4096
#define GRF_WALK_CURSORS 8

#ifndef GRF_WALK_BLOCK                      /* tests make these small */
  #define GRF_WALK_BLOCK 32768              /* tokens marked at a time */
  #define GRF_HEAVY_WALK 1024               /* nodes that make an outline worthwhile */
#endif

typedef griffin_grammar_frame grf_frame;

/* A node on the way down: places from `arrived` on came here, those from `open` on are what they
 * can read next, to `places`; below it, both arrays are filled from there. */
typedef struct grf_level {
    uint32_t end;                           /* of the nodes below */
    uint16_t arrived, n_arrived, open, n_open, places, frames;
    int      returned;
} grf_level;

/* Scratch of a call, 35 KB on the stack. Both arrays grow downwards in the tree and shrink on the
 * way back. */
typedef struct grf_walk {
    const griffin_grammar *g;
    int       n_places, n_frames;
    int       fresh;                        /* frames from here on may be shared */
    int       returned;                     /* the last grf_spread left the outermost rule */
    int       full;
    uint32_t  visited;                      /* nodes */
    uint32_t  low, high;                    /* of the block, in the order of the tree */
    uint32_t *marks;                        /* its tokens that may follow, a bit each; or null */
    grf_outline *outline;                   /* null, or receives what is found, at most */
    uint32_t  most;
    uint32_t  cursor[GRF_WALK_CURSORS];     /* of places with outlines: exits done with */
    grf_frame place[GRF_WALK_PLACES], frame[GRF_WALK_FRAMES];
    grf_level level[GRF_LONGEST_TOKEN + 2];
} grf_walk;

/* Adds a place unless it is there already, from `from` on. */
static void grf_add_place(grf_walk *w, int from, uint32_t position, uint32_t below) {
    int i;
    for (i = from; i < w->n_places; i++) {
        if (w->place[i].position == position && w->place[i].below == below) return;
    }
    if (w->n_places == GRF_WALK_PLACES) { w->full = 1; return; }
    w->place[w->n_places].position = (uint16_t)position;
    w->place[w->n_places++].below  = (uint16_t)below;
}

static uint32_t grf_push_frame(grf_walk *w, uint32_t position, uint32_t below) {
    int i;
    for (i = w->fresh; i < w->n_frames; i++) {
        if (w->frame[i].position == position && w->frame[i].below == below) return (uint32_t)i + 1;
    }
    if (w->n_frames == GRF_WALK_FRAMES) { w->full = 1; return below; }
    w->frame[w->n_frames].position = (uint16_t)position;
    w->frame[w->n_frames].below    = (uint16_t)below;
    return (uint32_t)++w->n_frames;
}

/* Goes on after something was read, as far as there is only one way. */
static void grf_arrive(grf_walk *w, int from, uint32_t position, uint32_t below) {
    for (;;) {
        const grf_code *code = &w->g->codes[position];
        if (code->kind == GRF_JUMP) {
            position = (uint32_t)code->to;
        } else if (code->kind == GRF_RETURN && below) {
            position = w->frame[below - 1].position;
            below    = w->frame[below - 1].below;
        } else {
            break;
        }
    }
    grf_add_place(w, from, position, below);
}

/* Where a place leads without reading; a place that reads leads nowhere. */
static void grf_expand(grf_walk *w, int from, grf_frame p) {
    const grf_code *code = &w->g->codes[p.position];
    if (p.position >= w->g->n_codes) return;
    switch (code->kind) {
    case GRF_SPLIT:
        grf_add_place(w, from, p.position + 1u, p.below);
        grf_add_place(w, from, (uint32_t)code->to, p.below);
        break;
    case GRF_JUMP: grf_add_place(w, from, (uint32_t)code->to, p.below); break;
    case GRF_CALL:
        grf_add_place(w, from, (uint32_t)code->to, grf_push_frame(w, p.position + 1u, p.below));
        break;
    case GRF_RETURN:
        if (!p.below) w->returned = 1;
        else grf_add_place(w, from, w->frame[p.below - 1].position, w->frame[p.below - 1].below);
        break;
    default: break;
    }
}

static int grf_reads(const griffin_grammar *g, uint32_t position) {
    return (int)position >= g->n_codes || g->codes[position].kind <= GRF_SET;
}

/* Appends the places that can read, reached from the last `count` places. Returns how many. */
static int grf_spread(grf_walk *w, int arrived, int count) {
    int from = w->n_places, i, n;
    w->returned = 0;
    w->fresh = w->n_frames;
    for (i = 0; i < count; i++) {
        grf_add_place(w, from, w->place[arrived + i].position, w->place[arrived + i].below);
    }
    for (i = from; i < w->n_places; i++) grf_expand(w, from, w->place[i]);
    for (i = n = from; i < w->n_places; i++) {
        if (grf_reads(w->g, w->place[i].position)) w->place[n++] = w->place[i];
    }
    w->n_places = n;
    return n - from;
}

/* Adds where a byte leads from a place that reads. */
static void grf_read_byte(grf_walk *w, int from, grf_frame p, uint8_t byte) {
    const griffin_grammar *g = w->g;
    const grf_code *code = &g->codes[p.position];
    int inside = p.position >= g->n_codes, entry;
    if (!inside && code->kind == GRF_BYTE) {
        if (code->byte == byte) grf_arrive(w, from, p.position + 1u, p.below);
        return;
    }
    if (inside && byte >> 6 != 2) return;
    entry = g->rows[inside ? p.position - g->n_codes : code->to + (byte >> 6)][byte & 63];
    if (entry == 0) return;
    if (entry > 1) {
        grf_add_place(w, from, (uint32_t)(g->n_codes + entry - 2),
                      inside ? p.below : grf_push_frame(w, p.position + 1u, p.below));
    } else if (inside) {
        grf_arrive(w, from, w->frame[p.below - 1].position, w->frame[p.below - 1].below);
    } else {
        grf_arrive(w, from, p.position + 1u, p.below);
    }
}

static int grf_read(grf_walk *w, int open, int count, uint8_t byte) {
    int from = w->n_places, i;
    w->fresh = w->n_frames;
    for (i = 0; i < count; i++) grf_read_byte(w, from, w->place[open + i], byte);
    return w->n_places - from;
}

/* ---- walking down the tree ------------------------------------------------------------------- */

/* An outline in the making has room for `most` numbers in either array. */
static void grf_outline_range(grf_walk *w, uint32_t first, uint32_t end) {
    grf_outline *o = w->outline;
    uint32_t *last = o->ranges + 2 * o->n_ranges;
    if (o->n_ranges && last[-1] == first) { last[-1] = end; return; }
    if (2 * o->n_ranges + 2 > w->most) { w->full = 1; return; }
    last[0] = first;
    last[1] = end;
    o->n_ranges++;
}

static void grf_outline_exit(grf_walk *w, uint32_t node) {
    if (w->outline->n_exits == w->most) w->full = 1;
    else w->outline->exits[w->outline->n_exits++] = node;
}

/* Marks tokens that may follow. */
static void grf_allow(grf_walk *w, uint32_t first, uint32_t end) {
    if (first == end) return;
    if (w->outline) { grf_outline_range(w, first, end); return; }
    if (first < w->low) first = w->low;
    if (end > w->high) end = w->high;
    for (; first < end; first++) {
        uint32_t at = first - w->low;
        if (at % 32 == 0 && end - first >= 32) {
            w->marks[at / 32] = 0xFFFFFFFFu;
            first += 31;
        } else {
            w->marks[at / 32] |= (uint32_t)1 << at % 32;
        }
    }
}

/* Enters a node with the places from `arrived` on. Where a byte has led to where it came from, as
 * in every loop over characters, the level above knows what they can read. */
static void grf_enter(grf_walk *w, grf_level *l, const grf_level *above, int arrived) {
    int count = w->n_places - arrived;
    if (above && above->n_arrived == count
        && memcmp(w->place + above->arrived, w->place + arrived,
                  (size_t)count * sizeof(grf_frame)) == 0) {
        uint32_t end = l->end;
        w->n_places = above->places;
        *l = *above;
        l->end = end;
        return;
    }
    l->arrived   = (uint16_t)arrived;
    l->n_arrived = (uint16_t)count;
    l->open      = (uint16_t)w->n_places;
    l->n_open    = (uint16_t)grf_spread(w, arrived, count);
    l->places    = (uint16_t)w->n_places;
    l->frames    = (uint16_t)w->n_frames;
    l->returned  = w->returned;
}

/* Visits the nodes below one whose places are in level 0. */
static void grf_walk_below(grf_walk *w, uint32_t node) {
    const griffin_grammar *g = w->g;
    uint32_t i = node + 1, next;
    grf_level *l = w->level;
    l->end = grf_twig_next(g, node);
    for (; i < w->level[0].end && g->twigs[i].first < w->high && !w->full; i = next) {
        while (i >= l->end) l--;
        next = grf_twig_next(g, i);
        w->n_places = l->places;
        w->n_frames = l->frames;
        if (g->twigs[next].first <= w->low) continue;
        if (!grf_read(w, l->open, l->n_open, (uint8_t)g->twigs[i].next_byte)) continue;
        w->visited++;
        grf_allow(w, g->twigs[i].first, g->twigs[i + 1].first);
        if (next == i + 1) continue;
        l[1].end = next;
        grf_enter(w, l + 1, l, l->places);
        l++;
        if (w->outline && l->returned) grf_outline_exit(w, i);
        next = i + 1;
    }
}

/* ---- outlines -------------------------------------------------------------------------------- */

/* Walks the whole tree from a position whose calls are not known. The outline has room for as many
 * numbers as half the tokens in either array; where that is too little, nothing would be won. */
static int grf_outline_position(griffin_grammar *g, int position, grf_outline found) {
    grf_outline *o = &g->outlines[g->n_outlines];
    grf_walk w;
    memset(&w, 0, offsetof(grf_walk, place));
    w.g = g;
    w.high = g->n_written;
    w.outline = &found;
    w.most = g->n_written / 2;
    grf_add_place(&w, 0, (uint32_t)position, 0);
    grf_enter(&w, w.level, NULL, 0);
    grf_walk_below(&w, 0);
    if (w.full || w.visited < GRF_HEAVY_WALK) return GRIFFIN_OK;
    o->n_ranges = found.n_ranges;
    o->n_exits  = found.n_exits;
    o->returned = w.level[0].returned;
    o->ranges = (uint32_t *)grf_grammar_memory(g, 2 * (uint64_t)o->n_ranges + o->n_exits, 4);
    if (!o->ranges) return grf_fail_memory(&g->host, 8 * (uint64_t)o->n_ranges + 4 * o->n_exits);
    o->exits = o->ranges + 2 * o->n_ranges;
    memcpy(o->ranges, found.ranges, 8 * (size_t)o->n_ranges);
    memcpy(o->exits, found.exits, 4 * (size_t)o->n_exits);
    g->outline_of[position] = (uint16_t)++g->n_outlines;
    return GRIFFIN_OK;
}

/* Of all positions where a text can be between two characters: where to go on behind each code,
 * and the beginning. */
static int grf_build_outlines(griffin_grammar *g) {
    uint64_t codes = (uint64_t)g->n_codes, half = g->n_written / 2, size = 8 * half + codes;
    uint32_t *scratch = (uint32_t *)grf_host_allocate(&g->host, size);
    grf_outline found = { scratch, NULL, 0, 0, 0 };
    uint8_t *done;
    int i, error = GRIFFIN_OK;
    if (!scratch) return grf_fail_memory(&g->host, size);
    found.exits = scratch + half;
    done = (uint8_t *)(scratch + 2 * half);
    memset(done, 0, (size_t)codes);
    for (i = -1; i + 1 < g->n_codes && !error && g->n_outlines < GRF_MOST_OUTLINES; i++) {
        int at = i < 0 ? g->root : i + 1;
        if (i >= 0 && g->codes[i].kind >= GRF_SPLIT && g->codes[i].kind != GRF_CALL) continue;
        while (g->codes[at].kind == GRF_JUMP) at = g->codes[at].to;
        if (g->codes[at].kind == GRF_BYTE || g->codes[at].kind == GRF_RETURN || done[at]) continue;
        done[at] = 1;
        error = grf_outline_position(g, at, found);
    }
    grf_host_release(&g->host, scratch);
    return error;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int grf_keep_program(griffin_grammar *g, const grf_compiler *c) {
    uint64_t codes = (uint64_t)c->n_codes, rows = (uint64_t)c->n_rows;
    g->codes = (grf_code *)grf_grammar_memory(g, codes, sizeof *g->codes);
    g->rows = (uint16_t (*)[64])grf_grammar_memory(g, rows, sizeof *g->rows);
    g->outline_of = (uint16_t *)grf_grammar_memory(g, codes, sizeof *g->outline_of);
    if (!g->codes || !g->rows || !g->outline_of) return grf_fail_memory(&g->host, g->size);
    memcpy(g->codes, c->codes, (size_t)codes * sizeof *g->codes);
    memcpy(g->rows, c->rows, (size_t)rows * sizeof *g->rows);
    memset(g->outline_of, 0, (size_t)codes * sizeof *g->outline_of);
    g->n_codes = c->n_codes;
    g->n_rows  = c->n_rows;
    g->root    = c->rule;
    return GRIFFIN_OK;
}

static int grf_compile_text(griffin_grammar *g, const char *text, size_t length) {
    grf_compiler *c;
    int error;
    if (length > GRF_MOST_GRAMMAR) {
        return grf_fail(&g->host, GRIFFIN_E_FORMAT, "grammar: %u bytes, at most %d are read",
                        (uint64_t)length, GRF_MOST_GRAMMAR);
    }
    c = (grf_compiler *)grf_host_allocate(&g->host, sizeof *c);
    if (!c) return grf_fail_memory(&g->host, sizeof *c);
    memset(c, 0, sizeof *c);
    c->host = &g->host;
    c->text = text;
    c->length = (uint32_t)length;
    error = grf_compile(c);
    if (!error) error = grf_keep_program(g, c);
    grf_host_release(&g->host, c);
    return error;
}

GRIFFIN_API void griffin_grammar_close(griffin_grammar *g) {
    grf_host host;
    int i;
    if (!g) return;
    host = g->host;
    for (i = 0; i < g->n_outlines; i++) grf_host_release(&host, g->outlines[i].ranges);
    grf_host_release(&host, g->codes);
    grf_host_release(&host, g->rows);
    grf_host_release(&host, g->outline_of);
    grf_host_release(&host, g->twigs);
    grf_host_release(&host, g->order);
    grf_host_release(&host, g);
}

static grf_host grf_grammar_host(const griffin_model *model, const griffin_options *options) {
    grf_host host = model->host;
    host.file = NULL;
    if (!options) return host;
    if (options->allocator.allocate) host.allocator = options->allocator;
    if (options->logger.message) host.logger = options->logger;
    host.error = options->error;
    host.error_size = options->error_size;
    return host;
}

GRIFFIN_API int griffin_grammar_open(griffin_grammar **grammar, const griffin_model *model,
                                     const char *text, size_t length,
                                     const griffin_options *options) {
    griffin_grammar *g;
    grf_host host;
    int error = grf_text_check(model, grammar && (text || !length), "griffin_grammar_open");
    if (grammar) *grammar = NULL;
    if (error) return error;
    host = grf_grammar_host(model, options);
    g = (griffin_grammar *)grf_host_allocate(&host, sizeof *g);
    if (!g) return grf_fail_memory(&host, sizeof *g);
    memset(g, 0, sizeof *g);
    g->model = model;
    g->host  = host;
    g->size  = sizeof *g;
    g->id    = grf_hash(GRF_HASH_START, text, length) | 1;
    error = grf_compile_text(g, text, length);
    if (!error) error = grf_build_tree(g);
    if (!error) error = grf_build_outlines(g);
    g->host.error = NULL;
    if (error) griffin_grammar_close(g);
    else *grammar = g;
    return error;
}

GRIFFIN_API uint64_t griffin_grammar_size(const griffin_grammar *grammar) {
    return grammar ? grammar->size : 0;
}

/* ---- states ---------------------------------------------------------------------------------- */

static int grf_check_frame(const griffin_grammar *g, grf_frame f, int positions, int frames) {
    return f.position < positions && f.below <= frames && (f.position < g->n_codes || f.below);
}

/* Whatever a state contains, nothing outside of it is read, and every walk ends. */
static int grf_check_places(const griffin_grammar *g, const griffin_grammar_state *s,
                            const char *function) {
    int i, ok = s->frames + s->places <= GRIFFIN_GRAMMAR_FRAMES;
    if (s->grammar == 0 && s->frames + s->places + s->ended == 0) return GRIFFIN_OK;
    for (i = 0; ok && i < s->frames; i++) ok = grf_check_frame(g, s->frame[i], g->n_codes, i);
    for (; ok && i < s->frames + s->places; i++) {
        ok = grf_check_frame(g, s->frame[i], g->n_codes + g->n_rows, s->frames);
    }
    if (ok && s->grammar == g->id) return GRIFFIN_OK;
    return grf_fail(&g->host, GRIFFIN_E_MISMATCH, "%s: the state is of another grammar, or damaged",
                    function);
}

/* Puts the state's frames and places into an empty walk. Returns how many places. */
static int grf_resume(grf_walk *w, const griffin_grammar *g, const griffin_grammar_state *s) {
    memset(w, 0, offsetof(grf_walk, place));
    w->g = g;
    if (s->grammar == 0) {
        grf_arrive(w, 0, (uint32_t)g->root, 0);
    } else {
        memcpy(w->frame, s->frame, s->frames * sizeof(grf_frame));
        memcpy(w->place, s->frame + s->frames, s->places * sizeof(grf_frame));
        w->n_frames = s->frames;
        w->n_places = s->places;
    }
    return w->n_places;
}

/* Keeps the places from `from` on and the frames below them, equal ones once. */
static int grf_suspend(const grf_walk *w, int from, griffin_grammar_state *s) {
    uint16_t moved[GRF_WALK_FRAMES + 1];    /* of 1 + a frame: is it needed; then, 1 + where to */
    int i, j, old = s->frames, n = 0;
    memset(moved, 0, sizeof moved);
    for (i = from; i < w->n_places; i++) moved[w->place[i].below] = 1;
    for (i = w->n_frames; i > 0; i--) if (moved[i]) moved[w->frame[i - 1].below] = 1;
    moved[0] = 0;
    for (i = 1; i <= w->n_frames; i++) {
        grf_frame f = w->frame[i - 1];
        if (!moved[i]) continue;
        f.below = moved[f.below];
        for (j = i <= old ? n : 0; j < n; j++) {
            if (s->frame[j].position == f.position && s->frame[j].below == f.below) break;
        }
        if (j == GRIFFIN_GRAMMAR_FRAMES) return GRIFFIN_E_SPACE;
        s->frame[j] = f;
        if (j == n) n++;
        moved[i] = (uint16_t)(j + 1);
    }
    if (n + w->n_places - from > GRIFFIN_GRAMMAR_FRAMES) return GRIFFIN_E_SPACE;
    s->frames = (uint16_t)n;
    s->places = (uint16_t)(w->n_places - from);
    for (i = from; i < w->n_places; i++) {
        s->frame[n].position = w->place[i].position;
        s->frame[n++].below  = moved[w->place[i].below];
    }
    memset(s->frame + n, 0, (size_t)(GRIFFIN_GRAMMAR_FRAMES - n) * sizeof(grf_frame));
    return GRIFFIN_OK;
}

/* ---- which tokens may follow ----------------------------------------------------------------- */

/* Brings places with outlines to the front. Returns how many of them. */
static int grf_outlined_first(grf_walk *w) {
    int i, n = 0;
    for (i = 0; i < w->n_places && n < GRF_WALK_CURSORS; i++) {
        grf_frame p = w->place[i];
        if (p.position >= w->g->n_codes || !w->g->outline_of[p.position]) continue;
        w->place[i] = w->place[n];
        w->place[n++] = p;
    }
    return n;
}

/* Marks the tokens of the block that follow by an outline, the k-th place's; places and frames
 * are those of the state. */
static void grf_use_outline(grf_walk *w, int k) {
    const griffin_grammar *g = w->g;
    const grf_outline *o = &g->outlines[g->outline_of[w->place[k].position] - 1];
    uint32_t i = 0, end = o->n_ranges, below = w->place[k].below;
    int places = w->n_places;
    while (i < end) {                       /* the first range that reaches into the block */
        uint32_t middle = (i + end) / 2;
        if (o->ranges[2 * middle + 1] <= w->low) i = middle + 1; else end = middle;
    }
    for (; i < o->n_ranges && o->ranges[2 * i] < w->high; i++) {
        grf_allow(w, o->ranges[2 * i], o->ranges[2 * i + 1]);
    }
    if (!below) return;
    grf_arrive(w, places, w->frame[below - 1].position, w->frame[below - 1].below);
    grf_enter(w, w->level, NULL, places);
    if (o->returned) grf_walk_below(w, 0);
    i = w->cursor[k];
    while (i < o->n_exits && g->twigs[grf_twig_next(g, o->exits[i])].first <= w->low) i++;
    w->cursor[k] = i;
    for (; i < o->n_exits && g->twigs[o->exits[i]].first < w->high; i++) {
        grf_walk_below(w, o->exits[i]);
    }
}

/* Masks the tokens low to high of the tree's order. Returns how many remain. */
static int grf_mask_block(grf_walk *w, int outlined, float *logits) {
    int places = w->n_places, frames = w->n_frames, remaining = 0, k;
    uint32_t i;
    memset(w->marks, 0, GRF_WALK_BLOCK / 8);
    for (k = 0; k < outlined; k++) {
        grf_use_outline(w, k);
        w->n_places = places;
        w->n_frames = frames;
    }
    if (outlined < places) {
        grf_enter(w, w->level, NULL, outlined);
        grf_walk_below(w, 0);
    }
    w->n_places = places;
    w->n_frames = frames;
    for (i = 0; i < w->high - w->low; i++) {
        if (w->marks[i / 32] >> i % 32 & 1) remaining++;
        else logits[w->g->order[w->low + i]] = -INFINITY;
    }
    return remaining;
}

static int grf_mask_all(grf_walk *w, float *logits) {
    uint32_t marks[GRF_WALK_BLOCK / 32], written = w->g->n_written;
    int outlined = grf_outlined_first(w), remaining = 0;
    w->marks = marks;
    for (w->low = 0; w->low < written; w->low = w->high) {
        w->high = written - w->low < GRF_WALK_BLOCK ? written : w->low + GRF_WALK_BLOCK;
        remaining += grf_mask_block(w, outlined, logits);
    }
    return remaining;
}

/* Prepares a walk from the state, and says if the text may end where it is. */
static int grf_may_end(grf_walk *w, const griffin_grammar *g, const griffin_grammar_state *s) {
    int places = grf_resume(w, g, s);
    grf_spread(w, 0, places);
    w->n_places = places;
    w->n_frames = s->frames;
    return w->returned;
}

GRIFFIN_API int griffin_grammar_mask(const griffin_grammar *g, const griffin_grammar_state *state,
                                     float *logits) {
    grf_walk w;
    int32_t ends[2], i;
    float kept[2];
    int may_end, remaining, error;
    if (!g) return GRIFFIN_E_ARGUMENT;
    if (!state || !logits) return grf_fail(&g->host, GRIFFIN_E_ARGUMENT, "grammar: null pointer");
    if ((error = grf_check_places(g, state, "griffin_grammar_mask")) < 0) return error;
    ends[0] = g->model->vocab->eos;
    ends[1] = g->model->vocab->eot == ends[0] ? -1 : g->model->vocab->eot;
    for (i = 0; i < 2; i++) kept[i] = ends[i] < 0 ? 0 : logits[ends[i]];
    may_end = grf_may_end(&w, g, state);
    remaining = grf_mask_all(&w, logits);
    for (i = (int32_t)g->n_written; i < g->model->vocab->count; i++) logits[g->order[i]] = -INFINITY;
    for (; i < g->model->info.config.vocab; i++) logits[i] = -INFINITY;
    for (i = 0; i < 2 && may_end; i++) {
        if (ends[i] < 0) continue;
        logits[ends[i]] = kept[i];
        remaining++;
    }
    if (w.full) {
        return grf_fail(&g->host, GRIFFIN_E_SPACE, "griffin_grammar_mask: the grammar leaves too "
                        "many ways open here");
    }
    if (remaining) return remaining;
    return grf_fail(&g->host, GRIFFIN_E_NO_TOKEN, "griffin_grammar_mask: %s",
                    state->ended ? "the text has ended"
                    : may_end ? "the text is complete, and the model has no token to end it"
                    : "no token of the vocabulary can continue the text");
}

/* Returns 1 if the state has moved on, 0 if the byte cannot follow, or E_SPACE. */
static int grf_accept_byte(grf_walk *w, const griffin_grammar *g, griffin_grammar_state *s,
                           uint8_t byte) {
    int places = grf_resume(w, g, s), open = grf_spread(w, 0, places), from = w->n_places;
    int read = grf_read(w, places, open, byte);
    if (w->full) return GRIFFIN_E_SPACE;
    if (!read) return 0;
    s->grammar = g->id;
    return grf_suspend(w, from, s) < 0 ? GRIFFIN_E_SPACE : 1;
}

static int grf_accept_end(grf_walk *w, const griffin_grammar *g, griffin_grammar_state *s) {
    if (!grf_may_end(w, g, s)) return 0;
    memset(s, 0, sizeof *s);
    s->grammar = g->id;
    s->ended = 1;
    return 1;
}

static int grf_accept_token(grf_walk *w, const griffin_grammar *g, griffin_grammar_state *s,
                            int32_t token) {
    const grf_vocab *v = g->model->vocab;
    char bytes[GRF_LONGEST_TOKEN];
    int i, n, moved = 0;
    if (token == v->eos || token == v->eot) return grf_accept_end(w, g, s);
    n = grf_has_text(v, token) ? griffin_token_text(g->model, token, bytes, sizeof bytes) : 0;
    for (i = 0; i < n; i++) {
        moved = grf_accept_byte(w, g, s, (uint8_t)bytes[i]);
        if (moved <= 0) return moved;
    }
    return moved;
}

GRIFFIN_API int griffin_grammar_accept(const griffin_grammar *g, griffin_grammar_state *state,
                                       int32_t token) {
    griffin_grammar_state s;
    grf_walk w;
    int moved;
    if (!g) return GRIFFIN_E_ARGUMENT;
    if (!state || token < 0 || token >= g->model->vocab->count) {
        return grf_fail(&g->host, GRIFFIN_E_ARGUMENT, "griffin_grammar_accept: argument out of "
                        "range");
    }
    if ((moved = grf_check_places(g, state, "griffin_grammar_accept")) < 0) return moved;
    s = *state;
    moved = grf_accept_token(&w, g, &s, token);
    if (moved == 0) {
        return grf_fail(&g->host, GRIFFIN_E_ARGUMENT, "griffin_grammar_accept: token %d cannot "
                        "follow", (int)token);
    }
    if (moved < 0) {
        return grf_fail(&g->host, moved, "griffin_grammar_accept: more than %d rules are open",
                        GRIFFIN_GRAMMAR_FRAMES);
    }
    *state = s;
    return s.ended || grf_may_end(&w, g, &s);
}

#endif /* GRIFFIN_NO_GRAMMAR */

/* ================================================================= >>vectors
 * Kernels are written once, over vectors of 16 numbers: a gv is 16 floats, a gi 16 int32 or 64
 * bytes. This chapter says for each instruction set what such a vector is (one register of AVX-512,
 * two of AVX2, four of NEON and of WebAssembly, an array in plain C) and how its operations are
 * done, in the same order for all. Each set then includes this file once more, and that pass
 * compiles the chapter >>kernels, at the end of the file, with the vectors of the set.
 *
 * Since a vector has the same size everywhere, kernels know nothing of registers and have no tails.
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
#define gi_sub       GV_BASE(gi_sub)
#define gi_and       GV_BASE(gi_and)
#define gi_exponent  GV_BASE(gi_exponent)
#define gi_nibble    GV_BASE(gi_nibble)
#define gi_store8    GV_BASE(gi_store8)
#define gi_sum       GV_BASE(gi_sum)
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
 *     GV_FETCH_BLOCK   1 if GV_INT_ROWS rows prefetch a block before that loop, not in its steps
 *     GV_FMAF          a fused multiply-add of three floats */

/* ---- what the kernels of all sets share ------------------------------------------------------ */

/* A kernel multiplies the weights that it loads with several rows of activations: with as many as
 * have their sums in registers, which is `most`. The compiler keeps sums there only if the number
 * of rows is a constant, so each number is compiled apart. To keep them few, rows go in groups of
 * 12, 6, 4, 3, 2 or 1; 7 or 8 rows go as 4 and the rest. */
static int grf_next_rows(int rows, int most) {
    if (most >= 12 && rows >= 12) return 12;
    if (most >= 6 && (rows == 6 || rows > 8)) return 6;
    if (most >= 4 && rows >= 4) return 4;
    return rows < most ? rows : most;
}

/* Queries of attention go in groups of 5, 4, 2 or 1. Models have 5 or 8 heads in an item. */
static int grf_next_queries(int queries, int most) {
    if (most >= 5 && queries % 5 == 0) return 5;
    if (most >= 4 && queries >= 4) return 4;
    return most >= 2 && queries >= 2 ? 2 : 1;
}

/* Calls f(n, ...) with n as a constant. Only the cases up to `most` are compiled. */
#define GRF_CALL_ROWS(n, most, f, ...) \
    switch (n) { \
    case 12: if ((most) >= 12) f(12, __VA_ARGS__); break; \
    case 6:  if ((most) >= 6)  f(6, __VA_ARGS__);  break; \
    case 4:  if ((most) >= 4)  f(4, __VA_ARGS__);  break; \
    case 3:  if ((most) >= 3)  f(3, __VA_ARGS__);  break; \
    case 2:  if ((most) >= 2)  f(2, __VA_ARGS__);  break; \
    default: f(1, __VA_ARGS__); break; \
    }

#define GRF_CALL_QUERIES(n, most, f, ...) \
    switch (n) { \
    case 5:  if ((most) >= 5) f(5, __VA_ARGS__); break; \
    case 4:  if ((most) >= 4) f(4, __VA_ARGS__); break; \
    case 2:  if ((most) >= 2) f(2, __VA_ARGS__); break; \
    default: f(1, __VA_ARGS__); break; \
    }

/* What a pass over a part of a tile prefetches: `step` bytes from `at` on in each step. A step is a
 * column of floats or an eighth of a block. If the rows need one pass, it prefetches 8 KiB ahead of
 * itself, since a processor's own prefetching falls behind. If they need several, the part stays
 * in the first cache, and each pass prefetches its share of the part after the next. */
typedef struct grf_ahead { const uint8_t *at; int step; } grf_ahead;

static grf_ahead grf_look_ahead(const uint8_t *part, int64_t part_bytes, int step_bytes,
                                int passes) {
    grf_ahead ahead;
    ahead.at = part + (passes > 1 ? 2 * part_bytes : 8192);
    ahead.step = (step_bytes + passes - 1) / passes;
    return ahead;
}

/* Prefetches a line, or two: most of a step of up to 72 or 136 bytes. */
#define GRF_FETCH_LINES(at, two) \
    do { GRF_FETCH(at); if (two) GRF_FETCH((at) + 64); } while (0)

/* Attention prefetches keys and values so many rows before their turn. A row is a few lines of
 * cache, too short for a processor's own prefetching. */
#define GRF_ROWS_AHEAD 16

/* For vectors of four registers: the value of each, with i as a constant. */
#define GV_FOUR(type, value) \
    type r; \
    { enum { i = 0 }; r.at[i] = value; } { enum { i = 1 }; r.at[i] = value; } \
    { enum { i = 2 }; r.at[i] = value; } { enum { i = 3 }; r.at[i] = value; } \
    return r

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
#define GV_FETCH_BLOCK   0
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
GV_INLINE gi   gi_sub(gi a, gi b) { GV_EACH(gi, GV_WRAP(a.at[i], -, b.at[i])); }
GV_INLINE gi   gi_and(gi a, gi b) { GV_EACH(gi, a.at[i] & b.at[i]); }
GV_INLINE gi   gi_exponent(gi a) { GV_EACH(gi, GV_WRAP(a.at[i], <<, 23)); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    GV_EACH(gi, GV_WRAP(a.at[i], >>, upper ? 4 : 0) & 0x0f0f0f0f);
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
GV_INLINE int32_t gi_sum(gi a) {
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) sum = GV_WRAP(sum, +, a.at[i]);
    return sum;
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
#define GV_FETCH_BLOCK   0
#define GV_FMAF          GRF_FMAF
#define GV_BOTH(type, f_lo, f_hi) type r; r.lo = f_lo; r.hi = f_hi; return r
#define GV_BOTH2(type, f) GV_BOTH(type, f(a.lo, b.lo), f(a.hi, b.hi))

typedef struct { __m256  lo, hi; } gv;
typedef struct { __m256i lo, hi; } gi;
GV_INLINE gv   gv_load(const float *p) { GV_BOTH(gv, _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
GV_INLINE void gv_store(float *p, gv a) {
    _mm256_storeu_ps(p, a.lo); _mm256_storeu_ps(p + 8, a.hi);
}
GV_INLINE gv   gv_set(float a) { GV_BOTH(gv, _mm256_set1_ps(a), r.lo); }
GV_INLINE gv   gv_add(gv a, gv b) { GV_BOTH2(gv, _mm256_add_ps); }
GV_INLINE gv   gv_sub(gv a, gv b) { GV_BOTH2(gv, _mm256_sub_ps); }
GV_INLINE gv   gv_mul(gv a, gv b) { GV_BOTH2(gv, _mm256_mul_ps); }
GV_INLINE gv   gv_div(gv a, gv b) { GV_BOTH2(gv, _mm256_div_ps); }
GV_INLINE gv   gv_sqrt(gv a) { GV_BOTH(gv, _mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)); }
GV_INLINE gv   gv_fma(gv a, gv b, gv c) {
    GV_BOTH(gv, _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
GV_INLINE gv   gv_max(gv a, gv b) { GV_BOTH2(gv, _mm256_max_ps); }
GV_INLINE gv   gv_less(gv a, gv b, gv yes, gv no) {
    GV_BOTH(gv, _mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                 _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)));
}
GV_INLINE gi   gv_bits(gv a) { GV_BOTH(gi, _mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)); }
GV_INLINE gv   gv_from_bits(gi a) {
    GV_BOTH(gv, _mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi));
}
GV_INLINE gv   gv_from_int(gi a) {
    GV_BOTH(gv, _mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi));
}
GV_INLINE gv   gv_f16(const void *p) {
    GV_BOTH(gv, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1)));
}
GV_INLINE __m256 GV(half)(const void *p) {        /* 8 bf16 */
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
GV_INLINE gv   gv_bf16(const void *p) {
    GV_BOTH(gv, GV(half)(p), GV(half)((const __m128i *)p + 1));
}
GV_INLINE float gv_sum(gv a) {
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
GV_INLINE float gv_largest(gv a) {
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
GV_INLINE gi   gi_load(const void *p) {
    GV_BOTH(gi, _mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1));
}
GV_INLINE gi   gi_set(int32_t a) { GV_BOTH(gi, _mm256_set1_epi32(a), r.lo); }
GV_INLINE gi   gi_add(gi a, gi b) { GV_BOTH2(gi, _mm256_add_epi32); }
GV_INLINE gi   gi_sub(gi a, gi b) { GV_BOTH2(gi, _mm256_sub_epi32); }
GV_INLINE gi   gi_and(gi a, gi b) { GV_BOTH2(gi, _mm256_and_si256); }
GV_INLINE gi   gi_exponent(gi a) {
    GV_BOTH(gi, _mm256_slli_epi32(a.lo, 23), _mm256_slli_epi32(a.hi, 23));
}
GV_INLINE gi   gi_nibble(gi a, int upper) {
    if (upper) { a.lo = _mm256_srli_epi16(a.lo, 4); a.hi = _mm256_srli_epi16(a.hi, 4); }
    return gi_and(a, gi_set(0x0f0f0f0f));
}
GV_INLINE gi   gi_byte(gi a) {
    const __m256i bit = _mm256_set1_epi8(-128);
    GV_BOTH(gi, _mm256_xor_si256(a.lo, bit), _mm256_xor_si256(a.hi, bit));
}
/* vpmaddubsw multiplies unsigned with signed bytes: |u| with s that has the sign of u. A pair of
 * products is at most 2 128 127, which fits 16 bits. */
GV_INLINE __m256i GV(dot4_half)(__m256i sum, __m256i u, __m256i s) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(s, u));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    GV_BOTH(gi, GV(dot4_half)(sum.lo, u.lo, s.lo), GV(dot4_half)(sum.hi, u.hi, s.hi));
}
/* Nibbles are unsigned, and the 8 pairs of a block fit 16 bits: at most 8 2 15 128. */
GV_INLINE gi GV(add_pairs)(gi pairs, gi u, gi s) {
    GV_BOTH(gi, _mm256_add_epi16(pairs.lo, _mm256_maddubs_epi16(u.lo, s.lo)),
                _mm256_add_epi16(pairs.hi, _mm256_maddubs_epi16(u.hi, s.hi)));
}
GV_INLINE gi GV(sum_pairs)(gi pairs) {
    const __m256i one = _mm256_set1_epi16(1);
    GV_BOTH(gi, _mm256_madd_epi16(pairs.lo, one), _mm256_madd_epi16(pairs.hi, one));
}
GV_INLINE void gi_store8(int8_t *p, gi a) {
    __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    __m128i low = _mm256_castsi256_si128(both), high = _mm256_extracti128_si256(both, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(low, high));
}
GV_INLINE int32_t gi_sum(gi a) {
    __m256i b = _mm256_add_epi32(a.lo, a.hi);
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1)));
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
#define GV_FETCH_BLOCK   0

GV_INLINE gi   gi_byte(gi a) { return a; }
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) {
    GV_BOTH(gi, _mm256_dpbusd_avx_epi32(sum.lo, u.lo, s.lo),
                _mm256_dpbusd_avx_epi32(sum.hi, u.hi, s.hi));
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
#define GV_FETCH_BLOCK   1
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
GV_INLINE __m256 GV(half)(gv a, int upper) {
    return _mm512_castps512_ps256(upper ? _mm512_shuffle_f32x4(a, a, 0x0e) : a);
}
GV_INLINE float gv_sum(gv a) {
    __m256 b = _mm256_add_ps(GV(half)(a, 0), GV(half)(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
GV_INLINE float gv_largest(gv a) {
    __m256 b = _mm256_max_ps(GV(half)(a, 0), GV(half)(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
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
GV_INLINE gi   gi_sub(gi a, gi b) { return _mm512_sub_epi32(a, b); }
GV_INLINE gi   gi_and(gi a, gi b) { return _mm512_and_si512(a, b); }
GV_INLINE gi   gi_exponent(gi a) { return _mm512_slli_epi32(a, 23); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    return gi_and(upper ? _mm512_srli_epi16(a, 4) : a, _mm512_set1_epi8(15));
}
GV_INLINE gi   gi_byte(gi a) { return a; }
GV_INLINE gi   gi_dot4(gi sum, gi u, gi s) { return _mm512_dpbusd_epi32(sum, u, s); }
GV_INLINE void gi_store8(int8_t *p, gi a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}
GV_INLINE int32_t gi_sum(gi a) { return _mm512_reduce_add_epi32(a); }

#include GRIFFIN_FILE

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
#define GV_FETCH_BLOCK   0
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
GV_INLINE gi   gi_sub(gi a, gi b) { GV_FOUR(gi, vsubq_s32(a.at[i], b.at[i])); }
GV_INLINE gi   gi_and(gi a, gi b) { GV_FOUR(gi, vandq_s32(a.at[i], b.at[i])); }
GV_INLINE gi   gi_exponent(gi a) { GV_FOUR(gi, vshlq_n_s32(a.at[i], 23)); }
GV_INLINE int32x4_t GV(upper_nibbles)(int32x4_t a) {
    return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 4));
}
GV_INLINE gi   gi_nibble(gi a, int upper) {
    if (upper) { GV_FOUR(gi, GV(upper_nibbles)(a.at[i])); }
    return gi_and(a, gi_set(0x0f0f0f0f));
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
GV_INLINE int32_t gi_sum(gi a) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(a.at[0], a.at[1]), vaddq_s32(a.at[2], a.at[3])));
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
#define GV_FETCH_BLOCK   0

GV_INLINE gi   gi_byte(gi a) { return GV_BASE(gi_byte)(a); }
GV_INLINE gi   gi_dot4(gi sum, gi w, gi x) {
    GV_FOUR(gi, vdotq_s32(sum.at[i], vreinterpretq_s8_s32(w.at[i]),
                          vreinterpretq_s8_s32(x.at[i])));
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
#define GV_FETCH_BLOCK   0
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
    v128_t s0, s1;
    p0 = wasm_f64x2_mul(p0, wasm_f64x2_promote_low_f32x4(b));
    s0 = wasm_f64x2_add(p0, c0); s1 = wasm_f64x2_add(p1, c1);
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
GV_INLINE gi   gi_sub(gi a, gi b) { GV_FOUR(gi, wasm_i32x4_sub(a.at[i], b.at[i])); }
GV_INLINE gi   gi_and(gi a, gi b) { GV_FOUR(gi, wasm_v128_and(a.at[i], b.at[i])); }
GV_INLINE gi   gi_exponent(gi a) { GV_FOUR(gi, wasm_i32x4_shl(a.at[i], 23)); }
GV_INLINE gi   gi_nibble(gi a, int upper) {
    if (upper) { GV_FOUR(gi, wasm_u8x16_shr(a.at[i], 4)); }
    return gi_and(a, gi_set(0x0f0f0f0f));
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
GV_INLINE int32_t gi_sum(gi a) {
    v128_t b = wasm_i32x4_add(wasm_i32x4_add(a.at[0], a.at[1]), wasm_i32x4_add(a.at[2], a.at[3]));
    b = wasm_i32x4_add(b, wasm_i64x2_shuffle(b, b, 1, 1));
    return wasm_i32x4_extract_lane(wasm_i32x4_add(b, wasm_i32x4_shuffle(b, b, 1, 1, 1, 1)), 0);
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
#undef gi_sub
#undef gi_and
#undef gi_exponent
#undef gi_nibble
#undef gi_store8
#undef gi_sum
#undef gi_byte
#undef gi_dot4
#undef GV_FOUR
#undef GV_BOTH
#undef GV_BOTH2
#undef GV_EACH
#undef GV_WRAP

/* ================================================================= >>dispatch
 * Which set of kernels a model gets: the best one that this machine and its system support, unless
 * the host names one. */

/* A table of kernels: those of the set `base`, but for the product with quantised weights, which is
 * that of the set `bytes`. */
#define GRF_KERNELS(name, base, bytes) { name, \
    grf_float_tile_##base, grf_int_tile_##bytes, grf_quantise_##base, grf_norm_row_##base, \
    grf_conv_row_##base, grf_rglru_row_##base, grf_rope_angles_##base, grf_rope_head_##base, \
    grf_attend_##base, grf_activate_##base, grf_multiply_##base, grf_finish_##base, \
    grf_soft_cap_##base, grf_exp_shifted_##base }

/* The sets that are compiled, the best first. */
static const struct grf_set { griffin_cpu cpu; grf_kernels kernels; } grf_sets[] = {
#ifdef GRF_X86
    { GRIFFIN_CPU_AVX512,   GRF_KERNELS("avx512",   avx512, avx512) },
#endif
#ifdef GRF_AVX_VNNI
    { GRIFFIN_CPU_AVX_VNNI, GRF_KERNELS("avx-vnni", avx2,   avx_vnni) },
#endif
#ifdef GRF_X86
    { GRIFFIN_CPU_AVX2,     GRF_KERNELS("avx2",     avx2,   avx2) },
#endif
#ifdef GRF_NEON_DOT
    { GRIFFIN_CPU_NEON_DOT, GRF_KERNELS("neon-dot", neon,   neon_dot) },
#endif
#ifdef GRF_NEON
    { GRIFFIN_CPU_NEON,     GRF_KERNELS("neon",     neon,   neon) },
#endif
#ifdef GRF_WASM
    { GRIFFIN_CPU_WASM,     GRF_KERNELS("wasm",     wasm,   wasm) },
#endif
    { GRIFFIN_CPU_SCALAR,   GRF_KERNELS("scalar",   scalar, scalar) }
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

/* Registers that the operating system saves: bits 1 and 2 SSE and AVX, 5 to 7 AVX-512. */
static GRF_TARGET("xsave") uint64_t grf_saved_registers(void) {
    return (uint64_t)_xgetbv(0);
}

/* The sets that both processor and system know, a bit for each griffin_cpu. Leaf 1, ecx: 12 fma,
 * 27 osxsave, 29 f16c. Leaf 7, ebx: 5 avx2, 16 f, 17 dq, 30 bw, 31 vl; ecx: 11 vnni; its part 1,
 * eax: 4 avx-vnni. */
static unsigned grf_x86_sets(void) {
    const uint32_t avx2 = 1u << 12 | 1u << 27 | 1u << 29,
                   avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    uint32_t top[4], one[4], seven[4], more[4] = { 0, 0, 0, 0 };
    unsigned sets = 0;
    uint64_t saved;
    grf_cpuid(top, 0, 0);
    if (top[0] < 7) return sets;
    grf_cpuid(one, 1, 0);
    grf_cpuid(seven, 7, 0);
    if ((one[2] & avx2) != avx2 || !(seven[1] >> 5 & 1)) return sets;
    saved = grf_saved_registers();
    if ((saved & 0x06) != 0x06) return sets;
    sets |= 1u << GRIFFIN_CPU_AVX2;
    if (seven[0] >= 1) grf_cpuid(more, 7, 1);
    if (more[0] >> 4 & 1) sets |= 1u << GRIFFIN_CPU_AVX_VNNI;
    if ((saved & 0xe6) == 0xe6 && (seven[1] & avx512) == avx512 && seven[2] >> 11 & 1)
        sets |= 1u << GRIFFIN_CPU_AVX512;
    return sets;
}
#endif

/* The sets that can run here, a bit for each griffin_cpu. Compilers choose NEON and SIMD128. */
static unsigned grf_sets_here(void) {
    unsigned sets = 1u << GRIFFIN_CPU_SCALAR | 1u << GRIFFIN_CPU_NEON | 1u << GRIFFIN_CPU_WASM;
#ifdef GRF_X86
    sets |= grf_x86_sets();
#endif
#if GRF_NEON_DOT == 1
    sets |= 1u << GRIFFIN_CPU_NEON_DOT;
#elif GRF_NEON_DOT == 2
    if (getauxval(AT_HWCAP) >> 20 & 1) sets |= 1u << GRIFFIN_CPU_NEON_DOT;  /* HWCAP_ASIMDDP */
#endif
    return sets;
}

static const grf_kernels *grf_kernels_find(griffin_cpu cpu) {
    const unsigned here = grf_sets_here();
    for (int i = 0; i < GRF_COUNT(grf_sets); i++) {
        const struct grf_set *set = &grf_sets[i];
        if ((cpu == GRIFFIN_CPU_BEST || cpu == set->cpu) && here >> set->cpu & 1)
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
    *n = gi_sub(gv_bits(t), gi_set(0x4b400000));
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
    gv r, p = gv_set(1.0f / 40320), scale;
    x = gv_max(gv_set(-80.0f), x);
    r = GV(reduce)(x, &n);
    p = gv_fma(p, r, gv_set(1.0f / 5040));
    p = gv_fma(p, r, gv_set(1.0f / 720));
    p = gv_fma(p, r, gv_set(1.0f / 120));
    p = gv_fma(p, r, gv_set(1.0f / 24));
    p = gv_fma(p, r, gv_set(1.0f / 6));
    p = gv_fma(p, r, gv_set(0.5f));
    p = gv_fma(p, gv_mul(r, r), r);
    scale = gv_from_bits(gi_exponent(gi_add(n, gi_set(127))));
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
    gv square = gv_mul(x, x), p;
    p = gv_fma(gv_set(-5.70498872745e-3f), square, gv_set(2.06390887954e-2f));
    p = gv_fma(p, square, gv_set(-5.37397155531e-2f));
    p = gv_fma(p, square, gv_set(1.33314422036e-1f));
    p = gv_fma(p, square, gv_set(-3.33332819422e-1f));
    return gv_fma(gv_mul(p, square), x, x);
}

/* tanh |x| = 1 - 2 / (1 + e^(2|x|)), which cancels near 0. */
GV_INLINE gv GV(tanh)(gv x) {
    gv size = gv_less(x, gv_set(0), GV(neg)(x), x), large;
    large = gv_div(gv_set(-2), gv_add(gv_set(1), GV(exp)(gv_add(size, size))));
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
    gv t = gv_div(gv_set(1), gv_fma(z, gv_set(0.5f), gv_set(1))), p = gv_set(P[0]), tail;
    int i;
    for (i = 1; i < GRF_COUNT(P); i++) p = gv_fma(p, t, gv_set(P[i]));
    /* the share of the normal distribution beyond |x| */
    tail = gv_mul(gv_mul(gv_set(0.5f), t), GV(exp)(gv_fma(GV(neg)(z), z, p)));
    return gv_mul(x, gv_less(x, gv_set(0), tail, gv_fma(gv_set(-1), tail, gv_set(1))));
}

GV_KERNEL void GV(activate)(float *y, griffin_activation activation, int64_t n) {
    int64_t j;
    for (j = 0; j < n; j += 16) {
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
    int64_t j;
    for (j = 0; j < n; j += 16) gv_store(y + j, gv_mul(gv_load(y + j), gv_load(x + j)));
}

/* to[m][j] = out[m][j] + b[j], or plus what was there; out has rows of a tile, n is any number */
GV_KERNEL void GV(finish)(float *to, int64_t stride, const float *out, const float *bias, int add,
                          int rows, int n) {
    int j;
    for (; rows > 0; rows--, to += stride, out += GRF_TILE) {
        for (j = 0; j + 16 <= n; j += 16) {
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

/* y = cap tanh(y / cap), 64 logits at a time. If none of them comes near the cap, GV(tanh) would
 * select the result of GV(tanh_near) everywhere, and its exponential is left out. */
GV_KERNEL void GV(soft_cap)(float *y, float cap, int64_t n) {
    for (; n > 0; n -= 64, y += 64) {
        int64_t count = grf_min64(n, 64), j;
        gv size = gv_set(0);
        for (j = 0; j < count; j += 16) {
            gv x = gv_div(gv_load(y + j), gv_set(cap));
            size = gv_max(gv_max(x, GV(neg)(x)), size);
            gv_store(y + j, x);
        }
        if (gv_largest(size) < 0.625f)
            for (j = 0; j < count; j += 16)
                gv_store(y + j, gv_mul(gv_set(cap), GV(tanh_near)(gv_load(y + j))));
        else
            for (j = 0; j < count; j += 16)
                gv_store(y + j, gv_mul(gv_set(cap), GV(tanh)(gv_load(y + j))));
    }
}

GV_KERNEL void GV(exp_shifted)(float *y, const float *x, float shift, int n) {
    float last[16];
    int j, left;
    for (j = 0; j + 16 <= n; j += 16)
        gv_store(y + j, GV(exp)(gv_sub(gv_load(x + j), gv_set(shift))));
    left = n - j;
    if (left == 0) return;
    memset(last, 0, sizeof last);
    memcpy(last, x + j, (size_t)left * 4);
    gv_store(last, GV(exp)(gv_sub(gv_load(last), gv_set(shift))));
    memcpy(y + j, last, (size_t)left * 4);
}

/* ---- norm: y = x / sqrt(mean(x^2) + eps) * gain --------------------------------------------- */

GV_KERNEL void GV(norm_row)(float *y, const float *x, const float *gain, int64_t n, int width,
                            float eps) {
    gv sum = gv_set(0), r;
    float mean;
    int64_t j;
    for (j = 0; j < n; j += 16) { gv a = gv_load(x + j); sum = gv_fma(a, a, sum); }
    mean = gv_sum(sum) / (float)width;      /* apart: C may keep more digits in an expression */
    r = gv_set(1 / sqrtf(mean + eps));
    for (j = 0; j < n; j += 16)
        gv_store(y + j, gv_mul(gv_mul(gv_load(x + j), r), gv_load(gain + j)));
}

/* ---- quantising activations: scale = max|x| / 127, q = x / scale rounded to even ------------ */

GV_KERNEL void GV(quantise)(grf_q8 *y, int64_t stride, const float *x, int64_t n) {
    gv shift = gv_set(12582912.0f), sign = gv_set(-0.0f);
    for (; n > 0; n -= GRF_GROUP, y += stride) {
        int64_t group = n < GRF_GROUP ? n : GRF_GROUP, j;
        gv size = gv_set(0), inverse;
        float scale;
        for (j = 0; j < group; j += 16) {
            gv a = gv_load(x + j);
            size = gv_max(gv_max(a, gv_sub(sign, a)), size);
        }
        scale = gv_largest(size) / 127;
        inverse = gv_set(scale < 1e-37f ? 0 : 1 / scale);
        y->scale = scale;
        for (j = 0; j < group; j += 32, x += 32) {
            gi a = gi_sub(gv_bits(gv_fma(gv_load(x), inverse, shift)), gv_bits(shift));
            gi b = gi_sub(gv_bits(gv_fma(gv_load(x + 16), inverse, shift)), gv_bits(shift));
            gi_store8(y->q + j, a);
            gi_store8(y->q + j + 16, b);
            y->start4[j / 32] = -8 * gi_sum(gi_add(a, b));
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
    const int size = type == GRF_F32 ? 64 : 32;             /* bytes of 16 weights */
    const int two = type == GRF_F32 && rows < GV_FLOAT_ROWS;
    const float *x4 = x + 4 * stride, *x8 = x + 8 * stride;
    gv low[GV_FLOAT_ROWS], high[GV_FLOAT_ROWS];             /* output rows 0 to 15, 16 to 31 */
    GRF_UNROLL for (int m = 0; m < rows; m++) {
        low[m] = gv_load(out + m * GRF_TILE);
        high[m] = gv_load(out + m * GRF_TILE + 16);
    }
    for (; count > 0; count--, x++, x4++, x8++, w += 2 * size, ahead.at += ahead.step) {
        gv a = GV(load_as)(type, w), b = GV(load_as)(type, w + size);
        GRF_FETCH_LINES(ahead.at, two);
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
                              int64_t stride, int64_t count, int rows) {
    const int column = type == GRF_F32 ? 128 : 64, most = GV_FLOAT_ROWS;
    grf_ahead ahead = grf_look_ahead(w, count * column, column, (rows + most - 1) / most);
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
    int64_t step = rows <= GV_FLOAT_ROWS ? l->cols : 512;
    memset(out, 0, (size_t)rows * GRF_TILE * 4);
    for (int64_t k = 0; k < l->cols; k += step) {
        int64_t n = grf_min64(step, l->cols - k);
        switch (l->type) {
        case GRF_F32: GV(float_part)(GRF_F32,  out, w, x + k, stride, n, rows); break;
        case GRF_F16: GV(float_part)(GRF_F16,  out, w, x + k, stride, n, rows); break;
        default:      GV(float_part)(GRF_BF16, out, w, x + k, stride, n, rows); break;
        }
        w += n * (l->type == GRF_F32 ? 128 : 64);
    }
}

/* ---- the recurrent block -------------------------------------------------------------------- */

/* y = b + sum_k w[k] z[k], oldest tap first */
GV_KERNEL void GV(conv_row)(float *y, const float *const *z, const float *w, int64_t w_stride,
                            const float *b, int taps, int64_t n) {
    int64_t j;
    int k;
    for (j = 0; j < n; j += 16) {
        gv sum = gv_load(b + j);
        for (k = 0; k < taps; k++)
            sum = gv_fma(gv_load(w + k * w_stride + j), gv_load(z[k] + j), sum);
        gv_store(y + j, sum);
    }
}

/* log a = log_decay sigmoid(r);  h = a h + sqrt(1 - a^2) sigmoid(i) c;  y *= h. A fresh sequence
 * starts with h = sigmoid(i) c. 1 - a^2 = -expm1(2 log a) keeps its digits when a is close to 1. */
GV_KERNEL void GV(rglru_row)(float *h, float *y, const float *i, const float *r, const float *c,
                             const float *log_decay, int fresh, int64_t n) {
    int64_t j;
    for (j = 0; j < n; j += 16) {
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

/* ---- attention ------------------------------------------------------------------------------ */

/* sin and cos of position * turns: the fraction of a turn is exact in 64 bits, is reduced to the
 * nearest quarter, and the rest |x| <= pi/4 goes through the Taylor series. */
GV_KERNEL void GV(rope_angles)(float *cosine, float *sine, const uint64_t *turns, int64_t position,
                               int n) {
    int j;
    for (j = 0; j < n; j++) {
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

/* One head: element j < half turns with element j + half; those from 2 half on stay; all scaled. */
GV_KERNEL void GV(rope_head)(float *to, const float *from, const float *cosine, const float *sine,
                             float scale, int half, int head_dim) {
    int j;
    for (j = 0; j < half; j++) {
        float a = from[j], b = from[j + half];
        to[j]        = GV_FMAF(a, cosine[j], -(b * sine[j])) * scale;
        to[j + half] = GV_FMAF(b, cosine[j],   a * sine[j])  * scale;
    }
    for (j = 2 * half; j < head_dim; j++) to[j] = from[j] * scale;
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

/* score[at + 0 .. 3] = q k for four keys and n queries */
GV_INLINE void GV(attend_four)(const int n, const int type, const grf_query *query, int64_t at,
                               const uint8_t *k, int64_t stride, int64_t head) {
    const int size = type == GRF_F32 ? 64 : 32;             /* bytes of 16 numbers */
    gv s[GV_QUERIES][4];
    GRF_UNROLL for (int i = 0; i < n; i++) s[i][0] = s[i][1] = s[i][2] = s[i][3] = gv_set(0);
    for (int64_t d = 0; d < head; d += 16, k += size) {
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

GV_INLINE float GV(attend_one)(const int type, const float *q, const uint8_t *k, int64_t head) {
    gv sum = gv_set(0);
    for (int64_t d = 0; d < head; d += 16, k += type == GRF_F32 ? 64 : 32)
        sum = gv_fma(gv_load(q + d), GV(load_as)(type, k), sum);
    return gv_sum(sum);
}

/* The scores of all keys at hand, for all queries. */
GV_INLINE void GV(attend_scores)(const int type, const grf_attention *a) {
    int64_t at = 0;
    for (int part = 0; part < 3; part++) {
        const uint8_t *k = a->part[part].k;
        int64_t left = a->part[part].count;
        for (; left >= 4; left -= 4, at += 4, k += 4 * a->stride)
            for (int i = 0, m; i < a->queries; i += m) {
                m = grf_next_queries(a->queries - i, GV_QUERIES);
                GRF_CALL_QUERIES(m, GV_QUERIES, GV(attend_four), type, a->query + i, at, k,
                                 a->stride, a->head)
            }
        for (; left > 0; left--, at++, k += a->stride)
            for (int i = 0; i < a->queries; i++)
                a->query[i].score[at] = GV(attend_one)(type, a->query[i].q, k, a->head);
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
    const int size = type == GRF_F32 ? 64 : 32;
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
                                 const uint8_t *v, int64_t stride, int64_t keys, int64_t head) {
    const int vectors = n <= 2 ? GV_VALUE_VECTORS : GV_VALUE_VECTORS / 2;
    int64_t d = 0;
    for (; d + 16 * vectors <= head; d += 16 * vectors)
        GV(attend_vectors)(n, type, vectors, query, d, at, v, stride, keys);
    for (; d < head; d += 16) GV(attend_vectors)(n, type, 1, query, d, at, v, stride, keys);
}

/* Adds the keys [from, to) of those at hand to the sums of n queries: a few values at a time, which
 * stay in the first cache until all queries have met them. */
GV_KERNEL void GV(attend_range)(const grf_attention *a, const grf_query *query, int n,
                                int64_t from, int64_t to) {
    int64_t start = 0, keys;                /* start: of the part, among the keys at hand */
    for (int part = 0; part < 3; start += a->part[part].count, part++) {
        int64_t end = grf_min64(to, start + a->part[part].count);
        for (int64_t j = grf_max64(from, start); j < end; j += keys) {
            const uint8_t *v = a->part[part].v + (j - start) * a->stride;
            keys = grf_min64(GRF_ROWS_AHEAD, end - j);
            for (int i = 0, m; i < n; i += m) {
                m = grf_next_queries(n - i, GV_QUERIES);
                if (a->type == GRF_F32)
                    GRF_CALL_QUERIES(m, GV_QUERIES, GV(attend_values), GRF_F32, query + i, j, v,
                                     a->stride, keys, a->head)
                else
                    GRF_CALL_QUERIES(m, GV_QUERIES, GV(attend_values), GRF_BF16, query + i, j, v,
                                     a->stride, keys, a->head)
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
        q->sum = q->q;                      /* the query has done its work: its place is free */
        memset(q->sum, 0, (size_t)a->head * 4);
        from = grf_max64(from, q->first);
        to = grf_min64(to, q->end);
    }
    to = grf_max64(from, to);
    for (q = a->query; q < last; q++)
        GV(attend_range)(a, q, 1, q->first, grf_min64(from, q->end));
    GV(attend_range)(a, a->query, a->queries, from, to);
    for (q = a->query; q < last; q++) {
        GV(attend_range)(a, q, 1, grf_max64(to, q->first), q->end);
        for (int64_t d = 0; d < a->head; d += 16)
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
 * Weights have an offset; the integer sum starts at what cancels it (grf_q8). */

#define GV_IN_PAIRS (GV_PAIRS && type == GRF_Q4_0)      /* see GV_PAIRS: sums of a block in int16 */
#if !GV_PAIRS
GV_INLINE gi GV(add_pairs)(gi pairs, gi w, gi x) { (void)w; (void)x; return pairs; }
GV_INLINE gi GV(sum_pairs)(gi pairs) { return pairs; }
#endif

GV_INLINE gi GV(int_start)(const int type, const grf_q8 *x, int block) {
    return gi_set(type == GRF_Q4_0 ? x->start4[block] : GV_BYTE_ZERO ? x->start8[block] : 0);
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

GV_INLINE gi GV(int_weights)(const int type, const uint8_t *at, int upper) {
    return type == GRF_Q8_0 ? gi_byte(gi_load(at)) : gi_nibble(gi_load(at), upper);
}

/* A step for both halves of the tile: the weights of 4 columns at `at`, or their upper nibbles. The
 * loads stay in the order of memory: if the compiler moves them, cache lines are not read one after
 * the other, and the bandwidth falls by a fifth (measured, gcc 12). */
GV_INLINE void GV(int_step)(const int rows, const int type, gi *low, gi *high, const uint8_t *at,
                            const int upper, const int8_t *q, const int fetch,
                            const uint8_t *ahead) {
    gi w = GV(int_weights)(type, at, upper);
    GRF_IN_ORDER;
    if (fetch) GRF_FETCH_LINES(ahead, type == GRF_Q8_0);
    GV(int_add)(rows, type, low, w, q);
    GV(int_add)(rows, type, high, GV(int_weights)(type, at + 64, upper), q);
}

GV_INLINE void GV(fetch_bytes)(const uint8_t *at, int bytes) {
    const uint8_t *end = at + bytes;
    do GRF_FETCH(at); while ((at += 64) < end);
}

/* One group of columns: out += dx (...), continuing the sums in out. Returns what follows in w. */
GV_INLINE const uint8_t *GV(int_group)(const int rows, const int type, float *out,
                                       const uint8_t *w, const grf_q8 *x, int blocks,
                                       grf_ahead ahead) {
    const int steps = type == GRF_Q8_0 ? 8 : 4, fetch = !(GV_FETCH_BLOCK && rows == GV_INT_ROWS);
    gv low[GV_INT_ROWS], high[GV_INT_ROWS];
    GRF_UNROLL for (int m = 0; m < rows; m++) low[m] = high[m] = gv_set(0);
    for (int b = 0; b < blocks; b++) {
        gi ilow[GV_INT_ROWS], ihigh[GV_INT_ROWS];
        GRF_UNROLL for (int m = 0; m < rows; m++)
            ilow[m] = ihigh[m] = GV_IN_PAIRS ? gi_set(0) : GV(int_start)(type, x + m, b);
        if (!fetch) GV(fetch_bytes)(ahead.at, 8 * ahead.step);
        GV_UNROLL_BLOCK for (int j = 0; j < steps; j++) {
            const uint8_t *at = w + 64 + 128 * j;
            const int8_t *q = x->q + 32 * b + 4 * j;
            if (type == GRF_Q8_0) {
                GV(int_step)(rows, type, ilow, ihigh, at, 0, q, fetch, ahead.at + j * ahead.step);
            } else {
                const uint8_t *line = ahead.at + 2 * j * ahead.step;
                GV(int_step)(rows, type, ilow, ihigh, at, 0, q, fetch, line);
                GV(int_step)(rows, type, ilow, ihigh, at, 1, q + 16, fetch, line + ahead.step);
            }
        }
        gv dl = gv_f16(w), dh = gv_f16(w + 32);
        w += type == GRF_Q8_0 ? GRF_BLOCK_BYTES_Q8_0 : GRF_BLOCK_BYTES_Q4_0;
        ahead.at += 8 * ahead.step;
        GRF_FETCH(ahead.at - 1);
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

GV_INLINE void GV(int_rows)(const int rows, const int type, float *out, const uint8_t *w,
                            const grf_q8 *x, int64_t stride, int64_t blocks, grf_ahead ahead) {
    const int most = GRF_GROUP / 32;
    for (; blocks > 0; blocks -= most, x += stride, ahead.at += 8 * most * ahead.step)
        w = GV(int_group)(rows, type, out, w, x, blocks < most ? (int)blocks : most, ahead);
}

/* All rows of x, in groups. */
GV_INLINE void GV(int_part)(const int type, float *out, const uint8_t *w, const grf_q8 *x,
                            int64_t stride, int64_t blocks, int rows) {
    const int bytes = type == GRF_Q8_0 ? GRF_BLOCK_BYTES_Q8_0 : GRF_BLOCK_BYTES_Q4_0;
    const int most = GV_INT_ROWS;
    grf_ahead ahead = grf_look_ahead(w, blocks * bytes, bytes / 8, (rows + most - 1) / most);
    for (int m; rows > 0; rows -= m, x += m, out += m * GRF_TILE) {
        m = grf_next_rows(rows, most);
        GRF_CALL_ROWS(m, GV_INT_ROWS, GV(int_rows), type, out, w, x, stride, blocks, ahead)
        ahead.at += blocks * 8 * ahead.step;
    }
}

/* Columns at a time as in float_tile: all of them, or a group. */
GV_KERNEL void GV(int_tile)(float *out, const grf_linear *l, const uint8_t *w, const grf_q8 *x,
                            int64_t stride, int rows) {
    int64_t blocks = l->cols / 32, step = rows <= GV_INT_ROWS ? blocks : GRF_GROUP / 32;
    memset(out, 0, (size_t)rows * GRF_TILE * 4);
    for (; blocks > 0; blocks -= step, x += stride) {
        int64_t n = grf_min64(step, blocks);
        if (l->type == GRF_Q8_0) GV(int_part)(GRF_Q8_0, out, w, x, stride, n, rows);
        else                     GV(int_part)(GRF_Q4_0, out, w, x, stride, n, rows);
        w += n * (l->type == GRF_Q8_0 ? GRF_BLOCK_BYTES_Q8_0 : GRF_BLOCK_BYTES_Q4_0);
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
#undef GV_FETCH_BLOCK
#undef GV_FMAF

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
