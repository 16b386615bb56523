/* bpe.c - byte pair encoding: the most frequent pair of neighbours becomes a piece, and again.
 *
 * A pair is known by the text it makes, as in the encoder: "a" + "bc" and "ab" + "c" are the same
 * candidate. Words are counted once and for all, and only those that contain a new piece are
 * looked at again; each look makes a word shorter by a symbol at least, so that all of them
 * together cost no more than a few passes over the distinct words. */

#include "bpe.h"
#include "../shared/json.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST_WORD = 64, LONGEST_PIECE = 32 };             /* bytes */

#define SPACE "\xE2\x96\x81"                /* U+2581, which stands for a space */

/* ---- counted texts ------------------------------------------------------------------------- */

typedef struct entry {
    size_t  at;                             /* of the text in lexicon.text */
    int     length;
    int64_t count;                          /* how often it occurs */
} entry;

typedef struct lexicon {
    char   *text;
    size_t  text_size, text_room;
    entry  *entries;
    int     count, room;
    int    *slots;                          /* open addressing: 1 + number of an entry; 0: free */
    size_t  slot_count;                     /* a power of two */
} lexicon;

static uint64_t hash_of(const char *text, int length) {
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < length; i++) h = (h ^ (unsigned char)text[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static const char *text_of(const lexicon *l, int id) { return l->text + l->entries[id].at; }

/* Where the text is, or the free slot where it belongs. */
static int *slot_of(const lexicon *l, const char *text, int length) {
    size_t i = (size_t)hash_of(text, length);
    for (;; i++) {
        int *slot = &l->slots[i & (l->slot_count - 1)];
        const entry *e = *slot ? &l->entries[*slot - 1] : NULL;
        if (!e || (e->length == length && !memcmp(l->text + e->at, text, (size_t)length)))
            return slot;
    }
}

static int grow_slots(lexicon *l) {
    int *old = l->slots;
    l->slot_count = l->slot_count ? 2 * l->slot_count : 4096;
    l->slots = (int *)calloc(l->slot_count, sizeof *l->slots);
    free(old);
    if (!l->slots) return -1;
    for (int i = 0; i < l->count; i++) *slot_of(l, text_of(l, i), l->entries[i].length) = i + 1;
    return 0;
}

static int grow_lexicon(lexicon *l) {
    if ((size_t)l->count * 2 >= l->slot_count && grow_slots(l) != 0) return -1;
    if (l->count == l->room) {
        int room = 2 * l->room + 1024;
        entry *entries = (entry *)realloc(l->entries, (size_t)room * sizeof *entries);
        if (!entries) return -1;
        l->entries = entries;
        l->room = room;
    }
    if (l->text_room - l->text_size < LONGEST_WORD) {
        size_t room = 2 * l->text_room + 65536;
        char *text = (char *)realloc(l->text, room);
        if (!text) return -1;
        l->text = text;
        l->text_room = room;
    }
    return 0;
}

/* The number of a text, new with a count of 0 if it was not known; -1: out of memory. The text may
 * lie in another lexicon, but not in this one. */
static int lexicon_at(lexicon *l, const char *text, int length) {
    if (grow_lexicon(l) != 0) return -1;
    int *slot = slot_of(l, text, length);
    if (*slot) return *slot - 1;
    entry *e = &l->entries[l->count];
    e->at = l->text_size;
    e->length = length;
    e->count = 0;
    memcpy(l->text + l->text_size, text, (size_t)length);
    l->text_size += (size_t)length;
    *slot = ++l->count;
    return l->count - 1;
}

static void lexicon_free(lexicon *l) {
    free(l->text);
    free(l->entries);
    free(l->slots);
}

/* ---- words ----------------------------------------------------------------------------------- */

typedef enum class { END, BLANK, LINE, DIGIT, LETTER, MARK } class;             /* of characters */

typedef struct scanner {
    lexicon *words;
    const unsigned char *at, *end;
    char word[LONGEST_WORD];
    int  length;
    int  out_of_memory;
} scanner;

static int is_letter(unsigned char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

/* The character at p. Beyond ASCII all is letters but the punctuation of U+2000 to U+206F and
 * U+3000 to U+303F. */
static class class_at(const unsigned char *p, const unsigned char *end) {
    if (p >= end) return END;
    if (*p == ' ' || (end - p >= 3 && !memcmp(p, SPACE, 3))) return BLANK;
    if (*p == '\n') return LINE;
    if (*p >= '0' && *p <= '9') return DIGIT;
    if (is_letter(*p)) return LETTER;
    if (*p < 0xC3 || (*p == 0xE2 && end - p > 1 && p[1] <= 0x81)
        || (*p == 0xE3 && end - p > 1 && p[1] == 0x80)) return MARK;
    return LETTER;
}

static void end_word(scanner *s) {
    int id = s->length ? lexicon_at(s->words, s->word, s->length) : 0;
    if (id < 0) s->out_of_memory = 1;
    else if (s->length) s->words->entries[id].count++;
    s->length = 0;
}

/* Takes a character over as the encoder sees it: space as U+2581, a broken byte as U+FFFD. */
static void take(scanner *s) {
    size_t n = utf8_length(s->at, (size_t)(s->end - s->at));
    const char *text = *s->at == ' ' ? SPACE : n ? (const char *)s->at : "\xEF\xBF\xBD";
    int length = *s->at == ' ' || !n ? 3 : (int)n;
    if (s->length + length > LONGEST_WORD) end_word(s);
    memcpy(s->word + s->length, text, (size_t)length);
    s->length += length;
    s->at += n ? n : 1;
}

/* An apostrophe belongs to the word whose letters are around it. */
static int is_within_word(const scanner *s) {
    int n = *s->at == '\'' ? 1 : s->end - s->at > 3 && !memcmp(s->at, "\xE2\x80\x99", 3) ? 3 : 0;
    return n && class_at(s->at + n, s->end) == LETTER;
}

/* A word is a run of one class, and the space before letters or marks; a digit stands alone. */
static void scan_word(scanner *s) {
    class c = class_at(s->at, s->end), next;
    do {
        take(s);
        next = class_at(s->at, s->end);
        if (c == BLANK && (next == LETTER || next == MARK)) c = next;
        else if (c == BLANK && next == BLANK) {
            class after = class_at(s->at + (*s->at == ' ' ? 1 : 3), s->end);
            if (after == LETTER || after == MARK) end_word(s);
        }
    } while (next != END && c != DIGIT
             && (next == c || (c == LETTER && next == MARK && is_within_word(s))));
    end_word(s);
}

/* ---- learning -------------------------------------------------------------------------------- */

/* Words and candidates are numbered as in their lexicons. */
typedef struct candidate {
    int *words;                             /* those where it was seen, perhaps more than once */
    int  word_count, word_room;
    int  rank;                              /* as a piece; -1: none yet */
    int  changed;                           /* is in trainer.changed */
    int64_t queued;                         /* the largest count it waits with in the queue */
} candidate;

typedef struct waiting { int64_t count; int id; } waiting;

typedef struct trainer {
    lexicon    words, texts, characters;    /* texts: candidates and pieces */
    unsigned char *symbols;                 /* lengths of the symbols of each word, ... */
    unsigned char *symbol_count;            /* ... how many ... */
    size_t    *first;                       /* ... and where they begin */
    candidate *candidates;
    int        candidate_count, candidate_room;
    int       *changed;                     /* candidates whose count was raised */
    int        changed_count, changed_room;
    waiting   *queue;                       /* a heap, the largest count first */
    int        queue_count, queue_room;
    int        out_of_memory;
} trainer;

/* The list with room for one more, or as it was if there is no memory. */
static void *grown(trainer *t, void *list, int count, int *room, size_t size) {
    if (count < *room) return list;
    void *larger = realloc(list, (size_t)(2 * count + 8) * size);
    if (!larger) { t->out_of_memory = 1; return list; }
    *room = 2 * count + 8;
    return larger;
}

/* More frequent first; among equals the one seen first. */
static int is_before(const waiting *a, const waiting *b) {
    return a->count != b->count ? a->count > b->count : a->id < b->id;
}

static void enqueue(trainer *t, int id) {
    waiting item = { t->texts.entries[id].count, id };
    int i = t->queue_count, above;
    t->queue = (waiting *)grown(t, t->queue, i, &t->queue_room, sizeof *t->queue);
    if (t->out_of_memory) return;
    for (t->queue_count++; i > 0 && is_before(&item, &t->queue[(i - 1) / 2]); i = above) {
        above = (i - 1) / 2;
        t->queue[i] = t->queue[above];
    }
    t->queue[i] = item;
    t->candidates[id].queued = item.count;
}

static waiting dequeue(trainer *t) {
    waiting top = t->queue[0], last = t->queue[--t->queue_count];
    int i = 0, below;
    while ((below = 2 * i + 1) < t->queue_count) {
        below += below + 1 < t->queue_count && is_before(&t->queue[below + 1], &t->queue[below]);
        if (!is_before(&t->queue[below], &last)) break;
        t->queue[i] = t->queue[below];
        i = below;
    }
    t->queue[i] = last;
    return top;
}

/* The candidate of symbols that begin at `at` in a word; null: too long, or no memory. */
static candidate *candidate_at(trainer *t, int word, size_t at, int length, int *id) {
    if (length > LONGEST_PIECE) return NULL;
    *id = lexicon_at(&t->texts, text_of(&t->words, word) + at, length);
    if (*id < 0) { t->out_of_memory = 1; return NULL; }
    if (*id == t->candidate_count) {
        t->candidates = (candidate *)grown(t, t->candidates, *id, &t->candidate_room,
                                           sizeof *t->candidates);
        if (t->out_of_memory) return NULL;
        memset(&t->candidates[t->candidate_count], 0, sizeof *t->candidates);
        t->candidates[t->candidate_count++].rank = -1;
    }
    return &t->candidates[*id];
}

static void note_word(trainer *t, candidate *c, int word) {
    if (c->word_count && c->words[c->word_count - 1] == word) return;
    c->words = (int *)grown(t, c->words, c->word_count, &c->word_room, sizeof *c->words);
    if (!t->out_of_memory) c->words[c->word_count++] = word;
}

static void note_change(trainer *t, candidate *c, int id) {
    if (c->changed) return;
    t->changed = (int *)grown(t, t->changed, t->changed_count, &t->changed_room, sizeof(int));
    if (t->out_of_memory) return;
    t->changed[t->changed_count++] = id;
    c->changed = 1;
}

/* Adds the pairs of a word to the counts (sign 1), or takes them away (-1). */
static void count_pairs(trainer *t, int word, int sign) {
    const unsigned char *symbols = t->symbols + t->first[word];
    size_t at = 0;
    int id;
    for (int i = 0; i + 1 < t->symbol_count[word]; at += symbols[i++]) {
        candidate *c = candidate_at(t, word, at, symbols[i] + symbols[i + 1], &id);
        if (!c) continue;
        t->texts.entries[id].count += sign * t->words.entries[word].count;
        if (sign < 0) continue;
        note_word(t, c, word);
        note_change(t, c, id);
    }
}

/* The pair that the encoder would merge next, by its left symbol; -1: none is a piece. */
static int next_merge(trainer *t, int word) {
    const unsigned char *symbols = t->symbols + t->first[word];
    size_t at = 0;
    int best = -1, rank = 0, id;
    for (int i = 0; i + 1 < t->symbol_count[word]; at += symbols[i++]) {
        const candidate *c = candidate_at(t, word, at, symbols[i] + symbols[i + 1], &id);
        if (!c || c->rank < 0 || (best >= 0 && c->rank >= rank)) continue;
        best = i;
        rank = c->rank;
    }
    return best;
}

static void merge_word(trainer *t, int word) {
    unsigned char *symbols = t->symbols + t->first[word];
    int left = next_merge(t, word);
    if (left < 0) return;
    count_pairs(t, word, -1);
    for (; left >= 0; left = next_merge(t, word)) {
        int after = --t->symbol_count[word] - left - 1;
        symbols[left] = (unsigned char)(symbols[left] + symbols[left + 1]);
        memmove(symbols + left + 1, symbols + left + 2, (size_t)after);
    }
    count_pairs(t, word, 1);
}

static void queue_changed(trainer *t) {
    for (int i = 0; i < t->changed_count; i++) {
        candidate *c = &t->candidates[t->changed[i]];
        c->changed = 0;
        if (c->rank < 0 && t->texts.entries[t->changed[i]].count > c->queued)
            enqueue(t, t->changed[i]);
    }
    t->changed_count = 0;
}

/* The most frequent candidate; -1: none occurs twice. Counts that fell are put right here. */
static int most_frequent(trainer *t) {
    while (t->queue_count && !t->out_of_memory) {
        waiting top = dequeue(t);
        int64_t count = t->texts.entries[top.id].count;
        if (t->candidates[top.id].rank >= 0 || top.count != t->candidates[top.id].queued) continue;
        if (top.count == count) return count >= 2 ? top.id : -1;
        enqueue(t, top.id);
    }
    return -1;
}

/* Learns up to `wanted` merges into ids, in order. Returns how many. */
static int learn(trainer *t, int wanted, int *ids) {
    int count = 0;
    for (int i = 0; i < t->words.count; i++) count_pairs(t, i, 1);
    while (count < wanted && !t->out_of_memory) {
        int id;
        queue_changed(t);
        if ((id = most_frequent(t)) < 0) break;
        ids[count] = id;
        t->candidates[id].rank = count++;
        int *words = t->candidates[id].words;    /* grows no more: it is a piece now */
        int word_count = t->candidates[id].word_count;
        for (int i = 0; i < word_count; i++) merge_word(t, words[i]);
    }
    return count;
}

/* ---- from text to vocabulary ----------------------------------------------------------------- */

static int read_words(trainer *t, const void *text, size_t size) {
    scanner s = { NULL, NULL, NULL, "", 0, 0 };
    s.words = &t->words;
    s.at = (const unsigned char *)text;
    s.end = s.at + size;
    while (s.at < s.end && !s.out_of_memory) scan_word(&s);
    return s.out_of_memory ? -1 : 0;
}

/* Every word begins as its characters. */
static int split_words(trainer *t) {
    size_t at = 0;
    t->symbols = (unsigned char *)malloc(t->words.text_size + 1);
    t->symbol_count = (unsigned char *)calloc((size_t)t->words.count + 1, 1);
    t->first = (size_t *)malloc(((size_t)t->words.count + 1) * sizeof *t->first);
    if (!t->symbols || !t->symbol_count || !t->first) return -1;
    for (int w = 0; w < t->words.count; w++) {
        const char *text = text_of(&t->words, w);
        int left = t->words.entries[w].length;
        for (t->first[w] = at; left; at++) {
            int n = (int)utf8_length((const unsigned char *)text, (size_t)left);
            int id = lexicon_at(&t->characters, text, n);
            if (id < 0) return -1;
            t->characters.entries[id].count += t->words.entries[w].count;
            t->symbols[at] = (unsigned char)n;
            t->symbol_count[w]++;
            text += n;
            left -= n;
        }
    }
    return 0;
}

static int compare_counts(const void *a, const void *b) {
    const entry *x = (const entry *)a, *y = (const entry *)b;
    return x->count != y->count ? (x->count < y->count ? 1 : -1) : x->at < y->at ? -1 : 1;
}

/* Sorts the characters, frequent ones first, and returns how many become pieces: those that make
 * up 99.99 % of the text, but at most half of what there is room for. */
static int choose_characters(trainer *t, int room) {
    entry *list = t->characters.entries;
    int64_t all = 0, covered = 0;
    int i;
    if (t->characters.count) qsort(list, (size_t)t->characters.count, sizeof *list, compare_counts);
    for (i = 0; i < t->characters.count; i++) all += list[i].count;
    for (i = 0; i < t->characters.count && i < (room + 1) / 2 && covered < all - all / 10000; i++)
        covered += list[i].count;
    return i;
}

static void add_piece(vocabulary *v, const char *text, int length, int type, float score) {
    piece *p = vocabulary_at(v, v->count);
    if (!p) return;
    p->type = type;
    p->score = score;
    p->text = vocabulary_keep(v, text, (size_t)length);
}

static void add_specials(vocabulary *v) {
    static const char hex[] = "0123456789ABCDEF";
    char byte[] = "<0x00>";
    add_piece(v, "<pad>", 5, GRIFFIN_TOKEN_CONTROL, 0);
    add_piece(v, "<eos>", 5, GRIFFIN_TOKEN_CONTROL, 0);
    add_piece(v, "<bos>", 5, GRIFFIN_TOKEN_CONTROL, 0);
    add_piece(v, "<unk>", 5, GRIFFIN_TOKEN_UNKNOWN, 0);
    for (int i = 0; i < 256; i++) {
        byte[3] = hex[i >> 4];
        byte[4] = hex[i & 15];
        add_piece(v, byte, 6, GRIFFIN_TOKEN_BYTE, 0);
    }
    v->pad = 0;
    v->eos = 1;
    v->bos = 2;
    v->unknown = 3;
    v->end_of_turn = -1;
    v->has_scores = v->add_bos = v->escape_whitespaces = 1;
}

static int fill(vocabulary *v, trainer *t, int count) {
    int room = count - BPE_FEWEST + 1;
    if (split_words(t) != 0) return -1;
    int characters = choose_characters(t, room);
    int *ids = (int *)malloc((size_t)room * sizeof *ids);
    if (!ids) return -1;
    int merges = learn(t, room - characters, ids);
    add_specials(v);
    for (int i = 0; i < merges; i++)
        add_piece(v, text_of(&t->texts, ids[i]), t->texts.entries[ids[i]].length,
                  GRIFFIN_TOKEN_NORMAL, (float)-i);
    for (int i = 0; i < characters; i++)
        add_piece(v, text_of(&t->characters, i), t->characters.entries[i].length,
                  GRIFFIN_TOKEN_NORMAL, (float)-(merges + i));
    free(ids);
    return t->out_of_memory || v->out_of_memory ? -1 : 0;
}

int bpe_train(vocabulary *v, const void *text, size_t size, int count, report *r) {
    trainer t;
    memset(&t, 0, sizeof t);
    if (count < BPE_FEWEST || count > VOCABULARY_LIMIT)
        return report_fail(r, "a vocabulary has %d to %d pieces, not %d", BPE_FEWEST,
                           VOCABULARY_LIMIT, count);
    int status = read_words(&t, text, size) != 0 ? -1 : fill(v, &t, count);
    for (int i = 0; i < t.candidate_count; i++) free(t.candidates[i].words);
    lexicon_free(&t.words);
    lexicon_free(&t.texts);
    lexicon_free(&t.characters);
    free(t.symbols);
    free(t.symbol_count);
    free(t.first);
    free(t.candidates);
    free(t.changed);
    free(t.queue);
    if (status == 0) return 0;
    vocabulary_free(v);
    return report_fail(r, "out of memory for the vocabulary");
}
