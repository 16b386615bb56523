/* bench.c - griffin bench: how fast models run, of a file or of any shape with random weights,
 * beside what the machine could do at that moment; see run.h. */

#include "guess.h"
#include "masks.h"
#include "run.h"
#include "../convert/config.h"
#include "../convert/gguf_reader.h"
#include "../convert/tiles.h"
#include "../shared/host.h"
#include "../shared/plot.h"
#include "../shared/session.h"
#include "../shared/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
  #include <omp.h>
#endif

enum { LONGEST = 16 };                      /* list on the command line */

typedef struct numbers { const char *text; int64_t at[LONGEST]; int count; } numbers;

typedef struct settings {
    const char *path, *preset, *types, *head, *compare, *plot, *text, *grammar, *vocab_of;
    numbers     prompts, steps, depths, batches, threads, memory;
    int         repetitions, chunk, vocab, pure, copy, cpu, format, ops, masks, sizes, guesses;
    double      predicted;                  /* bytes: the most memory that was needed at once */
} settings;

/* ---- rows ------------------------------------------------------------------------------------ */

static const column row_columns[] = {
    { "model", COLUMN_WORD }, { "type", COLUMN_WORD }, { "params", COLUMN_NUMBER },
    { "size GiB", COLUMN_NUMBER }, { "threads", COLUMN_NUMBER }, { "test", COLUMN_WORD },
    { "t/s", COLUMN_NUMBER }, { "deviation", COLUMN_NUMBER }, { "limited by", COLUMN_WORD },
    { "read GB/s", COLUMN_NUMBER }, { "peak Gop/s", COLUMN_NUMBER }, { "limit t/s", COLUMN_NUMBER },
    { "of limit", COLUMN_NUMBER }, { "stretches", COLUMN_NUMBER }, { "dropped", COLUMN_NUMBER },
    { "all t/s", COLUMN_LIST }, { "all limits", COLUMN_LIST }, { "all read GB/s", COLUMN_LIST },
    { "all peak Gop/s", COLUMN_LIST }, { NULL, COLUMN_WORD }
};

enum { COLUMNS = sizeof row_columns / sizeof row_columns[0] - 1, LISTS = 4 };

typedef struct cell { char text[64]; } cell;

/* An infinity or NaN gives an empty cell. */
static cell number_cell(double value) {
    cell c = { "" };
    int digits = fabs(value) < 10 ? 3 : fabs(value) < 1000 ? 2 : 0;
    if (fabs(value) < INFINITY)
        snprintf(c.text, sizeof c.text, "%.*f", value == floor(value) ? 0 : digits, value);
    return c;
}

static cell word_cell(const char *word) {
    cell c;
    snprintf(c.text, sizeof c.text, "%s", word);
    return c;
}

static cell count_cell(int64_t n) {
    int shift = n == 0 ? 0 : n % (1 << 20) == 0 ? 20 : n % (1 << 10) == 0 ? 10 : 0;
    cell c;
    snprintf(c.text, sizeof c.text, "%lld%s", (long long)(n >> shift),
             shift == 20 ? "M" : shift == 10 ? "k" : "");
    return c;
}

static cell test_cell(const workload *w) {
    cell c, depth = count_cell(w->depth);
    int n = snprintf(c.text, sizeof c.text, w->is_prompt ? "pp%d" : "tg%d", w->tokens);
    if (!w->is_prompt && w->depth > 0)
        n += snprintf(c.text + n, sizeof c.text - (size_t)n, "@d%s", depth.text);
    if (w->batch > 1) snprintf(c.text + n, sizeof c.text - (size_t)n, " b%d", w->batch);
    return c;
}

/* Lists a value of every stretch with spaces between; to be freed, null if out of memory. */
static char *list_of(const runner *r, double (*of)(const sample *), double unit) {
    size_t room = 16 * (size_t)r->count + 1, at = 0;
    char *text = (char *)calloc(room, 1);
    for (int i = 0; text && i < r->count; i++)
        at += (size_t)snprintf(text + at, room - at, i ? " %.6g" : "%.6g",
                               of(&r->samples[i]) / unit);
    return text;
}

static void print_row(table *t, const runner *r) {
    const griffin_info *info = r->b->info;
    int by_memory = r->samples[0].by_memory;
    double mean, deviation;
    const char *cells[COLUMNS];
    char *lists[LISTS];
    runner_rate(r, &mean, &deviation);
    const cell plain[COLUMNS - LISTS] = {
        word_cell(r->b->name), word_cell(r->b->type), number_cell((double)info->parameters),
        number_cell(r->b->step_bytes / (1 << 30)), number_cell(r->w.threads), test_cell(&r->w),
        number_cell(mean), number_cell(deviation),
        word_cell(by_memory ? "read" : r->b->type[0] == 'q' ? "int8" : "f32"),
        number_cell(runner_median(r, read_of, 0) * 1e-9),
        number_cell(runner_median(r, peak_of, 0) * 1e-9),
        number_cell(runner_median(r, limit_of, 0)), number_cell(runner_median(r, ratio_of, 1)),
        number_cell(r->count), number_cell(r->count - runner_kept(r))
    };
    lists[0] = list_of(r, rate_of, 1);
    lists[1] = list_of(r, limit_of, 1);
    lists[2] = list_of(r, read_of, 1e9);
    lists[3] = list_of(r, peak_of, 1e9);
    for (int i = 0; i < COLUMNS - LISTS; i++) cells[i] = plain[i].text;
    for (int i = 0; i < LISTS; i++) cells[COLUMNS - LISTS + i] = lists[i] ? lists[i] : "";
    table_row(t, cells);
    for (int i = 0; i < LISTS; i++) free(lists[i]);
}

static double model_memory(const bench_model *b) {
    return (double)b->data_size + (double)b->info->weight_bytes;
}

/* Workloads without tokens are left out. */
static void add_test(runner *tests, int *count, bench_model *b, workload w, int64_t tokens) {
    w.tokens = (int)tokens;
    if (tokens == 0) return;
    tests[*count].b = b;
    tests[(*count)++].w = w;
}

static int list_tests(const settings *s, bench_model *b, runner *tests) {
    int count = 0;
    for (int t = 0; t < s->threads.count; t++) {
        workload prompt = { 1, 0, 0, 1, 0, 0 }, steps = { 0, 0, 0, 0, 0, 0 };
        steps.threads = prompt.threads = (int)s->threads.at[t];
        prompt.chunk = s->chunk;
        for (int i = 0; i < s->prompts.count; i++)
            add_test(tests, &count, b, prompt, s->prompts.at[i]);
        for (int i = 0; i < s->steps.count; i++)
            for (int d = 0; d < s->depths.count; d++)
                for (int k = 0; k < s->batches.count; k++) {
                    steps.depth = s->depths.at[d];
                    steps.batch = (int)s->batches.at[k];
                    add_test(tests, &count, b, steps, s->steps.at[i]);
                }
    }
    return count;
}

/* Tests take turns, so that a slow minute of the machine affects all of them. */
static int take_turns(settings *s, double models, runner *tests, int count, int repetitions) {
    double memory = models;
    int status = 0;
    for (int i = 0; i < count && !status; i++) {
        bench_model *b = tests[i].b;
        workload w = tests[i].w;
        status = runner_open(&tests[i], b, &w);
        memory += (double)tests[i].memory;
    }
    s->predicted = fmax(s->predicted, memory);
    for (int k = 0; k < repetitions; k++)
        for (int i = 0; i < count && !status; i++) status = runner_repeat(&tests[i]);
    return status;
}

static int measure_tests(settings *s, bench_model *b, table *t) {
    int most = s->prompts.count + s->steps.count * s->depths.count * s->batches.count, count;
    runner *tests = (runner *)calloc((size_t)(s->threads.count * most), sizeof *tests);
    if (!tests) return complain("out of memory");
    count = list_tests(s, b, tests);
    int status = take_turns(s, model_memory(b), tests, count, s->repetitions);
    for (int i = 0; i < count; i++) {
        if (!status) print_row(t, &tests[i]);
        runner_close(&tests[i]);
    }
    free(tests);
    return status;
}

/* ---- single operations ----------------------------------------------------------------------- */

typedef struct operation { const char *name; double seconds; int units; } operation;

typedef struct profile {
    operation at[16];
    double   *units;                        /* seconds of each unit of all passes */
    int       count, passes, capacity;
} profile;

static operation *find_operation(profile *p, const char *name) {
    int i;
    for (i = 0; i < 15 && p->at[i].name && strcmp(p->at[i].name, name); i++) {}
    p->at[i].name = name;
    return &p->at[i];
}

/* A step, or the next tokens of a prompt. */
static int profile_pass(runner *r, profile *p, int at) {
    if (r->w.is_prompt) {
        int left = r->w.tokens - at;
        r->spans[0].tokens = r->tokens + at;
        r->spans[0].count = left < r->w.chunk ? left : r->w.chunk;
        r->spans[0].logits = left > r->w.chunk ? NULL : r->logits;
    }
    int left = griffin_begin(r->context, r->spans, r->w.batch);
    while (left > 0) {
        operation *o = find_operation(p, griffin_unit_name(r->context));
        double start = seconds_now();
        left = griffin_advance(r->context, 1);
        double seconds = seconds_now() - start;
        o->seconds += seconds;
        o->units++;
        if (p->count < p->capacity) p->units[p->count++] = seconds;
    }
    p->passes++;
    return left < 0 ? bench_error(r->b, left) : 0;
}

static void print_profile(const runner *r, profile *p, int format) {
    static const column columns[] = {
        { "model", COLUMN_WORD }, { "type", COLUMN_WORD }, { "test", COLUMN_WORD },
        { "operation", COLUMN_WORD }, { "units", COLUMN_NUMBER }, { "us a pass", COLUMN_NUMBER },
        { "%", COLUMN_NUMBER }, { "us p50", COLUMN_NUMBER }, { "us p99", COLUMN_NUMBER },
        { "us max", COLUMN_NUMBER }, { NULL, COLUMN_WORD }
    };
    operation *all = &p->at[15];
    double us = 1e6 / p->passes;
    table t;
    all->name = "all";
    for (int i = 0; i < 15 && p->at[i].name; i++) {
        all->seconds += p->at[i].seconds;
        all->units += p->at[i].units;
    }
    table_begin(&t, (table_format)format, columns);
    for (int i = 0; i < 16; i++) {
        const operation *o = &p->at[i];
        int is_all = o == all;
        const cell cells[] = {
            word_cell(r->b->name), word_cell(r->b->type), test_cell(&r->w),
            word_cell(o->name ? o->name : ""), number_cell((double)o->units / p->passes),
            number_cell(o->seconds * us), number_cell(100 * o->seconds / all->seconds),
            number_cell(is_all ? 1e6 * quantile(p->units, p->count, 0.5) : NAN),
            number_cell(is_all ? 1e6 * quantile(p->units, p->count, 0.99) : NAN),
            number_cell(is_all ? 1e6 * quantile(p->units, p->count, 1) : NAN)
        };
        const char *texts[10];
        for (int k = 0; k < 10; k++) texts[k] = cells[k].text;
        if (o->name) table_row(&t, texts);
    }
    table_end(&t);
}

/* Times the units of steps, or with -n 0 of a prompt, one by one, as a program with a frame budget
 * runs them: on one thread, each with the cost of its call. States are copied, as they are not when
 * nobody may drop the job. */
static int measure_operations(settings *s, bench_model *b) {
    workload w = { 0, 0, 1, 0, 0, 0 };
    profile p;
    runner r;
    int units;
    memset(&p, 0, sizeof p);
    w.is_prompt = s->steps.at[0] == 0;
    w.tokens = (int)(w.is_prompt ? s->prompts.at[0] : s->steps.at[0]);
    w.batch = w.is_prompt ? 1 : (int)s->batches.at[0];
    w.chunk = w.is_prompt ? s->chunk : 1;
    w.depth = s->depths.at[0];
    int status = runner_open(&r, b, &w);
    s->predicted = fmax(s->predicted, model_memory(b) + (double)r.memory);
    if (!status) {
        r.spans[0].count = w.chunk < w.tokens ? w.chunk : w.tokens;     /* the longest pass */
        units = griffin_begin(r.context, r.spans, w.batch);
        p.capacity = units < 0 ? 0 : units * w.tokens;
        p.units = (double *)malloc(((size_t)p.capacity + 1) * sizeof *p.units);
        status = p.units ? 0 : complain("out of memory");
    }
    for (int i = 0; i < w.tokens && !status; i += w.chunk) status = profile_pass(&r, &p, i);
    if (!status) print_profile(&r, &p, s->format);
    free(p.units);
    runner_close(&r);
    return status;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static const column size_columns[] = {
    { "model", COLUMN_WORD }, { "params", COLUMN_NUMBER }, { "tokens", COLUMN_WORD },
    { "MB state", COLUMN_NUMBER }, { "MB mark", COLUMN_NUMBER }, { "MB save", COLUMN_NUMBER },
    { "MB context", COLUMN_NUMBER }, { NULL, COLUMN_WORD }
};

static cell megabytes(double bytes) {
    cell c;
    snprintf(c.text, sizeof c.text, "%.2f", bytes / 1e6);
    return c;
}

/* Of a state that has seen so many tokens, and of a context for one token at a time. */
static int measure_sizes(settings *s, bench_model *b, table *t) {
    int status = 0;
    for (int i = 0; i < s->depths.count && !status; i++) {
        workload w = { 0, 1, 1, 1, 0, s->depths.at[i] };
        griffin_context_options options;
        runner r;
        memset(&options, 0, sizeof options);
        options.rows = options.states = 1;
        options.no_slices = 1;
        status = runner_open(&r, b, &w);
        if (!status) {
            const griffin_state *state = r.spans[0].state;
            const cell cells[] = {
                word_cell(b->name), number_cell((double)b->info->parameters),
                count_cell(w.depth), megabytes((double)griffin_state_size(b->model)),
                megabytes((double)griffin_mark_size(b->model)),
                megabytes((double)griffin_save(b->model, state, NULL, NULL, NULL, 0)),
                megabytes((double)griffin_context_size(b->model, &options))
            };
            const char *texts[7];
            for (int k = 0; k < 7; k++) texts[k] = cells[k].text;
            table_row(t, texts);
        }
        s->predicted = fmax(s->predicted, model_memory(b) + (double)r.memory);
        runner_close(&r);
    }
    return status;
}

/* ---- random models --------------------------------------------------------------------------- */

/* Sizes are known without weights: their memory stays zero, and unused. */
static void leave_zero(const bench_tensor *t, int number, unsigned char *data, void *user) {
    (void)t; (void)number; (void)data; (void)user;
}

/* As in files of the converter, the embedding is q6_0 where the other weights are q4_0. */
static int random_image(const settings *s, bench_model *b, griffin_config *config,
                        const char *type) {
    const char *more = s->head ? s->head : "q6_0", *table_type = type;
    if (!s->pure && !strcmp(type, "q4_0")) table_type = more;
    uint64_t seed = 1;
    model_parts other;                      /* whose vocabulary it gets */
    report r = { "" };
    int status = 0;
    memset(b, 0, sizeof *b);
    memset(&other, 0, sizeof other);
    if (s->vocab) config->vocab = s->vocab;
    if (s->vocab_of && gguf_read(&other, s->vocab_of, &r))
        status = complain("%s", r.text);
    else if (s->vocab_of && !other.has_vocabulary)
        status = complain("%s has no vocabulary", s->vocab_of);
    else if (s->vocab_of && vocabulary_fit(&other.vocabulary, (size_t)config->vocab, 0, &r))
        status = complain("%s", r.text);
    if (!status)
        status = bench_image(b, config, s->vocab_of ? &other.vocabulary : NULL, type, table_type,
                             s->sizes ? leave_zero : bench_random, &seed);
    parts_free(&other);
    return status;
}

/* ---- comparing families ---------------------------------------------------------------------- */

static const char *const families[] = { "griffin", "hawk", "hgrn2", "mqa" };

enum { FAMILIES = sizeof families / sizeof families[0], MQA = FAMILIES - 1 };
enum { SMALL = 16, LARGE = 64 };            /* batches */

enum { ROUNDS = 64 };                       /* over all lengths, at most */

typedef struct contestant {                 /* of a family, at a length */
    double milliseconds[ROUNDS], rate[ROUNDS], state;
    int    batch;
} contestant;

typedef struct comparison {                 /* by length, for each family; medians of the rounds */
    contestant at[FAMILIES][LONGEST];
    double     length[LONGEST], latency[FAMILIES][LONGEST], throughput[FAMILIES][LONGEST];
} comparison;

/* Measures the seconds of a step of batch[f] sequences. The families take turns. */
static int step_times(settings *s, bench_model *b, int64_t depth, const int *batch,
                      double *seconds) {
    double models = 0;
    runner tests[FAMILIES];
    int count = 0;
    memset(tests, 0, sizeof tests);
    for (int f = 0; f < FAMILIES; f++) {
        workload w = { 0, 4, 0, 0, 0, 0 };
        w.threads = (int)s->threads.at[0];
        w.batch = batch[f];
        w.depth = depth;
        models += model_memory(&b[f]);
        if (batch[f]) add_test(tests, &count, &b[f], w, w.tokens);
    }
    int status = take_turns(s, models, tests, count, 1);
    for (int f = count - 1; f >= 0; f--) {
        double rate = status ? 0 : runner_median(&tests[f], rate_of, 0);
        seconds[tests[f].b - b] = tests[f].w.batch / rate;
        runner_close(&tests[f]);
    }
    return status;
}

/* The number of sequences for which there is memory beside the model, at most 65536. */
static int largest_batch(const bench_model *b, int64_t memory) {
    double room = (double)memory - model_memory(b);
    int low = 0, high = 65536;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if ((double)runner_memory(b, middle, middle) <= room) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* Up to LARGE sequences are measured. Beyond that arithmetic is the limit and the time grows in
 * proportion, so it is computed: a line through the times of SMALL and LARGE sequences. */
static int throughput(settings *s, bench_model *b, int64_t depth, const int *batch, double *rate) {
    double seconds[FAMILIES], less[FAMILIES];
    int most[FAMILIES], small[FAMILIES];
    for (int f = 0; f < FAMILIES; f++) {
        most[f] = batch[f] < LARGE ? batch[f] : LARGE;
        small[f] = batch[f] > LARGE ? SMALL : 0;
    }
    if (step_times(s, b, depth, most, seconds) || step_times(s, b, depth, small, less)) return 1;
    for (int f = 0; f < FAMILIES; f++) {
        double slope = small[f] ? fmax(0, seconds[f] - less[f]) / (LARGE - SMALL) : 0;
        rate[f] = batch[f] ? batch[f] / (seconds[f] + (batch[f] - most[f]) * slope) : 0;
    }
    return 0;
}

/* A Transformer attends to the whole sequence, so its window is as long as that. */
static int compare_length(settings *s, bench_model *b, int i, comparison *c, int round) {
    static const int one[FAMILIES] = { 1, 1, 1, 1 };
    int64_t length = s->depths.at[i];
    double seconds[FAMILIES], rate[FAMILIES];
    int batch[FAMILIES];
    for (int f = 0; f < FAMILIES; f++) {
        if (bench_open(&b[f], (griffin_cpu)s->cpu, f == MQA ? (int)length : 0)) return 1;
        batch[f] = largest_batch(&b[f], s->memory.at[0]);
    }
    if (step_times(s, b, length, one, seconds) || throughput(s, b, length, batch, rate)) return 1;
    for (int f = 0; f < FAMILIES; f++) {
        contestant *at = &c->at[f][i];
        at->milliseconds[round] = 1000 * seconds[f];
        at->rate[round] = rate[f];
        at->state = (double)b[f].info->state_bytes;
        at->batch = batch[f];
    }
    return 0;
}

static void print_comparison(const settings *s, const bench_model *b, comparison *c, table *t) {
    for (int i = 0; i < s->depths.count; i++) {
        c->length[i] = (double)s->depths.at[i];
        for (int f = 0; f < FAMILIES; f++) {
            contestant *at = &c->at[f][i];
            double *latency = &c->latency[f][i], *rate = &c->throughput[f][i];
            const char *texts[8];
            *latency = quantile(at->milliseconds, s->repetitions, 0.5);
            *rate = quantile(at->rate, s->repetitions, 0.5);
            const cell cells[] = {
                word_cell(b[f].name), word_cell(b[f].type), count_cell(s->depths.at[i]),
                number_cell(*latency), number_cell(at->state / (1 << 20)),
                number_cell(at->batch), number_cell(*rate),
                word_cell(at->batch > LARGE ? "computed"
                          : at->batch > 0 ? "measured" : "does not fit")
            };
            for (int k = 0; k < 8; k++) texts[k] = cells[k].text;
            table_row(t, texts);
        }
    }
}

static int make_family(const settings *s, bench_model *b, const char *family) {
    griffin_config config;
    char name[48];
    snprintf(name, sizeof name, "%s-%s", family, s->compare);
    preset_find(&config, name);
    int status = random_image(s, b, &config, s->types);
    memcpy(b->name, name, sizeof name);
    return status;
}

static int write_plot(const settings *s, const comparison *c) {
    plot_line latency[FAMILIES], rates[FAMILIES];
    char rate_title[80];
    const plot plots[] = {
        { "time of a step", "tokens before", "milliseconds", latency, FAMILIES },
        { rate_title, "tokens before", "tokens/s", rates, FAMILIES }
    };
    snprintf(rate_title, sizeof rate_title, "largest batch in %.1f GiB",
             (double)s->memory.at[0] / (1 << 30));
    for (int i = 0; i < FAMILIES; i++) {
        const plot_line line = { families[i], c->length, c->latency[i], s->depths.count };
        latency[i] = rates[i] = line;
        rates[i].y = c->throughput[i];
    }
    return plot_write(s->plot, plots, 2);
}

static int compare(settings *s) {
    static const column columns[] = {
        { "model", COLUMN_WORD }, { "type", COLUMN_WORD }, { "length", COLUMN_WORD },
        { "ms a token", COLUMN_NUMBER }, { "MiB state", COLUMN_NUMBER },
        { "largest batch", COLUMN_NUMBER }, { "t/s", COLUMN_NUMBER }, { "how", COLUMN_WORD },
        { NULL, COLUMN_WORD }
    };
    bench_model models[FAMILIES];
    comparison *c = (comparison *)malloc(sizeof *c);
    table t;
    int status = c ? 0 : complain("out of memory");
    memset(models, 0, sizeof models);
    for (int i = 0; i < FAMILIES && !status; i++) status = make_family(s, &models[i], families[i]);
    table_begin(&t, (table_format)s->format, columns);
    for (int k = 0; k < s->repetitions; k++)
        for (int i = 0; i < s->depths.count && !status; i++)
            status = compare_length(s, models, i, c, k);
    if (!status) print_comparison(s, models, c, &t);
    table_end(&t);
    for (int i = 0; i < FAMILIES; i++) bench_close(&models[i]);
    if (!status && s->plot) status = write_plot(s, c);
    free(c);
    return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* "512,2k,1M": k is 2^10, M 2^20, G 2^30. */
static int read_numbers(numbers *list, double least, double most) {
    static const char units[] = "kMG";
    const char *text = list->text;
    for (list->count = 0; list->count < LONGEST; text++) {
        const char *end;
        double value = options_decimal(text, &end);
        const char *unit = end > text && *end ? strchr(units, *end) : NULL;
        if (unit) { value = ldexp(value, 10 * (int)(unit - units + 1)); end++; }
        if (end == text || !(value >= least && value <= most) || value != floor(value)) return 0;
        list->at[list->count++] = (int64_t)value;
        text = end;
        if (*text != ',') return !*text;
    }
    return 0;
}

/* Copies the next word of a list and moves behind it. Returns 0 at the end. */
static int next_word(const char **list, char *word, size_t size) {
    size_t length = strcspn(*list, ",");
    if (length == 0 || length >= size) return 0;
    memcpy(word, *list, length);
    word[length] = 0;
    *list += length + ((*list)[length] == ',');
    return 1;
}

/* Replaces characters that a table cannot hold. */
static void clean_name(char *name) {
    for (; *name; name++)
        if (*name < ' ' || *name > '~' || strchr("\"\\,|", *name)) *name = '_';
}

static void set_name(bench_model *b, const char *name) {
    snprintf(b->name, sizeof b->name, "%s", name);
    clean_name(b->name);
}

/* ---- guesses --------------------------------------------------------------------------------- */

static const column guess_columns[] = {
    { "model", COLUMN_WORD }, { "type", COLUMN_WORD }, { "threads", COLUMN_NUMBER },
    { "text", COLUMN_WORD }, { "tokens", COLUMN_NUMBER }, { "plain t/s", COLUMN_NUMBER },
    { "t/s", COLUMN_NUMBER }, { "gain", COLUMN_NUMBER }, { "guesses", COLUMN_NUMBER },
    { "right", COLUMN_NUMBER }, { "passes", COLUMN_NUMBER }, { "cost of a row", COLUMN_NUMBER },
    { NULL, COLUMN_WORD }
};

static int measure_guesses(const settings *s, bench_model *b, table *t) {
    char *name = path_name(s->text);
    int status = 0;
    if (name) clean_name(name);
    for (int i = 0; i < s->threads.count && !status; i++) {
        const char *texts[12];
        guess_test test;
        memset(&test, 0, sizeof test);
        test.path = s->text;
        test.grammar = s->grammar;
        test.most = s->guesses;
        test.threads = (int)s->threads.at[i];
        test.repetitions = s->repetitions;
        status = guess_measure(b, &test);
        const cell cells[] = {
            word_cell(b->name), word_cell(b->type), number_cell(test.threads),
            word_cell(name ? name : "text"), number_cell(test.tokens), number_cell(test.plain),
            number_cell(test.guessed), number_cell(test.gain), number_cell(test.guesses),
            number_cell(test.right), number_cell(test.passes), number_cell(test.row_cost)
        };
        for (int k = 0; k < 12; k++) texts[k] = cells[k].text;
        if (!status) table_row(t, texts);
    }
    free(name);
    return status;
}

static int measure_model(settings *s, bench_model *b, table *t) {
    if (bench_open(b, (griffin_cpu)s->cpu, 0)) return 1;
    if (s->text) return measure_guesses(s, b, t);
    if (s->sizes) return measure_sizes(s, b, t);
    return s->ops ? measure_operations(s, b) : measure_tests(s, b, t);
}

static int measure_file(settings *s, table *t) {
    char *name = path_name(s->path);
    bench_model b;
    int status = bench_file(&b, s->path);
    set_name(&b, name ? name : "model");
    free(name);
    b.copy = s->copy;
    if (!status) status = measure_model(s, &b, t);
    bench_close(&b);
    return status;
}

/* Measures every preset in every type. */
static int measure_random(settings *s, table *t) {
    const char *presets = s->preset;
    char preset[48], type[16];
    griffin_config config;
    bench_model b;
    int status = 0;
    while (!status && next_word(&presets, preset, sizeof preset)) {
        preset_find(&config, preset);
        for (const char *types = s->types; !status && next_word(&types, type, sizeof type);) {
            status = random_image(s, &b, &config, type);
            set_name(&b, preset);
            if (!status) status = measure_model(s, &b, t);
            bench_close(&b);
        }
    }
    return status;
}

static int measure_all(settings *s) {
    table t;
    if (s->compare) return compare(s);
    if (s->masks)
        return bench_masks(s->path, s->vocab ? s->vocab : 256000, (table_format)s->format,
                           s->repetitions);
    const column *columns = s->text ? guess_columns : s->sizes ? size_columns : row_columns;
    if (!s->ops) table_begin(&t, (table_format)s->format, columns);
    int status = s->path ? measure_file(s, &t) : measure_random(s, &t);
    if (!s->ops) table_end(&t);
    return status;
}

/* Without OpenMP the library stays on one thread. */
#ifdef _OPENMP
enum { THREADS_HERE = MOST_THREADS };
static int cores(void) { return omp_get_num_procs(); }
#else
enum { THREADS_HERE = 1 };
static int cores(void) { return 1; }
#endif

/* Checks the names of shapes. Returns -1 to go on, or 2 after a message. */
static int check_shapes(const command *c, const settings *s) {
    const char *presets = s->preset ? s->preset : "";
    char name[48];
    griffin_config config;
    int wrong = s->preset && !*presets;
    while (!wrong && next_word(&presets, name, sizeof name))
        wrong = preset_find(&config, name) < 0;
    if (wrong || *presets)
        return options_wrong(c, "--preset: '%s' is not a list of presets; known are 2b, 9b, "
                             "hgrn2-2.7b, supra-7b, and griffin-, hawk-, mqa- or hgrn2- with 100m "
                             "200m 400m 1.3b 3b 7b 14b", s->preset);
    snprintf(name, sizeof name, "griffin-%.30s", s->compare ? s->compare : "2b");
    if (s->compare && preset_find(&config, name) < 0)
        return options_wrong(c, "--compare: sizes are 100m 200m 400m 1.3b 3b 7b 14b");
    return -1;
}

/* Checks what the table of options cannot. Returns -1 to go on, or 2 after a message. */
static int check(const command *c, settings *s) {
    const struct { const char *name; numbers *list; double least, most; } lists[] = {
        { "prompt", &s->prompts, 0, 1 << 20 }, { "steps", &s->steps, 0, 1 << 20 },
        { "depth", &s->depths, s->compare ? 1 : 0, s->compare ? 1 << 20 : 1e15 },
        { "batch", &s->batches, 1, 65536 }, { "threads", &s->threads, 1, THREADS_HERE },
        { "memory", &s->memory, 1, 1e15 }
    };
    const char *types = s->types;
    char type[16];
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        if (!read_numbers(lists[i].list, lists[i].least, lists[i].most))
            return options_wrong(c, "--%s: '%s' is not a list of numbers from %.0f to %.0f",
                                 lists[i].name, lists[i].list->text, lists[i].least, lists[i].most);
    while (next_word(&types, type, sizeof type))
        if (!tile_exists(type))
            return options_wrong(c, "--type: '%s' is not f32, f16, bf16, q8_0, q6_0 or q4_0", type);
    if (s->head && !tile_exists(s->head))
        return options_wrong(c, "--head: '%s' is not one of these types", s->head);
    if (*types) return options_wrong(c, "--type: '%s' is not a list of types", s->types);
    if (s->masks && (s->preset || s->compare))
        return options_wrong(c, "--masks measures -m, or a made-up vocabulary");
    if (!s->masks && !!s->path + !!s->preset + !!s->compare != 1)
        return options_wrong(c, "one of -m, --preset and --compare says what to measure");
    if (s->vocab_of && (!s->preset || !s->text))
        return options_wrong(c, "--vocab-of goes with --preset and --text");
    if (s->masks && s->vocab && s->vocab < 400)
        return options_wrong(c, "--masks needs a vocabulary of 400 pieces or more");
    if (s->ops && s->steps.at[0] == 0 && s->prompts.at[0] == 0)
        return options_wrong(c, "--ops: how many steps, or tokens? -n and -p are 0");
    if (s->compare && strchr(s->types, ','))
        return options_wrong(c, "--compare takes one type");
    if (s->compare && s->repetitions > ROUNDS)
        return options_wrong(c, "--compare takes at most %d repetitions", ROUNDS);
    if (!!s->text + !!s->ops + !!s->compare + !!s->sizes > 1)
        return options_wrong(c, "--text, --ops, --sizes and --compare exclude each other");
    if (s->plot && !s->compare) return options_wrong(c, "--plot goes with --compare");
    if (s->grammar && !s->text) return options_wrong(c, "--grammar goes with --text");
    if (s->guesses < 1 || s->guesses > 62)
        return options_wrong(c, "--guesses: from 1 to 62");
    if (s->vocab && !s->preset && !s->compare && !s->masks)
        return options_wrong(c, "--vocab: a file has its own vocabulary");
    if (s->repetitions < 1 || s->chunk < 1 || s->chunk > 65536)
        return options_wrong(c, "-r and --chunk: at least 1, and --chunk at most 65536");
    return check_shapes(c, s);
}

int command_bench(int argc, char **argv) {
    char threads[16];
    settings s;
    const option options[] = {
        { "MODEL", NULL, OPTION_WORD, &s.path, NULL, "a model, a GGUF file; or:" },
        { "model", "m", OPTION_TEXT, &s.path, "MODEL", "the same" },
        { "copy", NULL, OPTION_FLAG, &s.copy, NULL,
          "copy the weights of the file into huge pages" },
        { "preset", NULL, OPTION_TEXT, &s.preset, "NAMES",
          "shapes with random weights: 2b, griffin-1.3b, hgrn2-1.3b, ..." },
        { "type", NULL, OPTION_TEXT, &s.types, "TYPES",
          "their weights: f32, f16, bf16, q8_0, q6_0, q4_0 (default: q8_0)" },
        { "pure", NULL, OPTION_FLAG, &s.pure, NULL,
          "q4_0 in the embedding too, which the converter makes q6_0" },
        { "head", NULL, OPTION_TEXT, &s.head, "TYPE",
          "of the embedding with weights of q4_0 (default: q6_0)" },
        { "vocab", NULL, OPTION_COUNT, &s.vocab, "N",
          "tokens of their vocabulary; 0: as the shape has it" },
        { "vocab-of", NULL, OPTION_TEXT, &s.vocab_of, "MODEL",
          "a model whose pieces are the first of these tokens, for --text" },
        { "prompt", "p", OPTION_TEXT, &s.prompts.text, "LIST",
          "tokens of a prompt (default: 512)" },
        { "steps", "n", OPTION_TEXT, &s.steps.text, "LIST", "tokens one by one (default: 64)" },
        { "depth", "d", OPTION_TEXT, &s.depths.text, "LIST",
          "tokens before them, as in 0,2k,1M (default: 0)" },
        { "batch", "b", OPTION_TEXT, &s.batches.text, "LIST", "sequences at once (default: 1)" },
        { "threads", "t", OPTION_TEXT, &s.threads.text, "LIST",
          "threads (default: one for each core)" },
        { "repetitions", "r", OPTION_COUNT, &s.repetitions, "N", "how often every test is run" },
        { "chunk", "c", OPTION_COUNT, &s.chunk, "N", "tokens of a prompt in one pass" },
        CPU_OPTION(s.cpu),
        { "output", "o", OPTION_CHOICE, &s.format, "md|csv|json",
          "csv and json have every stretch" },
        { "ops", NULL, OPTION_FLAG, &s.ops, NULL,
          "time the operations of a step, or with -n 0 of a prompt" },
        { "sizes", NULL, OPTION_FLAG, &s.sizes, NULL,
          "bytes of a state after -d tokens (default: 1M), of a mark, a save and a context" },
        { "masks", NULL, OPTION_FLAG, &s.masks, NULL,
          "time the masks of grammars instead: of -m, or of --vocab made-up pieces" },
        { "text", NULL, OPTION_TEXT, &s.text, "FILE",
          "what guesses are worth: write this text with and without" },
        { "guesses", NULL, OPTION_COUNT, &s.guesses, "N", "the most guesses in a pass of --text" },
        { "grammar", NULL, OPTION_TEXT, &s.grammar, "FILE", "the grammar (GBNF) of that text" },
        { "compare", NULL, OPTION_TEXT, &s.compare, "SIZE",
          "compare griffin, hawk, hgrn2 and mqa of this size, 100m to 14b" },
        { "memory", NULL, OPTION_TEXT, &s.memory.text, "BYTES",
          "memory for the largest batch of --compare (default: 8G)" },
        { "plot", NULL, OPTION_TEXT, &s.plot, "FILE", "draw --compare as SVG" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "bench", "MODEL | --preset NAMES | --compare SIZE | --masks [options]",
                        "Measures tokens a second beside what the machine allowed at that moment.\n"
                        "Lists have commas between; k, M and G are powers of 1024. The tests of a\n"
                        "model take turns, so memory has to hold the states of all.", options };
    int status;
    memset(&s, 0, sizeof s);
    snprintf(threads, sizeof threads, "%d", cores());
    s.types = "q8_0";
    s.prompts.text = "512"; s.steps.text = "64"; s.batches.text = "1"; s.memory.text = "8G";
    s.threads.text = threads;
    s.repetitions = 3;
    s.chunk = 96;
    s.guesses = 16;
    if ((status = options_parse(&c, argc, argv)) >= 0) return status;
    if (!s.depths.text)
        s.depths.text = s.compare ? "512,1k,2k,4k,8k,16k,32k" : s.sizes ? "1M" : "0";
    if ((status = check(&c, &s)) >= 0) return status;
    status = measure_all(&s);
    if (!status && s.predicted > 0)
        fprintf(stderr, "\nmemory: %.0f MiB by the sizes of model, states, contexts and logits; "
                "at most %.0f MiB were used\n", s.predicted / (1 << 20), peak_mebibytes());
    return status;
}
