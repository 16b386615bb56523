/* hf_writer.c - writes the files that convert reads; see hf_writer.h. */

#include "hf_writer.h"
#include "sentencepiece.h"
#include "../shared/buffer.h"
#include "../shared/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct hf_model {
    const model_parts   *parts;
    const struct layout *layout;
    const float         *lower_bounds;      /* [layers][width], or null */
} hf_model;

/* ---- config.json ----------------------------------------------------------------------------- */

static void print_id(byte_buffer *out, const char *name, int id) {
    if (id >= 0) buffer_print(out, "  \"%s\": %d,\n", name, id);
    else buffer_print(out, "  \"%s\": null,\n", name);
}

/* Prints as few digits as the float needs. A point or an exponent tells transformers its type. */
static void print_float(byte_buffer *out, const char *name, float value) {
    char text[40];
    snprintf(text, sizeof text, "%.6g", value);
    if ((float)strtod(text, NULL) != value) snprintf(text, sizeof text, "%.9g", value);
    if (!strpbrk(text, ".e")) strcat(text, ".0");
    buffer_print(out, "  \"%s\": %s,\n", name, text);
}

static void print_sizes(byte_buffer *out, const model_config *c) {
    const griffin_config *net = &c->net;
    buffer_print(out, "  \"vocab_size\": %d,\n  \"hidden_size\": %d,\n", net->vocab, net->width);
    buffer_print(out, "  \"intermediate_size\": %d,\n", 2 * net->mlp_width);     /* both branches */
    buffer_print(out, "  \"num_hidden_layers\": %d,\n", net->layers);
    buffer_print(out, "  \"num_attention_heads\": %d,\n", net->heads);
    buffer_print(out, "  \"num_key_value_heads\": %d,\n", net->kv_heads);
    buffer_print(out, "  \"head_dim\": %d,\n  \"lru_width\": %d,\n", net->head_dim, net->lru_width);
    buffer_print(out, "  \"conv1d_width\": %d,\n", net->conv_width);
    buffer_print(out, "  \"attention_window_size\": %d,\n", net->window);
    buffer_print(out, "  \"max_position_embeddings\": %d,\n", c->context_length);
}

static void print_constants(byte_buffer *out, const model_config *c) {
    const griffin_config *net = &c->net;
    buffer_print(out, "  \"attention_bias\": %s,\n", net->qkv_bias ? "true" : "false");
    buffer_print(out, "  \"embeddings_scale_by_sqrt_dim\": %s,\n",
                 net->embedding_scale == 1 ? "false" : "true");
    buffer_print(out, "  \"hidden_activation\": \"%s\",\n",
                 griffin_activation_name(net->activation));
    print_float(out, "logits_soft_cap", net->soft_cap);
    print_float(out, "rms_norm_eps", net->eps);
    print_float(out, "rope_theta", net->rope_base);
    print_float(out, "partial_rotary_factor", (float)net->rope_dims / (float)net->head_dim);
}

static void print_ids(byte_buffer *out, const model_parts *m) {
    const model_config *c = &m->config;
    const vocabulary *v = &m->vocabulary;
    print_id(out, "bos_token_id", m->has_vocabulary ? v->bos : c->bos);
    print_id(out, "eos_token_id", m->has_vocabulary ? v->eos : c->eos);
    print_id(out, "pad_token_id", m->has_vocabulary ? v->pad : c->pad);
}

static void print_gemma(byte_buffer *out, const model_parts *m) {
    const model_config *c = &m->config;
    buffer_print(out, "{\n  \"architectures\": [\"RecurrentGemmaForCausalLM\"],\n"
                 "  \"model_type\": \"recurrent_gemma\",\n");
    print_sizes(out, c);
    print_constants(out, c);
    print_ids(out, m);
    buffer_print(out, "  \"block_types\": [");
    for (int i = 0; i < c->net.layers; i++)
        buffer_print(out, i ? ", \"%s\"" : "\"%s\"",
                     c->net.blocks[i] == 'a' ? "attention" : "recurrent");
    buffer_print(out, "],\n  \"torch_dtype\": \"float32\"\n}\n");
}

/* Attention there sees the token itself and window_size - 1 before it. */
static void print_hybrid(byte_buffer *out, const griffin_config *net) {
    int count = 0;
    buffer_print(out, "  \"attn\": {\n    \"layers\": [");
    for (int i = 0; i < net->layers; i++)
        if (net->blocks[i] == 'a') buffer_print(out, count++ ? ", %d" : "%d", i);
    buffer_print(out, "],\n    \"num_heads\": %d,\n    \"num_kv_heads\": %d,\n", net->heads,
                 net->kv_heads);
    buffer_print(out, "    \"window_size\": %d,\n    \"qkv_bias\": %s,\n", net->window + 1,
                 net->qkv_bias ? "true" : "false");
    print_float(out, "rope_theta", net->rope_base);
    buffer_print(out, "    \"qk_norm\": false\n  },\n");
}

static void print_hgrn2(byte_buffer *out, const model_parts *m) {
    const griffin_config *net = &m->config.net;
    buffer_print(out, "{\n  \"architectures\": [\"HGRN2ForCausalLM\"],\n"
                 "  \"model_type\": \"hgrn2\",\n  \"vocab_size\": %d,\n", net->vocab);
    buffer_print(out, "  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n", net->width,
                 net->mlp_width);
    buffer_print(out, "  \"num_hidden_layers\": %d,\n  \"num_heads\": %d,\n", net->layers,
                 net->heads);
    buffer_print(out, "  \"expand_ratio\": %d,\n  \"max_position_embeddings\": %d,\n",
                 net->head_dim, m->config.context_length);
    print_float(out, "norm_eps", net->eps);
    if (strchr(net->blocks, 'a')) print_hybrid(out, net);
    print_ids(out, m);
    buffer_print(out, "  \"hidden_act\": \"swish\",\n  \"elementwise_affine\": true,\n"
                 "  \"use_lower_bound\": true,\n  \"use_short_conv\": false,\n"
                 "  \"tie_word_embeddings\": true,\n  \"torch_dtype\": \"float32\"\n}\n");
}

/* ---- names of tensors ------------------------------------------------------------------------ */

/* Of flash-linear-attention; the first row that fits counts. Those of attention have no "i". */
static const struct { const char *from, *to; char layer; } hgrn2_names[] = {
    { "temporal_pre_norm.",          "attn_norm.",   0 },
    { "channel_pre_norm.",           "mlp_norm.",    0 },
    { "temporal_block.group_norm.",  "attn.g_norm.", 0 },
    { "temporal_block.v_proj.",      "attn.i_proj.", 'h' },
    { "temporal_block.",             "attn.",        0 },
    { "mlp_block.",                  "mlp.",         0 },
    { "embed_tokens.",               "embeddings.",  0 },
    { "final_norm.",                 "norm.",        0 }
};

/* Null: lower_bounds stand for it. */
static const char *hgrn2_name(const griffin_config *net, const char *name, char text[96]) {
    char *end;
    const char *part = name + strlen("model.");
    long layer = strncmp(part, "layers.", 7) == 0 ? strtol(part + 7, &end, 10) : -1;
    if (layer >= 0) part = end + 1;
    if (strstr(part, ".lower_bound") || strstr(part, ".gate_range")) return NULL;
    for (size_t i = 0; i < sizeof hgrn2_names / sizeof hgrn2_names[0]; i++) {
        size_t n = strlen(hgrn2_names[i].from);
        char needed = hgrn2_names[i].layer;
        if (strncmp(part, hgrn2_names[i].from, n) != 0) continue;
        if (needed && (layer < 0 || net->blocks[layer] != needed)) continue;
        snprintf(text, 96, "%.*s%s%s", (int)(part - name), name, hgrn2_names[i].to, part + n);
        return text;
    }
    return name;
}

static const char *gemma_name(const griffin_config *net, const char *name, char text[96]) {
    (void)net;
    (void)text;
    return name;
}

/* ---- layouts --------------------------------------------------------------------------------- */

typedef struct layout {
    int  (*fits)(const griffin_config *net);
    void (*print_config)(byte_buffer *out, const model_parts *m);
    const char *(*name)(const griffin_config *net, const char *name, char text[96]);
} layout;

static int only(const griffin_config *net, const char *letters) {
    return net->blocks[strspn(net->blocks, letters)] == 0;
}

static int fits_gemma(const griffin_config *net) {
    return only(net, "ra") && !net->no_biases && net->norm_offset == 1;
}

static int fits_hgrn2(const griffin_config *net) {
    int has_attention = strchr(net->blocks, 'a') != NULL;
    return only(net, "ha") && strchr(net->blocks, 'h') && net->no_biases && !net->layer_norm
        && net->norm_offset == 0 && net->embedding_scale == 1 && net->soft_cap == 0
        && net->activation == GRIFFIN_SILU && (net->mixer_eps == 0 || net->mixer_eps == 1e-5f)
        && (!has_attention || net->rope_dims == net->head_dim);
}

static const layout layouts[] = {
    { fits_gemma, print_gemma, gemma_name },
    { fits_hgrn2, print_hgrn2, hgrn2_name }
};

/* Null if none of them has a place for the network. */
static const layout *layout_of(const griffin_config *net) {
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i].fits(net)) return &layouts[i];
    return NULL;
}

static int print_config(byte_buffer *out, const hf_model *m, report *r) {
    (void)r;
    m->layout->print_config(out, m->parts);
    return 0;
}

/* ---- model.safetensors -----------------------------------------------------------------------
 * u64 bytes of the header, the header in JSON with spaces up to a multiple of 8, then the data of
 * all tensors in the order of the header; numbers are little-endian. */

static uint64_t elements_of(const tensor *t) {
    uint64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

static void print_entry(byte_buffer *out, const char *name, int rank, const uint64_t *shape,
                        uint64_t *at) {
    uint64_t bytes = 4;
    buffer_print(out, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", name);
    for (int k = 0; k < rank; bytes *= shape[k++])
        buffer_print(out, "%s%llu", k ? "," : "", (unsigned long long)shape[k]);
    buffer_print(out, "],\"data_offsets\":[%llu,", (unsigned long long)*at);
    *at += bytes;
    buffer_print(out, "%llu]}", (unsigned long long)*at);
}

static const char *name_of(const hf_model *m, const tensor *t, char text[96]) {
    return m->layout->name(&m->parts->config.net, t->name, text);
}

static void print_header(byte_buffer *out, const hf_model *m) {
    const griffin_config *net = &m->parts->config.net;
    const tensors *list = &m->parts->tensors;
    const uint64_t bounds[2] = { (uint64_t)net->layers, (uint64_t)net->width };
    uint64_t at = 0;
    char text[96];
    buffer_print(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < list->count; i++) {
        const char *name = name_of(m, &list->list[i], text);
        if (name) print_entry(out, name, list->list[i].rank, list->list[i].shape, &at);
    }
    if (m->lower_bounds) print_entry(out, "model.lower_bounds", 2, bounds, &at);
    buffer_print(out, "}");
}

static void print_values(byte_buffer *out, const float *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        buffer_number(out, bits, 4);
    }
}

static int print_tensor(byte_buffer *out, const tensor *t, report *r) {
    float values[1024];
    uint64_t count = elements_of(t);
    for (uint64_t at = 0, n; at < count; at += n) {
        n = count - at < 1024 ? count - at : 1024;
        if (weight_read(t->source, at, n, values, r) != 0) return -1;
        print_values(out, values, n);
    }
    return 0;
}

static int print_tensors(byte_buffer *out, const hf_model *m, report *r) {
    const griffin_config *net = &m->parts->config.net;
    const tensors *list = &m->parts->tensors;
    byte_buffer header = { NULL, 0, 0, 0 };
    char text[96];
    int status = 0;
    print_header(&header, m);
    while (header.size % 8 && !header.failed) buffer_add(&header, " ", 1);
    buffer_number(out, header.size, 8);
    buffer_add(out, header.data, header.size);
    out->failed |= header.failed;
    buffer_free(&header);
    for (size_t i = 0; status == 0 && i < list->count; i++)
        if (name_of(m, &list->list[i], text)) status = print_tensor(out, &list->list[i], r);
    if (m->lower_bounds)
        print_values(out, m->lower_bounds, (uint64_t)net->layers * (uint64_t)net->width);
    return status;
}

/* ---- the tokenizer --------------------------------------------------------------------------- */

static int print_tokenizer(byte_buffer *out, const hf_model *m, report *r) {
    (void)r;
    vocabulary_to_sentencepiece(&m->parts->vocabulary, out);
    return 0;
}

static int print_tokenizer_config(byte_buffer *out, const hf_model *m, report *r) {
    (void)r;
    buffer_print(out, "{\n  \"add_bos_token\": %s,\n  \"add_eos_token\": %s,\n"
                 "  \"tokenizer_class\": \"GemmaTokenizer\"\n}\n",
                 m->parts->vocabulary.add_bos ? "true" : "false",
                 m->parts->vocabulary.add_eos ? "true" : "false");
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

typedef int printer(byte_buffer *out, const hf_model *m, report *r);

static int write_file(const hf_model *m, const char *directory, const char *name,
                      printer *print) {
    char *path = path_join(directory, name);
    byte_buffer out = { NULL, 0, 0, 0 };
    report r = { "" };
    int status = path ? print(&out, m, &r) : 0;
    if (!status && (!path || out.failed)) status = report_fail(&r, "out of memory");
    status = status ? complain("%s: %s", name, r.text) : file_replace(path, out.data, out.size);
    buffer_free(&out);
    free(path);
    return status;
}

int hf_can_write(const griffin_config *net, const vocabulary *v, report *r) {
    if (!layout_of(net))
        return report_fail(r, "there is no layout for these blocks: expected r and a as in a "
                           "Griffin, or h and a of --kind hgrn2; SUPRA as it is trained here, with feature "
                           "maps inside of q and k, has none");
    if (!v->count || v->has_scores) return 0;
    return report_fail(r, "a vocabulary with a list of merges cannot become a tokenizer.model");
}

int hf_write(const model_parts *parts, const float *lower_bounds, const char *directory) {
    hf_model model = { NULL, NULL, NULL }, *m = &model;
    report r = { "" };
    m->parts = parts;
    m->layout = layout_of(&parts->config.net);
    m->lower_bounds = lower_bounds;
    if (hf_can_write(&parts->config.net, &parts->vocabulary, &r) != 0)
        return complain("%s: %s", directory, r.text);
    if (!path_is_directory(directory) && directory_make(directory) != 0)
        return complain("%s: cannot be made", directory);
    if (write_file(m, directory, "config.json", print_config)
        || write_file(m, directory, "model.safetensors", print_tensors)) return 1;
    if (!parts->has_vocabulary) return 0;
    return write_file(m, directory, "tokenizer.model", print_tokenizer)
        || write_file(m, directory, "tokenizer_config.json", print_tokenizer_config);
}
