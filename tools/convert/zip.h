/* zip.h - the members of a zip archive in memory. They must be stored (not compressed), must not
 * overlap, and must have different names. */

#ifndef ZIP_H
#define ZIP_H

#include "../shared/report.h"

#include <stddef.h>
#include <stdint.h>

typedef struct zip_member {
    const char *name;               /* in the archive, not terminated */
    size_t length;
    uint64_t start;                 /* offset of the local header */
    uint64_t data, size;            /* offset and bytes of the contents */
} zip_member;

typedef struct zip {
    const unsigned char *bytes;
    uint64_t size;
    const char *path;               /* for messages */
    report *r;
    uint64_t directory, directory_end;
    zip_member *members;            /* sorted by name */
    size_t count;
} zip;

/* `bytes` and `path` must outlive the archive. 0, or -1 with a message and nothing to close. */
int  zip_open(zip *z, const unsigned char *bytes, uint64_t size, const char *path, report *r);
void zip_close(zip *z);

/* Null if there is no such member. */
const zip_member *zip_find(const zip *z, const char *name, size_t length);

#endif
