-- griffin.lua - griffin.h for LuaJIT: the library's functions as they are, and what Lua wants.
--
--     local griffin = require "griffin"
--     local api = griffin.load(library, declarations)     a path, and the text of griffin_api.h
--     local model = griffin.open(bytes, size)             memory that outlives the model
--
-- The pointers of C are model.c and context.c. griffin.close makes them nil, and the library
-- refuses a null pointer with words; without it a model is closed when nothing refers to it any
-- more.
--
-- The declarations are those of griffin.h itself, which `make love` takes through the preprocessor.
-- Structs of the API begin as zeros, as ffi.new makes them.

local ffi = require "ffi"

local griffin = {}
local api

function griffin.load(library, declarations)
  ffi.cdef(declarations)
  api = ffi.load(library)
  griffin.api = api
  return api
end

-- The result, or an error of Lua with the library's words.
function griffin.check(result, what)
  if result < 0 then
    error(what .. ": " .. ffi.string(api.griffin_error_string(tonumber(result))), 2)
  end
  return tonumber(result)
end

-- `rewind`: tokens that a state can take back, or nil; see griffin_options.rewind.
function griffin.open(bytes, size, rewind)
  local model = ffi.new "griffin_model *[1]"
  local words = ffi.new("char[?]", 256)
  local options = ffi.new "griffin_options"
  options.rewind, options.error, options.error_size = rewind or 0, words, 256
  if api.griffin_open_memory(model, bytes, size, options) < 0 then error(ffi.string(words)) end
  return { c = ffi.gc(model[0], api.griffin_close), contexts = setmetatable({}, { __mode = "k" }) }
end

-- Closes a model, and what was made of it. A model does not keep its contexts alive.
function griffin.close(model)
  for context in pairs(model.contexts) do context.c = nil end
  if model.c then api.griffin_close(ffi.gc(model.c, nil)) end
  model.c, model.contexts = nil, {}
end

function griffin.info(model)
  if not model.c then error("the model is closed", 2) end
  return api.griffin_get_info(model.c)
end

-- Memory for a C object; it lives as long as the value that is returned.
function griffin.bytes(size)
  return ffi.new("uint8_t[?]", tonumber(size))
end

-- A context, with the memory that it lies in and the model that it is of.
function griffin.context(model, rows, states)
  local options = ffi.new("griffin_context_options", { rows = rows, states = states })
  local size = api.griffin_context_size(model.c, options)
  local memory, context = griffin.bytes(size), ffi.new "griffin_context *[1]"
  griffin.check(api.griffin_context_init(context, model.c, options, memory, size), "context")
  local made = { c = context[0], memory = memory, model = model }
  model.contexts[made] = true
  return made
end

-- The tokens of a text and how many they are. A text that continues has no bos of its own.
function griffin.encode(model, text, continues)
  local encoding = ffi.new("griffin_encoding", { continues = continues and 1 or 0 })
  local function encode(tokens, most)
    return griffin.check(api.griffin_encode(model.c, encoding, text, #text, tokens, most), text)
  end
  local most = encode(nil, 0)
  local tokens = ffi.new("int32_t[?]", most)
  return tokens, encode(tokens, most)
end

return griffin
