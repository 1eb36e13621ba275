-- SPDX-License-Identifier: MIT
-- plot.lines and plot.ecdf.
local check   = require "lathe.check"
local core    = require "lathe.core"
local gnuplot = require "lathe.plot_gnuplot"

local lines = {}

local fields <const> = { "file", "title", "x", "y", "log", "width", "height", "lines", "ticks", "marks", "band", "points", "from", "to" }

local function check_lines(what, wishes)
  local all, most = wishes.lines, 0
  if type(all) ~= "table" then core.fail(("%s: \"lines\" should be an array of lines, not %s"):format(what, check.shown(all))) end
  for i, line in ipairs(all) do
    if type(line) ~= "table" then core.fail(("%s: line %d should be an array of { x, y } or { x, y, low, high }"):format(what, i)) end
    for k, point in ipairs(line) do
      if type(point) ~= "table" or type(point[1]) ~= "number" or type(point[2]) ~= "number" then
        core.fail(("%s: line %d, point %d: { x, y } or { x, y, low, high } is expected"):format(what, i, k))
      end
    end
    most = math.max(most, #line)
  end
  if most == 0 then core.fail(what .. ": there is no point to draw") end
end

-- From the data, a little beyond it; to zero where that is near enough to be of interest. gnuplot's own would round to ticks.
local function range(low, high, log, margin)
  if log then return ("[%s:%s]"):format(gnuplot.number(low / 1.1), gnuplot.number(high * 1.1)) end
  local room = high > low and (high - low) * margin or math.max(1, math.abs(high)) * 0.5
  local from = (low >= 0 and low < 0.5 * high) and 0 or low - room
  return ("[%s:%s]"):format(gnuplot.number(from), gnuplot.number(high + room))
end

local function ranges(wishes, log)
  local x, y = { math.huge, -math.huge }, { math.huge, -math.huge }
  for _, line in ipairs(wishes.lines) do
    for _, p in ipairs(line) do
      x[1], x[2] = math.min(x[1], p[1]), math.max(x[2], p[1])
      for k = 2, 4 do
        local value = p[k]
        if value and (value > 0 or not log:find "y") then y[1], y[2] = math.min(y[1], value), math.max(y[2], value) end
      end
    end
  end
  local out = {}
  local named = wishes.ticks and ("[0.7:%g]"):format(#wishes.ticks + 0.3)
  if named or x[1] > 0 or not log:find "x" then out[1] = "set xrange " .. (named or range(x[1], x[2], log:find "x", 0.03)) end
  if wishes.from or wishes.to then
    out[#out + 1] = "set yrange " .. gnuplot.range(wishes.from, wishes.to)
  elseif y[2] >= y[1] then
    out[#out + 1] = "set yrange " .. range(y[1], y[2], log:find "y", 0.05)
  end
  return table.concat(out, "\n")
end

function lines.program(wishes, what)
  what = what or "plot.lines"
  check.fields(what, wishes, fields)
  check_lines(what, wishes)
  local out, parts = gnuplot.head(what, wishes), {}
  out[#out + 1] = ranges(wishes, wishes.log == true and "y" or wishes.log or "")
  if wishes.ticks then out[#out + 1] = gnuplot.ticks("x", wishes.ticks) end
  for _, at in ipairs(wishes.marks or {}) do parts[#parts + 1] = gnuplot.number(at) .. " notitle lc rgb '#999999' dt 2 lw 1" end
  for i, line in ipairs(wishes.lines) do
    if #line > 0 then
      local name, rows, interval = "line" .. i, {}, false
      for k, p in ipairs(line) do
        rows[k] = { p[1], p[2], p[3] or p[2], p[4] or p[2] }
        interval = interval or p[3] ~= nil
      end
      out[#out + 1] = gnuplot.block(name, rows)
      local colour = (i - 1) % #gnuplot.colours + 1
      local style = ("%s lt %d"):format(line.title and "title " .. gnuplot.quoted(line.title) or "notitle", colour)
      if interval and wishes.band then
        parts[#parts + 1] = ("$%s using 1:3:4 with filledcurves notitle lt %d fs transparent solid 0.18 noborder"):format(name, colour)
      end
      if interval and not wishes.band then
        parts[#parts + 1] = ("$%s using 1:2:3:4 with yerrorlines %s"):format(name, style)
      else
        parts[#parts + 1] = ("$%s using 1:2 with %s %s"):format(name, wishes.points == false and "lines" or "linespoints", style)
      end
    end
  end
  out[#out + 1] = "plot " .. table.concat(parts, ", ")
  return out
end

function lines.draw(wishes)
  return gnuplot.draw("plot.lines", wishes.file, lines.program(wishes))
end

-- The Dvoretzky–Kiefer–Wolfowitz inequality with Massart's constant (1990): the whole distribution lies within
-- this of the empirical one with that probability, whatever it is.
local function half_width(n, level) return math.sqrt(math.log(2 / (1 - level)) / (2 * n)) end

local max_steps <const> = 1500 -- of one curve; more than a picture has columns

local function steps_of(values, level)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local n, rows = #sorted, {}
  local half, every = half_width(n, level), math.max(1, n // max_steps)
  local before = 0
  for i = 1, n do
    if (i % every == 0 or i == n or i == 1) and sorted[i + 1] ~= sorted[i] then
      for _, share in ipairs { before, i / n } do -- up at the value: a step
        rows[#rows + 1] = { sorted[i], share, math.max(0, share - half), math.min(1, share + half) }
      end
      before = i / n
    end
  end
  return rows
end

function lines.ecdf_program(wishes)
  local what <const> = "plot.ecdf"
  check.fields(what, wishes, { "file", "title", "x", "log", "width", "height", "samples", "level" })
  if type(wishes.samples) ~= "table" or #wishes.samples == 0 then
    core.fail(("%s: \"samples\" should be an array of { title = …, numbers … }, not %s"):format(what, check.shown(wishes.samples)))
  end
  local curves, level = {}, check.number(what, wishes, "level", 0.5, 0.9999, 0.95)
  for i, sample in ipairs(wishes.samples) do
    check.samples(("%s: sample %d"):format(what, i), sample, 1)
    curves[i] = steps_of(sample, level)
    curves[i].title = ("%s (n = %d)"):format(sample.title or "sample " .. i, #sample)
  end
  return lines.program({ file = wishes.file, title = wishes.title, x = wishes.x, y = "share of all", log = wishes.log, width = wishes.width,
    height = wishes.height, lines = curves, band = true, points = false, from = 0, to = 1 }, what)
end

function lines.ecdf(wishes)
  return gnuplot.draw("plot.ecdf", wishes.file, lines.ecdf_program(wishes))
end

return lines
