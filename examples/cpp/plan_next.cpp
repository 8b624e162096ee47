// Prints the sites to act at in the next period, from the model file model.pt alone.
#include <topreach/topreach.h>

#include <iostream>

int main() {
  const auto ranker = topreach::Ranker::load("model.pt");
  for (const auto& id : ranker.plan_next().selected_ids()) std::cout << id << '\n';
}
