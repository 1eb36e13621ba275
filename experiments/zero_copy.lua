-- From which size on does it pay to lend a payload instead of copying it?
-- SPDX-License-Identifier: MIT
--
-- A payload is written by the caller and summed by a service in another process, over the `shm`
-- bus. Lent: written once, in memory that both processes see, and summed where it lies. Copied:
-- written in memory of the caller's own, copied into the message, and copied out of it by the
-- service. Beside it the same writing and summing within one thread (`direct`), which is what
-- no bus can undercut. Sizes and ways take turns within each round.
--
--   lathe run experiments/zero_copy.lua
--   lathe run experiments/zero_copy.lua -- --largest_mb 16
local lathe = require "lathe"
local stats = require "lathe.stats"

local WAYS <const> = { "here", "lent", "copied" }

return {
  options = {
    largest_mb = { default = 64, help = "largest payload", unit = "MiB", min = 1, max = 128 },
    rounds     = { default = 9, help = "rounds in turn", min = 3 },
  },

  prepare = function(o)
    local sizes, bytes = {}, 64
    while bytes <= o.largest_mb << 20 do
      sizes[#sizes + 1] = bytes
      bytes = bytes * 8
    end
    if sizes[#sizes] ~= o.largest_mb << 20 then sizes[#sizes + 1] = o.largest_mb << 20 end
    return { sizes = sizes, here = lathe.bus "direct", shm = lathe.bus { "shm", spin_us = 2000 } }
  end,

  run = function(o, s)
    local times = {}
    for _, bytes in ipairs(s.sizes) do
      times[bytes] = { here = {}, lent = {}, copied = {} }
      local calls = math.max(1, math.min(2000, (16 << 20) // bytes))
      for round = 0, o.rounds do
        for i = 1, #WAYS do
          local way = WAYS[(i + round) % #WAYS + 1]
          local bus = way == "here" and s.here or s.shm
          local t = bus:send { bytes = bytes, calls = calls, copy = way == "copied" } / calls
          if round > 0 then times[bytes][way][round] = t * 1e6 end
        end
      end
    end
    return times
  end,

  report = function(o, times, s)
    local rows, from = {}, nil
    for i, bytes in ipairs(s.sizes) do
      local t = times[bytes]
      local saved = {}
      for round = 1, o.rounds do saved[round] = 100 * (1 - t.lent[round] / t.copied[round]) end
      local d = stats.bootstrap(saved, { statistic = stats.median, seed = 1 })
      rows[i] = { bytes = bytes, here = stats.median(t.here), lent = stats.median(t.lent), copied = stats.median(t.copied),
                  saved = d.value, low = d.low, high = d.high, gain = d.low > 0 }
    end
    for i = #rows, 1, -1 do -- the size from which on every larger one gains too
      if not rows[i].gain then break end
      from = rows[i].bytes
    end
    print(("\nMicroseconds to write a payload and have it summed (medians of %d rounds):\n"):format(o.rounds))
    lathe.print(rows, { "bytes", { "here", "one thread", "%.2f" }, { "lent", "lent", "%.2f" }, { "copied", "copied", "%.2f" },
                        { "saved", "saved %", "%.0f" }, { "low", "95% from", "%.0f" }, { "high", "to", "%.0f" } })
    local last = rows[#rows]
    if from then
      print(("\nWhat was found: lending pays from %d bytes on; at %d MiB it saves %.0f%% of the time (95%% interval %.0f to %.0f%%)\n" ..
             "and takes %.2f × what one thread alone needs for the same writing and summing.")
        :format(from, last.bytes >> 20, last.saved, last.low, last.high, last.lent / last.here))
    else
      print(("\nWhat was found: lending did not pay for certain even at %d MiB (%.0f%% saved, 95%% interval %.0f to %.0f%%).")
        :format(last.bytes >> 20, last.saved, last.low, last.high))
    end
    print("It would change with a service that does more with each byte (the copies weigh less), with payloads that stay in a cache\n" ..
          "shared by both cores, and where the two sides run on processors with memory of their own.")
  end,

  cleanup = function(_, s)
    if s then
      s.here:close()
      s.shm:close()
    end
  end,
}
