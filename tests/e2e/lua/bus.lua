-- lathe.bus: a bus by itself, called with payloads of many sizes, scaled, and left by a worker.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

for _, name in ipairs { "direct", "sync", "async", "shm" } do
  local bus <close> = lathe.bus { name }
  t.truth(bus:ping(100) > 0, name .. " ping")
  for _, bytes in ipairs { 8, 64, 4096, 1000000, 64, 5000000 } do -- every sum is checked by the bus object itself
    t.truth(bus:send { bytes = bytes, calls = 3 } > 0, name .. " lent")
    t.truth(bus:send { bytes = bytes, calls = 3, copy = true } > 0, name .. " copied")
  end
  t.fails(function() bus:send { bytes = 1 << 40 } end, "bytes")
  t.fails(function() bus:send { byte = 8 } end, "bytes")
  t.fails(function() bus:ping(0) end, "calls")
  t.fails(function() bus:scale(0) end, "workers")
  if name == "shm" then
    bus:scale(2)
    t.truth(bus:ping(100) > 0, "two workers")
    for _ = 1, 3 do
      t.truth(bus:kill() > 1, "a pid")
      t.truth(bus:send { bytes = 4096, calls = 50 } > 0, "served again, by the one that is left or the next")
    end
  else
    t.equal(bus:kill(), nil, "no process to kill")
  end
  bus:close()
  t.fails(function() bus:ping(1) end, "closed")
end
t.fails(function() lathe.bus "drect" end, "direct")
t.fails(function() lathe.bus { "async", spin = 3 } end, "spin_us")
