-- Llama models as Hugging Face keeps them: config.json in both directions, the
-- names of the tensors, and what of it this program cannot be.
local fail = require "llm.fail"
local host = require "host"

local llama = {}

-- --- shape and config.json ---

-- Whether the experiment's shape `c` is a Llama; if not, false and why.
function llama.is(c)
  local wrong = {
    { not c.gated, "its feed-forward is not gated (gated = true)" },
    { c.rope_fraction ~= 1, "it rotates a part of each head "
      .. "(rope_fraction = 1)" },
    { c.rope_inclusive, "its rotary frequencies reach 1/base "
      .. "(rope_inclusive = false)" },
    { not c.rope_inverse, "it rotates the other way (rope_inverse = true)" },
    { c.scaled_embedding, "it scales its embedding "
      .. "(scaled_embedding = false)" },
    { c.qk_norm, "it normalizes queries and keys (qk_norm = false)" },
  }
  for _, w in ipairs(wrong) do
    if w[1] then return false, w[2] end
  end
  return true
end

-- Raise unless `c` is a Llama. `what` is not possible otherwise.
function llama.need(c, what)
  local ok, why = llama.is(c)
  if ok then return end
  fail.raise("argument", "%s needs a Llama, and this model is none: %s; "
    .. "preset=llama trains one", what, why)
end

-- config.json of a Llama of shape `c`. how: dtype ("float32"), bos, eos (ids
-- or nil).
function llama.config(c, how)
  local null = host.json.null
  return host.json.ordered {
    { "architectures", host.json.array { "LlamaForCausalLM" } },
    { "model_type", "llama" },
    { "vocab_size", c.vocab },
    { "hidden_size", c.d_model },
    { "intermediate_size", c.d_ff },
    { "num_hidden_layers", c.n_layers },
    { "num_attention_heads", c.n_heads },
    { "num_key_value_heads", c.n_kv_heads },
    { "head_dim", c.d_model // c.n_heads },
    { "hidden_act", "silu" },
    { "max_position_embeddings", c.seq },
    { "rms_norm_eps", c.norm_eps },
    { "rope_theta", c.rope_base + .0 },
    { "rope_scaling", null },
    { "attention_bias", false },
    { "mlp_bias", false },
    { "attention_dropout", 0.0 },
    { "initializer_range", .02 },
    { "tie_word_embeddings", c.tied ~= false },
    { "bos_token_id", how.bos or null },
    { "eos_token_id", how.eos or null },
    { "torch_dtype", how.dtype },
    { "use_cache", true },
  }
end

-- { key, what it may be at most: a value, or nothing (absent or null) }.
local FIXED = {
  { "hidden_act", "silu" }, { "attention_bias", false },
  { "mlp_bias", false }, { "sliding_window", nil },
  { "quantization_config", nil }, { "pretraining_tp", 1 },
}

local SIZES = { d_model = "hidden_size", d_ff = "intermediate_size",
  n_layers = "num_hidden_layers", n_heads = "num_attention_heads",
  vocab = "vocab_size" }

local function absent(v) return v == nil or v == host.json.null end

local function show(v)
  if type(v) == "table" then return host.json.encode(v) end
  return type(v) == "string" and '"' .. v .. '"' or tostring(v)
end

-- The rotary base, from rope_theta or rope_parameters; raises for scaled ones.
local function rope_base(config, refuse)
  for _, key in ipairs { "rope_scaling", "rope_parameters" } do
    local p = config[key]
    if not absent(p)
      and (p.rope_type or p.type or "default") ~= "default" then
      refuse(key, p)
    end
  end
  local p = config.rope_parameters
  local base = not absent(p) and p.rope_theta or config.rope_theta
  return absent(base) and 10000 or base
end

local function check_kind(config, refuse)
  if config.model_type ~= "llama" then
    refuse("model_type", config.model_type)
  end
  local a = config.architectures
  if not absent(a) and a[1] ~= "LlamaForCausalLM" then
    refuse("architectures", a)
  end
  for _, f in ipairs(FIXED) do
    local v = config[f[1]]
    if not absent(v) and v ~= f[2] then refuse(f[1], v) end
  end
end

-- The shape (the keys of a configuration's model row, and vocab, seq) of a
-- decoded config.json; raises, naming `path` and the key, for what this
-- program cannot be.
function llama.shape(config, path)
  local function refuse(key, v)
    fail.raise("format", "%s: %s = %s: this program reads LlamaForCausalLM "
      .. "with SiLU, plain rotary positions, no biases, no windows", path, key,
      show(v))
  end
  check_kind(config, refuse)
  local c = { preset = "llama", rope_base = rope_base(config, refuse),
    tied = config.tie_word_embeddings == true, dropout = 0 }
  for mine, theirs in pairs(SIZES) do
    local v = math.tointeger(config[theirs])
    if not v or v < 1 then refuse(theirs, config[theirs]) end
    c[mine] = v
  end
  local kv, eps = config.num_key_value_heads, config.rms_norm_eps
  c.n_kv_heads = absent(kv) and c.n_heads or math.tointeger(kv)
  c.norm_eps = absent(eps) and 1e-6 or eps
  c.seq = math.tointeger(config.max_position_embeddings) or 2048
  local width = config.head_dim
  if not absent(width) and width * c.n_heads ~= c.d_model then
    refuse("head_dim", width)
  end
  return require("llm.model").complete(c)
end

-- --- tensors ---

-- A program's parameters as Hugging Face's tensors: a list of
-- { name, theirs = { names… }, rows = { of each } }; several names are one
-- matrix of ours, their rows one after the other.
function llama.names(c)
  local D = c.d_model // c.n_heads
  local q, k = c.n_heads * D, c.n_kv_heads * D
  local list = {}
  local function add(name, theirs, rows)
    list[#list + 1] = { name = name, theirs = theirs, rows = rows }
  end
  add("embedding.weight", { "model.embed_tokens.weight" })
  for i = 0, c.n_layers - 1 do
    local a, b = "blocks." .. i .. ".", "model.layers." .. i .. "."
    add(a .. "attention_norm.weight", { b .. "input_layernorm.weight" })
    add(a .. "attention.qkv.weight", { b .. "self_attn.q_proj.weight",
      b .. "self_attn.k_proj.weight", b .. "self_attn.v_proj.weight" },
      { q, k, k })
    add(a .. "attention.out.weight", { b .. "self_attn.o_proj.weight" })
    add(a .. "mlp_norm.weight", { b .. "post_attention_layernorm.weight" })
    add(a .. "mlp.gate_up.weight", { b .. "mlp.gate_proj.weight",
      b .. "mlp.up_proj.weight" }, { c.d_ff, c.d_ff })
    add(a .. "mlp.down.weight", { b .. "mlp.down_proj.weight" })
  end
  add("norm.weight", { "model.norm.weight" })
  if c.tied == false then add("head.weight", { "lm_head.weight" }) end
  return list
end

-- The tensors of `program`, a Llama of shape `c`, under Hugging Face's names
-- in the order of the model: a list of { name, tensor }, f32.
function llama.tensors(program, c)
  local list = {}
  for _, n in ipairs(llama.names(c)) do
    local t, first = program:parameter(n.name), 1
    for i, name in ipairs(n.theirs) do
      local part = t
      if n.rows then
        part = t:slice(1, first, first + n.rows[i] - 1)
        first = first + n.rows[i]
      end
      list[#list + 1] = { name = name, tensor = part }
    end
  end
  return list
end

return llama
