-- lathe.product, lathe.print, lathe.json.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local seen = {}
for p in lathe.product { b = { 1, 2 }, a = { "x", "y" }, c = true } do seen[#seen + 1] = p.a .. p.b .. tostring(p.c) end
t.equal(table.concat(seen, " "), "x1true x2true y1true y2true")
local count = 0
for _ in lathe.product {} do count = count + 1 end
t.equal(count, 1)
t.fails(function() lathe.product { a = {} } end, "\"a\" has no values")
t.fails(function() lathe.product(3) end, "not a number")

t.equal(lathe.print.text({ { name = "é", n = 1 }, { name = "long", n = 12.5 } }, { "name", { "n", "count", "%.1f" } }),
  "name  count\n────  ─────\né       1.0\nlong   12.5")
t.equal(lathe.print.text { columns = { "a" }, {} }, "a\n─\n")

local function round(value) return lathe.json.encode(lathe.json.decode(lathe.json.encode(value))) end
t.equal(round { 1, 2.5, "é", true }, '[1,2.5,"é",true]')
t.equal(round { b = { c = 1 }, a = 9007199254740993 }, '{"a":9007199254740993,"b":{"c":1}}')
t.equal(lathe.json.encode "a\nb", '"a\\nb"')
t.equal(lathe.json.decode("null"), lathe.json.null)
t.equal(lathe.json.encode(lathe.json.null), "null")
t.fails(function() lathe.json.encode(0 / 0) end, "NaN")
t.fails(function() lathe.json.encode { [1.5] = 1 } end, "keys")
t.fails(function() lathe.json.encode(print) end, "JSON has only")
t.fails(function() lathe.json.encode "\xff" end, "UTF-8")
local loop = {}
loop[1] = loop
t.fails(function() lathe.json.encode(loop) end, "contains itself")
t.fails(function() lathe.json.decode "{\"a\":" end, "line 1")
