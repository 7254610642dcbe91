-- What a run leaves for others to follow it by: metrics.jsonl, metrics.csv,
-- TensorBoard's event file; and --json: one document on standard output.
local check = require "check"
local host = require "host"
local metrics = require "llm.metrics"
local micro = require "micro"
local tensorboard = require "llm.tensorboard"

local root = micro.folder "tracking"

check.case("CRC-32C", function()
  check.equal(host.crc32c "", 0)
  check.equal(host.crc32c "123456789", 0xE3069283)
  check.equal(host.crc32c(("\0"):rep(32)), 0x8A9136AA)
  check.equal(host.crc32c(("\xff"):rep(32)), 0x62A8AB43)
end)

-- --- readers ----------------------------------------------------------------

-- A python3 that has a module, or a skip.
local function python(module)
  for _, name in ipairs { os.getenv "LLMHOST_PYTHON" or "python3",
    "python3" } do
    local p = host.process.spawn { name, "-c", "import " .. module,
      stdin = "null", stdout = "null", stderr = "null" }
    if p and p:wait(60).exit == 0 then return name end
  end
  check.skip("no python3 with " .. module)
end

local function read_events(path, how)
  local p = assert(host.process.spawn {
    python(how == "own" and "struct" or how),
    "tests/tensorboard_reader.py", path, how, stdin = "null",
    stdout = "pipe", stderr = "pipe" })
  local text, err = p:read_line(60), p:read_error_line(60)
  local list = text and host.json.decode(text)
  return list or error(err or "no answer")
end

local TAGS = { loss = "loss/train", val_loss = "loss/validation",
  accuracy = "accuracy/train", val_accuracy = "accuracy/validation",
  perplexity = "perplexity/train", val_perplexity = "perplexity/validation",
  lr = "optimizer/learning_rate", grad_norm = "optimizer/grad_norm",
  tokens_per_second = "speed/tokens_per_second", memory = "memory/bytes" }

-- { "step tag" = value } of a run's metrics, as f32.
local function wanted(folder)
  local out, count = {}, 0
  for _, record in ipairs(metrics.read(folder)) do
    for name, tag in pairs(TAGS) do
      local v = record[name]
      if type(v) == "number" then
        out[record.step .. " " .. tag] = string.unpack("<f",
          string.pack("<f", v))
        count = count + 1
      end
    end
  end
  return out, count
end

local function compare(events, folder)
  local want, count = wanted(folder)
  check.truthy(count > 40, count .. " values")
  check.equal(#events, count)
  for _, e in ipairs(events) do
    local key = e[1] .. " " .. e[2]
    check.equal(e[3], want[key], key)
  end
end

-- --- a sweep ----------------------------------------------------------------

local run_folder = root .. "/out/runs/m_baseline"
local out, err

check.case("sweep --json: results on stdout, the log on stderr", function()
  micro.script(root, '{ name = "baseline" }')
  local status
  status, out, err = micro.run(root, "--json")
  check.equal(status.exit, 0, err)
  check.equal(out .. "\n", host.file.read(root
    .. "/out/experiment_results.json"))
  local list = assert(host.json.decode(out))
  check.equal(list[1].name, "m_baseline")
  check.equal(list[1].status, "ok")
  for _, want in ipairs { "1/4 check", "2/4 experiments", "total time" } do
    check.truthy(err:find(want, 1, true), want .. " in " .. err)
  end
  check.equal(err:find("\27", 1, true), nil, "colours without a terminal")
end)

check.case("report --json, and what is not a folder of results", function()
  local function report(...)
    local spec = { host.process.executable(), "experiments/report.lua", ... }
    spec.cwd, spec.stdin, spec.stdout, spec.stderr = root, "null", "pipe",
      "pipe"
    return micro.finish(assert(host.process.spawn(spec)))
  end
  local status, text, log = report("out", "--json")
  check.equal(status.exit, 0, log)
  check.equal(text, out)
  check.truthy(log:find("wrote out/experiment_report.md", 1, true), log)
end)

check.case("a sweep whose check fails still prints a document", function()
  local p = assert(host.process.spawn { host.process.executable(), "sweep.lua",
    "--json", "data.source=nowhere", "out=other", cwd = root, stdin = "null",
    stdout = "pipe", stderr = "pipe" })
  local status, text, log = micro.finish(p)
  check.equal(status.exit, 1)
  check.equal(text, "[]")
  check.truthy(log:find("no such file or folder: nowhere", 1, true), log)
end)

check.case("check --json", function()
  local p = assert(host.process.spawn { host.process.executable(),
    "experiments/check.lua", "--json", "data.source=nowhere", cwd = root,
    stdin = "null", stdout = "pipe", stderr = "pipe" })
  local status, text = micro.finish(p)
  check.equal(status.exit, 1)
  local report = assert(host.json.decode(text))
  check.equal(report.failed, true)
  local data
  for _, f in ipairs(report.findings) do
    if f.name == "data" then data = f end
  end
  check.equal(data.level .. ": " .. data.text .. " -> " .. data.fix,
    "fail: no such file or folder: nowhere -> data.source=PATH")
end)

check.case("metrics.csv and metrics.jsonl hold the same numbers", function()
  local records, i = metrics.read(run_folder), -1
  local names
  for line in host.file.read(run_folder .. "/metrics.csv"):gmatch
    "[^\n]+" do
    i = i + 1
    local cells = {}
    for cell in (line .. ","):gmatch "([^,]*)," do
      cells[#cells + 1] = cell
    end
    if i == 0 then
      names = cells
    else
      for k, name in ipairs(names) do
        local v = records[i][name]
        check.equal(cells[k], v and ("%.9g"):format(v) or "", name)
      end
    end
  end
  check.equal(i, #records)
  check.equal(table.concat(names, " "), "step tokens seconds loss accuracy "
    .. "perplexity lr grad_norm tokens_per_second memory val_loss "
    .. "val_accuracy val_perplexity val_tokens loss_scale")
end)

local events_file = run_folder .. "/" .. tensorboard.NAME

check.case("the event file, read by other code", function()
  compare(read_events(events_file, "own"), run_folder)
end)

check.case("the event file, read by TensorBoard", function()
  compare(read_events(run_folder, "tensorboard"), run_folder)
end)

check.case("train.tensorboard=false writes none", function()
  local status, _, log = micro.run(root, "out=plain", "train.steps=2",
    "train.tensorboard=false")
  check.equal(status.exit, 0, log)
  local base = root .. "/plain/runs/m_baseline/"
  check.truthy(host.file.exists(base .. "metrics.jsonl"))
  check.equal(host.file.exists(base .. tensorboard.NAME), false)
end)

-- --- going on ---------------------------------------------------------------

check.case("a run that goes on keeps what it had, up to its step", function()
  local folder = root .. "/resumed"
  assert(host.file.mkdir(folder))
  local function add(m, first, last)
    for step = first, last do
      m:add { step = step, loss = 1 / step, lr = .1, tokens = 10 * step,
        grad_norm = 0 / 0, memory = 1e300 }
    end
    m:flush()
  end
  add(metrics.open(folder, 0, true), 1, 200)
  local path = folder .. "/" .. tensorboard.NAME
  -- A torn end and a step the checkpoint does not have.
  local text = host.file.read(path)
  assert(host.file.write(path, text:sub(1, -10)))
  add(metrics.open(folder, 150, true), 151, 160)
  local list = read_events(path, "own")
  check.equal(#list, 320, "loss and rate of 160 steps")
  for i, e in ipairs(list) do
    check.equal(e[1], (i + 1) // 2)
    check.equal(e[2], i % 2 == 1 and "loss/train"
      or "optimizer/learning_rate")
  end
  check.equal(#metrics.read(folder), 160)
  assert(host.file.write(path, "not an event file at all, but long enough"))
  add(metrics.open(folder, 160, true), 161, 161)
  check.equal(#read_events(path, "own"), 2)
end)

host.file.remove_tree(root)
check.done()
