/* Hopper's wide products (PTX ISA: wgmma; sm_90a): 64 rows times 128 or 256
 * columns in f16. Operands and accumulators are those of warpgroup.cuh, sum
 * c[4n + 2r + e] of a lane. */
#ifndef LK_CUDA_WARPGROUP_WIDE_CUH
#define LK_CUDA_WARPGROUP_WIDE_CUH

#include "warpgroup.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

#define WIDE_8(c, i)                                                         \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]),                \
      "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define WIDE_64(c, i)                                                        \
  WIDE_8(c, i), WIDE_8(c, i + 8), WIDE_8(c, i + 16), WIDE_8(c, i + 24),      \
      WIDE_8(c, i + 32), WIDE_8(c, i + 40), WIDE_8(c, i + 48),               \
      WIDE_8(c, i + 56)
#define WIDE_LIST_128                                                        \
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,"  \
      "%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35," \
      "%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52," \
      "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define WIDE_LIST_256                                                        \
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,"  \
      "%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35," \
      "%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52," \
      "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69," \
      "%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86," \
      "%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,"  \
      "%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,"    \
      "%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}"

/* An operand at an address of this block. Turned: 64 columns wide, or several
 * times 64, each `wide` bytes after the one before. */
static __device__ __forceinline__ uint64_t wide_operand(uint32_t at,
                                                        uint32_t wide) {
  return (uint64_t)(1024 >> 4 | 1 << 30) << 32 | wide >> 4 << 16 |
         (at & 0x3FFFF) >> 4;
}

/* c [64, N] = a bᵀ, 16 terms of each sum, or += where `add` is not 0: both
 * operands as they lie, or both turned if T. */
template <int N, int T>
static __device__ __forceinline__ void wide_product(float (&c)[128],
                                                    uint64_t a, uint64_t b,
                                                    int add) {
  static_assert(N == 128 || N == 256, "columns of a product");
  if constexpr (N == 256)
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
                 WIDE_LIST_256 ", %128, %129, p, 1, 1, %131, %131; }"
                 : WIDE_64(c, 0), WIDE_64(c, 64)
                 : "l"(a), "l"(b), "r"(add), "n"(T));
  else
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
                 WIDE_LIST_128 ", %64, %65, p, 1, 1, %67, %67; }"
                 : WIDE_64(c, 0)
                 : "l"(a), "l"(b), "r"(add), "n"(T));
}
#undef WIDE_8
#undef WIDE_64
#undef WIDE_LIST_128
#undef WIDE_LIST_256

/* The compiler may not move reads or writes of sums over this. */
static __device__ __forceinline__ void wide_result(float (&c)[128]) {
#pragma unroll
  for (int i = 0; i < 128; i++) asm volatile("" : "+f"(c[i])::"memory");
}

#endif
#endif
