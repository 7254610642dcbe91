-- Llama folders and GGUF files: what transformers and gguf-py wrote is read
-- and written again, tensor by tensor; what cannot be represented is refused.
-- Stored files: tests/reference/llama, made by tests/reference/llama_peers.py.
local check = require "check"
local export = require "llm.export"
local gguf = require "llm.gguf"
local gpu = require "gpu"
local host = require "host"
local import = require "llm.import"
local saved = require "llm.saved"

local scratch = (os.getenv "TMPDIR" or "/tmp") .. "/llama"
assert(host.file.mkdir(scratch))
local folder = debug.getinfo(1, "S").source:match "^@(.*)lua/[^/]*$"
  .. "reference/llama"

local function far(a, b)
  local d = a - b
  return math.max(d:max():item(), -d:min():item())
end

-- Largest difference to transformers' logits at every position.
local function distance(s)
  local stored = assert(gpu.load(folder .. "/logits.safetensors"))
  local p <close> = saved.compile(s, { seq = 32 })
  local g <close>, worst = p:generator {}, 0
  for i, id in ipairs(stored.ids:table()[1]) do
    worst = math.max(worst, far(g:feed { id }:logits(),
      stored.logits:slice(1, i, i)))
  end
  return worst
end

local function decode(path) return host.json.decode(host.file.read(path)) end

-- A copy of the stored folder whose config.json has other values.
local function changed(name, values)
  local to = scratch .. "/" .. name
  assert(host.file.mkdir(to))
  local config = decode(folder .. "/config.json")
  for key, value in pairs(values) do config[key] = value end
  assert(host.file.write(to .. "/config.json", host.json.encode(config)))
  assert(host.file.write(to .. "/model.safetensors",
    host.file.read(folder .. "/model.safetensors")))
  return to
end

-- --- reading ---------------------------------------------------------------

check.case("a folder of transformers gives transformers' logits", function()
  local s = saved.open(folder)
  check.equal(s.kind, "llama")
  check.equal(s.shape.n_kv_heads, 2)
  check.equal(s.shape.rope_base, 500.0)
  check.equal(s.shape.tied, false)
  local worst = distance(s)
  check.truthy(worst <= 1e-4, "logits are off by " .. worst)
end)

check.case("bf16 shards and an index are read as well", function()
  local to = scratch .. "/shards"
  assert(host.file.mkdir(to))
  local all = assert(gpu.load(folder .. "/model.safetensors"))
  local parts, map, names = { {}, {} }, {}, {}
  for name in pairs(all) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    parts[i % 2 + 1][name] = all[name]:to "bf16"
    map[name] = "part-" .. i % 2 + 1 .. ".safetensors"
  end
  for i, part in ipairs(parts) do
    assert(gpu.save(to .. "/part-" .. i .. ".safetensors", part))
  end
  assert(host.file.write(to .. "/model.safetensors.index.json",
    host.json.encode { weight_map = map }))
  assert(host.file.write(to .. "/config.json",
    host.file.read(folder .. "/config.json")))
  local worst = distance(saved.open(to))
  check.truthy(worst > 1e-4 and worst < 1, "off by " .. worst)
end)

local REFUSED = {
  { "sliding", { sliding_window = 16 }, "sliding_window = 16" },
  { "bias", { attention_bias = true }, "attention_bias = true" },
  { "gelu", { hidden_act = "gelu" }, 'hidden_act = "gelu"' },
  { "mistral", { model_type = "mistral" }, 'model_type = "mistral"' },
  { "class", { architectures = { "LlamaForSequenceClassification" } },
    'architectures = ["LlamaForSequenceClassification"]' },
  { "width", { head_dim = 8 }, "head_dim = 8" },
  { "yarn", { rope_parameters = { rope_type = "yarn", rope_theta = 500 } },
    "rope_parameters = " },
  { "linear", { rope_scaling = { type = "linear", factor = 2 } },
    "rope_scaling = " },
  { "packed", { quantization_config = { bits = 4 } },
    "quantization_config = " },
  { "size", { hidden_size = "big" }, 'hidden_size = "big"' },
}

for _, r in ipairs(REFUSED) do
  check.case("refused by name: " .. r[3], function()
    local to = changed(r[1], r[2])
    check.raises(to .. "/config.json: " .. r[3], saved.open, to)
  end)
end

check.case("tensors that do not fit are named", function()
  local more = changed("layers", { num_hidden_layers = 3 })
  check.raises("tensor 'model.layers.2.input_layernorm.weight' is missing",
    saved.compile, saved.open(more), {})
  local fewer = changed("fewer", { num_hidden_layers = 1 })
  check.raises("tensor 'model.layers.1.input_layernorm.weight' is none of a "
    .. "Llama's", saved.compile, saved.open(fewer), {})
  local narrow = changed("narrow", { intermediate_size = 20 })
  check.raises("gate_proj.weight' + 'model.layers.0.mlp.up_proj.weight' is "
    .. "[48, 16], the model needs [40, 16]", saved.compile,
    saved.open(narrow), {})
  local bias = changed("biased", {})
  local all = assert(gpu.load(folder .. "/model.safetensors"))
  all["model.layers.0.self_attn.q_proj.bias"] = gpu.zeros { 16 }
  assert(gpu.save(bias .. "/model.safetensors", all))
  check.raises("q_proj.bias' is none of a Llama's here: this program has no "
    .. "biases", saved.compile, saved.open(bias), {})
end)

-- --- writing ---------------------------------------------------------------

check.case("exported again, the folder says the same", function()
  local to = export.write(saved.open(folder), scratch .. "/again",
    { dtype = "f32" })
  local a = assert(gpu.load(folder .. "/model.safetensors"))
  local b, metadata = assert(gpu.load(to .. "/model.safetensors"))
  local count = 0
  for name, t in pairs(a) do
    check.truthy(b[name] and t:equal(b[name]), name .. " differs")
    count, b[name] = count + 1, nil
  end
  check.equal(count, 21)
  check.equal(next(b), nil, "a tensor too many")
  check.equal(metadata.format, "pt", "transformers asks for it")
  local want, got = decode(folder .. "/config.json"),
    decode(to .. "/config.json")
  for _, key in ipairs { "model_type", "vocab_size", "hidden_size",
    "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps",
    "max_position_embeddings", "tie_word_embeddings", "eos_token_id",
    "attention_bias", "mlp_bias" } do
    check.equal(got[key], want[key], key)
  end
  check.equal(got.rope_theta, want.rope_parameters.rope_theta)
  check.equal(got.architectures[1], "LlamaForCausalLM")
  local ours = decode(to .. "/tokenizer.json")
  check.equal(ours.model.vocab["<|endoftext|>"], 0)
  check.equal(decode(to .. "/tokenizer_config.json").eos_token,
    "<|endoftext|>")
  check.truthy(distance(saved.open(to)) <= 1e-4, "read back")
end)

-- --- GGUF ------------------------------------------------------------------
-- A reader of its own, from the format's description.

local SIZED = { [0] = "B", "b", "I2", "i2", "I4", "i4", "f", "B", "s8",
  nil, "I8", "i8", "d" }

local function gguf_value(data, at, kind)
  if kind ~= 9 then return string.unpack("<" .. SIZED[kind], data, at) end
  local inner, count
  inner, count, at = string.unpack("<I4I8", data, at)
  local list = {}
  for i = 1, count do list[i], at = gguf_value(data, at, inner) end
  return list, at
end

-- { magic, version, pairs = {key = value}, tensors = {name = {…}} }
local function read_gguf(path)
  local data = assert(host.file.read(path))
  local f = { pairs = {}, tensors = {}, order = {} }
  local magic, version, tensors, pairs_, at = string.unpack("<c4I4I8I8", data)
  f.magic, f.version = magic, version
  for _ = 1, pairs_ do
    local key, kind
    key, kind, at = string.unpack("<s8I4", data, at)
    f.pairs[key], at = gguf_value(data, at, kind)
  end
  for i = 1, tensors do
    local t = { shape = {} }
    local name, rank
    name, rank, at = string.unpack("<s8I4", data, at)
    for d = 1, rank do t.shape[d], at = string.unpack("<I8", data, at) end
    t.kind, t.offset, at = string.unpack("<I4I8", data, at)
    f.tensors[name], f.order[i] = t, t
  end
  local start = at - 1 + -(at - 1) % 32
  for _, t in pairs(f.tensors) do
    local bytes = t.kind == 0 and 4 or 2
    for _, n in ipairs(t.shape) do bytes = bytes * n end
    t.data = data:sub(start + t.offset + 1, start + t.offset + bytes)
    check.equal(#t.data, bytes)
    check.equal(t.offset % 32, 0)
  end
  return f
end

local function show(v)
  return type(v) == "table" and host.json.encode(v) or tostring(v)
end

check.case("a GGUF file is what gguf-py writes, value by value", function()
  local to = export.write(saved.open(folder), scratch .. "/m.gguf",
    { dtype = "f32" })
  local want, got = read_gguf(folder .. "/llama.gguf"), read_gguf(to)
  check.equal(got.magic, "GGUF")
  check.equal(got.version, 3)
  for key, value in pairs(want.pairs) do
    check.equal(show(got.pairs[key]), show(value), key)
    got.pairs[key] = nil
  end
  check.equal(got.pairs["general.alignment"], 32)
  got.pairs["general.alignment"] = nil
  check.equal(next(got.pairs), nil, "a key too many")
  for name, t in pairs(want.tensors) do
    local mine = got.tensors[name]
    check.truthy(mine, name .. " is missing")
    check.equal(table.concat(mine.shape, " "), table.concat(t.shape, " "))
    check.equal(mine.kind, t.kind, name)
    check.truthy(mine.data == t.data, name .. " differs")
    got.tensors[name] = nil
  end
  check.equal(next(got.tensors), nil, "a tensor too many")
end)

check.case("rows of the embedding that no token has get names", function()
  local s, shape = saved.open(folder), {}
  for key, value in pairs(s.shape) do shape[key] = value end
  shape.vocab = 325
  local path = scratch .. "/more.gguf"
  gguf.write(path, { name = "more", shape = shape }, {},
    saved.open_tokenizer(s), { dtype = "f32" })
  local f = read_gguf(path)
  local names = f.pairs["tokenizer.ggml.tokens"]
  check.equal(#names, 325)
  check.equal(names[325], "[UNUSED324]")
  check.equal(f.pairs["tokenizer.ggml.token_type"][325], 5)
  check.equal(f.pairs["tokenizer.ggml.token_type"][1], 3)
  check.equal(f.pairs["tokenizer.ggml.eos_token_id"], nil)
end)

check.case("16-bit files: matrices rounded, vectors as they are", function()
  for dtype, kind in pairs { f16 = 1, bf16 = 30 } do
    local f = read_gguf(export.write(saved.open(folder),
      scratch .. "/" .. dtype .. ".gguf", { dtype = dtype }))
    check.equal(f.pairs["general.file_type"], dtype == "f16" and 1 or 32)
    check.equal(f.tensors["output.weight"].kind, kind)
    check.equal(f.tensors["output_norm.weight"].kind, 0)
    local to = export.write(saved.open(folder), scratch .. "/" .. dtype,
      { dtype = dtype })
    local t = assert(gpu.load(to .. "/model.safetensors"))
    check.equal(t["lm_head.weight"].dtype, dtype)
    local worst = distance(saved.open(to))
    check.truthy(worst > 0 and worst < 1, dtype .. " off by " .. worst)
  end
end)

-- --- what is no Llama ------------------------------------------------------

check.case("a model that is no Llama is refused with the reason", function()
  local s = saved.open(folder)
  for key, value in pairs { gated = false, rope_fraction = .5,
    rope_inclusive = true, rope_inverse = false, scaled_embedding = true,
    qk_norm = true } do
    local shape = {}
    for k, v in pairs(s.shape) do shape[k] = v end
    shape[key] = value
    check.raises("this model is none: ", export.write,
      { shape = shape, folder = folder }, scratch .. "/no", {})
    check.raises(key, export.write, { shape = shape, folder = folder },
      scratch .. "/no.gguf", {})
  end
  check.truthy(not host.file.exists(scratch .. "/no"))
end)

check.case("import.is and import.tokenizer look at files alone", function()
  check.truthy(import.is(folder))
  check.truthy(not import.is(scratch))
  check.equal(import.tokenizer(scratch), nil)
  check.raises("no config.json there", import.shape, scratch)
end)

check.done()
