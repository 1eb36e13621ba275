-- Shortest job first once more, the whole ranking in Lua: what sjf.lua leaves to be sorted in C.
-- SPDX-License-Identifier: MIT
--
-- rank gets every live request in an array that it may sort and return; it may also name some to
-- preempt, and a time to ask again. This is how to begin when a key isn't enough.
local function before(a, b)
  local running = a.state == "running"
  if running ~= (b.state == "running") then return running end
  if running and a.admitted ~= b.admitted then return a.admitted < b.admitted end
  if a.notes.length ~= b.notes.length then return a.notes.length < b.notes.length end
  if a.planned ~= b.planned then return a.planned < b.planned end
  return a.id < b.id
end

return {
  name = "sjf_rank",
  promises = { "work_conserving", "no_preemption" },
  admit = function(r) r.notes.length = r.predicted > 0 and r.prompt_tokens + r.predicted or math.huge end,
  rank = function(view, requests) -- luacheck: ignore view
    table.sort(requests, before)
    return requests
  end,
  victim = function(running)
    table.sort(running, before)
    return running[#running]
  end,
}
