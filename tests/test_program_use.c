/* Promise: the program behaves in a shell. It reads what it is given, however it is given; writes a
 * file without harm to what is there; ends or goes on at Ctrl-C as it says; and sends nothing from
 * a file to a terminal that is not text. */

#include "griffin.h"
#include "test.h"

#if defined(_WIN32) || defined(__wasi__)

static void test_nothing(void) { CHECK(1, "this system has no shell"); }

int main(void) { RUN(test_nothing); return test_end(); }

#else

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define G     "build/griffin"
#define MODEL "examples/models/storyteller.gguf"
#define WORK  TEST_TMP "use/"
#define TINY  "tests/data/griffin-tiny --name tiny "
#define RUNS  G " run " MODEL " -n 6 -s 1 "
#define TALK  G " chat --raw " MODEL " -n 6 -s 1 "

/* ---- running the program --------------------------------------------------------------------- */

static int status_of(int end) { return WIFEXITED(end) ? WEXITSTATUS(end) : -WTERMSIG(end); }

/* What a line of shell prints on standard output, ended by a NUL; free it. */
static char *shell_size(int expected, size_t *size, const char *line) {
    enum { MOST = 1 << 20 };
    char *text = (char *)calloc(1, MOST);
    FILE *pipe = popen(line, "r");
    if (!pipe || !text) abort();
    *size = fread(text, 1, MOST - 1, pipe);
    int status = status_of(pclose(pipe));
    CHECK(status == expected, "%s\nended with %d, not with %d:\n%s", line, status, expected, text);
    return text;
}

static char *shell(int expected, const char *line) {
    size_t size;
    return shell_size(expected, &size, line);
}

static void check_says(int expected, const char *line, const char *words) {
    char *text = shell(expected, line);
    CHECK(strstr(text, words), "%s\nshould say '%s', not:\n%s", line, words, text);
    free(text);
}

static void check_same(const char *line, const char *other) {
    char *one = shell(0, line), *two = shell(0, other);
    CHECK(*one && strcmp(one, two) == 0, "%s\n%s%s\n%s", line, one, other, two);
    free(one);
    free(two);
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

static void write_text(const char *path, const char *text) { write_file(path, text, strlen(text)); }

static void wait_seconds(double seconds) {
    struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    nanosleep(&t, NULL);
}

typedef struct child { pid_t id; int in, out; } child;

/* A child whose standard streams are pipes, or one socket; standard error is a file. */
static child start(char *const words[], int with_socket) {
    int in[2], out[2];
    child c;
    if (with_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, in) : pipe(in)) abort();
    if (pipe(out)) abort();
    c.id = fork();
    if (c.id == 0) {
        int log = open(WORK "log.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        signal(SIGINT, SIG_DFL);
        dup2(in[0], 0); dup2(out[1], 1); dup2(log, 2);
        close(in[0]); close(in[1]); close(out[0]); close(out[1]); close(log);
        execv(G, words);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    c.in = in[1];
    c.out = out[0];
    return c;
}

static void tell(const child *c, const char *words) {
    CHECK(write(c->in, words, strlen(words)) == (ssize_t)strlen(words), "%s", words);
}

/* Reads to the end; returns the status. What was read is in *text, to be freed. */
static int finish(child *c, char **text) {
    size_t size = 0, room = 1 << 22;
    int end = 0;
    *text = (char *)calloc(1, room);
    close(c->in);
    for (ssize_t n = 1; *text && n > 0 && size + 1 < room; size += n > 0 ? (size_t)n : 0)
        n = read(c->out, *text + size, room - 1 - size);
    close(c->out);
    waitpid(c->id, &end, 0);
    return status_of(end);
}

/* ---- what is read ---------------------------------------------------------------------------- */

static void test_standard_input_is_what_is_left_of_it(void) {
    static const char plain[] = RUNS "-p 'Then the king' 2>&-";
    write_text(WORK "lines.txt", "Once upon\nThen the king\n");
    check_same("{ read x; " RUNS "2>&-; } < " WORK "lines.txt", plain);
    check_same("{ read x; " RUNS "-f - 2>&-; } < " WORK "lines.txt", plain);
    check_same("{ read x; " RUNS "-f /dev/stdin 2>&-; } < " WORK "lines.txt", plain);
    check_same("{ read x; " RUNS "-f /dev/fd/0 2>&-; } < " WORK "lines.txt", plain);
    check_same("{ read x <&5; " RUNS "-f /dev/fd/5 2>&-; } 5< " WORK "lines.txt", plain);
    check_same("echo Then the king | " RUNS "2>&-", plain);
    check_same("cat " MODEL " | " G " run /dev/stdin -n 6 -s 1 -p 'Then the king' 2>&-", plain);
    check_same("rm -f " WORK "in; mkfifo " WORK "in; echo Then the king > " WORK "in & "
               RUNS "-f " WORK "in 2>&-", plain);
}

static void test_standard_input_may_be_a_socket(void) {
    char *const words[] = { (char *)"griffin", (char *)"run", (char *)MODEL, (char *)"-n",
                            (char *)"6", (char *)"-s", (char *)"1", NULL };
    char *text, *plain = shell(0, RUNS "-p 'Then the king' 2>&-");
    child c = start(words, 1);
    tell(&c, "Then the king\n");
    shutdown(c.in, SHUT_WR);
    int status = finish(&c, &text);
    CHECK(status == 0 && strcmp(text, plain) == 0, "%d: %s", status, text);
    free(text);
    free(plain);
}

/* What editors on Windows add to a text does not count. */
static void test_texts_of_windows(void) {
    static const char plain[] = RUNS "-p 'Once\nThen the king' 2>&-";
    write_text(WORK "crlf.txt", "Once\r\nThen the king\r\n");
    write_text(WORK "bom.txt", "\xef\xbb\xbfOnce\nThen the king\n");
    check_same(RUNS "-f " WORK "crlf.txt 2>&-", plain);
    check_same(RUNS "-f " WORK "bom.txt 2>&-", plain);
    check_same(RUNS "2>&- < " WORK "crlf.txt", plain);
    check_same(RUNS "2>&- < " WORK "bom.txt", plain);
    check_same(G " tokenize --ids " MODEL " -f " WORK "crlf.txt",
               G " tokenize --ids " MODEL " -p 'Once\nThen the king\n'");
    write_text(WORK "g.gbnf", "\xef\xbb\xbfroot ::= \"a\"\r\n  \"b\"\r\n");
    check_says(0, RUNS "-p x --grammar " WORK "g.gbnf 2>&1", "xab\n");
    write_text(WORK "s.json", "\xef\xbb\xbf{\r\n \"const\": \"ab\"\r\n}\r\n");
    check_says(0, RUNS "-p x --schema " WORK "s.json 2>&1", "x\"ab\"\n");
    check_same("printf '\\357\\273\\277Once\\r\\nThen the king\\r\\n' | " TALK "2>&-",
               "printf 'Once\\nThen the king\\n' | " TALK "2>&-");
    check_same("printf '\\357\\273\\277/help\\r\\n' | " TALK "2>&-", "echo /help | " TALK "2>&-");
}

static void test_a_nul_cuts_nothing(void) {
    check_says(0, "printf 'a\\000b' | " G " tokenize " MODEL, "'b'");
    check_says(0, "printf '/quit\\000\\nOnce\\n' | " TALK "2>&1", "generation     12 tokens");
    check_says(1, "cp -r tests/data/griffin-tiny " WORK "nul; chmod -R u+w " WORK "nul; sed -i "
               "'s/\"hidden_activation\": \"gelu/&\\\\u0000/' " WORK "nul/config.json; " G " convert "
               WORK "nul " WORK "nul.gguf 2>&1", "holds a NUL");
    check_says(1, "printf 'a\\000b' > " WORK "nul/chat_template.jinja; cp tests/data/griffin-tiny/"
               "config.json " WORK "nul; " G " convert " WORK "nul " WORK "nul.gguf 2>&1",
               "holds a NUL");
    check_same("printf 'a\\000b c d e f\\n' | " TALK "2>&1 | grep -o 'prompt  *[0-9]*'",
               "printf 'a\\001b c d e f\\n' | " TALK "2>&1 | grep -o 'prompt  *[0-9]*'");
}

/* ---- what is written ------------------------------------------------------------------------- */

#define SAVE(name) "printf 'Once\\n/save " WORK name "\\n' | " TALK

static int mode_of(const char *path) {
    struct stat about;
    return lstat(path, &about) ? -1 : (int)about.st_mode;
}

static void check_nothing_left(void) {
    char *text = shell(0, "ls -A " WORK);
    CHECK(!strstr(text, ".tmp") && !strstr(text, ".part"), "%s", text);
    free(text);
}

static void test_files_are_not_replaced_by_others(void) {
    write_text(WORK "target", "keep");
    remove(WORK "link"); remove(WORK "loose"); remove(WORK "null"); remove(WORK "absent");
    remove(WORK "loop");
    CHECK(!symlink("target", WORK "link") && !symlink("absent", WORK "loose")
          && !symlink("/dev/null", WORK "null") && !symlink("loop", WORK "loop"), "links");
    check_says(0, SAVE("link") "2>&1", "saved in");
    CHECK(S_ISLNK(mode_of(WORK "link")), "the link was replaced");
    check_same("cat " WORK "target", "cat " WORK "link");
    check_says(0, "printf '/load " WORK "target\\n' | " TALK "2>&1", "goes on");
    check_says(0, SAVE("loose") "2>&1", "saved in");
    CHECK(S_ISLNK(mode_of(WORK "loose")) && S_ISREG(mode_of(WORK "absent")), "not behind the link");
    check_says(0, SAVE("null") "2>&1", "saved in");
    CHECK(S_ISLNK(mode_of(WORK "null")) && S_ISCHR(mode_of("/dev/null")), "a device was replaced");
    check_says(0, SAVE("loop") "2>&1", "loop: cannot create: ");
    check_says(0, G " convert " TINY WORK "link 2>&- && head -c 4 " WORK "target",
               "GGUF");
    CHECK(S_ISLNK(mode_of(WORK "link")), "the link was replaced");
    check_nothing_left();
}

/* A real device, where this user may make one. */
static void test_devices_are_written_to(void) {
    if (system("rm -f " WORK "dn; mknod " WORK "dn c 1 3 2>/dev/null && "
               "true > " WORK "dn 2>/dev/null") == 0) {
        check_says(0, SAVE("dn") "2>&1", "saved in");
        CHECK(S_ISCHR(mode_of(WORK "dn")), "the device was replaced");
    }
    check_same(G " convert " TINY WORK "d.gguf > " WORK "out 2>&1; cat " WORK "d.gguf | cksum",
               "{ " G " convert " TINY "/dev/fd/5 5>&1 > " WORK "out 2>&1; } | cksum");
    remove(WORK "dn");
}

static void test_fifos_are_written_to(void) {
    free(shell(0, "rm -f " WORK "fifo; mkfifo " WORK "fifo"));
    free(shell(0, "cat " WORK "fifo > " WORK "got & " SAVE("fifo") "2>&1 && wait"));
    free(shell(0, SAVE("saved") "2>&-"));
    check_same("cksum < " WORK "got", "cksum < " WORK "saved");
    CHECK(S_ISFIFO(mode_of(WORK "fifo")), "the FIFO was replaced");
    check_says(0, SAVE("fifo") "2>&1", "nothing reads from it");
    check_says(0, "head -c 1 " WORK "fifo > /dev/null & "
               "printf 'Once\\n/save " WORK "fifo\\n/help\\n' | " TALK "2>&1", "/quit");
}

static void test_files_of_others(void) {
    write_text(WORK "one", "old");
    remove(WORK "two");
    CHECK(link(WORK "one", WORK "two") == 0, "a second name");
    free(shell(0, SAVE("one") "2>&-"));
    free(shell(0, SAVE("three") "2>&-"));
    check_same("cksum < " WORK "two", "cksum < " WORK "three");
    write_text(WORK "one", "whole");
    check_says(0, "ulimit -f 4; " SAVE("one") "2>&1", "File too large");
    check_says(0, "cat " WORK "two", "whole");
    if (geteuid() == 0) return;             /* may write to everything */
    CHECK(chmod(WORK "one", 0400) == 0, "chmod");
    check_says(0, SAVE("one") "2>&1", "one: cannot create: Permission denied");
    check_says(0, "cat " WORK "two", "whole");
}

/* No file gets the number of a standard stream that is closed. */
static void test_closed_streams(void) {
    free(shell(0, G " convert " TINY WORK "d.gguf 2>&1"));
    free(shell(0, G " convert " TINY WORK "e.gguf 2>&- <&- > " WORK "out"));
    check_same("cksum < " WORK "d.gguf", "cksum < " WORK "e.gguf");
    free(shell(1, G " convert " TINY WORK "e.gguf 2>&1 >&- <&-"));
    check_same("cksum < " WORK "d.gguf", "cksum < " WORK "e.gguf");
    check_says(1, RUNS "2>&1 <&-", "standard input: cannot be read");
}

static void test_modes_are_kept(void) {
    static const int modes[] = { 0600, 0640, 0604, 0755 };
    for (int i = 0; i < 4; i++) {
        write_text(WORK "mode", "x");
        CHECK(chmod(WORK "mode", (mode_t)modes[i]) == 0, "chmod");
        free(shell(0, SAVE("mode") "2>&-"));
        CHECK((mode_of(WORK "mode") & 07777) == modes[i], "%o became %o", modes[i],
              mode_of(WORK "mode") & 07777);
        remove(WORK "mode");
    }
    free(shell(0, "umask 027; " SAVE("mode") "2>&-"));
    CHECK((mode_of(WORK "mode") & 07777) == 0640, "a new one has mode %o", mode_of(WORK "mode"));
}

/* Nothing of the user's is in the way of the temporary file, however long the name is. */
static void test_names(void) {
    char name[201], line[600];
    memset(name, 'n', 200);
    name[200] = 0;
    snprintf(line, sizeof line, "printf '/save " WORK "%.200s%.40s\\n' | " TALK "2>&1", name, name);
    check_says(0, line, "saved in");
    write_text(WORK "m.gguf.part", "mine");
    free(shell(0, G " convert " TINY WORK "m.gguf 2>&1"));
    check_says(0, "cat " WORK "m.gguf.part", "mine");
    remove(WORK "m.gguf.part");
    check_nothing_left();
}

static void test_a_full_disk_is_an_error(void) {
    write_text(WORK "old", "whole");
    check_says(0, "ulimit -f 4; " SAVE("old") "2>&1", "old: cannot write: File too large");
    check_says(0, "cat " WORK "old", "whole");
    check_says(1, "ulimit -f 4; " G " convert " TINY WORK "old 2>&1", "File too large");
    check_says(0, "cat " WORK "old", "whole");
    write_text(WORK "ids.json", "{\"tokens\": [2, 5, 9]}");
    check_says(1, "ulimit -f 4; " G " logits " MODEL " --tokens " WORK "ids.json --out " WORK
               "old 2>&1", "File too large");
    check_says(0, "cat " WORK "old", "whole");
    check_says(1, "ulimit -f 4; " RUNS "-n 3000 --ignore-eos -p Once 2>&1 > " WORK "out",
               "File too large");
    if (access("/dev/full", F_OK) == 0) {
        check_says(1, RUNS "-p Once 2>&1 > /dev/full", "No space left");
        check_says(0, "printf '/save /dev/full\\n/help\\n' | " TALK "2>&1", "cannot write: No");
    }
    check_nothing_left();
}

/* A signal that ends the program removes what it has begun. */
static void test_nothing_half_stays(void) {
    char *const words[] = { (char *)"griffin", (char *)"convert", (char *)MODEL,
                            (char *)(WORK "half.gguf"), (char *)"--type", (char *)"f32", NULL };
    for (int i = 0; i < 8; i++) {
        char *text;
        child c = start(words, 0);
        wait_seconds(0.01 * i);
        kill(c.id, i % 2 ? SIGINT : SIGTERM);
        finish(&c, &text);
        free(text);
        check_nothing_left();
    }
}

/* Where the value of a key begins: its type. */
static unsigned char *find_key(unsigned char *file, size_t size, const char *key) {
    size_t n = strlen(key);
    for (size_t i = 0; i + n < size && i < 1 << 20; i++)
        if (memcmp(file + i, key, n) == 0) return file + i + n;
    CHECK(0, "there is no %s", key);
    return NULL;
}

/* The shipped model with another token for the end of a text. */
static void write_with_end(const char *path, int token) {
    size_t size;
    unsigned char *file = test_read(MODEL, &size);
    unsigned char *eos = find_key(file, size, "tokenizer.ggml.eos_token_id");
    eos[4] = (unsigned char)(token & 255);
    eos[5] = (unsigned char)(token >> 8);
    write_file(path, file, size);
    free(file);
}

/* ---- Ctrl-C ---------------------------------------------------------------------------------- */

static char *const run_for_ever[] = { (char *)"griffin", (char *)"run", (char *)MODEL, (char *)"-p",
    (char *)"Once", (char *)"-n", (char *)"-1", (char *)"--ignore-eos", NULL };

/* Of a model whose end of a text is a token that it never draws. */
static char *const talk_for_ever[] = { (char *)"griffin", (char *)"chat",
    (char *)(WORK "endless.gguf"), (char *)"--raw", (char *)"-n", (char *)"-1", NULL };

/* The pipe is made small, so that it is soon full: the program waits in a write then. */
static void test_run_ends_with_130(void) {
    for (int full = 0; full < 2; full++) {
        char *text, first[4];
        int end = -1;
        child c = start(run_for_ever, 0);
#ifdef __linux__
        if (full) fcntl(c.out, 1031, 4096); /* F_SETPIPE_SZ */
#endif
        CHECK(read(c.out, first, 4) == 4 && memcmp(first, "Once", 4) == 0, "%.4s", first);
        wait_seconds(full ? 1 : 0.2);
        kill(c.id, SIGINT);
        for (int i = 0; i < 50 && waitpid(c.id, &end, WNOHANG) == 0; i++) wait_seconds(0.1);
        CHECK(end != -1 && status_of(end) == 130, "full %d: %d", full, status_of(end));
        if (end == -1) kill(c.id, SIGKILL);
        finish(&c, &text);
        free(text);
        check_says(0, "cat " WORK "log.txt", "generation");
    }
}

static void test_a_conversation_goes_on(void) {
    write_with_end(WORK "endless.gguf", 0);
    for (int times = 1; times <= 3; times++) {
        char *text, first;
        child c = start(talk_for_ever, 0);
#ifdef __linux__
        fcntl(c.out, 1031, 4096);           /* F_SETPIPE_SZ */
#endif
        remove(WORK "still");
        tell(&c, "Once\n");
        CHECK(read(c.out, &first, 1) == 1, "there is no answer");
        wait_seconds(0.8);
        for (int i = 0; i < times; i++) { kill(c.id, SIGINT); wait_seconds(0.3); }
        CHECK(waitpid(c.id, NULL, WNOHANG) == 0, "Ctrl-C ended the conversation");
        tell(&c, "/save " WORK "still\n");
        int status = finish(&c, &text);
        CHECK(status == 0 && strstr(text, "saved in"), "%d: %.60s", status, text);
        free(text);
    }
}

/* As with nohup, or in the background of a script. */
static void test_an_ignored_signal_stays_ignored(void) {
    check_says(0, "trap '' INT; " RUNS "-n 3000 --carry-on -p Once 2>&1 > " WORK "out & p=$!; "
               "sleep 0.2; kill -INT $p; sleep 0.1; kill -INT $p; wait $p; echo $?",
               "generation   3000 tokens");
}

/* ---- the end --------------------------------------------------------------------------------- */

static void test_cut_json_is_an_error(void) {
    write_text(WORK "s.json", "{\"const\": \"abcdefghijklmnopqrstuvwxyz\"}");
    check_says(1, G " run " MODEL " -n 2 -p x --schema " WORK "s.json 2>&1",
               "was cut after 2 tokens");
    check_says(0, G " run " MODEL " -n 60 -p x --schema " WORK "s.json 2>&1", "xyz\"\n");
    check_says(0, "printf 'x\\n/help\\n' | " G " chat --raw " MODEL " -n 2 --schema " WORK
               "s.json 2>&1", "was cut after 2 tokens");
}

/* ---- files that lie -------------------------------------------------------------------------- */

static const char raw[] = "\x1b]0;\x07\xff\x9b\xc2\x9b";

/* 1 if a terminal would take something as a command. */
static int is_raw(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 32 && c != '\n') || c == 127 || c == 0xff || c == 0x9b) return 1;
    }
    return 0;
}

static void check_tame(int expected, const char *line) {
    size_t size;
    char *text = shell_size(expected, &size, line);
    CHECK(size > 0 && !is_raw(text, size), "%s", line);
    free(text);
}

static void keep_message(int error, const char *message, void *user) {
    if (error < 0) snprintf((char *)user, 400, "%s", message);
}

/* A host shows the library's messages as they are. */
static void check_message(const void *file, size_t size) {
    char message[400] = "";
    griffin_options options;
    griffin_model *model;
    memset(&options, 0, sizeof options);
    options.logger.message = keep_message;
    options.logger.user = message;
    CHECK(griffin_open_memory(&model, file, size, &options) < 0, "a key is not ASCII");
    CHECK(*message && !is_raw(message, strlen(message)), "%s", message);
}

static void test_nothing_raw_is_shown(void) {
    size_t size;
    unsigned char *file = test_read(MODEL, &size);
    unsigned char *name = find_key(file, size, "general.name");
    memcpy(name + 12, raw, sizeof raw - 1);
    write_file(WORK "raw.gguf", file, size);
    check_tame(0, G " info " WORK "raw.gguf 2>&1");
    check_tame(0, G " info --tensors --program --metadata " WORK "raw.gguf 2>&1");
    check_tame(0, G " info --json " WORK "raw.gguf 2>&1");
    check_says(0, G " info " WORK "raw.gguf", "\\x1b]0;\\x07\\xff\\x9b\\xc2\\x9b");
    check_says(0, G " info --json " WORK "raw.gguf", "\\u001b]0;\\u0007\\ufffd\\ufffd\\ufffd");
    check_tame(0, "printf '\\033\\377\\302\\233\\342\\200\\256' | " G " tokenize " MODEL);
    unsigned char *key = find_key(file, size, "tokenizer.ggml.padding_token_id");
    memcpy(key - 24, raw, sizeof raw - 1);  /* there is a message about it */
    check_message(file, size);
    write_file(WORK "raw.gguf", file, size);
    check_tame(1, G " info " WORK "raw.gguf 2>&1");
    check_tame(1, G " convert " WORK "raw.gguf " WORK "out.gguf 2>&1");
    check_tame(1, G " info \"$(printf 'no\\033\\377')\" 2>&1");
    check_tame(2, G " run \"$(printf -- '--\\033\\377')\" 2>&1");
    free(file);
}

/* ---- options --------------------------------------------------------------------------------- */

static void test_options(void) {
    write_text(WORK "p.txt", "Once");
    check_says(2, RUNS "-p x -f " WORK "p.txt 2>&1", "-p and -f exclude each other");
    check_says(2, G " tokenize " MODEL " -p x -f " WORK "p.txt 2>&1", "exclude each other");
    check_says(2, G " tokenize " MODEL " -p x --decode 5 2>&1", "exclude each other");
    check_says(0, RUNS "-p -h 2>&-", "-h");
    check_says(0, RUNS "-p --help 2>&-", "--help");
    check_says(0, RUNS "--temp 3 -h", "(default: 0.8)");
    check_says(2, RUNS "-p x -s ' -5' 2>&1", "--seed: ' -5'");
    check_says(2, RUNS "-p x -s -5 2>&1", "--seed: '-5'");
    check_says(2, RUNS "-p x -n ' 5' 2>&1", "--n-predict: ' 5'");
    check_says(2, RUNS "-p x --temp ' 1' 2>&1", "--temp: ' 1'");
    check_says(0, RUNS "-p x -s 18446744073709551614 2>&1", "seed 18446744073709551614");
}

/* ---- texts without end ----------------------------------------------------------------------- */

enum { THE = 265 };                         /* the token " the" of the shipped model */

/* A model that takes " the" for the end of a text. At temperature 0 every new text is the one
 * that the model tells from nothing; in the same text it goes on without that word. */
static void test_new_texts_begin(void) {
    char *text, *alone, *at, again[700];
    int texts = 0;
    write_with_end(WORK "short.gguf", THE);
    text = shell(0, G " run " WORK "short.gguf -n 900 --temp 0 -p 'Once' --ignore-eos 2>&-");
    alone = shell(0, G " run " WORK "short.gguf -n 400 --temp 0 -p '' 2>&-");
    alone[strlen(alone) - 1] = 0;
    CHECK(strlen(alone) > 2 && strlen(alone) < 600 && !strstr(alone, " the "), "%s", alone);
    size_t size = (size_t)snprintf(again, sizeof again, "\n\n%.600s", alone);
    for (at = strstr(text, again); at && strlen(at) > size; at += size, texts++)
        CHECK(strncmp(at, again, size) == 0, "%d: %s", texts, at);
    CHECK(texts > 2, "%d texts:\n%s\n%s", texts, text, alone);
    free(text);
    text = shell(0, G " run " WORK "short.gguf -n 100 --temp 0 -p 'Once' --carry-on 2>&-");
    CHECK(strlen(text) > 100 && !strstr(text, " the "), "%s", text);
    free(text);
    free(alone);
}

/* ---- the end of a prompt, and bans ----------------------------------------------------------- */

/* The prompt is shown as it was given, and what follows goes on inside its last word. */
static void test_healing(void) {
    static const char *const prompts[] = { "The little gir", "Once upon a ", "The" };
    for (int i = 0; i < 3; i++) {
        for (int seed = 1; seed < 4; seed++) {
            char line[400];
            snprintf(line, sizeof line, G " run " MODEL " -p '%s' -n 8 -s %d --heal 2>&1", prompts[i],
                     seed);
            char *text = shell(0, line);
            CHECK(!strncmp(text, prompts[i], strlen(prompts[i])), "%s\n%s", line, text);
            if (i == 0) CHECK(!strncmp(text, "The little girl", 15), "%s\n%s", line, text);
            if (i == 1) CHECK(text[12] != ' ', "%s\n%s", line, text);
            char *whole = strdup(text);
            snprintf(line, sizeof line, G " run " MODEL " -p '%s' -n 8 -s %d --heal "
                     "--no-display-prompt 2>&1", prompts[i], seed);
            free(text);
            text = shell(0, line);
            char *end = strstr(whole, "\n\n"), *other = strstr(text, "\n\n");
            if (end) *end = 0;
            if (other) *other = 0;
            CHECK(!strcmp(text, whole + strlen(prompts[i])), "%s\n%s\n%s", line, text, whole);
            free(whole);
            free(text);
        }
    }
    check_says(0, "echo 'The little gir' | " TALK " --heal 2>&1", "l");
    check_says(2, G " chat " MODEL " --heal 2>&1", "--heal needs --raw");
    check_says(0, G " run " MODEL " -p 'She said: ' --heal -s 3 --grammar tests/data/grammars/quoted.gbnf"
               " 2>&1", "She said: \"");
    check_says(0, G " run " MODEL " -p 'Once upon a ti' --heal --stop ti --stop e -n 8 -s 3 2>&1",
               "Once upon a tim\n");
}

/* Whoever guesses, the answer is the same. */
static void test_guesses(void) {
    static const char *const guessers[] = { "--lookup 1", "--lookup 20", "--lookup 1000000",
                                            "--draft " MODEL, "--lookup 9 --draft " MODEL };
    static const char *const answers[] = {
        "-p 'Once upon a time' -n 200 -s 3", "-p 'Once upon a time' -n 300 -s 3 --ignore-eos",
        "-p 'The wolf' -n 90 --temp 0 --repeat-penalty 1.1 --stop ' the' --carry-on",
        "-p 'She said: ' --heal -s 3 -n 60 --ban at --grammar tests/data/grammars/quoted.gbnf"
    };
    char line[400], guessed[400];
    for (int i = 0; i < (int)(sizeof answers / sizeof answers[0]); i++)
        for (int k = 0; k < (int)(sizeof guessers / sizeof guessers[0]); k++) {
            snprintf(line, sizeof line, G " run " MODEL " %s 2>/dev/null", answers[i]);
            snprintf(guessed, sizeof guessed, G " run " MODEL " %s %s 2>/dev/null", answers[i],
                     guessers[k]);
            check_same(line, guessed);
        }
    check_same("printf 'One day\\nHe went home\\n' | " TALK " -n 50 2>/dev/null",
               "printf 'One day\\nHe went home\\n' | " TALK " -n 50 --lookup 8 2>/dev/null");
    check_says(0, G " run " MODEL " -p 'the cat and the cat and the cat' -n 200 --temp 0 "
               "--lookup 8 2>&1", "guesses");
    check_says(1, G " run " MODEL " -p x --draft nothing.gguf 2>&1", "nothing.gguf");
    check_says(1, G " convert " TINY WORK "small.gguf >/dev/null 2>&1 && " G " run " MODEL
               " -p x --draft " WORK "small.gguf 2>&1", "small.gguf");
    check_says(2, G " run " MODEL " -p x --lookup -1 2>&1", "--lookup");
}

/* Words that are held back come all, also where an answer ends inside one. */
static void test_words(void) {
    static const char *const answers[] = {
        G " run " MODEL " -p 'Once upon a time' -n 120 -s 3", RUNS "-p 'Once upon a ti' --heal",
        RUNS "-n 200 -p 'The wolf' --stop ' he' --stop .", RUNS "-n 90 -p 'The wolf' --ignore-eos",
        "printf 'One day\\nHe went home\\n' | " TALK " -n 7"
    };
    char line[400], by_words[400];
    for (int i = 0; i < (int)(sizeof answers / sizeof answers[0]); i++) {
        snprintf(line, sizeof line, "%s 2>/dev/null", answers[i]);
        snprintf(by_words, sizeof by_words, "%s --words 2>/dev/null", answers[i]);
        check_same(line, by_words);
    }
}

static void test_bans(void) {
    char *text = shell(0, G " run " MODEL " -p 'Once upon a time' -n 300 -s 3 --ban the --ban e. "
                       "--ban ' was' --carry-on 2>&1");
    CHECK(!strstr(text, "the") && !strstr(text, "e.") && !strstr(text, " was"), "%s", text);
    free(text);
    check_says(0, G " run " MODEL " -p 'Once upon a ti' -n 3 -s 3 --heal --ban ti 2>&1",
               "Once upon a ti");
    check_says(2, RUNS "-p a --ban '' 2>&1", "--ban: a text must have 1 to 128 bytes");
}

/* ---- the command line ------------------------------------------------------------------------ */

/* 2 if the command line is wrong, 1 if what it names is. */
static void test_exit_statuses(void) {
    check_says(2, RUNS "-p a --stop '' 2>&1", "--stop");
    check_says(2, RUNS "-p a --grammar x --schema y 2>&1", "exclude each other");
    check_says(2, G " tokenize " MODEL " --decode 1,x 2>&1", "--decode");
    check_says(2, G " bench " MODEL " --ops -n 0 -p 0 2>&1", "--ops");
    check_says(2, G " frobnicate 2>&1", "there is no command");
    check_says(2, G " bench --preset 2b,nine 2>&1", "is not a list of presets");
    check_says(2, G " bench --preset '' 2>&1", "is not a list of presets");
    check_says(2, G " bench --compare 5b 2>&1", "--compare: sizes are");
    check_says(2, G " convert tests/data/griffin-tiny " WORK "none.gguf --type q9 2>&1",
               "--type q9: there is no such type");
    check_says(2, G " convert tests/data/griffin-tiny " WORK "none.gguf --preset x 2>&1",
               "--preset x: there is no such preset");
    check_says(2, G " chat " MODEL " --chat-format x 2>&1", "--chat-format 'x': the formats are");
    check_says(1, G " run " WORK "missing.gguf -p a 2>&1", "missing.gguf");
    check_says(1, RUNS "-p a --grammar " WORK "missing 2>&1", "missing");
    check_says(1, RUNS "-p a --grammar /dev/zero 2>&1", "/dev/zero: more than 16 MiB");
    check_says(1, G " info /dev/zero 2>&1", "/dev/zero: more than 16 MiB");
    check_same(RUNS "-p a 2> /dev/null", G " run " MODEL " -n6 -s1 -p a 2> /dev/null");
    check_says(2, RUNS "-p a -n6x 2>&1", "--n-predict: '6x'");
    check_says(2, G " run -m " MODEL " 'a prompt' 2>&1", "'a prompt' is one word too many");
    check_says(2, RUNS "-p a -t 1025 2>&1", "'1025' is not a whole number from 0 to 1024");
    check_says(2, RUNS "-p a --temp 0x1 2>&1", "--temp: '0x1'");
    check_says(2, G " bench " MODEL " -p 0x10 2>&1", "--prompt: '0x10'");
    check_says(2, G " bench " MODEL " --chunk 2147483647 2>&1", "--chunk at most 65536");
    check_says(2, G " info " MODEL " --cpu x 2>&1", "'x' is not best|scalar");
    check_says(2, G " train a -o b --width 2147483647 2>&1", "--width: at most 65536");
}

/* A GGUF file tells its network and its vocabulary, so options that would tell them are refused. */
static void test_convert_refuses_what_a_file_has(void) {
    const char *options[] = { "--vocab 100", "--tokenizer missing", "--preset 2b",
                              "--config tests/data/griffin-tiny/config.json" };
    for (int i = 0; i < 4; i++) {
        char line[300];
        snprintf(line, sizeof line, G " convert " MODEL " " WORK "refused.gguf %s > " WORK
                 "refused.log 2>&1; test $? -gt 0 && cat " WORK "refused.log", options[i]);
        check_says(0, line, "--");
        CHECK(access(WORK "refused.gguf", F_OK) != 0, "%s: a file was written", options[i]);
    }
}

/* Before hours of work, not after them. */
static void test_outputs_are_tried_first(void) {
    const char *options[] = { "--checkpoint " WORK "no/ck", "--checkpoint ''", "--plot ''",
                              "--save-hf ''", "-o ''" };
    for (int i = 0; i < 5; i++) {
        char line[300];
        snprintf(line, sizeof line, G " train README.md -o " WORK "o.gguf --time 1h %s 2>&1",
                 options[i]);
        check_says(1, line, i ? "the name of a file to be written is empty" : "cannot create");
    }
    check_says(1, G " convert " MODEL " '' 2>&1", "is empty");
}

/* More threads than OpenMP can have would end the process. */
static void test_many_threads(void) {
    check_says(0, "OMP_NUM_THREADS=100000 " G " convert " MODEL " " WORK "wide.gguf --type q4_0 "
               "2>&1", "wide.gguf: ");
}

/* The name of a file could be a command to the terminal. */
static void test_names_are_printable(void) {
    check_says(0, G " convert " MODEL " \"$(printf '" WORK "n\\033.gguf')\" 2>&1",
               "n\\x1b.gguf: ");
}

/* Neither tokens nor model are overwritten, by whatever name. */
static void test_logits_spares_its_inputs(void) {
    write_file(WORK "tokens.json", "{\"tokens\": [2, 5]}", 18);
    check_says(2, G " logits " MODEL " --tokens " WORK "tokens.json --out " WORK "../use/tokens.json"
               " 2>&1", "is what is read");
    check_says(2, G " logits " MODEL " --tokens " WORK "tokens.json --out " MODEL " 2>&1",
               "is what is read");
    check_says(2, G " logits " MODEL " --tokens " WORK "tokens.json --out " WORK "new --state "
               WORK "../use/new 2>&1", "cannot be written twice");
    check_says(0, "cat " WORK "tokens.json", "[2, 5]");
}

/* Nor is the checkpoint that is read, by whatever name. */
static void test_convert_spares_its_sources(void) {
    const char *outputs[] = { "model.safetensors", "config.json", "other.json" };
    check_says(0, "cp -r tests/data/griffin-tiny " WORK "tiny; chmod -R u+w " WORK "tiny; ln "
               WORK "tiny/config.json " WORK "tiny/other.json", "");
    for (int i = 0; i < 3; i++) {
        char line[300];
        snprintf(line, sizeof line, G " convert " WORK "tiny %stiny/../tiny/%s 2>&1", WORK,
                 outputs[i]);
        check_says(1, line, "is what is read");
    }
    check_says(0, "diff -r tests/data/griffin-tiny " WORK "tiny -x other.json", "");
    check_says(1, "cp -r tests/data/families/supra-shards " WORK "parts; chmod -R u+w " WORK "parts; "
               G " convert " WORK "parts " WORK "parts/pytorch_model.bin.index.json 2>&1",
               "is what is read");
    check_says(1, "echo x > " WORK "tiny/chat_template.jinja; " G " convert " WORK "tiny "
               WORK "tiny/chat_template.jinja 2>&1", "is what is read");
    check_says(0, "diff -r tests/data/families/supra-shards " WORK "parts; cat "
               WORK "tiny/chat_template.jinja", "x");
    check_says(2, "cp README.md " WORK "text; " G " train " WORK "text -o " WORK "../use/text 2>&1",
               "is what is read");
    check_says(0, "cp " MODEL " " WORK "own.gguf; echo /save " WORK "own.gguf | " G " chat --raw "
               WORK "own.gguf 2>&1", "own.gguf: is what is read");
    check_says(1, G " convert " WORK "own.gguf " WORK "text --balance " WORK "text 2>&1",
               "is what is read");
    check_says(2, G " persona -m " WORK "own.gguf " WORK "text -o " WORK "own.gguf 2>&1",
               "own.gguf: is what is read");
    check_says(0, "cmp " MODEL " " WORK "own.gguf; cmp README.md " WORK "text", "");
}

/* What training would write in the end is found to be impossible before it begins. */
static void test_train_knows_its_outputs(void) {
    check_says(1, G " train README.md -o " WORK "t.gguf --save-hf " MODEL " 2>&1",
               "is no directory");
    check_says(1, G " train README.md -o " WORK "t.gguf --plot " WORK "none/x.svg 2>&1",
               "none/x.svg");
    check_says(2, G " train README.md -o " WORK "t.gguf --checkpoint " WORK "t.gguf 2>&1",
               "cannot be written twice");
    check_says(0, G " train README.md -o " WORK "t.gguf --steps 1 --batch 1 --length 32 --vocab 300 "
               "--save-hf " WORK "hf/ 2>&1; ls " WORK "hf", "config.json");
    check_says(1, G " train README.md -o " WORK "hf/model.safetensors --steps 1 --from " WORK
               "hf 2>&1", "is what is read");
    check_says(2, G " train README.md -o " WORK "t.gguf --save-hf " WORK "hf --steps 1 --from "
               WORK "hf/ 2>&1", "is what is read");
    check_says(2, G " train README.md -o " WORK "t.gguf --batch 65536 --length 1000000 2>&1",
               "too large");
    check_says(1, G " persona -m " MODEL " README.md -o " WORK "t.persona --plot " WORK
               "none/x.svg 2>&1", "none/x.svg");
}

/* Another program may empty the file of a model. */
static void test_a_lost_file_is_an_error(void) {
    check_says(0, "cp " MODEL " " WORK "lost.gguf; " G " run " WORK "lost.gguf -n -1 --ignore-eos "
               "-p a 2>&1 > " WORK "out & p=$!; until [ -s " WORK "out ]; do kill -0 $p || exit 3; "
               "sleep 0.1; done; : > " WORK "lost.gguf; wait $p; [ $? = 1 ] && cat " WORK "out | "
               "head -c 1", "a");
}

/* What cannot be run can be looked at. */
static void test_info_of_other_files(void) {
    check_says(0, G " info tests/data/gguf/alltypes.gguf --tensors 2>&1", "x3d");
    check_says(0, G " info tests/data/gguf/alltypes.gguf 2>&1", "cannot be run: ");
    check_says(0, G " info tests/data/gguf/candle_like_v2.gguf --json 2>&1", "\"can_run\": false");
    check_says(1, G " info README.md 2>&1", "not a GGUF file");
}

int main(void) {
    if (system("rm -rf " WORK " && mkdir -p " WORK)) return 1;
    signal(SIGPIPE, SIG_IGN);
    RUN(test_standard_input_is_what_is_left_of_it);
    RUN(test_standard_input_may_be_a_socket);
    RUN(test_texts_of_windows);
    RUN(test_a_nul_cuts_nothing);
    RUN(test_files_are_not_replaced_by_others);
    RUN(test_devices_are_written_to);
    RUN(test_fifos_are_written_to);
    RUN(test_files_of_others);
    RUN(test_closed_streams);
    RUN(test_modes_are_kept);
    RUN(test_names);
    RUN(test_a_full_disk_is_an_error);
    RUN(test_nothing_half_stays);
    RUN(test_healing);
    RUN(test_guesses);
    RUN(test_words);
    RUN(test_bans);
    RUN(test_exit_statuses);
    RUN(test_convert_refuses_what_a_file_has);
    RUN(test_outputs_are_tried_first);
    RUN(test_many_threads);
    RUN(test_names_are_printable);
    RUN(test_logits_spares_its_inputs);
    RUN(test_convert_spares_its_sources);
    RUN(test_train_knows_its_outputs);
    RUN(test_a_lost_file_is_an_error);
    RUN(test_info_of_other_files);
    RUN(test_run_ends_with_130);
    RUN(test_a_conversation_goes_on);
    RUN(test_an_ignored_signal_stays_ignored);
    RUN(test_cut_json_is_an_error);
    RUN(test_nothing_raw_is_shown);
    RUN(test_options);
    RUN(test_new_texts_begin);
    return test_end();
}

#endif
