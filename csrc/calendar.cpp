#include "calendar.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>

#include "require.h"
#include "words.h"

namespace topreach {

namespace {

namespace ch = std::chrono;

// For numbers: how far a time may lie from a multiple of the step, in steps.
constexpr double kTolerance = 1e-6;
// Whole numbers up to here are exact in a double.
constexpr double kExact = 9007199254740992.0;
// Days from 1970-01-01 to -9999-01-01 and to 9999-12-31.
constexpr int64_t kFirstDay = -4371587, kLastDay = 2932896;
constexpr int64_t kDaySeconds = 86400;

constexpr std::array<const char*, 12> kMonths = {"January",   "February", "March",    "April",
                                                 "May",       "June",     "July",     "August",
                                                 "September", "October",  "November", "December"};
constexpr std::string_view kLetters = "YymdbBHMSqGV";

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

/// A date and the seconds since its midnight.
struct Moment {
  int64_t day;
  int64_t seconds;
};

Moment moment(double time) {
  const int64_t seconds = std::llround(time * double(kDaySeconds));
  const int64_t day = floor_div(seconds, kDaySeconds);
  return {day, seconds - day * kDaySeconds};
}

ch::year_month_day civil(int64_t day) { return ch::year_month_day(ch::sys_days(ch::days(day))); }

int64_t day_number(int64_t year, unsigned month, unsigned day) {
  return ch::sys_days(ch::year(int(year)) / ch::month(month) / ch::day(day))
      .time_since_epoch()
      .count();
}

unsigned last_day(int64_t year, unsigned month) {
  return unsigned((ch::year(int(year)) / ch::month(month) / ch::last).day());
}

int64_t months_in(const std::string& unit) {
  return unit == "month" ? 1 : unit == "quarter" ? 3 : unit == "year" ? 12 : 0;
}

int64_t seconds_in(const std::string& unit) {
  return unit == "hour" ? 3600 : unit == "day" ? kDaySeconds : unit == "week" ? 7 * kDaySeconds : 0;
}

int64_t month_number(const ch::year_month_day& date) {
  return int64_t(int(date.year())) * 12 + unsigned(date.month()) - 1;
}

unsigned last_day_of(const ch::year_month_day& date) {
  return last_day(int(date.year()), unsigned(date.month()));
}

// Monday is 0.
int64_t weekday(int64_t day) { return day + 3 - floor_div(day + 3, 7) * 7; }

struct IsoWeek {
  int64_t year;
  int64_t week;
};

// The ISO 8601 week of a day: weeks begin on Monday; week 1 has the year's first Thursday.
IsoWeek iso_week(int64_t day) {
  const int64_t thursday = day - weekday(day) + 3;
  const int64_t year = int(civil(thursday).year());
  return {year, (thursday - day_number(year, 1, 1)) / 7 + 1};
}

int64_t start_of_iso_week(int64_t year, int64_t week) {
  const int64_t fourth = day_number(year, 1, 4);
  return fourth - weekday(fourth) + 7 * (week - 1);
}

std::string year_text(int64_t year) {
  return fmt::format("{}{:04}", year < 0 ? "-" : "", std::abs(year));
}

std::string default_format(const std::string& unit) {
  return unit == "year"      ? "%Y"
         : unit == "quarter" ? "%YQ%q"
         : unit == "month"   ? "%Y-%m"
         : unit == "hour"    ? "%Y-%m-%d %H:%M"
                             : "%Y-%m-%d";
}

void check_time(const char* function, const char* argument, double time, bool dates) {
  TR_REQUIRE(std::isfinite(time), "{}: {} must be finite, got {}", function, argument, time);
  TR_REQUIRE(!dates || (time >= double(kFirstDay) && time < double(kLastDay + 1)),
             "{}: {} must be days since 1970-01-01 within the years -9999 to 9999, got {}",
             function, argument, time);
}

// Whether each time lies on the `day`-th of its month, or, in a shorter month, on its last day.
bool on_day(const std::vector<double>& times, unsigned day) {
  return std::ranges::all_of(times, [&](double t) {
    const Moment m = moment(t);
    const auto date = civil(m.day);
    return m.seconds == 0 && unsigned(date.day()) == std::min(day, last_day_of(date));
  });
}

// The greatest common divisor of gaps between numbers that are not whole: Euclid, up to rounding.
double common_step(const std::vector<double>& gaps, double rounding) {
  double step = gaps.front();
  for (double gap : gaps) {
    double a = std::max(step, gap), b = std::min(step, gap);
    const double least = kTolerance * b + rounding;
    while (b > least) {
      const double rest = std::fmod(a, b);
      a = b;
      b = rest > a - least ? 0.0 : rest;
    }
    step = a;
  }
  return step;
}

}  // namespace

// ---- making one --------------------------------------------------------------------------------

Calendar::Calendar(std::string unit, double step, double origin, std::string format)
    : unit_(std::move(unit)),
      step_(step),
      origin_(origin),
      format_(std::move(format)) {
  TR_REQUIRE(unit_ == "number" || seconds_in(unit_) > 0 || months_in(unit_) > 0,
             "Calendar: unit must be 'number', 'hour', 'day', 'week', 'month', 'quarter' or "
             "'year', got '{}'",
             unit_);
  TR_REQUIRE(step_ > 0 && std::isfinite(step_), "Calendar: step must be a number > 0, got {}",
             step_);
  TR_REQUIRE(!is_dates() || (step_ == std::floor(step_) && step_ <= 1e6),
             "Calendar: step must be a whole number from 1 to 1000000, got {}", step_);
  check_time("Calendar", "origin", origin_, is_dates());
  if (is_dates() && format_.empty()) format_ = default_format(unit_);
  for (size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') continue;
    ++i;
    if (i < format_.size() && (format_[i] == '-' || format_[i] == '^')) ++i;
    TR_REQUIRE(i < format_.size() && kLetters.find(format_[i]) != kLetters.npos,
               "Calendar: format must have only %-letters of {}, got '{}'", kLetters, format_);
  }
}

Calendar Calendar::infer(const std::vector<double>& times, bool dates, const std::string& unit,
                         const std::string& format) {
  constexpr const char* name = "Calendar.infer";
  TR_REQUIRE(!times.empty(), "{}: times must have at least one, got none", name);
  for (size_t i = 0; i < times.size(); ++i) {
    check_time(name, "times", times[i], dates);
    TR_REQUIRE(i == 0 || times[i] > times[i - 1], "{}: times must ascend, got {} after {}", name,
               times[i], times[i - 1]);
  }
  const size_t count = times.size();
  if (!dates) {
    if (count == 1) return {"number", 1.0, times.front(), ""};
    const double largest = std::max(std::abs(times.front()), std::abs(times.back()));
    double step = 0.0;
    if (largest < kExact &&
        std::ranges::all_of(times, [](double t) { return t == std::floor(t); })) {
      int64_t common = 0;
      for (size_t i = 1; i < count; ++i)
        common = std::gcd(common, int64_t(times[i]) - int64_t(times[i - 1]));
      step = double(common);
    } else {
      std::vector<double> gaps;
      for (size_t i = 1; i < count; ++i) gaps.push_back(times[i] - times[i - 1]);
      const double rounding = 4 * std::numeric_limits<double>::epsilon() * largest;
      const double least = *std::ranges::min_element(gaps);
      step = common_step(gaps, rounding);
      const double steps = std::round((times.back() - times.front()) / step);
      const auto bad = std::ranges::find_if(gaps, [&](double gap) {
        return std::abs(gap / step - std::round(gap / step)) > 1e-3 || step < least / 1000;
      });
      if (bad != gaps.end() || !std::isfinite(steps)) {
        const size_t i = bad == gaps.end() ? 0 : size_t(bad - gaps.begin());
        TR_REQUIRE(false,
                   "{}: times must be a whole number of equal periods apart, got {} and then {}",
                   name, number_text(times[i]), number_text(times[i + 1]));
      }
      step = (times.back() - times.front()) / steps;
    }
    return {"number", step, times.front(), ""};
  }

  // All months begin on the same day of the month, or on the last day.
  unsigned day = 1;
  for (double t : times) day = std::max(day, unsigned(civil(moment(t).day).day()));
  if (on_day(times, 31)) day = 31;
  const bool by_month = months_in(unit) > 0 || (unit.empty() && on_day(times, day));
  if (by_month) {
    TR_REQUIRE(on_day(times, day), "{}: times must lie on one day of the month, got days {} and {}",
               name, unsigned(civil(moment(times.front()).day).day()), day);
    int64_t common = 0;
    for (size_t i = 1; i < count; ++i)
      common = std::gcd(common, month_number(civil(moment(times[i]).day)) -
                                    month_number(civil(moment(times[i - 1]).day)));
    std::string found = unit;
    if (unit.empty())
      found = common > 0 && common % 12 == 0 ? "year" : common == 3 ? "quarter" : "month";
    const int64_t length = months_in(found);
    TR_REQUIRE(common % length == 0,
               "{}: times must be whole {}s apart, got times that are {} month(s) apart", name,
               found, common);
    const int64_t step = std::max<int64_t>(common / length, 1);
    // The origin: a period before the first, in a month that has that day.
    int64_t month = month_number(civil(moment(times.front()).day)), best = 0, origin = 0;
    for (int64_t back = 0; back <= 48; ++back) {
      const int64_t at = month - back * length * step, year = floor_div(at, 12);
      if (year < -9999) break;
      const int64_t most = std::min<int64_t>(day, last_day(year, unsigned(at - 12 * year + 1)));
      if (most > best) {
        best = most;
        origin = day_number(year, unsigned(at - 12 * year + 1), unsigned(most));
      }
    }
    return {found, double(step), double(origin), format};
  }

  int64_t common = 0;
  for (size_t i = 1; i < count; ++i) {
    const Moment a = moment(times[i - 1]), b = moment(times[i]);
    common = std::gcd(common, (b.day - a.day) * kDaySeconds + b.seconds - a.seconds);
  }
  std::string found = unit;
  if (unit.empty()) {
    found = count == 1 || common % kDaySeconds == 0 ? "day" : "hour";
    if (count > 1 && common % (7 * kDaySeconds) == 0) found = "week";
  }
  const int64_t length = seconds_in(found);
  TR_REQUIRE(length > 0, "{}: unit must be a unit of dates, got '{}'", name, found);
  TR_REQUIRE(common % length == 0,
             "{}: times must be whole {}s apart, got times that are {} seconds apart", name, found,
             common);
  return {found, double(std::max<int64_t>(common / length, 1)), times.front(), format};
}

// ---- counting ----------------------------------------------------------------------------------

int64_t Calendar::index(double time) const {
  check_time("Calendar.index", "time", time, is_dates());
  if (!is_dates()) {
    const double steps = (time - origin_) / step_, whole = std::round(steps);
    TR_REQUIRE(std::abs(whole) < kExact, "Calendar.index: time must be within 2^53 periods, got {}",
               time);
    const double rounding =
        4 * std::numeric_limits<double>::epsilon() * (std::abs(time) + std::abs(origin_)) / step_;
    TR_REQUIRE(std::abs(steps - whole) <= std::min(kTolerance + rounding, 0.25),
               "Calendar.index: time must be a whole number of periods of {} from {}, got {}",
               number_text(step_), number_text(origin_), number_text(time));
    return int64_t(whole);
  }
  const Moment now = moment(time), first = moment(origin_);
  const int64_t step = int64_t(step_);
  if (const int64_t months = months_in(unit_)) {
    const auto date = civil(now.day), start = civil(first.day);
    const unsigned begins = std::min(unsigned(start.day()), last_day_of(date));
    const int64_t early = unsigned(date.day()) < begins ||
                                  (unsigned(date.day()) == begins && now.seconds < first.seconds)
                              ? 1
                              : 0;
    return floor_div(month_number(date) - early - month_number(start), months * step);
  }
  const int64_t seconds = (now.day - first.day) * kDaySeconds + now.seconds - first.seconds;
  return floor_div(seconds, seconds_in(unit_) * step);
}

double Calendar::at(int64_t index) const {
  constexpr const char* name = "Calendar.at";
  if (!is_dates()) {
    TR_REQUIRE(std::abs(double(index)) < kExact, "{}: index must be within 2^53, got {}", name,
               index);
    return origin_ + double(index) * step_;
  }
  // No unit is shorter than an hour: more periods than this leave the range of dates.
  TR_REQUIRE(std::abs(double(index)) < 2e8,
             "{}: index must give a date within the years -9999 to 9999, got {}", name, index);
  const Moment first = moment(origin_);
  const int64_t step = int64_t(step_);
  double time = 0.0;
  if (const int64_t months = months_in(unit_)) {
    const auto start = civil(first.day);
    const int64_t month = month_number(start) + index * months * step, year = floor_div(month, 12);
    TR_REQUIRE(year >= -9999 && year <= 9999,
               "{}: index must give a date within the years -9999 to 9999, got {}", name, index);
    const unsigned in_year = unsigned(month - 12 * year + 1);
    time =
        double(day_number(year, in_year, std::min(unsigned(start.day()), last_day(year, in_year))));
    time += double(first.seconds) / double(kDaySeconds);
  } else {
    const int64_t seconds = first.seconds + index * seconds_in(unit_) * step;
    const int64_t days = floor_div(seconds, kDaySeconds);
    time = double(first.day + days) + double(seconds - days * kDaySeconds) / double(kDaySeconds);
  }
  check_time(name, "index", time, true);
  return time;
}

bool Calendar::begins(double time) const {
  check_time("Calendar.begins", "time", time, is_dates());
  if (is_dates()) {
    const Moment a = moment(at(index(time))), b = moment(time);
    return a.day == b.day && a.seconds == b.seconds;
  }
  try {
    index(time);
  } catch (const c10::ValueError&) {
    return false;
  }
  return true;
}

double Calendar::next(double time, int64_t n) const {
  TR_REQUIRE(std::abs(double(n)) < kExact, "Calendar.next: n must be within 2^53, got {}", n);
  return at(index(time) + n);
}

// ---- text --------------------------------------------------------------------------------------

std::string Calendar::label(double time) const {
  check_time("Calendar.label", "time", time, is_dates());
  if (!is_dates()) return number_text(time);
  const auto [day, seconds] = moment(time);
  const auto date = civil(day);
  const int64_t year = int(date.year());
  const unsigned month = unsigned(date.month());
  std::string text;
  for (size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') {
      text += format_[i];
      continue;
    }
    const char flag = format_[i + 1] == '-' || format_[i + 1] == '^' ? format_[++i] : ' ';
    const auto number = [&](int64_t value) {
      text += flag == '-' ? fmt::format("{}", value) : fmt::format("{:02}", value);
    };
    const auto name = [&](size_t letters) {
      std::string word = std::string(kMonths[month - 1]).substr(0, letters);
      if (flag == '^')
        for (char& c : word) c = char(std::toupper(static_cast<unsigned char>(c)));
      text += word;
    };
    switch (format_[++i]) {
      case 'Y': text += year_text(year); break;
      case 'y': number(year - floor_div(year, 100) * 100); break;
      case 'm': number(month); break;
      case 'd': number(unsigned(date.day())); break;
      case 'b': name(3); break;
      case 'B': name(16); break;
      case 'H': number(seconds / 3600); break;
      case 'M': number(seconds / 60 % 60); break;
      case 'S': number(seconds % 60); break;
      case 'q': text += fmt::format("{}", (month - 1) / 3 + 1); break;
      case 'G': text += year_text(iso_week(day).year); break;
      default: number(iso_week(day).week); break;
    }
  }
  return text;
}

double Calendar::parse(const std::string& text) const {
  const auto require = [&](bool good) {
    TR_REQUIRE(good, "Calendar.parse: time must be written as {}, got '{}'",
               is_dates() ? "'" + label(origin_) + "'" : "a number", text);
  };
  if (!is_dates()) {
    size_t used = 0;
    double value = 0.0;
    try {
      value = std::stod(text, &used);
    } catch (const std::exception&) {
      require(false);
    }
    require(used == text.size() && std::isfinite(value));
    return value;
  }
  int64_t year = 1970, iso_year = 0, week = 0, hours = 0, minutes = 0, seconds = 0;
  int64_t month = 1, day = 1;
  bool weekly = false;
  size_t at = 0;
  const auto digits = [&](size_t least, size_t most) {
    int64_t value = 0;
    size_t end = at;
    while (end < text.size() && end - at < most && text[end] >= '0' && text[end] <= '9')
      value = 10 * value + (text[end++] - '0');
    require(end - at >= least);
    at = end;
    return value;
  };
  const auto four = [&] {
    const bool negative = at < text.size() && text[at] == '-';
    if (negative) ++at;
    const int64_t value = digits(4, 4);
    return negative ? -value : value;
  };
  const auto word = [&](size_t letters) {
    for (size_t m = 0; m < kMonths.size(); ++m) {
      const std::string_view name = std::string_view(kMonths[m]).substr(0, letters);
      const std::string_view found = std::string_view(text).substr(std::min(at, text.size()));
      if (found.size() < name.size()) continue;
      const bool same = std::equal(name.begin(), name.end(), found.begin(), [](char a, char b) {
        return std::tolower(static_cast<unsigned char>(a)) ==
               std::tolower(static_cast<unsigned char>(b));
      });
      if (!same) continue;
      at += name.size();
      return int64_t(m + 1);
    }
    require(false);
    return int64_t(0);
  };
  for (size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') {
      require(at < text.size() && text[at] == format_[i]);
      ++at;
      continue;
    }
    const char flag = format_[i + 1] == '-' || format_[i + 1] == '^' ? format_[++i] : ' ';
    const size_t least = flag == '-' ? 1 : 2;
    switch (format_[++i]) {
      case 'Y': year = four(); break;
      case 'y':
        year = digits(least, 2);
        year += year < 69 ? 2000 : 1900;  // as POSIX strptime
        break;
      case 'm': month = digits(least, 2); break;
      case 'd': day = digits(least, 2); break;
      case 'b': month = word(3); break;
      case 'B': month = word(16); break;
      case 'H': hours = digits(least, 2); break;
      case 'M': minutes = digits(least, 2); break;
      case 'S': seconds = digits(least, 2); break;
      case 'q':
        month = digits(1, 1) * 3 - 2;
        require(month >= 1 && month <= 10);
        break;
      case 'G':
        iso_year = four();
        weekly = true;
        break;
      default: week = digits(least, 2); break;
    }
  }
  require(at == text.size() && hours < 24 && minutes < 60 && seconds < 60);
  int64_t number = 0;
  if (weekly) {
    require(week >= 1 && week <= 53);
    number = start_of_iso_week(iso_year, week);
    require(number >= kFirstDay && number <= kLastDay && iso_week(number).year == iso_year);
  } else {
    require(month >= 1 && month <= 12 && day >= 1 && day <= last_day(year, unsigned(month)));
    number = day_number(year, unsigned(month), unsigned(day));
  }
  return double(number) + double(hours * 3600 + minutes * 60 + seconds) / double(kDaySeconds);
}

int64_t Calendar::periods_per_year() const {
  const int64_t step = int64_t(step_);
  if (const int64_t months = months_in(unit_))
    return 12 % (months * step) == 0 ? 12 / (months * step) : 0;
  return unit_ == "week" && step == 1 ? 52 : 0;
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
  const bool same_step =
      is_dates() ? step_ == other.step_ : std::abs(step_ - other.step_) <= kTolerance * step_;
  TR_REQUIRE(unit_ == other.unit_ && same_step, "{}: periods must be as in training, {}, got {}",
             function, describe(), other.describe());
  const auto day_text = [&](double time) {
    return is_dates() ? Calendar("day", 1, 0).label(time) : number_text(time);
  };
  TR_REQUIRE(begins(other.origin_), "{}: periods must begin as in training, at {}, got {}",
             function, day_text(origin_), day_text(other.origin_));
}

}  // namespace topreach
