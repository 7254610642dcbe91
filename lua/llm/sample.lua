-- Text from a saved model, as it is made.
local host = require "host"
local saved = require "llm.saved"

local sample = {}

-- --- bytes to text ---

local BAD = "\u{FFFD}"

-- Whether `s` can be the beginning of one character.
local function may_grow(s)
  local first = s:byte()
  local length = first >= 0xF0 and first < 0xF5 and 4 or first >= 0xE0 and 3
    or first >= 0xC2 and 2 or 1
  return #s < length and not s:find("[^\x80-\xBF]", 2)
end

-- Whole characters of `bytes`, and what is left for later. A byte that belongs
-- to no character becomes U+FFFD; with `last`, so does what is left.
function sample.characters(bytes, last)
  local out = {}
  while bytes ~= "" do
    local _, bad = utf8.len(bytes)
    if not bad then
      out[#out + 1], bytes = bytes, ""
    else
      out[#out + 1], bytes = bytes:sub(1, bad - 1), bytes:sub(bad)
      if not last and may_grow(bytes) then break end
      out[#out + 1], bytes = BAD, bytes:sub(2)
    end
  end
  return table.concat(out), bytes
end

-- Control characters would move a terminal's cursor, or worse.
local function harmless(text)
  return (text:gsub("[%z\1-\8\11-\31\127]", BAD)
    :gsub("\xC2[\x80-\x9F]", BAD))
end

-- A function that takes bytes and writes whole characters to `file`; called
-- with nothing, what is left.
function sample.writer(file, is_terminal)
  local left = ""
  return function(bytes)
    local text
    text, left = sample.characters(left .. (bytes or ""), not bytes)
    if is_terminal then text = harmless(text) end
    file:write(text)
    file:flush()
  end
end

-- --- what is said at the end ---

local WORDS = { [1] = "all heads", [2] = "half", [3] = "a third",
  [4] = "a quarter", [8] = "an eighth" }

local function megabytes(bytes)
  return bytes < 1e6 and ("%.1f kB"):format(bytes / 1e3)
    or ("%.1f MB"):format(bytes / 1e6)
end

-- "KV cache 1.0 MB for 512 tokens (4 of 8 heads: half)".
function sample.cache_text(memory, context)
  local least, most, word = memory.kv_heads, memory.heads, nil
  if most == 0 then
    return "no KV cache: a layer of the script's own sees the whole text"
  end
  local layers = memory.layers or 1
  if most % least == 0 then word = WORDS[most // least] end
  word = word or ("%.0f %%"):format(100 * least / most)
  return ("KV cache %s for %d tokens (%d of %d heads: %s)"):format(
    megabytes(memory.cache), context, least // layers, most // layers, word)
end

-- --- running ---

-- The prompt's ids, or the end of text, after which documents begin.
local function prompt_ids(tok, prompt, stop)
  if prompt == "" then
    return stop and { stop } or host.raise("usage", "sample: this tokenizer "
      .. "has no end of text to begin with; give prompt=\"…\"")
  end
  local ids = tok:encode(prompt)
  if tok:dropped() > 0 then
    io.stderr:write(("%d bytes of the prompt have no token and are left out\n")
      :format(tok:dropped()))
  end
  return #ids > 0 and ids or { stop }
end

-- Feed the prompt; when it is longer than the cache, its end.
local function feed(g, ids, context)
  local n = #ids
  if n > context then
    n = (context + 1) // 2
    io.stderr:write(("the prompt has %d tokens, the context %d: its last %d "
      .. "are read\n"):format(#ids, context, n))
  end
  g:feed(table.move(ids, #ids - n + 1, #ids, 1, {}))
end

-- One token more; false when the cache is full and o.slide is not set.
local function step(g, id, context, o)
  if g:position() == context then
    if not o.slide or context < 2 then return false end
    g:slide(context // 2)
    if not o.told then
      o.told = true
      io.stderr:write(("\n(the context of %d tokens is full: the text goes on "
        .. "from its later half)\n"):format(context))
    end
  end
  g:feed { id }
  return true
end

local function draw_all(g, tok, write, stop, context, o)
  local known, count = tok:count(), 0
  while count < o.tokens and host.process.interrupted() == 0 do
    local id = g:sample { temperature = o.temperature, top_k = o.top_k,
      top_p = o.top_p, seed = o.seed }
    if id == stop then break end
    count = count + 1
    if id < known then
      local bytes, special = tok:token(id)
      if not special then write(bytes) end
    end
    if count < o.tokens and not step(g, id, context, o) then break end
  end
  write()
  return count
end

-- Write `o.tokens` tokens after o.prompt to standard output. `s`: a
-- description of llm.saved. Gives { tokens, seconds, prompt_seconds, memory,
-- context }.
function sample.run(s, o)
  local tok = saved.open_tokenizer(s, o.tokenizer)
  local stop = saved.end_of(s, tok)
  local context = o.context or s.shape.seq
  local p <close> = saved.compile(s, { seq = context, storage = o.storage })
  local g <close> = p:generator { context = context }
  local write = sample.writer(io.stdout, host.terminal.isatty(1))
  local ids = prompt_ids(tok, o.prompt, stop)
  local began = host.clock()
  if o.prompt ~= "" then write(o.prompt) end
  feed(g, ids, context)
  local first = host.clock()
  local count = draw_all(g, tok, write, stop, context, o)
  local memory = g:memory()
  memory.layers = not s.build and s.shape.n_layers or nil
  io.stdout:write "\n"
  return { tokens = count, prompt = #ids, context = context, memory = memory,
    prompt_seconds = first - began, seconds = host.clock() - first }
end

return sample
