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

-- bytecode is refused, however it comes
local bytes = string.dump(function() return 1 end)
t.equal(load(bytes), nil)
t.truth(select(2, load(bytes, "x", "b")):find "binary", "also when asked for")
t.equal(load "return 1 + 1"(), 2)
t.equal(load("return x", "x", "t", { x = 5 })(), 5)
local name = os.tmpname()
local file = assert(io.open(name, "wb"))
file:write(bytes)
file:close()
t.equal(loadfile(name), nil)
t.truth(not pcall(dofile, name))
package.path = package.path .. ";" .. name -- luacheck: ignore 143
t.truth(not pcall(require, "anything"))
os.remove(name)
