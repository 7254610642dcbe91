-- Studies: the variants of nano's small model trained for equal tokens with
-- several seeds, by real sweeps, and compared by pairs of one seed.
--
-- Each seed is a sweep of its own below LLMHOST_PROVE_OUT (build/prove), so a
-- study that was stopped goes on when started again. All read the text that the
-- first of them prepared. LLMHOST_PROVE_TOKENS=N scales a study, which then
-- judges nothing; LLMHOST_PROVE_JOBS=N runs N sweeps at a time, the cores
-- divided, 0 none: what is there is read.
local check = require "check"
local checkpoint = require "llm.checkpoint"
local columns = require "llm.columns"
local compare = require "llm.compare"
local gpu = require "gpu"
local host = require "host"
local program = require "llm.program"
local results = require "llm.results"
local state = require "llm.state"

local Study = {}
Study.__index = Study

local SEEDS = { 1, 2, 3 }

local SCRIPT = [[
return require("llm.sweep") {
  name = "%s", profile = "nano", out = "results",
  models = { { name = "small", d_model = 128, n_layers = 2, n_heads = 4,
    d_ff = 512 } },
  matrix = {
    %s
  },
  train = { tokens = %d, seeds = { %d }, batch = 32, eval_tokens = 98304,
    evaluations = 1, checkpoint_seconds = 60, hang_seconds = 600 },
  data = { source = "system", tokens = %d, cache = "../../data_cache" },
}
]]

-- --- running ---------------------------------------------------------------

local function study_folder(study)
  return ("%s/%s-%d"):format(os.getenv "LLMHOST_PROVE_OUT" or "build/prove",
    study.name, study.tokens)
end

local function folder_of(study, seed)
  return ("%s/seed-%d"):format(study_folder(study), seed)
end

local function journal_of(folder) return folder .. "/results/journal.jsonl" end

-- The text that another seed's sweep has prepared, as its journal names it, or
-- nil: a machine's own text changes as packages come and go.
local function text_of(study)
  for _, seed in ipairs(SEEDS) do
    local s = state.read(journal_of(folder_of(study, seed)))
    if s and s.data then return s.data end
  end
end

-- Begin a sweep's journal with that text.
local function pass_text(study, folder)
  local text = text_of(study)
  if not text or host.file.exists(journal_of(folder)) then return end
  text.seq, text.time, text.crc = nil, nil, nil
  assert(host.file.mkdir(folder .. "/results"))
  local journal <close> = assert(host.journal.open(journal_of(folder)))
  assert(journal:append(text))
end

local function start(study, seed)
  local folder = folder_of(study, seed)
  local text = SCRIPT:format(study.name, table.concat(study.variants,
    ",\n    "), study.tokens, seed, study.tokens)
  assert(host.file.mkdir(folder))
  pass_text(study, folder)
  if host.file.read(folder .. "/sweep.lua") ~= text then
    assert(host.file.write(folder .. "/sweep.lua", text))
  end
  local threads = math.max(1, host.machine().cores // study.jobs)
  print(("# %s seed %d starts: %s"):format(host.date(), seed, folder))
  io.stdout:flush()
  local p = assert(host.process.spawn { host.process.executable(), "sweep.lua",
    cwd = folder, stdin = "null", stdout = "null", stderr = "pipe",
    env = study.jobs > 1 and { LLMHOST_THREADS = ("%d"):format(threads) }
      or nil })
  return { process = p, seed = seed, errors = {} }
end

-- Whether a sweep has ended; its last words, but for progress, are kept.
local function ended(job)
  while true do
    local line, why = job.process:read_error_line(0)
    if not line then return why == "eof" end
    if not line:find "^%d+/%d+ " then
      job.errors[#job.errors + 1] = line
      if #job.errors > 20 then table.remove(job.errors, 1) end
    end
  end
end

local function finish(study, job)
  local status = job.process:wait(60) or {}
  job.process:close()
  print(("# %s seed %d ends with %s"):format(host.date(), job.seed,
    status.exit or status.signal or "no status"))
  io.stdout:flush()
  if status.exit ~= 0 then
    study.errors[#study.errors + 1] = ("seed %d: %s"):format(job.seed,
      table.concat(job.errors, "\n"))
  end
end

local function run_all(study)
  local queue, running = table.move(SEEDS, 1, #SEEDS, 1, {}), {}
  if study.jobs == 0 then return end
  while #queue > 0 or #running > 0 do
    while #queue > 0 and #running < study.jobs
      and (#running == 0 or text_of(study)) do
      running[#running + 1] = start(study, table.remove(queue, 1))
    end
    host.sleep(.5)
    for i = #running, 1, -1 do
      if ended(running[i]) then finish(study, table.remove(running, i)) end
    end
  end
end

-- --- reading ---------------------------------------------------------------

local function codes(p, names)
  local out = {}
  for _, name in ipairs(names) do
    out[#out + 1] = gpu.quant.nf4(p:parameter(name)).codes:table()
  end
  return out
end

local function quantized(e)
  local names = {}
  for _, p in ipairs(program.model(e):parameters()) do
    if p.quantizable then names[#names + 1] = p.name end
  end
  return names
end

-- The share of 4-bit codes that training changed: the run's program as it
-- begins, against its last checkpoint.
local function changed(run, e, d)
  local p <close> = program.compile(e, nil, { batch = d.batch,
    accumulate = d.accumulate, steps = d.steps })
  local names = quantized(e)
  local before = codes(p, names)
  assert(p:load((checkpoint.latest(run))))
  local n, count = 0, 0
  for i, matrix in ipairs(codes(p, names)) do
    for j, row in ipairs(matrix) do
      for k, code in ipairs(row) do
        count = count + 1
        if code ~= before[i][j][k] then n = n + 1 end
      end
    end
  end
  return n / count
end

local function read_codes(study, folder, s)
  for _, e in ipairs(s.order) do
    local known = s.experiments[e.name] or {}
    if known.status == "ok" and e.shape.storage ~= "f32" then
      local list = study.changed[e.variant] or {}
      study.changed[e.variant] = list
      list[#list + 1] = changed(folder .. "/runs/" .. e.name, e,
        known.decided)
    end
  end
end

local function read(study)
  local all = {}
  for _, path in ipairs(host.file.glob(study_folder(study)
    .. "/seed-*/results/journal.jsonl")) do
    local folder = path:match "^(.*)/"
    local list, s = results.read(folder)
    if list then
      table.move(list, 1, #list, #all + 1, all)
      read_codes(study, folder, s)
    end
  end
  study.results = all
  study.model = compare.models(all)[1]
end

-- --- what a study says -----------------------------------------------------

local function percent(nats) return 100 * (math.exp(nats) - 1) end

local function loss_of(v, seed)
  for _, r in ipairs(v.runs) do
    if r.environment.seed == seed then return r.evaluation.val_loss end
  end
end

-- The mean share of a variant's codes that changed.
function Study:moved(variant)
  local i = compare.interval(self.changed[variant] or {})
  return i and i.mean
end

-- Differences of two variants in validation loss by seed; raises without two.
function Study:pair(a, b)
  local v = self.model.by_variant
  local p = compare.paired(v[a], v[b or "baseline"])
  if not (p and p.low) then
    error(("%s and %s have fewer than two seeds in common"):format(a,
      b or "baseline"))
  end
  return p
end

local function row(study, v)
  local cells = { v.variant }
  for _, seed in ipairs(SEEDS) do
    local loss = loss_of(v, seed)
    cells[#cells + 1] = loss and ("%.4f"):format(loss) or "–"
  end
  local p = v ~= study.model.baseline and compare.paired(v,
    study.model.baseline)
  cells[5] = p and ("%+.4f"):format(p.mean) or "–"
  cells[6] = p and ("%+.2f %%"):format(percent(p.mean)) or "–"
  cells[7] = p and p.low and ("%+.2f … %+.2f %%"):format(percent(p.low),
    percent(p.high)) or "–"
  local moved = study:moved(v.variant)
  cells[8] = moved and ("%.1f %%"):format(100 * moved) or "–"
  return cells
end

local function say(format, ...) print("# " .. format:format(...)) end

-- The table of all figures, as comment lines.
function Study:print()
  local r, rows = self.results[1], {}
  for i, v in ipairs(self.model.variants) do rows[i] = row(self, v) end
  say("%s: %d steps of %d tokens, %.2f epochs; %d held-out tokens; build %s",
    self.name, r.config.total_steps or 0, r.model_stats.tokens_per_step,
    r.training_stats.epochs or 0, r.evaluation.val_tokens or 0,
    r.environment.build)
  for _, line in ipairs(columns.text({ "variant", "seed 1", "seed 2",
    "seed 3", "delta", "ppl", "95 % interval", "codes" }, rows)) do
    print("# " .. line)
  end
  local base = self.model.baseline.figures.loss
  if base then
    say("spread of the baseline's %d seeds: %.4f nats, %.2f %%", base.count,
      base.spread, percent(base.spread))
  end
  if self.scaled then say("scaled to %d tokens: not judged", self.tokens) end
end

-- One line that sets variant a against b.
function Study:print_pair(a, b)
  local p = self:pair(a, b)
  say("%s against %s: %+.4f nats, %+.2f %%, 95 %% %+.2f … %+.2f %%", a, b,
    p.mean, percent(p.mean), percent(p.low), percent(p.high))
end

-- Every run ended well, on one schedule.
function Study:complete()
  if #self.errors > 0 then error(table.concat(self.errors, "\n")) end
  for _, v in ipairs(self.model.variants) do
    if #v.runs ~= #SEEDS then
      error(("%s: %d of %d runs are ok"):format(v.variant, #v.runs, #SEEDS))
    end
    if v ~= self.model.baseline then
      local same, why = compare.same_schedule(v, self.model.baseline)
      if not same then error(v.variant .. ": " .. why) end
    end
  end
end

-- The case that a variant, fp4 without one of its parts, fails: its gap is
-- `times` fp4's at least, and surely above it.
function Study:control(name, times)
  local what = ("%s is worse than fp4, %d times at least"):format(name, times)
  check.case(what, function()
    self:print_pair(name, "fp4")
    if self.scaled then check.skip "scaled" end
    local gap, worse = self:pair("fp4").mean, self:pair(name).mean
    check.truthy(worse >= times * math.max(gap, .005),
      ("its gap is %.4f nats, fp4's %.4f"):format(worse, gap))
    check.truthy(self:pair(name, "fp4").low > 0,
      "the 95 % interval of the difference holds 0")
  end)
end

local paired = { percent = percent }

-- Run or continue a study. spec: name, tokens (of one run), variants (matrix
-- entries as text, the first the baseline).
function paired.study(spec)
  local asked = math.tointeger(os.getenv "LLMHOST_PROVE_TOKENS")
  local study = setmetatable({ name = spec.name, variants = spec.variants,
    tokens = asked or spec.tokens, errors = {}, changed = {},
    jobs = math.tointeger(os.getenv "LLMHOST_PROVE_JOBS") or 1 }, Study)
  study.scaled = study.tokens ~= spec.tokens
  run_all(study)
  read(study)
  return study
end

return paired
