-- The house rules that a reader can check by reading: floors, headings, line
-- and file lengths, the top level, and no path of one machine in the tree.
-- Plain Lua: it runs under any Lua 5.4, from the repository's root.
local check = require "check"

-- --- the files -------------------------------------------------------------

-- Every file of the project: what git tracks, or what lies there when this is
-- not a clone.
local function project_files()
  local files = check.lines_of("git ls-files 2>/dev/null")
  if #files == 0 then
    files = check.lines_of("find . -type f -not -path './.git/*' -not -path "
      .. "'./build/*' -not -path './data_cache/*' -not -path "
      .. "'./experiment_results/*' | sed 's|^[.]/||'")
  end
  table.sort(files)
  return files
end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local KINDS = {
  c = "c", h = "c", cu = "c", cuh = "c", def = "c", lua = "lua", sh = "shell",
}

local SHELL = { ["tests/run"] = true, ["tests/defects/run"] = true,
  [".ci/run"] = true, [".ci/setup"] = true }

-- "c", "lua", "shell", "make" or nil: how a file is to be read.
local function kind_of(path)
  if SHELL[path] then return "shell" end
  if path == "Makefile" then return "make" end
  return KINDS[path:match("%.(%w+)$") or ""]
end

local sources, texts, all_files = {}, {}, project_files()
for _, path in ipairs(all_files) do
  local text = read(path)
  if text and kind_of(path) then
    sources[#sources + 1] = path
    texts[path] = text
  end
end

local function each_line(text)
  return (text .. "\n"):gmatch("(.-)\n")
end

-- Run `find(path, text, report)` over the files; any report fails the case.
local function none(title, find)
  check.case(title, function()
    local found = {}
    local function report(format, ...)
      found[#found + 1] = format:format(...)
    end
    check.truthy(#sources > 0, "no source files found")
    for _, path in ipairs(sources) do find(path, texts[path], report) end
    if #found > 0 then
      error(#found .. " found:\n" .. table.concat(found, "\n", 1,
        math.min(#found, 20)))
    end
  end)
end

-- --- floors ----------------------------------------------------------------

-- Rooms with their floors; a file may include its own room's files and those
-- of lower floors. Within the host: the system below text and web, these below
-- the binding, the binding below the program. The first match counts.
local ROOMS = {
  { "kernels/base/", 0 }, { "kernels/core/", 1 }, { "kernels/cpu/", 2 },
  { "kernels/cuda/", 2 }, { "kernels/graph/", 3 },
  { "host/version.h", 4.0 }, { "host/sys/", 4.0 },
  { "host/text/", 4.1 }, { "host/web/", 4.1 }, { "host/bind/", 4.2 },
  { "host/", 4.3 }, { "plots/", 6 },
}

local function room_of(path)
  for _, room in ipairs(ROOMS) do
    if path:sub(1, #room[1]) == room[1] then return room[1], room[2] end
  end
end

-- The path an include names, from the root: "a/b/../c.h" becomes "a/c.h".
local function resolve(from, name)
  local parts = {}
  for part in (from:match("^(.*/)") .. name):gmatch("[^/]+") do
    if part == ".." then parts[#parts] = nil else parts[#parts + 1] = part end
  end
  return table.concat(parts, "/")
end

local function includes(text)
  return text:gmatch('\n%s*#%s*include%s+"([^"\n]+)"')
end

none("includes point down the floors", function(path, text, report)
  local room, floor = room_of(path)
  if not room then return end
  for name in includes("\n" .. text) do
    local target = resolve(path, name)
    local target_room, target_floor = room_of(target)
    if target_room and target_room ~= room and target_floor >= floor then
      report("%s includes %s", path, target)
    end
  end
end)

none("includes name files that exist", function(path, text, report)
  if not room_of(path) then return end
  for name in includes("\n" .. text) do
    local target = resolve(path, name)
    if not read(target) then report("%s includes %s", path, name) end
  end
end)

-- The binding, the program and the plot module are the only C that sees Lua.
local SEES_LUA = { ["host/bind/"] = true, ["host/"] = true, ["plots/"] = true }

none("only the binding sees lua.h", function(path, text, report)
  if kind_of(path) ~= "c" then return end
  local room = room_of(path)
  if not room or SEES_LUA[room] then return end
  if text:find("#%s*include%s*[<\"]l[ua]+[xlib]*%.h[>\"]") then
    report("%s", path)
  end
end)

-- --- files -----------------------------------------------------------------

none("a file's first line says what it owns", function(path, text, report)
  local first, second = text:match("^([^\n]*)\n?([^\n]*)")
  if first:match("^#!") then first = second end
  local words = first:gsub("^%s*[/%-#*]+%s*", "")
  local comment = first:match("^/[*/]") or first:match("^%-%-")
    or first:match("^#")
  local _, count = words:gsub("%a%a+", "")
  if not comment or count < 3 then report("%s: %s", path, first) end
end)

-- Annotations for editors are generated, and a field of them is one line.
local function generated(path) return path:find "%.meta%.lua$" ~= nil end

none("no file is over 500 lines", function(path, text, report)
  if generated(path) then return end
  local _, count = text:gsub("\n", "")
  if count > 500 then report("%s: %d lines", path, count) end
end)

none("no line is over 80 columns", function(path, text, report)
  local number = 0
  if generated(path) then return end
  for line in each_line(text) do
    number = number + 1
    local width = utf8.len(line)
    if not width then
      report("%s:%d is not UTF-8", path, number)
    elseif width > 80 then
      report("%s:%d has %d columns", path, number, width)
    end
  end
end)

none("no tab and no space at a line's end", function(path, text, report)
  local number = 0
  for line in each_line(text) do
    number = number + 1
    if line:find("[ \t\r]$")
      or (kind_of(path) ~= "make" and line:find("\t", 1, true)) then
      report("%s:%d", path, number)
    end
  end
end)

-- Words are put together here so that this file does not name them.
local UNFINISHED = { "TO" .. "DO", "FIX" .. "ME", "X" .. "XX",
  "not " .. "implemented", "not yet " .. "implemented" }

none("nothing is unfinished by its own word", function(path, text, report)
  for _, word in ipairs(UNFINISHED) do
    for before, after in text:gmatch("([^\n]?)" .. word .. "([^\n]?)") do
      if not (before .. after):find("%w") then report("%s: %s", path, word) end
    end
  end
end)

-- --- functions -------------------------------------------------------------

-- The C functions of a text as { lines, first line }: a heading starts with a
-- letter at the left margin and has a parenthesis before its brace; the body
-- ends at a brace at the left margin.
local function function_lengths(text)
  local lengths, number, head, heading, open = {}, 0, nil, "", false
  for line in each_line(text) do
    number = number + 1
    if not open and line:find("^%a") then head, heading = number, "" end
    if head and not open then
      heading = heading .. line
      if heading:find("^[^={;]*%b()%s*{.*}$") then
        lengths[#lengths + 1], head = { number - head + 1, head }, nil
      elseif heading:find("{$") then
        open = heading:find("^[^={;]*%b()%s*{$") ~= nil
        if not open then head = nil end
      end
    elseif open and line == "}" then
      lengths[#lengths + 1], head, open = { number - head + 1, head }, nil,
        false
    end
  end
  return lengths
end

check.case("function lengths are counted", function()
  local found = function_lengths("struct s {\n  int a;\n};\n"
    .. "int f(int a,\n      int b) {\n  return a + b;\n}\n"
    .. "int g(void);\nint t[] = {\n  1,\n};\nint h(void) { return 1; }\n")
  local text = {}
  for i, one in ipairs(found) do text[i] = one[1] .. "@" .. one[2] end
  check.equal(table.concat(text, " "), "4@4 1@12")
end)

check.case("functions are short", function()
  local all, long = {}, {}
  for _, path in ipairs(sources) do
    if path:match("%.cu?$") and not path:match("^tests/") then
      for _, found in ipairs(function_lengths(texts[path])) do
        all[#all + 1] = found[1]
        if found[1] > 60 then
          long[#long + 1] = ("%s:%d has %d lines"):format(path, found[2],
            found[1])
        end
      end
    end
  end
  if #all == 0 then check.skip("no C functions") end
  table.sort(all)
  local median = all[(#all + 1) // 2]
  check.truthy(median <= 15, "the median function has " .. median .. " lines")
  check.truthy(#long < 0.03 * #all + 1, table.concat(long, "\n"))
end)

-- --- the tree --------------------------------------------------------------

local TOP = { Makefile = true, ["README.md"] = true, LICENSE = true,
  host = true, kernels = true, lua = true, experiments = true, plots = true,
  tests = true }

check.case("the top level holds what it should", function()
  local strangers = {}
  for _, path in ipairs(all_files) do
    local top = path:match("^[^/]+")
    if not TOP[top] and top:sub(1, 1) ~= "." then
      strangers[#strangers + 1] = path
    end
  end
  check.equal(table.concat(strangers, " "), "")
end)

-- Folders that exist on one machine only.
local PLACES = { "/ho" .. "me/", "/ro" .. "ot/", "/wo" .. "rk/", "/fa" .. "rm/",
  "/Use" .. "rs/" }

check.case("no path of one machine", function()
  local found = {}
  for _, path in ipairs(all_files) do
    local text = path ~= "LICENSE" and read(path) or ""
    if not text:find("\0", 1, true) then
      for _, place in ipairs(PLACES) do
        for before in text:gmatch("([^\n]?)" .. place) do
          if not before:find("[%w%.%-_}]") then
            found[#found + 1] = path .. ": " .. place
          end
        end
      end
    end
  end
  check.equal(table.concat(found, "\n"), "")
end)

check.done()
