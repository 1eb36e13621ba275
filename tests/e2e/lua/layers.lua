-- SPDX-License-Identifier: MIT
-- What the layers do, as rows and back in the script; what happens when something in them is changed.
local lathe   = require "lathe"
local support = dofile(debug.getinfo(1, "S").source:match "^@(.*)/" .. "/support.lua")
local equal, near, truth, fails = support.equal, support.near, support.truth, support.fails

local model = lathe.model "tiny"
local LAYERS <const>, HEADS <const> = 2, 2
local info
do
  local e <close> = lathe.engine { model = model, trace = false }
  info = e:call("model", "describe")
end
local WIDTH <const> = info.embedding_width

local prompt, other = { 10, 20, 30, 40 }, { 10, 21, 31, 41 }
local function run(more, workload)
  local description = { model = model, database = "layers.db", workload = workload or { { tokens = prompt, forced = { 50, 60 } } } }
  for k, v in pairs(more or {}) do description[k] = v end
  return lathe.run(description)
end
local function hidden(more, workload)
  more = more or {}
  more.trace = { probes = { { format = "hidden" } } }
  return run(more, workload)
end

-- ── probes of layers ─────────────────────────────────────────────────────────────────────
local r = run { trace = { probes = { { format = "hidden", layers = { 1 } }, { format = "norms", heads = { 1 } },
                                     { format = "lens", top_k = 3, positions = { 2, 3 } } } } }
local probes = r:query "select * from layer_probe where run_id = :run order by id"
equal(#probes, 3)
equal(probes[1].width, WIDTH)
equal(probes[2].heads, "[1]")
equal(probes[3].top_k, 3)
equal(probes[3].last_position, 3)
local a = r:activations { probe = 1, request = 1, layer = 1 }
equal(a.first, 0)
equal(a.count, 5) -- the last token's own row isn't computed
equal(a.width, WIDTH)
equal(a.every, 1)
equal(#a, 5 * WIDTH)
equal(#r:activations { probe = 1, request = 1 }, 5 * WIDTH, "its only layer")
local norms = r:activations { probe = 2, request = 1, layer = 1 }
equal(norms.width, 4 + 1)
local square = 0
for i = 1, WIDTH do square = square + a[i] ^ 2 end
near(norms[4], math.sqrt(square), 1e-4 * math.sqrt(square), "the norm of what there is after the layer")
equal(r:query("select count(*) as n from layer_token where run_id = :run and probe_id = 3 and length(data) = ?", LAYERS * 3 * 8)[1].n, 2)

-- .npy: 64 bytes or a multiple before the numbers, and the numbers
local function npy(path)
  local file <close> = assert(io.open(path, "rb"))
  local bytes = file:read "a"
  equal(bytes:sub(1, 8), "\x93NUMPY\1\0")
  local length = ("<I2"):unpack(bytes, 9)
  equal((10 + length) % 64, 0)
  local header = bytes:sub(11, 10 + length)
  truth(header:find("'descr': '<f4'", 1, true) and header:find("'fortran_order': False", 1, true) and header:sub(-1) == "\n", "header")
  local numbers, at = {}, 11 + length
  while at <= #bytes do numbers[#numbers + 1], at = ("<f"):unpack(bytes, at) end
  return header:match "'shape': (%b())", numbers
end
equal(r:write_npy("one.npy", { probe = 1, request = 1, layer = 1 }), 0)
local shape, numbers = npy "one.npy"
equal(shape, ("(5, %d)"):format(WIDTH))
equal(#numbers, #a)
for i = 1, #a do equal(numbers[i], a[i]) end
local whole = hidden()
whole:write_npy("all.npy", { request = 1 })
shape, numbers = npy "all.npy"
equal(shape, ("(5, %d, %d)"):format(LAYERS, WIDTH))
for i = 1, WIDTH do equal(numbers[WIDTH + i], a[i], "layer 1 of position 0") end

-- ── interventions ────────────────────────────────────────────────────────────────────────
local function likelihood(handle) return math.log(handle:perplexity()) end
local plain = likelihood(whole)

-- what changes nothing
near(likelihood(run { interventions = {} }), plain, 1e-6, "none")
near(likelihood(run { interventions = { { "head_scale", factor = 1 }, { "mlp_scale", factor = 1 }, { "attention_scale", factor = 1 },
  { "keys_drop", keys = {} }, { "keys_keep", keys = { 3, 0, 1, 2, 4, 4 } } } }), plain, 1e-5, "by one, and all keys")
near(likelihood(run { interventions = { { "head_scale", factor = 0, positions = { 100 } } } }), plain, 1e-6, "elsewhere")
for layer = 0, LAYERS - 1 do
  near(likelihood(run { interventions = { { "patch", layers = { layer }, values = whole:activations { request = 1, layer = layer } } } }),
    plain, 1e-5, "its own activations")
end

-- what changes something, alike however it is said
local function changed(interventions, workload)
  local handle = run({ interventions = interventions }, workload)
  local found = likelihood(handle)
  truth(found == found and math.abs(found - plain) > 1e-6, "changed")
  return found, handle
end
local removed = changed { { "attention_scale", factor = 0 } }
near(changed { { "head_scale", factor = 0 } }, removed, 1e-5, "all heads, or what they add")
local zeros = {}
for i = 1, info.head_width do zeros[i] = 0 end
near(changed { { "head_set", values = zeros } }, removed, 1e-5, "set to zero")
near(changed { { "head_scale", factor = 0, heads = { 0 } }, { "head_scale", factor = 0, heads = { 1 } } }, removed, 1e-5, "one by one")
changed { { "head_uniform" } }
changed { { "mlp_scale", layers = { 1 }, factor = 0 } }
near(changed { { "keys_drop", keys = { 0, 1 }, positions = { 2 } } }, changed { { "keys_keep", keys = { 2, 3, 4, 5 }, positions = { 2 } } },
  1e-5, "dropped, or the others kept")

-- another run's residual stream after the last layer, at every position: its answers are the other's
local from = hidden(nil, { { tokens = other, forced = { 50, 60 } } })
local patched = changed { { "patch", layers = { LAYERS - 1 }, values = from:activations { request = 1, layer = LAYERS - 1 } } }
near(patched, likelihood(from), 1e-5, "patched with the other's")

-- of one request beside another, and what is recorded of it
local _, two = changed({ { "mlp_scale", layers = { 0 }, factor = 0.5, requests = { 2 }, positions = { 1, 3 } },
                         { "keys_drop", layers = { 1 }, heads = { 0 }, keys = { 1, 0 } } },
  { { tokens = prompt, forced = { 50, 60 } }, { tokens = prompt, forced = { 50, 60 } } })
truth(math.abs(two:perplexity(1) - two:perplexity(2)) > 1e-6, "the second alone is scaled")
local rows = two:query "select * from intervention where run_id = :run order by id"
equal(#rows, 2)
equal(rows[1].kind, "mlp_scale")
equal(rows[1].layers, "[0]")
equal(rows[1].heads, nil)
equal(rows[1].factor, 0.5)
equal(rows[1].first_position, 1)
equal(rows[1].last_position, 3)
equal(rows[2].kind, "keys_drop")
equal(rows[2].heads, "[0]")
equal(rows[2].keys, "[0,1]")
equal(rows[2].factor, nil)
equal(rows[2].last_position, nil)
local shm = run { bus = "shm", interventions = { { "mlp_scale", layers = { 1 }, factor = 0 } } }
near(likelihood(shm), changed { { "mlp_scale", layers = { 1 }, factor = 0 } }, 1e-6, "in a worker process")
truth(run { interventions = { { "mlp_scale", factor = 0 } } }:query "select key from run where id = :run"[1].key
  ~= run { interventions = { { "mlp_scale", factor = 0.1 } } }:query "select key from run where id = :run"[1].key, "another run")

-- ── sentences ────────────────────────────────────────────────────────────────────────────

local function wrong(interventions, ...)
  local ok, message = pcall(run, { interventions = interventions })
  truth(not ok, "refused")
  for _, text in ipairs { ... } do
    if not tostring(message):find(text, 1, true) then error(("expected %q in: %s"):format(text, message), 2) end
  end
end
wrong({ { "mlp_scal", factor = 1 } }, "intervention 1", "did you mean \"mlp_scale\"?")
wrong("mlp_scale", "should be an array")
wrong({ kind = "mlp_scale" }, "no field \"kind\"")
wrong({ { factor = 1 } }, "open with its kind")
wrong({ { "mlp_scale" } }, "intervention 1 (mlp_scale)", "should say its factor")
wrong({ { "mlp_scale", factor = 0 / 0 } }, "\"factor\" is")
wrong({ { "mlp_scale", factor = 1, heads = { 0 } } }, "no field \"heads\"")
wrong({ { "head_scale", factor = 1, heads = { HEADS } } }, "0 to 1, not 2")
wrong({ { "head_scale", factor = 1, layer = { 0 } } }, "did you mean \"layers\"?")
wrong({ { "head_scale", factor = 1, requests = { 2 } } }, "1 to 1, not 2")
wrong({ { "head_set", values = { 1 } } }, ("should be %d numbers"):format(info.head_width))
wrong({ { "head_set" } }, "\"values\" should be an array of numbers")
wrong({ { "keys_drop", keys = { -1 } } }, "element 1 of \"keys\"")
wrong({ { "keys_drop" } }, "\"keys\" should be")
wrong({ { "patch", values = { 1 } } }, "a patch should say its positions")
wrong({ { "patch", positions = { 1 }, values = { 1 } } }, "doesn't go on to the end")
wrong({ { "patch", positions = { 1, 2 }, values = { 1 } } }, ("should be %d numbers (%d a position)"):format(2 * WIDTH, WIDTH))
local many = {}
for i = 1, 65 do many[i] = { "mlp_scale", factor = 1 } end
wrong(many, "65 are more than 64")
fails(function() return r:activations { probe = 4, request = 1 } end, "probe 4 is no probe of layers")
fails(function() return r:activations { request = 1 } end, "3 probes of layers", "probe = 1")
fails(function() return r:activations { probe = 1 } end, "which request")
fails(function() return r:activations { probe = 1, request = 2 } end, "1 to 1, not 2")
fails(function() return r:activations { probe = 1, request = 1, layer = 0 } end, "layers [1], not 0")
fails(function() return r:activations { probe = 3, request = 1 } end, "lens")
fails(function() return r:activations { probes = 1, request = 1 } end, "did you mean \"probe\"?")
fails(function() return whole:activations { request = 1 } end, "say which, layer = n")
fails(function() return run():activations { request = 1 } end, "no probe of layers")
fails(function() return run { trace = false }:activations { request = 1 } end, "trace = false")
fails(function() r:write_npy({ request = 1 }) end, "takes a path")
fails(function() r:write_npy("no/where/x.npy", { probe = 1, request = 1 }) end, "can't write no/where/x.npy")
