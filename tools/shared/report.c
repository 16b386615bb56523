#if !defined(_WIN32)
#define _XOPEN_SOURCE 600
#endif

#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif
#if !defined(_MSC_VER)
#include <dirent.h>
#endif

static void make_printable(char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 32 || *text == 127) *text = '?';
    }
}

int report_fail(report *r, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(r->text, sizeof r->text, format, values);
    va_end(values);
    make_printable(r->text);
    return -1;
}

const char *report_name(const char *text, size_t length, char buffer[80]) {
    size_t i, n = length < 80 ? length : 76;
    for (i = 0; i < n; i++) buffer[i] = text[i] ? text[i] : '?';
    memcpy(buffer + n, n < length ? "..." : "", n < length ? 4 : 1);
    make_printable(buffer);
    return buffer;
}

/* ---- files ------------------------------------------------------------------------- */

/* Maps a regular file that is not empty; 0 if that cannot be done. */
static int file_map(file_bytes *f, const char *path) {
#if !defined(_WIN32)
    struct stat about;
    void *data = MAP_FAILED;
    int file = open(path, O_RDONLY);
    if (file < 0) return 0;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0 &&
        (uint64_t)about.st_size <= SIZE_MAX) {
        data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    }
    close(file);
    if (data == MAP_FAILED) return 0;
    f->data = data;
    f->owned = data;
    f->size = (uint64_t)about.st_size;
    f->mapped = 1;
    return 1;
#else
    (void)f;
    (void)path;
    return 0;
#endif
}

/* Reads to the end of the stream in growing pieces: its size need not be known. */
static int file_read(file_bytes *f, FILE *stream, const char *path, report *r) {
    size_t used = 0, room = 0, got = 1;
    unsigned char *data = NULL;
    while (got) {
        if (used == room) {
            unsigned char *more = realloc(data, room = room ? room * 2 : 65536);
            if (!more) { free(data); return report_fail(r, "%s: out of memory", path); }
            data = more;
        }
        got = fread(data + used, 1, room - used, stream);
        used += got;
    }
    if (ferror(stream)) { free(data); return report_fail(r, "%s: cannot be read", path); }
    f->data = data;
    f->owned = data;
    f->size = used;
    return 0;
}

int file_open(file_bytes *f, const char *path, report *r) {
    FILE *stream;
    int status;
    memset(f, 0, sizeof *f);
    if (path_is_directory(path)) return report_fail(r, "%s: is a directory", path);
    if (file_map(f, path)) return 0;
    stream = fopen(path, "rb");
    if (!stream) return report_fail(r, "%s: cannot be opened", path);
    status = file_read(f, stream, path, r);
    fclose(stream);
    return status;
}

void file_close(file_bytes *f) {
#if !defined(_WIN32)
    if (f->mapped) munmap(f->owned, (size_t)f->size);
#endif
    if (!f->mapped) free(f->owned);
    memset(f, 0, sizeof *f);
}

/* ---- paths ------------------------------------------------------------------------- */

char *path_join(const char *directory, const char *name) {
    size_t n = strlen(directory), size = n + strlen(name) + 2;
    char *path = malloc(size);
    const char *slash = n && directory[n - 1] == '/' ? "" : "/";
    if (path) snprintf(path, size, "%s%s%s", directory, slash, name);
    return path;
}

char *path_beside(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    size_t kept = slash ? (size_t)(slash - path) + 1 : 0, n = strlen(name) + 1;
    char *beside = malloc(kept + n);
    if (!beside) return NULL;
    memcpy(beside, path, kept);
    memcpy(beside + kept, name, n);
    return beside;
}

int path_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0;
}

int path_is_directory(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && (about.st_mode & S_IFMT) == S_IFDIR;
}

#if !defined(_MSC_VER)

static int ends_in(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

char *path_only(const char *directory, const char *ending, report *r) {
    DIR *listing = opendir(directory);
    struct dirent *entry;
    char *path = NULL;
    int found = 0;
    if (!listing) {
        report_fail(r, "%s: cannot be listed", directory);
        return NULL;
    }
    while ((entry = readdir(listing)) != NULL) {
        if (!ends_in(entry->d_name, ending)) continue;
        if (found++ == 0) path = path_join(directory, entry->d_name);
    }
    closedir(listing);
    if (found == 1 && path) return path;
    free(path);
    report_fail(r, "%s: %s *%s file", directory, found ? "more than one" : "no", ending);
    return NULL;
}

#else

char *path_only(const char *directory, const char *ending, report *r) {
    report_fail(r, "%s: name the *%s file itself", directory, ending);
    return NULL;
}

#endif
