-- The campaign: 200 random kills, then every output call of a small sweep made
-- to fail once in every way; under a sanitizer, which is slow, a tenth of it.
-- LLMHOST_KILLS and LLMHOST_FAULTS change how many, LLMHOST_SEED which.
local check = require "check"
local disturb = require "disturb"
local host = require "host"

local slow = host.process.executable():find "/asan/" ~= nil

local function setting(name, default)
  return math.tointeger(tonumber(os.getenv(name))) or default
end

local seed = setting("LLMHOST_SEED", 1)

local shown = {} -- how many of a list have been printed

-- Progress, and what is wrong as soon as it is found.
local function told(s, every)
  local n = s.kills or s.runs
  for _, list in ipairs { s.differences, s.leftovers, s.unclear or {} } do
    for i = (shown[list] or 0) + 1, #list do print("# " .. list[i]) end
    shown[list] = #list
  end
  if n % every == 0 then
    print(("# %d: %d differences, %d left over"):format(n, #s.differences,
      #s.leftovers))
    io.stdout:flush()
  end
end

check.case("random kills", function()
  local s = disturb.kills(setting("LLMHOST_KILLS", slow and 20 or 200), 10,
    seed, function(sums) told(sums, 1) end)
  print(("# %d kills (child %d, parent %d, both %d; %d processes) in %d "
    .. "sweeps, %d starts, %d differences, %d left over, %.0f s"):format(
    s.kills, s.child, s.parent, s.both, s.processes, s.sweeps, s.starts,
    #s.differences, #s.leftovers, s.seconds))
  check.equal(table.concat(s.differences, "\n"), "")
  check.equal(table.concat(s.leftovers, "\n"), "")
end)

check.case("every output call fails", function()
  local s = disturb.faults(setting("LLMHOST_FAULTS", slow and 40 or nil),
    seed, function(sums) told(sums, 25) end)
  print(("# %d of %d faults in %d calls: %d absorbed, %d stopped the sweep, "
    .. "%d unclear, %d differences, %d left over, %.0f s"):format(s.runs,
    s.faults, s.calls, s.absorbed, s.stopped, #s.unclear, #s.differences,
    #s.leftovers, s.seconds))
  check.equal(table.concat(s.unclear, "\n"), "")
  check.equal(table.concat(s.differences, "\n"), "")
  check.equal(table.concat(s.leftovers, "\n"), "")
end)

check.done()
