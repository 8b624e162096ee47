#include "panel.h"

#include <torch/types.h>

#include <cmath>

#include "require.h"
#include "words.h"

namespace topreach {

namespace {

constexpr double kMostEvents = 16'777'216;  // 2^24: larger counts are not exact in float32

// What a format writes of a time, at its finest: "quarter", "week", "year", "month", or "" where that is a
// day, a clock time or nothing.
std::string finest(const std::string& format) {
  const auto has = [&](const char* letters) {
    for (size_t i = 0; i + 1 < format.size(); ++i) {
      if (format[i] != '%') continue;
      size_t at = i + 1;
      while (at + 1 < format.size() && (format[at] == '-' || format[at] == '^')) ++at;
      if (std::string(letters).find(format[at]) != std::string::npos) return true;
    }
    return false;
  };
  if (has("dHMS")) return "";
  if (has("q")) return "quarter";
  if (has("V")) return "week";
  if (has("mbB")) return "month";
  return has("Yy") ? "year" : "";
}

void check_shape(const char* function, const char* name, const torch::Tensor& value, int64_t rows,
                 int64_t sites, const char* letter) {
  if (!value.defined()) return;
  TR_REQUIRE(
      value.dim() == 2 && value.size(0) == rows && value.size(1) == sites,
      "{}: {} must have shape [{}, S] = [{}, {}], a row for each of the table's times, got {}",
      function, name, letter, rows, sites, value.sizes());
  TR_REQUIRE_TYPE(!value.is_complex(), "{}: {} must be real, got {}", function, name,
                  value.scalar_type());
}

}  // namespace

void check_panel(const char* function, const Panel& panel) {
  const int64_t sites = panel.num_sites(), past = int64_t(panel.history_times.size());
  check_shape(function, "y", panel.y, panel.num_times(), sites, "T");
  check_shape(function, "y_upper", panel.y_upper, panel.num_times(), sites, "T");
  check_shape(function, "exposure", panel.exposure, panel.num_times(), sites, "T");
  check_shape(function, "history", panel.history, past, sites, "H");
  check_shape(function, "history_exposure", panel.history_exposure, past, sites, "H");
  TR_REQUIRE(past == 0 || panel.history.defined(),
             "{}: history must be given, the counts of the {} history_times, got none", function,
             past);
  TR_REQUIRE(!panel.y_upper.defined() || panel.y.defined(),
             "{}: y must be given with y_upper, the least that counts can be, got none", function);
  for (const auto* times : {&panel.opened, &panel.closed})
    TR_REQUIRE(times->empty() || int64_t(times->size()) == sites,
               "{}: {} must be empty or have a time for each of the {} sites, got {}", function,
               times == &panel.opened ? "opened" : "closed", sites, times->size());
  const auto check_cells = [&](const torch::Tensor& value, const torch::Tensor& good,
                               const std::vector<double>& times, const char* name,
                               const std::string& rule) {
    const torch::Tensor wrong = good.logical_not();
    if (!wrong.any().item<bool>()) return;
    const torch::Tensor first = wrong.nonzero()[0].cpu();
    const int64_t t = first[0].item<int64_t>(), s = first[1].item<int64_t>();
    TR_REQUIRE(false, "{}: {} must {}, got {} for site '{}' in {}", function, name, rule,
               number_text(value[t][s].item<double>(), 9), panel.site_ids[size_t(s)],
               panel.calendar.label(times[size_t(t)]));
  };
  const auto check_counts = [&](const torch::Tensor& value, const std::vector<double>& times,
                                const char* name) {
    if (!value.defined()) return;
    const torch::Tensor y = value.is_floating_point() ? value : value.to(torch::kDouble);
    const torch::Tensor good = y.ge(0).logical_and(y.le(kMostEvents)).logical_and(y.eq(y.floor()));
    check_cells(
        y, good.logical_or(y.isnan()), times, name,
        fmt::format("hold whole numbers from 0 to {:.0f}, or NaN where a count is not known",
                    kMostEvents));
  };
  check_counts(panel.y, panel.times, "counts");
  check_counts(panel.y_upper, panel.times, "y_upper");
  check_counts(panel.history, panel.history_times, "history");
  if (panel.y_upper.defined())
    check_cells(
        panel.y_upper,
        panel.y_upper.ge(panel.y).logical_or(panel.y.isnan().logical_and(panel.y_upper.isnan())),
        panel.times, "y_upper", "be at least y, and known where that is");
}

void check_on_calendar(const char* function, const Calendar& fitted, const Panel& panel) {
  const std::string own = finest(panel.calendar.format());
  TR_REQUIRE(
      !fitted.is_dates() || own.empty() || own == fitted.unit() || own == finest(fitted.format()),
      "{}: times must be periods as in training ({}), got {}s ({}). Count the events by the "
      "periods of training first.",
      function, fitted.describe(), own, panel.calendar.describe());
  for (const auto* times : {&panel.history_times, &panel.times})
    for (const double time : *times) {
      TR_REQUIRE(std::isfinite(time), "{}: times must be finite, got {}", function, time);
      TR_REQUIRE(!fitted.is_dates() || fitted.begins(time),
                 "{}: times must begin a period of training ({}), got {}, within that of {}. Name "
                 "each period by its first day, as in training.",
                 function, fitted.describe(), Calendar("day", 1, 0, "%Y-%m-%d").label(time),
                 fitted.label(fitted.at(fitted.index(time))));
    }
}

}  // namespace topreach
