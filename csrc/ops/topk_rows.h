// Soft top-K with a budget and a noise scale for each row.
#pragma once

#include "expected_topk.h"
#include "perturbed_topk.h"

namespace topreach {

// expected_topk and perturbed_topk call these if options.row_k or row_sigma is given.
//
// Noise scale. b depends on differences of scores in units of sigma alone: for any constant c,
//   b(r; sigma) = b((r - c) / sigma; 1),   db/dsigma = -J (r - c) / sigma,   J = db/dr.
// So the gradient in sigma is that of a division. c is the row's K-th largest score, and the
// quotient is formed in float64: rounding is smallest where the choice is open. Sites further than
// 1e4 sigma from c are certain, and get a constant. A row with sigma = 0 has the hard mask and a
// zero gradient.
//
// Budget. S more sites are added, S - k of them with the score +inf and the rest with -inf, and all
// rows get the budget S: the former are always chosen, the latter never. They come last, so that
// the noise of the others stays the same. Cost: twice the sites.
at::Tensor expected_topk_rows(const at::Tensor& scores, int64_t k,
                              const ExpectedTopKOptions& options);
at::Tensor perturbed_topk_rows(const at::Tensor& scores, int64_t k,
                               const PerturbedTopKOptions& options, const at::Tensor& key);

}  // namespace topreach
