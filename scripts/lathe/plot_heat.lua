-- SPDX-License-Identifier: MIT
-- plot.heat, and of a run's attention plot.heads (layer by head) and plot.attention (token by token).
local check   = require "lathe.check"
local core    = require "lathe.core"
local gnuplot = require "lathe.plot_gnuplot"

local heat = {}

-- Light to dark, the lightness falling evenly: reads in grey, too (ColorBrewer's YlGnBu, Brewer 2003).
local palette <const> = "set palette defined (0 '#ffffd9', 1 '#edf8b1', 2 '#c7e9b4', 3 '#7fcdbb', 4 '#41b6c4', 5 '#1d91c0', " ..
  "6 '#225ea8', 7 '#253494', 8 '#081d58')"
local max_names <const> = 64 -- of ticks that can be read
local max_rectangles <const> = 10000 -- cells with edges of their own, sharp at any size; more are one image

-- rows[i][k] is the value in row i, column k; nil is a gap.
function heat.program(wishes, what)
  what = what or "plot.heat"
  check.fields(what, wishes, { "file", "title", "x", "y", "width", "height", "rows", "columns", "x_ticks", "y_ticks", "label", "down",
                               "from", "to", "log" })
  local rows = wishes.rows
  if type(rows) ~= "table" or #rows == 0 then
    core.fail(("%s: \"rows\" should be an array of rows, not %s"):format(what, check.shown(rows)))
  end
  local columns = wishes.columns or 0
  if columns == 0 then
    for _, row in ipairs(rows) do columns = math.max(columns, #row) end
  end
  if columns == 0 then core.fail(what .. ": there is no cell to draw") end
  local cells, any = {}, false
  for i = 1, #rows do
    for k = 1, columns do
      cells[#cells + 1] = { k - 1, i - 1, rows[i][k] or 0 / 0 }
      any = any or rows[i][k] ~= nil
    end
  end
  if not any then core.fail(what .. ": there is no cell to draw") end
  local named = wishes.y_ticks and 80 or 0 -- room for them
  local out = gnuplot.head(what, wishes, math.min(1600, 220 + named + math.max(360, columns * 14)),
    math.min(1600, 150 + math.max(300, #rows * 14)), false)
  table.move({
    palette, "unset key", "unset grid", "set border 15 lc rgb '#999999'",
    ("set xrange [-0.5:%g]"):format(columns - 0.5),
    ("set yrange [%s]"):format((wishes.down and "%g:-0.5" or "-0.5:%g"):format(#rows - 0.5)),
    "set cbrange " .. gnuplot.range(wishes.from, wishes.to), "set cblabel " .. gnuplot.quoted(wishes.label or ""),
    "set object 1 rectangle from graph 0,0 to graph 1,1 behind fc rgb '#d9d9d9' fs solid noborder",
  }, 1, 9, #out + 1, out)
  if wishes.log then out[#out + 1] = "set logscale cb" end
  if wishes.x_ticks and #wishes.x_ticks <= max_names then
    out[#out + 1] = gnuplot.ticks("x", wishes.x_ticks, 0, "rotate by 60 right font ',9'")
  end
  if wishes.y_ticks and #wishes.y_ticks <= max_names then out[#out + 1] = gnuplot.ticks("y", wishes.y_ticks, 0, "font ',9'") end
  out[#out + 1] = gnuplot.block("cells", cells)
  out[#out + 1] = "plot $cells using 1:2:3 with image" .. (#cells <= max_rectangles and " pixels" or "")
  return out
end

function heat.draw(wishes)
  return gnuplot.draw("plot.heat", wishes.file, heat.program(wishes))
end

local measures <const> = { first_mass = "weight on the first token", recent_mass = "weight on the recent window",
                           self_mass = "weight on the token itself", entropy = "entropy, nats", top_weight = "largest weight" }

local function run_of(what, wishes)
  local ok, id = pcall(function() return wishes.run.id end)
  if not ok or type(id) ~= "number" then core.fail(what .. ": \"run\" should be what lathe.run returned") end
  return wishes.run
end

-- { run = r, measure = "first_mass", request = 1, file = … }: the mean over the queries, of one request or all.
function heat.heads(wishes)
  local what <const> = "plot.heads"
  check.fields(what, wishes, { "run", "measure", "request", "file", "title", "width", "height", "from", "to", "rows" })
  local measure = check.text(what, wishes, "measure", "first_mass")
  if not measures[measure] then
    local names = {}
    for name in pairs(measures) do names[#names + 1] = name end
    table.sort(names)
    core.fail(("%s: \"measure\" is one of %s, not \"%s\""):format(what, table.concat(names, ", "), measure))
  end
  local request = wishes.request and check.integer(what, wishes, "request", 1, 2 ^ 53)
  local found = run_of(what, wishes):query(([[select layer, head, avg(%s) as value from attention
    where run_id = :run and position > 0 %s group by layer, head]]):format(measure, request and "and request_id = :request" or ""),
    { request = request })
  if #found == 0 then core.fail(what .. ": this run has no attention rows; trace = { attention = \"summary\" } records them") end
  local rows, columns = {}, 0
  for _, cell in ipairs(found) do
    for layer = #rows, cell.layer do rows[layer + 1] = rows[layer + 1] or {} end
    rows[cell.layer + 1][cell.head + 1] = cell.value
    columns = math.max(columns, cell.head + 1)
  end
  return gnuplot.draw(what, wishes.file, heat.program({ file = wishes.file,
    title = wishes.title or measures[measure] .. ", mean over queries", x = "head", y = "layer", rows = rows, columns = columns,
    label = measures[measure], width = wishes.width, height = wishes.height, from = wishes.from, to = wishes.to }, what))
end

-- { run = r, request = 1, layer = 3, head = 2, file = … }: a row a query, a column a key. Needs a probe of format full or top.
function heat.attention(wishes)
  local what <const> = "plot.attention"
  check.fields(what, wishes, { "run", "request", "layer", "head", "file", "title", "width", "height", "from", "to", "log" })
  local r, at = run_of(what, wishes), {}
  at.request = check.integer(what, wishes, "request", 1, 2 ^ 53)
  at.layer, at.head = check.integer(what, wishes, "layer", 0, 65535), check.integer(what, wishes, "head", 0, 65535)
  local found = r:query([[select position, key, weight from attention_weights
    where run_id = :run and request_id = :request and layer = :layer and head = :head]], at)
  if #found == 0 then
    core.fail(("%s: this run has no weights of layer %d, head %d of request %d; trace = { attention = \"full\" } records them"):format(what,
      at.layer, at.head, at.request))
  end
  local first, last, keys = math.huge, 0, 0
  for _, w in ipairs(found) do first, last, keys = math.min(first, w.position), math.max(last, w.position), math.max(keys, w.key) end
  local rows, names = {}, {}
  for i = first, last do rows[i - first + 1] = {} end
  for _, w in ipairs(found) do rows[w.position - first + 1][w.key + 1] = w.weight end
  for _, token in ipairs(r:query([[select t.position, x.text from token t join token_text x using (run_id, token)
    where t.run_id = :run and t.request_id = :request]], { request = at.request })) do
    names[token.position] = token.text
  end
  local function ticks(from, to)
    local out = {}
    for i = from, to do out[#out + 1] = ("%s %d"):format(names[i] or "", i) end
    return out
  end
  return gnuplot.draw(what, wishes.file, heat.program({ file = wishes.file, x = "key", y = "query", label = "weight", down = true,
    title = wishes.title or ("layer %d, head %d: what each query looked at"):format(at.layer, at.head), rows = rows, columns = keys + 1,
    x_ticks = ticks(0, keys), y_ticks = ticks(first, last), width = wishes.width, height = wishes.height,
    from = wishes.from or (not wishes.log and 0 or nil), to = wishes.to, log = wishes.log }, what))
end

return heat
