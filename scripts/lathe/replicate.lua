-- SPDX-License-Identifier: MIT
-- The same run many times over with seeds of its own, in virtual time, for figures alone: nothing is
-- recorded and nothing is printed, `jobs` of them go at once.
--
--   local means = replicate { count = 20, jobs = 2,
--     run  = function(i) return { model = model, …, workload = load(i), seed = i, clock = "virtual", trace = false } end,
--     read = function(r, i) return r.summary.response.mean end }   -- → { first, second, … }, by number
--
-- What `read` returns depends on the seed alone, so neither on `jobs` nor on who ended first. A run that
-- fails, or refuses a request, ends the whole: a figure of those that were served would say little.
-- Where rows are wanted, or runs should be resumed: lathe.sweep.
local check = require "lathe.check"
local core  = require "lathe.core"

local WHAT <const> = "lathe.replicate"

local function finish(flight, spec, found)
  local task <close> = flight.task
  local handle, failed, why = task:finish()
  if not handle then error(("%s: run %d: %s"):format(WHAT, flight.number, failed), 0) end
  local run <close> = handle
  if failed > 0 then error(("%s: run %d: %d requests failed: %s"):format(WHAT, flight.number, failed,
    why or run.summary.first_refusal or "no reason was kept"), 0) end
  found[flight.number] = spec.read(run, flight.number)
end

return function(spec)
  check.fields(WHAT, spec, { "count", "jobs", "run", "read" })
  local count, jobs = check.integer(WHAT, spec, "count", 1, 1000000), check.integer(WHAT, spec, "jobs", 1, 1024, 1)
  for _, name in ipairs { "run", "read" } do
    if type(spec[name]) ~= "function" then
      core.fail(("%s: \"%s\" should be a function, not %s"):format(WHAT, name, check.shown(spec[name])))
    end
  end
  local found, flying = {}, {}
  local function wait_for_one()
    local tasks = {}
    for i, flight in ipairs(flying) do tasks[i] = flight.task end
    finish(table.remove(flying, core.wait_any(tasks)), spec, found)
  end
  for number = 1, count do
    if core.interrupted() then error(WHAT .. ": interrupted", 0) end
    local flight = { number = number, task = core.task(spec.run(number)) }
    if flight.task:recording() then core.fail(WHAT .. ": wants trace = false: what it does is not recorded") end
    if jobs > 1 then flight.task:start() else flight.task:run() end
    flying[#flying + 1] = flight
    if #flying >= jobs then wait_for_one() end
  end
  while #flying > 0 do wait_for_one() end
  return found
end
