-- Transformers out of gpu.nn pieces: the original's, Llama's, and what lies
-- between, by the values of a configuration. A configuration's
-- `model = function(c) … end` may build anything else instead.
local nn = require("gpu").nn

local model = {}

-- What `preset` means: the values of keys that a configuration leaves out.
model.presets = {
  original = { dropout = .1, gated = false, rope_base = 10000,
    rope_fraction = .5, rope_inclusive = true, rope_inverse = false,
    scaled_embedding = true, qk_norm = false, norm_eps = 2 ^ -23 },
  llama = { dropout = 0, gated = true, rope_base = 10000, rope_fraction = 1,
    rope_inclusive = false, rope_inverse = true, scaled_embedding = false,
    qk_norm = false, norm_eps = 1e-5 },
}

-- A copy of the shape `c` with its preset's values where it has none.
function model.complete(c)
  local full = {}
  for key, value in pairs(model.presets[c.preset or "original"]) do
    full[key] = value
  end
  for key, value in pairs(c) do full[key] = value end
  if full.attention_dropout == nil then
    full.attention_dropout = full.dropout
  end
  return full
end

local function rope(c)
  if c.rope ~= nil then return c.rope end
  return { base = c.rope_base, fraction = c.rope_fraction,
    inclusive = c.rope_inclusive, inverse = c.rope_inverse }
end

local function norm(c, name)
  return nn.rmsnorm { c.d_model, eps = c.norm_eps, name = name }
end

local function feed_forward(c)
  local p, C, F = c.dropout, c.d_model, c.d_ff
  if c.gated then
    return nn.residual { norm(c, "mlp_norm"),
      nn.gated { C, F, dropout = p, name = "mlp" }, nn.dropout { p } }
  end
  return nn.residual {
    norm(c, "mlp_norm"),
    nn.linear { C, F, name = "mlp.up" },
    nn.silu {},
    nn.dropout { p },
    nn.linear { F, C, name = "mlp.down" },
    nn.dropout { p },
  }
end

-- One block: x + dropout(attention(norm(x))), x + dropout(mlp(norm(x))).
-- c: d_model, n_heads, n_kv_heads, d_ff and what model.presets lists.
function model.block(c)
  c = model.complete(c)
  return nn.sequential {
    nn.residual {
      norm(c, "attention_norm"),
      nn.attention { c.d_model, heads = c.n_heads,
        kv_heads = c.n_kv_heads or c.n_heads, rope = rope(c),
        qk_norm = c.qk_norm, eps = c.qk_norm and c.norm_eps or nil,
        dropout = c.attention_dropout, name = "attention" },
      nn.dropout { c.dropout },
    },
    feed_forward(c),
  }
end

-- The whole model: embedding (original: x sqrt(C)), dropout, blocks, norm,
-- dropout, and a projection to the vocabulary tied to the embedding (tied =
-- false: its own).
function model.transformer(c)
  c = model.complete(c)
  local C, p = c.d_model, c.dropout
  local embedding = nn.embedding { c.vocab, C, name = "embedding",
    scale = c.scaled_embedding and math.sqrt(C) or nil }
  local blocks = { name = "blocks" }
  for i = 1, c.n_layers do blocks[i] = model.block(c) end
  return nn.sequential {
    embedding,
    nn.dropout { p },
    nn.sequential(blocks),
    norm(c, "norm"),
    nn.dropout { p },
    c.tied == false and nn.head { C, c.vocab, name = "head" }
      or nn.head { tied = embedding },
  }
end

return model
