/* hf_writer.c - writes the files that convert reads; see hf_writer.h. */

#include "hf_writer.h"
#include "sentencepiece.h"
#include "../shared/buffer.h"
#include "../shared/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- config.json ----------------------------------------------------------------------------- */

static void print_id(byte_buffer *out, const char *name, int id) {
    if (id >= 0) buffer_print(out, "  \"%s\": %d,\n", name, id);
    else buffer_print(out, "  \"%s\": null,\n", name);
}

/* Prints as few digits as the float needs. */
static void print_float(byte_buffer *out, const char *name, float value) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    if ((float)strtod(text, NULL) != value) snprintf(text, sizeof text, "%.9g", value);
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

static int print_config(byte_buffer *out, const model_parts *m, report *r) {
    const model_config *c = &m->config;
    const vocabulary *v = &m->vocabulary;
    (void)r;
    buffer_print(out, "{\n  \"architectures\": [\"RecurrentGemmaForCausalLM\"],\n"
                 "  \"model_type\": \"recurrent_gemma\",\n");
    print_sizes(out, c);
    print_constants(out, c);
    print_id(out, "bos_token_id", m->has_vocabulary ? v->bos : c->bos);
    print_id(out, "eos_token_id", m->has_vocabulary ? v->eos : c->eos);
    print_id(out, "pad_token_id", m->has_vocabulary ? v->pad : c->pad);
    buffer_print(out, "  \"block_types\": [");
    for (int i = 0; i < c->net.layers; i++)
        buffer_print(out, i ? ", \"%s\"" : "\"%s\"",
                     c->net.blocks[i] == 'a' ? "attention" : "recurrent");
    buffer_print(out, "],\n  \"torch_dtype\": \"float32\"\n}\n");
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

static void print_header(byte_buffer *out, const tensors *list) {
    uint64_t at = 0;
    buffer_print(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < list->count; i++) {
        const tensor *t = &list->list[i];
        buffer_print(out, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", t->name);
        for (int k = 0; k < t->rank; k++)
            buffer_print(out, "%s%llu", k ? "," : "", (unsigned long long)t->shape[k]);
        buffer_print(out, "],\"data_offsets\":[%llu,", (unsigned long long)at);
        at += 4 * elements_of(t);
        buffer_print(out, "%llu]}", (unsigned long long)at);
    }
    buffer_print(out, "}");
}

static int print_tensor(byte_buffer *out, const tensor *t, report *r) {
    float values[1024];
    uint64_t count = elements_of(t);
    for (uint64_t at = 0, n; at < count; at += n) {
        n = count - at < 1024 ? count - at : 1024;
        if (weight_read(t->source, at, n, values, r) != 0) return -1;
        for (uint64_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], 4);
            buffer_number(out, bits, 4);
        }
    }
    return 0;
}

static int print_tensors(byte_buffer *out, const model_parts *m, report *r) {
    byte_buffer header = { NULL, 0, 0, 0 };
    int status = 0;
    print_header(&header, &m->tensors);
    while (header.size % 8 && !header.failed) buffer_add(&header, " ", 1);
    buffer_number(out, header.size, 8);
    buffer_add(out, header.data, header.size);
    out->failed |= header.failed;
    buffer_free(&header);
    for (size_t i = 0; status == 0 && i < m->tensors.count; i++)
        status = print_tensor(out, &m->tensors.list[i], r);
    return status;
}

/* ---- the tokenizer --------------------------------------------------------------------------- */

static int print_tokenizer(byte_buffer *out, const model_parts *m, report *r) {
    if (!m->vocabulary.has_scores)
        return report_fail(r, "a vocabulary with a list of merges cannot become a tokenizer.model");
    vocabulary_to_sentencepiece(&m->vocabulary, out);
    return 0;
}

static int print_tokenizer_config(byte_buffer *out, const model_parts *m, report *r) {
    (void)r;
    buffer_print(out, "{\n  \"add_bos_token\": %s,\n  \"add_eos_token\": %s,\n"
                 "  \"tokenizer_class\": \"GemmaTokenizer\"\n}\n",
                 m->vocabulary.add_bos ? "true" : "false",
                 m->vocabulary.add_eos ? "true" : "false");
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

typedef int printer(byte_buffer *out, const model_parts *m, report *r);

static int write_file(const model_parts *m, const char *directory, const char *name,
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

int hf_write(const model_parts *m, const char *directory) {
    if (!path_is_directory(directory) && directory_make(directory) != 0)
        return complain("%s: cannot be made", directory);
    if (write_file(m, directory, "config.json", print_config)
        || write_file(m, directory, "model.safetensors", print_tensors)) return 1;
    if (!m->has_vocabulary) return 0;
    return write_file(m, directory, "tokenizer.model", print_tokenizer)
        || write_file(m, directory, "tokenizer_config.json", print_tokenizer_config);
}
