-- A model: information, tokens, templates, and what wrong use says.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model { "tiny", layers = 3 }
local info = model:info()
t.equal(info.plugin, "tiny")
t.equal(info.tokenizer, "byte")
t.equal(info.layers, 3)
t.truth(info.context_tokens > 0)

-- bytes round trip, invalid UTF-8 becomes U+FFFD, special ids are silent
t.equal(model:decode(model:encode "naïve ☃"), "naïve ☃")
t.equal(#model:encode "", 0)
t.fails(function() model:decode { 1, 2.5 } end, "element 2", "2.5")
t.fails(function() model:decode { 1 << 20 } end, "model:decode")
t.fails(function() model:encode(nil) end, "takes a text, not nothing")
t.fails(function() model:encode("x", { speical = true }) end, "there is no field \"speical\", did you mean \"special\"?")
t.fails(function() model:template "hello" end, "takes messages")

-- wrong descriptions
t.fails(function() lathe.model { "tiny", layrs = 2 } end, "layrs", "did you mean", "layers")
t.fails(function() lathe.model { "tiny", layers = "many" } end, "layers", "many")
t.fails(function() lathe.model { "tiny", layers = 1000 } end, "layers", "1000")
t.fails(function() lathe.model { "tiny", layers = {} } end, "option \"layers\"", "a table")
t.fails(function() lathe.model { "tinny" } end, "tinny", "tiny")
t.fails(function() lathe.model {} end, "should open with the plugin's name")
t.fails(function() lathe.model(nil) end, "not nothing")
t.fails(function() lathe.model { "tiny", tokenizer = "bite" } end, "byte")
t.fails(function() lathe.model { "llama" } end, "path")
t.fails(function() lathe.model { "llama", path = "no-such-model" } end, "no-such-model")

-- used after close
model:close()
model:close()
t.fails(function() model:encode "x" end, "used after it was closed")
t.fails(function() model:info() end, "used after it was closed")
t.fails(function() lathe.run { model = model, workload = { "x" } } end, "used after it was closed")

local kept
do
  local scoped <close> = lathe.model "tiny"
  kept = scoped
  t.equal(scoped:info().plugin, "tiny")
end
t.fails(function() kept:info() end, "used after it was closed")
t.truth(tostring(kept):find "lathe.model")
