-- How well does a trained model predict a text? A checkpoint, or a Llama folder
-- as Hugging Face keeps it; loss, perplexity, accuracy, bits a byte.
--
--   llmhost experiments/evaluate.lua [MODEL] [text=SOURCE] [key=value …]
--
-- MODEL is what sample.lua takes; the newest checkpoint here. Without text= it
-- is the text that the run held out.
local fail = require "llm.fail"
local host = require "host"
local keys = require "llm.keys"
local saved = require "llm.saved"

local o, rest = keys.read({
  { "text", "string", nil,
    "file, folder, pattern, - (standard input), system; default: the text that "
    .. "the run held out" },
  { "tokens", "integer", 100000, "at most", { least = 2 } },
  { "seq", "integer", nil,
    "tokens of a window; default: what the model trained with",
    { least = 1 } },
  { "batch", "integer", 4, "windows at a time", { least = 1 } },
  { "tokenizer", "string", nil,
    "tokenizer.json, when the results do not say where it is" },
  { "script", "string", nil,
    "the script whose model = function built the model" },
  { "storage", "string", nil, "4-bit weights for a Llama folder",
    { words = { "f32", "nf4r" } } },
}, { words = { { "MODEL",
  "a folder, or the name of a run; the newest checkpoint" } } })

local function need(value, message)
  return value or fail.raise("error", "%s", message)
end

-- The tokens to predict, and a word for where they come from.
local function open_text(s)
  if o.text then
    local ok, corpus, message = pcall(host.text.corpus, { source = o.text,
      max_tokens = o.tokens })
    if not ok then
      fail.raise("usage", "text=%s: %s", o.text, corpus.message or corpus)
    end
    need(corpus, message)
    return need(host.text.tokens { corpus = corpus,
      tokenizer = saved.open_tokenizer(s, o.tokenizer) }), o.text
  elseif not s.validation then
    fail.raise("usage", "%s: which text? text=FILE", s.folder)
  end
  return need(host.text.tokens { s.validation }), "the run's held-out text"
end

-- Samples of `seq` tokens in order; a text that is too short is told by name.
local function open_samples(tokens, name, seq)
  local ok, loader, message = pcall(host.text.loader, tokens, {
    batch = 1 << 20, seq = seq, sequential = true })
  if not ok then
    fail.raise("usage", "%s: %s", name, type(loader) == "table"
      and loader.message or loader)
  end
  return need(loader, message)
end

local function main()
  local s = saved.open(rest[1])
  if o.script then s.build = saved.build_of(o.script) end
  local tokens, name = open_text(s)
  local seq = o.seq or s.shape.seq
  local loader = open_samples(tokens, name, seq)
  local p <close> = saved.compile(s, { seq = seq, batch = o.batch,
    storage = o.storage })
  local r, info = p:evaluate(loader, o.tokens), tokens:info()
  print(("%s on %s: loss %.4f, perplexity %.2f, accuracy %.1f %%, "
    .. "%.3f bits a byte (%d tokens)"):format(s.name, name, r.loss,
    r.perplexity, 100 * r.accuracy,
    r.loss / math.log(2) * info.count / info.bytes, r.tokens))
  return 0
end

return setmetatable({}, { __run = main })
