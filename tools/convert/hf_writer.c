/* hf_writer.c - writes the files that convert reads; see hf_writer.h. */

#include "hf_writer.h"
#include "../shared/engine.h"
#include "../shared/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- config.json ----------------------------------------------------------------------------- */

static void print_id(FILE *out, const char *name, int id) {
    if (id >= 0) fprintf(out, "  \"%s\": %d,\n", name, id);
    else fprintf(out, "  \"%s\": null,\n", name);
}

/* With as few digits as the float needs. */
static void print_float(FILE *out, const char *name, float value) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    if ((float)strtod(text, NULL) != value) snprintf(text, sizeof text, "%.9g", value);
    fprintf(out, "  \"%s\": %s,\n", name, text);
}

static void print_sizes(FILE *out, const model_config *c) {
    const griffin_config *net = &c->net;
    fprintf(out, "  \"vocab_size\": %d,\n  \"hidden_size\": %d,\n", net->vocab, net->width);
    fprintf(out, "  \"intermediate_size\": %d,\n", 2 * net->mlp_width);     /* both branches */
    fprintf(out, "  \"num_hidden_layers\": %d,\n", net->layers);
    fprintf(out, "  \"num_attention_heads\": %d,\n", net->heads);
    fprintf(out, "  \"num_key_value_heads\": %d,\n", net->kv_heads);
    fprintf(out, "  \"head_dim\": %d,\n  \"lru_width\": %d,\n", net->head_dim, net->lru_width);
    fprintf(out, "  \"conv1d_width\": %d,\n", net->conv_width);
    fprintf(out, "  \"attention_window_size\": %d,\n", net->window);
    fprintf(out, "  \"max_position_embeddings\": %d,\n", c->context_length);
}

static void print_constants(FILE *out, const model_config *c) {
    const griffin_config *net = &c->net;
    fprintf(out, "  \"attention_bias\": %s,\n", net->qkv_bias ? "true" : "false");
    fprintf(out, "  \"embeddings_scale_by_sqrt_dim\": %s,\n",
            net->embedding_scale == 1 ? "false" : "true");
    fprintf(out, "  \"hidden_activation\": \"%s\",\n", engine_activation_name(net->activation));
    print_float(out, "logits_soft_cap", net->soft_cap);
    print_float(out, "rms_norm_eps", net->eps);
    print_float(out, "rope_theta", net->rope_base);
    print_float(out, "partial_rotary_factor", (float)net->rope_dims / (float)net->head_dim);
}

static int print_config(FILE *out, const model_parts *m, report *r) {
    const model_config *c = &m->config;
    const vocabulary *v = &m->vocabulary;
    (void)r;
    fprintf(out, "{\n  \"architectures\": [\"RecurrentGemmaForCausalLM\"],\n"
            "  \"model_type\": \"recurrent_gemma\",\n");
    print_sizes(out, c);
    print_constants(out, c);
    print_id(out, "bos_token_id", m->has_vocabulary ? v->bos : c->bos);
    print_id(out, "eos_token_id", m->has_vocabulary ? v->eos : c->eos);
    print_id(out, "pad_token_id", m->has_vocabulary ? v->pad : c->pad);
    fprintf(out, "  \"block_types\": [");
    for (int i = 0; i < c->net.layers; i++)
        fprintf(out, i ? ", \"%s\"" : "\"%s\"",
                c->net.blocks[i] == 'a' ? "attention" : "recurrent");
    fprintf(out, "],\n  \"torch_dtype\": \"float32\"\n}\n");
    return 0;
}

/* ---- model.safetensors -----------------------------------------------------------------------
 * u64 bytes of the header, the header in JSON with spaces up to a multiple of 8, then the data of
 * all tensors in the order of the header; numbers are little-endian. */

static void put_number(FILE *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) putc((int)(value >> 8 * i & 255), out);
}

static uint64_t elements_of(const tensor *t) {
    uint64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

static void print_header(FILE *out, const tensors *list) {
    uint64_t at = 0;
    fprintf(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < list->count; i++) {
        const tensor *t = &list->list[i];
        fprintf(out, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", t->name);
        for (int k = 0; k < t->rank; k++)
            fprintf(out, "%s%llu", k ? "," : "", (unsigned long long)t->shape[k]);
        fprintf(out, "],\"data_offsets\":[%llu,", (unsigned long long)at);
        at += 4 * elements_of(t);
        fprintf(out, "%llu]}", (unsigned long long)at);
    }
    putc('}', out);
}

static int print_tensor(FILE *out, const tensor *t, report *r) {
    float values[1024];
    uint64_t count = elements_of(t);
    for (uint64_t at = 0, n; at < count; at += n) {
        n = count - at < 1024 ? count - at : 1024;
        if (weight_read(t->source, at, n, values, r) != 0) return -1;
        for (uint64_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], 4);
            put_number(out, bits, 4);
        }
    }
    return 0;
}

static int print_tensors(FILE *out, const model_parts *m, report *r) {
    char *header = NULL;
    size_t size = 0;
    FILE *part = open_memstream(&header, &size);
    int status = 0;
    if (part) print_header(part, &m->tensors);
    if (!part || fclose(part)) { free(header); return report_fail(r, "out of memory"); }
    put_number(out, (size + 7) / 8 * 8, 8);
    fprintf(out, "%s%*s", header, (int)(-size % 8), "");
    free(header);
    for (size_t i = 0; status == 0 && i < m->tensors.count; i++)
        status = print_tensor(out, &m->tensors.list[i], r);
    return status;
}

/* ---- the tokenizer --------------------------------------------------------------------------- */

static int print_tokenizer(FILE *out, const model_parts *m, report *r) {
    if (!m->vocabulary.has_scores)
        return report_fail(r, "a vocabulary with a list of merges cannot become a tokenizer.model");
    vocabulary_to_sentencepiece(&m->vocabulary, out);
    return 0;
}

static int print_tokenizer_config(FILE *out, const model_parts *m, report *r) {
    (void)r;
    fprintf(out, "{\n  \"add_bos_token\": %s,\n  \"add_eos_token\": %s,\n"
            "  \"tokenizer_class\": \"GemmaTokenizer\"\n}\n",
            m->vocabulary.add_bos ? "true" : "false", m->vocabulary.add_eos ? "true" : "false");
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

typedef int printer(FILE *out, const model_parts *m, report *r);

static int write_file(const model_parts *m, const char *directory, const char *name,
                      printer *print) {
    char *data = NULL, *path = path_join(directory, name);
    size_t size = 0;
    report r = { "" };
    FILE *out = open_memstream(&data, &size);
    int status = !out || !path ? report_fail(&r, "out of memory") : print(out, m, &r);
    if (out && (ferror(out) | fclose(out)) && !status) status = report_fail(&r, "out of memory");
    status = status ? complain("%s: %s", name, r.text) : file_replace(path, data, size);
    free(data);
    free(path);
    return status;
}

int hf_write(const model_parts *m, const char *directory) {
    if (!path_is_directory(directory) && mkdir(directory, 0777) != 0)
        return complain("%s: cannot be made", directory);
    if (write_file(m, directory, "config.json", print_config)
        || write_file(m, directory, "model.safetensors", print_tensors)) return 1;
    if (!m->has_vocabulary) return 0;
    return write_file(m, directory, "tokenizer.model", print_tokenizer)
        || write_file(m, directory, "tokenizer_config.json", print_tokenizer_config);
}
