/* cpp_host - griffin.hpp in use: a mind is a value, so that the compiler's own copy constructor
 * forks it, and two copies of one mind go on with different words.
 *
 *     c++ -std=c++17 -O2 -I. examples/cpp_host/main.cpp examples/cpp_host/griffin.cpp -o cpp_host
 *     ./cpp_host examples/models/storyteller.gguf */

#include "griffin.hpp"

#include <iostream>

namespace {

int complain(const griffin::failure &why) {
    std::cerr << why.words << "\n";
    return 1;
}

/* Text comes in pieces, as it is written. */
bool print(std::string_view text) {
    std::cout << text << std::flush;
    return true;
}

griffin::result<int> go_on(griffin::mind &mind, griffin::context &context, const char *words) {
    print(words);
    if (auto heard = mind.hear(context, words); !heard) return heard.why();
    return mind.speak(context, 40, print);
}

/* A mind that is saved and loaded has the same bits, and goes on with the same words. */
griffin::result<bool> same_when_loaded(const griffin::model &model, griffin::context &context,
                                       griffin::mind mind) {
    griffin::bytes saved = mind.save();
    auto loaded = griffin::mind::load(model, saved);
    if (!loaded) return loaded.why();
    bool same = *loaded == mind;
    auto words = mind.speak(context, 20), again = loaded->speak(context, 20);
    if (!words) return words.why();
    if (!again) return again.why();
    std::cout << "\n\nSaved in " << saved.size() << " bytes and loaded: ";
    return same && *words == *again && *loaded == mind;
}

int tell(const char *path) {
    auto model = griffin::model::open(path);
    if (!model) return complain(model.why());
    auto context = griffin::context::make(*model);
    if (!context) return complain(context.why());

    const char *opening = "A farmer had two sons. ";
    griffin::mind elder(*model);
    elder.sampler.temperature = 0.7f;
    elder.sampler.top_p = 0.9f;
    if (auto heard = elder.hear(*context, opening); !heard) return complain(heard.why());
    griffin::mind younger = elder;          /* here the tale forks */

    print(opening);
    if (auto said = go_on(elder, *context, "The elder"); !said) return complain(said.why());
    print("\n\n");
    print(opening);
    if (auto said = go_on(younger, *context, "The younger"); !said) return complain(said.why());

    auto same = same_when_loaded(*model, *context, younger);
    if (!same) return complain(same.why());
    std::cout << (*same ? "the same mind, the same words.\n" : "ANOTHER mind.\n");
    return *same && elder != younger ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
    return tell(argc > 1 ? argv[1] : "examples/models/storyteller.gguf");
}
