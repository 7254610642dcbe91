-- Two folders of results side by side: every run that both hold, what changed
-- between them, and in what the machines, builds and configurations differ.
local columns = require "llm.columns"
local compare = require "llm.compare"
local fingerprint = require "llm.fingerprint"
local host = require "host"
local results = require "llm.results"

local sidebyside = {}

local WIDTH = 80

-- --- the runs --------------------------------------------------------------

local function ratio(a, b) return a and b and a ~= 0 and b / a - 1 or nil end

-- Whether two runs trained one schedule on one text, so that losses compare.
local function same_schedule(a, b, one_text)
  return one_text and compare.schedule(a) == compare.schedule(b)
    and not a.training_stats.cut_short
end

local function figures(r)
  return { status = r.status, error = r.error,
    memory_gb = r.memory_stats.peak_memory_gb,
    tokens_per_second = r.throughput.tokens_per_second,
    val_loss = r.evaluation.val_loss,
    batch_size = r.model_stats.optimal_batch_size,
    steps = r.training_stats.steps_completed }
end

local function pair(a, b, one_text)
  local x, y = figures(a), figures(b)
  return { name = a.name, a = x, b = y,
    memory = ratio(x.memory_gb, y.memory_gb),
    speed = ratio(x.tokens_per_second, y.tokens_per_second),
    loss = x.val_loss and y.val_loss and y.val_loss - x.val_loss or nil,
    same_batch = x.batch_size == y.batch_size,
    same_schedule = same_schedule(a, b, one_text) }
end

local function names_beside(list, other)
  local names = {}
  for _, r in ipairs(list) do
    if not other[r.name] then names[#names + 1] = r.name end
  end
  return names
end

local function by_name(list)
  local set = {}
  for _, r in ipairs(list) do set[r.name] = r end
  return set
end

-- --- where they ran --------------------------------------------------------

local function add_values(into, values)
  for key, v in pairs(values) do
    local text = tostring(v)
    into[key] = into[key] or { list = {}, seen = {} }
    if not into[key].seen[text] then
      into[key].seen[text] = true
      table.insert(into[key].list, text)
    end
  end
end

-- What the sweep and its runs say of their machine and build: text by key.
local function environment(list, s)
  local all, out = {}, {}
  add_values(all, s.sweep.environment or {})
  for _, r in ipairs(list) do
    if r.status == "ok" then
      local e = r.environment
      add_values(all, { device = e.device, precision = e.precision,
        tuning = e.tuning })
    end
  end
  all.date = nil
  for key, values in pairs(all) do
    out[key] = table.concat(values.list, ", ")
  end
  return out
end

local function differences(a, b)
  local keys, list = {}, {}
  for key in pairs(a) do keys[key] = true end
  for key in pairs(b) do keys[key] = true end
  for key in pairs(keys) do
    if a[key] ~= b[key] then
      list[#list + 1] = { key = key, a = a[key], b = b[key] }
    end
  end
  table.sort(list, function(x, y) return x.key < y.key end)
  return list
end

local function text_id(s)
  local d = s.data
  return d and ("%s, %d tokens, %s/%s"):format(d.source, d.train.count,
    d.train.crc32, d.validation.crc32)
end

-- --- the comparison --------------------------------------------------------

local function read(folder)
  local list, s = results.read(folder)
  if not list then error(s, 0) end
  return { folder = folder, list = list, state = s, names = by_name(list),
    date = (s.sweep.environment or {}).date }
end

local function described(side)
  local e = environment(side.list, side.state)
  e.text = text_id(side.state)
  return e
end

-- { a, b = folder and date, pairs = { { name, a, b, memory, speed, loss,
-- same_batch, same_schedule } … } in the order of A, only_a, only_b (names),
-- environment = { { key, a, b } … } where they differ, config = lines "- " and
-- "+ ", files = names of Lua files that differ }. Changes are B against A:
-- ratios minus one, the loss a difference.
function sidebyside.compare(folder_a, folder_b)
  local a, b = read(folder_a), read(folder_b)
  local one_text = text_id(a.state) == text_id(b.state)
  local out = { a = { folder = a.folder, date = a.date },
    b = { folder = b.folder, date = b.date }, pairs = {},
    only_a = names_beside(a.list, b.names),
    only_b = names_beside(b.list, a.names),
    environment = differences(described(a), described(b)) }
  for _, r in ipairs(a.list) do
    local other = b.names[r.name]
    if other then
      out.pairs[#out.pairs + 1] = pair(r, other, one_text)
    end
  end
  out.config, out.files = fingerprint.diff(a.state.sweep, b.state.sweep)
  return out
end

-- --- as text ---------------------------------------------------------------

local HEAD = { "experiment", "MB A", "MB B", "%", "tok/s A", "tok/s B", "%",
  "loss A", "loss B", "diff" }

local function cell(x, format) return x and format:format(x) or "-" end

local function row_of(p)
  local a, b = p.a, p.b
  return { p.name, cell(a.memory_gb and 1e3 * a.memory_gb, "%.0f"),
    cell(b.memory_gb and 1e3 * b.memory_gb, "%.0f"),
    cell(p.memory and 100 * p.memory, "%+.1f")
      .. (p.memory and not p.same_batch and "*" or ""),
    cell(a.tokens_per_second, "%.0f"), cell(b.tokens_per_second, "%.0f"),
    cell(p.speed and 100 * p.speed, "%+.1f"), cell(a.val_loss, "%.3f"),
    cell(b.val_loss, "%.3f"), cell(p.loss, "%+.3f")
      .. (p.loss and not p.same_schedule and "*" or "") }
end

local function notes(c, lines)
  local batch, schedule = false, false
  for _, p in ipairs(c.pairs) do
    batch = batch or (p.memory and not p.same_batch)
    schedule = schedule or (p.loss and not p.same_schedule)
  end
  if batch then
    lines[#lines + 1] = "* after memory: the micro-batches differ"
  end
  if schedule then
    lines[#lines + 1] = "* after a loss: not comparable, schedules or texts "
      .. "differ"
  end
end

local function ended(r)
  return r.status .. (r.error and r.error ~= "" and " (" .. r.error .. ")"
    or "")
end

local function failed(c, lines)
  for _, p in ipairs(c.pairs) do
    local a, b = ended(p.a), ended(p.b)
    if a == b and p.a.status ~= "ok" then
      lines[#lines + 1] = ("%s: %s in both"):format(p.name, a)
    elseif a ~= b then
      lines[#lines + 1] = ("%s: A %s, B %s"):format(p.name, a, b)
    end
  end
end

local function only(lines, side, names)
  if #names > 0 then
    lines[#lines + 1] = ("only in %s: %s"):format(side,
      table.concat(names, ", "))
  end
end

local function environments(c, lines)
  lines[#lines + 1] = ""
  if #c.environment == 0 then
    lines[#lines + 1] = "environment: the same"
    return
  end
  lines[#lines + 1] = "environment, where they differ:"
  for _, d in ipairs(c.environment) do
    lines[#lines + 1] = ("  %-10s A: %s"):format(d.key, d.a or "none")
    lines[#lines + 1] = ("  %-10s B: %s"):format("", d.b or "none")
  end
end

local function configurations(c, lines)
  lines[#lines + 1] = ""
  if #c.config == 0 then
    lines[#lines + 1] = "configuration: the same"
  else
    lines[#lines + 1] = "configuration, - A and + B:"
    for _, line in ipairs(c.config) do lines[#lines + 1] = "  " .. line end
  end
  if #c.files > 0 then
    lines[#lines + 1] = ("Lua files that differ: %d (%s%s)"):format(#c.files,
      table.concat(c.files, ", ", 1, math.min(3, #c.files)),
      #c.files > 3 and ", …" or "")
  end
end

-- Lines of text; the table keeps to 80 columns.
function sidebyside.lines(c)
  local lines, rows = {}, {}
  for _, side in ipairs { "a", "b" } do
    lines[#lines + 1] = ("%s: %s (%s)"):format(side:upper(), c[side].folder,
      c[side].date or "undated")
  end
  lines[#lines + 1] = ""
  for i, p in ipairs(c.pairs) do rows[i] = row_of(p) end
  if #rows == 0 then
    lines[#lines + 1] = "no run of one name in both"
  else
    for _, line in ipairs(columns.within(WIDTH, HEAD, rows, { 1 }, " ")) do
      lines[#lines + 1] = line
    end
  end
  notes(c, lines)
  failed(c, lines)
  only(lines, "A", c.only_a)
  only(lines, "B", c.only_b)
  environments(c, lines)
  configurations(c, lines)
  return lines
end

-- The comparison as JSON.
function sidebyside.encode(c)
  for _, key in ipairs { "pairs", "only_a", "only_b", "environment", "config",
    "files" } do
    c[key] = host.json.array(c[key])
  end
  return host.json.encode(c, { indent = 2 }) .. "\n"
end

return sidebyside
