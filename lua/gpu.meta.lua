-- Annotations of the module `gpu` for editors, written by lua/llm/stubs.lua.
---@meta gpu

---@class gpu.tensor.options
---@field dtype? string f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32
---@field device? string cpu, cuda:0; the current one
---@field [integer] any the first options, by position

---@class gpu.zeros.options
---@field dtype? string f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32
---@field device? string cpu, cuda:0; the current one
---@field [integer] any the first options, by position

---@class gpu.ones.options
---@field dtype? string f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32
---@field device? string cpu, cuda:0; the current one
---@field [integer] any the first options, by position

---@class gpu.full.options
---@field value? number everywhere; 0
---@field dtype? string f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32
---@field device? string cpu, cuda:0; the current one
---@field [integer] any the first options, by position

---@class gpu.arange.options
---@field first? number the first value; 0
---@field step? number from one to the next; 1
---@field dtype? string f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32
---@field device? string cpu, cuda:0; the current one
---@field [integer] any the first options, by position

---@class gpu.randn.options
---@field seed? integer the same seed, the same numbers; the next of gpu.seed's
---@field mean? number 0
---@field std? number 1
---@field dtype? string f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32
---@field device? string cpu, cuda:0; the current one
---@field [integer] any the first options, by position

---@class gpu.compile.options
---@field batch? integer sequences of a micro-batch; 1
---@field seq? integer positions of a sequence; 128
---@field accumulate? integer micro-batches of an optimizer step; 1
---@field recompute? "none"|"light"|"mlp"|"block" what the backward computes again: none, light (norms, activations), mlp, block; light
---@field precision? "auto"|"f32"|"tf32"|"bf16"|"f16"|"fp8" of activations: auto (f32 on a CPU, bf16 on a GPU), f32, bf16, f16; tf32: f32 whose products round what they multiply to 10 bits, on a GPU; fp8: as auto, and linear layers multiply in e4m3, one scale a row
---@field optimizer? any of gpu.optim; without one the program only evaluates
---@field quantize? any how linear weights are kept: "nf4r" or {"nf4r", block = 64, search = false}; f32
---@field saved? "native"|"exact"|"int8" activations kept for the backward: native, int8; native
---@field fuse? any update Muon's weights inside the backward; when weights are quantized, accumulate is 1 and precision is not f16
---@field fuse_group? integer same-shaped matrices orthogonalized at once; by the device: 4, on a GPU 16
---@field head_chunk? any rows of logits at a time, or "all"; by the device
---@field seed? integer of initial weights and dropout; gpu.seed's
---@field plan? string a backend to plan for without touching it: "cpu", "cuda"
---@field device? string where it runs; current
---@field mode? "arena"|"poisoned"|"separate" how memory is had: arena; for checks poisoned, separate
---@field [integer] any the first options, by position

---@class gpu.time_product.options
---@field m? integer rows of the result
---@field n? integer its columns
---@field k? integer terms of each sum
---@field transpose_a? boolean the first factor is stored [k, m]
---@field transpose_b? boolean the second factor is stored [n, k]
---@field runs? integer how often; the least time counts; 3
---@field [integer] any the first options, by position

---@class gpu
---@field arange fun(shape: gpu.arange.options): gpu.tensor first, first + step, …: gpu.arange{5, first = 0, step = 1}.
---@field compile fun(model: gpu.layer, options: gpu.compile.options): gpu.program Turn a layer tree into a planned program.
---@field cuda fun(): table|nil, string? What the CUDA plugin is: toolkit, runtime, driver (versions), cublaslt, architectures; nil and the reason where there is none.
---@field device fun(name?: string): string Make a device ("cpu", "cuda:0") the current one; returns its name.
---@field devices fun(): table[] Every device: name (for gpu.device), backend, model, capability, memory and free in bytes.
---@field full fun(shape: gpu.full.options): gpu.tensor `value` everywhere: gpu.full{2, 3, value = 7}.
---@field grad fun(f: function, tensors: gpu.tensor[]): gpu.tensor[], gpu.tensor Gradients of the sum of f(tensors…) by the operators' own rules, and f's value.
---@field load fun(path: string): table<string, gpu.tensor>|nil, table|string, string? The tensors of a safetensors file on the current device, and its metadata; nil, message, code when it is damaged or cannot be read.
---@field ones fun(shape: gpu.ones.options): gpu.tensor Ones of the given shape.
---@field operators fun(): string[] The names of all operators, in the order of their list.
---@field peaks fun(): table What the current device attains, measured: flops of a large product in dtype, bandwidth in bytes a second of a large copy.
---@field randn fun(shape: gpu.randn.options): gpu.tensor Normal numbers.
---@field save fun(path: string, tensors: table<string, gpu.tensor>, metadata?: table<string, string>): boolean|nil, string?, string? Write tensors as a safetensors file, atomically; nil, message, code when the disk refuses.
---@field seed fun(seed: integer) Seed the random numbers of tensors made from now on.
---@field tensor fun(values: gpu.tensor.options): gpu.tensor A tensor of nested tables of numbers.
---@field time_product fun(options: gpu.time_product.options): number time_product{m, n, k}: seconds of one matrix product of the current device's own dtype, the least of some runs.
---@field tune fun(path?: string|false): string|nil, string? From now on choose the algorithms of matrix products by measuring, once a shape, and keep the choices in a file, by default in the cache folder, one for each device and version; false: take the libraries' own, as at the start. Returns the file's path; nil and the reason where nothing is chosen.
---@field tuning fun(): table|nil, string? The choices in force: path, hash (of device, versions and choices), known, measured (by this process), error (why the file could not be written); nil and the reason where the libraries choose.
---@field utilization fun(now?: boolean): table|nil, string? How busy the current device is: compute, memory (percent), watts, celsius, memory_total, memory_used, process_memory (bytes by the driver's count), throttled, power_capped, reasons; up to half a second old unless `now`; nil and the reason where it cannot be known.
---@field version table version, build, compiler, blas, isa, backends; as a string, the version.
---@field write fun(path: string, parts: (string|gpu.tensor)[]): boolean|nil, string?, string? Write strings and the bytes of tensors one after the other as a file, atomically; nil, message, code when the disk refuses.
---@field zeros fun(shape: gpu.zeros.options): gpu.tensor Zeros of the given shape: gpu.zeros{2, 3}.
---@field memory gpu.memory
---@field nn gpu.nn
---@field optim gpu.optim
---@field quant gpu.quant

---@class gpu.generator.sample.options
---@field temperature? number logits are divided by it; 0: always the most probable; 1
---@field top_k? integer of the k most probable alone; 0: of all
---@field top_p? number of the fewest that together have this probability; 1: of all
---@field seed? integer of the draws; 0
---@field [integer] any the first options, by position

---@class gpu.generator
---@field close fun(self: gpu.generator) Free what it holds now rather than when it is collected.
---@field feed fun(self: gpu.generator, ids: integer[]|gpu.tensor): gpu.generator Append ids, a list for all sequences or i32 [B, n]; only these are computed.
---@field logits fun(self: gpu.generator): gpu.tensor Logits f32 [B, V] of what follows the ids fed so far.
---@field memory fun(self: gpu.generator): table Bytes: {cache (0: none, with layers written in Lua), cache_plain (with a key/value head for each query head), peak}, and heads, kv_heads of all layers.
---@field position fun(self: gpu.generator): integer, integer How many ids were fed, and how many the cache has room for.
---@field rewind fun(self: gpu.generator, position?: integer): gpu.generator Forget all but the first ids; 0 after the weights changed.
---@field sample fun(self: gpu.generator, options?: gpu.generator.sample.options): integer|gpu.tensor Draw what follows: an id, or i32 [B, 1] for a batch.
---@field slide fun(self: gpu.generator, keep: integer): gpu.generator Forget all but the last ids, which are computed again from position 0.

---@class gpu.layer
---@field close fun(self: gpu.layer) Free what it holds now rather than when it is collected.
---@field count fun(self: gpu.layer): integer The number of parameters.
---@field parameters fun(self: gpu.layer): table[] Every parameter in order: {name, shape, kind, quantizable, count}.

---@class gpu.memory
---@field budget fun(size?: string|number|false): integer|nil Let allocations past size ("24GB", bytes) fail as on a full device; false lifts it. Returns the budget that holds.
---@field reset_peak fun() The peak becomes what is in use now.
---@field stats fun(device?: boolean): table Of the current device, in bytes: current, peak, budget (absent: none), allocations, device_total, device_free, by_category, peak_by_category (parameters, gradients, optimizer, activations, scratch, data); with false without the two that ask the device itself.
---@field trim fun(): integer Free every tensor that Lua has dropped; returns the bytes gained.

---@class gpu.nn.embedding.options
---@field vocab? integer rows of the table
---@field channels? integer columns
---@field scale? number factor on the rows; 1
---@field std? number of its normal initial weights; 0.02
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.linear.options
---@field channels_in? integer channels in
---@field channels_out? integer channels out
---@field bias? boolean add a bias; false
---@field std? number of its normal initial weights; 0.02
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.rmsnorm.options
---@field channels? integer channels
---@field eps? number keeps the root finite; 2^-23
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.dropout.options
---@field p? number probability of a zero
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.silu.options
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.gated.options
---@field channels? integer channels
---@field hidden? integer hidden width
---@field activation? "silu" silu
---@field dropout? number on the hidden values; 0
---@field std? number of its normal initial weights; 0.02
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.attention.options
---@field channels? integer channels
---@field heads? integer query heads
---@field kv_heads? integer key/value heads, a divisor of heads; heads
---@field width? integer head width; channels / heads
---@field rope? any rotary positions: true, or {base = 10000, fraction = 1, inclusive = false, inverse = false}; none
---@field dropout? number on the probabilities; 0
---@field qk_norm? boolean normalize each query and key head; false
---@field eps? number of qk_norm; 2^-23
---@field std? number of its normal initial weights; 0.02
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.residual.options
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.sequential.options
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.head.options
---@field channels? integer channels
---@field vocab? integer logits
---@field tied? any the embedding whose table it shares
---@field std? number of its normal initial weights; 0.02
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn.layer.options
---@field parameters? any {name = {shape…, std = 0.02}}
---@field forward? any function(p, x): emits operators on x and the parameters p.name
---@field name? string part of its parameters' names
---@field [integer] any the first options, by position

---@class gpu.nn
---@field attention fun(options: gpu.nn.attention.options): gpu.layer nn.attention{C, heads =, kv_heads =}: causal self-attention.
---@field dropout fun(options: gpu.nn.dropout.options): gpu.layer nn.dropout{p}: zeroes with probability p while training.
---@field embedding fun(options: gpu.nn.embedding.options): gpu.layer nn.embedding{V, C}: rows of a table by token id.
---@field gated fun(options: gpu.nn.gated.options): gpu.layer nn.gated{C, F}: down(silu(gate x) · up x), a Llama's feed-forward.
---@field head fun(options: gpu.nn.head.options): gpu.layer nn.head{tied = embedding} or nn.head{C, V}: logits and loss, never whole in memory.
---@field layer fun(options: gpu.nn.layer.options): gpu.layer A new layer out of operators, differentiated like a built-in one.
---@field linear fun(options: gpu.nn.linear.options): gpu.layer nn.linear{C_in, C_out}: x wᵀ.
---@field residual fun(layers: gpu.nn.residual.options): gpu.layer nn.residual{layers…}: x + the layers on x.
---@field rmsnorm fun(options: gpu.nn.rmsnorm.options): gpu.layer nn.rmsnorm{C}: x / √(mean x² + eps) · w.
---@field sequential fun(layers: gpu.nn.sequential.options): gpu.layer nn.sequential{layers…}: one after the other.
---@field silu fun(options: gpu.nn.silu.options): gpu.layer x · sigmoid(x).
---@field transformer fun(configuration: table): gpu.layer The original's decoder, from a sweep's model configuration.

---@class gpu.optim.muon.options
---@field lr? number learning rate
---@field weight_decay? number decoupled weight decay; 0
---@field momentum? number 0.95
---@field steps? integer Newton–Schulz iterations; 5
---@field split_qkv? boolean orthogonalize q, k and v by themselves; false
---@field [integer] any the first options, by position

---@class gpu.optim.adamw.options
---@field lr? number learning rate
---@field weight_decay? number decoupled weight decay; 0
---@field betas? any {0.9, 0.999}
---@field eps? number 1e-8
---@field [integer] any the first options, by position

---@class gpu.optim.sgd.options
---@field lr? number learning rate
---@field weight_decay? number decoupled weight decay; 0
---@field momentum? number 0
---@field nesterov? boolean false
---@field [integer] any the first options, by position

---@class gpu.optim.groups.options
---@field schedule? any gpu.optim.cosine{…}, linear{…}; a constant rate
---@field clip? number largest gradient norm; none
---@field [integer] any the first options, by position

---@class gpu.optim.cosine.options
---@field warmup? number fraction of the steps with a rising rate; 0
---@field final? number the last rate as a fraction; 0
---@field steps? integer optimizer steps in all
---@field [integer] any the first options, by position

---@class gpu.optim.linear.options
---@field warmup? number fraction of the steps with a rising rate; 0
---@field final? number the last rate as a fraction; 0
---@field steps? integer optimizer steps in all
---@field [integer] any the first options, by position

---@class gpu.optim.constant.options
---@field warmup? number fraction of the steps with a rising rate; 0
---@field final? number the last rate as a fraction; 0
---@field steps? integer optimizer steps in all
---@field [integer] any the first options, by position

---@class gpu.optim
---@field adamw fun(options?: gpu.optim.adamw.options): gpu.optimizer AdamW (Loshchilov & Hutter 2019).
---@field constant fun(options?: gpu.optim.constant.options): gpu.schedule Warm-up, then the full rate.
---@field cosine fun(options: gpu.optim.cosine.options): gpu.schedule Warm-up, then half a cosine down to final.
---@field groups fun(groups: gpu.optim.groups.options): gpu.optimizer Optimizers by parameter name: the first group whose match fits takes a parameter; Muon takes matrices only.
---@field linear fun(options: gpu.optim.linear.options): gpu.schedule Warm-up, then a line down to final.
---@field muon fun(options?: gpu.optim.muon.options): gpu.optimizer Muon: momentum orthogonalized by Newton–Schulz, for matrices.
---@field rate fun(schedule: gpu.schedule, step: integer): number A schedule's factor at a step, from 1.
---@field sgd fun(options?: gpu.optim.sgd.options): gpu.optimizer Stochastic gradient descent with momentum.

---@class gpu.optimizer
---@field close fun(self: gpu.optimizer) Free what it holds now rather than when it is collected.

---@class gpu.program.generator.options
---@field context? integer positions that the cache has room for; the program's seq
---@field batch? integer sequences that grow side by side; 1
---@field chunk? integer positions of a prompt computed at a time; 64
---@field [integer] any the first options, by position

---@class gpu.program.generate.options
---@field temperature? number logits are divided by it; 0: always the most probable; 1
---@field top_k? integer of the k most probable alone; 0: of all
---@field top_p? number of the fewest that together have this probability; 1: of all
---@field seed? integer of the draws; 0
---@field max? integer new tokens at most; 100
---@field stop? any an id that ends the text
---@field context? integer positions of the cache; the program's seq
---@field slide? boolean when the cache is full, go on from its later half; else end; true
---@field each? any function(id), called as tokens come; false ends the text
---@field [integer] any the first options, by position

---@class gpu.program
---@field assign fun(self: gpu.program, name: string, value: gpu.tensor) Overwrite a parameter.
---@field bytes fun(self: gpu.program): table Least traffic of a micro-batch and of the update.
---@field close fun(self: gpu.program) Free what it holds now rather than when it is collected.
---@field count fun(self: gpu.program): table Elements: {parameters, quantized, quantizable, muon, adamw, sgd} and the parameters' names.
---@field evaluate fun(self: gpu.program, loader: host.text.loader, tokens?: integer): table Loss, perplexity and accuracy without dropout, also of (x, y).
---@field flops fun(self: gpu.program): table Work of a micro-batch as executed, of the update, and the model's 6N + 6LdT.
---@field generate fun(self: gpu.program, ids: integer[], options?: gpu.program.generate.options): integer[] New ids after these.
---@field generator fun(self: gpu.program, options?: gpu.program.generator.options): gpu.generator The model with a cache of keys and values, to feed ids and draw new ones.
---@field gradients fun(self: gpu.program, x: gpu.tensor, y: gpu.tensor): table Loss and gradients by parameter name, without an update.
---@field listing fun(self: gpu.program, which?: string): string The program as text, one line an instruction; which: training, evaluation.
---@field load fun(self: gpu.program, folder: string): boolean Read what save wrote, bit for bit; nil, message, code on failure.
---@field memory fun(self: gpu.program, batch?: integer, accumulate?: integer): table Exact bytes before anything is allocated: {peak, by_category, state_per_parameter, fused, timeline}.
---@field open fun(self: gpu.program): gpu.program Allocate and initialize now rather than at the first step.
---@field parameter fun(self: gpu.program, name: string): gpu.tensor A copy of a parameter as the model computes with it, f32.
---@field profile fun(self: gpu.program, options?: {steps: integer}): table Time, rates and speed-of-light share of every instruction; back at step 0 afterwards.
---@field reset fun(self: gpu.program): gpu.program Initial weights and empty optimizer state.
---@field save fun(self: gpu.program, folder: string): boolean Write model.safetensors and training.safetensors; nil, message, code on failure.
---@field step fun(self: gpu.program, loader: host.text.loader, step?: integer): table One optimizer step from a loader, or p:step(x, y, step?): {loss, accuracy, grad_norm, lr, tokens, finite, seconds, skipped}, in f16 loss_scale, too. skipped: f16's gradients were not finite, only the scale has changed.
---@field time fun(self: gpu.program, options?: {micro_steps: integer}): table Median seconds of a warmed micro-step and of an update; then the program is back at step 0.

---@class gpu.quant.nf4.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.fp4.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.int8.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.int4.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.e4m3.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.nvfp4.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.mxfp4.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant.dyn8.options
---@field block? integer Values that share a scale, a multiple of 8; default: the format's.
---@field search? boolean Take the best of five scales a block; default false.
---@field double? boolean Keep the scales in 8 bits, too (nf4 and fp4); default false.
---@field [integer] any the first options, by position

---@class gpu.quant
---@field dyn8 fun(t: gpu.tensor, options?: gpu.quant.dyn8.options): gpu.quantized Quantize a tensor to dyn8: codes U8, scales F32, 256 values a scale (0: the whole tensor).
---@field e4m3 fun(t: gpu.tensor, options?: gpu.quant.e4m3.options): gpu.quantized Quantize a tensor to e4m3: codes E4M3, scales F32, 0 values a scale (0: the whole tensor).
---@field error fun(t: gpu.tensor, q: gpu.quantized): table How far q is from t: mse, relative (mse / mean square of t), max (largest difference), sqnr_db.
---@field formats fun(): table[] Every format: name, codes and scales (dtypes), block (absent: the whole tensor), bits a value.
---@field fp4 fun(t: gpu.tensor, options?: gpu.quant.fp4.options): gpu.quantized Quantize a tensor to fp4: codes U4, scales F32, 64 values a scale (0: the whole tensor).
---@field int4 fun(t: gpu.tensor, options?: gpu.quant.int4.options): gpu.quantized Quantize a tensor to int4: codes U4, scales F32, 64 values a scale (0: the whole tensor).
---@field int8 fun(t: gpu.tensor, options?: gpu.quant.int8.options): gpu.quantized Quantize a tensor to int8: codes I8, scales F32, 64 values a scale (0: the whole tensor).
---@field mxfp4 fun(t: gpu.tensor, options?: gpu.quant.mxfp4.options): gpu.quantized Quantize a tensor to mxfp4: codes U4, scales U8, 32 values a scale (0: the whole tensor).
---@field nf4 fun(t: gpu.tensor, options?: gpu.quant.nf4.options): gpu.quantized Quantize a tensor to nf4: codes U4, scales F32, 64 values a scale (0: the whole tensor).
---@field nvfp4 fun(t: gpu.tensor, options?: gpu.quant.nvfp4.options): gpu.quantized Quantize a tensor to nvfp4: codes U4, scales E4M3, 16 values a scale (0: the whole tensor).

---@class gpu.quantized
---@field block integer Values that share a scale.
---@field bytes fun(self: gpu.quantized): integer Bytes of codes, scales and everything beside them.
---@field close fun(self: gpu.quantized) Free what it holds now rather than when it is collected.
---@field codes gpu.tensor The codes, on its memory.
---@field dequantize fun(self: gpu.quantized, dtype?: string): gpu.tensor The values that codes and scales stand for: f32, or rounded to dtype.
---@field double table codes, scales and offset of scales kept in 8 bits, or nil.
---@field format string nf4, fp4, int8, …
---@field scales gpu.tensor The scales; nil when there are none.
---@field shape integer[] Of the values.
---@field state fun(self: gpu.quantized, name?: string, dtype?: string): table<string, gpu.tensor>, string The entries of bitsandbytes' state dict for a weight called name ("weight"), ready for gpu.save, and their JSON; dtype is what readers compute in ("f32"). For nf4 and fp4.
---@field tensor_scale gpu.tensor One scale of it all, or nil.

---@class gpu.schedule
---@field close fun(self: gpu.schedule) Free what it holds now rather than when it is collected.

---@class gpu.tensor.allclose.options
---@field rtol? number relative to |b|; 1e-5
---@field atol? number absolute; 1e-8
---@field [integer] any the first options, by position

---@class gpu.tensor.softmax.options
---@field causal? boolean row r of the last two dimensions sees columns 1…r
---@field [integer] any the first options, by position

---@class gpu.tensor.matmul.options
---@field transpose_a? boolean use the first matrix transposed
---@field transpose_b? boolean use the second matrix transposed
---@field [integer] any the first options, by position

---@class gpu.tensor.rope.options
---@field heads? integer query heads in a row
---@field kv_heads? integer key heads and value heads in a row
---@field width? integer head width
---@field inverse? boolean rotate the other way
---@field [integer] any the first options, by position

---@class gpu.tensor.attention.options
---@field heads? integer query heads in a row
---@field kv_heads? integer key heads and value heads in a row
---@field scale? number factor on q·k; 1/√width otherwise
---@field [integer] any the first options, by position

---@class gpu.tensor
---@field allclose fun(self: gpu.tensor, other: gpu.tensor, options?: {rtol: number, atol: number}): boolean |a - b| <= atol + rtol |b| everywhere.
---@field argmax fun(self: gpu.tensor, dim?: integer): gpu.tensor i32: the first position of the largest value, from 0.
---@field attention fun(self: gpu.tensor, options: {heads: integer, kv_heads: integer}): gpu.tensor Causal attention on a fused qkv.
---@field bytes fun(self: gpu.tensor): integer The bytes of its elements.
---@field cat fun(self: gpu.tensor, other: gpu.tensor, dim?: integer): gpu.tensor Both, one after the other along dim.
---@field clone fun(self: gpu.tensor): gpu.tensor A copy with memory of its own.
---@field close fun(self: gpu.tensor) Free what it holds now rather than when it is collected.
---@field copy fun(self: gpu.tensor, from: gpu.tensor): gpu.tensor Overwrite the values with those of a tensor of the same shape.
---@field device string Where it lives: cpu, cuda:0.
---@field dtype string f32, bf16, f16, e4m3, i32, …
---@field equal fun(self: gpu.tensor, other: gpu.tensor): boolean Same shape, dtype and bits.
---@field exp fun(self: gpu.tensor): gpu.tensor e^x
---@field fill fun(self: gpu.tensor, value: number): gpu.tensor Overwrite every value.
---@field gated_silu fun(self: gpu.tensor): gpu.tensor silu of the first half of the last dimension times the second half.
---@field item fun(self: gpu.tensor): number The one value.
---@field log fun(self: gpu.tensor): gpu.tensor Natural logarithm.
---@field matmul fun(self: gpu.tensor, other: gpu.tensor, options?: gpu.tensor.matmul.options): gpu.tensor Matrix product of the last two dimensions.
---@field max fun(self: gpu.tensor, dim?: integer, options?: {keep: boolean}): gpu.tensor The largest value.
---@field mean fun(self: gpu.tensor, dim?: integer, options?: {keep: boolean}): gpu.tensor The mean, of all or along a dimension.
---@field min fun(self: gpu.tensor, dim?: integer, options?: {keep: boolean}): gpu.tensor The smallest value.
---@field norm fun(self: gpu.tensor): gpu.tensor √Σ x²
---@field numel fun(self: gpu.tensor): integer The number of elements.
---@field relu fun(self: gpu.tensor): gpu.tensor max(x, 0)
---@field reshape fun(self: gpu.tensor, shape: integer[]): gpu.tensor The same elements under another shape, without a copy; -1 once for what is left.
---@field rmsnorm fun(self: gpu.tensor, weight: gpu.tensor, eps?: number): gpu.tensor x / √(mean x² + eps) · weight over the last dimension.
---@field rope fun(self: gpu.tensor, table: gpu.tensor, options: gpu.tensor.rope.options): gpu.tensor Rotary positions on the q and k heads of a fused qkv.
---@field shape integer[] Its sizes, outermost first.
---@field sigmoid fun(self: gpu.tensor): gpu.tensor 1 / (1 + e^-x)
---@field silu fun(self: gpu.tensor): gpu.tensor x · sigmoid(x)
---@field slice fun(self: gpu.tensor, dim: integer, first: integer, last?: integer): gpu.tensor A copy of first…last along dim.
---@field softmax fun(self: gpu.tensor, dim?: integer, options?: {causal: boolean}): gpu.tensor Softmax over the last dimension.
---@field sqrt fun(self: gpu.tensor): gpu.tensor √x
---@field sum fun(self: gpu.tensor, dim?: integer, options?: {keep: boolean}): gpu.tensor The sum, of all or along a dimension.
---@field table fun(self: gpu.tensor): table The values, nested by rows.
---@field tanh fun(self: gpu.tensor): gpu.tensor Hyperbolic tangent.
---@field to fun(self: gpu.tensor, where: string): gpu.tensor A copy in another dtype or on another device.
---@field transpose fun(self: gpu.tensor, i?: integer, j?: integer): gpu.tensor Dimensions i and j exchanged; the last two by default.
---@operator add(gpu.tensor|number): gpu.tensor
---@operator div(gpu.tensor|number): gpu.tensor
---@operator mul(gpu.tensor|number): gpu.tensor
---@operator pow(number): gpu.tensor
---@operator sub(gpu.tensor|number): gpu.tensor
---@operator unm: gpu.tensor

---@type gpu
local gpu
return gpu
