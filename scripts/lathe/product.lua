-- SPDX-License-Identifier: MIT
-- lathe.product { scheduler = { "fcfs", "sjf" }, rate = { 1, 2 } }: an iterator over every
-- combination, the last name (in alphabetical order) changing quickest. A lone value stands
-- for itself in all of them.
--
--   for p in lathe.product { scheduler = { "fcfs", "sjf" }, rate = { 1, 2 } } do print(p.scheduler, p.rate) end
local core = require "lathe.core"

return function(grid)
  if type(grid) ~= "table" then core.fail("lathe.product: takes { name = { values }, … }, not a " .. type(grid)) end
  local names, values = {}, {}
  for name, list in pairs(grid) do
    if type(name) ~= "string" then core.fail("lathe.product: takes { name = { values }, … }: " .. tostring(name) .. " is no name") end
    if type(list) ~= "table" then list = { list } end
    if #list == 0 then core.fail(("lathe.product: \"%s\" has no values"):format(name)) end
    names[#names + 1], values[name] = name, list
  end
  table.sort(names)
  local at, done = {}, false
  for i = 1, #names do at[i] = 1 end
  return function()
    if done then return nil end
    local point = {}
    for i, name in ipairs(names) do point[name] = values[name][at[i]] end
    local i = #names
    while i >= 1 do
      at[i] = at[i] + 1
      if at[i] <= #values[names[i]] then break end
      at[i], i = 1, i - 1
    end
    done = i < 1
    return point
  end
end
