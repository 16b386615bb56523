/* zip.c - the members of a zip archive; see zip.h. */

#include "zip.h"

#include "../shared/checked.h"

#include <stdlib.h>
#include <string.h>

static int bad_zip(const zip *z, uint64_t offset, const char *what) {
    return report_fail(z->r, "%s: offset %llu: %s", z->path, (unsigned long long)offset, what);
}

static int is_signature(const unsigned char *p, int third, int fourth) {
    return p[0] == 'P' && p[1] == 'K' && p[2] == third && p[3] == fourth;
}

/* End of central directory: 50 4B 05 06, its comment (length u16 at +20) ends the file. */
static int find_end(const zip *z, uint64_t *end) {
    for (uint64_t back = 22; back <= z->size && back <= 22 + 65535; back++) {
        const unsigned char *p = z->bytes + (z->size - back);
        if (!is_signature(p, 5, 6) || little_u16(p + 20) != back - 22) continue;
        *end = z->size - back;
        return 0;
    }
    return -1;
}

/* The zip64 record, 50 4B 06 06. Its locator, 50 4B 06 07 with the record's offset as u64 +8, lies
 * 20 bytes before the end record. */
static int find_zip64(const zip *z, uint64_t end, uint64_t *record) {
    if (end < 20 + 56 || !is_signature(z->bytes + end - 20, 6, 7)) return -1;
    *record = little_u64(z->bytes + end - 12);
    return *record <= end - 20 - 56 && is_signature(z->bytes + *record, 6, 6) ? 0 : -1;
}

/* End record: entries u16 +10, directory size u32 +12, offset u32 +16. Where one is saturated, the
 * zip64 record has them as u64: entries +32, size +40, offset +48. */
static int find_directory(zip *z) {
    uint64_t end;
    if (find_end(z, &end)) return report_fail(z->r, "%s: not a zip archive", z->path);
    const unsigned char *p = z->bytes + end;
    uint64_t count = little_u16(p + 10);
    uint64_t size = little_u32(p + 12);
    z->directory = little_u32(p + 16);
    if (count == 0xFFFF || size == 0xFFFFFFFF || z->directory == 0xFFFFFFFF) {
        if (find_zip64(z, end, &end)) return bad_zip(z, end, "no zip64 directory record");
        p = z->bytes + end;
        count = little_u64(p + 32);
        size = little_u64(p + 40);
        z->directory = little_u64(p + 48);
    }
    if (z->directory > end || size > end - z->directory || count > size / 46) {
        return bad_zip(z, end, "central directory does not fit");
    }
    z->directory_end = z->directory + size;
    z->count = (size_t)count;
    return 0;
}

/* Extra fields: u16 id, u16 length, bytes. Field 1 holds u64s in place of the saturated values. */
static int read_zip64(const unsigned char *p, size_t left, uint64_t values[3]) {
    while (left >= 4 && little_u16(p) != 1 && left - 4 >= little_u16(p + 2)) {
        size_t n = 4 + (size_t)little_u16(p + 2);
        p += n;
        left -= n;
    }
    left = left >= 4 && little_u16(p) == 1 && left - 4 >= little_u16(p + 2) ? little_u16(p + 2) : 0;
    p += 4;
    for (int i = 0; i < 3; i++) {
        if (values[i] != 0xFFFFFFFF) continue;
        if (left < 8) return -1;
        values[i] = little_u64(p);
        p += 8;
        left -= 8;
    }
    return 0;
}

static int is_plain_name(const char *name, size_t length) {
    if (length == 0 || name[0] == '/') return 0;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == 0 || name[i] == '\\') return 0;
        if (name[i] == '.' && i + 1 < length && name[i + 1] == '.') return 0;
    }
    return 1;
}

/* Local header, 50 4B 03 04: name length +26, extra length +28, then both, then the data. Only its
 * lengths are read: torch leaves the sizes in it 0. */
static int locate_data(const zip *z, zip_member *m) {
    if (m->start > z->directory || z->directory - m->start < 30 ||
        !is_signature(z->bytes + m->start, 3, 4)) {
        return bad_zip(z, m->start, "expected a local header");
    }
    const unsigned char *p = z->bytes + m->start;
    uint64_t left = z->directory - m->start - 30;
    m->data = (uint64_t)little_u16(p + 26) + little_u16(p + 28);
    if (m->data > left || m->size > left - m->data) {
        return bad_zip(z, m->start, "member runs out of its archive");
    }
    m->data += m->start + 30;
    return 0;
}

/* Central entry, 50 4B 01 02: flags +8, method +10, packed size +20, size +24, lengths of name +28,
 * extra +30 and comment +32, local header +42, name +46. */
static int read_member(const zip *z, uint64_t *at, zip_member *m) {
    const unsigned char *p = z->bytes + *at;
    uint64_t left = z->directory_end - *at, values[3];
    if (left < 46 || !is_signature(p, 1, 2)) return bad_zip(z, *at, "expected a central entry");
    m->name = (const char *)p + 46;
    m->length = little_u16(p + 28);
    size_t extra = little_u16(p + 30);
    size_t tail = m->length + extra + little_u16(p + 32);
    if (tail > left - 46) return bad_zip(z, *at, "central entry is cut");
    values[0] = little_u32(p + 24);
    values[1] = little_u32(p + 20);
    values[2] = little_u32(p + 42);
    if (read_zip64(p + 46 + m->length, extra, values)) return bad_zip(z, *at, "no zip64 sizes");
    if (p[8] & 1) return bad_zip(z, *at, "encrypted member");
    if (little_u16(p + 10) != 0 || values[0] != values[1]) {
        return bad_zip(z, *at, "compressed member; only stored ones are read");
    }
    if (!is_plain_name(m->name, m->length)) return bad_zip(z, *at, "bad member name");
    m->size = values[0];
    m->start = values[2];
    *at += 46 + tail;
    return locate_data(z, m);
}

static int compare_starts(const void *a, const void *b) {
    const zip_member *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int compare_names(const void *a, const void *b) {
    const zip_member *x = a, *y = b;
    size_t n = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->name, y->name, n);
    if (order) return order;
    return x->length < y->length ? -1 : x->length > y->length;
}

static int read_directory(zip *z) {
    uint64_t at = z->directory;
    z->members = calloc(z->count + 1, sizeof *z->members);
    if (!z->members) return report_fail(z->r, "%s: out of memory", z->path);
    for (size_t i = 0; i < z->count; i++) {
        if (read_member(z, &at, &z->members[i])) return -1;
    }
    if (at != z->directory_end) return bad_zip(z, at, "more central entries than counted");
    qsort(z->members, z->count, sizeof *z->members, compare_starts);
    for (size_t i = 1; i < z->count; i++) {
        const zip_member *m = &z->members[i];
        if (m->start < m[-1].data + m[-1].size) return bad_zip(z, m->start, "members overlap");
    }
    qsort(z->members, z->count, sizeof *z->members, compare_names);
    for (size_t i = 1; i < z->count; i++) {
        const zip_member *m = &z->members[i];
        if (compare_names(m, m - 1) == 0) return bad_zip(z, m->start, "duplicate name");
    }
    return 0;
}

int zip_open(zip *z, const unsigned char *bytes, uint64_t size, const char *path, report *r) {
    memset(z, 0, sizeof *z);
    z->bytes = bytes;
    z->size = size;
    z->path = path;
    z->r = r;
    if (find_directory(z) == 0 && read_directory(z) == 0) return 0;
    zip_close(z);
    return -1;
}

void zip_close(zip *z) {
    free(z->members);
    z->members = NULL;
}

const zip_member *zip_find(const zip *z, const char *name, size_t length) {
    zip_member key = {NULL, 0, 0, 0, 0};
    key.name = name;
    key.length = length;
    return bsearch(&key, z->members, z->count, sizeof *z->members, compare_names);
}
