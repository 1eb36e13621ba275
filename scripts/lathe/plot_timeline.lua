-- SPDX-License-Identifier: MIT
-- plot.timeline: bars over time on tracks of their own; of a run, its steps and requests.
local check   = require "lathe.check"
local core    = require "lathe.core"
local gnuplot = require "lathe.plot_gnuplot"

local timeline = {}

local max_tracks <const> = 200 -- of one picture; more can't be told apart
-- What requests and steps do keeps its colour from picture to picture.
local known <const> = { queue = 7, prefill = 2, decode = 1, preempted = 5, swapped = 4, ["prefill and decode"] = 3 }

-- { file = …, tracks = { { name = "request 1", { from, to, "prefill" }, … }, … } }: the first track on top.
function timeline.program(wishes, what)
  what = what or "plot.timeline"
  check.fields(what, wishes, { "file", "title", "x", "width", "height", "tracks", "from", "to" })
  local tracks = wishes.tracks
  if type(tracks) ~= "table" or #tracks == 0 then core.fail(what .. ": there is no track to draw") end
  if #tracks > max_tracks then
    core.fail(("%s: %d tracks are more than %d; take fewer requests or a shorter window"):format(what, #tracks, max_tracks))
  end
  local kinds, bars, names, low, high = {}, {}, {}, math.huge, -math.huge
  for i, track in ipairs(tracks) do
    names[i] = track.name or "track " .. i
    for k, bar in ipairs(track) do
      if type(bar) ~= "table" or type(bar[1]) ~= "number" or type(bar[2]) ~= "number" then
        core.fail(("%s: track %d, bar %d: { from, to, \"kind\" } is expected"):format(what, i, k))
      end
      low, high = math.min(low, bar[1]), math.max(high, bar[2])
      local kind = bar[3] or ""
      if not bars[kind] then
        bars[kind] = {}
        kinds[#kinds + 1] = kind
      end
      table.insert(bars[kind], { (bar[1] + bar[2]) / 2, i, bar[1], bar[2], i - 0.4, i + 0.4 })
    end
  end
  if #kinds == 0 then core.fail(what .. ": there is no bar to draw") end
  if high <= low then high = low + 1e-9 end
  if low > 0 and low < 0.05 * high then low = 0 end
  table.sort(kinds)
  local out, parts = gnuplot.head(what, wishes, 1000, math.max(220, math.min(1600, 130 + 18 * #tracks))), {}
  out[#out + 1] = "set xlabel " .. gnuplot.quoted(wishes.x or "seconds")
  out[#out + 1] = gnuplot.ticks("y", names, 1, #names > 60 and "font ',6'" or "font ',9'")
  out[#out + 1] = ("set yrange [%g:0.4]"):format(#tracks + 0.6)
  out[#out + 1] = ("set xrange [%s:%s]"):format(gnuplot.number(wishes.from or low), gnuplot.number(wishes.to or high + 0.01 * (high - low)))
  out[#out + 1] = "set style fill solid 0.85 noborder"
  local free = 0
  for i, kind in ipairs(kinds) do
    local colour = known[kind]
    if not colour then
      free = free + 1
      colour = (free - 1) % #gnuplot.colours + 1
    end
    out[#out + 1] = gnuplot.block("kind" .. i, bars[kind])
    parts[i] = ("$kind%d using 1:2:3:4:5:6 with boxxyerror lt %d %s"):format(i, colour,
      kind == "" and "notitle" or "title " .. gnuplot.quoted(kind))
  end
  out[#out + 1] = "plot " .. table.concat(parts, ", ")
  return out
end

local step_query <const> = [[select replica, start_ns / 1e9 as "from", end_ns / 1e9 as "to",
    case when prefill_tokens = 0 then 'decode' when decode_tokens = 0 then 'prefill' else 'prefill and decode' end as kind
  from step where run_id = :run and end_ns >= :from and start_ns <= :to order by replica, start_ns]]

-- Waiting, and before and after its first token: what it did in each step is in lathe export --format chrome.
local request_query <const> = [[select q.id, max(p.from_ns, q.planned_ns) / 1e9 as "from", p.to_ns / 1e9 as "to", p.state,
    q.first_token_ns / 1e9 as first
  from request q join request_span p on p.run_id = q.run_id and p.request_id = q.id
  where q.run_id = :run and p.to_ns >= :from and p.from_ns <= :to order by q.id, p.from_ns]]

-- { run = r, from = 0, to = 2, file = … }, in seconds.
function timeline.tracks_of(what, wishes)
  local ok, id = pcall(function() return wishes.run.id end)
  if not ok or type(id) ~= "number" then core.fail(what .. ": \"run\" should be what lathe.run returned") end
  local window = { from = (wishes.from or -1e6) * 1e9, to = (wishes.to or 9e9) * 1e9 }
  local tracks, by_name = {}, {}
  local function track(name)
    if not by_name[name] then
      by_name[name] = { name = name }
      tracks[#tracks + 1] = by_name[name]
    end
    return by_name[name]
  end
  for _, s in ipairs(wishes.run:query(step_query, window)) do
    table.insert(track("steps, replica " .. s.replica), { s.from, s.to, s.kind })
  end
  for _, p in ipairs(wishes.run:query(request_query, window)) do
    local bars = track("request " .. p.id)
    if p.state ~= "running" then
      bars[#bars + 1] = { p.from, p.to, p.state == "waiting" and "queue" or p.state }
    else
      local first = math.max(p.from, math.min(p.first or p.to, p.to))
      if first > p.from then bars[#bars + 1] = { p.from, first, "prefill" } end
      if first < p.to then bars[#bars + 1] = { first, p.to, "decode" } end
    end
  end
  return tracks
end

function timeline.draw(wishes)
  local what <const> = "plot.timeline"
  check.fields(what, wishes, { "file", "title", "x", "width", "height", "tracks", "from", "to", "run" })
  if wishes.run then
    local own = {}
    for k, v in pairs(wishes) do own[k] = v end
    own.tracks, own.run = timeline.tracks_of(what, wishes), nil
    wishes = own
  end
  return gnuplot.draw(what, wishes.file, timeline.program(wishes, what))
end

return timeline
