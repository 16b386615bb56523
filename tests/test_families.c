/* test_families.c - checkpoints of the kin of Griffin become models that compute what their own
 * programs compute; whatever does not fit is refused by its name.
 *
 * tests/data/families has small models: the published layouts of HGRN2, SUPRA, Llama, Mistral and
 * Qwen2 with their options, random weights, and the logits of a float64 evaluation of the
 * published formulas under the names of those layouts. Its README says more. */

#include <math.h>
#include <sys/stat.h>

#include "griffin.h"
#include "npy.h"
#include "test.h"
#include "tools/convert/parts.h"
#include "tools/convert/quantise.h"
#include "tools/shared/json.h"

#define DATA "tests/data/families/"
#define WORK TEST_TMP "families"
#define OUT  WORK "/out.gguf"

enum { TOKENS = 12 };

static report message;

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

static int convert_to(const char *source, const char *type, int window) {
    convert_options o;
    memset(&o, 0, sizeof o);
    o.source = source;
    o.output = OUT;
    o.type = type;
    o.window = window;
    o.quiet = 1;
    remove(OUT);
    return convert(&o, &message);
}

/* ---- the same logits ------------------------------------------------------------------------- */

static int read_tokens(const char *path, int32_t *tokens) {
    size_t size;
    unsigned char *text = test_read(path, &size);
    int count = 0;
    json j;
    if (!text) return 0;
    json_start(&j, text, size);
    if (json_next(&j) == JSON_ARRAY)
        while (json_next(&j) == JSON_INT && count < TOKENS) tokens[count++] = (int32_t)j.integer;
    json_stop(&j);
    free(text);
    return count;
}

/* The logits after each token, in one piece or token by token. */
static void run_tokens(const griffin_model *model, const int32_t *tokens, int count, int step,
                       float *logits) {
    size_t size = griffin_context_size(model, NULL);
    size_t vocab = (size_t)griffin_get_info(model)->config.vocab;
    void *memory = malloc(size), *state = calloc(1, griffin_state_size(model));
    griffin_context *context;
    CHECK(griffin_context_init(&context, model, NULL, memory, size) == GRIFFIN_OK, "no context");
    for (int i = 0; i < count; i++) {
        if (!step && i > 0) memset(state, 0, griffin_state_size(model));
        if (!step && i > 0)
            CHECK(griffin_prefill(context, (griffin_state *)state, tokens, i, NULL) == GRIFFIN_OK,
                  "prefill");
        CHECK(griffin_step(context, (griffin_state *)state, tokens[i], logits + (size_t)i * vocab)
              == GRIFFIN_OK, "step");
    }
    free(state);
    free(memory);
}

/* 2e-5 where the logits have a standard deviation of 1.5. */
static void check_logits(const char *name, const griffin_model *model) {
    char path[120];
    int32_t tokens[TOKENS];
    snprintf(path, sizeof path, DATA "%s/tokens.json", name);
    int count = read_tokens(path, tokens), vocab = griffin_get_info(model)->config.vocab;
    snprintf(path, sizeof path, DATA "%s/logits.npy", name);
    npy expected = npy_read(path);
    float *logits = (float *)calloc((size_t)count * (size_t)vocab + 1, sizeof *logits);
    float *stepped = (float *)calloc((size_t)count * (size_t)vocab + 1, sizeof *stepped);
    double most = 0, allowed = 2e-5;
    CHECK(count == TOKENS && expected.count == (long)count * vocab, "%s: %ld logits", name,
          expected.count);
    if (count == TOKENS && expected.count == (long)count * vocab) {
        run_tokens(model, tokens, count, 0, logits);
        run_tokens(model, tokens, count, 1, stepped);
        CHECK(memcmp(logits, stepped, (size_t)count * (size_t)vocab * 4) == 0, "%s: other bits",
              name);
        if (npy_deviation(&expected) > 1.5) allowed *= npy_deviation(&expected) / 1.5;
        for (long i = 0; i < expected.count; i++) {
            double wrong = fabs((double)logits[i] - (double)expected.at[i]);
            if (!(wrong <= most)) most = wrong;
        }
        CHECK(most <= allowed, "%s: %g off, allowed are %g", name, most, allowed);
    }
    free(expected.at);
    free(logits);
    free(stepped);
}

static griffin_model *open_output(void) {
    static char error[400];
    griffin_model *model = NULL;
    griffin_options options;
    memset(&options, 0, sizeof options);
    options.error = error;
    options.error_size = sizeof error;
    CHECK(griffin_open_file(&model, OUT, &options) == GRIFFIN_OK, "%s", error);
    return model;
}

static void check_family(const char *name) {
    char path[100];
    snprintf(path, sizeof path, DATA "%s", name);
    CHECK(convert_to(path, "f32", 0) == 0, "%s", message.text);
    griffin_model *model = open_output();
    if (model) check_logits(name, model);
    griffin_close(model);
}

static void test_hgrn2(void) {
    check_family("hgrn2-conv");
    check_family("hgrn2-heads");
    check_family("hgrn2-fused");
    check_family("hgrn2-attention");
}

static void test_supra(void) {
    static const char *const models[] = {
        "supra-rms_norm", "supra-gain_only_lp_layer_norm", "supra-default_layer_norm",
        "supra-no_wb_layer_norm", "supra-start", "supra-openlm", "supra-none", "supra-llama_rotary",
        "supra-head_rotary"
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check_family(models[i]);
}

static void test_llama(void) {
    check_family("llama-plain");
    check_family("llama-biases");
    check_family("llama-mlp-bias");
    check_family("llama-linear");
    check_family("llama-3.1");
    check_family("mistral-window");
    check_family("qwen2");
}

/* pytorch_model.bin in two files of zip64. */
static void test_pickles_in_shards(void) { check_family("supra-shards"); }

/* A shard that is missing, and one that is cut, by their names. */
static void test_broken_shards(void) {
    static const char *const files[] = {"config.json", "pytorch_model.bin.index.json",
                                        "pytorch_model-00001-of-00002.bin",
                                        "pytorch_model-00002-of-00002.bin"};
    mkdir(WORK "/shards", 0777);
    for (int cut = 0; cut < 2; cut++) {
        for (int i = 0; i < 3 + cut; i++) {
            char path[160];
            size_t size;
            snprintf(path, sizeof path, DATA "supra-shards/%s", files[i]);
            unsigned char *data = test_read(path, &size);
            snprintf(path, sizeof path, WORK "/shards/%s", files[i]);
            if (data) write_file(path, data, i == 3 ? size - 100 : size);
            free(data);
        }
        CHECK(convert_to(WORK "/shards", "f32", 0) == -1 && strstr(message.text, files[3])
              && !path_exists(OUT), "%s", message.text);
        remove(WORK "/shards/pytorch_model-00002-of-00002.bin");
    }
}

/* Of a file of q4_0, matrices whose errors a state sums up keep 8 bits. */
static void check_type(const char *source, const char *name, const char *type) {
    griffin_model *model;
    griffin_tensor t;
    int found = 0;
    size_t n = strlen(name);
    CHECK(convert_to(source, "q4_0", 0) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    for (int i = 0; griffin_get_tensor(model, i, &t) == GRIFFIN_OK; i++)
        found |= strncmp(t.name, name, n) == 0 && t.name[n] == '.'
              && strcmp(t.name + n + 1, type) == 0;
    CHECK(found, "%s of %s is not %s", name, source, type);
    griffin_close(model);
}

static void test_careful_types(void) {
    check_type("tests/data/hgrn2-tiny", "layers.0.temporal_block.f_proj.weight", "q8_0");
    check_type("tests/data/hgrn2-tiny", "layers.0.temporal_block.q_proj.weight", "q4_0");
    check_type("tests/data/supra-tiny", "layers.1.temporal_block.q_proj.weight", "q8_0");
    check_type("tests/data/supra-tiny", "layers.1.temporal_block.k_proj.weight", "q8_0");
    check_type("tests/data/supra-tiny", "layers.1.temporal_block.v_proj.weight", "q4_0");
}

/* ---- what a file says ------------------------------------------------------------------------ */

static void test_windows(void) {
    griffin_model *model;
    CHECK(convert_to(DATA "mistral-window", "f32", 0) == 0, "%s", message.text);
    if ((model = open_output())) CHECK(griffin_get_info(model)->config.window == 4, "sliding");
    griffin_close(model);
    CHECK(convert_to(DATA "llama-plain", "f32", 0) == 0, "%s", message.text);
    if ((model = open_output())) CHECK(griffin_get_info(model)->config.window == 255, "context");
    griffin_close(model);
    CHECK(convert_to(DATA "llama-plain", "f32", 20) == 0, "%s", message.text);
    if ((model = open_output())) CHECK(griffin_get_info(model)->config.window == 20, "--window");
    griffin_close(model);
    CHECK(convert_to(DATA "supra-none", "f32", 20) == -1 && strstr(message.text, "--window"), "%s",
          message.text);
}

/* ---- what is refused: a text of config.json is replaced, or a name in the weights ------------ */

static void copy_edited(const char *name, const char *file, const char *from, const char *to) {
    char path[120];
    size_t size, n = strlen(from), m = strlen(to);
    unsigned char *at;
    snprintf(path, sizeof path, DATA "%s/%s", name, file);
    unsigned char *data = test_read(path, &size);
    CHECK(data != NULL, "%s", path);
    if (!data) return;
    unsigned char *edited = (unsigned char *)malloc(size + m + 1);
    for (at = data; n && at + n <= data + size && memcmp(at, from, n); at++) continue;
    if (!n) at = data + size;
    CHECK(!n || at + n <= data + size, "%s has no %s", path, from);
    if (n && at + n > data + size) { n = m = 0; at = data + size; }
    memcpy(edited, data, (size_t)(at - data));
    memcpy(edited + (at - data), to, m);
    memcpy(edited + (at - data) + m, at + n, size - n - (size_t)(at - data));
    snprintf(path, sizeof path, WORK "/%s", file);
    write_file(path, edited, size - n + m);
    free(edited);
    free(data);
}

typedef struct edit { const char *model, *file, *from, *to, *words; } edit;

static void check_refused(const edit *e) {
    int config = strcmp(e->file, "config.json") == 0;
    copy_edited(e->model, "config.json", config ? e->from : "", config ? e->to : "");
    copy_edited(e->model, "model.safetensors", config ? "" : e->from, config ? "" : e->to);
    int status = convert_to(WORK, "f32", 0);
    CHECK(status == -1 && strstr(message.text, e->words), "%s for %s: '%s' should be about '%s'",
          e->model, e->to, message.text, e->words);
    CHECK(strstr(message.text, WORK) != NULL, "no file in '%s'", message.text);
    CHECK(!path_exists(OUT), "an output file although: %s", message.text);
}

#define CONFIG "config.json"
#define TENSORS "model.safetensors"

static void test_refusals_of_hgrn2(void) {
    static const edit edits[] = {
        {"hgrn2-fused", CONFIG, "\"hgrn2\"", "\"hgrn\"", "model_type: expected"},
        {"hgrn2-fused", CONFIG, "\"hidden_size\"", "\"decoder_embed_dim\"", "decoder_embed_dim"},
        {"hgrn2-fused", CONFIG, "\"expand_ratio\": 8", "\"expand_ratio\": 0", "expand_ratio"},
        {"hgrn2-fused", CONFIG, "\"expand_ratio\": 8", "\"expand_ratio\": 7", "expand_ratio"},
        {"hgrn2-heads", CONFIG, "\"num_heads\": 4", "\"num_heads\": 5", "num_heads"},
        {"hgrn2-fused", CONFIG, "\"swish\"", "\"powlu\"", "hidden_act"},
        {"hgrn2-fused", CONFIG, "\"hidden_act\"", "\"attnres_block_size\": 4, \"hidden_act\"",
         "attnres_block_size"},
        {"hgrn2-fused", CONFIG, "\"use_lower_bound\": true", "\"use_lower_bound\": false",
         "use_lower_bound"},
        {"hgrn2-conv", CONFIG, "\"use_short_conv\": true", "\"use_short_conv\": false",
         "use_short_conv"},
        {"hgrn2-conv", CONFIG, "\"conv_size\": 3", "\"conv_size\": 4", "q_conv1d.weight': shape"},
        {"hgrn2-conv", TENSORS, "attn.q_conv1d.w", "attn.h_conv1d.w", "q_conv1d"},
        {"hgrn2-fused", TENSORS, "model.lower_bounds", "model.lower_boundz",
         "'lower_bounds' is missing, expected [2, 16]"},
        {"hgrn2-fused", TENSORS, "layers.1.attn.f_proj", "layers.1.attn.g_proj",
         "'model.layers.1.attn.f_proj.weight' is missing"},
        {"hgrn2-fused", CONFIG, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
         "lower_bounds"},
        {"hgrn2-fused", CONFIG, "\"intermediate_size\": 12", "\"intermediate_size\": 13",
         "gate_proj.weight': shape [12, 16] instead of [13, 16]"},
        {"hgrn2-attention", CONFIG, "\"window_size\": 5", "\"window_size\": null", "--window"},
        {"hgrn2-attention", CONFIG, "\"num_heads\": 2", "\"num_heads\": 4", "attn.num_heads"},
        {"hgrn2-attention", CONFIG, "\"window_size\"", "\"qk_norm\": true, \"window_size\"",
         "attn.qk_norm"},
        {"hgrn2-heads", CONFIG, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
         "lm_head.weight' is missing"}
    };
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++)
        check_refused(&edits[i]);
}

static void test_refusals_of_supra(void) {
    static const edit edits[] = {
        {"supra-rms_norm", CONFIG, "\"linear_attn\"", "\"xformers_attn\"", "attn_name"},
        {"supra-rms_norm", CONFIG, "\"linear_attn\"", "\"mamba\"", "attn_name"},
        {"supra-rms_norm", CONFIG, "\"swiglu\"", "\"moe\"", "ffn_type"},
        {"supra-rms_norm", CONFIG, "\"rms_norm\"", "\"other_norm\"", "norm_type"},
        {"supra-rms_norm", CONFIG, "\"rms_norm\"", "\"default_layer_norm\"",
         "bias' is missing"},
        {"supra-default_layer_norm", CONFIG, "\"default_layer_norm\"", "\"rms_norm\"",
         "the kind of norm"},
        {"supra-rms_norm", CONFIG, "\"apply_qk_norm\": true", "\"apply_qk_norm\": false",
         "apply_qk_norm"},
        {"supra-default_layer_norm", CONFIG, "\"post_embed_norm\": true",
         "\"post_embed_norm\": false", "post_embed_norm"},
        {"supra-rms_norm", CONFIG, "\"qk_head_dim\": 4", "\"qk_head_dim\": 8", "qk_head_dim"},
        {"supra-rms_norm", CONFIG, "\"n_heads\": 4", "\"n_heads\": 5", "n_heads"},
        {"supra-rms_norm", CONFIG, "\"n_heads_kv\": 2", "\"n_heads_kv\": 3", "n_heads_kv"},
        {"supra-rms_norm", CONFIG, "\"dim\": 16", "\"params_args_dict\": {}, \"dim\": 16",
         "params_args_dict"},
        {"supra-start", CONFIG, "\"rotary_scale\": 1.0", "\"rotary_scale\": 2.0", "rotary_scale"},
        {"supra-none", CONFIG, "\"none\"", "\"absolute\"", "positional_embedding_type"},
        {"supra-rms_norm", TENSORS, "layers.1.attention._totrain_embed_kv.w",
         "layers.1.attention._totrain_embed_kw.w", "_totrain_embed_kv.weight' is missing"}
    };
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) check_refused(&edits[i]);
}

static void test_refusals_of_llama(void) {
    static const edit edits[] = {
        {"llama-plain", CONFIG, "\"llama\"", "\"mixtral\"", "model_type: expected"},
        {"llama-plain", CONFIG, "\"hidden_act\"",
         "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}, \"hidden_act\"",
         "rope_scaling.type"},
        {"llama-plain", CONFIG, "\"hidden_act\"",
         "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8}, \"hidden_act\"",
         "rope_scaling.rope_type"},
        {"llama-linear", CONFIG, "\"factor\": 2.5", "\"factor\": 0.5", "rope_scaling.factor"},
        {"llama-linear", CONFIG, "\"factor\"", "\"attention_factor\"", "attention_factor"},
        {"llama-linear", CONFIG, "\"factor\"", "\"low_freq_factor\"", "low_freq_factor"},
        {"llama-3.1", CONFIG, "\"low_freq_factor\": 1.0", "\"low_freq_factor\": 4.0",
         "high_freq_factor is not above"},
        {"llama-3.1", CONFIG, "\"high_freq_factor\": 4.0, ", "",
         "rope_parameters.high_freq_factor: expected a number; it is missing"},
        {"llama-3.1", CONFIG, "\"original_max_position_embeddings\": 32",
         "\"original_max_position_embeddings\": 0", "original_max_position_embeddings"},
        {"llama-plain", CONFIG, "\"hidden_act\"", "\"num_local_experts\": 8, \"hidden_act\"",
         "num_local_experts"},
        {"llama-plain", CONFIG, "\"hidden_act\"", "\"head_dim\": 8, \"hidden_act\"", "head_dim"},
        {"llama-plain", CONFIG, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
         "num_attention_heads"},
        {"qwen2", CONFIG, "\"use_sliding_window\": false", "\"use_sliding_window\": true",
         "use_sliding_window"},
        {"llama-biases", CONFIG, "\"attention_bias\": true", "\"attention_bias\": false",
         ".bias' is not part"},
        {"llama-plain", TENSORS, "layers.1.self_attn.k_proj", "layers.1.self_attn.k_norm",
         "'model.layers.1.self_attn.k_proj.weight' is missing"}
    };
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) check_refused(&edits[i]);
}

/* A number that is none, where numbers are computed from it. */
static void test_not_a_number(void) {
    size_t size;
    unsigned char *data = test_read(DATA "hgrn2-fused/" TENSORS, &size);
    const char *at = data ? strstr((char *)data + 8, "model.lower_bounds") : NULL;
    unsigned long begin = 0;
    if (at) at = strstr(at, "\"data_offsets\": [");
    CHECK(at && sscanf(at + 17, "%lu", &begin) == 1, "no lower_bounds");
    if (!at) { free(data); return; }
    begin += 8 + npy_u32(data);
    data[begin + 6] = 0xC0;                 /* element 3, of bf16 */
    data[begin + 7] = 0x7F;
    copy_edited("hgrn2-fused", CONFIG, "", "");
    write_file(WORK "/" TENSORS, data, size);
    CHECK(convert_to(WORK, "f32", 0) == -1
          && strstr(message.text, "lower_bounds': element 3 is not finite"), "%s", message.text);
    free(data);
}

/* ---- GGUF as llama.cpp writes it ----------------------------------------------------------------
 * A network of one layer is written twice: as a GGUF file in a number format, with the rows of q
 * and k in pairs, and as the values that these numbers decode to, in safetensors under the names of
 * transformers. Both must become the same file. */

enum { D = 256, HEADS = 4, KV = 2, DIM = D / HEADS, INNER = 256, VOCAB = 32, MATRICES = 9 };

static const struct matrix { const char *hf, *gguf; int rows, paired; } matrices[MATRICES] = {
    {"model.embed_tokens.weight", "token_embd.weight", VOCAB, 0},
    {"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", D, 1},
    {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", KV * DIM, 1},
    {"model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", KV * DIM, 0},
    {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", D, 0},
    {"model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", INNER, 0},
    {"model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight", INNER, 0},
    {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", D, 0},
    {"lm_head.weight", "output.weight", VOCAB, 0}
};

static const char *const norms[3][2] = {
    {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
    {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"},
    {"model.norm.weight", "output_norm.weight"}
};

static float random_number(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 16777216.0f - 0.5f;
}

/* Row r of a matrix for transformers is this row of one for llama.cpp. */
static int paired_row(int r) {
    int i = r % DIM;
    return r - i + (i < DIM / 2 ? 2 * i : 2 * (i - DIM / 2) + 1);
}

typedef struct pair { uint8_t *coded[MATRICES]; float *decoded[MATRICES]; float norm[3][D]; } pair;

/* Of formats that are only read: any bytes, but their last two or four are numbers of 2^-8. */
static void random_blocks(const quant_type *type, uint8_t *at) {
    uint32_t halves = strcmp(type->name, "q2_k") == 0 ? 2 : 1;
    for (uint32_t i = 0; i < type->bytes; i++) at[i] = (uint8_t)(256 * (random_number() + 0.5f));
    for (uint32_t i = 1; i <= halves; i++) {
        at[type->bytes - 2 * i] = 0;
        at[type->bytes - 2 * i + 1] = 0x1C;
    }
}

static void make_pair(pair *p, const quant_type *type) {
    float row[D];
    for (int m = 0; m < MATRICES; m++) {
        size_t bytes = (size_t)quant_bytes(type, D);
        p->coded[m] = (uint8_t *)malloc(bytes * (size_t)matrices[m].rows);
        p->decoded[m] = (float *)malloc(sizeof row * (size_t)matrices[m].rows);
        for (int r = 0; r < matrices[m].rows; r++) {
            uint8_t *at = p->coded[m] + bytes * (size_t)(matrices[m].paired ? paired_row(r) : r);
            for (int i = 0; i < D; i++) row[i] = random_number();
            if (type->encode) CHECK(quantise_row(type, row, D, at) == 0, "%s", type->name);
            else random_blocks(type, at);
            type->decode(at, p->decoded[m] + r * D, D / type->elements);
        }
    }
    for (int m = 0; m < 3; m++) for (int i = 0; i < D; i++) p->norm[m][i] = 1 + random_number();
}

static void free_pair(pair *p) {
    for (int m = 0; m < MATRICES; m++) {
        free(p->coded[m]);
        free(p->decoded[m]);
    }
}

/* A key, or number 3 of rope_freqs.weight, is the value. A name without a dot is an architecture. */
static void write_pair_gguf(const pair *p, const quant_type *type, const char *key, float value) {
    int of_factors = key && strcmp(key, "rope_freqs.weight") == 0;
    int of_other = key && !strchr(key, '.');
    gguf_writer g;
    uint64_t shape[2] = {D, D};
    memset(&g, 0, sizeof g);
    gguf_string(&g, "general.architecture", of_other ? key : "llama");
    gguf_u32(&g, "general.alignment", GGUF_ALIGNMENT);
    gguf_u32(&g, "llama.block_count", 1);
    gguf_u32(&g, "llama.embedding_length", D);
    gguf_u32(&g, "llama.feed_forward_length", INNER);
    gguf_u32(&g, "llama.attention.head_count", HEADS);
    gguf_u32(&g, "llama.attention.head_count_kv", KV);
    gguf_u32(&g, "llama.context_length", 64);
    gguf_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_f32(&g, "llama.rope.freq_base", 5000);
    if (key && !of_factors && !of_other) gguf_f32(&g, key, value);
    for (int m = 0; m < MATRICES; m++) {
        shape[0] = (uint64_t)matrices[m].rows;
        gguf_tensor(&g, matrices[m].gguf, 2, shape, type);
    }
    shape[0] = D;
    for (int m = 0; m < 3; m++) gguf_tensor(&g, norms[m][1], 1, shape, quant_find("f32"));
    shape[0] = DIM / 2;
    gguf_tensor(&g, "rope_freqs.weight", 1, shape, quant_find("f32"));
    shape[0] = D;
    int status = gguf_open(&g, WORK "/llama.gguf", &message);
    for (int m = 0; status == 0 && m < MATRICES; m++) {
        size_t bytes = (size_t)quant_bytes(type, (uint64_t)(D * matrices[m].rows));
        status = gguf_write(&g, p->coded[m], bytes, &message) || gguf_pad(&g, &message);
    }
    for (int m = 0; status == 0 && m < 3; m++)
        status = gguf_write(&g, p->norm[m], sizeof p->norm[m], &message) || gguf_pad(&g, &message);
    for (int i = 0; status == 0 && i < DIM / 2; i++) {
        float one = of_factors && i == 3 ? value : 1;
        status = gguf_write(&g, &one, sizeof one, &message);
    }
    CHECK(status == 0 && gguf_pad(&g, &message) == 0 && gguf_finish(&g, &message) == 0
          && gguf_close(&g, &message) == 0, "%s", message.text);
    gguf_free(&g);
}

static void write_pair_hf(const pair *p) {
    static char header[4096];
    static const char config[] =
        "{\"model_type\":\"llama\",\"vocab_size\":32,\"hidden_size\":256,\"intermediate_size\":256,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,"
        "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000}}";
    int n = sprintf(header, "{"), at = 0, size;
    FILE *f = fopen(WORK "/" TENSORS, "wb");
    for (int m = 0; m < MATRICES; m++, at += size) {
        size = 4 * D * matrices[m].rows;
        n += sprintf(header + n, "\"%s\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":"
                     "[%d,%d]},", matrices[m].hf, matrices[m].rows, D, at, at + size);
    }
    for (int m = 0; m < 3; m++, at += 4 * D)
        n += sprintf(header + n, "\"%s\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":"
                     "[%d,%d]}%s", norms[m][0], D, at, at + 4 * D, m < 2 ? "," : "}");
    for (int i = 0; i < 8; i++) fputc(i < 4 ? n >> 8 * i & 255 : 0, f);
    fwrite(header, 1, (size_t)n, f);
    for (int m = 0; m < MATRICES; m++)
        fwrite(p->decoded[m], sizeof(float), (size_t)(D * matrices[m].rows), f);
    fwrite(p->norm, 1, sizeof p->norm, f);
    fclose(f);
    write_file(WORK "/" CONFIG, config, sizeof config - 1);
}

static void check_format(const char *name) {
    const quant_type *type = quant_find_source(name);
    size_t sizes[2];
    unsigned char *files[2];
    pair p;
    make_pair(&p, type);
    write_pair_gguf(&p, type, NULL, 0);
    write_pair_hf(&p);
    CHECK(convert_to(WORK, "f32", 0) == 0, "%s", message.text);
    files[0] = test_read(OUT, &sizes[0]);
    CHECK(convert_to(WORK "/llama.gguf", "f32", 0) == 0, "%s", message.text);
    files[1] = test_read(OUT, &sizes[1]);
    size_t tail = 4 * (size_t)D * (2 * D + 2 * KV * DIM + 3 * INNER + 2 * VOCAB);
    CHECK(sizes[0] > tail && sizes[1] > tail, "%s: small files", name);
    if (sizes[0] > tail && sizes[1] > tail)
        CHECK(memcmp(files[0] + sizes[0] - tail, files[1] + sizes[1] - tail, tail) == 0,
              "%s: other weights", name);
    free(files[0]);
    free(files[1]);
    free_pair(&p);
}

static void test_gguf_of_any_format(void) {
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0",
                                        "q5_1", "q4_k", "q5_k", "q6_k", "q2_k", "q3_k"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) check_format(types[i]);
}

/* Blocks that stay as they are go with their rows. */
static void test_gguf_keeps_blocks(void) {
    pair p;
    make_pair(&p, quant_find("q8_0"));
    write_pair_gguf(&p, quant_find("q8_0"), NULL, 0);
    write_pair_hf(&p);
    size_t sizes[2];
    unsigned char *files[2];
    CHECK(convert_to(WORK, "q8_0", 0) == 0, "%s", message.text);
    files[0] = test_read(OUT, &sizes[0]);
    CHECK(convert_to(WORK "/llama.gguf", NULL, 0) == 0, "%s", message.text);
    files[1] = test_read(OUT, &sizes[1]);
    size_t tail = (size_t)D * (2 * D + 2 * KV * DIM + 3 * INNER + 2 * VOCAB);
    CHECK(sizes[0] > tail && sizes[1] > tail
          && memcmp(files[0] + sizes[0] - tail, files[1] + sizes[1] - tail, tail) == 0,
          "other blocks");
    free(files[0]);
    free(files[1]);
    free_pair(&p);
}

/* The numbers of rope_factors.weight in the output: number 3, and all others. */
static void check_gguf_factors(const pair *p, const char *key, float value, float third,
                               float others) {
    griffin_tensor t;
    griffin_model *model;
    int found = 0;
    size_t size;
    write_pair_gguf(p, quant_find("q8_0"), key, value);
    CHECK(convert_to(WORK "/llama.gguf", NULL, 0) == 0, "%s", message.text);
    unsigned char *file = test_read(OUT, &size);
    if (!(model = open_output())) { free(file); return; }
    for (int i = 0; griffin_get_tensor(model, i, &t) == GRIFFIN_OK; i++) {
        if (strcmp(t.name, "rope_factors.weight") != 0) continue;
        CHECK(t.rank == 1 && t.shape[0] == DIM / 2, "shape");
        for (int k = 0; k < DIM / 2; k++) {
            uint32_t bits = npy_u32(file + t.offset + 4 * k);
            float factor;
            memcpy(&factor, &bits, 4);
            CHECK(factor == (k == 3 ? third : others), "factor %d is %g", k, (double)factor);
        }
        found = 1;
    }
    CHECK(found == (third != 1 || others != 1), "%s: factors found: %d", key, found);
    griffin_close(model);
    free(file);
}

static void test_factors_of_gguf(void) {
    pair p;
    make_pair(&p, quant_find("q8_0"));
    check_gguf_factors(&p, "rope_freqs.weight", 32, 32, 1);
    check_gguf_factors(&p, "llama.rope.scaling.factor", 2.5, 2.5, 2.5);
    check_gguf_factors(&p, "llama.rope.scale_linear", 4, 4, 4);
    check_gguf_factors(&p, "llama.rope.scaling.factor", 1, 1, 1);
    free_pair(&p);
}

static void check_gguf_refused(const pair *p, const char *key, float value, const char *words) {
    write_pair_gguf(p, quant_find("q8_0"), key, value);
    CHECK(convert_to(WORK "/llama.gguf", "f32", 0) == -1 && strstr(message.text, words),
          "'%s' should be about '%s'", message.text, words);
    CHECK(strstr(message.text, "llama.gguf") && !path_exists(OUT), "%s", message.text);
}

static void test_refusals_of_gguf(void) {
    pair p;
    make_pair(&p, quant_find("q8_0"));
    check_gguf_refused(&p, "gemma2", 0, "architecture 'gemma2', expected griffin");
    check_gguf_refused(&p, "rwkv6", 0, "architecture 'rwkv6', expected griffin");
    check_gguf_refused(&p, "llama.expert_count", 8, "llama.expert_count");
    check_gguf_refused(&p, "llama.rope.scaling.factor", 0.5, "llama.rope.scaling.factor");
    check_gguf_refused(&p, "llama.rope.scaling.type", 4, "llama.rope.scaling.type");
    check_gguf_refused(&p, "llama.attention.key_length", 32, "heads of 64 channels");
    check_gguf_refused(&p, "rope_freqs.weight", 0.5, "rope_freqs.weight': element 3 is 0.5");
    check_gguf_refused(&p, "rope_freqs.weight", NAN, "rope_freqs.weight");
    free_pair(&p);
}

/* A model of the family is itself a source, with a head of its own and in any type. */
static void test_again(void) {
    size_t size, again;
    CHECK(convert_to(DATA "supra-rms_norm", "f32", 0) == 0, "%s", message.text);
    unsigned char *first = test_read(OUT, &size);
    write_file(WORK "/first.gguf", first, size);
    CHECK(convert_to(WORK "/first.gguf", NULL, 0) == 0, "%s", message.text);
    unsigned char *second = test_read(OUT, &again);
    CHECK(size == again && memcmp(first, second, size) == 0, "another file");
    free(first);
    free(second);
}

int main(void) {
    mkdir("build", 0777);
    mkdir(TEST_TMP, 0777);
    mkdir(WORK, 0777);
    RUN(test_hgrn2);
    RUN(test_supra);
    RUN(test_llama);
    RUN(test_pickles_in_shards);
    RUN(test_broken_shards);
    RUN(test_careful_types);
    RUN(test_windows);
    RUN(test_refusals_of_hgrn2);
    RUN(test_refusals_of_supra);
    RUN(test_refusals_of_llama);
    RUN(test_not_a_number);
    RUN(test_gguf_of_any_format);
    RUN(test_gguf_keeps_blocks);
    RUN(test_factors_of_gguf);
    RUN(test_refusals_of_gguf);
    RUN(test_again);
    return test_end();
}
