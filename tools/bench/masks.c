/* masks.c - what the masks of grammars cost; see masks.h.
 *
 * Before each mask as much memory is read as a step of a model would read, so that nothing of the
 * grammar is left in the caches. That is how masks meet it, between two steps. */

#include "masks.h"
#include "run.h"
#include "../convert/gguf_writer.h"
#include "../griffin_grammar.h"
#include "../shared/host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_MASKS = 256, READ_BETWEEN = 64 << 20 };

/* ---- a made-up vocabulary ---------------------------------------------------------------------
 * Like that of Gemma: byte tokens, single characters, and words of one to five syllables with and
 * without a space, with capitals, and among punctuation. */

/* Word n, different for each n. */
static void make_word(byte_buffer *piece, unsigned n) {
    static const char consonants[] = "bcdfghklmnprstvw", vowels[] = "aeiou";
    static const char *const ends[] = { "", "n", "r", "s", "l" };
    static const char *const before[] = { "\xE2\x96\x81", "", "\xE2\x96\x81", "(", "\"", "" };
    static const char *const behind[] = { "", "", ".", "\"", "\":", "(" };
    unsigned kind = n % 6;
    n /= 6;
    buffer_print(piece, "%s", before[kind]);
    for (int first = 1; n || first; first = 0) {
        unsigned syllable = n % 400;
        char c = consonants[syllable % 16];
        if (first && kind == 5) c = (char)(c - 'a' + 'A');
        buffer_print(piece, "%c%c%s", c, vowels[syllable / 16 % 5], ends[syllable / 80]);
        n = n / 400;
    }
    buffer_print(piece, "%s", behind[kind]);
}

/* Piece number i. */
static void make_piece(byte_buffer *piece, int i) {
    static const char *const special[] = { "<pad>", "<eos>", "<bos>", "<unk>" };
    if (i < 4) buffer_print(piece, "%s", special[i]);
    else if (i < 260) buffer_print(piece, "<0x%02X>", (unsigned)(i - 4));
    else if (i == 260) buffer_print(piece, "\xE2\x96\x81");
    else if (i < 355) buffer_print(piece, "%c", i - 261 + '!');
    else if (i < 8355) {                    /* of three bytes */
        unsigned c = 0x4E00u + (unsigned)(i - 355);
        buffer_print(piece, "%c%c%c", (int)(0xE0 | c >> 12), (int)(0x80 | (c >> 6 & 63)),
                     (int)(0x80 | (c & 63)));
    } else make_word(piece, (unsigned)(i - 8355));
}

static void make_vocabulary(gguf_writer *g, int pieces) {
    byte_buffer piece = { NULL, 0, 0, 0 };
    gguf_string(g, "general.architecture", "griffin");
    gguf_string(g, "tokenizer.ggml.model", "llama");
    gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, (uint64_t)pieces);
    for (int i = 0; i < pieces; i++) {
        make_piece(&piece, i);
        gguf_item_text(g, (const char *)piece.data, piece.size);
        piece.size = 0;
    }
    gguf_array(g, "tokenizer.ggml.scores", GGUF_F32, (uint64_t)pieces);
    for (int i = 0; i < pieces; i++) gguf_item_f32(g, -(float)i);
    gguf_array(g, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)pieces);
    for (int i = 0; i < pieces; i++) gguf_item_u32(g, i < 3 ? 3 : i == 3 ? 2 : i < 260 ? 6 : 1);
    gguf_u32(g, "tokenizer.ggml.eos_token_id", 1);
    gguf_u32(g, "tokenizer.ggml.bos_token_id", 2);
    buffer_free(&piece);
}

/* ---- grammars -------------------------------------------------------------------------------- */

static const char json_grammar[] =
    "root ::= object\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n"
    "array ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] "
    "| \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n"
    "number ::= \"-\"? [0-9]{1,15} (\".\" [0-9]+)? ([eE] [-+]? [0-9]{1,3})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

static const char ambiguous_grammar[] =
    "root ::= (\"the \" | \"x\")+ words{1,3}\nwords ::= [a-z] [^\\n]* . | \"\"\n";

/* 300 alternatives that begin alike and count letters: none of their readings are equal. */
static char *readings_grammar(void) {
    byte_buffer b = { NULL, 0, 0, 0 };
    buffer_print(&b, "root ::= ");
    for (int i = 0; i < 300; i++)
        buffer_print(&b, "%s\"%c\"* [a-z ]{%d} [A-Z]", i ? " | " : "", 'a' + i % 26, i + 3);
    buffer_add(&b, "", 1);
    if (b.failed) buffer_free(&b);
    return (char *)b.data;
}

/* ---- measuring ------------------------------------------------------------------------------- */

typedef struct mask_bench {
    griffin_model      *model;
    const griffin_info *info;
    float              *logits;
    unsigned char      *between;
    double              seconds[MOST_MASKS];
    char                message[400];
} mask_bench;

static void read_between(mask_bench *b) {
    for (size_t i = 0; i < READ_BETWEEN; i += 64) b->between[i]++;
    memset(b->logits, 0, (size_t)b->info->config.vocab * sizeof *b->logits);
}

/* Masks for each token of a text, in its state. Returns how many, or a negative error. */
static int measure_text(mask_bench *b, const griffin_grammar *g, const char *text) {
    griffin_encoding how;
    griffin_grammar_state at;
    int32_t tokens[MOST_MASKS];
    memset(&how, 0, sizeof how);
    memset(&at, 0, sizeof at);
    how.continues = how.no_special = 1;
    int count = griffin_encode(b->model, &how, text, strlen(text), tokens, MOST_MASKS), error = 0;
    for (int i = 0; i < count && error >= 0; i++) {
        read_between(b);
        double start = seconds_now();
        error = griffin_grammar_mask(g, &at, b->logits);
        b->seconds[i] = fmin(b->seconds[i], seconds_now() - start);
        if (error >= 0) error = griffin_grammar_accept(g, &at, tokens[i]);
    }
    return error < 0 ? error : count;
}

static int measure_grammar(mask_bench *b, table *t, const char *name, const char *rules,
                           const char *text, int repetitions) {
    griffin_grammar *g;
    char cells[7][32];
    const char *texts[7];
    int count = 0;
    double start = seconds_now(), sum = 0, most = 0;
    int error = griffin_grammar_open(&g, b->model, rules, strlen(rules), NULL);
    double opened = seconds_now() - start;
    for (int i = 0; i < MOST_MASKS; i++) b->seconds[i] = INFINITY;
    for (int k = 0; k < repetitions && error >= 0; k++) error = count = measure_text(b, g, text);
    for (int i = 0; i < count && error >= 0; i++) {
        sum += b->seconds[i];
        most = fmax(most, b->seconds[i]);
    }
    if (error < 0) {
        griffin_grammar_close(g);
        return complain("the grammar '%s': %s", name,
                        b->message[0] ? b->message : griffin_error_string(error));
    }
    snprintf(cells[0], 32, "%s", name);
    snprintf(cells[1], 32, "%d", b->info->tokens);
    snprintf(cells[2], 32, "%d", count);
    snprintf(cells[3], 32, "%.4f", sum * 1e3 / count);
    snprintf(cells[4], 32, "%.4f", most * 1e3);
    snprintf(cells[5], 32, "%.2f", opened);
    snprintf(cells[6], 32, "%.2f", (double)griffin_grammar_size(g) / (1 << 20));
    for (int i = 0; i < 7; i++) texts[i] = cells[i];
    table_row(t, texts);
    griffin_grammar_close(g);
    return 0;
}

static int measure_all(mask_bench *b, table_format format, int repetitions) {
    static const column columns[] = {
        { "grammar", COLUMN_WORD }, { "tokens", COLUMN_NUMBER }, { "masks", COLUMN_NUMBER },
        { "ms a mask", COLUMN_NUMBER }, { "ms at most", COLUMN_NUMBER },
        { "s to open", COLUMN_NUMBER }, { "MiB", COLUMN_NUMBER }, { NULL, COLUMN_WORD }
    };
    char *readings = readings_grammar();
    table t;
    if (!readings) return complain("out of memory");
    table_begin(&t, format, columns);
    int status = measure_grammar(b, &t, "JSON", json_grammar, "{\"name\": \"The griffin\", "
                                 "\"list\": [1, 2.5, true], \"x\": {\"y\": null}}", repetitions)
              || measure_grammar(b, &t, "ambiguous", ambiguous_grammar,
                                 "the the xthe dog ran over it", repetitions)
              || measure_grammar(b, &t, "300 readings", readings, "the dog ran", repetitions);
    table_end(&t);
    free(readings);
    return status;
}

static void on_message(int error, const char *message, void *user) {
    mask_bench *b = (mask_bench *)user;
    if (error < 0) snprintf(b->message, sizeof b->message, "%s", message);
}

static int open_and_measure(mask_bench *b, const void *data, size_t size, table_format format,
                            int repetitions) {
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.logger.message = on_message;
    options.logger.user = b;
    options.directory_only = 1;
    int error = griffin_open_memory(&b->model, data, size, &options), status = 1;
    if (error < 0) return complain("%s", b->message);
    b->info = griffin_get_info(b->model);
    size_t vocab = (size_t)b->info->config.vocab;
    if (vocab < (size_t)b->info->tokens) vocab = (size_t)b->info->tokens;
    b->logits = (float *)malloc((vocab + 1) * sizeof *b->logits);
    b->between = (unsigned char *)calloc(READ_BETWEEN, 1);
    if (!b->info->tokens) complain("the model has no vocabulary");
    else if (!b->logits || !b->between) complain("out of memory");
    else status = measure_all(b, format, repetitions);
    free(b->logits);
    free(b->between);
    griffin_close(b->model);
    return status;
}

static int measure_made_up(mask_bench *b, int pieces, table_format format, int repetitions) {
    gguf_writer g;
    report r = { "" };
    memset(&g, 0, sizeof g);
    make_vocabulary(&g, pieces);
    int status = gguf_open(&g, NULL, &r) || gguf_finish(&g, &r);
    if (status) complain("%s", r.text);
    else status = open_and_measure(b, g.image.data, g.image.size, format, repetitions);
    gguf_free(&g);
    return status;
}

int bench_masks(const char *path, int pieces, table_format format, int repetitions) {
    mask_bench *b = (mask_bench *)calloc(1, sizeof *b);
    file_bytes file;
    report r = { "" };
    int status;
    if (!b) return complain("out of memory");
    if (!path) {
        status = measure_made_up(b, pieces, format, repetitions);
    } else if (file_open(&file, path, &r)) {
        status = complain("%s", r.text);
    } else {
        status = open_and_measure(b, file.data, (size_t)file.size, format, repetitions);
        file_close(&file);
    }
    free(b);
    return status;
}
