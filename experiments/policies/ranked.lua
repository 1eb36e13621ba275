-- The whole ranking in a policy's hands: priority first, then whoever has waited longest.
-- SPDX-License-Identifier: MIT
--
-- A key would do here; this is how to begin when it doesn't: rank gets every live request in an
-- array that it may sort and return, and may also name some to preempt, or a time to ask again.
local function before(a, b)
  if a.priority ~= b.priority then return a.priority > b.priority end
  if a.planned ~= b.planned then return a.planned < b.planned end
  return a.id < b.id
end

return {
  name = "ranked",
  promises = { "work_conserving" },
  rank = function(view, requests) -- luacheck: ignore view
    table.sort(requests, before)
    return requests
  end,
  victim = function(running, needy)
    table.sort(running, before)
    local last = running[#running]
    return last and before(needy, last) and last or nil -- nobody gives way to one that goes behind
  end,
}
