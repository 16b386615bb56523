-- main.lua - three characters at a fire, in LÖVE: one model, three personas, a budget in a frame.
--
--     make love           builds build/love and runs it
--
-- Left arrow or backspace, held: time goes back, for all of them, exactly. Space: a pause. N: what
-- comes from here on is another future. S: a picture. Escape: the end.
--
-- What they say is in talk.lua, what you see in draw.lua. With --test --tokens=N --picture=FILE
-- script.lua plays.

local griffin = require "griffin"
local talk = require "talk"
local draw = require "draw"

local BUDGET = 4        -- milliseconds of a frame in which they may think
local PACE = 0.055      -- seconds from token to token: nobody reads faster
local PAUSE = 0.9       -- seconds between two speeches

local view = { time = 0, speeches = {}, speaker = 0, times = {}, budget = BUDGET, words = {} }
local files = {}        -- bytes that the library reads where they are
local due, paused, sizes = 0, false, ""
local counted = { frames = 0, thinking = 0, over = 0, most = 0 }
local script            -- of a test

local function read(name)
  files[name] = assert(love.filesystem.newFileData(name))
  return files[name]:getFFIPointer(), files[name]:getSize()
end

local function number_of(text, key) return tonumber(text:match("%-%-" .. key .. "=(%d+)") or "") end

function love.load(arguments)
  local words = table.concat(arguments, " ")
  if words:find "--test" then           -- where nobody would see the screen of an error
    love.errorhandler = function(message) print(debug.traceback(message)) os.exit(1) end
  end
  griffin.load(love.filesystem.getSource() .. "/libgriffin.so",
               love.filesystem.read "griffin_api.h")
  local personas = {}
  for i, name in ipairs(talk.names) do
    personas[i] = love.filesystem.read(name .. ".persona")
  end
  local weights, size = read "storyteller.gguf"
  talk.open(weights, size, personas, number_of(words, "seed") or os.time())
  sizes = ("%.1f MB of weights, personas of %d bytes"):format(size / 1e6, #personas[1])
  for i = 1, 180 do view.times[i] = 0 end
  draw.load()
  if words:find "--test" then
    script = require "script" (number_of(words, "tokens"),
                                words:match "%-%-picture=(%S+)")
  end
end

-- ---- a frame ------------------------------------------------------------------------------------

-- Units of work while there is time; a token begins when it is due.
local function think(now)
  local start = love.timer.getTime()
  while (love.timer.getTime() - start) * 1000 < BUDGET do
    if not talk.work() then
      if paused or now < due then break end
      talk.go_on()
      due = now + (talk.is_pause() and PAUSE or PACE)
    end
  end
  return (love.timer.getTime() - start) * 1000
end

local function count_frame(ms)
  table.remove(view.times, 1)
  view.times[#view.times + 1] = ms
  counted.frames = counted.frames + 1
  if ms < 0.05 then return end
  counted.thinking = counted.thinking + 1
  counted.most = math.max(counted.most, ms)
  if ms > BUDGET + 1 then counted.over = counted.over + 1 end
end

local function describe()
  local busy, sum = 0, 0
  for _, ms in ipairs(view.times) do
    if ms > 0.05 then busy, sum = busy + 1, sum + ms end
  end
  view.words[1] = ("%.1f ms of thinking in a frame of 16.7 ms; the line is the budget of %d ms")
    :format(sum / math.max(busy, 1), BUDGET)
  view.words[2] = ("three minds, one pass for all: %d tokens read; %s"):format(talk.tokens(), sizes)
  view.words[3] = "hold Left: time goes back for all     N: another future     Space: pause"
end

function love.update(dt)
  view.time = view.time + math.min(dt, 0.05)
  if script then
    script.step(counted)
    due = talk.is_busy() and math.huge or 0     -- a token begins in a frame of its own
  end
  view.is_back = script and script.is_back or love.keyboard.isDown("left", "backspace")
  if view.is_back then
    talk.back()
    due = view.time + 0.4
    count_frame(0)
  else
    count_frame(think(view.time))
  end
  view.speaker = talk.turn() > 0 and not talk.is_pause() and talk.speaker() or 0
  for i = 1, 3 do view.speeches[i] = talk.speech(i):gsub("^%s+", "") end
  describe()
end

function love.draw()
  if script and counted.frames % 8 > 0 and not script.wants_picture() then return end
  draw.scene(view)
  if script and script.wants_picture() then
    love.graphics.captureScreenshot(script.keep_picture)
  end
end

function love.keypressed(key)
  if key == "escape" then love.event.quit() end
  if key == "space" then paused = not paused end
  if key == "n" then talk.other_future() end
  if key == "s" then love.graphics.captureScreenshot(os.time() .. ".png") end
end

function love.quit()
  if script then script.close() end
end
