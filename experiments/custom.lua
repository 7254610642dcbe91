-- Your own models: the original's custom example (one model of 1024 x 24
-- layers for an hour; on a CPU a small one for a minute), and beside it
-- another architecture, composed here out of layers: gated feed-forward,
-- rotation of the whole head, normalized queries and keys, untied head.
--
--   llmhost experiments/custom.lua [key=value …]
local nn = require("gpu").nn
local transformer = require("llm.model").transformer

-- c: the values of one experiment (lua/llm/schema.lua says which).
local function block(c)
  local C, p = c.d_model, c.dropout
  return nn.sequential {
    nn.residual {
      nn.rmsnorm { C, name = "attention_norm" },
      nn.attention { C, heads = c.n_heads, kv_heads = c.n_kv_heads,
        rope = { base = c.rope_base, fraction = 1, inclusive = false },
        qk_norm = true, dropout = c.attention_dropout, name = "attention" },
      nn.dropout { p },
    },
    nn.residual {
      nn.rmsnorm { C, name = "mlp_norm" },
      -- Three matrices in the place of two: two thirds of the width.
      nn.gated { C, c.d_ff * 2 // 3 // 16 * 16, name = "mlp" },
      nn.dropout { p },
    },
  }
end

local function gated(c)
  local blocks = { name = "blocks" }
  for i = 1, c.n_layers do blocks[i] = block(c) end
  return nn.sequential {
    nn.embedding { c.vocab, c.d_model, name = "embedding" },
    nn.sequential(blocks),
    nn.rmsnorm { c.d_model, name = "norm" },
    nn.head { c.d_model, c.vocab, name = "head" },
  }
end

return require("llm.sweep") {
  name = "custom",
  description = "One model of two architectures",
  profile = "auto",
  model = function(c)
    return c.variant == "gated" and gated(c) or transformer(c)
  end,
  matrix = {
    { name = "baseline" },
    { name = "gated", tied = false },
  },
  profiles = {
    full = {
      models = { { name = "1024d-24L", d_model = 1024, n_layers = 24,
        n_heads = 16, d_ff = 4096 } },
      train = { minutes = 60 },
    },
    nano = {
      models = { { name = "192d-4L", d_model = 192, n_layers = 4,
        n_heads = 4, d_ff = 768 } },
      train = { minutes = 1 },
    },
  },
  out = "custom_results",
}
