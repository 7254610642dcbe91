"""What Hugging Face's tokenizers (0.23) learn from train.txt and make of
hostile.txt: merges.txt, and one line of ids for each line of hostile.txt.

  pip install tokenizers && python3 make.py        (in this folder)
"""
import json
import random
import unicodedata

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

VOCAB = 640
POOL = ("  \t\r\x0b\x0c\x1b\x1c\x1f\x85\u00a0\u2003\u3000\u2028'''sdtmrevell"
        " 0123\u00bd\u00b2\u2167\u0663\u00e9\u00df\u00f1\u4f60\u597d\u4e16"
        "\U0001f642\U0001f1e9\u0301\u200d._-!?abcABC\u180e\ufeff\u0e33\u3007"
        "\u16ee\U0001d7d8\ue000")
FIXED = ["", "the function returns 2048 bytes", "I'm you're we'll they'd it's",
         "I'M 'S 'sS ''s 'll'll", " leading", "trailing   ", "a  b   c",
         "x\u00a0\u00a0y", "1 2  3   4", "  12  ", "\u00bd cup", "a'b'c",
         "-" * 100, " " * 100, "=" * 3 + "a" * 200, "\u4f60\u597d\u4e16\u754c",
         "e\u0301\u0301", "\U0001f642\U0001f642 ok", "tab\tand\t\ttabs"]


def tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return t


def main():
    text = open("train.txt", encoding="utf-8", newline="").read()
    t = tokenizer()
    t.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=VOCAB, min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    merges = json.loads(t.to_str())["model"]["merges"]
    with open("merges.txt", "w", encoding="utf-8") as f:
        for m in merges:
            f.write((m if isinstance(m, str) else " ".join(m)) + "\n")
    random.seed(7)
    lines = FIXED + ["".join(random.choice(POOL) for _ in range(60))
                     for _ in range(200)]
    assert all(unicodedata.category(c) != "Cn" for s in lines for c in s)
    with open("hostile.txt", "w", encoding="utf-8", newline="") as f, \
            open("ids.txt", "w", encoding="utf-8") as g:
        for line in lines:
            f.write(line + "\n")
            ids = t.encode(line, add_special_tokens=False).ids
            g.write(" ".join(map(str, ids)) + "\n")


main()
