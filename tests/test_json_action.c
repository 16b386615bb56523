/* test_json_action.c - examples/json_action.c prints actions that a game can read, the same ones
 * every time. */

#define main example_main
#include "../examples/json_action.c"
#undef main

#include "test.h"
#include "../tools/shared/json.h"

#include <fcntl.h>
#include <unistd.h>

/* What the program prints; to be freed. */
static char *output(const char *path) {
    size_t size = 0;
    char name[] = "json_action";
    char *arguments[] = { name, NULL };
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(file, STDOUT_FILENO);
    CHECK(example_main(1, arguments) == 0, "the example failed");
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    close(file);
    return (char *)test_read(path, &size);
}

/* An object with an action, a target that exists, and perhaps words. */
static void check_action(const char *text, size_t length) {
    json j;
    json_start(&j, text, length);
    CHECK(json_next(&j) == JSON_OBJECT, "%.*s", (int)length, text);
    CHECK(json_next(&j) == JSON_KEY && json_key_is(&j, "action"), "%.*s", (int)length, text);
    CHECK(json_next(&j) == JSON_STRING, "%.*s", (int)length, text);
    CHECK(json_next(&j) == JSON_KEY && json_key_is(&j, "target"), "%.*s", (int)length, text);
    CHECK(json_next(&j) == JSON_STRING, "%.*s", (int)length, text);
    CHECK(json_text_is(&j, "king") || json_text_is(&j, "wolf") || json_text_is(&j, "old woman")
          || json_text_is(&j, "castle"), "%.*s", (int)length, text);
    if (json_next(&j) == JSON_KEY) {
        CHECK(json_key_is(&j, "words") && json_next(&j) == JSON_STRING, "%.*s", (int)length, text);
        json_next(&j);
    }
    CHECK(j.kind == JSON_OBJECT_END && json_next(&j) == JSON_END, "%s", j.error);
    json_stop(&j);
}

static void test_actions(void) {
    char *first = output(TEST_TMP "json_action.1"),
         *second = output(TEST_TMP "json_action.2"), *at;
    int count = 0;
    CHECK(first && second && strcmp(first, second) == 0, "two runs differ");
    for (at = first; at && (at = strstr(at, "\n    {")) != NULL; count++) {
        at += 5;
        check_action(at, strcspn(at, "\n"));
    }
    CHECK(count == 3, "%d actions", count);
    free(first);
    free(second);
}

int main(void) {
    RUN(test_actions);
    return test_end();
}
