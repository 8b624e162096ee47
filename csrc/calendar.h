// The calendar of a table: its periods are equally spaced numbers, or dates with a frequency.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace topreach {

/// The periods of a table. A time is a double: a number as it is, or for a date the days from
/// 1970-01-01 to the first moment of its period, by the table's own clock.
///
/// Units. "number": periods are `step` apart. "hour", "day", "week", "month", "quarter", "year": a
/// period is `step` such units long, and periods begin a whole number of them from `origin`. Months,
/// quarters and years begin on the origin's day of the month, or, in a shorter month, on its last
/// day: an origin of 31 January gives month ends.
///
/// Format. How times are written, in the table and by `label`: a strftime pattern of %Y %y %m %d
/// %b %B %H %M %S, %q (quarter 1-4), %G and %V (ISO year and week). "%-m" writes a number without its
/// leading zero, "%^b" a name in capitals. "" for numbers, or for the unit's usual form.
///
/// Dates lie in the years -9999 to 9999.
///
///   topreach::Calendar quarters("quarter", 1, 15340, "%YQ%q");  // 15340 days: 2012-01-01
///   quarters.label(quarters.next(quarters.parse("2022Q4")))     // 2023Q1
class Calendar {
 public:
  /// Numbers, one apart.
  Calendar() = default;
  /// Raises c10::ValueError for an unknown unit, a step that is not > 0 (whole, for dates), an origin
  /// that is no date, or a format with another %-letter.
  Calendar(std::string unit, double step, double origin, std::string format = "");

  /// Finds the calendar of distinct ascending times: its step is the largest of which all gaps are
  /// multiples. `dates`: whether the times are days since 1970-01-01. `unit`: "" to find it. With one
  /// time the step is 1 of `unit` (dates without a unit: a month; numbers: 1). Raises
  /// c10::ValueError, naming two times, if the gaps have no common step.
  static Calendar infer(const std::vector<double>& times, bool dates, const std::string& unit = "",
                        const std::string& format = "");

  const std::string& unit() const { return unit_; }
  double step() const { return step_; }
  double origin() const { return origin_; }
  const std::string& format() const { return format_; }
  bool is_dates() const { return unit_ != "number"; }

  /// Number of periods from the origin's period to that of `time`. A date may be any moment of its
  /// period. Raises c10::ValueError for a number at which no period begins, and for a time out of range.
  int64_t index(double time) const;
  /// First moment of the period with this number. Raises c10::ValueError if it is out of range.
  double at(int64_t index) const;
  /// Whether a period begins at `time`.
  bool begins(double time) const;
  /// Periods from a to b; negative if b is earlier.
  int64_t distance(double a, double b) const { return index(b) - index(a); }
  /// The time n periods later.
  double next(double time, int64_t n = 1) const;
  /// The time as the table writes it: "2023Q1".
  std::string label(double time) const;
  /// The time that `text` gives. Raises c10::ValueError if it does not follow the calendar's format.
  double parse(const std::string& text) const;
  /// Periods in a year (4, 12, 52, ...), or 0 if a year is not a whole number of periods.
  int64_t periods_per_year() const;
  /// "quarters, as 2023Q1" or "numbers, 1 apart", for messages.
  std::string describe() const;
  /// Raises c10::ValueError, naming `function`, unless `other` has the same kind of time: both
  /// numbers or both dates, same unit and step, and periods that begin at the same times.
  void check_same(const char* function, const Calendar& other) const;

  bool operator==(const Calendar& other) const = default;

 private:
  std::string unit_ = "number";
  double step_ = 1.0, origin_ = 0.0;
  std::string format_;
};

}  // namespace topreach
