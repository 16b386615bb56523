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
static int   map_file(file_bytes *f, const char *path);         /* 0: it cannot be mapped */
static void  unmap_file(file_bytes *f);
static int   sync_file(FILE *f);                                /* 0, or -1 */
static long  process_number(void);
static char *console_line(void);            /* where getchar cannot read UTF-8 from a terminal */
static int   has_console_lines(void);

/* Called with every name in a directory. */
typedef void each_name(const char *name, void *user);
static int list_directory(const char *directory, each_name *see, void *user);    /* 0 or -1 */

/* ---- files -------------------------------------------------------------------------------- */

/* Reads to the end of the stream, whose size need not be known. */
static int read_file(file_bytes *f, FILE *stream, const char *path, report *r) {
    byte_buffer b = { NULL, 0, 0, 0 };
    unsigned char part[16384];
    for (size_t got; (got = fread(part, 1, sizeof part, stream)) > 0;) buffer_add(&b, part, got);
    buffer_number(&b, 0, 1);                /* not part of the file: makes `data` never null */
    if (ferror(stream) || b.failed) {
        report_fail(r, "%s: %s", path, b.failed ? "out of memory" : "cannot be read");
        buffer_free(&b);
        return -1;
    }
    f->data = b.data;
    f->owned = b.data;
    f->size = b.size - 1;
    return 0;
}

int file_open(file_bytes *f, const char *path, report *r) {
    memset(f, 0, sizeof *f);
    if (path_is_directory(path)) return report_fail(r, "%s: is a directory", path);
    if (map_file(f, path)) return 0;
    FILE *stream = file_stream(path, "rb");
    if (!stream) return report_fail(r, "%s: cannot be opened", path);
    int status = read_file(f, stream, path, r);
    fclose(stream);
    return status;
}

void file_close(file_bytes *f) {
    if (f->mapped) unmap_file(f);
    else free(f->owned);
    memset(f, 0, sizeof *f);
}

int text_open(file_bytes *t, const char *words, const char *file) {
    report r = { "" };
    memset(t, 0, sizeof *t);
    if (words) {
        t->data = (const unsigned char *)words;
        t->size = strlen(words);
        return 0;
    }
    int status = file ? file_open(t, file, &r) : read_file(t, stdin, "standard input", &r);
    return status ? complain("%s", r.text) : 0;
}

static int write_whole(const char *path, const void *data, size_t size) {
    FILE *f = file_stream(path, "wb");
    if (!f) return 0;
    int good = fwrite(data, 1, size, f) == size && !fflush(f) && !sync_file(f);
    return !fclose(f) && good;
}

int file_replace(const char *path, const void *data, size_t size) {
    size_t room = strlen(path) + 32;
    char *temporary = (char *)malloc(room);
    if (!temporary) return complain("out of memory");
    snprintf(temporary, room, "%s.%ld.tmp", path, process_number());
    int status = !write_whole(temporary, data, size) || file_rename(temporary, path);
    if (status) {
        complain("%s: %s", path, strerror(errno));
        file_remove(temporary);
    }
    free(temporary);
    return status;
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

int output_flush(void) {
    if (!fflush(stdout) && !ferror(stdout)) return 0;
    clearerr(stdout);
    return complain("cannot write the output: %s", strerror(errno));
}

/* Lines may end in \n or in \r\n, on every system. */
char *input_line(void) {
    if (has_console_lines()) return console_line();
    byte_buffer line = { NULL, 0, 0, 0 };
    int c;
    while ((c = getchar()) != EOF && c != '\n') buffer_number(&line, (unsigned)c, 1);
    int is_end = c == EOF && line.size == 0;
    if (line.size > 0 && line.data[line.size - 1] == '\r') line.size--;
    buffer_number(&line, 0, 1);
    if (is_end || line.failed) buffer_free(&line);
    return (char *)line.data;
}

static volatile sig_atomic_t interrupts;

int interrupted(void) { return interrupts != 0; }

void interrupt_clear(void) { interrupts = 0; }

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

static int map_file(file_bytes *f, const char *path) {
    LARGE_INTEGER size;
    HANDLE file = open_handle(path, GENERIC_READ), mapping = NULL;
    if (file == INVALID_HANDLE_VALUE) return 0;
    if (GetFileType(file) == FILE_TYPE_DISK && GetFileSizeEx(file, &size) && size.QuadPart > 0
        && (uint64_t)size.QuadPart <= SIZE_MAX)
        mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    CloseHandle(file);
    if (!mapping) return 0;
    f->owned = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    CloseHandle(mapping);
    f->data = (const unsigned char *)f->owned;
    f->size = (uint64_t)size.QuadPart;
    f->mapped = f->owned != NULL;
    return f->mapped;
}

static void unmap_file(file_bytes *f) { UnmapViewOfFile(f->owned); }

static int sync_file(FILE *f) { return _commit(_fileno(f)); }

FILE *file_stream(const char *path, const char *mode) {
    wchar_t *wide_path = wide_text(path), *wide_mode = wide_text(mode);
    FILE *stream = wide_path && wide_mode ? _wfopen(wide_path, wide_mode) : NULL;
    free(wide_path);
    free(wide_mode);
    return stream;
}

int file_rename(const char *from, const char *to) {
    wchar_t *wide_from = wide_text(from), *wide_to = wide_text(to);
    int good = wide_from && wide_to && MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING);
    if (!good) errno = EACCES;
    free(wide_from);
    free(wide_to);
    return good ? 0 : -1;
}

void file_remove(const char *path) {
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

int path_is_device(const char *path) {
    HANDLE file = open_handle(path, 0);
    int is_device = file != INVALID_HANDLE_VALUE && GetFileType(file) != FILE_TYPE_DISK;
    if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
    return is_device;
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
static char *console_line(void) {
    wchar_t line[8192];
    DWORD n = 0;
    if (!ReadConsoleW(handle_of(stdin), line, 8191, &n, NULL) || n == 0 || line[0] == 26)
        return NULL;
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
    line[n] = 0;
    return utf8_text(line);
}

/* Windows calls it in a thread of its own. */
static BOOL WINAPI on_interrupt(DWORD event) {
    if (event != CTRL_C_EVENT) return FALSE;
    if (interrupts++) ExitProcess(130);
    return TRUE;
}

void interrupt_catch(void) { SetConsoleCtrlHandler(on_interrupt, TRUE); }

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

#else
/* ==== POSIX =================================================================================== */

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void host_start(int *argc, char ***argv) { (void)argc; (void)argv; }

/* ---- files and paths ------------------------------------------------------------------------- */

static int map_file(file_bytes *f, const char *path) {
    struct stat about;
    void *data = MAP_FAILED;
    int file = open(path, O_RDONLY);
    if (file < 0) return 0;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0
        && (uint64_t)about.st_size <= SIZE_MAX)
        data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (data == MAP_FAILED) return 0;
    f->data = (const unsigned char *)data;
    f->owned = data;
    f->size = (uint64_t)about.st_size;
    f->mapped = 1;
    return 1;
}

static void unmap_file(file_bytes *f) { munmap(f->owned, (size_t)f->size); }

static int sync_file(FILE *f) { return fsync(fileno(f)); }

FILE *file_stream(const char *path, const char *mode) { return fopen(path, mode); }

int file_rename(const char *from, const char *to) { return rename(from, to); }

void file_remove(const char *path) { remove(path); }

const char *path_slash(const char *path) { return strrchr(path, '/'); }

static mode_t path_mode(const char *path) { /* 0: there is no such path */
    struct stat about;
    return stat(path, &about) == 0 ? about.st_mode : 0;
}

int path_exists(const char *path) { return path_mode(path) != 0; }

int path_is_directory(const char *path) { return S_ISDIR(path_mode(path)); }

int path_is_device(const char *path) {
    mode_t mode = path_mode(path);
    return mode != 0 && !S_ISREG(mode) && !S_ISDIR(mode);
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

static char *console_line(void) { return NULL; }

#ifdef __wasi__                             /* there are no signals */
void interrupt_catch(void) { }
#else
static void on_interrupt(int number) {
    (void)number;
    if (interrupts++) _exit(130);
}

/* Without SA_RESTART, so that Ctrl-C also ends the reading of a line. */
void interrupt_catch(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, NULL);
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
