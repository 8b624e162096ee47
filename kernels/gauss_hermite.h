// Nodes and weights of Gauss-Hermite quadrature for the standard normal density:
//   integral f(z) phi(z) dz ~ sum_i w_i f(z_i),  sum_i w_i = 1,  exact for degree 2 n - 1
//
// The nodes are the eigenvalues of the symmetric tridiagonal matrix with zeros on the diagonal and
// sqrt(1), sqrt(2), ..., sqrt(n - 1) beside it (Golub and Welsch 1969). Each is found by bisection on
// the number of eigenvalues below a point (Sturm's sequence), which cannot miss one, to the last bit.
// w_i = 1 / sum_k p_k(z_i)^2 with the orthonormal polynomials p_0, ..., p_{n-1}.
// Cost O(60 n^2).
#pragma once

#include "special.h"

namespace topreach::kernels {

// How many of the nodes are below z.
inline int hermite_nodes_below(int n, double z) {
  int below = 0;
  double pivot = 1;  // of L D L' of the matrix less z
  for (int k = 0; k < n; ++k) {
    pivot = -z - (k > 0 ? k / pivot : 0.0);
    if (pivot == 0) pivot = -1e-300;
    below += pivot < 0;
  }
  return below;
}

// Fills nodes [n], ascending, and log_weights [n].
inline void gauss_hermite(int n, double* nodes, double* log_weights) {
  for (int i = 0; i < n; ++i) {
    double low = -2 * square_root(double(n)), high = -low;
    for (int step = 0; step < 200; ++step) {
      const double middle = 0.5 * (low + high);
      if (middle <= low || middle >= high) break;
      (hermite_nodes_below(n, middle) > i ? high : low) = middle;
    }
    nodes[i] = 0.5 * (low + high);
  }
  for (int i = 0; i < n / 2; ++i) {  // symmetric, to the bit
    const double z = 0.5 * (nodes[n - 1 - i] - nodes[i]);
    nodes[i] = -z;
    nodes[n - 1 - i] = z;
  }
  if (n % 2 == 1) nodes[n / 2] = 0;
  for (int i = 0; i < n; ++i) {
    double before = 0, p = 1, sum = 1;
    for (int k = 1; k < n; ++k) {
      const double next = (nodes[i] * p - square_root(k - 1.0) * before) / square_root(double(k));
      before = p;
      p = next;
      sum += p * p;
    }
    log_weights[i] = -natural_log(sum);
  }
}

}  // namespace topreach::kernels
