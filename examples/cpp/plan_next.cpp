// The plan for the next period with the model file model.pt, from what the model knows alone.
#include <topreach/topreach.h>

#include <iostream>

int main() {
  const auto ranker = topreach::Ranker::load("model.pt");
  for (const auto& id : ranker.plan_next().selected_ids()) std::cout << id << '\n';
}
