#!/usr/bin/env python3
"""Writes tests/data/forms, from which tests/test_tokenizer_forms.c learns what tokens are right.

A development script: neither the build nor a test runs it. It needs the Python packages tokenizers
(0.23) and sentencepiece (0.2), which are the references. It trains three small tokenizers,

    words.json      byte-level BPE in the form of Llama 3, with pieces that no merge makes
    spaces.json     BPE with byte_fallback in the form of Llama 2, made from spaces.model
    spaces.model    SentencePiece

and writes words.tsv and spaces.tsv. A line has a text, and then for each form of the tokenizer the
tokens and what they decode to. Bytes may be written %XX; = stands for the field of the form before,
~ for the text. The first line names the forms.

It also writes chat.tsv from chat templates as models come with them, which jinja2 carries out. A line
has the file, the form, the format, the template, a system prompt (- for none), three messages, the
tokens before the first answer, and those of the whole conversation.
"""

import json
import os
import random
import tempfile

import jinja2
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "forms")
SPACE = "\u2581"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

SENTENCES = """
The old lighthouse keeper said that the sea would be calm tomorrow, but he didn't believe it.
She's here, they're there, we've been everywhere, I'm lost, you'll see, he'd known.
"What's that?" asked the girl; it was 3 o'clock on 14 July 1789, and 250 people were waiting.
def add(a, b):\n    return a + b  # the sum\n\n\nif __name__ == '__main__':\n\tprint(add(1, 2))
for (int i = 0; i < 1024; i++) { x[i] = y[i] * 0.5f; }\r\n\r\n/* done */
Der alte Mann und das Meer: dreißig Jahre später, über tausend Geschichten größer.
Où est la bibliothèque ? L'élève n'a pas répondu. Ça va très bien, à bientôt !
El niño comió una piña mañana; ¿cuántos años tienes? ¡Qué día!
Старый маяк стоял на берегу моря, и каждый вечер в нём зажигался свет.
Ο γέρος φάρος στεκόταν στην ακτή της θάλασσας.
古い灯台は海のそばに立っていた。毎晩、光がともった。
老灯塔矗立在海边，每天晚上都亮着灯。一共有三百二十五级台阶。
등대는 바닷가에 서 있었다. 매일 밤 불이 켜졌다.
كان المنارة القديمة تقف على شاطئ البحر كل مساء ١٢٣.
המגדלור הישן עמד על שפת הים.
पुराना प्रकाशस्तंभ समुद्र के किनारे खड़ा था। १२३४
ประภาคารเก่าตั้งอยู่ริมทะเล
🚀 emoji 👩‍👩‍👧 and 🇫🇷 flags, 100 % of 7⅞ pieces, x² + y³ = ½
"""

def corpus():
    random.seed(1)
    lines = [l.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
             for l in SENTENCES.strip().split("\n")]
    text = []
    for _ in range(30):
        random.shuffle(lines)
        text += lines
    return text

# ---- the tokenizers ----------------------------------------------------------------------------

def added(i, content, special=True):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": special}

def write(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")

def byte_level(regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": regex}

def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated",
            "invert": False}

def sequence(name, *steps):
    return {"type": "Sequence", name: list(steps)}

def make_words():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=620, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    j = json.loads(t.to_str())
    vocab = j["model"]["vocab"]
    # Llama 3 has pieces that its merges do not reach; with ignore_merges they are found.
    for piece in ["Ġlight", "lighthouse", "Ġ1789", "Ġ  ", "ĠĠĠ", "178", "'LL", "Ġwas", "()", "()ĊĊ",
                  "ðŁļĢ", "ĊĊĊ", "reat"]:
        vocab.setdefault(piece, len(vocab))
    n = len(vocab)
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>",
             "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>"]
    write("words.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(n + i, m) for i, m in enumerate(marks)]
                      + [added(n + len(marks), "tool call", False)],
        "normalizer": None,
        "pre_tokenizer": sequence("pretokenizers", split(WORDS3), byte_level(False)),
        "post_processor": None, "decoder": byte_level(True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": True, "vocab": vocab,
                  "merges": j["model"]["merges"]}})

def merges_of(pieces):
    """Every cut of a piece into two pieces; the best score first, then long parts."""
    rules = []
    for text, score in pieces.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in pieces and right in pieces:
                rules.append((-score, -len(left), -len(right), left, right))
    return [[r[3], r[4]] for r in sorted(rules)]

PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
RESTORE = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
           {"type": "ByteFallback"}, {"type": "Fuse"}]

def make_spaces():
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "m")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()), model_prefix=prefix, vocab_size=760,
            model_type="bpe", byte_fallback=True, character_coverage=0.98, split_digits=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2)
        with open(prefix + ".model", "rb") as f: data = f.read()
    with open(os.path.join(HERE, "spaces.model"), "wb") as f: f.write(data)
    sp = sentencepiece.SentencePieceProcessor(model_proto=data)
    count = sp.get_piece_size()
    normal = {sp.id_to_piece(i): sp.get_score(i) for i in range(count)
              if not (sp.is_byte(i) or sp.is_control(i) or sp.is_unknown(i))}
    write("spaces.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"),
                         added(count, "[INST]"), added(count + 1, "[/INST]"),
                         added(count + 2, "call it", False)],
        "normalizer": sequence("normalizers", PREPEND, REPLACE), "pre_tokenizer": None,
        "post_processor": None, "decoder": sequence("decoders", *RESTORE, STRIP),
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False,
                  "vocab": {sp.id_to_piece(i): i for i in range(count)},
                  "merges": merges_of(normal)}})
    return sp

# ---- the forms ---------------------------------------------------------------------------------

def metaspace(**more):
    return dict({"type": "Metaspace", "replacement": SPACE}, **more)

def form(base, **parts):
    j = json.loads(json.dumps(base))
    model = parts.pop("model", {})
    j.update(parts)
    j["model"].update(model)
    return j

def forms_of_words():
    with open(os.path.join(HERE, "words.json"), encoding="utf-8") as f: base = json.load(f)
    merged = {"ignore_merges": False}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "llama3": base,
        "llama3-merged": form(base, model=merged),
        "gpt2": form(base, pre_tokenizer=byte_level(True), model=merged),
        "gpt2-split": form(base, pre_tokenizer=sequence("pretokenizers", split(GPT2),
                                                        byte_level(False)), model=merged),
        "smollm": form(base, pre_tokenizer=sequence("pretokenizers", digits, byte_level(True)),
                       model=merged),
        "qwen2": form(base, pre_tokenizer=sequence("pretokenizers", split(
            WORDS3.replace("{1,3}", "")), byte_level(False)), model=merged),
        "lacking": form(base, model={"vocab": {  # no piece for the byte 0x01
            t + " unused" if t == "\u0101" else t: i for t, i in base["model"]["vocab"].items()}})}

def forms_of_spaces():
    with open(os.path.join(HERE, "spaces.json"), encoding="utf-8") as f: base = json.load(f)
    kept, strips = sequence("decoders", *RESTORE), sequence("decoders", *RESTORE, STRIP)
    def meta(pre, decoder): return form(base, normalizer=None, pre_tokenizer=pre, decoder=decoder)
    return {
        "prepend": base,
        "always": meta(metaspace(prepend_scheme="always", split=False), strips),
        "first": meta(metaspace(prepend_scheme="first", split=False), strips),
        "never": meta(metaspace(prepend_scheme="never", split=False), kept),
        "old": meta(metaspace(add_prefix_space=True, prepend_scheme="always", split=True), strips),
        "words-first": meta(metaspace(prepend_scheme="first", split=True), strips),
        "replace": form(base, normalizer=REPLACE, decoder=kept),
        "model": sentencepiece.SentencePieceProcessor(
            model_file=os.path.join(HERE, "spaces.model"))}

# ---- the texts ---------------------------------------------------------------------------------

UNITS = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2028", "\x0b", "\x85",
         "a", "the", "light", "lighthouse", "Hello", "WORLD", "ß", "é", "e\u0301", "ж", "中文", "日本",
         "한국", "ا", "ไทย", "क्ष", "ſ", "ǅ", "ª", "ⅷ", "𝔘", "𞤀", "1", "12", "123", "1234", "007", "½",
         "²", "٣", "५", "Ⅻ", "𝟘", "'s", "'S", "'ll", "'LL", "'Re", "'ve", "'d", "'", "''", "'x", "'ſ",
         ".", ",", "!", "?!", "...", "()", "()\n", "{}", "=>", "_", "-", "—", "€", "$", "%", "\\",
         "/", "\"", "🚀", "👩‍👩‍👧", "🇫🇷", "\ufe0f", "\u200d", "\u0301", "\x00", "\x01", "\x7f", "\ufeff",
         "\ufffd", "\U0010ffff", "\u2581", "\u0100", "Ġ", "Ċ"]

def texts(marks, seed):
    random.seed(seed)
    out = ["", " ", "  ", "\n", " \n", "\n ", "a", " a", "a ", "  a", "a  b", "a \n b", "a\n\n\nb",
           "a\r\n \r\nb", "don't", "DON'T", "I'LL 've", "12345678", " 123 4567 ", "x1y22z333",
           "3.14159e-10", "a1b2", "1,000,000", " ' s", "a'sb", "it's 'so' she'd", "'ſ a'ſ",
           "lighthouse lighthouse", "x\u00a0y", "\u3000x", "a\x85b", "\t\tif x:\n\t\t\treturn",
           "()\n\n()", "!!!\n\n\n???\r\n", " \t \n \t x", "𝟘𝟙𝟚𝟛𝟜", "٣٤٥٦ ५६७८", "½²³", "e\u0301\u0301",
           "\x01\x01", "!\x01!", "()\x01\n", "\u2581", "\u2581a", " \u2581 a", "a\u2581\u2581b", "<0x41><0x0A>", "<unk>", "zzzzzzzzzz",
           "a" * 60, " " * 40, "\n" * 20, "ab" * 30, "1" * 25]
    out += [l.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
            for l in SENTENCES.strip().split("\n")]
    for m in marks:
        out += [m, m + "a", "a" + m, m + " a", "a " + m + " b", m + m, m + "\n" + m, " " + m + " ",
                m[:-1], m[1:], m + "  a", m + "\u2581a", "a" + m + "\u2581"]
    for n in range(160):
        pool = UNITS + (marks * 4 if n % 4 == 0 else [])
        out.append("".join(random.choice(pool) for _ in range(random.randint(2, 9))))
    return list(dict.fromkeys(out))

# Bytes that are no UTF-8; each of them counts as U+FFFD.
BROKEN = [b"\xff", b"a\xff b", b"\xe2\x96", b"a\xc3", b"\xc3 1", b"\xf0\x9f\x9a x", b"\xed\xa0\x80",
          b"\xc0\xaf", b"12\x80\x8034", b"'\xffs", b"\xf4\x90\x80\x80"]

def repaired(data):
    out, at = "", 0
    while at < len(data):
        for n in (1, 2, 3, 4):
            try: out += data[at:at + n].decode("utf-8"); at += n; break
            except UnicodeDecodeError: pass
        else: out += "\ufffd"; at += 1
    return out

def escaped(data):
    return "".join(chr(b) if 33 <= b < 127 and chr(b) not in "%=~" else "%%%02X" % b for b in data)

def reader(form):
    """How a tokenizer.json, or else a SentencePiece model, encodes and decodes."""
    if not isinstance(form, dict): return form.encode, form.decode
    t = Tokenizer.from_str(json.dumps(form))
    return (lambda text: t.encode(text, add_special_tokens=False).ids,
            lambda ids: t.decode(ids, skip_special_tokens=True))

def write_cases(name, forms, marks, seed):
    tokenizers = {n: reader(j) for n, j in forms.items()}
    cases = [t.encode("utf-8") for t in texts(marks, seed)] + BROKEN
    with open(os.path.join(HERE, name), "w", newline="\n") as f:
        f.write("\t".join(forms) + "\n")
        for data in cases:
            text, fields, before = repaired(data), [escaped(data)], ("", "")
            for encode, decode in tokenizers.values():
                ids = encode(text)
                back = decode(ids)
                now = (",".join(map(str, ids)), "~" if back.encode() == data else escaped(back.encode()))
                fields += ["=" if a == b else a for a, b in zip(now, before)]
                before = now
            f.write("\t".join(fields) + "\n")

# ---- conversations -----------------------------------------------------------------------------

LOOP = "{% for m in messages %}"
GEMMA = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise('no system') }}{% endif %}"
         + LOOP + "{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
         "{% set role = m['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + m['content'] | "
         "trim + '<end_of_turn>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")
GEMMA3 = ("{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = "
          "messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}{%- else -%}"
          "{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}"
          "{%- for m in loop_messages -%}{%- if m['role'] == 'assistant' -%}{%- set role = 'model' "
          "-%}{%- else -%}{%- set role = m['role'] -%}{%- endif -%}{{ '<start_of_turn>' + role + "
          "'\n' + (first_user_prefix if loop.first else '') }}{{ m['content'] | trim }}"
          "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}"
          "{{'<start_of_turn>model\n'}}{%- endif -%}")
CHATML_LOOP = (LOOP + "@{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}"
               "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML = CHATML_LOOP.replace("@", "")
SMOLLM = CHATML_LOOP.replace("@", "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system"
                        "\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
                        "<|im_end|>\n' }}{% endif %}")
LLAMA3 = (LOOP + "{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
          "m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + "
          "content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
LLAMA31 = ("{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system_message = "
           "messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}"
           "{%- set system_message = '' %}{%- endif %}"
           "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
           "{{- 'Cutting Knowledge Date: December 2023\n' }}{{- 'Today Date: 26 Jul 2024\n\n' }}"
           "{{- system_message }}{{- '<|eot_id|>' }}" + LOOP + "{{- '<|start_header_id|>' + m['role'] "
           "+ '<|end_header_id|>\n\n'+ m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
           "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
           "{%- endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
          "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages "
          "%}{% set system_message = false %}{% endif %}{% for m in loop_messages %}"
          "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + "
          "system_message + '\n<</SYS>>\n\n' + m['content'] %}{% else %}{% set content = "
          "m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + "
          "content.strip() + ' [/INST]' }}{% else %}{{ ' '  + content.strip() + ' ' + eos_token }}"
          "{% endif %}{% endfor %}")
MISTRAL = ("{{ bos_token }}" + LOOP + "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + "
           "' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token@}}{% else %}"
           "{{ raise('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}")
NEW_MISTRAL = ("{%%- if messages[0]['role'] == 'system' %%}{%%- set system_message = "
               "messages[0]['content'] %%}{%%- set loop_messages = messages[1:] %%}{%%- else %%}"
               "{%%- set loop_messages = messages %%}{%%- endif %%}{{- bos_token }}"
               "{%%- for m in loop_messages %%}{%%- if m['role'] == 'user' %%}{%%- if loop.%s and "
               "system_message is defined %%}{{- \"%s\" + system_message + \"\n\n\" + m['content'] "
               "+ \"%s\" }}{%%- else %%}{{- \"%s\" + m['content'] + \"%s\" }}{%%- endif %%}"
               "{%%- else %%}{{- \" \" + m['content'] + eos_token }}{%%- endif %%}{%%- endfor %%}")
SPACED = NEW_MISTRAL % ("first", " [INST] ", " [/INST]", " [INST] ", " [/INST]")
V3 = NEW_MISTRAL % ("last", "[INST] ", "[/INST]", "[INST] ", "[/INST]")

CHATS = [("words", "gpt2", "gemma", GEMMA, 0), ("words", "gpt2", "gemma", GEMMA3, 1),
         ("words", "smollm", "chatml", CHATML, 1), ("words", "smollm", "chatml", SMOLLM, 1),
         ("words", "llama3", "llama-3", LLAMA3, 1), ("words", "llama3", "llama-3.1", LLAMA31, 1),
         ("spaces", "plain", "llama-2", LLAMA2, 1),
         ("spaces", "plain", "mistral-v0.1", MISTRAL.replace("@", " + ' '"), 0),
         ("spaces", "plain", "mistral-v0.2", MISTRAL.replace("@", ""), 0),
         ("spaces", "plain", "mistral-spaced", SPACED, 1), ("spaces", "first", "mistral-v0.3", V3, 1),
         ("spaces", "prepend", "mistral-v0.3", V3, 1)]

def write_chats():
    forms = dict(forms_of_words(), **forms_of_spaces())
    plain = form(forms["prepend"])          # [INST] is no token, as with Llama 2
    for token in plain["added_tokens"]:
        token["content"] = token["content"].replace("INST", "NONE")
    forms["plain"] = plain
    def fail(text): raise jinja2.TemplateError(text)
    with open(os.path.join(HERE, "chat.tsv"), "w", newline="\n") as f:
        for file, name, chat, template, has_system in CHATS:
            bos, eos = (("<s>", "</s>") if file == "spaces" else
                        ("<|begin_of_text|>", "<|end_of_text|>"))
            encode, _ = reader(forms[name])
            run = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
            def ids(messages, more):
                return ",".join(map(str, encode(run.render(
                    messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=more,
                    **{"raise": fail}))))
            for system in ["-"] + (["You keep the lighthouse.\nBe calm."] if has_system else []):
                says = ["What's that? 1789", "The light.", "And\nthe sea?"]
                talk = [] if system == "-" else [{"role": "system", "content": system}]
                talk += [{"role": r, "content": c}
                         for r, c in zip(("user", "assistant", "user"), says)]
                begin = ids(talk[:-2], True)
                if chat == "mistral-v0.3":  # it gives the system prompt to the last turn
                    talk = talk[-3:]
                f.write("\t".join([file, name, chat, escaped(template.encode()),
                                   system if system == "-" else escaped(system.encode())]
                                  + [escaped(s.encode()) for s in says]
                                  + [begin, ids(talk, True)]) + "\n")

def main():
    os.makedirs(HERE, exist_ok=True)
    make_words()
    make_spaces()
    write_cases("words.tsv", forms_of_words(), ["<|begin_of_text|>", "<|eot_id|>", "tool call"], 2)
    write_cases("spaces.tsv", forms_of_spaces(), ["<s>", "[INST]", "call it"], 3)
    write_chats()

if __name__ == "__main__":
    main()
