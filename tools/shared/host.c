/* host.c - the system; see host.h. First comes what needs no more than C99, then the same list of
 * functions twice: for Windows, and for POSIX. */

#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
  #define _DEFAULT_SOURCE                   /* madvise */
#elif defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
  #define _DARWIN_C_SOURCE                  /* MAP_ANON, ru_maxrss */
#endif

#include "host.h"
#include "buffer.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Each system defines these too, beside its functions of host.h. */
static int   is_standard_input(const char *path);               /* as "/dev/stdin" is */
static int   is_character_device(const char *path);
static int   map_file(file_bytes *f, const char *path, FILE **stream);  /* 0: read the stream */
static void  unmap_file(file_bytes *f);
static int   open_output(file_output *o, const char *path);     /* 0, or -1 */
static void  output_over(file_output *o);                       /* it is closed */
static int   overwrite_file(const char *path, const char *from);        /* 0, or -1 */
static int   file_rename(const char *from, const char *to);     /* also over a file; 0 or -1 */
static void  file_remove(const char *path);
static int   sync_file(FILE *f);                                /* 0, or -1 */
static long  process_number(void);
static long  input_bytes(void *to, size_t size);                /* 0: the end; -1: an error */
static long  output_bytes(const char *data, size_t size);       /* 0: Ctrl-C; -1: an error */
static int   flush_whole(FILE *f);                              /* whatever signals come */
static char *console_line(size_t *size);    /* where a terminal does not give UTF-8 bytes */
static int   has_console_lines(void);

/* Called with every name in a directory. */
typedef void each_name(const char *name, void *user);
static int list_directory(const char *directory, each_name *see, void *user);    /* 0 or -1 */

/* ---- files -------------------------------------------------------------------------------- */

static char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = (char *)malloc(size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

enum { MOST_OF_DEVICE = 16777216 };         /* bytes: /dev/zero has no end */

/* Reads to the end of the stream, whose size need not be known; null: of standard input. */
static int read_file(file_bytes *f, FILE *stream, const char *path, report *r) {
    int is_device = stream && is_character_device(path);
    byte_buffer b = { NULL, 0, 0, 0 };
    unsigned char part[16384];
    long got = 1;
    while (got > 0) {
        got = stream ? (long)fread(part, 1, sizeof part, stream) : input_bytes(part, sizeof part);
        if (got > 0) buffer_add(&b, part, (size_t)got);
        if (is_device && b.size > MOST_OF_DEVICE) break;
    }
    buffer_number(&b, 0, 1);                /* not part of the file: makes `data` never null */
    if (got < 0 || (stream && ferror(stream)) || b.failed) {
        report_fail(r, "%s: %s", path, b.failed ? "out of memory" : "cannot be read");
        buffer_free(&b);
        return -1;
    }
    if (got > 0) {
        buffer_free(&b);
        return report_fail(r, "%s: more than 16 MiB come from this device", path);
    }
    f->data = b.data;
    f->owned = b.data;
    f->size = b.size - 1;
    return 0;
}

/* The paths of all files that are mapped, most recent last. */
static char **mapped_paths;
static size_t mapped_count;

static void note_mapped(char *path) {
    char **list = path ? realloc(mapped_paths, (mapped_count + 1) * sizeof *list) : NULL;
    if (!list) return;
    mapped_paths = list;
    mapped_paths[mapped_count++] = path;
}

static void forget_mapped(const char *path) {
    size_t i = mapped_count;
    while (i && mapped_paths[i - 1] != path) i--;
    if (i) memmove(&mapped_paths[i - 1], &mapped_paths[i], (mapped_count-- - i) * sizeof path);
}

static const char *reserved;                /* or null */

void file_reserve(const char *path) { reserved = path; }

static int is_mapped(const char *path) {
    for (size_t i = 0; i < mapped_count; i++) if (path_is_same(path, mapped_paths[i])) return 1;
    return 0;
}

int file_open(file_bytes *f, const char *path, report *r) {
    FILE *stream = NULL;
    memset(f, 0, sizeof *f);
    if (is_standard_input(path)) return read_file(f, NULL, path, r);
    if (path_is_directory(path)) return report_fail(r, "%s: is a directory", path);
    if (reserved && path_is_same(path, reserved))
        return report_fail(r, "%s: is what is read", reserved);
    if (map_file(f, path, &stream)) {
        note_mapped(f->path = copy_text(path));
        return 0;
    }
    if (!stream) return report_fail(r, "%s: cannot be opened: %s", path, strerror(errno));
    int status = read_file(f, stream, path, r);
    fclose(stream);
    return status;
}

void file_close(file_bytes *f) {
    if (f->mapped) unmap_file(f);
    else free(f->owned);
    forget_mapped(f->path);
    free(f->path);
    memset(f, 0, sizeof *f);
}

static const unsigned char byte_order_mark[] = { 0xef, 0xbb, 0xbf };

/* Editors on Windows put a byte order mark before a text, and "\r\n" at the ends of its lines. */
static int make_plain(file_bytes *t, report *r) {
    size_t size = (size_t)t->size, to = 0;
    size_t from = size >= 3 && !memcmp(t->data, byte_order_mark, 3) ? 3 : 0;
    if (from == 0 && !memchr(t->data, '\r', size)) return 0;
    unsigned char *plain = (unsigned char *)malloc(size + 1);
    if (!plain) return report_fail(r, "out of memory");
    for (; from < size; from++) {
        int is_end = t->data[from] == '\r' && from + 1 < size && t->data[from + 1] == '\n';
        if (!is_end) plain[to++] = t->data[from];
    }
    file_close(t);
    t->data = plain;
    t->owned = plain;
    t->size = to;
    return 0;
}

int text_open(file_bytes *t, const char *words, const char *file) {
    report r = { "" };
    memset(t, 0, sizeof *t);
    if (words) {
        t->data = (const unsigned char *)words;
        t->size = strlen(words);
        return 0;
    }
    int is_input = !file || !strcmp(file, "-");
    int status = is_input ? read_file(t, NULL, "standard input", &r) : file_open(t, file, &r);
    if (!status && (status = make_plain(t, &r)) != 0) file_close(t);
    return status ? complain("%s", r.text) : 0;
}

/* ---- files that are written ---------------------------------------------------------------- */

void file_abandon(file_output *o) {
    if (o->stream) fclose(o->stream);
    if (o->part) file_remove(o->part);
    output_over(o);
    free(o->part);
    free(o->target);
    free(o->path);
    memset(o, 0, sizeof *o);
}

static int output_failed(file_output *o, const char *what, report *r) {
    const char *why = errno == ENXIO ? "nothing reads from it" : strerror(errno);
    report_fail(r, "%s: cannot %s: %s", o->path ? o->path : "file", what, why);
    file_abandon(o);
    return -1;
}

int file_create(file_output *o, const char *path, report *r) {
    memset(o, 0, sizeof *o);
    if (!*path) return report_fail(r, "the name of a file to be written is empty");
    if (path_is_directory(path)) return report_fail(r, "%s: is a directory", path);
    if (is_mapped(path)) return report_fail(r, "%s: is what is read", path);
    o->path = copy_text(path);
    return o->path && !open_output(o, path) ? 0 : output_failed(o, "create", r);
}

int file_write(file_output *o, const void *data, size_t size, report *r) {
    return fwrite(data, 1, size, o->stream) == size ? 0 : output_failed(o, "write", r);
}

int file_flush(file_output *o, report *r) {
    return fflush(o->stream) ? output_failed(o, "write", r) : 0;
}

int file_finish(file_output *o, report *r) {
    int failed = fflush(o->stream) || (o->part && sync_file(o->stream));
    if (!failed) {
        failed = fclose(o->stream);
        o->stream = NULL;
    }
    if (failed) return output_failed(o, "write", r);
    if (o->is_shared && overwrite_file(o->target, o->part)) return output_failed(o, "write", r);
    if (o->part && !o->is_shared) {
        if (file_rename(o->part, o->target)) return output_failed(o, "rename", r);
        free(o->part);
        o->part = NULL;
    }
    file_abandon(o);                        /* removes a copy that has been copied */
    return 0;
}

int file_replace(const char *path, const void *data, size_t size) {
    report r = { "" };
    file_output o;
    int status = file_create(&o, path, &r) || file_write(&o, data, size, &r)
              || file_finish(&o, &r);
    return status ? complain("%s", r.text) : 0;
}

/* ---- paths -------------------------------------------------------------------------------- */

char *path_join(const char *directory, const char *name) {
    const char *slash = path_slash(directory);
    size_t n = strlen(directory), size = n + strlen(name) + 2;
    char *path = (char *)malloc(size);
    int has_slash = slash && slash + 1 == directory + n;
    if (path) snprintf(path, size, "%s%s%s", directory, has_slash ? "" : "/", name);
    return path;
}

char *path_beside(const char *path, const char *name) {
    const char *slash = path_slash(path);
    size_t kept = slash ? (size_t)(slash - path) + 1 : 0, n = strlen(name) + 1;
    char *beside = (char *)malloc(kept + n);
    if (!beside) return NULL;
    memcpy(beside, path, kept);
    memcpy(beside + kept, name, n);
    return beside;
}

char *path_name(const char *path) {
    size_t size = strlen(path) + 1;
    char *name = (char *)malloc(size);
    if (!name) return NULL;
    memcpy(name, path, size);
    const char *slash;
    while ((slash = path_slash(name)) != NULL && !slash[1]) name[slash - name] = 0;
    if (slash) memmove(name, slash + 1, strlen(slash));
    return name;
}

int path_ends_in(const char *path, const char *ending) {
    size_t n = strlen(path), m = strlen(ending);
    return n >= m && strcmp(path + n - m, ending) == 0;
}

typedef struct only { const char *directory, *ending; char *path; int found; } only;

static void see_name(const char *name, void *user) {
    only *o = (only *)user;
    if (path_ends_in(name, o->ending) && o->found++ == 0) o->path = path_join(o->directory, name);
}

char *path_only(const char *directory, const char *ending, report *r) {
    only o = { directory, ending, NULL, 0 };
    if (list_directory(directory, see_name, &o)) {
        report_fail(r, "%s: cannot be listed", directory);
        return NULL;
    }
    if (o.found == 1 && o.path) return o.path;
    free(o.path);
    report_fail(r, "%s: %s *%s file", directory, o.found ? "more than one" : "no", ending);
    return NULL;
}

/* ---- terminal ----------------------------------------------------------------------------- */

static struct { double time; int length; } progress;            /* of the line that is shown */

void progress_show(const char *format, ...) {
    char line[160];
    double now = seconds_now();
    if (!is_terminal(stderr) || now - progress.time < 0.2) return;
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    fprintf(stderr, "\r%s%*s", line, length < progress.length ? progress.length - length : 0, "");
    progress.time = now;
    progress.length = length;
}

void progress_clear(void) {
    if (progress.length) fprintf(stderr, "\r%*s\r", progress.length, "");
    progress.length = 0;
    progress.time = 0;
}

static int output_lost(void) {
    return complain("cannot write the output: %s", strerror(errno));
}

int output_flush(void) {
    if (!flush_whole(stdout) && !ferror(stdout)) return 0;
    clearerr(stdout);
    return output_lost();
}

int output_write(const char *data, size_t size) {
    if (output_flush()) return 1;
    while (size > 0) {
        long n = output_bytes(data, size);
        if (n < 0) return output_lost();
        if (n == 0) break;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static volatile sig_atomic_t interrupts, is_patient;

int interrupted(void) { return interrupts != 0; }

void interrupt_clear(void) { interrupts = 0; }

static struct { unsigned char data[4096]; long at, end; int is_begun; } input;

/* The next byte of standard input, or -1. */
static int input_byte(void) {
    if (input.at == input.end) {
        input.at = 0;
        input.end = input_bytes(input.data, sizeof input.data);
        if (input.end <= 0) input.end = 0;
        if (input.end == 0) return -1;
    }
    return input.data[input.at++];
}

/* Lines may end in \n or in \r\n, on every system. A byte order mark begins only the first one. */
char *input_line(size_t *size) {
    if (has_console_lines()) return console_line(size);
    byte_buffer line = { NULL, 0, 0, 0 };
    int c;
    while ((c = input_byte()) >= 0 && c != '\n') {
        buffer_number(&line, (unsigned)c, 1);
        if (input.is_begun || line.size < 3) continue;
        input.is_begun = 1;
        if (!line.failed && !memcmp(line.data, byte_order_mark, 3)) line.size = 0;
    }
    input.is_begun = 1;
    int is_end = c < 0 && (line.size == 0 || interrupted());
    if (line.size > 0 && line.data[line.size - 1] == '\r') line.size--;
    *size = line.size;
    buffer_number(&line, 0, 1);
    if (is_end || line.failed) buffer_free(&line);
    return (char *)line.data;
}

uint32_t random_seed(void) {
    return (uint32_t)((uint64_t)time(NULL) << 16 ^ (uint64_t)process_number());
}

#ifdef _WIN32
/* ==== Windows ================================================================================= */

#define WIN32_LEAN_AND_MEAN
#define PSAPI_VERSION 2                     /* GetProcessMemoryInfo is in kernel32 */
#include <windows.h>

#include <direct.h>
#include <fcntl.h>
#include <io.h>
#include <psapi.h>
#include <shellapi.h>

/* ---- text: Windows has UTF-16. To be freed; null if out of memory ---------------------------- */

static wchar_t *wide_text(const char *text) {
    int n = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
    wchar_t *wide = (wchar_t *)malloc((size_t)n * sizeof *wide);
    if (wide) MultiByteToWideChar(CP_UTF8, 0, text, -1, wide, n);
    return wide;
}

static char *utf8_text(const wchar_t *wide) {
    int n = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *text = (char *)malloc((size_t)n);
    if (text) WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, n, NULL, NULL);
    return text;
}

static UINT console_pages[2];               /* the settings before the program began */

static void restore_console(void) {
    SetConsoleCP(console_pages[0]);
    SetConsoleOutputCP(console_pages[1]);
}

void host_start(int *argc, char ***argv) {
    int count = 0;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    char **words = wide ? (char **)calloc((size_t)count + 1, sizeof *words) : NULL;
    for (int i = 0; words && i < count; i++) {
        words[i] = utf8_text(wide[i]);
        if (!words[i]) exit(complain("out of memory"));
    }
    if (words) { *argc = count; *argv = words; }
    console_pages[0] = GetConsoleCP();
    console_pages[1] = GetConsoleOutputCP();
    SetConsoleCP(CP_UTF8);
    SetConsoleOutputCP(CP_UTF8);
    atexit(restore_console);
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
    _setmode(_fileno(stderr), _O_BINARY);
}

/* ---- files and paths ------------------------------------------------------------------------- */

static HANDLE open_handle(const char *path, DWORD access) {
    wchar_t *wide = wide_text(path);
    if (!wide) return INVALID_HANDLE_VALUE;
    HANDLE file = CreateFileW(wide, access,
                              FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    free(wide);
    return file;
}

static FILE *file_stream(const char *path, const char *mode) {
    wchar_t *wide_path = wide_text(path), *wide_mode = wide_text(mode);
    FILE *stream = wide_path && wide_mode ? _wfopen(wide_path, wide_mode) : NULL;
    free(wide_path);
    free(wide_mode);
    return stream;
}

static int is_standard_input(const char *path) { (void)path; return 0; }

/* The parentheses keep off a macro that wasi-libc has for lseek, which is no C99. */
static int map_file(file_bytes *f, const char *path, FILE **stream) {
    LARGE_INTEGER size;
    HANDLE file = open_handle(path, GENERIC_READ), mapping = NULL;
    if (file != INVALID_HANDLE_VALUE && GetFileType(file) == FILE_TYPE_DISK
        && GetFileSizeEx(file, &size) && size.QuadPart > 0 && (uint64_t)size.QuadPart <= SIZE_MAX)
        mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
    if (mapping) f->owned = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    if (mapping) CloseHandle(mapping);
    f->mapped = f->owned != NULL;
    if (!f->mapped) {
        *stream = file_stream(path, "rb");
        return 0;
    }
    f->data = (const unsigned char *)f->owned;
    f->size = (uint64_t)size.QuadPart;
    return 1;
}

static void unmap_file(file_bytes *f) { UnmapViewOfFile(f->owned); }

static int sync_file(FILE *f) { return _commit(_fileno(f)); }

static int file_rename(const char *from, const char *to) {
    wchar_t *wide_from = wide_text(from), *wide_to = wide_text(to);
    int good = wide_from && wide_to && MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING);
    if (!good) errno = EACCES;
    free(wide_from);
    free(wide_to);
    return good ? 0 : -1;
}

static void file_remove(const char *path) {
    wchar_t *wide = wide_text(path);
    if (wide) _wremove(wide);
    free(wide);
}

const char *path_slash(const char *path) {
    const char *last = NULL;
    for (; *path; path++)
        if (*path == '/' || *path == '\\') last = path;
    return last;
}

static DWORD path_attributes(const char *path) {
    wchar_t *wide = wide_text(path);
    DWORD attributes = wide ? GetFileAttributesW(wide) : INVALID_FILE_ATTRIBUTES;
    free(wide);
    return attributes;
}

int path_exists(const char *path) { return path_attributes(path) != INVALID_FILE_ATTRIBUTES; }

int path_is_directory(const char *path) {
    return path_exists(path) && path_attributes(path) & FILE_ATTRIBUTE_DIRECTORY;
}

static int is_character_device(const char *path) {
    HANDLE file = open_handle(path, 0);
    int is_device = file != INVALID_HANDLE_VALUE && GetFileType(file) == FILE_TYPE_CHAR;
    if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
    return is_device;
}

int path_is_device(const char *path) {
    HANDLE file = open_handle(path, 0);
    int is_device = file != INVALID_HANDLE_VALUE && GetFileType(file) != FILE_TYPE_DISK;
    if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
    return is_device;
}

static int open_output(file_output *o, const char *path) {
    size_t room = strlen(path) + 32;
    o->target = copy_text(path);
    if (!path_is_device(path)) o->part = (char *)malloc(room);
    if (o->part) snprintf(o->part, room, "%s.%ld.tmp", path, process_number());
    if (!o->target || (!o->part && !path_is_device(path))) return -1;
    o->stream = file_stream(o->part ? o->part : path, "wb");
    return o->stream ? 0 : -1;
}

static void output_over(file_output *o) { (void)o; }

static int overwrite_file(const char *path, const char *from) {
    return file_rename(from, path);         /* is not called */
}

int directory_make(const char *path) {
    wchar_t *wide = wide_text(path);
    int status = wide ? _wmkdir(wide) : -1;
    free(wide);
    return status;
}

static int list_directory(const char *directory, each_name *see, void *user) {
    WIN32_FIND_DATAW entry;
    char *pattern = path_join(directory, "*");
    wchar_t *wide = pattern ? wide_text(pattern) : NULL;
    HANDLE listing = wide ? FindFirstFileW(wide, &entry) : INVALID_HANDLE_VALUE;
    free(pattern);
    free(wide);
    if (listing == INVALID_HANDLE_VALUE) return -1;
    do {
        char *name = utf8_text(entry.cFileName);
        if (name) see(name, user);
        free(name);
    } while (FindNextFileW(listing, &entry));
    FindClose(listing);
    return 0;
}

/* ---- terminal -------------------------------------------------------------------------------- */

static HANDLE handle_of(FILE *stream) { return (HANDLE)_get_osfhandle(_fileno(stream)); }

int is_terminal(FILE *stream) {
    DWORD mode;
    return GetConsoleMode(handle_of(stream), &mode) != 0;
}

static int has_console_lines(void) { return is_terminal(stdin); }

/* Ctrl-Z at the start of a line is the end of the input. */
static char *console_line(size_t *size) {
    wchar_t line[8192];
    DWORD n = 0;
    if (!ReadConsoleW(handle_of(stdin), line, 8191, &n, NULL) || n == 0 || line[0] == 26)
        return NULL;
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
    line[n] = 0;
    char *text = utf8_text(line);
    if (text) *size = strlen(text);
    return text;
}

static long input_bytes(void *to, size_t size) {
    return _read(_fileno(stdin), to, (unsigned)size);
}

static long output_bytes(const char *data, size_t size) {
    size_t n = fwrite(data, 1, size, stdout);
    return n == size && !fflush(stdout) ? (long)n : -1;
}

static int flush_whole(FILE *f) { return fflush(f); }

/* Windows calls it in a thread of its own. */
static BOOL WINAPI on_interrupt(DWORD event) {
    if (event != CTRL_C_EVENT) return FALSE;
    if (interrupts++ && !is_patient) ExitProcess(130);
    return TRUE;
}

void interrupt_catch(int patient) {
    is_patient = patient;
    SetConsoleCtrlHandler(on_interrupt, TRUE);
}

/* ---- time and memory ------------------------------------------------------------------------- */

double seconds_now(void) {
    LARGE_INTEGER ticks, rate;
    QueryPerformanceFrequency(&rate);
    QueryPerformanceCounter(&ticks);
    return (double)ticks.QuadPart / (double)rate.QuadPart;
}

/* Windows counts CPU time in steps of 1/64 s. That is longer than a probe of bench, so wall time is
 * returned instead: bench then drops no stretch. */
double process_seconds(void) { return seconds_now(); }

double thread_seconds(void) { return seconds_now(); }

double peak_mebibytes(void) {
    PROCESS_MEMORY_COUNTERS counters;
    memset(&counters, 0, sizeof counters);
    GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters);
    return (double)counters.PeakWorkingSetSize / (1 << 20);
}

static long process_number(void) { return (long)GetCurrentProcessId(); }

void *big_allocate(size_t size) {
    return VirtualAlloc(NULL, size ? size : 1, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void big_release(void *memory) {
    if (memory) VirtualFree(memory, 0, MEM_RELEASE);
}

int path_is_same(const char *one, const char *other) {
    char full[2][MAX_PATH];
    return _fullpath(full[0], one, MAX_PATH) && _fullpath(full[1], other, MAX_PATH)
        && !_stricmp(full[0], full[1]);
}

#else
/* ==== POSIX =================================================================================== */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__) && defined(__x86_64__)
  #include <sys/syscall.h>
#endif

#ifdef __wasi__
void host_start(int *argc, char ***argv) { (void)argc; (void)argv; }
#else
static const char *volatile unfinished;     /* is removed when a signal ends the program */

/* A file that is mapped was made shorter by another program. */
static void on_lost_file(int number) {
    static const char words[] = "griffin: a file was cut off, or its disk failed, while it was "
                                "read\n";
    (void)number;
    if (unfinished) unlink(unfinished);
    while (write(2, words, sizeof words - 1) < 0 && errno == EINTR) { }
    _exit(1);
}

/* A file that may not grow further is then an error of write, which has a message. A standard
 * stream that is closed stays one that fails: no file may get its number. */
void host_start(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGBUS, on_lost_file);
#if defined(__linux__) && defined(__x86_64__)
    syscall(SYS_arch_prctl, 0x1023, 18);    /* ARCH_REQ_XCOMP_PERM: see GRIFFIN_CPU_AMX */
#endif
    for (int i = 0; i < 3; i++)
        if (fcntl(i, F_GETFD) < 0 && open("/dev/null", i ? O_RDONLY : O_WRONLY) < 0) return;
}
#endif

/* ---- files and paths ------------------------------------------------------------------------- */

/* The number of an open descriptor that a path stands for, or -1. To open such a name can fail or
 * start at the beginning again: it may be a socket, be read in part, or belong to someone else. */
static int descriptor_of(const char *path) {
    static const char *const standard[] = { "/dev/stdin", "/dev/stdout", "/dev/stderr" };
    for (int i = 0; i < 3; i++) if (!strcmp(path, standard[i])) return i;
    size_t start = !strncmp(path, "/dev/fd/", 8) ? 8
                 : !strncmp(path, "/proc/self/fd/", 14) ? 14 : 0;
    const char *digits = path + start;
    size_t n = strspn(digits, "0123456789");
    return start && n > 0 && n < 6 && !digits[n] ? atoi(digits) : -1;
}

static int is_standard_input(const char *path) { return descriptor_of(path) == 0; }

#ifdef __wasi__
static int copy_descriptor(int file) { (void)file; errno = ENOTSUP; return -1; }
#else
static int copy_descriptor(int file) { return dup(file); }
#endif

/* The parentheses keep off a macro that wasi-libc has for lseek, which is no C99. */
static int map_file(file_bytes *f, const char *path, FILE **stream) {
    struct stat about;
    void *data = MAP_FAILED;
    int file = descriptor_of(path);
    file = file < 0 ? open(path, O_RDONLY) : copy_descriptor(file);
    if (file < 0) return 0;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0
        && (uint64_t)about.st_size <= SIZE_MAX && (lseek)(file, 0, SEEK_CUR) == 0)
        data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) {
        *stream = fdopen(file, "rb");
        if (!*stream) close(file);
        return 0;
    }
    close(file);
    f->data = (const unsigned char *)data;
    f->owned = data;
    f->size = (uint64_t)about.st_size;
    f->mapped = 1;
    return 1;
}

static void unmap_file(file_bytes *f) { munmap(f->owned, (size_t)f->size); }

static int sync_file(FILE *f) { return fsync(fileno(f)); }

static int file_rename(const char *from, const char *to) { return rename(from, to); }

static void file_remove(const char *path) { remove(path); }

const char *path_slash(const char *path) { return strrchr(path, '/'); }

static mode_t path_mode(const char *path) { /* 0: there is no such path */
    struct stat about;
    return stat(path, &about) == 0 ? about.st_mode : 0;
}

/* Of files that are not there yet: the same name in the same directory. */
static int path_will_be_same(const char *one, const char *other) {
    struct stat a, b;
    char *in[2] = { path_beside(one, "."), path_beside(other, ".") };
    const char *slash[2] = { path_slash(one), path_slash(other) };
    int same = in[0] && in[1] && !stat(in[0], &a) && !stat(in[1], &b) && a.st_dev == b.st_dev
            && a.st_ino == b.st_ino && !strcmp(slash[0] ? slash[0] + 1 : one,
                                               slash[1] ? slash[1] + 1 : other);
    free(in[0]);
    free(in[1]);
    return same && strcmp(one, "-");
}

int path_is_same(const char *one, const char *other) {
    struct stat a, b;
    if (stat(one, &a)) return path_will_be_same(one, other);
    return !stat(other, &b) && S_ISREG(a.st_mode) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int path_exists(const char *path) { return path_mode(path) != 0; }

int path_is_directory(const char *path) { return S_ISDIR(path_mode(path)); }

static int is_character_device(const char *path) { return S_ISCHR(path_mode(path)); }

int path_is_device(const char *path) {
    mode_t mode = path_mode(path);
    return descriptor_of(path) >= 0 || (mode != 0 && !S_ISREG(mode) && !S_ISDIR(mode));
}

/* The path that symbolic links lead to; nothing need be there. To be freed, or null. */
static char *behind_links(const char *path) {
    char *at = copy_text(path), link[4096];
    for (int i = 0; at && i < 40; i++) {
        ssize_t n = readlink(at, link, sizeof link - 1);
        if (n < 0) return at;               /* not a link, or nothing */
        link[n] = 0;
        char *next = *link == '/' ? copy_text(link) : path_beside(at, link);
        free(at);
        at = next;
    }
    if (at) errno = ELOOP;
    free(at);
    return NULL;
}

static int use_descriptor(file_output *o, int file) {
    o->stream = file < 0 ? NULL : fdopen(file, "wb");
    if (!o->stream && file >= 0) close(file);
    return o->stream ? 0 : -1;
}

/* A FIFO without a reader is waited for, but not for ever. */
static int open_device(const char *path, mode_t mode) {
    int file = -1, tries = 50;
    if (!S_ISFIFO(mode)) return open(path, O_WRONLY | O_NOCTTY);
    while ((file = open(path, O_WRONLY | O_NONBLOCK)) < 0 && errno == ENXIO && tries-- > 0
           && !interrupted()) poll(NULL, 0, 100);
    if (file >= 0) fcntl(file, F_SETFL, fcntl(file, F_GETFL) & ~O_NONBLOCK);
    return file;
}

#ifdef __wasi__                             /* neither owners, modes nor signals */
static int  keep_owner(int file, const struct stat *old) { (void)file; (void)old; return 0; }
static void output_over(file_output *o) { (void)o; }
static void expect_signals(const file_output *o) { (void)o; }
static void hold_signals(int hold) { (void)hold; }
#else
/* Gives a new file the owner and mode of an old one. 0, or -1 if it cannot have them. */
static int keep_owner(int file, const struct stat *old) {
    struct stat now;
    if (fstat(file, &now)) return -1;
    if ((old->st_uid != now.st_uid || old->st_gid != now.st_gid)
        && fchown(file, old->st_uid, old->st_gid)) return -1;
    return fchmod(file, old->st_mode & 07777);
}

static void (*pipe_action)(int);            /* before something was written that has no end */
static int pipe_is_ignored;

static void on_end(int number) {
    if (unfinished) unlink(unfinished);
    signal(number, SIG_DFL);
    raise(number);
}

static const int ends[] = { SIGINT, SIGTERM, SIGHUP };

/* While they are held, a file can be made and noted as unfinished without a gap between the two. */
static void hold_signals(int hold) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 3; i++) sigaddset(&set, ends[i]);
    sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

/* Signals that are caught or ignored stay so. A reader that leaves is an error of write. */
static void expect_signals(const file_output *o) {
    struct sigaction action;
    unfinished = o->part;
    for (int i = 0; o->part && i < 3; i++) {
        if (sigaction(ends[i], NULL, &action) || action.sa_handler != SIG_DFL) continue;
        action.sa_handler = on_end;
        sigaction(ends[i], &action, NULL);
    }
    if (!o->part) { pipe_action = signal(SIGPIPE, SIG_IGN); pipe_is_ignored = 1; }
}

static void output_over(file_output *o) {
    (void)o;
    unfinished = NULL;
    if (pipe_is_ignored) signal(SIGPIPE, pipe_action);
    pipe_is_ignored = 0;
}
#endif

/* Creates a file of a new name in the same directory; `old` is the file it will replace, or null.
 * Only what this process makes itself is written to. */
static int create_part(file_output *o, const struct stat *old) {
    const char *slash = path_slash(o->target), *name = slash ? slash + 1 : o->target;
    size_t room = strlen(o->target) + 48;
    int file = -1;
    o->part = (char *)malloc(room);
    for (int i = 0; o->part && file < 0 && i < 100; i++) {
        snprintf(o->part, room, "%.*s%.200s.%ld-%d.tmp", (int)(name - o->target), o->target, name,
                 process_number(), i);
        file = open(o->part, O_WRONLY | O_CREAT | O_EXCL, old ? 0600 : 0666);
        if (file < 0 && errno != EEXIST) break;
    }
    if (file < 0) {                         /* nothing to be removed */
        free(o->part);
        o->part = NULL;
        return -1;
    }
    o->is_shared = old && (old->st_nlink > 1 || keep_owner(file, old));
    return use_descriptor(o, file);
}

static int copy_bytes(int from, int to, off_t begin, off_t end) {
    char part[16384];
    while (begin < end) {
        off_t left = end - begin;
        ssize_t n = pread(from, part, left < 16384 ? (size_t)left : sizeof part, begin);
        if (n > 0) n = pwrite(to, part, (size_t)n, begin);
        if (n <= 0) return -1;
        begin += n;
    }
    return 0;
}

/* What exceeds the old size comes first: if there is no room for it, the old content is whole. */
static int overwrite(int from, int to, off_t size, off_t old_size) {
    off_t begin = size < old_size ? size : old_size;
    if (copy_bytes(from, to, begin, size)) {
        int error = errno, status = ftruncate(to, old_size);
        errno = error;
        return status ? status : -1;
    }
    return copy_bytes(from, to, 0, begin) || ftruncate(to, size) || fsync(to) ? -1 : 0;
}

/* A file with other names, or with an owner who would be lost, must stay the file that it is. */
static int overwrite_file(const char *path, const char *from) {
    struct stat old, now;
    int in = open(from, O_RDONLY), out = open(path, O_WRONLY), status = -1;
    if (in >= 0 && out >= 0 && !fstat(in, &now) && !fstat(out, &old))
        status = overwrite(in, out, now.st_size, old.st_size);
    int error = errno;
    if (in >= 0) close(in);
    if (out >= 0 && close(out) && !status) return -1;
    errno = error;
    return status;
}

static int open_output(file_output *o, const char *path) {
    struct stat old;
    int file = descriptor_of(path), status, exists = stat(path, &old) == 0;
    fflush(stdout);                         /* the path may stand for it */
    if (file >= 0) status = use_descriptor(o, copy_descriptor(file));
    else if (exists && !S_ISREG(old.st_mode))
        status = use_descriptor(o, open_device(path, old.st_mode));
    else if (exists && access(path, W_OK)) status = -1;     /* to replace it would be possible */
    else {
        o->target = behind_links(path);
        hold_signals(1);
        status = o->target ? create_part(o, exists ? &old : NULL) : -1;
    }
    if (!status) expect_signals(o);
    hold_signals(0);
    return status;
}

int directory_make(const char *path) { return mkdir(path, 0777); }

static int list_directory(const char *directory, each_name *see, void *user) {
    DIR *listing = opendir(directory);
    if (!listing) return -1;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) see(entry->d_name, user);
    closedir(listing);
    return 0;
}

/* ---- terminal -------------------------------------------------------------------------------- */

int is_terminal(FILE *stream) { return isatty(fileno(stream)); }

static int has_console_lines(void) { return 0; }

static char *console_line(size_t *size) { *size = 0; return NULL; }

#ifdef __wasi__                             /* there are no signals */
void interrupt_catch(int patient) { is_patient = patient; }
static long output_bytes(const char *data, size_t size) { return (long)write(1, data, size); }
static int  flush_whole(FILE *f) { return fflush(f); }
static long input_bytes(void *to, size_t size) { return (long)read(0, to, size); }
#else
static void on_interrupt(int number) {
    (void)number;
    if (interrupts++ && !is_patient) _exit(130);
}

/* Without SA_RESTART, so that Ctrl-C ends a write that waits for a reader. A signal that is ignored
 * when the program starts, as by nohup, stays ignored. */
void interrupt_catch(int patient) {
    struct sigaction action;
    is_patient = patient;
    if (sigaction(SIGINT, NULL, &action) || action.sa_handler == SIG_IGN) return;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, NULL);
}

/* Waits until the descriptor is ready, has failed, or Ctrl-C is pressed: then 0. The signal may
 * come just before poll does, so poll returns from time to time. */
static int wait_for(int file, short event) {
    for (;;) {
        struct pollfd one = { file, event, 0 };
        int stop = interrupted(), n = poll(&one, 1, stop ? 0 : 500);
        if (n > 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return 1;
        if (stop) return 0;
    }
}

static int may_try_again(void) { return errno == EINTR || errno == EAGAIN; }

static long input_bytes(void *to, size_t size) {
    while (wait_for(STDIN_FILENO, POLLIN)) {
        ssize_t got = read(STDIN_FILENO, to, size);
        if (got >= 0 || !may_try_again()) return (long)got;
    }
    return 0;
}

/* A pipe can have room for a few bytes although poll does not say so: hence write comes first.
 * After Ctrl-C it comes second, since it could wait for ever. */
static long output_bytes(const char *data, size_t size) {
    while (!interrupted() || wait_for(STDOUT_FILENO, POLLOUT)) {
        ssize_t n = write(STDOUT_FILENO, data, size);
        if (n > 0 || (n < 0 && !may_try_again())) return (long)n;
        if (n < 0 && errno == EAGAIN) wait_for(STDOUT_FILENO, POLLOUT);
    }
    return 0;
}

/* The C library drops what a signal kept it from writing. */
static int flush_whole(FILE *f) {
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    int status = fflush(f), error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return status;
}
#endif

/* ---- time and memory ------------------------------------------------------------------------- */

static double clock_seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double seconds_now(void) { return clock_seconds(CLOCK_MONOTONIC); }

double process_seconds(void) { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }

double thread_seconds(void) { return clock_seconds(CLOCK_THREAD_CPUTIME_ID); }

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

static long process_number(void) { return (long)getpid(); }

#ifndef MAP_ANONYMOUS
  #define MAP_ANONYMOUS MAP_ANON
#endif

enum { HUGE_PAGE = 2 << 20 };

typedef struct big_block { void *base; size_t size; } big_block;    /* lies before the memory */

void *big_allocate(size_t size) {
    big_block block = { NULL, size + 2 * HUGE_PAGE };
    if (block.size < size) return NULL;
    block.base = mmap(NULL, block.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block.base == MAP_FAILED) return NULL;
    unsigned char *memory = (unsigned char *)block.base + sizeof block;
    memory += -(uintptr_t)memory & (HUGE_PAGE - 1);
    memcpy(memory - sizeof block, &block, sizeof block);
#ifdef MADV_HUGEPAGE
    if (size >= 2 * HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

void big_release(void *memory) {
    if (!memory) return;
    big_block block;
    memcpy(&block, (unsigned char *)memory - sizeof block, sizeof block);
    munmap(block.base, block.size);
}

#endif
