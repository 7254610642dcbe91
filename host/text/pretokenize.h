/* Cutting text into the words that BPE works on: every numeric character
 * alone, then the GPT-2 pattern on what lies between,
 *
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+
 *   |\s+(?!\S)|\s+
 *
 * scanned by hand (Radford et al. 2019; HF: Digits(individual) + ByteLevel).
 * Words follow each other without gaps, so joining them gives the text. */
#ifndef LH_TEXT_PRETOKENIZE_H
#define LH_TEXT_PRETOKENIZE_H

#include <stdint.h>

/* The end of the word that starts at `p` < `end`. Needs
 * lh_unicode_prepare(). */
const uint8_t *lh_word_end(const uint8_t *p, const uint8_t *end);

#endif
