/* train.c - griffin train: a text in, a model out. Shapes, options, and what happens before the
 * first step; see train.h. */

#include "train.h"
#include "bpe.h"
#include "../convert/hf_writer.h"
#include "../convert/quantise.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

int command_train(int argc, char **argv);

/* ---- shapes ---------------------------------------------------------------------------------- */

#define PRESETS "tiny|small|medium|large"
#define KINDS   "griffin|hawk|attention|hgrn2|supra"
#define FEATURES "kept|random"
#define TASKS   "none|copying|induction|recall"

enum { TINY, SMALL };
enum { GRIFFIN, HAWK, ATTENTION, HGRN2, SUPRA };

/* plain: norms of a plain gain, SiLU, no biases, no scale of the embedding and no soft cap. */
static const struct { const char *blocks; int plain; float eps; } kinds[] = {
    { "rra", 0, 1e-6f }, { "r", 0, 1e-6f }, { "a", 0, 1e-6f }, { "h", 1, 1e-6f }, { "s", 1, 1e-5f }
};

static int kind_of(const train_options *o) { return o->kind < 0 ? GRIFFIN : o->kind; }

static void set_default(int *value, int standard) { if (*value == 0) *value = standard; }

static void set_preset(train_options *o) {
    static const struct { int width, layers, window, vocab, length; } presets[] = {
        { 128, 3, 128, 1024, 128 }, { 256, 6, 256, 2048, 256 },
        { 384, 9, 512, 4096, 512 }, { 512, 12, 512, 8192, 512 }
    };
    set_default(&o->width, presets[o->preset].width);
    if (!o->from) set_default(&o->layers, presets[o->preset].layers);
    set_default(&o->window, presets[o->preset].window);
    set_default(&o->vocab, presets[o->preset].vocab);
    set_default(&o->length, presets[o->preset].length);
}

/* The paper's models for the synthetic tasks: five blocks of width 64, and in a Griffin the third
 * is attention. */
static void set_task(train_options *o) {
    if (!o->task) return;
    set_default(&o->width, 64);
    set_default(&o->layers, 5);
    set_default(&o->heads, 4);
    set_default(&o->length, 256);
    set_default(&o->window, o->length);
    o->vocab = task_vocabulary((train_task)o->task);
    if (!o->blocks && kind_of(o) == GRIFFIN) o->blocks = "rrarr";
}

/* The papers' proportions: one key/value head, or all of them where a state is a matrix; MLP 3 D;
 * as in RecurrentGemma the recurrence is as wide as the stream, and its gates have as many blocks
 * as there are heads. */
static void set_proportions(train_options *o) {
    set_default(&o->heads, o->width < 128 ? 1 : o->width / 64);
    set_default(&o->kv_heads, kinds[kind_of(o)].plain ? o->heads : 1);
    set_default(&o->mlp, 3 * o->width);
    set_default(&o->lru, o->width);
    set_default(&o->batch, 16);
    if (!o->blocks && !(o->from && o->kind < 0)) o->blocks = kinds[kind_of(o)].blocks;
}

static int check_shape(const command *c, const train_options *o) {
    if (o->mlp > 1 << 20 || o->lru > 65536 || o->length > 1 << 20 || o->window > 1 << 20)
        return options_wrong(c, "that is too large to be trained here");
    if (o->length > INT_MAX / o->batch)
        return options_wrong(c, "--batch %d times --length %d is too large", o->batch, o->length);
    if (o->layers > GRIFFIN_MAX_LAYERS)
        return options_wrong(c, "--layers: at most %d", GRIFFIN_MAX_LAYERS);
    if (o->width % o->heads || o->width / o->heads % 4)
        return options_wrong(c, "--width %d: each of %d heads needs a multiple of 4 dimensions",
                             o->width, o->heads);
    if (o->heads % o->kv_heads)
        return options_wrong(c, "--heads %d is no multiple of --kv-heads %d", o->heads,
                             o->kv_heads);
    if (o->lru % o->heads)
        return options_wrong(c, "--lru %d is no multiple of --heads %d", o->lru, o->heads);
    if (o->blocks && (strspn(o->blocks, "rahs") != strlen(o->blocks) || !*o->blocks))
        return options_wrong(c, "--blocks: '%s' is not made of r, a, h and s", o->blocks);
    if (!o->task && o->vocab < BPE_FEWEST)
        return options_wrong(c, "--vocab: at least %d", BPE_FEWEST);
    return -1;
}

static void make_plain(griffin_config *shape, int kind) {
    shape->eps = kinds[kind].eps;
    shape->norm_offset = 0;
    shape->embedding_scale = 1;
    shape->soft_cap = 0;
    shape->no_biases = 1;
    shape->activation = GRIFFIN_SILU;
    shape->rope_dims = shape->head_dim;
}

static int build_config(model_config *c, const train_options *o) {
    report r = { "" };
    griffin_config *shape = &c->net;
    size_t n = strlen(o->blocks);
    if (config_preset(c, "2b", &r) != 0) return complain("%s", r.text);
    shape->vocab = o->vocab;
    shape->width = o->width;
    shape->mlp_width = o->mlp;
    shape->layers = o->layers;
    shape->heads = shape->gate_blocks = o->heads;
    shape->kv_heads = o->kv_heads;
    shape->head_dim = o->width / o->heads;
    shape->rope_dims = shape->head_dim / 2;
    shape->lru_width = o->lru;
    shape->window = o->window;
    shape->embedding_scale = config_embedding_scale(o->width);
    if (kinds[kind_of(o)].plain) make_plain(shape, kind_of(o));
    memset(shape->blocks, 0, sizeof shape->blocks);
    for (int i = 0; i < o->layers; i++) shape->blocks[i] = o->blocks[(size_t)i % n];
    c->context_length = o->length;
    return 0;
}

/* ---- the texts ------------------------------------------------------------------------------- */

typedef struct texts {
    file_bytes corpus, valid;
    size_t     learned;                     /* bytes of the corpus; the rest is held out */
} texts;

/* The last share of a text, from the beginning of a line on; if it has but one, of a character. */
static size_t cut_of(const file_bytes *f, float share) {
    size_t size = (size_t)f->size, cut = size - (size_t)((double)size * share), at = cut;
    while (at < size && at && f->data[at - 1] != '\n') at++;
    if (at < size) return at;
    while (cut < size && (f->data[cut] & 0xC0) == 0x80) cut++;
    return cut;
}

static int open_texts(texts *x, const train_options *o) {
    memset(x, 0, sizeof *x);
    if (text_open(&x->corpus, NULL, o->corpus)) return 1;
    x->learned = (size_t)x->corpus.size;
    if (o->valid) return text_open(&x->valid, NULL, o->valid);
    if (o->hold_out > 0) x->learned = cut_of(&x->corpus, o->hold_out);
    return 0;
}

static void close_texts(texts *x) {
    file_close(&x->corpus);
    file_close(&x->valid);
}

static int read_texts(training *t, session *s, const texts *x) {
    text_split split = (text_split)t->o.split;
    const unsigned char *rest = x->corpus.data + x->learned;
    if (corpus_read(&t->text, s, x->corpus.data, x->learned, split)) return 1;
    t->text.run_on = t->o.run_on;
    t->text.afresh = t->o.afresh;
    t->text.noise = t->o.noise;
    if (t->text.documents == 0) return complain("%s: there is no text to learn", t->o.corpus);
    if (t->o.valid)
        return corpus_read(&t->held_out, s, x->valid.data, (size_t)x->valid.size, split);
    return corpus_read(&t->held_out, s, rest, (size_t)x->corpus.size - x->learned, split);
}

/* Text becomes tokens by the library, from the model as it begins. */
static int encode_texts(training *t, const texts *x) {
    session s;
    char *image;
    if (train_open(t, &s, &image)) return 1;
    int status = read_texts(t, &s, x);
    train_close(&s, image);
    t->held_out.afresh = t->o.afresh;
    return status;
}

/* ---- the network ----------------------------------------------------------------------------- */

/* Of the documents, without what parts them. */
static int make_vocabulary(training *t, const texts *x) {
    report r = { "" };
    const unsigned char *document;
    unsigned char *joined = (unsigned char *)malloc(x->learned + 1);
    size_t at = 0, length, size = 0;
    if (!joined) return complain("out of memory");
    while ((document = document_next(x->corpus.data, x->learned, (text_split)t->o.split, &at,
                                     &length))) {
        if (size) joined[size++] = '\n';
        memcpy(joined + size, document, length);
        size += length;
    }
    int status = bpe_train(&t->vocabulary, joined, size, t->o.vocab, &r);
    free(joined);
    if (status != 0) return complain("%s", r.text);
    t->o.vocab = (int)t->vocabulary.count;
    return 0;
}

static int make_net(training *t) {
    t->net = net_new(&t->config.net, t->o.length);
    if (!t->net) return 1;
    t->weight_count = net_weights(t->net, &t->weights);
    net_initialise(t->net, (uint64_t)t->o.seed);
    return 0;
}

static int begin_anew(training *t, const texts *x) {
    report r = { "" };
    if (!t->o.task && make_vocabulary(t, x)) return 1;
    if (build_config(&t->config, &t->o)) return 1;
    if (t->o.save_hf && hf_can_write(&t->config.net, &t->vocabulary, &r) != 0)
        return complain("--save-hf: %s", r.text);
    return make_net(t);
}

static int begin_from(training *t) {
    model_parts source;
    int status = train_read_source(t, &source);
    if (!status) status = make_net(t) || train_copy_weights(t, &source);
    parts_free(&source);
    return status;
}

static void print_summary(const training *t) {
    double parameters = 0;
    for (int i = 0; i < t->weight_count; i++) parameters += (double)t->weights[i].count;
    printf("%.2f million parameters in %d layers of width %d", parameters / 1e6,
           t->config.net.layers, t->config.net.width);
    if (t->o.task) { printf("\n"); return; }
    printf(", %d pieces\n%d tokens in %d document%s, %.2f bytes each; %d held out\n",
           t->config.net.vocab, t->text.tokens.count, t->text.documents,
           t->text.documents == 1 ? "" : "s",
           (double)t->text.bytes / (double)t->text.tokens.count, t->held_out.tokens.count);
}

/* ---- the command ----------------------------------------------------------------------------- */

/* A checkpoint that is there must be continued, or out of the way. */
static int take_up(training *t) {
    if (!t->o.checkpoint || !path_exists(t->o.checkpoint)) return 0;
    if (train_resume(t)) return 1;
    printf("resuming after step %lld\n", (long long)t->progress.steps);
    return 0;
}

/* What is held out is one stream, unless each sequence begins afresh. */
static int make_batches(training *t) {
    size_t count = (size_t)t->o.batch * net_state_size(t->net);
    if (batch_new(&t->batch, t->o.batch, t->o.length)
        || batch_new(&t->slice, t->o.afresh ? t->o.batch : 1, t->o.length)) return 1;
    if (t->o.task || t->o.afresh) return 0;
    t->state = (float *)calloc(count, sizeof *t->state);
    t->next = (float *)calloc(count, sizeof *t->next);
    return t->state && t->next ? 0 : complain("out of memory");
}

static int train(training *t) {
    texts x;
    int status = t->o.task ? 0 : open_texts(&x, &t->o);
    if (!status) status = t->o.from ? begin_from(t) : begin_anew(t, &x);
    if (!status && !t->o.task) status = encode_texts(t, &x);
    if (!t->o.task) close_texts(&x);
    if (status || make_batches(t) || take_up(t)) return 1;
    if (t->o.rate == 0) t->o.rate = 0.5f / (float)t->config.net.width;
    print_summary(t);
    return output_flush() ? 1 : train_run(t);
}

static void release(training *t) {
    net_free(t->net);
    corpus_free(&t->text);
    corpus_free(&t->held_out);
    batch_free(&t->batch);
    batch_free(&t->slice);
    free(t->state);
    free(t->next);
    free(t->exact);
    vocabulary_free(&t->vocabulary);
    config_free(&t->config);
}

double train_duration(const char *text) {
    const char *end;
    double value = options_decimal(text, &end);
    const char *units = "smh", *unit = *end ? strchr(units, *end) : units;
    if (end == text || !unit || (*end && end[1]) || !(value > 0 && value < 1e7)) return -1;
    return value * (unit == units ? 1 : unit == units + 1 ? 60 : 3600);
}

int train_check_output(const char *path) {
    report r = { "" };
    file_output out;
    if (!path || path_is_device(path)) return -1;
    if (file_create(&out, path, &r) != 0) return complain("%s", r.text);
    file_abandon(&out);
    return -1;
}

/* The directory of --save-hf may have a slash at its end, and be there already. */
static int check_directory(const char *path) {
    char name[4096];
    if (!path || path_is_directory(path)) return -1;
    if (path_exists(path)) return complain("%s: is no directory", path);
    snprintf(name, sizeof name, "%s", path);
    for (size_t n = strlen(name); n > 1 && name[n - 1] == '/'; n--) name[n - 1] = 0;
    return train_check_output(name);
}

static int is_same_directory(const char *one, const char *other) {
    char *in[2] = { one ? path_join(one, "config.json") : NULL,
                    other ? path_join(other, "config.json") : NULL };
    int same = in[0] && in[1] && path_is_same(in[0], in[1]);
    free(in[0]);
    free(in[1]);
    return same;
}

/* Whether what training ends with could be written. Returns -1, or a status after a message. */
static int check_outputs(const command *c, const train_options *o) {
    const char *read[] = { o->corpus, o->valid, o->from };
    const char *written[] = { o->output, o->checkpoint, o->plot };
    int status = options_outputs(c, read, 3, written, 3);
    if (status < 0 && is_same_directory(o->from, o->save_hf))
        status = options_wrong(c, "%s: is what is read", o->save_hf);
    if (status < 0) status = check_directory(o->save_hf);
    for (int i = 0; i < 3 && status < 0; i++) status = train_check_output(written[i]);
    return status;
}

static int check_files(const command *c, const train_options *o) {
    if (o->task && (o->corpus || o->from))
        return options_wrong(c, "a task needs neither a text nor a model to go on from");
    if (!o->task && !o->corpus) return options_wrong(c, "no text: name a file");
    if (!o->task && !o->output) return options_wrong(c, "no output: name a file with -o");
    if (o->resume && !o->checkpoint) return options_wrong(c, "--resume needs --checkpoint");
    if (!quant_find(o->type))
        return options_wrong(c, "--type %s: there is no such type", o->type);
    if (o->quantise && !train_can_round_to(quant_find(o->quantise)))
        return options_wrong(c, "--quantise %s: q8_0 or q4_0", o->quantise);
    if (o->checkpoint && !o->resume && path_exists(o->checkpoint))
        return complain("%s: exists already; go on with --resume, or remove it", o->checkpoint);
    return check_outputs(c, o);
}

static int check_numbers(const command *c, const train_options *o) {
    if (o->from && (o->width || o->heads || o->kv_heads || o->mlp || o->lru || o->vocab
                    || o->window))
        return options_wrong(c, "--from decides about the shape; only --layers can add to it, and "
                             "--kind or --blocks change mixers");
    if (!o->from && (o->features || o->mixer_only))
        return options_wrong(c, "--features and --mixer-only need --from");
    if (o->task && o->length && o->length < 32) return options_wrong(c, "--length: at least 32");
    if (o->width > 1 << 16) return options_wrong(c, "--width: at most %d", 1 << 16);
    if (o->batch > 1 << 16) return options_wrong(c, "--batch: at most %d", 1 << 16);
    if (o->hold_out > 0.5f) return options_wrong(c, "--hold-out: at most 0.5");
    if (o->beta1 >= 1 || o->beta2 >= 1 || o->momentum >= 1 || o->dropout >= 1)
        return options_wrong(c, "--beta1, --beta2, --muon, --dropout: less than 1");
    return -1;
}

static int prepare(const command *c, training *t) {
    train_options *o = &t->o;
    int status = check_numbers(c, o);
    if (status >= 0) return status;
    t->budget = o->time ? train_duration(o->time) : o->steps ? 0 : 600;
    if (t->budget < 0) return options_wrong(c, "--time: '%s' is not like 90m, 2h or 45s", o->time);
    set_task(o);
    set_preset(o);
    set_proportions(o);
    status = check_shape(c, o);
    return status >= 0 ? status : check_files(c, o);
}

#define FILE_OPTIONS(o) \
    { "output", "o", OPTION_TEXT, &(o).output, "FILE", "the model, a GGUF file" }, \
    { "type", NULL, OPTION_TEXT, &(o).type, "TYPE", \
      "of its weights, as in convert (default: f32)" }, \
    { "quantise", NULL, OPTION_TEXT, &(o).quantise, "TYPE", \
      "train the last fifth for weights of q8_0 or q4_0" }, \
    { "name", NULL, OPTION_TEXT, &(o).name, "TEXT", "what the model is called" }, \
    { "save-hf", NULL, OPTION_TEXT, &(o).save_hf, "DIR", "write Hugging Face's layout too" }, \
    { "from", NULL, OPTION_TEXT, &(o).from, "PATH", \
      "go on from such a directory or an f32 GGUF file, perhaps with more --layers or as another " \
      "--kind" }, \
    { "features", NULL, OPTION_CHOICE, &(o).features, FEATURES, \
      "attention that becomes SUPRA: q and k as they were, or times random matrices" }, \
    { "mixer-only", NULL, OPTION_FLAG, &(o).mixer_only, NULL, \
      "train only what is new: changed mixers and added layers" }, \
    { "time", NULL, OPTION_TEXT, &(o).time, "T", "for so long: 90m, 2h, 45s (default: 10m)" }, \
    { "steps", NULL, OPTION_COUNT, &(o).steps, "N", "or for so many steps; 0: by time" }, \
    { "checkpoint", NULL, OPTION_TEXT, &(o).checkpoint, "FILE", \
      "keep there what is needed to go on" }, \
    { "resume", NULL, OPTION_FLAG, &(o).resume, NULL, \
      "go on from the checkpoint if there is one" }, \
    { "reports", NULL, OPTION_COUNT, &(o).reports, "N", \
      "how often all of this is written and the loss measured" }, \
    { "keep-last", NULL, OPTION_FLAG, &(o).keep_last, NULL, \
      "keep the last model instead of the best" }, \
    { "plot", NULL, OPTION_TEXT, &(o).plot, "FILE", "draw the loss curve, an SVG file" }, \
    { "sample", NULL, OPTION_COUNT, &(o).sample, "N", "tokens to tell with each report" }, \
    { "prompt", "p", OPTION_TEXT, &(o).prompt, "TEXT", "how samples begin" }

#define SHAPE_OPTIONS(o) \
    { "preset", NULL, OPTION_CHOICE, &(o).preset, PRESETS, "sizes not given below are as in" }, \
    { "kind", NULL, OPTION_CHOICE, &(o).kind, KINDS, "blocks: rra, r, a, h or s" }, \
    { "blocks", NULL, OPTION_TEXT, &(o).blocks, "WORD", \
      "one letter a layer, repeated: r recurrent, a attention, h HGRN2, s SUPRA" }, \
    { "width", NULL, OPTION_COUNT, &(o).width, "N", "of the residual stream; 0: see preset" }, \
    { "layers", NULL, OPTION_COUNT, &(o).layers, "N", "0: see preset" }, \
    { "heads", NULL, OPTION_COUNT, &(o).heads, "N", "and blocks of the gates; 0: width / 64" }, \
    { "kv-heads", NULL, OPTION_COUNT, &(o).kv_heads, "N", \
      "of keys and values; 0: one, or all of hgrn2 and supra" }, \
    { "mlp", NULL, OPTION_COUNT, &(o).mlp, "N", "width of the MLPs; 0: three times the width" }, \
    { "lru", NULL, OPTION_COUNT, &(o).lru, "N", "width of the recurrence; 0: the width" }, \
    { "window", NULL, OPTION_COUNT, &(o).window, "N", \
      "tokens attention looks back; 0: see preset" }, \
    { "vocab", NULL, OPTION_COUNT, &(o).vocab, "N", "pieces at most; 0: see preset" }, \
    { "length", NULL, OPTION_COUNT, &(o).length, "N", "tokens in a sequence; 0: see preset" }, \
    { "batch", NULL, OPTION_COUNT, &(o).batch, "N", "sequences in a step; 0: 16" }

#define TEXT_OPTIONS(o) \
    { "split", NULL, OPTION_CHOICE, &(o).split, SPLITS, \
      "documents end at two blank lines, a form feed or <|endoftext|>; each line; never" }, \
    { "run-on", NULL, OPTION_FRACTION, &(o).run_on, "P", \
      "share of documents that begin in the state the one before left" }, \
    { "afresh", NULL, OPTION_FLAG, &(o).afresh, NULL, \
      "carry no state from a sequence to the next" }, \
    { "noise", NULL, OPTION_FRACTION, &(o).noise, "P", \
      "share of the tokens read that are wrong, so that the network bears its own slips" }, \
    { "dropout", NULL, OPTION_FRACTION, &(o).dropout, "P", \
      "share of what mixers and MLPs take that becomes 0, against learning by heart" }, \
    { "valid", NULL, OPTION_TEXT, &(o).valid, "FILE", "the text to measure the loss of" }, \
    { "hold-out", NULL, OPTION_FRACTION, &(o).hold_out, "P", \
      "or so much of the end of the text" }, \
    { "valid-limit", NULL, OPTION_COUNT, &(o).valid_limit, "N", "tokens of it to use; 0: all" }

#define RATE_OPTIONS(o) \
    { "rate", NULL, OPTION_REAL, &(o).rate, "X", "highest learning rate; 0: 0.5 / width" }, \
    { "end-rate", NULL, OPTION_FRACTION, &(o).end_rate, "P", "what is left of it at the end" }, \
    { "warmup", NULL, OPTION_FRACTION, &(o).warmup, "P", "part of the run until it is reached" }, \
    { "beta1", NULL, OPTION_FRACTION, &(o).beta1, "P", "AdamW: memory of the mean" }, \
    { "beta2", NULL, OPTION_FRACTION, &(o).beta2, "P", "and of the squares" }, \
    { "eps", NULL, OPTION_REAL, &(o).eps, "X", "beside their root" }, \
    { "decay", NULL, OPTION_REAL, &(o).decay, "X", "of weights, times the rate" }, \
    { "clip", NULL, OPTION_REAL, &(o).clip, "X", "largest norm of the gradient; 0: any" }, \
    { "muon", NULL, OPTION_FRACTION, &(o).momentum, "P", \
      "momentum of Muon for the layers' matrices; 0: AdamW for them too" }

int command_train(int argc, char **argv) {
    training *t = (training *)calloc(1, sizeof *t);
    train_options *o = t ? &t->o : NULL;
    if (!t) return complain("out of memory");
    *o = (train_options){ .type = "f32", .prompt = "", .preset = SMALL, .kind = -1, .reports = 20,
                          .seed = 1, .valid_limit = 65536, .end_rate = 0.05f, .warmup = 0.02f,
                          .hold_out = 0.02f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
                          .decay = 0.1f, .clip = 1 };
    const option table[] = {
        { "TEXT", NULL, OPTION_WORD, &o->corpus, NULL, "the text to learn from" },
        FILE_OPTIONS(*o),
        SHAPE_OPTIONS(*o),
        TEXT_OPTIONS(*o),
        RATE_OPTIONS(*o),
        { "task", NULL, OPTION_CHOICE, &o->task, TASKS, "a synthetic task instead of a text" },
        { "seed", "s", OPTION_COUNT, &o->seed, "N", "the same seed gives the same model" },
        { "threads", "t", OPTION_THREADS, &o->threads, "N", "threads; 0: one for each core" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "train", "TEXT -o MODEL.gguf [options]",
        "Makes a model of your own from a text: a vocabulary, then a network, then training\n"
        "for a given time. Of all reports, the model that best predicts text it has not seen is\n"
        "kept. Ctrl-C finishes a step, saves and ends.", table };
    int status = options_parse(&c, argc, argv);
    if (status < 0) status = prepare(&c, t);
#ifdef _OPENMP
    if (status < 0 && o->threads) omp_set_num_threads(o->threads);
#endif
    if (status < 0) status = train(t);
    release(t);
    free(t);
    return status;
}
