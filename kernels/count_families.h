// Log-probability of a count with its derivatives, for regression models of counts.
//
//   mean of a count, up to a factor:  m = exposure f(eta),  f = exp or softplus (link)
//   "poisson"  rate m
//   "nb1"      NegBin(total_count m, logits d): mean m e^d, variance mean (1 + e^d)
//   "nb2"      NegBin(total_count e^d, logits log m - d): mean m, variance m + m^2 e^-d
//   zero inflation: 0 with chance sigmoid(z), else a count of the family [Lambert 1992]
//   a count that is known only to lie in low..high: the sum of the probabilities of low to high
// (Hilbe 2011, Negative Binomial Regression, for the names NB1 and NB2.)
//
// Derivatives by truncated Taylor polynomials ("jets") in eta to order E, and, with Q = 2, once in d
// and in z too, total order E. The terms of each sum have one sign, or the size of the result, so results
// are right to a few rounding errors for any parameters. Cost: some 0.1 us (E = 2, Q = 0) to 0.5 us (E = 3,
// Q = 2) for small counts, O(min(high - low, 20 standard deviations)) times that for an interval.
#pragma once

#include "special.h"

// For large functions that are called in many places: they are compiled once, and the call costs little
// beside their work.
#if defined(__CUDACC__)
#define TR_HD_CALL __host__ __device__ __noinline__
#else
#define TR_HD_CALL inline __attribute__((noinline))
#endif

namespace topreach::kernels {

enum class CountFamily { kPoisson, kNB1, kNB2 };

struct CountModel {
  CountFamily family;
  bool softplus_link, zero_inflated;
  double dispersion, zero_logit;  // d and z; not read if the family has none
};

// v[i] is the coefficient of h^i, q[m][i] that of h^i times the m-th parameter (d, z); h = eta - eta_0.
template <int E, int Q>
struct Jet {
  double v[E + 1];
  double q[Q > 0 ? Q : 1][E];
};

template <int E, int Q>
TR_HD Jet<E, Q> jet_constant(double a) {
  Jet<E, Q> r{};
  r.v[0] = a;
  return r;
}

// The parameter of this index, at value a; a constant if Q = 0.
template <int E, int Q>
TR_HD Jet<E, Q> jet_parameter(double a, int index) {
  Jet<E, Q> r{};
  r.v[0] = a;
  if constexpr (Q > 0) r.q[index][0] = 1.0;
  return r;
}

template <int E, int Q>
TR_HD Jet<E, Q> operator+(Jet<E, Q> a, const Jet<E, Q>& b) {
  for (int i = 0; i <= E; ++i) a.v[i] += b.v[i];
  for (int m = 0; m < Q; ++m)
    for (int i = 0; i < E; ++i) a.q[m][i] += b.q[m][i];
  return a;
}

template <int E, int Q>
TR_HD Jet<E, Q> operator*(Jet<E, Q> a, double b) {
  for (int i = 0; i <= E; ++i) a.v[i] *= b;
  for (int m = 0; m < Q; ++m)
    for (int i = 0; i < E; ++i) a.q[m][i] *= b;
  return a;
}

template <int E, int Q>
TR_HD Jet<E, Q> operator-(const Jet<E, Q>& a, const Jet<E, Q>& b) {
  return a + b * -1.0;
}

template <int E, int Q>
TR_HD Jet<E, Q> operator+(Jet<E, Q> a, double b) {
  a.v[0] += b;
  return a;
}

template <int E, int Q>
TR_HD Jet<E, Q> operator*(const Jet<E, Q>& a, const Jet<E, Q>& b) {
  Jet<E, Q> r{};
  for (int i = 0; i <= E; ++i)
    for (int j = 0; i + j <= E; ++j) r.v[i + j] += a.v[i] * b.v[j];
  for (int m = 0; m < Q; ++m)
    for (int i = 0; i < E; ++i)
      for (int j = 0; i + j < E; ++j) r.q[m][i + j] += a.v[i] * b.q[m][j] + a.q[m][i] * b.v[j];
  return r;
}

// f(a) from the Taylor coefficients of f at a.v[0]: f, f', f''/2, f'''/6.
template <int E, int Q>
TR_HD Jet<E, Q> jet_compose(Jet<E, Q> a, double f0, double f1, double f2, double f3) {
  a.v[0] = 0.0;
  Jet<E, Q> r = jet_constant<E, Q>(E > 2 ? f3 : f2);
  if constexpr (E > 2) r = r * a + f2;
  r = r * a + f1;
  return r * a + f0;
}

template <int E, int Q>
TR_HD Jet<E, Q> jet_exp(const Jet<E, Q>& a) {
  const double e = exponential_of(a.v[0]);
  return jet_compose(a, e, e, e / 2, e / 6);
}

template <int E, int Q>
TR_HD Jet<E, Q> jet_log(const Jet<E, Q>& a) {
  const double inverse = 1.0 / a.v[0], square = inverse * inverse;
  return jet_compose(a, natural_log(a.v[0]), inverse, -square / 2, square * inverse / 3);
}

template <int E, int Q>
TR_HD Jet<E, Q> jet_inverse(const Jet<E, Q>& a) {
  const double r = 1.0 / a.v[0];
  return jet_compose(a, r, -r * r, r * r * r, -r * r * r * r);
}

template <int E, int Q>
TR_HD Jet<E, Q> jet_softplus(const Jet<E, Q>& a) {
  const double p = sigmoid_of(a.v[0]), w = p * sigmoid_of(-a.v[0]);
  return jet_compose(a, softplus_of(a.v[0]), p, w / 2, w * (1 - 2 * p) / 6);
}

// log(e^a + e^b)
template <int E, int Q>
TR_HD Jet<E, Q> jet_log_add(const Jet<E, Q>& a, const Jet<E, Q>& b) {
  return a.v[0] > b.v[0] ? a + jet_softplus(b - a) : b + jet_softplus(a - b);
}

// lgamma(n + y) - lgamma(n) for whole y >= 0 as a function of l = log n, so that n may underflow: its
// Taylor coefficients from p_j = n / (n + j), j < y, one by one to 16, then by Stirling's series.
template <int E, int Q>
TR_HD Jet<E, Q> jet_log_rising(const Jet<E, Q>& l, double y) {
  constexpr double kFirst = 16;
  if (!(y > 0)) return jet_constant<E, Q>(0);
  const double n = exponential_of(l.v[0]);
  const double direct = y < kFirst ? y : kFirst;
  double value = l.v[0], sum1 = 1, sum2 = 1, sum3 = 1, product = 1;  // j = 0: log n, p = 1
  int factors = 0;
  for (double j = 1; j < direct; ++j) {
    const double p = n / (n + j);
    product *= n + j;
    if (++factors == 3) {  // n < 1e100: the product cannot overflow
      value += natural_log(product);
      product = 1;
      factors = 0;
    }
    sum1 += p;
    sum2 += p * p;
    sum3 += p * p * p;
  }
  if (factors > 0) value += natural_log(product);
  if (y > kFirst) {
    const double b = n + kFirst, more = y - kFirst, a = b + more;
    // lgamma(a) - lgamma(b) with lgamma(x) = (x - 1/2) log x - x + R(x) + constant.
    value += (b - 0.5) * log1p_positive(more / b) + more * natural_log(a) - more +
             (stirling_remainder(a) - stirling_remainder(b));
    const double u = 1 / b, w = 1 / a;
    // sum 1 / (n + j)^k over j: differences of the polygamma functions, each a series in 1/x.
    const auto trigamma = [](double x) {
      const double z = x * x;
      return x * (1 + x / 2 + z / 6 - z * z * (1.0 / 30 - z * (1.0 / 42 - z / 30)));
    };
    const auto half_tetragamma = [](double x) {  // -psi''(1/x) / 2
      const double z = x * x;
      return z * (0.5 + x / 2 + z / 4 - z * z * (1.0 / 12 - z * (1.0 / 12 - z * 0.15)));
    };
    sum1 += n * digamma_difference(b, more);
    sum2 += n * n * (trigamma(u) - trigamma(w));
    sum3 += n * n * n * (half_tetragamma(u) - half_tetragamma(w));
  }
  return jet_compose(l, value, sum1, (sum1 - sum2) / 2, (sum1 - 3 * sum2 + 2 * sum3) / 6);
}

// Terms that log-probabilities at several counts share, for one linear predictor.
template <int E, int Q>
struct CountTerms {
  Jet<E, Q> log_size;     // log total_count; log rate for Poisson
  Jet<E, Q> log_failure;  // NegBin: total_count log(1 - p); Poisson: -rate
  Jet<E, Q> log_success;  // NegBin: log p; Poisson: log rate
  bool poisson;
};

template <int E, int Q>
TR_HD CountTerms<E, Q> count_terms(const CountModel& model, double eta, double log_exposure) {
  Jet<E, Q> h = jet_constant<E, Q>(eta);
  h.v[1] = 1.0;
  Jet<E, Q> log_mean = h;
  if (model.softplus_link) {
    // log softplus, which is eta - e^eta / 2 + 5 e^2eta / 24 where e^eta is small.
    if (eta < -16) {
      const double e = exponential_of(eta);
      log_mean = jet_compose(h, eta - e / 2, 1 - e / 2, -e / 4, -e / 12);
    } else {
      log_mean = jet_log(jet_softplus(h));
    }
  }
  log_mean = log_mean + log_exposure;
  if (model.family == CountFamily::kPoisson)
    return {log_mean, jet_exp(log_mean) * -1.0, log_mean, true};
  const Jet<E, Q> d = jet_parameter<E, Q>(model.dispersion, 0);
  const bool nb1 = model.family == CountFamily::kNB1;
  const Jet<E, Q> log_size = nb1 ? log_mean : d, logits = nb1 ? d : log_mean - d;
  return {log_size, jet_exp(log_size) * jet_softplus(logits) * -1.0,
          jet_softplus(logits * -1.0) * -1.0, false};
}

template <int E, int Q>
TR_HD Jet<E, Q> count_log_pmf(const CountTerms<E, Q>& terms, double y) {
  Jet<E, Q> r = terms.log_failure + terms.log_success * y + (-log_factorial(y));
  return terms.poisson ? r : r + jet_log_rising(terms.log_size, y);
}

// log P(low <= Y <= high): from the largest term outwards by the ratios of neighbours.
template <int E, int Q>
TR_HD Jet<E, Q> count_log_interval(const CountTerms<E, Q>& terms, double low, double high) {
  const Jet<E, Q> success = jet_exp(terms.log_success), size = jet_exp(terms.log_size);
  double mode = 0;
  if (terms.poisson) {
    mode = size.v[0];
  } else if (size.v[0] > 1) {
    // p / (1 - p) by its logarithm: log p - log(1 - p) = log p - log_failure / n.
    mode = (size.v[0] - 1) *
           exponential_of(terms.log_success.v[0] - terms.log_failure.v[0] / size.v[0]);
  }
  mode = mode < low ? low : (mode > high ? high : mode);
  const double start = mode < 9e15 ? double(int64_t(mode)) : mode;
  const double first = start < low ? low : start;
  Jet<E, Q> sum = jet_constant<E, Q>(1), term = sum;
  for (double y = first; y < high && term.v[0] > 1e-18 * sum.v[0]; ++y) {
    term = terms.poisson ? term * success : term * (size + y) * success;
    term = term * (1 / (y + 1));
    sum = sum + term;
  }
  term = jet_constant<E, Q>(1);
  const Jet<E, Q> inverse = first > low ? jet_inverse(success) : term;
  for (double y = first; y > low && term.v[0] > 1e-18 * sum.v[0]; --y) {
    term = terms.poisson ? term * inverse : term * jet_inverse(size + (y - 1)) * inverse;
    term = term * y;
    sum = sum + term;
  }
  return count_log_pmf(terms, first) + jet_log(sum);
}

// log P(low <= y <= high) of one observation; low = high is an exact count.
template <int E, int Q>
TR_HD_CALL Jet<E, Q> count_log_likelihood(const CountModel& model, double eta, double log_exposure,
                                          double low, double high) {
  const CountTerms<E, Q> terms = count_terms<E, Q>(model, eta, log_exposure);
  const Jet<E, Q> base =
      high > low ? count_log_interval(terms, low, high) : count_log_pmf(terms, low);
  if (!model.zero_inflated) return base;
  const Jet<E, Q> z = jet_parameter<E, Q>(model.zero_logit, 1);
  const Jet<E, Q> other = base - jet_softplus(z);  // log(1 - sigmoid(z)) = -softplus(z)
  return low > 0 ? other : jet_log_add(jet_softplus(z * -1.0) * -1.0, other);
}

}  // namespace topreach::kernels
