-- Profiles: whole configurations by name, to read, copy and change.
-- `full` is the sweep of a 24 GB card; `nano` runs on two CPU cores in
-- minutes and shows memory and speed, not which variant learns better.
local profile = {}

local MATRIX = {
  { name = "baseline" },
  { name = "gqa", kv_groups = 4 },
  { name = "fp4", fp4 = true },
  { name = "gqa_fp4", kv_groups = 4, fp4 = true },
}

profile.full = {
  target_gpu = "RTX 5090",
  models = {
    { name = "small", d_model = 512, n_layers = 8, n_heads = 8, d_ff = 2048 },
    { name = "medium", d_model = 768, n_layers = 12, n_heads = 12,
      d_ff = 3072 },
    { name = "large", d_model = 1024, n_layers = 16, n_heads = 16,
      d_ff = 4096 },
    { name = "xlarge", d_model = 1280, n_layers = 20, n_heads = 20,
      d_ff = 5120 },
  },
  matrix = MATRIX,
  train = { minutes = 30, seq = 512, tokens_per_step = 98304,
    eval_tokens = 98304, evaluations = 20, checkpoint_seconds = 300,
    profile_steps = 2 },
  memory = { budget = "24GB", fraction = .85 },
  data = { vocab = 49152 },
}

profile.nano = {
  target_gpu = "none: CPU",
  models = {
    { name = "small", d_model = 128, n_layers = 2, n_heads = 4, d_ff = 512 },
    { name = "medium", d_model = 192, n_layers = 3, n_heads = 4, d_ff = 768 },
    { name = "large", d_model = 256, n_layers = 4, n_heads = 8, d_ff = 1024 },
    { name = "xlarge", d_model = 320, n_layers = 5, n_heads = 8,
      d_ff = 1280 },
  },
  matrix = MATRIX,
  train = { minutes = 1 / 3, seq = 256, tokens_per_step = 8192,
    eval_tokens = 8192, evaluations = 4, checkpoint_seconds = 30,
    hang_seconds = 120 },
  memory = { budget = "256MB", fraction = .85 },
  search = { candidates = 2 },
  data = { vocab = 4096 },
}

profile.names = { "nano", "full" }

return profile
