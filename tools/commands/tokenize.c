/* tokenize.c - griffin tokenize: text to tokens, and back. */

#include "../shared/session.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text to tokens ----------------------------------------------------------------------- */

static const char *kind_name(int kind) {
    switch (kind) {
    case GRIFFIN_TOKEN_UNKNOWN: return "unknown";
    case GRIFFIN_TOKEN_CONTROL: return "control";
    case GRIFFIN_TOKEN_UNUSED:  return "unused";
    default:                    return "empty";
    }
}

/* Prints whole characters as they are, control bytes and parts of characters in hexadecimal. */
static void print_quoted(const char *bytes, int n) {
    putchar('\'');
    for (int i = 0, size; i < n; i += size ? size : 1) {
        size = (int)report_printable(bytes + i, (size_t)(n - i));
        if (bytes[i] == '\n') printf("\\n");
        else if (bytes[i] == '\'' || bytes[i] == '\\') printf("\\%c", bytes[i]);
        else report_print(bytes + i, size ? (size_t)size : 1);
    }
    putchar('\'');
}

static int print_token(session *s, int32_t token) {
    char bytes[512];
    int n = griffin_token_text(s->model, token, bytes, sizeof bytes);
    if (n < 0) return session_error(s, n);
    printf("%6d ", token);
    if (n > 0) print_quoted(bytes, n < (int)sizeof bytes ? n : (int)sizeof bytes);
    else printf("(%s)", kind_name(griffin_token_type(s->model, token)));
    printf("\n");
    return 0;
}

static int print_tokens(session *s, const token_list *list, int only_ids) {
    int status = 0;
    if (!only_ids) {
        for (int i = 0; i < list->count && !status; i++) status = print_token(s, list->data[i]);
        return status;
    }
    for (int i = 0; i < list->count; i++) printf(i ? ", %d" : "[%d", list->data[i]);
    printf(list->count ? "]\n" : "[]\n");
    return 0;
}

static int encode(session *s, const file_bytes *words, int no_bos, int only_ids) {
    griffin_encoding encoding;
    token_list list = { NULL, 0, 0 };
    memset(&encoding, 0, sizeof encoding);
    encoding.no_bos = no_bos;
    encoding.ends = !no_bos;
    int status = tokens_add_text(&list, s, &encoding, words->data, words->size)
              || print_tokens(s, &list, only_ids);
    tokens_free(&list);
    return status;
}

/* ---- tokens to text ----------------------------------------------------------------------- */

/* Reads ids with spaces, commas and brackets between them, as --ids prints them. */
static int read_ids(token_list *list, const char *ids, int vocab) {
    const char *at = ids + strspn(ids, " ,[]\n");
    while (*at) {
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || errno || id < 0 || id >= vocab)
            complain("--decode: '%.20s' does not begin with a token from 0 to %d", at, vocab - 1);
        if (end == at || errno || id < 0 || id >= vocab) return 2;
        if (tokens_add(list, (int32_t)id)) return 1;
        at = end + strspn(end, " ,[]\n");
    }
    return 0;
}

static int decode(session *s, const char *ids) {
    token_list list = { NULL, 0, 0 };
    int status = read_ids(&list, ids, s->info->config.vocab);
    for (int i = 0; i < list.count && !status; i++) status = session_show(s, list.data[i], 1);
    if (!status) status = session_show(s, -1, 1);
    if (!status) printf("\n");
    tokens_free(&list);
    return status;
}

/* ---- the command -------------------------------------------------------------------------- */

int command_tokenize(int argc, char **argv) {
    model_options o = MODEL_DEFAULTS;
    session s;
    file_bytes words;
    const char *prompt = NULL, *file = NULL, *ids = NULL;
    int no_bos = 0, only_ids = 0;
    const option table[] = {
        MODEL_OPTIONS(o),
        { "prompt", "p", OPTION_TEXT, &prompt, "TEXT", "the text" },
        { "file", "f", OPTION_TEXT, &file, "FILE", "read the text from a file" },
        { "ids", NULL, OPTION_FLAG, &only_ids, NULL, "print a list of numbers" },
        { "no-bos", NULL, OPTION_FLAG, &no_bos, NULL, "leave out tokens that begin or end a text" },
        { "decode", NULL, OPTION_TEXT, &ids, "IDS", "print the text of these tokens" },
        { NULL, NULL, OPTION_END, NULL, NULL, NULL }
    };
    const command c = { "tokenize", "MODEL [-p TEXT | -f FILE | --decode IDS] [options]",
                        "Turns text, also from standard input, into tokens, one a line.",
                        table };
    int status = options_parse(&c, argc, argv);
    if (status >= 0) return status;
    if ((prompt != NULL) + (file != NULL) + (ids != NULL) > 1)
        return options_wrong(&c, "-p, -f and --decode exclude each other");
    if (!prompt && !file && !ids && is_terminal(stdin))
        return options_wrong(&c, "no text: give -p TEXT, -f FILE, or standard input");
    if ((status = session_open(&s, &c, &o, NEEDS_TEXT)) != 0) return status;
    if (ids) status = decode(&s, ids);
    else status = text_open(&words, prompt, file) || encode(&s, &words, no_bos, only_ids);
    file_close(&words);
    session_close(&s);
    return status;
}
