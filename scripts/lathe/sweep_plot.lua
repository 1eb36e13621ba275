-- SPDX-License-Identifier: MIT
-- s:plot { x = "rate", y = "ttft_p50_ms", by = "scheduler", file = "x.svg", title = …, log = true }: means over
-- seeds with their 95% intervals as bars, drawn by gnuplot into an SVG.
--
-- A line for each value of `by`, and for each combination of the factors that neither axis names. An x
-- that is no number makes groups in the grid's order. Without gnuplot: nil and a sentence, no error; the
-- figures are in s:table and s:export all the same.
local check = require "lathe.check"
local core  = require "lathe.core"

local plot = {}

local function label(value)
  if type(value) == "table" then return core.json_encode(value) end
  return tostring(value)
end

-- Text inside gnuplot's double quotes, in its "enhanced" mode off.
local function quoted(text) return '"' .. text:gsub('[\\"]', "\\%0"):gsub("[\r\n]", " ") .. '"' end

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
  local lines, groups = lines_of(self, x, y, by)
  local out = {
    "set terminal svg size 800,500 noenhanced background rgb 'white'", "set output " .. quoted(file),
    "set xlabel " .. quoted(x), "set ylabel " .. quoted(y), "set title " .. quoted(wishes.title or self.name),
    "set key outside right top", "set grid", "set offsets graph 0.05, graph 0.05, 0, 0",
  }
  if wishes.log then out[#out + 1] = "set logscale y" end
  if groups then
    local ticks = {}
    for i, name in ipairs(groups) do ticks[i] = quoted(name) .. " " .. i end
    out[#out + 1] = "set xtics (" .. table.concat(ticks, ", ") .. ")"
  end
  local parts = {}
  for i, line in ipairs(lines) do
    if #line > 0 then
      out[#out + 1] = ("$line%d << EOD"):format(i)
      for _, v in ipairs(line) do out[#out + 1] = ("%.17g %.17g %.17g %.17g"):format(v[1], v[2], v[3], v[4]) end
      out[#out + 1] = "EOD"
      parts[#parts + 1] = ("$line%d using 1:2:3:4 with yerrorlines title %s"):format(i, quoted(line.title))
    end
  end
  if #parts == 0 then core.fail(("sweep:plot: no run has a %s to draw"):format(y)) end
  out[#out + 1] = "plot " .. table.concat(parts, ", ")
  return table.concat(out, "\n") .. "\n"
end

local function has_gnuplot()
  local pipe <close> = io.popen "command -v gnuplot"
  return pipe:read "l" ~= nil
end

function plot.draw(self, wishes)
  local script = plot.script(self, wishes)
  if not has_gnuplot() then
    local sentence = ("no plot %s: gnuplot is not here; install it (apt install gnuplot-nox), or use s:export"):format(wishes.file)
    if not core.quiet then io.stderr:write(sentence, "\n") end
    return nil, sentence
  end
  local pipe = io.popen("gnuplot", "w")
  pipe:write(script)
  local ok = pipe:close()
  if not ok then core.fail(("sweep:plot: gnuplot could not draw %s"):format(wishes.file)) end
  return wishes.file
end

return plot
