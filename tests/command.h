/* command.h - runs commands of the program inside a test. LOG, which the test defines, is the file
 * that receives what they print. */

#ifndef COMMAND_H
#define COMMAND_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static inline int split_words(char *words, char **argv) {
    int argc = 0;
    for (char *word = strtok(words, " "); word && argc < 63; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    return argc;
}

/* A command with its words, which prints to LOG. */
static inline int call(int (*run)(int, char **), const char *words) {
    char copy[2048], *argv[64];
    int kept[2], log = open(LOG, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    snprintf(copy, sizeof copy, "%s", words);
    fflush(stdout);
    for (int i = 1; i <= 2; i++) { kept[i - 1] = dup(i); dup2(log, i); }
    int status = run(split_words(copy, argv), argv);
    fflush(stdout);
    for (int i = 1; i <= 2; i++) { dup2(kept[i - 1], i); close(kept[i - 1]); }
    close(log);
    return status;
}

#endif
