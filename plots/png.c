/* png.c: the box filter over libplot's pixels, and PNG by stb_image_write.
 *
 * stb's own compressor ends the process when memory runs out; zlib's does not
 * and packs better, so stb is given that one where there is a zlib. */
#include "png.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_ZLIB
#include <zlib.h>

/* stb's contract for STBIW_ZLIB_COMPRESS: malloc'd bytes or NULL. */
static unsigned char *deflate_bytes(unsigned char *data, int size, int *out,
                                    int quality) {
  uLongf length = compressBound((uLong)size);
  unsigned char *bytes = length < INT_MAX ? malloc(length) : NULL;
  (void)quality;
  if (!bytes) return NULL;
  if (compress2(bytes, &length, data, (uLong)size, 9) != Z_OK) {
    free(bytes);
    return NULL;
  }
  *out = (int)length;
  return bytes;
}

#define STBIW_ZLIB_COMPRESS deflate_bytes
#endif

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>

typedef struct {
  char kind;  /* '4' bits, '5' gray, '6' RGB */
  int width, height;
  const unsigned char *pixels;
  size_t size;
} pnm;

/* The next unsigned number of a PNM head, past blanks and comments. */
static int head_number(const char **at, const char *end) {
  const char *s = *at;
  int value = 0;
  while (s < end && (*s == ' ' || *s == '\n' || *s == '\t' || *s == '#')) {
    if (*s == '#')
      while (s < end && *s != '\n') s++;
    if (s < end) s++;
  }
  for (; s < end && *s >= '0' && *s <= '9' && value < 1000000; s++)
    value = value * 10 + (*s - '0');
  *at = s;
  return value;
}

static bool read_head(const char *data, size_t size, pnm *p) {
  const char *at = data + 2, *end = data + size;
  if (size < 8 || data[0] != 'P' || data[1] < '4' || data[1] > '6')
    return false;
  p->kind = data[1];
  p->width = head_number(&at, end);
  p->height = head_number(&at, end);
  if (p->kind != '4' && head_number(&at, end) != 255) return false;
  if (at < end) at++;  /* the one blank after the head */
  p->pixels = (const unsigned char *)at;
  p->size = (size_t)(end - at);
  return true;
}

static size_t row_bytes(const pnm *p) {
  size_t width = (size_t)p->width;
  return p->kind == '4' ? (width + 7) / 8 : p->kind == '5' ? width : width * 3;
}

/* Add the pixel at column x of a row to the sums. */
static void add_pixel(const pnm *p, const unsigned char *row, int x,
                      unsigned sum[3]) {
  if (p->kind == '6') {
    for (int k = 0; k < 3; k++) sum[k] += row[3 * x + k];
    return;
  }
  unsigned gray = p->kind == '5' ? row[x]
                  : row[x / 8] >> (7 - x % 8) & 1 ? 0 : 255;
  for (int k = 0; k < 3; k++) sum[k] += gray;
}

static void average(const pnm *p, int x, int y, int over,
                    unsigned char out[3]) {
  unsigned sum[3] = {0, 0, 0}, n = (unsigned)(over * over);
  for (int j = 0; j < over; j++) {
    const unsigned char *row = p->pixels + row_bytes(p) * (size_t)(y + j);
    for (int i = 0; i < over; i++) add_pixel(p, row, x + i, sum);
  }
  for (int k = 0; k < 3; k++) out[k] = (unsigned char)((sum[k] + n / 2) / n);
}

const char *lp_pnm_average(const char *data, size_t size, int width,
                           int height, int over, unsigned char *rgb) {
  pnm p;
  if (!read_head(data, size, &p) || p.width != width * over ||
      p.height != height * over ||
      p.size < row_bytes(&p) * (size_t)p.height)
    return "libplot wrote a picture of another size";
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++, rgb += 3)
      average(&p, x * over, y * over, over, rgb);
  return NULL;
}

static void append(void *context, void *data, int size) {
  lp_buffer_add(context, data, (size_t)size);
}

const char *lp_png_encode(const unsigned char *rgb, int width, int height,
                          lp_buffer *out) {
  int ok = stbi_write_png_to_func(append, out, width, height, 3, rgb,
                                  width * 3);
  return ok && !out->failed ? NULL : "out of memory";
}
