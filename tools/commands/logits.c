/* logits.c - griffin logits: the logits after each of the given tokens, for comparisons.
 *
 * In:  {"tokens": [2, 17, ...], "segment_pos": [0, 1, ...]}, the second optional, or the tokens
 *      alone, [2, 17, ...]. A position of 0 starts a new document; any other continues the one
 *      before.
 * Out: float32, little-endian, [tokens][vocab]; and, if wanted, the state in which it ends. */

#include "../shared/json.h"
#include "../shared/session.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the tokens --------------------------------------------------------------------------- */

/* The rest of an array that has begun. */
static int read_numbers(json *j, token_list *list, const char *path) {
    if (j->kind != JSON_ARRAY) return complain("%s: expected an array of numbers", path);
    while (json_next(j) == JSON_INT) {
        if (j->integer < 0 || j->integer > INT_MAX)
            return complain("%s: a number is out of range", path);
        if (tokens_add(list, (int32_t)j->integer)) return 1;
    }
    if (j->kind == JSON_ARRAY_END) return 0;
    return complain("%s: %s", path, j->error[0] ? j->error : "expected whole numbers");
}

static int read_lists(json *j, token_list *tokens, token_list *positions, const char *path) {
    json_kind first = json_next(j);
    int status = 0;
    if (first == JSON_ARRAY) status = read_numbers(j, tokens, path);
    else if (first != JSON_OBJECT)
        return complain("%s: expected {\"tokens\": [...]} or an array", path);
    while (!status && first == JSON_OBJECT && json_next(j) == JSON_KEY) {
        token_list *list = json_key_is(j, "tokens") ? tokens
                         : json_key_is(j, "segment_pos") ? positions : NULL;
        if (!list) { json_skip(j); continue; }
        json_next(j);
        status = read_numbers(j, list, path);
    }
    if (!status && (j->kind == JSON_OBJECT_END || j->kind == JSON_ARRAY_END)) json_next(j);
    if (!status && j->kind != JSON_END) status = complain("%s: %s", path, j->error);
    return status;
}

static int read_json(const char *path, token_list *tokens, token_list *positions) {
    file_bytes file;
    json j;
    int status = text_open(&file, NULL, path);
    if (status) return status;
    json_start(&j, file.data, (size_t)file.size);
    status = read_lists(&j, tokens, positions, path);
    json_stop(&j);
    file_close(&file);
    return status;
}

static int check_tokens(const token_list *tokens, const token_list *positions, int vocab) {
    if (tokens->count == 0) return complain("there are no tokens");
    for (int i = 0; i < tokens->count; i++)
        if (tokens->data[i] >= vocab)
            return complain("token %d is %d, the vocabulary ends at %d", i, tokens->data[i],
                            vocab - 1);
    if (positions->count == 0) return 0;
    if (positions->count != tokens->count)
        return complain("%d tokens, but %d positions", tokens->count, positions->count);
    for (int i = 0; i < tokens->count; i++)
        if (positions->data[i] != 0 && (i == 0 || positions->data[i] != positions->data[i - 1] + 1))
            return complain("position %d is %d, which neither starts nor continues a document", i,
                            positions->data[i]);
    return 0;
}

/* ---- running ------------------------------------------------------------------------------ */

/* How many tokens from i on can share a pass: they are of one document and at most `chunk`. */
static int pass_length(const token_list *positions, int count, int i, int chunk) {
    int n = 1;
    while (n != chunk && i + n < count && !(positions->count && positions->data[i + n] == 0)) n++;
    return n;
}

static int write_floats(file_output *out, const float *values, size_t count, report *r) {
    unsigned char bytes[4];
    uint32_t bits;
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, values + i, 4);
        bytes[0] = (unsigned char)bits;
        bytes[1] = (unsigned char)(bits >> 8);
        bytes[2] = (unsigned char)(bits >> 16);
        bytes[3] = (unsigned char)(bits >> 24);
        if (file_write(out, bytes, 4, r)) return -1;
    }
    return 0;
}

/* Runs one pass. A chunk of 1 uses griffin_step, as generation does. */
static int pass(session *s, const int32_t *tokens, int n, int chunk, float *logits) {
    griffin_span span;
    if (chunk == 1) return griffin_step(s->context, s->state, tokens[0], logits);
    memset(&span, 0, sizeof span);
    span.state = s->state;
    span.tokens = tokens;
    span.count = n;
    span.all_logits = 1;
    span.logits = logits;
    return griffin_run(s->context, &span, 1);
}

static int run_all(session *s, const token_list *tokens, const token_list *positions, int chunk,
                   file_output *out) {
    size_t vocab = (size_t)s->info->config.vocab;
    int n, error = 0, status = 0;
    report r = { "" };
    for (int i = 0; i < tokens->count && !status; i += n) {
        n = pass_length(positions, tokens->count, i, chunk);
        float *logits = (float *)malloc((size_t)n * vocab * sizeof(float));
        if (!logits) return complain("out of memory: try a smaller --chunk");
        if (positions->count && positions->data[i] == 0)
            memset(s->state, 0, griffin_state_size(s->model));
        error = pass(s, tokens->data + i, n, chunk, logits);
        if (error < 0) status = session_error(s, error);
        else if (write_floats(out, logits, (size_t)n * vocab, &r)) status = complain("%s", r.text);
        free(logits);
    }
    return status;
}

static int write_logits(session *s, const char *in, const char *path, const char *state,
                        int chunk) {
    token_list tokens = { NULL, 0, 0 }, positions = { NULL, 0, 0 };
    file_output out;
    report r = { "" };
    int status = read_json(in, &tokens, &positions)
              || check_tokens(&tokens, &positions, s->info->config.vocab);
    if (!status && file_create(&out, path, &r)) status = complain("%s", r.text);
    else if (!status) {
        status = run_all(s, &tokens, &positions, chunk, &out);
        if (status) file_abandon(&out);
        else if (file_finish(&out, &r)) status = complain("%s", r.text);
        else if (state) status = session_save(s, NULL, NULL, state);
    }
    tokens_free(&tokens);
    tokens_free(&positions);
    return status;
}

int command_logits(int argc, char **argv) {
    model_options o = MODEL_DEFAULTS;
    session s;
    const char *in = NULL, *out = NULL, *state = NULL;
    int chunk = 0, status;
    const option table[] = {
        MODEL_OPTIONS(o),
        { "tokens", NULL, OPTION_TEXT, &in, "FILE",
          "{\"tokens\": [...], \"segment_pos\": [...]}, or [...]" },
        { "out", NULL, OPTION_TEXT, &out, "FILE", "receives float32, [tokens][vocab]" },
        { "chunk", NULL, OPTION_COUNT, &chunk, "N", "tokens in one pass; 0: a whole document" },
        { "state", NULL, OPTION_TEXT, &state, "FILE",
          "receives the state after the last token, which run --persona can begin in" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "logits", "MODEL --tokens FILE --out FILE [options]",
                        "Writes the logits after each of the given tokens.", table };
    if ((status = options_parse(&c, argc, argv)) >= 0) return status;
    if (!in || !out) return options_wrong(&c, "logits needs --tokens and --out");
    const char *read[] = { in, o.path }, *written[] = { out, state };
    if ((status = options_outputs(&c, read, 2, written, 2)) >= 0) return status;
    if ((status = session_open(&s, &c, &o, NUMBERS_ONLY)) != 0) return status;
    status = write_logits(&s, in, out, state, chunk);
    session_close(&s);
    return status;
}
