"""Llama files as other people's programs write and read them.

  python3 llama_peers.py make                     the stored files of llama/
  python3 llama_peers.py folder FOLDER IDS OUT    transformers' logits
  python3 llama_peers.py gguf FILE IDS OUT        logits from a GGUF file
  python3 llama_peers.py encode FOLDER TEXT OUT   transformers' ids of a file's
                                                  lines, one JSON list a line

IDS are token ids with commas; OUT is a safetensors file with `logits` F32
[n, V]. GGUF files are read by gguf-py, and computed as llama.cpp does: names,
metadata, neighbours turned. `make` needs transformers, tokenizers, gguf.
"""
import json
import pathlib
import sys

import numpy
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
SHAPE = dict(vocab_size=320, hidden_size=16, intermediate_size=24,
             num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, rms_norm_eps=1e-5,
             max_position_embeddings=32, tie_word_embeddings=False,
             bos_token_id=0, eos_token_id=0)
THETA = 500.0
IDS = [0, 65, 300, 17, 256, 99, 319, 1, 65, 65, 210, 44, 128]


def folder_logits(folder, ids):
    """transformers' LlamaForCausalLM in float32."""
    import transformers
    llama = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager")
    assert isinstance(llama, transformers.LlamaForCausalLM), type(llama)
    with torch.no_grad():
        return llama(torch.tensor([ids])).logits[0]


# --- GGUF -------------------------------------------------------------------

def gguf_read(path):
    """Metadata and float32 tensors by name, [rows, columns]."""
    import gguf
    reader = gguf.GGUFReader(path)
    fields = {name: f.contents() for name, f in reader.fields.items()}
    tensors = {}
    for t in reader.tensors:
        values = gguf.quants.dequantize(t.data, t.tensor_type)
        shape = [int(n) for n in reversed(t.shape)]
        tensors[t.name] = torch.from_numpy(
            numpy.array(values, dtype=numpy.float32).reshape(shape))
    return fields, tensors


def rmsnorm(x, w, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w


def turn_neighbours(x, base):
    """llama.cpp's LLM_ARCH_LLAMA rope on x [T, heads, D]: pairs (2i, 2i+1)."""
    T, _, D = x.shape
    angle = (torch.arange(T, dtype=torch.float64)[:, None]
             * base ** (-torch.arange(0, D, 2, dtype=torch.float64) / D))
    cos, sin = angle.cos()[:, None].float(), angle.sin()[:, None].float()
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def gguf_logits(path, ids):
    """The forward pass that llama.cpp's graph for `llama` makes."""
    fields, w = gguf_read(path)
    assert fields["general.architecture"] == "llama"
    H = fields["llama.attention.head_count"]
    K = fields["llama.attention.head_count_kv"]
    D = fields["llama.rope.dimension_count"]
    eps = fields["llama.attention.layer_norm_rms_epsilon"]
    base = fields["llama.rope.freq_base"]
    assert D * H == fields["llama.embedding_length"]
    rows = w["token_embd.weight"].shape[0]
    assert len(fields["tokenizer.ggml.tokens"]) == rows
    x, T = w["token_embd.weight"][ids], len(ids)
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    for i in range(fields["llama.block_count"]):
        p = {n[len(f"blk.{i}."):-len(".weight")]: t for n, t in w.items()
             if n.startswith(f"blk.{i}.")}
        assert p["ffn_up"].shape[0] == fields["llama.feed_forward_length"]
        y = rmsnorm(x, p["attn_norm"], eps)
        q = turn_neighbours((y @ p["attn_q"].T).view(T, H, D), base)
        k = turn_neighbours((y @ p["attn_k"].T).view(T, K, D), base)
        v = (y @ p["attn_v"].T).view(T, K, D)
        k, v = (t.repeat_interleave(H // K, 1) for t in (k, v))
        s = torch.einsum("thd,shd->hts", q, k) / D ** 0.5
        s = s.masked_fill(hidden, float("-inf")).softmax(-1)
        x = x + torch.einsum("hts,shd->thd", s, v).flatten(1) \
            @ p["attn_output"].T
        y = rmsnorm(x, p["ffn_norm"], eps)
        x = x + (torch.nn.functional.silu(y @ p["ffn_gate"].T)
                 * (y @ p["ffn_up"].T)) @ p["ffn_down"].T
    x = rmsnorm(x, w["output_norm.weight"], eps)
    return x @ w.get("output.weight", w["token_embd.weight"]).T


# --- the stored files -------------------------------------------------------

def make_tokenizer():
    """Byte-level BPE of 320 ids with the merges of text/merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0}
    for c in alphabet:
        vocab[c] = len(vocab)
    merges = []
    for line in (HERE / "text/merges.txt").read_text().splitlines():
        left, _, right = line.partition(" ")
        if (len(vocab) == 320 or line.startswith("#version")
                or left not in vocab or right not in vocab
                or left + right in vocab):
            continue
        vocab[left + right] = len(vocab)
        merges.append((left, right))
    assert len(vocab) == 320, len(vocab)
    tok = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(["<|endoftext|>"])
    return tok


def make_model():
    import transformers
    torch.manual_seed(7)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **SHAPE, rope_parameters={"rope_type": "default",
                                  "rope_theta": THETA}))
    with torch.no_grad():
        for name, p in llama.named_parameters():
            norm = "norm" in name
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if norm else 0.0))
    return llama.float()


def permuted(t, heads):
    """convert_hf_to_gguf.py's LlamaModel.permute."""
    return t.reshape(heads, 2, t.shape[0] // heads // 2, *t.shape[1:]) \
        .swapaxes(1, 2).reshape(t.shape)


def write_gguf(path, llama, tok):
    """What llama.cpp's converter writes, by gguf-py's own writer and names."""
    import gguf
    c, w = llama.config, gguf.GGUFWriter(path, "llama")
    w.add_name("llama")
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_vocab_size(c.vocab_size)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    w.add_rope_freq_base(THETA)
    names = [tok.id_to_token(i) for i in range(c.vocab_size)]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(names)
    w.add_token_types([gguf.TokenType.CONTROL if n == "<|endoftext|>"
                       else gguf.TokenType.NORMAL for n in names])
    w.add_token_merges([" ".join(m) for m in
                        json.loads(tok.to_str())["model"]["merges"]])
    w.add_add_bos_token(False)
    w.add_add_eos_token(False)
    w.add_bos_token_id(0)
    w.add_eos_token_id(0)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA,
                                     c.num_hidden_layers)
    for name, t in llama.state_dict().items():
        if name.endswith("q_proj.weight"):
            t = permuted(t, c.num_attention_heads)
        if name.endswith("k_proj.weight"):
            t = permuted(t, c.num_key_value_heads)
        w.add_tensor(table.get_name(name, try_suffixes=(".weight",)),
                     t.contiguous().numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make():
    import transformers
    folder = HERE / "llama"
    llama, tok = make_model(), make_tokenizer()
    llama.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tok, eos_token="<|endoftext|>").save_pretrained(folder)
    write_gguf(folder / "llama.gguf", llama, tok)
    logits = folder_logits(folder, IDS)
    other = gguf_logits(folder / "llama.gguf", IDS)
    print("gguf against transformers:", float((logits - other).abs().max()))
    safetensors.torch.save_file(
        {"ids": torch.tensor([IDS], dtype=torch.int32),
         "logits": logits.contiguous()}, folder / "logits.safetensors")
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)
        print(path.name, path.stat().st_size)


def encode(folder, text, out):
    import transformers
    tok = transformers.AutoTokenizer.from_pretrained(folder)
    lines = pathlib.Path(text).read_text(encoding="utf-8").split("\n")
    pathlib.Path(out).write_text("".join(
        json.dumps(tok(line)["input_ids"]) + "\n" for line in lines))


def main(words):
    if words == ["make"]:
        return make()
    if len(words) == 4 and words[0] == "encode":
        return encode(*words[1:])
    if len(words) != 4 or words[0] not in ("folder", "gguf"):
        sys.exit(__doc__)
    ids = [int(n) for n in words[2].split(",")]
    logits = (folder_logits if words[0] == "folder" else gguf_logits)(
        words[1], ids)
    safetensors.torch.save_file({"logits": logits.float().contiguous()},
                                words[3])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
