-- GGUF version 3, as llama.cpp reads it: a Llama's tensors and its byte-level
-- BPE in one file. Source: ggml's docs/gguf.md; key names as in llama.cpp.
local gpu = require "gpu"
local host = require "host"
local must = require("llm.metrics").must

local gguf = {}

local ALIGNMENT = 32

-- --- values ---

local function text(s) return string.pack("<s8", s) end

-- Types of values: a number and how one is packed.
local TYPE = {
  u32 = { 4, function(v) return string.pack("<I4", v) end },
  i32 = { 5, function(v) return string.pack("<i4", v) end },
  f32 = { 6, function(v) return string.pack("<f", v) end },
  bool = { 7, function(v) return v and "\1" or "\0" end },
  string = { 8, text },
}

local function pair(key, kind, value)
  return text(key) .. string.pack("<I4", TYPE[kind][1]) .. TYPE[kind][2](value)
end

local function array(key, kind, list)
  local out = {}
  for i, v in ipairs(list) do out[i] = TYPE[kind][2](v) end
  return text(key) .. string.pack("<I4I4I8", 9, TYPE[kind][1], #list)
    .. table.concat(out)
end

-- --- metadata ---

-- general.file_type: the dtype of most tensors.
local FILE_TYPE = { f32 = 0, f16 = 1, bf16 = 32 }

local function model_pairs(s, dtype)
  local c = s.shape
  return {
    pair("general.architecture", "string", "llama"),
    pair("general.name", "string", s.name),
    pair("general.alignment", "u32", ALIGNMENT),
    pair("general.file_type", "u32", FILE_TYPE[dtype]),
    pair("llama.vocab_size", "u32", c.vocab),
    pair("llama.context_length", "u32", c.seq),
    pair("llama.embedding_length", "u32", c.d_model),
    pair("llama.block_count", "u32", c.n_layers),
    pair("llama.feed_forward_length", "u32", c.d_ff),
    pair("llama.attention.head_count", "u32", c.n_heads),
    pair("llama.attention.head_count_kv", "u32", c.n_kv_heads),
    pair("llama.attention.layer_norm_rms_epsilon", "f32", c.norm_eps),
    pair("llama.rope.dimension_count", "u32", c.d_model // c.n_heads),
    pair("llama.rope.freq_base", "f32", c.rope_base),
  }
end

local NORMAL, CONTROL, UNUSED = 1, 3, 5

-- Names and types of all `count` ids; rows of the embedding that no token has
-- get a name, too.
local function vocabulary(tokenizer, tok, count)
  local names, types = {}, {}
  for name, id in pairs(tokenizer.model.vocab) do
    names[id + 1], types[id + 1] = name, NORMAL
  end
  for _, added in ipairs(tokenizer.added_tokens or {}) do
    names[added.id + 1], types[added.id + 1] = added.content, CONTROL
  end
  for id = tok:count(), count - 1 do
    names[id + 1], types[id + 1] = ("[UNUSED%d]"):format(id), UNUSED
  end
  return names, types
end

-- The pre-tokenizer that llama.cpp calls smollm is this program's: digits
-- alone, then GPT-2's pattern.
local function tokenizer_pairs(tok, count, eos)
  local tokenizer = host.json.decode(tok:json())
  local names, types = vocabulary(tokenizer, tok, count)
  local list = {
    pair("tokenizer.ggml.model", "string", "gpt2"),
    pair("tokenizer.ggml.pre", "string", "smollm"),
    array("tokenizer.ggml.tokens", "string", names),
    array("tokenizer.ggml.token_type", "i32", types),
    array("tokenizer.ggml.merges", "string", tokenizer.model.merges),
    pair("tokenizer.ggml.add_bos_token", "bool", false),
    pair("tokenizer.ggml.add_eos_token", "bool", false),
  }
  if eos then
    list[#list + 1] = pair("tokenizer.ggml.bos_token_id", "u32", eos)
    list[#list + 1] = pair("tokenizer.ggml.eos_token_id", "u32", eos)
  end
  return list
end

-- --- tensors ---

local NAMES = {
  ["model.embed_tokens"] = "token_embd", ["model.norm"] = "output_norm",
  ["lm_head"] = "output", ["input_layernorm"] = "attn_norm",
  ["self_attn.q_proj"] = "attn_q", ["self_attn.k_proj"] = "attn_k",
  ["self_attn.v_proj"] = "attn_v", ["self_attn.o_proj"] = "attn_output",
  ["post_attention_layernorm"] = "ffn_norm", ["mlp.gate_proj"] = "ffn_gate",
  ["mlp.up_proj"] = "ffn_up", ["mlp.down_proj"] = "ffn_down",
}

-- llama.cpp's name of a tensor of Hugging Face's.
function gguf.name(theirs)
  local stem = theirs:match "^(.*)%.weight$"
  local layer, rest = stem:match "^model%.layers%.(%d+)%.(.*)$"
  if layer then return "blk." .. layer .. "." .. NAMES[rest] .. ".weight" end
  return NAMES[stem] .. ".weight"
end

-- llama.cpp turns neighbours, Hugging Face the halves of a head: row i of the
-- first half goes to place 2 i, row i of the second to 2 i + 1.
local function interleaved(t, heads)
  local rows, columns = t.shape[1], t.shape[2]
  return t:reshape { heads, 2, rows // heads // 2, columns }:transpose(2, 3)
    :reshape { rows, columns }
end

local TENSOR_TYPE = { f32 = 0, f16 = 1, bf16 = 30 }

-- The tensor as the file holds it: vectors stay f32.
local function stored(name, t, c, dtype)
  if name:find "attn_q" then t = interleaved(t, c.n_heads) end
  if name:find "attn_k" then t = interleaved(t, c.n_kv_heads) end
  if #t.shape > 1 and dtype ~= "f32" then t = t:to(dtype) end
  return t
end

-- Sizes are written with the fastest dimension first.
local function info(name, t, offset)
  local sizes = {}
  for i = #t.shape, 1, -1 do
    sizes[#sizes + 1] = string.pack("<I8", t.shape[i])
  end
  return text(name) .. string.pack("<I4", #sizes) .. table.concat(sizes)
    .. string.pack("<I4I8", TENSOR_TYPE[t.dtype], offset)
end

local function padding(bytes)
  return ("\0"):rep(-bytes % ALIGNMENT)
end

-- --- the file ---

-- Write `tensors` (llama.tensors) of the description `s` with the tokenizer
-- `tok`. how: dtype "f32", "f16" or "bf16" of matrices, eos (an id or nil).
function gguf.write(path, s, tensors, tok, how)
  local pairs_ = model_pairs(s, how.dtype)
  local more = tokenizer_pairs(tok, s.shape.vocab, how.eos)
  table.move(more, 1, #more, #pairs_ + 1, pairs_)
  local infos, parts, offset = {}, { "" }, 0
  for i, t in ipairs(tensors) do
    local name = gguf.name(t.name)
    local values = stored(name, t.tensor, s.shape, how.dtype)
    infos[i] = info(name, values, offset)
    parts[#parts + 1] = values
    parts[#parts + 1] = padding(values:bytes())
    offset = offset + values:bytes() + #parts[#parts]
  end
  local head = "GGUF" .. string.pack("<I4I8I8", 3, #tensors, #pairs_)
    .. table.concat(pairs_) .. table.concat(infos)
  parts[1] = head .. padding(#head)
  must(gpu.write(path, parts))
end

return gguf
