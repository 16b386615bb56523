/* torch.c - PyTorch's .pt: a zip archive that torch.save made of a dict of tensors; see torch.h.
 *
 *     <root>/data.pkl      a pickle of the dict; its tensors name a storage, an offset and strides
 *     <root>/data/<key>    one storage each: raw little-endian elements
 *     <root>/byteorder     "little", if it is there
 *
 * The pickle, of protocol 2 to 5, is read by a machine that knows a list of opcodes and a list of
 * globals. It fails at anything else, and it calls nothing. */

#include "torch.h"

#include "../shared/checked.h"
#include "../shared/json.h"
#include "zip.h"

#include <stdlib.h>
#include <string.h>

/* ---- the archive --------------------------------------------------------------------------- */

typedef struct archive {
    zip zip;
    const zip_member *pickle;
    char *name;                     /* "<root>" and room for more, to look for members */
    size_t root;                    /* length of <root> */
} archive;

static const zip_member *find_member(const archive *a, const char *text, size_t length) {
    memcpy(a->name + a->root, text, length);                    /* at most 32 bytes */
    return zip_find(&a->zip, a->name, a->root + length);
}

static int find_pickle(archive *a, const char *path, report *r) {
    static const char ending[] = "/data.pkl";
    size_t n = sizeof ending - 1;
    for (size_t i = 0; i < a->zip.count; i++) {
        const zip_member *m = &a->zip.members[i];
        if (m->length <= n || memcmp(m->name + m->length - n, ending, n) != 0) continue;
        if (a->pickle) return report_fail(r, "%s: more than one data.pkl", path);
        a->pickle = m;
    }
    if (!a->pickle) return report_fail(r, "%s: no data.pkl in the archive", path);
    a->root = a->pickle->length - n;
    a->name = malloc(a->root + 32);
    if (!a->name) return report_fail(r, "%s: out of memory", path);
    memcpy(a->name, a->pickle->name, a->root);
    const zip_member *order = find_member(a, "/byteorder", 10);
    if (order && (order->size != 6 || memcmp(a->zip.bytes + order->data, "little", 6) != 0)) {
        return report_fail(r, "%s: byteorder is not little", path);
    }
    return 0;
}

/* ---- the pickle machine -------------------------------------------------------------------- */

/* Entries of the stack and of the memo. They need not be more than the bytes of the pickle either,
 * because every entry takes at least one byte to fill. */
enum { PICKLE_LIMIT = 65536 };

/* Kinds are letters, so that a row of arguments can be compared with a string. */
enum {
    NOTHING = 'n',
    BOOLEAN = 'b',                  /* number */
    INTEGER = 'i',                  /* number */
    REAL    = 'f',                  /* its value is not kept */
    STRING  = 's',                  /* number: offset in the pickle, count: bytes */
    GLOBAL  = 'g',                  /* number: index in globals */
    MARK    = '(',
    TUPLE   = 't',                  /* number: index of the first item in the pool, count: items */
    LIST    = 'l',                  /* number: index in containers */
    DICT    = 'd',                  /* number: index in containers */
    STORAGE = 'S',                  /* as TUPLE: "storage", type, key, location, elements */
    TENSOR  = 'T'                   /* as TUPLE: storage, offset, size, stride, bool, hooks */
};

typedef struct value {
    int kind;                       /* 0: not set */
    uint32_t count;
    int64_t number;
} value;

/* Lists and dicts are chains, so that they can grow after they were put into the memo. */
typedef struct chain {
    size_t first, last;             /* 1 + index in links; 0: none */
} chain;

typedef struct chain_link {
    value key, item;                /* a list has no keys */
    size_t next;
} chain_link;

typedef struct machine {
    const archive *a;
    const unsigned char *bytes;
    uint64_t size, at;
    value *stack, *memo;            /* `limit` entries each */
    size_t limit, depth;
    uint32_t memo_count;            /* entries that are set */
    value *pool;                    /* the items of all tuples */
    chain *containers;
    chain_link *links;
    size_t pool_count, pool_room, container_count, container_room, link_count, link_room;
} machine;

enum { CALL_DICT, CALL_TENSOR, CALL_PARAMETER, CALL_SIZE, CALL_NEVER };

static const struct global {
    const char *lines;
    int call;
    const char *type_name;
    unsigned bits;
    weight_type type;
} globals[] = {
    {"collections\nOrderedDict\n",         CALL_DICT,      NULL,       0,  WEIGHT_OTHER},
    {"torch._utils\n_rebuild_tensor_v2\n", CALL_TENSOR,    NULL,       0,  WEIGHT_OTHER},
    {"torch._utils\n_rebuild_parameter\n", CALL_PARAMETER, NULL,       0,  WEIGHT_OTHER},
    {"torch\nSize\n",                      CALL_SIZE,      NULL,       0,  WEIGHT_OTHER},
    {"torch\nFloatStorage\n",              CALL_NEVER,     "float32",  32, WEIGHT_F32},
    {"torch\nDoubleStorage\n",             CALL_NEVER,     "float64",  64, WEIGHT_F64},
    {"torch\nHalfStorage\n",               CALL_NEVER,     "float16",  16, WEIGHT_F16},
    {"torch\nBFloat16Storage\n",           CALL_NEVER,     "bfloat16", 16, WEIGHT_BF16},
    {"torch\nLongStorage\n",               CALL_NEVER,     "int64",    64, WEIGHT_OTHER},
    {"torch\nIntStorage\n",                CALL_NEVER,     "int32",    32, WEIGHT_OTHER},
    {"torch\nShortStorage\n",              CALL_NEVER,     "int16",    16, WEIGHT_OTHER},
    {"torch\nCharStorage\n",               CALL_NEVER,     "int8",     8,  WEIGHT_OTHER},
    {"torch\nByteStorage\n",               CALL_NEVER,     "uint8",    8,  WEIGHT_OTHER},
    {"torch\nBoolStorage\n",               CALL_NEVER,     "bool",     8,  WEIGHT_OTHER}
};

static int bad_pickle(const machine *m, const char *what) {
    return report_fail(m->a->zip.r, "%s: data.pkl, offset %llu: %s", m->a->zip.path,
                       (unsigned long long)m->at, what);
}

/* Returns the next n bytes; null with a message if there are fewer. */
static const unsigned char *next_bytes(machine *m, uint64_t n) {
    const unsigned char *p = m->bytes + m->at;
    if (n > m->size - m->at) {
        bad_pickle(m, "ends too early");
        return NULL;
    }
    m->at += n;
    return p;
}

/* Returns `list` with room for `more` items after `count`. Null if there is no memory: then the old
 * list is unchanged. */
static void *make_room(void *list, size_t count, size_t more, size_t *room, size_t size) {
    size_t wanted = 2 * (count + more) + 16;
    if (count + more <= *room) return list;
    void *grown = realloc(list, wanted * size);
    if (grown) *room = wanted;
    return grown;
}

static int push(machine *m, int kind, int64_t number, uint32_t count) {
    if (m->depth == m->limit) return bad_pickle(m, "stack is full");
    value *v = &m->stack[m->depth];
    v->kind = kind;
    v->number = number;
    v->count = count;
    m->depth++;
    return 0;
}

/* Returns the value that lies `below` values under the top. Null with a message if there is none,
 * or a mark. */
static value *peek(machine *m, size_t below) {
    value *v = below < m->depth ? &m->stack[m->depth - 1 - below] : NULL;
    if (v && v->kind != MARK) return v;
    bad_pickle(m, "a value is missing on the stack");
    return NULL;
}

/* Returns the number of values above the topmost mark, or -1. The caller removes them all, so the
 * search costs no more than pushing them did. */
static int64_t count_to_mark(machine *m) {
    size_t count = 0;
    while (count < m->depth && m->stack[m->depth - 1 - count].kind != MARK) count++;
    return count < m->depth ? (int64_t)count : bad_pickle(m, "no mark on the stack");
}

static int is_like(const value *items, size_t count, const char *kinds) {
    if (strlen(kinds) != count) return 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i].kind != kinds[i]) return 0;
    }
    return 1;
}

static int text_is(const machine *m, const value *v, const char *text) {
    return v->kind == STRING && strlen(text) == v->count &&
           memcmp(m->bytes + v->number, text, v->count) == 0;
}

static int new_container(machine *m, int kind) {
    chain *list = make_room(m->containers, m->container_count, 1, &m->container_room, sizeof *list);
    if (!list) return bad_pickle(m, "out of memory");
    m->containers = list;
    memset(&list[m->container_count], 0, sizeof *list);
    return push(m, kind, (int64_t)m->container_count++, 0);
}

/* A dict made from a list copies it, so short pickles could make many links: they are limited. */
static int add_link(machine *m, const value *container, value key, value item) {
    chain *c = &m->containers[container->number];
    if (m->link_count >= m->size) return bad_pickle(m, "too many items");
    chain_link *links = make_room(m->links, m->link_count, 1, &m->link_room, sizeof *links);
    if (!links) return bad_pickle(m, "out of memory");
    m->links = links;
    links[m->link_count].key = key;
    links[m->link_count].item = item;
    links[m->link_count].next = 0;
    m->link_count++;
    if (c->last) links[c->last - 1].next = m->link_count;
    else c->first = m->link_count;
    c->last = m->link_count;
    return 0;
}

/* The topmost `count` values become a tuple. */
static int make_tuple(machine *m, size_t count) {
    size_t start = m->pool_count;
    value *pool = make_room(m->pool, start, count, &m->pool_room, sizeof *pool);
    if (!pool) return bad_pickle(m, "out of memory");
    m->pool = pool;
    m->depth -= count;
    memcpy(pool + start, m->stack + m->depth, count * sizeof *pool);
    m->pool_count += count;
    return push(m, TUPLE, (int64_t)start, (uint32_t)count);
}

static int do_tuple(machine *m, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!peek(m, i)) return -1;
    }
    return make_tuple(m, count);
}

static int do_marked_tuple(machine *m) {
    int64_t count = count_to_mark(m);
    if (count < 0 || make_tuple(m, (size_t)count)) return -1;
    m->stack[m->depth - 2] = m->stack[m->depth - 1];
    m->depth--;
    return 0;
}

/* The topmost `count` values go into the container below them (and below a mark, if any): pairs of
 * key and item, or items. */
static int add_items(machine *m, int kind, size_t count, size_t marks) {
    const value *items = m->stack + m->depth - count;
    value none = {NOTHING, 0, 0};
    size_t step = kind == DICT ? 2 : 1;
    m->depth -= count + marks;
    value *container = peek(m, 0);
    if (!container) return -1;
    if (container->kind != kind || count % step) return bad_pickle(m, "items without a container");
    for (size_t i = 0; i < count; i += step) {
        value key = kind == DICT ? items[i] : none;
        if (add_link(m, container, key, items[i + step - 1])) return -1;
    }
    return 0;
}

static int do_item(machine *m, int kind) {
    size_t count = kind == DICT ? 2 : 1;
    if (!peek(m, 0) || !peek(m, count - 1)) return -1;
    return add_items(m, kind, count, 0);
}

static int do_items(machine *m, int kind) {
    int64_t count = count_to_mark(m);
    return count < 0 ? -1 : add_items(m, kind, (size_t)count, 1);
}

static int do_put(machine *m, uint32_t index) {
    const value *top = peek(m, 0);
    if (!top) return -1;
    if (index >= m->limit) return bad_pickle(m, "memo index is too large");
    m->memo_count += !m->memo[index].kind;
    m->memo[index] = *top;
    return 0;
}

static int do_get(machine *m, uint32_t index) {
    const value *v = index < m->limit ? &m->memo[index] : NULL;
    if (!v || !v->kind) return bad_pickle(m, "memo entry is not set");
    return push(m, v->kind, v->number, v->count);
}

/* Pushes the global of a module, if it is one of those that are known. */
static int push_global(machine *m, const unsigned char *module, size_t n,
                       const unsigned char *name, size_t k) {
    char shown[2][80];
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        const char *lines = globals[i].lines;
        if (strlen(lines) == n + k + 2 && memcmp(lines, module, n) == 0 && lines[n] == '\n'
            && memcmp(lines + n + 1, name, k) == 0) return push(m, GLOBAL, (int64_t)i, 0);
    }
    return report_fail(m->a->zip.r, "%s: data.pkl, offset %llu: global '%s.%s' is not allowed, "
                       "because nothing in a file is run; save the tensors alone: "
                       "torch.save(model.state_dict(), FILE)", m->a->zip.path,
                       (unsigned long long)m->at, report_name((const char *)module, n, shown[0]),
                       report_name((const char *)name, k, shown[1]));
}

/* The next line without its end. Null with a message if it has none. */
static const unsigned char *next_line(machine *m, size_t *length) {
    const unsigned char *p = m->bytes + m->at;
    const unsigned char *end = memchr(p, '\n', (size_t)(m->size - m->at));
    if (!end) { bad_pickle(m, "ends too early"); return NULL; }
    *length = (size_t)(end - p);
    m->at += *length + 1;
    return p;
}

static int do_global(machine *m) {
    size_t n, k;
    const unsigned char *module = next_line(m, &n), *name = module ? next_line(m, &k) : NULL;
    return name ? push_global(m, module, n, name, k) : -1;
}

/* Protocol 4: module and name are two strings on the stack. */
static int do_stack_global(machine *m) {
    const value *name = peek(m, 0), *module = name ? peek(m, 1) : NULL;
    if (!module) return -1;
    if (name->kind != STRING || module->kind != STRING)
        return bad_pickle(m, "a global whose name is no text");
    m->depth -= 2;
    return push_global(m, m->bytes + module->number, module->count, m->bytes + name->number,
                       name->count);
}

/* A length of `size` bytes and a text. */
static int do_string(machine *m, int size) {
    const unsigned char *p = next_bytes(m, (uint64_t)size), *text;
    uint64_t length = 0;
    size_t n;
    for (int i = 0; p && i < size; i++) length |= (uint64_t)p[i] << 8 * i;
    if (!p || !(text = next_bytes(m, length))) return -1;
    if (length > UINT32_MAX) return bad_pickle(m, "string of more than 4 GiB");
    for (size_t i = 0; i < length; i += n) {
        n = utf8_length(text + i, (size_t)length - i);
        if (n == 0) return bad_pickle(m, "string is not UTF-8");
    }
    return push(m, STRING, (int64_t)(text - m->bytes), (uint32_t)length);
}

/* Little-endian two's complement of any length up to 8. */
static int push_integer(machine *m, uint64_t length, int is_signed) {
    const unsigned char *p = length <= 8 ? next_bytes(m, length) : NULL;
    uint64_t bits = 0;
    if (!p) return length <= 8 ? -1 : bad_pickle(m, "integer of more than 64 bits");
    for (uint64_t i = 0; i < length; i++) bits |= (uint64_t)p[i] << 8 * i;
    if (is_signed && length && length < 8 && p[length - 1] & 0x80) bits |= UINT64_MAX << 8 * length;
    return push(m, INTEGER, bits >> 63 ? -(int64_t)(~bits) - 1 : (int64_t)bits, 0);
}

static int do_long(machine *m) {
    const unsigned char *p = next_bytes(m, 1);
    return p ? push_integer(m, *p, 1) : -1;
}

static int do_float(machine *m) {
    return next_bytes(m, 8) ? push(m, REAL, 0, 0) : -1;
}

/* ("storage", type, key, location, elements); the key is a number of up to 20 digits. */
static int do_storage(machine *m) {
    value *v = peek(m, 0);
    const value *items = v ? m->pool + v->number : NULL;
    if (!v) return -1;
    if (v->kind != TUPLE || !is_like(items, v->count, "sgssi") || !text_is(m, items, "storage") ||
        !globals[items[1].number].type_name || items[2].count < 1 || items[2].count > 20) {
        return bad_pickle(m, "unknown persistent id");
    }
    for (uint32_t i = 0; i < items[2].count; i++) {
        unsigned char c = m->bytes[items[2].number + i];
        if (c < '0' || c > '9') return bad_pickle(m, "storage key is not a number");
    }
    v->kind = STORAGE;
    return 0;
}

static int is_empty_dict(const machine *m, const value *v) {
    return v->kind == DICT && m->containers[v->number].first == 0;
}

/* OrderedDict() and OrderedDict([(key, item), ...]). */
static int call_dict(machine *m, const value *args, size_t count) {
    if (count && !is_like(args, count, "l")) return bad_pickle(m, "unknown OrderedDict arguments");
    size_t link = count ? m->containers[args[0].number].first : 0;
    if (new_container(m, DICT)) return -1;
    for (; link; link = m->links[link - 1].next) {
        value pair = m->links[link - 1].item;
        if (pair.kind != TUPLE || pair.count != 2) return bad_pickle(m, "item is not a pair");
        if (add_link(m, peek(m, 0), m->pool[pair.number], m->pool[pair.number + 1])) return -1;
    }
    return 0;
}

/* Replaces a function and its arguments by what the function would return. Four are known. */
static int do_reduce(machine *m) {
    const value *tuple = peek(m, 0), *function = peek(m, 1);
    if (!tuple || !function) return -1;
    if (tuple->kind != TUPLE || function->kind != GLOBAL) return bad_pickle(m, "no call");
    const value *args = m->pool + tuple->number;
    size_t count = tuple->count;
    m->depth -= 2;                              /* the values stay readable until the push */
    switch (globals[function->number].call) {
    case CALL_DICT: return call_dict(m, args, count);
    case CALL_SIZE:
        if (!is_like(args, count, "t")) break;
        return push(m, TUPLE, args[0].number, args[0].count);
    case CALL_PARAMETER:
        if (!is_like(args, count, "Tbd") || !is_empty_dict(m, &args[2])) break;
        return push(m, TENSOR, args[0].number, args[0].count);
    case CALL_TENSOR:
        if (count < 6 || count > 7 || !is_like(args, 6, "Sittbd")) break;
        if (!is_empty_dict(m, &args[5])) break;
        return push(m, TENSOR, tuple->number, tuple->count);
    default: break;
    }
    return bad_pickle(m, "unknown arguments of a call");
}

/* The state of a module's dict holds only `_metadata`, which is dropped. */
static int do_build(machine *m) {
    const value *object = peek(m, 1);
    if (!peek(m, 0) || !object) return -1;
    if (object->kind != DICT) return bad_pickle(m, "state for something that is no dict");
    m->depth--;
    return 0;
}

/* Carries out one opcode other than PROTO and STOP. */
static int step(machine *m, int opcode) {
    const unsigned char *p = NULL;
    int operand = opcode == 'q' || opcode == 'h' ? 1 : opcode == 'r' || opcode == 'j' ? 4 : 0;
    if (operand && !(p = next_bytes(m, (uint64_t)operand))) return -1;
    switch (opcode) {
    case 'c':  return do_global(m);
    case 'q':  return do_put(m, *p);
    case 'r':  return do_put(m, little_u32(p));
    case 'h':  return do_get(m, *p);
    case 'j':  return do_get(m, little_u32(p));
    case '(':  return push(m, MARK, 0, 0);
    case ')':  return do_tuple(m, 0);
    case 't':  return do_marked_tuple(m);
    case 0x85: return do_tuple(m, 1);
    case 0x86: return do_tuple(m, 2);
    case 0x87: return do_tuple(m, 3);
    case '}':  return new_container(m, DICT);
    case ']':  return new_container(m, LIST);
    case 'X':  return do_string(m, 4);
    case 'J':  return push_integer(m, 4, 1);
    case 'K':  return push_integer(m, 1, 0);
    case 'M':  return push_integer(m, 2, 0);
    case 0x8A: return do_long(m);
    case 'G':  return do_float(m);
    case 0x88: return push(m, BOOLEAN, 1, 0);
    case 0x89: return push(m, BOOLEAN, 0, 0);
    case 'N':  return push(m, NOTHING, 0, 0);
    case 'Q':  return do_storage(m);
    case 'R':  return do_reduce(m);
    case 's':  return do_item(m, DICT);
    case 'u':  return do_items(m, DICT);
    case 'a':  return do_item(m, LIST);
    case 'e':  return do_items(m, LIST);
    case 'b':  return do_build(m);
    case 0x8C: return do_string(m, 1);          /* from here on, of protocol 4 */
    case 0x8D: return do_string(m, 8);
    case 0x93: return do_stack_global(m);
    case 0x94: return do_put(m, m->memo_count);
    case 0x95: return next_bytes(m, 8) ? 0 : -1;        /* a frame: how many bytes follow */
    default:   return bad_pickle(m, "an opcode that is not allowed");
    }
}

static int run_pickle(machine *m) {
    const unsigned char *p = next_bytes(m, 2);
    m->limit = m->size < PICKLE_LIMIT ? (size_t)m->size : PICKLE_LIMIT;
    m->stack = malloc((m->limit + 1) * sizeof *m->stack);
    m->memo = calloc(m->limit + 1, sizeof *m->memo);
    m->pool = make_room(NULL, 0, 1, &m->pool_room, sizeof *m->pool);
    if (!m->stack || !m->memo || !m->pool) return bad_pickle(m, "out of memory");
    if (!p) return -1;
    if (p[0] != 0x80 || p[1] < 2 || p[1] > 5)
        return bad_pickle(m, "not a pickle of protocol 2 to 5");
    for (;;) {
        p = next_bytes(m, 1);
        if (!p) return -1;
        if (*p == '.') break;
        if (step(m, *p)) return -1;
    }
    if (m->at != m->size || m->depth != 1) return bad_pickle(m, "more than one value at the end");
    return 0;
}

/* ---- tensors ------------------------------------------------------------------------------- */

/* Reads a tuple of naturals. Returns their number, or -1 if it is anything else. */
static int read_naturals(const machine *m, const value *tuple, uint64_t *list, int limit) {
    if (tuple->count > (uint32_t)limit) return -1;
    for (uint32_t i = 0; i < tuple->count; i++) {
        const value *v = &m->pool[tuple->number + i];
        if (v->kind != INTEGER || v->number < 0) return -1;
        list[i] = (uint64_t)v->number;
    }
    return (int)tuple->count;
}

/* The last element, offset + sum of (size - 1) * stride, must lie in the storage. */
static int is_inside(const weight *t, uint64_t offset, uint64_t count) {
    uint64_t reach;
    for (int i = 0; i < t->rank; i++) {
        if (!checked_mul(t->shape[i] - 1, (uint64_t)t->stride[i], &reach)) return 0;
        if (!checked_add(offset, reach, &offset)) return 0;
    }
    return offset < count;
}

/* Fills in shape, strides and data from (storage, offset, size, stride, ...). Returns what is wrong
 * with them, or null. No tensor is larger than its storage: a view that repeats is refused. */
static const char *read_tensor(const machine *m, const value *args, weight *t) {
    const value *storage = m->pool + args[0].number;
    const struct global *element = &globals[storage[1].number];
    uint64_t strides[WEIGHT_RANK], count = (uint64_t)storage[4].number, bytes;
    char key[32] = "/data/";
    memcpy(key + 6, m->bytes + storage[2].number, storage[2].count);
    const zip_member *data = find_member(m->a, key, 6 + storage[2].count);
    if (!data) return "its storage is missing";
    if (storage[4].number < 0 || !checked_mul(count, element->bits / 8, &bytes)) bytes = UINT64_MAX;
    if (bytes != data->size) return "its storage has another size than stated";
    t->type = element->type;
    t->type_name = element->type_name;
    t->rank = read_naturals(m, &args[2], t->shape, WEIGHT_RANK);
    if (t->rank < 0) return "bad shape";
    if (read_naturals(m, &args[3], strides, WEIGHT_RANK) != t->rank) return "bad strides";
    if (weight_measure(t, element->bits) || t->elements > count) return "larger than its storage";
    for (int i = 0; i < t->rank; i++) t->stride[i] = t->shape[i] > 1 ? (int64_t)strides[i] : 0;
    t->data = m->a->zip.bytes + data->data;
    if (args[1].number < 0) return "negative offset";
    if (t->elements == 0) return NULL;
    if (!is_inside(t, (uint64_t)args[1].number, count)) return "reaches beyond its storage";
    t->data += (uint64_t)args[1].number * (element->bits / 8);
    return NULL;
}

static int add_tensor(const machine *m, const chain_link *link, weights *w) {
    const char *name = (const char *)m->bytes + link->key.number;
    size_t length = link->key.count;
    char text[80];
    if (link->key.kind != STRING) return bad_pickle(m, "a key of the dict is not a string");
    if (w->count == WEIGHTS_LIMIT) return bad_pickle(m, "too many tensors");
    weight *t = weights_add(w, name, length, m->a->zip.path, m->a->zip.r);
    if (!t) return -1;
    const char *wrong = link->item.kind == TENSOR ? read_tensor(m, m->pool + link->item.number, t)
                                                  : "is not a tensor";
    if (!wrong) return 0;
    return report_fail(m->a->zip.r, "%s: tensor '%s': %s", m->a->zip.path,
                       report_name(name, length, text), wrong);
}

static int key_is_one_of(const machine *m, const value *key, const char *const *words) {
    while (*words && !text_is(m, key, *words)) words++;
    return *words != NULL;
}

/* Checkpoints of a training run keep the dict of tensors one level down. */
static const value *find_state(const machine *m, const value *root) {
    static const char *const keys[] = {"state_dict", "model", "model_state_dict", "module", NULL};
    size_t link = m->containers[root->number].first;
    const value *state = NULL;
    for (; link; link = m->links[link - 1].next) {
        const chain_link *l = &m->links[link - 1];
        if (l->item.kind == TENSOR) return root;
        if (!state && l->item.kind == DICT && key_is_one_of(m, &l->key, keys)) state = &l->item;
    }
    return state ? state : root;
}

/* What a training run keeps beside the weights. */
static int is_beside(const machine *m, const chain_link *l) {
    static const char *const keys[] = {
        "_metadata", "optimizer", "optimizer_state", "optimizer_state_dict", "optimizer_states",
        "scheduler", "scheduler_state_dict", "lr_scheduler", "lr_schedulers", "scaler", "epoch",
        "step", "global_step", "iteration", "iter", "iter_num", "loss", "best_loss",
        "best_val_loss", "config", "args", "model_args", "hyper_parameters", NULL
    };
    return l->item.kind != TENSOR && key_is_one_of(m, &l->key, keys);
}

static int add_tensors(const machine *m, weights *w) {
    const value *root = &m->stack[0];
    if (root->kind != DICT) return bad_pickle(m, "the root is not a dict");
    root = find_state(m, root);
    for (size_t link = m->containers[root->number].first; link; link = m->links[link - 1].next) {
        const chain_link *l = &m->links[link - 1];
        if (is_beside(m, l)) continue;
        if (add_tensor(m, l, w)) return -1;
    }
    return 0;
}

static int read_pickle(const archive *a, weights *w) {
    machine m;
    memset(&m, 0, sizeof m);
    m.a = a;
    m.bytes = a->zip.bytes + a->pickle->data;
    m.size = a->pickle->size;
    int status = run_pickle(&m);
    if (status == 0) status = add_tensors(&m, w);
    free(m.stack);
    free(m.memo);
    free(m.pool);
    free(m.containers);
    free(m.links);
    return status;
}

static int read_torch(weights *w, const unsigned char *data, uint64_t size, const char *path,
                      report *r) {
    archive a;
    memset(&a, 0, sizeof a);
    if (size >= 3 && memcmp(data, "\x80\x02\x8A", 3) == 0) {
        return report_fail(r, "%s: legacy .pt without zip; save it with a newer torch", path);
    }
    if (zip_open(&a.zip, data, size, path, r)) return -1;
    int status = find_pickle(&a, path, r);
    if (status == 0) status = read_pickle(&a, w);
    zip_close(&a.zip);
    free(a.name);
    return status;
}

int weights_open_torch_memory(weights *w, const void *data, uint64_t size, const char *name,
                              report *r) {
    memset(w, 0, sizeof *w);
    return weights_finish(w, read_torch(w, data, size, name, r), name, r);
}

int weights_add_torch(weights *w, const char *path, report *r) {
    const file_bytes *file = weights_add_file(w, path, r);
    return file ? read_torch(w, file->data, file->size, path, r) : -1;
}

int weights_open_torch(weights *w, const char *path, report *r) {
    memset(w, 0, sizeof *w);
    return weights_finish(w, weights_add_torch(w, path, r), path, r);
}
