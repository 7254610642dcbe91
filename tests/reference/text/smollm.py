"""What Hugging Face's tokenizers (0.23) make of hostile.txt and train.txt under
SmolLM's vocabulary: smollm_ids.txt, one line of ids for each line of
hostile.txt, then one for the first 4000 characters of train.txt.

  pip install tokenizers
  python3 smollm.py MERGES.TXT                writes smollm_ids.txt
  python3 smollm.py MERGES.TXT --check        compares
  python3 smollm.py MERGES.TXT --save FILE    writes a tokenizer.json

The vocabulary is put together here from merges.txt alone: 17 specials, the
characters that stand for 235 byte values in code-point order, one id a merge.
Which six control bytes have no id is not in merges.txt (see smollm_lacks in
host/text/tokenizer_file.c); the texts hold none of them.
"""
import os
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIALS = """<|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame>
<file_sep> <filename> <gh_stars> <issue_start> <issue_comment> <issue_closed>
<jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output>
<jupyter_script> <empty_output>""".split()
NO_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
LACKING = NO_UTF8 | {0xF1, 0xF2, 0x05, 0x06, 0x15, 0x16, 0x17, 0x1A}


def byte_characters():
    """GPT-2's bytes_to_unicode."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    out = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in out:
            out[b] = chr(256 + len(out) - len(plain))
    return out


def tokenizer(path):
    lines = open(path, encoding="utf-8").read().split("\n")
    if lines[0].startswith("#version:"):
        lines = lines[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    names = byte_characters()
    chars = sorted(names[b] for b in range(256) if b not in LACKING)
    vocab = {}
    for word in SPECIALS + chars + [a + b for a, b in merges]:
        vocab[word] = len(vocab)
    assert len(chars) == 235 and len(vocab) == 49152, (len(chars), len(vocab))
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return t


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    t = tokenizer(sys.argv[1])
    if "--save" in sys.argv:
        t.add_special_tokens(SPECIALS)
        t.decoder = decoders.ByteLevel()
        t.save(sys.argv[3])
        return

    def read(name):
        return open(os.path.join(here, name), encoding="utf-8",
                    newline="").read()

    texts = read("hostile.txt").split("\n")[:-1] + [read("train.txt")[:4000]]
    out = "".join(" ".join(map(str, t.encode(x).ids)) + "\n" for x in texts)
    path = os.path.join(here, "smollm_ids.txt")
    if "--check" in sys.argv:
        same = open(path, encoding="utf-8").read() == out
        print("same" if same else "different")
        sys.exit(0 if same else 1)
    open(path, "w", encoding="utf-8").write(out)


main()
