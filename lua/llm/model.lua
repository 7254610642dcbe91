-- The original's transformer, out of gpu.nn pieces. A configuration's
-- `model = function(c) … end` may build anything else instead.
local nn = require("gpu").nn

local model = {}

local function rope(c)
  if c.rope == false then return false end
  return c.rope or { base = c.rope_base or 10000,
    fraction = c.rope_fraction or .5,
    inclusive = c.rope_inclusive ~= false }
end

-- One block: x + dropout(attention(norm(x))), x + dropout(mlp(norm(x))).
-- c: d_model, n_heads, n_kv_heads, d_ff, dropout, attention_dropout, rope_*.
function model.block(c)
  local p, C, F = c.dropout or 0, c.d_model, c.d_ff
  return nn.sequential {
    nn.residual {
      nn.rmsnorm { C, name = "attention_norm" },
      nn.attention { C, heads = c.n_heads,
        kv_heads = c.n_kv_heads or c.n_heads, rope = rope(c),
        dropout = c.attention_dropout or p, name = "attention" },
      nn.dropout { p },
    },
    nn.residual {
      nn.rmsnorm { C, name = "mlp_norm" },
      nn.linear { C, F, name = "mlp.up" },
      nn.silu {},
      nn.dropout { p },
      nn.linear { F, C, name = "mlp.down" },
      nn.dropout { p },
    },
  }
end

-- The whole model: embedding x sqrt(C), dropout, blocks, norm, dropout, and a
-- projection to the vocabulary tied to the embedding (tied = false: its own).
function model.transformer(c)
  local C, p = c.d_model, c.dropout or 0
  local embedding = nn.embedding { c.vocab, C, scale = math.sqrt(C),
    name = "embedding" }
  local blocks = { name = "blocks" }
  for i = 1, c.n_layers do blocks[i] = model.block(c) end
  return nn.sequential {
    embedding,
    nn.dropout { p },
    nn.sequential(blocks),
    nn.rmsnorm { C, name = "norm" },
    nn.dropout { p },
    c.tied == false and nn.head { C, c.vocab, name = "head" }
      or nn.head { tied = embedding },
  }
end

return model
