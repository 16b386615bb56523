/* griffin.hpp - griffin.h for C++17: owners that move, states that are values. Copy it beside
 * griffin.h; one source file of yours, in C or C++, has the implementation.
 *
 *     auto model   = griffin::model::open("model.gguf");
 *     auto context = griffin::context::make(*model);
 *     griffin::mind mind(*model);
 *     mind.sampler.temperature = 0.7f;
 *     mind.hear(*context, "Once upon a time");
 *     mind.speak(*context, 100, [](std::string_view text) { return print(text); });
 *
 * Whatever can fail returns a result. It is true if all is well; *result is the value then, else
 * result.why() has the griffin_error and words. Nothing here throws, aborts or asks for RTTI, but
 * containers do when memory ends, as those of the standard library always do.
 *
 * A model may be shared by all threads, and must outlive what was made from it. The others belong
 * to one thread at a time. get() gives what the C functions want, which can be used beside this. */

#ifndef GRIFFIN_HPP
#define GRIFFIN_HPP

#include "griffin.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace griffin {

using token  = std::int32_t;
using tokens = std::vector<token>;
using bytes  = std::vector<std::byte>;

/* Values in a row that belong to somebody else. Arrays, containers and std::span convert to it. */
template <class T> class span {
public:
    constexpr span() = default;
    constexpr span(T *data, std::size_t size) : data_(data), size_(size) {}
    template <class C, class = std::enable_if_t<std::is_convertible_v<
                           std::remove_pointer_t<decltype(std::data(std::declval<C &>()))> (*)[],
                           T (*)[]>>>
    constexpr span(C &&values) : data_(std::data(values)), size_(std::size(values)) {}
    constexpr T *data() const { return data_; }
    constexpr std::size_t size() const { return size_; }
    constexpr T *begin() const { return data_; }
    constexpr T *end() const { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const { return data_[i]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/* ---- results --------------------------------------------------------------------------------- */

struct failure {
    explicit failure(int error, std::string text = {})
        : code(error), words(text.empty() ? griffin_error_string(error) : std::move(text)) {}
    int code;                               /* a griffin_error */
    std::string words;
};

struct nothing {};

template <class T> class [[nodiscard]] result {
public:
    result(T value) : value_(std::move(value)) {}
    result(failure why) : why_(std::make_unique<failure>(std::move(why))) {}
    explicit operator bool() const { return !why_; }
    const failure &why() const { return *why_; }        /* only if there is one */
    T &operator*() { return value_; }
    T *operator->() { return &value_; }

private:
    T value_{};
    std::unique_ptr<failure> why_;
};

using status = result<nothing>;

inline status status_of(int code) {
    if (code < 0) return failure(code);
    return nothing();
}

/* Sizes of the library are ints; more is refused by it as a number out of range. */
inline int int_of(std::size_t size) {
    return size <= static_cast<std::size_t>(INT32_MAX) ? static_cast<int>(size) : -1;
}

/* ---- model: moves, never changes ------------------------------------------------------------- */

inline result<tokens> encode(const griffin_model *m, std::string_view text,
                             griffin_encoding encoding = {}) {
    int n = griffin_encode(m, &encoding, text.data(), text.size(), nullptr, 0);
    tokens list(n > 0 ? static_cast<std::size_t>(n) : 0);
    if (n > 0) n = griffin_encode(m, &encoding, text.data(), text.size(), list.data(), n);
    if (n < 0) return failure(n);
    return list;
}

class model {
public:
    model() = default;                      /* none: calls with it fail, but it has no info */
    static result<model> open(const char *path, griffin_options options = {}) {
        return open_by(options, [&](griffin_model **opened) {
            return griffin_open_file(opened, path, &options);
        });
    }
    /* The file must stay where it is as long as the model. */
    static result<model> open(span<const std::byte> file, griffin_options options = {}) {
        return open_by(options, [&](griffin_model **opened) {
            return griffin_open_memory(opened, file.data(), file.size(), &options);
        });
    }
    const griffin_model *get() const { return owner_.get(); }
    const griffin_info &info() const { return *griffin_get_info(get()); }
    std::size_t vocabulary() const { return static_cast<std::size_t>(info().config.vocab); }

    result<tokens> encode(std::string_view text, griffin_encoding encoding = {}) const {
        return griffin::encode(get(), text, encoding);
    }

private:
    struct closer { void operator()(griffin_model *m) const { griffin_close(m); } };

    template <class Open> static result<model> open_by(griffin_options &options, Open open) {
        char message[400] = "";
        griffin_model *opened = nullptr;
        if (griffin_version() / 100 != GRIFFIN_VERSION / 100)   /* see VERSIONS in griffin.h */
            return failure(GRIFFIN_E_VERSION, "the shared library is not of this griffin.h");
        if (!options.error || !options.error_size) {
            options.error = message;
            options.error_size = sizeof message;
        }
        int error = open(&opened);
        if (error < 0) return failure(error, options.error);
        model m;
        m.owner_.reset(opened);
        return m;
    }
    std::unique_ptr<griffin_model, closer> owner_;
};

/* ---- state: a value -------------------------------------------------------------------------- */

class state {
public:
    state() = default;                      /* none; calls refuse it */
    explicit state(const model &m)          /* fresh */
        : model_(m.get()), memory_(blocks(griffin_state_size(m.get()))) {}
    griffin_state *get() { return reinterpret_cast<griffin_state *>(memory_.data()); }
    const griffin_state *get() const {
        return reinterpret_cast<const griffin_state *>(memory_.data());
    }
    const griffin_model *owner() const { return model_; }
    std::int64_t position() const { return griffin_state_position(get()); }

    /* Portable bytes, with a sampler and a decoder or without. */
    bytes save(const griffin_sampler *sampler = nullptr,
               const griffin_decoder *decoder = nullptr) const {
        std::int64_t size = griffin_save(model_, get(), sampler, decoder, nullptr, 0);
        bytes saved(size > 0 ? static_cast<std::size_t>(size) : 0);
        if (size > 0) griffin_save(model_, get(), sampler, decoder, saved.data(), saved.size());
        return saved;
    }
    /* What does not fit changes nothing. */
    status load(span<const std::byte> saved, griffin_sampler *sampler = nullptr,
                griffin_decoder *decoder = nullptr) {
        return status_of(griffin_load(model_, get(), sampler, decoder, saved.data(),
                                      saved.size()));
    }

    /* Takes back tokens, griffin_options.rewind at most. A mark is a value, too. */
    bytes mark() const {
        bytes made(griffin_mark_size(model_));
        griffin_mark(model_, get(), made.data());
        return made;
    }
    status rewind(const bytes &mark) {
        if (mark.size() != griffin_mark_size(model_)) return failure(GRIFFIN_E_MISMATCH);
        return status_of(griffin_rewind(model_, get(), mark.data()));
    }

    /* Will they go on to the same bits? */
    friend bool operator==(const state &a, const state &b) {
        if (a.model_ != b.model_) return false;
        return a.memory_.empty() || b.memory_.empty() ? a.memory_.size() == b.memory_.size()
                                                      : a.save() == b.save();
    }
    friend bool operator!=(const state &a, const state &b) { return !(a == b); }

private:
    /* Aligned as malloc aligns; without padding, which would not have to be zero. */
    struct block { alignas(std::max_align_t) std::byte at[alignof(std::max_align_t)]; };
    static std::size_t blocks(std::size_t size) {
        return (size + sizeof(block) - 1) / sizeof(block);
    }

    const griffin_model *model_ = nullptr;
    std::vector<block> memory_;
};

/* ---- context: scratch memory of one thread; moves -------------------------------------------- */

class context {
public:
    context() = default;                    /* none; calls refuse it */
    static result<context> make(const model &m, griffin_context_options options = {}) {
        std::size_t size = griffin_context_size(m.get(), &options);
        context c;
        c.model_ = m.get();
        c.memory_.reset(new (std::nothrow) std::max_align_t[size / sizeof(std::max_align_t) + 1]);
        if (!c.memory_) return failure(GRIFFIN_E_MEMORY);
        int error = griffin_context_init(&c.context_, m.get(), &options, c.memory_.get(), size);
        if (error < 0) return failure(error);
        c.logits_.resize(m.vocabulary());
        return c;
    }
    griffin_context *get() { return memory_ ? context_ : nullptr; }

    /* [V], written by the calls that are not given others. */
    span<float> logits() { return logits_; }

    status step(state &s, token t) { return prefill(s, span<const token>(&t, 1)); }
    status prefill(state &s, span<const token> list) {
        if (s.owner() != model_) return failure(GRIFFIN_E_MISMATCH);
        return status_of(griffin_prefill(get(), s.get(), list.data(), int_of(list.size()),
                                         logits_.data()));
    }
    status read(state &s, span<const token> list) {     /* without logits */
        if (s.owner() != model_) return failure(GRIFFIN_E_MISMATCH);
        return status_of(griffin_prefill(get(), s.get(), list.data(), int_of(list.size()),
                                         nullptr));
    }
    /* Many texts at once, and in slices: see griffin_run and griffin_begin. */
    status run(span<const griffin_span> spans) {
        return status_of(griffin_run(get(), spans.data(), int_of(spans.size())));
    }
    result<int> begin(span<const griffin_span> spans) {
        return left(griffin_begin(get(), spans.data(), int_of(spans.size())));
    }
    result<int> advance(int units) { return left(griffin_advance(get(), units)); }

private:
    static result<int> left(int units) {
        if (units < 0) return failure(units);
        return units;
    }
    const griffin_model *model_ = nullptr;
    griffin_context *context_ = nullptr;
    std::unique_ptr<std::max_align_t[]> memory_;
    std::vector<float> logits_;
};

/* ---- mind: a text that goes on; a value ------------------------------------------------------ */

/* Copies are forks. The last token of the text is not in the state yet; it is the one that the
 * sampler accepted last. So a mind is saved whole without logits, and nobody computes those of a
 * token after which nothing is said. */
class mind {
public:
    /* Set its fields; zero is greedy. `accepted` and `recent` are the mind's: its last token. */
    griffin_sampler sampler = griffin_sampler();

    mind() = default;
    explicit mind(const model &m) : model_(m.get()), state_(m) {}

    /* From what save() gave, or a file of griffin persona, in which a new text begins. */
    static result<mind> load(const model &m, span<const std::byte> saved) {
        mind loaded(m);
        status all = loaded.state_.load(saved, &loaded.sampler, &loaded.decoder_);
        loaded.begun_ = static_cast<bool>(all);
        if (!all && all.why().code == GRIFFIN_E_MISMATCH) all = loaded.state_.load(saved);
        if (!all) return all.why();
        return loaded;
    }
    bytes save() const {
        return state_.save(begun_ ? &sampler : nullptr, begun_ ? &decoder_ : nullptr);
    }
    const griffin::state &state() const { return state_; }

    /* An empty text begins one, too, in a model whose texts begin with a token. */
    status hear(context &c, std::string_view text) {
        griffin_encoding encoding = griffin_encoding();
        encoding.continues = begun_;
        result<tokens> heard = encode(model_, text, encoding);
        if (!heard) return heard.why();
        if (heard->empty()) return nothing();
        tokens unread = *heard;
        if (has_last()) unread.insert(unread.begin(), last());
        unread.pop_back();
        status read = unread.empty() ? nothing() : c.read(state_, unread);
        if (!read) return read;
        for (token t : *heard) griffin_accept(&sampler, t);
        decoder_ = griffin_decoder();
        decoder_.started = 1;
        begun_ = true;
        return read;
    }

    /* Gives text to show(std::string_view), which returns whether to go on, as it is written.
     * Returns how many tokens were written: fewer than `most` where the model or show ended it.
     * After an error the last token may have been read: hear something before the next speak. */
    template <class Show> result<int> speak(context &c, int most, Show &&show) {
        const griffin_info *info = griffin_get_info(model_);
        std::string text;
        for (int said = 0; said < most; said++) {
            if (!has_last()) return failure(GRIFFIN_E_ARGUMENT, "nothing was heard to go on from");
            status read = c.step(state_, last());
            if (!read) return read.why();
            token drawn = griffin_sample(model_, &sampler, c.logits().data());
            if (drawn < 0) {
                sampler.accepted = 0;       /* the last token has been read */
                return failure(drawn);
            }
            bool ends = drawn == info->eos || drawn == info->end_of_turn;
            status written = decode(ends ? -1 : drawn, text);
            if (!written) return written.why();
            if (!show(std::string_view(text)) || ends) return said + !ends;
        }
        return most > 0 ? most : 0;
    }
    result<std::string> speak(context &c, int most) {
        std::string text;
        auto said = speak(c, most, [&](std::string_view more) { text += more; return true; });
        if (!said) return said.why();
        return text;
    }

    friend bool operator==(const mind &a, const mind &b) {
        return a.model_ == b.model_ && (!a.model_ || a.save() == b.save());
    }
    friend bool operator!=(const mind &a, const mind &b) { return !(a == b); }

private:
    bool has_last() const { return sampler.accepted > 0; }
    token last() const { return sampler.recent[(sampler.accepted - 1) % GRIFFIN_RECENT]; }

    status decode(token t, std::string &text) {
        int n = GRIFFIN_E_SPACE;
        for (std::size_t size = 512; n == GRIFFIN_E_SPACE; size *= 2) {
            text.resize(size);
            n = griffin_decode(model_, &decoder_, t, text.data(), size);
        }
        text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
        return status_of(n);
    }
    const griffin_model *model_ = nullptr;
    griffin::state state_;
    griffin_decoder decoder_ = griffin_decoder();
    bool begun_ = false;                    /* what is heard next goes on in a text */
};

} // namespace griffin

#endif
