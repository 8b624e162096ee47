// Events: counts against their definitions by brute force; the text format written and read; refusals.
#include "../../csrc/events.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <vector>

namespace {

using topreach::CountBy;
using topreach::EventData;
using topreach::Events;

constexpr size_t kPlaces = 3, kTypes = 4, kNumber = 200;

// Times in tenths, so that many tie and many lie on edges.
EventData random_data() {
  std::mt19937_64 rng(7);
  EventData d;
  d.places = {"A", "O'Neil, \"East\"", "C"};
  d.types = {"u", "v", "w", "x,y"};
  d.mark_names = {"age"};
  for (size_t n = 0; n < kNumber; ++n) {
    d.ids.push_back("id " + std::to_string(n));
    d.times.push_back(double(int64_t(rng() % 130) - 30) / 10);
    d.place.push_back(int64_t(rng() % kPlaces));
    const size_t sure = rng() % kTypes;
    for (size_t s = 0; s < kTypes; ++s) d.flags.push_back(s == sure || rng() % 3 == 0);
    d.marks.push_back(double(rng()) / 3e18);
  }
  std::ranges::sort(d.times);
  d.complete_through = 9.0;
  d.end = 10.0;
  d.start = 15340.25;
  d.dates = true;
  return d;
}

template <typename Function>
std::string message(const Function& function) {
  try {
    function();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

int64_t contribution(const EventData& d, size_t n, CountBy by, size_t column) {
  const size_t place = size_t(d.place[n]);
  if (by == CountBy::kPlace) return place == column;
  if (by == CountBy::kType) return d.flags[n * kTypes + column];
  return place == column / kTypes && d.flags[n * kTypes + column % kTypes];
}

TEST(Events, CountsAreWhatTheirDefinitionSays) {
  const EventData d = random_data();
  const Events events(d);
  const std::vector<double> edges = {-0.5, 0.0, 1.1, 1.2, 5.0, 10.0};
  for (CountBy by : {CountBy::kPlace, CountBy::kType, CountBy::kNode}) {
    const size_t width = by == CountBy::kPlace ? kPlaces : by == CountBy::kType ? kTypes : 12;
    const auto counts = events.counts(edges, by), before = events.counts_before(edges, by);
    ASSERT_EQ(counts.size(), 5 * width);
    ASSERT_EQ(before.size(), 6 * width);
    for (size_t b = 0; b < edges.size(); ++b) {
      for (size_t column = 0; column < width; ++column) {
        int64_t in_block = 0, earlier = 0;
        for (size_t n = 0; n < kNumber; ++n) {
          const int64_t one = contribution(d, n, by, column);
          if (d.times[n] < edges[b]) earlier += one;
          if (b + 1 < edges.size() && d.times[n] > edges[b] && d.times[n] <= edges[b + 1])
            in_block += one;
        }
        EXPECT_EQ(before[b * width + column], earlier);
        if (b + 1 < edges.size()) {
          EXPECT_EQ(counts[b * width + column], in_block);
        }
      }
    }
  }
}

TEST(Events, SharedTypesCountEventsThatNameBoth) {
  const EventData d = random_data();
  const Events events(d);
  const std::vector<double> times = {-3.0, 0.0, 0.0, 2.5, 11.0};
  const auto shared = events.shared_types(times);
  for (size_t b = 0; b < times.size(); ++b) {
    for (size_t i = 0; i < kPlaces; ++i) {
      double any = 0;
      for (size_t n = 0; n < kNumber; ++n) any += size_t(d.place[n]) == i && d.times[n] < times[b];
      EXPECT_EQ(shared.events[b * kPlaces + i], any);
      for (size_t s = 0; s < kTypes; ++s) {
        for (size_t r = 0; r < kTypes; ++r) {
          double both = 0;
          for (size_t n = 0; n < kNumber; ++n)
            both += size_t(d.place[n]) == i && d.times[n] < times[b] && d.flags[n * kTypes + s] &&
                    d.flags[n * kTypes + r];
          EXPECT_EQ(shared.together[((b * kPlaces + i) * kTypes + s) * kTypes + r], both);
        }
      }
    }
  }
}

TEST(Events, AnEventIsAtEachOfItsNodesAndCountsOnce) {
  const EventData d = random_data();
  const auto nodes = Events(d).node_events();
  std::vector<double> shares(kNumber, 0.0);
  for (size_t i = 0; i < nodes.times.size(); ++i) {
    const size_t n = size_t(nodes.event[i]);
    shares[n] += nodes.share[i];
    EXPECT_EQ(nodes.times[i], d.times[n]);
    EXPECT_EQ(nodes.node[i] / int64_t(kTypes), d.place[n]);
    EXPECT_EQ(d.flags[n * kTypes + size_t(nodes.node[i]) % kTypes], 1);
  }
  EXPECT_EQ(nodes.times.size(), size_t(std::ranges::count(d.flags, 1)));
  EXPECT_TRUE(std::ranges::is_sorted(nodes.times));
  for (double share : shares) EXPECT_NEAR(share, 1.0, 1e-15);
}

TEST(Events, RecentRateByItsFormula) {
  const EventData d = random_data();
  const Events events(d);
  const std::vector<double> times = {-3.0, 0.0, 2.0, 9.0};
  constexpr double length = 4.0;
  const auto rate = events.recent_rate(times, length, CountBy::kNode);
  for (size_t b = 0; b < times.size(); ++b) {
    const double from = std::max(times[b] - length, d.times.front());
    std::vector<double> count(12, 0.0);
    double total = 0.0;
    for (size_t n = 0; n < kNumber; ++n) {
      if (d.times[n] < from || d.times[n] >= times[b]) continue;
      for (size_t s = 0; s < kTypes; ++s) {
        count[size_t(d.place[n]) * kTypes + s] += d.flags[n * kTypes + s];
        total += d.flags[n * kTypes + s];
      }
    }
    const double observed = times[b] - from, mean = total > 0 ? total / 12 / observed : 0.25;
    for (size_t u = 0; u < 12; ++u)
      EXPECT_NEAR(rate[b * 12 + u], std::log((count[u] + 0.5) / (observed + 0.5 / mean)), 1e-14);
  }
  EXPECT_THROW(events.recent_rate(times, 0.0, CountBy::kNode), c10::ValueError);
}

TEST(Events, PeriodsAndBlocks) {
  EventData d;
  d.places = {"A"};
  d.types = {"u"};
  d.start = 19737;  // 2024-01-15
  d.dates = true;
  d.complete_through = d.end = 148;  // to 11 June
  const topreach::Calendar months("month", 1, 0), years("year", 1, 0);
  using Edges = std::vector<double>;
  EXPECT_EQ(Events(d).whole_periods(months), (Edges{17, 46, 77, 107, 138}));
  EXPECT_EQ(Events(d).block_edges(months, {-1, 5.5, 46, 200}),
            (Edges{0, 5.5, 17, 46, 77, 107, 138, 148}));
  EXPECT_EQ(Events(d).whole_periods(years), Edges{});
  EXPECT_EQ(Events(d).block_edges(years), (Edges{0, 148}));
  d.complete_through = 138;  // a period that ends there is whole
  EXPECT_EQ(Events(d).whole_periods(months), (Edges{17, 46, 77, 107, 138}));
  EXPECT_EQ(Events(d).block_edges(months), (Edges{0, 17, 46, 77, 107, 138}));
  EXPECT_THROW(Events(d).whole_periods(topreach::Calendar()), c10::ValueError);
  d.dates = false;
  d.start = 0.5;
  d.complete_through = 2.75;
  const topreach::Calendar halves("number", 0.5, 0.5);
  EXPECT_EQ(Events(d).whole_periods(halves), (Edges{0, 0.5, 1, 1.5, 2, 2.5}));
  EXPECT_EQ(Events(d).block_edges(halves), (Edges{0, 0.5, 1, 1.5, 2, 2.5, 2.75}));
  EXPECT_THROW(Events(d).block_edges(months), c10::ValueError);
}

class EventsFile : public testing::Test {
 protected:
  void TearDown() override { std::remove(path_.c_str()); }
  void write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  std::string refusal() const {
    return message([&] { Events::read_csv(path_); });
  }

  std::string path_ = testing::TempDir() + "topreach_events.csv";
};

TEST_F(EventsFile, ReadsWhatItWrote) {
  const EventData d = random_data();
  Events(d).write_csv(path_);
  const EventData back = Events::read_csv(path_).data();
  EXPECT_EQ(back.places, d.places);
  EXPECT_EQ(back.types, d.types);
  EXPECT_EQ(back.mark_names, d.mark_names);
  EXPECT_EQ(back.ids, d.ids);
  EXPECT_EQ(back.times, d.times);  // to the bit
  EXPECT_EQ(back.place, d.place);
  EXPECT_EQ(back.flags, d.flags);
  EXPECT_EQ(back.marks, d.marks);
  EXPECT_EQ(back.complete_through, d.complete_through);
  EXPECT_EQ(back.end, d.end);
  EXPECT_EQ(back.start, d.start);
  EXPECT_EQ(back.dates, d.dates);
}

TEST_F(EventsFile, RefusalsNameTheLine) {
  const std::string head =
      "# topreach events 1\n# start 0 number\n# complete_through 4\n# end 4\n# place A\n";
  const std::string columns = "id,time,place,type:u,mark:age\n";
  write(head + columns + "1,0.5,A,1,2\r\n2,3,A,1,-1e-3\n");
  EXPECT_EQ(Events::read_csv(path_).num_events(), 2);
  write("id,time\n");
  EXPECT_NE(refusal().find("line 1"), std::string::npos) << refusal();
  write(head + "# colour red\n");
  EXPECT_NE(refusal().find("line 6 of"), std::string::npos) << refusal();
  write(head + columns + "1,soon,A,1,2\n");
  EXPECT_NE(refusal().find("hold a number, got 'soon'"), std::string::npos) << refusal();
  write(head + columns + "1,0.5,A,1,2\n2,0.6,B,1,2\n");
  EXPECT_NE(refusal().find("line 8"), std::string::npos) << refusal();
  write(head + columns + "1,0.5,A,yes,2\n");
  EXPECT_NE(refusal().find("0 or 1 for a type, got 'yes'"), std::string::npos) << refusal();
  write(head + columns + "1,0.5,A,1\n");
  EXPECT_NE(refusal().find("as many fields as the header"), std::string::npos) << refusal();
  write(head + columns + "1,0.5,\"A,1,2\n");
  EXPECT_NE(refusal().find("close its quotes"), std::string::npos) << refusal();
  write(head + "id,time,place,colour\n");
  EXPECT_NE(refusal().find("type:..., then mark:..., got 'colour'"), std::string::npos);
  write(head);
  EXPECT_NE(refusal().find("begin id,time,place"), std::string::npos) << refusal();
  write("");
  EXPECT_NE(refusal().find("table of events"), std::string::npos) << refusal();
}

TEST(Events, RefusalsNameTheEvent) {
  const auto refusal = [](auto change) {
    EventData d;
    d.places = {"A"};
    d.types = {"u", "v"};
    d.mark_names = {"age"};
    d.ids = {"first", "second"};
    d.times = {1, 2};
    d.place = {0, 0};
    d.flags = {1, 0, 0, 1};
    d.marks = {0.5, 0.25};
    d.complete_through = d.end = 3;
    change(d);
    return message([&] { Events made(d); });
  };
  const auto expect = [&](const char* wanted, auto change) {
    const std::string got = refusal(change);
    EXPECT_NE(got.find(wanted), std::string::npos) << got;
  };
  EXPECT_EQ(refusal([](EventData&) {}), "");
  expect("places must have at least one", [](EventData& d) { d.places.clear(); });
  expect("types must have at least one", [](EventData& d) { d.types.clear(); });
  expect("types must be distinct, got 'u'", [](EventData& d) { d.types[1] = "u"; });
  expect("places must be names on one line", [](EventData& d) { d.places[0] = "A\nB"; });
  expect("ids must be distinct, got 'first'", [](EventData& d) { d.ids[1] = "first"; });
  expect("times must ascend, got 1 after 3", [](EventData& d) { d.times = {3, 1}; });
  expect("times must be finite", [](EventData& d) { d.times[0] = NAN; });
  expect("got 3.5 (event 'second')", [](EventData& d) { d.times[1] = 3.5; });
  expect("place must be from 0 to 0, got 1 (event 'second')", [](EventData& d) { d.place[1] = 1; });
  expect("0 or 1, got 2 (event 'first', type 'v')", [](EventData& d) { d.flags[1] = 2; });
  expect("at least one type, got none (event 'second')", [](EventData& d) { d.flags[3] = 0; });
  expect("marks must be finite, got inf", [](EventData& d) { d.marks[0] = INFINITY; });
  expect("ids and place must have 2 entries", [](EventData& d) { d.place.pop_back(); });
  expect("flags must have 2 x 2 entries", [](EventData& d) { d.flags.pop_back(); });
  expect("marks must have 2 x 1 entries", [](EventData& d) { d.marks.pop_back(); });
  expect("after the window's start", [](EventData& d) { d.complete_through = 0; });
  expect("end must not come before", [](EventData& d) { d.end = 2.5; });
  const Events events(random_data());
  EXPECT_THROW(events.counts({1.0}, CountBy::kPlace), c10::ValueError);
  EXPECT_THROW(events.counts({1.0, 0.0}, CountBy::kPlace), c10::ValueError);
  EXPECT_THROW(events.counts_before({1.0, 0.0}, CountBy::kPlace), c10::ValueError);
  EXPECT_THROW(events.shared_types({NAN}), c10::ValueError);
  EXPECT_EQ(topreach::count_by("f", "node"), CountBy::kNode);
  EXPECT_THROW(topreach::count_by("f", "nodes"), c10::ValueError);
}

// FNV-1a's published values (Noll's test suite); shifts are uniform by Kolmogorov and Smirnov at 1e-3.
TEST(Events, ShiftsDependOnTheIdAlone) {
  EXPECT_EQ(topreach::stable_hash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(topreach::stable_hash("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(topreach::stable_hash("foobar"), 0x85944171f73967e8u);
  constexpr size_t n = 10000;
  std::vector<double> shifts;
  for (size_t i = 0; i < n; ++i) shifts.push_back(topreach::event_shift(std::to_string(i)));
  std::ranges::sort(shifts);
  double distance = 0.0;
  for (size_t i = 0; i < n; ++i)
    distance = std::max({distance, shifts[i] - double(i) / n, double(i + 1) / n - shifts[i]});
  EXPECT_LT(distance, 1.95 / std::sqrt(double(n)));
  EXPECT_GT(shifts.front(), 0.0);
  EXPECT_LT(shifts.back(), 1.0);
}

}  // namespace
