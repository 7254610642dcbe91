/* png.h: pixels from libplot's PNM, and pixels into a PNG file. */
#ifndef LP_PNG_H
#define LP_PNG_H

#include "canvas.h"

#pragma GCC visibility push(hidden)

/* Read a binary PNM (P4, P5 or P6: libplot picks the smallest that holds the
 * picture) of width·over × height·over pixels and average each over × over
 * square into `rgb` (width × height × 3 bytes). NULL, or what went wrong. */
const char *lp_pnm_average(const char *pnm, size_t size, int width, int height,
                           int over, unsigned char *rgb);

/* width × height × 3 bytes as a PNG file appended to *out. */
const char *lp_png_encode(const unsigned char *rgb, int width, int height,
                          lp_buffer *out);

#pragma GCC visibility pop
#endif
