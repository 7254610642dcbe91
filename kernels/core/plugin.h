/* What a backend's plugin says of itself, whether or not a device answers. */
#ifndef LK_CORE_PLUGIN_H
#define LK_CORE_PLUGIN_H

enum { LK_PLUGIN_ARCHITECTURES = 24 };

/* Versions as CUDA numbers them: 13000 is 13.0; 0: none. */
typedef struct lk_plugin_facts {
  int toolkit;  /* it was compiled with */
  int runtime;  /* it is linked with */
  int driver;   /* the newest that the driver here can run */
  int library;  /* cuBLASLt's own number, 130100 */
  int count;
  int architecture[LK_PLUGIN_ARCHITECTURES]; /* 90 is 9.0: it has code for */
} lk_plugin_facts;

/* The plugin's `lk_cuda_about`. */
typedef void (*lk_plugin_about)(lk_plugin_facts *facts);

#endif
