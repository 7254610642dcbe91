-- The text of a sweep: prepared once by the parent, pinned by checksums in the
-- journal, opened by every child from the token files.
local fail = require "llm.fail"
local host = require "host"
local hub = require "llm.hub"
local tokenfiles = require "llm.tokenfiles"

local data = {}

-- The source that a configuration means: "auto" is this machine's text in the
-- nano profile, the hub's in the full one.
function data.source(d, profile)
  if d.source ~= "auto" then return d.source end
  return profile == "nano" and "system" or hub.DATASET
end

local SMOLLM_IDS = 49152

-- The tokenizer it means, nil: one is trained. "auto" is SmolLM's for text of
-- the hub where the vocabulary has its size.
function data.tokenizer(d, profile)
  if d.tokenizer == "train" then return nil end
  if d.tokenizer ~= "auto" then return d.tokenizer end
  local from_hub = hub.is(data.source(d, profile))
  return from_hub and d.vocab == SMOLLM_IDS and hub.TOKENIZER or nil
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

-- Rows come in pages of 100, one request each: by itself a sweep asks for no
-- more than this many tokens of them.
local ROWS_TOKENS = 50000000
-- Text is held in memory while it is encoded: bytes of memory for a token.
local MEMORY_PER_TOKEN = 40

local ROWS_NOTE = "The rows API gives 100 rows a request: %.0f million "
  .. "training tokens are fetched where %.0f million would be 4 epochs. "
  .. "data.tokens=N asks for more; files (hf:OWNER/NAME:PATH, "
  .. "data.source=PATH) have no such limit."
local MEMORY_NOTE = "%.0f million training tokens are taken, what this "
  .. "machine's memory allows, where %.0f million would be 4 epochs; "
  .. "data.tokens=N takes more."

-- How many tokens to take of a source, and a note when that is less than four
-- epochs need.
local function tokens_wanted(d, preset, source, amount)
  local tokens = preset.tokens or d.tokens
  if tokens ~= "auto" then return tokens end
  local rows = hub.is(source) and not hub.parse(source).path
  local most = host.machine().memory // MEMORY_PER_TOKEN
  if rows then most = math.min(most, ROWS_TOKENS) end
  if amount <= most then return amount end
  return most, (rows and ROWS_NOTE or MEMORY_NOTE):format(most / 1e6,
    amount / 1e6)
end

-- The options of host.text.prepare for a sweep's data section, and what a user
-- should know; names on the hub are still names.
function data.options(d, profile, amount, eval_tokens)
  local preset = PRESETS[d.preset] or {}
  local source, named = data.source(d, profile), data.tokenizer(d, profile)
  local merges = named and named:find "%.txt$" and named or nil
  local tokens, note = tokens_wanted(d, preset, source, amount)
  return { source = source, field = d.field, vocab = d.vocab,
    tokenizer = not merges and named or nil, merges = merges,
    validation = d.validation, cache = d.cache, seed = d.seed,
    tokens = tokens, eval_tokens = eval_tokens,
    documents = preset.documents or d.documents,
    max_chars = preset.max_chars or d.max_chars }, note
end

-- Bytes of text for so many tokens: more than a token has on average, and
-- enough for a tokenizer to learn from.
local function bytes_wanted(options)
  local bytes = options.tokens * 6 / (1 - options.validation)
  return math.max(bytes, options.tokenizer and 1e6 or 8e6)
end

-- Put files in the place of names on the hub; gives the dataset's revision.
local function fetch(options, say)
  local settings = hub.settings(options.cache, say)
  local revision
  if hub.is(options.source) then
    local got = hub.source(options.source, { field = options.field,
      rows = options.documents, bytes = bytes_wanted(options) }, settings)
    options.source, options.files = got.source, got.files
    revision = got.revision
  end
  if options.tokenizer and hub.is(options.tokenizer) then
    options.tokenizer = hub.tokenizer(options.tokenizer, settings)
  end
  return revision
end

local function file(path, count)
  return { path = path, count = count, crc32 = host.file.crc32(path),
    size = host.file.size(path) }
end

-- Prepare; gives the plain record that is journaled and handed to children.
-- say(text): told about retries and the like.
function data.prepare(d, profile, amount, eval_tokens, say)
  if tokenfiles.is(d.source) then return tokenfiles.prepare(d) end
  local options, note = data.options(d, profile, amount, eval_tokens)
  local named = options.source
  local revision = fetch(options, say)
  local text, message = host.text.prepare(options)
  if not text then fail.raise("world", "data: %s", message) end
  if text.vocab > d.vocab then
    fail.raise("argument", "the tokenizer has %d ids, data.vocab is %d",
      text.vocab, d.vocab)
  end
  local messages = text.messages
  if note then table.insert(messages, 1, note) end
  return { source = named, revision = revision, key = text.key,
    vocab = text.vocab, train = file(text.train_path, text.tokens),
    validation = file(text.validation_path, text.eval_tokens),
    tokenizer = text.tokenizer_path, bytes = text.bytes,
    documents = text.documents, messages = messages, reused = text.reused }
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
