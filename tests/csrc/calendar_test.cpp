// Calendar: periods are counted, labelled and read back according to the Gregorian calendar and ISO 8601.
#include "../../csrc/calendar.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace {

using topreach::Calendar;

constexpr double k2012 = 15340;  // 2012-01-01, a Sunday

TEST(Calendar, QuartersAsInTheHeader) {
  const Calendar quarters("quarter", 1, k2012, "%YQ%q");
  EXPECT_EQ(quarters.label(quarters.next(quarters.parse("2022Q4"))), "2023Q1");
  EXPECT_EQ(quarters.distance(quarters.parse("2020Q1"), quarters.parse("2019Q3")), -2);
  EXPECT_EQ(quarters.periods_per_year(), 4);
  EXPECT_EQ(quarters.describe(), "quarters, as 2012Q1");
  EXPECT_THROW(quarters.parse("2022Q5"), c10::ValueError);
  EXPECT_THROW(quarters.parse("2022Q4 "), c10::ValueError);
}

// index(at(i)) = i, and any moment before at(i + 1) belongs to period i.
TEST(Calendar, PeriodsTileTheTime) {
  for (const char* unit : {"hour", "day", "week", "month", "quarter", "year"}) {
    for (double step : {1.0, 2.0, 5.0}) {
      for (double origin : {k2012, k2012 + 30, k2012 + 59.25}) {
        const Calendar calendar(unit, step, origin);
        for (int64_t i = -200; i < 200; ++i) {
          ASSERT_EQ(calendar.index(calendar.at(i)), i) << unit << step << origin;
          ASSERT_EQ(calendar.index(calendar.at(i + 1) - 1.0 / 86400), i) << unit << step << origin;
          ASSERT_TRUE(calendar.begins(calendar.at(i)));
          ASSERT_FALSE(calendar.begins(calendar.at(i) + 0.01));
        }
      }
    }
  }
}

TEST(Calendar, MonthEndsStayMonthEnds) {
  const Calendar day("day", 1, 0);
  std::vector<double> times;
  for (const char* text : {"2021-02-28", "2021-03-31", "2021-04-30"})
    times.push_back(day.parse(text));
  const Calendar months = Calendar::infer(times, true, "", "%Y-%m-%d");
  EXPECT_EQ(months.unit(), "month");
  EXPECT_EQ(months.label(months.next(times[2])), "2021-05-31");
  EXPECT_EQ(months.label(months.next(times[0], 36)), "2024-02-29");
}

TEST(Calendar, GapsDoNotLengthenTheStep) {
  const Calendar years = Calendar::infer({2012, 2013, 2016}, false);
  EXPECT_EQ(years.step(), 1);
  EXPECT_EQ(years.distance(2013, 2016), 3);
  EXPECT_EQ(Calendar::infer({2012, 2014, 2018}, false).step(), 2);
  // Seconds since 1970: the tolerance is relative to a step, not to the size of the times.
  EXPECT_EQ(Calendar::infer({1.6e9, 1.6e9 + 60, 1.6e9 + 180}, false).step(), 60);
  EXPECT_NEAR(Calendar::infer({0.1, 0.2, 0.30000000000000004, 0.5}, false).step(), 0.1, 1e-15);
}

TEST(Calendar, RefusesWhatIsOutOfRange) {
  EXPECT_THROW(Calendar("month", 1.5, 0), c10::ValueError);
  EXPECT_THROW(Calendar("number", 0, 0), c10::ValueError);
  EXPECT_THROW(Calendar("fortnight", 1, 0), c10::ValueError);
  EXPECT_THROW(Calendar("day", 1, 1e18), c10::ValueError);
  EXPECT_THROW(Calendar("day", 1, 0, "%j"), c10::ValueError);
  EXPECT_THROW(Calendar("day", 1, 0, "100%"), c10::ValueError);
  EXPECT_THROW(Calendar("year", 1, 0).at(1'000'000'000'000), c10::ValueError);
  EXPECT_THROW(Calendar("year", 1000000, 0).at(100'000'000), c10::ValueError);
  EXPECT_THROW(Calendar().index(0.5), c10::ValueError);
  EXPECT_THROW(Calendar().index(1e300), c10::ValueError);
  EXPECT_THROW(Calendar().next(0, INT64_MAX), c10::ValueError);
  EXPECT_THROW(Calendar::infer({}, false), c10::ValueError);
  EXPECT_THROW(Calendar::infer({2, 1}, false), c10::ValueError);
  EXPECT_THROW(Calendar::infer({0, 1, 3.14159}, false), c10::ValueError);
}

TEST(Calendar, KindsOfTimeDoNotMix) {
  const Calendar years, months("month", 1, k2012), quarters("quarter", 1, k2012);
  EXPECT_THROW(years.check_same("f", months), c10::ValueError);
  EXPECT_THROW(months.check_same("f", quarters), c10::ValueError);
  EXPECT_THROW(months.check_same("f", Calendar("month", 1, k2012 + 9)), c10::ValueError);
  EXPECT_NO_THROW(months.check_same("f", Calendar("month", 1, k2012 + 31, "%b-%y")));
  try {
    years.check_same("Ranker::rank", months);
  } catch (const c10::ValueError& error) {
    const std::string text = error.what_without_backtrace();
    EXPECT_EQ(text.rfind("Ranker::rank: times must be numbers as in training", 0), 0u) << text;
  }
}

}  // namespace
