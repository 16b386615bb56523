/* test.h - plain checks, no framework.
 *
 * A test file is a program: it includes this header (and griffin.h with GRIFFIN_IMPLEMENTATION),
 * calls RUN(test_...) for each of its functions and returns test_end(). A failed CHECK is printed
 * with its place and values and the test goes on. A program that checked nothing fails. */

#ifndef TEST_H
#define TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The folder that tests may write to. make names another one for each build, since builds of the
 * same test may run at once; within it each test has names of its own. */
#ifndef TEST_TMP
  #define TEST_TMP "build/tmp/"
#endif

/* The last instruction set of griffin_cpu. */
#define LAST_CPU GRIFFIN_CPU_AMX

static int test_checks, test_failures, test_passed, test_failed;

/* CHECK(condition, "format", ...): the message says what the values were. */
#define CHECK(condition, ...) do { \
        test_checks++; \
        if (!(condition) && ++test_failures <= 50) { \
            printf("%s:%d: not true: %s: ", __FILE__, __LINE__, #condition); \
            printf(__VA_ARGS__); \
            printf("\n"); \
        } \
    } while (0)

#define RUN(test) test_run(#test, test)

static void test_run(const char *name, void (*test)(void)) {
    int checks = test_checks, failures = test_failures;
    test();
    if (test_checks == checks) { printf("%s checked nothing\n", name); test_failures++; }
    if (test_failures == failures) test_passed++;
    else { printf("%s FAILED\n", name); test_failed++; }
    fflush(stdout);
}

static int test_end(void) {
    printf("%d passed, %d failed\n", test_passed, test_failed);
    return test_failed != 0 || test_passed == 0;
}

/* A whole file, with a NUL after it; null if it cannot be read. The caller frees it. */
static inline unsigned char *test_read(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    *size = 0;
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    unsigned char *data = (unsigned char *)malloc((size_t)n + 1);
    if (fread(data, 1, (size_t)n, f) != (size_t)n) { free(data); data = NULL; }
    else data[n] = 0;
    fclose(f);
    *size = (size_t)n;
    return data;
}

#endif
