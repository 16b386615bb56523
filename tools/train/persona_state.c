/* persona_state.c - from a state of the net to a saved state of the library; see persona.h. The
 * bytes of a save are described in griffin.h, >>state. */

#include "model.h"
#include "persona.h"
#include "../shared/engine.h"

#include <stdlib.h>

enum { TILE = 32, HEAD_TILE = 16, AT_HISTORY = 32, AT_PAYLOAD = 48 };

/* ---- parts ----------------------------------------------------------------------------------- */

/* The last `rows` of `all` rows of a state, `width` numbers each, that begin at `at`. */
static state_part last_rows(size_t at, int all, int rows, int width) {
    int kept = net_least(all, rows);
    size_t before = (size_t)(all - kept) * (size_t)width;
    state_part part = { at + before, (size_t)kept * (size_t)width, 1 };
    return part;
}

int persona_parts(const net *n, int rows, state_part *list) {
    const griffin_config *g = &n->config;
    int count = 0, K = g->conv_width, E = g->lru_width, kv = g->kv_heads * g->head_dim;
    for (int i = 0; i < g->layers; i++) {
        size_t at = n->layers[i].state_at;
        if (strchr("hs", g->blocks[i])) {
            list[count++] = last_rows(at, 1, 1, g->heads * (int)net_head_state(g));
        } else if (g->blocks[i] == 'r') {
            list[count++] = last_rows(at, K - 1, rows, E);
            list[count++] = last_rows(at + (size_t)(K - 1) * (size_t)E, 1, 1, E);
        } else {
            list[count++] = last_rows(at, g->window, rows, kv);
            list[count++] = last_rows(at + (size_t)g->window * (size_t)kv, g->window, rows, kv);
        }
    }
    return count;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static void put_number(unsigned char *to, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (unsigned char)(number >> 8 * i);
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Floats, or bf16 to nearest even, and zeros up to `padded` numbers. Returns the end. */
static unsigned char *put_row(unsigned char *to, const float *x, int count, int padded, int bf16) {
    for (int i = 0; i < padded; i++) {
        uint32_t bits = i < count ? bits_of(x[i]) : 0;
        if (bf16) bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
        put_number(to, bits, bf16 ? 2 : 4);
        to += bf16 ? 2 : 4;
    }
    return to;
}

/* h, then the inputs of the convolution. */
static unsigned char *put_recurrent(unsigned char *to, const griffin_config *g, const float *part) {
    int K = g->conv_width, E = g->lru_width, padded = net_rounded(E, TILE);
    to = put_row(to, part + (size_t)(K - 1) * (size_t)E, E, padded, 0);
    for (int k = 0; k < K - 1; k++) to = put_row(to, part + (size_t)k * (size_t)E, E, padded, 0);
    return to;
}

/* The net's keys are turned as if the next token had position 0; here it has `rows`. */
static void turn_key(const griffin_config *g, int rows, float *key) {
    int half = g->rope_dims / 2;
    for (int j = 0; j < half; j++) {
        double angle = rows * pow((double)g->rope_base, -1.0 * j / half);
        double a = (double)key[j], b = (double)key[half + j];
        key[j] = (float)(a * cos(angle) - b * sin(angle));
        key[half + j] = (float)(b * cos(angle) + a * sin(angle));
    }
}

/* Rows of keys, then those of values. */
static unsigned char *put_attention(unsigned char *to, const griffin_config *g, const float *part,
                                    int rows, int bf16, float *head) {
    int dim = g->head_dim, kept = net_least(rows, g->window), heads = g->kv_heads;
    for (int which = 0; which < 2; which++)
        for (int i = 0; i < kept * heads; i++) {
            size_t row = (size_t)(which * g->window + g->window - kept) * (size_t)heads + (size_t)i;
            memcpy(head, part + row * (size_t)dim, (size_t)dim * sizeof *head);
            if (which == 0) turn_key(g, rows, head);
            to = put_row(to, head, dim, net_rounded(dim, HEAD_TILE), bf16);
        }
    return to;
}

/* The sums of outer products, for each head [hd of values][row of keys], in the library's tiles:
 * [values / 32][hd of keys][32]. The keys of SUPRA are turned, and so the sums. */
static unsigned char *put_outer(unsigned char *to, const griffin_config *g, char letter,
                                const float *part, int rows, float *key) {
    int dim = g->head_dim, row = net_state_row(g), padded = net_rounded(dim, TILE);
    size_t size = (size_t)padded * (size_t)dim;
    for (int h = 0; h < g->heads; h++, part += net_head_state(g), to += 4 * size) {
        memset(to, 0, 4 * size);
        for (int e = 0; e < dim; e++) {
            size_t at = (size_t)(e / TILE * TILE) * (size_t)dim + (size_t)(e % TILE);
            memcpy(key, part + (size_t)e * (size_t)row, (size_t)dim * sizeof *key);
            if (letter == 's') turn_key(g, rows, key);
            for (int k = 0; k < dim; k++)
                put_number(to + 4 * (at + (size_t)k * TILE), bits_of(key[k]), 4);
        }
    }
    return to;
}

static int put_state(unsigned char *data, size_t size, const net *n, const float *state, int rows,
                     int bf16) {
    const griffin_config *g = &n->config;
    float *head = (float *)malloc((size_t)g->head_dim * sizeof *head);
    unsigned char *to = data + AT_PAYLOAD;
    if (!head) return complain("out of memory");
    for (int i = 0; i < g->layers; i++) {
        const float *part = state + n->layers[i].state_at;
        if (g->blocks[i] == 'r') to = put_recurrent(to, g, part);
        else if (g->blocks[i] != 'a') to = put_outer(to, g, g->blocks[i], part, rows, head);
    }
    for (int i = 0; i < g->layers; i++)
        if (g->blocks[i] == 'a')
            to = put_attention(to, g, state + n->layers[i].state_at, rows, bf16, head);
    free(head);
    put_number(data + AT_HISTORY, engine_checksum(data + AT_PAYLOAD, size - AT_PAYLOAD - 8), 8);
    put_number(data + size - 8, engine_checksum(data, size - 8), 8);
    return to == data + size - 8 ? 0 : complain("a state has another size than expected");
}

/* ---- a save ---------------------------------------------------------------------------------- */

/* The state after `rows` tokens, whichever: a save with everything but the numbers. */
static int save_any(session *s, int rows, unsigned char **data, size_t *size) {
    griffin_state *state = (griffin_state *)calloc(1, griffin_state_size(s->model));
    int32_t token = 0;
    int error = state ? GRIFFIN_OK : GRIFFIN_E_MEMORY;
    int64_t bytes = 0;
    for (int i = 0; error >= 0 && i < rows; i++)
        error = griffin_prefill(s->context, state, &token, 1, NULL);
    if (error >= 0) bytes = griffin_save(s->model, state, NULL, NULL, NULL, 0);
    *data = bytes > 0 ? (unsigned char *)malloc((size_t)bytes) : NULL;
    *size = (size_t)bytes;
    if (*data) bytes = griffin_save(s->model, state, NULL, NULL, *data, *size);
    free(state);
    if (error < 0 || bytes < 0) return session_error(s, error < 0 ? error : (int)bytes);
    return *data ? 0 : complain("out of memory");
}

int persona_save(const net *n, const float *state, int rows, session *s, unsigned char **data,
                 size_t *size) {
    int bf16 = s->info->kv_type == GRIFFIN_KV_BF16;
    if (save_any(s, rows, data, size)) return 1;
    return put_state(*data, *size, n, state, rows, bf16);
}
