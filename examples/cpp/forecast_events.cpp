// Forecasts dated events by place.
//
//   forecast_events EVENTS.csv MODEL.pt
//
// EVENTS.csv: a file that Python's Events.to_csv wrote (docs/events.md). MODEL.pt: a point process fitted to
// the events, by topreach fit --events ... --model stemmed, or by
// TopKRanker(k, model="stemmed").fit(events).save(...).
//
// Prints for every place its events in the last 28 days of the window, and the events expected in the next
// period, with the chosen places first.
#include <topreach/topreach.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: forecast_events EVENTS.csv MODEL.pt\n");
    return 2;
  }
  const auto events = topreach::Events::read_csv(argv[1]);
  const auto ranker = topreach::Ranker::load(argv[2]);
  const double end = events.data().complete_through;
  const std::vector<int64_t> recent =
      events.counts({std::max(end - 28.0, 0.0), end}, topreach::CountBy::kPlace);
  const auto& places = events.data().places;
  const topreach::Plan plan = ranker.plan_next();
  std::printf("place,last_28_days,expected_%s,selected\n", plan.period.c_str());
  for (const auto& site : plan.sites) {
    const auto at = std::find(places.begin(), places.end(), site.site) - places.begin();
    if (size_t(at) == places.size()) {
      std::fprintf(stderr, "forecast_events: the events have no place '%s'\n", site.site.c_str());
      return 1;
    }
    std::printf("%s,%lld,%.9g,%d\n", site.site.c_str(), static_cast<long long>(recent[size_t(at)]),
                site.expected_count.value_or(0.0), int(site.selected));
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "forecast_events: %s\n", error.what());
  return 1;
}
