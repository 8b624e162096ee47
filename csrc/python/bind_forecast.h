// Forecasts between Python and C++.
#pragma once

#include <pybind11/pybind11.h>

#include "../distributions/count_distribution.h"

namespace topreach::python {

/// Any forecast that Python has: a `topreach._C.Forecast`; one of topreach.distributions or
/// torch.distributions; or an object of the user's with `mean`, `variance`, `sample(M, key=)` and
/// `site_log_prob(y)` (or `log_prob`), and, if it has them, `joint_log_prob`, `cdf`, `quantile`,
/// `expected_ratio(offset)`. Autograd passes through. Raises TypeError for anything else.
CountDistribution to_distribution(const pybind11::object& object);

}  // namespace topreach::python
