/* Promise: griffin.hpp says what griffin.h says, to the bit, and whatever cannot be done is a
 * result with words. Made and run by `make cpp-test`. */

#include "examples/cpp_host/griffin.hpp"
#include "tests/test.h"

#include <cmath>

namespace {

const char *path = "examples/models/storyteller.gguf";
const char *opening = "Once upon a time";

/* What follows the opening, by the functions of C. */
std::string told_in_c(const griffin::model &model, int count) {
    auto tokens = model.encode(opening);
    auto context = griffin::context::make(model);
    griffin::state state(model);
    griffin_sampler sampler = griffin_sampler();
    griffin_decoder decoder = griffin_decoder();
    std::vector<float> logits(model.vocabulary());
    std::string told;
    char piece[512];
    sampler.seed = 5;
    sampler.temperature = 0.7f;
    decoder.started = 1;
    griffin_prefill(context->get(), state.get(), tokens->data(),
                    static_cast<int>(tokens->size()), logits.data());
    for (; count > 0; count--) {
        int32_t token = griffin_sample(model.get(), &sampler, logits.data());
        griffin_decode(model.get(), &decoder, token, piece, sizeof piece);
        told += piece;
        griffin_step(context->get(), state.get(), token, logits.data());
    }
    return told;
}

griffin::mind mind_of(const griffin::model &model, griffin::context &context) {
    griffin::mind mind(model);
    mind.sampler.seed = 5;
    mind.sampler.temperature = 0.7f;
    CHECK(mind.hear(context, opening), "hear");
    return mind;
}

void test_words() {
    auto model = griffin::model::open(path);
    auto context = griffin::context::make(*model);
    griffin::mind mind = mind_of(*model, *context), fork = mind, other = mind;
    std::string streamed;
    auto said = mind.speak(*context, 30, [&](std::string_view text) {
        streamed += text;
        return streamed.size() < 40;
    });
    CHECK(said && *said < 30 && streamed.size() >= 40, "%d tokens", *said);
    auto rest = mind.speak(*context, 30 - *said);
    CHECK(rest && streamed + *rest == told_in_c(*model, 30), "%s%s", streamed.c_str(),
          rest->c_str());
    auto whole = fork.speak(*context, 30);
    CHECK(whole && *whole == streamed + *rest && fork == mind, "%s", whole->c_str());
    other.sampler.seed = 6;
    CHECK(other != mind && other.speak(*context, 30) && other != mind, "two seeds");
}

/* Owners move and stay usable; what they moved from refuses. */
void test_moves() {
    auto opened = griffin::model::open(path);
    griffin::model model = std::move(*opened);
    auto made = griffin::context::make(model);
    griffin::context context = std::move(*made);
    griffin::mind mind = mind_of(model, context);
    griffin::model moved = std::move(model);
    auto said = mind.speak(context, 10);
    CHECK(said && *said == told_in_c(moved, 10), "%s", said->c_str());
    griffin::state state(moved), taken = std::move(state);
    griffin::token bos = moved.info().bos;
    CHECK(!context.step(state, bos) && context.step(taken, bos), "a state that was moved");
    CHECK(!made->step(taken, bos), "a context that was moved");
    CHECK(!griffin::context::make(model) && !model.encode("x"), "a model that was moved");
    CHECK(!griffin::mind().hear(context, "x") && !griffin::mind().speak(context, 1), "no mind");
    CHECK(griffin::mind() == griffin::mind() && griffin::mind() != mind, "no mind is as good");
    CHECK(griffin::state() == griffin::state() && griffin::state() != taken, "nor is no state");
}

void test_saves() {
    auto model = griffin::model::open(path);
    auto context = griffin::context::make(*model);
    griffin::mind mind = mind_of(*model, *context);
    griffin::bytes saved = mind.save();
    auto loaded = griffin::mind::load(*model, saved);
    CHECK(loaded && *loaded == mind, "loaded");
    auto a = mind.speak(*context, 20), b = loaded->speak(*context, 20);
    CHECK(a && b && *a == *b && *loaded == mind, "%s and %s", a->c_str(), b->c_str());

    griffin::state state(*model), before = state;
    saved[saved.size() / 2] ^= std::byte(1);
    auto damaged = griffin::mind::load(*model, saved);
    CHECK(!damaged && damaged.why().code == GRIFFIN_E_FORMAT && !damaged.why().words.empty(),
          "damaged");
    saved.resize(100);
    CHECK(!griffin::mind::load(*model, saved) && !griffin::mind::load(*model, {}), "cut");
    CHECK(!state.load(saved) && state == before, "a state stays as it was");
}

void test_persona() {
    std::size_t size;
    unsigned char *file = test_read("examples/personas/pirate.persona", &size);
    auto model = griffin::model::open(path);
    auto context = griffin::context::make(*model);
    auto pirate = griffin::mind::load(*model, { reinterpret_cast<std::byte *>(file), size });
    CHECK(pirate && !pirate->speak(*context, 1), "a persona has heard nothing");
    griffin::mind nobody(*model);
    CHECK(pirate->hear(*context, opening) && nobody.hear(*context, opening), "hear");
    auto a = pirate->speak(*context, 20), b = nobody.speak(*context, 20);
    CHECK(a && b && *a != *b, "both say %s", a->c_str());
    free(file);
}

void test_marks() {
    auto model = griffin::model::open(path);
    auto context = griffin::context::make(*model);
    auto tokens = model->encode("The wolf ran into the wood");
    griffin::state state(*model);
    CHECK(context->prefill(state, *tokens), "prefill");
    griffin::state there = state;
    griffin::bytes mark = state.mark();
    CHECK(context->step(state, 7) && state != there, "a token more");
    CHECK(state.rewind(mark) && state == there, "rewound");
    mark.pop_back();
    CHECK(!state.rewind(mark) && !state.rewind({}) && state == there, "no mark");

    griffin::state sliced(*model);
    griffin_span span = { sliced.get(), tokens->data(), static_cast<int>(tokens->size()), 0,
                          nullptr };
    int units = 0;
    for (auto left = context->begin({ &span, 1 }); left && *left > 0; units++)
        left = context->advance(1);
    CHECK(units > 1 && sliced == there, "%d units", units);
}

void test_errors() {
    auto nothing = griffin::model::open("nothing.gguf");
    CHECK(!nothing && nothing.why().words.find("nothing.gguf") != std::string::npos, "%s",
          nothing.why().words.c_str());
    auto bad = griffin::model::open(griffin::span<const std::byte>());
    CHECK(!bad && bad.why().code < 0, "an empty file");
    auto model = griffin::model::open(path);
    griffin_context_options wrong = griffin_context_options();
    wrong.rows = -1;
    CHECK(!griffin::context::make(*model, wrong), "rows");
    auto context = griffin::context::make(*model);
    griffin::mind mind = mind_of(*model, *context);
    mind.sampler.temperature = NAN;
    auto said = mind.speak(*context, 1);
    CHECK(!said && said.why().code == GRIFFIN_E_ARGUMENT, "a temperature that is no number");
    auto other = griffin::model::open(path);
    griffin::state foreign(*other);
    griffin::status read = context->step(foreign, 3);
    CHECK(!read && read.why().code == GRIFFIN_E_MISMATCH, "a state of another model");
    CHECK(!(foreign == griffin::state(*model)), "fresh states of two models are not equal");
    mind.sampler.temperature = 0;
    CHECK(mind.hear(*context, " there was") && mind.speak(*context, 5), "goes on after it");
}

} // namespace

int main() {
    RUN(test_words);
    RUN(test_moves);
    RUN(test_saves);
    RUN(test_persona);
    RUN(test_marks);
    RUN(test_errors);
    return test_end();
}
