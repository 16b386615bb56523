/* session.c - an open model with one sequence, tokens, answers, timing; see session.h. */

#include "session.h"
#include "engine.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FEED = 64 };                         /* tokens of a prompt between two checks for Ctrl-C */

/* ---- opening ------------------------------------------------------------------------------ */

/* Prints notes at once, and keeps an error for session_error. */
static void on_message(int error, const char *message, void *user) {
    session *s = (session *)user;
    if (error == GRIFFIN_OK) note("%s", message);
    else snprintf(s->message, sizeof s->message, "%s", message);
}

int session_error(session *s, int error) {
    complain("%s", s->message[0] ? s->message : griffin_error_string(error));
    s->message[0] = 0;
    return 1;
}

static int open_model(session *s, const model_options *o, int needs) {
    griffin_options options;
    report r = { "" };
    memset(&options, 0, sizeof options);
    options.logger.message = on_message;
    options.logger.user = s;
    options.cpu = (griffin_cpu)o->cpu;
    options.attn_keys = o->attn_keys;
    options.kv_type = (griffin_kv_type)o->kv_type;
    if (file_open(&s->file, o->path, &r)) return complain("%s", r.text);
    int error = griffin_open_memory(&s->model, s->file.data, (size_t)s->file.size, &options);
    if (error < 0 && needs == ANY_FILE) {
        snprintf(s->why, sizeof s->why, "%s", s->message);
        options.directory_only = 1;
        error = griffin_open_memory(&s->model, s->file.data, (size_t)s->file.size, &options);
        if (error) snprintf(s->message, sizeof s->message, "%s", s->why);
    }
    if (error < 0)
        return complain("%s: %s", o->path,
                        s->message[0] ? s->message : griffin_error_string(error));
    s->info = griffin_get_info(s->model);
    s->end_of_turn = s->info->end_of_turn;
    if (needs == NEEDS_TEXT && !s->info->has_vocabulary)
        return complain("%s: %s", o->path, griffin_error_string(GRIFFIN_E_VOCABULARY));
    return 0;
}

/* In place of the context that there was, if there was one. */
static int open_context(session *s, int threads, int guesses) {
    griffin_context_options options;
    memset(&options, 0, sizeof options);
    options.jobs.width = threads;
    options.guesses = guesses;
    size_t size = griffin_context_size(s->model, &options);
    free(s->context_memory);
    s->context_memory = malloc(size);
    if (!s->context_memory) return complain("out of memory");
    int error = griffin_context_init(&s->context, s->model, &options, s->context_memory, size);
    return error < 0 ? session_error(s, error) : 0;
}

static int open_sequence(session *s, int threads) {
    s->guess.rows = 2;                      /* the second for tokens that a grammar forces */
    s->state = (griffin_state *)calloc(1, griffin_state_size(s->model));    /* zero is fresh */
    s->logits = (float *)malloc(2 * (size_t)s->info->config.vocab * sizeof(float));
    if (!s->state || !s->logits) return complain("out of memory");
    return open_context(s, threads, 0);
}

int session_open(session *s, const command *c, const model_options *o, int needs) {
    double start = seconds_now();
    memset(s, 0, sizeof *s);
    if (!o->path) return options_wrong(c, "no model: name a file");
    if (open_model(s, o, needs) || (!s->why[0] && open_sequence(s, o->threads))) {
        session_close(s);
        return 1;
    }
    s->open_seconds = seconds_now() - start;
    return 0;
}

int session_open_memory(session *s, const void *data, size_t size, int threads) {
    griffin_options options;
    memset(s, 0, sizeof *s);
    memset(&options, 0, sizeof options);
    options.logger.message = on_message;
    options.logger.user = s;
    int error = griffin_open_memory(&s->model, data, size, &options);
    if (error < 0) return session_error(s, error);
    s->info = griffin_get_info(s->model);
    s->end_of_turn = s->info->end_of_turn;
    if (!open_sequence(s, threads)) return 0;
    session_close(s);
    return 1;
}

enum { LOOKUP_TOKENS = 1 << 16 };           /* that are remembered */

/* The smaller model, with a session of its own, and the same threads. */
static int open_draft(session *s, const model_options *model, const char *path) {
    model_options o = *model;
    session *small = (session *)calloc(1, sizeof *small);
    o.path = path;
    if (!small) return complain("out of memory");
    s->smaller = small;
    if (open_model(small, &o, NEEDS_TEXT) || open_sequence(small, o.threads)) return 1;
    int error = griffin_draft_check(s->model, small->model);
    if (error < 0) return complain("%s: %s", path, s->message);
    s->draft.context = small->context;
    s->draft.state = small->state;
    s->draft.logits = small->logits;
    s->draft.mark = malloc(griffin_mark_size(small->model));
    return s->draft.mark ? 0 : complain("out of memory");
}

enum { DRAFTED = 16 };                      /* the most tokens that it guesses for a pass */

int session_guess(session *s, const model_options *model, const guess_options *o) {
    int most = (int)(sizeof s->waiting / sizeof *s->waiting) - 2, wanted = o->lookup;
    if (o->draft && wanted < DRAFTED) wanted = DRAFTED;
    if (!wanted) return 0;
    s->guess.rows = (wanted < most ? wanted : most) + 2;
    free(s->logits);
    s->logits = (float *)malloc((size_t)s->guess.rows * (size_t)s->info->config.vocab
                                * sizeof(float));
    if (o->lookup) {
        s->lookup.size = LOOKUP_TOKENS;
        s->lookup.memory = (int32_t *)calloc(LOOKUP_TOKENS, (GRIFFIN_LOOKUP_LENGTHS + 1)
                                                            * sizeof *s->lookup.memory);
    }
    if (!s->logits || (o->lookup && !s->lookup.memory)) return complain("out of memory");
    if (open_context(s, model->threads, s->guess.rows - 2)) return 1;
    return o->draft ? open_draft(s, model, o->draft) : 0;
}

static int take_texts(const command *c, griffin_stop *stop, const text_list *texts,
                      const char *name) {
    char nothing[GRIFFIN_STOP_BYTES];
    stop->texts = texts->at;
    stop->count = texts->count;
    if (griffin_stop_feed(stop, "", 0, nothing, sizeof nothing) >= 0) return 0;
    return options_wrong(c, "%s: a text must have 1 to %d bytes", name, GRIFFIN_STOP_BYTES);
}

int session_control(session *s, const command *c, const control_options *o) {
    file_bytes file;
    s->heals = o->heal;
    s->by_words = o->words;
    s->ban.model = s->model;
    if (take_texts(c, &s->stop, &o->stops, "--stop")) return 2;
    if (take_texts(c, &s->ban.stop, &o->bans, "--ban")) return 2;
    if (o->grammar && o->schema)
        return options_wrong(c, "--grammar and --schema exclude each other");
    if (!o->grammar && !o->schema) return 0;
    if (text_open(&file, NULL, o->grammar ? o->grammar : o->schema)) return 1;
    int error = (o->schema ? griffin_grammar_open_schema : griffin_grammar_open)(
            &s->grammar, s->model, (const char *)file.data, (size_t)file.size, NULL);
    file_close(&file);
    return error < 0 ? complain("%s: %s", o->grammar ? o->grammar : o->schema, s->message) : 0;
}

typedef struct saving { file_output file; report r; } saving;

static int save_piece(const void *data, size_t size, void *user) {
    saving *to = (saving *)user;
    return file_write(&to->file, data, size, &to->r) ? GRIFFIN_E_FILE : 0;
}

int session_save(session *s, const griffin_sampler *sampler, const griffin_decoder *decoder,
                 const char *path) {
    saving to;
    int64_t n = GRIFFIN_E_FILE;
    memset(&to, 0, sizeof to);
    if (!file_create(&to.file, path, &to.r))
        n = griffin_save_pieces(s->model, s->state, sampler, decoder, save_piece, &to);
    if (n > 0 && file_finish(&to.file, &to.r)) n = GRIFFIN_E_FILE;
    file_abandon(&to.file);
    return n > 0 ? 0 : to.r.text[0] ? complain("%s", to.r.text) : session_error(s, (int)n);
}

/* ---- personas ------------------------------------------------------------------------------ */

enum { AT_HISTORY = 32, AT_NUMBERS = 48, CHECKSUM = 8 };    /* of a saved state: >>state */

static void put_u64(unsigned char *to, uint64_t number) {
    for (int i = 0; i < 8; i++) to[i] = (unsigned char)(number >> 8 * i);
}

static float get_float(const unsigned char *from) {
    uint32_t bits = (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16
                  | (uint32_t)from[3] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Moves each number of a mixture by `share` of the way to that of another state. */
static void mix_in(unsigned char *mixture, const unsigned char *other, size_t size, double share) {
    for (size_t at = AT_NUMBERS; at + 4 <= size - CHECKSUM; at += 4) {
        float a = get_float(mixture + at), b = get_float(other + at);
        uint32_t bits;
        a = (float)((double)a + share * ((double)b - (double)a));
        memcpy(&bits, &a, sizeof bits);
        for (int i = 0; i < 4; i++) mixture[at + (size_t)i] = (unsigned char)(bits >> 8 * i);
    }
    put_u64(mixture + AT_HISTORY, engine_checksum(mixture + AT_NUMBERS,
                                                  size - CHECKSUM - AT_NUMBERS));
    put_u64(mixture + size - CHECKSUM, engine_checksum(mixture, size - CHECKSUM));
}

static int load_first(session *s, const char *path, const unsigned char *data, size_t size) {
    int error = griffin_load(s->model, s->first, NULL, NULL, data, size);
    if (error >= 0) return 0;
    return complain("%s: %s", path, s->message[0] ? s->message : griffin_error_string(error));
}

/* The number-th of several; `mixture` is that of those before. */
static int add_persona(session *s, const char *path, int number, file_bytes *file,
                       unsigned char **mixture, size_t *size) {
    if (load_first(s, path, file->data, (size_t)file->size)) return 1;
    if (number == 0) {
        *size = (size_t)file->size;
        *mixture = (unsigned char *)malloc(*size);
        if (!*mixture) return complain("out of memory");
        memcpy(*mixture, file->data, *size);
        return 0;
    }
    if (file->size != *size || s->info->kv_type != GRIFFIN_KV_F32
        || (*mixture)[12] || file->data[12])
        return complain("%s: only personas of one size, in f32, can be mixed", path);
    mix_in(*mixture, file->data, *size, 1.0 / (number + 1));
    return load_first(s, path, *mixture, *size);
}

int session_personas(session *s, const text_list *paths) {
    unsigned char *mixture = NULL;
    size_t size = 0;
    int status = 0;
    if (paths->count == 0) return 0;
    s->first = (griffin_state *)malloc(griffin_state_size(s->model));
    if (!s->first) return complain("out of memory");
    for (int i = 0; !status && i < paths->count; i++) {
        file_bytes file;
        report r = { "" };
        if (file_open(&file, paths->at[i], &r)) status = complain("%s", r.text);
        else status = add_persona(s, paths->at[i], i, &file, &mixture, &size);
        file_close(&file);
    }
    free(mixture);
    if (!status) session_begin_text(s);
    return status;
}

void session_begin_text(session *s) {
    if (s->first) memcpy(s->state, s->first, griffin_state_size(s->model));
    else memset(s->state, 0, griffin_state_size(s->model));
}

int session_has_begun(const session *s) {
    int64_t begin = s->first ? griffin_state_position(s->first) : 0;
    return griffin_state_position(s->state) != begin;
}

void session_close(session *s) {
    if (s->smaller) session_close(s->smaller);
    free(s->smaller);
    free(s->draft.mark);
    free(s->lookup.memory);
    free(s->logits);
    free(s->first);
    free(s->state);
    free(s->context_memory);
    griffin_grammar_close(s->grammar);
    griffin_close(s->model);
    file_close(&s->file);
    memset(s, 0, sizeof *s);
}

/* ---- tokens ------------------------------------------------------------------------------- */

static int tokens_room(token_list *list, int more) {
    if (more <= list->capacity - list->count) return 0;
    if (more > INT_MAX / 2 - list->count) return complain("the text is too long");
    list->capacity = list->count + list->count / 2 + more + 64;
    int32_t *grown = (int32_t *)realloc(list->data, (size_t)list->capacity * sizeof *grown);
    if (!grown) return complain("out of memory");
    list->data = grown;
    return 0;
}

int tokens_add(token_list *list, int32_t token) {
    if (tokens_room(list, 1)) return 1;
    list->data[list->count++] = token;
    return 0;
}

/* A text seldom has more tokens than half its bytes. If it has, a second pass has enough room. */
int tokens_add_text(token_list *list, session *s, const griffin_encoding *encoding,
                    const void *words, uint64_t size) {
    int room, n = size / 2 < INT_MAX / 4 ? (int)(size / 2) : INT_MAX / 4;
    for (int pass = 0; pass < 2; pass++) {
        if (tokens_room(list, n + 1)) return 1;             /* not null, even for an empty text */
        room = list->capacity - list->count;
        n = griffin_encode(s->model, encoding, (const char *)words, (size_t)size,
                           list->data + list->count, room);
        if (n < 0) return session_error(s, n);
        if (n <= room) break;
    }
    list->count += n;
    return 0;
}

void tokens_free(token_list *list) {
    free(list->data);
    memset(list, 0, sizeof *list);
}

double logits_loss(const float *logits, int vocab, int32_t next) {
    double sum = 1;                         /* the term of the largest logit */
    int top = 0;
    for (int v = 1; v < vocab; v++) if (logits[v] > logits[top]) top = v;
    for (int v = 0; v < vocab; v++) if (v != top) sum += exp((double)logits[v] - logits[top]);
    return log(sum) + logits[top] - logits[next];
}

/* ---- running ------------------------------------------------------------------------------ */

int sampler_prepare(const command *c, griffin_sampler *sampler) {
    if (sampler->repeat_last > GRIFFIN_RECENT)
        return options_wrong(c, "--repeat-last-n: at most %d", GRIFFIN_RECENT);
    if (sampler->seed == UINT64_MAX)
        sampler->seed = random_seed();
    return -1;
}

enum { PIECE = 2048 };

/* A terminal receives whole characters, and of those that control it only newline and tab. */
static int print(const char *piece, int n) {
    char plain[PIECE + GRIFFIN_STOP_BYTES + GRIFFIN_WORD_BYTES + 1];
    if (!is_terminal(stdout)) return output_write(piece, (size_t)n);
    memcpy(plain, piece, (size_t)n);
    for (int i = 0, size; i < n; i += size ? size : 1) {
        size = (int)report_printable(piece + i, (size_t)(n - i));
        if (!size && plain[i] != '\n' && plain[i] != '\t') plain[i] = '?';
    }
    return output_write(plain, (size_t)n);
}

int session_end_line(void) { return print("\n", 1); }

int session_show(session *s, int32_t token, int show) {
    char piece[PIECE];
    int n = griffin_decode(s->model, &s->decoder, token, piece, sizeof piece);
    if (n < 0) return session_error(s, n);
    return show ? print(piece, n) : 0;
}

/* Prints text of the answer, with --words as far as words are complete; null: the rest. */
static int print_answer(session *s, const char *text, int n) {
    char whole[PIECE + GRIFFIN_STOP_BYTES + GRIFFIN_WORD_BYTES + 1];
    if (!s->by_words) return text ? print(text, n) : 0;
    n = griffin_words_feed(&s->words, text, (size_t)n, whole, sizeof whole);
    return print(whole, n);
}

/* Prints a token of the answer; -1 prints what is still held back. Returns 0 to go on, 1 after an
 * error, 2 at a stop text. */
static int say(session *s, int32_t token) {
    char piece[PIECE], shown[PIECE + GRIFFIN_STOP_BYTES];
    int n = griffin_decode(s->model, &s->decoder, token, piece, sizeof piece);
    if (n < 0) return session_error(s, n);
    int known = n < s->again ? n : s->again;        /* the prompt has shown them */
    s->again -= known;
    n = griffin_stop_feed(&s->stop, piece + known, (size_t)(n - known), shown, sizeof shown);
    if (print_answer(s, shown, n)) return 1;
    if (s->stop.found) {
        s->decoder.count = 0;               /* drop what follows the stop text */
        return 2;
    }
    if (token >= 0) return 0;
    n = griffin_stop_feed(&s->stop, NULL, 0, shown, sizeof shown);
    return print_answer(s, shown, n) || print_answer(s, NULL, 0);
}

/* Shows a prompt, and tells the masks of it. Returns how many of its tokens remain when the others
 * are to be chosen again, or -1 after an error. The decoder will see these tokens again. */
static int show_prompt(session *s, const token_list *tokens, int echo) {
    int remain = tokens->count;
    griffin_decoder decoder = s->decoder;
    if (s->heals) remain = griffin_heal_start(&s->heal, s->model, tokens->data, tokens->count);
    if (remain < 0) { session_error(s, remain); return -1; }
    s->again = s->ban.again = 0;
    for (int i = 0; i < tokens->count; i++) {
        char piece[PIECE];
        if (i == remain) decoder = s->decoder;
        int n = griffin_decode(s->model, &s->decoder, tokens->data[i], piece, sizeof piece);
        if (n < 0) { session_error(s, n); return -1; }
        if (echo && print(piece, n)) return -1;
        if (i >= remain) s->again += n;
        griffin_ban_accept(&s->ban, tokens->data[i]);
    }
    if (remain < tokens->count) s->decoder = decoder;
    s->ban.again = s->heal.count;
    return remain;
}

int session_feed(session *s, const token_list *tokens, griffin_sampler *sampler, int echo) {
    double start = seconds_now();
    int n, error, count = show_prompt(s, tokens, echo);
    if (count < 0) return 1;
    if (s->start == 0) s->start = start;
    for (int i = 0; i < count && !interrupted(); i += n) {
        n = count - i < FEED ? count - i : FEED;
        error = griffin_prefill(s->context, s->state, tokens->data + i, n,
                                i + n == count ? s->logits : NULL);
        if (error >= 0 && s->smaller)
            error = griffin_prefill(s->draft.context, s->draft.state, tokens->data + i, n, NULL);
        if (error < 0) return session_error(s, error);
        for (int k = 0; k < n; k++) griffin_accept(sampler, tokens->data[i + k]);
        s->prompt_tokens += n;
    }
    if (s->lookup.memory) griffin_lookup_add(&s->lookup, tokens->data, count);
    s->prompt_seconds += seconds_now() - start;
    return 0;
}

static void forbid(session *s, griffin_sampler *sampler, int32_t token) {
    griffin_bias *ban = &s->no_ends[sampler->bias_count];
    if (token < 0) return;
    ban->token = token;
    ban->bias = -INFINITY;
    sampler->biases = s->no_ends;
    sampler->bias_count++;
}

/* The mask of the sampler: rules out tokens that the grammar does not allow. */
static int apply_grammar(float *logits, int vocab, void *user) {
    session *s = (session *)user;
    double start = seconds_now();
    int remaining = griffin_grammar_mask(s->grammar, &s->grammar_state, logits);
    (void)vocab;
    double took = seconds_now() - start;
    if (took > s->longest_mask) s->longest_mask = took;
    s->mask_seconds += took;
    s->masks++;
    return remaining;
}

/* Every answer begins at the start of the grammar. */
static int start_masks(session *s, griffin_sampler *sampler) {
    s->heal.model = s->ban.model = s->model;
    sampler->mask = griffin_heal_mask;
    sampler->mask_user = &s->heal;
    s->heal.mask = griffin_ban_mask;
    s->heal.mask_user = &s->ban;
    if (!s->grammar) return 0;
    s->ban.mask = apply_grammar;
    s->ban.mask_user = s;
    memset(&s->grammar_state, 0, sizeof s->grammar_state);
    s->may_end = 0;
    int error = griffin_grammar_lead(s->grammar, &s->grammar_state, s->heal.text,
                                     (size_t)s->heal.count);
    return error < 0 ? session_error(s, error) : 0;
}

/* Tells the masks which token was drawn. */
static int accept_masks(session *s, int32_t token) {
    int error = griffin_heal_accept(&s->heal, token);
    if (error >= 0) error = griffin_ban_accept(&s->ban, token);
    if (error >= 0 && s->grammar)
        error = s->may_end = griffin_grammar_accept(s->grammar, &s->grammar_state, token);
    return error < 0 ? session_error(s, error) : 0;
}

static void start_guesses(session *s) {
    s->guess.model = s->model;
    s->guess.state = s->state;
    s->guess.tokens = s->waiting;
    s->guess.room = (int)(sizeof s->waiting / sizeof *s->waiting);
    s->guess.logits = s->logits;
}

void session_reset(session *s, griffin_sampler *sampler) {
    session_begin_text(s);
    if (s->smaller) {
        memset(s->draft.state, 0, griffin_state_size(s->smaller->model));
        s->draft.known = s->draft.fed = s->draft.drafted = s->draft.astray = 0;
    }
    memset(&s->decoder, 0, sizeof s->decoder);
    s->ban.stop.held_count = 0;
    sampler->accepted = 0;
}

/* A text of the training set begins at position 0 with bos, and knows nothing of the one before. */
static int begin_new_text(session *s, griffin_sampler *sampler) {
    int32_t first = s->info->bos;
    int error = griffin_guess_finish(s->context, &s->guess);
    if (error < 0) return session_error(s, error);
    if (say(s, -1) == 1 || print("\n\n", 2)) return 1;
    session_reset(s, sampler);
    griffin_accept(sampler, first);
    if (session_show(s, first, 0)) return 1;
    error = griffin_step(s->context, s->state, first, s->logits);
    if (error >= 0 && s->smaller) error = griffin_draft_take(&s->draft, first);
    return error < 0 ? session_error(s, error) : 0;
}

/* The mask of the smaller model, which has gone on in the grammar by its guesses. */
static int apply_draft_grammar(float *logits, int vocab, void *user) {
    session *s = (session *)user;
    (void)vocab;
    return griffin_grammar_mask(s->grammar, &s->draft_grammar, logits);
}

/* A guess that the grammar cannot take, or the end of the text, is the last one. */
static int add_drafts(session *s, griffin_sampler sampler) {
    griffin_guess *g = &s->guess;
    int more = 1;
    s->draft_grammar = s->grammar_state;
    sampler.mask = s->grammar ? apply_draft_grammar : NULL;
    while (more == 1) {
        more = griffin_draft_next(&s->draft, g, &sampler);
        if (more == 1 && s->grammar
            && griffin_grammar_accept(s->grammar, &s->draft_grammar,
                                      g->tokens[g->known + g->guesses - 1]) < 0) break;
        if (s->draft_grammar.ended) break;
    }
    return more == GRIFFIN_E_NO_TOKEN ? 0 : more;
}

static int add_guesses(session *s, const griffin_sampler *sampler) {
    int error = 0;
    if (s->grammar)
        error = griffin_grammar_guess(s->grammar, &s->grammar_state, sampler, s->logits, &s->guess);
    if (error >= 0 && s->lookup.memory) error = griffin_lookup_guess(&s->lookup, &s->guess);
    if (error >= 0 && s->smaller) error = add_drafts(s, *sampler);
    return error;
}

/* Feeds a token, if that is not done already, together with what may follow it. */
static int feed_token(session *s, const griffin_sampler *sampler, int32_t token) {
    int there = griffin_guess_take(&s->guess, token), error = 0;
    if (s->lookup.memory) error = griffin_lookup_add(&s->lookup, &token, 1);
    if (!error && s->smaller) error = griffin_draft_take(&s->draft, token);
    if (there || error) return there < 0 ? there : error;
    error = add_guesses(s, sampler);
    double start = seconds_now();
    if (error >= 0) error = griffin_guess_run(s->context, &s->guess, 1);
    return error < 0 ? error : griffin_guess_time(&s->guess, seconds_now() - start);
}

/* Samples, prints and feeds one token. Returns 0 to go on, 1 after an error, 2 at the end, where a
 * new text may begin. */
static int generate_one(session *s, griffin_sampler *sampler, int ends) {
    int status;
    int32_t token = griffin_sample(s->model, sampler, griffin_guess_logits(&s->guess));
    if (token == GRIFFIN_E_NO_TOKEN && s->may_end) return 2;
    if (token < 0) return session_error(s, token);
    if (token == s->info->eos || token == s->end_of_turn)
        return ends == ENDS_BEGIN ? begin_new_text(s, sampler) : 2;
    if (accept_masks(s, token)) return 1;
    if ((status = say(s, token)) != 0) return status;
    if (s->first_seconds == 0) s->first_seconds = seconds_now() - s->start;
    int error = feed_token(s, sampler, token);
    if (error < 0) return session_error(s, error);
    s->generated_tokens++;
    return 0;
}

int session_generate(session *s, griffin_sampler *sampler, int limit, int ends) {
    double start = seconds_now();
    int status = start_masks(s, sampler), i = 0;
    start_guesses(s);
    sampler->bias_count = 0;
    if (ends == ENDS_BEGIN && (s->grammar || s->info->bos < 0)) ends = ENDS_IGNORED;
    if (ends == ENDS_IGNORED) {
        forbid(s, sampler, s->info->eos);
        forbid(s, sampler, s->end_of_turn);
    }
    for (; i != limit && status == 0 && !interrupted(); i++)
        status = generate_one(s, sampler, ends);
    int error = griffin_guess_finish(s->context, &s->guess);
    if (error < 0) status = session_error(s, error);
    s->generated_seconds += seconds_now() - start;
    s->is_cut = s->grammar && status == 0 && i > 0 && !s->may_end && !interrupted();
    return status == 1 || say(s, -1) == 1;
}

static void print_rate(const char *what, int tokens, double seconds) {
    if (tokens > 0)
        fprintf(stderr, "%s %6d tokens in %7.2f s, %8.1f tokens/s\n", what, tokens, seconds,
                seconds > 0 ? tokens / seconds : 0.0);
}

void session_statistics(const session *s) {
    fprintf(stderr, "\n");
    print_rate("prompt    ", s->prompt_tokens, s->prompt_seconds);
    print_rate("generation", s->generated_tokens, s->generated_seconds);
    if (s->guess.guessed > 0)
        fprintf(stderr, "guesses    %6llu tokens, %llu of them right, %llu passes\n",
                (unsigned long long)s->guess.guessed, (unsigned long long)s->guess.accepted,
                (unsigned long long)s->guess.passes);
    if (s->masks > 0)
        fprintf(stderr, "grammar    %6d masks, %.0f us each, at most %.0f us, %.0f KiB\n", s->masks,
                s->mask_seconds / s->masks * 1e6, s->longest_mask * 1e6,
                (double)griffin_grammar_size(s->grammar) / 1024);
    fprintf(stderr, "opened in %.2f s, ", s->open_seconds);
    if (s->generated_tokens > 0)
        fprintf(stderr, "first token after %.3f s, seed %llu, ", s->first_seconds,
                (unsigned long long)s->seed);
    fprintf(stderr, "%s kernels, peak memory %.0f MiB\n", s->info->kernels, peak_mebibytes());
}
