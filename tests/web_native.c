/* web_native.c - the engine of examples/web on this machine, for tests/web.mjs to compare with.
 *
 *     web_native MODEL SEED TEXT TOKENS [PERSONA]
 *
 * prints, after the text and after each of so many tokens, how many tokens were read, the
 * fingerprint of the logits (griffin.js says which), and the tale so far as a JSON string. */

#include "../examples/web/web.c"

#include <stdio.h>
#include <stdlib.h>

static void print_moment(const char *tale) {
    const unsigned char *logits = (const unsigned char *)page_logits();
    uint32_t hash = 0x811c9dc5u;
    for (size_t i = 0; i < page_logits_size(); i++) hash = (hash ^ logits[i]) * 0x01000193u;
    printf("%d %08x \"", page_position(), (unsigned)hash);
    for (; *tale; tale++)
        if (*tale == '\n') printf("\\n");
        else printf(*tale == '"' || *tale == '\\' ? "\\%c" : "%c", *tale);
    printf("\"\n");
}

static int become(const char *persona) {
    enum { MOST = 1 << 18 };
    void *data = page_reserve(MOST);
    FILE *file = fopen(persona, "rb");
    if (!file) return 1;
    size_t size = fread(data, 1, MOST, file);
    fclose(file);
    return page_persona(data, size);
}

int main(int argc, char **argv) {
    enum { ROOM = 8 << 20 };
    static char tale[1 << 16];
    void *model = page_reserve(ROOM);
    FILE *file = argc >= 5 ? fopen(argv[1], "rb") : NULL;
    size_t length;
    if (!file) return 1;
    if (page_open(model, fread(model, 1, ROOM, file), (uint32_t)atoi(argv[2])) < 0) return 1;
    fclose(file);
    if (argc > 5 && become(argv[5])) return 1;
    snprintf(tale, sizeof tale / 2, "%s", argv[3]);
    if (page_listen(tale, strlen(tale)) < 0) return 1;
    for (int left = atoi(argv[4]); left >= 0; left--) {
        while (page_work()) {}
        print_moment(tale);
        length = strlen(tale);
        if (page_speak(tale + length, sizeof tale - length) < 0) return 1;
    }
    return 0;
}
