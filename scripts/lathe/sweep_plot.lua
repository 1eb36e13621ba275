-- SPDX-License-Identifier: MIT
-- s:plot { x = "rate", y = "ttft_p50_ms", by = "scheduler", file = "x.svg", title = …, log = true }: means over
-- seeds with their 95% intervals as bars, drawn by lathe.plot into an SVG or PNG.
--
-- A line for each value of `by`, and for each combination of the factors that neither axis names. An x
-- that is no number makes groups in the grid's order. Without gnuplot: nil and a sentence, no error; the
-- figures are in s:table and s:export all the same.
local check   = require "lathe.check"
local core    = require "lathe.core"
local gnuplot = require "lathe.plot_gnuplot"
local drawing = require "lathe.plot_lines"

local plot = {}

local function label(value)
  if type(value) == "table" then return core.json_encode(value) end
  return tostring(value)
end

local function read(sweep_result, wishes)
  local what <const>, names = "sweep:plot", sweep_result.sweep.names
  check.fields(what, wishes, { "x", "y", "by", "file", "title", "log" })
  local function factor(field)
    if wishes[field] == nil then return nil end
    local name = check.text(what, wishes, field)
    for _, known in ipairs(names) do
      if known == name then return name end
    end
    local near = core.nearest(name, names)
    core.fail(("%s: \"%s\" should be a factor of the grid (%s), not \"%s\"%s"):format(what, field, table.concat(names, ", "), name,
      near and (", did you mean \"%s\"?"):format(near) or ""))
  end
  local x = factor "x" or core.fail(what .. ": \"x\" should name a factor of the grid")
  return x, sweep_result:check_metric(what, wishes.y), factor "by", check.text(what, wishes, "file")
end

-- Lines in the grid's order: { title = …, { x, mean, low, high }, … }; and the groups of an x that is no number.
local function lines_of(self, x, y, by)
  local lines, by_title, groups, place = {}, {}, {}, {}
  local numeric = true
  for _, point in ipairs(self.sweep.points) do numeric = numeric and type(point.factors[x]) == "number" end
  for _, point in ipairs(self.sweep.points) do
    local ci, words = self:mean(point.key, y), {}
    if by then words[1] = label(point.factors[by]) end
    for _, name in ipairs(self.sweep.names) do
      if name ~= x and name ~= by then words[#words + 1] = (by and name .. " " or "") .. label(point.factors[name]) end
    end
    local title, at = table.concat(words, ", "), point.factors[x]
    if not by_title[title] then
      by_title[title] = { title = title }
      lines[#lines + 1] = by_title[title]
    end
    if not numeric then
      local name = label(at)
      if not place[name] then
        groups[#groups + 1] = name
        place[name] = #groups
      end
      at = place[name]
    end
    if ci then table.insert(by_title[title], { at, ci.value, ci.low or ci.value, ci.high or ci.value }) end
  end
  for _, line in ipairs(lines) do table.sort(line, function(a, b) return a[1] < b[1] end) end
  return lines, not numeric and groups or nil
end

-- gnuplot's program for it.
function plot.script(self, wishes)
  local x, y, by, file = read(self, wishes)
  local all, groups = lines_of(self, x, y, by)
  local any = false
  for _, line in ipairs(all) do any = any or #line > 0 end
  if not any then core.fail(("sweep:plot: no run has a %s to draw"):format(y)) end
  return table.concat(drawing.program({ file = file, title = wishes.title or self.name, x = x, y = y, log = wishes.log, lines = all,
    ticks = groups }, "sweep:plot"), "\n") .. "\n"
end

function plot.draw(self, wishes) return gnuplot.draw("sweep:plot", wishes.file, plot.script(self, wishes)) end

return plot
