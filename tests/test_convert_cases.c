/* test_convert_cases.c - the converter never succeeds with a wrong file. What a tokenizer or a
 * configuration asks for is done as its own library does it, or refused by its name.
 *
 * tests/data/convert_cases has small tokenizers: ranks.json is BPE of SentencePiece's form,
 * bytes.json and alphabet.json (with 19 of 256 bytes) are of GPT-2's, chatml.model and spaces.model
 * (with user-defined pieces of two and three plain spaces) were trained by SentencePiece. The ids
 * of the unedited files are those of the reference tokenizers. Each case edits a file and puts it
 * beside a model of zeros. */

#include <sys/stat.h>

#define LOG TEST_TMP "convert_cases.log"
#include "griffin.h"
#include "command.h"
#include "test.h"
#include "tools/convert/hf_writer.h"
#include "tools/convert/parts.h"

#define DATA "tests/data/convert_cases/"
#define WORK TEST_TMP "convert_cases/"
#define OUT  WORK "out.gguf"
#define MARK "\xEF\xBB\xBF"                 /* a byte order mark */
#define LOW  "\xE2\x96\x81"                 /* U+2581, which stands for a space */

int command_convert(int argc, char **argv);
int command_train(int argc, char **argv);

/* added_tokens_decoder of a tokenizer_config.json */
#define ENTRY(id, text, more) "\"" id "\":{\"content\":\"" text "\",\"special\":true" more "}"
#define CONFIG(entries, more) "{\"added_tokens_decoder\":{" entries "}" more "}"

static report message;

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

static void write_text(const char *path, const char *text) { write_file(path, text, strlen(text)); }

/* ---- a model of zeros ------------------------------------------------------------------------ */

static void number(unsigned char *at, size_t n) {
    for (int i = 0; i < 8; i++) at[i] = (unsigned char)((uint64_t)n >> 8 * i);
}

static void write_weights(const griffin_config *net) {
    static char header[8192];
    size_t n = 1, data = 0;
    tensors list;
    CHECK(tensors_list(&list, net) == 0, "no memory");
    strcpy(header, "{");
    for (size_t i = 0; i < list.count; i++) {
        const tensor *t = &list.list[i];
        size_t from = data, elements = 1;
        n += (size_t)sprintf(header + n, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "",
                             t->name);
        for (int k = 0; k < t->rank; k++) {
            n += (size_t)sprintf(header + n, "%s%lu", k ? "," : "", (unsigned long)t->shape[k]);
            elements *= (size_t)t->shape[k];
        }
        data += 4 * elements;
        n += (size_t)sprintf(header + n, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)from,
                             (unsigned long)data);
    }
    header[n++] = '}';
    tensors_free(&list);
    unsigned char *file = (unsigned char *)calloc(8 + n + data, 1);
    number(file, n);
    memcpy(file + 8, header, n);
    write_file(WORK "model.safetensors", file, 8 + n + data);
    free(file);
}

/* `more` is added to the configuration. */
static void write_model(int vocab, const char *more) {
    static const char form[] =
        "%s{\"model_type\": \"recurrent_gemma\", \"vocab_size\": %d, \"hidden_size\": 16,"
        " \"intermediate_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 1,"
        " \"num_key_value_heads\": 1, \"lru_width\": 16, \"attention_window_size\": 8,"
        " \"block_types\": [\"recurrent\"]%s%s}";
    static const char *const files[] = {"tokenizer.json", "tokenizer.model", "added_tokens.json",
                                        "tokenizer_config.json"};
    griffin_config net;
    char config[1000];
    int marked = strncmp(more, MARK, 3) == 0;
    mkdir(TEST_TMP, 0777);
    mkdir(WORK, 0777);
    for (int i = 0; i < 4; i++) {
        char path[256];
        snprintf(path, sizeof path, WORK "%s", files[i]);
        remove(path);
    }
    memset(&net, 0, sizeof net);
    net.vocab = vocab;
    net.width = net.lru_width = net.mlp_width = net.head_dim = 16;
    net.heads = net.kv_heads = net.layers = net.gate_blocks = 1;
    net.conv_width = 4;
    net.blocks[0] = 'r';
    write_weights(&net);
    snprintf(config, sizeof config, form, marked ? more : "", vocab, !marked && *more ? ", " : "",
             marked ? "" : more);
    write_text(WORK "config.json", config);
}

/* ---- tokenizers ------------------------------------------------------------------------------ */

/* A file of DATA with the first occurrence of a part replaced, as the tokenizer of the model. */
static void write_tokenizer(const char *file, const char *from, const char *to) {
    char path[256];
    size_t size = 0, n = from ? strlen(from) : 0;
    snprintf(path, sizeof path, DATA "%s", file);
    char *text = (char *)test_read(path, &size), *at = text && from ? strstr(text, from) : text;
    CHECK(text && at, "%s: '%s' is not there", path, from ? from : "");
    if (text && at) {
        size_t m = to ? strlen(to) : 0, before = (size_t)(at - text);
        char *edited = (char *)malloc(size + m);
        memcpy(edited, text, before);
        if (m) memcpy(edited + before, to, m);
        memcpy(edited + before + m, at + n, size - before - n);
        write_file(path_ends_in(file, ".json") ? WORK "tokenizer.json" : WORK "tokenizer.model",
                   edited, size - n + m);
        free(edited);
    }
    free(text);
}

static int convert_model(int crop) {
    convert_options o;
    memset(&o, 0, sizeof o);
    o.source = WORK;
    o.output = OUT;
    o.vocab = crop;
    o.quiet = 1;
    remove(OUT);
    message.text[0] = 0;
    return convert(&o, &message);
}

/* Nothing was written, and the message says this. */
static void check_refused(int status, const char *words) {
    CHECK(status == -1 && strstr(message.text, words), "%d, '%s' should be about '%s'", status,
          message.text, words);
    CHECK(!path_exists(OUT) && !path_exists(OUT ".part"), "a file although: %s", message.text);
}

static griffin_model *open_output(void) {
    griffin_model *model = NULL;
    CHECK(griffin_open_file(&model, OUT, NULL) == GRIFFIN_OK, "%s", message.text);
    return model;
}

/* Ids as "1 27 16"; those that come only after a complete text as "1 27 16 and 2". */
static void check_text(const griffin_model *model, const char *text, const char *ids) {
    griffin_encoding whole;
    int32_t tokens[64];
    char list[400] = "";
    memset(&whole, 0, sizeof whole);
    whole.ends = 1;
    int n = griffin_encode(model, NULL, text, strlen(text), tokens, 64);
    int all = griffin_encode(model, &whole, text, strlen(text), tokens, 64);
    for (int i = 0; i < all && i < 64; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list),
                 i == n ? " and %d" : i ? " %d" : "%d", (int)tokens[i]);
    CHECK(strcmp(list, ids) == 0, "'%s' becomes %s instead of %s", text, list, ids);
}

static void check_output(int status, const char *text, const char *ids) {
    griffin_model *model;
    CHECK(status == 0, "%s", message.text);
    if (status != 0 || !(model = open_output())) return;
    check_text(model, text, ids);
    griffin_close(model);
}

/* What one edit makes of a tokenizer: ids of a text, or without a text the words of a refusal. */
typedef struct edit { const char *from, *to, *text, *result; } edit;

static void check_edits(const char *file, int vocab, const edit *edits, size_t count) {
    for (size_t i = 0; i < count; i++) {
        write_model(vocab, "");
        write_tokenizer(file, edits[i].from, edits[i].to);
        if (edits[i].text) check_output(convert_model(0), edits[i].text, edits[i].result);
        else check_refused(convert_model(0), edits[i].result);
    }
}

#define CHECK_EDITS(file, vocab, edits) \
    check_edits(file, vocab, edits, sizeof (edits) / sizeof (edits)[0])

static void test_beginnings(void) {
    static const edit edits[] = {
        {NULL, NULL, "hero", "27 16"},                      {"{", "\n{", "hero", "27 16"},
        {"{", " \r\n\t{", "hero", "27 16"},                 {"{", MARK "{", "hero", "27 16"},
        {"{", MARK "\n{\n", "hero", "27 16"},
        {"{", "\v{", NULL, "not a SentencePiece model"}
    };
    CHECK_EDITS("ranks.json", 60, edits);
    write_model(60, MARK "\n");
    write_tokenizer("ranks.json", NULL, NULL);
    check_output(convert_model(0), "hero", "27 16");
}

/* Every beginning of these files is refused. */
static void test_cut_files(void) {
    static const char config[] = CONFIG(ENTRY("60", "<|im_start|>", ""), ",\"legacy\":false");
    size_t size = 0;
    unsigned char *text = test_read(DATA "ranks.json", &size);
    write_model(60, "");
    for (size_t n = 1; text && n < size; n += 7) {
        write_file(WORK "tokenizer.json", text, n);
        check_refused(convert_model(0), "tokenizer.json");
    }
    free(text);
    write_model(62, "");
    write_tokenizer("chatml.model", NULL, NULL);
    for (size_t n = 0; n < sizeof config - 1; n++) {
        write_file(WORK "tokenizer_config.json", config, n);
        check_refused(convert_model(0), "tokenizer_config.json");
    }
}

#define REPLACE  "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" LOW "\"}"
#define PREPEND  "{\"type\":\"Prepend\",\"prepend\":\"" LOW "\"}"
#define STRIP    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"
#define SEQUENCE(kind, steps) "{\"type\":\"Sequence\",\"" kind "\":[" steps "]}"

static void test_decoders(void) {
    static const edit edits[] = {
        {"{\"type\":\"Fuse\"}", "{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"String\":"
         "\"he \"},\"content\":\"HE_\"}", NULL, "decoder: String 'he ' is not supported"},
        {"{\"type\":\"Fuse\"}", "{\"type\":\"Fuse\"}," STRIP, NULL, "decoder: Replace, "
         "ByteFallback, Fuse, Strip"},
        {"{\"type\":\"Fuse\"}", "{\"type\":\"Metaspace\"}", NULL, "decoder: Replace, "
         "ByteFallback, Metaspace"},
        {"{\"type\":\"Fuse\"}", "{\"type\":\"Fuse\"},{\"type\":\"Fuse\"}", NULL, "decoder: "},
        {"{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}", "{\"type\":\"Fuse\"}", "hero",
         "27 16"},
        {"\"decoder\":{", "\"decoder\":null,\"post_processor\":{", NULL, ""},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"" LOW "\"},\"content\":\" \"},", "", NULL,
         "decoder: ByteFallback, Fuse"}
    };
    CHECK_EDITS("ranks.json", 60, edits);
}

/* Many short stretches take more room than their bytes; griffin_encode_size knows it. */
static void check_room(const griffin_model *model) {
    char text[200];
    int32_t tokens[400];
    griffin_encoding e;
    for (int i = 0; i < 200; i++) text[i] = i & 1 ? 'x' : '\xFF';
    memset(&e, 0, sizeof e);
    for (size_t n = 0; n < sizeof text; n++) {
        e.scratch_size = griffin_encode_size(model, n);
        e.scratch = malloc(e.scratch_size);
        int count = griffin_encode(model, &e, text, n, tokens, 400);
        CHECK(count >= 0, "%lu bytes: %d", (unsigned long)n, count);
        free(e.scratch);
    }
}

/* A space before every stretch of text, which Llama-2's files ask for. */
static void test_prepend(void) {
    static const edit edits[] = {
        {REPLACE, PREPEND, NULL, "normalizer: Prepend is not supported"},
        {REPLACE, SEQUENCE("normalizers", PREPEND "," REPLACE), NULL, "decoder: "},
        {REPLACE, SEQUENCE("normalizers", PREPEND "," PREPEND "," REPLACE), NULL, "normalizer: "},
        {REPLACE, "null", NULL, "Split at spaces"},
        {REPLACE, "{\"type\":\"NFC\"}", NULL, "normalizer: type 'NFC'"}
    };
    griffin_model *model;
    CHECK_EDITS("ranks.json", 60, edits);
    write_model(61, "");
    write_tokenizer("ranks.json", REPLACE, SEQUENCE("normalizers", PREPEND "," REPLACE));
    write_text(WORK "added_tokens.json", "{\"x\": 60}");
    size_t size = 0;
    char *text = (char *)test_read(WORK "tokenizer.json", &size);
    char *at = text ? strstr(text, "{\"type\":\"Fuse\"}") : NULL, edited[4096];
    CHECK(at != NULL, "Fuse");
    if (!at) { free(text); return; }
    snprintf(edited, sizeof edited, "%.*s{\"type\":\"Fuse\"}," STRIP "%s", (int)(at - text), text,
             at + strlen("{\"type\":\"Fuse\"}"));
    write_text(WORK "tokenizer.json", edited);
    free(text);
    CHECK(convert_model(0) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    check_text(model, "hero", "29 16");
    check_text(model, "<s>hero", "1 29 16");
    check_text(model, "hero<s>hero</s>", "29 16 1 29 16 2");
    check_text(model, "", "");
    check_text(model, "xherox", "60 29 16 60");
    check_room(model);
    griffin_close(model);
}

static void test_unknown_characters(void) {
    static const edit edits[] = {
        {NULL, NULL, "a\xE6\xBC\xA2\xE6\xBC\xA2" "b", "7 0"},
        {"\"fuse_unk\":true", "\"fuse_unk\":false", NULL, "fuse_unk 'false'"},
        {"\"fuse_unk\":true,", "", NULL, "fuse_unk"},
        {"\"unk_token\":\"<unk>\"", "\"unk_token\":null", NULL, "unk_token"},
        {"\"unk_token\":\"<unk>\"", "\"unk_token\":\"<UNK>\"", NULL, "'<UNK>'"},
        {"\"unk_token\":\"<unk>\"", "\"unk_token\":\"he\"", NULL, "'he' is unk_token"}
    };
    CHECK_EDITS("ranks.json", 60, edits);
}

#define NO_TEMPLATE "\"post_processor\":null"
#define TOKEN(text) "{\"SpecialToken\":{\"id\":\"" text "\",\"type_id\":0}}"
#define TEXT_A      "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define S_IS(ids)   "\"<s>\":{\"id\":\"<s>\",\"ids\":" ids ",\"tokens\":[\"<s>\"]}"
#define TEMPLATE(single, special) \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" single "],\"pair\":[]," \
    "\"special_tokens\":{" special "}}"

static void test_templates(void) {
    static const edit edits[] = {
        {NO_TEMPLATE, TEMPLATE(TOKEN("<s>") "," TEXT_A, S_IS("[1]")), "hero", "1 27 16"},
        {NO_TEMPLATE, TEMPLATE(TEXT_A, ""), "hero", "27 16"},
        {NO_TEMPLATE, TEMPLATE(TOKEN("</s>") "," TOKEN("<s>") "," TEXT_A, S_IS("[1]")), "hero",
         "2 1 27 16"},
        {NO_TEMPLATE, TEMPLATE(TEXT_A "," TOKEN("</s>") "," TOKEN("<s>"), S_IS("[1]")), "hero",
         "27 16 and 2 1"},
        {NO_TEMPLATE, TEMPLATE(TOKEN("<s>") "," TEXT_A "," TOKEN("</s>"), S_IS("[1]")), "hero",
         "1 27 16 and 2"},
        {NO_TEMPLATE, TEMPLATE(TOKEN("<s>") "," TEXT_A "," TEXT_A, S_IS("[1]")), NULL,
         "not a template of one text"},
        {NO_TEMPLATE, TEMPLATE(TOKEN("<s>") "," TEXT_A, S_IS("[1,2]")), NULL, "several ids"},
        {NO_TEMPLATE, TEMPLATE(TOKEN("<s>") "," TEXT_A, S_IS("[2]")), NULL, "'<s>' has another id"},
        {NO_TEMPLATE, TEMPLATE(TOKEN("<t>") "," TEXT_A, ""), NULL, "is no piece"},
        {NO_TEMPLATE, "\"post_processor\":{\"type\":\"BertProcessing\"}", NULL, "'BertProcessing'"}
    };
    CHECK_EDITS("ranks.json", 60, edits);
}

#define ADDED(id, text, normalized) \
    "\"added_tokens\":[{\"id\":" id ",\"content\":\"" text "\",\"single_word\":false," \
    "\"lstrip\":false,\"rstrip\":false,\"normalized\":" normalized ",\"special\":false},"

static void test_added_tokens_of_json(void) {
    static const edit edits[] = {
        {"\"added_tokens\":[", ADDED("60", "xyz", "false"), "xyzhe", "60 22"},
        {"\"added_tokens\":[", ADDED("60", "xyz", "true"), "xyzhe", "60 22"},
        {"\"added_tokens\":[", ADDED("60", "x yz", "false"), "x yzhe", "60 22"},
        {"\"added_tokens\":[", ADDED("60", "x yz", "true"), NULL, "'x yz' is normalized"},
        {"\"added_tokens\":[", ADDED("60", "s>x", "true"), NULL,
         "'s>x' is normalized and overlaps"},
        {"\"added_tokens\":[", ADDED("60", "x<", "true"), NULL, "'x<' is normalized and overlaps"},
        {"\"added_tokens\":[", ADDED("60", "s>x", "false"), "<s>x", "1 0"},
        {"\"added_tokens\":[", ADDED("60", "the", "false"), "the", "60"},
        {"\"added_tokens\":[", ADDED("60", "sea", "false"), NULL, "'sea' has two ids"},
        {"\"added_tokens\":[", ADDED("60", "<s>", "false"), NULL, "'<s>' has two ids"}
    };
    CHECK_EDITS("ranks.json", 61, edits);
}

#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true," \
              "\"use_regex\":true}"

static void test_byte_levels(void) {
    static const edit edits[] = {
        {NULL, NULL, "the sea", "259 265"},
        {LEVEL, SEQUENCE("pretokenizers", LEVEL), "the sea", "259 265"},
        {LEVEL, SEQUENCE("pretokenizers", LEVEL "," LEVEL), NULL, "ByteLevel, ByteLevel"},
        {"\"add_prefix_space\":false", "\"add_prefix_space\":true", NULL,
         "add_prefix_space 'true'"},
        {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"Fuse\"", NULL, "decoder"},
        {"\"normalizer\":null", "\"normalizer\":" REPLACE, NULL, "normalizer"}
    };
    static const edit alphabet[] = {{NULL, NULL, NULL, "19 of 256 bytes"}};
    CHECK_EDITS("bytes.json", 290, edits);
    CHECK_EDITS("alphabet.json", 54, alphabet);
}

/* --vocab leaves out the merges of the pieces that it cuts off. */
static void test_cropped_vocabularies(void) {
    write_model(290, "");
    write_tokenizer("bytes.json", NULL, NULL);
    check_output(convert_model(270), "the sea", "259 265");
    check_output(convert_model(260), "the sea", "259 258 69 65");
    check_refused(convert_model(200), "of 256 bytes");
    write_model(60, "");
    write_tokenizer("ranks.json", "\"unk_token\":\"<unk>\"", "\"unk_token\":\"</s>\"");
    check_output(convert_model(30), "the sea", "25 24 7");
    check_refused(convert_model(2), "the unknown piece has the id 2");
}

/* SentencePiece writes three single spaces where a user-defined piece holds three plain ones. */
static void test_user_defined_spaces(void) {
    write_model(310, "");
    write_tokenizer("spaces.model", NULL, NULL);
    check_output(convert_model(0), "a  b   c", "1 298 293 293 103 293 293 293 104");
}

/* ---- what fine-tuning adds ------------------------------------------------------------------- */

#define BOTH  CONFIG(ENTRY("60", "<|im_start|>", "") "," ENTRY("61", "<|im_end|>", ""), "")

static void check_added(const char *file, const char *text, const char *words, const char *ids) {
    char path[256];
    write_model(62, "");
    write_tokenizer("chatml.model", NULL, NULL);
    snprintf(path, sizeof path, WORK "%s", file);
    write_text(path, text);
    if (!words) check_output(convert_model(0), "<|im_start|>hero<|im_end|>", ids);
    else check_refused(convert_model(0), words);
}

static void test_added_tokens(void) {
    static const char both[] = "{\"<|im_start|>\": 60, \"<|im_end|>\": 61}", ids[] = "1 60 13 61";
    check_added("added_tokens.json", both, NULL, ids);
    check_added("tokenizer_config.json", BOTH, NULL, ids);
    check_added("tokenizer_config.json",
                CONFIG(ENTRY("61", "<|im_end|>", "") "," ENTRY("60", "<|im_start|>", ""),
                       ",\"legacy\":false"), NULL, "1 60 4 50 47 61");
    check_added("tokenizer.json", "{\"added_tokens\":[{\"id\":61,\"content\":\"<|im_end|>\"},"
                "{\"id\":60,\"content\":\"<|im_start|>\"}],\"model\":{\"vocab\":{}}}", NULL, ids);
    check_added("added_tokens.json", "{\"<|im_end|>\": 61, \"<x>\": 3}", NULL,
                "1 42 0 53 58 0 45 46 48 50 46 0 4 50 47 61");
    check_added("added_tokens.json", "{\"hero<\": 61}", NULL,
                "1 42 0 53 58 0 45 46 48 50 46 0 61 42 0 53 58 0 17 51 0");
    check_added("added_tokens.json", "{\"<|im_end|>\": 5}", "another piece of this id", NULL);
    check_added("added_tokens.json", "{\"<x>\": 60}", "another piece has this text", NULL);
    check_added("added_tokens.json", "{\"<|im_end|>\": 62}", "63 pieces, more than the 62", NULL);
    check_added("added_tokens.json", "{\"<|im_end|>\": \"61\"}", "an id is no number", NULL);
    check_added("tokenizer.json", "{\"x\":[61],\"added_tokens\":[{\"content\":\"<|y|>\","
                "\"id\":\"oops\"}]}", "an id is no number", NULL);
    check_added("added_tokens.json", "[]", "not an object", NULL);
    check_added("tokenizer_config.json", CONFIG(ENTRY("60", "<|y|>", ",\"lstrip\":true"), ""),
                "lstrip", NULL);
    check_added("tokenizer_config.json", CONFIG(ENTRY("6x", "<|y|>", ""), ""), "not an id", NULL);
}

/* Such a file goes through the converter again, and the tokens are found in no_special too. */
static void test_added_tokens_are_markers(void) {
    griffin_encoding plain;
    griffin_model *model;
    int32_t tokens[64];
    check_added("tokenizer_config.json", BOTH, NULL, "1 60 13 61");
    CHECK(rename(OUT, WORK "first.gguf") == 0, "renames");
    convert_options o = {.source = WORK "first.gguf", .output = OUT, .quiet = 1};
    check_output(convert(&o, &message), "<|im_start|>hero<|im_end|>", "1 60 13 61");
    if (!(model = open_output())) return;
    memset(&plain, 0, sizeof plain);
    plain.no_special = 1;
    int n = griffin_encode(model, &plain, "<|im_start|>", 12, tokens, 64);
    for (int i = 0; i < n; i++) CHECK(tokens[i] != 60, "a text makes a marker");
    CHECK(griffin_get_info(model)->end_of_turn == 61, "%d", griffin_get_info(model)->end_of_turn);
    griffin_close(model);
}

/* An added token may hold a space; all of it is cut out before the text gets a space of its own. */
static void test_added_spaces(void) {
    write_model(62, "");
    write_tokenizer("chatml.model", NULL, NULL);
    write_text(WORK "added_tokens.json", "{\"the  hero\": 60, \" \": 61}");
    check_output(convert_model(0), "the  hero hero", "1 60 61 13");
    check_output(convert_model(61), "the  herohero", "1 60 13");
    check_output(convert_model(60), "hero", "1 13");
}

static void check_ends(const char *ends, int eos, int end_of_turn) {
    griffin_model *model;
    write_model(61, ends);
    write_tokenizer("chatml.model", NULL, NULL);
    write_text(WORK "added_tokens.json", "{\"<end_of_turn>\": 60}");
    CHECK(convert_model(0) == 0, "%s", message.text);
    if (!(model = open_output())) return;
    const griffin_info *info = griffin_get_info(model);
    CHECK(info->eos == eos && info->end_of_turn == end_of_turn, "%s: %d and %d", ends, info->eos,
          info->end_of_turn);
    griffin_close(model);
}

static void test_ends(void) {
    check_ends("\"eos_token_id\": [5, 60]", 5, 60);
    check_ends("\"eos_token_id\": [60, 5]", 5, 60);
    check_ends("\"eos_token_id\": [7, 60, 5]", 7, 60);
    check_ends("\"eos_token_id\": [60]", 2, 60);
    check_ends("\"eos_token_id\": 60", 2, 60);
    check_ends("\"eos_token_id\": 5", 5, 60);
    check_ends("\"eos_token_id\": [5, 7]", 5, 7);
    check_ends("\"pad_token_id\": -1", 2, 60);
}

/* A file holds one end of a text and one of a turn; others are not dropped without a word. */
static void test_further_ends(void) {
    char said[400] = "";
    write_model(61, "\"eos_token_id\": [7, 60, 5]");
    write_tokenizer("chatml.model", NULL, NULL);
    write_text(WORK "added_tokens.json", "{\"<end_of_turn>\": 60}");
    CHECK(call(command_convert, "convert " WORK " " OUT) == 0, "convert");
    FILE *f = fopen(LOG, "rb");
    if (f) said[fread(said, 1, sizeof said - 1, f)] = 0;
    if (f) fclose(f);
    CHECK(strstr(said, "warning: eos_token_id 5 '") && !strstr(said, "eos_token_id 7"), "%s", said);
}

/* ---- configurations -------------------------------------------------------------------------- */

static void check_config(const char *more, const char *words, float base) {
    griffin_model *model;
    write_model(60, more);
    write_tokenizer("ranks.json", NULL, NULL);
    int status = convert_model(0);
    if (words) { check_refused(status, words); return; }
    CHECK(status == 0, "%s: %s", more, message.text);
    if (status != 0 || !(model = open_output())) return;
    CHECK(griffin_get_info(model)->config.rope_base == base, "%s: %g", more,
          (double)griffin_get_info(model)->config.rope_base);
    griffin_close(model);
}

static void test_rotations(void) {
    check_config("\"rope_scaling\": null", NULL, 10000);
    check_config("\"rope_scaling\": {\"type\": \"default\"}", NULL, 10000);
    check_config("\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}", "type: expected", 0);
    check_config("\"rope_scaling\": {\"factor\": 2.0}", "factor: expected", 0);
    check_config("\"rope_scaling\": {\"mrope_section\": [1, 2]}", "mrope_section", 0);
    check_config("\"rope_scaling\": 2", "expected an object", 0);
    check_config("\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500.0}", NULL,
                 500);
    check_config("\"rope_parameters\": {\"rope_type\": \"yarn\"}", "rope_type: expected", 0);
    check_config("\"rope_parameters\": {\"full_attention\": {}}", "full_attention", 0);
    check_config("\"rope_theta\": 500, \"rope_parameters\": {\"rope_theta\": 500.0}", NULL, 500);
    check_config("\"rope_theta\": 400, \"rope_parameters\": {\"rope_theta\": 500.0}",
                 "rope_theta is given twice", 0);
    check_config("\"rope_theta\": 1e12", NULL, 1e12f);
    check_config("\"rope_theta\": 1.1e12", "rope_theta: expected", 0);
    check_config("\"logits_soft_cap\": 1e29", NULL, 10000);
    check_config("\"logits_soft_cap\": 1e31", "logits_soft_cap: expected", 0);
    check_config("\"rms_norm_eps\": 1e-36", NULL, 10000);
    check_config("\"rms_norm_eps\": 1e-38", "rms_norm_eps: expected", 0);
}

/* ---- writing --------------------------------------------------------------------------------- */

static int write_directory(const char *directory) {
    convert_options o = {.source = WORK, .quiet = 1};
    model_parts m;
    if (parts_read(&m, &o, &message) != 0) { CHECK(0, "%s", message.text); return -1; }
    int status = hf_write(&m, NULL, directory);
    parts_free(&m);
    return status;
}

static void test_floats_have_points(void) {
    size_t size = 0;
    write_model(60, "");
    write_tokenizer("chatml.model", NULL, NULL);
    CHECK(write_directory(WORK "hf") == 0, "writes");
    char *text = (char *)test_read(WORK "hf/config.json", &size);
    CHECK(text && strstr(text, "\"logits_soft_cap\": 30.0,"), "%s", text ? text : "none");
    CHECK(text && strstr(text, "\"rope_theta\": 10000.0,"), "%s", text ? text : "none");
    CHECK(text && strstr(text, "\"rms_norm_eps\": 1e-06,"), "%s", text ? text : "none");
    free(text);
}

/* A vocabulary that cannot be written is refused before anything is trained. */
static void test_training_is_refused_first(void) {
    char words[][80] = {"train", WORK "text.txt", "--from", WORK, "-o", OUT, "--steps", "1",
                        "--save-hf", WORK "none"};
    char *argv[10];
    for (int i = 0; i < 10; i++) argv[i] = words[i];
    write_model(60, "");
    write_tokenizer("ranks.json", NULL, NULL);
    write_text(WORK "text.txt", "the hero sees the sea\n");
    remove(OUT);
    CHECK(command_train(10, argv) == 1, "is not refused");
    CHECK(!path_exists(OUT) && !path_exists(WORK "none"), "something was written");
    CHECK(write_directory(WORK "none") == 1 && !path_exists(WORK "none"), "is written");
}

int main(void) {
    RUN(test_beginnings);
    RUN(test_cut_files);
    RUN(test_decoders);
    RUN(test_prepend);
    RUN(test_unknown_characters);
    RUN(test_templates);
    RUN(test_added_tokens_of_json);
    RUN(test_byte_levels);
    RUN(test_cropped_vocabularies);
    RUN(test_user_defined_spaces);
    RUN(test_added_tokens);
    RUN(test_added_tokens_are_markers);
    RUN(test_added_spaces);
    RUN(test_ends);
    RUN(test_further_ends);
    RUN(test_rotations);
    RUN(test_floats_have_points);
    RUN(test_training_is_refused_first);
    return test_end();
}
