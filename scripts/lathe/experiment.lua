-- SPDX-License-Identifier: MIT
-- Carries out a script that returned a table:
--
--   return {
--     question = "…?",                                   -- instead of the first line
--     options  = { rate = { default = 2, help = "…" } }, -- see lathe.options
--     prepare  = function(o) return state end,           -- models, workloads
--     run      = function(o, state) return result end,
--     report   = function(o, result, state) end,         -- prints the answer
--     cleanup  = function(o, state) end,                 -- also after an error
--   }
--
-- Every function may be absent. A plain script may return a table of its own: one without
-- `run` is left alone.
local core    = require "lathe.core"
local options = require "lathe.options"

local FIELDS <const> = { "question", "options", "prepare", "run", "report", "cleanup" }

return function(experiment)
  if type(experiment.run) ~= "function" then return end
  for name in pairs(experiment) do
    local known = false
    for _, field in ipairs(FIELDS) do known = known or field == name end
    if not known then
      local near = core.nearest(tostring(name), FIELDS)
      local hint = near and (", did you mean \"%s\"?"):format(near) or ""
      error(("%s: an experiment has no \"%s\"%s"):format(core.script, tostring(name), hint), 0)
    end
  end
  if experiment.question then core.question(experiment.question) end
  local values = options(experiment.options or {})
  local state
  local function whole()
    state = experiment.prepare and experiment.prepare(values)
    local result = experiment.run(values, state)
    if experiment.report then experiment.report(values, result, state) end
  end
  local ok, message = xpcall(whole, function(m) return m end)
  if experiment.cleanup then experiment.cleanup(values, state) end
  if not ok then error(message, 0) end
end
