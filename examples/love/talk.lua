-- talk.lua - three characters tell each other things. Nothing here knows of LÖVE or pictures.
--
-- Each of them is a state that begins as a persona. They hear the same words, and one pass over the
-- weights serves all three: it costs what a pass over three tokens costs. One of them speaks: what
-- it says is drawn from its own logits. At the end of a speech the next one goes on.
--
-- work() does a unit of that, a fraction of a millisecond. Before each token all that later tokens
-- change is kept as a moment: marks of the three states, samplers, logits, words. back() returns to
-- the moment before, exactly.

local ffi = require "ffi"
local bit = require "bit"
local griffin = require "griffin"

local MINDS = 3
local LONGEST = 48      -- tokens of a speech
local HEARD = 40        -- tokens that are heard at once, at most
local MOMENTS = 400     -- that can be taken back; or
local REWIND = 1024     -- so many tokens

local talk = { names = { "pirate", "wolf", "girl" }, moments = MOMENTS }

local api, model, context, vocab, eos
local states, samplers, spans, logits = {}, nil, nil, nil
local decoder, tokens
local waiting, units, now, marks, size

-- All that is not bytes of C, small enough to be copied for each moment.
local function copy(from)
  local to = {}
  for key, value in pairs(from) do to[key] = value end
  return to
end

local function new_moment()
  return { marks = griffin.bytes(MINDS * size), samplers = ffi.new("griffin_sampler[?]", MINDS),
           logits = ffi.new("float[?]", vocab), decoder = ffi.new "griffin_decoder" }
end

-- weights: the bytes of the model; personas: those of three saved states; all strings or pointers
-- that live on.
function talk.open(weights, weights_size, personas, seed)
  api = griffin.api
  model = griffin.open(weights, weights_size, REWIND)
  local info = griffin.info(model)
  vocab, eos, size = info.config.vocab, info.eos, tonumber(api.griffin_mark_size(model.c))
  context = griffin.context(model, MINDS * HEARD, MINDS)
  spans = ffi.new("griffin_span[?]", MINDS)
  samplers = ffi.new("griffin_sampler[?]", MINDS)
  logits = ffi.new("float[?]", vocab)
  decoder = ffi.new "griffin_decoder"
  tokens = ffi.new("int32_t[?]", HEARD)
  for i = 1, MINDS do
    local bytes = griffin.bytes(api.griffin_state_size(model.c))
    states[i] = { bytes = bytes, state = ffi.cast("griffin_state *", bytes) }
    griffin.check(api.griffin_load(model.c, states[i].state, nil, nil, personas[i], #personas[i]),
                  talk.names[i])
    samplers[i - 1].seed = seed + i
    samplers[i - 1].temperature, samplers[i - 1].top_p = 0.65, 0.85
    samplers[i - 1].repeat_penalty = 1.15
  end
  marks = {}
  for i = 1, MOMENTS do marks[i] = new_moment() end
  waiting, units = 0, 0
  now = { turn = 0, said = 0, tokens = 0, moment = 0, oldest = 0, left_over = "",
          speeches = { "", "", "" } }
end

function talk.speaker() return (now.turn - 1) % MINDS + 1 end
function talk.speech(i) return now.speeches[i] end
function talk.turn() return now.turn end
function talk.tokens() return now.tokens end
function talk.model() return model end
function talk.context() return context end

-- FNV-1a of the logits by words: the same number, hardly ever another bit.
function talk.fingerprint()
  local words, hash = ffi.cast("int32_t *", logits), 0x811c9dc5
  for i = 0, vocab - 1 do
    hash = bit.bxor(hash, words[i])
    hash = bit.tobit((hash % 2 ^ 32) * 0x193 + (bit.lshift(hash, 24) % 2 ^ 32))
  end
  return bit.tohex(hash)
end

-- ---- moments ------------------------------------------------------------------------------------

local function remember()
  now.moment = now.moment + 1
  now.oldest = math.max(now.oldest, now.moment - MOMENTS + 1)
  local m = marks[now.moment % MOMENTS + 1]
  for i = 1, MINDS do
    griffin.check(api.griffin_mark(model.c, states[i].state, m.marks + (i - 1) * size), "mark")
  end
  ffi.copy(m.samplers, samplers, ffi.sizeof(samplers))
  ffi.copy(m.logits, logits, ffi.sizeof(logits))
  ffi.copy(m.decoder, decoder, ffi.sizeof(decoder))
  m.now = copy(now)
  m.now.speeches = copy(now.speeches)
end

-- To the moment before; false: there is none, or it is too long ago. What is in flight is dropped,
-- and has changed nothing.
function talk.back()
  if now.moment <= 0 or now.moment < now.oldest then return false end
  local m, oldest = marks[now.moment % MOMENTS + 1], now.oldest
  for i = 1, MINDS do
    local mark = m.marks + (i - 1) * size
    if api.griffin_rewind(model.c, states[i].state, mark) < 0 then return false end
  end
  ffi.copy(samplers, m.samplers, ffi.sizeof(samplers))
  ffi.copy(logits, m.logits, ffi.sizeof(logits))
  ffi.copy(decoder, m.decoder, ffi.sizeof(decoder))
  now = copy(m.now)
  now.speeches = copy(m.now.speeches)
  now.moment, now.oldest = now.moment - 1, oldest
  waiting, units = 0, 0
  return true
end

-- From here on other words are drawn.
function talk.other_future()
  for i = 0, MINDS - 1 do samplers[i].seed = samplers[i].seed + 1000 end
end

-- ---- speaking -----------------------------------------------------------------------------------

-- Tokens that all three read; the logits are those of the one who speaks.
local function hear(list, count)
  for i = 1, MINDS do
    local span = spans[i - 1]
    span.state, span.tokens, span.count = states[i].state, list, count
    span.logits = i == talk.speaker() and logits or nil
  end
  waiting = count
  units = griffin.check(api.griffin_begin(context.c, spans, MINDS), "begin")
end

local function next_turn()
  remember()
  local closing = now.turn > 0 and now.left_over .. '"\n\n' or ""
  now.turn, now.said, now.left_over = now.turn + 1, 0, ""
  now.speeches[talk.speaker()] = ""
  local words = closing .. "The " .. talk.names[talk.speaker()] .. ' said, "'
  local list, count = griffin.encode(model, words, now.turn > 1)
  assert(count <= HEARD, "too much to hear at once")
  ffi.copy(tokens, list, 4 * count)
  decoder.started = 1
  hear(tokens, count)
end

-- A speech ends with a quote, a line or a text, or when it has been long enough; the token that
-- ends it is not read, but what stands before the quote in it is heard with the next words.
local function speak()
  remember()
  local token = api.griffin_sample(model.c, samplers[talk.speaker() - 1], logits)
  griffin.check(token, "sample")
  local text = ffi.new("char[?]", 512)
  local n = griffin.check(api.griffin_decode(model.c, decoder, token, text, 512), "text")
  local piece = ffi.string(text, n)
  local quote = piece:find('["\n]')
  local who = talk.speaker()
  now.said = now.said + 1
  if quote then
    now.left_over = piece:sub(1, quote - 1)
    now.speeches[who] = now.speeches[who] .. now.left_over
  end
  if quote or token == eos or now.said == LONGEST then
    now.said = LONGEST
    return
  end
  now.speeches[who] = now.speeches[who] .. piece
  tokens[0] = token
  hear(tokens, 1)
end

-- Whether a speech has ended, and nobody has begun another.
function talk.is_pause() return waiting == 0 and (now.turn == 0 or now.said == LONGEST) end

function talk.is_busy() return waiting > 0 end

-- Begins the next token; when nothing is waiting.
function talk.go_on()
  if talk.is_pause() then next_turn() else speak() end
end

-- A unit of what is waiting; false: nothing is.
function talk.work()
  if waiting == 0 then return false end
  units = griffin.check(api.griffin_advance(context.c, 1), "advance")
  if units == 0 then
    now.tokens = now.tokens + waiting
    waiting = 0
  end
  return true
end

return talk
