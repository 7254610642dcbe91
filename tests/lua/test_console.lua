-- What a sweep shows: the progress line in the room there is, the table at the
-- end within 80 columns, colours that mean a status.
local check = require "check"
local console = require "llm.console"
local host = require "host"
local narrate = require "llm.narrate"
local summary = require "llm.summary"
local terminal = require "terminal"

local PLACE = { index = 3, count = 16 }

local function child(name)
  return { e = { name = name }, steps = 1250, budget = 24e9 }
end

local EVENT = { step = 250, seconds = 60, loss = 5.25, accuracy = .125,
  perplexity = 190.6, lr = .001, tokens_per_second = 123456,
  memory = 12e9, device_share = 97 }

check.case("progress: all of it where there is room", function()
  local line = console.fit(narrate.progress(child "small_fp4", EVENT, PLACE),
    math.huge)
  check.equal(line:gsub("%d%d:%d%d:%d%d", "TIME"), "3/16 small_fp4  "
    .. "step 250/1250  loss 5.250  acc 12.5 %  ppl 191  lr 0.001  123.5k tok/s"
    .. "  12.00 GB 50 %  device 97 %  4 min 00 s left (TIME)")
end)

check.case("progress: time left and its end stay in 80 columns", function()
  for _, name in ipairs { "small_fp4", "xlarge_baseline", "1024d-24L_gqa_fp4" }
  do
    local line = console.fit(narrate.progress(child(name), EVENT, PLACE), 79)
    check.truthy(#line <= 79, line)
    check.truthy(line:find(name, 1, true), line)
    check.truthy(line:find("step 250/1250", 1, true), line)
    check.truthy(line:find "4 min 00 s left %(%d%d:%d%d:%d%d%)$", line)
    check.truthy(line:find("loss 5.250", 1, true), line)
  end
  -- Where nothing fits, what matters most is cut by the terminal alone.
  local line = console.fit(narrate.progress(child "small", EVENT, PLACE), 20)
  check.equal(line:find("acc", 1, true), nil)
end)

check.case("progress: the finish time is now and what is left", function()
  local line = console.fit(narrate.progress(child "a", EVENT, PLACE),
    math.huge)
  local h, m, s = line:match "%((%d+):(%d+):(%d+)%)"
  local now = host.date():sub(12, 19)
  local h0, m0, s0 = now:match "(%d+):(%d+):(%d+)"
  local ahead = (h - h0) * 3600 + (m - m0) * 60 + s - s0
  check.near(ahead % 86400, 240, 2)
end)

check.case("progress before the first step", function()
  local c = child "small"
  check.equal(console.fit(narrate.waiting(c, PLACE, 7.9), 79),
    "3/16 small  compiles, measures batch sizes  7 s")
  c.decided = {}
  check.equal(console.fit(narrate.waiting(c, PLACE, 7.9), 79),
    "3/16 small  prepares to train  7 s")
end)

local function result(name, status)
  local ok = status == "ok"
  return { name = name, status = status,
    model_stats = { total_parameters = ok and 456.18e6 or nil,
      optimal_batch_size = ok and 192 or nil },
    training_stats = { steps_completed = ok and 12500 or 0,
      training_time_seconds = ok and 86400.5 or nil },
    memory_stats = { peak_memory_gb = ok and 23.456 or nil },
    evaluation = { val_loss = ok and 12.345 or nil },
    throughput = { tokens_per_second = ok and 1234567 or nil } }
end

check.case("the table keeps to 80 columns whatever the names", function()
  for _, name in ipairs { "a", "xlarge_gqa_fp4",
    "a-model-of-quite-some-length_gqa_fp4_s1234", ("n"):rep(200) } do
    local lines, statuses = summary { result(name, "ok"),
      result(name .. "2", "interrupted"), result("b", "skipped") }
    check.equal(#lines, 5)
    for _, line in ipairs(lines) do
      check.truthy(utf8.len(line) <= 80, utf8.len(line) .. ": " .. line)
    end
    check.equal(statuses[3], "ok")
    check.equal(statuses[4], "interrupted")
    check.truthy(lines[3]:find(name:sub(1, 3), 1, true))
    check.truthy(lines[3]:find("1234567", 1, true), "a number was lost")
  end
  local lines = summary { result("b", "skipped") }
  check.equal(lines[3]:gsub(" +", " "), "b skipped - - - - - - -")
end)

check.case("names too long for the table stay apart", function()
  local list = {}
  for i, name in ipairs { "none", "light", "mlp", "block" } do
    list[2 * i - 1] = result("small_recompute-" .. name .. "_saved-native",
      "ok")
    list[2 * i] = result("small_recompute-" .. name .. "_saved-int8", "ok")
  end
  local lines, seen = summary(list), {}
  for i = 3, #lines do
    check.truthy(utf8.len(lines[i]) <= 80, lines[i])
    local name = lines[i]:match "^%S+"
    check.equal(seen[name], nil, name)
    seen[name] = true
  end
  for _, ends in ipairs { { "größe", 1 }, { "ß", 2 } } do
    list = { result(("ü"):rep(40) .. ends[1], "ok"),
      result(("ü"):rep(40) .. "end", "ok") }
    lines = summary(list)
    check.truthy(utf8.len(lines[3]) <= 80 and utf8.len(lines[4]), lines[3])
    check.truthy(lines[3]:find(ends[1], 1, true), lines[3])
  end
end)

check.case("moods", function()
  check.equal(narrate.mood "ok", "good")
  check.equal(narrate.mood "skipped", "dim")
  check.equal(narrate.mood "interrupted", "warn")
  for _, status in ipairs { "oom", "nan", "crashed", "error" } do
    check.equal(narrate.mood(status), "bad")
  end
end)

local CODE = "local con = require('llm.console').open() con:table({ 'name  "
  .. "status  x', 'a  ok  1', 'b  oom  2' }, { [2] = 'ok', [3] = 'oom' }) "
  .. "con:progress { { 'one', 1 }, { ('x'):rep(90), 9 }, { 'two', 1 } } "
  .. "con:progress()"

check.case("colours on a terminal, by NO_COLOR and --color", function()
  if not terminal.available() then check.skip("no terminal") end
  local env = { TERM = "xterm", NO_COLOR = false, COLUMNS = "80" }
  local plain = "name  status  x\na  ok  1\nb  oom  2\none  two"
  local shown = "name  status  x\na  \27[32mok\27[0m  1\nb  "
    .. "\27[31moom\27[0m  2\none  two"
  local function run(words)
    table.insert(words, "-e")
    table.insert(words, CODE)
    return (terminal.run(words, nil, env):gsub("\27%[K", ""))
  end
  check.equal(run {}, shown)
  check.equal(run { "--color=never" }, plain)
  env.NO_COLOR = "1"
  check.equal(run {}, plain)
  check.equal(run { "--color=always" }, shown)
end)

check.case("over a pipe: plain, the progress whole", function()
  local p <close> = assert(host.process.spawn { os.getenv "LLMHOST"
    or host.process.executable(), "-e", CODE, stdin = "null",
    stdout = "pipe", stderr = "pipe" })
  local out, err = {}, {}
  for line in function() return p:read_line(10) end do out[#out + 1] = line end
  for line in function() return p:read_error_line(10) end do
    err[#err + 1] = line
  end
  check.equal(table.concat(out, "\n"), "name  status  x\na  ok  1\nb  oom  2")
  check.equal(table.concat(err, "\n"), "one  " .. ("x"):rep(90) .. "  two")
end)

check.case("a sweep on a terminal: progress, then the table", function()
  if not terminal.available() then check.skip("no terminal") end
  local micro = require "micro"
  local root = micro.folder "console"
  micro.script(root, "{ name = 'a' }, { name = 'b', fp4 = true }", nil,
    "steps = 60")
  local out, code = terminal.run({ root .. "/sweep.lua", "only=m_a",
    "data.source=" .. root .. "/text", "out=" .. root .. "/out",
    "data.cache=" .. root .. "/cache" }, nil, { TERM = "xterm",
    COLUMNS = "80", NO_COLOR = false })
  check.equal(code, 0, out)
  local lines, timed = 0, 0
  for line in out:gmatch "([^\27\n]*)\27%[K" do
    check.truthy(utf8.len(line) <= 79, line)
    if line:find "^1/2 m_a  " then lines = lines + 1 end
    if line:find "step %d+/60  loss .* left %(%d%d:%d%d:%d%d%)$" then
      timed = timed + 1
    end
  end
  check.truthy(lines >= 1 and timed >= 1, out)
  check.truthy(out:find("\27[2m1 skipped: not named by only=m_a\27[0m", 1,
    true), out)
  check.truthy(out:find("\nm_a +\27%[32mok\27%[0m "), out)
  check.truthy(out:find("\nm_b +\27%[2mskipped\27%[0m "), out)
  host.file.remove_tree(root)
end)

check.done()
