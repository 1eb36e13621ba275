-- SPDX-License-Identifier: MIT
-- lathe.options { rate = { default = 2, help = "requests a second", unit = "1/s", min = 0.01 } }
--
-- Declares what the command line may change, `lathe run x.lua -- --rate 3`, and returns the
-- values: { rate = 3 }. The default's type is the option's: number, whole number, text or
-- boolean (`--flag`, `--flag=false`). `lathe run x.lua --help` lists them and ends there.
local core = require "lathe.core"

local function usage(format, ...) core.usage(core.script .. ": " .. format:format(...)) end

local function sorted_names(declared)
  local names = {}
  for name, option in pairs(declared) do
    if type(name) ~= "string" or type(option) ~= "table" or option.default == nil then
      core.fail(("lathe.options: \"%s\" should be { default = …, help = \"…\" }"):format(tostring(name)))
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function show_help(declared, names)
  local left, longest = {}, 0
  for i, name in ipairs(names) do
    local default = declared[name].default
    left[i] = ("  --%s %s"):format(name:gsub("_", "-"), type(default) == "boolean" and "" or math.type(default) and "N" or "TEXT")
    longest = math.max(longest, #left[i])
  end
  print("Its options, behind --:")
  for i, name in ipairs(names) do
    local option = declared[name]
    local unit = option.unit and option.unit ~= "" and " " .. option.unit or ""
    print(("%-" .. longest .. "s  %s (%s%s)"):format(left[i], option.help or "", tostring(option.default), unit))
  end
end

local function convert(name, option, text)
  local value = text
  if type(option.default) == "number" then
    value = tonumber(text)
    if math.type(option.default) == "integer" then value = value and math.tointeger(value) end
    if not value or value ~= value then
      usage("--%s should be a %s, not \"%s\"", name, math.type(option.default) == "integer" and "whole number" or "number", text)
    end
    if option.min and value < option.min then usage("--%s should be at least %s, not %s", name, option.min, text) end
    if option.max and value > option.max then usage("--%s should be at most %s, not %s", name, option.max, text) end
  elseif type(option.default) == "boolean" then
    if text ~= "true" and text ~= "false" then usage("--%s should be true or false, not \"%s\"", name, text) end
    value = text == "true"
  end
  if option.choices then
    for _, choice in ipairs(option.choices) do
      if choice == value then return value end
    end
    usage("--%s is one of %s, not \"%s\"", name, table.concat(option.choices, ", "), text)
  end
  return value
end

-- `words` is the global `arg` unless given.
return function(declared, words)
  if type(declared) ~= "table" then core.fail("lathe.options: takes { name = { default = … } }, not a " .. type(declared)) end
  words = words or arg
  local names = sorted_names(declared)
  local function help()
    show_help(declared, names)
    core.stop()
  end
  if core.help then help() end
  local values = {}
  for _, name in ipairs(names) do values[name] = declared[name].default end
  local i = 1
  while words[i] do
    local word, text = words[i], nil
    if word == "-h" or word == "--help" then help() end
    local name = word:match "^%-%-(.+)$"
    if not name then usage("\"%s\" belongs to no option", word) end
    if name:find "=" then name, text = name:match "^(.-)=(.*)$" end
    name = name:gsub("-", "_")
    local option = declared[name]
    if not option then
      local near = core.nearest(name, names)
      usage("there is no option --%s%s", name:gsub("_", "-"), near and ", did you mean --" .. near:gsub("_", "-") .. "?" or "")
    end
    if not text then
      if type(option.default) == "boolean" then
        text = "true"
      else
        i = i + 1
        text = words[i] or usage("--%s needs a value", name)
      end
    end
    values[name] = convert(name, option, text)
    i = i + 1
  end
  return values
end
