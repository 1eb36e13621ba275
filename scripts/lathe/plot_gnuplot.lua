-- SPDX-License-Identifier: MIT
-- gnuplot, for lathe.plot: what is drawn goes to it as one program through a pipe, data as numbers in blocks of its own.
--
-- Texts stand in gnuplot's single quotes, in which nothing has a meaning but the quote itself, doubled: in double
-- quotes a backtick would run a command. Ticks are formats besides, so that % is doubled in them. Settings of the
-- user's are left aside (-d): the same call draws the same picture everywhere.
local check = require "lathe.check"
local core  = require "lathe.core"

local gnuplot = {}

-- Okabe and Ito's colours, told apart by people who see fewer, and in print (jfly.uni-koeln.de/color, 2008).
gnuplot.colours = { "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000" }

-- Control characters have no picture; a line's end is a space.
local function plain(text) return (tostring(text):gsub("%c", " ")) end

function gnuplot.quoted(text) return "'" .. plain(text):gsub("'", "''") .. "'" end

local tick_bytes <const> = 46 -- gnuplot cuts at 50, in the middle of a character if need be

function gnuplot.tick(text)
  text = plain(text)
  if #text > tick_bytes then
    local cut = tick_bytes - 3
    while cut > 0 and text:byte(cut + 1) & 0xc0 == 0x80 do cut = cut - 1 end
    text = text:sub(1, cut) .. "…"
  end
  return gnuplot.quoted((text:gsub("%%", "%%%%")))
end

-- set xtics ('a' 1, 'b' 2)
function gnuplot.ticks(axis, names, from, more)
  local out = {}
  for i, name in ipairs(names) do out[i] = ("%s %d"):format(gnuplot.tick(name), i - 1 + (from or 1)) end
  return ("set %stics %s (%s)"):format(axis, more or "", table.concat(out, ", "))
end

-- A number as gnuplot reads it; what is none is a gap.
function gnuplot.number(value)
  if type(value) ~= "number" or value ~= value or value == math.huge or value == -math.huge then return "NaN" end
  return ("%.10g"):format(value)
end

-- [from:to]; nil: as the data have it.
function gnuplot.range(from, to)
  return ("[%s:%s]"):format(from and gnuplot.number(from) or "*", to and gnuplot.number(to) or "*")
end

-- $name << EOD … EOD, a row of numbers a line. A row that is false is an empty line.
function gnuplot.block(name, rows)
  local out = { ("$%s << EOD"):format(name) }
  for _, row in ipairs(rows) do
    local words = {}
    for k = 1, row and #row or 0 do words[k] = gnuplot.number(row[k]) end
    out[#out + 1] = table.concat(words, " ")
  end
  out[#out + 1] = "EOD"
  return table.concat(out, "\n")
end

local terminals = {
  svg = "svg size %d,%d noenhanced font 'sans-serif,13' background rgb 'white'",
  png = "pngcairo size %d,%d noenhanced font 'sans,11' background rgb 'white'",
}

-- The beginning of every program: where to, titles, axes. `wishes` has file, title, x, y, log, width, height. `axes` false: log
-- means something else.
function gnuplot.head(what, wishes, width, height, axes)
  local file = check.text(what, wishes, "file")
  local kind = file:match "%.(%a+)$"
  local terminal = terminals[kind and kind:lower()]
  if not terminal then core.fail(("%s: \"file\" should end in .svg or .png, not \"%s\""):format(what, file)) end
  if file:find "[%z\n\r]" then core.fail(what .. ": \"file\" should be one line") end
  local out = {
    "set terminal " .. terminal:format(check.integer(what, wishes, "width", 100, 10000, width or 800),
      check.integer(what, wishes, "height", 100, 10000, height or 500)),
    "set output " .. gnuplot.quoted(file), "set encoding utf8",
    "set border 3 lc rgb '#666666'", "set tics nomirror out scale 0.6 textcolor rgb '#333333'", "set grid lc rgb '#e4e4e4' lt 1 lw 0.6",
    "set key outside center top horizontal Left reverse samplen 1.5 width 1",
  }
  for _, axis in ipairs { "x", "y" } do
    if wishes[axis] then out[#out + 1] = ("set %slabel %s"):format(axis, gnuplot.quoted(check.text(what, wishes, axis))) end
  end
  if wishes.title then out[#out + 1] = "set title " .. gnuplot.quoted(check.text(what, wishes, "title")) end
  for i, colour in ipairs(gnuplot.colours) do out[#out + 1] = ("set linetype %d lc rgb '%s' lw 1.6 pt 7 ps 0.6"):format(i, colour) end
  local log = wishes.log == true and "y" or wishes.log
  if log and axes ~= false then
    if log ~= "x" and log ~= "y" and log ~= "xy" then core.fail(what .. ": \"log\" should be \"x\", \"y\" or \"xy\"") end
    out[#out + 1] = "set logscale " .. log
  end
  return out
end

function gnuplot.present()
  local pipe <close> = io.popen "command -v gnuplot"
  return pipe:read "l" ~= nil
end

-- Draws; the file's name, or nil and a sentence without gnuplot.
function gnuplot.draw(what, file, program)
  if not gnuplot.present() then
    local sentence = ("no plot %s: gnuplot is not here; install it (apt install gnuplot-nox)"):format(file)
    if not core.quiet then io.stderr:write(sentence, "\n") end
    return nil, sentence
  end
  local probe <close> = io.open(file, "ab") -- so that the sentence is ours
  if not probe then core.fail(("%s: %s can't be written"):format(what, file)) end
  local pipe = io.popen("gnuplot -d", "w")
  pipe:write(type(program) == "table" and table.concat(program, "\n") or program, "\n")
  if not pipe:close() then
    os.remove(file)
    core.fail(("%s: gnuplot could not draw %s"):format(what, file))
  end
  return file
end

return gnuplot
