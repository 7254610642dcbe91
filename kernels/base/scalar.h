/* Scalar formulas shared by both backends, one header a topic. */
#ifndef LK_BASE_SCALAR_H
#define LK_BASE_SCALAR_H

#include "codebook.h" /* NF4, fp4, integers, the dynamic map, NF4R */
#include "convert.h"  /* bf16, f16, e4m3, e2m1, e8m0 */
#include "math.h"     /* exp, log, sigmoid, … */
#include "update.h"   /* AdamW, SGD, Muon */

#endif
