-- SPDX-License-Identifier: MIT
-- What every function of lathe.workload makes of its description: classes with defaults filled
-- in, seeds, and the table that lathe.run takes,
--
--   { name, parameters, concurrency, think, source, draw = <core.workload>, requests = { … } }
--
-- Where every prompt and output is a distribution of lengths, `draw` says it all in C, and
-- `requests` is made of it when somebody first reads it. Otherwise (texts, or fields that `draw`
-- doesn't know) there is no `draw`, and `requests` is made at once. A script that changes
-- `requests` sets `draw` to nil, or a run on a virtual clock would not see the change.
local check   = require "lathe.check"
local core    = require "lathe.core"
local lengths = require "lathe.lengths"

local source = {}

-- Fields that every workload has, after its own.
local COMMON <const> = { "requests", "seed", "seeds", "prompt", "output", "max_tokens", "chat", "each", "predicted", "ignore_eos",
                         "classes" }
local CLASS <const> = { "name", "tenant", "share", "prompt", "output", "slo", "priority", "weight", "deadline_s", "predicted" }
local STREAMS <const> = { "arrivals", "prompts", "outputs", "classes", "predictions" }
-- Fields of `each` that a class has too, under the name it has there.
local OF_CLASS <const> = { class = "name", tenant = "tenant", slo = "slo", priority = "priority", weight = "weight",
                           deadline_s = "deadline_s" }
local MOST_TABLES <const>, MOST_DRAWN <const> = 1 << 24, (1 << 31) - 1

function source.with(...)
  local names = { ... }
  for _, name in ipairs(COMMON) do names[#names + 1] = name end
  return names
end

function source.seeds(what, t)
  local seed = check.integer(what, t, "seed", 0, math.maxinteger, 1)
  local own = t.seeds or {}
  check.fields(what .. ": seeds", own, STREAMS)
  local result = {}
  for _, name in ipairs(STREAMS) do result[name] = check.integer(what .. ": seeds", own, name, 0, math.maxinteger, seed) end
  return result
end

-- ── classes ────────────────────────────────────────────────────────────────────────────

-- A distribution, or nil; a bare number is a fixed length.
function source.length(what, name, value)
  if type(value) == "number" then value = lengths.fixed(value) end
  if value ~= nil and not lengths.is(value) then
    core.fail(("%s: \"%s\" should be a number of tokens or a distribution of them, not %s"):format(what, name, check.shown(value)))
  end
  return value
end

local function check_prompt(what, prompt)
  if type(prompt) == "number" then prompt = source.length(what, "prompt", prompt) end
  if prompt == nil or (type(prompt) == "table" and not lengths.is(prompt) and #prompt == 0) then
    core.fail(what .. ": \"prompt\" should be texts, messages or a distribution of lengths")
  end
  return prompt
end

-- predicted = true | "mean" | { noise = sigma, bias = mu } → kind, noise, bias
local function prediction_of(what, predicted)
  if not predicted then return "none" end
  if predicted == true then return "true" end
  if predicted == "mean" then return "mean" end
  if type(predicted) ~= "table" then
    core.fail(("%s: \"predicted\" should be true, \"mean\" or { noise = sigma, bias = mu }, not %s"):format(what, check.shown(predicted)))
  end
  local where = what .. ": predicted"
  check.fields(where, predicted, { "noise", "bias" })
  if predicted.noise == nil and predicted.bias == nil then
    core.fail(("%s says neither \"noise\" nor \"bias\"; write true for exact predictions"):format(where))
  end
  return "noisy", check.number(where, predicted, "noise", 0, 20, 0), check.number(where, predicted, "bias", -20, 20, 0)
end

local function optional(what, t, name, checked, ...)
  if t[name] ~= nil then return checked(what, t, name, ...) end
end

-- The class as it will be seen, every default filled in.
local function class_of(what, own, t, each)
  local c = {}
  for field, name in pairs(OF_CLASS) do
    c[name] = own[name]
    if c[name] == nil then c[name] = each[field] end
  end
  for _, name in ipairs { "prompt", "output", "predicted" } do
    c[name] = own[name]
    if c[name] == nil then c[name] = t[name] end
  end
  c.name, c.tenant = optional(what, c, "name", check.text), optional(what, c, "tenant", check.text)
  c.share = check.number(what, own, "share", 0, 1e9, 1)
  c.prompt, c.output = check_prompt(what, c.prompt), source.length(what, "output", c.output)
  c.priority = optional(what, c, "priority", check.integer, -(1 << 31), (1 << 31) - 1)
  c.weight = optional(what, c, "weight", check.number, 0.001, 1e6)
  c.deadline_s = optional(what, c, "deadline_s", check.number, 0, 9.2e9)
  if c.slo ~= nil then
    check.fields(what .. ": slo", c.slo, { "ttft", "tpot" })
    c.slo = { ttft = optional(what .. ": slo", c.slo, "ttft", check.number, 0, 9.2e9),
              tpot = optional(what .. ": slo", c.slo, "tpot", check.number, 0, 9.2e9) }
  end
  return c
end

local function classes_of(what, t, each)
  if t.classes == nil then return { class_of(what, {}, t, each) } end
  if type(t.classes) ~= "table" or #t.classes == 0 then
    core.fail(("%s: \"classes\" should be { { name = …, share = …, prompt = …, output = … }, … }, not %s"):format(what,
      type(t.classes) == "table" and "an empty table" or check.shown(t.classes)))
  end
  local classes = {}
  for i, own in ipairs(t.classes) do
    local where = ("%s: class %d"):format(what, i)
    check.fields(where, own, CLASS)
    classes[i] = class_of(where, own, t, each)
  end
  return classes
end

-- For core.workload: texts and absent outputs have lengths that nobody looks at.
local function drawn_classes(what, classes)
  local nobody, drawn = lengths.drawn_by(lengths.fixed(1)), {}
  for i, c in ipairs(classes) do
    local slo, kind, noise, bias = c.slo or {}, prediction_of(what, c.predicted)
    drawn[i] = { name = c.name, tenant = c.tenant, share = c.share, priority = c.priority, weight = c.weight,
                 deadline_s = c.deadline_s, ttft = slo.ttft, tpot = slo.tpot, prediction = kind, noise = noise, bias = bias,
                 prompt = lengths.is(c.prompt) and lengths.drawn_by(c.prompt) or nobody,
                 output = c.output and lengths.drawn_by(c.output) or nobody }
  end
  return drawn
end

-- What the run's row says of a prompt.
local function described(prompt)
  return lengths.is(prompt) and prompt or { kind = "given", prompts = type(prompt) == "table" and #prompt or 1 }
end

local function describe_classes(parameters, t, classes)
  if not t.classes then
    parameters.prompt, parameters.output = described(classes[1].prompt), classes[1].output
    return
  end
  parameters.classes = {}
  for i, c in ipairs(classes) do
    local copy = {}
    for k, v in pairs(c) do copy[k] = v end
    copy.prompt = described(c.prompt)
    parameters.classes[i] = copy
  end
end

-- ── requests, as tables ────────────────────────────────────────────────────────────────

local function put_text(what, request, c, number, chat)
  local item = c.prompt
  if type(item) == "table" then item = item[(number - 1) % #item + 1] end
  request.prompt_tokens = nil
  if type(item) == "table" then
    for k, v in pairs(item) do request[k] = v end
  elseif type(item) ~= "string" then
    core.fail(("%s: \"prompt\" should be texts, messages or a distribution of lengths, not %s"):format(what, check.shown(item)))
  elseif chat then
    request.messages = { { role = "user", content = item } }
  else
    request.prompt = item
  end
end

-- `rest`: fields of `each` that no class has.
local function tables_of(what, t, draw, classes, rest)
  local requests, class_numbers = draw:requests()
  local of_class = {}
  for i, request in ipairs(requests) do
    local number = class_numbers[i]
    local c = classes[number]
    local output, predicted = c.output and request.output_tokens, c.output and request.predicted
    of_class[number] = (of_class[number] or 0) + 1
    request.output_tokens, request.predicted = nil, nil
    for k, v in pairs(rest) do request[k] = v end
    if not lengths.is(c.prompt) then put_text(what, request, c, of_class[number], t.chat) end
    request.output_tokens = output or request.output_tokens
    request.predicted = predicted or request.predicted
    request.max_tokens = request.max_tokens or t.max_tokens
    if t.ignore_eos then request.ignore_eos = true end
  end
  return requests
end

-- ── the whole ──────────────────────────────────────────────────────────────────────────

-- `arrivals`: fields of core.workload that say when. `parameters`: for the run's row, beside what
-- every workload has. `extra`: fields of the result.
function source.build(what, t, arrivals, parameters, extra)
  local each, rest = t.each or {}, {}
  for k, v in pairs(each) do
    if not OF_CLASS[k] then rest[k] = v end
  end
  local classes, drawable = classes_of(what, t, each), next(rest) == nil
  for _, c in ipairs(classes) do drawable = drawable and lengths.is(c.prompt) and c.output ~= nil end
  local texts = not t.classes and type(t.prompt) == "table" and not lengths.is(t.prompt) and #t.prompt or nil
  local count = check.integer(what, t, "requests", 1, drawable and MOST_DRAWN or MOST_TABLES, texts)
  local seeds = source.seeds(what, t)

  local description = { what = what, requests = count, seeds = seeds, classes = drawn_classes(what, classes) }
  for k, v in pairs(arrivals) do description[k] = v end
  description.requests = count
  local draw = core.workload(description)

  parameters.seeds, parameters.max_tokens, parameters.chat, parameters.predicted = seeds, t.max_tokens, t.chat, t.predicted
  describe_classes(parameters, t, classes)
  local result = { name = extra.name, parameters = parameters, concurrency = extra.concurrency, think = extra.think,
                   source = extra.source }
  if not drawable then
    result.requests = tables_of(what, t, draw, classes, rest)
    return result
  end
  result.draw = draw
  return setmetatable(result, { __index = function(self, name)
    if name ~= "requests" then return nil end
    local requests = tables_of(what, t, draw, classes, rest)
    rawset(self, "requests", requests)
    return requests
  end })
end

return source
