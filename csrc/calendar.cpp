#include "calendar.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <string_view>

#include "require.h"

namespace topreach {

namespace {

namespace ch = std::chrono;

constexpr double kTolerance = 1e-6;  // of a step, for numbers
constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<const char*, 12> kLongMonths = {
    "January", "February", "March",     "April",   "May",      "June",
    "July",    "August",   "September", "October", "November", "December"};
constexpr std::string_view kLetters = "YymdbBHMqGV";

ch::year_month_day civil(double days) {
  return ch::year_month_day(ch::sys_days(ch::days(int64_t(std::floor(days)))));
}

double days_of(int year, unsigned month, unsigned day) {
  return double(
      ch::sys_days(ch::year(year) / ch::month(month) / ch::day(day)).time_since_epoch().count());
}

int months_in(const std::string& unit) {
  return unit == "month" ? 1 : unit == "quarter" ? 3 : unit == "year" ? 12 : 0;
}

int64_t month_number(const ch::year_month_day& date) {
  return int64_t(int(date.year())) * 12 + unsigned(date.month()) - 1;
}

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

struct IsoWeek {
  int year;
  int week;
};

// The ISO 8601 week of a day: weeks begin on Monday; week 1 has the year's first Thursday.
IsoWeek iso_week(double days) {
  const int64_t day = int64_t(std::floor(days));
  const int64_t thursday = day - (day + 3 - floor_div(day + 3, 7) * 7) + 3;
  const int year = int(civil(double(thursday)).year());
  return {year, int((thursday - int64_t(days_of(year, 1, 1))) / 7) + 1};
}

double start_of_iso_week(int year, int week) {
  const int64_t fourth = int64_t(days_of(year, 1, 4));
  const int64_t monday = fourth - (fourth + 3 - floor_div(fourth + 3, 7) * 7);
  return double(monday + 7 * (week - 1));
}

std::string number_text(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? fmt::format("{}", int64_t(value))
                                                              : fmt::format("{}", value);
}

std::string default_format(const std::string& unit) {
  return unit == "year"      ? "%Y"
         : unit == "quarter" ? "%YQ%q"
         : unit == "month"   ? "%Y-%m"
                             : "%Y-%m-%d";
}

}  // namespace

Calendar::Calendar(std::string unit, double step, double origin, std::string format)
    : unit_(std::move(unit)),
      step_(step),
      origin_(origin),
      format_(std::move(format)) {
  TR_REQUIRE(
      unit_ == "number" || unit_ == "day" || unit_ == "week" || months_in(unit_) > 0,
      "Calendar: unit must be 'number', 'day', 'week', 'month', 'quarter' or 'year', got '{}'",
      unit_);
  TR_REQUIRE(step_ > 0 && std::isfinite(step_) && (!is_dates() || step_ == std::floor(step_)),
             "Calendar: step must be a {} > 0, got {}", is_dates() ? "whole number" : "number",
             step_);
  TR_REQUIRE(std::isfinite(origin_), "Calendar: origin must be finite, got {}", origin_);
  if (is_dates() && format_.empty()) format_ = default_format(unit_);
  for (size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') continue;
    TR_REQUIRE(i + 1 < format_.size() && kLetters.find(format_[i + 1]) != kLetters.npos,
               "Calendar: format must have only %-letters of {}, got '{}'", kLetters, format_);
    ++i;
  }
}

int64_t Calendar::index(double time) const {
  TR_REQUIRE(std::isfinite(time), "Calendar.index: time must be finite, got {}", time);
  if (!is_dates()) {
    const double steps = (time - origin_) / step_, whole = std::round(steps);
    TR_REQUIRE(std::abs(steps - whole) <= kTolerance * std::max(1.0, std::abs(whole)),
               "Calendar.index: time must be a whole number of periods of {} from {}, got {}",
               number_text(step_), number_text(origin_), number_text(time));
    return int64_t(whole);
  }
  if (const int months = months_in(unit_)) {
    const auto date = civil(time), first = civil(origin_);
    const int64_t early = unsigned(date.day()) < unsigned(first.day()) ? 1 : 0;
    return floor_div(month_number(date) - early - month_number(first), months * int64_t(step_));
  }
  const int64_t length = int64_t(step_) * (unit_ == "week" ? 7 : 1);
  return floor_div(int64_t(std::floor(time)) - int64_t(std::floor(origin_)), length);
}

double Calendar::at(int64_t index) const {
  if (!is_dates()) return origin_ + double(index) * step_;
  if (const int months = months_in(unit_)) {
    const auto first = civil(origin_);
    const int64_t month = month_number(first) + index * months * int64_t(step_);
    const int64_t year = floor_div(month, 12);
    const auto last = ch::year_month_day_last(
        ch::year(int(year)), ch::month_day_last(ch::month(unsigned(month - 12 * year + 1))));
    return days_of(int(year), unsigned(month - 12 * year + 1),
                   std::min(unsigned(first.day()), unsigned(last.day())));
  }
  return std::floor(origin_) + double(index) * step_ * (unit_ == "week" ? 7 : 1);
}

Calendar Calendar::infer(const std::vector<double>& times, bool dates, const std::string& unit,
                         const std::string& format) {
  constexpr const char* name = "Calendar.infer";
  TR_REQUIRE(!times.empty(), "{}: times must have at least one, got none", name);
  for (size_t i = 1; i < times.size(); ++i) {
    TR_REQUIRE(times[i] > times[i - 1], "{}: times must ascend, got {} after {}", name, times[i],
               times[i - 1]);
  }
  if (!dates) {
    // Euclid's algorithm on the gaps, up to rounding.
    double step = 0.0;
    for (size_t i = 1; i < times.size(); ++i) {
      double a = times[i] - times[i - 1];
      const double least = kTolerance * std::max({std::abs(times.back()), a, 1e-300});
      while (a > least) {
        const double rest = step == 0.0 ? 0.0 : std::fmod(step, a);
        step = a;
        a = rest > step - least ? 0.0 : rest;
      }
      TR_REQUIRE(step > 4 * least || i == 1,
                 "{}: times must be a whole number of equal periods apart, got {} and then {}",
                 name, times[i - 1], times[i]);
    }
    return {"number", step == 0.0 ? 1.0 : step, times.front(), ""};
  }
  const auto fits_months = [&] {
    const unsigned day = unsigned(civil(times.front()).day());
    return std::ranges::all_of(
        times, [&](double t) { return t == std::floor(t) && unsigned(civil(t).day()) == day; });
  };
  int64_t common = 0;
  std::string found = unit;
  if (months_in(unit) > 0 || (unit.empty() && fits_months())) {
    for (size_t i = 1; i < times.size(); ++i)
      common = std::gcd(common, month_number(civil(times[i])) - month_number(civil(times[i - 1])));
    if (unit.empty())
      found = common % 12 == 0 && common > 0 ? "year" : common == 3 ? "quarter" : "month";
    const int64_t length = months_in(found);
    TR_REQUIRE(
        common % length == 0,
        "{}: times must be whole {}s apart, got a gap that is a multiple of {} month(s) only", name,
        found, common);
    return {found, double(std::max<int64_t>(common / length, 1)), times.front(), format};
  }
  for (size_t i = 1; i < times.size(); ++i)
    common = std::gcd(common, int64_t(std::floor(times[i])) - int64_t(std::floor(times[i - 1])));
  if (unit.empty()) found = common > 0 && common % 7 == 0 ? "week" : "day";
  const int64_t length = found == "week" ? 7 : 1;
  TR_REQUIRE(common % length == 0, "{}: times must be whole weeks apart, got a gap of {} days",
             name, common);
  return {found, double(std::max<int64_t>(common / length, 1)), times.front(), format};
}

std::string Calendar::label(double time) const {
  if (!is_dates()) return number_text(time);
  const auto date = civil(time);
  const int year = int(date.year());
  const unsigned month = unsigned(date.month());
  std::string text;
  for (size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') {
      text += format_[i];
      continue;
    }
    const int64_t seconds = int64_t(std::llround((time - std::floor(time)) * 86400));
    switch (format_[++i]) {
      case 'Y': text += fmt::format("{:04}", year); break;
      case 'y': text += fmt::format("{:02}", ((year % 100) + 100) % 100); break;
      case 'm': text += fmt::format("{:02}", month); break;
      case 'd': text += fmt::format("{:02}", unsigned(date.day())); break;
      case 'b': text += kMonths[month - 1]; break;
      case 'B': text += kLongMonths[month - 1]; break;
      case 'H': text += fmt::format("{:02}", seconds / 3600); break;
      case 'M': text += fmt::format("{:02}", seconds / 60 % 60); break;
      case 'q': text += fmt::format("{}", (month - 1) / 3 + 1); break;
      case 'G': text += fmt::format("{:04}", iso_week(time).year); break;
      default: text += fmt::format("{:02}", iso_week(time).week); break;
    }
  }
  return text;
}

double Calendar::parse(const std::string& text) const {
  const auto fail = [&] {
    TR_REQUIRE(false, "Calendar.parse: time must be written as {}, got '{}'",
               is_dates() ? "'" + label(origin_) + "'" : "a number", text);
  };
  if (!is_dates()) {
    size_t used = 0;
    double value = 0.0;
    try {
      value = std::stod(text, &used);
    } catch (const std::exception&) {
      fail();
    }
    if (used != text.size() || !std::isfinite(value)) fail();
    return value;
  }
  int year = 1970, iso_year = 0, week = 0, hours = 0, minutes = 0;
  unsigned month = 1, day = 1;
  size_t at = 0;
  const auto digits = [&](size_t most) {
    size_t end = at;
    while (end < text.size() && end - at < most && text[end] >= '0' && text[end] <= '9') ++end;
    if (end == at) fail();
    const int value = std::stoi(text.substr(at, end - at));
    at = end;
    return value;
  };
  const auto word = [&](const std::array<const char*, 12>& names) {
    for (size_t m = 0; m < names.size(); ++m) {
      const std::string_view name = names[m];
      if (std::string_view(text).substr(at, name.size()) == name) {
        at += name.size();
        return unsigned(m + 1);
      }
    }
    fail();
    return 0u;
  };
  for (size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') {
      if (at >= text.size() || text[at] != format_[i]) fail();
      ++at;
      continue;
    }
    switch (format_[++i]) {
      case 'Y': year = digits(4); break;
      case 'y': {
        const int two = digits(2);
        year = two + (two < 69 ? 2000 : 1900);  // as POSIX strptime
        break;
      }
      case 'm': month = unsigned(digits(2)); break;
      case 'd': day = unsigned(digits(2)); break;
      case 'b': month = word(kMonths); break;
      case 'B': month = word(kLongMonths); break;
      case 'H': hours = digits(2); break;
      case 'M': minutes = digits(2); break;
      case 'q': month = unsigned(digits(1) * 3 - 2); break;
      case 'G': iso_year = digits(4); break;
      default: week = digits(2); break;
    }
  }
  if (at != text.size()) fail();
  if (iso_year > 0) {
    if (week < 1 || week > 53) fail();
    const double start = start_of_iso_week(iso_year, week);
    if (iso_week(start).year != iso_year) fail();
    return start;
  }
  const ch::year_month_day date{ch::year(year), ch::month(month), ch::day(day)};
  if (!date.ok() || hours > 23 || minutes > 59) fail();
  return days_of(year, month, day) + (hours * 60 + minutes) / 1440.0;
}

int64_t Calendar::periods_per_year() const {
  const int64_t step = int64_t(step_);
  if (const int months = months_in(unit_))
    return 12 % (months * step) == 0 ? 12 / (months * step) : 0;
  if (unit_ == "week") return step == 1 ? 52 : 0;
  return 0;
}

std::string Calendar::describe() const {
  if (!is_dates()) return "numbers, " + number_text(step_) + " apart";
  const std::string several =
      step_ == 1 ? unit_ + "s" : number_text(step_) + " " + unit_ + "s apart";
  return several + ", as " + label(origin_);
}

void Calendar::check_same(const char* function, const Calendar& other) const {
  TR_REQUIRE(is_dates() == other.is_dates(),
             "{}: times must be {} as in training ({}), got {} ({})", function,
             is_dates() ? "dates" : "numbers", describe(), other.is_dates() ? "dates" : "numbers",
             other.describe());
  TR_REQUIRE(unit_ == other.unit_ && step_ == other.step_,
             "{}: periods must be as in training, {}, got {}", function, describe(),
             other.describe());
  TR_REQUIRE(at(index(other.origin_)) == other.origin_ || !is_dates(),
             "{}: periods must begin as in training, at {}, got {}", function, label(origin_),
             label(other.origin_));
  index(other.origin_);
}

}  // namespace topreach
