-- SPDX-License-Identifier: MIT
-- What the Lua tests share. A test is a script that `lathe run` runs: it ends by itself, or
-- with an error that says what was wrong.
local support = {}

local function shown(v) return type(v) == "string" and ("%q"):format(v) or tostring(v) end

function support.equal(found, expected, what)
  if found ~= expected then
    error(("%s: found %s, expected %s"):format(what or "value", shown(found), shown(expected)), 2)
  end
end

function support.near(found, expected, tolerance, what)
  if not (math.abs(found - expected) <= tolerance) then -- luacheck: ignore 581 (NaN is not near)
    error(("%s: found %s, expected %s ± %s"):format(what or "value", found, expected, tolerance), 2)
  end
end

function support.truth(value, what)
  if not value then error((what or "value") .. ": expected to be true", 2) end
end

-- f must fail at a line of its own, with a message that holds every one of the texts.
function support.fails(f, ...)
  local ok, message = pcall(f)
  if ok then error("expected a failure with: " .. table.concat({ ... }, ", "), 2) end
  local info = debug.getinfo(f, "S")
  local file, line = tostring(message):match "^(.-%.lua):(%d+): "
  if not file or not info.source:find(file, 2, true) or tonumber(line) < info.linedefined or tonumber(line) > info.lastlinedefined then
    error(("expected an error at lines %d to %d of %s, got: %s"):format(info.linedefined, info.lastlinedefined,
      info.source, tostring(message)), 2)
  end
  for _, text in ipairs { ... } do
    if not message:find(text, 1, true) then error(("expected %q in: %s"):format(text, message), 2) end
  end
  return message
end

return support
