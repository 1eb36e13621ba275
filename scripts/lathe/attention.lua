-- SPDX-License-Identifier: MIT
-- What heads look at, of a run that recorded it: which are sinks, induction heads, previous-token heads; how focused layers are;
-- how alike two runs' heads are; what the keys that a cache dropped would have weighed.
--
--   local attention = require "lathe.attention"
--   attention.sinks(r[, { from = 64, requests = { 1, 2 } }])  → { { layer, head, first_mass, uniform, times_uniform, queries }, … }
--   attention.induction(r)                                    → { { layer, head, score, queries }, … }, the most first
--   attention.previous(r)                                     → likewise, of the token before
--   attention.depth(r)                                        → { { layer, entropy, least, most, heads, queries }, … }, nats
--   attention.similarity(a, b)                                → { { layer, head, divergence, cosine, queries }, … }, the least alike first
--   attention.evicted(r, full)                                → { { layer, head, queries, evicted_keys, evicted_mass, most }, … }
--   attention.repeated { vocabulary = n, length = 64, count = 50, seed = 1, first = 17 }   → { { ids }, … }, each said twice
--   attention.remove(heads[, "uniform"])                      → interventions that remove heads: the output is 0, or the mean of the
--                                                               values that it could have looked at
--
-- The questions are views of schemas/007_questions.sql where there is one; what probes they need stands there. `sinks` needs
-- summaries or whole rows, `similarity` whole rows of `a`, and of `b` whole rows or all its keys by format top. Two runs are
-- compared where both are in one database (`lathe merge` joins two), request by request of the same number.
local check  = require "lathe.check"
local core   = require "lathe.core"
local random = require "lathe.random"

local attention = {}

local function ask(what, r, needs, sql, ...)
  local asked = type(r) == "userdata" and pcall(function() return r.id end) and math.type(r.id) == "integer"
  if not asked then core.fail(("%s: takes a run, as lathe.run gives it, not %s"):format(what, check.shown(r))) end
  local rows = r:query(sql, ...)
  if #rows == 0 then core.fail(("%s: run %d has no rows for it: %s"):format(what, r.id, needs)) end
  return rows
end

local FULL <const> = "it needs trace = { attention = \"full\" or { \"top\", … }, tokens = \"all\" }"

-- " and request_id in (1, 2)" of the workload's requests
local function only(what, requests)
  if requests == nil then return "" end
  if type(requests) ~= "table" or #requests == 0 then core.fail(what .. ": \"requests\" should be an array of numbers") end
  for i, n in ipairs(requests) do
    if math.type(n) ~= "integer" then
      core.fail(("%s: request %d of the list should be a whole number, not %s"):format(what, i, check.shown(n)))
    end
  end
  return (" and request_id in (%s)"):format(table.concat(requests, ", "))
end

function attention.sinks(r, wishes)
  local what <const> = "attention.sinks"
  wishes = wishes or {}
  check.fields(what, wishes, { "from", "requests" })
  local from = check.integer(what, wishes, "from", 1, 1 << 30, 64)
  return ask(what, r, ("it needs summaries or whole rows of positions from %d on"):format(from),
    ([[select layer, head, avg(first_mass) as first_mass, avg(1.0 / (position + 1)) as uniform,
         avg(first_mass) / avg(1.0 / (position + 1)) as times_uniform, avg(entropy) as entropy, count(*) as queries
       from attention where run_id = :run and position >= %d and first_mass is not null%s
       group by layer, head order by first_mass desc]]):format(from, only(what, wishes.requests)))
end

function attention.induction(r)
  return ask("attention.induction", r, FULL .. ", and tokens that come again", [[select layer, head, score, queries
    from which_heads_look_at_the_token_after_the_previous_occurrence where run_id = :run order by score desc, layer, head]])
end

function attention.previous(r)
  return ask("attention.previous", r, FULL,
    "select layer, head, score, queries from which_heads_look_at_the_previous_token where run_id = :run order by score desc, layer, head")
end

function attention.depth(r)
  return ask("attention.depth", r, "it needs trace = { attention = \"summary\" }",
    "select layer, entropy, least, most, heads, queries from entropy_by_depth where run_id = :run order by layer")
end

local function together(what, a, b)
  ask(what, b, "it is not recorded", "select 1 from run where id = :run")
  if a.database ~= b.database then
    core.fail(("%s: the runs are in two databases, %s and %s; `lathe merge` joins them"):format(what, a.database, b.database))
  end
end

-- Rows are compared query by query: Jensen–Shannon divergence in nats (0 alike, ln 2 = 0.69 nothing in common) and cosine;
-- means over queries. Keys that `b` lacks weigh 0 there.
function attention.similarity(a, b)
  local what <const> = "attention.similarity"
  together(what, a, b)
  return ask(what, a, FULL .. " of both, of requests with the same numbers", [[
    select layer, head, avg(divergence) as divergence, avg(cosine) as cosine, count(*) as queries from (
      select w.layer, w.head, jensen_shannon(w.weight, v.weight) as divergence, cosine(w.weight, v.weight) as cosine
        from attention_token s
        join probe p on p.run_id = s.run_id and p.id = s.probe_id and p.format = 'full' and p.measure = 'weight'
        join attention_token t on t.run_id = ? and t.request_id = s.request_id and t.position = s.position
        join probe q on q.run_id = t.run_id and q.id = t.probe_id and q.measure = 'weight'
             and (q.format = 'full' and t.keys = t.position + 1 or q.format = 'top' and t.keys <= q.top_k)
        cross join attention_weights w on w.run_id = s.run_id and w.request_id = s.request_id and w.position = s.position
             and w.probe_id = s.probe_id
        left join attention_weights v on v.run_id = t.run_id and v.request_id = t.request_id and v.position = t.position
             and v.probe_id = t.probe_id and v.layer = w.layer and v.head = w.head and v.key = w.key
       where s.run_id = :run and s.keys = s.position + 1
       group by s.request_id, s.position, s.probe_id, t.probe_id, w.layer, w.head)
     where divergence is not null group by layer, head order by divergence desc, layer, head]], b.id)
end

function attention.evicted(r, full)
  local what <const> = "attention.evicted"
  together(what, r, full)
  return ask(what, r, "it needs a probe of format top that lists all the keys that the cache kept, whole rows of the other run, " ..
    "and the same tokens in both",
    [[select layer, head, queries, evicted_keys, evicted_mass, most from what_would_an_evicted_key_have_weighed
       where run_id = :run and full_run_id = ? order by evicted_mass desc, layer, head]], full.id)
end

-- Sequences of different random tokens from `first` to `vocabulary` − 1, each said twice.
function attention.repeated(wishes)
  local what <const> = "attention.repeated"
  check.fields(what, wishes, { "vocabulary", "length", "count", "seed", "first" })
  local vocabulary = check.integer(what, wishes, "vocabulary", 2, 1 << 31)
  local first = check.integer(what, wishes, "first", 0, vocabulary - 1, 0)
  local length = check.integer(what, wishes, "length", 2, vocabulary - first, math.min(64, vocabulary - first))
  local count, seed = check.integer(what, wishes, "count", 1, 1 << 20, 50), check.integer(what, wishes, "seed", 0, math.maxinteger, 1)
  local sequences = {}
  for i = 1, count do
    local ids, seen, draw = {}, {}, 0
    while #ids < length do
      local id = first + math.floor(random.unit(seed, random.USER, i, draw) * (vocabulary - first))
      draw = draw + 1
      if not seen[id] then
        seen[id] = true
        ids[#ids + 1] = id
      end
    end
    sequences[i] = table.move(ids, 1, length, length + 1, ids)
  end
  return sequences
end

function attention.remove(heads, how)
  local what <const> = "attention.remove"
  if type(heads) ~= "table" then core.fail(what .. ": takes an array of heads, { { layer = 5, head = 3 }, … }") end
  if how ~= nil and how ~= "zero" and how ~= "uniform" then core.fail(what .. ": heads are removed to \"zero\" or made \"uniform\"") end
  local of, layers = {}, {}
  for i, h in ipairs(heads) do
    if type(h) ~= "table" then core.fail(("%s: head %d should be { layer = …, head = … }, not %s"):format(what, i, check.shown(h))) end
    local layer, head = check.integer(what, h, "layer", 0, 255), check.integer(what, h, "head", 0, 255)
    if not of[layer] then
      of[layer] = {}
      layers[#layers + 1] = layer
    end
    table.insert(of[layer], head)
  end
  table.sort(layers)
  local list = {}
  for i, layer in ipairs(layers) do
    table.sort(of[layer])
    list[i] = how == "uniform" and { "head_uniform", layers = { layer }, heads = of[layer] }
      or { "head_scale", layers = { layer }, heads = of[layer], factor = 0 }
  end
  return list
end

return attention
