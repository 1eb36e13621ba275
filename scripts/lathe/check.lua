-- SPDX-License-Identifier: MIT
-- Arguments of the library's functions: unknown fields get the nearest suggested, wrong
-- types and ranges a sentence, all at the line of the script that called.
local core = require "lathe.core"

local check = {}

local function shown(value)
  if type(value) == "string" then return ("the text \"%s\""):format(value) end
  return value == nil and "nothing" or type(value) == "number" and tostring(value) or "a " .. type(value)
end
check.shown = shown

function check.fields(what, t, names)
  if type(t) ~= "table" then core.fail(("%s: takes a table { %s = … }, not %s"):format(what, names[1], shown(t))) end
  for name in pairs(t) do
    local known = false
    for _, n in ipairs(names) do known = known or n == name end
    if not known then
      local near = type(name) == "string" and core.nearest(name, names)
      core.fail(("%s: there is no field \"%s\"%s"):format(what, tostring(name),
        near and (", did you mean \"%s\"?"):format(near) or ": it has " .. table.concat(names, ", ")))
    end
  end
end

-- A number from min to max; `default` where it is absent (nil: it must be given).
function check.number(what, t, name, min, max, default)
  local value = t[name]
  if value == nil then value = default end
  if type(value) ~= "number" then core.fail(("%s: \"%s\" should be a number, not %s"):format(what, name, shown(value))) end
  if not (value >= min and value <= max) then
    core.fail(("%s: \"%s\" is %s, but should be %s to %s"):format(what, name, value, min, max))
  end
  return value
end

function check.integer(what, t, name, min, max, default)
  local value = check.number(what, t, name, min, max, default)
  local whole = math.tointeger(value)
  if not whole then core.fail(("%s: \"%s\" should be a whole number, not %s"):format(what, name, value)) end
  return whole
end

function check.text(what, t, name, default)
  local value = t[name]
  if value == nil then value = default end
  if type(value) ~= "string" then core.fail(("%s: \"%s\" should be a text, not %s"):format(what, name, shown(value))) end
  return value
end

-- Samples for statistics: an array of numbers, none of them NaN.
function check.samples(what, values, least)
  if type(values) ~= "table" then core.fail(("%s: takes an array of numbers, not %s"):format(what, shown(values))) end
  for i, v in ipairs(values) do
    if type(v) ~= "number" or v ~= v then core.fail(("%s: element %d should be a number, not %s"):format(what, i, shown(v))) end
  end
  if #values < least then core.fail(("%s: needs at least %d values, got %d"):format(what, least, #values)) end
end

return check
