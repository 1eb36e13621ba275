-- SPDX-License-Identifier: MIT
-- Draws for workloads and statistics. Counter-based (Philox, <lathe/random.h>): a draw is a
-- function of (seed, purpose, stream, counter), so arrivals, lengths and prompts never
-- shift each other, and the n-th request is the same whatever was drawn before it.
local core = require "lathe.core"

local random = {
  ARRIVALS = 2, LENGTHS = 3, NOISE = 4, FAULTS = 9, USER = 64, -- enum lathe_random_purpose
  unit = core.random_unit,
}

-- Standard normal, by Box and Muller; takes two counters' worth of randomness.
function random.normal(seed, purpose, stream, counter)
  local u = 1 - core.random_unit(seed, purpose, stream, 2 * counter) -- (0, 1]
  local v = core.random_unit(seed, purpose, stream, 2 * counter + 1)
  return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
end

-- Mean 1.
function random.exponential(seed, purpose, stream, counter)
  return -math.log(1 - core.random_unit(seed, purpose, stream, counter))
end

-- Shape k, scale 1: Marsaglia and Tsang, "A simple method for generating gamma variables"
-- (2000). Rejection needs an unknown number of draws, so each counter has a stream of its own.
function random.gamma(shape, seed, purpose, stream, counter)
  local own = (stream << 40) + (1 << 39) + counter
  local boost = 1.0
  if shape < 1 then -- gamma(k) = gamma(k + 1) · u^(1/k)
    boost = (1 - core.random_unit(seed, purpose, own, 0)) ^ (1 / shape)
    shape = shape + 1
  end
  local d = shape - 1 / 3
  local c = 1 / math.sqrt(9 * d)
  local attempt = 1
  while true do
    local x = random.normal(seed, purpose, own, 2 * attempt)
    local v = (1 + c * x) ^ 3
    local u = 1 - core.random_unit(seed, purpose, own, 4 * attempt + 2)
    if v > 0 and math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v) then return boost * d * v end
    attempt = attempt + 1
  end
end

-- A whole number from 1 to n.
function random.index(n, seed, purpose, stream, counter)
  return math.floor(core.random_unit(seed, purpose, stream, counter) * n) + 1
end

return random
