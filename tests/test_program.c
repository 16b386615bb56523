/* Promise: griffin_get_operation and `griffin info --program` show all that a model does with a
 * token: what each operation reads and writes, by which matrix, and what it keeps in a state. */

#include "model.h"

static griffin_operation operation_at(const griffin_model *m, int index) {
    griffin_operation o;
    CHECK(griffin_get_operation(m, index, &o) == GRIFFIN_OK, "%d", index);
    return o;
}

/* ---- what is printed ---- */

static const char *const printed =
    "  embed                              -> X 24      store     embed_tokens f32 [19, 24]\n"
    "layer 0\n"
    "  norm      X 24                     -> U 24\n"
    "  linear    U 24                     -> Y 36      activate  "
        "temporal_block.linear_y f32 [36, 24] + bias\n"
    "                                        Z 36      store     "
        "temporal_block.linear_x f32 [36, 24] + bias\n"
    "  conv      Z 36                     -> C 36, state, 768 bytes at 320\n"
    "  linear    C 36                     -> I 36      store     "
        "temporal_block.rg_lru.input_gate f32 [36, 36] in 3 blocks + bias\n"
    "                                        R 36      store     "
        "temporal_block.rg_lru.recurrent_gate f32 [36, 36] in 3 blocks + bias\n"
    "  rglru     C 36, I 36, R 36, Y 36   -> Y 36, state, 256 bytes at 64\n"
    "  linear    Y 36                     -> X 24      add       "
        "temporal_block.linear_out f32 [24, 36] + bias\n"
    "  norm      X 24                     -> U 24\n"
    "  gated     U 24                     -> M 40      activate  "
        "mlp_block.gate_proj f32 [40, 24] + bias\n"
    "                                        M 40      multiply  "
        "mlp_block.up_proj f32 [40, 24] + bias\n"
    "  linear    M 40                     -> X 24      add       "
        "mlp_block.down_proj f32 [24, 40] + bias\n"
    "layer 1\n"
    "  norm      X 24                     -> U 24\n"
    "  angles                             -> T 4\n"
    "  linear    U 24                     -> Q 24      store     "
        "temporal_block.q_proj f32 [24, 24]\n"
    "                                        K 8       store     "
        "temporal_block.k_proj f32 [8, 24]\n"
    "                                        V 8       store     "
        "temporal_block.v_proj f32 [8, 24]\n"
    "  rope      Q 24, T 4                -> QR 48\n"
    "  rope      K 8, T 4                 -> K 8\n"
    "  keep      K 8, V 8                 -> state, 2560 bytes at 1088\n"
    "  attend    QR 48                    -> A 24, state, 2560 bytes at 1088\n"
    "  linear    A 24                     -> X 24      add       "
        "temporal_block.o_proj f32 [24, 24] + bias\n"
    "  norm      X 24                     -> U 24\n"
    "  gated     U 24                     -> M 40      activate  "
        "mlp_block.gate_proj f32 [40, 24] + bias\n"
    "                                        M 40      multiply  "
        "mlp_block.up_proj f32 [40, 24] + bias\n"
    "  linear    M 40                     -> X 24      add       "
        "mlp_block.down_proj f32 [24, 40] + bias\n"
    "\n"
    "  norm      X 24                     -> U 24\n"
    "  linear    U 24                     -> logits 19 cap       embed_tokens f32 [19, 24]\n";

static void test_printed(void) {
    static const char path[] = "build/test_program.gguf";
    griffin_config config = small_config();
    char text[8000] = "";
    size_t size;
    strcpy(config.blocks, "ra");
    config.layers = 2;
    network *made = network_make(&config);
    unsigned char *file = network_file(made, &size);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(file, 1, size, f) == size && fclose(f) == 0, "%s", path);
    f = popen("build/griffin info --program build/test_program.gguf", "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    CHECK(f && pclose(f) == 0, "%s", text);
    const char *at = strstr(text, "  embed ");
    CHECK(at && strcmp(at, printed) == 0, "%s", text);
    remove(path);
    free(file);
    network_free(made);
}

/* ---- rules that every program keeps ---- */

static int reads(const griffin_operation *o, const char *buffer) {
    for (int i = 0; i < o->inputs; i++) if (strcmp(o->input[i].buffer, buffer) == 0) return 1;
    return 0;
}

static int writes(const griffin_operation *o, const char *buffer) {
    for (int i = 0; i < o->outputs; i++) if (strcmp(o->output[i].buffer, buffer) == 0) return 1;
    return 0;
}

/* Whatever is read was written before; int8 rows just before, and of the same width. */
static void check_order(const griffin_model *m) {
    int count = griffin_get_info(m)->operations;
    for (int i = 0; i < count; i++) {
        griffin_operation o = operation_at(m, i);
        for (int k = 0; k < o.inputs; k++) {
            int j = i - 1;
            griffin_operation before;
            for (; j >= 0; j--) {
                before = operation_at(m, j);
                if (writes(&before, o.input[k].buffer)) break;
            }
            CHECK(j >= 0, "operation %d reads %s", i, o.input[k].buffer);
            if (j >= 0 && strcmp(o.input[k].buffer, "int8") == 0)
                CHECK(j == i - 1 && before.output[0].width == o.input[k].width, "operation %d", i);
        }
        for (int k = 0; k < o.outputs; k++)
            if (o.output[k].type && strcmp(o.name, "embed") != 0) {
                int is_int = o.output[k].type[0] == 'q';
                CHECK(reads(&o, "int8") == is_int, "operation %d, %s", i, o.output[k].matrix);
            }
    }
}

/* The parts of a state that operations write follow each other without a gap. */
static void check_state(const griffin_model *m) {
    const griffin_info *info = griffin_get_info(m);
    uint64_t at = 64;
    for (int found = 1; found;) {
        found = 0;
        for (int i = 0; i < info->operations && !found; i++) {
            griffin_operation o = operation_at(m, i);
            if (!o.state_bytes || o.state_offset != at || strcmp(o.name, "attend") == 0) continue;
            at += o.state_bytes;
            found = 1;
        }
    }
    CHECK(at + 8 * (uint64_t)info->rewind == info->state_bytes, "%d of %d bytes", (int)at,
          (int)info->state_bytes);
}

static void test_rules(void) {
    for (int i = 0; i < ALL_GOLDENS; i++)
        for (int type = 0; type < TYPES && i != GOLDENS - 1; type++) {
            golden g = golden_read(i);
            griffin_model *m = golden_open(&g, golden_types[type], NULL);
            check_order(m);
            check_state(m);
            griffin_close(m);
        }
}

/* ---- what is refused ---- */

static void test_arguments(void) {
    griffin_config config = small_config();
    network *n = network_make(&config);
    griffin_model *m = network_open(n, NULL);
    int count = griffin_get_info(m)->operations;
    griffin_operation o;
    CHECK(griffin_get_operation(m, count, &o) == GRIFFIN_E_ARGUMENT, "beyond the last");
    CHECK(griffin_get_operation(m, -1, &o) == GRIFFIN_E_ARGUMENT, "before the first");
    CHECK(griffin_get_operation(m, 0, NULL) == GRIFFIN_E_ARGUMENT, "null");
    CHECK(griffin_get_operation(NULL, 0, &o) == GRIFFIN_E_ARGUMENT, "no model");
    griffin_close(m);
    network_free(n);
}

int main(void) {
    RUN(test_printed);
    RUN(test_rules);
    RUN(test_arguments);
    return test_end();
}
