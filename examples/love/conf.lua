-- conf.lua - the window; see main.lua.

function love.conf(t)
  t.identity = "griffin-fireside"
  t.version = "11.4"
  t.window.title = "Three at a fire"
  t.window.width, t.window.height = 1120, 640
  t.window.msaa = 4
  t.modules.joystick, t.modules.physics, t.modules.video = false, false, false
  t.modules.audio, t.modules.sound, t.modules.touch, t.modules.thread = false, false, false, false
end
