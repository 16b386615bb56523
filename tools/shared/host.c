/* host.c - what the commands want of the system; see host.h. */

#include "host.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- messages and files ------------------------------------------------------------------- */

int complain(const char *format, ...) {
    va_list values;
    fflush(stdout);
    fprintf(stderr, "griffin: ");
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fprintf(stderr, "\n");
    return 1;
}

int text_open(file_bytes *t, const char *words, const char *file) {
    report r = { "" };
    memset(t, 0, sizeof *t);
    if (!words) return file_open(t, file ? file : "/dev/stdin", &r) ? complain("%s", r.text) : 0;
    t->data = (const unsigned char *)words;
    t->size = strlen(words);
    return 0;
}

static int write_whole(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    int good;
    if (!f) return 0;
    good = fwrite(data, 1, size, f) == size && !fflush(f) && !fsync(fileno(f));
    return !fclose(f) && good;
}

int file_replace(const char *path, const void *data, size_t size) {
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    if (n < 0 || n >= (int)sizeof temporary) return complain("the name is too long: %s", path);
    if (write_whole(temporary, data, size) && !rename(temporary, path)) return 0;
    complain("%s: %s", path, strerror(errno));
    unlink(temporary);
    return 1;
}

int output_flush(void) {
    if (!fflush(stdout) && !ferror(stdout)) return 0;
    clearerr(stdout);
    return complain("cannot write the output: %s", strerror(errno));
}

/* ---- interrupts --------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupts;

#ifdef __wasi__                             /* there are no signals */
void interrupt_catch(void) { }
#else
static void on_interrupt(int number) {
    (void)number;
    if (interrupts++) _exit(130);
}

/* Without SA_RESTART, so that reading a line ends too. */
void interrupt_catch(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, NULL);
}
#endif

int interrupted(void) { return interrupts != 0; }

void interrupt_clear(void) { interrupts = 0; }

/* ---- measures ----------------------------------------------------------------------------- */

double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#ifdef __wasi__                             /* memory only grows, by pages of 64 KiB */
double peak_mebibytes(void) { return (double)__builtin_wasm_memory_size(0) / 16; }
#else
double peak_mebibytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return (double)usage.ru_maxrss / (1 << 20);             /* bytes there, KiB elsewhere */
#else
    return (double)usage.ru_maxrss / (1 << 10);
#endif
}
#endif
