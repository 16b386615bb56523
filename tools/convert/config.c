/* config.c - reads config.json and its companions, see config.h. */

#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/json.h"
#include "quantise.h"

/* ---- numbers: one row each ---------------------------------------------------------
 * What stands for an absent one, what null means, and what the library allows. NONE depends on
 * other numbers or means "not said", which some files write as a pad of -1. The rows from BOS on are
 * also looked for in the companions of config.json. */

enum { VOCAB, WIDTH, MLP, LAYERS, HEADS, KV_HEADS, HEAD_DIM, LRU, WINDOW, TAPS, CONTEXT,
       SOFT_CAP, EPS, ROPE_BASE, ROTARY, SCALE, QKV_BIAS, BOS, EOS, PAD, ADD_BOS, ADD_EOS, FIELDS };

typedef enum field_kind { WHOLE, REAL, TRUTH } field_kind;

#define NONE      -1.0
#define FORBIDDEN -2.0
#define MOST      1048576.0                 /* 2^20: any size */
#define MOST_V    2097152.0                 /* 2^21: a vocabulary */

typedef struct field {
    const char *name;
    field_kind  kind;
    double      standard, null, lowest, highest;
} field;

static const field fields[FIELDS] = {
    {"vocab_size",                   WHOLE, 256000, FORBIDDEN, 1,     MOST_V},
    {"hidden_size",                  WHOLE, 2560,   FORBIDDEN, 1,     MOST},
    {"intermediate_size",            WHOLE, 7680,   FORBIDDEN, 2,     8 * MOST},
    {"num_hidden_layers",            WHOLE, 26,     FORBIDDEN, 1,     GRIFFIN_MAX_LAYERS},
    {"num_attention_heads",          WHOLE, 10,     FORBIDDEN, 1,     MOST},
    {"num_key_value_heads",          WHOLE, NONE,   NONE,      1,     MOST},
    {"head_dim",                     WHOLE, NONE,   NONE,      1,     MOST},
    {"lru_width",                    WHOLE, NONE,   NONE,      1,     MOST},
    {"attention_window_size",        WHOLE, 2048,   FORBIDDEN, 1,     MOST},
    {"conv1d_width",                 WHOLE, 4,      FORBIDDEN, 1,     16},
    {"max_position_embeddings",      WHOLE, 8192,   FORBIDDEN, 1,     2147483647},
    {"logits_soft_cap",              REAL,  30,     0,         0,     1e30},
    {"rms_norm_eps",                 REAL,  1e-6,   FORBIDDEN, 1e-37, 0.9999999},
    {"rope_theta",                   REAL,  NONE,   FORBIDDEN, 1,     1e12},
    {"partial_rotary_factor",        REAL,  NONE,   FORBIDDEN, 0,     1},
    {"embeddings_scale_by_sqrt_dim", TRUTH, 1,      FORBIDDEN, 0,     1},
    {"attention_bias",               TRUTH, 0,      FORBIDDEN, 0,     1},
    {"bos_token_id",                 WHOLE, NONE,   NONE,      0,     MOST_V - 1},
    {"eos_token_id",                 WHOLE, NONE,   NONE,      0,     MOST_V - 1},
    {"pad_token_id",                 WHOLE, NONE,   NONE,      NONE,  MOST_V - 1},
    {"add_bos_token",                TRUTH, NONE,   NONE,      0,     1},
    {"add_eos_token",                TRUTH, NONE,   NONE,      0,     1}
};

/* One file being read. */
typedef struct reader {
    json        j;
    const char *path;
    report     *r;
    int         first;                      /* fields before this one are of no interest */
    double      value[FIELDS];
    double      rope[2];                    /* base and rotated part, of rope_parameters */
    int         ends[CONFIG_ENDS], end_count;       /* eos_token_id may be a list */
    char        blocks[2][GRIFFIN_MAX_LAYERS + 1];      /* block_types, _block_types */
    griffin_activation activation;
    char       *chat_template;
} reader;

static int wrong(reader *in, const char *name, const char *expected) {
    if (in->j.kind == JSON_ERROR) return report_fail(in->r, "%s: %s", in->path, in->j.error);
    return report_fail(in->r, "%s: %s: expected %s", in->path, name, expected);
}

/* ---- values: the current token is the first of the value --------------------------- */

static int is_number(const json *j) { return j->kind == JSON_INT || j->kind == JSON_FLOAT; }

static int take_number(reader *in, const field *f, double *value) {
    const json *j = &in->j;
    char expected[80];
    if (j->kind == JSON_NULL && f->null != FORBIDDEN) {
        *value = f->null;
        return 0;
    }
    if (f->kind == TRUTH) {
        if (j->kind != JSON_TRUE && j->kind != JSON_FALSE)
            return wrong(in, f->name, "true or false");
        *value = j->kind == JSON_TRUE;
        return 0;
    }
    if (is_number(j) && j->number >= f->lowest
        && j->number <= f->highest && (f->kind == REAL || j->number == floor(j->number))) {
        *value = j->number;
        return 0;
    }
    snprintf(expected, sizeof expected, "%s from %.10g to %.10g",
             f->kind == WHOLE ? "a whole number" : "a number", f->lowest, f->highest);
    return wrong(in, f->name, expected);
}

static int take_end(reader *in) {
    double id;
    if (take_number(in, &fields[EOS], &id) != 0) return -1;
    if (id == NONE) return 0;
    if (in->end_count == CONFIG_ENDS) return wrong(in, "eos_token_id", "at most 8 ids");
    in->ends[in->end_count++] = (int)id;
    return 0;
}

/* A number or a list of them. */
static int take_eos(reader *in) {
    int count = 0;
    if (in->j.kind != JSON_ARRAY) return take_end(in);
    for (; json_next(&in->j) == JSON_INT; count++) if (take_end(in) != 0) return -1;
    if (in->j.kind == JSON_ARRAY_END && count) return 0;
    return wrong(in, "eos_token_id", "an id or a list of ids");
}

static int take_block_list(reader *in, const char *name, char *blocks) {
    int count = 0;
    if (in->j.kind == JSON_NULL) return 0;
    if (in->j.kind != JSON_ARRAY) return wrong(in, name, "a list");
    while (json_next(&in->j) == JSON_STRING) {
        int attention = json_text_is(&in->j, "attention");
        if (count == GRIFFIN_MAX_LAYERS) return wrong(in, name, "at most 1024 entries");
        if (!attention && !json_text_is(&in->j, "recurrent")) break;
        blocks[count++] = attention ? 'a' : 'r';
    }
    if (in->j.kind == JSON_ARRAY_END && count) return 0;
    return wrong(in, name, "a list of \"recurrent\" and \"attention\"");
}

static int take_blocks(reader *in) { return take_block_list(in, "block_types", in->blocks[0]); }
static int take_old_blocks(reader *in) {
    return take_block_list(in, "_block_types", in->blocks[1]);
}

/* Sets a number that more than one place of the file may give; all must give the same. */
static int set_once(reader *in, int row, double *to, double value) {
    if (*to != NONE && *to != value)
        return report_fail(in->r, "%s: %s is given twice, and differs", in->path, fields[row].name);
    *to = value;
    return 0;
}

static int take_rope_number(reader *in, int row) {
    double value;
    if (take_number(in, &fields[row], &value) != 0) return -1;
    return set_once(in, row, &in->rope[row == ROTARY], value);
}

/* Only the plain rotation is known. What would stretch or change it is refused by its name. */
static int take_rope_member(reader *in) {
    char name[80];
    const char *key = report_name(in->j.text, in->j.length, name);
    if (json_next(&in->j) == JSON_NULL) return 0;
    if (strcmp(key, "rope_theta") == 0) return take_rope_number(in, ROPE_BASE);
    if (strcmp(key, "partial_rotary_factor") == 0) return take_rope_number(in, ROTARY);
    if (strcmp(key, "original_max_position_embeddings") == 0) return json_skip(&in->j);
    if (strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0)
        return in->j.kind == JSON_STRING && json_text_is(&in->j, "default")
             ? 0 : wrong(in, key, "\"default\"; other kinds of rotation are not supported");
    if (strcmp(key, "factor") == 0 && is_number(&in->j) && in->j.number == 1) return 0;
    return wrong(in, key, "a plain rotation; this would change it and is not supported");
}

/* rope_parameters, which older files call rope_scaling. */
static int take_rope(reader *in) {
    if (in->j.kind == JSON_NULL) return 0;
    if (in->j.kind != JSON_OBJECT) return wrong(in, "rope_parameters", "an object");
    while (json_next(&in->j) == JSON_KEY) if (take_rope_member(in) != 0) return -1;
    return in->j.kind == JSON_OBJECT_END ? 0 : wrong(in, "rope_parameters", "an object");
}

static int settle_rope(reader *in) {
    static const double standard[] = {10000, 0.5};
    for (int i = 0; i < 2; i++) {
        int row = i ? ROTARY : ROPE_BASE;
        if (in->rope[i] != NONE && set_once(in, row, &in->value[row], in->rope[i])) return -1;
        if (in->value[row] == NONE) in->value[row] = standard[i];
    }
    return 0;
}

static int take_activation(reader *in) {
    int found = -1;
    if (in->j.kind == JSON_NULL) return 0;
    if (in->j.kind == JSON_STRING) found = griffin_find_activation(in->j.text, in->j.length);
    if (found < 0)
        return wrong(in, "hidden_activation",
                     "gelu_pytorch_tanh, gelu_new, gelu, silu, swish or relu");
    in->activation = (griffin_activation)found;
    return 0;
}

static int take_model_type(reader *in) {
    if (in->j.kind == JSON_STRING && json_text_is(&in->j, "recurrent_gemma")) return 0;
    return wrong(in, "model_type", "\"recurrent_gemma\"");
}

static int refuse_quantised(reader *in) {
    if (in->j.kind == JSON_NULL) return 0;
    return wrong(in, "quantization_config", "plain weights, not those of another quantiser");
}

static int keep_template(reader *in) {
    free(in->chat_template);
    in->chat_template = (char *)malloc(in->j.length + 1);
    if (!in->chat_template) return report_fail(in->r, "%s: out of memory", in->path);
    memcpy(in->chat_template, in->j.text, in->j.length);
    in->chat_template[in->j.length] = 0;
    return 0;
}

/* One {"name", "template"} of a list. */
static int take_named_template(reader *in) {
    char *outer = in->chat_template;
    int is_default = 0, status = 0;
    in->chat_template = NULL;
    while (status == 0 && json_next(&in->j) == JSON_KEY) {
        int name = json_text_is(&in->j, "name"), text = json_text_is(&in->j, "template");
        json_next(&in->j);
        if (name && in->j.kind == JSON_STRING) is_default = json_text_is(&in->j, "default");
        status = text && in->j.kind == JSON_STRING ? keep_template(in) : json_skip(&in->j);
    }
    if (is_default) { free(outer); return status; }
    free(in->chat_template);
    in->chat_template = outer;
    return status;
}

static int take_template(reader *in) {
    if (in->j.kind == JSON_NULL) return 0;
    if (in->j.kind == JSON_STRING) return keep_template(in);
    if (in->j.kind != JSON_ARRAY) return wrong(in, "chat_template", "a text or a list");
    while (json_next(&in->j) == JSON_OBJECT) if (take_named_template(in) != 0) break;
    return in->j.kind == JSON_ARRAY_END ? 0 : wrong(in, "chat_template", "names and templates");
}

/* ---- files -------------------------------------------------------------------------- */

static const struct { const char *name; int (*take)(reader *in); int companion; } others[] = {
    {"eos_token_id", take_eos, 1},
    {"chat_template", take_template, 1},
    {"block_types", take_blocks, 0},
    {"_block_types", take_old_blocks, 0},
    {"rope_parameters", take_rope, 0},
    {"rope_scaling", take_rope, 0},
    {"hidden_activation", take_activation, 0},
    {"model_type", take_model_type, 0},
    {"quantization_config", refuse_quantised, 0}
};

/* One member of the root object; the current token is its key. Unknown ones are skipped. */
static int take_member(reader *in) {
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (!json_text_is(&in->j, others[i].name) || (in->first && !others[i].companion)) continue;
        json_next(&in->j);
        return others[i].take(in);
    }
    for (int i = in->first; i < FIELDS; i++) {
        if (!json_text_is(&in->j, fields[i].name)) continue;
        json_next(&in->j);
        return take_number(in, &fields[i], &in->value[i]);
    }
    return json_skip(&in->j) == 0 ? 0 : wrong(in, "the file", "a value");
}

static int read_object(reader *in, const char *path, int first, report *r) {
    file_bytes file;
    int status = 0;
    memset(in, 0, sizeof *in);
    for (int i = 0; i < FIELDS; i++) in->value[i] = fields[i].standard;
    in->rope[0] = in->rope[1] = NONE;
    in->activation = GRIFFIN_GELU_TANH;
    in->path = path;
    in->first = first;
    in->r = r;
    if (file_open(&file, path, r) != 0) return -1;
    json_start_file(&in->j, file.data, (size_t)file.size);
    if (json_next(&in->j) != JSON_OBJECT) status = wrong(in, "the file", "an object");
    while (status == 0 && json_next(&in->j) == JSON_KEY) status = take_member(in);
    if (status == 0 && (in->j.kind != JSON_OBJECT_END || json_next(&in->j) != JSON_END))
        status = wrong(in, "the file", "an object");
    json_stop(&in->j);
    file_close(&file);
    return status;
}

/* ---- the configuration ---------------------------------------------------------------- */

static int expand_blocks(reader *in, griffin_config *net) {
    const char *list = in->blocks[0][0] ? in->blocks[0] : in->blocks[1][0] ? in->blocks[1] : "rra";
    size_t length = strlen(list);
    if (in->blocks[1][0] && strcmp(list, in->blocks[1]) != 0)
        return report_fail(in->r, "%s: block_types and _block_types differ", in->path);
    for (int i = 0; i < net->layers; i++) net->blocks[i] = list[(size_t)i % length];
    net->blocks[net->layers] = 0;
    return 0;
}

/* The factor of the embedding is rounded to bf16, as it was in training. */
float config_embedding_scale(int width) {
    uint32_t bits = (uint32_t)bf16_of(sqrtf((float)width)) << 16;
    float scale;
    memcpy(&scale, &bits, 4);
    return scale;
}

static int whole(const reader *in, int row, int otherwise) {
    return in->value[row] == NONE ? otherwise : (int)in->value[row];
}

static int check_net(const reader *in, const griffin_config *net) {
    int mlp = whole(in, MLP, 0);
    if (mlp % 2) return report_fail(in->r, "%s: intermediate_size %d is not even", in->path, mlp);
    if (net->width % net->heads || net->head_dim != net->width / net->heads)
        return report_fail(in->r,
                           "%s: hidden_size %d is not num_attention_heads %d times head_dim %d",
                           in->path, net->width, net->heads, net->head_dim);
    if (net->heads % net->kv_heads)
        return report_fail(in->r, "%s: num_attention_heads %d is not a multiple of "
                           "num_key_value_heads %d", in->path, net->heads, net->kv_heads);
    if (net->rope_dims % 2)
        return report_fail(in->r, "%s: partial_rotary_factor gives %d rotated dimensions, an odd "
                           "number", in->path, net->rope_dims);
    return 0;
}

static int build_net(reader *in, griffin_config *net) {
    if (settle_rope(in) != 0) return -1;
    net->vocab = whole(in, VOCAB, 0);
    net->width = whole(in, WIDTH, 0);
    net->mlp_width = whole(in, MLP, 0) / 2;             /* the file counts both branches */
    net->layers = whole(in, LAYERS, 0);
    net->heads = whole(in, HEADS, 0);
    net->kv_heads = whole(in, KV_HEADS, net->heads);
    net->head_dim = whole(in, HEAD_DIM, net->width / net->heads);
    net->lru_width = whole(in, LRU, net->width);
    net->gate_blocks = net->heads;
    net->conv_width = whole(in, TAPS, 0);
    net->window = whole(in, WINDOW, 0);
    net->rope_dims = (int)(net->head_dim * in->value[ROTARY]);
    net->rope_base = (float)in->value[ROPE_BASE];
    net->eps = (float)in->value[EPS];
    net->norm_offset = 1.0f;
    net->embedding_scale = in->value[SCALE] != 0.0 ? config_embedding_scale(net->width) : 1.0f;
    net->soft_cap = (float)in->value[SOFT_CAP];
    net->decay = 8.0f;
    net->qkv_bias = in->value[QKV_BIAS] != 0.0;
    net->activation = in->activation;
    if (check_net(in, net) != 0) return -1;
    return expand_blocks(in, net);
}

/* What was said replaces what is there. */
static void take_over(reader *in, model_config *c) {
    c->bos = whole(in, BOS, c->bos);
    c->pad = whole(in, PAD, c->pad);
    c->add_bos = whole(in, ADD_BOS, c->add_bos);
    c->add_eos = whole(in, ADD_EOS, c->add_eos);
    if (in->end_count) {
        memcpy(c->ends, in->ends, sizeof c->ends);
        c->end_count = in->end_count;
        c->eos = c->ends[0];
        c->end_of_turn = c->end_count > 1 ? c->ends[1] : -1;
    }
    if (!in->chat_template) return;
    free(c->chat_template);
    c->chat_template = in->chat_template;
}

void config_start(model_config *c) {
    griffin_config *net = &c->net;
    memset(c, 0, sizeof *c);
    net->conv_width = 4;
    net->gate_blocks = net->window = 1;
    net->rope_base = 10000;
    net->eps = 1e-6f;
    net->embedding_scale = 1;
    net->decay = 8;
    c->bos = c->eos = c->end_of_turn = c->pad = c->add_bos = c->add_eos = -1;
    c->context_length = (int)fields[CONTEXT].standard;
}

int config_read(model_config *c, const char *path, report *r) {
    reader in;
    config_start(c);
    if (read_object(&in, path, 0, r) != 0 || build_net(&in, &c->net) != 0) {
        free(in.chat_template);
        return -1;
    }
    c->context_length = whole(&in, CONTEXT, 0);
    take_over(&in, c);
    return 0;
}

static int take_id(members *s, const char *name) {
    int id = members_whole(s, name, -1, -1, (int)MOST_V - 1);
    return id < 0 ? -1 : id;
}

void config_take_ids(model_config *c, members *s) {
    const member *eos = members_find(s, "eos_token_id"), *text = members_find(s, "chat_template");
    char name[32];
    c->bos = take_id(s, "bos_token_id");
    c->pad = take_id(s, "pad_token_id");
    if (eos && eos->kind != JSON_ARRAY) c->ends[c->end_count++] = take_id(s, "eos_token_id");
    for (int i = 0; eos && eos->kind == JSON_ARRAY; i++) {
        snprintf(name, sizeof name, "eos_token_id.%d", i);
        if (!members_find(s, name)) break;
        if (i == CONFIG_ENDS) members_wrong(s, "eos_token_id", "at most 8 ids");
        else c->ends[c->end_count++] = take_id(s, name);
    }
    if (c->end_count) c->eos = c->ends[0];
    if (c->end_count > 1) c->end_of_turn = c->ends[1];
    if (!text || !text->text || s->failed) return;
    c->chat_template = (char *)malloc(strlen(text->text) + 1);
    if (c->chat_template) strcpy(c->chat_template, text->text);
}

int config_preset(model_config *c, const char *name, report *r) {
    config_start(c);
    if (preset_find(&c->net, name) != 0)
        return report_fail(r, "--preset %s: there is no such preset", name);
    return 0;
}

static int read_companion(model_config *c, const char *path, report *r) {
    reader in;
    if (read_object(&in, path, BOS, r) != 0) { free(in.chat_template); return -1; }
    take_over(&in, c);
    return 0;
}

static int read_jinja(model_config *c, const char *path, report *r) {
    file_bytes file;
    if (file_open(&file, path, r) != 0) return -1;
    free(c->chat_template);
    c->chat_template = (char *)calloc((size_t)file.size + 1, 1);
    if (c->chat_template) memcpy(c->chat_template, file.data, (size_t)file.size);
    file_close(&file);
    return c->chat_template ? 0 : report_fail(r, "%s: out of memory", path);
}

int config_read_companions(model_config *c, const char *directory, report *r) {
    static const struct {
        const char *name;
        int (*read)(model_config *, const char *, report *);
    } files[] = {{"generation_config.json", read_companion},
                 {"tokenizer_config.json", read_companion},
                 {"chat_template.jinja", read_jinja}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = path_join(directory, files[i].name);
        int status = !path ? report_fail(r, "%s: out of memory", directory)
                   : path_exists(path) ? files[i].read(c, path, r) : 0;
        free(path);
        if (status != 0) return -1;
    }
    return 0;
}

void config_free(model_config *c) {
    free(c->chat_template);
    c->chat_template = NULL;
}

/* ---- metadata ------------------------------------------------------------------------------ */

const char *config_block_name(char letter) {
    static const struct { char letter; const char *name; } kinds[] = {
        {'a', "attention"}, {'h', "hgrn2"}, {'s', "supra"}, {'r', "recurrent"}
    };
    int i = 0;
    while (kinds[i].letter != letter && kinds[i].letter != 'r') i++;
    return kinds[i].name;
}

void config_write(const griffin_config *net, gguf_writer *g) {
    griffin_number number;
    char key[80];
    for (int i = 0; griffin_config_number(net, i, &number) > 0; i++) {
        snprintf(key, sizeof key, "griffin.%s", number.key);
        if (number.type == GRIFFIN_VALUE_F32) gguf_f32(g, key, (float)number.value);
        else if (number.type == GRIFFIN_VALUE_BOOL) gguf_bool(g, key, number.value != 0);
        else gguf_u32(g, key, (uint32_t)number.value);
    }
    gguf_string(g, "griffin.hidden_activation", griffin_activation_name(net->activation));
    gguf_array(g, "griffin.block_types", GGUF_STRING, (uint64_t)net->layers);
    for (int i = 0; i < net->layers; i++) {
        const char *name = config_block_name(net->blocks[i]);
        gguf_item_text(g, name, strlen(name));
    }
}
