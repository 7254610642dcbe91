/* Optimizers by element: AdamW, SGD, Muon. The same arithmetic for both
 * backends; what is constant over a tensor is computed once by the _begin
 * functions, in double. */
#ifndef LK_BASE_UPDATE_H
#define LK_BASE_UPDATE_H

#include "math.h"

/* base^n by squaring: the same bits everywhere. */
LK_BOTH double lk_power(double base, int64_t n) {
  double power = 1.0;
  for (; n > 0; n >>= 1) {
    if (n & 1) power *= base;
    base *= base;
  }
  return power;
}

typedef struct lk_adamw {
  float scale;                /* of the gradient: clip factor / loss scale */
  float rate, decay, eps;
  float beta1, rest1, beta2, rest2; /* rest = 1 - beta */
  float fix1, fix2;           /* 1 / (1 - beta^t) */
} lk_adamw;

/* `t` counts steps from 1; `rate` is the schedule's factor on lr. */
LK_BOTH lk_adamw lk_adamw_begin(double lr, double beta1, double beta2,
                                double eps, double decay, float rate,
                                float scale, float t) {
  int64_t n = (int64_t)t;
  lk_adamw a;
  a.scale = scale;
  a.rate = (float)(lr * (double)rate);
  a.decay = (float)decay;
  a.eps = (float)eps;
  a.beta1 = (float)beta1;
  a.rest1 = (float)(1.0 - beta1);
  a.beta2 = (float)beta2;
  a.rest2 = (float)(1.0 - beta2);
  a.fix1 = (float)(1.0 / (1.0 - lk_power(beta1, n)));
  a.fix2 = (float)(1.0 / (1.0 - lk_power(beta2, n)));
  return a;
}

/* The new weight; moments in place. Loshchilov & Hutter 2019, algorithm 2. */
LK_BOTH float lk_adamw_step(const lk_adamw *a, float w, float g, float *m,
                            float *v) {
  g = g * a->scale;
  *m = a->beta1 * *m + a->rest1 * g;
  *v = a->beta2 * *v + a->rest2 * (g * g);
  float step = *m * a->fix1 / (sqrtf(*v * a->fix2) + a->eps);
  return w - a->rate * (step + a->decay * w);
}

typedef struct lk_sgd {
  float scale, rate, decay, beta1;
  float ahead;                /* what m adds: beta1 with Nesterov, else 1 */
  float own;                  /* what g itself adds: 1 with Nesterov, else 0 */
} lk_sgd;

LK_BOTH lk_sgd lk_sgd_begin(double lr, double beta1, double decay,
                            int nesterov, float rate, float scale) {
  lk_sgd s;
  s.scale = scale;
  s.rate = (float)(lr * (double)rate);
  s.decay = (float)decay;
  s.beta1 = (float)beta1;
  s.ahead = nesterov ? (float)beta1 : 1.0f;
  s.own = nesterov ? 1.0f : 0.0f;
  return s;
}

/* m = beta1·m + g; step m, or g + beta1·m with Nesterov. */
LK_BOTH float lk_sgd_step(const lk_sgd *s, float w, float g, float *m) {
  g = g * s->scale;
  *m = s->beta1 * *m + g;
  return w - s->rate * (s->own * g + s->ahead * *m + s->decay * w);
}

LK_BOTH float lk_sgd_plain(const lk_sgd *s, float w, float g) {
  return w - s->rate * (g * s->scale + s->decay * w);
}

/* m = lerp(m, g, 1 - beta). */
LK_BOTH float lk_muon_momentum(float m, float g, float rest) {
  return m + rest * (g - m);
}

/* u = lerp(g, m, beta), written from the nearer end m as lerp does. */
LK_BOTH float lk_muon_direction(float m, float g, float rest) {
  return m - (m - g) * rest;
}

/* w - rate·(scale·o + decay·w), rate with the schedule's factor in it. */
LK_BOTH float lk_muon_step(float w, float o, float rate, float scale,
                           float decay) {
  return w - rate * (scale * o + decay * w);
}

#endif
