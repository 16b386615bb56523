"""griffin.py - griffin.h in Python: this file, ctypes, and NumPy where it is installed.

`make shared` builds what it loads: build/libgriffin.so and, for grammars, libgriffin_grammar.so.

    import griffin
    model = griffin.Model("examples/models/storyteller.gguf")
    state = model.state()                               # what a text has left in memory: fresh
    state.feed(model.encode("Once upon a time"))        # logits [V] after the last token
    sampler = model.sampler(seed=1, temperature=0.7, top_p=0.9)
    for text in state.say(sampler, 100):
        print(text, end="", flush=True)

A state is a value: state.copy() forks it, state.mark() and state.rewind(mark) take tokens back, and
state.save() is bytes that model.state(bytes) continues in another process. A file of `griffin
persona` is such bytes. Logits are arrays of NumPy, or else array("f").

What the library refuses is a griffin.Error with its words, and leaves all as it was; a wrong type is
a TypeError.
Threads may share a model. A state, sampler or decoder is for one call at a time; a second call at
the same time is an error. Calls let other threads of Python run.
"""

import array
import ctypes
import json
import operator
import os
import threading
from ctypes import (CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_float, c_int, c_int32,
                    c_int64, c_size_t, c_ubyte, c_uint16, c_uint32, c_uint64, c_void_p)
from types import SimpleNamespace

try:
    import numpy
except ImportError:
    numpy = None

VERSION = (0, 2)            # of griffin.h: another patch will do

CPUS = ("best", "scalar", "avx2", "avx-vnni", "avx512", "neon", "neon-dot", "wasm", "neon-i8mm",
        "amx")              # in the order of griffin_cpu
KV_TYPES = ("f32", "bf16")

E_ARGUMENT, E_FILE, E_FORMAT, E_VERSION, E_UNSUPPORTED = -1, -2, -3, -4, -5
E_MEMORY, E_SPACE, E_MISMATCH, E_VOCABULARY, E_NO_TOKEN = -6, -7, -8, -9, -10


class Error(Exception):
    """What the library, or this file, has to say about a call. `code` is one of E_..."""

    def __init__(self, code, words):
        super().__init__(words)
        self.code = code


# ---- what griffin.h declares ---------------------------------------------------------------------
# tests/python_host.py lets a compiler compare all of this with griffin.h.

RECENT, MAX_LAYERS, HEAL_BYTES, GRAMMAR_FRAMES = 64, 1024, 64, 512

_Message = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_Mask = CFUNCTYPE(c_int, POINTER(c_float), c_int, c_void_p)


class _Allocator(Structure):
    c = "griffin_allocator"
    _fields_ = [("allocate", c_void_p), ("release", c_void_p), ("user", c_void_p)]


class _Logger(Structure):
    c = "griffin_logger"
    _fields_ = [("message", _Message), ("user", c_void_p)]


class _Jobs(Structure):
    c = "griffin_jobs"
    _fields_ = [("run", c_void_p), ("user", c_void_p), ("width", c_int)]


class _Config(Structure):
    c = "griffin_config"
    _fields_ = [("vocab", c_int), ("width", c_int), ("mlp_width", c_int), ("layers", c_int),
                ("heads", c_int), ("kv_heads", c_int), ("head_dim", c_int), ("lru_width", c_int),
                ("gate_blocks", c_int), ("conv_width", c_int), ("window", c_int),
                ("rope_dims", c_int), ("rope_base", c_float), ("eps", c_float),
                ("norm_offset", c_float), ("embedding_scale", c_float), ("soft_cap", c_float),
                ("decay", c_float), ("activation", c_int), ("qkv_bias", c_int),
                ("no_biases", c_int), ("layer_norm", c_int), ("mixer_eps", c_float),
                ("blocks", c_char * (MAX_LAYERS + 1))]


class _Options(Structure):
    c = "griffin_options"
    _fields_ = [("allocator", _Allocator), ("logger", _Logger), ("cpu", c_int),
                ("copy_weights", c_int), ("attn_keys", c_int), ("kv_type", c_int),
                ("rewind", c_int), ("error", c_void_p), ("error_size", c_size_t),
                ("directory_only", c_int)]


class _Info(Structure):
    c = "griffin_info"
    _fields_ = [("config", _Config), ("name", c_char_p), ("kernels", c_char_p), ("type", c_char_p),
                ("attn_keys", c_int), ("rewind", c_int), ("kv_type", c_int),
                ("has_vocabulary", c_int), ("tokens", c_int), ("bos", c_int32), ("eos", c_int32),
                ("end_of_turn", c_int32), ("pad", c_int32), ("add_bos", c_int),
                ("chat_template", c_char_p), ("parameters", c_uint64), ("weight_bytes", c_uint64),
                ("file_bytes", c_uint64), ("state_bytes", c_uint64), ("mark_bytes", c_uint64),
                ("fingerprint", c_uint64), ("tensors", c_int), ("operations", c_int),
                ("allocator", _Allocator), ("logger", _Logger)]


class _Input(Structure):
    c = "griffin_input"
    _fields_ = [("buffer", c_char_p), ("width", c_int)]


class _Output(Structure):
    c = "griffin_output"
    _fields_ = [("buffer", c_char_p), ("width", c_int), ("epilogue", c_char_p),
                ("matrix", c_char_p), ("type", c_char_p), ("rows", c_int), ("cols", c_int),
                ("blocks", c_int), ("has_bias", c_int)]


class _Operation(Structure):
    c = "griffin_operation"
    _fields_ = [("name", c_char_p), ("layer", c_int), ("inputs", c_int), ("outputs", c_int),
                ("input", _Input * 5), ("output", _Output * 3), ("state_offset", c_uint64),
                ("state_bytes", c_uint64)]


class _ContextOptions(Structure):
    c = "griffin_context_options"
    _fields_ = [("rows", c_int), ("states", c_int), ("jobs", _Jobs), ("no_slices", c_int),
                ("guesses", c_int)]


class _Span(Structure):
    c = "griffin_span"
    _fields_ = [("state", c_void_p), ("tokens", c_void_p), ("count", c_int), ("all_logits", c_int),
                ("logits", c_void_p)]


class _Bias(Structure):
    c = "griffin_bias"
    _fields_ = [("token", c_int32), ("bias", c_float)]


class _Sampler(Structure):
    c = "griffin_sampler"
    _fields_ = [("seed", c_uint64), ("temperature", c_float), ("top_p", c_float),
                ("min_p", c_float), ("top_k", c_int), ("repeat_penalty", c_float),
                ("repeat_last", c_int), ("accepted", c_uint32), ("recent", c_int32 * RECENT),
                ("biases", POINTER(_Bias)), ("bias_count", c_int), ("mask", _Mask),
                ("mask_user", c_void_p)]


class _Encoding(Structure):
    c = "griffin_encoding"
    _fields_ = [("no_bos", c_int), ("no_special", c_int), ("continues", c_int),
                ("scratch", c_void_p), ("scratch_size", c_size_t), ("ends", c_int)]


class _Decoder(Structure):
    c = "griffin_decoder"
    _fields_ = [("held", c_ubyte * 4), ("count", c_ubyte), ("started", c_ubyte),
                ("any_output", c_ubyte), ("ate_space", c_ubyte)]


class _GrammarFrame(Structure):
    c = "griffin_grammar_frame"
    _fields_ = [("position", c_uint16), ("below", c_uint16)]


class _GrammarState(Structure):
    c = "griffin_grammar_state"
    _fields_ = [("grammar", c_uint64), ("frames", c_uint16), ("places", c_uint16),
                ("ended", c_uint16), ("narrowed", c_uint16), ("last", c_int32),
                ("unfinished", c_uint32), ("frame", _GrammarFrame * GRAMMAR_FRAMES),
                ("leading", c_uint32), ("lead", c_char * HEAL_BYTES)]


FUNCTIONS = """
const char *griffin_error_string(int);
int griffin_version(void);
int griffin_open_file(griffin_model **, const char *, const griffin_options *);
int griffin_open_memory(griffin_model **, const void *, size_t, const griffin_options *);
void griffin_close(griffin_model *);
const griffin_info *griffin_get_info(const griffin_model *);
int griffin_get_operation(const griffin_model *, int, griffin_operation *);
size_t griffin_state_size(const griffin_model *);
int64_t griffin_state_position(const griffin_state *);
size_t griffin_mark_size(const griffin_model *);
int griffin_mark(const griffin_model *, const griffin_state *, void *);
int griffin_rewind(const griffin_model *, griffin_state *, const void *);
size_t griffin_context_size(const griffin_model *, const griffin_context_options *);
int griffin_context_init(griffin_context **, const griffin_model *,
                         const griffin_context_options *, void *, size_t);
int griffin_run(griffin_context *, const griffin_span *, int);
int32_t griffin_sample(const griffin_model *, griffin_sampler *, float *);
void griffin_accept(griffin_sampler *, int32_t);
int griffin_encode(const griffin_model *, const griffin_encoding *, const char *, size_t,
                   int32_t *, int);
int griffin_decode(const griffin_model *, griffin_decoder *, int32_t, char *, size_t);
int griffin_token_text(const griffin_model *, int32_t, char *, size_t);
int32_t griffin_find_token(const griffin_model *, const char *, size_t);
int64_t griffin_save(const griffin_model *, const griffin_state *, const griffin_sampler *,
                     const griffin_decoder *, void *, size_t);
int griffin_load(const griffin_model *, griffin_state *, griffin_sampler *, griffin_decoder *,
                 const void *, size_t);
"""

GRAMMAR_FUNCTIONS = """
int griffin_grammar_open(griffin_grammar **, const griffin_model *, const char *, size_t,
                         const griffin_options *);
int griffin_grammar_open_schema(griffin_grammar **, const griffin_model *, const char *, size_t,
                                const griffin_options *);
void griffin_grammar_close(griffin_grammar *);
int griffin_grammar_mask(const griffin_grammar *, const griffin_grammar_state *, float *);
int griffin_grammar_accept(const griffin_grammar *, griffin_grammar_state *, int32_t);
"""

STRUCTS = {s.c: s for s in list(globals().values())
           if isinstance(s, type) and issubclass(s, Structure) and s is not Structure}

_NUMBERS = {"void": None, "int": c_int, "int32_t": c_int32, "int64_t": c_int64, "float": c_float,
            "size_t": c_size_t}


def _c_type(text):
    """What ctypes calls a type of C. Memory and objects of the library are addresses."""
    words = text.replace("const ", "").replace("*", " *").split()
    stars, base = words.count("*"), words[0]
    if stars == 0:
        return _NUMBERS[base]
    if stars == 1 and base in STRUCTS:
        return POINTER(STRUCTS[base])
    return c_void_p if stars == 1 else POINTER(c_void_p)


# ---- the libraries -------------------------------------------------------------------------------

_libraries = {}
_said = threading.local()               # the words of the last error in this thread


@_Message
def _on_message(error, text, user):
    if error:
        _said.words = text.decode("utf-8", "replace")


def _check(result):
    if result >= 0:
        return result
    words = getattr(_said, "words", None) or _c().griffin_error_string(result)
    _said.words = None
    raise Error(result, words.decode() if isinstance(words, bytes) else words)


def _path_of(name):
    """GRIFFIN_LIBRARY names the folder; else it is that of this file, or build/."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in (os.environ.get("GRIFFIN_LIBRARY"), here,
                   os.path.join(here, "..", "..", "build")):
        if folder and os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise Error(E_FILE, name + " is not there: make shared builds it; GRIFFIN_LIBRARY=FOLDER says "
                        "where it is")


def _load(name, functions):
    library = ctypes.CDLL(_path_of(name))
    for declaration in functions.split(";")[:-1]:
        head, arguments = " ".join(declaration.split()).rstrip(")").split("(")
        symbol = head.split()[-1].lstrip("*")
        kind = head[:-len(symbol)].strip()
        function = getattr(library, symbol)
        function.restype = c_char_p if kind == "const char *" else _c_type(kind)
        function.argtypes = [_c_type(a) for a in arguments.split(", ") if a != "void"]
    return library


def _c():
    """The functions of griffin.h."""
    if "griffin" not in _libraries:
        library = _load("libgriffin.so", FUNCTIONS)
        version = library.griffin_version()
        if version // 100 != VERSION[0] * 100 + VERSION[1]:
            raise Error(E_VERSION, "the library is griffin.h %d.%d, griffin.py is for %d.%d" % (
                version // 10000, version // 100 % 100, VERSION[0], VERSION[1]))
        _libraries["griffin"] = library
    return _libraries["griffin"]


def _g():
    """Those of griffin_grammar.h, whose library needs the other one."""
    _c()
    if "grammar" not in _libraries:
        _libraries["grammar"] = _load("libgriffin_grammar.so", GRAMMAR_FUNCTIONS)
    return _libraries["grammar"]


# ---- values --------------------------------------------------------------------------------------

def _int(value, name, low=-2**31, high=2**31 - 1):
    """ctypes would cut off what is too large."""
    value = operator.index(value)
    if not low <= value <= high:
        raise Error(E_ARGUMENT, "%s: %d is not in %d .. %d" % (name, value, low, high))
    return value


def _choice(value, names, what):
    if value not in names:
        raise Error(E_ARGUMENT, "%s: %r is none of %s" % (what, value, ", ".join(names)))
    return names.index(value)


def _tokens(tokens):
    return array.array("i", [_int(t, "token") for t in tokens])


def _floats(count):
    """An array of floats and its address."""
    if numpy:
        values = numpy.empty(count, numpy.float32)
        return values, values.ctypes.data
    values = array.array("f", bytes(4 * count))
    return values, values.buffer_info()[0]


def _copy_of(logits, count):
    copy, at = _floats(count)
    if len(logits) != count:
        raise Error(E_ARGUMENT, "%d logits, where the model has %d" % (len(logits), count))
    copy[:] = logits if numpy else array.array("f", logits)
    return copy, at


def _as_text(text):
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else _as_bytes(text)


def _as_bytes(data):
    return memoryview(data).tobytes()                   # bytes(7) would be seven zeros


def _plain(struct):
    """A struct as an object of Python; functions and addresses are left out."""
    values = {}
    for name, kind in struct._fields_:
        value = getattr(struct, name)
        if isinstance(value, Structure):
            value = _plain(value)
        if kind in (c_char_p, c_char * (MAX_LAYERS + 1)):
            value = (value or b"").decode("utf-8", "replace")
        if name not in ("allocator", "logger"):
            values[name] = value
    return SimpleNamespace(**values)


class _Memory:
    """Zeroed memory for an object of the library."""

    def __init__(self, size):
        self.size = size
        self.bytes = ctypes.create_string_buffer(size + 63)
        self.at = (ctypes.addressof(self.bytes) + 63) & ~63


class _Guard:
    """Lets calls in: one at a time, or any number if it is shared, and none after close()."""

    def __init__(self, name, shared=False):
        self.name, self.shared = name, shared
        self.lock, self.inside, self.closed = threading.Lock(), 0, False

    def __enter__(self):
        with self.lock:
            if self.closed:
                raise Error(E_ARGUMENT, "the %s is closed" % self.name)
            if self.inside and not self.shared:
                raise Error(E_ARGUMENT, "the %s is in use: one call at a time" % self.name)
            self.inside += 1

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1

    def close(self):
        """Returns whether this call closed it."""
        with self.lock:
            if self.inside:
                raise Error(E_ARGUMENT, "the %s is in use, and cannot be closed" % self.name)
            was, self.closed = self.closed, True
        return not was


# ---- the objects ---------------------------------------------------------------------------------

class Model:
    """Weights and vocabulary, from a path or from the bytes of a GGUF file.

    cpu and kv_type are names of CPUS and KV_TYPES; attn_keys, rewind and copy_weights are as in
    griffin_options. threads: of a call; 0: one for each core. rows: most tokens in one pass.
    model.info has the fields of griffin_info, and model.info.config the sizes of the network.
    """

    def __init__(self, source, *, cpu="best", kv_type="f32", attn_keys=0, rewind=0,
                 copy_weights=False, threads=0, rows=64):
        self._guard = _Guard("model", shared=True)
        self._guard.closed = True                       # until it is open
        self._contexts = threading.local()              # scratch memory of each thread
        self._threads, self._rows = _int(threads, "threads", 0), _int(rows, "rows", 1, 65536)
        words = ctypes.create_string_buffer(400)
        options = _Options(logger=_Logger(_on_message, None), cpu=_choice(cpu, CPUS, "cpu"),
                           kv_type=_choice(kv_type, KV_TYPES, "kv_type"),
                           attn_keys=_int(attn_keys, "attn_keys"), rewind=_int(rewind, "rewind"),
                           copy_weights=bool(copy_weights), error=ctypes.addressof(words),
                           error_size=len(words))
        handle = c_void_p()
        if isinstance(source, (str, os.PathLike)):
            path = os.fsencode(source)
            if b"\0" in path:
                raise Error(E_FILE, "a path has no NUL")
            result = _c().griffin_open_file(byref(handle), path, byref(options))
        else:
            self._data = _as_bytes(source)              # read where it is: it lives as long
            result = _c().griffin_open_memory(byref(handle), self._data, len(self._data),
                                              byref(options))
        _said.words = words.value.decode("utf-8", "replace")
        _check(result)
        self._m = handle
        self._guard.closed = False
        self.info = _plain(_c().griffin_get_info(self._m).contents)
        self.vocab = self.info.config.vocab

    def close(self):
        """Gives everything back, as `with` does at its end. Later calls are errors."""
        if self._guard.close():
            _c().griffin_close(self._m)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        try:
            self.close()
        except Exception:                               # it was never open, or Python ends
            pass

    def state(self, saved=None):
        """A fresh state, or that of state.save() or of a persona's file."""
        state = State(self)
        if saved is not None:
            state.load(saved)
        return state

    def sampler(self, **settings):
        return Sampler(self, **settings)

    def decoder(self, started=False):
        return Decoder(self, started)

    def grammar(self, rules):
        """A GBNF text, for model.sampler(grammar=...)."""
        return Grammar(self, rules, "griffin_grammar_open")

    def schema(self, schema):
        """The same of a JSON schema: its text, or what json.loads makes of it."""
        text = schema if isinstance(schema, (str, bytes)) else json.dumps(schema)
        return Grammar(self, text, "griffin_grammar_open_schema")

    def operations(self):
        """What the network does with a token, in order. Those with state_bytes keep something at
        state_offset of bytes(state): floats, or bf16 keys and values."""
        found = []
        with self._guard:
            for i in range(self.info.operations):
                o = _Operation()
                _check(_c().griffin_get_operation(self._m, i, byref(o)))
                found.append(SimpleNamespace(name=o.name.decode(), layer=o.layer,
                                             state_offset=o.state_offset,
                                             state_bytes=o.state_bytes))
        return found

    # text

    def encode(self, text, *, bos=True, special=True, continues=0, ends=False):
        """The tokens of a text. continues=1: it follows earlier text; 2: a token such as a turn
        marker. special=False: turn markers in it are plain text. ends: it is complete."""
        data = _as_text(text)
        how = _Encoding(no_bos=not bos, no_special=not special, ends=bool(ends),
                        continues=_int(continues, "continues", 0, 2))
        with self._guard:
            count = _check(_c().griffin_encode(self._m, byref(how), data, len(data), None, 0))
            tokens = (c_int32 * count)()
            _check(_c().griffin_encode(self._m, byref(how), data, len(data), tokens, count))
        return list(tokens)

    def decode(self, tokens):
        """The text of tokens that begin a text."""
        decoder = self.decoder()
        return "".join([decoder.feed(token) for token in tokens]) + decoder.flush()

    def token_text(self, token):
        """The bytes that a token stands for: not always whole characters."""
        token = _int(token, "token")
        with self._guard:
            size = _check(_c().griffin_token_text(self._m, token, None, 0))
            text = ctypes.create_string_buffer(size + 1)
            _check(_c().griffin_token_text(self._m, token, text, size))
        return text.raw[:size]

    def find_token(self, piece):
        """The token that the vocabulary spells so, or None."""
        data = _as_text(piece)
        with self._guard:
            token = _c().griffin_find_token(self._m, data, len(data))
        return None if token == -1 else _check(token)

    # running

    def run(self, pairs, all=False):
        """Tokens for many states, with one pass over the weights for all of them: a list of
        (state, tokens). Returns the logits of each, as state.feed does."""
        pairs = [(state, _tokens(tokens)) for state, tokens in pairs]
        for state, _ in pairs:
            if state.model is not self:
                raise Error(E_MISMATCH, "the state is of another model object")
        if len({id(state) for state, _ in pairs}) < len(pairs):
            raise Error(E_ARGUMENT, "a state is there twice")
        entered = []
        try:
            for guard in [self._guard] + [state._guard for state, _ in pairs]:
                guard.__enter__()
                entered.append(guard)
            return self._run(pairs, all)
        finally:
            for guard in entered:
                guard.__exit__()

    def _run(self, pairs, all):
        spans, results = (_Span * len(pairs))(), []
        for span, (state, tokens) in zip(spans, pairs):
            rows = len(tokens) if all else 1
            logits, at = _floats(rows * self.vocab)
            results.append((logits, rows))
            span.state, span.count, span.all_logits = state._memory.at, len(tokens), bool(all)
            span.tokens, span.logits = tokens.buffer_info()[0], at
        _check(_c().griffin_run(self._context(max(1, len(pairs))), spans, len(pairs)))
        results = [self._shape(*r) if all else r[0] for r in results]
        for (state, _), logits in zip(pairs, results):
            state.logits = logits[-1] if all else logits
        return results

    def _shape(self, logits, rows):
        if numpy:
            return logits.reshape(rows, self.vocab)
        return [logits[i * self.vocab:(i + 1) * self.vocab] for i in range(rows)]

    def _context(self, states):
        """Scratch memory of this thread, for so many states at least."""
        if getattr(self._contexts, "states", 0) < states:
            options = _ContextOptions(rows=max(self._rows, states), states=states, no_slices=1,
                                      jobs=_Jobs(width=self._threads))
            memory = _Memory(_c().griffin_context_size(self._m, byref(options)))
            context = c_void_p()
            _check(_c().griffin_context_init(byref(context), self._m, byref(options), memory.at,
                                             memory.size))
            self._contexts.memory, self._contexts.context = memory, context
            self._contexts.states = states
        return self._contexts.context


class State:
    """All that a text has left in memory: plain bytes of a fixed size. See Model.state."""

    def __init__(self, model):
        with model._guard:
            size = _c().griffin_state_size(model._m)
        self.model, self._memory, self._guard = model, _Memory(size), _Guard("state")
        self.logits = None                              # after the last token, where they are known

    @property
    def position(self):
        """Tokens that it has seen; of a persona, its learned keys and values count."""
        return _c().griffin_state_position(self._memory.at)

    def feed(self, tokens, all=False):
        """Reads tokens. Returns the logits [V] after the last; with all=True after each, [n][V]."""
        return self.model.run([(self, tokens)], all)[0]

    def say(self, sampler, most=256):
        """Draws tokens, reads them, and yields their text until the model ends it."""
        info, decoder = self.model.info, self.model.decoder(started=True)
        if self.logits is None:
            raise Error(E_ARGUMENT, "there are no logits: feed it a token first")
        for _ in range(most):
            token = sampler(self.logits)
            if token is None or token in (info.eos, info.end_of_turn):
                break
            text = decoder.feed(token)
            self.feed([token])
            yield text
        yield decoder.flush()

    def copy(self):
        """Another one that has read the same."""
        other = State(self.model)
        with self._guard:
            ctypes.memmove(other._memory.at, self._memory.at, self._memory.size)
            if self.logits is not None:
                other.logits, _ = _copy_of(self.logits, self.model.vocab)
        return other

    def __bytes__(self):
        """The memory as it is, to look at: Model.operations says what is where. save() is for
        keeping."""
        with self._guard:
            return ctypes.string_at(self._memory.at, self._memory.size)

    def mark(self):
        """What rewind needs to come back here: small, for this process."""
        with self.model._guard, self._guard:
            mark = ctypes.create_string_buffer(_c().griffin_mark_size(self.model._m))
            _check(_c().griffin_mark(self.model._m, self._memory.at, mark))
        return mark.raw

    def rewind(self, mark):
        """Back to a mark, exactly, from at most model.info.rewind tokens behind it."""
        mark = _as_bytes(mark)
        with self.model._guard, self._guard:
            if len(mark) != _c().griffin_mark_size(self.model._m):
                raise Error(E_MISMATCH, "a mark of this model has %d bytes, not %d" % (
                    _c().griffin_mark_size(self.model._m), len(mark)))
            _check(_c().griffin_rewind(self.model._m, self._memory.at, mark))
            self.logits = None

    def save(self, sampler=None, decoder=None):
        """Bytes that load() takes on any machine, with a checksum, for this model only."""
        return self._with(sampler, decoder, self._save)

    def load(self, saved, sampler=None, decoder=None):
        """Takes saved bytes, or raises an Error and stays what it was."""
        data = _as_bytes(saved)
        self._with(sampler, decoder, lambda s, d: _check(_c().griffin_load(
            self.model._m, self._memory.at, s, d, data, len(data))))
        self.logits = None

    def _save(self, s, d):
        size = _check(_c().griffin_save(self.model._m, self._memory.at, s, d, None, 0))
        data = ctypes.create_string_buffer(size)
        _check(_c().griffin_save(self.model._m, self._memory.at, s, d, data, size))
        return data.raw

    def _with(self, sampler, decoder, call):
        """Calls with the structs of a sampler and a decoder, or with null."""
        guards = [self.model._guard, self._guard]
        guards += [o._guard for o in (sampler, decoder) if o is not None]
        entered = []
        try:
            for guard in guards:
                guard.__enter__()
                entered.append(guard)
            return call(*[None if o is None else byref(o._struct) for o in (sampler, decoder)])
        finally:
            for guard in entered:
                guard.__exit__()


class Sampler:
    """Chooses tokens: token = sampler(logits). The logits stay as they are.

    seed, temperature (0: always the likeliest), top_p, min_p, top_k, repeat_penalty and repeat_last
    are as in griffin_sampler. bias: {token: number}; -inf bans it. mask: a function that changes
    logits in place before a token is drawn. grammar: what model.grammar or model.schema returns.
    """

    def __init__(self, model, *, bias=None, mask=None, grammar=None, **settings):
        self.model, self._guard, self._struct = model, _Guard("sampler"), _Sampler()
        self.mask, self.grammar = mask, grammar
        self._written, self.may_end = _GrammarState(), False    # what the grammar has seen
        if grammar is not None and grammar.model is not model:
            raise Error(E_MISMATCH, "the grammar is of another model object")
        if bias:
            biases = [_Bias(_int(token, "token"), value) for token, value in bias.items()]
            self._biases = (_Bias * len(biases))(*biases)
            self._struct.biases, self._struct.bias_count = self._biases, len(biases)
        if mask is not None or grammar is not None:
            self._hook = _Mask(self._apply)
            self._struct.mask = self._hook
        self.set(**settings)

    def set(self, **settings):
        """Changes some of the settings."""
        with self._guard:
            changed = _Sampler()
            ctypes.memmove(byref(changed), byref(self._struct), ctypes.sizeof(_Sampler))
            for name, value in settings.items():
                if name == "seed":
                    value = _int(value, name, 0, 2**64 - 1)
                elif name in ("top_k", "repeat_last"):
                    value = _int(value, name)
                elif name not in ("temperature", "top_p", "min_p", "repeat_penalty"):
                    raise TypeError("a sampler has no %s" % name)
                setattr(changed, name, value)
            for name in settings:
                setattr(self._struct, name, getattr(changed, name))

    def copy(self):
        """Another one that draws what this one would."""
        other = Sampler(self.model, mask=self.mask, grammar=self.grammar)
        with self._guard:
            hook = other._struct.mask
            ctypes.memmove(byref(other._struct), byref(self._struct), ctypes.sizeof(_Sampler))
            ctypes.memmove(byref(other._written), byref(self._written),
                           ctypes.sizeof(_GrammarState))
            other._struct.mask, other.may_end = hook, self.may_end
            other._biases = getattr(self, "_biases", None)
        return other

    def accept(self, token):
        """Tells the repetition penalty of a token that was not drawn."""
        with self._guard:
            _c().griffin_accept(byref(self._struct), _int(token, "token"))

    def __call__(self, logits):
        """A token; None where a grammar is complete and no token can follow."""
        with self.model._guard, self._guard:
            self._logits, at = _copy_of(logits, self.model.vocab)
            self._raised = None
            token = _c().griffin_sample(self.model._m, byref(self._struct),
                                        ctypes.cast(at, POINTER(c_float)))
            if self._raised:
                _said.words = None
                raise self._raised
            if token == E_NO_TOKEN and self.grammar is not None and self.may_end:
                _said.words = None
                return None
            _check(token)
            ends = token in (self.model.info.eos, self.model.info.end_of_turn)
            if self.grammar is not None and not ends:
                self.may_end = bool(self.grammar._accept(self._written, token))
            return token

    def _apply(self, logits, vocab, user):
        """Called inside griffin_sample. An exception must not leave through C."""
        try:
            if self.mask is not None:
                self.mask(self._logits)
            return 0 if self.grammar is None else self.grammar._mask(self._written, logits)
        except BaseException as error:
            self._raised = error
            return E_ARGUMENT


class Decoder:
    """Tokens to text, as a stream of whole characters. started: they follow earlier text."""

    def __init__(self, model, started=False):
        self.model, self._guard = model, _Guard("decoder")
        self._struct = _Decoder(started=bool(started))

    def feed(self, token):
        return self._feed(_int(token, "token", 0))

    def flush(self):
        """What is still held back, at the end."""
        return self._feed(-1)

    def _feed(self, token):
        size = 512
        with self.model._guard, self._guard:
            while True:
                text = ctypes.create_string_buffer(size)
                count = _c().griffin_decode(self.model._m, byref(self._struct), token, text, size)
                if count != E_SPACE:
                    return text.raw[:_check(count)].decode("utf-8", "replace")
                _said.words = None
                size *= 4


class Grammar:
    """What a text may be: see Model.grammar and Model.schema. Threads may share it."""

    def __init__(self, model, text, function):
        self._guard, self.model, self._g = _Guard("grammar", shared=True), model, None
        data, words, handle = _as_text(text), ctypes.create_string_buffer(400), c_void_p()
        options = _Options(error=ctypes.addressof(words), error_size=len(words))
        with model._guard:
            result = getattr(_g(), function)(byref(handle), model._m, data, len(data),
                                             byref(options))
            _said.words = words.value.decode("utf-8", "replace")
            _check(result)
        self._g = handle

    def _mask(self, written, logits):
        with self._guard:
            return _g().griffin_grammar_mask(self._g, byref(written), logits)

    def _accept(self, written, token):
        with self._guard:
            return _check(_g().griffin_grammar_accept(self._g, byref(written), token))

    def close(self):
        if self._g and self._guard.close():
            _g().griffin_grammar_close(self._g)

    def __del__(self):
        try:
            self.close()
        except Exception:
            pass
