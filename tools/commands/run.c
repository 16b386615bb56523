/* run.c - griffin run: continues a prompt. */

#include "../shared/session.h"

#include <stdio.h>
#include <string.h>

typedef struct run_options {
    model_options model;
    griffin_sampler sampler;
    control_options control;
    guess_options guess;
    text_list personas;
    const char *prompt, *file;
    int limit, ignore_eos, carry_on, hide_prompt;
} run_options;

static int run(session *s, run_options *o, const file_bytes *prompt) {
    token_list tokens = { NULL, 0, 0 };
    int status = tokens_add_text(&tokens, s, NULL, prompt->data, prompt->size);
    if (!status && tokens.count == 0)
        status = complain("the prompt is empty, and this model has no token to begin with");
    int ends = o->carry_on ? ENDS_IGNORED : o->ignore_eos ? ENDS_BEGIN : ENDS_END;
    interrupt_catch(0);
    if (!status) status = session_feed(s, &tokens, &o->sampler, !o->hide_prompt);
    if (!status) status = session_generate(s, &o->sampler, o->limit, ends);
    if (!status) {
        status = session_end_line();
        session_statistics(s);
        if (!status && s->is_cut) status = complain(CUT_MESSAGE, o->limit);
    }
    tokens_free(&tokens);
    return !status && interrupted() ? 130 : status;
}

/* Editors and echo end a text with a newline, which is seldom meant as part of the prompt. */
static void drop_last_newline(file_bytes *t) {
    if (t->size > 0 && t->data[t->size - 1] == '\n') t->size--;
}

static int open_and_run(const command *c, run_options *o) {
    session s;
    file_bytes prompt;
    if (!o->prompt && !o->file && is_terminal(stdin))
        return options_wrong(c, "no prompt: give -p TEXT, -f FILE, or standard input");
    if (o->prompt && o->file) return options_wrong(c, "-p and -f exclude each other");
    int status = text_open(&prompt, o->prompt, o->file);
    if (!o->prompt) drop_last_newline(&prompt);
    if (!status) status = session_open(&s, c, &o->model, NEEDS_TEXT);
    if (!status) {
        s.seed = o->sampler.seed;
        status = session_control(&s, c, &o->control);
        if (!status)
            status = session_personas(&s, &o->personas)
                  || session_guess(&s, &o->model, &o->guess);
        if (!status) status = run(&s, o, &prompt);
        session_close(&s);
    }
    file_close(&prompt);
    return status;
}

int command_run(int argc, char **argv) {
    run_options o = { MODEL_DEFAULTS, SAMPLER_DEFAULTS, CONTROL_DEFAULTS, GUESS_DEFAULTS,
                      NO_PERSONAS, NULL, NULL, 256, 0, 0, 0 };
    const option table[] = {
        MODEL_OPTIONS(o.model),
        { "prompt", "p", OPTION_TEXT, &o.prompt, "TEXT", "how the text begins" },
        { "file", "f", OPTION_TEXT, &o.file, "FILE", "read the prompt from a file" },
        { "n-predict", "n", OPTION_LIMIT, &o.limit, "N", "tokens to write; -1: until the end" },
        { "predict", NULL, OPTION_LIMIT, &o.limit, "N", NULL },
        PERSONA_OPTION(o.personas),
        SAMPLER_OPTIONS(o.sampler),
        CONTROL_OPTIONS(o.control),
        GUESS_OPTIONS(o.guess),
        { "ignore-eos", NULL, OPTION_FLAG, &o.ignore_eos, NULL,
          "begin a new text where the model would end" },
        { "carry-on", NULL, OPTION_FLAG, &o.carry_on, NULL,
          "go on in the same text where the model would end" },
        { "no-display-prompt", NULL, OPTION_FLAG, &o.hide_prompt, NULL, "print only what is new" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "run", "MODEL [-p PROMPT | -f FILE] [options]",
                        "Continues a prompt, which may also come from standard input.",
                        table };
    int status = options_parse(&c, argc, argv);
    if (status < 0) status = sampler_prepare(&c, &o.sampler);
    return status < 0 ? open_and_run(&c, &o) : status;
}
