-- A scheduler written in Lua: found, told its options, obeyed, and refused with one sentence.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"

-- Requests that are there at once, one place: the order of first tokens is the scheduler's.
local function order(scheduler)
  local work = {}
  for i, n in ipairs { 30, 10, 20, 40 } do work[i] = { at = 0, prompt = ("x"):rep(n), output_tokens = 3, predicted = 3 } end
  local r = lathe.run { model = model, scheduler = scheduler, workload = work, seed = 1, engine = { batch_requests = 1 } }
  local list = {}
  for i, row in ipairs(r:query "select id from request where run_id = :run order by first_token_ns") do list[i] = row.id end
  return table.concat(list, " "), r
end

local shortest = [[return { name = "shortest", key = function(r) return options.sign * r.prompt_tokens end }]]
t.equal(order(lathe.policy { text = shortest, sign = 1 }), "2 3 1 4", "shortest first")
t.equal(order(lathe.policy { text = shortest, sign = -1 }), "4 1 3 2", "longest first")
t.equal(order(lathe.policy { text = shortest, sign = 1.5, memory_mb = 2, instructions = 50000 }), "2 3 1 4", "its own limits")

-- as a file beside the script
local folder = lathe.script:match "^(.*)/tests/e2e/lua/" or error "where am I?"
t.equal(order(lathe.policy(folder .. "/experiments/policies/sjf.lua")), (order "sjf"), "sjf in Lua and in C")
t.equal(order(lathe.policy(folder .. "/experiments/policies/fcfs.lua")), (order "fcfs"), "fcfs in Lua and in C")
t.fails(function() lathe.policy "no such.lua" end, "no such.lua", "No such file")
t.fails(function() lathe.policy { file = "a.lua", text = "" } end, "either", "not both")
t.fails(function() lathe.policy {} end, "either")
t.fails(function() lathe.policy(3) end, "takes a file's name")
t.fails(function() lathe.policy { text = shortest, sign = {} } end, "sign", "a table")
t.fails(function() lathe.policy { text = shortest, sign = "a;b" } end, "sign")
t.fails(function() lathe.policy { text = shortest, ["a b"] = 1 } end, "a b")

-- what the policy did, as figures
local _, run = order(lathe.policy { text = shortest, sign = 1 })
local calls = run:query "select sum(value) as n from metric where run_id = :run and name = 'lua_calls'"[1].n
t.truth(calls >= 4, "a call for each request")

-- an error ends the run, or the request that it met, with its file and line
local function refused(text, ...)
  local ok, message, r = pcall(order, lathe.policy { text = text })
  if ok then message = r:outputs()[1].error end
  for _, part in ipairs { ... } do
    t.truth(tostring(message):find(part, 1, true), ("%q in: %s"):format(part, message))
  end
end
refused("return {\n rank = function() return nil + 1 end }", "policy:2:", "arithmetic")
refused("return { rank = function()\n while true do end end }", "policy:2:", "instructions")
refused("return { key = function() end, victm = 1 }", "victm")
refused("return {", "policy:1:")
refused("return { key = function(r) return r.prompt_token end }", "policy:1:", "no field prompt_token")
refused("return { key = function() return io.open('/etc/passwd') end }", "no io")
