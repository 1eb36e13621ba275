-- SPDX-License-Identifier: MIT
-- Conversations: workload.sessions { rate = 0.5, sessions = 100, turns = workload.uniform { from = 2, to = 8 },
--   think = 10, system = 500, prompt = workload.lognormal { median = 60, sigma = 1 }, output = 100 }
--
--   session  s s s s s u u u                         turn 1: the system's tokens, the user's
--            s s s s s u u u o o u u                 turn 2: turn 1, its output, the user's next
--            s s s s s u u u o o u u o o o u         turn 3: …
--
-- so that prefix caches and routers by prefix find what they would find in a chat. `rate`: sessions
-- begun a second (Poisson). `system`: so many tokens that all share, or { tokens = 500, groups = 4 }:
-- four kinds of them, sessions in turn. `max_prompt`: a session ends before a prompt would be longer.
--
-- Open: a turn is planned `think` seconds after the turn before was planned to arrive, whenever its
-- answer comes, so that arrivals are the same for every policy. Tokens are synthetic ids below 256,
-- functions of (seed, session, place), and so are the "answers" in later prompts: what the model
-- really says is not fed back. An answer that is written has output-many tokens, so lengths agree.
-- `forced = true` makes the model say just those tokens, so that a prefix cache finds a turn's prompt
-- and its answer in the next.
local check   = require "lathe.check"
local random  = require "lathe.random"
local source  = require "lathe.source"

local FIELDS <const> = { "rate", "sessions", "turns", "think", "system", "prompt", "output", "max_prompt", "seed", "seeds", "each",
                         "predicted", "forced" }
local IDS <const> = 256
local STREAM_PROMPTS <const>, STREAM_OUTPUTS <const>, STREAM_TURNS <const>, STREAM_TOKENS <const> = 1, 2, 7, 8 -- of purpose lengths

-- A stream of each session's own, so that one more turn here shifts nothing there.
local function stream(kind, session) return (session << 8) + kind end

-- Appends `count` ids that (seed, session) say; how many there are already is the counter.
local function extend(tokens, count, seed, session)
  for i = #tokens + 1, #tokens + count do
    tokens[i] = math.floor(random.unit(seed, random.LENGTHS, stream(STREAM_TOKENS, session), i) * IDS)
  end
end

local function system_of(what, t)
  local system = t.system
  if type(system) ~= "table" then system = { tokens = system } end
  check.fields(what .. ": system", system, { "tokens", "groups" })
  local tokens = check.integer(what .. ": system", system, "tokens", 0, 1 << 24, 0)
  return tokens, check.integer(what .. ": system", system, "groups", 1, 1 << 24, 1)
end

local function required(what, name, value)
  return source.length(what, name, value) or check.number(what, {}, name, 1, 1) -- says that it is missing
end

return function(t)
  local what <const> = "workload.sessions"
  check.fields(what, t, FIELDS)
  local rate, count = check.number(what, t, "rate", 1e-9, 1e9), check.integer(what, t, "sessions", 1, 1 << 20)
  local think, limit = check.number(what, t, "think", 0, 1e9, 0), check.integer(what, t, "max_prompt", 1, 1 << 24, 1 << 24)
  local turns, prompt, output = required(what, "turns", t.turns), required(what, "prompt", t.prompt), required(what, "output", t.output)
  local system, groups = system_of(what, t)
  local seeds = source.seeds(what, t)
  local requests, began = {}, 0

  for session = 1, count do
    began = began + random.exponential(seeds.arrivals, random.ARRIVALS, 0, session) / rate
    local said = {}
    extend(said, system, seeds.prompts, (1 << 40) + (session - 1) % groups) -- above every session's stream
    for turn = 1, turns:draw(seeds.prompts, STREAM_TURNS, session) do
      extend(said, prompt:draw(seeds.prompts, stream(STREAM_PROMPTS, session), turn), seeds.prompts, session)
      if #said > limit then break end
      local request = {}
      for k, v in pairs(t.each or {}) do request[k] = v end
      request.at, request.session, request.turn = began + (turn - 1) * think, session, turn
      request.tokens = table.move(said, 1, #said, 1, {})
      request.output_tokens = output:draw(seeds.outputs, stream(STREAM_OUTPUTS, session), turn)
      if t.predicted then request.predicted = request.output_tokens end
      requests[#requests + 1] = request
      local asked = #said
      extend(said, request.output_tokens, seeds.prompts, session)
      if t.forced then request.forced, request.output_tokens = table.move(said, asked + 1, #said, 1, {}), nil end
    end
  end
  if #requests == 0 then check.number(what, { max_prompt = limit }, "max_prompt", system + 1, 1 << 24) end
  table.sort(requests, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    return a.session < b.session or (a.session == b.session and a.turn < b.turn)
  end)
  return { name = "sessions", requests = requests,
           parameters = { rate = rate, sessions = count, turns = turns, think = think, system = { tokens = system, groups = groups },
                          prompt = prompt, output = output, max_prompt = t.max_prompt, predicted = t.predicted, forced = t.forced,
                          seeds = seeds } }
end
