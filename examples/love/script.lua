-- script.lua - a test plays this instead of a person: some hundred tokens, then back in time, then
-- the same again, which must be the same bits. It prints a line whenever all that was heard has
-- been read: how many tokens, the fingerprint of the logits, who speaks and what was said so far.
-- tests/love_native.c prints the same without frames, slices, marks or a common pass. At the end it
-- says how frames kept the budget.

local griffin, talk = require "griffin", require "talk"

local BACK = 60                         -- moments

return function(limit, picture)
  local script = { is_back = false }
  local seen, printed, backs, differences, taken = {}, -1, 0, 0, not picture

  local function line()
    local who = talk.speaker()
    return ("%d %s %s|%s"):format(talk.tokens(), talk.fingerprint(), talk.names[who],
                                  talk.speech(who):gsub("\n", "/"))
  end

  -- At the very end. A call after close is an error with words.
  function script.close()
    griffin.close(talk.model())
    local _, encoding = pcall(griffin.encode, talk.model(), "The wolf")
    local _, asking = pcall(griffin.info, talk.model())
    local refused = griffin.api.griffin_advance(talk.context().c, 1)
    local _, thinking = pcall(griffin.check, refused, "advance")
    print(("after close: %s; %s; %s"):format(encoding, asking, thinking))
  end

  local function finish(counted)
    print(("went back %d moments: %d differences"):format(backs, differences))
    io.stderr:write(("%d frames, %d of them with thinking, %.2f %% of these over the budget, "
                     .. "at most %.2f ms\n"):format(counted.frames, counted.thinking,
                     100 * counted.over / math.max(counted.thinking, 1), counted.most))
    love.event.quit()
  end

  -- Before each frame.
  function script.step(counted)
    if script.is_back then
      backs = backs + 1
      script.is_back = backs < BACK
      return
    end
    if talk.tokens() == printed or talk.turn() == 0 or talk.is_busy() then return end
    printed = talk.tokens()
    local now = line()
    if not seen[printed] then print(now)
    elseif seen[printed] ~= now then differences = differences + 1 end
    seen[printed] = now
    if printed < limit then return end
    if backs == 0 then script.is_back = true
    elseif taken or printed > limit + 300 then finish(counted) end
  end

  -- When all have spoken, and the third does.
  function script.wants_picture()
    return not taken and talk.turn() >= 3 and talk.speaker() == 3 and #talk.speech(3) > 40
  end

  function script.keep_picture(image)
    taken = true
    local file = assert(io.open(picture, "wb"))
    file:write(image:encode("png"):getString())
    file:close()
  end

  return script
end
