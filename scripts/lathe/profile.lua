-- SPDX-License-Identifier: MIT
-- lathe.profile "illustrative-7b": the path of a machine's cost profile, by its name.
--
--   model = lathe.model { "sim", profile = lathe.profile "smollm2-135m-2-cores" }
--
-- A name stands for NAME.profile beside the script, in `profiles` beside it, or among those that are
-- shipped (experiments/profiles). What has a "/" or ends in .profile is a path, taken from the script's
-- folder and then from the current one. A profile's first lines say what it was measured on, if on anything;
-- experiments/calibrate.lua writes one for the machine it runs on.
local check = require "lathe.check"
local core  = require "lathe.core"

-- From .../lathe/profile.lua: the source tree has scripts/ between, an installed one has not.
local _, own = ...
local library = own:match "^(.*/)" or "./"
local SHIPPED <const> = { library .. "../../experiments/profiles/", library .. "../experiments/profiles/" }

local function candidates(name)
  local beside = core.script:match "^(.*/)" or "./"
  if name:sub(1, 1) == "/" then return { name } end
  if name:find("/", 1, true) or name:match "%.profile$" then return { beside .. name, name } end
  local list = { beside .. name .. ".profile", beside .. "profiles/" .. name .. ".profile" }
  for _, folder in ipairs(SHIPPED) do list[#list + 1] = folder .. name .. ".profile" end
  return list
end

return function(name)
  if type(name) ~= "string" or name == "" then
    core.fail("lathe.profile: takes a profile's name or its file's path, not " .. check.shown(name))
  end
  for _, path in ipairs(candidates(name)) do
    local file <close> = io.open(path)
    if file and file:read(0) then return path end -- a folder opens, too, but can't be read
  end
  core.fail(("lathe.profile: there is no profile \"%s\": neither beside the script nor in experiments/profiles; " ..
             "experiments/calibrate.lua writes one of this machine"):format(name))
end
