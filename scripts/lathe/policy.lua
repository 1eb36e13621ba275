-- SPDX-License-Identifier: MIT
-- lathe.policy: a scheduler whose policy is a Lua file.
--
--   scheduler = lathe.policy "mine.lua"
--   scheduler = lathe.policy { file = "mine.lua", aging = 2, mode = "fast" }   → options.aging, options.mode
--   scheduler = lathe.policy { text = "return { key = function(r) return r.prompt_tokens end }" }
--
-- A file is looked for beside the script. The policy runs in a state of its own, so closures and
-- tables can't go across: options are numbers, texts and booleans. `memory_mb` and `instructions`
-- are the scheduler's own (`lathe plugins scheduler/lua`). What a policy may say is in
-- plugins/scheduler/lua/policy.h, what it sees of a request in request.h beside it.
local core  = require "lathe.core"
local check = require "lathe.check"

local OWN <const> = { file = true, text = true, memory_mb = true, instructions = true }

-- "mine.lua" beside the script, or where an absolute path says.
local function beside_script(file)
  if file:sub(1, 1) == "/" then return file end
  return (core.script:match "^(.*/)" or "") .. file
end

-- "a=1;b=x" in order of names, so that equal options are equal texts.
local function as_text(t)
  local list = {}
  for name, value in pairs(t) do
    if not OWN[name] then
      if type(name) ~= "string" or name:find "[^%w_]" or name == "" then
        core.fail(("lathe.policy: an option is called %s, but should be a name of letters, digits and _"):format(check.shown(name)))
      end
      if type(value) ~= "number" and type(value) ~= "boolean" and (type(value) ~= "string" or value:find "[,;%c]") then
        core.fail(("lathe.policy: option \"%s\" is %s, but should be a number, true, false or a text without \",\" and \";\"")
          :format(name, check.shown(value)))
      end
      list[#list + 1] = type(value) == "number" and math.type(value) == "float" and ("%s=%.17g"):format(name, value)
        or ("%s=%s"):format(name, value)
    end
  end
  table.sort(list)
  return table.concat(list, ";")
end

return function(t)
  if type(t) == "string" then t = { file = t } end
  if type(t) ~= "table" then core.fail("lathe.policy: takes a file's name or a table { file = … }, not " .. check.shown(t)) end
  if (t.file == nil) == (t.text == nil) then
    core.fail("lathe.policy: takes either a \"file\" or a \"text\"" .. (t.file and ", not both" or ""))
  end
  local stage = { "lua", memory_mb = t.memory_mb, instructions = t.instructions }
  if t.text then
    stage.text = check.text("lathe.policy", t, "text")
  else
    stage.file = beside_script(check.text("lathe.policy", t, "file"))
    local handle, why = io.open(stage.file)
    if not handle then core.fail("lathe.policy: " .. why) end
    handle:close()
  end
  local options = as_text(t)
  if options ~= "" then stage.options = options end
  return stage
end
