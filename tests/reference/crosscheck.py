"""Holds the reference against other people's code; writes nothing.

  python3 crosscheck.py

llama.safetensors against transformers' LlamaForCausalLM, the optimizers
against torch.optim, golden.json against bitsandbytes. Each line says what
was compared and the largest difference; exit 1 if one is too large.
"""
import json
import pathlib
import sys

import bitsandbytes.functional
import numpy
import safetensors
import safetensors.torch
import torch
import transformers

import nf4_golden
import optimizer

HERE = pathlib.Path(__file__).parent
WORST = []


def report(what, difference, limit):
    WORST.append(difference <= limit)
    print(f"{what}: {difference:.2e} (limit {limit:.0e})")


def llama_names(c, tensors):
    """Our names and fused matrices -> transformers' state dict."""
    D, H, K = c["d_model"] // c["n_heads"], c["n_heads"], c["n_kv_heads"]
    state = {"model.embed_tokens.weight": tensors["embedding.weight"],
             "model.norm.weight": tensors["norm.weight"],
             "lm_head.weight": tensors["head.weight"]}
    for layer in range(c["n_layers"]):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        q, k, v = tensors[ours + "attention.qkv.weight"].split(
            (H * D, K * D, K * D))
        gate, up = tensors[ours + "mlp.gate_up.weight"].chunk(2)
        state.update({
            theirs + "self_attn.q_proj.weight": q,
            theirs + "self_attn.k_proj.weight": k,
            theirs + "self_attn.v_proj.weight": v,
            theirs + "self_attn.o_proj.weight":
                tensors[ours + "attention.out.weight"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight":
                tensors[ours + "mlp.down.weight"],
            theirs + "input_layernorm.weight":
                tensors[ours + "attention_norm.weight"],
            theirs + "post_attention_layernorm.weight":
                tensors[ours + "mlp_norm.weight"]})
    return state


def check_llama():
    """The loss and a gradient of the Llama-shaped file."""
    path = HERE / "llama.safetensors"
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    c = json.loads(metadata["config"])
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=c["vocab"], hidden_size=c["d_model"],
        intermediate_size=c["d_ff"], num_hidden_layers=c["n_layers"],
        num_attention_heads=c["n_heads"],
        num_key_value_heads=c["n_kv_heads"], rms_norm_eps=c["norm_eps"],
        rope_parameters={"rope_type": "default",
                         "rope_theta": c["rope"]["base"]},
        tie_word_embeddings=False, attn_implementation="eager"))
    missing = llama.load_state_dict(llama_names(c, tensors), strict=False)
    assert not missing.missing_keys and not missing.unexpected_keys, missing
    out = llama(tensors["ids"].long()).logits
    loss = torch.nn.functional.cross_entropy(
        out.flatten(0, 1), tensors["targets"].long().flatten())
    loss.backward()
    report("llama loss, transformers, relative",
           abs(loss.item() / float(metadata["loss"]) - 1), 1e-6)
    ours = tensors["grad.embedding.weight"]
    theirs = llama.model.embed_tokens.weight.grad
    report("llama embedding gradient, transformers, relative",
           float((ours - theirs).norm() / ours.norm()), 1e-5)


def check_update(name, ours, theirs, shape, limit):
    """Ten steps of one optimizer of ours and of torch on one matrix."""
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    leaf = torch.nn.Parameter(w.clone())
    peer, state = theirs([leaf]), {}
    for _ in range(10):
        g = torch.randn(shape, generator=generator, dtype=torch.float64)
        ours(w, g, state, 1.0)
        leaf.grad = g.clone()
        peer.step()
    report(f"{name} {shape}, torch.optim",
           float((w - leaf.detach()).abs().max()), limit)


def check_optimizers():
    """AdamW exactly; Muon as far as torch's bf16 Newton-Schulz allows."""
    check_update("adamw", optimizer.adamw_update, lambda p: torch.optim.AdamW(
        p, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
        (20, 12), 1e-12)
    for shape in ((20, 12), (12, 20)):
        check_update("muon", optimizer.muon_update, lambda p: torch.optim.Muon(
            p, lr=0.01, momentum=0.95, weight_decay=0.0, nesterov=True),
            shape, 5e-3)


def check_nf4():
    """NF4 codes, scales and values of every input against bitsandbytes."""
    inputs = nf4_golden.small_inputs()
    inputs["large"] = (nf4_golden.golden_input(), 64)
    different = []
    for name, (x, block) in inputs.items():
        codes, absmax = nf4_golden.quantize(x, block, "nf4")
        values = nf4_golden.dequantize(codes, absmax, block, "nf4")
        packed, state = bitsandbytes.functional.quantize_4bit(
            torch.from_numpy(numpy.ascontiguousarray(x)), blocksize=block,
            quant_type="nf4")
        back = bitsandbytes.functional.dequantize_4bit(packed, state)
        if (packed.numpy().tobytes() != nf4_golden.pack(codes, "nf4")
                or state.absmax.numpy().tobytes() != absmax.tobytes()
                or back.numpy().tobytes() != values.tobytes()):
            different.append(name)
    # its CPU code takes a denormal absmax for zero; the formula does not
    report(f"nf4 inputs unlike bitsandbytes {different}",
           len(set(different) - {"denormals"}), 0)


def main():
    torch.manual_seed(0)
    check_llama()
    check_optimizers()
    check_nf4()
    return not all(WORST)


if __name__ == "__main__":
    sys.exit(main())
