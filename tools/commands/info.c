/* info.c - griffin info: what a model file holds, for people and as JSON. */

#include "../shared/session.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull;

static const char *kv_type_name(griffin_kv_type type) {
    return type == GRIFFIN_KV_BF16 ? "bf16" : "f32";
}

/* ---- for people --------------------------------------------------------------------------- */

static void print_bytes(const char *label, uint64_t bytes) {
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    double size = (double)bytes;
    int unit = 0;
    while (size >= 1024 && unit < 4) { size /= 1024; unit++; }
    printf("%-12s %.*f %s\n", label, unit ? 2 : 0, size, units[unit]);
}

static int has_block(const griffin_config *c, char letter) {
    return strchr(c->blocks, letter) != NULL;
}

/* Only what some layer uses. */
static void print_mixers(const griffin_info *i) {
    const griffin_config *c = &i->config;
    if (has_block(c, 'r'))
        printf("%-12s of %d, %d gate blocks, convolution of %d, decay %g\n", "recurrence",
               c->lru_width, c->gate_blocks, c->conv_width, c->decay);
    if (has_block(c, 'a'))
        printf("%-12s %d heads of %d, %d for keys and values (%s)%s, window %d (%d keys seen)\n",
               "attention", c->heads, c->head_dim, c->kv_heads, kv_type_name(i->kv_type),
               c->qkv_bias ? ", biases" : "", c->window, i->attn_keys);
    if (has_block(c, 'h'))
        printf("%-12s %d heads with a matrix of %d x %d each\n", "hgrn2", c->heads, c->head_dim,
               c->head_dim);
    if (has_block(c, 's'))
        printf("%-12s %d heads with a matrix of %d x %d each, %d for keys and values\n", "supra",
               c->heads, c->head_dim, c->head_dim, c->kv_heads);
    if (has_block(c, 'a') || has_block(c, 's'))
        printf("%-12s %d dimensions, base %g\n", "rope", c->rope_dims, c->rope_base);
}

static void print_network(const griffin_info *i) {
    const griffin_config *c = &i->config;
    printf("%-12s %d layers, %s\n", "network", c->layers, c->blocks);
    printf("%-12s %d, mlp %d\n", "widths", c->width, c->mlp_width);
    print_mixers(i);
    printf("%-12s %s, %s eps %g, offset %g%s\n", "functions",
           griffin_activation_name(c->activation), c->layer_norm ? "LayerNorm" : "norm", c->eps,
           c->norm_offset, c->no_biases ? ", no biases" : "");
    printf("%-12s scaled by %g, logits capped at %g%s\n", "embedding", c->embedding_scale,
           c->soft_cap, c->soft_cap > 0 ? "" : " (not at all)");
}

static void print_vocabulary(const griffin_info *i) {
    if (!i->has_vocabulary) { printf("%-12s %d tokens, no text in the file\n", "vocabulary",
                                     i->config.vocab); return; }
    printf("%-12s %d tokens: bos %d%s, eos %d, end of turn %d, pad %d\n", "vocabulary",
           i->config.vocab, i->bos, i->add_bos ? " (starts a text)" : "", i->eos, i->end_of_turn,
           i->pad);
    printf("%-12s %s\n", "chat", i->chat_template[0] ? "has a template" : "no template");
}

static void print_info(const griffin_info *i) {
    if (i->name[0]) {
        printf("%-12s ", "name");
        report_print(i->name, strlen(i->name));
        printf("\n");
    }
    print_network(i);
    print_vocabulary(i);
    printf("%-12s %llu, mostly %s, in %d tensors\n", "parameters", (ull)i->parameters, i->type,
           i->tensors);
    print_bytes("file", i->file_bytes);
    print_bytes("copied", i->weight_bytes);
    print_bytes("state", i->state_bytes);
    print_bytes("mark", i->mark_bytes);
    printf("%-12s %s\n%-12s %016llx\n", "kernels", i->kernels, "fingerprint", (ull)i->fingerprint);
}

/* Of a file whose network cannot be run. */
static void print_directory(const session *s) {
    griffin_metadata m;
    if (griffin_get_metadata(s->model, "general.architecture", 0, &m) > 0 && m.text) {
        printf("%-12s ", "architecture");
        report_print(m.text, m.length);
        printf("\n");
    }
    if (s->info->name[0]) {
        printf("%-12s ", "name");
        report_print(s->info->name, strlen(s->info->name));
        printf("\n");
    }
    if (s->info->tokens) printf("%-12s %d tokens\n", "vocabulary", s->info->tokens);
    printf("%-12s %d\n", "tensors", s->info->tensors);
    print_bytes("file", s->info->file_bytes);
}

static void print_tensor(const griffin_tensor *t) {
    int n = report_print(t->name, strlen(t->name));
    n += printf("%*s %-5s [", n < 52 ? 52 - n : 0, "", t->type);
    for (int k = 0; k < t->rank; k++) n += printf(k ? ", %llu" : "%llu", (ull)t->shape[k]);
    printf("]%*s at %llu, %llu bytes\n", n < 74 ? 74 - n : 1, "", (ull)t->offset, (ull)t->bytes);
}

/* At most `longest` bytes of a text; characters stay whole. */
static void print_cut(const char *words, size_t length, size_t longest) {
    size_t shown = length < longest ? length : longest;
    for (int i = 0; i < 3 && shown < length && ((unsigned char)words[shown] & 0xc0) == 0x80; i++)
        shown--;
    report_print(words, shown);
    if (shown < length) printf("...");
}

/* A key and its value, or the first values of an array. */
static void print_metadata(griffin_metadata *m) {
    enum { SHOWN = 4, LONGEST = 60 };
    int n = report_print(m->key, m->key_length);
    printf("%*s ", n < 48 ? 48 - n : 0, "");
    if (m->is_array) printf("[%llu] ", (ull)m->count);
    if (m->count) do {
        if (m->text) print_cut(m->text, m->length, LONGEST);
        else printf("%.9g", m->number);
        printf(m->index + 1 < m->count ? ", " : "");
    } while (m->index + 1 < SHOWN && griffin_next_element(m));
    printf(m->index + 1 < m->count ? "...\n" : "\n");
}

/* ---- the program of the network ----------------------------------------------------------- */

static void print_output(const griffin_output *o) {
    int n = printf("%s %d", o->buffer, o->width);
    if (o->matrix) {
        printf("%*s %-8s  %s %s [%d, %d]", n < 9 ? 9 - n : 0, "", o->epilogue, o->matrix,
               o->type, o->rows, o->cols * o->blocks);
        if (o->blocks > 1) printf(" in %d blocks", o->blocks);
        if (o->has_bias) printf(" + bias");
    }
}

/* operation  inputs -> output  epilogue  matrix,  and a line for each further output */
static void print_operation(const griffin_operation *o, int *layer) {
    int n = 0;
    if (o->layer != *layer && o->layer >= 0) printf("layer %d\n", o->layer);
    else if (o->layer != *layer) printf("\n");
    *layer = o->layer;
    printf("  %-9s ", o->name);
    for (int i = 0; i < o->inputs; i++)
        n += printf(i ? ", %s %d" : "%s %d", o->input[i].buffer, o->input[i].width);
    printf("%*s -> ", n < 24 ? 24 - n : 0, "");
    for (int i = 0; i < o->outputs; i++) {
        if (i) printf("\n%40s", "");
        print_output(&o->output[i]);
    }
    if (o->state_bytes)
        printf("%sstate, %llu bytes at %llu", o->outputs ? ", " : "", (ull)o->state_bytes,
               (ull)o->state_offset);
    printf("\n");
}

static void json_operation(const griffin_operation *o, int is_last) {
    printf("    { \"name\": \"%s\", \"layer\": %d, \"inputs\": [", o->name, o->layer);
    for (int i = 0; i < o->inputs; i++)
        printf("%s{ \"buffer\": \"%s\", \"width\": %d }", i ? ", " : "", o->input[i].buffer,
               o->input[i].width);
    printf("], \"outputs\": [");
    for (int i = 0; i < o->outputs; i++) {
        const griffin_output *out = &o->output[i];
        printf("%s{ \"buffer\": \"%s\", \"width\": %d", i ? ", " : "", out->buffer, out->width);
        if (out->matrix)
            printf(", \"epilogue\": \"%s\", \"matrix\": \"%s\", \"type\": \"%s\", \"rows\": %d, "
                   "\"cols\": %d, \"blocks\": %d, \"bias\": %s", out->epilogue, out->matrix,
                   out->type, out->rows, out->cols, out->blocks, out->has_bias ? "true" : "false");
        printf(" }");
    }
    printf("], \"state_offset\": %llu, \"state_bytes\": %llu }%s\n", (ull)o->state_offset,
           (ull)o->state_bytes, is_last ? "" : ",");
}

/* ---- for programs ------------------------------------------------------------------------- */

/* JSON is UTF-8. Bytes that are not stand as the replacement character. */
static void json_text(const char *words) {
    putchar('"');
    for (size_t n; *words; words += n ? n : 1) {
        unsigned char byte = (unsigned char)*words;
        n = report_printable(words, 4);     /* the NUL is part of no character */
        if (byte == '"' || byte == '\\') printf("\\%c", byte);
        else if (n > 0) printf("%.*s", (int)n, words);
        else printf("\\u%04x", byte < 128 ? byte : 0xfffdu);
    }
    putchar('"');
}

static void json_config(const griffin_config *c) {
    printf("  \"config\": {\n    \"vocab\": %d, \"width\": %d, \"mlp_width\": %d, \"layers\": "
           "%d,\n", c->vocab, c->width, c->mlp_width, c->layers);
    printf("    \"heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, \"window\": %d,\n", c->heads,
           c->kv_heads, c->head_dim, c->window);
    printf("    \"lru_width\": %d, \"gate_blocks\": %d, \"conv_width\": %d, \"decay\": %.9g,\n",
           c->lru_width, c->gate_blocks, c->conv_width, c->decay);
    printf("    \"rope_dims\": %d, \"rope_base\": %.9g, \"eps\": %.9g, \"norm_offset\": %.9g,\n",
           c->rope_dims, c->rope_base, c->eps, c->norm_offset);
    printf("    \"embedding_scale\": %.9g, \"soft_cap\": %.9g, \"activation\": \"%s\",\n",
           c->embedding_scale, c->soft_cap, griffin_activation_name(c->activation));
    printf("    \"qkv_bias\": %s, \"no_biases\": %s, \"layer_norm\": %s, \"mixer_eps\": %.9g,\n",
           c->qkv_bias ? "true" : "false", c->no_biases ? "true" : "false",
           c->layer_norm ? "true" : "false", c->mixer_eps);
    printf("    \"blocks\": \"%s\"\n  },\n", c->blocks);
}

static void json_tensor(const griffin_tensor *t, int is_last) {
    printf("    { \"name\": ");
    json_text(t->name);
    printf(", \"type\": \"%s\", \"shape\": [", t->type);
    for (int k = 0; k < t->rank; k++) printf(k ? ", %llu" : "%llu", (ull)t->shape[k]);
    printf("], \"offset\": %llu, \"bytes\": %llu }%s\n", (ull)t->offset, (ull)t->bytes,
           is_last ? "" : ",");
}

static void json_directory(const griffin_info *i) {
    printf("  \"name\": ");
    json_text(i->name);
    printf(",\n  \"can_run\": false, \"tokens\": %d, \"file_bytes\": %llu", i->tokens,
           (ull)i->file_bytes);
}

static void json_info(const griffin_info *i) {
    printf("  \"name\": ");
    json_text(i->name);
    printf(",\n");
    json_config(&i->config);
    printf("  \"attn_keys\": %d, \"kv_type\": \"%s\", \"rewind\": %d,\n", i->attn_keys,
           kv_type_name(i->kv_type), i->rewind);
    printf("  \"has_vocabulary\": %s, \"add_bos\": %s,\n",
           i->has_vocabulary ? "true" : "false", i->add_bos ? "true" : "false");
    printf("  \"bos\": %d, \"eos\": %d, \"end_of_turn\": %d, \"pad\": %d,\n", i->bos, i->eos,
           i->end_of_turn, i->pad);
    printf("  \"chat_template\": ");
    json_text(i->chat_template);
    printf(",\n  \"type\": \"%s\", \"kernels\": \"%s\", \"parameters\": %llu,\n", i->type,
           i->kernels, (ull)i->parameters);
    printf("  \"file_bytes\": %llu, \"weight_bytes\": %llu, \"state_bytes\": %llu, "
           "\"mark_bytes\": %llu,\n", (ull)i->file_bytes, (ull)i->weight_bytes,
           (ull)i->state_bytes, (ull)i->mark_bytes);
    printf("  \"fingerprint\": \"%016llx\"", (ull)i->fingerprint);
}

/* ---- the command -------------------------------------------------------------------------- */

static int print_tensors(session *s, int json) {
    griffin_tensor t;
    int error;
    for (int i = 0; i < s->info->tensors; i++) {
        error = griffin_get_tensor(s->model, i, &t);
        if (error < 0) return session_error(s, error);
        if (json) json_tensor(&t, i + 1 == s->info->tensors);
        else print_tensor(&t);
    }
    return 0;
}

static int print_program(session *s, int json) {
    int layer = -1;
    for (int i = 0; i < s->info->operations; i++) {
        griffin_operation o;
        int error = griffin_get_operation(s->model, i, &o);
        if (error < 0) return session_error(s, error);
        if (json) json_operation(&o, i + 1 == s->info->operations);
        else print_operation(&o, &layer);
    }
    return 0;
}

static int print_all(session *s, int json, int tensors, int program, int metadata) {
    griffin_metadata m;
    int status = 0;
    if (json) printf("{\n");
    if (s->why[0] && json) json_directory(s->info);
    else if (s->why[0]) print_directory(s);
    else if (json) json_info(s->info);
    else print_info(s->info);
    if (metadata && !json) printf("\n");
    for (int i = 0; metadata && !json && griffin_get_metadata(s->model, NULL, i, &m) > 0; i++)
        print_metadata(&m);
    if (tensors) {
        printf(json ? ",\n  \"tensors\": [\n" : "\n");
        status = print_tensors(s, json);
        if (json) printf("  ]");
    }
    if (program && !status) {
        printf(json ? ",\n  \"program\": [\n" : "\n");
        status = print_program(s, json);
        if (json) printf("  ]");
    }
    if (json) printf("\n}\n");
    return status;
}

int command_info(int argc, char **argv) {
    model_options o = MODEL_DEFAULTS;
    session s;
    int json = 0, tensors = 0, program = 0, metadata = 0;
    const option table[] = {
        MODEL_OPTIONS(o),
        { "tensors", NULL, OPTION_FLAG, &tensors, NULL, "list every tensor" },
        { "program", NULL, OPTION_FLAG, &program, NULL,
          "list the operations that a token goes through" },
        { "metadata", NULL, OPTION_FLAG, &metadata, NULL, "list what else the file says" },
        { "json", NULL, OPTION_FLAG, &json, NULL, "print JSON, for programs" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "info", "MODEL [options]", "Shows what a model file holds.", table };
    int status = options_parse(&c, argc, argv);
    if (status < 0) status = session_open(&s, &c, &o, ANY_FILE);
    else return status;
    if (status) return status;
    if (s.why[0]) note("this model cannot be run: %s", s.why);
    status = print_all(&s, json, tensors, program, metadata);
    session_close(&s);
    return status;
}
