/* griffin_sqlite.c - characters in a database: griffin.h as a loadable extension of SQLite.
 *
 *     make sqlite && sqlite3 -cmd '.load build/griffin_sqlite'
 *     SELECT griffin_open('examples/models/storyteller.gguf');
 *     SELECT text FROM griffin_say(NULL, 'Once upon a time', 20, 7);
 *
 * griffin_open(path [, name])
 *     Opens a model for this connection, until it closes. Returns the name by which the functions
 *     below know it: that of the file, without its ending, if none is given. Their argument
 *     `model`, left out or NULL, means the model that was opened first. Views and triggers in a
 *     database file cannot call this function, since it reads files.
 * griffin_say(state, text, n, seed [, model [, temperature [, top_p]]])
 *     Reads a text, writes at most n tokens, and gives one row. `text` is what it wrote, `state`
 *     what it remembers now, for the next call, and `ended` is 1 if the model ended its text. With
 *     n = 0 it only reads. Temperature and top_p are 0.7 and 0.9 if they are left out; with
 *     temperature 0 it writes the likeliest token.
 * griffin_next(state, text [, model])
 *     What may come after a text: a row for each token, the likeliest first, with its number, its
 *     piece of text (a BLOB if that is not whole characters, NULL if it has none) and its
 *     probability.
 * griffin_score(text [, state [, model]])
 *     How well the model predicts the text: bits a byte. NULL if nothing of it can be predicted.
 *
 * An argument that is a column wants its table's name, as in griffin_say(characters.state, ...).
 *
 * A state is the BLOB that an earlier call gave, or a file of griffin persona, or NULL: a new text.
 * With text NULL the model goes on by itself, and with seed NULL the random numbers go on too: two
 * calls write what one would have written, and leave the same bytes. Nothing is remembered outside
 * these BLOBs, so a transaction that is rolled back takes back what was said in it. A call stays on
 * its thread. Connections share nothing, so that each may have a thread.
 *
 * A BLOB is made by griffin_save, with sampler and decoder. The last token of the text is not in
 * the state yet: it is the one that the sampler accepted last. So a call need not run the network
 * for a token that nobody may ask about. A save without a sampler is a persona. */

#define GRIFFIN_STATIC
#define GRIFFIN_IMPLEMENTATION
#include "../../griffin.h"

#include <sqlite3ext.h>

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SQLITE_EXTENSION_INIT1

enum {
    LONGEST = 4096,                         /* tokens of a call: nothing can interrupt it */
    ROWS    = 16,                           /* logits of so many tokens at once, for a score */
    PIECE   = 2048,                         /* bytes that a token can add to a text */
    MOST_ARGUMENTS = 7
};

typedef struct teller {                     /* an open model, and the text at hand */
    struct teller   *next;
    char            *name, *path;
    griffin_model   *model;
    griffin_context *context;
    void            *memory;                /* of the context */
    griffin_state   *state;
    griffin_sampler  sampler;
    griffin_decoder  decoder;
    int              begun;                 /* what is read next goes on in it */
    int32_t         *tokens;                /* that are to be read */
    int              count;
    float           *logits;                /* [ROWS][V] */
} teller;

typedef struct connection connection;

typedef struct module {                     /* what SQLite keeps for a table-valued function */
    connection              *connection;
    const struct table_type *type;
} module;

struct connection {
    teller *first;
    int     users;                          /* registrations in SQLite that point here */
    char    message[512];                   /* of the last error */
    module  say, next;
};

/* ---- errors ------------------------------------------------------------------------------------
 * Functions return a result code of SQLite. With SQLITE_ERROR the connection has the words. */

static int fail(connection *c, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->message, sizeof c->message, format, arguments);
    va_end(arguments);
    return SQLITE_ERROR;
}

/* The library's words for an error come before its result. */
static void on_message(int error, const char *text, void *user) {
    if (error < 0) fail((connection *)user, "%s", text);
}

static int check(connection *c, int64_t result) {
    if (result >= 0) return SQLITE_OK;
    if (result == GRIFFIN_E_MEMORY) return SQLITE_NOMEM;
    return c->message[0] ? SQLITE_ERROR : fail(c, "%s", griffin_error_string((int)result));
}

/* ---- models ---------------------------------------------------------------------------------- */

static void teller_free(teller *t) {
    griffin_close(t->model);
    free(t->memory); free(t->state); free(t->logits); free(t->tokens);
    sqlite3_free(t->name); sqlite3_free(t->path);
    free(t);
}

static int open_model(connection *c, teller *t) {
    griffin_options options = { .logger = { on_message, c } };
    griffin_context_options rows = { .no_slices = 1 };
    int error = griffin_open_file(&t->model, t->path, &options);
    if (error < 0) return check(c, error);
    if (!griffin_get_info(t->model)->has_vocabulary)
        return fail(c, "%s has no vocabulary", t->path);
    size_t size = griffin_context_size(t->model, &rows);
    size_t vocabulary = (size_t)griffin_get_info(t->model)->config.vocab;
    t->memory = malloc(size);
    t->state  = malloc(griffin_state_size(t->model));
    t->logits = malloc(ROWS * vocabulary * sizeof(float));
    if (!t->memory || !t->state || !t->logits) return SQLITE_NOMEM;
    return check(c, griffin_context_init(&t->context, t->model, &rows, t->memory, size));
}

/* The name of a file without folder and ending. */
static char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
#ifdef _WIN32
    const char *back = strrchr(path, '\\');
    if (back && (!slash || back > slash)) slash = back;
#endif
    const char *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t length = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    return sqlite3_mprintf("%.*s", (int)length, name);
}

/* Where the model of this name is, or the end of the list. */
static teller **find(connection *c, const char *name) {
    teller **place = &c->first;
    while (*place && strcmp((*place)->name, name) != 0) place = &(*place)->next;
    return place;
}

/* Opens a model, or finds it open. Takes `name`, which SQLite allocated. */
static int add_model(connection *c, const char *path, char *name, const char **known_as) {
    teller *t = calloc(1, sizeof *t), **place = name ? find(c, name) : NULL;
    int code = SQLITE_NOMEM;
    if (!t || !name) { free(t); sqlite3_free(name); return code; }
    t->name = name;
    t->path = sqlite3_mprintf("%s", path);
    if (*place && strcmp((*place)->path, path) == 0) code = SQLITE_OK;
    else if (*place) code = fail(c, "the name '%s' belongs to %s", name, (*place)->path);
    else if (t->path) code = open_model(c, t);
    if (code == SQLITE_OK && !*place) *place = t;
    else teller_free(t);
    if (code == SQLITE_OK) *known_as = (*place)->name;
    return code;
}

/* ---- arguments ------------------------------------------------------------------------------- */

typedef struct argument { const char *name, *is; int type; } argument;

#define STATE_ARGUMENT { "state", "a BLOB that griffin_say gave, or a persona", SQLITE_BLOB }
#define TEXT_ARGUMENT  { "text", "a text", SQLITE_TEXT }
#define MODEL_ARGUMENT { "model", "a name that griffin_open gave", SQLITE_TEXT }

static int is_null(sqlite3_value *value) {
    return !value || sqlite3_value_type(value) == SQLITE_NULL;
}

/* Each is of its type, or null. An integer is a number, too. */
static int check_arguments(connection *c, const argument *arguments, int count,
                           sqlite3_value **values) {
    for (int i = 0; i < count; i++) {
        int type = is_null(values[i]) ? SQLITE_NULL : sqlite3_value_type(values[i]);
        if (type == SQLITE_NULL || type == arguments[i].type) continue;
        if (type == SQLITE_INTEGER && arguments[i].type == SQLITE_FLOAT) continue;
        return fail(c, "%s must be %s, or NULL", arguments[i].name, arguments[i].is);
    }
    return SQLITE_OK;
}

static float number_or(sqlite3_value *value, double otherwise) {
    return (float)(is_null(value) ? otherwise : sqlite3_value_double(value));
}

static int find_model(connection *c, sqlite3_value *model, teller **found) {
    const char *name = is_null(model) ? NULL : (const char *)sqlite3_value_text(model);
    if (!is_null(model) && !name) return SQLITE_NOMEM;
    *found = name ? *find(c, name) : c->first;
    if (*found) return SQLITE_OK;
    return name ? fail(c, "no model '%s' is open", name)
                : fail(c, "no model is open: SELECT griffin_open('MODEL.gguf') first");
}

/* ---- a text: taken up, read, written --------------------------------------------------------- */

/* Takes up the text that a BLOB remembers. Of a persona no sampler was saved: a mismatch. */
static int take_up(connection *c, teller *t, sqlite3_value *state) {
    size_t size = is_null(state) ? 0 : (size_t)sqlite3_value_bytes(state);
    const void *data = size ? sqlite3_value_blob(state) : "";
    t->begun = 0;
    memset(&t->sampler, 0, sizeof t->sampler);
    memset(&t->decoder, 0, sizeof t->decoder);
    if (!data) return SQLITE_NOMEM;
    if (is_null(state)) {
        memset(t->state, 0, griffin_state_size(t->model));
        return SQLITE_OK;
    }
    int error = griffin_load(t->model, t->state, &t->sampler, &t->decoder, data, size);
    t->begun = error == GRIFFIN_OK;
    if (error == GRIFFIN_E_MISMATCH) {
        c->message[0] = 0;
        error = griffin_load(t->model, t->state, NULL, NULL, data, size);
    }
    return check(c, error);
}

static int32_t last_token(const griffin_sampler *s) {
    return s->recent[(s->accepted - 1) % GRIFFIN_RECENT];
}

/* Gathers the tokens to be read: the last one of the text before, and those of this text. */
static int gather(connection *c, teller *t, sqlite3_value *text) {
    griffin_encoding encoding = { .continues = t->begun };
    const char *words = is_null(text) ? "" : (const char *)sqlite3_value_text(text);
    size_t length = is_null(text) ? 0 : (size_t)sqlite3_value_bytes(text);
    int before = t->sampler.accepted > 0;
    if (!words) return SQLITE_NOMEM;
    int count = griffin_encode(t->model, &encoding, words, length, NULL, 0);
    if (count < 0) return check(c, count);
    int32_t *tokens = realloc(t->tokens, ((size_t)count + 1) * sizeof *tokens);
    if (!tokens) return SQLITE_NOMEM;
    if (before) tokens[0] = last_token(&t->sampler);
    t->tokens = tokens;
    t->count = before + count;
    t->sampler.accepted = 0;
    if (length) t->decoder = (griffin_decoder){ .started = 1 };
    return check(c, griffin_encode(t->model, &encoding, words, length, tokens + before, count));
}

static int begin(connection *c, sqlite3_value *state, sqlite3_value *text, sqlite3_value *model,
                 teller **found) {
    int code = find_model(c, model, found);
    if (code == SQLITE_OK) code = take_up(c, *found, state);
    if (code == SQLITE_OK) code = gather(c, *found, text);
    return code;
}

/* Reads what was gathered, and leaves the logits after it. */
static int read_all(connection *c, teller *t) {
    if (t->count == 0) return fail(c, "there is no text to go on from");
    return check(c, griffin_prefill(t->context, t->state, t->tokens, t->count, t->logits));
}

/* Reads all but the last token. */
static int listen(connection *c, teller *t) {
    int read = t->count - 1;
    if (read >= 0) griffin_accept(&t->sampler, t->tokens[read]);
    if (read <= 0) return SQLITE_OK;
    return check(c, griffin_prefill(t->context, t->state, t->tokens, read, NULL));
}

/* Draws one token, which goes into the text, or ends it. */
static int32_t draw(teller *t, sqlite3_str *text, int *ended) {
    const griffin_info *info = griffin_get_info(t->model);
    char piece[PIECE];
    int32_t token = griffin_sample(t->model, &t->sampler, t->logits);
    if (token < 0) return token;
    *ended = token == info->eos || token == info->end_of_turn;
    int length = griffin_decode(t->model, &t->decoder, *ended ? -1 : token, piece, sizeof piece);
    if (length < 0) return length;
    sqlite3_str_append(text, piece, length);
    return token;
}

/* Reads what was gathered and draws tokens. The last one is not read. */
static int speak(connection *c, teller *t, int n, sqlite3_str *text, int *ended) {
    int error = 0, code = read_all(c, t);
    if (code != SQLITE_OK) return code;
    for (int i = 0; i < n && !*ended; i++) {
        if (i > 0) error = griffin_step(t->context, t->state, last_token(&t->sampler), t->logits);
        if (error >= 0) error = draw(t, text, ended);
        if (error < 0) return check(c, error);
    }
    return sqlite3_str_errcode(text);
}

/* Of the tokens that the sampler accepted, only the last is kept, so that BLOBs do not depend on
 * how a text was cut into calls. With nothing heard the text has not begun: no sampler is saved. */
static int save(connection *c, teller *t, int heard, void **data, int64_t *size) {
    griffin_sampler s = t->sampler;
    const griffin_sampler *sampler = heard ? &s : NULL;
    const griffin_decoder *decoder = heard ? &t->decoder : NULL;
    memset(s.recent, 0, sizeof s.recent);
    if (s.accepted) s.recent[0] = last_token(&t->sampler);
    s.accepted = s.accepted > 0;
    *size = griffin_save(t->model, t->state, sampler, decoder, NULL, 0);
    if (*size < 0) return check(c, *size);
    *data = sqlite3_malloc64((sqlite3_uint64)*size);
    if (!*data) return SQLITE_NOMEM;
    return check(c, griffin_save(t->model, t->state, sampler, decoder, *data, (size_t)*size));
}

/* ---- functions ------------------------------------------------------------------------------- */

static void result_error(sqlite3_context *context, const char *function, int code) {
    const connection *c = sqlite3_user_data(context);
    char *words = code == SQLITE_ERROR ? sqlite3_mprintf("%s: %s", function, c->message) : NULL;
    if (words) sqlite3_result_error(context, words, -1);
    else sqlite3_result_error_code(context, code);
    sqlite3_free(words);
}

/* griffin_open(path [, name]) */
static void sql_open(sqlite3_context *context, int count, sqlite3_value **values) {
    static const argument arguments[] = { { "path", "a text", SQLITE_TEXT },
                                          { "name", "a text", SQLITE_TEXT } };
    connection *c = sqlite3_user_data(context);
    const char *path = NULL, *name = NULL;
    c->message[0] = 0;
    int code = check_arguments(c, arguments, count, values);
    if (code == SQLITE_OK) path = (const char *)sqlite3_value_text(values[0]);
    if (code == SQLITE_OK && !path) code = fail(c, "path must be a text");
    if (code == SQLITE_OK) {
        name = count > 1 ? (const char *)sqlite3_value_text(values[1]) : NULL;
        code = add_model(c, path, name ? sqlite3_mprintf("%s", name) : name_of(path), &name);
    }
    if (code == SQLITE_OK) sqlite3_result_text(context, name, -1, SQLITE_TRANSIENT);
    else result_error(context, "griffin_open", code);
}

/* log(sum of exp(logits)): what a logit is less than this are its nats. */
static double log_sum(const float *logits, int vocabulary) {
    double most = logits[0], sum = 0;
    for (int i = 1; i < vocabulary; i++) most = logits[i] > most ? logits[i] : most;
    for (int i = 0; i < vocabulary; i++) sum += exp(logits[i] - most);
    return log(sum) + most;
}

/* Adds up what all tokens but the first cost, each after those before it. */
static int measure(connection *c, teller *t, double *nats) {
    int vocabulary = griffin_get_info(t->model)->config.vocab, error = 0;
    griffin_span span = { .state = t->state, .logits = t->logits, .all_logits = 1 };
    for (int at = 0; at < t->count - 1 && error >= 0; at += span.count) {
        span.tokens = t->tokens + at;
        span.count = t->count - 1 - at < ROWS ? t->count - 1 - at : ROWS;
        error = griffin_run(t->context, &span, 1);
        for (int i = 0; i < span.count && error >= 0; i++) {
            const float *logits = t->logits + (size_t)i * (size_t)vocabulary;
            *nats += log_sum(logits, vocabulary) - logits[span.tokens[i + 1]];
        }
    }
    return check(c, error);
}

/* Adds up the bytes of the same tokens. */
static int count_bytes(connection *c, teller *t, int64_t *bytes) {
    griffin_decoder decoder = { .started = (unsigned char)t->begun };
    char piece[PIECE];
    for (int i = 0; i <= t->count; i++) {
        int32_t token = i < t->count ? t->tokens[i] : -1;
        int length = griffin_decode(t->model, &decoder, token, piece, sizeof piece);
        if (length < 0) return check(c, length);
        if (i > 0) *bytes += length;
    }
    return SQLITE_OK;
}

/* griffin_score(text [, state [, model]]) */
static void sql_score(sqlite3_context *context, int count, sqlite3_value **values) {
    static const argument arguments[] = { TEXT_ARGUMENT, STATE_ARGUMENT, MODEL_ARGUMENT };
    connection *c = sqlite3_user_data(context);
    teller *t;
    double nats = 0;
    int64_t bytes = 0;
    c->message[0] = 0;
    int code = check_arguments(c, arguments, count, values);
    if (code == SQLITE_OK) code = begin(c, count > 1 ? values[1] : NULL, values[0],
                                        count > 2 ? values[2] : NULL, &t);
    if (code == SQLITE_OK) code = measure(c, t, &nats);
    if (code == SQLITE_OK) code = count_bytes(c, t, &bytes);
    if (code != SQLITE_OK) result_error(context, "griffin_score", code);
    else if (bytes > 0) sqlite3_result_double(context, nats / log(2) / (double)bytes);
}

/* ---- table-valued functions ------------------------------------------------------------------ */

typedef struct likely { int32_t token; double probability; } likely;

typedef struct cursor {
    sqlite3_vtab_cursor base;
    teller       *teller;
    sqlite3_int64 row, rows;
    char   *text;                           /* of griffin_say */
    void   *state;
    int     text_size, ended;
    int64_t state_size;
    likely *ranks;                          /* of griffin_next, [V] */
} cursor;

typedef struct table_type {
    const char *name, *columns;             /* what it gives, then its arguments, hidden */
    int outputs, arguments;
    argument argument[MOST_ARGUMENTS];
    int  (*fill)(connection *c, cursor *rows, sqlite3_value **values);
    void (*column)(const cursor *rows, sqlite3_context *context, int column);
} table_type;

typedef struct table {
    sqlite3_vtab base;
    connection *connection;
    const table_type *type;
} table;

static int fill_say(connection *c, cursor *rows, sqlite3_value **values) {
    teller *t;
    sqlite3_int64 n = is_null(values[2]) ? -1 : sqlite3_value_int64(values[2]);
    if (n < 0 || n > LONGEST) return fail(c, "n must be a number from 0 to %d", LONGEST);
    int code = begin(c, values[0], values[1], values[4], &t);
    if (code != SQLITE_OK) return code;
    if (!is_null(values[3])) t->sampler.seed = (uint64_t)sqlite3_value_int64(values[3]);
    t->sampler.temperature = number_or(values[5], 0.7);
    t->sampler.top_p       = number_or(values[6], 0.9);
    int heard = n > 0 || t->begun || (!is_null(values[1]) && sqlite3_value_bytes(values[1]) > 0);
    sqlite3_str *text = sqlite3_str_new(NULL);
    if (heard) code = n > 0 ? speak(c, t, (int)n, text, &rows->ended) : listen(c, t);
    rows->rows = 1;
    rows->text_size = sqlite3_str_length(text);
    rows->text = sqlite3_str_finish(text);
    return code == SQLITE_OK ? save(c, t, heard, &rows->state, &rows->state_size) : code;
}

static void column_say(const cursor *rows, sqlite3_context *context, int column) {
    if (column == 0) sqlite3_result_text(context, rows->text ? rows->text : "", rows->text_size,
                                         SQLITE_TRANSIENT);
    if (column == 1) sqlite3_result_blob64(context, rows->state, (sqlite3_uint64)rows->state_size,
                                           SQLITE_TRANSIENT);
    if (column == 2) sqlite3_result_int(context, rows->ended);
}

static int by_probability(const void *a, const void *b) {
    const likely *x = a, *y = b;
    if (x->probability != y->probability) return x->probability > y->probability ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static int fill_next(connection *c, cursor *rows, sqlite3_value **values) {
    teller *t;
    int code = begin(c, values[0], values[1], values[2], &t);
    if (code == SQLITE_OK) code = read_all(c, t);
    if (code != SQLITE_OK) return code;
    int vocabulary = griffin_get_info(t->model)->config.vocab;
    rows->ranks = sqlite3_malloc64((sqlite3_uint64)vocabulary * sizeof *rows->ranks);
    if (!rows->ranks) return SQLITE_NOMEM;
    double sum = log_sum(t->logits, vocabulary);
    for (int32_t i = 0; i < vocabulary; i++) {
        double p = exp(t->logits[i] - sum);
        rows->ranks[i] = (likely){ i, p >= 0 ? p : 0 };     /* a damaged state may give NaN */
    }
    qsort(rows->ranks, (size_t)vocabulary, sizeof *rows->ranks, by_probability);
    rows->teller = t;
    rows->rows = vocabulary;
    return SQLITE_OK;
}

/* The text of a token, as far as it fits. *whole: it is characters, so that a decoder writes it as
 * it is. */
static int piece_of(const griffin_model *model, int32_t token, char piece[PIECE], int *whole) {
    griffin_decoder decoder = { .started = 1 };
    char decoded[PIECE];
    int length = griffin_token_text(model, token, piece, PIECE);
    *whole = griffin_decode(model, &decoder, token, decoded, PIECE) == length
          && memcmp(piece, decoded, (size_t)length) == 0;
    return length < PIECE ? length : PIECE;
}

static void column_next(const cursor *rows, sqlite3_context *context, int column) {
    const likely *at = &rows->ranks[rows->row];
    const griffin_model *model = rows->teller->model;
    char piece[PIECE];
    int whole;
    if (column == 0) sqlite3_result_int(context, at->token);
    if (column == 2) sqlite3_result_double(context, at->probability);
    if (column != 1 || at->token >= griffin_get_info(model)->tokens) return;
    int length = piece_of(model, at->token, piece, &whole);
    if (length > 0 && whole) sqlite3_result_text(context, piece, length, SQLITE_TRANSIENT);
    if (length > 0 && !whole) sqlite3_result_blob(context, piece, length, SQLITE_TRANSIENT);
}

static const table_type say_type = {
    "griffin_say", "CREATE TABLE x(text TEXT, state BLOB, ended INTEGER, state_before HIDDEN, "
    "heard HIDDEN, n HIDDEN, seed HIDDEN, model HIDDEN, temperature HIDDEN, top_p HIDDEN)", 3, 7,
    { STATE_ARGUMENT, TEXT_ARGUMENT, { "n", "a whole number", SQLITE_INTEGER },
      { "seed", "a whole number", SQLITE_INTEGER }, MODEL_ARGUMENT,
      { "temperature", "a number", SQLITE_FLOAT }, { "top_p", "a number", SQLITE_FLOAT } },
    fill_say, column_say
};

static const table_type next_type = {
    "griffin_next", "CREATE TABLE x(token INTEGER, piece, probability REAL, state_before HIDDEN, "
    "heard HIDDEN, model HIDDEN)", 3, 3,
    { STATE_ARGUMENT, TEXT_ARGUMENT, MODEL_ARGUMENT },
    fill_next, column_next
};

static int table_connect(sqlite3 *db, void *user, int argc, const char *const *argv,
                         sqlite3_vtab **made, char **error) {
    const module *m = user;
    (void)argc; (void)argv; (void)error;
    int code = sqlite3_declare_vtab(db, m->type->columns);
    table *t = code == SQLITE_OK ? sqlite3_malloc(sizeof *t) : NULL;
    if (!t) return code == SQLITE_OK ? SQLITE_NOMEM : code;
    memset(t, 0, sizeof *t);
    t->connection = m->connection;
    t->type = m->type;
    *made = &t->base;
    return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *vtab) {
    sqlite3_free(vtab);
    return SQLITE_OK;
}

/* The arguments are equations of the hidden columns. idxNum gets a bit for each that is there. */
static int table_plan(sqlite3_vtab *vtab, sqlite3_index_info *info) {
    const table_type *type = ((table *)vtab)->type;
    int places[MOST_ARGUMENTS], next = 0;
    info->idxNum = 0;
    info->estimatedCost = 1e6;
    for (int i = 0; i < info->nConstraint; i++) {
        int which = info->aConstraint[i].iColumn - type->outputs;
        if (which < 0 || info->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) continue;
        if (!info->aConstraint[i].usable) return SQLITE_CONSTRAINT;
        places[which] = i;
        info->idxNum |= 1 << which;
    }
    for (int which = 0; which < type->arguments; which++) {
        if (!(info->idxNum >> which & 1)) continue;
        info->aConstraintUsage[places[which]].argvIndex = ++next;
        info->aConstraintUsage[places[which]].omit = 1;
    }
    return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *vtab, sqlite3_vtab_cursor **opened) {
    cursor *rows = sqlite3_malloc(sizeof *rows);
    (void)vtab;
    if (!rows) return SQLITE_NOMEM;
    memset(rows, 0, sizeof *rows);
    *opened = &rows->base;
    return SQLITE_OK;
}

static void cursor_clear(cursor *rows) {
    sqlite3_vtab_cursor base = rows->base;
    sqlite3_free(rows->text); sqlite3_free(rows->state); sqlite3_free(rows->ranks);
    memset(rows, 0, sizeof *rows);
    rows->base = base;
}

static int cursor_close(sqlite3_vtab_cursor *base) {
    cursor_clear((cursor *)base);
    sqlite3_free(base);
    return SQLITE_OK;
}

static int cursor_filter(sqlite3_vtab_cursor *base, int given, const char *plan, int argc,
                         sqlite3_value **argv) {
    cursor *rows = (cursor *)base;
    table *t = (table *)base->pVtab;
    connection *c = t->connection;
    sqlite3_value *values[MOST_ARGUMENTS] = { NULL };
    (void)plan; (void)argc;
    for (int i = 0; i < MOST_ARGUMENTS; i++) if (given >> i & 1) values[i] = *argv++;
    cursor_clear(rows);
    c->message[0] = 0;
    int code = check_arguments(c, t->type->argument, t->type->arguments, values);
    if (code == SQLITE_OK) code = t->type->fill(c, rows, values);
    if (code == SQLITE_OK) return code;
    cursor_clear(rows);
    if (code != SQLITE_ERROR) return code;
    sqlite3_free(t->base.zErrMsg);
    t->base.zErrMsg = sqlite3_mprintf("%s: %s", t->type->name, c->message);
    return code;
}

static int cursor_next(sqlite3_vtab_cursor *base) {
    ((cursor *)base)->row++;
    return SQLITE_OK;
}

static int cursor_eof(sqlite3_vtab_cursor *base) {
    return ((cursor *)base)->row >= ((cursor *)base)->rows;
}

/* SQLite asks for an argument where it is an equation that it could not pass on: of a column with
 * itself, when somebody writes griffin_say(state, ...) and means characters.state. */
static int cursor_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column) {
    const table_type *type = ((table *)base->pVtab)->type;
    if (column < type->outputs) type->column((cursor *)base, context, column);
    else sqlite3_result_error(context, "an argument cannot be read: is a column meant that another "
                              "table has? Then write TABLE.COLUMN", -1);
    return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid) {
    *rowid = ((cursor *)base)->row;
    return SQLITE_OK;
}

/* Without xCreate a module is no more than functions. */
static const sqlite3_module module_methods = {
    .xConnect = table_connect, .xBestIndex = table_plan, .xDisconnect = table_disconnect,
    .xOpen = cursor_open, .xClose = cursor_close, .xFilter = cursor_filter, .xNext = cursor_next,
    .xEof = cursor_eof, .xColumn = cursor_column, .xRowid = cursor_rowid
};

/* ---- loading --------------------------------------------------------------------------------- */

static void release(connection *c) {
    if (--c->users > 0) return;
    while (c->first) {
        teller *t = c->first;
        c->first = t->next;
        teller_free(t);
    }
    sqlite3_free(c);
}

static void release_function(void *user) { release(user); }
static void release_module(void *user)   { release(((module *)user)->connection); }

/* SQLite releases what it cannot register, too. */
static int add_function(sqlite3 *db, connection *c, const char *name, int arguments, int flags,
                        void (*function)(sqlite3_context *, int, sqlite3_value **)) {
    c->users++;
    return sqlite3_create_function_v2(db, name, arguments, SQLITE_UTF8 | flags, c, function, NULL,
                                      NULL, release_function);
}

static int add_module(sqlite3 *db, connection *c, module *m, const table_type *type) {
    c->users++;
    m->connection = c;
    m->type = type;
    return sqlite3_create_module_v2(db, type->name, &module_methods, m, release_module);
}

static int add_all(sqlite3 *db, connection *c) {
    int code = SQLITE_OK;
    for (int n = 1; n <= 2 && code == SQLITE_OK; n++)
        code = add_function(db, c, "griffin_open", n, SQLITE_DIRECTONLY, sql_open);
    for (int n = 1; n <= 3 && code == SQLITE_OK; n++)
        code = add_function(db, c, "griffin_score", n, 0, sql_score);
    if (code == SQLITE_OK) code = add_module(db, c, &c->say, &say_type);
    if (code == SQLITE_OK) code = add_module(db, c, &c->next, &next_type);
    return code;
}

/* The name is that of the file, as SQLite looks for it. */
#ifdef _WIN32
__declspec(dllexport)
#elif defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int sqlite3_griffinsqlite_init(sqlite3 *db, char **error, const sqlite3_api_routines *api) {
    SQLITE_EXTENSION_INIT2(api)
    connection *c = sqlite3_malloc(sizeof *c);
    if (!c) return SQLITE_NOMEM;
    memset(c, 0, sizeof *c);
    c->users = 1;
    int code = add_all(db, c);
    if (code != SQLITE_OK) *error = sqlite3_mprintf("%s", sqlite3_errmsg(db));
    release(c);
    return code;
}
