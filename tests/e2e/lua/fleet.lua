-- Replicas in real time, on a bus whose workers run at once: whatever the router, the same tokens come
-- out, everybody is served, and `central` holds requests back while all places are taken.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local REQUESTS <const>, REPLICAS <const> = 24, 3
local model = lathe.model { "tiny", delay_us = 300 }

local function fleet(router, fields)
  local d = { model = model, router = router, replicas = REPLICAS, bus = "async", seed = 1, label = "fleet", workload = {},
              sampler = { "topp", temperature = 1.0 }, engine = { context_tokens = 256 }, trace = { rows = "requests" } }
  for i = 1, REQUESTS do
    d.workload[i] = { at = 0.0005 * i, prompt = ("request %d "):format(i):rep(1 + i % 4), output_tokens = 3 + i % 7, tenant = "t" .. i % 5,
                      session = 1 + i % 6, turn = i // 6 }
  end
  for k, v in pairs(fields or {}) do d[k] = v end
  local r <close>, texts = lathe.fleet(d), {}
  for i, o in ipairs(r:outputs()) do
    t.equal(o.error, nil, "error of request " .. i)
    texts[i] = table.concat(o.tokens, " ")
  end
  local rows = r:query "select replica, session, tenant, arrival_ns, planned_ns, finish_ns from request where run_id = :run"
  t.equal(#rows, REQUESTS)
  return table.concat(texts, "|"), rows
end

local function replicas_of(rows, column)
  local seen = {}
  for _, row in ipairs(rows) do
    seen[row[column]] = seen[row[column]] or { count = 0 }
    local of = seen[row[column]]
    if not of[row.replica] then of[row.replica], of.count = true, of.count + 1 end
  end
  return seen
end

-- The most requests that one replica had at a time.
local function most_at_once(rows)
  local most = 0
  for _, a in ipairs(rows) do
    local together = 0
    for _, b in ipairs(rows) do
      if b.replica == a.replica and b.arrival_ns <= a.arrival_ns and b.finish_ns > a.arrival_ns then together = together + 1 end
    end
    most = math.max(most, together)
  end
  return most
end

local alone = fleet("least_loaded", { replicas = 1, bus = "direct" })
for _, bus in ipairs { "async", "direct", "sync" } do
  for _, router in ipairs { "p2c", "prefix", { "split", sticky = "tenant" }, { "split", weights = "0:3,1:1" }, "central",
                            { "central", places = 2 }, "round_robin", "random", "least_loaded" } do
    local name = bus .. ", " .. (type(router) == "table" and router[1] or router)
    local texts, rows = fleet(router, { bus = bus })
    t.equal(texts, alone, "tokens by " .. name)
    local first = type(router) == "table" and router or { router }
    if first.sticky then
      for tenant, of in pairs(replicas_of(rows, "tenant")) do t.equal(of.count, 1, name .. ": replicas of tenant " .. tenant) end
    elseif first.weights then
      for _, row in ipairs(rows) do t.truth(row.replica < 2, name .. ": the third has no weight") end
    elseif first[1] == "central" then
      t.truth(most_at_once(rows) <= (first.places or 1), ("%s: %d at once"):format(name, most_at_once(rows)))
    end
    local used = 0
    for _ in pairs(replicas_of(rows, "replica")) do used = used + 1 end
    t.truth(used >= 2, name .. " uses several replicas")
  end
end

-- All at once, more than there are places, and one place altogether: first come, first served.
local burst = {}
for i = 1, REQUESTS do burst[i] = { prompt = "at once " .. i, output_tokens = 4 } end
local _, rows = fleet("central", { workload = burst, replicas = 2 })
t.truth(most_at_once(rows) <= 1, "one at a time on each")
local held = 0
for _, row in ipairs(rows) do held = held + (row.arrival_ns - row.planned_ns > 1e6 and 1 or 0) end
t.truth(held >= REQUESTS - 4, held .. " were held back for a millisecond at least")

-- A closed loop with more users than places.
local users = { requests = {}, concurrency = 5, think = 0 }
for i = 1, REQUESTS do users.requests[i] = { prompt = "user " .. i, output_tokens = 3 } end
local _, of_users = fleet("central", { workload = users, replicas = 2 })
t.truth(most_at_once(of_users) <= 1, "users wait, too")

-- By hand: a post that is held back says so, and is taken when another has ended.
local e <close> = lathe.engine { model = model, bus = "async", router = "central", workers = { model = 2 } }
local posts = { e:post { prompt = "one", output_tokens = 5 }, e:post { prompt = "two", output_tokens = 5 } }
local none, why, code = e:post { prompt = "three", output_tokens = 5 }
t.equal(none, nil, "a third post")
t.truth(why:find "router/central holds the request back" and code < 0, why)
t.equal(#posts[1]:await().tokens, 5)
posts[3] = e:post { prompt = "three", output_tokens = 5 }
for i = 2, 3 do t.equal(#posts[i]:await().tokens, 5, "post " .. i) end
