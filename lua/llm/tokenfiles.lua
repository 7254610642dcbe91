-- A sweep on text that somebody else has encoded: llm.c's or nanoGPT's .bin, or
-- token files of our own. They are checked and copied into the cache in our
-- format, which children open.
local fail = require "llm.fail"
local host = require "host"
local hub = require "llm.hub"

local tokenfiles = {}

-- Whether a source is a token file, by its name.
function tokenfiles.is(source)
  return (source:find "%.bin$" or source:find "%.tokens$") ~= nil
    and not source:find "[*?]" and not source:find "^hf:"
end

local function replace_last(text, word, by)
  local at, last = text:find(word, 1, true), nil
  while at do
    last, at = at, text:find(word, at + 1, true)
  end
  return last and text:sub(1, last - 1) .. by .. text:sub(last + #word)
end

-- The file of held-out tokens beside `path`: its name with "val" for "train";
-- or nil, and the names that were looked for.
function tokenfiles.held_out(path)
  local folder, name = path:match "^(.-)([^/]*)$"
  local tried = {}
  for _, word in ipairs { "val", "validation" } do
    local other = replace_last(name, "train", word)
    if other and host.file.is_file(folder .. other) then
      return folder .. other
    end
    tried[#tried + 1] = other and folder .. other
  end
  return nil, tried
end

local LLMC = { [20240520] = true, [20240801] = true }

-- How a .bin is written: llm.c's has a magic number, nanoGPT's nothing.
local function format_of(path)
  if not path:find "%.bin$" then return "llmhost" end
  local file = io.open(path, "rb")
  local head = file and file:read(4) or ""
  if file then file:close() end
  return #head == 4 and LLMC[string.unpack("<i4", head)] and "llm.c"
    or "nanogpt"
end

local function open(path, vocab)
  local tokens, message = host.text.tokens { path, format = format_of(path),
    vocab = vocab }
  return tokens or fail.raise("world", "data: %s (data.vocab is %d)", message,
    vocab)
end

-- Open one, copy it into the cache; gives what the journal keeps of it.
local function take(path, d, kind)
  local tokens <close> = open(path, d.vocab)
  local info = tokens:info()
  if info.vocab > d.vocab then
    fail.raise("world", "data: %s holds ids of a vocabulary of %d; "
      .. "data.vocab is %d", path, info.vocab, d.vocab)
  end
  host.file.mkdir(d.cache)
  local copy = ("%s/%s-%s.%s.tokens"):format(d.cache, info.checksum,
    info.count, kind)
  if not (host.file.is_file(copy) and host.text.tokens { copy }) then
    local ok, message, code = tokens:save(copy)
    if not ok then fail.raise(code, "data: %s", message) end
  end
  return { path = copy, count = info.count, crc32 = host.file.crc32(copy),
    size = host.file.size(copy) }
end

-- The record of a sweep's data, as llm.data gives it. d: the data section.
function tokenfiles.prepare(d)
  local held, tried = tokenfiles.held_out(d.source)
  if not held then
    fail.raise("world", "data: %s: its held-out tokens are missing: %s",
      d.source, #tried > 0 and "there is no " .. table.concat(tried, " nor ")
      or "the name has no \"train\" to be replaced by \"val\"")
  end
  local train, validation = take(d.source, d, "train"), take(held, d,
    "validation")
  local named = d.tokenizer
  local own = named ~= "auto" and named ~= "train"
  if own and hub.is(named) then
    named = hub.tokenizer(named, hub.settings(d.cache))
  end
  return { source = d.source, key = train.crc32 .. validation.crc32,
    vocab = d.vocab, train = train, validation = validation,
    tokenizer = own and named or nil, messages = {}, reused = false }
end

return tokenfiles
