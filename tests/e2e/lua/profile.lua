-- Profiles are found by name, every shipped one is read, and what isn't there is one sentence.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

for _, name in ipairs { "illustrative-7b", "illustrative-8b-gqa", "smollm2-135m-2-cores" } do
  local path = lathe.profile(name)
  t.equal(lathe.profile(path), path, "a path stands for itself")
  local r <close> = lathe.run { model = lathe.model { "sim", profile = path }, clock = "virtual", trace = false,
                                workload = { { prompt_tokens = 100, output_tokens = 2 } } }
  t.truth(r.summary.ttft.mean > 0.001, name .. " takes its time")
  local file <close> = io.open(path)
  t.equal(file:read "l":find "NOT MEASURED" ~= nil, name:find "illustrative" ~= nil, name .. " says what it is")
end
t.fails(function() lathe.profile "abacus" end, "there is no profile \"abacus\"", "calibrate")
t.fails(function() lathe.profile "profiles/abacus.profile" end, "there is no profile")
t.fails(function() lathe.profile(7) end, "takes a profile's name")
