-- The planted defects of tests/defects: there are enough, each says what is
-- wrong and which tests are to see it, and each still fits the tree. Whether
-- the tests do see them is asked by `make defects`.
local check = require "check"

local FOLDER = "tests/defects/"

local paths = check.lines_of("ls " .. FOLDER .. "*.patch")
local programs = check.lines_of "cd tests && ls c/test_*.c lua/test_*.lua"

local function text_of(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

-- Whether a word of tests/run names a test program.
local function names_a_test(word)
  for _, name in ipairs(programs) do
    if name:gsub("%.%w+$", ""):find(word, 1, true) then
      return true
    end
  end
end

-- Collect what `find(path, text, report)` reports of the patches; none may.
local function none(title, find)
  check.case(title, function()
    local found = {}
    for _, path in ipairs(paths) do
      find(path, text_of(path), function(what)
        found[#found + 1] = path .. ": " .. what
      end)
    end
    check.equal(table.concat(found, "\n"), "")
  end)
end

check.case("there are thirty or more", function()
  check.truthy(#paths >= 30, #paths .. " patches")
end)

none("each says in a line what is wrong", function(_, text, report)
  local what = text:match "^([^\n]*)\n"
  if not what:find "^%u[^\n]* [^\n]*%.$" or utf8.len(what) > 80 then
    report(what)
  end
end)

none("each names tests that there are", function(_, text, report)
  local words = text:match "^[^\n]*\ntests: ([^\n]+)\n\n%-%-%- a/"
  if not words then return report "no line of tests before the diff" end
  for word in words:gmatch "%S+" do
    if not names_a_test(word) then report("no test is called " .. word) end
  end
end)

none("each is in the list", function(path, _, report)
  local name = path:match "([^/]+)%.patch$"
  local list = text_of(FOLDER .. "README.md")
  if not list:find("\n| `" .. name .. "` |", 1, true) then
    report "not in README.md"
  end
end)

none("each still fits the tree", function(path, _, report)
  if not os.execute "command -v git >/dev/null" then check.skip "no git" end
  local said = check.lines_of("git apply --check " .. path .. " 2>&1")
  if #said > 0 then report(said[1]) end
end)

check.done()
