/* json_action.c - a character in a game answers with an action that the game can read.
 *
 *     cc -O2 examples/json_action.c -lm -o json_action && ./json_action
 *
 * The model may only write what the grammar derives, so the answer is always complete JSON and
 * names an action and a target that exist. What is said is up to the model. Before a token is
 * drawn, the mask forbids all that do not fit; then the grammar moves on with the text. */

#define GRIFFIN_IMPLEMENTATION
#include "../griffin.h"
#define GRIFFIN_GRAMMAR_IMPLEMENTATION
#include "../tools/griffin_grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char rules[] =
    "root   ::= \"{ \\\"action\\\": \" action \", \\\"target\\\": \" target words? \" }\" \n"
    "action ::= \"\\\"\" ( \"go to\" | \"speak to\" | \"fight\" | \"hide from\" ) \"\\\"\" \n"
    "target ::= \"\\\"\" ( \"king\" | \"wolf\" | \"old woman\" | \"castle\" ) \"\\\"\" \n"
    "words  ::= \", \\\"words\\\": \\\"\" [A-Z] [a-z ,']{9,50} [.!?] \"\\\"\" \n";

static const char *const scenes[] = {
    "The wolf came out of the wood, and it was hungry. The boy",
    "The king was sitting on his throne, and the princess",
    "An old woman was begging at the gate of the castle. The soldier"
};

typedef struct character {
    griffin_model   *model;
    griffin_context *context;
    griffin_grammar *grammar;
    griffin_grammar_state written;              /* how far the answer has come */
    void  *state, *memory;
    float *logits;
} character;

static int fail(const char *message) {
    fprintf(stderr, "%s\n", message);
    return 1;
}

/* The sampler calls this before it draws a token. */
static int only_what_fits(float *logits, int vocab, void *user) {
    const character *c = (const character *)user;
    (void)vocab;
    return griffin_grammar_mask(c->grammar, &c->written, logits);
}

static int start(character *c, const char *path) {
    char message[400] = "out of memory";
    griffin_options options = { 0 };
    options.error = message;
    options.error_size = sizeof message;
    if (griffin_open_file(&c->model, path, &options) < 0) return fail(message);
    if (griffin_grammar_open(&c->grammar, c->model, rules, strlen(rules), &options) < 0)
        return fail(message);
    size_t size = griffin_context_size(c->model, NULL);
    c->memory = malloc(size);
    c->state = malloc(griffin_state_size(c->model));
    c->logits = malloc((size_t)griffin_get_info(c->model)->config.vocab * sizeof(float));
    if (!c->memory || !c->state || !c->logits) return fail(message);
    return griffin_context_init(&c->context, c->model, NULL, c->memory, size);
}

/* The character sees the scene and decides. Everything it remembers starts at zero. */
static int act(character *c, const char *scene) {
    const griffin_info *info = griffin_get_info(c->model);
    griffin_sampler sampler = { 0 };
    griffin_decoder decoder = { 0 };
    int32_t prompt[64];
    char text[512];
    memset(c->state, 0, griffin_state_size(c->model));
    memset(&c->written, 0, sizeof c->written);
    decoder.started = 1;                        /* the answer follows a text */
    sampler.seed = 7;
    sampler.temperature = 0.7f;
    sampler.mask = only_what_fits;
    sampler.mask_user = c;
    int count = griffin_encode(c->model, NULL, scene, strlen(scene), prompt, 64);
    int error = count > 64 ? GRIFFIN_E_SPACE
                           : griffin_prefill(c->context, c->state, prompt, count, c->logits);
    for (printf("%s\n    ", scene); error >= 0; ) {
        int32_t token = griffin_sample(c->model, &sampler, c->logits);
        if (token == info->eos || token == info->end_of_turn) break;
        error = griffin_grammar_accept(c->grammar, &c->written, token);
        if (error < 0) break;
        griffin_decode(c->model, &decoder, token, text, sizeof text);
        fputs(text, stdout);
        error = griffin_step(c->context, c->state, token, c->logits);
    }
    puts("");
    return error < 0 ? fail(griffin_error_string(error)) : 0;
}

int main(int argc, char **argv) {
    character c = { 0 };
    int status = start(&c, argc > 1 ? argv[1] : "examples/models/storyteller.gguf");
    for (int i = 0; i < 3 && !status; i++) status = act(&c, scenes[i]);
    free(c.memory); free(c.state); free(c.logits);
    griffin_grammar_close(c.grammar);
    griffin_close(c.model);
    return status != 0;
}
