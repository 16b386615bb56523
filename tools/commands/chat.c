/* chat.c - griffin chat: a conversation in the turns that a model was trained on, see turns.h. The
 * state is the whole memory of the conversation: no text is read twice. */

#include "turns.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat {
    session s;
    griffin_sampler sampler;
    turns turns;
    const char *format, *system;            /* of the options */
    const text_list *personas;
    int limit, raw;
    double stopped;                         /* when Ctrl-C stopped an answer */
} chat;

/* ---- one turn ----------------------------------------------------------------------------- */

static int add_raw(chat *c, token_list *list, int begins, const char *words, size_t size) {
    griffin_encoding plain;
    memset(&plain, 0, sizeof plain);
    plain.no_special = 1;
    plain.continues = !begins;
    return tokens_add_text(list, &c->s, &plain, words, size);
}

static int answer(chat *c, const char *words, size_t size) {
    token_list list = { NULL, 0, 0 };
    int begins = !session_has_begun(&c->s);
    int status = c->raw ? add_raw(c, &list, begins, words, size)
                        : turns_add(&c->turns, &list, begins, words, size);
    if (!status && list.count > 0) status = session_feed(&c->s, &list, &c->sampler, 0);
    if (!status) status = session_generate(&c->s, &c->sampler, c->limit, ENDS_END);
    tokens_free(&list);
    status = status || session_end_line();
    if (!status && c->s.is_cut) note(CUT_MESSAGE, c->limit);
    return status;
}

/* ---- commands: after a message about a failure the conversation goes on --------------------- */

static void save(chat *c, const char *path) {
    if (session_save(&c->s, &c->sampler, &c->s.decoder, path)) return;
    printf("saved in ");
    report_print(path, strlen(path));
    printf("\n");
}

static void load(chat *c, const char *path) {
    file_bytes file;
    report r = { "" };
    if (file_open(&file, path, &r)) complain("%s", r.text);
    else {
        int error = griffin_load(c->s.model, c->s.state, &c->sampler, &c->s.decoder, file.data,
                             (size_t)file.size);
        if (error < 0) session_error(&c->s, error);
        else {
            printf("the conversation of ");
            report_print(path, strlen(path));
            printf(" goes on\n");
        }
    }
    file_close(&file);
}

static const char chat_help[] =
    "/reset      forget the conversation\n"
    "/save FILE  write the conversation's memory and the sampler to a file\n"
    "/load FILE  continue from such a file, as if it had never been left\n"
    "/quit       leave; so do /exit and the end of the input\n"
    "Ctrl-C stops an answer. At the prompt it leaves the program.\n";

/* Carries out a command such as /save. Returns 0 to leave the conversation. */
static int run_command(chat *c, const char *line) {
    const char *word = line + strcspn(line, " ");
    size_t length = (size_t)(word - line);
    const char *name = word + strspn(word, " ");
    if (!strncmp(line, "/quit", 6) || !strncmp(line, "/exit", 6)) return 0;
    if (!strcmp(line, "/reset")) session_reset(&c->s, &c->sampler);
    else if (length == 5 && !memcmp(line, "/save", 5) && *name) save(c, name);
    else if (length == 5 && !memcmp(line, "/load", 5) && *name) load(c, name);
    else if (!strcmp(line, "/help")) fputs(chat_help, stdout);
    else printf("there is no such command: /help lists them\n");
    return 1;
}

/* ---- the conversation ----------------------------------------------------------------------- */

static char *trim(char *line, size_t *size) {
    for (; isspace((unsigned char)*line); line++) --*size;
    while (*size > 0 && isspace((unsigned char)line[*size - 1])) --*size;
    line[*size] = 0;
    return line;
}

/* A second Ctrl-C just after one that stopped an answer is meant for that answer, too. */
static int is_late(chat *c) {
    if (!interrupted() || seconds_now() - c->stopped > 1) return 0;
    c->stopped = seconds_now();
    return 1;
}

/* A line that holds a NUL is no command. Returns 0 to leave the conversation. */
static int hear(chat *c, char *line, size_t size, int *status) {
    const char *words = *line == '/' || !c->raw ? trim(line, &size) : line;
    if (*words == '/' && strlen(words) == size) return run_command(c, words);
    if (size > 0) *status = answer(c, words, size);
    if (interrupted()) c->stopped = seconds_now();
    return 1;
}

static int converse(chat *c) {
    int terminal = is_terminal(stdin), status = 0, going = 1;
    interrupt_catch(1);
    while (going && !status) {
        if (terminal) printf("> ");
        if ((status = output_flush()) != 0) break;
        interrupt_clear();
        size_t size;
        char *line = input_line(&size);
        if (line) going = hear(c, line, size, &status);
        else if (!is_late(c)) break;
        free(line);
    }
    if (terminal && going) printf("\n");
    return status;
}

static int open_turns(chat *c, const char *path) {
    if (c->raw) return 0;
    if (turns_open(&c->turns, &c->s, path, c->format, c->system)) return 1;
    if (c->turns.end >= 0) c->s.end_of_turn = c->turns.end;
    return 0;
}

static int open_and_converse(const command *how, chat *c, const model_options *o,
                             const control_options *control, const guess_options *guess) {
    int status = session_open(&c->s, how, o, NEEDS_TEXT);
    if (status) return status;
    c->s.seed = c->sampler.seed;
    status = session_control(&c->s, how, control);
    if (!status)
        status = session_personas(&c->s, c->personas) || session_guess(&c->s, o, guess)
              || open_turns(c, o->path);
    if (!status) {
        status = converse(c);
        session_statistics(&c->s);
    }
    turns_free(&c->turns);
    session_close(&c->s);
    return status;
}

int command_chat(int argc, char **argv) {
    model_options o = MODEL_DEFAULTS;
    griffin_sampler sampler = SAMPLER_DEFAULTS;
    control_options control = CONTROL_DEFAULTS;
    guess_options guess = GUESS_DEFAULTS;
    const char *system = NULL, *format = NULL;
    text_list personas = NO_PERSONAS;
    int limit = 512, raw = 0;
    const option table[] = {
        MODEL_OPTIONS(o),
        { "n-predict", "n", OPTION_LIMIT, &limit, "N", "longest answer in tokens; -1: no limit" },
        { "predict", NULL, OPTION_LIMIT, &limit, "N", NULL },
        PERSONA_OPTION(personas),
        SAMPLER_OPTIONS(sampler),
        CONTROL_OPTIONS(control),
        GUESS_OPTIONS(guess),
        { "raw", NULL, OPTION_FLAG, &raw, NULL, "no turns: the model continues what you write" },
        { "system", NULL, OPTION_TEXT, &system, "TEXT", "what the model is told before you begin" },
        { "system-prompt", "sys", OPTION_TEXT, &system, "TEXT", NULL },
        { "chat-format", NULL, OPTION_TEXT, &format, "NAME",
          "how turns are written: gemma, chatml, llama-3, ...; see README" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command how = { "chat", "MODEL [options]",
                          "A conversation with a model trained for it; /help at the prompt.",
                          table };
    int status = options_parse(&how, argc, argv);
    chat c;
    if (status < 0 && raw && (system || format))
        return options_wrong(&how, "--raw knows no turns: neither --system nor --chat-format");
    if (status < 0 && format && !turns_knows(format))
        return options_wrong(&how, "--chat-format '%s': the formats are %s", format, turns_names());
    if (status < 0 && control.heal && !raw)
        return options_wrong(&how, "--heal needs --raw: an answer begins a turn of its own");
    if (status < 0) status = sampler_prepare(&how, &sampler);
    if (status >= 0) return status;
    memset(&c, 0, sizeof c);
    c.sampler = sampler;
    c.limit = limit;
    c.raw = raw;
    c.stopped = -1;
    c.format = format;
    c.system = system;
    c.personas = &personas;
    return open_and_converse(&how, &c, &o, &control, &guess);
}
