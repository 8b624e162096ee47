// The plan for the next period with the model file model.pt, without further data.
#include <topreach/topreach.h>

#include <iostream>

int main() {
  const auto ranker = topreach::Ranker::load("model.pt");
  for (const auto& id : ranker.plan_next().selected_ids()) std::cout << id << '\n';
}
