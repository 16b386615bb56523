-- draw.lua - the scene: night, a fire, three who sit around it, and what they say. Circles,
-- polygons and meshes only.

local graphics = love.graphics
local draw = {}

local W, H = 1120, 640
local FIRE_X, FIRE_Y = 560, 486
local GROUND = 452

local INK, PAPER = { 0.16, 0.14, 0.12 }, { 0.992, 0.972, 0.925 }
local seats = {
  { x = 268, y = 500, mouth_x = 282, mouth_y = 366, bubble_x = 238, color = { 0.86, 0.34, 0.26 },
    name = "THE PIRATE" },
  { x = 560, y = 452, mouth_x = 560, mouth_y = 346, bubble_x = 560, color = { 0.50, 0.62, 0.78 },
    name = "THE WOLF" },
  { x = 856, y = 500, mouth_x = 842, mouth_y = 368, bubble_x = 884, color = { 0.36, 0.66, 0.86 },
    name = "THE GIRL" },
}
local fonts = {}

-- ---- helpers ------------------------------------------------------------------------------------

local function color(r, g, b, a) graphics.setColor(r / 255, g / 255, b / 255, a or 1) end

local function ellipse(x, y, rx, ry, angle)
  graphics.push()
  graphics.translate(x, y)
  graphics.rotate(angle or 0)
  graphics.ellipse("fill", 0, 0, rx, ry or rx, 48)
  graphics.pop()
end

-- A closed curve through points: Catmull and Rom.
local function blob(points, dx, dy)
  local n, list = #points / 2, {}
  local function at(i, k) return points[((i - 1) % n) * 2 + k] end
  for i = 1, n do
    for s = 0, 7 do
      local t = s / 8
      for k = 1, 2 do
        local a, b, c, d = at(i - 1, k), at(i, k), at(i + 1, k), at(i + 2, k)
        list[#list + 1] = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t
                                 + (3 * b - a - 3 * c + d) * t * t * t)
                          + (k == 1 and (dx or 0) or (dy or 0))
      end
    end
  end
  for _, triangle in ipairs(love.math.triangulate(list)) do graphics.polygon("fill", triangle) end
end

local function glow_mesh()
  local vertices = { { 0, 0, 0, 0, 1, 1, 1, 1 } }
  for i = 0, 48 do
    local a = i / 48 * 2 * math.pi
    vertices[#vertices + 1] = { math.cos(a), math.sin(a), 0, 0, 1, 1, 1, 0 }
  end
  return graphics.newMesh(vertices, "fan", "static")
end

local glow, sky, stars, ridges, pines, ground

local function glow_at(x, y, rx, ry) graphics.draw(glow, x, y, 0, rx, ry or rx) end

-- ---- what does not move -------------------------------------------------------------------------

local function make_sky()
  local rows = { { 0, 10, 13, 34 }, { 0.45, 23, 30, 66 }, { 0.78, 54, 48, 92 },
                 { 1, 108, 72, 100 } }
  local vertices = {}
  for _, row in ipairs(rows) do
    for x = 0, W, W do
      vertices[#vertices + 1] = { x, row[1] * GROUND, 0, 0, row[2] / 255, row[3] / 255,
                                  row[4] / 255, 1 }
    end
  end
  return graphics.newMesh(vertices, "strip", "static")
end

local function make_ridge(random, base, height, step)
  local list, y = { 0, H }, base
  for x = 0, W + step, step do
    y = base - height * (0.5 + 0.32 * math.sin(x / 131 + base) + 0.2 * math.sin(x / 57 + height))
      - random:random() * height * 0.16
    list[#list + 1], list[#list + 2] = x, y
  end
  list[#list + 1], list[#list + 2] = W + step, H
  return love.math.triangulate(list)
end

function draw.load()
  local random = love.math.newRandomGenerator(11)
  fonts.speech, fonts.name = graphics.newFont(16), graphics.newFont(11)
  fonts.title, fonts.small = graphics.newFont(19), graphics.newFont(13)
  fonts.speech:setLineHeight(1.22)
  glow, sky = glow_mesh(), make_sky()
  stars, pines = {}, {}
  for i = 1, 190 do
    stars[i] = { random:random() * W, random:random() ^ 1.4 * (GROUND - 60),
                 0.4 + random:random() ^ 3 * 1.5, random:random() * 6.28,
                 0.6 + random:random() * 2 }
  end
  ridges = { make_ridge(random, 404, 120, 28), make_ridge(random, 436, 70, 20) }
  for i = 1, 46 do
    local side = i % 2 == 0 and 1 or -1
    local x = W / 2 + side * (250 + random:random() * 340)
    pines[i] = { x, 458 + random:random() * 12, 60 + random:random() * 80 }
  end
  table.sort(pines, function(a, b) return a[2] < b[2] end)
  ground = love.math.triangulate { 0, 466, 160, 452, 360, 446, 560, 443, 760, 446, 960, 452, W, 466,
                                   W, H, 0, H }
end

local function night(time)
  graphics.setColor(1, 1, 1)
  graphics.draw(sky)
  for _, s in ipairs(stars) do
    graphics.setColor(1, 0.97, 0.9, 0.55 + 0.4 * math.sin(time * s[5] + s[4]))
    graphics.circle("fill", s[1], s[2], s[3])
  end
  graphics.setBlendMode "add"
  color(150, 160, 210, 0.20)
  glow_at(968, 92, 190)
  graphics.setBlendMode "alpha"
  color(246, 240, 220)
  graphics.circle("fill", 968, 92, 34, 64)
  color(226, 218, 196, 0.8)
  for _, c in ipairs { { 957, 84, 7 }, { 976, 104, 5 }, { 981, 82, 4 }, { 960, 106, 3 } } do
    graphics.circle("fill", c[1], c[2], c[3], 24)
  end
  color(44, 42, 82)
  for _, t in ipairs(ridges[1]) do graphics.polygon("fill", t) end
  color(30, 30, 60)
  for _, t in ipairs(ridges[2]) do graphics.polygon("fill", t) end
end

local function pine(x, y, height)
  local near = 1 - math.min(math.abs(x - FIRE_X) / 620, 1)
  color(14 + 26 * near, 20 + 14 * near, 34 + 6 * near)
  for i = 0, 3 do
    local top, half = y - height + i * height * 0.2, height * (0.13 + 0.065 * i)
    graphics.polygon("fill", x, top, x - half, top + height * 0.36, x + half, top + height * 0.36)
  end
end

local function clearing(flicker)
  for _, p in ipairs(pines) do pine(p[1], p[2], p[3]) end
  color(27, 26, 34)
  for _, t in ipairs(ground) do graphics.polygon("fill", t) end
  graphics.setBlendMode "add"
  color(255, 140, 50, 0.42 * flicker)
  glow_at(FIRE_X, FIRE_Y + 24, 480, 150)
  color(255, 190, 100, 0.25 * flicker)
  glow_at(FIRE_X, FIRE_Y + 16, 220, 70)
  graphics.setBlendMode "alpha"
end

-- ---- the fire -----------------------------------------------------------------------------------

local function flame(time, x, height, width, phase)
  local points = {}
  local function sway(t) return math.sin(time * 5.1 + phase + t * 3.4) * width * 0.32 * t end
  for i = 0, 6 do
    local t = i / 6
    local half = width * (1 - t) ^ 0.8 * (0.55 + 0.95 * math.sqrt(t)) * 0.72
    points[#points + 1] = { x + sway(t) - half, x + sway(t) + half, FIRE_Y + 12 - height * t }
  end
  for i = 1, 6 do
    local a, b = points[i], points[i + 1]
    graphics.polygon("fill", a[1], a[3], a[2], a[3], b[2], b[3], b[1], b[3])
  end
end

local function fire(time, flicker)
  for _, log in ipairs { { -38, 0.20, 92 }, { 38, -0.22, 92 }, { 2, 0.02, 74 } } do
    graphics.push()
    graphics.translate(FIRE_X + log[1] * 0.6, FIRE_Y + 16)
    graphics.rotate(log[2])
    color(66, 40, 26)
    graphics.rectangle("fill", -log[3] / 2, -9, log[3], 18, 9)
    color(104, 64, 40)
    graphics.rectangle("fill", -log[3] / 2 + 6, -7, log[3] - 12, 5, 2.5)
    color(150, 100, 62)
    ellipse(-log[3] / 2 + 4, 0, 5, 8)
    graphics.pop()
  end
  graphics.setBlendMode "add"
  color(255, 120, 40, 0.34 * flicker)
  glow_at(FIRE_X, FIRE_Y - 34, 170, 150)
  for i = -2, 2 do
    local height = (86 - 18 * math.abs(i)) * (0.9 + 0.16 * math.sin(time * 7 + i * 2.1))
    color(230, 84, 20, 0.60)
    flame(time, FIRE_X + i * 15, height * 1.16, 17, i * 1.7)
  end
  for i = -1, 1 do
    color(255, 170, 40, 0.62)
    flame(time, FIRE_X + i * 13, (66 - 14 * math.abs(i)) * (0.92 + 0.12 * math.sin(time * 9 + i)),
          13, i * 2.3 + 1)
  end
  color(255, 236, 170, 0.72)
  flame(time, FIRE_X, 36 * (0.95 + 0.1 * math.sin(time * 11)), 11, 0.4)
  for i = 1, 26 do
    local life = (time * (0.20 + 0.011 * (i % 7)) + i * 0.618) % 1
    local x = FIRE_X + math.sin(i * 12.9 + life * 5) * (10 + 46 * life)
    color(255, 190 - 90 * life, 80 - 60 * life, (1 - life) ^ 1.5)
    graphics.circle("fill", x, FIRE_Y - 20 - life * 210, 1.9 * (1 - 0.5 * life))
  end
  graphics.setBlendMode "alpha"
end

-- ---- who sits there -----------------------------------------------------------------------------
-- Around (0, 0) on the ground, turned to the right; `open` is how far the mouth is open, 0 to 1.

local function shadow() color(0, 0, 0, 0.35) ellipse(0, 4, 82, 13) end

local function pirate(open)
  shadow()
  color(58, 38, 30)                                     -- boots
  blob { -44, 4, -34, -18, 10, -20, 52, -14, 66, 0, 62, 6, 0, 8 }
  color(38, 44, 66)                                     -- trousers
  blob { -52, -6, -50, -34, -10, -44, 34, -34, 44, -14, 20, -6, -20, -2 }
  color(122, 30, 34)                                    -- coat
  blob { -54, -10, -60, -50, -50, -92, -18, -106, 16, -102, 36, -78, 34, -44, 18, -20, -20, -8 }
  color(150, 42, 40)
  blob { 2, -100, 24, -94, 36, -72, 32, -40, 20, -22, 10, -56 }
  color(232, 222, 200)                                  -- shirt, with stripes
  blob { 2, -100, 18, -98, 22, -76, 16, -56, 8, -70 }
  color(60, 76, 120)
  for i = 0, 3 do graphics.rectangle("fill", 5, -93 + i * 10, 15 - i * 2, 3.4, 1.5) end
  color(212, 170, 70)                                   -- buttons and belt
  for i = 0, 2 do ellipse(-2 + i * 1.5, -76 + i * 16, 3) end
  color(44, 30, 24)
  blob { -56, -34, -20, -28, 22, -32, 30, -40, 30, -32, 20, -24, -20, -18, -54, -24 }
  color(222, 180, 80)
  graphics.rectangle("fill", 0, -35, 14, 12, 2)
  color(132, 34, 37)                                    -- an arm with a hook
  blob { -40, -86, -20, -92, 0, -66, 26, -50, 34, -46, 28, -34, 8, -40, -22, -58 }
  color(92, 62, 44)
  ellipse(31, -41, 8, 9)
  color(206, 210, 220)
  graphics.setLineWidth(4)
  graphics.arc("line", "open", 46, -48, 9, -2.6, 1.7, 24)
  graphics.line(35, -42, 39, -44)
  color(206, 150, 116)                                  -- head
  blob { -18, -142, -16, -120, -4, -108, 14, -106, 26, -116, 29, -134, 20, -152, -6, -154 }
  color(196, 136, 102)
  blob { 24, -138, 36, -130, 34, -123, 25, -122 }       -- nose
  color(74, 46, 32)                                     -- beard
  blob { -18, -132, -19, -112, -8, -96, 12, -92, 26, -100, 30, -116, 20, -119, 6, -118, -6, -124,
         -12, -134 }
  color(92, 24, 22)
  ellipse(20, -111, 8, 1.5 + 5 * open)
  color(30, 26, 30)                                     -- patch and eye
  graphics.setLineWidth(2.5)
  graphics.line(-18, -142, 26, -128)
  ellipse(18, -133, 6.5, 6)
  color(252, 250, 240)
  ellipse(4, -134, 4.6, 4)
  color(30, 26, 24)
  ellipse(5.5, -134, 2.2)
  color(26, 24, 32)                                     -- hat
  blob { -42, -150, -30, -168, -14, -186, 8, -190, 28, -180, 42, -162, 48, -146, 24, -150, 0, -152,
         -24, -148 }
  color(214, 172, 76)
  graphics.setLineWidth(3)
  graphics.line(-40, -149, -22, -147, 0, -150, 24, -149, 46, -145)
  color(238, 232, 216)                                  -- skull
  ellipse(6, -170, 7.5, 7)
  graphics.rectangle("fill", 2, -167, 8, 6, 2)
  color(26, 24, 32)
  ellipse(3.2, -171, 1.8)
  ellipse(8.8, -171, 1.8)
end

local function wolf(open, time)
  color(0, 0, 0, 0.35)
  ellipse(0, 2, 66, 10)
  local wag = math.sin(time * 2.2) * 5
  color(86, 94, 112)                                    -- tail
  blob { 30, -10, 52, -20 + wag, 72, -44 + wag, 80, -64 + wag, 86, -44 + wag, 78, -16 + wag, 56, 0 }
  color(206, 210, 220)
  blob { 72, -46 + wag, 80, -66 + wag, 86, -46 + wag, 80, -34 + wag }
  color(104, 112, 132)                                  -- body
  blob { -46, 0, -54, -30, -40, -64, -22, -88, 22, -88, 40, -64, 54, -30, 46, 0, 0, 4 }
  color(124, 132, 152)
  blob { -48, 2, -54, -18, -40, -36, -26, -20, -24, 2 }
  blob { 48, 2, 54, -18, 40, -36, 26, -20, 24, 2 }
  color(214, 216, 224)                                  -- chest
  blob { -20, -84, 20, -84, 25, -58, 12, -32, 0, -24, -12, -32, -25, -58 }
  color(132, 140, 160)                                  -- legs
  blob { -25, -42, -10, -44, -7, -10, -10, 4, -26, 4, -28, -10 }
  blob { 25, -42, 10, -44, 7, -10, 10, 4, 26, 4, 28, -10 }
  color(226, 228, 234)
  ellipse(-18, 1, 11, 6)
  ellipse(18, 1, 11, 6)
  for _, side in ipairs { -1, 1 } do                    -- ears
    color(86, 94, 112)
    graphics.polygon("fill", side * 12, -134, side * 30, -164, side * 37, -122)
    color(176, 138, 146)
    graphics.polygon("fill", side * 19, -136, side * 29, -154, side * 32, -129)
  end
  color(112, 120, 140)                                  -- head
  blob { -37, -122, -30, -140, 0, -146, 30, -140, 37, -122, 44, -104, 24, -92, 0, -86, -24, -92,
         -44, -104 }
  color(224, 226, 232)
  blob { -30, -108, -12, -116, 0, -106, 12, -116, 30, -108, 22, -94, 0, -86, -22, -94 }
  color(96, 40, 44)                                     -- mouth
  ellipse(0, -89 + 2 * open, 9, 1 + 6 * open)
  color(236, 238, 242)
  blob { -14, -110, 0, -114, 14, -110, 12, -96, 0, -91, -12, -96 }
  color(34, 32, 40)
  blob { -7, -110, 0, -113, 7, -110, 3, -103, 0, -101, -3, -103 }
  for _, side in ipairs { -1, 1 } do                    -- eyes, which shine
    color(40, 38, 48)
    ellipse(side * 17, -120, 6.4, 4.6, side * 0.25)
    color(255, 206, 92)
    ellipse(side * 17, -120, 4.6, 3.6, side * 0.25)
    color(30, 26, 24)
    ellipse(side * 16.4, -120, 1.7, 3)
  end
end

local function girl(open)
  shadow()
  color(230, 190, 96)                                   -- hair behind
  blob { 30, -146, 40, -118, 42, -84, 30, -60, 8, -64, -10, -84, -22, -116, -14, -142, 8, -154 }
  color(240, 240, 244)                                  -- stockings, shoes
  blob { -30, -14, -12, -18, -34, 2, -56, 4, -60, -2 }
  color(32, 30, 40)
  ellipse(-60, 0, 12, 7, 0.15)
  ellipse(-48, 4, 12, 6, 0.1)
  color(72, 134, 190)                                   -- dress
  blob { -26, -96, -8, -104, 14, -102, 26, -84, 40, -46, 62, -12, 54, 4, 0, 8, -44, 4, -48, -10,
         -34, -46 }
  color(94, 158, 212)
  blob { -30, -42, -12, -50, -18, -14, -28, 4, -44, 4, -46, -10 }
  color(250, 248, 244)                                  -- apron
  blob { -24, -84, -4, -90, 8, -66, 14, -34, 20, 2, -10, 5, -40, 0, -34, -36 }
  color(226, 226, 232)
  graphics.setLineWidth(2)
  graphics.line(-22, -60, 8, -62)
  color(72, 134, 190)                                   -- sleeve, arm, cup
  ellipse(6, -86, 15, 13, 0.4)
  color(246, 212, 186)
  blob { 2, -80, 14, -78, 4, -58, -20, -46, -28, -52, -8, -62 }
  color(250, 248, 244)
  blob { -40, -62, -22, -62, -25, -48, -37, -48 }
  color(210, 90, 110)
  graphics.rectangle("fill", -39, -58, 16, 3)
  color(246, 212, 186)                                  -- head
  blob { 18, -142, 18, -118, 6, -108, -10, -106, -22, -114, -26, -130, -20, -148, 2, -154 }
  color(240, 196, 168)
  blob { -24, -130, -31, -123, -28, -119, -22, -120 }
  color(238, 150, 140, 0.55)
  ellipse(-9, -119, 5.5, 3.6)
  color(150, 50, 56)
  ellipse(-17, -113, 4.6, 0.9 + 3.6 * open)
  for _, x in ipairs { -19, -4 } do
    color(255, 255, 255)
    ellipse(x, -130, 4.4, 5)
    color(42, 88, 150)
    ellipse(x - 1, -129.6, 2.8, 3.6)
    color(20, 22, 30)
    ellipse(x - 1.2, -129.4, 1.5, 2)
  end
  color(246, 208, 114)                                  -- hair, band and bow
  blob { -26, -138, -22, -154, -4, -166, 18, -162, 32, -146, 36, -122, 28, -104, 22, -126, 12, -144,
         -8, -146 }
  color(30, 30, 44)
  graphics.setLineWidth(5)
  graphics.line(-12, -163, 2, -150, 24, -140)
  blob { -14, -164, -30, -176, -30, -160 }
  blob { -12, -166, 2, -180, 4, -166 }
  ellipse(-13, -166, 5)
end

local people = { pirate, wolf, girl }

local function person(i, time, speaks)
  local seat = seats[i]
  local open = speaks and 0.5 + 0.5 * math.sin(time * 17 + i) * math.sin(time * 7.3) or 0
  graphics.push()
  graphics.translate(seat.x, seat.y)
  graphics.scale(1, 1 + 0.008 * math.sin(time * 2 + i))
  people[i](open, time)
  graphics.pop()
end

-- ---- what they say ------------------------------------------------------------------------------

local WRAP = 290                            -- most pixels of a line, measured and drawn alike

local function bubble(i, words, speaks, time)
  local seat, font = seats[i], fonts.speech
  if words == "" and not speaks then return end
  local width, lines = font:getWrap(words == "" and "..." or words, WRAP)
  local dots = words == ""
  width = math.max(width, 96) + 36
  local height = #lines * font:getHeight() * font:getLineHeight() + 42
  local bottom = seat.mouth_y - (i == 2 and 72 or 68)
  local x = math.max(16, math.min(W - width - 16, seat.bubble_x - width / 2))
  local y = bottom - height
  local dim = speaks and 1 or 0.82
  color(0, 0, 0, 0.28)
  graphics.rectangle("fill", x + 3, y + 6, width, height, 18)
  graphics.setColor(PAPER[1] * dim, PAPER[2] * dim, PAPER[3] * dim)
  graphics.rectangle("fill", x, y, width, height, 18)
  local tail = math.max(x + 30, math.min(x + width - 30, seat.mouth_x))
  graphics.polygon("fill", tail - 13, bottom - 1, tail + 13, bottom - 1,
                   tail + (seat.mouth_x - tail) * 0.5, bottom + 20)
  local ink = 0.86 * dim
  graphics.setColor(seat.color[1] * ink, seat.color[2] * ink, seat.color[3] * ink)
  graphics.setFont(fonts.name)
  graphics.print(seat.name, x + 18, y + 12)
  if speaks then
    graphics.setLineWidth(2.5)
    graphics.rectangle("line", x + 1, y + 1, width - 2, height - 2, 17)
  end
  graphics.setColor(INK[1], INK[2], INK[3])
  graphics.setFont(font)
  if dots then
    for k = 0, 2 do
      local alpha = 0.3 + 0.5 * math.max(0, math.sin(time * 5 - k * 0.8))
      graphics.setColor(INK[1], INK[2], INK[3], alpha)
      graphics.circle("fill", x + 26 + k * 14, y + 42, 4)
    end
  else
    graphics.printf(words, x + 18, y + 28, WRAP)
  end
end

-- ---- the rest -----------------------------------------------------------------------------------

local function frames(list, budget)
  local x, y, width, height = 24, 590, 260, 34
  color(0, 0, 0, 0.35)
  graphics.rectangle("fill", x - 8, y - 8, width + 16, height + 16, 8)
  for i, ms in ipairs(list) do
    local bar = math.min(ms / (1000 / 60), 1) * height
    if ms > budget then color(240, 120, 90) else color(250, 190, 96) end
    local left = x + (i - 1) * width / #list
    graphics.rectangle("fill", left, y + height - bar, width / #list - 0.6, bar)
  end
  local line = y + height - budget / (1000 / 60) * height
  color(255, 255, 255, 0.5)
  graphics.setLineWidth(1)
  graphics.line(x, line, x + width, line)
  graphics.line(x, y, x + width, y)
end

local function turning_back(time)
  graphics.setBlendMode "add"
  color(70, 110, 200, 0.20)
  graphics.rectangle("fill", 0, 0, W, H)
  graphics.setBlendMode "alpha"
  color(220, 232, 255, 0.75 + 0.25 * math.sin(time * 9))
  for k = 0, 1 do
    graphics.polygon("fill", 524 + k * 36, 44, 556 + k * 36, 24, 556 + k * 36, 64)
  end
end

-- view: time, speeches, speaker, is_back, times (ms in the last frames), budget, words (3 lines).
function draw.scene(view)
  local flicker = 0.92 + 0.08 * math.sin(view.time * 9.1) * math.sin(view.time * 5.3)
  night(view.time)
  clearing(flicker)
  person(2, view.time, view.speaker == 2)
  fire(view.time, flicker)
  person(1, view.time, view.speaker == 1)
  person(3, view.time, view.speaker == 3)
  graphics.setBlendMode "add"
  color(255, 130, 50, 0.10 * flicker)
  glow_at(FIRE_X, FIRE_Y - 40, 520, 330)
  graphics.setBlendMode "alpha"
  for i = 1, 3 do if i ~= view.speaker then bubble(i, view.speeches[i], false, view.time) end end
  if view.speaker > 0 then bubble(view.speaker, view.speeches[view.speaker], true, view.time) end
  frames(view.times, view.budget)
  graphics.setFont(fonts.small)
  for i, words in ipairs(view.words) do
    color(226, 220, 210, i == 1 and 0.95 or 0.65)
    graphics.printf(words, 316, 566 + 20 * i - 4, 780, "left")
  end
  if view.is_back then turning_back(view.time) end
end

return draw
