/* griffin.c - the command line program: griffin COMMAND [options], one source file for each. */

#include "../griffin.h"
#include "shared/host.h"

#include <stdio.h>
#include <string.h>

int command_run(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_info(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_perplexity(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_train(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int, char **);
    const char *about;
} commands[] = {
    { "run",        command_run,        "continue a prompt" },
    { "chat",       command_chat,       "have a conversation" },
    { "info",       command_info,       "show what a model file holds" },
    { "tokenize",   command_tokenize,   "turn text into tokens and back" },
    { "perplexity", command_perplexity, "measure how well a model predicts a text" },
    { "logits",     command_logits,     "write the raw output for given tokens" },
    { "convert",    command_convert,    "make a model file from a checkpoint" },
    { "bench",      command_bench,      "measure speed against the machine's limits" },
    { "train",      command_train,      "make a model of your own from a text" }
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int help(void) {
    printf("griffin runs Griffin, Hawk and RecurrentGemma language models.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  griffin %-11s %s\n", commands[i].name, commands[i].about);
    printf("\ngriffin COMMAND --help tells more.\n");
    return 0;
}

static int dispatch(int argc, char **argv) {
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[0], commands[i].name)) return commands[i].run(argc, argv);
    fprintf(stderr, "griffin: there is no command '%s'; see: griffin help\n", argv[0]);
    return 2;
}

static int version(void) {
    int v = griffin_version();
    printf("griffin %d.%d.%d\n", v / 10000, v / 100 % 100, v % 100);
    return 0;
}

static int start(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "help";
    char ask[] = "--help", *asked[2] = { NULL, ask };
    if (!strcmp(word, "--version") || !strcmp(word, "version")) return version();
    if (!strcmp(word, "help") && argc > 2) { asked[0] = argv[2]; return dispatch(2, asked); }
    if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h")) return help();
    return dispatch(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
    host_start(&argc, &argv);
    int status = start(argc, argv);
    int lost = output_flush();
    return status ? status : lost;
}
