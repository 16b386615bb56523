/* checkpoint.c - finds the reader of a file; see checkpoint.h. */

#include "checkpoint.h"
#include "safetensors.h"
#include "sentencepiece.h"
#include "tokenizer_json.h"
#include "torch.h"

#include <stdlib.h>
#include <string.h>

/* ---- weights --------------------------------------------------------------------------------- */

typedef int weights_opener(weights *w, const char *path, report *r);

/* 1 if directory/name exists; then *status is what `open` made of it. */
static int open_named(weights *w, const char *directory, const char *name, weights_opener *open,
                      int *status, report *r) {
    char *path = path_join(directory, name);
    int found = !path || path_exists(path);
    if (found) *status = path ? open(w, path, r) : report_fail(r, "%s: out of memory", directory);
    free(path);
    return found;
}

static int open_directory(weights *w, const char *directory, report *r) {
    static const struct { const char *name; weights_opener *open; } usual[] = {
        { "model.safetensors.index.json", weights_open_sharded },
        { "model.safetensors", weights_open_safetensors },
        { "pytorch_model.bin.index.json", weights_open_sharded },
        { "pytorch_model.bin", weights_open_torch }
    };
    int status;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (open_named(w, directory, usual[i].name, usual[i].open, &status, r)) return status;
    char *path = path_only(directory, ".pt", r);
    if (!path)
        return report_fail(r, "%s: needs model.safetensors, pytorch_model.bin or one *.pt file",
                           directory);
    status = weights_open_torch(w, path, r);
    free(path);
    return status;
}

int weights_open(weights *w, const char *source, report *r) {
    static const struct { const char *ending; weights_opener *open; } kinds[] = {
        { ".index.json", weights_open_sharded }, { ".safetensors", weights_open_safetensors },
        { ".pt", weights_open_torch }, { ".pth", weights_open_torch },
        { ".bin", weights_open_torch }
    };
    memset(w, 0, sizeof *w);
    if (!path_exists(source)) return report_fail(r, "%s: no such file or directory", source);
    if (path_is_directory(source)) return open_directory(w, source, r);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (path_ends_in(source, kinds[i].ending)) return kinds[i].open(w, source, r);
    return report_fail(r, "%s: neither a directory nor a .safetensors, .pt or .bin file", source);
}

/* ---- tokenizers ------------------------------------------------------------------------------ */

static uint64_t skip_blanks(const file_bytes *file, uint64_t at) {
    while (at < file->size && memchr(" \t\r\n", file->data[at], 4)) at++;
    return at;
}

/* JSON may begin with a byte order mark and with white space. A SentencePiece model begins with a
 * line feed too, which is the key of its first piece. The '{' after it may be a length of 123
 * bytes, but then no '"' follows. */
static int is_json(const file_bytes *file) {
    uint64_t mark = file->size >= 3 && memcmp(file->data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    uint64_t at = skip_blanks(file, mark);
    if (at == file->size || file->data[at] != '{') return 0;
    at = skip_blanks(file, at + 1);
    return at == file->size || file->data[at] == '"' || file->data[at] == '}';
}

int vocabulary_read(vocabulary *v, const char *path, int assume_nfc, report *r) {
    file_bytes file;
    int status;
    memset(v, 0, sizeof *v);
    v->bos = v->eos = v->unknown = v->pad = v->end_of_turn = -1;
    v->escape_whitespaces = 1;
    if (file_open(&file, path, r) != 0) return -1;
    if (is_json(&file))
        status = vocabulary_from_json(v, file.data, (size_t)file.size, path, assume_nfc, r);
    else
        status = vocabulary_from_sentencepiece(v, file.data, (size_t)file.size, path, r);
    file_close(&file);
    if (status == 0 && v->out_of_memory) status = report_fail(r, "%s: out of memory", path);
    if (status == 0 && v->count == 0) status = report_fail(r, "%s: no pieces", path);
    if (status != 0) vocabulary_free(v);
    return status;
}
