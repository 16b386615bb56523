"""python_host.py - examples/python/griffin.py keeps its word: it declares what griffin.h declares,
it tells what a program in C tells, and whatever is done wrong is an error with words that changes
nothing.

    python3 tests/python_host.py        with NumPy where it is installed; python3 -S: without

$CC compiles the declarations. Prints "N passed, N failed" at the end.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import traceback

sys.path.insert(0, "examples/python")
import griffin                                                              # noqa: E402

MODEL, PERSONA = "examples/models/storyteller.gguf", "examples/personas/pirate.persona"
OTHER = "build/data/griffin-tiny.gguf"
OPENING = "Once upon a time"
data = open(MODEL, "rb").read()
persona = open(PERSONA, "rb").read()
model = griffin.Model(MODEL)


def same(a, b):
    return bytes(memoryview(a).cast("B")) == bytes(memoryview(b).cast("B"))


def refused(code, words, call):
    """An Error with this code and these words; nothing else."""
    try:
        call()
    except griffin.Error as error:
        assert error.code == code, (error.code, str(error))
        assert words in str(error), str(error)
        return
    raise AssertionError("nothing was refused: " + words)


# ---- declarations --------------------------------------------------------------------------------

def program():
    """Its lines are "name size" or "name.field offset size" or "NAME value"; and a compiler takes
    the declarations of functions only if they are those of the headers."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "griffin.h"',
             '#include "tools/griffin_grammar.h"', griffin.FUNCTIONS, griffin.GRAMMAR_FUNCTIONS,
             "#define SIZE(t) printf(#t \" %d\\n\", (int)sizeof(t));",
             "#define FIELD(t, f) printf(#t \".\" #f \" %d %d\\n\", (int)offsetof(t, f), "
             "(int)sizeof(((t *)0)->f));",
             "#define NUMBER(n) printf(#n \" %d\\n\", (int)(n));", "int main(void) {"]
    for name, struct in griffin.STRUCTS.items():
        lines.append("SIZE(%s)" % name)
        lines += ["FIELD(%s, %s)" % (name, field[0]) for field in struct._fields_]
    lines += ["NUMBER(%s)" % name for name, _ in numbers()]
    return "\n".join(lines + ["return 0; }"])


def numbers():
    yield "GRIFFIN_VERSION_MAJOR", griffin.VERSION[0]
    yield "GRIFFIN_VERSION_MINOR", griffin.VERSION[1]
    yield "GRIFFIN_RECENT", griffin.RECENT
    yield "GRIFFIN_MAX_LAYERS", griffin.MAX_LAYERS
    yield "GRIFFIN_HEAL_BYTES", griffin.HEAL_BYTES
    yield "GRIFFIN_GRAMMAR_FRAMES", griffin.GRAMMAR_FRAMES
    for name, value in vars(griffin).items():
        if name.startswith("E_"):
            yield "GRIFFIN_" + name, value
    for value, name in enumerate(griffin.CPUS):
        yield "GRIFFIN_CPU_" + name.upper().replace("-", "_"), value
    for value, name in enumerate(griffin.KV_TYPES):
        yield "GRIFFIN_KV_" + name.upper(), value


def compiled(source):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "declared")
        open(path + ".c", "w").write(source)
        command = os.environ.get("CC", "gcc").split() + ["-I.", path + ".c", "-o", path]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            return None
        return subprocess.run([path], capture_output=True, text=True, check=True).stdout


def test_declarations():
    said = {line.split()[0]: [int(n) for n in line.split()[1:]]
            for line in compiled(program()).splitlines()}
    for name, struct in griffin.STRUCTS.items():
        assert said.pop(name) == [ctypes.sizeof(struct)], name
        for field in struct._fields_:
            f = getattr(struct, field[0])
            assert said.pop(name + "." + field[0]) == [f.offset, f.size], (name, field)
    for name, value in numbers():
        assert said.pop(name) == [value], name
    assert not said, said
    wrong = griffin.FUNCTIONS.replace("int griffin_mark(const griffin_model *, ",
                                      "int griffin_mark(")
    assert wrong != griffin.FUNCTIONS
    assert compiled(program().replace(griffin.FUNCTIONS, wrong)) is None


def test_no_field_is_missing():
    """A field at the end of a struct would change its size; one that is missing inside, an offset.
    But the padding of a struct could hide a small one."""
    header = open("griffin.h").read() + open("tools/griffin_grammar.h").read()
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    for name, struct in griffin.STRUCTS.items():
        body = re.search(r"typedef struct %s \{(.*?)\} %s;" % (name, name), header, re.S).group(1)
        body = re.sub(r"\(\*(\w+)\)\(.*?\);", r"\1;", body, flags=re.S)
        fields = re.findall(r"(\w+)\s*(?:\[[^\]]*\])?\s*[,;]", body)
        assert fields == [field[0] for field in struct._fields_], (name, fields)


# ---- what it does --------------------------------------------------------------------------------

def test_tells_what_c_tells():
    told = subprocess.run(["build/examples/hello"], capture_output=True, check=True).stdout
    state, sampler = model.state(), model.sampler(seed=2026, temperature=0.7, top_p=0.9)
    tokens = model.encode(OPENING)
    state.feed(tokens)
    text = OPENING + "".join(state.say(sampler, 200 - len(tokens))) + "\n"
    assert text.encode() == told, (text, told)


def test_values():
    """Copies, saves and marks bring the same bits."""
    state, sampler = model.state(), model.sampler(seed=3, temperature=1)
    logits = state.feed(model.encode(OPENING))
    fork, mark, saved = state.copy(), state.mark(), state.save(sampler)
    assert bytes(fork) == bytes(state) and same(fork.logits, logits)
    twin = sampler.copy()
    said = "".join(state.say(sampler, 12))
    assert state.position > fork.position and bytes(state) != bytes(fork)
    assert "".join(fork.say(twin, 12)) == said and bytes(fork) == bytes(state)
    position = model.state(saved).position
    again, sampler = model.state(), model.sampler()
    again.load(saved, sampler)
    again.logits = logits
    assert "".join(again.say(sampler, 12)) == said and again.save() == state.save()
    state.rewind(mark)
    assert state.position == position and state.save(model.sampler(seed=3, temperature=1)) == saved


def test_logits():
    tokens = model.encode("The wolf and the girl went into the wood.")
    after_each = model.state().feed(tokens, all=True)
    alone = model.state()
    for token, row in zip(tokens, after_each):
        kept = alone.feed([token])
        assert same(kept, row)
    assert len(after_each) == len(tokens) and len(kept) == model.vocab
    greedy = model.sampler()
    best = max(range(model.vocab), key=lambda i: kept[i])
    assert greedy(kept) == best == greedy(list(kept)) and same(kept, after_each[-1])


def test_many_together():
    texts = ["The king said", "A", "Once upon a time there was a small dog who had no friends"]
    states = [model.state() for _ in texts]
    together = model.run([(s, model.encode(t)) for s, t in zip(states, texts)])
    for state, text, logits in zip(states, texts, together):
        alone = model.state()
        assert same(alone.feed(model.encode(text)), logits) and bytes(alone) == bytes(state)


def test_text():
    text = "Der Wolf aß 3 Äpfel – \"gut\" 🐺.\n"
    tokens = model.encode(text)
    assert model.decode(tokens).strip() == text.strip() or "\ufffd" in model.decode(tokens)
    assert b"".join(model.token_text(t) for t in model.encode("a wolf", bos=False)) == b" a wolf" \
        or model.decode(model.encode("a wolf")) == "a wolf"
    assert model.find_token("no such piece of a word") is None
    assert model.encode("a\udc80b") and model.encode(b"\xff\xfe")
    assert model.encode("", bos=False) == []


def test_persona():
    state = model.state(persona)
    assert state.position > 0 and state.save() == persona
    state.feed(model.encode('The pirate said, "'))
    plain = model.state()
    plain.feed(model.encode('The pirate said, "'))
    assert "".join(state.say(model.sampler(), 20)) != "".join(plain.say(model.sampler(), 20))


def test_settings():
    sampler = model.sampler(bias={5: float("-inf"), 6: 1e9})
    assert sampler([0.0] * model.vocab) == 6
    sampler = model.sampler(mask=lambda logits: logits.__setitem__(7, 1e9))
    logits = model.state().feed([1])
    before = bytes(memoryview(logits).cast("B"))
    assert sampler(logits) == 7 and bytes(memoryview(logits).cast("B")) == before
    sampler = model.sampler(seed=1, temperature=1, repeat_penalty=1.5)
    sampler.accept(3)
    sampler.set(temperature=0)
    try:
        model.sampler(temprature=1)
    except TypeError as error:
        assert "temprature" in str(error)
    else:
        raise AssertionError("a misspelt setting")


def test_grammars():
    schema = {"type": "object", "required": ["name", "age"], "properties": {
        "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 1,
                                                             "maximum": 99}}}
    for grammar in (model.schema(schema), model.schema(json.dumps(schema))):
        for seed in range(5):
            state = model.state()
            state.feed(model.encode("The boy had a name and an age: "))
            sampler = model.sampler(seed=seed, temperature=1, grammar=grammar)
            made = json.loads("".join(state.say(sampler, 200)))
            assert len(made["name"]) <= 12 and 1 <= made["age"] <= 99, made
    rules = model.grammar('root ::= "yes" | "no"')
    state = model.state()
    state.feed(model.encode("Is it so? "))
    assert "".join(state.say(model.sampler(grammar=rules), 9)) in ("yes", "no")
    refused(griffin.E_FORMAT, "1", lambda: model.grammar("root ::= ("))
    refused(griffin.E_FORMAT, "magic", lambda: model.schema({"magic": 1}))


def test_operations():
    """They say where in a state each layer keeps something."""
    places = [(o.state_offset, o.state_bytes) for o in model.operations() if o.state_bytes]
    fresh, fed = bytes(model.state()), model.state()
    fed.feed(model.encode(OPENING))
    fed = bytes(fed)
    assert places and len(fed) == model.info.state_bytes
    for offset, size in places:
        assert not any(fresh[offset:offset + size]) and any(fed[offset:offset + size])


def test_readme():
    """Its example runs, and prints what stands there."""
    readme = open("README.md").read()
    code = re.search(r"```python\n(.*?)```\n\nIt prints\n\n((?:    [^\n]*\n|\n)+)", readme, re.S)
    said = subprocess.run([sys.executable] + sys.flags.no_site * ["-S"] + ["-c", code.group(1)],
                          env=dict(os.environ, PYTHONPATH="examples/python"), text=True,
                          capture_output=True)
    expected = re.sub("^    ", "", code.group(2), flags=re.M)
    assert said.stdout.strip() == expected.strip(), (said.stdout, said.stderr)


# ---- what is wrong -------------------------------------------------------------------------------

def test_wrong_files():
    refused(griffin.E_FILE, "nowhere.gguf", lambda: griffin.Model("nowhere.gguf"))
    refused(griffin.E_FILE, "NUL", lambda: griffin.Model("a\0b"))
    refused(griffin.E_FORMAT, "", lambda: griffin.Model(b""))
    refused(griffin.E_FORMAT, "", lambda: griffin.Model(data[:100000]))
    refused(griffin.E_FORMAT, "", lambda: griffin.Model("README.md"))
    refused(griffin.E_ARGUMENT, "avx1024", lambda: griffin.Model(MODEL, cpu="avx1024"))
    refused(griffin.E_ARGUMENT, "rows", lambda: griffin.Model(MODEL, rows=0))
    refused(griffin.E_ARGUMENT, "rewind", lambda: griffin.Model(MODEL, rewind=2**40))
    with griffin.Model(data) as other:
        assert other.info.config.vocab == model.vocab


def test_wrong_saves():
    state = model.state()
    state.feed(model.encode(OPENING))
    before = bytes(state)
    saved = state.save()
    for size in list(range(0, 60)) + [len(saved) // 2, len(saved) - 1]:
        refused(griffin.E_FORMAT, "load", lambda: state.load(saved[:size]))
    for at in range(60, len(saved), 999):
        broken = bytearray(saved)
        broken[at] ^= 1
        refused(griffin.E_FORMAT, "checksum", lambda: state.load(broken))
    newer = bytearray(saved)
    newer[8] = 99
    refused(griffin.E_VERSION, "newer", lambda: state.load(newer))
    refused(griffin.E_MISMATCH, "sampler", lambda: state.load(saved, model.sampler()))
    with griffin.Model(OTHER) as other:
        refused(griffin.E_MISMATCH, "another model", lambda: other.state(persona))
        theirs = other.state()
        theirs.feed([1, 2, 3])
        refused(griffin.E_MISMATCH, "another model", lambda: state.load(theirs.save()))
        refused(griffin.E_MISMATCH, "mark", lambda: state.rewind(theirs.mark()))
        refused(griffin.E_MISMATCH, "another model", lambda: model.run([(theirs, [1])]))
        refused(griffin.E_VOCABULARY, "vocabulary", lambda: other.encode("x"))
    for mark in (b"", b"x" * len(state.mark()), state.mark()[1:]):
        refused(griffin.E_MISMATCH, "mark", lambda: state.rewind(mark))
    assert bytes(state) == before


def test_wrong_arguments():
    state = model.state()
    logits = state.feed(model.encode(OPENING))
    before = bytes(state)
    for tokens in ([], [-1], [model.vocab], [2**31], [2**40], [1, 2, -5]):
        refused(griffin.E_ARGUMENT, "", lambda: state.feed(tokens))
        refused(griffin.E_ARGUMENT, "", lambda: state.feed(tokens, all=True))
    refused(griffin.E_ARGUMENT, "twice", lambda: model.run([(state, [1]), (state, [2])]))
    refused(griffin.E_ARGUMENT, "no spans", lambda: model.run([]))
    for sampler in (model.sampler(), model.sampler(temperature=1)):
        refused(griffin.E_ARGUMENT, "logits", lambda: sampler(logits[:-1]))
    refused(griffin.E_ARGUMENT, "seed", lambda: model.sampler(seed=2**64))
    refused(griffin.E_ARGUMENT, "", lambda: model.sampler(temperature=float("nan"))(logits))
    refused(griffin.E_ARGUMENT, "", lambda: model.sampler(bias={2**31 - 1: 1.0})(logits))
    refused(griffin.E_NO_TOKEN, "", lambda: model.sampler(
        bias={t: float("-inf") for t in range(model.vocab)})(logits))
    refused(griffin.E_ARGUMENT, "", lambda: model.token_text(model.vocab))
    refused(griffin.E_ARGUMENT, "", lambda: model.decode([model.vocab]))
    refused(griffin.E_ARGUMENT, "no logits", lambda: next(model.state().say(model.sampler())))
    for call in (lambda: state.feed(["a"]), lambda: state.feed([1.5]), lambda: model.encode(7),
                 lambda: model.sampler(temperature="hot"), lambda: state.load(7.5)):
        try:
            call()
        except (TypeError, griffin.Error):
            pass
        else:
            raise AssertionError("a wrong type")
    assert bytes(state) == before


def test_masks_that_fail():
    """What a mask raises arrives, and C has not been left by it."""
    def fails(logits):
        raise KeyError("mine")
    sampler, logits = model.sampler(mask=fails, seed=9, temperature=1), model.state().feed([1])
    try:
        sampler(logits)
    except KeyError as error:
        assert "mine" in str(error)
    else:
        raise AssertionError("lost")
    sampler.mask = None
    assert sampler(logits) == model.sampler(seed=9, temperature=1)(logits)
    nested = model.sampler(mask=lambda logits: nested(logits))
    refused(griffin.E_ARGUMENT, "in use", lambda: nested(logits))
    closing = griffin.Model(OTHER)
    sampler = closing.sampler(mask=lambda logits: closing.close())
    refused(griffin.E_ARGUMENT, "in use", lambda: sampler(closing.state().feed([1])))
    closing.close()


def test_closed():
    other = griffin.Model(MODEL)
    state, sampler, decoder = other.state(), other.sampler(), other.decoder()
    grammar = other.grammar('root ::= "a"')
    strict = other.sampler(grammar=grammar)
    logits, saved, mark = state.feed([1]), state.save(), state.mark()
    other.close()
    other.close()
    for call in (lambda: state.feed([1]), lambda: sampler(logits), lambda: decoder.feed(1),
                 lambda: state.save(), lambda: state.load(saved), lambda: state.mark(),
                 lambda: state.rewind(mark), lambda: other.encode("x"), lambda: other.state(),
                 lambda: other.operations(), lambda: other.token_text(1), lambda: strict(logits),
                 lambda: other.grammar("root ::= \"a\""), lambda: other.find_token("a"),
                 lambda: state.copy(), lambda: other.run([(state, [1])])):
        refused(griffin.E_ARGUMENT, "closed", call)
    assert state.position == 1
    grammar.close()
    grammar.close()
    refused(griffin.E_ARGUMENT, "closed", lambda: model.sampler(grammar=Closed())(logits))


class Closed:
    """A grammar of this model that was closed."""
    def __init__(self):
        self.model, self.grammar = model, model.grammar('root ::= "a"')
        self.grammar.close()

    def _mask(self, *arguments):
        return self.grammar._mask(*arguments)


# ---- threads -------------------------------------------------------------------------------------

def run_threads(*functions):
    raised = []

    def keep(function):
        try:
            function()
        except BaseException as error:
            raised.append(error)
    threads = [threading.Thread(target=keep, args=(f,)) for f in functions]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if raised:
        raise raised[0]


def test_one_at_a_time():
    """While a call is in an object, others are told so."""
    state, sampler, decoder = model.state(), model.sampler(), model.decoder()
    logits, saved = state.feed([1]), state.save()
    before, mark, calls = bytes(state), state.mark(), [
        lambda: state.feed([1]), lambda: state.save(), lambda: state.load(saved),
        lambda: state.copy(), lambda: bytes(state), lambda: state.mark(),
        lambda: state.rewind(mark), lambda: model.run([(model.state(), [1]), (state, [1])]),
        lambda: sampler(logits), lambda: sampler.set(seed=1), lambda: sampler.copy(),
        lambda: sampler.accept(1), lambda: decoder.feed(1), lambda: decoder.flush(),
        lambda: model.state().save(sampler), lambda: model.close()]
    with model._guard, state._guard, sampler._guard, decoder._guard:
        run_threads(*[lambda call=call: refused(griffin.E_ARGUMENT, "in use", call)
                      for call in calls])
    assert bytes(state) == before and same(state.feed([2]), model.state(saved).feed([2]))


def test_two_threads_meet():
    """The same in earnest; the first call does what it does alone."""
    tokens, alone = model.encode(OPENING) * 200, model.state()
    alone.feed(tokens)
    for _ in range(50):
        state, done, refusals = model.state(), threading.Event(), []

        def meddle():
            while not state._guard.inside and not done.is_set():
                pass
            try:
                state.feed([1])
            except griffin.Error as error:
                refusals.append(str(error))
        run_threads(lambda: [state.feed(tokens), done.set()], meddle)
        if refusals:
            assert "in use" in refusals[0] and bytes(state) == bytes(alone)
            return
    raise AssertionError("they never met")


def test_one_model_many_threads():
    texts = ["The king", "A small dog", "Once upon a time", "In the forest"]
    expected = []
    for text in texts:
        state = model.state()
        state.feed(model.encode(text))
        expected.append("".join(state.say(model.sampler(seed=4, temperature=1), 40)))

    def tell(i):
        state = model.state()
        state.feed(model.encode(texts[i]))
        assert "".join(state.say(model.sampler(seed=4, temperature=1), 40)) == expected[i]
    run_threads(*[lambda i=i % 4: tell(i) for i in range(8)])


# --------------------------------------------------------------------------------------------------

def main():
    passed = failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            passed += 1
        except Exception:
            failed += 1
            print(name, "FAILED")
            traceback.print_exc(file=sys.stdout)
    print("NumPy %s" % griffin.numpy.__version__ if griffin.numpy else "without NumPy")
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed > 0)


main()
