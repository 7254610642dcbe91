-- Four bits or eight, kept or computed with: a small model as it is, with
-- 4-bit weights that learn (nf4r), and with products in 8 bits (fp8). Bytes,
-- loss and speed in the usual table, then the error of every format on the
-- weights that the first run learned. About a minute.
--
--   llmhost experiments/quantize.lua [key=value …]
return require("llm.sweep") {
  name = "quantize",
  description = "4-bit and 8-bit weights of one small model",
  profile = "auto",
  matrix = {
    { name = "baseline" },
    { name = "fp4", fp4 = true },
    { name = "fp8", precision = "fp8" },
  },
  profiles = {
    full = {
      models = { { name = "small", d_model = 512, n_layers = 8, n_heads = 8,
        d_ff = 2048 } },
      train = { minutes = 1 / 3 },
    },
    nano = {
      models = { { name = "small", d_model = 128, n_layers = 2, n_heads = 4,
        d_ff = 512 } },
      train = { steps = 30, batch = 8, evaluations = 2 },
    },
  },
  on_finish = function(sweep)
    require("llm.formats").report(sweep, "small_baseline", 8192)
  end,
  out = "quantize_results",
}
