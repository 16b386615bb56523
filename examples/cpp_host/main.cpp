/* cpp_host - griffin.h in a C++11 program: owners with destructors, errors as exceptions.
 *
 *     c++ -std=c++11 -O2 examples/cpp_host/main.cpp examples/cpp_host/griffin.cpp -o cpp_host
 *
 * A mind is a value here. Its state is a vector of bytes, so that the compiler's own copy
 * constructor forks it, and two copies of one mind go on with different words. */

#include "../../griffin.h"

#include <cstddef>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

int check(int result) {
    if (result < 0) throw std::runtime_error(griffin_error_string(result));
    return result;
}

struct closer { void operator()(griffin_model *model) const { griffin_close(model); } };
using model_owner = std::unique_ptr<griffin_model, closer>;

model_owner open(const char *path) {
    griffin_model *model = nullptr;
    char message[256] = "";
    griffin_options options = griffin_options();
    options.error = message;
    options.error_size = sizeof message;
    if (griffin_open_file(&model, path, &options) < 0) throw std::runtime_error(message);
    return model_owner(model);
}

/* As malloc aligns it, and zero. */
std::vector<std::max_align_t> zeroed(std::size_t bytes) {
    return std::vector<std::max_align_t>(bytes / sizeof(std::max_align_t) + 1);
}

/* Scratch memory for a thread: not copied, since nothing in it is worth it. */
class workplace {
public:
    explicit workplace(const griffin_model *model) {
        std::size_t size = griffin_context_size(model, nullptr);
        memory_ = zeroed(size);
        check(griffin_context_init(&context_, model, nullptr, memory_.data(), size));
    }
    workplace(const workplace &) = delete;
    workplace &operator=(const workplace &) = delete;
    griffin_context *get() { return context_; }

private:
    std::vector<std::max_align_t> memory_;
    griffin_context *context_ = nullptr;
};

class mind {
public:
    explicit mind(const griffin_model *model)
        : model_(model), state_(zeroed(griffin_state_size(model))),
          logits_(static_cast<std::size_t>(griffin_get_info(model)->config.vocab)),
          sampler_(), decoder_() {
        sampler_.temperature = 0.7f;
        sampler_.top_p = 0.9f;
    }

    void hear(workplace &place, const std::string &text) {
        griffin_encoding encoding = griffin_encoding();
        encoding.continues = griffin_state_position(state()) > 0;
        int count = check(griffin_encode(model_, &encoding, text.data(), text.size(), nullptr, 0));
        std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
        check(griffin_encode(model_, &encoding, text.data(), text.size(), tokens.data(), count));
        check(griffin_prefill(place.get(), state(), tokens.data(), count, logits_.data()));
        decoder_.started = 1;
    }

    std::string speak(workplace &place, int tokens) {
        std::string said;
        char text[512];
        for (; tokens > 0; tokens--) {
            std::int32_t token = check(griffin_sample(model_, &sampler_, logits_.data()));
            int length = check(griffin_decode(model_, &decoder_, token, text, sizeof text));
            said.append(text, static_cast<std::size_t>(length));
            check(griffin_step(place.get(), state(), token, logits_.data()));
        }
        return said;
    }

private:
    griffin_state *state() { return reinterpret_cast<griffin_state *>(state_.data()); }

    const griffin_model *model_;            /* borrowed */
    std::vector<std::max_align_t> state_;
    std::vector<float> logits_;
    griffin_sampler sampler_;
    griffin_decoder decoder_;
};

void tell(const char *path) {
    const model_owner model = open(path);
    workplace place(model.get());
    const std::string opening = "A farmer had two sons. ";
    mind elder(model.get());
    elder.hear(place, opening);
    mind younger = elder;                   /* here the tale forks */

    elder.hear(place, "The elder");
    younger.hear(place, "The younger");
    std::cout << opening << "The elder"   << elder.speak(place, 40)   << "\n\n"
              << opening << "The younger" << younger.speak(place, 40) << "\n";
}

} // namespace

int main(int argc, char **argv) {
    try {
        tell(argc > 1 ? argv[1] : "examples/models/storyteller.gguf");
        return 0;
    } catch (const std::exception &e) {
        std::cerr << e.what() << "\n";
        return 1;
    }
}
