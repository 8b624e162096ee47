// A plan: which sites to act on in one period, and how it was found.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace topreach {

struct PlannedSite {
  std::string site;
  int64_t index = 0;   // row of the site in the table ranked
  double score = 0.0;  // the score that ranks the site, times its effect; -inf for a closed site
  std::optional<double> expected_count;  // none for models that give scores
  std::optional<double> chance_top_k;  // chance that the site is in the best plan; none for scores
  int64_t rank = 0;                    // from 1
  bool selected = false;
};

struct Plan {
  double time = 0.0;               // the period planned for, as the calendar counts it
  std::string period;              // the same, as the user's table writes it
  std::string data_until;          // the last period before it whose counts are known; "" for none
  int64_t periods_ahead = 0;       // from data_until to the period planned for; 0: no counts known
  bool learnt = false;             // whether the model has learned from the period itself
  std::vector<PlannedSite> sites;  // all sites, best first

  std::string program;               // "TopK(k=100)"
  double value = 0.0;                // of the selected sites, in the unit of the scores
  std::optional<double> bound, gap;  // of a program that is solved by search
  std::string status = "optimal";    // or "feasible", "heuristic", "infeasible": see Solution
  std::string model, model_digest;   // of the model file; "" for a model that was never saved
  std::vector<std::string> notes;    // what the plan could not know, a sentence each

  std::vector<std::string> selected_ids() const {
    std::vector<std::string> ids;
    for (const PlannedSite& place : sites)
      if (place.selected) ids.push_back(place.site);
    return ids;
  }
};

}  // namespace topreach
