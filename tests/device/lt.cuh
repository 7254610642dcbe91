/* What the programs that time cuBLASLt share. */
#ifndef LK_TEST_LT_CUH
#define LK_TEST_LT_CUH

#include <cublasLt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call)                                                   \
  do {                                                             \
    int code_ = (int)(call);                                       \
    if (code_ != 0) {                                              \
      printf("line %d: %s: %d\n", __LINE__, #call, code_);         \
      exit(1);                                                     \
    }                                                              \
  } while (0)

/* A column-major [rows, cols] matrix without gaps. */
static cublasLtMatrixLayout_t layout(cudaDataType type, int64_t rows,
                                     int64_t cols) {
  cublasLtMatrixLayout_t l;
  OK(cublasLtMatrixLayoutCreate(&l, type, (uint64_t)rows, (uint64_t)cols,
                                rows));
  return l;
}

#endif
