/* Event streams: what still has to be sent to each listening browser. */
#ifndef LH_WEB_STREAM_H
#define LH_WEB_STREAM_H

#include <stdbool.h>
#include <stdint.h>

struct MHD_Connection;
struct MHD_Response;

typedef struct lh_stream lh_stream;

/* The streams of one server. */
typedef struct lh_streams {
  lh_stream *first;
  int count;
} lh_streams;

/* A response that sends what lh_streams_send is given, from now on; NULL
 * without memory. The stream leaves the list when its response is destroyed. */
struct MHD_Response *lh_stream_open(lh_streams *all,
                                    struct MHD_Connection *connection);
/* Queue bytes for every stream and wake it; one that is too far behind ends. */
void lh_streams_send(lh_streams *all, const char *text, int64_t size);
/* Let every stream end after what it has. */
void lh_streams_end(lh_streams *all);

#endif
