// Trains a linear scorer to choose K of S sites, directly for the reach of the choice. One of its
// inputs, the site's size, is unrelated to the counts, and the scorer has to learn to ignore it.
#include <topreach/topreach.h>
#include <torch/torch.h>

#include <cstdio>

int main() {
  constexpr int64_t kSites = 300, kTimes = 40, kWindow = 4, kBudget = 30;
  torch::manual_seed(0);

  // Counts of sites with different rates; the last W counts before each period; the useless input.
  const auto rate = torch::exp(torch::randn({kSites}));
  const auto counts = torch::poisson(rate.expand({kTimes, kSites}));
  const auto history = counts.unfold(0, kWindow, 1).narrow(0, 0, kTimes - kWindow);
  const auto target = counts.narrow(0, kWindow, kTimes - kWindow);
  const auto size = 5 * torch::randn({kSites, 1}).expand({kTimes - kWindow, kSites, 1});

  topreach::LinearScorer scorer(kWindow, /*num_features=*/1);
  torch::optim::Adam optimizer(scorer->parameters(), torch::optim::AdamOptions(0.05));
  const auto reach = [&] {
    torch::NoGradGuard no_grad;
    return topreach::bpr(scorer->forward(history, size), target, kBudget).mean().item<double>();
  };

  std::printf("BPR before: %.4f\n", reach());
  for (int step = 0; step < 200; ++step) {
    const auto scores = scorer->forward(history, size);
    const auto chosen = topreach::perturbed_topk(
        scores, kBudget, {.sigma = 0.5, .num_samples = 50, .estimator = "score_loo"});
    const auto loss = -topreach::soft_bpr(chosen, target, kBudget).mean();
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }
  std::printf("BPR after:  %.4f\n", reach());
}
