-- The text of a sweep: prepared once by the parent, pinned by checksums in the
-- journal, opened by every child from the token files.
local fail = require "llm.fail"
local host = require "host"

local data = {}

local function source_of(d, profile)
  if d.source ~= "auto" then return d.source end
  if profile == "nano" then return "system" end
  fail.raise("usage", "data.source: the full profile trains on text from the "
    .. "hub (hf:…), which this build cannot fetch; name a file, a folder or "
    .. "a glob (data.source=PATH), or use the text of this machine "
    .. "(data.source=system)")
end

-- Tokens an experiment can train on at most: a generous rate for the device
-- (GFLOP/s of a core, of a GPU), six operations a weight and token.
local ATTAINABLE = { cpu = 1.2e11, cuda = 1e15 }

local function weights(c)
  local width = c.d_model // c.n_heads
  local qkv = (c.n_heads + 2 * c.n_kv_heads) * width
  local matrices = c.gated and 3 or 2
  return c.n_layers * c.d_model * (qkv + c.d_model + matrices * c.d_ff)
    + c.vocab * c.d_model
end

local function tokens_of(e, backend, cores)
  local t = e.train
  if math.type(t.steps) == "integer" then
    return t.steps * t.tokens_per_step
  end
  local rate = ATTAINABLE[backend] * (backend == "cpu" and cores or 1)
  return rate / (6 * weights(e.shape)) * t.minutes * 60
end

-- Training tokens for at most 4 epochs of the experiment that sees most.
function data.amount(experiments, backend, cores)
  local most = 0
  for _, e in ipairs(experiments) do
    most = math.max(most, tokens_of(e, backend, cores))
  end
  local seq = experiments[1] and experiments[1].train.tokens_per_step or 0
  return math.ceil(math.max(most / 4, 16 * seq, 200000))
end

-- Held-out tokens kept: what the evaluation that sees most needs.
function data.held_out(experiments)
  local most = 0
  for _, e in ipairs(experiments) do
    most = math.max(most, e.train.eval_tokens + e.train.seq + 1)
  end
  return most
end

local PRESETS = { original = { documents = 2000, max_chars = 3000,
  tokens = 500000 } }

-- The options of host.text.prepare for a sweep's data section.
function data.options(d, profile, amount, eval_tokens)
  local preset = PRESETS[d.preset] or {}
  local tokens, given = preset.tokens or d.tokens, d.tokenizer
  local named = given ~= "auto" and given or nil
  local merges = named and named:find "%.txt$" and named or nil
  return { source = source_of(d, profile), vocab = d.vocab,
    tokenizer = not merges and named or nil, merges = merges,
    validation = d.validation, cache = d.cache, seed = d.seed,
    tokens = tokens == "auto" and amount or tokens,
    eval_tokens = eval_tokens,
    documents = preset.documents or d.documents,
    max_chars = preset.max_chars or d.max_chars }
end

local function file(path, count)
  return { path = path, count = count, crc32 = host.file.crc32(path),
    size = host.file.size(path) }
end

-- Prepare; gives the plain record that is journaled and handed to children.
function data.prepare(d, profile, amount, eval_tokens)
  local options = data.options(d, profile, amount, eval_tokens)
  local text, message = host.text.prepare(options)
  if not text then fail.raise("error", "data: %s", message) end
  if text.vocab > d.vocab then
    fail.raise("argument", "the tokenizer has %d ids, data.vocab is %d",
      text.vocab, d.vocab)
  end
  return { source = options.source, key = text.key, vocab = text.vocab,
    train = file(text.train_path, text.tokens),
    validation = file(text.validation_path, text.eval_tokens),
    tokenizer = text.tokenizer_path, bytes = text.bytes,
    documents = text.documents, messages = text.messages,
    reused = text.reused }
end

local function open_file(record)
  local tokens, message = host.text.tokens { record.path }
  if not tokens then fail.raise("error", "data: %s", message) end
  return tokens
end

-- Whether the files of a journaled record are still what they were.
function data.unchanged(record)
  for _, part in ipairs { "train", "validation" } do
    local was = record[part]
    if host.file.size(was.path) ~= was.size
      or host.file.crc32(was.path) ~= was.crc32 then
      return false, was.path
    end
  end
  return true
end

-- A child's view: both token arrays.
function data.open(record)
  return { train = open_file(record.train), train_count = record.train.count,
    validation = open_file(record.validation) }
end

-- Training windows: one optimizer step is `e.sequences` of them.
function data.loader(tokens, e)
  return host.text.loader(tokens, { batch = e.sequences, seq = e.train.seq,
    seed = e.seed })
end

-- Held-out windows in their order; all of them are samples of one "step", so
-- that any micro-batch can walk through them.
function data.validation(tokens, e)
  return host.text.loader(tokens, { batch = 1 << 20, seq = e.train.seq,
    sequential = true })
end

return data
