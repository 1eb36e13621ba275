-- Names nobody declared are errors where they are read or assigned; only the script's
-- folder and the library are searched.
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 111 113
local t = require "support"

t.fails(function() misspelled = 1 end, "undeclared global misspelled")
t.fails(function() return undefined_name end, "no variable undefined_name")
t.fails(function() function helper() end end, "undeclared global helper")
t.truth(not pcall(require, "argparse"), "modules of the system are not found")
t.equal(package.cpath, "")
t.truth(not package.path:find "usr/share/lua", "path")
t.equal(arg[0]:match "[^/]+$", "strict.lua")

-- what would take too much is an error
t.truth(not pcall(function() return ("x"):rep(1 << 50) end), "a text of a petabyte")
t.fails(function()
  local function forever(n) return 1 + forever(n + 1) end
  return (forever(1))
end, "stack overflow")
