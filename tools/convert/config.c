/* config.c - reads config.json and its companions, see config.h. */

#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shared/json.h"
#include "members.h"
#include "quantise.h"

#define MOST_IDS ((1 << 21) - 1)            /* of a vocabulary */

/* The factor of the embedding is rounded to bf16, as it was in training. */
float config_embedding_scale(int width) {
    uint32_t bits = (uint32_t)bf16_of(sqrtf((float)width)) << 16;
    float scale;
    memcpy(&scale, &bits, 4);
    return scale;
}

/* ---- the configuration ----------------------------------------------------------------------- */

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
    c->context_length = 8192;
}

int config_preset(model_config *c, const char *name, report *r) {
    config_start(c);
    if (preset_find(&c->net, name) != 0)
        return report_fail(r, "--preset %s: there is no such preset", name);
    return 0;
}

/* ---- rotation: rope_parameters, which older files call rope_scaling -------------------------- */

/* A number that more than one place of the file may give; all must give the same. */
static void take_once(members *s, const char *name, double *to, int *is_set, double lowest,
                      double highest) {
    double value = members_number(s, name, *to, lowest, highest);
    if (*is_set && value != *to) members_conflict(s, "%s is given twice, and differs", name);
    *is_set = 1;
    *to = value;
}

static const struct stretch { const char *type; int by_turns; } stretches[] = {
    {"linear", 0}, {"llama3", 1}
};

/* The kind of an object, by its type; null: the plain one, or one that is not known. */
static const struct stretch *stretch_of(const members *s, const char *outer) {
    static const char *const own[] = {"rope_type", "type"};
    char name[48];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s.%s", outer, own[i / 2]);
        if (members_is(s, name, stretches[i % 2].type)) return &stretches[i % 2];
    }
    return NULL;
}

static double number_in(members *s, const char *outer, const char *own, double least) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", outer, own);
    if (!members_find(s, name)) members_wrong(s, name, "a number; it is missing");
    return members_number(s, name, least, least, 1e9);
}

/* Linear: all pairs are slow. */
static void take_stretch(members *s, const char *outer, const struct stretch *kind, rotation *to) {
    to->factor = number_in(s, outer, "factor", 1);
    if (!kind->by_turns) return;
    to->context = number_in(s, outer, "original_max_position_embeddings", 1);
    to->low = number_in(s, outer, "low_freq_factor", 0);
    to->high = number_in(s, outer, "high_freq_factor", 0);
    if (!(to->low < to->high))
        members_conflict(s, "%s: high_freq_factor is not above low_freq_factor", outer);
}

double rotation_factor(const rotation *turn, double radians) {
    double turns = turn->context * radians / 6.283185307179586477;
    double kept = turn->context > 0 ? (turns - turn->low) / (turn->high - turn->low) : 0;
    kept = kept < 0 ? 0 : kept > 1 ? 1 : kept;
    return 1 / ((1 - kept) / turn->factor + kept);
}

/* What would change the plain rotation is refused by its name. */
static void take_rotation(members *s, const member *m, const char *own, const char *types,
                          const struct stretch *kind, rotation *to) {
    static const char plain[] = "a plain rotation; this would change it and is not supported";
    int changes = strcmp(own, "factor") == 0
               || (kind && kind->by_turns && (strcmp(own, "low_freq_factor") == 0
                                              || strcmp(own, "high_freq_factor") == 0));
    if (m->kind == JSON_NULL || strcmp(own, "original_max_position_embeddings") == 0) return;
    if (strcmp(own, "rope_theta") == 0)
        take_once(s, m->name, &to->base, &to->has_base, 1, 1e12);
    else if (strcmp(own, "partial_rotary_factor") == 0)
        take_once(s, m->name, &to->part, &to->has_part, 0, 1);
    else if (strcmp(own, "rope_type") == 0 || strcmp(own, "type") == 0)
        members_refuse(s, m->name, kind ? kind->type : "default", types);
    else if (!changes || (!kind && members_number(s, m->name, 0, -1e30, 1e30) != 1))
        members_wrong(s, m->name, plain);
}

rotation config_rotation(members *s, double part, int may_stretch) {
    static const char *const outer[] = {"rope_parameters", "rope_scaling"};
    const char *types = may_stretch
        ? "\"default\", \"linear\" or \"llama3\"; other kinds of rotation are not supported"
        : "\"default\"; other kinds of rotation are not supported";
    const struct stretch *before = NULL;
    rotation to = {10000, part, 0, 0, 1, 0, 0, 0};
    if (members_has(s, "rope_theta")) take_once(s, "rope_theta", &to.base, &to.has_base, 1, 1e12);
    if (members_has(s, "partial_rotary_factor"))
        take_once(s, "partial_rotary_factor", &to.part, &to.has_part, 0, 1);
    for (int i = 0; i < 2; i++) {
        const member *m = members_find(s, outer[i]);
        const struct stretch *kind = m && may_stretch ? stretch_of(s, outer[i]) : NULL;
        size_t n = strlen(outer[i]);
        if (m && m->kind != JSON_OBJECT) members_wrong(s, outer[i], "an object");
        for (size_t k = 0; m && k < s->count; k++) {
            const char *name = s->list[k].name;
            if (strncmp(name, outer[i], n) == 0 && name[n] == '.'
                && !strchr(name + n + 1, '.'))
                take_rotation(s, &s->list[k], name + n + 1, types, kind, &to);
        }
        if (kind && before && kind != before)
            members_conflict(s, "%s: its kind differs from that of rope_parameters", outer[i]);
        if (kind) take_stretch(s, outer[i], kind, &to);
        if (kind) before = kind;
    }
    return to;
}

griffin_activation config_activation(members *s, const char *name, griffin_activation absent) {
    const member *m = members_find(s, name);
    int found = m && m->text ? griffin_find_activation(m->text, strlen(m->text)) : -1;
    if (m && found < 0)
        members_wrong(s, name, "gelu_pytorch_tanh, gelu_new, gelu, silu, swish or relu");
    return found < 0 ? absent : (griffin_activation)found;
}

/* ---- special tokens and the template of a chat: what is said replaces what is there ---------- */

static void take_id(members *s, const char *name, int lowest, int *id) {
    if (members_find(s, name)) *id = members_whole(s, name, -1, lowest, MOST_IDS);
}

/* A number or a list of them. */
static void take_ends(members *s, model_config *c) {
    const member *m = members_find(s, "eos_token_id");
    char name[32];
    if (!m) return;
    c->end_count = 0;
    if (m->kind != JSON_ARRAY) take_id(s, "eos_token_id", 0, &c->ends[c->end_count++]);
    for (int i = 0; m->kind == JSON_ARRAY; i++) {
        snprintf(name, sizeof name, "eos_token_id.%d", i);
        if (!members_find(s, name)) break;
        if (i == CONFIG_ENDS) { members_wrong(s, "eos_token_id", "at most 8 ids"); return; }
        take_id(s, name, 0, &c->ends[c->end_count++]);
    }
    if (!c->end_count) members_wrong(s, "eos_token_id", "an id or a list of ids");
    c->eos = c->ends[0];
    c->end_of_turn = c->end_count > 1 ? c->ends[1] : -1;
}

static void keep_template(members *s, model_config *c, const char *text) {
    free(c->chat_template);
    c->chat_template = (char *)malloc(strlen(text) + 1);
    if (c->chat_template) strcpy(c->chat_template, text);
    else members_wrong(s, "chat_template", "memory for it");
}

/* A text, or a list of {"name", "template"}, of which "default" counts. */
static void take_template(members *s, model_config *c) {
    const member *m = members_find(s, "chat_template");
    char name[48];
    if (!m) return;
    if (m->text) { keep_template(s, c, m->text); return; }
    if (m->kind != JSON_ARRAY) members_wrong(s, "chat_template", "a text or a list");
    for (int i = 0; m->kind == JSON_ARRAY; i++) {
        snprintf(name, sizeof name, "chat_template.%d", i);
        const member *entry = members_find(s, name);
        if (!entry) return;
        if (entry->kind != JSON_OBJECT)
            members_wrong(s, "chat_template", "names and templates");
        snprintf(name, sizeof name, "chat_template.%d.name", i);
        if (!members_is(s, name, "default")) continue;
        snprintf(name, sizeof name, "chat_template.%d.template", i);
        keep_template(s, c, members_text(s, name, ""));
    }
}

static void take_truth(members *s, const char *name, int *truth) {
    *truth = members_truth(s, name, *truth);
}

void config_take_ids(model_config *c, members *s) {
    take_id(s, "bos_token_id", 0, &c->bos);
    take_id(s, "pad_token_id", -1, &c->pad);
    take_ends(s, c);
    take_truth(s, "add_bos_token", &c->add_bos);
    take_truth(s, "add_eos_token", &c->add_eos);
    take_template(s, c);
}

/* ---- companions ------------------------------------------------------------------------------ */

static int read_companion(model_config *c, const char *path, report *r) {
    members s;
    if (members_read(&s, path, r) != 0) return -1;
    config_take_ids(c, &s);
    int status = s.failed ? -1 : 0;
    members_free(&s);
    return status;
}

static int read_jinja(model_config *c, const char *path, report *r) {
    file_bytes file;
    if (file_open(&file, path, r) != 0) return -1;
    free(c->chat_template);
    c->chat_template = (char *)calloc((size_t)file.size + 1, 1);
    if (c->chat_template) memcpy(c->chat_template, file.data, (size_t)file.size);
    int is_cut = c->chat_template && strlen(c->chat_template) < file.size;
    file_close(&file);
    if (is_cut) return report_fail(r, "%s: the template holds a NUL", path);
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

/* What block_types calls the blocks of a letter. */
static const char *block_name(char letter) {
    static const struct { char letter; const char *name; } kinds[] = {
        {'a', "attention"}, {'h', "hgrn2"}, {'s', "supra"}, {'r', "recurrent"}, {0, "unknown"}
    };
    int i = 0;
    while (kinds[i].letter && kinds[i].letter != letter) i++;
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
        const char *name = block_name(net->blocks[i]);
        gguf_item_text(g, name, strlen(name));
    }
}
