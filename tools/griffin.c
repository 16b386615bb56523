/* griffin.c - the command line program: griffin COMMAND [options]. Each command has a file. */

#include "../griffin.h"
#include "shared/host.h"
#include "shared/options.h"

#include <stdio.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* A command receives its name as argv[0]. It returns the status to exit with: 0, 1 after an error,
 * 2 after wrong usage. */
typedef int command_main(int argc, char **argv);

command_main command_run, command_chat, command_info, command_tokenize, command_perplexity,
             command_logits, command_convert, command_bench, command_train, command_persona;

static const struct { const char *name; command_main *run; const char *about; } commands[] = {
    { "run",        command_run,        "continue a prompt" },
    { "chat",       command_chat,       "have a conversation" },
    { "info",       command_info,       "show what a model file holds" },
    { "tokenize",   command_tokenize,   "turn text into tokens and back" },
    { "perplexity", command_perplexity, "measure how well a model predicts a text" },
    { "logits",     command_logits,     "write the logits after given tokens" },
    { "convert",    command_convert,    "make a model file from a checkpoint" },
    { "bench",      command_bench,      "measure speed against the machine's limits" },
    { "train",      command_train,      "make a model of your own from a text" },
    { "persona",    command_persona,    "make a character from a text: a first state" }
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int help(void) {
    printf("griffin runs recurrent language models: Griffin, Hawk, RecurrentGemma, HGRN2 and SUPRA,\n"
           "and Transformers of Llama's layout with a window.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  griffin %-12s%s\n", commands[i].name, commands[i].about);
    printf("\n  griffin %-12s%s\n", "help", "this text; with a COMMAND, its options");
    printf("  griffin %-12s%s\n", "version", "the version of the library");
    printf("\nExit status: 0; 1 after an error; 2 if the command line is wrong; 130 after Ctrl-C.\n");
    return 0;
}

static int version(void) {
    int v = griffin_version();
    printf("griffin %d.%d.%d\n", v / 10000, v / 100 % 100, v % 100);
    return 0;
}

static int run_command(int argc, char **argv) {
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[0], commands[i].name)) return commands[i].run(argc, argv);
    complain("there is no command '%s'; see: griffin help", argv[0]);
    return 2;
}

static int run(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "help";
    if (!strcmp(word, "version") || !strcmp(word, "--version")) return version();
    if (!strcmp(word, "help") && argc > 2) {
        char asked[] = "--help", *words[] = { argv[2], asked };
        return run_command(2, words);
    }
    if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h")) return help();
    return run_command(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
    host_start(&argc, &argv);
#ifdef _OPENMP                              /* it ends the process if it cannot make its threads */
    if (omp_get_max_threads() > MOST_THREADS) omp_set_num_threads(MOST_THREADS);
#endif
    int status = run(argc, argv), lost = output_flush();
    return status ? status : lost;
}
