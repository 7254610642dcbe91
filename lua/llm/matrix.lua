-- Models x variants x seeds: the ordered list of experiments, each with all
-- its values, checked for what cannot work.
local config = require "llm.config"
local fail = require "llm.fail"
local transformer = require "llm.model"

local matrix = {}

-- The largest divisor of n_heads that is <= max(1, n_heads // kv_groups).
function matrix.kv_heads(n_heads, kv_groups)
  local most = math.max(1, n_heads // kv_groups)
  for n = most, 1, -1 do
    if n_heads % n == 0 then return n end
  end
end

-- Divisors of n, ascending.
function matrix.divisors(n)
  local low, high = {}, {}
  for d = 1, math.floor(math.sqrt(n)) do
    if n % d == 0 then
      low[#low + 1] = d
      if d ~= n // d then table.insert(high, 1, n // d) end
    end
  end
  return table.move(high, 1, #high, #low + 1, low)
end

local function merge(...)
  local out = {}
  for _, values in ipairs { ... } do
    for path, v in pairs(values) do out[path] = v end
  end
  return out
end

local function refuse(e, format, ...)
  fail.raise("argument", "%s: " .. format, e.name, ...)
end

local function complete_shape(e, own)
  local c = transformer.complete(e.shape)
  e.shape = c
  for _, key in ipairs { "d_model", "n_layers", "n_heads", "d_ff" } do
    if not c[key] then refuse(e, "%s is missing", key) end
  end
  if c.d_model % c.n_heads ~= 0 then
    refuse(e, "d_model = %d is not a multiple of n_heads = %d", c.d_model,
      c.n_heads)
  end
  c.n_kv_heads = own.n_kv_heads or matrix.kv_heads(c.n_heads, c.kv_groups)
  if c.n_heads % c.n_kv_heads ~= 0 then
    refuse(e, "n_heads = %d is not a multiple of n_kv_heads = %d", c.n_heads,
      c.n_kv_heads)
  end
  local width = c.d_model // c.n_heads
  if width % 4 ~= 0 then
    refuse(e, "head width d_model / n_heads = %d is not a multiple of 4",
      width)
  end
  if c.fp4 and c.storage and c.storage ~= "nf4r" then
    refuse(e, "fp4 = true means storage = \"nf4r\", but storage = \"%s\"",
      c.storage)
  end
  c.storage = c.storage or (c.fp4 and "nf4r" or "f32")
  c.fp4 = c.storage == "nf4r"
end

local function check_train(e)
  local t = e.train
  if t.tokens_per_step % t.seq ~= 0 then
    refuse(e, "train.tokens_per_step = %d is not a multiple of train.seq = %d",
      t.tokens_per_step, t.seq)
  end
  e.sequences = t.tokens_per_step // t.seq
  if t.batch ~= "auto" and e.sequences % t.batch ~= 0 then
    refuse(e, "train.batch = %d does not divide the %d sequences of a step; "
      .. "it could be %s", t.batch, e.sequences,
      table.concat(matrix.divisors(e.sequences), ", "))
  end
  if t.tokens then
    t.steps = math.max(1, t.tokens // t.tokens_per_step)
  end
end

local function experiment(all, model, entry, seed)
  local values = merge(all.values, model.values, entry.values)
  local e = { model = model.name, variant = entry.name, seed = seed,
    name = model.name .. "_" .. entry.name, shape = config.section(values, ""),
    train = config.section(values, "train"),
    memory = config.section(values, "memory"),
    search = config.section(values, "search") }
  e.shape.vocab = values["data.vocab"]
  e.shape.seq = e.train.seq
  e.train.seeds = nil
  for _, key in ipairs { "name", "description", "notes", "target_gpu",
    "profile", "out", "only" } do
    e.shape[key] = nil
  end
  e.shape.model, e.shape.variant = model.name, entry.name
  complete_shape(e, { n_kv_heads = values.n_kv_heads })
  check_train(e)
  return e
end

-- The experiments of a resolved configuration, in order: model by model,
-- variant by variant, seed by seed.
function matrix.expand(all)
  local list, seeds = {}, all.values["train.seeds"]
  for _, model in ipairs(all.models) do
    for _, entry in ipairs(all.matrix) do
      for _, seed in ipairs(seeds) do
        local e = experiment(all, model, entry, seed)
        if #seeds > 1 then e.name = e.name .. "_s" .. seed end
        e.index = #list + 1
        list[e.index] = e
      end
    end
  end
  return list
end

-- grid{ kv_groups = {1, 4}, fp4 = {false, true} }: a product as named matrix
-- entries; axes in sorted order, or as given by { {"key", values}… }.
function matrix.grid(axes)
  if #axes == 0 then
    local keys, ordered = {}, {}
    for key in pairs(axes) do keys[#keys + 1] = key end
    table.sort(keys)
    for i, key in ipairs(keys) do ordered[i] = { key, axes[key] } end
    axes = ordered
  end
  local rows = { { words = {} } }
  for _, axis in ipairs(axes) do
    local wider = {}
    for _, row in ipairs(rows) do
      for _, v in ipairs(axis[2]) do
        local new = merge(row)
        new[axis[1]] = v
        new.words = table.move(row.words, 1, #row.words, 1, {})
        table.insert(new.words, (axis[1]:gsub("^.*%.", "")) .. "-"
          .. tostring(v))
        wider[#wider + 1] = new
      end
    end
    rows = wider
  end
  for _, row in ipairs(rows) do
    row.name, row.words = table.concat(row.words, "_"), nil
  end
  return rows
end

return matrix
