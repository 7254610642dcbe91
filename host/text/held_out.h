/* Which documents of a corpus are held out for validation. */
#ifndef LH_TEXT_HELD_OUT_H
#define LH_TEXT_HELD_OUT_H

#include "corpus.h"

/* Mark whole groups of documents as held out until their share of the bytes is
 * nearest to options->validation; one group at least and not all. Nothing
 * when the share is 0. ARGUMENT when there is one group only; OOM. */
lk_status lh_hold_out(lh_corpus *corpus, const lh_corpus_options *options,
                      lk_error *e);

#endif
