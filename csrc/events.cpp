#include "events.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "../kernels/philox.h"
#include "require.h"

namespace topreach {

namespace {

constexpr const char* kName = "Events";

void check_names(const char* argument, const std::vector<std::string>& names) {
  std::unordered_set<std::string_view> seen;
  for (const std::string& name : names) {
    TR_REQUIRE(!name.empty() && name.find_first_of("\r\n") == name.npos,
               "{}: {} must be names on one line, got '{}'", kName, argument, name);
    TR_REQUIRE(seen.insert(name).second, "{}: {} must be distinct, got '{}' more than once", kName,
               argument, name);
  }
}

// Days; far below a second.
constexpr double kRounding = 1e-9;

void check_calendar(const char* function, const Calendar& calendar, const EventData& data) {
  TR_REQUIRE(calendar.is_dates() == data.dates,
             "{}: calendar must be of {} as the events' times are, got {}", function,
             data.dates ? "dates" : "numbers", calendar.describe());
}

/// Number of the period that a time lies in, also for numbers at which no period begins.
int64_t period_of(const Calendar& calendar, double time) {
  if (calendar.is_dates()) return calendar.index(time);
  return int64_t(std::floor((time - calendar.origin()) / calendar.step() + 1e-6));
}

void check_ascending(const char* function, const char* argument, const std::vector<double>& times) {
  for (size_t i = 0; i < times.size(); ++i) {
    TR_REQUIRE(std::isfinite(times[i]), "{}: {} must be finite, got {}", function, argument,
               times[i]);
    TR_REQUIRE(i == 0 || times[i] >= times[i - 1], "{}: {} must ascend, got {} after {}", function,
               argument, times[i], times[i - 1]);
  }
}

}  // namespace

CountBy count_by(const char* function, std::string_view name) {
  TR_REQUIRE(name == "place" || name == "type" || name == "node",
             "{}: by must be 'place', 'type' or 'node', got '{}'", function, name);
  return name == "place" ? CountBy::kPlace : name == "type" ? CountBy::kType : CountBy::kNode;
}

// ---- checks ------------------------------------------------------------------------------------

Events::Events(EventData data) : data_(std::move(data)) {
  const EventData& d = data_;
  const size_t n = d.times.size(), types = d.types.size(), marks = d.mark_names.size();
  TR_REQUIRE(!d.places.empty(), "{}: places must have at least one, got none", kName);
  TR_REQUIRE(!d.types.empty(), "{}: types must have at least one, got none", kName);
  check_names("places", d.places);
  check_names("types", d.types);
  check_names("mark_names", d.mark_names);
  check_names("ids", d.ids);
  TR_REQUIRE(d.ids.size() == n && d.place.size() == n,
             "{}: ids and place must have {} entries like times, got {} and {}", kName, n,
             d.ids.size(), d.place.size());
  TR_REQUIRE(d.flags.size() == n * types, "{}: flags must have {} x {} entries, got {}", kName, n,
             types, d.flags.size());
  TR_REQUIRE(d.marks.size() == n * marks, "{}: marks must have {} x {} entries, got {}", kName, n,
             marks, d.marks.size());
  TR_REQUIRE(std::isfinite(d.start), "{}: start must be finite, got {}", kName, d.start);
  TR_REQUIRE(d.complete_through > 0 && std::isfinite(d.complete_through),
             "{}: complete_through must come after the window's start, got {} after it", kName,
             d.complete_through);
  TR_REQUIRE(d.end >= d.complete_through && std::isfinite(d.end),
             "{}: end must not come before complete_through, got {} and {} after the start", kName,
             d.end, d.complete_through);
  check_ascending(kName, "times", d.times);
  TR_REQUIRE(n == 0 || d.times.back() <= d.end,
             "{}: times must not lie after the window's end, {} after its start, got {} (event "
             "'{}')",
             kName, d.end, d.times.back(), d.ids.back());
  for (size_t i = 0; i < n; ++i) {
    TR_REQUIRE(d.place[i] >= 0 && d.place[i] < num_places(),
               "{}: place must be from 0 to {}, got {} (event '{}')", kName, num_places() - 1,
               d.place[i], d.ids[i]);
    const uint8_t* flags = d.flags.data() + i * types;
    int64_t named = 0;
    for (size_t s = 0; s < types; ++s) {
      TR_REQUIRE(flags[s] <= 1, "{}: flags must be 0 or 1, got {} (event '{}', type '{}')", kName,
                 flags[s], d.ids[i], d.types[s]);
      named += flags[s];
    }
    TR_REQUIRE(named > 0, "{}: flags must name at least one type, got none (event '{}')", kName,
               d.ids[i]);
    for (size_t q = 0; q < marks; ++q) {
      TR_REQUIRE(std::isfinite(d.marks[i * marks + q]),
                 "{}: marks must be finite, got {} (event '{}', mark '{}')", kName,
                 d.marks[i * marks + q], d.ids[i], d.mark_names[q]);
    }
  }
}

// ---- counting ----------------------------------------------------------------------------------

NodeEvents Events::node_events() const {
  NodeEvents made;
  const int64_t types = num_types();
  for (int64_t n = 0; n < num_events(); ++n) {
    const uint8_t* flags = data_.flags.data() + n * types;
    const double share = 1.0 / double(std::count(flags, flags + types, uint8_t{1}));
    for (int64_t s = 0; s < types; ++s) {
      if (!flags[s]) continue;
      made.times.push_back(data_.times[size_t(n)]);
      made.node.push_back(data_.place[size_t(n)] * types + s);
      made.event.push_back(n);
      made.share.push_back(share);
    }
  }
  return made;
}

int64_t Events::width(CountBy by) const {
  return by == CountBy::kPlace ? num_places() : by == CountBy::kType ? num_types() : num_nodes();
}

void Events::add(int64_t event, CountBy by, int64_t* row) const {
  const int64_t place = data_.place[size_t(event)], types = num_types();
  if (by == CountBy::kPlace) {
    ++row[place];
    return;
  }
  const uint8_t* flags = data_.flags.data() + event * types;
  int64_t* first = by == CountBy::kType ? row : row + place * types;
  for (int64_t s = 0; s < types; ++s) first[s] += flags[s];
}

std::vector<int64_t> Events::counts(const std::vector<double>& edges, CountBy by) const {
  TR_REQUIRE(edges.size() >= 2, "Events.counts: edges must have at least two, got {}",
             edges.size());
  check_ascending("Events.counts", "edges", edges);
  const size_t blocks = edges.size() - 1;
  const size_t columns = size_t(width(by));
  std::vector<int64_t> made(blocks * columns, 0);
  for (size_t n = 0; n < data_.times.size(); ++n) {
    // The block (b_k, b_{k+1}] that the time lies in.
    const auto at = std::ranges::lower_bound(edges, data_.times[n]);
    if (at == edges.begin() || at == edges.end()) continue;
    add(int64_t(n), by, made.data() + size_t(at - edges.begin() - 1) * columns);
  }
  return made;
}

std::vector<int64_t> Events::counts_before(const std::vector<double>& times, CountBy by) const {
  check_ascending("Events.counts_before", "times", times);
  const size_t columns = size_t(width(by));
  std::vector<int64_t> made(times.size() * columns), now(columns, 0);
  size_t n = 0;
  for (size_t b = 0; b < times.size(); ++b) {
    for (; n < data_.times.size() && data_.times[n] < times[b]; ++n)
      add(int64_t(n), by, now.data());
    std::ranges::copy(now, made.begin() + int64_t(b * columns));
  }
  return made;
}

std::vector<double> Events::recent_rate(const std::vector<double>& times, double length,
                                        CountBy by) const {
  TR_REQUIRE(length > 0 && std::isfinite(length),
             "Events.recent_rate: days must be a finite number > 0, got {}", length);
  const double first = data_.times.empty() ? 0.0 : std::min(0.0, data_.times.front());
  std::vector<double> from;
  for (double time : times) from.push_back(std::max(time - length, first));
  const auto now = counts_before(times, by), before = counts_before(from, by);
  const size_t columns = size_t(width(by));
  std::vector<double> made;
  made.reserve(now.size());
  for (size_t b = 0; b < times.size(); ++b) {
    const double observed = std::max(times[b] - from[b], 0.0);
    double total = 0.0;
    for (size_t i = b * columns; i < (b + 1) * columns; ++i) total += double(now[i] - before[i]);
    const double mean = total > 0 ? total / double(columns) / observed : 1.0 / length;
    for (size_t i = b * columns; i < (b + 1) * columns; ++i)
      made.push_back(std::log((double(now[i] - before[i]) + 0.5) / (observed + 0.5 / mean)));
  }
  return made;
}

SharedTypes Events::shared_types(const std::vector<double>& times) const {
  check_ascending("Events.shared_types", "times", times);
  const size_t places = data_.places.size(), types = data_.types.size();
  std::vector<double> together(places * types * types, 0.0), events(places, 0.0);
  SharedTypes made;
  made.together.reserve(times.size() * together.size());
  made.events.reserve(times.size() * places);
  size_t n = 0;
  for (double time : times) {
    for (; n < data_.times.size() && data_.times[n] < time; ++n) {
      const uint8_t* flags = data_.flags.data() + n * types;
      const size_t place = size_t(data_.place[n]);
      double* own = together.data() + place * types * types;
      ++events[place];
      for (size_t s = 0; s < types; ++s) {
        if (!flags[s]) continue;
        for (size_t r = 0; r < types; ++r) own[s * types + r] += flags[r];
      }
    }
    made.together.insert(made.together.end(), together.begin(), together.end());
    made.events.insert(made.events.end(), events.begin(), events.end());
  }
  return made;
}

// ---- periods -----------------------------------------------------------------------------------

std::vector<double> Events::whole_periods(const Calendar& calendar) const {
  check_calendar("Events.whole_periods", calendar, data_);
  const double until = data_.start + data_.complete_through;
  std::vector<double> edges;
  for (int64_t i = period_of(calendar, data_.start); calendar.at(i) <= until + kRounding; ++i)
    if (calendar.at(i) >= data_.start - kRounding) edges.push_back(calendar.at(i) - data_.start);
  if (edges.size() < 2) edges.clear();
  return edges;
}

std::vector<double> Events::block_edges(const Calendar& calendar,
                                        const std::vector<double>& also) const {
  check_calendar("Events.block_edges", calendar, data_);
  const double end = data_.complete_through;
  std::vector<double> edges = {0.0, end};
  for (double time : also)
    if (time > 0 && time < end) edges.push_back(time);
  for (int64_t i = period_of(calendar, data_.start); calendar.at(i) < data_.start + end; ++i)
    if (calendar.at(i) > data_.start) edges.push_back(calendar.at(i) - data_.start);
  std::ranges::sort(edges);
  const auto repeated = std::ranges::unique(edges);
  edges.erase(repeated.begin(), repeated.end());
  return edges;
}

// ---- shifts ------------------------------------------------------------------------------------

uint64_t stable_hash(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (char c : text) {
    hash ^= uint8_t(c);
    hash *= 1099511628211u;
  }
  return hash;
}

double event_shift(std::string_view id) {
  const uint64_t hash = stable_hash(id);
  const auto words = kernels::philox4x32({uint32_t(hash), uint32_t(hash >> 32)}, {0, 0, 0, 0});
  return (double(words.x) + 0.5) / 4294967296.0;
}

}  // namespace topreach
